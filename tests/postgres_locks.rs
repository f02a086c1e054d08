//! Whoever holds the table is waited for and named, and the application is held up no longer than the
//! lock time-out meanwhile.
#![allow(clippy::unwrap_used)] // what cannot be had here fails the test

use std::time::{Duration, Instant};

use tokio_postgres::Client;
use underpin_tests::runner::Runner;
use underpin_tests::servers::{Flavor, TestDb};

const LIMIT: Duration = Duration::from_secs(240);
/// The lock time-out of the runs here, what a machine under load adds, and the swap itself.
const STALL_MAX: Duration = Duration::from_millis(300 + 2500);

async fn table(db: &TestDb, rows: u32) -> Client {
    let client = db.client().await.unwrap();
    let sql = format!(
        "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT i, i FROM \
         generate_series(1, {rows}) i"
    );
    client.batch_execute(&sql).await.unwrap();
    client
}

fn start(db: &TestDb) -> Runner {
    let words = [
        "run",
        &db.url(),
        "ALTER TABLE t ALTER v TYPE bigint",
        "--strategy",
        "shadow",
        "--replica",
        "none",
        "--yes",
        "--lock-timeout",
        "300ms",
    ];
    Runner::start(&words).unwrap()
}

/// Waits for a try of the lock that names `holder`.
fn named(runner: &mut Runner, holder: &str) {
    let found = runner
        .wait_for(LIMIT, |event| event["event"] == "lock_try" && event.to_string().contains(holder))
        .unwrap();
    assert!(found.is_some(), "nobody was named as {holder}: {}", runner.story());
}

fn succeed(runner: Runner) {
    let called = runner.wait(LIMIT).unwrap();
    assert_eq!(called.code(), 0, "{}", called.complaint());
}

/// Writes one row after the other until told to stop; returns the longest wait.
fn application(
    client: Client,
    mut stop: tokio::sync::oneshot::Receiver<()>,
) -> tokio::task::JoinHandle<Duration> {
    tokio::spawn(async move {
        let mut longest = Duration::ZERO;
        while stop.try_recv().is_err() {
            let begun = Instant::now();
            client.batch_execute("UPDATE t SET v = v + 1 WHERE id = 1").await.unwrap();
            longest = std::cmp::max(longest, begun.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        longest
    })
}

/// Runs a change while `hold` keeps the table; `release` lets it go. The holder is named by `name`.
async fn held(hold: &str, release: &str, name: &str) {
    let Some(db) = TestDb::new(Flavor::PostgresDistro) else { return };
    let holder = table(&db, 1000).await;
    holder.batch_execute(hold).await.unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let writer = application(db.client().await.unwrap(), stopped);
    let mut runner = start(&db);
    tokio::task::block_in_place(|| named(&mut runner, name));
    holder.batch_execute(release).await.unwrap();
    tokio::task::block_in_place(|| succeed(runner));
    stop.send(()).unwrap();
    let longest = writer.await.unwrap();
    assert!(longest < STALL_MAX, "the application stood still for {longest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_transaction_is_named_and_waited_for() {
    held("BEGIN; UPDATE t SET v = 0 WHERE id = 5", "COMMIT", "UPDATE t SET v = 0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_reader_is_named_and_waited_for() {
    held("BEGIN; SELECT count(*) FROM t", "COMMIT", "SELECT count(*) FROM t").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_transaction_is_named_and_waited_for() {
    let Some(db) = TestDb::new(Flavor::PostgresDistro) else { return };
    let id = format!("held_{}", db.name());
    held(
        &format!("BEGIN; UPDATE t SET v = 0 WHERE id = 5; PREPARE TRANSACTION '{id}'"),
        &format!("COMMIT PREPARED '{id}'"),
        &id,
    )
    .await;
}

/// A vacuum that goes slowly over the table holds it against definitions for as long as it takes. One of
/// the server's own gives way to us.
#[tokio::test(flavor = "multi_thread")]
async fn an_autovacuum_gives_way() {
    let Some(db) = TestDb::new(Flavor::PostgresDistro) else { return };
    let client = table(&db, 200_000).await;
    client
        .batch_execute(
            "ALTER TABLE t SET (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0, \
             autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1); DELETE FROM t \
             WHERE id > 1",
        )
        .await
        .unwrap();
    let vacuuming = "SELECT count(*)::int FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE \
                     l.relation = 't'::regclass AND a.backend_type = 'autovacuum worker'";
    let until = Instant::now() + Duration::from_secs(150);
    while client.query_one(vacuuming, &[]).await.unwrap().get::<_, i32>(0) == 0 {
        assert!(Instant::now() < until, "no autovacuum came");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let runner = start(&db);
    tokio::task::block_in_place(|| succeed(runner));
}
