//! The seam between the engine and the databases: small traits, their data, one error. No
//! implementation.
//!
//! Three kinds of connection stand behind it, because a statement that runs on one must never hold up
//! another: one [`Control`] (definitions, run state, swap), several [`Worker`]s (copy, apply, verify)
//! and one [`Probe`] (lag, backlog, requests). A dialect crate implements one trait a file.
//!
//! Every answer is three-valued: a value (it happened), an error that `is_ambiguous()` (the server may
//! have acted: look first), any other error (it did not happen).

mod error;
mod leftovers;
pub mod points;
mod request;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use underpin_core::checkpoint::Checkpoint;
use underpin_core::key::{Chunk, Frontier, Key, KeyRange};
use underpin_core::machine::{Applied, Command, Observed};
use underpin_core::plan::{Plan, RunSpec};
use underpin_core::signal::Reading;
use underpin_core::statements::StatementStats;

pub use error::{DbError, DbResult, ErrorKind};
pub use leftovers::{Leftover, LeftoverKind, LeftoverRun, Leftovers};
pub use request::{
    Given, Grip, IndexTiming, Order, Origin, OwnQuery, Request, RunSummary, StoredRun,
};

/// A database server that can be connected to.
pub trait Database: Send + Sync + 'static {
    /// Its control connection.
    type Control: Control;
    /// Its worker connection.
    type Worker: Worker;
    /// Its probe connection.
    type Probe: Probe;

    /// Opens a control connection and proves that it talks to the expected server.
    fn control(&self) -> impl Future<Output = DbResult<Self::Control>> + Send;

    /// Opens a worker for this run. Everything it commits is void once the grip is stale.
    fn worker(
        &self,
        spec: &Arc<RunSpec>,
        grip: &Grip,
    ) -> impl Future<Output = DbResult<Self::Worker>> + Send;

    /// Opens the probe of this run.
    fn probe(&self, spec: &Arc<RunSpec>) -> impl Future<Output = DbResult<Self::Probe>> + Send;

    /// Cancels what the session runs and returns only when the server has shown that it ended.
    ///
    /// # Errors
    /// The proof could not be had; then the outcome is unknown.
    fn cancel(&self, session: u64) -> impl Future<Output = DbResult<()>> + Send;

    /// Ends a session of ours altogether, so that its transaction and its locks are gone when this
    /// returns. For sessions whose connection was lost: the server may not have noticed yet.
    ///
    /// # Errors
    /// The proof could not be had.
    fn end(&self, session: u64) -> impl Future<Output = DbResult<()>> + Send {
        self.cancel(session)
    }
}

/// What the control connection can do.
pub trait Control: Inspect + Store + Shadow + Swap + Leftovers + Send + 'static {}

/// What a worker can do.
pub trait Worker: Copy + ChangeLog + Verify + Send + 'static {
    /// The server's id of this session, for [`Database::cancel`].
    fn session(&self) -> u64;

    /// Has the server gather statistics of the shadow and note which of its pages everybody can see. Only
    /// where the copy goes by blocks. Changes no row, and may be done at any time and twice.
    fn tidy(&mut self) -> impl Future<Output = DbResult<()>> + Send {
        std::future::ready(Ok(()))
    }
}

/// Looks, and changes nothing that anybody uses.
pub trait Inspect {
    /// The server in words, as "MySQL 9.7.4 at 127.0.0.1:3306".
    fn server(&self) -> String;

    /// Checks the request and plans it. Findings that refuse it are in the plan, not errors.
    ///
    /// An empty scratch table may be made to let the server judge the statement; it is gone when this
    /// returns.
    fn plan(&mut self, request: &Request) -> impl Future<Output = DbResult<Plan>> + Send;

    /// The time that a statement which does nothing takes to the server and back: the shortest of a few.
    fn round_trip(&mut self) -> impl Future<Output = DbResult<Duration>> + Send;

    /// The server's own counters of the statements that touch the table; `None` where it keeps none,
    /// or where this account may not read them.
    fn statements(
        &mut self,
        schema: &str,
        table: &str,
    ) -> impl Future<Output = DbResult<Option<Vec<StatementStats>>>> + Send {
        let _ = (schema, table);
        std::future::ready(Ok(None))
    }

    /// A short hash of the table's definition as the catalogue shows it, to tell by and by whether it is
    /// still the same; `None` where this dialect makes none.
    fn fingerprint(
        &mut self,
        schema: &str,
        table: &str,
    ) -> impl Future<Output = DbResult<Option<String>>> + Send {
        let _ = (schema, table);
        std::future::ready(Ok(None))
    }
}

/// Keeps the state of runs in the database that is changed.
pub trait Store {
    /// Takes the lock that makes this the only runner of the table; it vanishes with the session.
    ///
    /// # Errors
    /// `Fenced` where another runner holds it.
    fn acquire(&mut self, schema: &str, table: &str) -> impl Future<Output = DbResult<()>> + Send;

    /// The unfinished run of the table, if there is one. Works where nothing of ours exists yet.
    fn open_run(
        &mut self,
        schema: &str,
        table: &str,
    ) -> impl Future<Output = DbResult<Option<StoredRun>>> + Send;

    /// Records a new run.
    fn create_run(
        &mut self,
        spec: &RunSpec,
        checkpoint: &Checkpoint,
        origin: &Origin,
    ) -> impl Future<Output = DbResult<()>> + Send;

    /// Makes every older grip of the run void, waiting until whatever it had in flight has ended.
    fn take_over(&mut self, run_id: &str) -> impl Future<Output = DbResult<Grip>> + Send;

    /// Makes a checkpoint durable.
    ///
    /// # Errors
    /// `Fenced` where the grip is stale.
    fn save(
        &mut self,
        grip: &Grip,
        checkpoint: &Checkpoint,
    ) -> impl Future<Output = DbResult<()>> + Send;

    /// Closes the run with a result, as "done" or "aborted", and what is to be remembered of it (JSON
    /// of the engine's own; empty: nothing).
    fn close_run(
        &mut self,
        run_id: &str,
        result: &str,
        record: &str,
    ) -> impl Future<Output = DbResult<()>> + Send;

    /// Leaves an order for the runner of a run, with who gave it (the account at the server, and `by`).
    fn request(
        &mut self,
        run_id: &str,
        command: &Command,
        by: &str,
    ) -> impl Future<Output = DbResult<()>> + Send;

    /// Takes all orders of a run that nobody has taken, so that no later runner meets them. Returns how
    /// many orders were given to the run in all.
    fn answer(&mut self, run_id: &str) -> impl Future<Output = DbResult<usize>> + Send;

    /// All orders that were given to a run, oldest first.
    fn orders(&mut self, run_id: &str) -> impl Future<Output = DbResult<Vec<Order>>> + Send;

    /// All runs known to the server, newest first, at most 100; of one table where one is named.
    fn runs(
        &mut self,
        of: Option<(&str, &str)>,
    ) -> impl Future<Output = DbResult<Vec<RunSummary>>> + Send;
}

/// Makes and removes what a run needs.
pub trait Shadow {
    /// Makes shadow, change log and capture triggers, and notes the source's identity. Idempotent.
    ///
    /// Where the copy goes by blocks it is called again after `Truncated`: then it makes all of them
    /// anew, the log too, and the end of the copy is fixed anew.
    ///
    /// # Errors
    /// `LockNotHad` where the triggers could not be installed within the lock time-out.
    fn prepare(&mut self, spec: &RunSpec) -> impl Future<Output = DbResult<()>> + Send;

    /// Checks that the source is the same table and that its triggers stand.
    ///
    /// # Errors
    /// `SourceChanged`, saying what changed.
    fn check_source(&mut self, spec: &RunSpec) -> impl Future<Output = DbResult<()>> + Send;

    /// Builds the indexes that were left out of the copy; those that stand already are kept.
    fn build_indexes(&mut self, spec: &RunSpec) -> impl Future<Output = DbResult<()>> + Send;

    /// Has the server make the whole change by itself, in an instant, or refuse: it neither copies nor
    /// holds a long lock. For plans whose strategy is `Native`.
    ///
    /// # Errors
    /// `LockNotHad` where the lock was not had in time; nothing happened then.
    fn alter_natively(&mut self, spec: &RunSpec) -> impl Future<Output = DbResult<()>> + Send;

    /// What is on the server: marks of the checkpoint's round, and which table bears which name.
    fn observe(
        &mut self,
        spec: &RunSpec,
        checkpoint: &Checkpoint,
    ) -> impl Future<Output = DbResult<Observed>> + Send;

    /// Right after a swap that keeps the way back, in either direction: applies what was committed to the
    /// retired table at the last moment, makes valid what the swap left for later, notes the identity of
    /// the table that is live now. Idempotent; removes nothing that the way back needs.
    ///
    /// # Errors
    /// `LockNotHad` as for `finish`.
    fn arrive(&mut self, spec: &RunSpec) -> impl Future<Output = DbResult<()>> + Send;

    /// After the swap: removes triggers and log, and the retired table unless it is kept. Idempotent.
    fn finish(
        &mut self,
        spec: &RunSpec,
        keep_retired: bool,
    ) -> impl Future<Output = DbResult<()>> + Send;

    /// Before the swap: removes everything of the run. Idempotent.
    fn abort(&mut self, spec: &RunSpec) -> impl Future<Output = DbResult<()>> + Send;

    /// The session that a long statement of this connection runs in, for [`Database::cancel`].
    fn control_session(&self) -> u64;
}

/// The chunks of the copy.
pub trait Copy {
    /// Bounds of up to `chunks_max` chunks of about `chunk_rows` rows behind `after`, and whether they
    /// reach the end.
    ///
    /// Where the copy goes by blocks a bound is one number of a block, exclusive above: a chunk is the
    /// blocks `[after, up_to)`, and no upper bound means the end that was fixed when the run was
    /// prepared.
    fn plan_chunks(
        &mut self,
        after: Option<&Key>,
        chunk_rows: u64,
        chunks_max: u32,
    ) -> impl Future<Output = DbResult<(Vec<Chunk>, bool)>> + Send;

    /// Copies a chunk and marks it done in one transaction. Returns the rows written.
    ///
    /// # Errors
    /// `DuplicateKey`: rolled back; the caller takes it again with [`Copy::copy_with_pending`].
    fn copy_chunk(
        &mut self,
        round: u64,
        chunk: &Chunk,
    ) -> impl Future<Output = DbResult<u64>> + Send;

    /// Copies a chunk together with everything pending, in one snapshot and one transaction.
    ///
    /// # Errors
    /// `DuplicateKey`: a real violation of the new shape; the message names rows.
    fn copy_with_pending(
        &mut self,
        round: u64,
        chunk: &Chunk,
        frontier: &Frontier,
    ) -> impl Future<Output = DbResult<(u64, Applied)>> + Send;
}

/// The log of changed keys.
pub trait ChangeLog {
    /// Makes the shadow's rows of pending keys equal to the source's, in one snapshot.
    ///
    /// Entries beyond `frontier` are dropped. Never waits for a writer.
    ///
    /// # Errors
    /// `DuplicateKey`: a real violation of the new shape; the message names rows. `Truncated`: the
    /// marker of a `TRUNCATE` is among the entries.
    fn apply(
        &mut self,
        frontier: &Frontier,
        keys_max: u64,
    ) -> impl Future<Output = DbResult<Applied>> + Send;

    /// As [`ChangeLog::apply`], and the rows of all other pending keys are removed from the shadow in the
    /// same transaction, so that what is left is part of one consistent state.
    ///
    /// Only where the copy goes by ranges of keys; called when it is done and before indexes are built.
    ///
    /// # Errors
    /// As for [`ChangeLog::apply`].
    fn apply_and_clear(
        &mut self,
        frontier: &Frontier,
        keys_max: u64,
    ) -> impl Future<Output = DbResult<Applied>> + Send;

    /// Takes every row whose key is pending out of the shadow, and keeps those keys as pending until
    /// `apply` has written them. Returns the rows removed. What is pending is told by one snapshot;
    /// deleting may take several transactions. Cut off anywhere, it is done again from the start.
    ///
    /// Only where the copy goes by blocks; called when it is done and before the indexes are built.
    ///
    /// # Errors
    /// `Truncated` as for [`ChangeLog::apply`].
    fn settle(&mut self) -> impl Future<Output = DbResult<u64>> + Send {
        std::future::ready(Ok(0))
    }
}

/// What the comparison of a range found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeReport {
    /// Rows of the source in the range.
    pub rows: u64,
    /// Keys that differ although nothing of theirs is pending.
    pub differences: u64,
    /// A few of them in words.
    pub samples: Vec<String>,
}

/// The proof that source and shadow hold the same rows.
pub trait Verify {
    /// Bounds of up to `ranges_max` ranges of about `range_rows` rows behind `after`, and whether they
    /// reach the end; always by key.
    fn plan_ranges(
        &mut self,
        after: Option<&Key>,
        range_rows: u64,
        ranges_max: u32,
    ) -> impl Future<Output = DbResult<(Vec<Chunk>, bool)>> + Send
    where
        Self: Send,
    {
        let within = KeyRange { after: after.cloned(), up_to: None };
        async move { self.plan_ranges_within(&within, range_rows, ranges_max).await }
    }

    /// The same for a part of the table, to its end.
    fn plan_ranges_within(
        &mut self,
        within: &KeyRange,
        range_rows: u64,
        ranges_max: u32,
    ) -> impl Future<Output = DbResult<(Vec<Chunk>, bool)>> + Send;

    /// Compares a range in one snapshot, without locks.
    fn verify_range(&mut self, range: &Chunk)
    -> impl Future<Output = DbResult<RangeReport>> + Send;

    /// Logs the keys of the range that differ; returns how many, and the entries now in the log.
    fn repair(&mut self, range: &Chunk) -> impl Future<Output = DbResult<(u64, u64)>> + Send;
}

/// How a try of the swap ended, where that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SwapOutcome {
    /// The shadow stands in the source's place.
    Swapped {
        /// How long the application was held up, in milliseconds.
        stall_ms: u64,
        /// Entries applied under the lock.
        drained: u64,
    },
    /// The log could not be drained within the budget; everybody was let through.
    DrainTooSlow {
        /// Entries applied within the budget.
        drained: u64,
    },
}

/// The atomic exchange of source and shadow.
pub trait Swap {
    /// Tries once, holding up the application for the lock time-out and the budget at most.
    ///
    /// # Errors
    /// `LockNotHad` names who holds the table. `SourceChanged`, `Ambiguous` as everywhere.
    fn try_swap(
        &mut self,
        spec: &Arc<RunSpec>,
        grip: &Grip,
        budget_ms: u64,
    ) -> impl Future<Output = DbResult<SwapOutcome>> + Send;
}

/// Reads how the servers around us fare, and what people ask for.
pub trait Probe: Send + 'static {
    /// All signals of the servers around the run: lag of every replica, load and write latency of the
    /// server itself, and the user's own queries. What cannot be read is in the list with its error;
    /// what the server does not have is left out.
    ///
    /// # Errors
    /// The connection to the server itself is lost; then none of them is known.
    fn signals(&mut self, own: &[OwnQuery]) -> impl Future<Output = DbResult<Vec<Reading>>> + Send;

    /// Log entries waiting, roughly.
    fn backlog(&mut self) -> impl Future<Output = DbResult<u64>> + Send;

    /// The orders that were left for this run since the last call, oldest first. They stay on record
    /// with the time at which they were taken. Also a sign of life.
    fn requested(&mut self) -> impl Future<Output = DbResult<Vec<Order>>> + Send;

    /// Makes known how the run fares, for `underpin status` elsewhere: JSON of the engine's own.
    fn publish(&mut self, live: &str) -> impl Future<Output = DbResult<()>> + Send;
}
