//! `underpin abort`: ends an unfinished run and removes everything of it, through its runner where one
//! is alive, by itself otherwise.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use underpin_core::checkpoint::{Checkpoint, Phase};
use underpin_core::machine::{Command, SwapState};
use underpin_core::plan::RunSpec;
use underpin_core::way::Way;
use underpin_dialect::{Database, DbResult, ErrorKind, Shadow, Store};

use crate::enter::table_of;
use crate::error::{EngineError, EngineResult};
use crate::history::Record;
use crate::orders::ABORTED;
use crate::report::{Report, StoppedAs};
use crate::reporter::Reporter;
use crate::run::read_spec;

/// Time between two looks whether the runner has aborted.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Tries after a lost connection: everything here may be done twice.
const RECONNECTS_MAX: u32 = 5;

/// Longest rest between two tries for a lock.
const LOCK_REST_MAX: Duration = Duration::from_secs(5);

/// How an abort is carried out. Times in milliseconds.
#[derive(Debug, Clone)]
pub struct AbortOptions {
    /// How long to wait for a living runner to do it.
    pub runner_wait_ms: u64,
    /// How long to go on trying for a lock on the live table.
    pub lock_patience_ms: u64,
    /// Who asks, as "user@machine".
    pub by: String,
}

impl Default for AbortOptions {
    fn default() -> Self {
        Self { runner_wait_ms: 120_000, lock_patience_ms: 10 * 60 * 1000, by: String::new() }
    }
}

/// Who removed the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortedBy {
    /// Its runner, asked by us.
    Runner,
    /// We did; no runner was alive.
    Us,
    /// Nobody removed anything: a turn was left, and the table that is live stays.
    Stayed(Way),
}

/// Ends the unfinished run of a table and removes everything of it. The source stays as it is.
///
/// # Errors
/// `NoRun`; `TooLate` after the swap; `NotYetAborted` where the runner did not get to it in time;
/// `Unclear`; the database's.
pub async fn abort<D: Database>(
    db: Arc<D>,
    schema: &str,
    table: &str,
    options: &AbortOptions,
    reporter: &Reporter,
) -> EngineResult<AbortedBy> {
    let mut attempt = 0;
    let mut first_seen = None;
    loop {
        let tried = try_abort(&*db, schema, table, options, reporter, &mut first_seen).await;
        let error = match tried {
            Ok(Some(by)) => return Ok(by),
            // A first try that lost its answer may have ended the run.
            Ok(None) if attempt > 0 => return Ok(AbortedBy::Us),
            Ok(None) => return Err(EngineError::NoRun { table: format!("{schema}.{table}") }),
            Err(error) => error,
        };
        attempt += 1;
        if !error.is_connection_lost() || attempt > RECONNECTS_MAX {
            return Err(error);
        }
        let why = error.to_string();
        reporter.tell(|at_ms| Report::Reconnecting { at_ms, why, attempt });
        sleep(Duration::from_secs(u64::from(attempt))).await;
    }
}

/// One try; `None` where the table has no unfinished run. `first_seen`: where the first try found it, for
/// one that lost its answer may have done it all.
async fn try_abort<D: Database>(
    db: &D,
    schema: &str,
    table: &str,
    options: &AbortOptions,
    reporter: &Reporter,
    first_seen: &mut Option<Checkpoint>,
) -> EngineResult<Option<AbortedBy>> {
    let mut control = db.control().await?;
    let Some(stored) = control.open_run(schema, table).await? else { return Ok(None) };
    let spec = read_spec(&stored, &format!("{schema}.{table}"))?;
    if first_seen.is_none() {
        *first_seen = Checkpoint::decode(&stored.checkpoint).ok();
    }
    // Asked before we try for the lock, which may take seconds: a runner near its swap should hear of
    // it. Without a runner nobody takes the request, and it goes with the run.
    control.request(&spec.run_id, &Command::Abort, &options.by).await?;
    if !had(control.acquire(schema, table).await)?
        && !await_runner(&mut control, &spec, options).await?
    {
        return Ok(Some(AbortedBy::Runner));
    }
    let ended = remove(&mut control, &spec, first_seen.as_ref(), options, reporter).await;
    if matches!(
        ended,
        Ok(AbortedBy::Stayed(_)) | Err(EngineError::TooLate { .. } | EngineError::Unclear { .. })
    ) {
        // The run stays open: whoever goes on with it is not to meet this abort.
        control.answer(&spec.run_id).await?;
    }
    ended.map(Some)
}

/// Whether a lock was had; `Fenced` means that another runner holds it.
fn had(result: DbResult<()>) -> DbResult<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind == ErrorKind::Fenced => Ok(false),
        Err(error) => Err(error),
    }
}

/// Waits until the runner has closed the run: false. True where the runner died meanwhile and we hold
/// the table's lock.
async fn await_runner<C: Store>(
    control: &mut C,
    spec: &RunSpec,
    options: &AbortOptions,
) -> EngineResult<bool> {
    let limit = Instant::now() + Duration::from_millis(options.runner_wait_ms);
    while Instant::now() < limit {
        sleep(LOOK_EVERY).await;
        if control.open_run(&spec.schema, &spec.table).await?.is_none() {
            return closed_as(control, spec).await.map(|()| false);
        }
        if had(control.acquire(&spec.schema, &spec.table).await)? {
            return Ok(true);
        }
    }
    let waited_s = options.runner_wait_ms / 1000;
    Err(EngineError::NotYetAborted { table: table_of(spec), waited_s })
}

/// The runner may have come to the swap before our request.
async fn closed_as<C: Store>(control: &mut C, spec: &RunSpec) -> EngineResult<()> {
    let runs = control.runs(Some((&spec.schema, &spec.table))).await?;
    let is_done = runs.iter().any(|run| run.run_id == spec.run_id && run.state == "done");
    if is_done { Err(EngineError::TooLate { table: table_of(spec) }) } else { Ok(()) }
}

/// Removes the run. We hold the table's lock.
async fn remove<C: Store + Shadow>(
    control: &mut C,
    spec: &RunSpec,
    first_seen: Option<&Checkpoint>,
    options: &AbortOptions,
    reporter: &Reporter,
) -> EngineResult<AbortedBy> {
    let grip = control.take_over(&spec.run_id).await?;
    // Read after the take-over: until then an older hold could still save, or its runner end the run.
    let Some(stored) = control.open_run(&spec.schema, &spec.table).await? else {
        return closed_as(control, spec).await.map(|()| AbortedBy::Runner);
    };
    // A damaged checkpoint must not stand in the way of removing the run it belongs to: what an abort
    // must know is which table bears the source's name, and that is seen on the server.
    let checkpoint = match Checkpoint::decode(&stored.checkpoint) {
        Ok(checkpoint) => checkpoint,
        // Where both tables may hold what the application wrote, that is not enough.
        Err(error) if spec.keeps_way_back => return Err(error.into()),
        Err(_) => Checkpoint::begin(),
    };
    // Its runner heard of the abort, left the turn and is gone.
    if let (Some(stands), Some(before)) = (checkpoint.stands, first_seen)
        && before.stands == Some(stands)
        && before.phase < Phase::Arrive
        && checkpoint.phase == Phase::Revertible
    {
        return Ok(AbortedBy::Stayed(stands));
    }
    let on_way = spec.on_way(checkpoint.way);
    match (control.observe(&on_way, &checkpoint).await?.swap, checkpoint.stands) {
        (SwapState::NotSwapped, None) => {}
        // Both tables hold what the application wrote by now: nothing is removed.
        (SwapState::NotSwapped, Some(stands)) if checkpoint.phase < Phase::Arrive => {
            control.save(&grip, &checkpoint.at_rest()).await?;
            return Ok(AbortedBy::Stayed(stands));
        }
        (SwapState::Swapped, _) => return Err(EngineError::TooLate { table: table_of(spec) }),
        (SwapState::NotSwapped, Some(_)) => {
            let why = format!(
                "the run's record says that the swap was made, the server shows the table from before \
                 it under the name {}",
                table_of(spec)
            );
            return Err(EngineError::Unclear { why });
        }
        (SwapState::Unclear(why), _) => return Err(EngineError::Unclear { why }),
    }
    // Durable before anything is removed: whoever comes after an abort that was killed half-way must not
    // wonder where the shadow is. Where the record is damaged it stays as it is.
    if Checkpoint::decode(&stored.checkpoint).is_ok() {
        control.save(&grip, &Checkpoint { aborting: true, ..checkpoint.clone() }).await?;
    }
    let since = Instant::now();
    let mut attempt: u32 = 0;
    while let Err(error) = control.abort(spec).await {
        let patience = Duration::from_millis(options.lock_patience_ms);
        if !error.is_retryable() || since.elapsed() >= patience {
            return Err(error.into());
        }
        attempt = attempt.saturating_add(1);
        let why = error.to_string();
        reporter.tell(|at_ms| Report::LockTry { at_ms, attempt, why });
        let rest = Duration::from_millis(500).saturating_mul(attempt);
        sleep(std::cmp::min(rest, LOCK_REST_MAX)).await;
    }
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let record = Record { by: options.by.clone(), version, ..Record::default() };
    control.close_run(&spec.run_id, ABORTED, &record.write()).await?;
    reporter.tell(|at_ms| Report::Stopped {
        at_ms,
        ending: StoppedAs::Aborted,
        run_id: spec.run_id.clone(),
        phase: checkpoint.phase.name().to_owned(),
        rows_copied: checkpoint.counters.rows_copied,
        why: String::new(),
    });
    Ok(AbortedBy::Us)
}
