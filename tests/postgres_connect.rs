//! Opening sessions on real servers: settings, roles, identity, standbys, poolers.
//!
//! Encryption is `postgres_tls`'s, cancelling `postgres_cancel`'s.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

use std::net::TcpListener;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio_postgres::SimpleQueryMessage;
use underpin_dialect::{DbResult, ErrorKind};
use underpin_postgres::Postgres;
use underpin_postgres::connect::{Session, SessionSettings, connect, connect_to};
use underpin_postgres::error::Doing;
use underpin_postgres::options::{ConnectOptions, FileSearch, resolve};
use underpin_tests::busy;
use underpin_tests::servers::{Flavor, Pair, Server, ServerSpec, TestDb, pg, shared, sql, wanted};

fn options(url: &str) -> ConnectOptions {
    resolve(url, &FileSearch::none(), &|_| None).unwrap().options
}

async fn session(url: &str) -> Session {
    connect(&options(url), &SessionSettings::default()).await.unwrap()
}

async fn try_session(url: &str) -> DbResult<Session> {
    connect(&options(url), &SessionSettings::default()).await
}

/// `postgres://postgres@127.0.0.1:PORT/` with other log-in data.
fn url_as(url: &str, login: &str) -> String {
    url.replace("postgres@", &format!("{login}@"))
}

async fn cell(session: &Session, statement: &str) -> String {
    let messages = session.client.simple_query(statement).await.unwrap();
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    row.unwrap().get(0).unwrap_or("NULL").to_owned()
}

#[tokio::test]
async fn a_session_knows_itself_and_its_server() {
    for flavor in Flavor::POSTGRES_MATRIX {
        let Some(db) = TestDb::new(flavor) else { continue };
        let session = session(&db.url()).await;
        assert_eq!(cell(&session, "SELECT pg_backend_pid()").await, session.id.pid.to_string());
        assert_eq!(session.identity.database, db.name());
        assert!(!session.identity.standby && !session.encrypted);
        assert!(session.identity.timeline >= 1 && session.identity.system_identifier > 0);
        let version = cell(&session, "SHOW server_version_num").await;
        assert_eq!(session.capabilities.version_num.to_string(), version);
        session.close().await;
    }
}

/// A server whose defaults would each break something for us.
fn hostile(flavor: Flavor) -> ServerSpec {
    ServerSpec::new(flavor)
        .option("default_transaction_isolation=serializable")
        .option("default_transaction_read_only=on")
        .option("timezone=Asia/Kolkata")
        .option("datestyle=German")
        .option("intervalstyle=iso_8601")
        .option("bytea_output=escape")
        .option("extra_float_digits=-3")
        .option("lock_timeout=77")
        .option("statement_timeout=5000")
        .option("idle_in_transaction_session_timeout=77")
        .option("idle_session_timeout=5000")
        .option("search_path=nowhere")
        .option("standard_conforming_strings=off")
        .option("transform_null_equals=on")
        .option("quote_all_identifiers=on")
        .option("row_security=on")
}

#[tokio::test]
async fn every_setting_holds_whatever_the_server_defaults_are() {
    for flavor in Flavor::POSTGRES_MATRIX {
        if !wanted(flavor) {
            continue;
        }
        let server = Server::start(&hostile(flavor), false).unwrap();
        let writable = "SET default_transaction_read_only = off";
        let statements = ["CREATE ROLE app LOGIN", "ALTER ROLE app SET client_encoding = 'LATIN1'"];
        let mut all = vec![writable.to_owned()];
        all.extend(statements.map(str::to_owned));
        sql::execute(&server.url(), all).unwrap();
        // An ordinary role: it may set nothing that wants a privilege.
        let url = format!("{}postgres", url_as(&server.url(), "app"));
        let session = session(&url).await;
        for (name, value) in [
            ("transaction_isolation", "read committed"),
            ("transaction_read_only", "off"),
            ("TimeZone", "UTC"),
            ("DateStyle", "ISO, MDY"),
            ("IntervalStyle", "postgres"),
            ("bytea_output", "hex"),
            ("lock_timeout", "1s"),
            ("statement_timeout", "0"),
            ("idle_in_transaction_session_timeout", "5min"),
            ("idle_session_timeout", "0"),
            ("search_path", "pg_catalog"),
            ("standard_conforming_strings", "on"),
            ("transform_null_equals", "off"),
            ("quote_all_identifiers", "off"),
            ("row_security", "off"),
            ("client_encoding", "UTF8"),
            ("application_name", "underpin"),
            ("client_connection_check_interval", "5s"),
            ("tcp_keepalives_idle", "30"),
            // Left alone.
            ("synchronous_commit", "on"),
        ] {
            assert_eq!(cell(&session, &format!("SHOW {name}")).await, value, "{}", flavor.name());
        }
        assert_eq!(cell(&session, "SELECT 0.1::float8 + 0.2").await, "0.30000000000000004");
        session.close().await;
    }
}

#[tokio::test]
async fn the_settings_of_the_url_reach_the_server() {
    let Some(db) = TestDb::new(Flavor::PostgresDistro) else { return };
    let url = format!("{}?application_name=mine&options=-c%20geqo%3Doff", db.url());
    let session = session(&url).await;
    assert_eq!(cell(&session, "SHOW application_name").await, "mine");
    assert_eq!(cell(&session, "SHOW geqo").await, "off");
    session.close().await;
}

#[tokio::test]
async fn a_primary_is_not_its_standby_nor_another_database() {
    for flavor in Flavor::POSTGRES_MATRIX {
        let Some(endpoints) = shared(flavor) else { continue };
        let Some(replica_url) = &endpoints.replica else { continue };
        let (primary_url, replica_url) =
            (format!("{}postgres", endpoints.primary), format!("{replica_url}postgres"));
        let settings = SessionSettings::default();
        let primary = session(&primary_url).await;
        let replica = session(&replica_url).await;
        assert!(replica.identity.standby);
        assert_eq!(primary.identity.system_identifier, replica.identity.system_identifier);

        let again = connect_to(&primary.identity, &options(&primary_url), &settings).await;
        assert!(again.is_ok(), "{again:?}");
        for other in [replica_url.clone(), format!("{}template1", endpoints.primary)] {
            let error =
                connect_to(&primary.identity, &options(&other), &settings).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Refused, "{error}");
        }
        let standby =
            Postgres::open(options(&replica_url), settings, "underpin".to_owned(), vec![]).await;
        let error = standby.unwrap_err();
        assert_eq!(error.kind, ErrorKind::ReadOnly);
        assert!(error.to_string().contains("connect to its primary"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_is_the_same_and_a_promoted_standby_is_not() {
    if !wanted(Flavor::PostgresDistro) {
        return;
    }
    let pair = Pair::start(&ServerSpec::new(Flavor::PostgresDistro)).unwrap();
    let url = format!("{}postgres", pair.primary.url());
    let before = session(&url).await;
    pair.primary.restart().unwrap();
    let settings = SessionSettings::default();
    let again = connect_to(&before.identity, &options(&url), &settings).await;
    assert!(again.is_ok(), "{again:?}");
    assert_ne!(again.unwrap().identity.started, before.identity.started);
    // The restart was seen as what it is: a lost connection, with the server's last word.
    let lost = before.client.simple_query("SELECT 1").await.doing("asking", "").unwrap_err();
    assert!(lost.is_connection_lost(), "{lost}");

    let replica_url = format!("{}postgres", pair.replica.url());
    pg::execute(&replica_url, vec!["SELECT pg_promote()".to_owned()]).unwrap();
    let promoted = connect_to(&before.identity, &options(&replica_url), &settings).await;
    let error = promoted.unwrap_err();
    assert!(error.to_string().contains("timeline 2"), "{error}");
}

#[tokio::test]
async fn a_password_gets_through_and_a_wrong_one_does_not() {
    for flavor in Flavor::POSTGRES_MATRIX {
        if !wanted(flavor) {
            continue;
        }
        let directory = tempfile::tempdir().unwrap();
        let server = server_with_passwords(flavor, directory.path());
        let url = format!("{}postgres", url_as(&server.url(), "app:p%2Fw%3A%40%25%C3%A4%20%27%22"));
        session(&url).await.close().await;
        for mode in ["disable", "prefer"] {
            let wrong = format!("{}postgres?sslmode={mode}", url_as(&server.url(), "app:s3cr3t"));
            let error = try_session(&wrong).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::AccessDenied, "{error}");
            assert_eq!(error.sqlstate.as_deref(), Some("28P01"), "{error}");
            assert!(!format!("{error} {error:?}").contains("s3cr3t"));
        }
        let none = format!("{}postgres", url_as(&server.url(), "app"));
        let error = try_session(&none).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::AccessDenied, "{error}");
        assert!(error.to_string().contains("No password was given"), "{error}");
        let locked_out = format!("{}postgres", url_as(&server.url(), "nobody_knows"));
        let error = try_session(&locked_out).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::AccessDenied, "{error}");
        let missing = url_as(&server.url(), "app:p%2Fw%3A%40%25%C3%A4%20%27%22") + "no_such";
        let error = try_session(&missing).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
    }
}

/// A server that wants a password of everybody but its superuser.
fn server_with_passwords(flavor: Flavor, directory: &std::path::Path) -> Server {
    use std::os::unix::fs::PermissionsExt;
    let hba = directory.join("pg_hba.conf");
    let lines =
        "local all all trust\nhost all postgres all trust\nhost all all all scram-sha-256\n";
    std::fs::write(&hba, lines).unwrap();
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&hba, std::fs::Permissions::from_mode(0o644)).unwrap();
    let spec = ServerSpec::new(flavor).option(format!("hba_file={}", hba.display()));
    let server = Server::start(&spec, false).unwrap();
    let role = "CREATE ROLE app LOGIN PASSWORD 'p/w:@%ä ''\"'".to_owned();
    sql::execute(&server.url(), vec![role]).unwrap();
    server
}

#[tokio::test]
async fn sockets_services_and_the_environment_lead_there_too() {
    if !wanted(Flavor::PostgresDistro) {
        return;
    }
    let server = Server::start(&ServerSpec::new(Flavor::PostgresDistro), false).unwrap();
    let directory = server.data_dir().display().to_string();
    let port = server.port().to_string();
    let home = tempfile::tempdir().unwrap();
    let text = format!("[lab]\nhost={directory}\nport={port}\nuser=postgres\ndbname=template1\n");
    std::fs::write(home.path().join(".pg_service.conf"), text).unwrap();
    let search = FileSearch { home: Some(home.path().to_owned()), ..FileSearch::none() };
    let by_environment = |name: &str| match name {
        "PGHOST" => Some("127.0.0.1".to_owned()),
        "PGPORT" => Some(port.clone()),
        "PGUSER" => Some("postgres".to_owned()),
        _ => None,
    };
    let encoded = directory.replace('/', "%2F");
    for (text, socket) in [
        (format!("postgres://postgres@{encoded}:{port}/template1?sslmode=require"), true),
        (format!("host={directory} port={port} user=postgres"), true),
        ("service=lab".to_owned(), true),
        ("postgres:///template1".to_owned(), false),
    ] {
        let found = resolve(&text, &search, &by_environment).unwrap();
        assert_eq!(found.options.is_socket(), socket, "{text}");
        let session = connect(&found.options, &SessionSettings::default()).await.unwrap();
        assert_eq!(session.identity.port, server.port());
        assert!(!session.encrypted);
        session.close().await;
    }
}

/// Stands between and greets with a number of its own, as poolers do. Gives its port and, once the client
/// has gone, all that it said.
async fn pooler(server_port: u16) -> (u16, JoinHandle<String>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = tokio::net::TcpStream::connect(("127.0.0.1", server_port)).await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let hears = tokio::spawn(async move {
            let mut said = Vec::new();
            let mut bytes = vec![0; 16 * 1024];
            while let Ok(count @ 1..) = from_client.read(&mut bytes).await {
                said.extend_from_slice(&bytes[..count]);
                to_server.write_all(&bytes[..count]).await.unwrap();
            }
            String::from_utf8_lossy(&said).into_owned()
        });
        let mut greeted = false;
        // Until the client hangs up.
        loop {
            let mut bytes = vec![0; 16 * 1024];
            let Ok(count @ 1..) = from_server.read(&mut bytes).await else { break };
            // The key's message: 'K', its length 12, the process's number, a secret.
            let key = bytes[..count].windows(5).position(|window| window == b"K\0\0\0\x0c");
            if let (false, Some(at)) = (greeted, key) {
                bytes[at + 5..at + 9].copy_from_slice(&7_u32.to_be_bytes());
                greeted = true;
            }
            if to_client.write_all(&bytes[..count]).await.is_err() {
                break;
            }
        }
        hears.await.unwrap()
    });
    (port, heard)
}

#[tokio::test]
async fn a_pooler_in_between_is_refused() {
    for flavor in Flavor::POSTGRES_MATRIX {
        let Some(db) = TestDb::new(flavor) else { continue };
        let (port, heard) = pooler(options(&db.url()).port).await;
        let url = format!("postgres://postgres@127.0.0.1:{port}/{}?sslmode=disable", db.name());
        let error = try_session(&url).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused, "{error}");
        assert!(error.to_string().contains("pooler"), "{error}");
        // Whatever had been set would be left to whoever gets that session next.
        let heard = heard.await.unwrap();
        assert!(heard.contains("pg_backend_pid") && !heard.contains("SET "), "{heard}");
    }
}

/// Passes everything on until it is aborted, which cuts the connection.
async fn wire(server_port: u16) -> (u16, JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let passing = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = tokio::net::TcpStream::connect(("127.0.0.1", server_port)).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    });
    (port, passing)
}

#[tokio::test]
async fn a_server_notices_a_lost_client_while_it_works() {
    for flavor in Flavor::POSTGRES_MATRIX {
        let Some(db) = TestDb::new(flavor) else { continue };
        let (port, wire) = wire(options(&db.url()).port).await;
        let url = format!("postgres://postgres@127.0.0.1:{port}/{}?sslmode=disable", db.name());
        let worker = session(&url).await;
        let pid = worker.id.pid;
        let long = tokio::spawn(async move {
            worker.client.batch_execute("SELECT pg_sleep(60)").await.doing("sleeping", "")
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        wire.abort();
        let error = long.await.unwrap().unwrap_err();
        assert!(error.is_connection_lost(), "{error}");
        let count = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
        sql::wait_until("the session is gone", Duration::from_secs(20), || {
            Ok(pg::first_value::<i64>(&db.url(), &count)? == Some(0))
        })
        .unwrap();
    }
}

#[tokio::test]
async fn where_nobody_answers_is_said_in_time() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    // It listens and says nothing: the greeting never comes.
    let silent = options(&format!("postgres://a@127.0.0.1:{port}/?connect_timeout=1"));
    let started = Instant::now();
    let error = connect(&silent, &SessionSettings::default()).await.unwrap_err();
    assert!(error.is_connection_lost() && error.to_string().contains("1000 ms"), "{error}");
    let allowed = busy::allows(started, Duration::from_secs(4));
    assert!(started.elapsed() < allowed, "{:?}", started.elapsed());
    drop(free);
    let error = connect(&silent, &SessionSettings::default()).await.unwrap_err();
    assert!(error.is_connection_lost(), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    let unknown = options("postgres://a@no-such-host.invalid/");
    let error = connect(&unknown, &SessionSettings::default()).await.unwrap_err();
    assert!(error.is_connection_lost() && error.to_string().contains("no-such-host"), "{error}");
}
