//! Why work on a run ended without its goal, and the exit codes that follow.
//!
//! Exit codes: 0 done · 1 failed safely · 2 usage (the command line's own) · 3 refused · 4 ambiguous, a
//! person must look · 5 verification found a difference · 6 the lock was not had · 130 interrupted.

use underpin_core::checkpoint::CheckpointError;
use underpin_core::machine::{Failure, FailureKind};
use underpin_core::turn::CannotTurn;
use underpin_dialect::{DbError, ErrorKind};

use crate::steer::DeadRun;

/// The result of the engine's functions.
pub type EngineResult<T> = Result<T, EngineError>;

/// Why it did not work. Display prints what happened and what to do next.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The machine stopped the run; it stays open, to be resumed once the cause is mended.
    #[error("{}. {}", failure.message, after_failure(*.swapped, table))]
    Failed {
        /// Why.
        failure: Failure,
        /// Whether the swap had been made, so that the change is there.
        swapped: bool,
        /// The table as `schema.table`.
        table: String,
    },
    /// The database refused or failed outside the machine's steps.
    #[error("{0}")]
    Db(#[from] DbError),
    /// Another runner works on the table, or has taken this run over.
    #[error(
        "another runner works on {table}: {why}. If it is dead, wait until the server has noticed, and \
         run the same command again"
    )]
    Fenced {
        /// The table as `schema.table`.
        table: String,
        /// What the store said.
        why: String,
    },
    /// An unfinished run of another statement stands in the way.
    #[error(
        "{table} has an unfinished run ({run_id}) of another statement.\n  unfinished: {unfinished}\n  \
         requested:  {requested}\nSee it with `underpin status`, go on with it by running its own \
         statement, or remove it with `underpin abort URL {table}`"
    )]
    OtherRun {
        /// The table as `schema.table`.
        table: String,
        /// The run in the way.
        run_id: String,
        /// Its statement.
        unfinished: String,
        /// The statement now asked for.
        requested: String,
    },
    /// The table has no unfinished run.
    #[error("{table} has no unfinished run; `underpin status` lists the runs of this server")]
    NoRun {
        /// The table as `schema.table`.
        table: String,
    },
    /// The run stands where its tables cannot be compared.
    #[error("{table}: nothing can be compared in phase {phase}: {why}")]
    NothingToCompare {
        /// The table as `schema.table`.
        table: String,
        /// The run's phase.
        phase: String,
        /// Why not.
        why: String,
    },
    /// The run exchanged or removed its tables while they were compared.
    #[error(
        "the run of {table} went on to {phase} while its tables were compared: {rows} rows had been looked \
         at by then. What the run itself compared is in `underpin history`"
    )]
    MovedOn {
        /// The table as `schema.table`.
        table: String,
        /// Where it is now.
        phase: String,
        /// Rows that were looked at before.
        rows: u64,
    },
    /// The run was closed while we worked on it, by somebody else.
    #[error("run {run_id} of {table} was closed meanwhile by another program")]
    Closed {
        /// The table as `schema.table`.
        table: String,
        /// The run.
        run_id: String,
    },
    /// The database could not be reached again in time.
    #[error(
        "the connection was lost and could not be made again within {waited_s} s: {why}. {}",
        after_loss(*.swap_in_flight)
    )]
    Unreachable {
        /// How long it was tried, in seconds.
        waited_s: u64,
        /// The last error.
        why: String,
        /// Whether a try of the swap was under way, whose outcome is not known.
        swap_in_flight: bool,
    },
    /// The swap was made: there is nothing to abort any more.
    #[error(
        "{table} has been swapped already: the change is made. Where the way back is kept, `underpin \
         revert` takes it back; `underpin finish` removes what is left over"
    )]
    TooLate {
        /// The table as `schema.table`.
        table: String,
    },
    /// The run does not stand so that it could be turned.
    #[error("{table}: {why}")]
    CannotTurn {
        /// The table as `schema.table`.
        table: String,
        /// Why not.
        why: CannotTurn,
    },
    /// What the server shows cannot be told apart safely.
    #[error("what the server did cannot be told: {why}; a person must look before anything else")]
    Unclear {
        /// What was seen.
        why: String,
    },
    /// The runner was asked to abort and did not do so in time.
    #[error(
        "the runner of {table} was asked to abort but had not done so after {waited_s} s: it may be in \
         a long statement; look again with `underpin status`"
    )]
    NotYetAborted {
        /// The table as `schema.table`.
        table: String,
        /// How long it was waited, in seconds.
        waited_s: u64,
    },
    /// Nobody works on the run, so that nobody would take an order.
    #[error(
        "no program works on {}: its last sign of life was {} (UTC), {} s ago. Run the same \
         `underpin run` again to go on",
        .0.status.table, .0.status.updated_at, .0.status.silent_s
    )]
    NoRunner(Box<DeadRun>),
    /// The runner has not taken an order in time; it will if it lives.
    #[error(
        "the order was left for the runner of {table}, which has not taken it within {waited_s} s: look \
         with `underpin status` whether it is alive"
    )]
    NotTaken {
        /// The table as `schema.table`.
        table: String,
        /// How long it was waited, in seconds.
        waited_s: u64,
    },
    /// The stored state of the run cannot be read.
    #[error("{0}")]
    Checkpoint(#[from] CheckpointError),
    /// The stored facts of the run cannot be read.
    #[error("the record of the run of {table} is damaged: {why}; abort the run and start it again")]
    Record {
        /// The table as `schema.table`.
        table: String,
        /// What is wrong with it.
        why: String,
    },
    /// A fault of this program.
    #[error("internal fault: {0}; the run can be resumed with the same command")]
    Internal(String),
}

impl EngineError {
    /// The exit code that tells a script what happened.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed { failure, .. } => match failure.kind {
                FailureKind::Ambiguous => 4,
                FailureKind::Different => 5,
                FailureKind::LockNotHad => 6,
                FailureKind::Violation
                | FailureKind::SourceChanged
                | FailureKind::Truncated
                | FailureKind::Other => 1,
            },
            Self::Db(error) => match error.kind {
                ErrorKind::Ambiguous => 4,
                ErrorKind::LockNotHad => 6,
                ErrorKind::Refused
                | ErrorKind::AccessDenied
                | ErrorKind::NotFound
                | ErrorKind::ReadOnly
                | ErrorKind::Fenced => 3,
                _ => 1,
            },
            Self::Unreachable { swap_in_flight: true, .. } | Self::Unclear { .. } => 4,
            Self::Fenced { .. }
            | Self::OtherRun { .. }
            | Self::NoRun { .. }
            | Self::NoRunner(_)
            | Self::NothingToCompare { .. }
            | Self::MovedOn { .. }
            | Self::CannotTurn { .. }
            | Self::TooLate { .. } => 3,
            Self::Unreachable { .. }
            | Self::Closed { .. }
            | Self::NotYetAborted { .. }
            | Self::NotTaken { .. }
            | Self::Checkpoint(_)
            | Self::Record { .. }
            | Self::Internal(_) => 1,
        }
    }

    /// A stable short name, for programs that read the reports.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Failed { failure, .. } => match failure.kind {
                FailureKind::Violation => "violation",
                FailureKind::SourceChanged => "source_changed",
                FailureKind::Truncated => "truncated",
                FailureKind::Different => "different",
                FailureKind::LockNotHad => "lock_not_had",
                FailureKind::Ambiguous => "ambiguous",
                FailureKind::Other => "failed",
            },
            Self::Db(_) => "database",
            Self::Fenced { .. } => "fenced",
            Self::OtherRun { .. } => "other_run",
            Self::NoRun { .. } => "no_run",
            Self::NothingToCompare { .. } => "nothing_to_compare",
            Self::MovedOn { .. } => "moved_on",
            Self::Closed { .. } => "closed",
            Self::Unreachable { .. } => "unreachable",
            Self::TooLate { .. } => "too_late",
            Self::CannotTurn { .. } => "cannot_turn",
            Self::Unclear { .. } => "ambiguous",
            Self::NotYetAborted { .. } => "not_yet_aborted",
            Self::NoRunner(_) => "no_runner",
            Self::NotTaken { .. } => "not_taken",
            Self::Checkpoint(_) | Self::Record { .. } => "damaged",
            Self::Internal(_) => "internal",
        }
    }

    /// True where a person must look at the server before anything else is done.
    pub fn is_ambiguous(&self) -> bool {
        self.exit_code() == 4
    }

    /// True where a connection was lost, so that the same may be tried again from the start.
    pub fn is_connection_lost(&self) -> bool {
        matches!(self, Self::Db(error) if error.is_ambiguous())
    }

    /// True where it is worth trying the same again later: nothing happened.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Db(error) if error.is_retryable())
    }
}

fn after_failure(swapped: bool, table: &str) -> String {
    if swapped {
        "The swap has been made: the change itself is there; run the same command again to remove what \
         is left over"
            .to_owned()
    } else {
        format!(
            "The run can be resumed with the same command, or removed with `underpin abort URL {table}`"
        )
    }
}

fn after_loss(swap_in_flight: bool) -> &'static str {
    if swap_in_flight {
        "A try of the swap was under way and may have been made: run the same command again when the \
         server is back, it finds out and goes on"
    } else {
        "The run can be resumed with the same command"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(kind: FailureKind) -> EngineError {
        let failure = Failure { kind, message: "why".into() };
        EngineError::Failed { failure, swapped: false, table: "shop.orders".into() }
    }

    #[test]
    fn exit_codes_are_as_documented() {
        let lost = |swap_in_flight| EngineError::Unreachable {
            waited_s: 600,
            why: "refused".into(),
            swap_in_flight,
        };
        let db = |kind| EngineError::Db(DbError::new(kind, "connecting", ""));
        let cases = [
            (failed(FailureKind::Violation), 1),
            (failed(FailureKind::SourceChanged), 1),
            (failed(FailureKind::Other), 1),
            (failed(FailureKind::Ambiguous), 4),
            (failed(FailureKind::Different), 5),
            (failed(FailureKind::LockNotHad), 6),
            (lost(false), 1),
            (lost(true), 4),
            (db(ErrorKind::AccessDenied), 3),
            (db(ErrorKind::Ambiguous), 4),
            (db(ErrorKind::ConnectionLost), 1),
            (EngineError::NoRun { table: "a.b".into() }, 3),
            (EngineError::Unclear { why: "two tables".into() }, 4),
        ];
        for (error, code) in cases {
            assert_eq!(error.exit_code(), code, "{error:?}");
        }
    }

    #[test]
    fn a_failure_says_what_to_do_next() {
        let text = failed(FailureKind::Violation).to_string();
        assert!(text.contains("same command") && text.contains("abort URL shop.orders"), "{text}");
    }

    #[test]
    fn another_statement_shows_both() {
        let error = EngineError::OtherRun {
            table: "shop.orders".into(),
            run_id: "r1".into(),
            unfinished: "ALTER TABLE orders ADD a INT".into(),
            requested: "ALTER TABLE orders ADD b INT".into(),
        };
        let text = error.to_string();
        for part in ["ADD a INT", "ADD b INT", "underpin status", "underpin abort"] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }
}
