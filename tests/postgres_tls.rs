//! Encryption against real servers with certificates made for the test.
//!
//! Each mode is tried with a certificate that fits and with one that does not. The certificates come
//! from the `openssl` program; without it the tests are skipped, loudly, and fail under CI.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use tokio_postgres::SimpleQueryMessage;
use underpin_dialect::{DbError, DbResult, ErrorKind};
use underpin_postgres::connect::{Session, SessionSettings, connect};
use underpin_postgres::options::{FileSearch, resolve};
use underpin_tests::servers::{Flavor, Server, ServerSpec, sql, wanted};

/// A directory with two authorities, and server and client certificates of the first.
///
/// The server's is made out to `localhost` and to no address.
struct Certificates(TempDir);

impl Certificates {
    /// `None`, said on standard error, where there is no openssl.
    fn make() -> Option<Self> {
        if Command::new("openssl").arg("version").output().is_err() {
            assert!(std::env::var_os("CI").is_none(), "no openssl, and CI is set");
            eprintln!("SKIPPED: no openssl program");
            return None;
        }
        let all = Self(tempfile::tempdir().unwrap());
        // The server runs under another account where we are root.
        std::fs::set_permissions(all.0.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        for authority in ["ca", "other-ca"] {
            all.run(&format!(
                "req -x509 {NEW_KEY} -keyout {authority}.key -out {authority}.pem -days 30 \
                 -subj /CN={authority} -addext basicConstraints=critical,CA:TRUE"
            ));
        }
        // As the server's manual makes them: self-signed, and calling itself an authority.
        all.run(&format!(
            "req -x509 {NEW_KEY} -keyout alone.key -out alone.pem -days 30 -subj /CN=localhost \
             -addext subjectAltName=DNS:localhost"
        ));
        std::fs::write(all.path("server.ext"), "subjectAltName=DNS:localhost\n").unwrap();
        std::fs::write(all.path("client.ext"), "extendedKeyUsage=clientAuth\n").unwrap();
        for (name, subject) in [("server", "server"), ("client", "strict")] {
            all.run(&format!(
                "req {NEW_KEY} -keyout {name}.key -out {name}.csr -subj /CN={subject}"
            ));
            all.sign(name, name, &format!("{name}.ext"));
        }
        Some(all)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn at(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn sign(&self, request: &str, name: &str, extensions: &str) {
        self.run(&format!(
            "x509 -req -in {request}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 \
             -out {name}.pem -extfile {extensions}"
        ));
    }

    fn run(&self, words: &str) {
        let mut command = Command::new("openssl");
        command.args(words.split_whitespace()).current_dir(self.0.path());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {words}: {said}");
    }
}

const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

/// Who is let in how: `app` with a password, `strict` with a certificate, `open` without encryption only.
const HBA: &str = "local all all trust\n\
                   host all postgres all trust\n\
                   hostssl all strict all cert\n\
                   hostnossl all open all trust\n\
                   hostssl all closed all scram-sha-256\n\
                   host all app all scram-sha-256\n";

/// A server with the certificate of this name.
fn server(flavor: Flavor, certificates: &Certificates, name: &str) -> Server {
    let hba = certificates.path("pg_hba.conf");
    std::fs::write(&hba, HBA).unwrap();
    // The server takes a key only from itself or from root.
    let key = certificates.path(&format!("{name}-server.key"));
    std::fs::copy(certificates.path(&format!("{name}.key")), &key).unwrap();
    if std::fs::metadata(&key).unwrap().uid() == 0 {
        const NOBODY: u32 = 65_534;
        chown(&key, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    readable(&hba, 0o644);
    readable(&key, 0o600);
    for file in ["ca.pem", &format!("{name}.pem")] {
        readable(&certificates.path(file), 0o644);
    }
    let spec = ServerSpec::new(flavor)
        .option("ssl=on")
        .option(format!("ssl_ca_file={}", certificates.at("ca.pem")))
        .option(format!("ssl_cert_file={}", certificates.at(&format!("{name}.pem"))))
        .option(format!("ssl_key_file={}", key.display()))
        .option(format!("hba_file={}", hba.display()));
    let server = Server::start(&spec, false).unwrap();
    let roles = ["app", "strict", "open", "closed"];
    let make = |role| format!("CREATE ROLE {role} LOGIN PASSWORD 'x'");
    sql::execute(&server.url(), roles.map(make).to_vec()).unwrap();
    server
}

fn readable(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

async fn open(host: &str, port: u16, user: &str, parameters: &str) -> DbResult<Session> {
    let url = format!("postgres://{user}:x@{host}:{port}/postgres?{parameters}");
    let options = resolve(&url, &FileSearch::none(), &|_| None)?.options;
    connect(&options, &SessionSettings::default()).await
}

/// Whether the server knows the connection as encrypted.
async fn encrypted(session: Session) -> bool {
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let messages = session.client.simple_query(sql).await.unwrap();
    let ssl = messages
        .iter()
        .any(|message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("t")));
    assert_eq!(ssl, session.encrypted);
    session.close().await;
    ssl
}

fn assert_refused(result: DbResult<Session>, part: &str) -> DbError {
    let error = result.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
    assert!(error.to_string().contains(part), "{part:?} is missing in {error}");
    error
}

#[tokio::test]
async fn each_mode_looks_at_what_it_promises() {
    let Some(certificates) = Certificates::make() else { return };
    let ca = format!("sslrootcert={}", certificates.at("ca.pem"));
    let other = format!("sslrootcert={}", certificates.at("other-ca.pem"));
    for flavor in Flavor::POSTGRES_MATRIX {
        if !wanted(flavor) {
            continue;
        }
        let server = server(flavor, &certificates, "server");
        let port = server.port();
        let app = async |host: &str, parameters: &str| open(host, port, "app", parameters).await;

        for (parameters, expected) in [
            ("sslmode=disable".to_owned(), false),
            ("sslmode=allow".to_owned(), false),
            ("sslmode=prefer".to_owned(), true),
            ("sslmode=require".to_owned(), true),
            // A root certificate counts under every mode that encrypts.
            (format!("sslmode=require&{ca}"), true),
            // The name is not looked at: this certificate has no address.
            (format!("sslmode=verify-ca&{ca}"), true),
        ] {
            let session = app("127.0.0.1", &parameters).await;
            let session = session.unwrap_or_else(|error| panic!("{parameters}: {error}"));
            assert_eq!(encrypted(session).await, expected, "{} {parameters}", flavor.name());
        }
        let full = app("localhost", &format!("sslmode=verify-full&{ca}")).await.unwrap();
        assert!(encrypted(full).await);
        for mode in ["require", "verify-ca", "verify-full"] {
            let result = app("localhost", &format!("sslmode={mode}&{other}")).await;
            assert_refused(result, "not signed by an authority");
        }
        let wrong_name = app("127.0.0.1", &format!("sslmode=verify-full&{ca}")).await;
        assert_refused(wrong_name, "not made out to \"127.0.0.1\"");
        let public = app("localhost", "sslrootcert=system").await;
        assert_refused(public, "not signed by a public authority");
        // As libpq: where the chain does not hold, `prefer` goes on in the open.
        let fallen = app("localhost", &format!("sslmode=prefer&{other}")).await.unwrap();
        assert!(!encrypted(fallen).await);
    }
}

#[tokio::test]
async fn a_self_signed_certificate_is_its_own_authority() {
    let Some(certificates) = Certificates::make() else { return };
    let alone = format!("sslrootcert={}", certificates.at("alone.pem"));
    for flavor in Flavor::POSTGRES_MATRIX {
        if !wanted(flavor) {
            continue;
        }
        let server = server(flavor, &certificates, "alone");
        let app = async |host: &str, parameters: String| {
            open(host, server.port(), "app", &parameters).await
        };
        for (host, mode) in [("127.0.0.1", "verify-ca"), ("localhost", "verify-full")] {
            let session = app(host, format!("sslmode={mode}&{alone}")).await.unwrap();
            assert!(encrypted(session).await, "{mode}");
        }
        let wrong_name = app("127.0.0.1", format!("sslmode=verify-full&{alone}")).await;
        assert_refused(wrong_name, "not made out to");
        let ca = certificates.at("ca.pem");
        let other = app("localhost", format!("sslmode=verify-ca&sslrootcert={ca}")).await;
        assert_eq!(other.unwrap_err().kind, ErrorKind::Refused);
    }
}

#[tokio::test]
async fn the_modes_without_a_demand_try_the_other_way() {
    let Some(certificates) = Certificates::make() else { return };
    for flavor in Flavor::POSTGRES_MATRIX {
        if !wanted(flavor) {
            continue;
        }
        let server = server(flavor, &certificates, "server");
        let port = server.port();
        for (user, mode, expected) in [
            // Only let in without, or only with.
            ("open", "prefer", Some(false)),
            ("closed", "allow", Some(true)),
            ("open", "require", None),
            ("closed", "disable", None),
        ] {
            let result = open("localhost", port, user, &format!("sslmode={mode}")).await;
            match expected {
                Some(expected) => assert_eq!(encrypted(result.unwrap()).await, expected, "{user}"),
                None => {
                    let error = result.unwrap_err();
                    assert_eq!(error.kind, ErrorKind::AccessDenied, "{user} {mode}: {error}");
                }
            }
        }
    }
}

#[tokio::test]
async fn the_password_exchange_is_tied_to_the_encryption() {
    let Some(certificates) = Certificates::make() else { return };
    for flavor in Flavor::POSTGRES_MATRIX {
        if !wanted(flavor) {
            continue;
        }
        let server = server(flavor, &certificates, "server");
        let bound = "sslmode=require&channel_binding=require";
        let session = open("localhost", server.port(), "app", bound).await.unwrap();
        assert!(encrypted(session).await);
        // This role shows no password, so nothing is tied.
        let error = open("localhost", server.port(), "postgres", bound).await.unwrap_err();
        assert!(error.to_string().to_lowercase().contains("channel binding"), "{error}");
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_one_is_given() {
    let Some(certificates) = Certificates::make() else { return };
    let pair = format!(
        "sslcert={}&sslkey={}",
        certificates.at("client.pem"),
        certificates.at("client.key")
    );
    for flavor in Flavor::POSTGRES_MATRIX {
        if !wanted(flavor) {
            continue;
        }
        let server = server(flavor, &certificates, "server");
        let parameters = format!("sslmode=require&{pair}");
        let key = certificates.path("client.key");
        readable(&key, 0o600);
        let session = open("localhost", server.port(), "strict", &parameters).await.unwrap();
        session.close().await;
        let without = open("localhost", server.port(), "strict", "sslmode=require").await;
        let error = without.unwrap_err();
        assert_eq!(error.kind, ErrorKind::AccessDenied, "{error}");
        readable(&key, 0o644);
        let shared = open("localhost", server.port(), "strict", &parameters).await;
        assert_refused(shared, "chmod");
    }
}

#[tokio::test]
async fn a_server_without_encryption_is_refused_where_it_is_demanded() {
    for flavor in Flavor::POSTGRES_MATRIX {
        if !wanted(flavor) {
            continue;
        }
        let server = Server::start(&ServerSpec::new(flavor), false).unwrap();
        let role = "CREATE ROLE app LOGIN".to_owned();
        sql::execute(&server.url(), vec![role]).unwrap();
        let preferred = open("localhost", server.port(), "app", "sslmode=prefer").await.unwrap();
        assert!(!encrypted(preferred).await);
        let required = open("localhost", server.port(), "app", "sslmode=require").await;
        assert_refused(required, "The server offers no TLS");
        let bound = "sslmode=prefer&channel_binding=require";
        let error = open("localhost", server.port(), "app", bound).await.unwrap_err();
        assert!(!error.is_retryable(), "{error}");
    }
}
