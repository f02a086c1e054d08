//! What people ask of a run while it goes on, and how a run ends before its swap.

use super::{Action, Busy, Command, Ending, LockTries, Machine, Stopping};
use crate::checkpoint::Phase;
use crate::signal::Setting;

impl Machine {
    pub(super) fn command(&mut self, now_ms: u64, command: Command) {
        match command {
            Command::Pause => {
                self.paused_since_ms.get_or_insert(now_ms);
            }
            Command::Resume => self.paused_since_ms = None,
            Command::Swap => self.swap_asked = true,
            Command::Set(setting) => self.set(&setting),
            Command::Stop => {
                if self.stopping.is_none() {
                    self.stopping = Some(Stopping::Interrupt);
                }
            }
            Command::Abort => self.abort(None),
        }
    }

    fn set(&mut self, setting: &Setting) {
        self.settings.set(setting, self.workers_max);
        self.throttle.set(setting);
        if let Setting::ChunkMs(_) = setting {
            self.sizer.set_target_ms(self.settings.chunk_ms_target);
            self.verify_sizer.set_target_ms(self.settings.chunk_ms_target);
        }
    }

    /// The run is to be ended and removed. `why`: nobody asked for it.
    fn abort(&mut self, why: Option<String>) {
        if !matches!(self.stopping, Some(Stopping::Abort)) && !self.is_ambiguous() {
            self.lock = LockTries::default();
            self.stopping = Some(Stopping::Abort);
            self.abort_why = why;
        }
    }

    /// Ends the run where a signal is beyond what may be borne: the triggers are load as well. Not after
    /// the swap, where there is nothing to go back to.
    pub(super) fn abort_if_critical(&mut self, now_ms: u64) {
        if self.stopping.is_some() || self.has_swapped() {
            return;
        }
        if let Some(why) = self.throttle.critical(now_ms) {
            self.abort(Some(why));
        }
    }

    pub(super) fn decide_stop(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        if !self.is_quiet() {
            self.cancel_tidying(actions);
            return;
        }
        let swapped = self.has_swapped();
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
                let why = self.abort_why.clone();
                actions.push(Action::Stop(Ending::Aborted { why }));
            }
            // After the swap there is no way back by abort: the run is ended in the forward direction, a
            // pause with it, because whoever gave the order waits for that end.
            Some(Stopping::Abort) if swapped => {
                (self.stopping, self.paused_since_ms) = (None, None)
            }
            Some(Stopping::Abort) if self.stands.is_some() => self.stay(actions),
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

    /// Leaves a turn: nothing is removed, for both tables hold the application's rows by now, and the
    /// one that is live stays.
    fn stay(&mut self, actions: &mut Vec<Action>) {
        let rest = self.checkpoint().at_rest();
        (self.phase, self.way, self.round) = (rest.phase, rest.way, None);
        self.unsaved = true;
        let (stands, why) = (self.way, self.abort_why.clone());
        self.stop(Ending::Stayed { stands, why }, actions);
    }

    pub(super) fn arrived(&mut self) {
        self.expect_busy(Busy::Arriving);
        self.lock = LockTries::default();
        self.enter(Phase::Revertible);
    }

    pub(super) fn finished(&mut self) {
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

    pub(super) fn revertible(&self) -> Ending {
        Ending::Revertible {
            stands: self.way,
            counters: self.counters.clone(),
            stall_ms: self.stall_ms,
        }
    }

    pub(super) fn done(&self) -> Ending {
        Ending::Done { counters: self.counters.clone(), stall_ms: self.stall_ms }
    }

    pub(super) fn stop(&mut self, ending: Ending, actions: &mut Vec<Action>) {
        self.save_if_needed(actions);
        self.stopped = true;
        actions.push(Action::Stop(ending));
    }
}
