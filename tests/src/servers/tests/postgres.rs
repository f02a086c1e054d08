//! The same for PostgreSQL, whose server is a family of processes.

use std::process::Command;
use std::time::Duration;

use super::{LIMIT, end_of_a_holder};
use crate::servers::{
    Flavor, Pair, Server, ServerSpec, TestDb, pg, postgres_tool, shared, sql, wanted,
};

fn each() -> impl Iterator<Item = Flavor> {
    Flavor::POSTGRES_MATRIX.into_iter().filter(|&flavor| wanted(flavor))
}

#[test]
fn a_killed_test_takes_its_server_along() {
    if wanted(Flavor::PostgresDistro) {
        end_of_a_holder(Flavor::PostgresDistro);
    }
}

#[test]
fn a_server_killed_with_all_its_backends_comes_back_with_its_data() {
    for flavor in each() {
        let server = Server::start(&ServerSpec::new(flavor), false).unwrap();
        let (url, before) = (server.url(), server.pid());
        let make = ["CREATE TABLE t (a int)", "INSERT INTO t VALUES (7)"];
        pg::execute(&url, make.map(str::to_owned).to_vec()).unwrap();
        // a backend at work would hold the shared memory, and the server could not start again
        let busy = {
            let url = url.clone();
            std::thread::spawn(move || pg::execute(&url, vec!["SELECT pg_sleep(60)".to_owned()]))
        };
        let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        sql::wait_until("the backend sleeps", LIMIT, || {
            Ok(pg::first_value::<i64>(&url, sleeping)? == Some(1))
        })
        .unwrap();
        server.kill9().unwrap();
        assert!(busy.join().unwrap().is_err(), "{flavor:?}: the backend is gone");
        assert!(pg::first_value::<i32>(&url, "SELECT 1").is_err(), "{flavor:?} is down");
        server.restart().unwrap();
        assert_ne!(server.pid(), before);
        let value: Option<i32> = pg::first_value(&url, "SELECT a FROM t").unwrap();
        assert_eq!(value, Some(7), "{flavor:?}");
        server.terminate().unwrap();
        assert!(server.log().contains("database system is shut down"), "{flavor:?}");
    }
}

#[test]
fn a_frozen_server_answers_nobody_until_it_thaws() {
    for flavor in each() {
        let server = Server::start(&ServerSpec::new(flavor), false).unwrap();
        let url = server.url();
        let (asked, answered) = (std::sync::mpsc::channel::<()>(), std::sync::mpsc::channel());
        let session = std::thread::spawn(move || {
            sql::block_on(async move {
                let client = pg::connect(&url).await?;
                answered.0.send(())?;
                asked.1.recv()?;
                client.batch_execute("SELECT 1").await?;
                Ok(answered.0.send(())?)
            })
        });
        answered.1.recv_timeout(LIMIT).unwrap();
        server.freeze().unwrap();
        asked.0.send(()).unwrap();
        let silence = answered.1.recv_timeout(Duration::from_millis(500));
        assert!(silence.is_err(), "{flavor:?}: a backend of before must be frozen too");
        server.thaw().unwrap();
        answered.1.recv_timeout(LIMIT).unwrap();
        session.join().unwrap().unwrap();
    }
}

#[test]
fn a_replica_follows_falls_behind_and_catches_up() {
    for flavor in each() {
        let pair = Pair::start(&ServerSpec::new(flavor)).unwrap();
        let (primary, replica) = (pair.primary.url(), pair.replica.url());
        let run = |statement: &str| pg::execute(&primary, vec![statement.to_owned()]).unwrap();
        let count = || pg::first_value::<i64>(&replica, "SELECT count(*) FROM t").unwrap();
        run("CREATE TABLE t (a int)");
        pair.wait_caught_up(LIMIT).unwrap();
        pair.stop_applying().unwrap();
        run("INSERT INTO t VALUES (1)");
        assert!(pair.wait_caught_up(Duration::from_secs(1)).is_err(), "{flavor:?} must lag");
        assert_eq!(count(), Some(0), "{flavor:?}");
        pair.start_applying().unwrap();
        pair.wait_caught_up(LIMIT).unwrap();
        assert_eq!(count(), Some(1), "{flavor:?}");
        pair.stop_replica().unwrap();
        run("INSERT INTO t VALUES (2)");
        assert!(pair.wait_caught_up(Duration::from_secs(1)).is_err(), "{flavor:?} is cut off");
        pair.start_applying().unwrap();
        pair.wait_caught_up(LIMIT).unwrap();
        pair.delay_replica(60).unwrap();
        run("INSERT INTO t VALUES (3)");
        assert!(pair.wait_caught_up(Duration::from_secs(1)).is_err(), "{flavor:?} is late");
        pair.delay_replica(0).unwrap();
        pair.wait_caught_up(LIMIT).unwrap();
        assert_eq!(count(), Some(3), "{flavor:?}");
        // a restart of either changes nothing
        pair.primary.kill9().unwrap();
        pair.primary.restart().unwrap();
        pair.replica.restart().unwrap();
        run("INSERT INTO t VALUES (4)");
        pair.wait_caught_up(LIMIT).unwrap();
        assert_eq!(count(), Some(4), "{flavor:?}");
    }
}

#[tokio::test]
async fn each_test_has_a_database_of_its_own() {
    for flavor in Flavor::POSTGRES_MATRIX {
        let (Some(one), Some(two)) = (TestDb::new(flavor), TestDb::new(flavor)) else { continue };
        assert_ne!(one.name(), two.name());
        let client = one.client().await.unwrap();
        for statement in [
            "CREATE TABLE t (a int)",
            "SELECT pg_create_logical_replication_slot(current_database() || '_slot', 'pgoutput')",
            // what a failed test may leave: both would keep the database from being dropped
            "BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'left behind'",
        ] {
            client.batch_execute(statement).await.unwrap();
        }
        let name: String = client.query_one("SELECT current_database()", &[]).await.unwrap().get(0);
        assert_eq!(name, one.name());
        one.endpoints().wait_caught_up(LIMIT).unwrap();
        if let Some(replica) = one.replica_url() {
            let table: Option<bool> =
                pg::first_value(&replica, "SELECT to_regclass('t') IS NOT NULL").unwrap();
            assert_eq!(table, Some(true), "{flavor:?}");
        }
        let primary = one.endpoints().primary.clone();
        drop(one);
        let left = format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'");
        assert_eq!(pg::first_value::<i64>(&primary, &left).unwrap(), Some(0), "{flavor:?}");
    }
}

#[test]
fn servers_are_set_up_for_what_the_tests_do() {
    let versions = [(Flavor::Postgres14, 14), (Flavor::Postgres16, 16), (Flavor::Postgres17, 17)];
    for flavor in Flavor::POSTGRES_MATRIX {
        let Some(servers) = shared(flavor) else { continue };
        let ask = "SELECT concat_ws(' ', current_setting('wal_level'), \
                   current_setting('max_prepared_transactions')::int >= 20, \
                   current_setting('track_commit_timestamp'), current_setting('server_encoding'), \
                   current_setting('is_superuser'))";
        let answer: Option<String> = pg::first_value(&servers.primary, ask).unwrap();
        assert_eq!(answer.as_deref(), Some("logical t on UTF8 on"), "{flavor:?}");
        let ask = "SELECT current_setting('server_version_num')::int / 10000";
        let major = pg::first_value::<i32>(&servers.primary, ask).unwrap().unwrap();
        let named = versions.iter().find(|(known, _)| *known == flavor);
        assert!(named.is_none_or(|(_, version)| *version == major), "{flavor:?} is {major}");
    }
}

#[test]
fn each_version_has_client_programs() {
    for flavor in each() {
        let Some(servers) = shared(flavor) else { continue };
        let dump = postgres_tool(flavor, "pg_dump").unwrap();
        let output = Command::new(dump).args(["--schema-only", &servers.primary]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{flavor:?}: {said}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("PostgreSQL database dump"));
    }
}
