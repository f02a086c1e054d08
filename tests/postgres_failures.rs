//! What else can go wrong on a server of its own will: a full disk, a deadlock that hits us, another
//! server behind the same address, a second program. The run ends well or says exactly what is open; the
//! table is as it was or as it was to be.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

mod postgres_runs;
mod postgres_steps;

use std::time::{Duration, Instant};

use tokio_postgres::Client;
use underpin_tests::cli;
use underpin_tests::disk::SmallDisk;
use underpin_tests::proxy::{Deed, Proxy};
use underpin_tests::runner::Runner;
use underpin_tests::servers::{Flavor, Pair, Server, ServerSpec, TestDb, pg, sql, wanted};

use postgres_runs::{LIMIT, named, spring, start, succeed};
use postgres_steps::{make_table, on_each, rows, run};

const CHANGE: &str = "ALTER TABLE t ADD n int NOT NULL DEFAULT 7";

const CHUNK: (&[&str], &[&str]) = (&["^SET LOCAL ROLE NONE", ".marks"], &["COMMIT"]);

const WORDS: [&str; 4] = ["--workers", "2", "--chunk-time", "20ms"];

/// Waits until a session waits for a lock with this statement.
async fn wait_for_victim(client: &Client, words: &str) {
    let ask = format!(
        "SELECT 1 FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND wait_event_type = 'Lock' AND \
         strpos(query, '{words}') > 0"
    );
    let until = Instant::now() + LIMIT;
    while pg::text_rows(client, &ask).await.unwrap().is_empty() {
        assert!(Instant::now() < until, "nobody came to wait with {words}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Deadlocks of the server's own, by a session that locks in the other order: it has what our transaction
/// is about to write, waits until that waits, and asks for the fence, which ours has read. Ours is the one
/// that looks for deadlocks, so it is ours that the server ends.
#[test]
fn a_deadlock_that_hits_a_chunk_a_batch_or_a_checkpoint_is_tried_again() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        make_table(&db, 3000).await;
        let client = db.client().await.unwrap();
        // Below our lock time-out, and long enough for the other one to come to wait on a busy machine: the
        // server looks for a deadlock once.
        let soon = format!("ALTER DATABASE {} SET deadlock_timeout = '2s'", db.name());
        run(&client, &[&soon]).await;
        let proxy = Proxy::start(&db.endpoints().primary).unwrap();
        let crossings = [
            (
                proxy.trap(&["SET checkpoint =", "COMMIT"], Deed::Hold),
                "underpin.runs",
                "SET checkpoint =",
            ),
            // the tables of the state, which are made first, are written to by INSERT as well
            (
                proxy.trap(&["^SET LOCAL ROLE NONE", ".marks"], Deed::Hold),
                "underpin.marks",
                ".marks (run_id",
            ),
            (proxy.trap(&["^UPDATE", "SET applied ="], Deed::Hold), "state", "SET applied ="),
        ];
        let settled = proxy.trap(&["maintenance_work_mem", "t_pkey"], Deed::Hold);
        let url = proxy.url(db.name());
        let mut words = vec!["run", &url, CHANGE, "--strategy", "shadow", "--replica", "none"];
        words.extend(["--yes", "--workers", "1", "--chunk-time", "20ms", "--lock-timeout", "20s"]);
        let mut runner = Runner::start(&words).unwrap();
        for (trap, table, words) in &crossings {
            if *table == "state" {
                // what is written before the indexes are built is settled, and no batch of the log
                tokio::task::block_in_place(|| spring(&settled, &mut runner));
                run(&client, &["UPDATE t SET v = v || '!' WHERE id <= 50"]).await;
                settled.release();
            }
            tokio::task::block_in_place(|| spring(trap, &mut runner));
            let crossing = db.client().await.unwrap();
            let mut table = (*table).to_owned();
            if table == "state" {
                let find = "SELECT relnamespace::regnamespace || '.' || relname FROM pg_class WHERE \
                            relname = 'underpin_state'";
                table = rows(&db, find).await.concat();
            }
            run(
                &crossing,
                &[
                    "SET deadlock_timeout = '60s'",
                    "BEGIN",
                    // ours has read from it in the same transaction, and is about to write
                    &format!("LOCK TABLE {table} IN SHARE MODE"),
                ],
            )
            .await;
            trap.release();
            wait_for_victim(&client, words).await;
            let begun = Instant::now();
            run(&crossing, &["LOCK TABLE underpin.fences IN ACCESS EXCLUSIVE MODE", "ROLLBACK"])
                .await;
            eprintln!("{table}: let go after {:.1?}", begun.elapsed());
        }
        let called = tokio::task::block_in_place(|| succeed(runner));
        let ask = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
        let until = Instant::now() + LIMIT;
        // the server's statistics come late
        while rows(&db, ask).await.concat().parse::<u64>().unwrap() < 3 {
            assert!(Instant::now() < until, "deadlocks: {:?}", rows(&db, ask).await);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        eprintln!(
            "deadlocks: {:?}, retries: {:?}",
            rows(&db, ask).await,
            named(&called, "retrying")
        );
        assert_eq!(rows(&db, "SELECT count(*) FROM t WHERE n = 7").await, ["3000"]);
        assert_eq!(rows(&db, "SELECT count(*) FROM t WHERE v LIKE '%!'").await, ["50"]);
    });
}

/// The primary is gone in the middle of the copy, and behind the same address stands its standby: first
/// as it was, then promoted.
#[test]
fn a_standby_behind_the_address_stops_the_run_and_a_promoted_one_too() {
    if !wanted(Flavor::PostgresDistro) {
        return;
    }
    std::thread::scope(|scope| {
        for promoted in [false, true] {
            scope.spawn(move || {
                tokio::runtime::Runtime::new().unwrap().block_on(fail_over(promoted));
            });
        }
    });
}

async fn fail_over(promoted: bool) {
    let pair = Pair::start(&ServerSpec::new(Flavor::PostgresDistro)).unwrap();
    sql::execute(&pair.primary.url(), vec!["CREATE DATABASE shop".to_owned()]).unwrap();
    let (url, standby) =
        (format!("{}shop", pair.primary.url()), format!("{}shop", pair.replica.url()));
    let client = pg::connect(&url).await.unwrap();
    run(
        &client,
        &[
            "CREATE TABLE t (id int PRIMARY KEY, v text NOT NULL DEFAULT '')",
            "INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1, 3000) i",
        ],
    )
    .await;
    let proxy = Proxy::start(&pair.primary.url()).unwrap();
    let trap = proxy.trap_after(CHUNK.0, CHUNK.1, Deed::Hold);
    let mut runner = start(&proxy.url("shop"), CHANGE, &WORDS);
    tokio::task::block_in_place(|| spring(&trap, &mut runner));
    pair.wait_caught_up(LIMIT).unwrap();
    if promoted {
        pair.primary.kill9().unwrap();
        sql::execute(&standby, vec!["SELECT pg_promote(true, 60)".to_owned()]).unwrap();
    }
    proxy.lead_to(&pair.replica.url()).unwrap();
    trap.release();
    let called = tokio::task::block_in_place(|| runner.wait(LIMIT)).unwrap();
    eprintln!("promoted: {promoted}: {} {}", called.code(), called.complaint());
    assert_eq!(called.code(), 3, "{}", called.complaint());
    for part in ["checking that this is the same server", "reached", "another one took over"] {
        assert!(called.complaint().contains(part), "{part:?}: {}", called.complaint());
    }
    if !promoted {
        return;
    }
    // What the standby had of the run came with it: whoever looks at it and begins there goes on.
    let client = pg::connect(&standby).await.unwrap();
    run(&client, &["UPDATE t SET v = v || '!' WHERE id <= 50", "DELETE FROM t WHERE id = 60"])
        .await;
    let called = tokio::task::block_in_place(|| succeed(start(&standby, CHANGE, &WORDS)));
    assert!(called.event("run_resumed").is_some(), "{:?}", called.events);
    let ask = "SELECT count(*), count(*) FILTER (WHERE v LIKE '%!'), min(n), max(n) FROM t";
    let found = pg::text_rows(&client, ask).await.unwrap();
    let found: Vec<String> = found.concat().into_iter().flatten().collect();
    assert_eq!(found, ["2999", "50", "7", "7"]);
}

/// A second program for the same table: with the same statement, and with another one.
#[test]
fn a_second_program_beside_the_first_is_refused() {
    on_each(&[Flavor::PostgresDistro], async |db: TestDb| {
        make_table(&db, 3000).await;
        let proxy = Proxy::start(&db.endpoints().primary).unwrap();
        let trap = proxy.trap_after(CHUNK.0, CHUNK.1, Deed::Hold);
        let mut first = start(&proxy.url(db.name()), CHANGE, &WORDS);
        tokio::task::block_in_place(|| spring(&trap, &mut first));
        for (change, says) in [
            (CHANGE, "another runner works on"),
            ("ALTER TABLE t ADD other int", "has an unfinished run"),
        ] {
            let second = start(&db.url(), change, &WORDS);
            let second = tokio::task::block_in_place(|| second.wait(LIMIT)).unwrap();
            eprintln!("{change}: {} {}", second.code(), second.complaint());
            assert_eq!(second.code(), 3, "{}", second.complaint());
            assert!(second.complaint().contains(says), "{}", second.complaint());
        }
        trap.release();
        tokio::task::block_in_place(|| succeed(first));
        assert_eq!(rows(&db, "SELECT count(*) FROM t WHERE n = 7").await, ["3000"]);
    });
}

/// The disk of the table's tablespace is full in the middle of the copy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_the_run_and_leaves_the_table_as_it_was() {
    if !wanted(Flavor::PostgresDistro) {
        return;
    }
    let disk = match SmallDisk::mount(24) {
        Ok(disk) => disk,
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "no small disk, and CI is set: {error:#}");
            eprintln!("SKIPPED: no small disk: {error:#}");
            return;
        }
    };
    // A server of its own: a replica beside it would write to the same disk, and break.
    let server = Server::start(&ServerSpec::new(Flavor::PostgresDistro), false).unwrap();
    let url = format!("{}postgres", server.url());
    let client = pg::connect(&url).await.unwrap();
    // the server insists on a directory of its own account's, which only it can make
    let dir = disk.path().join("space");
    let make = format!("COPY (SELECT 1) TO PROGRAM 'mkdir -m 700 {}'", dir.display());
    let space = format!("CREATE TABLESPACE small LOCATION '{}'", dir.display());
    let table = "CREATE TABLE t (id int PRIMARY KEY, v text NOT NULL) TABLESPACE small";
    let fill = "INSERT INTO t SELECT i, repeat(md5(i::text), 30) FROM generate_series(1, 14000) i";
    run(&client, &[&make, &space, table, "ALTER TABLE t ALTER v SET STORAGE PLAIN", fill]).await;
    let sum = "SELECT count(*), sum(hashtext(v)) FROM t";
    let before = pg::text_rows(&client, sum).await.unwrap();
    let called = tokio::task::block_in_place(|| start(&url, CHANGE, &WORDS).wait(LIMIT)).unwrap();
    eprintln!("{} {}", called.code(), called.complaint());
    assert_eq!(called.code(), 1, "{}", called.complaint());
    let says = called.complaint();
    assert!(
        says.contains("No space left on device") && says.contains("out of disk space"),
        "{says}"
    );
    assert_eq!(before, pg::text_rows(&client, sum).await.unwrap(), "the source");
    let aborted = cli::call(&["abort", &url, "t"]).unwrap();
    assert!(aborted.code() == 0, "{}", aborted.complaint());
    let left = "SELECT nspname FROM pg_namespace WHERE nspname ~ '^underpin_'";
    assert!(pg::text_rows(&client, left).await.unwrap().is_empty());
    // What the shadow took is free again: the application goes on writing.
    let again = "INSERT INTO t SELECT i, repeat('x', 900) FROM generate_series(20001, 22000) i";
    run(&client, &["CHECKPOINT", again, "DROP TABLE t", "DROP TABLESPACE small"]).await;
}
