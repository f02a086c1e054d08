//! What the control connection does while a run goes on: definitions, checkpoints, the swap. One task
//! owns the connection, so that the loop stays awake during a long statement.

use std::sync::Arc;

use tokio::sync::mpsc;
use underpin_core::checkpoint::Checkpoint;
use underpin_core::machine::Event;
use underpin_core::plan::RunSpec;
use underpin_dialect::{Control, DbResult, Grip, SwapOutcome};

use crate::enter::fingerprint;
use crate::events::Step;
use crate::history::Record;
use crate::reporter::Reporter;
use crate::work::{Answer, Reply, Who, Work, again};

/// The result of a run whose change is made.
pub(crate) const DONE: &str = "done";

/// The result of a run that was removed.
pub(crate) const ABORTED: &str = "aborted";

/// An order for the control connection.
#[derive(Debug, Clone)]
pub(crate) enum Order {
    /// Make a checkpoint durable.
    Save(Box<Checkpoint>),
    /// Write the newest checkpoint again: keeps the connection open and shows that we live.
    Beat(Box<Checkpoint>),
    /// Close the run, as "done" or "aborted", with what is to be remembered of it.
    Close(&'static str, Box<Record>),
    Prepare,
    /// Check the source; then the work may be begun.
    CheckSource(Work),
    BuildIndexes,
    TrySwap {
        budget_ms: u64,
    },
    Arrive,
    Finish {
        keep_retired: bool,
    },
    Abort,
}

impl Order {
    pub(crate) fn step(&self) -> Step {
        match self {
            Self::Save(_) => Step::Save,
            Self::Beat(_) => Step::Beat,
            Self::Close(..) => Step::Close,
            Self::Prepare => Step::Prepare,
            Self::CheckSource(_) => Step::CheckSource,
            Self::BuildIndexes => Step::BuildIndexes,
            Self::TrySwap { .. } => Step::TrySwap,
            Self::Arrive => Step::Arrive,
            Self::Finish { .. } => Step::Finish,
            Self::Abort => Step::Abort,
        }
    }
}

/// What the control task needs besides its orders.
pub(crate) struct ControlDesk<C: Control> {
    pub(crate) control: C,
    pub(crate) spec: Arc<RunSpec>,
    pub(crate) grip: Grip,
    pub(crate) answers: mpsc::Sender<Answer>,
    pub(crate) reporter: Reporter,
}

impl<C: Control> ControlDesk<C> {
    /// Carries out orders until there are no more.
    pub(crate) async fn attend(mut self, mut orders: mpsc::Receiver<Order>) {
        while let Some(order) = orders.recv().await {
            let step = order.step();
            let result = self.carry_out(&order).await;
            let answer = Answer { who: Who::Control, step, result };
            if self.answers.send(answer).await.is_err() {
                return;
            }
        }
    }

    async fn carry_out(&mut self, order: &Order) -> DbResult<Reply> {
        let mut tries = 0;
        loop {
            match self.once(order).await {
                Ok(reply) => return Ok(reply),
                Err(error) => {
                    tries += 1;
                    if !again(order.step(), &error, tries, &self.reporter).await {
                        return Err(error);
                    }
                }
            }
        }
    }

    async fn once(&mut self, order: &Order) -> DbResult<Reply> {
        let (control, spec) = (&mut self.control, &self.spec);
        let event = match order {
            Order::Save(checkpoint) | Order::Beat(checkpoint) => {
                return control.save(&self.grip, checkpoint).await.map(|()| Reply::Ordered);
            }
            Order::Close(result, record) => {
                let mut record = Record::clone(record);
                if *result == DONE {
                    record.fingerprint = fingerprint(control, spec).await?;
                }
                let record = record.write();
                let closed = control.close_run(&spec.run_id, result, &record).await;
                return closed.map(|()| Reply::Ordered);
            }
            Order::CheckSource(work) => {
                return control.check_source(spec).await.map(|()| Reply::Checked(work.clone()));
            }
            Order::Prepare => control.prepare(spec).await.map(|()| Event::Prepared)?,
            Order::BuildIndexes => {
                control.build_indexes(spec).await.map(|()| Event::IndexesBuilt)?
            }
            Order::TrySwap { budget_ms } => {
                match control.try_swap(spec, &self.grip, *budget_ms).await? {
                    SwapOutcome::Swapped { stall_ms, drained } => {
                        Event::Swapped { stall_ms, drained }
                    }
                    SwapOutcome::DrainTooSlow { drained } => Event::DrainTooSlow { drained },
                }
            }
            Order::Arrive => control.arrive(spec).await.map(|()| Event::Arrived)?,
            Order::Finish { keep_retired } => {
                control.finish(spec, *keep_retired).await.map(|()| Event::Finished)?
            }
            Order::Abort => control.abort(spec).await.map(|()| Event::Finished)?,
        };
        Ok(Reply::Event(event))
    }
}
