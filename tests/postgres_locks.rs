//! Whoever holds the table is waited for and named, and the application is held up no longer than the
//! lock time-out meanwhile.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

mod postgres_runs;
mod postgres_steps;

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_postgres::Client;
use underpin_dialect::{ErrorKind, Shadow, Swap};
use underpin_tests::proxy::Proxy;
use underpin_tests::runner::Runner;
use underpin_tests::servers::{Flavor, Server, ServerSpec, TestDb, pg, wanted};

use postgres_runs::{
    Application, LIMIT, before_the_locks, between_the_locks, named, pid_of, spring, start, succeed,
};
use postgres_steps::{Steps, make_table, on_each, rows, run};

const CHANGE: &str = "ALTER TABLE t ADD n int NOT NULL DEFAULT 7";

/// What the application does all the time.
const TRAFFIC: [&str; 2] =
    ["SELECT * FROM t WHERE id = 17", "UPDATE t SET v = v || 'x' WHERE id = 18"];

/// How long the table is held: several times the lock time-out.
const HELD: Duration = Duration::from_millis(2500);

/// When the holder comes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moment {
    /// Before the triggers are installed.
    Installation,
    /// Before the swap asks for its first lock.
    Swap,
    /// When the swap has the weak lock, and asks for the strong one.
    BetweenTheLocks,
}

/// Waits for a try of the lock that names the holder by all of `words`.
fn wait_named(runner: &mut Runner, words: &[&str]) {
    let says = |event: &Value| {
        let why = event["why"].as_str().unwrap_or_default();
        event["event"] == "lock_try" && words.iter().all(|word| why.contains(word))
    };
    let found = runner.wait_for(LIMIT, says).unwrap();
    assert!(found.is_some(), "nobody was named as {words:?}: {}", runner.story());
}

/// Runs the change while `holder` does `begin` and holds on, until it does `end`.
async fn held(
    db: &TestDb,
    moment: Moment,
    holder: &Client,
    [begin, end]: [&str; 2],
    words: &[&str],
) {
    let proxy = Proxy::start(&db.endpoints().primary).unwrap();
    let trap = match moment {
        Moment::Installation => None,
        Moment::Swap => Some(before_the_locks(&proxy)),
        Moment::BetweenTheLocks => Some(between_the_locks(&proxy)),
    };
    if moment == Moment::Installation {
        run(holder, &[begin]).await;
    }
    let application = Application::start(&db.url(), &TRAFFIC).await;
    let mut runner = start(&proxy.url(db.name()), CHANGE, &[]);
    if let Some(trap) = trap {
        spring(&trap, &mut runner);
        run(holder, &[begin]).await;
        trap.release();
    }
    let begun = Instant::now();
    wait_named(&mut runner, words);
    tokio::time::sleep(HELD.saturating_sub(begun.elapsed())).await;
    assert!(!runner.has_ended().unwrap(), "{}", runner.story());
    let reached = |phase: &str| runner.find(|event| event["phase"] == phase).is_some();
    assert_eq!(reached("copy"), moment != Moment::Installation, "{moment:?}");
    assert!(runner.find(|event| event["event"] == "swap").is_none(), "swapped under a holder");
    run(holder, &[end]).await;
    succeed(runner);
    application.stop().await;
    assert_eq!(rows(db, "SELECT DISTINCT n FROM t").await, ["7"]);
}

const WRITE: &str = "BEGIN; UPDATE t SET v = 'held' WHERE id = 40";

/// Who is idle in a transaction is named by process, user, lock, age and query.
fn an_idle_transaction(moment: Moment) {
    on_each(&[Flavor::PostgresDistro], async |db| {
        make_table(&db, 2000).await;
        let holder = db.client().await.unwrap();
        let session = format!("session {} of postgres", pid_of(&holder).await);
        let words = [&session, "RowExclusiveLock", "in a transaction for", "idle in", WRITE];
        held(&db, moment, &holder, [WRITE, "COMMIT"], &words).await;
        assert_eq!(rows(&db, "SELECT v FROM t WHERE id = 40").await, ["held"]);
    });
}

#[test]
fn an_idle_transaction_delays_the_installation_and_nobody_else() {
    an_idle_transaction(Moment::Installation);
}

#[test]
fn an_idle_transaction_delays_the_swap_and_nobody_else() {
    an_idle_transaction(Moment::Swap);
}

/// A prepared transaction has no session: it is named by its own name, with how to end it.
fn a_prepared_transaction(moment: Moment) {
    on_each(&[Flavor::PostgresDistro], async |db| {
        make_table(&db, 2000).await;
        let holder = db.client().await.unwrap();
        let id = format!("held_{}", db.name());
        let begin = format!("{WRITE}; PREPARE TRANSACTION '{id}'");
        let end = format!("COMMIT PREPARED '{id}'");
        let name = format!("prepared transaction {id} of postgres");
        let words = [&name, "RowExclusiveLock", "s old", "COMMIT PREPARED"];
        held(&db, moment, &holder, [&begin, &end], &words).await;
        assert_eq!(rows(&db, "SELECT v FROM t WHERE id = 40").await, ["held"]);
    });
}

#[test]
fn a_prepared_transaction_delays_the_installation_and_nobody_else() {
    a_prepared_transaction(Moment::Installation);
}

#[test]
fn a_prepared_transaction_delays_the_swap_and_nobody_else() {
    a_prepared_transaction(Moment::Swap);
}

/// A reader does not hold the triggers off, so the whole copy is made beside him; the swap waits.
#[test]
fn a_long_reader_delays_the_swap_and_not_the_copy() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        make_table(&db, 2000).await;
        let holder = db.client().await.unwrap();
        let read = "BEGIN; SELECT count(*) FROM t";
        run(&holder, &[read]).await;
        let application = Application::start(&db.url(), &TRAFFIC).await;
        let mut runner = start(&db.url(), CHANGE, &[]);
        let session = format!("session {} of postgres", pid_of(&holder).await);
        // By then his transaction has a new last query.
        wait_named(&mut runner, &[&session, "AccessShareLock", "SELECT pg_backend_pid()"]);
        tokio::time::sleep(HELD).await;
        run(&holder, &["COMMIT"]).await;
        let called = succeed(runner);
        let at = |wanted: &dyn Fn(&Value) -> bool| called.events.iter().position(wanted).unwrap();
        let first_try = at(&|event| event["event"] == "lock_try");
        assert!(at(&|event| event["phase"] == "swap") < first_try, "the installation had to wait");
        application.stop().await;
    });
}

/// A reader who comes between the two locks makes the strong one fail, and everybody is let through.
#[test]
fn a_reader_between_the_locks_delays_the_swap_and_nobody_else() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        make_table(&db, 2000).await;
        let holder = db.client().await.unwrap();
        let read = "BEGIN; SELECT count(*) FROM t";
        let words = [&format!("session {} of", pid_of(&holder).await), "AccessShareLock", read];
        held(&db, Moment::BetweenTheLocks, &holder, [read, "COMMIT"], &words).await;
    });
}

/// The swap needs the tables of foreign keys too. Who holds one of those must not keep the table itself
/// locked, and is named with the table that he holds.
#[test]
fn who_holds_a_referencing_table_delays_the_swap_and_nobody_else() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        make_table(&db, 2000).await;
        let holder = db.client().await.unwrap();
        run(&holder, &["CREATE TABLE child (p int REFERENCES t)", "INSERT INTO child VALUES (1)"])
            .await;
        let read = "BEGIN; SELECT count(*) FROM child";
        let words = [&format!("session {} of", pid_of(&holder).await), "on public.child", read];
        held(&db, Moment::Swap, &holder, [read, "COMMIT"], &words).await;
        let key = "SELECT convalidated, confrelid::regclass FROM pg_constraint WHERE conrelid = \
                   'child'::regclass AND contype = 'f'";
        assert_eq!(rows(&db, key).await, ["t/t"]);
    });
}

/// The rule: who has held the table for longer than the lock time-out will not let go within it, so we do
/// not even queue, for everybody would queue behind us.
#[test]
fn who_has_held_the_table_for_long_is_seen_before_anybody_queues() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        make_table(&db, 100).await;
        let steps = Steps::begin(&db, CHANGE).await;
        steps.copied(&mut steps.worker().await).await;
        let holder = db.client().await.unwrap();
        run(&holder, &["BEGIN", "SELECT count(*) FROM t"]).await;
        // The server counts the age in whole seconds.
        tokio::time::sleep(Duration::from_millis(2100)).await;
        let application = Application::start(&db.url(), &TRAFFIC).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut control = steps.control().await;
        let error = control.try_swap(&steps.spec, &steps.grip, 1000).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::LockNotHad);
        let session = format!("session {} of postgres", pid_of(&holder).await);
        assert!(error.to_string().contains(&session), "{error}");
        application.stop_within(Duration::from_millis(500)).await;
    });
}

/// The same for the triggers: there a writer is in the way, and a reader is not.
#[test]
fn who_has_written_for_long_is_seen_before_the_installation_queues() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        make_table(&db, 100).await;
        let steps = Steps::recorded(&db, CHANGE).await;
        let (reader, writer) = (db.client().await.unwrap(), db.client().await.unwrap());
        run(&reader, &["BEGIN", "SELECT v FROM t WHERE id = 3 FOR SHARE"]).await;
        run(&writer, &["BEGIN", "UPDATE t SET v = 'held' WHERE id = 40"]).await;
        tokio::time::sleep(Duration::from_millis(2100)).await;
        let application = Application::start(&db.url(), &TRAFFIC).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut control = steps.control().await;
        let error = control.prepare(&steps.spec).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::LockNotHad);
        let named = |pid: i32| error.to_string().contains(&format!("session {pid} of"));
        assert!(named(pid_of(&writer).await) && !named(pid_of(&reader).await), "{error}");
        application.stop_within(Duration::from_millis(500)).await;
        run(&writer, &["COMMIT"]).await;
        control.prepare(&steps.spec).await.unwrap();
    });
}

/// Table options under which autovacuum comes after a thousand dead rows, and goes slowly.
const SLOW_VACUUM: &str = "autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0, \
     autovacuum_vacuum_insert_threshold = -1, autovacuum_analyze_threshold = 1000000000, \
     autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1";

/// Makes a twentieth of the rows die, in all blocks, and waits until autovacuum is at the table.
async fn wait_for_autovacuum(client: &Client, table: &str) {
    run(client, &[&format!("UPDATE {table} SET v = v WHERE id % 20 = 0")]).await;
    let at_it = format!(
        "SELECT count(*) > 0 FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.relation = \
         '{table}'::regclass AND a.backend_type = 'autovacuum worker' AND l.mode = \
         'ShareUpdateExclusiveLock' AND l.granted"
    );
    let until = Instant::now() + Duration::from_secs(60);
    while !client.query_one(&at_it, &[]).await.unwrap().get::<_, bool>(0) {
        assert!(Instant::now() < until, "no autovacuum came to {table}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Autovacuum holds a table against definitions for as long as it works there, here half a minute. It
/// gives way to a request that can wait for it, never to a short one: at the installation, at the swap,
/// and on the shadow, to which it comes because that was just filled.
#[tokio::test(flavor = "multi_thread")]
async fn an_autovacuum_gives_way() {
    if !wanted(Flavor::PostgresDistro) {
        return;
    }
    let spec = ServerSpec::new(Flavor::PostgresDistro).option("autovacuum_naptime=1s");
    let server = Server::start(&spec, false).unwrap();
    let url = format!("{}postgres", server.url());
    let client = pg::connect(&url).await.unwrap();
    run(
        &client,
        &[
            &format!("CREATE TABLE t (id int PRIMARY KEY, v text NOT NULL) WITH ({SLOW_VACUUM})"),
            "INSERT INTO t SELECT i, repeat('x', 60) FROM generate_series(1, 20000) i",
        ],
    )
    .await;
    let given_way = || server.log().matches("canceling autovacuum task").count();
    let application = Application::start(&url, &TRAFFIC).await;
    let proxy = Proxy::start(&server.url()).unwrap();
    let trap = before_the_locks(&proxy);
    wait_for_autovacuum(&client, "t").await;
    let mut runner = start(&proxy.url("postgres"), CHANGE, &["--verify", "off"]);
    spring(&trap, &mut runner);
    // On a slow machine it comes, and gives way, once more.
    let at_the_installation = given_way();
    assert!(at_the_installation > 0, "at the installation");
    let shadow = "SELECT nspname FROM pg_namespace WHERE nspname ~ '^underpin_[a-z0-9]+$'";
    let private: String = client.query_one(shadow, &[]).await.unwrap().get(0);
    wait_for_autovacuum(&client, "t").await;
    wait_for_autovacuum(&client, &format!("{private}.t")).await;
    trap.release();
    let called = succeed(runner);
    assert!(given_way() > at_the_installation, "at the swap");
    let tries = named(&called, "lock_try");
    assert!(tries.is_empty(), "{tries:?}");
    application.stop().await;
}
