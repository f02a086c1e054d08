//! What the machine is told (`Event`) and what it asks for (`Action`).
//!
//! Both are plain data: an event log replays a run, and the simulator carries the actions out on its
//! own database.

use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, Counters};
use crate::key::{Chunk, Frontier, Key};
use crate::signal::{Gates, Reading, Setting};
use crate::way::Way;

/// Something to carry out.
///
/// The actions of one `step` are begun in order; `Save` is finished before the next one is begun.
/// `CopyChunk` and `VerifyRange` run side by side, `Tidy` beside anything, everything else runs alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make this checkpoint durable before anything that follows.
    Save(Box<Checkpoint>),
    /// Make shadow, change log and capture triggers, in place of older ones of this run if there are any.
    /// Answer: `Prepared` or `LockNotHad`.
    Prepare,
    /// Check that the source is still the same, and find the bounds of up to `chunks_max` chunks of
    /// about `chunk_rows` rows that follow `after`. Answer: `RoundPlanned`.
    PlanRound {
        /// Exclusive lower bound of the first chunk.
        after: Option<Key>,
        /// Rows a chunk.
        chunk_rows: u64,
        /// Chunks at most.
        chunks_max: u32,
    },
    /// Copy a chunk and mark it done, in one transaction. Answer: `ChunkCopied`, `ChunkClashed` or
    /// `ChunkRolledBack`.
    CopyChunk {
        /// Number of the round.
        round: u64,
        /// The chunk.
        chunk: Chunk,
    },
    /// Copy a chunk together with everything pending up to `frontier`, in one snapshot and one
    /// transaction, while nothing else runs. Answer: `ChunkCopied` or `ChunkRolledBack`.
    CopyWithPending {
        /// Number of the round.
        round: u64,
        /// The chunk.
        chunk: Chunk,
        /// The end of the round: entries beyond it are dropped.
        frontier: Frontier,
    },
    /// Apply pending log entries in one snapshot. Answer: `Applied` or `ApplyRolledBack`.
    Apply {
        /// Entries beyond it are dropped.
        frontier: Frontier,
        /// Rows to write at most.
        keys_max: u64,
        /// Whether the shadow is to be cleared of the rows of all pending keys, also of those that are
        /// not written yet.
        clears: bool,
    },
    /// Delete from the shadow every row whose key is in the log; cut off, it is begun anew. Answer:
    /// `Settled`.
    Settle,
    /// Build the indexes that were left out of the copy, on rows that are part of one consistent state.
    /// Answer: `IndexesBuilt`.
    BuildIndexes,
    /// Find the bounds of ranges to verify. Answer: `RoundPlanned`.
    PlanVerify {
        /// Exclusive lower bound of the first range.
        after: Option<Key>,
        /// Rows a range.
        range_rows: u64,
        /// Ranges at most.
        ranges_max: u32,
    },
    /// Compare source and shadow over a range in one snapshot. Answer: `RangeVerified`.
    VerifyRange {
        /// The range.
        range: Chunk,
    },
    /// Log the keys of the range that differ, so that they are applied again. Answer: `Repaired`.
    Repair {
        /// The range.
        range: Chunk,
    },
    /// Have the server gather statistics of the shadow and note which of its pages everybody can see.
    /// Runs beside everything but the swap. Answer: `Tidied` or `TidyFailed`.
    Tidy,
    /// Cancel `Tidy`, which is in flight. Its own answer still comes.
    CancelTidy,
    /// Try the swap once. Answer: `Swapped`, `LockNotHad`, or `DrainTooSlow`.
    TrySwap {
        /// Longest time under the lock before everybody is let through again, in milliseconds.
        budget_ms: u64,
    },
    /// Do what the swap left for later, where the way back is kept. Answer: `Arrived` or `LockNotHad`.
    Arrive,
    /// Remove what is no longer needed after the swap. Answer: `Finished` or `LockNotHad`.
    Finish,
    /// Remove everything of this run before the swap. Answer: `Finished` or `LockNotHad`.
    Abort,
    /// The run of this program is over.
    Stop(Ending),
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The program is ready, nothing is in flight, and the machine was told what it must know.
    Started,
    /// Shadow, log and triggers stand; no writer from before the triggers is left.
    Prepared,
    /// Bounds were found. `last`: nothing lies beyond the last chunk. Empty chunks and `last`: there
    /// was nothing left.
    RoundPlanned {
        /// The chunks in key order.
        chunks: Vec<Chunk>,
        /// Whether they reach the end of the table.
        last: bool,
    },
    /// A chunk has committed together with its mark.
    ChunkCopied {
        /// Index in the round.
        index: u32,
        /// Rows written.
        rows: u64,
        /// Milliseconds it took.
        took_ms: u64,
        /// What was applied with it (only for `CopyWithPending`).
        applied: Option<Applied>,
    },
    /// A chunk met a unique value of another row and was rolled back.
    ChunkClashed {
        /// Index in the round.
        index: u32,
    },
    /// A chunk certainly did not happen and may be tried again (deadlock, lock time-out).
    ChunkRolledBack {
        /// Index in the round.
        index: u32,
        /// What the server said.
        why: String,
    },
    /// A batch of the log has committed.
    Applied(Applied),
    /// A batch certainly did not happen and may be tried again.
    ApplyRolledBack {
        /// What the server said.
        why: String,
    },
    /// The number of log entries waiting, roughly.
    Backlog {
        /// Entries.
        entries: u64,
    },
    /// The shadow holds only rows that nobody has touched since the triggers stand.
    Settled {
        /// Rows removed.
        rows: u64,
    },
    /// The left-out indexes stand.
    IndexesBuilt,
    /// A range was compared.
    RangeVerified {
        /// Index in the round.
        index: u32,
        /// Rows of the source in it.
        rows: u64,
        /// Keys that differ although nothing of theirs is pending.
        differences: u64,
        /// A few of them, for people.
        samples: Vec<String>,
        /// Milliseconds it took.
        took_ms: u64,
    },
    /// The shadow has statistics and a visibility map.
    Tidied,
    /// It has not; nothing else is amiss.
    TidyFailed(Failure),
    /// Differing keys were logged.
    Repaired {
        /// Keys logged.
        keys: u64,
        /// Entries now in the log, these included.
        backlog: u64,
    },
    /// The swap has happened.
    Swapped {
        /// How long the application was held up, in milliseconds.
        stall_ms: u64,
        /// Entries applied under the lock.
        drained: u64,
    },
    /// The lock on the live table was not had in time; everybody was let through.
    LockNotHad {
        /// Who held it, as far as could be seen.
        why: String,
    },
    /// The log could not be drained within the budget; everybody was let through.
    DrainTooSlow {
        /// Entries applied within the budget.
        drained: u64,
    },
    /// `Arrive` is complete.
    Arrived,
    /// `Finish` or `Abort` is complete.
    Finished,
    /// Readings of all signals, the newest of each.
    Signals(Vec<Reading>),
    /// What the calendar allows, whenever it changes.
    Gates(Gates),
    /// A person or program asks for something.
    Command(Command),
    /// An action failed for good: nothing of it happened and trying again would not help.
    Failed(Failure),
    /// A chunk or range failed for good; it was rolled back.
    ChunkFailed {
        /// Index in the round.
        index: u32,
        /// Why.
        failure: Failure,
    },
    /// Time has passed.
    Tick,
}

/// What one application of log entries did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Entries consumed, including the dropped ones.
    pub entries: u64,
    /// Distinct keys whose rows were made equal.
    pub keys: u64,
    /// Entries dropped because they lay beyond the frontier.
    pub dropped: u64,
    /// Entries that were pending in the same snapshot and are still to do.
    pub left: u64,
    /// Whether every row of the shadow is as it was in that snapshot, because those of all other pending
    /// keys are gone.
    pub cleared: bool,
    /// Milliseconds it took.
    pub took_ms: u64,
}

/// What a person or program may ask for. Kept in the store as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Begin nothing new until `Resume`.
    Pause,
    /// Go on.
    Resume,
    /// Try the swap as soon as everything is ready, whatever was said before about when.
    Swap,
    /// Change a setting.
    Set(Setting),
    /// Stop at the next boundary; the run can be resumed.
    Stop,
    /// End the run and remove everything of it.
    Abort,
}

/// Why a run cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its nature, from which the exit code follows.
    pub kind: FailureKind,
    /// The whole sentence for the user.
    pub message: String,
}

/// The nature of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The data does not fit the new shape: a value, a NULL, a duplicate.
    Violation,
    /// The source was altered, truncated, or its triggers were touched.
    SourceChanged,
    /// The source was emptied (`TRUNCATE`), which the log tells by a marker. By blocks the run is begun
    /// again from `Prepare`: the source is small now.
    Truncated,
    /// Source and shadow differ, and repairing them once did not help.
    Different,
    /// The lock was not had within the time allowed.
    LockNotHad,
    /// What the server did cannot be told: a person must look.
    Ambiguous,
    /// Anything else.
    Other,
}

/// How the work of this program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The change is made.
    Done {
        /// What was counted.
        counters: Counters,
        /// Longest stall of the swap, in milliseconds; `None` where the swap was seen only after a
        /// restart.
        stall_ms: Option<u64>,
    },
    /// The swap is made and can be taken back.
    Revertible {
        /// Which way it went: which table is live.
        stands: Way,
        /// What was counted.
        counters: Counters,
        /// Longest stall of the swap, in milliseconds; `None` where this program made none.
        stall_ms: Option<u64>,
    },
    /// A turn was left before its swap; the table that was live stays.
    Stayed {
        /// Which table that is.
        stands: Way,
        /// Which signal was beyond what may be borne; `None` where somebody asked for it.
        why: Option<String>,
    },
    /// Stopped on request; the same command goes on.
    Interrupted,
    /// Ended before the swap; nothing of the run is left.
    Aborted {
        /// Which signal was beyond what may be borne; `None` where somebody asked for it.
        why: Option<String>,
    },
    /// It cannot go on; the source is untouched.
    Failed(Failure),
}
