//! Whole runs of the program on a small PostgreSQL table, and an application that measures what it feels.
//!
//! Owns the words to start a run, to wait for its traps and its end, and the application's clock. What is
//! tested is the test's own.
#![allow(dead_code, unreachable_pub)] // each test takes what it needs

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use underpin_tests::busy;
use underpin_tests::cli::Called;
use underpin_tests::proxy::{Deed, Proxy, Trap};
use underpin_tests::runner::{Runner, story};
use underpin_tests::servers::pg;

/// How long anything may take that a busy machine does in seconds.
pub const LIMIT: Duration = Duration::from_secs(300);

/// The lock time-out of the runs here, in the words of the command line.
pub const LOCK_TIMEOUT: &str = "300ms";

/// How long the application may be held up: the lock time-out, the swap, and some for the way. Below what
/// a wait for autovacuum takes, which is never to be one of the application's.
pub const HELD_UP_MAX: Duration = Duration::from_millis(900);

/// Starts `underpin run URL CHANGE` as a copy, without replicas, and with `more` options.
pub fn start(url: &str, change: &str, more: &[&str]) -> Runner {
    let mut words = vec!["run", url, change, "--strategy", "shadow", "--replica", "none", "--yes"];
    words.extend(["--lock-timeout", LOCK_TIMEOUT]);
    words.extend(more);
    Runner::start(&words).unwrap()
}

/// Waits for its end, which must be a good one.
pub fn succeed(runner: Runner) -> Called {
    let called = runner.wait(LIMIT).unwrap();
    assert!(called.code() == 0, "{}\n{}", called.complaint(), story(&called.events));
    called
}

/// Waits until the trap has sprung; fails where the program ends before.
pub fn spring(trap: &Trap, runner: &mut Runner) {
    let until = Instant::now() + LIMIT;
    while trap.sprung() == 0 {
        let ended = runner.has_ended().unwrap();
        assert!(!ended && Instant::now() < until, "no statement came: {}", runner.story());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Events of this name.
pub fn named<'a>(called: &'a Called, name: &str) -> Vec<&'a Value> {
    called.events.iter().filter(|event| event["event"] == name).collect()
}

/// A trap on the swap's first lock, the weak one: the installation of the triggers has the other.
pub fn before_the_locks(proxy: &Proxy) -> Trap {
    proxy.trap_nth(&["IN SHARE UPDATE EXCLUSIVE MODE"], 1, Deed::Hold)
}

/// A trap on the swap's strong lock: the weak one is had.
pub fn between_the_locks(proxy: &Proxy) -> Trap {
    proxy.trap(&["IN ACCESS EXCLUSIVE MODE"], Deed::Hold)
}

/// The server's number of a session.
pub async fn pid_of(client: &Client) -> i32 {
    client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0)
}

/// Sessions that send one statement each, over and over, and one that touches no table: what the machine
/// adds is no fault of the product.
pub struct Application {
    begun: Instant,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<(u64, Duration)>>,
}

impl Application {
    /// Starts them; no statement may fail.
    pub async fn start(url: &str, statements: &[&str]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for statement in statements.iter().chain(&["SELECT 0"]) {
            let client = pg::connect(url).await.unwrap();
            let (stop, statement) = (Arc::clone(&stop), (*statement).to_owned());
            tasks.push(tokio::spawn(async move {
                let (mut sent, mut longest) = (0, Duration::ZERO);
                while !stop.load(Ordering::SeqCst) {
                    let begun = Instant::now();
                    let done = client.batch_execute(&statement).await;
                    done.unwrap_or_else(|error| panic!("{statement}: {:?}", error.as_db_error()));
                    longest = std::cmp::max(longest, begun.elapsed());
                    sent += 1;
                    tokio::time::sleep(Duration::from_millis(3)).await;
                }
                (sent, longest)
            }));
        }
        Self { begun: Instant::now(), stop, tasks }
    }

    /// Ends them; fails where one was held up for longer than is allowed.
    pub async fn stop(self) {
        self.stop_within(HELD_UP_MAX).await;
    }

    /// The same with a bound of the test's own.
    pub async fn stop_within(self, held_up_max: Duration) {
        self.stop.store(true, Ordering::SeqCst);
        let mut felt = Vec::new();
        for task in self.tasks {
            felt.push(task.await.unwrap());
        }
        let (_, idle) = felt.pop().unwrap();
        for (sent, longest) in felt {
            assert!(sent > 10, "only {sent} statements");
            let held_up = longest.saturating_sub(idle);
            eprintln!(
                "{sent} statements, the longest took {longest:.0?} (the machine: {idle:.0?})"
            );
            assert!(
                held_up < busy::allows(self.begun, held_up_max),
                "the application stood still for {held_up:?}"
            );
        }
    }
}
