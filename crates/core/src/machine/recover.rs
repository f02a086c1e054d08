//! From a checkpoint and what was seen on the server back to a machine.
//!
//! The same way for a fresh start, a crash, a lost connection and a lost answer: whatever was in
//! flight has ended on the server (the dialect proves that before it observes), and what it left tells
//! what happened.

use std::collections::BTreeMap;

use super::tidy::Tidying;
use super::{Failure, FailureKind, LockTries, Machine, RoundState, Settings, Stopping};
use crate::checkpoint::{Checkpoint, Phase};
use crate::chunk::ChunkSizer;
use crate::eta::Eta;
use crate::plan::Flow;
use crate::signal::Gates;

/// A chunk of the checkpoint's round whose mark was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DoneChunk {
    /// Index in the round.
    pub index: u32,
    /// Rows written.
    pub rows: u64,
}

/// Which table stands under the source's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SwapState {
    /// The source itself.
    NotSwapped,
    /// The shadow.
    Swapped,
    /// Neither could be proven; what a person should look at.
    Unclear(String),
}

/// What was seen on the server after everything in flight had ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Marks of the checkpoint's round.
    pub done: Vec<DoneChunk>,
    /// Which table stands under the source's name.
    pub swap: SwapState,
}

/// How large chunks and ranges to verify are.
fn sizers(settings: &Settings) -> (ChunkSizer, ChunkSizer) {
    let sizer = |start, most| {
        ChunkSizer::new(start, settings.chunk_rows_min, most, settings.chunk_ms_target)
    };
    let start = settings.chunk_rows_start;
    let ranges = sizer(start.saturating_mul(5), settings.verify_rows_max);
    (sizer(start, settings.chunk_rows_max), ranges)
}

impl Machine {
    /// The machine that goes on from here. It begins nothing before `Started`; what it must know then
    /// (orders, gates, readings) comes before.
    pub fn recover(settings: Settings, checkpoint: Checkpoint, observed: &Observed) -> Self {
        let mut machine = Self::fresh(settings, checkpoint);
        match &observed.swap {
            SwapState::NotSwapped => {
                if machine.has_swapped() {
                    machine.fail_ambiguous(
                        "the run's record says that the swap was made, the server shows the source \
                         under its own name",
                    );
                } else if machine.aborting {
                    machine.stopping = Some(Stopping::Abort);
                }
                machine.compare_what_was_passed_over();
            }
            SwapState::Swapped => {
                machine.aborting = false;
                if !machine.has_swapped() {
                    machine.round = None;
                    machine.made();
                }
            }
            SwapState::Unclear(why) => machine.fail_ambiguous(why),
        }
        if let Some(round) = &mut machine.round {
            let done: BTreeMap<u32, u64> =
                observed.done.iter().map(|chunk| (chunk.index, chunk.rows)).collect();
            *round = RoundState::resumed(round.plan().clone(), done);
        }
        machine
    }

    fn fresh(settings: Settings, checkpoint: Checkpoint) -> Self {
        let (sizer, verify_sizer) = sizers(&settings);
        let throttle = settings.throttle();
        let workers_max = std::cmp::max(settings.workers, 1);
        let chunk_rows = settings.chunk_rows_start;
        let apply_keys = settings.apply_keys_max;
        // While nobody was here the log may have grown long: it is brought near empty again first.
        let phase = match checkpoint.phase {
            Phase::Swap => Phase::CatchUp,
            // Rows that were in the way of an index may have been mended in the source meanwhile.
            Phase::Indexes if settings.flow == Flow::Blocks => Phase::Settle,
            other => other,
        };
        // A table that was live has its statistics.
        let tidying = match checkpoint.stands {
            None => Tidying::begin(settings.flow),
            Some(_) => Tidying::Done,
        };
        Self {
            settings,
            workers_max,
            phase,
            frontier: checkpoint.frontier,
            verified: checkpoint.verified,
            sampled: checkpoint.sampled,
            sample_ranges: 0,
            proven: checkpoint.proven,
            round: checkpoint.round.map(RoundState::new),
            round_next: checkpoint.round_next,
            busy: None,
            tidying,
            tidy_tries: 0,
            stopping: None,
            way: checkpoint.way,
            stands: checkpoint.stands,
            orders_before: checkpoint.orders_before,
            aborting: checkpoint.aborting,
            started: false,
            stopped: false,
            paused_since_ms: None,
            swap_asked: false,
            abort_why: checkpoint.abort_why,
            pause: None,
            was_at_work: false,
            looked_at_ms: 0,
            start_over: false,
            started_over: 0,
            unsaved: false,
            throttle,
            gates: Gates::default(),
            sizer,
            chunk_rows,
            verify_sizer,
            eta: Eta::default(),
            backlog: 0,
            apply_keys,
            left_before: None,
            applied_at_ms: 0,
            apply_retries: 0,
            rest_until_ms: 0,
            caught_up: false,
            settled: false,
            consume_before_recheck: None,
            lock: LockTries::default(),
            lock_why: String::new(),
            stall_ms: None,
            chunk_ms: 0,
            counters: checkpoint.counters,
        }
    }

    fn fail_ambiguous(&mut self, why: &str) {
        let message = format!("what the server did cannot be told: {why}; a person must look");
        self.stopping = Some(Stopping::Fail(Failure { kind: FailureKind::Ambiguous, message }));
    }
}
