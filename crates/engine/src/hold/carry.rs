//! How the machine's actions are carried out: which go to a worker, which to the control connection, and
//! which are awaited before anything else begins.

use tokio::time::Instant;
use underpin_core::checkpoint::Checkpoint;
use underpin_core::machine::{Action, Ending};
use underpin_dialect::{Database, DbError, DbResult};

use super::{Held, Hold, internal, lost};
use crate::drive::Drive;
use crate::error::EngineError;
use crate::events::{Meaning, Step, meaning_of};
use crate::history::Record;
use crate::orders::{ABORTED, DONE, Order};
use crate::work::{Reply, Who, Work};

impl<D: Database> Hold<'_, D> {
    pub(super) async fn begin(&mut self, action: Action) -> Result<(), Held> {
        match action {
            Action::Save(checkpoint) => self.save(checkpoint).await,
            Action::Prepare => self.order(Order::Prepare).await,
            Action::PlanRound { after, chunk_rows, chunks_max } => {
                let work = Work::Plan { after, rows: chunk_rows, chunks_max };
                self.order(Order::CheckSource(work)).await
            }
            Action::PlanVerify { after, range_rows, ranges_max } => {
                self.work(Work::PlanRanges { after, rows: range_rows, ranges_max })
            }
            Action::CopyChunk { round, chunk } => self.work(Work::CopyChunk { round, chunk }),
            Action::CopyWithPending { round, chunk, frontier } => {
                self.work(Work::CopyWithPending { round, chunk, frontier })
            }
            Action::Apply { frontier, keys_max, clears } => {
                self.work(Work::Apply { frontier, keys_max, clears })
            }
            Action::Settle => self.work(Work::Settle),
            Action::VerifyRange { range } => self.work(Work::Verify { range }),
            Action::Repair { range } => self.work(Work::Repair { range }),
            Action::Tidy => self.work(Work::Tidy),
            Action::CancelTidy => {
                self.crew.cancel(Step::Tidy);
                Ok(())
            }
            Action::BuildIndexes => self.order(Order::BuildIndexes).await,
            Action::TrySwap { budget_ms } => self.order(Order::TrySwap { budget_ms }).await,
            Action::Arrive => self.order(Order::Arrive).await,
            Action::Finish => {
                let keep_retired = self.drive.options.keep_retired;
                self.order(Order::Finish { keep_retired }).await
            }
            Action::Abort => self.order(Order::Abort).await,
            Action::Stop(ending) => Err(self.close(ending).await),
        }
    }

    pub(super) fn work(&mut self, work: Work) -> Result<(), Held> {
        self.crew.work(work).map_err(internal)
    }

    async fn order(&mut self, order: Order) -> Result<(), Held> {
        if !self.crew.is_control_free() {
            // Only a sign of life can be under way: the machine orders one thing at a time.
            let (step, result) = self.await_control().await?;
            if let Err(error) = result {
                self.control_failed(step, error)?;
            }
        }
        self.ordered_at = Instant::now();
        self.crew.order(order).map_err(internal)
    }

    async fn save(&mut self, checkpoint: Box<Checkpoint>) -> Result<(), Held> {
        let newest = Checkpoint::clone(&checkpoint);
        self.order(Order::Save(checkpoint)).await?;
        let (step, result) = self.await_control().await?;
        match result {
            Ok(_) => {
                self.drive.saved = Some(newest);
                Ok(())
            }
            Err(error) => self.control_failed(step, error),
        }
    }

    /// Closes a run that is over. The answer is awaited: until it comes the run is not over.
    async fn close(&mut self, ending: Ending) -> Held {
        let (result, why) = match &ending {
            Ending::Done { .. } => (DONE, String::new()),
            Ending::Aborted { why } => (ABORTED, why.clone().unwrap_or_default()),
            // The run stays open.
            Ending::Revertible { .. }
            | Ending::Stayed { .. }
            | Ending::Interrupted
            | Ending::Failed(_) => return Held::Ended(Box::new(ending)),
        };
        self.drive.closing = Some(ending.clone());
        self.remember(&ending, why);
        let record = Box::new(self.drive.record.clone());
        if let Err(held) = self.order(Order::Close(result, record)).await {
            return held;
        }
        let closed = match self.await_control().await {
            Ok((_, Ok(_))) => Ok(()),
            Ok((step, Err(error))) => self.control_failed(step, error),
            Err(held) => Err(held),
        };
        match closed {
            Ok(()) => Held::Ended(Box::new(ending)),
            Err(held) => held,
        }
    }

    /// Puts down what is to be remembered of the run.
    fn remember(&mut self, ending: &Ending, why: String) {
        let (counters, stall_ms) = match ending {
            Ending::Done { counters, stall_ms } => (counters.clone(), *stall_ms),
            _ => (self.machine.progress(self.drive.reporter.at_ms()).counters, None),
        };
        let Drive { options, watch, saved, .. } = &*self.drive;
        let keep = options.keep_retired && matches!(ending, Ending::Done { .. });
        let summary = watch.summary(&self.spec, &counters, stall_ms, saved.as_ref(), keep);
        self.drive.record = Record {
            by: options.origin.by.clone(),
            version: options.origin.version.clone(),
            why,
            summary: Some(summary),
            ..Record::default()
        };
    }

    /// Waits for the answer of the control connection; the deadline is the crew's.
    async fn await_control(&mut self) -> Result<(Step, DbResult<Reply>), Held> {
        loop {
            tokio::select! {
                answer = self.crew.answer() => {
                    let answer = answer.map_err(internal)?;
                    if answer.who == Who::Control {
                        self.crew.answered(Who::Control).map_err(internal)?;
                        return Ok((answer.step, answer.result));
                    }
                    self.early.push_back(answer);
                }
                _ = self.ticks.tick() => self.look_at_deadlines()?,
            }
        }
    }

    /// An order that the machine does not hear of has failed.
    pub(super) fn control_failed(&self, step: Step, error: DbError) -> Result<(), Held> {
        match meaning_of(step, &error) {
            Meaning::Lost => Err(lost(error, false)),
            Meaning::Fenced => Err(self.fenced(&error)),
            // The next one comes soon.
            Meaning::Event(_) | Meaning::Again if step == Step::Beat => Ok(()),
            Meaning::Event(_) | Meaning::Again => Err(Held::Failed(EngineError::Db(error))),
        }
    }
}
