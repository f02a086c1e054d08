//! Looks at a run from outside, ten times a second: how far the replica is behind, by a beat of the test's
//! own, and how far the copy is, by the new table itself. What the program says of itself is not asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use underpin_tests::servers::sql;

use super::Session;

/// Between two looks. A lag below it is none.
const BEAT: Duration = Duration::from_millis(100);

/// What was seen at one look.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// When the look ended.
    pub at: Instant,
    /// Age of the newest beat that the replica shows.
    pub lag: Duration,
    /// How far the copy is, as a number that only grows while it copies; `None` where there is no new table.
    pub copied: Option<i64>,
}

/// A watch under way.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Look>>>,
}

/// How far the copy of `t` is. PostgreSQL has no index to ask before the copy is done, so its size is asked.
pub fn copied_query(url: &str) -> &'static str {
    if sql::is_postgres(url) {
        "SELECT max(pg_relation_size(c.oid))::text FROM pg_class c JOIN pg_namespace n ON n.oid = \
         c.relnamespace WHERE c.relname = 't' AND n.nspname LIKE 'underpin\\_%'"
    } else {
        "SELECT MAX(id) FROM `t~up_new`"
    }
}

impl Watch {
    /// Begins to watch; makes a table of its own for the beat on the primary.
    pub fn start(primary: &str, replica: &str) -> Self {
        let make = [
            "CREATE TABLE beat (id INT PRIMARY KEY, ms BIGINT NOT NULL)",
            "INSERT INTO beat VALUES (1, 0)",
        ];
        sql::execute(primary, make.map(str::to_owned).to_vec()).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (primary, replica, until) = (primary.to_owned(), replica.to_owned(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            sql::block_on(async move { watch(&primary, &replica, &until).await })
        });
        Self { stop, thread }
    }

    /// Ends it.
    pub fn stop(self) -> Vec<Look> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap().unwrap()
    }
}

async fn watch(primary: &str, replica: &str, stop: &AtomicBool) -> Result<Vec<Look>> {
    let query = copied_query(primary);
    let (mut primary, mut replica) = (Session::open(primary).await?, Session::open(replica).await?);
    let origin = Instant::now();
    let (mut looks, mut is_felt) = (Vec::new(), false);
    while !stop.load(Ordering::Relaxed) {
        let now_ms = origin.elapsed().as_millis();
        let beat = format!("UPDATE beat SET ms = {now_ms} WHERE id = 1");
        primary.run(&beat).await.context("beating")?;
        tokio::time::sleep(BEAT).await;
        // No table there yet, or no longer.
        let copied = primary.number(query).await.ok().flatten();
        // Not yet replicated.
        let felt = replica.number("SELECT ms FROM beat").await.ok().flatten().unwrap_or(0);
        is_felt |= felt > 0;
        let felt = Duration::from_millis(u64::try_from(felt)?);
        let lag = if is_felt { origin.elapsed().saturating_sub(felt) } else { Duration::ZERO };
        looks.push(Look { at: Instant::now(), lag, copied });
    }
    Ok(looks)
}

/// The longest lag.
pub fn worst_lag(looks: &[Look]) -> Duration {
    looks.iter().map(|look| look.lag).max().unwrap_or_default()
}

/// When the lag passed `limit` after `from`.
pub fn passed(looks: &[Look], from: Instant, limit: Duration) -> Option<Instant> {
    looks.iter().find(|look| look.at > from && look.lag > limit).map(|look| look.at)
}

/// When the lag was below `limit` first after `from`.
pub fn below(looks: &[Look], from: Instant, limit: Duration) -> Option<Instant> {
    looks.iter().find(|look| look.at > from && look.lag < limit).map(|look| look.at)
}

/// When the copy was seen to move last between the two moments.
pub fn moved_last(looks: &[Look], from: Instant, to: Instant) -> Option<Instant> {
    let inside: Vec<&Look> = looks
        .iter()
        .filter(|look| look.at > from && look.at < to && look.copied.is_some())
        .collect();
    inside.windows(2).rev().find(|pair| pair[0].copied != pair[1].copied).map(|pair| pair[1].at)
}

/// When the copy was seen to move first after the moment.
pub fn moved_first(looks: &[Look], from: Instant) -> Option<Instant> {
    let after: Vec<&Look> =
        looks.iter().filter(|look| look.at > from && look.copied.is_some()).collect();
    after.windows(2).find(|pair| pair[0].copied != pair[1].copied).map(|pair| pair[1].at)
}
