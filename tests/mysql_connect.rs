//! Opening sessions on real servers: settings, accounts, identity, role.
//!
//! Encryption is `mysql_tls`'s, cancelling `mysql_cancel`'s.
#![allow(clippy::unwrap_used)] // what cannot be had here fails the test

use std::net::TcpListener;
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use underpin_dialect::ErrorKind;
use underpin_mysql::connect::{
    Replication, Session, SessionSettings, connect, connect_to, server_role,
};
use underpin_mysql::mycnf::FileSearch;
use underpin_mysql::options::{ConnectOptions, resolve};
use underpin_tests::busy;
use underpin_tests::servers::{Flavor, Server, ServerSpec, TestDb, shared, sql, wanted};

fn options(url: &str) -> ConnectOptions {
    resolve(url, &FileSearch::none(), &|_| None).unwrap().options
}

async fn session(url: &str) -> Session {
    connect(&options(url), &SessionSettings::default()).await.unwrap()
}

/// `mysql://root@127.0.0.1:PORT/` with other log-in data.
fn url_as(url: &str, login: &str) -> String {
    url.replace("root@", &format!("{login}@"))
}

async fn variable(session: &mut Session, name: &str) -> String {
    let query = format!("SHOW SESSION VARIABLES LIKE '{name}'");
    let row: Option<(String, String)> = session.conn.query_first(query).await.unwrap();
    row.unwrap_or_else(|| panic!("no variable {name}")).1
}

#[tokio::test]
async fn a_session_knows_itself_and_its_server() {
    for flavor in Flavor::ALL {
        let Some(db) = TestDb::new(flavor) else { continue };
        let mut session = session(&db.url()).await;
        let row: Option<(u64, String)> =
            session.conn.query_first("SELECT CONNECTION_ID(), DATABASE()").await.unwrap();
        assert_eq!(row, Some((session.id.thread, db.name().to_owned())));
        assert_eq!(session.identity.uuid.is_some(), !flavor.is_mariadb());
        assert_eq!(session.capabilities.rename_under_lock, !flavor.is_mariadb());
        assert_eq!(session.capabilities.metadata_locks_visible, !flavor.is_mariadb());
        assert!(session.capabilities.log_bin && session.capabilities.max_allowed_packet > 1 << 20);
        session.close().await;
    }
}

#[tokio::test]
async fn the_words_of_the_capabilities_are_understood() {
    for flavor in Flavor::ALL {
        let Some(db) = TestDb::new(flavor) else { continue };
        let mut session = session(&db.url()).await;
        let known = session.capabilities.clone();
        let mut statements = vec![
            known.show_replicas_verb.to_owned(),
            known.replica_status_verb.to_owned(),
            format!("SELECT NAME, SPACE, TABLE_ID FROM {} LIMIT 1", known.innodb_tables_view),
            format!("SELECT @@SESSION.{}", known.isolation_variable),
            "SELECT COUNT(*) FROM performance_schema.metadata_locks".to_owned(),
            "CREATE TABLE t (id INT PRIMARY KEY) ENGINE=InnoDB".to_owned(),
            "SELECT * FROM t FOR UPDATE SKIP LOCKED".to_owned(),
        ];
        let optional = [
            (known.supports_for_share, "SELECT * FROM t FOR SHARE"),
            (known.data_locks_visible, "SELECT COUNT(*) FROM performance_schema.data_locks"),
            (
                known.functional_indexes,
                "SELECT EXPRESSION FROM information_schema.STATISTICS LIMIT 1",
            ),
            (known.columns_srs_id, "SELECT SRS_ID FROM information_schema.COLUMNS LIMIT 1"),
            (known.ddl_wait_clause, "LOCK TABLES t WRITE WAIT 1"),
            (
                known.upsert_row_alias,
                "INSERT INTO t VALUES (1) AS n ON DUPLICATE KEY UPDATE id = n.id",
            ),
        ];
        for (expected, statement) in optional {
            if expected {
                statements.push(statement.to_owned());
            } else {
                let result = session.conn.query_drop(statement).await;
                assert!(result.is_err(), "{}: {statement} is understood", flavor.name());
            }
        }
        for statement in statements {
            let result = session.conn.query_drop(&statement).await;
            assert!(result.is_ok(), "{}: {statement}: {result:?}", flavor.name());
        }
        session.close().await;
    }
}

/// A server whose defaults would each break something for us.
fn hostile(flavor: Flavor) -> ServerSpec {
    let mut spec = ServerSpec::new(flavor)
        .option("sql-mode=ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES")
        .option("transaction-isolation=SERIALIZABLE")
        .option("default-time-zone=+05:30")
        .option("autocommit=0")
        .option("completion-type=CHAIN")
        .option("lock-wait-timeout=77")
        .option("innodb-lock-wait-timeout=77")
        .option("character-set-server=latin1")
        .option("lc-messages=de_DE")
        .option("init-connect=SET sql_safe_updates=1, sql_select_limit=5, sql_auto_is_null=1");
    if flavor.is_mariadb() {
        for option in ["max-statement-time=3", "query-cache-type=1", "query-cache-size=1M"] {
            spec = spec.option(option);
        }
    }
    spec
}

#[tokio::test]
async fn every_setting_holds_whatever_the_server_defaults_are() {
    for flavor in Flavor::ALL {
        if !wanted(flavor) {
            continue;
        }
        let server = Server::start(&hostile(flavor), false).unwrap();
        let account = "CREATE USER app@'%' IDENTIFIED BY 'x'".to_owned();
        sql::execute(&server.url(), vec![account, "COMMIT".to_owned()]).unwrap();
        // An ordinary account: it runs init_connect, and may set nothing that wants a privilege.
        let mut session = session(&url_as(&server.url(), "app:x")).await;
        let isolation = session.capabilities.isolation_variable;
        let mut expected = vec![
            (isolation, "READ-COMMITTED"),
            ("time_zone", "+00:00"),
            ("autocommit", "ON"),
            ("completion_type", "NO_CHAIN"),
            ("lock_wait_timeout", "1"),
            ("innodb_lock_wait_timeout", "3"),
            ("foreign_key_checks", "OFF"),
            ("unique_checks", "ON"),
            ("sql_safe_updates", "OFF"),
            ("sql_select_limit", "18446744073709551615"),
            ("sql_auto_is_null", "OFF"),
            ("character_set_client", "utf8mb4"),
            ("lc_messages", "en_US"),
        ];
        match flavor.is_mariadb() {
            true => {
                expected.extend([("max_statement_time", "0.000000"), ("query_cache_type", "OFF")])
            }
            false => expected.extend([("explain_format", "TRADITIONAL")]),
        }
        for (name, value) in expected {
            assert_eq!(variable(&mut session, name).await, value, "{} {name}", flavor.name());
        }
        let mode = variable(&mut session, "sql_mode").await;
        assert!(mode.contains("STRICT_ALL_TABLES") && !mode.contains("ANSI_QUOTES"), "{mode}");
        let error = session.conn.query_drop("SELEKT").await.unwrap_err();
        assert!(error.to_string().contains("syntax"), "{error}");
        session.close().await;
    }
}

/// What an application may have stored under older or looser modes.
const ODD_ROWS: &[&str] = &[
    "CREATE TABLE a (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, x INT, y INT, \
     quotient INT AS (x DIV y) STORED, d DATE, t DATETIME, s TIMESTAMP NULL) ENGINE=InnoDB",
    "SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO'",
    "INSERT INTO a (id, x, y, d, t, s) VALUES \
     (0, 1, 0, '0000-00-00', '2020-00-00 00:00:00', '0000-00-00 00:00:00')",
    "SET SESSION sql_mode = 'ALLOW_INVALID_DATES'",
    "INSERT INTO a (id, x, y, d, t) VALUES (-1, 1, 1, '2020-02-30', '2020-02-31 01:00:00')",
];

#[tokio::test]
async fn rows_from_looser_times_survive_a_copy_and_bad_values_do_not() {
    for flavor in Flavor::ALL {
        let Some(db) = TestDb::new(flavor) else { continue };
        let statements = ODD_ROWS.iter().map(|one| (*one).to_owned()).collect();
        sql::execute(&db.url(), statements).unwrap();
        let mut session = session(&db.url()).await;
        for statement in [
            "CREATE TABLE b LIKE a",
            "ALTER TABLE b MODIFY d DATETIME",
            "INSERT INTO b (id, x, y, d, t, s) SELECT id, x, y, d, t, s FROM a",
        ] {
            let result = session.conn.query_drop(statement).await;
            assert!(result.is_ok(), "{}: {statement}: {result:?}", flavor.name());
        }
        let query = "SELECT id, IFNULL(quotient, 'NULL'), CAST(d AS CHAR), CAST(t AS CHAR) FROM b \
                     ORDER BY id";
        let rows: Vec<(i32, String, String, String)> = session.conn.query(query).await.unwrap();
        let row = |id, quotient: &str, d: &str, t: &str| {
            (id, quotient.to_owned(), d.to_owned(), t.to_owned())
        };
        assert_eq!(
            rows,
            [
                row(-1, "1", "2020-02-30 00:00:00", "2020-02-31 01:00:00"),
                row(0, "NULL", "0000-00-00 00:00:00", "2020-00-00 00:00:00"),
            ]
        );
        // Strict all the same: what does not fit is an error, never a warning.
        for (statement, code) in [
            ("INSERT INTO b (id, x) VALUES (1, 99999999999)", 1264),
            ("INSERT INTO b (id, d) VALUES (2, 'yesterday')", 1292),
        ] {
            let error = session.conn.query_drop(statement).await.unwrap_err();
            let found = underpin_mysql::error::server_code(&error);
            assert_eq!(found, Some(code), "{} {statement}: {error}", flavor.name());
            assert_eq!(underpin_mysql::error::classify(&error), ErrorKind::DataError);
        }
        session.close().await;
    }
}

#[tokio::test]
async fn a_primary_is_not_its_replica() {
    for flavor in Flavor::ALL {
        let Some(endpoints) = shared(flavor) else { continue };
        let Some(replica_url) = &endpoints.replica else { continue };
        let settings = SessionSettings::default();
        let mut primary = session(&endpoints.primary).await;
        let mut replica = session(replica_url).await;

        let again = connect_to(&primary.identity, &options(&endpoints.primary), &settings).await;
        assert!(again.is_ok(), "{again:?}");
        let other = connect_to(&primary.identity, &options(replica_url), &settings).await;
        let error = other.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused, "{error}");

        let role = server_role(&mut primary.conn, &primary.capabilities).await.unwrap();
        assert!(!role.refuses_writes());
        assert_eq!(role.replication, Replication::From(vec![]));
        let role = server_role(&mut replica.conn, &replica.capabilities).await.unwrap();
        assert!(role.refuses_writes());
        let Replication::From(sources) = role.replication else { panic!("unknown") };
        let port = options(&endpoints.primary).port;
        assert_eq!(sources.len(), 1);
        assert_eq!((sources[0].host.as_str(), sources[0].port), ("127.0.0.1", port));
        assert!(sources[0].io_running && sources[0].sql_running);
    }
}

#[tokio::test]
async fn an_account_without_the_privilege_cannot_tell_a_replica() {
    for flavor in Flavor::ALL {
        let Some(db) = TestDb::new(flavor) else { continue };
        let name = format!("u_{}", db.name());
        let account = format!("CREATE USER {name}@'%' IDENTIFIED BY 'x'");
        sql::execute(&db.url(), vec![account]).unwrap();
        let url = db.url().replace("root@", &format!("{name}:x@"));
        let refused = connect(&options(&url), &SessionSettings::default()).await.unwrap_err();
        assert_eq!((refused.kind, refused.code), (ErrorKind::AccessDenied, Some(1044)));
        let url = url.replace(db.name(), "").replace("u_:", &format!("{name}:"));
        let mut session = session(&url).await;
        let role = server_role(&mut session.conn, &session.capabilities).await.unwrap();
        assert_eq!(role.replication, Replication::Unknown);
        session.close().await;
        sql::execute(&db.url(), vec![format!("DROP USER {name}@'%'")]).unwrap();
    }
}

#[tokio::test]
async fn a_password_gets_through_and_a_wrong_one_does_not() {
    for flavor in Flavor::ALL {
        let Some(db) = TestDb::new(flavor) else { continue };
        let name = format!("u_{}", db.name());
        let account = format!("CREATE USER {name}@'%' IDENTIFIED BY 'p/w:@%ä ''\"'");
        sql::execute(&db.url(), vec![account]).unwrap();
        let base = format!("mysql://{name}@127.0.0.1:{}", options(&db.url()).port);
        let with = |password: &str, mode: &str| {
            let url = format!("{base}/?ssl-mode={mode}");
            options(&url.replace('@', &format!(":{password}@")))
        };
        // Over plain TCP the first log-in of a caching_sha2_password account sends the password under
        // the server's RSA key; the second one is answered from the server's cache.
        for _ in 0..2 {
            let right = with("p%2Fw%3A%40%25%C3%A4%20%27%22", "disabled");
            let session = connect(&right, &SessionSettings::default()).await;
            assert!(!session.unwrap().encrypted, "{}", flavor.name());
        }
        for mode in ["disabled", "preferred"] {
            let error =
                connect(&with("s3cr3t", mode), &SessionSettings::default()).await.unwrap_err();
            assert_eq!((error.kind, error.code), (ErrorKind::AccessDenied, Some(1045)));
            assert!(!format!("{error} {error:?}").contains("s3cr3t"));
        }
        let error = connect(&options(&base), &SessionSettings::default()).await.unwrap_err();
        assert!(error.to_string().contains("No password was given"), "{error}");
        sql::execute(&db.url(), vec![format!("DROP USER {name}@'%'")]).unwrap();
    }
}

#[tokio::test]
async fn a_socket_and_an_option_file_lead_there_too() {
    for flavor in Flavor::ALL {
        if !wanted(flavor) {
            continue;
        }
        let server = Server::start(&ServerSpec::new(flavor), false).unwrap();
        let socket = server.data_dir().join("server.sock");
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("my.cnf");
        let text = format!("[client]\nuser=root\nsocket=\"{}\"\n", socket.display());
        std::fs::write(&file, text).unwrap();
        let search = FileSearch { defaults_file: Some(file), ..FileSearch::none() };
        let options = resolve("mysql:///", &search, &|_| None).unwrap().options;
        let session = connect(&options, &SessionSettings::default()).await.unwrap();
        assert_eq!(session.identity.port, server.port());
        assert!(options.socket.is_some() && !session.encrypted);
        session.close().await;
    }
}

#[tokio::test]
async fn where_nobody_answers_is_said_in_time() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    // It listens and says nothing: the greeting never comes.
    let silent = options(&format!("mysql://a@127.0.0.1:{port}/?connect-timeout-ms=300"));
    let started = Instant::now();
    let error = connect(&silent, &SessionSettings::default()).await.unwrap_err();
    assert!(error.is_connection_lost() && error.to_string().contains("300 ms"), "{error}");
    let allowed = busy::allows(started, Duration::from_secs(3));
    assert!(started.elapsed() < allowed, "{:?}", started.elapsed());
    drop(free);
    let error = connect(&silent, &SessionSettings::default()).await.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
}
