//! How old the snapshots of a run grow: its sessions are looked at every few milliseconds.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio_postgres::Client;
use underpin_core::key::Frontier;
use underpin_dialect::{ChangeLog, Shadow};
use underpin_tests::servers::{Flavor, TestDb, pg};
use underpin_tests::{busy, cli};

use super::SLOW;
use crate::postgres_steps::{
    Steps, apply_all, both, copy_all, make_table, on_each, rows, run, verify_all,
};

/// Chunks aim at a tenth of a second. The first range that is compared has 10,000 rows whatever they take
/// (a quarter of a second here), and a busy machine adds its share. All rows at once, to copy or to compare, are
/// four seconds.
const CHUNK_TIME: &str = "100ms";
const OLDEST_MS: f64 = 1400.0;

/// Two of the indexes take three seconds each, side by side.
const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, n int, v text); INSERT INTO t SELECT i, i, 'v' || i \
                     FROM generate_series(1, 130000) i; CREATE INDEX t_n ON t (n); CREATE INDEX t_s1 ON t \
                     (slow(v, 50)); CREATE INDEX t_s2 ON t (slow(v, 50)); ANALYZE t";
const CHANGE: &str =
    "ALTER TABLE t ALTER n TYPE bigint, ALTER v TYPE varchar(40) USING slow(v, 40)";

/// What holds back vacuum: a snapshot, or being a transaction that writes. Sessions of the run only. What
/// follows the builds, the look at the new table for the planner, is one of the exceptions too.
const LOOK: &str = "SELECT pid, xact_start::text, backend_xmin::text, backend_xid::text, extract(epoch FROM \
                    clock_timestamp()) * 1000, coalesce(leader_pid, pid), query ~ 'CREATE (UNIQUE )?INDEX|VACUUM' \
                    AND state = 'active', left(regexp_replace(query, '\\s+', ' ', 'g'), 200) FROM \
                    pg_stat_activity WHERE datname = current_database() AND application_name LIKE \
                    'underpin%' AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)";

/// What is left behind by other means.
const LEFT: &str = "SELECT (SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()) + \
                    (SELECT count(*) FROM pg_replication_slots WHERE database = current_database())";

/// What was seen.
#[derive(Debug, Default)]
struct Seen {
    /// Looks that were taken.
    looks: u64,
    /// Snapshots and transactions: when each was seen first, and its statement.
    since: HashMap<(String, String, String), f64>,
    /// The oldest one of an index build, and of anything else, in milliseconds, with what it did.
    oldest_build: (f64, String),
    oldest: (f64, String),
    /// Index builds at the same time.
    builds_max: usize,
    /// Distinct snapshots outside of builds.
    snapshots: HashSet<(String, String, String)>,
    /// Prepared transactions and slots.
    left: u64,
}

impl Seen {
    fn take(&mut self, rows: &[Vec<Option<String>>]) {
        self.looks += 1;
        let mut builds = HashSet::new();
        for row in rows {
            let cell = |index: usize| row[index].clone().unwrap_or_default();
            let (now, is_build) = (cell(4).parse::<f64>().unwrap(), cell(6) == "t");
            if is_build {
                builds.insert(cell(5));
            }
            for horizon in [2, 3].into_iter().filter(|&index| row[index].is_some()) {
                // A snapshot ends with its transaction at the latest.
                let key = (cell(0), cell(1), format!("{horizon} {}", cell(horizon)));
                if !is_build {
                    self.snapshots.insert(key.clone());
                }
                let age_ms = now - *self.since.entry(key).or_insert(now);
                let oldest = if is_build { &mut self.oldest_build } else { &mut self.oldest };
                if age_ms > oldest.0 {
                    *oldest = (age_ms, cell(7));
                }
            }
        }
        self.builds_max = std::cmp::max(self.builds_max, builds.len());
    }
}

async fn look(client: Client, stop: Arc<AtomicBool>) -> Seen {
    let mut seen = Seen::default();
    while !stop.load(Ordering::Relaxed) {
        seen.take(&pg::text_rows(&client, LOOK).await.unwrap());
        if seen.looks % 20 == 0 {
            let left = pg::text_rows(&client, LEFT).await.unwrap();
            let left = left[0][0].as_ref().unwrap().parse().unwrap();
            seen.left = std::cmp::max(seen.left, left);
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    seen
}

/// Short transactions, so that the horizon moves on all the time.
async fn write(client: Client, stop: Arc<AtomicBool>) -> u64 {
    let mut written = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let id = written * 7919 % 130_000;
        let sql = format!(
            "UPDATE t SET n = n + 1 WHERE id = {id}; DELETE FROM t WHERE id = {id} + 1; INSERT INTO t VALUES \
             ({written} + 300000, 1, 'new {written}')"
        );
        client.batch_execute(&sql).await.unwrap();
        written += 1;
        tokio::time::sleep(Duration::from_millis(8)).await;
    }
    written
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_an_index_build_holds_a_snapshot_for_longer_than_a_chunk() {
    let Some(db) = TestDb::new(Flavor::PostgresDistro) else { return };
    let client = db.client().await.unwrap();
    client.batch_execute(SLOW).await.unwrap();
    client.batch_execute(TABLE).await.unwrap();
    let begun = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let looking = tokio::spawn(look(db.client().await.unwrap(), Arc::clone(&stop)));
    let writing = tokio::spawn(write(db.client().await.unwrap(), Arc::clone(&stop)));
    let url = db.url();
    let words = ["run", &url, CHANGE, "--yes", "--replica", "none", "--workers", "2"];
    let words = [&words[..], &["--chunk-time", CHUNK_TIME]].concat();
    let called = tokio::task::block_in_place(|| cli::call(&words)).unwrap();
    stop.store(true, Ordering::Relaxed);
    let (seen, written) = (looking.await.unwrap(), writing.await.unwrap());
    assert!(called.code() == 0, "{}", called.complaint());
    assert_eq!(called.ended.verdict(), "equal");
    assert!(written > 200, "there was nothing to apply: {written}");

    // The looks are close enough to tell, and would have seen an old one.
    assert!(seen.looks > 100 && seen.snapshots.len() > 30, "{seen:?}");
    assert!(seen.oldest_build.0 > OLDEST_MS, "no long build was seen: {:?}", seen.oldest_build);
    let allowed = OLDEST_MS * busy::factor(begun);
    assert!(seen.oldest.0 < allowed, "held for {} ms by {}", seen.oldest.0, seen.oldest.1);
    eprintln!("oldest: {:?}, builds: {:?}, {} looks", seen.oldest, seen.oldest_build, seen.looks);
    assert_eq!(seen.left, 0);

    // The exception has a bound, and is told beforehand.
    assert_eq!(seen.builds_max, 2);
    let told = called.findings();
    let builds = told.iter().find(|finding| finding.starts_with("index-builds: ")).unwrap();
    assert!(builds.contains("4 indexes") && builds.contains("2 at a time"), "{builds}");
}

/// However much is pending: each transaction takes a stretch of the log, or writes some rows.
#[test]
fn a_long_log_is_noted_in_several_transactions() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        make_table(&db, 60_000).await;
        let steps = Steps::begin(&db, "ALTER TABLE t ALTER id TYPE bigint").await;
        let mut worker = steps.worker().await;
        let app = db.client().await.unwrap();
        let noted =
            "SELECT count(*), count(DISTINCT xmin::text) > 2 FROM underpin_r1.underpin_todo";
        copy_all(&mut worker, 1_000_000).await;
        run(&app, &["UPDATE t SET v = v || '!'"]).await;
        assert_eq!(worker.settle().await.unwrap(), 60_000);
        assert_eq!(rows(&db, noted).await, ["60000/t"]);
        steps.control().await.build_indexes(&steps.spec).await.unwrap();
        apply_all(&mut worker).await;

        run(&app, &["UPDATE t SET v = v || '!'", "DELETE FROM t WHERE id % 1000 = 0"]).await;
        let applied = worker.apply(&Frontier::End, 100).await.unwrap();
        assert_eq!((applied.entries, applied.keys, applied.left), (60_060, 100, 59_900));
        assert_eq!(rows(&db, noted).await, ["59900/t"]);
        let there = rows(&db, &format!("SELECT count(*) FROM {}", steps.shadow())).await;
        assert!(there[0].parse::<u32>().unwrap() <= 100, "{there:?}");
        // What comes in between is pending as ever.
        run(&app, &["UPDATE t SET v = 'late' WHERE id < 9", "INSERT INTO t VALUES (0, 0, '')"])
            .await;
        apply_all(&mut worker).await;
        assert_eq!(verify_all(&mut worker, 10_000).await, (0, vec![]));
        let (source, shadow) = both(&db, &steps, "id, u, v").await;
        assert!(source == shadow && source.len() == 59_941, "{}", source.len());
    });
}
