//! The way of a run through its holds: enter, hold, and where a connection or an answer was lost, enter
//! again. A crash, a lost connection and a lost answer are one and the same here.
//!
//! Owns the order of holds and how the run ends for the caller. What happens while the run is held is
//! `hold`'s; when to give up is in `losses`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use underpin_core::checkpoint::{Checkpoint, Phase};
use underpin_core::machine::{Command, Ending};
use underpin_core::way::Way;
use underpin_dialect::{Database, DbError, ErrorKind, Origin, Store};

use crate::calendar::Diary;
use crate::ears::Ears;
use crate::enter::{Entry, Goal, enter, fingerprint, table_of};
use crate::error::{EngineError, EngineResult};
use crate::history::Record;
use crate::hold::{Held, hold};
use crate::losses::Losses;
use crate::options::RunOptions;
use crate::orders::DONE;
use crate::own_signals::Watcher;
use crate::probe;
use crate::report::{Report, StoppedAs};
use crate::reporter::Reporter;
use crate::run::Outcome;
use crate::sample::{Comparing, sample, watch_after};
use crate::watch::Watch;

/// A hold that lasted this long was a good one: the next loss begins a new count.
const GOOD_HOLD: Duration = Duration::from_secs(60);

/// What the comparison of statements may take beyond the time that it watches, and to be written.
const COMPARE_WAIT: Duration = Duration::from_secs(30);

/// What entering may take beyond the deadline of what an earlier hold may still have in flight.
const ENTER_WAIT: Duration = Duration::from_secs(60);

/// A run under way in this program.
pub(crate) struct Drive<D: Database> {
    pub(crate) db: Arc<D>,
    pub(crate) options: RunOptions,
    pub(crate) reporter: Reporter,
    pub(crate) ears: Ears,
    pub(crate) watch: Watch,
    /// The newest checkpoint that is known to be durable.
    pub(crate) saved: Option<Checkpoint>,
    /// An end that was reached and whose closing got no answer.
    pub(crate) closing: Option<Ending>,
    /// Steps in a row that passed their deadline.
    pub(crate) overruns: u32,
    /// Who began the run, why, and what was seen before it.
    origin: Origin,
    /// The comparison of statements after the swap, once it is under way.
    comparing: Option<Comparing>,
    /// What was remembered of the run when it was closed.
    pub(crate) record: Record,
    goal: Goal,
    /// Which way the run was to go when it was entered first.
    aim: Option<Way>,
    losses: Losses,
    /// The user's own signals, until the probe has them.
    own: Option<Watcher>,
    probes: Option<[JoinHandle<()>; 2]>,
}

enum Entered<C> {
    In(Box<Entry<C>>),
    /// The run is not open any more.
    Gone,
    /// Asked to stop before the database was reached.
    Stopped,
}

impl<D: Database> Drive<D> {
    pub(crate) fn new(
        db: Arc<D>,
        options: RunOptions,
        commands: mpsc::Receiver<Command>,
        reporter: Reporter,
        (diary, own): (Diary, Watcher),
        goal: Goal,
    ) -> Self {
        let origin = options.origin.clone();
        let watch = Watch::new(reporter.clone(), options.progress_every_ms, &origin);
        let ears = Ears::new(commands, diary, reporter.clone(), &origin.options);
        Self {
            db,
            options,
            reporter,
            ears,
            watch,
            saved: None,
            closing: None,
            overruns: 0,
            origin,
            comparing: None,
            record: Record::default(),
            goal,
            aim: None,
            losses: Losses::default(),
            own: Some(own),
            probes: None,
        }
    }

    /// Works until the run or the work of this program on it has ended.
    pub(crate) async fn finish(mut self) -> EngineResult<Outcome> {
        let result = self.drive().await;
        for probe in self.probes.take().into_iter().flatten() {
            // They only read: nothing is left half done.
            probe.abort();
        }
        if let Some(comparing) = self.comparing.take() {
            comparing.abort();
        }
        result
    }

    async fn drive(&mut self) -> EngineResult<Outcome> {
        let mut is_first = true;
        if self.options.compare_after_ms > 0
            && let Goal::New(spec) = &self.goal
        {
            let (schema, table) = (spec.schema.clone(), spec.table.clone());
            self.origin.before = sample(&*self.db, &schema, &table).await;
        }
        loop {
            let entry = match self.enter_patiently(is_first).await? {
                Entered::In(entry) => *entry,
                Entered::Stopped => return Ok(self.interrupted()),
                Entered::Gone => {
                    let Some(ending) = self.closing.take() else { return Err(self.closed()) };
                    return self.outcome(ending).await;
                }
            };
            self.entered(is_first, &entry);
            is_first = false;
            match hold(self, entry).await {
                Held::Ended(ending) => return self.outcome(*ending).await,
                Held::Failed(error) => return Err(error),
                Held::Lost { .. } if self.ears.wanted.is_stop() => {
                    return Ok(self.interrupted());
                }
                Held::Lost { .. } => {}
            }
        }
    }

    /// Something of the run has moved: later losses and overruns are counted anew.
    pub(crate) fn moved(&mut self) {
        self.losses = Losses::default();
        self.overruns = 0;
    }

    /// Counts and tells the loss of a run that was held since `begun`.
    ///
    /// # Errors
    /// The time for losses is over.
    pub(crate) fn lost(
        &mut self,
        begun: Instant,
        why: &DbError,
        swap_in_flight: bool,
    ) -> EngineResult<()> {
        if begun.elapsed() >= GOOD_HOLD {
            self.moved();
        }
        self.losses.swap_in_flight = swap_in_flight;
        self.count_loss(&EngineError::Db(why.clone()), false)
    }

    fn entered(&mut self, is_first: bool, entry: &Entry<D::Control>) {
        let spec = Arc::clone(&entry.spec);
        self.goal = Goal::Known(Arc::clone(&spec));
        self.aim.get_or_insert(entry.checkpoint.way);
        self.saved = Some(entry.checkpoint.clone());
        self.losses.entered();
        if self.probes.is_none() {
            let queries = self.options.own_queries.clone();
            let own = (queries, self.own.take().unwrap_or_default());
            let (readings, probes) = probe::start(&self.db, &spec, own, self.watch.live());
            self.ears.open_to_probe(readings);
            self.probes = Some(probes);
        }
        if is_first {
            self.watch.go_on_from(&entry.past.live);
            self.origin = entry.past.origin.clone();
        }
        let (run_id, table) = (spec.run_id.clone(), table_of(&spec));
        if entry.is_new {
            let origin = self.options.origin.clone();
            self.reporter.tell(|at_ms| Report::RunStarted {
                at_ms,
                run_id,
                table,
                statement: spec.statement.clone(),
                by: origin.by,
                reason: origin.reason,
                ticket: origin.ticket,
                approved_by: origin.approved_by,
                options: origin.options,
            });
        } else if is_first {
            let phase = entry.checkpoint.phase.name().to_owned();
            // Chunks of the round under way are not in the checkpoint's counters.
            let in_round: u64 = entry.observed.done.iter().map(|chunk| chunk.rows).sum();
            let rows_copied = entry.checkpoint.counters.rows_copied.saturating_add(in_round);
            self.reporter.tell(|at_ms| Report::RunResumed {
                at_ms,
                run_id,
                table,
                phase,
                rows_copied,
            });
        }
        self.ears.recall(&entry.past.orders);
        if entry.checkpoint.phase >= Phase::Arrive {
            self.compare();
        }
    }

    /// Begins to watch what the table's statements cost after the swap, if they are to be compared.
    pub(crate) fn compare(&mut self) {
        let (Some(before), None) = (&self.origin.before, &self.comparing) else { return };
        let after = Duration::from_millis(self.options.compare_after_ms);
        if !after.is_zero() {
            let (before, spec) = (before.clone(), self.goal.spec());
            let comparing = watch_after(&self.db, &spec.schema, &spec.table, before, after);
            self.comparing = Some(comparing);
        }
    }

    /// Waits for the comparison, tells of it and remembers it. Whoever asks to stop does not wait: the
    /// change is made. `is_closed`: the run has ended; one that rests must stay open.
    async fn compared(&mut self, is_closed: bool) {
        let Some(mut comparing) = self.comparing.take() else { return };
        let limit = Instant::now()
            + Duration::from_millis(self.options.compare_after_ms).saturating_add(COMPARE_WAIT);
        let comparison = loop {
            tokio::select! {
                joined = &mut comparing => break joined.ok().flatten(),
                () = sleep_until(limit) => break None,
                () = self.ears.note_next() => if self.ears.wanted.is_stop() { break None },
            }
        };
        let Some(comparison) = comparison else {
            comparing.abort();
            return;
        };
        let (after_ms, told) = (self.options.compare_after_ms, comparison.clone());
        self.reporter.tell(|at_ms| Report::Statements { at_ms, after_ms, comparison: told });
        self.record.statements = Some(comparison);
        if !is_closed {
            return;
        }
        // Written again; a failure costs only this part of the history.
        let (db, mut record) = (Arc::clone(&self.db), self.record.clone());
        let spec = Arc::clone(self.goal.spec());
        let written = timeout(COMPARE_WAIT, async move {
            let mut control = db.control().await?;
            record.fingerprint = fingerprint(&mut control, &spec).await?;
            control.close_run(&spec.run_id, DONE, &record.write()).await
        });
        if let Ok(Err(error)) = written.await {
            tracing::debug!(%error, "the comparison of statements is not in the history");
        }
    }

    async fn enter_patiently(&mut self, is_first: bool) -> EngineResult<Entered<D::Control>> {
        // Bounded by `losses`: it ends the tries after a time.
        loop {
            if !self.rest().await {
                return Ok(Entered::Stopped);
            }
            match self.try_enter().await {
                Ok(entered) => return Ok(entered),
                Err(error) => self.count_loss(&error, is_first)?,
            }
        }
    }

    /// One try to enter, in a task of its own, so that a stop is heard meanwhile. A task that is given
    /// up is like a crash of ours: the next one to enter makes void what it left.
    async fn try_enter(&mut self) -> EngineResult<Entered<D::Control>> {
        let (db, goal) = (Arc::clone(&self.db), self.goal.clone());
        let origin = self.origin.clone();
        let mut task = tokio::spawn(async move { enter(&*db, &goal, &origin).await });
        let limit = Duration::from_millis(self.options.job_deadline_ms).saturating_add(ENTER_WAIT);
        let limit = Instant::now() + limit;
        loop {
            tokio::select! {
                joined = &mut task => return match joined {
                    Ok(Ok(Some(entry))) => Ok(Entered::In(Box::new(entry))),
                    Ok(Ok(None)) => Ok(Entered::Gone),
                    Ok(Err(error)) => Err(error),
                    Err(fault) => Err(EngineError::Internal(fault.to_string())),
                },
                () = self.ears.note_next() => if self.ears.wanted.is_stop() {
                    task.abort();
                    return Ok(Entered::Stopped);
                },
                () = sleep_until(limit) => {
                    task.abort();
                    let table = table_of(self.goal.spec());
                    return Err(DbError::new(ErrorKind::ConnectionLost, "taking the run over", table)
                        .help("What an earlier hold had in flight did not end in time")
                        .into());
                }
            }
        }
    }

    fn count_loss(&mut self, error: &EngineError, is_first: bool) -> EngineResult<()> {
        let table = table_of(self.goal.spec());
        let attempt = self.losses.count(error, is_first, &self.options, &table)?;
        let why = error.to_string();
        self.reporter.tell(|at_ms| Report::Reconnecting { at_ms, why, attempt });
        Ok(())
    }

    /// Rests before the next try; false where a stop was asked for.
    async fn rest(&mut self) -> bool {
        let until = Instant::now() + self.losses.rest();
        while !self.ears.wanted.is_stop() {
            tokio::select! {
                () = self.ears.note_next() => {}
                () = sleep_until(until) => return true,
            }
        }
        false
    }

    fn closed(&self) -> EngineError {
        let spec = self.goal.spec();
        EngineError::Closed { table: table_of(spec), run_id: spec.run_id.clone() }
    }

    async fn outcome(&mut self, ending: Ending) -> EngineResult<Outcome> {
        let spec = Arc::clone(self.goal.spec());
        match unless_left(self.aim, ending) {
            Ending::Done { counters, stall_ms } => {
                self.compared(true).await;
                let keep = self.options.keep_retired;
                let saved = self.saved.as_ref();
                let summary = self.watch.summary(&spec, &counters, stall_ms, saved, keep);
                let told = summary.clone();
                self.reporter.tell(|at_ms| Report::Done { at_ms, summary: told });
                Ok(Outcome::Done(Box::new(summary)))
            }
            Ending::Revertible { stands, counters, stall_ms } => {
                self.compared(false).await;
                let saved = self.saved.as_ref();
                let summary = self.watch.summary(&spec, &counters, stall_ms, saved, true);
                let told = summary.clone();
                self.reporter.tell(|at_ms| Report::Revertible { at_ms, stands, summary: told });
                Ok(Outcome::Revertible { stands, summary: Box::new(summary) })
            }
            Ending::Stayed { stands, why } => {
                let why = why.unwrap_or_default();
                self.watch.stopped(StoppedAs::Stayed, &spec.run_id, &why);
                Ok(Outcome::Stayed { stands, why })
            }
            Ending::Interrupted => Ok(self.interrupted()),
            Ending::Aborted { why } => {
                let why = why.unwrap_or_default();
                self.watch.stopped(StoppedAs::Aborted, &spec.run_id, &why);
                Ok(Outcome::Aborted { why })
            }
            Ending::Failed(failure) => {
                let swapped = self.saved.as_ref().is_some_and(|saved| saved.phase >= Phase::Arrive);
                Err(EngineError::Failed { failure, swapped, table: table_of(&spec) })
            }
        }
    }

    fn interrupted(&self) -> Outcome {
        self.watch.stopped(StoppedAs::Interrupted, &self.goal.spec().run_id, "");
        Outcome::Interrupted
    }
}

/// A run that is found at rest with the other table was left by somebody while this program was away: the
/// turn was not made.
fn unless_left(aim: Option<Way>, ending: Ending) -> Ending {
    match ending {
        Ending::Revertible { stands, .. } if aim.is_some_and(|aim| aim != stands) => {
            Ending::Stayed { stands, why: None }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_that_somebody_left_is_not_called_made() {
        let rests = |stands| Ending::Revertible {
            stands,
            counters: underpin_core::checkpoint::Counters::default(),
            stall_ms: None,
        };
        for way in [Way::Forward, Way::Back] {
            assert_eq!(unless_left(Some(way), rests(way)), rests(way));
        }
        let left = unless_left(Some(Way::Back), rests(Way::Forward));
        assert!(matches!(left, Ending::Stayed { stands: Way::Forward, why: None }), "{left:?}");
    }
}
