//! The machine: takes events, decides actions, does nothing itself.
//!
//! `step` first takes the event in (`absorb`), then decides what follows from the state alone
//! (`decide`). It is total: every state and event pair has an answer, and an event that cannot be is
//! answered by stopping safely. No clock, no dice, no I/O: time comes in as milliseconds.
//!
//! The rule that makes the proof short: copying and applying alternate and never overlap. It lives in
//! `busy` (one exclusive action) and `round` (chunks in flight): nothing exclusive begins while a
//! chunk is in flight, and no chunk begins while something exclusive runs.
//!
//! Two flows share the phases. By key ranges the log is applied between rounds. By blocks it is kept
//! until the copy is done; then `Settle`, all indexes, and application (`crate::plan::Flow`).

mod copy;
mod event;
mod holds;
mod orders;
mod over;
mod recover;
mod round;
mod settings;
mod swap;
mod tidy;
mod verify;

pub use event::{Action, Applied, Command, Ending, Event, Failure, FailureKind};
pub use recover::{DoneChunk, Observed, SwapState};
pub use settings::Settings;

use crate::checkpoint::{Checkpoint, Counters, Phase};
use crate::chunk::ChunkSizer;
use crate::eta::{Estimate, Eta};
use crate::key::Frontier;
use crate::proof::Proof;
use crate::signal::{Gates, Limit, Reading};
use crate::throttle::{Pause, Throttle};
use crate::way::Way;
use holds::Deed;
use round::RoundState;
use tidy::Tidying;

/// The exclusive action in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Busy {
    Preparing,
    Planning,
    Redoing(u32),
    Applying,
    Settling,
    Indexing,
    Repairing(u32),
    Rechecking(u32),
    Swapping,
    Arriving,
    Finishing,
    Aborting,
}

/// Why nothing new is begun.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stopping {
    Interrupt,
    Abort,
    Aborted,
    Fail(Failure),
}

/// Bounded tries for a lock on the live table.
#[derive(Debug, Clone, Default)]
struct LockTries {
    since_ms: Option<u64>,
    tries: u32,
    next_ms: u64,
}

/// What a user sees of a run.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Where the run is.
    pub phase: Phase,
    /// What was counted.
    pub counters: Counters,
    /// Rows copied, chunks of the running round included.
    pub rows_copied: u64,
    /// Log entries waiting, at the last reading.
    pub backlog: u64,
    /// Rows a second of late.
    pub rows_per_s: Option<u64>,
    /// Milliseconds the last chunk took.
    pub chunk_ms: u64,
    /// Worst lag of a replica at the last reading, 0 without replicas; `None` where one cannot be read.
    pub lag_ms: Option<u64>,
    /// Why the run waits, and since when; `None` where it does not.
    pub pause: Option<Pause>,
    /// The reason of `pause` alone.
    pub waiting: Option<String>,
    /// Chunks that may be copied side by side just now.
    pub workers: u32,
    /// Rows of a chunk of late.
    pub chunk_rows: u64,
    /// The limits as they are just now.
    pub limits: Vec<Limit>,
}

/// The state of a run in this program. See the module's head.
#[derive(Debug, Clone)]
pub struct Machine {
    settings: Settings,
    /// Workers that the run began with.
    workers_max: u32,
    phase: Phase,
    frontier: Frontier,
    verified: Frontier,
    /// See [`Checkpoint::sampled`].
    sampled: bool,
    /// Ranges that a sample has compared in this program.
    sample_ranges: u64,
    proven: Option<Proof>,
    round: Option<RoundState>,
    round_next: u64,
    busy: Option<Busy>,
    tidying: Tidying,
    tidy_tries: u32,
    stopping: Option<Stopping>,
    /// Which way the run goes.
    way: Way,
    /// The way of the last swap that was made.
    stands: Option<Way>,
    /// Orders from before the last turn.
    orders_before: usize,
    /// An abort has begun, in this program or in one before it; there is no way back from it.
    aborting: bool,
    /// `Started` has come: before it the machine is only told what it must know.
    started: bool,
    stopped: bool,
    /// A person has paused the run, at this time.
    paused_since_ms: Option<u64>,
    /// A person has let the swap go.
    swap_asked: bool,
    /// Why the run is aborted although nobody asked for it.
    abort_why: Option<String>,
    /// Why the run waited after the last step.
    pause: Option<Pause>,
    /// Whether that was said of something that goes on to its end all the same.
    was_at_work: bool,
    /// The time of the last step.
    looked_at_ms: u64,
    /// The source was emptied: begin again as soon as nothing is in flight.
    start_over: bool,
    /// How often this program began again.
    started_over: u32,
    /// The state has moved on since the last `Save`, in a way that must be durable before we go on.
    unsaved: bool,
    throttle: Throttle,
    gates: Gates,
    sizer: ChunkSizer,
    /// Rows of a chunk of the last round that was planned.
    chunk_rows: u64,
    verify_sizer: ChunkSizer,
    eta: Eta,
    backlog: u64,
    /// Rows that the next application writes at most.
    apply_keys: u64,
    /// What the last application left, where that was more than one takes.
    left_before: Option<u64>,
    applied_at_ms: u64,
    apply_retries: u32,
    /// Nothing is begun before this time: a short rest after a roll-back.
    rest_until_ms: u64,
    /// The log was seen near empty since the copy ended.
    caught_up: bool,
    /// The last application left the shadow's rows as part of one consistent state, so that unique
    /// indexes can be built on them.
    settled: bool,
    /// Verification: entries still to consume before a repaired range may be looked at again.
    consume_before_recheck: Option<u64>,
    lock: LockTries,
    lock_why: String,
    stall_ms: Option<u64>,
    chunk_ms: u64,
    counters: Counters,
}

/// Tries of one batch or chunk that a deadlock or lock time-out rolled back. Beyond it the run stops.
const ROLLED_BACK_MAX: u32 = 50;

impl Machine {
    /// Takes one event and decides what to do next. Total; never panics.
    pub fn step(&mut self, now_ms: u64, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.stopped {
            return actions;
        }
        self.absorb(now_ms, event);
        self.decide(now_ms, &mut actions);
        self.note_pause(now_ms);
        actions
    }

    /// What a user sees.
    pub fn progress(&self, now_ms: u64) -> Progress {
        let in_round: u64 = match (&self.round, self.phase) {
            (Some(round), Phase::Copy) => round.rows_done(),
            _ => 0,
        };
        let pause = self.pause(now_ms);
        Progress {
            phase: self.phase,
            counters: self.counters.clone(),
            rows_copied: self.counters.rows_copied + in_round,
            backlog: self.backlog,
            rows_per_s: self.eta.rows_per_s(),
            chunk_ms: self.chunk_ms,
            lag_ms: self.throttle.worst_lag_ms(),
            waiting: pause.as_ref().map(|pause| pause.reason.clone()),
            pause,
            workers: self.workers(),
            chunk_rows: self.chunk_rows,
            limits: self.throttle.limits(),
        }
    }

    /// The time that copying `rows_left` more rows takes; `None` while nothing is known.
    pub fn time_left(&self, now_ms: u64, rows_left: u64) -> Option<Estimate> {
        self.eta.left(now_ms, rows_left)
    }

    /// Limits and targets as they are just now.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether nothing is in flight.
    pub fn is_quiet(&self) -> bool {
        self.busy.is_none()
            && !self.tidying.is_in_flight()
            && self.round.as_ref().is_none_or(RoundState::is_quiet)
    }

    fn absorb(&mut self, now_ms: u64, event: Event) {
        match event {
            Event::Started => self.started = true,
            Event::Tick => {}
            Event::Signals(readings) => self.read(now_ms, readings),
            Event::Gates(gates) => self.gates = gates,
            Event::Backlog { entries } => self.backlog = entries,
            Event::Command(command) => self.command(now_ms, command),
            Event::Failed(failure) => {
                if self.busy.take() == Some(Busy::Aborting) {
                    self.stopping = None;
                }
                self.fail(failure);
            }
            Event::ChunkFailed { index, failure } => {
                self.leave_flight(now_ms, index, 0);
                self.fail(failure);
            }
            Event::Prepared => self.prepared(),
            Event::RoundPlanned { chunks, last } => self.round_planned(chunks, last),
            Event::ChunkCopied { index, rows, took_ms, applied } => {
                self.chunk_copied(now_ms, index, rows, took_ms, applied);
            }
            Event::ChunkClashed { index } => self.chunk_clashed(now_ms, index),
            Event::ChunkRolledBack { index, why } => {
                self.chunk_rolled_back(now_ms, index, &why);
            }
            Event::Applied(applied) => {
                self.expect_busy(Busy::Applying);
                self.count_applied(now_ms, &applied);
            }
            Event::ApplyRolledBack { why } => self.apply_rolled_back(now_ms, &why),
            Event::Settled { rows } => {
                self.expect_busy(Busy::Settling);
                self.counters.rows_settled += rows;
                self.enter(Phase::Indexes);
            }
            Event::IndexesBuilt => {
                self.expect_busy(Busy::Indexing);
                self.enter(Phase::CatchUp);
            }
            Event::RangeVerified { index, rows, differences, samples, took_ms } => {
                self.sized_by_range(rows, took_ms);
                self.range_verified(now_ms, index, rows, differences, &samples);
            }
            Event::Tidied => self.tidied(),
            Event::TidyFailed(failure) => self.tidy_failed(now_ms, failure),
            Event::Repaired { keys, backlog } => self.repaired(keys, backlog),
            Event::Swapped { stall_ms, drained } => self.swapped(stall_ms, drained),
            Event::LockNotHad { why } => self.lock_not_had(now_ms, why),
            Event::DrainTooSlow { drained } => self.drain_too_slow(now_ms, drained),
            Event::Arrived => self.arrived(),
            Event::Finished => self.finished(),
        }
    }

    fn decide(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        if self.busy.is_some() || !self.started {
            if self.stopping.is_some() || self.start_over || self.paused_since_ms.is_some() {
                // With one worker what is under way may wait in line behind it.
                self.cancel_tidying(actions);
            }
            return;
        }
        self.abort_if_critical(now_ms);
        if self.stopping.is_some() {
            self.decide_stop(now_ms, actions);
            return;
        }
        if self.start_over && !self.begin_again() {
            self.cancel_tidying(actions);
            return;
        }
        if self.paused_since_ms.is_some() {
            self.cancel_tidying(actions);
        }
        if now_ms < self.rest_until_ms {
            return;
        }
        match self.phase {
            Phase::Prepare => {
                if now_ms >= self.lock.next_ms && self.held(now_ms, Deed::Heavy).is_none() {
                    self.save_if_needed(actions);
                    self.begin(Busy::Preparing, Action::Prepare, actions);
                }
            }
            Phase::Copy => self.decide_copy(now_ms, actions),
            Phase::Settle => self.decide_settle(now_ms, actions),
            Phase::Indexes => self.decide_indexes(now_ms, actions),
            Phase::CatchUp => self.decide_catch_up(now_ms, actions),
            Phase::Verify => self.decide_verify(now_ms, actions),
            Phase::Swap => self.decide_swap(now_ms, actions),
            Phase::Arrive => {
                if now_ms >= self.lock.next_ms && self.held(now_ms, Deed::Finish).is_none() {
                    self.save_if_needed(actions);
                    self.begin(Busy::Arriving, Action::Arrive, actions);
                }
            }
            Phase::Revertible => self.stop(self.revertible(), actions),
            Phase::Finish => {
                if now_ms >= self.lock.next_ms && self.held(now_ms, Deed::Finish).is_none() {
                    self.save_if_needed(actions);
                    self.begin(Busy::Finishing, Action::Finish, actions);
                }
            }
            Phase::Done => self.stop(self.done(), actions),
        }
    }

    fn read(&mut self, now_ms: u64, readings: Vec<Reading>) {
        let lags = readings.iter().filter_map(Reading::lag_ms);
        self.counters.lag_ms_worst = lags.fold(self.counters.lag_ms_worst, |worst, lag_ms| {
            Some(worst.map_or(lag_ms, |worst| std::cmp::max(worst, lag_ms)))
        });
        self.throttle.read(now_ms, readings);
    }

    /// Chunks and ranges that may run side by side just now.
    fn workers(&self) -> u32 {
        std::cmp::min(self.throttle.workers(), self.settings.workers).clamp(1, self.workers_max)
    }

    fn prepared(&mut self) {
        self.expect_busy(Busy::Preparing);
        self.lock = LockTries::default();
        self.enter(Phase::Copy);
    }

    /// Nothing new begins; chunks in flight may still report.
    ///
    /// A run that is to be aborted is aborted all the same: otherwise one whose every step fails could
    /// never be removed. Only where the server's state is unclear is nothing removed.
    fn fail(&mut self, failure: Failure) {
        if failure.kind == FailureKind::Truncated && self.may_begin_again() {
            self.start_over = true;
            return;
        }
        let yields = match &self.stopping {
            None | Some(Stopping::Interrupt) => true,
            Some(Stopping::Abort) => failure.kind == FailureKind::Ambiguous,
            Some(Stopping::Fail(_) | Stopping::Aborted) => false,
        };
        if yields {
            self.stopping = Some(Stopping::Fail(failure));
        }
    }

    /// Whether a person must look before anything more is done to the server.
    fn is_ambiguous(&self) -> bool {
        matches!(&self.stopping, Some(Stopping::Fail(why)) if why.kind == FailureKind::Ambiguous)
    }

    fn unexpected(&mut self, what: &str) {
        let message = format!(
            "internal fault: event {what} does not fit phase {} (busy: {:?}); the source is untouched",
            self.phase.name(),
            self.busy
        );
        self.fail(Failure { kind: FailureKind::Other, message });
    }

    fn expect_busy(&mut self, expected: Busy) {
        if self.busy.take() != Some(expected) {
            self.unexpected(&format!("{expected:?} ended"));
        }
    }

    /// Whether the swap of the way that the run goes is made.
    fn has_swapped(&self) -> bool {
        self.phase >= Phase::Arrive
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.unsaved = true;
    }

    fn begin(&mut self, busy: Busy, action: Action, actions: &mut Vec<Action>) {
        self.busy = Some(busy);
        actions.push(action);
    }

    fn save_if_needed(&mut self, actions: &mut Vec<Action>) {
        if std::mem::take(&mut self.unsaved) {
            actions.push(Action::Save(Box::new(self.checkpoint())));
        }
    }

    /// The durable part of the state.
    fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            phase: self.phase,
            frontier: self.frontier.clone(),
            round: match self.phase {
                Phase::Copy => self.round.as_ref().map(|round| round.plan().clone()),
                _ => None,
            },
            round_next: self.round_next,
            verified: self.verified.clone(),
            sampled: self.sampled,
            proven: self.proven,
            aborting: self.aborting,
            abort_why: self.abort_why.clone(),
            way: self.way,
            stands: self.stands,
            orders_before: self.orders_before,
            counters: self.counters.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
