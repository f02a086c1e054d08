//! What of ours stands on a server, and by what it is known.

use std::future::Future;

use serde::{Deserialize, Serialize};

use crate::DbResult;

/// What a left-over is. In the order in which they can be removed: what writes into a log goes before the
/// log does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftoverKind {
    /// A trigger, on a table that may be in use.
    Trigger,
    /// A function that only our triggers call.
    Function,
    /// The sentry of a swap that was interrupted.
    Sentry,
    /// A table in the new shape that was being filled.
    Shadow,
    /// A change log.
    ChangeLog,
    /// A return log.
    ReturnLog,
    /// What a run noted for itself beside its tables.
    Notes,
    /// The empty table on which a statement was judged.
    Scratch,
    /// The old table, kept after the swap.
    Retired,
    /// A schema that a run made.
    Schema,
    /// Rows of our own state that belong to no run on record.
    StateRows,
    /// An open run of which nothing stands on the server.
    Record,
}

/// What is on record of the run that a left-over belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftoverRun {
    /// "open", "done", "aborted", "failed".
    pub state: String,
    /// Whether a runner holds its table's lock now.
    pub running: bool,
    /// Who began it: the person where that is on record, else the account.
    pub by: String,
    /// Begin, as the server wrote it (UTC).
    pub created_at: String,
}

/// One thing of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// What it is.
    pub kind: LeftoverKind,
    /// Schema or database that it stands in.
    pub schema: String,
    /// Its own name; for rows of our state the table that they are in.
    pub name: String,
    /// The table that it was made for or stands on, as `schema.table`; empty where that cannot be told.
    pub table: String,
    /// Schema of that table, and its name, for the runner's lock.
    pub lock: Option<(String, String)>,
    /// The run; empty where it cannot be told.
    pub run_id: String,
    /// The run as it is on record; `None` where it is not, or this account cannot see it.
    pub run: Option<LeftoverRun>,
    /// By what it is known as ours; empty where nothing proves it.
    pub proof: String,
    /// Bytes on disk, as far as the server tells.
    pub bytes: Option<u64>,
    /// Rows, by the server's estimate.
    pub rows: Option<u64>,
    /// Seconds since the run was begun, or since the object was made where no run is on record.
    pub age_s: Option<u64>,
}

/// Finds and removes what is left over of runs.
pub trait Leftovers {
    /// Everything of ours that this account can see, in any order.
    fn leftovers(&mut self) -> impl Future<Output = DbResult<Vec<Leftover>>> + Send;

    /// Removes one thing that is proven ours and belongs to no open run: whether it is and does the caller
    /// has looked up anew under the runner's lock of its table. Idempotent.
    ///
    /// # Errors
    /// `LockNotHad` where it stands on a table that is in use; `Refused` where something still needs it.
    fn remove_leftover(&mut self, leftover: &Leftover)
    -> impl Future<Output = DbResult<()>> + Send;
}
