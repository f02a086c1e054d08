//! Single steps of the PostgreSQL dialect for tests that must stop between two of them.
//!
//! Owns getting as far as the first chunk, and small words to talk to a table. What is tested is the
//! test's own.
#![allow(dead_code, unreachable_pub)] // each test takes what it needs

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio_postgres::Client;
use underpin_core::alter::{Alter, Syntax};
use underpin_core::checkpoint::Checkpoint;
use underpin_core::key::{Chunk, Frontier};
use underpin_core::plan::{Capture, RunSpec};
use underpin_dialect::{
    ChangeLog, Copy, Database, Grip, IndexTiming, Inspect, Request, Shadow, Store, Verify,
};
use underpin_postgres::connect::SessionSettings;
use underpin_postgres::options::FileSearch;
use underpin_postgres::{Postgres, options};
use underpin_tests::servers::{Flavor, TestDb, pg};

/// How long anything may take that a busy machine does in seconds.
pub const LIMIT: Duration = Duration::from_secs(180);

/// The worker connection of the dialect.
pub type Worker = <Postgres as Database>::Worker;

/// A run of which shadow, log and triggers stand, and nothing else has been done.
pub struct Steps {
    pub server: Postgres,
    pub spec: Arc<RunSpec>,
    pub grip: Grip,
}

/// The dialect for this database.
pub async fn open(db: &TestDb) -> Postgres {
    open_through(&db.url()).await
}

/// The dialect by way of `url`, as through a proxy.
pub async fn open_through(url: &str) -> Postgres {
    let resolved = options::resolve(url, &FileSearch::none(), &|_| None).unwrap();
    Postgres::open(
        resolved.options,
        SessionSettings::default(),
        "underpin".into(),
        vec!["none".into()],
    )
    .await
    .unwrap()
}

/// What `underpin run` would ask for.
pub fn request(statement: &str) -> Request {
    Request {
        run_id: "r1".into(),
        alter: Alter::parse(statement, Syntax::postgres()).unwrap(),
        statement: statement.into(),
        default_schema: Some("public".into()),
        replicas: vec!["none".into()],
        indexes: IndexTiming::Auto,
        force_shadow: true,
        keeps_way_back: false,
        capture: Capture::default(),
    }
}

impl Steps {
    /// Plans `statement`, records the run and prepares it.
    pub async fn begin(db: &TestDb, statement: &str) -> Self {
        let steps = Self::recorded(db, statement).await;
        steps.control().await.prepare(&steps.spec).await.unwrap();
        steps
    }

    /// The same without the preparation.
    pub async fn recorded(db: &TestDb, statement: &str) -> Self {
        Self::recorded_for(db, &request(statement)).await
    }

    /// The same for a request of the test's own.
    pub async fn recorded_for(db: &TestDb, request: &Request) -> Self {
        Self::recorded_at(open(db).await, request).await
    }

    /// The same by way of a dialect that is open.
    pub async fn recorded_at(server: Postgres, request: &Request) -> Self {
        let mut control = server.control().await.unwrap();
        let plan = control.plan(request).await.unwrap();
        let spec = plan.spec.unwrap_or_else(|| panic!("{:?}", plan.findings));
        control.acquire(&spec.schema, &spec.table).await.unwrap();
        control
            .create_run(&spec, &Checkpoint::begin(), &underpin_dialect::Origin::default())
            .await
            .unwrap();
        let grip = control.take_over(&spec.run_id).await.unwrap();
        Self { server, spec: Arc::new(spec), grip }
    }

    pub async fn worker(&self) -> Worker {
        self.server.worker(&self.spec, &self.grip).await.unwrap()
    }

    pub async fn control(&self) -> <Postgres as Database>::Control {
        self.server.control().await.unwrap()
    }

    /// The shadow, quoted.
    pub fn shadow(&self) -> String {
        format!("underpin_{}.\"{}\"", self.spec.run_id, self.spec.names.shadow)
    }

    /// The change log, quoted.
    pub fn log(&self) -> String {
        format!("underpin_{}.\"{}\"", self.spec.run_id, self.spec.names.log)
    }

    /// Copies everything in one chunk, settles and builds the indexes.
    pub async fn copied(&self, worker: &mut Worker) {
        copy_all(worker, 1_000_000).await;
        worker.settle().await.unwrap();
        self.control().await.build_indexes(&self.spec).await.unwrap();
    }
}

/// Copies the whole table in chunks of about `chunk_rows` rows; returns the rows written.
pub async fn copy_all(worker: &mut Worker, chunk_rows: u64) -> u64 {
    let (chunks, last) = worker.plan_chunks(None, chunk_rows, 1000).await.unwrap();
    assert!(last);
    // A number of a round is never used twice.
    static ROUND: AtomicU64 = AtomicU64::new(1000);
    let round = ROUND.fetch_add(1, Ordering::Relaxed);
    let mut rows = 0;
    for chunk in &chunks {
        rows += worker.copy_chunk(round, chunk).await.unwrap();
    }
    rows
}

/// Applies everything pending; returns the entries taken.
pub async fn apply_all(worker: &mut Worker) -> u64 {
    let mut entries = 0;
    for _ in 0..1000 {
        let applied = worker.apply(&Frontier::End, 10_000).await.unwrap();
        entries += applied.entries;
        if applied.left == 0 {
            return entries;
        }
    }
    panic!("applying never ends");
}

/// Ranges over the whole table.
pub async fn ranges(worker: &mut Worker, range_rows: u64) -> Vec<Chunk> {
    let (ranges, last) = worker.plan_ranges(None, range_rows, 1000).await.unwrap();
    assert!(last);
    ranges
}

/// Compares everything; returns the differing rows and what was said about them.
pub async fn verify_all(worker: &mut Worker, range_rows: u64) -> (u64, Vec<String>) {
    let (mut differences, mut samples) = (0, Vec::new());
    for range in &ranges(worker, range_rows).await {
        let report = worker.verify_range(range).await.unwrap();
        differences += report.differences;
        samples.extend(report.samples);
    }
    (differences, samples)
}

/// Runs `test` on each of `flavors` that can be had, in a database of its own.
pub fn on_each(flavors: &[Flavor], test: impl AsyncFn(TestDb)) {
    for &flavor in flavors {
        let Some(db) = TestDb::new(flavor) else { continue };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(test(db));
    }
}

/// Runs statements on a session, each on its own.
pub async fn run(client: &Client, statements: &[&str]) {
    for statement in statements {
        let done = client.batch_execute(statement).await;
        done.unwrap_or_else(|error| panic!("{statement}: {:?}", error.as_db_error()));
    }
}

/// The rows of a query as text, cells joined by a slash, NULL as `null`.
pub async fn rows(db: &TestDb, query: &str) -> Vec<String> {
    let client = db.client().await.unwrap();
    let rows = pg::text_rows(&client, query).await.unwrap();
    rows.into_iter()
        .map(|row| {
            let cells: Vec<String> =
                row.into_iter().map(|cell| cell.unwrap_or_else(|| "null".into())).collect();
            cells.join("/")
        })
        .collect()
}

/// Source and shadow as text, the columns `columns` of both.
pub async fn both(db: &TestDb, steps: &Steps, columns: &str) -> (Vec<String>, Vec<String>) {
    let source = rows(db, &format!("SELECT {columns} FROM t ORDER BY 1, 2")).await;
    let shadow = rows(db, &format!("SELECT {columns} FROM {} ORDER BY 1, 2", steps.shadow())).await;
    (source, shadow)
}

/// Waits until a session waits for a lock.
pub async fn wait_for_lock_wait(db: &TestDb, pid: u64) {
    let client = db.client().await.unwrap();
    let query = format!("SELECT 1 FROM pg_locks WHERE pid = {pid} AND NOT granted");
    let until = Instant::now() + LIMIT;
    while pg::text_rows(&client, &query).await.unwrap().is_empty() {
        assert!(Instant::now() < until, "session {pid} never came to wait for a lock");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A table `t` of `rows` rows: `id` from 1, `u` unique (ten times the id), `v` some text.
pub async fn make_table(db: &TestDb, rows: u32) {
    let client = db.client().await.unwrap();
    run(
        &client,
        &[
            "CREATE TABLE t (id int PRIMARY KEY, u int, v text NOT NULL DEFAULT '', \
             CONSTRAINT uk UNIQUE (u))",
            &format!(
                "INSERT INTO t SELECT i, i * 10, 'row ' || i FROM generate_series(1, {rows}) i"
            ),
        ],
    )
    .await;
}
