//! The data that crosses the seam besides the core's own types.

use underpin_core::alter::Alter;
use underpin_core::plan::Capture;

/// When secondary indexes are filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IndexTiming {
    /// After the copy where that is safe and no replica would stall on it, else during.
    #[default]
    Auto,
    /// Row by row while copying.
    During,
    /// In one sorted build after the copy.
    After,
}

/// What the user asks for, checked as far as it can be without a server.
#[derive(Debug, Clone)]
pub struct Request {
    /// The id the run will have.
    pub run_id: String,
    /// The statement, taken apart.
    pub alter: Alter,
    /// The statement, verbatim.
    pub statement: String,
    /// Schema or database of the table where the statement does not name one.
    pub default_schema: Option<String>,
    /// Replicas that the user named, as URLs.
    pub replicas: Vec<String>,
    /// When secondary indexes are filled.
    pub indexes: IndexTiming,
    /// Whether a copy is made even where the server could do without.
    pub force_shadow: bool,
    /// How changes get into the log, where the server leaves a choice.
    pub capture: Capture,
}

/// The right to write for a run. A newer grip makes every older one void.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grip {
    /// The run.
    pub run_id: String,
    /// Grows with each take-over.
    pub epoch: u64,
}

/// An unfinished run as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRun {
    /// The run's fixed facts, as JSON of `RunSpec`.
    pub spec: String,
    /// Its checkpoint, encoded.
    pub checkpoint: String,
}

/// One line of the list of runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSummary {
    /// The run.
    pub run_id: String,
    /// Its table, as `schema.table`.
    pub table: String,
    /// "open", "done", "aborted", "failed".
    pub state: String,
    /// The statement.
    pub statement: String,
    /// The checkpoint, encoded.
    pub checkpoint: String,
    /// Begin, as the server wrote it (UTC).
    pub created_at: String,
    /// Last sign of life, as the server wrote it (UTC).
    pub updated_at: String,
    /// Seconds since the last sign of life, by the server's clock.
    pub silent_s: u64,
    /// Whether a runner holds the table's lock now.
    pub running: bool,
}
