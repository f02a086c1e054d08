//! Cancel and confirm on real servers: what is said to have ended has ended.
#![allow(clippy::unwrap_used)] // what cannot be had here fails the test

use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use tokio::time::sleep;
use underpin_dialect::{DbResult, ErrorKind};
use underpin_mysql::cancel::{CancelLimits, Canceller, Finished, SessionState};
use underpin_mysql::connect::{Session, SessionId, SessionSettings, connect};
use underpin_mysql::error::Doing;
use underpin_mysql::mycnf::FileSearch;
use underpin_mysql::options::{ConnectOptions, resolve};
use underpin_tests::servers::{Flavor, Server, ServerSpec, TestDb, sql, wanted};

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

/// A plain connection, for looking at what happened.
async fn witness(url: &str) -> Conn {
    let opts = mysql_async::Opts::from_url(url).unwrap();
    Conn::new(OptsBuilder::from_opts(opts).prefer_socket(false)).await.unwrap()
}

async fn count(conn: &mut Conn, table: &str) -> u64 {
    let query = format!("SELECT COUNT(*) FROM {table}");
    conn.query_first(query).await.unwrap().unwrap()
}

async fn run_statement(conn: &mut Conn, statement: &str) -> DbResult<()> {
    conn.query_drop(statement).await.doing("running a statement", "")
}

fn sleep_statement() -> String {
    format!("DO SLEEP({LONG_S})")
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

/// A table with 500 numbers, and a statement that writes the product of it with itself.
const NUMBERS: [&str; 3] = [
    "CREATE TABLE n (id INT AUTO_INCREMENT PRIMARY KEY) ENGINE=InnoDB",
    "INSERT INTO n WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r WHERE i < 500) \
     SELECT NULL FROM r",
    "CREATE TABLE t (a INT, b INT, c CHAR(200)) ENGINE=InnoDB",
];
const LONG_INSERT: &str = "INSERT INTO t SELECT x.id, y.id, '' FROM n x, n y, n z";

fn with_numbers(db: &TestDb) {
    sql::execute(&db.url(), NUMBERS.map(str::to_owned).to_vec()).unwrap();
}

#[tokio::test]
async fn work_that_ends_by_itself_is_done() {
    for flavor in Flavor::ALL {
        let Some(db) = TestDb::new(flavor) else { continue };
        let canceller = canceller(&db.url(), CancelLimits::default()).await;
        let mut worker = session(&db.url()).await;
        let finished =
            canceller.run(&worker.id, never(), run_statement(&mut worker.conn, "DO 1")).await;
        assert!(matches!(finished, Finished::Done(())), "{finished:?}");
        let finished =
            canceller.run(&worker.id, never(), run_statement(&mut worker.conn, "SELEKT")).await;
        let Finished::Failed(error) = finished else { panic!("{finished:?}") };
        assert_eq!(error.kind, ErrorKind::Refused);
    }
}

#[tokio::test]
async fn a_stopped_insert_has_written_nothing_and_the_session_goes_on() {
    for flavor in Flavor::ALL {
        let Some(db) = TestDb::new(flavor) else { continue };
        with_numbers(&db);
        let canceller = canceller(&db.url(), CancelLimits::default()).await;
        let mut worker = session(&db.url()).await;
        let started = Instant::now();
        let finished = canceller
            .run(&worker.id, after(500), run_statement(&mut worker.conn, LONG_INSERT))
            .await;
        let Finished::Failed(error) = finished else { panic!("{}: {finished:?}", flavor.name()) };
        assert_eq!(error.kind, ErrorKind::Cancelled, "{error}");
        assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
        assert!(idle_soon(&canceller, &worker.id).await, "{}", flavor.name());
        let mut witness = witness(&db.url()).await;
        assert_eq!(count(&mut witness, "t").await, 0);
        // No KILL is left over for the next statements.
        for _ in 0..50 {
            run_statement(&mut worker.conn, "INSERT INTO t VALUES (1, 1, '')").await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_statement_that_waits_for_a_table_lock_is_stopped() {
    for flavor in Flavor::ALL {
        let Some(db) = TestDb::new(flavor) else { continue };
        with_numbers(&db);
        let mut holder = witness(&db.url()).await;
        holder.query_drop("LOCK TABLES t WRITE").await.unwrap();
        let canceller = canceller(&db.url(), CancelLimits::default()).await;
        let settings = SessionSettings { lock_wait_timeout_s: 60, ..SessionSettings::default() };
        let mut worker = connect(&options(&db.url()), &settings).await.unwrap();
        let started = Instant::now();
        let finished = canceller
            .run(&worker.id, after(200), run_statement(&mut worker.conn, "TRUNCATE TABLE t"))
            .await;
        let Finished::Failed(error) = finished else { panic!("{finished:?}") };
        assert_eq!(error.kind, ErrorKind::Cancelled, "{error}");
        assert!(started.elapsed() < SOON);
        holder.query_drop("UNLOCK TABLES").await.unwrap();
        assert_eq!(count(&mut holder, "t").await, 0);
    }
}

/// MariaDB breaks a table with triggers whose RENAME is killed: it is waited for.
#[tokio::test]
async fn a_rename_of_mariadbs_is_never_killed() {
    for flavor in Flavor::ALL.into_iter().filter(|flavor| flavor.is_mariadb()) {
        let Some(db) = TestDb::new(flavor) else { continue };
        with_numbers(&db);
        let trigger = "CREATE TRIGGER b BEFORE INSERT ON t FOR EACH ROW SET @a = 1";
        let mut holder = witness(&db.url()).await;
        for statement in [trigger, "LOCK TABLES t WRITE"] {
            holder.query_drop(statement).await.unwrap();
        }
        let canceller = canceller(&db.url(), CancelLimits::default()).await;
        let mut worker = session(&db.url()).await;
        let rename = run_statement(&mut worker.conn, "RENAME TABLE t TO u");
        let letting_go = async {
            tokio::time::sleep(Duration::from_millis(900)).await;
            holder.query_drop("UNLOCK TABLES").await.unwrap();
        };
        let (finished, ()) =
            tokio::join!(canceller.run(&worker.id, after(200), rename), letting_go);
        assert!(matches!(finished, Finished::Done(())), "{}: {finished:?}", flavor.name());
        // Nor where its session is ended: that comes when it has ended by itself.
        holder.query_drop("LOCK TABLES u WRITE").await.unwrap();
        let rename = run_statement(&mut worker.conn, "RENAME TABLE u TO t");
        let letting_go = async {
            tokio::time::sleep(Duration::from_millis(900)).await;
            holder.query_drop("UNLOCK TABLES").await.unwrap();
        };
        let ending = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            canceller.end_session(&worker.id).await
        };
        let (renamed, (), ended) = tokio::join!(rename, letting_go, ending);
        ended.unwrap();
        drop(renamed);
        holder.query_drop("INSERT INTO t VALUES (1, 1, '')").await.unwrap();
    }
}

#[tokio::test]
async fn kill_connection_follows_and_leaves_the_outcome_unknown() {
    for flavor in Flavor::ALL {
        let Some(db) = TestDb::new(flavor) else { continue };
        with_numbers(&db);
        // No time for KILL QUERY: straight to the second step.
        let limits = CancelLimits { query_wait_ms: 0, ..CancelLimits::default() };
        let canceller = canceller(&db.url(), limits).await;
        let mut worker = session(&db.url()).await;
        let finished = canceller
            .run(&worker.id, after(500), run_statement(&mut worker.conn, LONG_INSERT))
            .await;
        assert!(matches!(finished, Finished::Unknown(_)), "{}: {finished:?}", flavor.name());
        assert!(finished.into_result().unwrap_err().is_ambiguous());
        // Gone means rolled back: nothing to see, and no lock of it is left.
        let mut witness = witness(&db.url()).await;
        assert_eq!(count(&mut witness, "t").await, 0);
        witness.query_drop("SET lock_wait_timeout = 1").await.unwrap();
        witness.query_drop("TRUNCATE TABLE t").await.unwrap();
    }
}

#[tokio::test]
async fn a_session_is_gone_only_after_its_rollback() {
    for flavor in Flavor::ALL {
        let Some(db) = TestDb::new(flavor) else { continue };
        with_numbers(&db);
        let canceller = canceller(&db.url(), CancelLimits::default()).await;
        let mut worker = session(&db.url()).await;
        run_statement(&mut worker.conn, "START TRANSACTION").await.unwrap();
        let insert = "INSERT INTO t SELECT x.id, y.id, REPEAT('x', 200) FROM n x, n y LIMIT 200000";
        run_statement(&mut worker.conn, insert).await.unwrap();
        canceller.end_session(&worker.id).await.unwrap();
        // Left open, the rollback would still be in this list.
        let mut witness = witness(&db.url()).await;
        let query = format!(
            "SELECT COUNT(*) FROM information_schema.INNODB_TRX WHERE trx_mysql_thread_id = {}",
            worker.id.thread
        );
        let open: Option<u64> = witness.query_first(query).await.unwrap();
        assert_eq!(open, Some(0), "{}", flavor.name());
        assert_eq!(canceller.look(&worker.id).await.unwrap(), SessionState::Gone);
    }
}

#[tokio::test]
async fn a_session_killed_by_somebody_else_is_proven_gone() {
    for flavor in Flavor::ALL {
        let Some(db) = TestDb::new(flavor) else { continue };
        let canceller = canceller(&db.url(), CancelLimits::default()).await;
        let mut worker = session(&db.url()).await;
        let kill = format!("KILL CONNECTION {}", worker.id.thread);
        let mut killer = witness(&db.url()).await;
        let statement = sleep_statement();
        let (finished, ()) = tokio::join!(
            canceller.run(&worker.id, never(), run_statement(&mut worker.conn, &statement)),
            async {
                after(300).await;
                killer.query_drop(kill).await.unwrap();
            }
        );
        assert!(matches!(finished, Finished::Unknown(_)), "{finished:?}");
    }
}

#[tokio::test]
async fn a_stranger_with_the_same_number_is_left_alone() {
    for flavor in Flavor::ALL {
        let Some(db) = TestDb::new(flavor) else { continue };
        let canceller = canceller(&db.url(), CancelLimits::default()).await;
        let mut stranger = session(&db.url()).await;
        let ours = SessionId { lock: "underpin gone".to_owned(), ..stranger.id.clone() };
        assert_eq!(canceller.cancel(&ours).await.unwrap(), SessionState::Gone);
        canceller.end_session(&ours).await.unwrap();
        run_statement(&mut stranger.conn, "DO 1").await.unwrap();
        let unknown = canceller.cancel_thread(stranger.id.thread).await.unwrap_err();
        assert_eq!(unknown.kind, ErrorKind::Refused);
        canceller.register(&stranger.id);
        let known = canceller.cancel_thread(stranger.id.thread).await.unwrap();
        assert_eq!(known, SessionState::Idle);
    }
}

#[tokio::test]
async fn a_kill_that_comes_too_late_does_no_harm() {
    for flavor in Flavor::ALL {
        let Some(db) = TestDb::new(flavor) else { continue };
        let canceller = canceller(&db.url(), CancelLimits::default()).await;
        let mut killer = witness(&db.url()).await;
        let mut worker = session(&db.url()).await;
        for _ in 0..100 {
            run_statement(&mut worker.conn, "DO 1").await.unwrap();
            // MariaDB goes on showing such a session as killed.
            killer.query_drop(format!("KILL QUERY {}", worker.id.thread)).await.unwrap();
            assert_eq!(canceller.cancel(&worker.id).await.unwrap(), SessionState::Idle);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_of_the_server_ends_the_statement() {
    for flavor in Flavor::ALL {
        if !wanted(flavor) {
            continue;
        }
        let server = Server::start(&ServerSpec::new(flavor), false).unwrap();
        let canceller = canceller(&server.url(), CancelLimits::default()).await;
        let mut worker = session(&server.url()).await;
        let statement = sleep_statement();
        let (finished, server) = tokio::join!(
            canceller.run(&worker.id, never(), run_statement(&mut worker.conn, &statement)),
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
    // One of each kind: what is tested is our side, and each takes its time-outs.
    for flavor in [Flavor::MySql97, Flavor::MariaDbDistro] {
        if !wanted(flavor) {
            continue;
        }
        let server = Server::start(&ServerSpec::new(flavor), false).unwrap();
        let limits = CancelLimits { query_wait_ms: 300, connection_wait_ms: 300, poll_ms: 20 };
        let url = format!("{}?connect-timeout-ms=1000", server.url());
        let canceller = canceller(&url, limits).await;
        let mut worker = session(&server.url()).await;
        let statement = sleep_statement();
        let started = Instant::now();
        let stop = async {
            after(300).await;
            server.freeze().unwrap();
        };
        let finished =
            canceller.run(&worker.id, stop, run_statement(&mut worker.conn, &statement)).await;
        let Finished::StillRunning(error) = finished else { panic!("{finished:?}") };
        assert!(error.is_ambiguous() && !error.is_connection_lost(), "{error}");
        assert!(error.to_string().contains("No proof"), "{error}");
        // Bounded: a few statements of the cancelling session, at 5 s each at most.
        assert!(started.elapsed() < Duration::from_secs(LONG_S), "{:?}", started.elapsed());
        server.thaw().unwrap();
    }
}
