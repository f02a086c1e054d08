//! What a run of the simulator tells: counts, the breach where there was one, the event log.

use std::fmt;

/// What happened in a run, or in many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Runs of a seed.
    pub seeds: u64,
    /// Steps of the scheduler.
    pub steps: u64,
    /// Times the program that runs the machine was killed.
    pub runner_crashes: u64,
    /// Times the server was killed.
    pub server_crashes: u64,
    /// Commits whose answer was lost, or that were lost themselves.
    pub lost: u64,
    /// Commits of ours that the server rolled back.
    pub rolled_back: u64,
    /// Swaps made.
    pub swaps: u64,
    /// Runs ended by an abort.
    pub aborts: u64,
    /// Runs that ended with a violation of the new shape.
    pub violations: u64,
    /// Runs that ended because somebody had touched the table.
    pub source_changes: u64,
    /// Chunks that met a pending unique value.
    pub clashes: u64,
    /// Ranges that differed and were repaired.
    pub repairs: u64,
    /// Times a lock on the live table was not had.
    pub locks_not_had: u64,
    /// Writers' transactions that committed.
    pub writes: u64,
    /// Writers' statements that met the fence of the two-session swap.
    pub fenced: u64,
    /// Quiet points at which source, shadow and log were compared.
    pub quiet_points: u64,
    /// Answers that told of a `TRUNCATE`, which begins the run again.
    pub truncated: u64,
    /// Rows that settling took out of the shadow.
    pub settled: u64,
    /// Transactions that were prepared and ended later.
    pub prepared: u64,
    /// Savepoints that were rolled back to.
    pub savepoints: u64,
    /// Orders of people that the store keeps.
    pub orders: u64,
    /// Times the calendar closed the copy or the swap.
    pub gates_closed: u64,
    /// Runs that were aborted because the load was beyond what may be borne.
    pub critical_aborts: u64,
    /// Swaps that were made back to the old shape.
    pub swaps_back: u64,
    /// Turns that were taken: back, again, to the end.
    pub turns: u64,
    /// Turns that were left before their swap.
    pub turns_left: u64,
    /// Turns that could not be taken.
    pub not_turned: u64,
    /// Writes that came late to the retired table.
    pub late: u64,
    /// Answers of our sessions: of actions, commits, definitions.
    pub answers: u64,
    /// Rows compared at quiet points, swaps and ends.
    pub rows_checked: u64,
}

impl Counts {
    /// Adds another run's counts.
    pub fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.steps += other.steps;
        self.runner_crashes += other.runner_crashes;
        self.server_crashes += other.server_crashes;
        self.lost += other.lost;
        self.rolled_back += other.rolled_back;
        self.swaps += other.swaps;
        self.aborts += other.aborts;
        self.violations += other.violations;
        self.source_changes += other.source_changes;
        self.clashes += other.clashes;
        self.repairs += other.repairs;
        self.locks_not_had += other.locks_not_had;
        self.writes += other.writes;
        self.fenced += other.fenced;
        self.quiet_points += other.quiet_points;
        self.truncated += other.truncated;
        self.settled += other.settled;
        self.prepared += other.prepared;
        self.savepoints += other.savepoints;
        self.orders += other.orders;
        self.gates_closed += other.gates_closed;
        self.critical_aborts += other.critical_aborts;
        self.swaps_back += other.swaps_back;
        self.turns += other.turns;
        self.turns_left += other.turns_left;
        self.not_turned += other.not_turned;
        self.late += other.late;
        self.answers += other.answers;
        self.rows_checked += other.rows_checked;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} seeds, {} steps: {} crashes of the program, {} of the server, {} answers lost, \
             {} commits rolled back; {} swaps, {} aborts, {} violations, {} changed sources; \
             {} clashes in chunks, {} ranges repaired, {} locks not had, {} writes ({} fenced), \
             {} of them prepared, {} savepoints undone; {} rows settled, {} times truncated; \
             {} orders, {} gates closed, {} aborts at critical load; {} turns, {} swaps back, {} \
             turns left, {} not taken, {} late writes; {} answers; {} rows checked at {} quiet \
             points",
            self.seeds,
            self.steps,
            self.runner_crashes,
            self.server_crashes,
            self.lost,
            self.rolled_back,
            self.swaps,
            self.aborts,
            self.violations,
            self.source_changes,
            self.clashes,
            self.repairs,
            self.locks_not_had,
            self.writes,
            self.fenced,
            self.prepared,
            self.savepoints,
            self.settled,
            self.truncated,
            self.orders,
            self.gates_closed,
            self.critical_aborts,
            self.turns,
            self.swaps_back,
            self.turns_left,
            self.not_turned,
            self.late,
            self.answers,
            self.rows_checked,
            self.quiet_points
        )
    }
}

/// A promise of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// A chunk's snapshot is newer than every dropped entry of its range; nothing lies beyond what was
    /// copied (I3).
    Frontier,
    /// Each copied key is equal in source and shadow, or pending (I4).
    EqualOrPending,
    /// A chunk and its mark commit together; none is copied twice, none is skipped (I5).
    ExactChunks,
    /// The swap is atomic, and nothing committed is missing (I6).
    AtomicSwap,
    /// The source is never written to, and an abort leaves nothing behind (I7).
    SourceUntouched,
    /// A column that only the new shape has keeps its first draw.
    FirstDraw,
    /// A clash that ends a run is a violation by rows of one state of the source.
    RealViolation,
    /// A run ends, and as it should.
    RightEnding,
    /// The application sees no error that it would not see without us.
    NoWriterError,
    /// What a person or the calendar forbids is not begun.
    Steered,
}

impl Invariant {
    /// The invariant in a few words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Frontier => "I3 nothing beyond the frontier, no chunk older than a drop",
            Self::EqualOrPending => "I4 equal or pending",
            Self::ExactChunks => "I5 chunk and mark together, once",
            Self::AtomicSwap => "I6 atomic swap, nothing lost",
            Self::SourceUntouched => "I7 source untouched, abort leaves nothing",
            Self::FirstDraw => "first draw kept",
            Self::RealViolation => "a violation is real",
            Self::RightEnding => "the run ends, and as it should",
            Self::NoWriterError => "no error for the application",
            Self::Steered => "what is forbidden is not begun",
        }
    }
}

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// Which one.
    pub invariant: Invariant,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant.name(), self.what)
    }
}

/// The outcome of one seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What was counted.
    pub counts: Counts,
    /// The first promise that was not kept; `None` where all were.
    pub breach: Option<Breach>,
    /// The event log, where it was asked for; one line an event.
    pub log: Vec<String>,
}
