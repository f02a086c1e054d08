//! What else can go wrong on a server of its own will: a full disk, a deadlock that hits us, another
//! server behind the same address, a second program. The run ends well or says exactly what is open; the
//! table is as it was or as it was to be.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

mod mysql_steps;

use std::time::{Duration, Instant};

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use underpin_tests::cli;
use underpin_tests::proxy::{Deed, Proxy};
use underpin_tests::servers::{Flavor, Server, ServerSpec, TestDb, sql, wanted};

use mysql_steps::{LIMIT, make_table, named, on_each, rows, spring, start, succeed};

const CHANGE: &str =
    "ALTER TABLE t MODIFY v VARCHAR(60) NOT NULL DEFAULT '', ADD n INT NOT NULL DEFAULT 7";

const FLAVORS: [Flavor; 2] = [Flavor::MySql97, Flavor::MariaDbDistro];

/// The tables for which a transaction of ours waits, when it has read the fence already.
const CROSSED: [&str; 3] = ["a chunk", "a batch of the log", "a checkpoint"];

/// A database for the state of this test's runs, so that locking it holds up nobody else.
fn state(db: &TestDb) -> String {
    format!("{}_state", db.name())
}

/// Makes a transaction that the server will not pick as the victim: it has changed more than ours.
async fn heavy(db: &TestDb) -> Conn {
    let mut conn = db.conn().await.unwrap();
    conn.query_drop("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    conn.query_drop("SET SESSION innodb_lock_wait_timeout = 20").await.unwrap();
    conn.query_drop("BEGIN").await.unwrap();
    conn.query_drop("INSERT INTO weight SELECT id, v FROM t").await.unwrap();
    conn
}

/// Waits until somebody but `mine` waits for a row.
async fn wait_for_victim(conn: &mut Conn) {
    let ask = "SELECT COUNT(*) FROM information_schema.INNODB_TRX WHERE trx_state = 'LOCK WAIT' AND \
               trx_mysql_thread_id <> CONNECTION_ID()";
    let until = Instant::now() + Duration::from_secs(20);
    while conn.query_first::<u64, _>(ask).await.unwrap() == Some(0) {
        assert!(Instant::now() < until, "nobody came to wait");
        tokio::time::sleep(Duration::from_millis(110)).await;
    }
}

/// Deadlocks of the server's own, by a session that locks in the other order: it has what our transaction
/// is about to write, waits until that waits, and asks for the fence, which ours has read.
#[test]
fn a_deadlock_that_hits_a_chunk_a_batch_or_a_checkpoint_is_tried_again() {
    on_each(&FLAVORS, async |db| {
        make_table(&db, 6000).await;
        let mut conn = db.conn().await.unwrap();
        conn.query_drop("CREATE TABLE weight (id INT PRIMARY KEY, v VARCHAR(60))").await.unwrap();
        let state = state(&db);
        let proxy = Proxy::start(&db.endpoints().primary).unwrap();
        let crossings = [
            (&["INSERT INTO", ".marks"][..], format!("SELECT * FROM `{state}`.marks FOR UPDATE")),
            (&["INSERT INTO", "underpin_stage"], "SELECT * FROM `t~up_new` FOR UPDATE".to_owned()),
            (&["SET checkpoint ="], format!("SELECT * FROM `{state}`.runs FOR UPDATE")),
        ];
        let traps = crossings.map(|(words, lock)| (proxy.trap(words, Deed::Hold), lock));
        let before = deadlocks(&mut conn).await;
        let url = proxy.url(db.name());
        let mut runner = start(
            &url,
            CHANGE,
            &["--state-schema", &state, "--workers", "1", "--chunk-time", "20ms"],
        );
        // in the order in which a run comes by: its first checkpoint, a chunk, a batch
        for index in [2, 0, 1] {
            let (trap, lock) = &traps[index];
            tokio::task::block_in_place(|| spring(trap, &mut runner));
            if index == 1 {
                // something to apply that the shadow has
                conn.query_drop("UPDATE t SET v = CONCAT(v, '!') WHERE id <= 50").await.unwrap();
            }
            let mut crossing = heavy(&db).await;
            crossing.query_drop(lock).await.unwrap();
            trap.release();
            wait_for_victim(&mut crossing).await;
            crossing
                .query_drop(format!("SELECT * FROM `{state}`.fences FOR UPDATE"))
                .await
                .unwrap();
            crossing.query_drop("ROLLBACK").await.unwrap();
            let after = deadlocks(&mut conn).await;
            eprintln!(
                "{}: {} met a deadlock; the server has counted {after}",
                db.endpoints().flavor.name(),
                CROSSED[index]
            );
        }
        let called = tokio::task::block_in_place(|| succeed(runner));
        let counted = deadlocks(&mut conn).await - before;
        assert!(counted >= 3, "the server has seen {counted} deadlocks");
        let retries = named(&called, "retrying");
        eprintln!("{}: {counted} deadlocks, retries: {retries:?}", db.endpoints().flavor.name());
        assert_eq!(rows(&db, "SELECT COUNT(*) FROM t WHERE n = 7").await, ["6000"]);
        assert_eq!(rows(&db, "SELECT COUNT(*) FROM t WHERE v LIKE '%!'").await, ["50"]);
        drop_state(&db);
    });
}

/// How many deadlocks the server has broken so far.
async fn deadlocks(conn: &mut Conn) -> u64 {
    let ask = "SELECT CAST(COUNT AS UNSIGNED) FROM information_schema.INNODB_METRICS WHERE NAME = \
               'lock_deadlocks'";
    conn.query_first(ask).await.unwrap().unwrap_or(0)
}

fn drop_state(db: &TestDb) {
    sql::execute(&db.url(), vec![format!("DROP DATABASE IF EXISTS {}", state(db))]).unwrap();
}

/// Behind the same address another server answers, in the middle of the copy: its replica.
#[test]
fn another_server_behind_the_address_stops_the_run() {
    on_each(&FLAVORS, async |db| {
        make_table(&db, 3000).await;
        let state = state(&db);
        let proxy = Proxy::start(&db.endpoints().primary).unwrap();
        let trap = proxy.trap_after(&["INSERT INTO", ".marks"], &["COMMIT"], Deed::Hold);
        let words = ["--state-schema", &state, "--workers", "2", "--chunk-time", "20ms"];
        let mut runner = start(&proxy.url(db.name()), CHANGE, &words);
        tokio::task::block_in_place(|| spring(&trap, &mut runner));
        db.endpoints().wait_caught_up(LIMIT).unwrap();
        proxy.lead_to(db.endpoints().replica.as_ref().unwrap()).unwrap();
        trap.release();
        let called = tokio::task::block_in_place(|| runner.wait(LIMIT)).unwrap();
        eprintln!("{}: {} {}", db.endpoints().flavor.name(), called.code(), called.complaint());
        assert_eq!(called.code(), 3, "{}", called.complaint());
        for part in ["checking that this is the same server", "reached", "another one took over"] {
            assert!(called.complaint().contains(part), "{part:?}: {}", called.complaint());
        }
        // The first server is as the program left it, and the same command goes on there.
        let called = tokio::task::block_in_place(|| succeed(start(&db.url(), CHANGE, &words)));
        assert!(called.event("run_resumed").is_some(), "{:?}", called.events);
        assert_eq!(rows(&db, "SELECT COUNT(*) FROM t WHERE n = 7").await, ["3000"]);
        drop_state(&db);
    });
}

/// A second program for the same table: with the same statement, and with another one.
#[test]
fn a_second_program_beside_the_first_is_refused() {
    on_each(&FLAVORS, async |db| {
        make_table(&db, 3000).await;
        let state = state(&db);
        let proxy = Proxy::start(&db.endpoints().primary).unwrap();
        let trap = proxy.trap_after(&["INSERT INTO", ".marks"], &["COMMIT"], Deed::Hold);
        let words = ["--state-schema", &state, "--workers", "2", "--chunk-time", "20ms"];
        let mut first = start(&proxy.url(db.name()), CHANGE, &words);
        tokio::task::block_in_place(|| spring(&trap, &mut first));
        for (change, says) in [
            (CHANGE, "another runner works on"),
            ("ALTER TABLE t ADD other INT", "has an unfinished run"),
        ] {
            let second = start(&db.url(), change, &words);
            let second = tokio::task::block_in_place(|| second.wait(LIMIT)).unwrap();
            eprintln!("{change}: {} {}", second.code(), second.complaint());
            assert_eq!(second.code(), 3, "{}", second.complaint());
            assert!(second.complaint().contains(says), "{}", second.complaint());
        }
        trap.release();
        tokio::task::block_in_place(|| succeed(first));
        assert_eq!(rows(&db, "SELECT COUNT(*) FROM t WHERE n = 7").await, ["3000"]);
        drop_state(&db);
    });
}

/// The space of the server is full in the middle of the copy: a system tablespace that may not grow.
fn full_disk(flavor: Flavor) {
    if !wanted(flavor) {
        return;
    }
    let spec = ServerSpec::new(flavor)
        .option("innodb-file-per-table=OFF")
        .option("innodb-data-file-path=ibdata1:12M:autoextend:max:160M");
    let server = Server::start(&spec, false).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        sql::execute(&server.url(), vec!["CREATE DATABASE shop".to_owned()]).unwrap();
        let url = format!("{}shop", server.url());
        let mut conn = sql::connect(&url).await.unwrap();
        let make =
            "CREATE TABLE t (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, v VARCHAR(2000) NOT NULL)";
        conn.query_drop(make).await.unwrap();
        conn.query_drop("INSERT INTO t (v) VALUES (REPEAT('x', 1900)), (REPEAT('y', 1900))")
            .await
            .unwrap();
        for _ in 0..14 {
            // about 60 MB: beside a copy of itself it does not fit
            conn.query_drop("INSERT INTO t (v) SELECT v FROM t").await.unwrap();
        }
        let count = "SELECT CONCAT(COUNT(*), '/', SUM(CRC32(v))) FROM t";
        let before: Option<String> = conn.query_first(count).await.unwrap();
        let change = "ALTER TABLE t ADD n INT NOT NULL DEFAULT 7";
        let called = start(&url, change, &["--chunk-time", "50ms"]).wait(LIMIT).unwrap();
        eprintln!("{}: {} {}", flavor.name(), called.code(), called.complaint());
        assert_eq!(called.code(), 1, "{}", called.complaint());
        let says = called.complaint();
        assert!(says.contains("is full") && says.contains("out of disk space"), "{says}");
        let after: Option<String> = conn.query_first(count).await.unwrap();
        assert_eq!(before, after, "the source");
        let aborted = cli::call(&["abort", &url, "t"]).unwrap();
        assert!(aborted.code() == 0, "{}", aborted.complaint());
        let left: Vec<String> = conn.query("SHOW TABLES").await.unwrap();
        assert_eq!(left, ["t"]);
        // What the shadow took is free again, on MariaDB as soon as its purge has come that far: the
        // application goes on writing.
        let begun = Instant::now();
        loop {
            match conn.query_drop("INSERT INTO t (v) SELECT v FROM t LIMIT 100").await {
                Ok(()) => break,
                Err(error) => {
                    let is_full = error.to_string().contains("is full");
                    assert!(is_full && begun.elapsed() < LIMIT, "{error}");
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
}

#[test]
fn a_full_disk_stops_the_run_and_leaves_the_table_as_it_was_on_mysql() {
    full_disk(Flavor::MySql97);
}

#[test]
fn a_full_disk_stops_the_run_and_leaves_the_table_as_it_was_on_mariadb() {
    full_disk(Flavor::MariaDbDistro);
}
