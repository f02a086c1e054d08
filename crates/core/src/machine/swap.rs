//! The swap phase: bring the log near empty, try, back off, try again; never without a bound.

use super::tidy::Tidying;
use super::{Action, Busy, Deed, Failure, FailureKind, LockTries, Machine};
use crate::checkpoint::{Phase, proof};

/// First wait after a lock was not had, in milliseconds; it doubles with each try.
const BACK_OFF_MS: u64 = 500;

/// Longest wait between two tries, in milliseconds.
const BACK_OFF_MS_MAX: u64 = 15_000;

impl Machine {
    pub(super) fn decide_swap(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        if self.closed(now_ms, Deed::Swap).is_some() {
            // The patience with the lock is for a lock that is tried for.
            self.lock = LockTries::default();
        }
        // While we wait for the next try the log is kept short, but not by a busy loop.
        // One of the windows may be closed when the other one is open; and a swap that waits for a word
        // is to find it done.
        let deed = match self.held(now_ms, Deed::Heavy) {
            None => Deed::Heavy,
            Some(_) => Deed::Swap,
        };
        self.tidy_if_due(now_ms, deed, actions);
        let waiting = now_ms < self.lock.next_ms
            || self.tidying != Tidying::Done
            || self.held(now_ms, Deed::Swap).is_some();
        let limit = if waiting {
            self.log_entries_while_waiting(now_ms)
        } else {
            self.settings.near_empty_entries
        };
        if self.backlog > limit {
            self.begin_apply(actions);
        } else if !waiting {
            self.unsaved = true;
            self.counters.swap_attempts += 1;
            self.save_if_needed(actions);
            let action = Action::TrySwap { budget_ms: self.settings.swap_budget_ms };
            self.begin(Busy::Swapping, action, actions);
        }
    }

    pub(super) fn swapped(&mut self, stall_ms: u64, drained: u64) {
        self.expect_busy(Busy::Swapping);
        self.lock = LockTries::default();
        self.stall_ms = Some(stall_ms);
        self.counters.entries_consumed += drained;
        self.backlog = 0;
        // A stop or abort that came meanwhile came too late: the change is made.
        self.made();
    }

    /// The swap of this way is made.
    pub(super) fn made(&mut self) {
        self.stands = Some(self.way);
        self.proven = Some(proof(&self.verified, self.sampled, self.counters.rows_verified));
        self.enter(if self.settings.keeps_way_back { Phase::Arrive } else { Phase::Finish });
    }

    pub(super) fn lock_not_had(&mut self, now_ms: u64, why: String) {
        let busy = self.busy.take();
        match busy {
            Some(
                Busy::Preparing
                | Busy::Swapping
                | Busy::Arriving
                | Busy::Finishing
                | Busy::Aborting,
            ) => {}
            other => {
                self.busy = other;
                self.unexpected("LockNotHad");
                return;
            }
        }
        self.back_off(now_ms);
        self.lock_why = why;
        self.give_up_after_patience(now_ms, busy == Some(Busy::Aborting));
    }

    fn give_up_after_patience(&mut self, now_ms: u64, is_aborting: bool) {
        let since_ms = self.lock.since_ms.unwrap_or(now_ms);
        if now_ms.saturating_sub(since_ms) >= self.settings.lock_patience_ms {
            let message = format!(
                "{} tries to do what needs the table's lock were in vain, over {} s; the last one: {}; \
                 run the same command again when the holder is gone, or the server has less to do",
                self.lock.tries,
                now_ms.saturating_sub(since_ms) / 1000,
                self.lock_why
            );
            if is_aborting {
                self.stopping = None;
            }
            self.fail(Failure { kind: FailureKind::LockNotHad, message });
        }
    }

    pub(super) fn drain_too_slow(&mut self, now_ms: u64, drained: u64) {
        self.expect_busy(Busy::Swapping);
        self.counters.entries_consumed += drained;
        self.lock_why = format!(
            "what is done under it took longer than the {} ms of --swap-budget",
            self.settings.swap_budget_ms
        );
        // Most of it is to be applied before the lock is asked for again: where the swap is one
        // transaction, what was drained under the lock has been rolled back with it.
        let near_empty = self.settings.near_empty_entries.saturating_add(1);
        self.backlog = std::cmp::max(self.backlog, near_empty);
        self.back_off(now_ms);
        self.give_up_after_patience(now_ms, false);
    }

    fn back_off(&mut self, now_ms: u64) {
        self.lock.since_ms.get_or_insert(now_ms);
        let doublings = std::cmp::min(self.lock.tries, 5);
        let wait_ms = std::cmp::min(BACK_OFF_MS << doublings, BACK_OFF_MS_MAX);
        self.lock.tries = self.lock.tries.saturating_add(1);
        self.lock.next_ms = now_ms.saturating_add(wait_ms);
    }
}
