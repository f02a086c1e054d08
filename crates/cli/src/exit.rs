//! How the program ends: the exit codes, and which error leads to which.
//!
//! Owns the codes' names and the error of the command line itself. What an error of a run means is the
//! engine's knowledge; it is asked, not repeated here.

use std::fmt;
use std::process::ExitCode;

use underpin_dialect::DbError;
use underpin_engine::EngineError;

/// How the program ended. Scripts decide by it, so a code never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    /// What was asked for is done.
    Done,
    /// It failed safely.
    Failed,
    /// The command line is wrong; nothing was contacted.
    Usage,
    /// Refused before anything was created.
    Refused,
    /// It is unclear what the server did: a person must look.
    Ambiguous,
    /// Verification found a difference; nothing was swapped.
    Different,
    /// The table's lock was not had in the time allowed.
    LockNotHad,
    /// Interrupted; the same command goes on.
    Interrupted,
}

impl ExitStatus {
    /// All of them.
    pub(crate) const ALL: [Self; 8] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::Refused,
        Self::Ambiguous,
        Self::Different,
        Self::LockNotHad,
        Self::Interrupted,
    ];

    /// The number that the shell sees. 130 is what shells give a program that Ctrl-C ended.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::Ambiguous => 4,
            Self::Different => 5,
            Self::LockNotHad => 6,
            Self::Interrupted => 130,
        }
    }

    /// The status of a number; a number without a meaning is a failure.
    fn of_code(code: u8) -> Self {
        Self::ALL.into_iter().find(|status| status.code() == code).unwrap_or(Self::Failed)
    }

    /// The status that an error leads to: the first link of its chain that knows one decides.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        error.chain().find_map(of_link).unwrap_or(Self::Failed)
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.code())
    }
}

fn of_link(link: &(dyn std::error::Error + 'static)) -> Option<ExitStatus> {
    if let Some(problem) = link.downcast_ref::<Problem>() {
        return Some(problem.status);
    }
    if let Some(error) = link.downcast_ref::<EngineError>() {
        return Some(ExitStatus::of_code(error.exit_code()));
    }
    link.downcast_ref::<DbError>()
        .map(|error| ExitStatus::of_code(EngineError::from(error.clone()).exit_code()))
}

/// A short name of an error's nature, for programs that read the events.
pub(crate) fn kind_of(error: &anyhow::Error) -> &'static str {
    let kind = error.chain().find_map(|link| {
        if let Some(problem) = link.downcast_ref::<Problem>() {
            return Some(problem.kind());
        }
        if link.is::<DbError>() {
            return Some("database");
        }
        link.downcast_ref::<EngineError>().map(EngineError::kind)
    });
    kind.unwrap_or("failed")
}

/// An error that the command line finds itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// How the program ends with it.
    pub(crate) status: ExitStatus,
    /// What is wrong.
    pub(crate) message: String,
    /// What to do next; empty where the message says it.
    pub(crate) next: String,
}

impl Problem {
    /// A command line that cannot be carried out, found before anything was contacted.
    pub(crate) fn usage(message: impl Into<String>, next: impl Into<String>) -> Self {
        Self { status: ExitStatus::Usage, message: message.into(), next: next.into() }
    }

    /// Settings that cannot be used, found before anything was contacted.
    pub(crate) fn settings(error: &DbError) -> Self {
        let bare = DbError { help: None, ..error.clone() };
        Self::usage(bare.to_string(), error.help.clone().unwrap_or_default())
    }

    fn kind(&self) -> &'static str {
        match self.status {
            ExitStatus::Usage => "usage",
            ExitStatus::Refused => "refused",
            _ => "failed",
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use underpin_core::machine::{Failure, FailureKind};
    use underpin_dialect::ErrorKind;

    use super::*;

    fn failed(kind: FailureKind) -> anyhow::Error {
        let failure = Failure { kind, message: "why".into() };
        EngineError::Failed { failure, swapped: false, table: "shop.orders".into() }.into()
    }

    #[test]
    fn the_codes_are_as_documented() {
        let codes: Vec<u8> = ExitStatus::ALL.iter().map(|status| status.code()).collect();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 130]);
    }

    #[test]
    fn every_ending_of_a_run_has_its_code() {
        for (kind, status) in [
            (FailureKind::Violation, ExitStatus::Failed),
            (FailureKind::SourceChanged, ExitStatus::Failed),
            (FailureKind::Other, ExitStatus::Failed),
            (FailureKind::Different, ExitStatus::Different),
            (FailureKind::LockNotHad, ExitStatus::LockNotHad),
            (FailureKind::Ambiguous, ExitStatus::Ambiguous),
        ] {
            assert_eq!(ExitStatus::of(&failed(kind)), status, "{kind:?}");
        }
    }

    #[test]
    fn context_does_not_hide_the_status() {
        let error = failed(FailureKind::Different).context("changing shop.orders");
        assert_eq!(ExitStatus::of(&error), ExitStatus::Different);
        let usage = anyhow::Error::new(Problem::usage("no", "")).context("reading the statement");
        assert_eq!(ExitStatus::of(&usage), ExitStatus::Usage);
        assert_eq!(kind_of(&usage), "usage");
    }

    #[test]
    fn errors_of_the_seam_and_others() {
        let lost = |kind| anyhow::Error::new(DbError::new(kind, "connecting", "db1"));
        assert_eq!(ExitStatus::of(&lost(ErrorKind::AccessDenied)), ExitStatus::Refused);
        assert_eq!(ExitStatus::of(&lost(ErrorKind::ConnectionLost)), ExitStatus::Failed);
        assert_eq!(ExitStatus::of(&lost(ErrorKind::Ambiguous)), ExitStatus::Ambiguous);
        assert_eq!(kind_of(&lost(ErrorKind::Other)), "database");
        let other: anyhow::Result<()> = Err(std::io::Error::other("disk")).context("reading");
        let other = other.unwrap_err();
        assert_eq!((ExitStatus::of(&other), kind_of(&other)), (ExitStatus::Failed, "failed"));
    }
}
