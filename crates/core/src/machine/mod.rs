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
mod over;
mod recover;
mod round;
mod swap;
mod tidy;
mod verify;

pub use event::{Action, Applied, Command, Ending, Event, Failure, FailureKind};
pub use recover::{DoneChunk, Observed, SwapState};

use crate::checkpoint::{Checkpoint, Counters, Phase};
use crate::chunk::ChunkSizer;
use crate::eta::Eta;
use crate::key::Frontier;
use crate::plan::Flow;
use crate::throttle::Throttle;
use round::RoundState;
use tidy::Tidying;

/// Limits and targets of a run. All of them have defaults that suit most tables.
#[derive(Debug, Clone)]
pub struct Settings {
    /// In which order the run goes through its phases.
    pub flow: Flow,
    /// Chunks copied side by side.
    pub workers: u32,
    /// How long a chunk should take, in milliseconds.
    pub chunk_ms_target: u64,
    /// Rows of the first chunks.
    pub chunk_rows_start: u64,
    /// Rows of a chunk at least.
    pub chunk_rows_min: u64,
    /// Rows of a chunk at most.
    pub chunk_rows_max: u64,
    /// Chunks of a round for each worker.
    pub round_chunks_per_worker: u32,
    /// Log entries from which the log is applied between rounds.
    pub apply_entries_high: u64,
    /// Age from which even a short log is applied, in milliseconds.
    pub apply_age_ms: u64,
    /// Rows that one application writes at most.
    pub apply_keys_max: u64,
    /// Log entries below which the log counts as near empty.
    pub near_empty_entries: u64,
    /// Whether some indexes are left out of the copy and built after it; by blocks all of them are.
    pub deferred_indexes: bool,
    /// Whether source and shadow are compared before the swap.
    pub verify: bool,
    /// Rows of a range to verify at most.
    pub verify_rows_max: u64,
    /// Lag of a replica above which the copy pauses, in milliseconds.
    pub lag_ms_max: u64,
    /// Whether replicas are known, so that the absence of a reading is a reason to wait.
    pub replicas_known: bool,
    /// Longest time under the swap's lock, in milliseconds.
    pub swap_budget_ms: u64,
    /// Longest time to go on trying for a lock, in milliseconds.
    pub lock_patience_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            flow: Flow::KeyRanges,
            workers: 4,
            chunk_ms_target: 400,
            chunk_rows_start: 2000,
            chunk_rows_min: 50,
            chunk_rows_max: 100_000,
            round_chunks_per_worker: 4,
            apply_entries_high: 5000,
            apply_age_ms: 10_000,
            apply_keys_max: 5000,
            near_empty_entries: 200,
            deferred_indexes: false,
            verify: true,
            verify_rows_max: 100_000,
            lag_ms_max: 2000,
            replicas_known: false,
            swap_budget_ms: 300,
            lock_patience_ms: 30 * 60 * 1000,
        }
    }
}

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
    /// Worst lag of a replica at the last reading.
    pub lag_ms: Option<u64>,
    /// Why the run waits; `None` where it does not.
    pub waiting: Option<String>,
}

/// The state of a run in this program. See the module's head.
#[derive(Debug, Clone)]
pub struct Machine {
    settings: Settings,
    phase: Phase,
    frontier: Frontier,
    verified: Frontier,
    round: Option<RoundState>,
    round_next: u64,
    busy: Option<Busy>,
    tidying: Tidying,
    tidy_tries: u32,
    stopping: Option<Stopping>,
    /// An abort has begun, in this program or in one before it; there is no way back from it.
    aborting: bool,
    stopped: bool,
    paused: bool,
    /// The source was emptied: begin again as soon as nothing is in flight.
    start_over: bool,
    /// How often this program began again.
    started_over: u32,
    /// The state has moved on since the last `Save`, in a way that must be durable before we go on.
    unsaved: bool,
    throttle: Throttle,
    sizer: ChunkSizer,
    verify_sizer: ChunkSizer,
    eta: Eta,
    backlog: u64,
    applied_at_ms: u64,
    apply_retries: u32,
    /// Nothing is begun before this time: a short rest after a roll-back.
    rest_until_ms: u64,
    /// The log was seen near empty since the copy ended.
    caught_up: bool,
    /// The log was applied since the copy ended: the shadow's rows are part of one consistent state, so
    /// that unique indexes can be built on them.
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
        actions
    }

    /// What a user sees.
    pub fn progress(&self, now_ms: u64) -> Progress {
        let in_round: u64 = match (&self.round, self.phase) {
            (Some(round), Phase::Copy) => round.rows_done(),
            _ => 0,
        };
        Progress {
            phase: self.phase,
            counters: self.counters.clone(),
            rows_copied: self.counters.rows_copied + in_round,
            backlog: self.backlog,
            rows_per_s: self.eta.rows_per_s(),
            chunk_ms: self.chunk_ms,
            lag_ms: self.throttle.worst_lag_ms(),
            waiting: self.waiting(now_ms),
        }
    }

    /// Whether nothing is in flight.
    pub fn is_quiet(&self) -> bool {
        self.busy.is_none()
            && !self.tidying.is_in_flight()
            && self.round.as_ref().is_none_or(RoundState::is_quiet)
    }

    fn waiting(&self, now_ms: u64) -> Option<String> {
        if self.paused {
            return Some("paused on request".to_owned());
        }
        if self.lock.since_ms.is_some() {
            return Some(format!("waiting for the table's lock: {}", self.lock_why));
        }
        match self.phase {
            Phase::Copy | Phase::Settle | Phase::Indexes => self.throttle.reason(now_ms),
            Phase::Swap if self.tidying.is_in_flight() => {
                Some("the server gathers statistics of the new table".to_owned())
            }
            Phase::Swap if self.tidying == Tidying::Due => self.throttle.reason(now_ms),
            _ => None,
        }
    }

    fn absorb(&mut self, now_ms: u64, event: Event) {
        match event {
            Event::Started | Event::Tick => {}
            Event::Lag(readings) => self.throttle.read(now_ms, readings),
            Event::Backlog { entries } => self.backlog = entries,
            Event::Command(command) => self.command(command),
            Event::Failed(failure) => {
                if self.busy.take() == Some(Busy::Aborting) {
                    self.stopping = None;
                }
                self.fail(failure);
            }
            Event::ChunkFailed { index, failure } => {
                self.leave_flight(index);
                self.fail(failure);
            }
            Event::Prepared => self.prepared(),
            Event::RoundPlanned { chunks, last } => self.round_planned(chunks, last),
            Event::ChunkCopied { index, rows, took_ms, applied } => {
                self.chunk_copied(now_ms, index, rows, took_ms, applied);
            }
            Event::ChunkClashed { index } => self.chunk_clashed(index),
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
                self.range_verified(index, rows, differences, &samples, took_ms);
            }
            Event::Tidied => self.tidied(),
            Event::TidyFailed(failure) => self.tidy_failed(now_ms, failure),
            Event::Repaired { keys, backlog } => self.repaired(keys, backlog),
            Event::Swapped { stall_ms, drained } => self.swapped(stall_ms, drained),
            Event::LockNotHad { why } => self.lock_not_had(now_ms, why),
            Event::DrainTooSlow { drained } => self.drain_too_slow(now_ms, drained),
            Event::Finished => self.finished(),
        }
    }

    fn decide(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        if self.busy.is_some() {
            if self.stopping.is_some() || self.start_over {
                // With one worker what is under way may wait in line behind it.
                self.cancel_tidying(actions);
            }
            return;
        }
        if self.stopping.is_some() {
            self.decide_stop(now_ms, actions);
            return;
        }
        if self.start_over && !self.begin_again() {
            self.cancel_tidying(actions);
            return;
        }
        if now_ms < self.rest_until_ms {
            return;
        }
        if self.paused && self.round.is_none() {
            return;
        }
        match self.phase {
            Phase::Prepare => {
                if now_ms >= self.lock.next_ms {
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
            Phase::Finish => {
                if now_ms >= self.lock.next_ms {
                    self.save_if_needed(actions);
                    self.begin(Busy::Finishing, Action::Finish, actions);
                }
            }
            Phase::Done => self.stop(self.done(), actions),
        }
    }

    fn decide_stop(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        if !self.is_quiet() {
            self.cancel_tidying(actions);
            return;
        }
        let swapped = self.phase >= Phase::Finish;
        match self.stopping.clone() {
            None => {}
            Some(Stopping::Fail(failure)) => {
                self.save_if_needed(actions);
                self.stop(Ending::Failed(failure), actions);
            }
            Some(Stopping::Interrupt) => {
                self.save_if_needed(actions);
                self.stop(Ending::Interrupted, actions);
            }
            Some(Stopping::Aborted) => {
                self.stopped = true;
                actions.push(Action::Stop(Ending::Aborted));
            }
            // After the swap there is no way back by abort: the run is ended in the forward direction.
            Some(Stopping::Abort) if swapped => self.stopping = None,
            Some(Stopping::Abort) if now_ms < self.lock.next_ms => {}
            Some(Stopping::Abort) => {
                // Durable before anything is removed: cut off half way, the run must not go on without
                // its triggers.
                self.unsaved |= !std::mem::replace(&mut self.aborting, true);
                self.save_if_needed(actions);
                self.begin(Busy::Aborting, Action::Abort, actions);
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Pause => self.paused = true,
            Command::Resume => self.paused = false,
            Command::Stop => {
                if self.stopping.is_none() {
                    self.stopping = Some(Stopping::Interrupt);
                }
            }
            Command::Abort => {
                if !matches!(self.stopping, Some(Stopping::Abort)) && !self.is_ambiguous() {
                    self.lock = LockTries::default();
                    self.stopping = Some(Stopping::Abort);
                }
            }
        }
    }

    fn prepared(&mut self) {
        self.expect_busy(Busy::Preparing);
        self.lock = LockTries::default();
        self.enter(Phase::Copy);
    }

    fn finished(&mut self) {
        self.lock = LockTries::default();
        match self.busy.take() {
            Some(Busy::Finishing) => self.enter(Phase::Done),
            Some(Busy::Aborting) => self.stopping = Some(Stopping::Aborted),
            other => {
                self.busy = other;
                self.unexpected("Finished");
            }
        }
    }

    fn done(&self) -> Ending {
        Ending::Done { counters: self.counters.clone(), stall_ms: self.stall_ms }
    }

    fn stop(&mut self, ending: Ending, actions: &mut Vec<Action>) {
        self.save_if_needed(actions);
        self.stopped = true;
        actions.push(Action::Stop(ending));
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
            aborting: self.aborting,
            counters: self.counters.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
