//! The data that crosses the seam besides the core's own types.

use serde::{Deserialize, Serialize};
use underpin_core::alter::Alter;
use underpin_core::machine::Command;
use underpin_core::plan::Capture;
use underpin_core::statements::StatementStats;

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
    /// Whether the run is to be revertible after the swap.
    pub keeps_way_back: bool,
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
    /// End, as the server wrote it (UTC); `None` while it is open.
    pub ended_at: Option<String>,
    /// Seconds since the last sign of life, by the server's clock.
    pub silent_s: u64,
    /// Who began it and why, as JSON of [`Origin`]; empty for runs of older versions.
    pub origin: String,
    /// What its runner last published; empty where it has not.
    pub live: String,
    /// What was remembered when it was closed; empty before that.
    pub record: String,
    /// Whether a runner holds the table's lock now.
    pub running: bool,
}

/// An option as it was given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Its name, as `max-lag`.
    pub name: String,
    /// Its value as it was written, without passwords; empty for a flag.
    pub value: String,
}

/// Who began a run, why and how, and what the server's statistics said before it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// The person, as `user@machine`, as far as the program can tell.
    pub by: String,
    /// Version of the program.
    pub version: String,
    /// Why, in the person's words.
    pub reason: String,
    /// Where it is asked for.
    pub ticket: String,
    /// Who approved of it.
    pub approved_by: String,
    /// The options that were given.
    pub options: Vec<Given>,
    /// The server, as "MySQL 9.7.0 at 127.0.0.1:3306".
    pub server: String,
    /// The table's definition when the run began, as [`crate::Inspect::fingerprint`] tells it.
    pub fingerprint: Option<String>,
    /// The server's counters of the table's statements when the run began; `None` where it keeps none.
    pub before: Option<Vec<StatementStats>>,
}

/// An order to a run, as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// What is asked for.
    pub command: Command,
    /// Who asks: the account at the server, and the person as far as known.
    pub by: String,
    /// When, as the server wrote it (UTC).
    pub at: String,
    /// When the runner took it, likewise; `None` while it has not.
    pub taken_at: Option<String>,
}

/// A query of the user's that returns a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnQuery {
    /// The name of the signal.
    pub name: String,
    /// One statement that returns one row with one number.
    pub sql: String,
}
