//! One hold on a run: the loop that takes the machine's actions, has them carried out, and feeds the
//! answers back, until the run ends or something is lost.
//!
//! Decides nothing about rows. `Save` is finished before what follows it is begun; everything else only
//! begins here, and its answer comes back through the crew.

mod carry;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout_at};
use underpin_core::checkpoint::Phase;
use underpin_core::machine::{Command, Ending, Event, FailureKind, Machine};
use underpin_core::plan::RunSpec;
use underpin_dialect::{Database, DbError, ErrorKind};

use crate::crew::{Crew, Overdue};
use crate::drive::Drive;
use crate::ears::Heard;
use crate::enter::{Entry, table_of};
use crate::error::EngineError;
use crate::events::{Meaning, Step, failed, meaning_of};
use crate::orders::Order;
use crate::probe::Reading;
use crate::seat::Deadlines;
use crate::work::{Answer, Reply};

const TICK: Duration = Duration::from_millis(100);

/// How long to wait for the first readings before the machine begins without them.
const FIRST_READINGS_WAIT: Duration = Duration::from_secs(5);

/// A control connection without an order for so long writes its checkpoint again.
const BEAT_EVERY: Duration = Duration::from_secs(10);

/// Steps in a row that may pass their deadline before the run stops.
const OVERRUNS_MAX: u32 = 3;

/// How a hold ended.
#[derive(Debug)]
pub(crate) enum Held {
    /// The machine has stopped, and the run is closed if it is over.
    Ended(Box<Ending>),
    /// A connection or an answer is lost: the run is to be entered again.
    Lost {
        /// What was lost.
        why: DbError,
        /// Whether a try of the swap was under way.
        swap_in_flight: bool,
    },
    /// This program cannot go on.
    Failed(EngineError),
}

struct Hold<'a, D: Database> {
    drive: &'a mut Drive<D>,
    spec: Arc<RunSpec>,
    machine: Machine,
    crew: Crew<D>,
    /// Answers of workers that came while the control connection was waited for.
    early: VecDeque<Answer>,
    ordered_at: Instant,
    ticks: Interval,
    /// The machine has heard everything that it needs to begin.
    has_begun: bool,
}

enum Signal {
    Answer(Result<Answer, String>),
    Heard(Heard),
    Tick,
}

/// Holds the run until it ends or something is lost. All its connections are gone when this returns.
pub(crate) async fn hold<D: Database>(drive: &mut Drive<D>, entry: Entry<D::Control>) -> Held {
    let Entry { control, spec, grip, checkpoint, observed, .. } = entry;
    let settings = drive.options.for_spec(&spec);
    let deadlines = Deadlines {
        job: Duration::from_millis(drive.options.job_deadline_ms),
        indexes: Duration::from_millis(drive.options.index_deadline_ms),
    };
    let workers = settings.workers;
    let crew = Crew::new(&drive.db, control, &spec, &grip, workers, deadlines, &drive.reporter);
    let phase = checkpoint.phase;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut hold = Hold {
        drive,
        spec,
        machine: Machine::recover(settings, checkpoint, &observed),
        crew,
        early: VecDeque::new(),
        ordered_at: Instant::now(),
        ticks,
        has_begun: false,
    };
    let begun = Instant::now();
    let Err(mut held) = hold.go(phase).await;
    let Hold { drive, crew, .. } = hold;
    // Told before the sessions are ended, which may take as long as the server is away.
    if let Held::Lost { why, swap_in_flight } = &held
        && let Err(error) = drive.lost(begun, why, *swap_in_flight)
    {
        held = Held::Failed(error);
    }
    match &held {
        Held::Ended(_) => crew.dismiss().await,
        Held::Lost { .. } | Held::Failed(_) => crew.disband().await,
    }
    held
}

impl<D: Database> Hold<'_, D> {
    async fn go(&mut self, phase: Phase) -> Result<Infallible, Held> {
        self.begin_hold(phase).await?;
        loop {
            match self.signal().await {
                Signal::Answer(answer) => {
                    let answer = answer.map_err(internal)?;
                    self.answer(answer).await?;
                }
                Signal::Heard(Heard::Command(command)) => self.command(command).await?,
                Signal::Heard(Heard::Reading(reading)) => self.reading(reading).await?,
                Signal::Heard(Heard::Gates(gates)) => self.step(Event::Gates(gates)).await?,
                Signal::Tick => self.tick().await?,
            }
        }
    }

    async fn signal(&mut self) -> Signal {
        if let Some(answer) = self.early.pop_front() {
            return Signal::Answer(Ok(answer));
        }
        tokio::select! {
            answer = self.crew.answer() => Signal::Answer(answer),
            heard = self.drive.ears.hear() => Signal::Heard(heard),
            _ = self.ticks.tick() => Signal::Tick,
        }
    }

    /// The machine hears what was asked for before, then fresh readings, then that it may begin.
    async fn begin_hold(&mut self, phase: Phase) -> Result<(), Held> {
        self.drive.ears.drop_old_readings();
        let mut backlog = None;
        let mut signals = None;
        let limit = Instant::now() + FIRST_READINGS_WAIT;
        // Whoever wants it to end does not wait for readings.
        while signals.is_none() && !self.drive.ears.wanted.is_end() {
            match timeout_at(limit, self.drive.ears.hear()).await {
                Err(_) => break,
                Ok(Heard::Command(command)) => {
                    self.drive.ears.note(&command);
                }
                Ok(Heard::Reading(Reading::Requested(order))) => {
                    self.drive.ears.note(&order.command);
                }
                Ok(Heard::Gates(_)) => {}
                Ok(Heard::Reading(Reading::Backlog(entries))) => backlog = Some(entries),
                Ok(Heard::Reading(Reading::Signals(readings))) => signals = Some(readings),
            }
        }
        for command in self.drive.ears.wanted.replay() {
            self.step(Event::Command(command)).await?;
        }
        let gates = self.drive.ears.diary.gates();
        self.step(Event::Gates(gates)).await?;
        let backlog = backlog.map(|entries| Event::Backlog { entries });
        let signals = signals.map(Event::Signals);
        // Each event is decided upon at once: the copy must know the lag before it begins, the swap how
        // much there is to drain.
        let readings =
            if phase <= Phase::Indexes { [signals, backlog] } else { [backlog, signals] };
        for event in readings.into_iter().flatten() {
            self.step(event).await?;
        }
        self.has_begun = true;
        self.step(Event::Started).await
    }

    async fn command(&mut self, command: Command) -> Result<(), Held> {
        if self.drive.ears.note(&command) {
            // Asked twice to stop: do not wait for what is in flight. It is rolled back, and resumed.
            self.crew.hurry();
        }
        self.step(Event::Command(command)).await
    }

    async fn reading(&mut self, reading: Reading) -> Result<(), Held> {
        match reading {
            Reading::Backlog(entries) => self.step(Event::Backlog { entries }).await,
            Reading::Signals(readings) => self.step(Event::Signals(readings)).await,
            Reading::Requested(order) => {
                self.drive.ears.note(&order.command);
                self.step(Event::Command(order.command)).await?;
                // The window may have been waited for until now.
                let gates = self.drive.ears.diary.gates();
                self.step(Event::Gates(gates)).await
            }
        }
    }

    async fn tick(&mut self) -> Result<(), Held> {
        self.look_at_deadlines()?;
        if self.crew.is_control_free()
            && self.ordered_at.elapsed() >= BEAT_EVERY
            && let Some(saved) = &self.drive.saved
        {
            self.ordered_at = Instant::now();
            self.crew.order(Order::Beat(Box::new(saved.clone()))).map_err(internal)?;
        }
        let phase = self.machine.progress(self.drive.reporter.at_ms()).phase;
        if let Some(command) = self.drive.ears.diary.due(phase) {
            self.drive.ears.diary.tell_due(&self.drive.reporter, &command);
            self.drive.ears.note(&command);
            self.step(Event::Command(command)).await?;
        }
        self.step(Event::Tick).await?;
        self.drive.watch.tick(&self.machine, &self.spec);
        Ok(())
    }

    fn look_at_deadlines(&mut self) -> Result<(), Held> {
        match self.crew.look_at_deadlines() {
            Overdue::No => Ok(()),
            Overdue::Cancelled(step) => {
                self.drive.overruns = self.drive.overruns.saturating_add(1);
                self.drive.watch.retrying(step.doing(), "it passed its deadline and is cancelled");
                Ok(())
            }
            Overdue::Lost(why) => {
                let error =
                    DbError::new(ErrorKind::ConnectionLost, "waiting for an answer", self.table());
                Err(lost(error.help(why), self.crew.is_swapping()))
            }
        }
    }

    fn table(&self) -> String {
        table_of(&self.spec)
    }

    async fn step(&mut self, event: Event) -> Result<(), Held> {
        let now_ms = self.drive.reporter.at_ms();
        let attempts = self.machine.progress(now_ms).counters.swap_attempts;
        self.drive.watch.event(&event, attempts);
        if matches!(event, Event::Swapped { .. }) {
            self.drive.compare();
        }
        for action in self.machine.step(now_ms, event) {
            self.begin(action).await?;
        }
        if self.has_begun {
            let progress = self.machine.progress(now_ms);
            self.drive.watch.look(&progress);
        }
        Ok(())
    }

    fn fenced(&self, error: &DbError) -> Held {
        Held::Failed(EngineError::Fenced { table: self.table(), why: error.to_string() })
    }

    async fn answer(&mut self, answer: Answer) -> Result<(), Held> {
        self.crew.answered(answer.who).map_err(internal)?;
        match answer.result {
            Ok(Reply::Event(event)) => {
                if has_moved(&event) {
                    self.drive.moved();
                }
                self.step(event).await
            }
            Ok(Reply::Checked(work)) => self.work(work),
            Ok(Reply::Ordered) => Ok(()),
            Err(error) if answer.step == Step::Beat => self.control_failed(Step::Beat, error),
            Err(error) => self.failed(answer.step, error).await,
        }
    }

    async fn failed(&mut self, step: Step, error: DbError) -> Result<(), Held> {
        if error.kind == ErrorKind::Cancelled && self.drive.overruns >= OVERRUNS_MAX {
            let error = error.help(format!(
                "{OVERRUNS_MAX} steps in a row passed their deadline: something holds the server up; \
                 look at its process list"
            ));
            return self.step(failed(step, FailureKind::Other, &error)).await;
        }
        match meaning_of(step, &error) {
            Meaning::Event(event) => self.step(event).await,
            // Its own task has tried it as often as is sensible.
            Meaning::Again => self.step(failed(step, FailureKind::Other, &error)).await,
            Meaning::Lost => Err(lost(error, step == Step::TrySwap)),
            Meaning::Fenced => Err(self.fenced(&error)),
        }
    }
}

/// The run is to be entered again. A statement that we cancelled counts as a lost one where what it
/// left behind must be looked up.
fn lost(error: DbError, swap_in_flight: bool) -> Held {
    let kind = if error.is_ambiguous() { error.kind } else { ErrorKind::ConnectionLost };
    Held::Lost { why: DbError { kind, ..error }, swap_in_flight }
}

fn internal(fault: String) -> Held {
    Held::Failed(EngineError::Internal(fault))
}

/// Whether the event shows that the run gets on, so that losses before it are forgiven.
fn has_moved(event: &Event) -> bool {
    match event {
        Event::Prepared
        | Event::ChunkCopied { .. }
        | Event::Settled { .. }
        | Event::IndexesBuilt
        | Event::RangeVerified { .. }
        | Event::Repaired { .. }
        | Event::Tidied
        | Event::Swapped { .. }
        | Event::Arrived
        | Event::Finished => true,
        Event::Applied(applied) => applied.entries > 0,
        _ => false,
    }
}
