//! One seat of the crew: a task that owns one connection, with what it has in flight and until when.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use underpin_core::plan::RunSpec;
use underpin_dialect::{Control, Database, Grip};

use crate::events::Step;
use crate::orders::{ControlDesk, Order};
use crate::reporter::Reporter;
use crate::work::{Answer, Work, WorkerDesk};

/// Something that was begun and has not been answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flight {
    pub(crate) step: Step,
    pub(crate) deadline: Instant,
    pub(crate) cancelled_at: Option<Instant>,
}

/// A task that owns one connection.
#[derive(Debug)]
pub(crate) struct Seat<J> {
    jobs: mpsc::Sender<J>,
    pub(crate) session: Arc<AtomicU64>,
    task: JoinHandle<()>,
    pub(crate) flight: Option<Flight>,
}

/// How long steps may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadlines {
    pub(crate) job: Duration,
    pub(crate) indexes: Duration,
}

impl Deadlines {
    fn of(self, step: Step) -> Instant {
        // The first three go through the whole shadow; the last may check every row for a foreign key.
        let is_long = matches!(
            step,
            Step::Settle | Step::BuildIndexes | Step::Tidy | Step::Arrive | Step::Finish
        );
        let limit = if is_long { self.indexes } else { self.job };
        Instant::now() + limit
    }
}

impl<J> Seat<J> {
    pub(crate) fn begin(&mut self, job: J, step: Step, deadlines: Deadlines) -> Result<(), String> {
        if let Some(flight) = &self.flight {
            return Err(format!("{} was begun while {}", step.doing(), flight.step.doing()));
        }
        self.jobs
            .try_send(job)
            .map_err(|_| format!("the connection for {} has ended", step.doing()))?;
        self.flight = Some(Flight { step, deadline: deadlines.of(step), cancelled_at: None });
        Ok(())
    }

    pub(crate) fn in_flight(&mut self) -> (Option<&mut Flight>, u64, bool) {
        let session = self.session.load(Ordering::Acquire);
        (self.flight.as_mut(), session, self.task.is_finished())
    }

    /// Ends the task: no more jobs; past the limit its connection is cut.
    pub(crate) async fn end(self, limit: Instant) {
        let Self { jobs, mut task, .. } = self;
        drop(jobs);
        if timeout_at(limit, &mut task).await.is_err() {
            task.abort();
        }
    }
}

pub(crate) fn seat_control<C: Control>(
    control: C,
    spec: &Arc<RunSpec>,
    grip: &Grip,
    answers: mpsc::Sender<Answer>,
    reporter: &Reporter,
) -> Seat<Order> {
    let (jobs, orders) = mpsc::channel(1);
    let session = Arc::new(AtomicU64::new(control.control_session()));
    let desk = ControlDesk {
        control,
        spec: Arc::clone(spec),
        grip: grip.clone(),
        answers,
        reporter: reporter.clone(),
    };
    Seat { jobs, session, task: tokio::spawn(desk.attend(orders)), flight: None }
}

pub(crate) fn seat_worker<D: Database>(
    db: &Arc<D>,
    seat: usize,
    spec: &Arc<RunSpec>,
    grip: &Grip,
    answers: mpsc::Sender<Answer>,
    reporter: &Reporter,
) -> Seat<Work> {
    let (jobs, work) = mpsc::channel(1);
    let session = Arc::new(AtomicU64::new(0));
    let desk = WorkerDesk {
        db: Arc::clone(db),
        spec: Arc::clone(spec),
        grip: grip.clone(),
        seat,
        session: Arc::clone(&session),
        answers,
        reporter: reporter.clone(),
    };
    Seat { jobs, session, task: tokio::spawn(desk.attend(work)), flight: None }
}
