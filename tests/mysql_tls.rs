//! Encryption against real servers with certificates made for the test.
//!
//! Each mode is tried with a certificate that fits and with one that does not. The certificates come
//! from the `openssl` program; without it the tests are skipped, loudly, and fail under CI.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

use std::path::{Path, PathBuf};
use std::process::Command;

use mysql_async::prelude::Queryable;
use tempfile::TempDir;
use underpin_dialect::{DbError, DbResult, ErrorKind};
use underpin_mysql::connect::{Session, SessionSettings, connect};
use underpin_mysql::mycnf::FileSearch;
use underpin_mysql::options::resolve;
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
        for authority in ["ca", "other-ca"] {
            all.run(&format!(
                "req -x509 {NEW_KEY} -keyout {authority}.key -out {authority}.pem -days 30 \
                 -subj /CN={authority} -addext basicConstraints=critical,CA:TRUE"
            ));
        }
        std::fs::write(all.path("server.ext"), "subjectAltName=DNS:localhost\n").unwrap();
        std::fs::write(all.path("address.ext"), "subjectAltName=IP:127.0.0.1,IP:::1\n").unwrap();
        std::fs::write(all.path("client.ext"), "extendedKeyUsage=clientAuth\n").unwrap();
        for name in ["server", "client"] {
            all.run(&format!("req {NEW_KEY} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
            all.sign(name, name, Some(&format!("{name}.ext")));
        }
        Some(all)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Signs `request.csr` as `name.pem`; without extensions that makes a version 1 certificate.
    fn sign(&self, request: &str, name: &str, extensions: Option<&str>) {
        let extensions = extensions.map(|file| format!("-extfile {file}")).unwrap_or_default();
        self.run(&format!(
            "x509 -req -in {request}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 \
             -out {name}.pem {extensions}"
        ));
    }

    fn run(&self, words: &str) {
        let mut command = Command::new("openssl");
        command.args(words.split_whitespace()).current_dir(self.0.path());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {words}: {said}");
    }

    fn text(&self, name: &str) -> String {
        let words = ["x509", "-noout", "-text", "-in", name];
        let output = Command::new("openssl").args(words).current_dir(self.0.path()).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }
}

const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

/// A server with the certificate, and accounts `app` (password `x`) and `strict` (client certificate).
fn server(flavor: Flavor, certificates: &Certificates) -> Server {
    let at = |name: &str| certificates.path(name).display().to_string();
    let spec = ServerSpec::new(flavor)
        .option(format!("ssl-ca={}", at("ca.pem")))
        .option(format!("ssl-cert={}", at("server.pem")))
        .option(format!("ssl-key={}", at("server.key")));
    let server = Server::start(&spec, false).unwrap();
    let accounts = [
        "CREATE USER app@'%' IDENTIFIED BY 'x'",
        "CREATE USER strict@'%' IDENTIFIED BY 'x' REQUIRE X509",
    ];
    sql::execute(&server.url(), accounts.map(str::to_owned).to_vec()).unwrap();
    server
}

async fn open(host: &str, port: u16, user: &str, parameters: &str) -> DbResult<Session> {
    let url = format!("mysql://{user}:x@{host}:{port}/?{parameters}");
    let options = resolve(&url, &FileSearch::none(), &|_| None).unwrap().options;
    connect(&options, &SessionSettings::default()).await
}

/// The cipher in use as the server knows it; empty where there is none.
async fn cipher(mut session: Session) -> String {
    let row: Option<(String, String)> =
        session.conn.query_first("SHOW SESSION STATUS LIKE 'Ssl_cipher'").await.unwrap();
    session.close().await;
    row.unwrap().1
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
    let ca = format!("ssl-ca={}", certificates.path("ca.pem").display());
    let other = format!("ssl-ca={}", certificates.path("other-ca.pem").display());
    for flavor in Flavor::ALL {
        if !wanted(flavor) {
            continue;
        }
        let server = server(flavor, &certificates);
        let port = server.port();
        let app = async |host: &str, parameters: &str| open(host, port, "app", parameters).await;

        let plain = app("127.0.0.1", "ssl-mode=disabled").await.unwrap();
        assert!(!plain.encrypted);
        assert_eq!(cipher(plain).await, "");
        for accepted in [
            ("127.0.0.1", "ssl-mode=preferred".to_owned()),
            ("127.0.0.1", "ssl-mode=required".to_owned()),
            // The name is not looked at: this certificate has no address.
            ("127.0.0.1", format!("ssl-mode=verify-ca&{ca}")),
            ("localhost", format!("ssl-mode=verify-ca&{ca}")),
            ("localhost", format!("ssl-mode=verify-identity&{ca}")),
        ] {
            let session = app(accepted.0, &accepted.1).await;
            let session = session.unwrap_or_else(|error| panic!("{accepted:?}: {error}"));
            assert!(session.encrypted);
            assert_ne!(cipher(session).await, "", "{} {accepted:?}", flavor.name());
        }
        for (mode, host) in [("verify-ca", "127.0.0.1"), ("verify-identity", "localhost")] {
            let result = app(host, &format!("ssl-mode={mode}&{other}")).await;
            assert_refused(result, "not signed by an authority");
        }
        let wrong_name = app("127.0.0.1", &format!("ssl-mode=verify-identity&{ca}")).await;
        assert_refused(wrong_name, "not made out to \"127.0.0.1\"");
        let public = app("localhost", "ssl-mode=verify-identity").await;
        assert_refused(public, "name its authority's certificate with ssl-ca");
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_one_is_given() {
    let Some(certificates) = Certificates::make() else { return };
    let at = |name: &str| certificates.path(name).display().to_string();
    let pair = format!("ssl-cert={}&ssl-key={}", at("client.pem"), at("client.key"));
    for flavor in Flavor::ALL {
        if !wanted(flavor) {
            continue;
        }
        let server = server(flavor, &certificates);
        let parameters = format!("ssl-mode=required&{pair}");
        let session = open("localhost", server.port(), "strict", &parameters).await.unwrap();
        session.close().await;
        let without = open("localhost", server.port(), "strict", "ssl-mode=required").await;
        let error = without.unwrap_err();
        assert_eq!(error.kind, ErrorKind::AccessDenied, "{error}");
    }
}

/// Signs another certificate for the server's key and makes the server take it up.
fn renew(server: &Server, certificates: &Certificates, extensions: Option<&str>) {
    certificates.sign("server", "server", extensions);
    let mariadb = server.flavor().is_mariadb();
    let reload = if mariadb { "FLUSH SSL" } else { "ALTER INSTANCE RELOAD TLS" };
    sql::execute(&server.url(), vec![reload.to_owned()]).unwrap();
}

#[tokio::test]
async fn an_address_can_be_an_identity() {
    let Some(certificates) = Certificates::make() else { return };
    let ca = format!("ssl-ca={}", certificates.path("ca.pem").display());
    let parameters = format!("ssl-mode=verify-identity&{ca}");
    for flavor in Flavor::ALL {
        if !wanted(flavor) {
            continue;
        }
        let server = server(flavor, &certificates);
        renew(&server, &certificates, Some("address.ext"));
        let session = open("127.0.0.1", server.port(), "app", &parameters).await.unwrap();
        assert!(session.encrypted);
        session.close().await;
        let by_name = open("localhost", server.port(), "app", &parameters).await;
        assert_refused(by_name, "not made out to \"localhost\"");
    }
}

#[tokio::test]
async fn a_certificate_that_cannot_be_read_never_leads_to_plaintext() {
    let Some(certificates) = Certificates::make() else { return };
    for flavor in Flavor::ALL {
        if !wanted(flavor) {
            continue;
        }
        let server = server(flavor, &certificates);
        // The server takes up a certificate of the old version 1, with the same key.
        renew(&server, &certificates, None);
        assert!(certificates.text("server.pem").contains("Version: 1 "));
        for mode in ["preferred", "required"] {
            let result = open("localhost", server.port(), "app", &format!("ssl-mode={mode}")).await;
            let error = assert_refused(result, "version 3");
            assert!(error.to_string().contains("ssl-mode=disabled"), "{error}");
        }
        certificates.sign("server", "server", Some("server.ext"));
    }
}

#[tokio::test]
async fn only_preferred_goes_on_without_tls() {
    for flavor in Flavor::ALL {
        if !wanted(flavor) {
            continue;
        }
        let off = if flavor.is_mariadb() { "skip-ssl" } else { "tls-version=" };
        let server = Server::start(&ServerSpec::new(flavor).option(off), false).unwrap();
        let account = "CREATE USER app@'%' IDENTIFIED BY 'x'".to_owned();
        sql::execute(&server.url(), vec![account]).unwrap();
        let session = open("localhost", server.port(), "app", "ssl-mode=preferred").await.unwrap();
        assert!(!session.encrypted);
        assert_eq!(cipher(session).await, "");
        let required = open("localhost", server.port(), "app", "ssl-mode=required").await;
        assert_refused(required, "The server offers no TLS");
        let wrong = format!("mysql://app:y@localhost:{}/", server.port());
        let options = resolve(&wrong, &FileSearch::none(), &|_| None).unwrap().options;
        let denied = connect(&options, &SessionSettings::default()).await.unwrap_err();
        assert_eq!(denied.kind, ErrorKind::AccessDenied, "{denied}");
    }
}

#[tokio::test]
async fn a_server_that_wants_encryption_says_so() {
    let Some(certificates) = Certificates::make() else { return };
    for flavor in Flavor::ALL {
        if !wanted(flavor) {
            continue;
        }
        let server = server(flavor, &certificates);
        let demand = "SET GLOBAL require_secure_transport = ON".to_owned();
        sql::execute(&server.url(), vec![demand]).unwrap();
        let error = open("localhost", server.port(), "app", "ssl-mode=disabled").await.unwrap_err();
        assert!(error.to_string().contains("ssl-mode=required"), "{error}");
        // A socket is secure transport by the server's own rule.
        let socket: &Path = &server.data_dir().join("server.sock");
        let parameters = format!("ssl-mode=required&socket={}", socket.display());
        open("", server.port(), "app", &parameters).await.unwrap().close().await;
    }
}
