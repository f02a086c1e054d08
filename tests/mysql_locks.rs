//! Locks: the copy takes none on the source, and who holds the table makes nobody wait for long.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

mod mysql_steps;

use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use underpin_dialect::{Copy, Worker};
use underpin_tests::busy;
use underpin_tests::prober::Prober;
use underpin_tests::proxy::{Deed, Proxy};
use underpin_tests::servers::{Flavor, TestDb};

use mysql_steps::{
    Steps, make_table, named, on_each_alone, rows, run, spring, start, succeed, wait_for_lock_wait,
};

const CHANGE: &str = "ALTER TABLE t ADD n INT NOT NULL DEFAULT 7";

/// Row locks and table locks on a table, as `THREAD TYPE MODE`; MySQL only.
fn locks_query(db: &TestDb, table: &str) -> String {
    format!(
        "SELECT CONCAT_WS(' ', t.PROCESSLIST_ID, l.LOCK_TYPE, l.LOCK_MODE) \
         FROM performance_schema.data_locks AS l JOIN performance_schema.threads AS t \
         ON t.THREAD_ID = l.THREAD_ID WHERE l.OBJECT_SCHEMA = '{}' AND l.OBJECT_NAME = '{table}'",
        db.name()
    )
}

#[test]
fn a_chunk_in_flight_locks_no_row_of_the_source() {
    on_each_alone(&Flavor::ALL, async |db| {
        make_table(&db, 500).await;
        let steps = Steps::begin(&db, CHANGE).await;
        let mut worker = steps.worker().await;
        let (chunks, _) = worker.plan_chunks(None, 1000, 1).await.unwrap();
        // A row that stands in the chunk's way: it waits in the middle of its statement.
        let mut blocker = db.conn().await.unwrap();
        let row = format!("INSERT INTO {} (id, u, v) VALUES (250, -1, '')", steps.shadow());
        run(&mut blocker, &["BEGIN", &row]).await;
        let session = worker.session();
        let copying = tokio::spawn(async move { worker.copy_chunk(1, &chunks[0]).await });
        wait_for_lock_wait(&db, session).await;
        if !db.endpoints().flavor.is_mariadb() {
            let seen = rows(&db, &locks_query(&db, &steps.spec.names.shadow)).await;
            assert!(!seen.is_empty(), "the query sees the locks of the shadow");
            let on_source = rows(&db, &locks_query(&db, "t")).await;
            assert!(on_source.is_empty(), "locks on the source: {on_source:?}");
        }
        let mut app = db.conn().await.unwrap();
        run(
            &mut app,
            &[
                "UPDATE t SET v = 'changed' WHERE id IN (1, 249, 250, 251, 500)",
                "UPDATE t SET u = 1 WHERE id = 2",
                "DELETE FROM t WHERE id = 3",
                "INSERT INTO t (id, u) VALUES (3, 3), (501, 501)",
            ],
        )
        .await;
        assert!(!copying.is_finished(), "the application had to wait for the chunk");
        run(&mut blocker, &["ROLLBACK"]).await;
        assert_eq!(copying.await.unwrap().unwrap(), 500);
    });
}

#[test]
fn no_row_of_the_source_is_locked_from_begin_to_end() {
    on_each_alone(&[Flavor::MySql97], async |db| {
        make_table(&db, 20_000).await;
        let mut runner = start(&db.url(), CHANGE, &[]);
        let mut conn = db.conn().await.unwrap();
        let query = format!("{} AND l.LOCK_TYPE = 'RECORD'", locks_query(&db, "t"));
        let mut looks = 0;
        while !runner.has_ended().unwrap() {
            let seen: Vec<String> = conn.query(&query).await.unwrap();
            // nobody else writes: any row lock is ours
            assert!(seen.is_empty(), "row locks on the source: {seen:?}");
            if runner.find(|event| event["phase"] == "copy").is_some() {
                looks += 1;
            }
        }
        succeed(runner);
        assert!(looks > 20, "only {looks} looks");
    });
}

/// How long the third session holds the table: a minute in the full test.
fn hold() -> Duration {
    let seconds = std::env::var("UNDERPIN_TEST_HOLD_S").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(6))
}

/// The longest that it is held.
const HOLD_MAX: Duration = Duration::from_secs(60);

/// Longest time the application may wait: the lock time-out (one second), and some for the way.
const APPLICATION_WAIT_MAX: Duration = Duration::from_millis(1400);

/// Where the third session comes to hold the table.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moment {
    /// Before the triggers are installed.
    Installation,
    /// When the swap asks for its lock.
    Swap,
}

/// Runs a change while a third session sits on the table, and checks what everybody felt.
async fn with_a_holder(db: &TestDb, moment: Moment, begin: &[&str]) {
    make_table(db, 3000).await;
    let proxy = Proxy::start(&db.endpoints().primary).unwrap();
    let mut holder = db.conn().await.unwrap();
    let session: u64 = holder.query_first("SELECT CONNECTION_ID()").await.unwrap().unwrap();
    let trap = proxy.trap(&["LOCK TABLES", "~up_new"], Deed::Hold);
    if moment == Moment::Installation {
        trap.release();
        run(&mut holder, begin).await;
    }
    let mut runner = start(&proxy.url(db.name()), CHANGE, &[]);
    if moment == Moment::Swap {
        spring(&trap, &mut runner);
        run(&mut holder, begin).await;
        trap.release();
    }
    let (reads, writes) = ("SELECT * FROM t WHERE id = 17", "UPDATE t SET v = '%n' WHERE id = 18");
    let probers =
        [reads, writes].map(|statement| Prober::start(&db.url(), vec![statement.to_owned()]));
    let began = Instant::now();
    tokio::time::sleep(hold()).await;
    // It has been refused twice at least, however slow the machine is.
    let refused = |runner: &underpin_tests::runner::Runner| {
        runner.events().iter().filter(|event| event["event"] == "lock_try").count()
    };
    while refused(&runner) < 2 && began.elapsed() < HOLD_MAX {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let done = if moment == Moment::Swap { "swap" } else { "" };
    assert!(!runner.has_ended().unwrap(), "{:?}", runner.events());
    assert!(runner.find(|event| event["event"] == done).is_none(), "swapped under a holder");
    let copying = runner.find(|event| event["phase"] == "copy").is_some();
    assert_eq!(copying, moment == Moment::Swap, "{moment:?}");
    run(&mut holder, &["COMMIT"]).await;
    let held = began.elapsed();
    let called = succeed(runner);
    for prober in probers {
        let felt = prober.stop().unwrap();
        assert_eq!(felt.errors.total(), 0, "{}", felt.errors);
        assert!(felt.statements > 100, "{felt:?}");
        assert!(felt.held_up() < busy::allows(began, APPLICATION_WAIT_MAX), "blocked: {felt:?}");
        eprintln!(
            "{} {moment:?}: held for {held:.1?}, the application waited {:.0?} at most",
            db.endpoints().flavor.name(),
            felt.longest
        );
    }
    let tries = named(&called, "lock_try");
    assert!(tries.len() >= 2, "{tries:?}");
    let named = tries.iter().filter(|event| {
        event["why"].as_str().is_some_and(|why| why.contains(&format!("session {session} ")))
    });
    assert!(named.count() > 0, "the holder (session {session}) is named: {tries:?}");
}

#[test]
fn a_reader_that_holds_the_table_delays_the_swap_and_nobody_else() {
    on_each_alone(&Flavor::ALL[..2], async |db| {
        with_a_holder(&db, Moment::Swap, &["BEGIN", "SELECT COUNT(*) FROM t"]).await;
    });
}

#[test]
fn a_writer_that_holds_the_table_delays_the_swap_and_nobody_else() {
    on_each_alone(&Flavor::ALL[..2], async |db| {
        with_a_holder(&db, Moment::Swap, &["BEGIN", "UPDATE t SET v = 'held' WHERE id = 40"]).await;
        assert_eq!(rows(&db, "SELECT v FROM t WHERE id = 40 AND n = 7").await, ["held"]);
    });
}

#[test]
fn a_writer_that_holds_the_table_delays_the_installation_and_nobody_else() {
    on_each_alone(&Flavor::ALL[..2], async |db| {
        let write = "UPDATE t SET v = 'before' WHERE id = 40";
        with_a_holder(&db, Moment::Installation, &["BEGIN", write]).await;
        assert_eq!(rows(&db, "SELECT v FROM t WHERE id = 40 AND n = 7").await, ["before"]);
    });
}
