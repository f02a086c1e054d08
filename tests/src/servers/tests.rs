//! The harness itself: servers follow each other, come back, and never outlive the test process.

mod postgres;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mysql_async::prelude::Queryable;

use super::{Flavor, Pair, Server, ServerSpec, TestDb, sql, wanted};

const LIMIT: Duration = Duration::from_secs(120);
/// Names the server of the process that is killed.
const HELD: &str = "UNDERPIN_TEST_HELD";
/// Whether that server stands still when it happens.
const FROZEN: &str = "UNDERPIN_TEST_FROZEN";

/// Not a test of its own: the process that `a_killed_test_takes_its_server_along` kills.
#[test]
#[ignore = "run by another test, in a process of its own"]
fn holds_a_server_until_killed() {
    let name = std::env::var(HELD).unwrap_or_else(|_| "mariadb".to_owned());
    let flavor = Flavor::from_name(&name).unwrap();
    let server = Server::start(&ServerSpec::new(flavor), false).unwrap();
    if std::env::var_os(FROZEN).is_some() {
        server.freeze().unwrap();
    }
    println!("\nSERVER {} {}", server.pid(), server.data_dir().display());
    std::thread::sleep(Duration::from_secs(120));
}

fn start_holder(flavor: Flavor, frozen: bool) -> (Child, u32, PathBuf) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "servers::tests::holds_a_server_until_killed"])
        .args(["--ignored", "--nocapture"])
        .env(HELD, flavor.name());
    if frozen {
        command.env(FROZEN, "1");
    }
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in lines.map_while(Result::ok) {
        if let Some(rest) = line.strip_prefix("SERVER ") {
            let (pid, dir) = rest.split_once(' ').unwrap();
            return (child, pid.parse().unwrap(), PathBuf::from(dir));
        }
    }
    panic!("the child ended without a server: {:?}", child.wait());
}

#[test]
fn a_killed_test_takes_its_server_along() {
    if wanted(Flavor::MariaDbDistro) {
        end_of_a_holder(Flavor::MariaDbDistro);
    }
}

fn end_of_a_holder(flavor: Flavor) {
    // SIGINT is what Ctrl-C sends; SIGKILL leaves no chance to clean up; and whoever dies with a
    // server that stands still has the system send SIGHUP to its supervisor
    for (signal, frozen) in [("-INT", false), ("-KILL", false), ("-KILL", true)] {
        let (mut child, pid, dir) = start_holder(flavor, frozen);
        let process = PathBuf::from(format!("/proc/{pid}"));
        assert!(process.exists() && dir.exists(), "the server runs before the {signal}");
        let id = child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        let _status = child.wait().unwrap();
        sql::wait_until("the server and its data are gone", LIMIT, || {
            Ok(!process.exists() && !dir.parent().is_some_and(Path::exists))
        })
        .unwrap();
    }
}

#[test]
fn a_server_killed_comes_back_with_its_data() {
    for flavor in Flavor::ALL.into_iter().filter(|&flavor| wanted(flavor)) {
        let server = Server::start(&ServerSpec::new(flavor), false).unwrap();
        let (url, before) = (server.url(), server.pid());
        let make = ["CREATE DATABASE d", "CREATE TABLE d.t (a INT)", "INSERT INTO d.t VALUES (7)"];
        sql::execute(&url, make.map(str::to_owned).to_vec()).unwrap();
        server.kill9().unwrap();
        assert!(sql::first_row(&url, "SELECT 1").is_err(), "{flavor:?} is down");
        server.restart().unwrap();
        assert_ne!(server.pid(), before);
        let row = sql::first_row(&url, "SELECT a FROM d.t").unwrap().unwrap();
        assert_eq!(row.get::<i32, _>(0), Some(7), "{flavor:?}");
    }
}

#[tokio::test]
async fn a_replica_follows_falls_behind_and_catches_up() {
    for flavor in Flavor::ALL.into_iter().filter(|&flavor| wanted(flavor)) {
        let pair = Pair::start(&ServerSpec::new(flavor)).unwrap();
        let mut primary = sql::connect(&pair.primary.url()).await.unwrap();
        let mut replica = sql::connect(&pair.replica.url()).await.unwrap();
        primary.query_drop("CREATE DATABASE d").await.unwrap();
        primary.query_drop("CREATE TABLE d.t (a INT PRIMARY KEY)").await.unwrap();
        pair.wait_caught_up(LIMIT).unwrap();
        pair.stop_applying().unwrap();
        primary.query_drop("INSERT INTO d.t VALUES (1)").await.unwrap();
        let count = "SELECT COUNT(*) FROM d.t";
        assert!(pair.wait_caught_up(Duration::from_secs(1)).is_err(), "{flavor:?} must lag");
        assert_eq!(replica.query_first::<u64, _>(count).await.unwrap(), Some(0), "{flavor:?}");
        pair.start_applying().unwrap();
        pair.wait_caught_up(LIMIT).unwrap();
        assert_eq!(replica.query_first::<u64, _>(count).await.unwrap(), Some(1), "{flavor:?}");
        pair.delay_replica(60).unwrap();
        assert!(pair.stop_replica().is_ok());
    }
}

#[tokio::test]
async fn each_test_has_a_database_of_its_own() {
    for flavor in Flavor::ALL {
        let (Some(one), Some(two)) = (TestDb::new(flavor), TestDb::new(flavor)) else { continue };
        assert_ne!(one.name(), two.name());
        let mut conn = one.conn().await.unwrap();
        conn.query_drop("CREATE TABLE t (a INT PRIMARY KEY)").await.unwrap();
        let name: Option<String> = conn.query_first("SELECT DATABASE()").await.unwrap();
        assert_eq!(name.as_deref(), Some(one.name()));
        one.endpoints().wait_caught_up(LIMIT).unwrap();
        let (name, primary) = (one.name().to_owned(), one.endpoints().primary.clone());
        drop(conn);
        drop(one);
        let left = format!("SHOW DATABASES LIKE '{name}'");
        assert!(sql::first_row(&primary, &left).unwrap().is_none(), "{flavor:?}: {name} is left");
    }
}

#[test]
fn servers_log_rows_and_keep_the_servers_own_defaults() {
    for flavor in Flavor::ALL {
        let Some(db) = TestDb::new(flavor) else { continue };
        let ask = "SELECT CONCAT_WS(' ', @@binlog_format, @@log_bin + 0, \
                   @@log_bin_trust_function_creators + 0, @@performance_schema + 0)";
        let row = sql::first_row(&db.url(), ask).unwrap().unwrap();
        let schema = if flavor.is_mariadb() { "0" } else { "1" };
        assert_eq!(row.get::<String, _>(0).unwrap(), format!("ROW 1 0 {schema}"), "{flavor:?}");
    }
}
