//! The connections of one hold on a run: the workers and the control, each in a seat of its own.
//!
//! Owns dispatch, the watch over deadlines and the end of all sessions. Knows nothing of what answers
//! mean.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use underpin_core::plan::RunSpec;
use underpin_dialect::{Database, Grip};

use crate::events::Step;
use crate::orders::Order;
use crate::reporter::Reporter;
use crate::seat::{Deadlines, Seat, seat_control, seat_worker};
use crate::work::{Answer, Who, Work};

/// How long a cancelled statement may take to answer before its connection counts as lost.
const ANSWER_AFTER_CANCEL: Duration = Duration::from_secs(60);

/// Bound on ending every session on the server when a hold is given up.
const DISBAND_WAIT: Duration = Duration::from_secs(30);

/// Bound on the ends of tasks that have nothing in flight.
const TASK_END_WAIT: Duration = Duration::from_secs(5);

/// What a look at the deadlines showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// Nothing, or nothing new.
    No,
    /// A step passed its deadline and is being cancelled.
    Cancelled(Step),
    /// A step gives no answer any more.
    Lost(String),
}

/// The connections of one hold.
pub(crate) struct Crew<D: Database> {
    db: Arc<D>,
    control: Seat<Order>,
    workers: Vec<Seat<Work>>,
    /// Jobs that wait for a free worker. The machine asks for no more than there are workers, so this
    /// is short.
    waiting: VecDeque<Work>,
    deadlines: Deadlines,
    answers: mpsc::Receiver<Answer>,
}

impl<D: Database> Crew<D> {
    /// Puts the control connection to work, and `workers` workers that connect when they have a job.
    pub(crate) fn new(
        db: &Arc<D>,
        control: D::Control,
        spec: &Arc<RunSpec>,
        grip: &Grip,
        workers: u32,
        deadlines: Deadlines,
        reporter: &Reporter,
    ) -> Self {
        let seats = usize::try_from(workers).unwrap_or(1).clamp(1, 256);
        // Every seat has one step in flight at most: nobody ever waits to answer.
        let (answers_in, answers) = mpsc::channel(seats + 2);
        let control = seat_control(control, spec, grip, answers_in.clone(), reporter);
        let workers = (0..seats)
            .map(|seat| seat_worker(db, seat, spec, grip, answers_in.clone(), reporter))
            .collect();
        Self { db: Arc::clone(db), control, workers, waiting: VecDeque::new(), deadlines, answers }
    }

    /// Gives a job to a free worker, or keeps it until one is free.
    ///
    /// # Errors
    /// A worker's task has ended, which only a fault of this program can bring about.
    pub(crate) fn work(&mut self, work: Work) -> Result<(), String> {
        self.waiting.push_back(work);
        self.dispatch()
    }

    fn dispatch(&mut self) -> Result<(), String> {
        for seat in self.workers.iter_mut().filter(|seat| seat.flight.is_none()) {
            let Some(work) = self.waiting.pop_front() else { break };
            let step = work.step();
            seat.begin(work, step, self.deadlines)?;
        }
        Ok(())
    }

    /// Gives an order to the control connection, which must be free.
    ///
    /// # Errors
    /// Its task has ended.
    pub(crate) fn order(&mut self, order: Order) -> Result<(), String> {
        let step = order.step();
        self.control.begin(order, step, self.deadlines)
    }

    /// Whether the control connection has nothing in flight.
    pub(crate) fn is_control_free(&self) -> bool {
        self.control.flight.is_none()
    }

    /// Whether a try of the swap is in flight.
    pub(crate) fn is_swapping(&self) -> bool {
        self.control.flight.is_some_and(|flight| flight.step == Step::TrySwap)
    }

    /// The next answer. May be dropped while it waits.
    pub(crate) async fn answer(&mut self) -> Result<Answer, String> {
        self.answers.recv().await.ok_or_else(|| "all connections have ended".to_owned())
    }

    /// Notes that a seat has answered, and gives it the next job.
    ///
    /// # Errors
    /// As [`Crew::work`].
    pub(crate) fn answered(&mut self, who: Who) -> Result<(), String> {
        match who {
            Who::Control => self.control.flight = None,
            Who::Worker(seat) => {
                if let Some(seat) = self.workers.get_mut(seat) {
                    seat.flight = None;
                }
            }
        }
        self.dispatch()
    }

    /// Cancels what has passed its deadline, and notices what gives no answer.
    pub(crate) fn look_at_deadlines(&mut self) -> Overdue {
        let now = Instant::now();
        let mut seen = Overdue::No;
        let flights =
            self.workers.iter_mut().map(Seat::in_flight).chain([self.control.in_flight()]);
        for (flight, session, ended) in flights {
            let Some(flight) = flight else { continue };
            if ended && self.answers.is_empty() {
                return Overdue::Lost(format!("the task that was {} ended", flight.step.doing()));
            }
            match flight.cancelled_at {
                Some(at) if now > at + ANSWER_AFTER_CANCEL => {
                    return Overdue::Lost(format!(
                        "no answer to the cancelled step: {}",
                        flight.step.doing()
                    ));
                }
                None if now > flight.deadline => {
                    flight.cancelled_at = Some(now);
                    cancel_in_background(&self.db, session);
                    seen = Overdue::Cancelled(flight.step);
                }
                _ => {}
            }
        }
        seen
    }

    /// Cancels a step that a worker is at.
    pub(crate) fn cancel(&mut self, step: Step) {
        for (flight, session, _) in self.workers.iter_mut().map(Seat::in_flight) {
            if let Some(flight) = flight
                && flight.step == step
                && flight.cancelled_at.is_none()
            {
                flight.cancelled_at = Some(Instant::now());
                cancel_in_background(&self.db, session);
            }
        }
    }

    /// Cancels what is in flight, except a try of the swap, which is short and better left to end.
    pub(crate) fn hurry(&mut self) {
        let now = Instant::now();
        let flights =
            self.workers.iter_mut().map(Seat::in_flight).chain([self.control.in_flight()]);
        for (flight, session, _) in flights {
            if let Some(flight) = flight
                && flight.step != Step::TrySwap
                && flight.cancelled_at.is_none()
            {
                flight.cancelled_at = Some(now);
                cancel_in_background(&self.db, session);
            }
        }
    }

    /// Gives everything up: ends the sessions on the server, then the tasks. Bounded; what cannot be
    /// ended now is ended by the next `take_over`, which waits for the proof.
    pub(crate) async fn disband(mut self) {
        self.answers.close();
        let db = Arc::clone(&self.db);
        let seats: Vec<Arc<AtomicU64>> = self
            .workers
            .iter()
            .map(|seat| &seat.session)
            .chain([&self.control.session])
            .map(Arc::clone)
            .collect();
        let sessions = || seats.iter().map(|seat| seat.load(Ordering::Acquire));
        let known: HashSet<u64> = sessions().collect();
        end_sessions(&db, &known).await;
        self.end_tasks().await;
        // One that was connecting meanwhile may have begun something before it heard that this is over.
        let late: HashSet<u64> = sessions().filter(|id| !known.contains(id)).collect();
        end_sessions(&db, &late).await;
    }

    /// Lets idle connections go.
    pub(crate) async fn dismiss(self) {
        self.end_tasks().await;
    }

    async fn end_tasks(self) {
        let Self { control, workers, .. } = self;
        let limit = Instant::now() + TASK_END_WAIT;
        for seat in workers {
            seat.end(limit).await;
        }
        // Last: it holds the lock that keeps other runners away.
        control.end(limit).await;
    }
}

/// Ends sessions on the server, all at once; 0 is none.
async fn end_sessions<D: Database>(db: &Arc<D>, sessions: &HashSet<u64>) {
    let mut ends = JoinSet::new();
    for session in sessions.iter().copied().filter(|id| *id != 0) {
        let db = Arc::clone(db);
        ends.spawn(async move {
            if let Err(error) = db.end(session).await {
                tracing::warn!(session, %error, "a session could not be ended");
            }
        });
    }
    let all_ended = async { while ends.join_next().await.is_some() {} };
    if timeout(DISBAND_WAIT, all_ended).await.is_err() {
        tracing::warn!("not every session could be ended in time");
    }
}

fn cancel_in_background<D: Database>(db: &Arc<D>, session: u64) {
    if session == 0 {
        return;
    }
    let db = Arc::clone(db);
    tokio::spawn(async move {
        if let Err(error) = db.cancel(session).await {
            tracing::warn!(session, %error, "a statement could not be cancelled");
        }
    });
}
