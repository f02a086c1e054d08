//! The verify phase: ranges side by side, a repair for what differs, and never a swap after a second
//! difference.

use super::{Action, Busy, Deed, Failure, FailureKind, Machine, RoundState};
use crate::checkpoint::Phase;
use crate::key::Frontier;
use crate::proof::{SAMPLE_RANGES_MIN, Verification, is_in_sample};

/// Differing rows that are named where the run stops for them.
const NAMED_MAX: usize = 10;

impl Machine {
    pub(super) fn decide_verify(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        let is_held = self.held(now_ms, Deed::Heavy).is_some();
        if self.round.is_some() {
            self.drive_verify_round(now_ms, is_held, actions);
        }
        if self.round.is_some() || self.busy.is_some() {
            return;
        }
        // Here a worker is free.
        self.tidy_if_due(now_ms, Deed::Heavy, actions);
        // Who resumes without it does not wait for it.
        if self.settings.verify == Verification::Off || self.verified == Frontier::End {
            self.enter(Phase::Swap);
            self.decide(now_ms, actions);
        } else if self.apply_due(now_ms) {
            self.begin_apply(actions);
        } else if !is_held {
            self.save_if_needed(actions);
            let range_rows = self.verify_sizer.rows();
            let most = self.settings.round_chunks_per_worker;
            let per_worker = self.verify_sizer.chunks_per_worker(most);
            let action = Action::PlanVerify {
                after: self.verified.lower_bound().cloned(),
                range_rows,
                ranges_max: self.settings.workers.saturating_mul(per_worker),
            };
            self.begin(Busy::Planning, action, actions);
        }
    }

    fn drive_verify_round(&mut self, now_ms: u64, is_held: bool, actions: &mut Vec<Action>) {
        let Some(round) = self.round.as_mut() else { return };
        if is_held {
            round.cut_short();
        }
        self.begin_chunks(now_ms, is_held, |range| actions.push(Action::VerifyRange { range }));
        let Some(round) = self.round.as_mut() else { return };
        if let Some(index) = round.next_again() {
            if !is_held {
                self.mend(index, actions);
            } else if self.apply_due(now_ms) {
                self.begin_apply(actions);
            }
        } else if round.is_complete() {
            self.end_verify_round();
        }
    }

    /// A range that differs: log its keys, apply until they are consumed, look again.
    fn mend(&mut self, index: u32, actions: &mut Vec<Action>) {
        let Some(range) = self.round.as_ref().and_then(|round| round.chunk(index)).cloned() else {
            return;
        };
        match self.consume_before_recheck {
            None => self.begin(Busy::Repairing(index), Action::Repair { range }, actions),
            Some(0) => {
                self.begin(Busy::Rechecking(index), Action::VerifyRange { range }, actions);
            }
            Some(_) => self.begin_apply(actions),
        }
    }

    fn end_verify_round(&mut self) {
        let Some(round) = self.round.take() else { return };
        if !round.is_void() {
            self.sampled |= round.has_gaps();
            self.verified = round.plan().end();
        }
        self.sample_ranges += round.chunks_done();
        self.counters.rows_verified += round.rows_done();
        self.unsaved = true;
    }

    /// Leaves to a sample those ranges of a round that it takes.
    pub(super) fn thin_out(&self, round: &mut RoundState) {
        if self.settings.verify != Verification::Sample {
            return;
        }
        let mut taken = self.sample_ranges;
        round.keep_only(|chunk| {
            let is_taken =
                taken < SAMPLE_RANGES_MIN || is_in_sample(self.settings.sample_seed, &chunk.range);
            taken += u64::from(is_taken);
            is_taken
        });
    }

    /// The comparison begins again.
    pub(super) fn compare_anew(&mut self) {
        self.verified = Frontier::Start;
        self.sampled = false;
        self.counters.rows_verified = 0;
    }

    /// Where everything is to be compared and an earlier program has taken samples, it begins again.
    pub(super) fn compare_what_was_passed_over(&mut self) {
        if self.sampled && self.settings.verify == Verification::Full && !self.has_swapped() {
            self.compare_anew();
        }
    }

    /// The ranges to come are as long as this one tells.
    pub(super) fn sized_by_range(&mut self, rows: u64, took_ms: u64) {
        self.verify_sizer.feedback(rows, took_ms);
    }

    pub(super) fn range_verified(
        &mut self,
        now_ms: u64,
        index: u32,
        rows: u64,
        differences: u64,
        samples: &[String],
    ) {
        let second_look = self.busy == Some(Busy::Rechecking(index));
        if !self.leave_flight(now_ms, index, 0) {
            return;
        }
        let Some(round) = &mut self.round else { return };
        if differences == 0 {
            if second_look {
                round.finish_again(index);
                self.consume_before_recheck = None;
            }
            round.set_done(index, rows);
        } else if second_look {
            let named = samples.get(..NAMED_MAX).unwrap_or(samples).join("; ");
            let message = format!(
                "verification found {differences} differing rows, and applying them again did not \
                 help: {named}; the swap was not made and the source is untouched",
            );
            self.fail(Failure { kind: FailureKind::Different, message });
        } else {
            RoundState::set_again(round, index);
        }
    }

    pub(super) fn repaired(&mut self, keys: u64, backlog: u64) {
        match self.busy.take() {
            Some(Busy::Repairing(_)) => {
                self.counters.keys_repaired += keys;
                self.backlog = backlog;
                self.consume_before_recheck = Some(backlog);
            }
            other => {
                self.busy = other;
                self.unexpected("Repaired");
            }
        }
    }
}
