//! What workers do: the jobs of the copy, the log and verification, and the task that owns one worker
//! connection.
//!
//! The task awaits every statement to its answer; nothing here drops a future half way. Time limits
//! are the crew's: it cancels on the server, and the answer still comes through here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use underpin_core::key::{Chunk, Frontier, Key};
use underpin_core::machine::Event;
use underpin_core::plan::RunSpec;
use underpin_dialect::{Database, DbError, DbResult, Grip, Worker};

use crate::events::{Meaning, Step, meaning_of};
use crate::report::Report;
use crate::reporter::Reporter;

/// Tries of a step that the server rolled back and that the machine has no word for.
pub(crate) const AGAIN_MAX: u32 = 20;

/// Rest before such a step is tried again; it grows with each try.
const AGAIN_REST: Duration = Duration::from_millis(100);

/// A job for a worker.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    Plan { after: Option<Key>, rows: u64, chunks_max: u32 },
    PlanRanges { after: Option<Key>, rows: u64, ranges_max: u32 },
    CopyChunk { round: u64, chunk: Chunk },
    CopyWithPending { round: u64, chunk: Chunk, frontier: Frontier },
    Apply { frontier: Frontier, keys_max: u64, clears: bool },
    Settle,
    Verify { range: Chunk },
    Repair { range: Chunk },
    Tidy,
}

impl Work {
    pub(crate) fn step(&self) -> Step {
        match self {
            Self::Plan { .. } | Self::PlanRanges { .. } => Step::Plan,
            Self::CopyChunk { chunk, .. } => Step::CopyChunk(chunk.index),
            Self::CopyWithPending { chunk, .. } => Step::CopyWithPending(chunk.index),
            Self::Apply { .. } => Step::Apply,
            Self::Settle => Step::Settle,
            Self::Verify { range } => Step::Verify(range.index),
            Self::Repair { .. } => Step::Repair,
            Self::Tidy => Step::Tidy,
        }
    }
}

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Control,
    Worker(usize),
}

/// What came of a job.
#[derive(Debug)]
pub(crate) enum Reply {
    /// Tell the machine.
    Event(Event),
    /// The source is the same; the plan may be made.
    Checked(Work),
    /// The order of the control connection that has no event is carried out.
    Ordered,
}

/// The answer to a job or an order.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) who: Who,
    pub(crate) step: Step,
    pub(crate) result: DbResult<Reply>,
}

/// What a worker's task needs besides its jobs.
pub(crate) struct WorkerDesk<D: Database> {
    pub(crate) db: Arc<D>,
    pub(crate) spec: Arc<RunSpec>,
    pub(crate) grip: Grip,
    pub(crate) seat: usize,
    /// The server's id of the session; 0 while there is none.
    pub(crate) session: Arc<AtomicU64>,
    pub(crate) answers: mpsc::Sender<Answer>,
    pub(crate) reporter: Reporter,
}

impl<D: Database> WorkerDesk<D> {
    /// Works until there are no more jobs. The connection is made when the first one comes.
    pub(crate) async fn attend(self, mut jobs: mpsc::Receiver<Work>) {
        let mut worker = None;
        while let Some(work) = jobs.recv().await {
            let step = work.step();
            let result = self.carry_out(&mut worker, &work).await;
            let answer = Answer { who: Who::Worker(self.seat), step, result };
            if self.answers.send(answer).await.is_err() {
                return;
            }
        }
    }

    async fn carry_out(&self, slot: &mut Option<D::Worker>, work: &Work) -> DbResult<Reply> {
        let mut tries = 0;
        loop {
            let worker = match slot {
                Some(worker) => worker,
                None => {
                    let worker = self.db.worker(&self.spec, &self.grip).await?;
                    self.session.store(worker.session(), Ordering::Release);
                    slot.insert(worker)
                }
            };
            match work_once(worker, work).await {
                Ok(event) => return Ok(Reply::Event(event)),
                Err(error) => {
                    tries += 1;
                    if !again(work.step(), &error, tries, &self.reporter).await {
                        return Err(error);
                    }
                }
            }
        }
    }
}

/// Rests, and says whether a step that failed is to be tried again by its own task.
pub(crate) async fn again(step: Step, error: &DbError, tries: u32, reporter: &Reporter) -> bool {
    // A sign of life that was rolled back is not worth a wait: the next one comes soon.
    let given_up = tries > AGAIN_MAX || step == Step::Beat;
    if given_up || !matches!(meaning_of(step, error), Meaning::Again) {
        return false;
    }
    reporter.tell(|at_ms| Report::Retrying {
        at_ms,
        what: step.doing().to_owned(),
        why: error.to_string(),
    });
    sleep(AGAIN_REST.saturating_mul(tries)).await;
    true
}

async fn work_once<W: Worker>(worker: &mut W, work: &Work) -> DbResult<Event> {
    let begun = Instant::now();
    Ok(match work {
        Work::Plan { after, rows, chunks_max } => {
            let (chunks, last) = worker.plan_chunks(after.as_ref(), *rows, *chunks_max).await?;
            Event::RoundPlanned { chunks, last }
        }
        Work::PlanRanges { after, rows, ranges_max } => {
            let (chunks, last) = worker.plan_ranges(after.as_ref(), *rows, *ranges_max).await?;
            Event::RoundPlanned { chunks, last }
        }
        Work::CopyChunk { round, chunk } => {
            let rows = worker.copy_chunk(*round, chunk).await?;
            let took_ms = elapsed_ms(begun);
            Event::ChunkCopied { index: chunk.index, rows, took_ms, applied: None }
        }
        Work::CopyWithPending { round, chunk, frontier } => {
            let (rows, applied) = worker.copy_with_pending(*round, chunk, frontier).await?;
            let took_ms = elapsed_ms(begun);
            Event::ChunkCopied { index: chunk.index, rows, took_ms, applied: Some(applied) }
        }
        Work::Apply { frontier, keys_max, clears: false } => {
            Event::Applied(worker.apply(frontier, *keys_max).await?)
        }
        Work::Apply { frontier, keys_max, clears: true } => {
            Event::Applied(worker.apply_and_clear(frontier, *keys_max).await?)
        }
        Work::Settle => Event::Settled { rows: worker.settle().await? },
        Work::Verify { range } => {
            let found = worker.verify_range(range).await?;
            Event::RangeVerified {
                index: range.index,
                rows: found.rows,
                differences: found.differences,
                samples: found.samples,
                took_ms: elapsed_ms(begun),
            }
        }
        Work::Repair { range } => {
            let (keys, backlog) = worker.repair(range).await?;
            Event::Repaired { keys, backlog }
        }
        Work::Tidy => {
            worker.tidy().await?;
            Event::Tidied
        }
    })
}

/// Milliseconds since `begun`.
pub(crate) fn elapsed_ms(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}
