//! The bookkeeping of one round: which chunks are to do, in flight, done, or to be taken again.
//!
//! Shared by copying and verifying. Owns no decision about when a round may begin or be cut short.

use std::collections::{BTreeMap, VecDeque};

use crate::key::{Chunk, Round};

/// A round under way.
#[derive(Debug, Clone)]
pub(super) struct RoundState {
    plan: Round,
    is_resumed: bool,
    todo: VecDeque<u32>,
    /// Index → whether the throttle has reserved room for it.
    in_flight: BTreeMap<u32, bool>,
    done: BTreeMap<u32, u64>,
    again: VecDeque<u32>,
    rolled_back: u32,
}

impl RoundState {
    /// A round of which nothing has begun.
    pub(super) fn new(plan: Round) -> Self {
        Self { is_resumed: false, ..Self::resumed(plan, BTreeMap::new()) }
    }

    /// A round of which `done` (index → rows) has committed already.
    pub(super) fn resumed(plan: Round, done: BTreeMap<u32, u64>) -> Self {
        let todo = plan
            .chunks
            .iter()
            .map(|chunk| chunk.index)
            .filter(|index| !done.contains_key(index))
            .collect();
        Self {
            plan,
            is_resumed: true,
            todo,
            in_flight: BTreeMap::new(),
            done,
            again: VecDeque::new(),
            rolled_back: 0,
        }
    }

    pub(super) fn plan(&self) -> &Round {
        &self.plan
    }

    pub(super) fn chunk(&self, index: u32) -> Option<&Chunk> {
        self.plan.chunks.iter().find(|chunk| chunk.index == index)
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.in_flight.is_empty()
    }

    pub(super) fn rows_done(&self) -> u64 {
        self.done.values().sum()
    }

    pub(super) fn chunks_done(&self) -> u64 {
        self.done.values().fold(0, |count, _| count + 1)
    }

    /// Takes those out that `is_wanted` does not want; they are passed over and never done.
    pub(super) fn keep_only(&mut self, mut is_wanted: impl FnMut(&Chunk) -> bool) {
        let plan = &self.plan;
        let chunk = |index: u32| plan.chunks.iter().find(|chunk| chunk.index == index);
        self.todo.retain(|index| chunk(*index).is_some_and(&mut is_wanted));
    }

    /// Whether a chunk of the plan was passed over, once the round is complete.
    pub(super) fn has_gaps(&self) -> bool {
        self.plan.chunks.iter().any(|chunk| !self.done.contains_key(&chunk.index))
    }

    /// Whether there is a chunk to begin, and fewer than `workers` are in flight.
    pub(super) fn has_next(&self, workers: u32) -> bool {
        let limit = usize::try_from(workers).unwrap_or(usize::MAX);
        !self.todo.is_empty() && self.in_flight.len() < limit
    }

    /// The next chunk to begin. `is_reserved`: the throttle is to be told when it has ended.
    pub(super) fn take_next(&mut self, is_reserved: bool) -> Option<Chunk> {
        let index = self.todo.pop_front()?;
        self.in_flight.insert(index, is_reserved);
        self.chunk(index).cloned()
    }

    /// The chunk has left flight: whether room was reserved for it; `None` where it was not in flight.
    pub(super) fn leave_flight(&mut self, index: u32) -> Option<bool> {
        self.in_flight.remove(&index)
    }

    pub(super) fn set_done(&mut self, index: u32, rows: u64) {
        self.done.insert(index, rows);
    }

    pub(super) fn set_again(&mut self, index: u32) {
        self.again.push_back(index);
    }

    /// Puts a rolled-back chunk first in line again; returns how often that happened in this round.
    pub(super) fn set_rolled_back(&mut self, index: u32) -> u32 {
        self.todo.push_front(index);
        self.rolled_back += 1;
        self.rolled_back
    }

    /// The chunk to take again, alone; only while nothing is in flight and nothing is left to do.
    pub(super) fn next_again(&self) -> Option<u32> {
        if self.in_flight.is_empty() && self.todo.is_empty() {
            self.again.front().copied()
        } else {
            None
        }
    }

    pub(super) fn finish_again(&mut self, index: u32) {
        self.again.retain(|waiting| *waiting != index);
    }

    /// Whether every chunk of the plan has committed.
    pub(super) fn is_complete(&self) -> bool {
        self.todo.is_empty() && self.in_flight.is_empty() && self.again.is_empty()
    }

    /// Cuts off the chunks behind the last one that was begun, so that the round can end early.
    ///
    /// A hole (a chunk before the last begun one that is still to do) stays: the frontier may only
    /// stand where everything before it has been copied.
    ///
    /// False, and nothing is cut, in a resumed round. There a chunk without a mark may have been begun
    /// all the same: one that was taken together with the log has written pending rows of the others,
    /// and if these came to lie beyond the frontier, their further entries would be dropped.
    pub(super) fn cut_short(&mut self) -> bool {
        if self.is_resumed {
            return false;
        }
        let begun =
            self.in_flight.keys().chain(self.done.keys()).chain(self.again.iter()).copied().fold(
                None,
                |last: Option<u32>, index| {
                    Some(last.map_or(index, |last| std::cmp::max(last, index)))
                },
            );
        match begun {
            None => {
                self.todo.clear();
                self.plan.chunks.clear();
            }
            Some(last) => {
                self.todo.retain(|index| *index <= last);
                self.plan.chunks.retain(|chunk| chunk.index <= last);
            }
        }
        true
    }

    /// Whether nothing of the plan is left after `cut_short`.
    pub(super) fn is_void(&self) -> bool {
        self.plan.chunks.is_empty()
    }
}
