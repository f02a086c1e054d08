//! The copy phase, the application of the log between rounds, settling, indexes and catching up.

use super::{
    Action, Applied, Busy, Deed, Failure, FailureKind, Machine, ROLLED_BACK_MAX, RoundState,
};
use crate::checkpoint::Phase;
use crate::key::{Chunk, Frontier, Round};
use crate::plan::Flow;
use crate::proof::Verification;

/// How many times the usual length a batch of the log may reach.
const LONGER_BATCH_MAX: u64 = 16;

impl Machine {
    pub(super) fn decide_copy(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        let is_held = self.held(now_ms, Deed::Heavy).is_some();
        if self.round.is_some() {
            self.drive_copy_round(now_ms, is_held, actions);
        }
        if self.round.is_some() || self.busy.is_some() {
            return;
        }
        // A quiet point: no chunk is in flight, so the log may be read, applied and dropped (I2).
        if self.frontier == Frontier::End {
            self.enter(match self.settings.flow {
                Flow::Blocks => Phase::Settle,
                Flow::KeyRanges if self.settings.deferred_indexes => Phase::Indexes,
                Flow::KeyRanges => Phase::CatchUp,
            });
            self.save_if_needed(actions);
            self.decide(now_ms, actions);
        } else if self.may_apply_while_copying() && self.apply_due(now_ms) {
            self.begin_apply(actions);
        } else if !is_held {
            let chunk_rows = self.sizer.rows();
            self.chunk_rows = self.bounded_rows(chunk_rows);
            let per_worker = self.sizer.chunks_per_worker(self.settings.round_chunks_per_worker);
            let action = Action::PlanRound {
                after: self.frontier.lower_bound().cloned(),
                chunk_rows: self.chunk_rows,
                chunks_max: self.settings.workers.saturating_mul(per_worker),
            };
            self.begin(Busy::Planning, action, actions);
        }
    }

    /// Begins chunks of the running round; ends the round when its last chunk has committed.
    fn drive_copy_round(&mut self, now_ms: u64, is_held: bool, actions: &mut Vec<Action>) {
        // A new plan must be durable before its first chunk begins: the marks of its chunks mean
        // nothing without it.
        self.save_if_needed(actions);
        let log_is_too_long = self.log_is_too_long();
        let Some(round) = self.round.as_mut() else { return };
        let number = round.plan().number;
        // A resumed round cannot be cut: it waits, until the log must be applied, and so it must end.
        if is_held && !round.cut_short() && !round.is_complete() && !log_is_too_long {
            return;
        }
        self.begin_chunks(now_ms, is_held, |chunk| {
            actions.push(Action::CopyChunk { round: number, chunk });
        });
        let Some(round) = self.round.as_mut() else { return };
        if let Some(index) = round.next_again() {
            let frontier = round.plan().end();
            if let Some(chunk) = round.chunk(index).cloned() {
                let action = Action::CopyWithPending { round: number, chunk, frontier };
                self.begin(Busy::Redoing(index), action, actions);
            }
        } else if round.is_complete() {
            self.end_copy_round();
        }
    }

    /// Begins as many chunks of the round as may run side by side. `is_held`: what is left of the round
    /// is to be brought to its end, whatever the throttle says.
    pub(super) fn begin_chunks(&mut self, now_ms: u64, is_held: bool, mut go: impl FnMut(Chunk)) {
        // One worker is busy tidying.
        let busy = u32::from(self.tidying.is_in_flight());
        let workers = if is_held { 1 } else { self.workers().saturating_sub(busy) };
        let workers = std::cmp::max(workers, 1);
        // Comparing writes nothing, so that no replica falls behind by it: it stops, but has no pace.
        let rows = if self.phase == Phase::Verify { 0 } else { self.chunk_rows };
        let apply_is_due = self.apply_due(now_ms);
        let Some(round) = self.round.as_mut() else { return };
        while round.has_next(workers) {
            if !is_held && !self.throttle.may_begin(now_ms, rows) {
                // A slow pace must not keep the log from being applied.
                if apply_is_due {
                    round.cut_short();
                }
                return;
            }
            if let Some(chunk) = round.take_next(!is_held) {
                go(chunk);
            }
        }
    }

    /// Rows of a chunk, under a rate: few enough for it to be smooth.
    pub(super) fn bounded_rows(&self, rows: u64) -> u64 {
        let bound = self.throttle.chunk_rows_max().unwrap_or(u64::MAX);
        std::cmp::min(rows, std::cmp::max(bound, self.settings.chunk_rows_min))
    }

    pub(super) fn end_copy_round(&mut self) {
        let Some(round) = self.round.take() else { return };
        if !round.is_void() {
            self.frontier = round.plan().end();
        }
        self.counters.rows_copied += round.rows_done();
        self.counters.chunks += round.chunks_done();
        self.unsaved = true;
    }

    pub(super) fn round_planned(&mut self, chunks: Vec<Chunk>, last: bool) {
        self.expect_busy(Busy::Planning);
        if chunks.is_empty() {
            if !last {
                self.unexpected("RoundPlanned without chunks and without an end");
            } else if self.phase == Phase::Verify {
                self.verified = Frontier::End;
            } else {
                self.frontier = Frontier::End;
            }
            self.unsaved = true;
            return;
        }
        let mut round = RoundState::new(Round { number: self.round_next, chunks });
        if self.phase == Phase::Verify {
            self.thin_out(&mut round);
        }
        self.round = Some(round);
        self.round_next += 1;
        self.unsaved = true;
    }

    pub(super) fn chunk_copied(
        &mut self,
        now_ms: u64,
        index: u32,
        rows: u64,
        took_ms: u64,
        applied: Option<Applied>,
    ) {
        if self.busy == Some(Busy::Redoing(index)) {
            self.busy = None;
            if let Some(round) = &mut self.round {
                round.finish_again(index);
            }
            self.counters.chunks_redone += 1;
        } else if !self.leave_flight(now_ms, index, rows) {
            return;
        }
        self.counters.chunk_times.note(took_ms);
        if let Some(round) = &mut self.round {
            round.set_done(index, rows);
            let in_all = self.counters.rows_copied + round.rows_done();
            self.eta.note(now_ms, in_all);
        }
        self.chunk_ms = took_ms;
        self.sizer.feedback(rows, took_ms);
        if let Some(applied) = applied {
            self.count_applied(now_ms, &applied);
        }
    }

    /// A unique value met a row whose own change is still pending, or a real duplicate. Which, the
    /// second try tells: it takes everything pending along, in one snapshot.
    pub(super) fn chunk_clashed(&mut self, now_ms: u64, index: u32) {
        if self.busy == Some(Busy::Redoing(index)) {
            self.busy = None;
            self.unexpected("ChunkClashed although everything pending was taken along");
        } else if self.settings.flow == Flow::Blocks {
            self.leave_flight(now_ms, index, 0);
            self.unexpected("ChunkClashed although the shadow has no index");
        } else if self.leave_flight(now_ms, index, 0)
            && let Some(round) = &mut self.round
        {
            round.set_again(index);
        }
    }

    pub(super) fn chunk_rolled_back(&mut self, now_ms: u64, index: u32, why: &str) {
        if self.busy == Some(Busy::Redoing(index)) || self.busy == Some(Busy::Rechecking(index)) {
            // Still first in `again`: it is begun anew.
            self.busy = None;
            self.apply_retries += 1;
            self.rest(now_ms, self.apply_retries);
            self.give_up_if(self.apply_retries, why);
            return;
        }
        if !self.leave_flight(now_ms, index, 0) {
            return;
        }
        let times = self.round.as_mut().map_or(0, |round| round.set_rolled_back(index));
        self.rest(now_ms, times);
        self.give_up_if(times, why);
    }

    /// Takes a chunk that wrote `rows`, or a range, out of flight; an unknown one is an internal fault.
    pub(super) fn leave_flight(&mut self, now_ms: u64, index: u32, rows: u64) -> bool {
        if matches!(self.busy, Some(Busy::Redoing(busy) | Busy::Rechecking(busy)) if busy == index)
        {
            self.busy = None;
            return true;
        }
        let Some(is_reserved) = self.round.as_mut().and_then(|round| round.leave_flight(index))
        else {
            self.unexpected("of a chunk that is not in flight");
            return false;
        };
        if is_reserved && self.phase == Phase::Verify {
            self.throttle.note_read(now_ms);
        } else if is_reserved {
            let bytes = rows.saturating_mul(self.settings.row_bytes);
            self.throttle.note_written(now_ms, rows, bytes);
        }
        true
    }

    pub(super) fn begin_apply(&mut self, actions: &mut Vec<Action>) {
        self.begin_apply_of(false, actions);
    }

    fn begin_apply_of(&mut self, clears: bool, actions: &mut Vec<Action>) {
        let action =
            Action::Apply { frontier: self.frontier.clone(), keys_max: self.apply_keys, clears };
        self.begin(Busy::Applying, action, actions);
    }

    /// Where writers log faster than it is applied a longer batch gains on them: it meets each key once,
    /// however often that was written. It is one transaction, so it is no longer than it must be.
    fn size_batches(&mut self, applied: &Applied) {
        let usual = self.settings.apply_keys_max;
        if applied.left <= usual {
            self.apply_keys = usual;
            self.left_before = None;
            return;
        }
        if self.left_before.is_some_and(|before| applied.left >= before) {
            let most = usual.saturating_mul(LONGER_BATCH_MAX);
            self.apply_keys = std::cmp::min(self.apply_keys.saturating_mul(2), most);
        }
        self.left_before = Some(applied.left);
    }

    pub(super) fn count_applied(&mut self, now_ms: u64, applied: &Applied) {
        self.counters.entries_consumed += applied.entries;
        self.counters.keys_applied += applied.keys;
        self.counters.entries_dropped += applied.dropped;
        self.backlog = applied.left;
        self.size_batches(applied);
        self.applied_at_ms = now_ms;
        self.apply_retries = 0;
        self.caught_up = applied.left <= self.settings.near_empty_entries;
        self.settled = applied.cleared && self.frontier == Frontier::End;
        if let Some(left) = &mut self.consume_before_recheck {
            *left = if applied.left == 0 { 0 } else { left.saturating_sub(applied.entries) };
        }
    }

    pub(super) fn apply_rolled_back(&mut self, now_ms: u64, why: &str) {
        self.expect_busy(Busy::Applying);
        self.apply_retries += 1;
        self.rest(now_ms, self.apply_retries);
        self.give_up_if(self.apply_retries, why);
    }

    /// A short rest after a roll-back, longer each time, so that we do not hammer who beat us.
    pub(super) fn rest(&mut self, now_ms: u64, times: u32) {
        self.rest_until_ms = now_ms.saturating_add(u64::from(std::cmp::min(times, 10)) * 50);
    }

    fn give_up_if(&mut self, times: u32, why: &str) {
        if times > ROLLED_BACK_MAX {
            let message = format!(
                "our own statement was rolled back {times} times, the last time with: {why}; \
                 run the same command again when the server is calmer"
            );
            self.fail(Failure { kind: FailureKind::Other, message });
        }
    }

    /// By blocks a row may be copied twice or not at all, and the shadow has no index to find it by.
    fn may_apply_while_copying(&self) -> bool {
        self.settings.flow == Flow::KeyRanges
    }

    pub(super) fn decide_settle(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        if self.held(now_ms, Deed::Heavy).is_none() {
            self.save_if_needed(actions);
            self.begin(Busy::Settling, Action::Settle, actions);
        }
    }

    pub(super) fn decide_indexes(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        if self.held(now_ms, Deed::Heavy).is_some() {
            if self.may_apply_while_copying() && self.apply_due(now_ms) {
                self.begin_apply(actions);
            }
            return;
        }
        self.save_if_needed(actions);
        if self.settled || self.settings.flow == Flow::Blocks {
            // By blocks `Settle` has done it, and without an index there is nothing to apply by.
            self.begin(Busy::Indexing, Action::BuildIndexes, actions);
        } else {
            // Chunks were read at different times: a unique value that moved between two of them is in
            // both. Clearing removes every row that is pending, and so all but one state.
            self.begin_apply_of(true, actions);
        }
    }

    pub(super) fn decide_catch_up(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        self.save_if_needed(actions);
        if self.caught_up {
            self.enter(match self.settings.verify {
                Verification::Full | Verification::Sample => Phase::Verify,
                Verification::Off => Phase::Swap,
            });
            self.save_if_needed(actions);
            self.decide(now_ms, actions);
        } else if self.held(now_ms, Deed::Apply).is_none() {
            self.begin_apply(actions);
        }
    }
}
