//! Cancel and confirm on real servers: what is said to have ended has ended.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

use std::time::{Duration, Instant};

use tokio::time::sleep;
use underpin_dialect::{DbResult, ErrorKind};
use underpin_postgres::cancel::{CancelLimits, Canceller, Finished, SessionState};
use underpin_postgres::connect::{Session, SessionId, SessionSettings, connect};
use underpin_postgres::error::Doing;
use underpin_postgres::options::{ConnectOptions, FileSearch, resolve};
use underpin_tests::servers::{Flavor, Server, ServerSpec, TestDb, pg, sql, wanted};

/// Long enough that no test waits for it, short enough that a leak ends by itself.
const LONG_S: u64 = 25;
/// What a cancel may take on a busy machine; far below [`LONG_S`].
const SOON: Duration = Duration::from_secs(10);

fn options(url: &str) -> ConnectOptions {
    resolve(url, &FileSearch::none(), &|_| None).unwrap().options
}

async fn session(url: &str) -> Session {
    connect(&options(url), &SessionSettings::default()).await.unwrap()
}

async fn canceller(url: &str, limits: CancelLimits) -> Canceller {
    Canceller::open(&options(url), &SessionSettings::default(), limits).await.unwrap()
}

async fn count(url: &str, table: &str) -> i64 {
    let client = pg::connect(url).await.unwrap();
    let row = client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap();
    row.get(0)
}

async fn run_statement(session: &Session, statement: &str) -> DbResult<()> {
    session.client.batch_execute(statement).await.doing("running a statement", "")
}

fn sleep_statement() -> String {
    format!("SELECT pg_sleep({LONG_S})")
}

fn after(ms: u64) -> impl Future<Output = ()> {
    sleep(Duration::from_millis(ms))
}

/// The answer is sent a moment before the session is shown as idle.
async fn idle_soon(canceller: &Canceller, session: &SessionId) -> bool {
    for _ in 0..50 {
        if canceller.look(session).await.unwrap() == SessionState::Idle {
            return true;
        }
        after(20).await;
    }
    false
}

/// Never comes.
fn never() -> impl Future<Output = ()> {
    std::future::pending()
}

/// A table to write to, and a statement that takes long about it.
const LONG_INSERT: &str = "INSERT INTO public.t SELECT g, repeat('x', 200) \
                           FROM generate_series(1, 400000000) AS g";

fn with_table(db: &TestDb) {
    let table = "CREATE TABLE t (a bigint, c text)".to_owned();
    sql::execute(&db.url(), vec![table]).unwrap();
}

#[tokio::test]
async fn work_that_ends_by_itself_is_done() {
    for flavor in Flavor::POSTGRES_MATRIX {
        let Some(db) = TestDb::new(flavor) else { continue };
        let canceller = canceller(&db.url(), CancelLimits::default()).await;
        let worker = session(&db.url()).await;
        let finished = canceller.run(&worker.id, never(), run_statement(&worker, "SELECT 1")).await;
        assert!(matches!(finished, Finished::Done(())), "{finished:?}");
        let finished = canceller.run(&worker.id, never(), run_statement(&worker, "SELEKT")).await;
        let Finished::Failed(error) = finished else { panic!("{finished:?}") };
        assert_eq!(error.kind, ErrorKind::Refused);
    }
}

#[tokio::test]
async fn a_stopped_insert_has_written_nothing_and_the_session_goes_on() {
    for flavor in Flavor::POSTGRES_MATRIX {
        let Some(db) = TestDb::new(flavor) else { continue };
        with_table(&db);
        let canceller = canceller(&db.url(), CancelLimits::default()).await;
        let worker = session(&db.url()).await;
        let started = Instant::now();
        let finished =
            canceller.run(&worker.id, after(500), run_statement(&worker, LONG_INSERT)).await;
        let Finished::Failed(error) = finished else { panic!("{}: {finished:?}", flavor.name()) };
        assert_eq!(error.kind, ErrorKind::Cancelled, "{error}");
        assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
        assert!(idle_soon(&canceller, &worker.id).await, "{}", flavor.name());
        assert_eq!(count(&db.url(), "t").await, 0);
        // No cancel is left over for the next statements.
        for _ in 0..50 {
            run_statement(&worker, "INSERT INTO public.t VALUES (1, '')").await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_statement_that_waits_for_a_table_lock_is_stopped() {
    for flavor in Flavor::POSTGRES_MATRIX {
        let Some(db) = TestDb::new(flavor) else { continue };
        with_table(&db);
        let holder = pg::connect(&db.url()).await.unwrap();
        holder.batch_execute("BEGIN; LOCK TABLE t IN ACCESS SHARE MODE").await.unwrap();
        let canceller = canceller(&db.url(), CancelLimits::default()).await;
        let settings = SessionSettings { lock_timeout_ms: 60_000, ..SessionSettings::default() };
        let worker = connect(&options(&db.url()), &settings).await.unwrap();
        let started = Instant::now();
        let rename = "ALTER TABLE public.t RENAME TO u";
        let finished = canceller.run(&worker.id, after(200), run_statement(&worker, rename)).await;
        let Finished::Failed(error) = finished else { panic!("{finished:?}") };
        assert_eq!(error.kind, ErrorKind::Cancelled, "{error}");
        assert!(started.elapsed() < SOON);
        assert_eq!(count(&db.url(), "t").await, 0);
        // Without a stop it is the lock's time-out that ends it, under another name.
        let settings = SessionSettings { lock_timeout_ms: 100, ..SessionSettings::default() };
        let worker = connect(&options(&db.url()), &settings).await.unwrap();
        let error = run_statement(&worker, rename).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::LockNotHad, "{error}");
    }
}

#[tokio::test]
async fn a_cancelled_statement_leaves_its_transaction_open_and_idle() {
    let Some(db) = TestDb::new(Flavor::PostgresDistro) else { return };
    with_table(&db);
    let canceller = canceller(&db.url(), CancelLimits::default()).await;
    let worker = session(&db.url()).await;
    run_statement(&worker, "BEGIN; INSERT INTO public.t VALUES (1, '')").await.unwrap();
    let statement = sleep_statement();
    let finished = canceller.run(&worker.id, after(200), run_statement(&worker, &statement)).await;
    assert!(matches!(finished, Finished::Failed(_)), "{finished:?}");
    assert!(idle_soon(&canceller, &worker.id).await);
    run_statement(&worker, "SELECT 1").await.unwrap_err();
    run_statement(&worker, "ROLLBACK").await.unwrap();
    assert_eq!(count(&db.url(), "t").await, 0);
}

#[tokio::test]
async fn the_end_of_the_session_follows_and_leaves_the_outcome_unknown() {
    for flavor in Flavor::POSTGRES_MATRIX {
        let Some(db) = TestDb::new(flavor) else { continue };
        with_table(&db);
        // No time for a cancel: straight to the second step.
        let limits = CancelLimits { query_wait_ms: 0, ..CancelLimits::default() };
        let canceller = canceller(&db.url(), limits).await;
        let worker = session(&db.url()).await;
        let finished =
            canceller.run(&worker.id, after(500), run_statement(&worker, LONG_INSERT)).await;
        assert!(matches!(finished, Finished::Unknown(_)), "{}: {finished:?}", flavor.name());
        assert!(finished.into_result().unwrap_err().is_ambiguous());
        // Gone means rolled back: nothing to see, and no lock of it is left.
        assert_eq!(count(&db.url(), "t").await, 0);
        let statements = ["SET lock_timeout = 500", "TRUNCATE t"].map(str::to_owned).to_vec();
        sql::execute(&db.url(), statements).unwrap();
    }
}

#[tokio::test]
async fn a_session_is_gone_only_when_its_locks_are() {
    for flavor in Flavor::POSTGRES_MATRIX {
        let Some(db) = TestDb::new(flavor) else { continue };
        with_table(&db);
        let canceller = canceller(&db.url(), CancelLimits::default()).await;
        let witness = pg::connect(&db.url()).await.unwrap();
        for _ in 0..10 {
            let worker = session(&db.url()).await;
            let lock = "BEGIN; LOCK TABLE public.t; INSERT INTO public.t VALUES (1, '')";
            run_statement(&worker, lock).await.unwrap();
            canceller.end_session(&worker.id).await.unwrap();
            // At once, or not at all.
            witness.batch_execute("BEGIN; LOCK TABLE t NOWAIT; COMMIT").await.unwrap();
            assert_eq!(canceller.look(&worker.id).await.unwrap(), SessionState::Gone);
        }
        assert_eq!(count(&db.url(), "t").await, 0);
    }
}

#[tokio::test]
async fn a_session_killed_by_somebody_else_is_proven_gone() {
    for flavor in Flavor::POSTGRES_MATRIX {
        let Some(db) = TestDb::new(flavor) else { continue };
        let canceller = canceller(&db.url(), CancelLimits::default()).await;
        let worker = session(&db.url()).await;
        let kill = format!("SELECT pg_terminate_backend({})", worker.id.pid);
        let killer = pg::connect(&db.url()).await.unwrap();
        let statement = sleep_statement();
        let (finished, ()) = tokio::join!(
            canceller.run(&worker.id, never(), run_statement(&worker, &statement)),
            async {
                after(300).await;
                killer.batch_execute(&kill).await.unwrap();
            }
        );
        let Finished::Unknown(error) = finished else { panic!("{finished:?}") };
        assert!(error.is_connection_lost(), "{error}");
        // Every later statement says so too.
        let error = run_statement(&worker, "SELECT 1").await.unwrap_err();
        assert!(error.is_connection_lost(), "{error}");
    }
}

#[tokio::test]
async fn a_stranger_with_the_same_number_is_left_alone() {
    for flavor in Flavor::POSTGRES_MATRIX {
        let Some(db) = TestDb::new(flavor) else { continue };
        let canceller = canceller(&db.url(), CancelLimits::default()).await;
        let stranger = session(&db.url()).await;
        let ours =
            SessionId { started: "2020-01-01 00:00:00+00".to_owned(), ..stranger.id.clone() };
        assert_eq!(canceller.cancel(&ours).await.unwrap(), SessionState::Gone);
        canceller.end_session(&ours).await.unwrap();
        run_statement(&stranger, "SELECT 1").await.unwrap();
        let pid = u64::from(stranger.id.pid);
        assert_eq!(canceller.cancel_pid(pid).await.unwrap_err().kind, ErrorKind::Refused);
        canceller.register(&stranger.id);
        assert_eq!(canceller.cancel_pid(pid).await.unwrap(), SessionState::Idle);
    }
}

#[tokio::test]
async fn a_cancel_that_comes_too_late_does_no_harm() {
    for flavor in Flavor::POSTGRES_MATRIX {
        let Some(db) = TestDb::new(flavor) else { continue };
        let canceller = canceller(&db.url(), CancelLimits::default()).await;
        let killer = pg::connect(&db.url()).await.unwrap();
        let worker = session(&db.url()).await;
        for _ in 0..100 {
            run_statement(&worker, "SELECT 1").await.unwrap();
            let cancel = format!("SELECT pg_cancel_backend({})", worker.id.pid);
            killer.batch_execute(&cancel).await.unwrap();
            assert_eq!(canceller.cancel(&worker.id).await.unwrap(), SessionState::Idle);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_of_the_server_ends_the_statement() {
    for flavor in Flavor::POSTGRES_MATRIX {
        if !wanted(flavor) {
            continue;
        }
        let server = Server::start(&ServerSpec::new(flavor), false).unwrap();
        let url = format!("{}postgres", server.url());
        let canceller = canceller(&url, CancelLimits::default()).await;
        let worker = session(&url).await;
        let statement = sleep_statement();
        let (finished, server) = tokio::join!(
            canceller.run(&worker.id, never(), run_statement(&worker, &statement)),
            tokio::task::spawn_blocking(move || {
                std::thread::sleep(Duration::from_millis(300));
                server.kill9().unwrap();
                server.restart().unwrap();
                server
            })
        );
        // The canceller came back to the restarted server, the same one, and found nobody.
        assert!(matches!(finished, Finished::Unknown(_)), "{}: {finished:?}", flavor.name());
        drop(server);
    }
}

#[tokio::test]
async fn without_proof_it_may_still_run() {
    if !wanted(Flavor::PostgresDistro) {
        return;
    }
    let server = Server::start(&ServerSpec::new(Flavor::PostgresDistro), false).unwrap();
    let limits = CancelLimits { query_wait_ms: 300, connection_wait_ms: 300, poll_ms: 20 };
    let url = format!("{}postgres?connect_timeout=1", server.url());
    let canceller = canceller(&url, limits).await;
    let worker = session(&url).await;
    let statement = sleep_statement();
    let started = Instant::now();
    let stop = async {
        after(300).await;
        server.freeze().unwrap();
    };
    let finished = canceller.run(&worker.id, stop, run_statement(&worker, &statement)).await;
    let Finished::StillRunning(error) = finished else { panic!("{finished:?}") };
    assert!(error.is_ambiguous() && !error.is_connection_lost(), "{error}");
    assert!(error.to_string().contains("No proof"), "{error}");
    // Bounded: a few statements of the cancelling session, at 5 s each at most.
    assert!(started.elapsed() < Duration::from_secs(LONG_S), "{:?}", started.elapsed());
    server.thaw().unwrap();
}
