//! Single steps of the MySQL dialect for tests that must stop between two of them.
//!
//! Owns getting as far as the first chunk, and small words to talk to a table. What is tested is the
//! test's own.
#![allow(dead_code, unreachable_pub)] // each test takes what it needs

use std::sync::Arc;
use std::time::{Duration, Instant};

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use underpin_core::alter::{Alter, Syntax};
use underpin_core::checkpoint::Checkpoint;
use underpin_core::plan::{Capture, RunSpec};
use underpin_dialect::{Database, Grip, IndexTiming, Inspect, Request, Shadow, Store};
use underpin_mysql::connect::SessionSettings;
use underpin_mysql::mycnf::FileSearch;
use underpin_mysql::{MySql, options};
use underpin_tests::cli::Called;
use underpin_tests::proxy::Trap;
use underpin_tests::runner::{Runner, story};
use underpin_tests::servers::{Flavor, TestDb, sql};

/// How long anything may take that a busy machine does in seconds.
pub const LIMIT: Duration = Duration::from_secs(300);

/// Starts `underpin run URL CHANGE` as a copy, without replicas, and with `more` options.
pub fn start(url: &str, change: &str, more: &[&str]) -> Runner {
    let mut words = vec!["run", url, change, "--strategy", "shadow", "--replica", "none", "--yes"];
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
pub fn named<'a>(called: &'a Called, name: &str) -> Vec<&'a serde_json::Value> {
    called.events.iter().filter(|event| event["event"] == name).collect()
}

/// Fails where the database holds anything of ours: tables beside `t`, or triggers.
pub async fn nothing_left(db: &TestDb) {
    assert_eq!(rows(db, "SHOW TABLES").await, ["t"], "tables");
    let triggers = "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = \
                    DATABASE()";
    assert_eq!(rows(db, triggers).await, Vec::<String>::new(), "triggers");
}

/// A run of which shadow, log and triggers stand, and nothing else has been done.
pub struct Steps {
    pub server: MySql,
    pub spec: Arc<RunSpec>,
    pub grip: Grip,
    state: (String, String),
}

impl Steps {
    /// Plans `statement`, records the run and prepares it.
    pub async fn begin(db: &TestDb, statement: &str) -> Self {
        Self::begin_through(db, &db.url(), statement).await
    }

    /// The same by way of `url`, as through a proxy.
    pub async fn begin_through(db: &TestDb, url: &str, statement: &str) -> Self {
        let state_schema = format!("{}_state", db.name());
        let resolved = options::resolve(url, &FileSearch::none(), &|_| None).unwrap();
        let server = MySql::open(
            resolved.options,
            SessionSettings::default(),
            state_schema.clone(),
            vec!["none".into()],
        )
        .await
        .unwrap();
        let mut control = server.control().await.unwrap();
        let request = Request {
            run_id: "r1".into(),
            alter: Alter::parse(statement, Syntax::mysql()).unwrap(),
            statement: statement.into(),
            default_schema: Some(db.name().into()),
            replicas: vec!["none".into()],
            indexes: IndexTiming::Auto,
            force_shadow: true,
            keeps_way_back: false,
            capture: Capture::default(),
        };
        let plan = control.plan(&request).await.unwrap();
        let spec = plan.spec.unwrap_or_else(|| panic!("{:?}", plan.findings));
        control.acquire(&spec.schema, &spec.table).await.unwrap();
        control
            .create_run(&spec, &Checkpoint::begin(), &underpin_dialect::Origin::default())
            .await
            .unwrap();
        let grip = control.take_over(&spec.run_id).await.unwrap();
        control.prepare(&spec).await.unwrap();
        Self { server, spec: Arc::new(spec), grip, state: (db.url(), state_schema) }
    }

    pub async fn worker(&self) -> <MySql as Database>::Worker {
        self.server.worker(&self.spec, &self.grip).await.unwrap()
    }

    pub async fn control(&self) -> <MySql as Database>::Control {
        self.server.control().await.unwrap()
    }

    /// The shadow, quoted.
    pub fn shadow(&self) -> String {
        format!("`{}`", self.spec.names.shadow)
    }

    /// The change log, quoted.
    pub fn log(&self) -> String {
        format!("`{}`", self.spec.names.log)
    }

    /// The table in which done chunks are marked, quoted.
    pub fn marks(&self) -> String {
        format!("`{}`.marks", self.state.1)
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        let (url, schema) = &self.state;
        // not for long: a test that failed may have left a lock
        let drop = format!("DROP DATABASE IF EXISTS {schema}");
        let _gone = sql::execute(url, vec!["SET lock_wait_timeout = 3".to_owned(), drop]);
    }
}

/// Runs `test` on each of `flavors` that can be had, in a database of its own; side by side, since each
/// has servers of its own and waits more than it works.
pub fn on_each(flavors: &[Flavor], test: impl AsyncFn(TestDb) + Sync) {
    let test = &test;
    std::thread::scope(|scope| {
        let running: Vec<_> =
            flavors.iter().map(|&flavor| scope.spawn(move || on_one(flavor, test))).collect();
        let ended: Vec<_> = running.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        for end in ended {
            end.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}

/// The same one after the other, for a test that measures time.
pub fn on_each_alone(flavors: &[Flavor], test: impl AsyncFn(TestDb)) {
    for &flavor in flavors {
        on_one(flavor, &test);
    }
}

fn on_one(flavor: Flavor, test: &impl AsyncFn(TestDb)) {
    let Some(db) = TestDb::new(flavor) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(test(db));
}

/// Runs statements on a session.
pub async fn run(conn: &mut Conn, statements: &[&str]) {
    for statement in statements {
        conn.query_drop(*statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

/// The first column of a query, as text.
pub async fn rows(db: &TestDb, query: &str) -> Vec<String> {
    db.conn().await.unwrap().query(query).await.unwrap_or_else(|error| panic!("{query}: {error}"))
}

/// Waits until the session waits for a row lock.
pub async fn wait_for_lock_wait(db: &TestDb, session: u64) {
    let query = format!(
        "SELECT COUNT(*) FROM information_schema.INNODB_TRX WHERE trx_mysql_thread_id = {session} \
         AND trx_state = 'LOCK WAIT'"
    );
    let mut conn = db.conn().await.unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while conn.query_first::<u64, _>(&query).await.unwrap() != Some(1) {
        assert!(Instant::now() < until, "session {session} never came to wait for a row lock");
        // the server renews this view only when nobody has read it for a tenth of a second
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

/// A table `t` of `rows` rows: `id` from 1, `u` unique (ten times the id), `v` some text.
pub async fn make_table(db: &TestDb, rows: u32) {
    let mut conn = db.conn().await.unwrap();
    run(
        &mut conn,
        &["CREATE TABLE t (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, u INT NULL, v VARCHAR(40) NOT \
           NULL DEFAULT '', UNIQUE KEY uk (u)) CHARACTER SET utf8mb4"],
    )
    .await;
    let ids: Vec<u32> = (1..=rows).collect();
    for part in ids.chunks(2000) {
        let values: Vec<String> =
            part.iter().map(|id| format!("({id}, {}, 'row {id}')", id * 10)).collect();
        run(&mut conn, &[&format!("INSERT INTO t VALUES {}", values.join(", "))]).await;
    }
}
