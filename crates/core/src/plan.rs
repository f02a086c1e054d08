//! The checked request: everything about a run that stays the same while it runs.
//!
//! Made once at preflight and stored with the run, so that a resumed run, `abort` and `status` work
//! from the same facts.

use serde::{Deserialize, Serialize};

use crate::finding::Finding;
use crate::mapping::{KeySpec, Mapping};
use crate::way::Way;

/// The names of everything that a run makes, unquoted, all in the source's schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// The table in the new shape, until the swap.
    pub shadow: String,
    /// The change log.
    pub log: String,
    /// The old table, after the swap.
    pub retired: String,
    /// Capture triggers: insert, update, delete.
    pub triggers: [String; 3],
    /// The change log of the new table after the swap, from which the way back is fed.
    #[serde(default)]
    pub return_log: String,
    /// Capture triggers of the new table: insert, update, delete.
    #[serde(default)]
    pub return_triggers: [String; 3],
    /// Fence triggers of the swap on servers that need one: insert, update, delete.
    pub fences: [String; 3],
}

/// In which order a run goes through its phases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flow {
    /// The copy goes by key ranges into a shadow whose unique indexes stand; the log is applied between
    /// rounds, up to the frontier.
    #[default]
    KeyRanges,
    /// The copy goes by physical blocks into a shadow without any index; the log is kept until the copy
    /// is done. Then `Settle`, the indexes, and only then application.
    Blocks,
}

/// How changes get into the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capture {
    /// A trigger for each row: the cheapest where a statement changes few rows.
    #[default]
    Row,
    /// A trigger for each statement, from the rows that it changed: for tables that are changed in bulk.
    Statement,
}

/// A run's fixed facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSpec {
    /// The run's id: lower-case letters and digits, unique on the server.
    pub run_id: String,
    /// Schema or database of the source.
    pub schema: String,
    /// The source's name.
    pub table: String,
    /// The user's statement, verbatim.
    pub statement: String,
    /// The statement with spacing and comments levelled, to tell whether two are the same.
    pub fingerprint: String,
    /// In which order the run goes through its phases.
    #[serde(default)]
    pub flow: Flow,
    /// How changes get into the log.
    #[serde(default)]
    pub capture: Capture,
    /// Which way these facts are for; those on record are for [`Way::Forward`].
    #[serde(default)]
    pub way: Way,
    /// Whether the run can be reverted after the swap: then changes of the new table are captured too.
    #[serde(default)]
    pub keeps_way_back: bool,
    /// Names of what the run makes.
    pub names: Names,
    /// What becomes of the columns.
    pub mapping: Mapping,
    /// The key that identifies rows.
    pub key: KeySpec,
    /// Definitions of indexes that are built after the copy, ready for `ADD`.
    pub deferred_indexes: Vec<String>,
    /// Columns of the shadow alone whose defaults differ at each draw. By key ranges a row keeps its first
    /// draw; by blocks it is drawn anew until the swap, before which nobody sees it.
    pub volatile_added: Vec<String>,
    /// Rows of the source by the server's estimate.
    pub rows_estimate: u64,
    /// Average bytes of a row by the server's estimate; 0 where unknown.
    pub row_bytes: u64,
}

/// How a change is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The server does it itself, without a copy and without a long lock.
    Native,
    /// A shadow table is copied and swapped.
    Shadow,
}

/// What `plan` shows and `run` carries out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// How the change is made.
    pub strategy: Strategy,
    /// What preflight saw.
    pub findings: Vec<Finding>,
    /// The run's facts; `None` where preflight refused before they could be gathered.
    pub spec: Option<RunSpec>,
    /// The server, as "MySQL 9.7.0 at 127.0.0.1:3306".
    pub server: String,
    /// Replicas that are watched.
    pub replicas: Vec<String>,
}
