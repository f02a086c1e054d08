//! `underpin verify`: compares the two tables of an open run, at any time, beside its runner or without
//! one.
//!
//! It reads: no lock on the run, no repair, nothing written. Its worker has a grip of the epoch before the
//! first one, so that even by a fault nothing of it could ever be committed. The run goes on meanwhile, so
//! before each batch counts the run is looked at once more: where the tables have changed their places,
//! what was found means nothing.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use underpin_core::checkpoint::Phase;
use underpin_core::chunk::ChunkSizer;
use underpin_core::key::{Chunk, Frontier, Key, KeyRange};
use underpin_core::plan::{Flow, RunSpec};
use underpin_core::way::Way;
use underpin_dialect::{Database, DbResult, Grip, RangeReport, Verify, Worker};

use crate::enter::table_of;
use crate::error::{EngineError, EngineResult};
use crate::run::{OpenRun, find_open};
use crate::work::elapsed_ms;

/// Differing rows that are named.
const NAMED_MAX: usize = 100;

/// Ranges between two looks at the run.
const RANGES_A_LOOK: u32 = 4;

/// Tries of one range that the server gave up, as for a lock that the runner's swap wants.
const TRIES_MAX: u32 = 20;

/// Rest between them.
const TRY_REST: Duration = Duration::from_millis(500);

/// Longest rest after a range.
const REST_MAX: Duration = Duration::from_secs(30);

/// How long a cancelled statement may take to end.
const END_WAIT: Duration = Duration::from_secs(30);

/// How a comparison is carried out. Times in milliseconds.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// How long a range should take.
    pub range_ms_target: u64,
    /// Share of the time spent comparing, in thousandths.
    pub work_share: u32,
    /// Longest time for one range; beyond it the statement is cancelled.
    pub range_deadline_ms: u64,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self { range_ms_target: 400, work_share: 500, range_deadline_ms: 10 * 60 * 1000 }
    }
}

/// How much of the tables is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Extent {
    /// Up to where the copy had come when it began.
    Copied,
    /// All of it.
    All,
}

/// The table that the live one is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Counterpart {
    /// The new table, before the first swap.
    Shadow,
    /// The one that was live before the last swap.
    Retired,
}

/// What a comparison found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Compared {
    /// The run.
    pub run_id: String,
    /// The table as `schema.table`.
    pub table: String,
    /// What it was compared with.
    pub with: Counterpart,
    /// The run's phase when it began.
    pub phase: String,
    /// How much was to be compared.
    pub extent: Extent,
    /// Whether all of that was compared; false where it was stopped.
    pub complete: bool,
    /// Rows of the table that were looked at; those that wait in the change log among them.
    pub rows: u64,
    /// Ranges.
    pub ranges: u64,
    /// Rows that differ although nothing of theirs is pending.
    pub differences: u64,
    /// The first hundred of them, with their keys.
    pub samples: Vec<String>,
    /// Milliseconds it took.
    pub took_ms: u64,
}

/// Which tables are compared, and how far.
#[derive(Debug, Clone, PartialEq)]
struct View {
    spec: Arc<RunSpec>,
    up_to: Option<Key>,
    phase: Phase,
    stands: Option<Way>,
}

impl View {
    /// What can be compared of a run.
    ///
    /// # Errors
    /// `NothingToCompare`.
    fn of(run: &OpenRun) -> EngineResult<Self> {
        let OpenRun { spec, checkpoint } = run;
        let nothing = |why: &str| {
            Err(EngineError::NothingToCompare {
                table: table_of(spec),
                phase: checkpoint.phase.name().to_owned(),
                why: why.to_owned(),
            })
        };
        if checkpoint.aborting {
            return nothing("the run is being removed");
        }
        let is_early = match checkpoint.phase {
            Phase::Prepare => true,
            Phase::Copy => spec.flow == Flow::Blocks || checkpoint.frontier == Frontier::Start,
            Phase::Settle | Phase::Indexes => spec.flow == Flow::Blocks,
            Phase::Arrive => return nothing("the swap was made just now; ask again in a moment"),
            Phase::Finish | Phase::Done => {
                return nothing("the change is made, and the other table is being removed");
            }
            Phase::CatchUp | Phase::Verify | Phase::Swap | Phase::Revertible => false,
        };
        if is_early {
            return nothing(match spec.flow {
                Flow::KeyRanges => "nothing of it is copied yet",
                Flow::Blocks => "its rows can be compared once the copy has caught up",
            });
        }
        let way = match checkpoint.phase {
            // At rest: the live table is the source now.
            Phase::Revertible => checkpoint.way.turned(),
            _ => checkpoint.way,
        };
        Ok(Self {
            spec: Arc::new(spec.on_way(way)),
            up_to: match checkpoint.phase {
                Phase::Copy => checkpoint.frontier.lower_bound().cloned(),
                _ => None,
            },
            phase: checkpoint.phase,
            stands: checkpoint.stands,
        })
    }

    /// Whether what was read of these tables still means what it meant.
    fn stands_in(&self, now: &Self) -> bool {
        now.spec.run_id == self.spec.run_id
            && now.spec.way == self.spec.way
            && now.stands == self.stands
            // Behind a swap nothing begins again; before one, a run whose source was emptied does.
            && (self.stands.is_some() || now.phase >= self.phase)
    }
}

/// Compares the tables of the table's open run. `stop`: once true, what is under way is
/// cancelled and what was found so far is the answer; its sender must be kept. `told` hears how
/// far it is.
///
/// # Errors
/// `NoRun`; `NothingToCompare`; `MovedOn` where the tables were exchanged or removed meanwhile; the
/// database's.
pub async fn verify<D: Database>(
    db: &D,
    schema: &str,
    table: &str,
    options: &VerifyOptions,
    stop: watch::Receiver<bool>,
    told: impl FnMut(&Compared),
) -> EngineResult<Compared> {
    let mut control = db.control().await?;
    let run = look(&mut control, schema, table).await?;
    let view = View::of(&run)?;
    let grip = Grip { run_id: view.spec.run_id.clone(), epoch: 0 };
    let worker = match db.worker(&view.spec, &grip).await {
        Ok(worker) => worker,
        Err(error) => {
            still_stands(&view, &look(&mut control, schema, table).await, 0)?;
            return Err(error.into());
        }
    };
    let found = Compared {
        run_id: view.spec.run_id.clone(),
        table: table_of(&view.spec),
        with: match view.stands {
            None => Counterpart::Shadow,
            Some(_) => Counterpart::Retired,
        },
        phase: view.phase.name().to_owned(),
        extent: if view.up_to.is_some() { Extent::Copied } else { Extent::All },
        complete: false,
        rows: 0,
        ranges: 0,
        differences: 0,
        samples: Vec::new(),
        took_ms: 0,
    };
    Comparison { db, control, worker, view, options, stop, told, found, begun: Instant::now() }
        .finish()
        .await
}

async fn look<C: underpin_dialect::Store>(
    control: &mut C,
    schema: &str,
    table: &str,
) -> EngineResult<OpenRun> {
    find_open(control, schema, table)
        .await?
        .ok_or_else(|| EngineError::NoRun { table: format!("{schema}.{table}") })
}

/// # Errors
/// `MovedOn` where the tables are not those that are compared any more.
fn still_stands(view: &View, now: &EngineResult<OpenRun>, rows: u64) -> EngineResult<()> {
    let phase = match now {
        Ok(run) => match View::of(run) {
            Ok(now) if view.stands_in(&now) => return Ok(()),
            Ok(_) | Err(_) => run.checkpoint.phase.name(),
        },
        Err(EngineError::NoRun { .. }) => "its end",
        Err(error) => return Err(error.clone()),
    };
    let table = table_of(&view.spec);
    Err(EngineError::MovedOn { table, phase: phase.to_owned(), rows })
}

/// One comparison under way.
struct Comparison<'a, D: Database, T> {
    db: &'a D,
    control: D::Control,
    worker: D::Worker,
    view: View,
    options: &'a VerifyOptions,
    stop: watch::Receiver<bool>,
    told: T,
    found: Compared,
    begun: Instant,
}

impl<D: Database, T: FnMut(&Compared)> Comparison<'_, D, T> {
    async fn finish(mut self) -> EngineResult<Compared> {
        let mut sizer = ChunkSizer::new(5_000, 50, 100_000, self.options.range_ms_target);
        let mut after: Option<Key> = None;
        // Ends with the table: each batch ends behind the one before it.
        loop {
            let within = KeyRange { after: after.clone(), up_to: self.view.up_to.clone() };
            let planned =
                self.worker.plan_ranges_within(&within, sizer.rows(), RANGES_A_LOOK).await;
            let (ranges, last) = match planned {
                Ok(planned) => planned,
                Err(error) => return Err(self.explained(error.into()).await),
            };
            let mut reports = Vec::new();
            for range in &ranges {
                let begun = Instant::now();
                let Some(report) = self.one_range(range).await? else {
                    self.count(reports).await?;
                    return Ok(self.found);
                };
                sizer.feedback(report.rows, elapsed_ms(begun));
                reports.push(report);
                if self.rest(begun.elapsed()).await {
                    self.count(reports).await?;
                    return Ok(self.found);
                }
            }
            self.count(reports).await?;
            if last {
                self.found.complete = true;
                return Ok(self.found);
            }
            after = ranges.last().and_then(|range| range.range.up_to.clone());
            if after.is_none() {
                let what = "ranges without an end that are not the last".to_owned();
                return Err(EngineError::Internal(what));
            }
        }
    }

    /// Counts what was found, where the run shows that it still means something.
    async fn count(&mut self, reports: Vec<RangeReport>) -> EngineResult<()> {
        self.must_still_stand().await?;
        let found = &mut self.found;
        for report in reports {
            found.ranges += 1;
            found.rows += report.rows;
            found.differences += report.differences;
            let room = NAMED_MAX.saturating_sub(found.samples.len());
            found.samples.extend(report.samples.into_iter().take(room));
        }
        found.took_ms = elapsed_ms(self.begun);
        (self.told)(found);
        Ok(())
    }

    async fn must_still_stand(&mut self) -> EngineResult<()> {
        let spec = &self.view.spec;
        let now = look(&mut self.control, &spec.schema, &spec.table).await;
        still_stands(&self.view, &now, self.found.rows)
    }

    /// The error itself, or that the run has moved on, which explains it.
    async fn explained(&mut self, error: EngineError) -> EngineError {
        if error.is_connection_lost() {
            return error;
        }
        self.must_still_stand().await.err().unwrap_or(error)
    }

    /// Compares a range; `None` where it was asked to stop.
    async fn one_range(&mut self, range: &Chunk) -> EngineResult<Option<RangeReport>> {
        let mut tries = 0;
        loop {
            let error = match self.try_range(range).await {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            tries += 1;
            if !error.is_retryable() || tries >= TRIES_MAX {
                return Err(self.explained(error).await);
            }
            self.must_still_stand().await?;
            sleep(TRY_REST).await;
        }
    }

    async fn try_range(&mut self, range: &Chunk) -> EngineResult<Option<RangeReport>> {
        let session = self.worker.session();
        let answer = self.worker.verify_range(range);
        tokio::pin!(answer);
        let is_late = tokio::select! {
            answer = &mut answer => return answer.map(Some).map_err(EngineError::from),
            _ = self.stop.wait_for(|stopped| *stopped) => false,
            () = sleep(Duration::from_millis(self.options.range_deadline_ms)) => true,
        };
        self.db.cancel(session).await?;
        let ended: Result<DbResult<RangeReport>, _> = timeout(END_WAIT, answer).await;
        match ended {
            Ok(Ok(report)) => Ok(Some(report)),
            Ok(Err(error)) if is_late => Err(error.into()),
            Ok(Err(_)) | Err(_) => Ok(None),
        }
    }

    /// Rests for as long as the share of the time asks for; true where it was asked to stop.
    async fn rest(&mut self, took: Duration) -> bool {
        let share = self.options.work_share.clamp(1, 1000);
        let rest = took.saturating_mul(1000 - share) / share;
        tokio::select! {
            _ = self.stop.wait_for(|stopped| *stopped) => true,
            () = sleep(std::cmp::min(rest, REST_MAX)) => false,
        }
    }
}

#[cfg(test)]
mod tests;
