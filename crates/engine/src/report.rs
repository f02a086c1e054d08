//! What the engine tells about a run while it goes on: one `Report` per event, ready to be written as
//! one line of JSON or shown to a person.
//!
//! Owns the shape of the reports, which is part of the program's interface (`--output json`): fields
//! are added, never renamed. Does not decide when something is reported, and prints nothing.

use serde::{Deserialize, Serialize};
use underpin_core::finding::Finding;
use underpin_core::plan::{Plan, Strategy};
use underpin_core::proof::Verdict;
use underpin_core::signal::Unit;
use underpin_core::statements::Comparison;
use underpin_core::way::Way;
use underpin_dialect::Given;

use crate::worst::Worst;

/// What a plan says, without the parts that only the program needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlanSummary {
    /// The run's id; `None` where preflight refused before there was one.
    pub run_id: Option<String>,
    /// The table as `schema.table`; `None` as above.
    pub table: Option<String>,
    /// The user's statement, verbatim; `None` as above.
    pub statement: Option<String>,
    /// How the change is made.
    pub strategy: Strategy,
    /// Rows of the table by the server's estimate; `None` as above.
    pub rows_estimate: Option<u64>,
    /// Average bytes of a row by the server's estimate; `None` where unknown.
    pub row_bytes: Option<u64>,
    /// The server, as "MySQL 9.7.0 at 127.0.0.1:3306".
    pub server: String,
    /// Replicas that are watched.
    pub replicas: Vec<String>,
    /// What preflight saw.
    pub findings: Vec<Finding>,
    /// Whether a finding refuses the run.
    pub refused: bool,
}

impl PlanSummary {
    /// The summary of a plan.
    pub fn of(plan: &Plan) -> Self {
        let spec = plan.spec.as_ref();
        Self {
            run_id: spec.map(|spec| spec.run_id.clone()),
            table: spec.map(|spec| format!("{}.{}", spec.schema, spec.table)),
            statement: spec.map(|spec| spec.statement.clone()),
            strategy: plan.strategy,
            rows_estimate: spec.map(|spec| spec.rows_estimate),
            row_bytes: spec.map(|spec| spec.row_bytes).filter(|bytes| *bytes > 0),
            server: plan.server.clone(),
            replicas: plan.replicas.clone(),
            findings: plan.findings.clone(),
            refused: underpin_core::finding::is_refused(&plan.findings),
        }
    }
}

/// How this program left a run that is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StoppedAs {
    /// On request; the same command goes on.
    Interrupted,
    /// On request; nothing of the run is left.
    Aborted,
    /// A turn was left before its swap; the table that was live stays, and the run is open.
    Stayed,
}

/// A signal as it was last read, with what is too much of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SignalView {
    /// What is measured, as "lag".
    pub name: String,
    /// Whose it is, as "db2:3306"; empty for the server that is changed.
    pub of: String,
    /// How it was read, as "heartbeat".
    pub source: String,
    /// What the number means.
    pub unit: Unit,
    /// The number; `None` where it could not be read, which counts as the worst.
    pub value: Option<f64>,
    /// The copy stops at this value; `None` where there is no limit.
    pub limit: Option<f64>,
    /// The run is aborted at this value; `None` where there is no such limit.
    pub critical: Option<f64>,
    /// How old the reading is.
    pub age_ms: u64,
    /// Why it could not be read, or what else was said with it; empty otherwise.
    pub error: String,
}

/// Time spent waiting for one kind of reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// The kind, as "lag", "asked", "window".
    pub kind: String,
    /// Milliseconds in all.
    pub ms: u64,
}

/// How a set of times is spread, in milliseconds, roughly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half of them were not above this.
    pub p50: u64,
    /// Ninety-five of a hundred.
    pub p95: u64,
    /// Ninety-nine of a hundred.
    pub p99: u64,
    /// All of them.
    pub max: u64,
}

/// How far a run is just now, and how those around it fare.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Figures {
    /// The phase.
    pub phase: String,
    /// Rows copied so far.
    pub rows_copied: u64,
    /// Rows of the table by the server's estimate when the run began.
    pub rows_estimate: u64,
    /// Rows found equal so far.
    pub rows_verified: u64,
    /// Log entries waiting, roughly.
    pub backlog: u64,
    /// Rows a second of late; `None` while unknown.
    pub rows_per_s: Option<u64>,
    /// Seconds left of the copy; `None` while unknown or after it.
    pub eta_s: Option<u64>,
    /// Worst lag of a replica; `None` where one cannot be read.
    pub lag_ms: Option<u64>,
    /// Milliseconds the last chunk took.
    pub chunk_ms: u64,
    /// Changes of the application captured so far, roughly.
    pub captured: u64,
    /// Rows made equal because of them so far.
    pub applied: u64,
    /// Why the run waits; `None` where it does not.
    pub waiting: Option<String>,
    /// The kind of that reason, as "lag"; `None` where it does not wait.
    pub waiting_kind: Option<String>,
    /// Milliseconds that it has waited now; 0 where it does not.
    pub waiting_ms: u64,
    /// At the better pace of late: `eta_s` at least.
    pub eta_low_s: Option<u64>,
    /// At the worse pace of late: `eta_s` at most.
    pub eta_high_s: Option<u64>,
    /// Bytes copied so far, by the server's estimate of a row.
    pub bytes_copied: u64,
    /// Chunks that may be under way side by side just now.
    pub workers: u32,
    /// All signals as they were last read.
    pub signals: Vec<SignalView>,
}

/// What a finished run did. Times in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The run.
    pub run_id: String,
    /// The table as `schema.table`.
    pub table: String,
    /// Rows copied by chunks.
    pub rows_copied: u64,
    /// Chunks that committed.
    pub chunks: u64,
    /// Chunks that met a pending unique value and were taken together with the log.
    pub chunks_redone: u64,
    /// Changes of the application that were captured.
    pub changes_captured: u64,
    /// Rows that were made equal because of them.
    pub changes_applied: u64,
    /// Changes that another change of the same row made needless.
    pub changes_collapsed: u64,
    /// Changes dropped because their rows were still to be copied.
    pub changes_dropped: u64,
    /// Rows of the source found equal before the swap.
    pub rows_verified: u64,
    /// Rows that the comparison found different and had written once more.
    #[serde(default)]
    pub rows_repaired: u64,
    /// The verdict.
    pub verified: Verdict,
    /// How long the swap held up the application; `None` where the swap was seen only after a restart
    /// or a lost connection.
    pub swap_stall_ms: Option<u64>,
    /// Swaps tried.
    pub swap_attempts: u64,
    /// Worst lag of a replica that this program saw; `None` without replicas.
    pub lag_ms_max: Option<u64>,
    /// Time this program worked on the run.
    pub took_ms: u64,
    /// The old table as `schema.table`, where it was kept.
    pub retired: Option<String>,
    /// Bytes copied, by the server's estimate of a row; 0 where it has none.
    pub bytes_copied: u64,
    /// Times of the chunks that committed.
    pub chunk_ms: Percentiles,
    /// Time spent waiting, the longest first.
    pub waits: Vec<Wait>,
    /// The worst that was read of each signal.
    pub worst: Vec<Worst>,
}

/// One event of a run. `at_ms`: milliseconds since this program began to work on it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Report {
    /// Preflight is done. Sent by whoever planned, not by the engine.
    Plan {
        /// Time.
        at_ms: u64,
        /// What it says.
        #[serde(flatten)]
        plan: PlanSummary,
    },
    /// The run is recorded and begins.
    RunStarted {
        /// Time.
        at_ms: u64,
        /// The run.
        run_id: String,
        /// The table as `schema.table`.
        table: String,
        /// The statement, verbatim.
        statement: String,
        /// Who began it, as "user@machine".
        by: String,
        /// Why, in that person's words; empty where it was not said.
        reason: String,
        /// Where it is asked for; empty likewise.
        ticket: String,
        /// Who approved of it; empty likewise.
        approved_by: String,
        /// The options that were given.
        options: Vec<Given>,
    },
    /// An unfinished run goes on.
    RunResumed {
        /// Time.
        at_ms: u64,
        /// The run.
        run_id: String,
        /// The table as `schema.table`.
        table: String,
        /// Where it goes on, as "copy".
        phase: String,
        /// Rows that earlier work has copied.
        rows_copied: u64,
    },
    /// A phase began, as "copy".
    Phase {
        /// Time.
        at_ms: u64,
        /// The phase.
        phase: String,
    },
    /// How far the run is; about once a second.
    Progress {
        /// Time.
        at_ms: u64,
        /// The figures.
        #[serde(flatten)]
        figures: Figures,
    },
    /// Nothing new is begun for now.
    Paused {
        /// Time.
        at_ms: u64,
        /// Why.
        reason: String,
        /// The kind of reason: "asked", "lag", another signal's name, "window", "swap", "lock", "other".
        kind: String,
    },
    /// The run goes on after a pause.
    Resumed {
        /// Time.
        at_ms: u64,
        /// How long it waited.
        paused_ms: u64,
        /// The kind of reason for which it began to wait.
        kind: String,
    },
    /// Somebody's order was taken.
    Ordered {
        /// Time.
        at_ms: u64,
        /// What was asked for, as "pause" or "set max-lag=3s".
        command: String,
        /// Who asked.
        by: String,
        /// When, as the server wrote it (UTC); empty where it came from this program.
        ordered_at: String,
    },
    /// A command that was to be told of an event failed.
    HookFailed {
        /// Time.
        at_ms: u64,
        /// The event that it was to be told of, as "ready".
        hook: String,
        /// How it failed.
        why: String,
    },
    /// The server's statistics of the table's statements were compared: before the run, after the swap.
    Statements {
        /// Time.
        at_ms: u64,
        /// Milliseconds after the swap over which "after" was read.
        after_ms: u64,
        /// What came of it.
        #[serde(flatten)]
        comparison: Comparison,
    },
    /// The comparison found rows that differ. They are written once more; where that does not help, the run
    /// stops.
    Different {
        /// Time.
        at_ms: u64,
        /// How many, in one range.
        differences: u64,
        /// Some of them, with their keys.
        samples: Vec<String>,
    },
    /// A statement was rolled back by the server (deadlock, lock time-out) and is tried again.
    Retrying {
        /// Time.
        at_ms: u64,
        /// What, as "copying a chunk".
        what: String,
        /// What the server said.
        why: String,
    },
    /// A connection or an answer was lost; everything is connected anew and looked up.
    Reconnecting {
        /// Time.
        at_ms: u64,
        /// What happened.
        why: String,
        /// Tries so far, from 1.
        attempt: u32,
    },
    /// A lock on the live table was not had in time; everybody was let through, and it is tried again.
    LockTry {
        /// Time.
        at_ms: u64,
        /// Tries so far, from 1.
        attempt: u32,
        /// Who held it, as far as could be seen.
        why: String,
    },
    /// The new table stands in the old one's place.
    Swap {
        /// Time.
        at_ms: u64,
        /// How long the application was held up.
        stall_ms: u64,
        /// Log entries applied under the lock.
        drained: u64,
        /// Swaps tried.
        attempts: u64,
    },
    /// The change is made and the run is closed.
    Done {
        /// Time.
        at_ms: u64,
        /// What it did.
        #[serde(flatten)]
        summary: Summary,
    },
    /// The swap is made and can be taken back; the run stays open.
    Revertible {
        /// Time.
        at_ms: u64,
        /// Which table is live: `forward` the new one, `back` the old one.
        stands: Way,
        /// What it did.
        #[serde(flatten)]
        summary: Summary,
    },
    /// The server made the change by itself; there was no run. Sent by whoever asked for it.
    Altered {
        /// Time.
        at_ms: u64,
        /// The table as the statement names it.
        table: String,
        /// Tries for the lock.
        tries: u32,
        /// Milliseconds of the statement that made it.
        took_ms: u64,
    },
    /// This program stopped before the change was made.
    Stopped {
        /// Time.
        at_ms: u64,
        /// How.
        ending: StoppedAs,
        /// The run.
        run_id: String,
        /// Where it was, as "copy".
        phase: String,
        /// Rows copied so far.
        rows_copied: u64,
        /// Why, where nobody asked for it, as a load that was critical; empty otherwise.
        why: String,
    },
    /// Something went wrong for good. Sent by whoever prints the error, not by the engine.
    Error {
        /// Time.
        at_ms: u64,
        /// Its nature, as the error's `kind()` names it.
        kind: String,
        /// The whole sentence for the user.
        message: String,
    },
}

#[cfg(test)]
pub(crate) mod tests;
