//! What an answer from the database means for the run. Pure: a step and an error go in, a meaning
//! comes out.
//!
//! Owns the table of meanings. The machine decides what follows from an event, the drive what follows
//! from the rest.

use underpin_core::machine::{Event, Failure, FailureKind};
use underpin_dialect::{DbError, ErrorKind};

/// A step that is carried out on the database. Chunks and ranges bear their index in the round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Save,
    Beat,
    Close,
    Prepare,
    CheckSource,
    Plan,
    CopyChunk(u32),
    CopyWithPending(u32),
    Apply,
    Settle,
    BuildIndexes,
    Verify(u32),
    Repair,
    Tidy,
    TrySwap,
    Arrive,
    Finish,
    Abort,
}

impl Step {
    /// The step in words, as "copying a chunk".
    pub(crate) fn doing(self) -> &'static str {
        match self {
            Self::Save => "saving the checkpoint",
            Self::Beat => "showing a sign of life",
            Self::Close => "closing the run",
            Self::Prepare => "making shadow, log and triggers",
            Self::CheckSource => "checking the source",
            Self::Plan => "finding chunk bounds",
            Self::CopyChunk(_) => "copying a chunk",
            Self::CopyWithPending(_) => "copying a chunk with everything pending",
            Self::Apply => "applying the log",
            Self::Settle => "removing rows that are in the log",
            Self::BuildIndexes => "building indexes",
            Self::Verify(_) => "verifying a range",
            Self::Repair => "logging differing keys",
            Self::Tidy => "gathering statistics of the new table",
            Self::TrySwap => "trying the swap",
            Self::Arrive => "doing what the swap left for later",
            Self::Finish => "removing what the run made",
            Self::Abort => "removing the run",
        }
    }

    /// The chunk or range that the step is about.
    fn index(self) -> Option<u32> {
        match self {
            Self::CopyChunk(index) | Self::CopyWithPending(index) | Self::Verify(index) => {
                Some(index)
            }
            _ => None,
        }
    }
}

/// What an error means.
#[derive(Debug, Clone)]
pub(crate) enum Meaning {
    /// Tell the machine.
    Event(Event),
    /// It certainly did not happen, and the machine has no word for that: the same step again.
    Again,
    /// The outcome is not known, or the session cannot go on: connect anew and look.
    Lost,
    /// Another runner has taken over.
    Fenced,
}

/// What `error` means for the run where it answers `step`.
pub(crate) fn meaning_of(step: Step, error: &DbError) -> Meaning {
    match error.kind {
        _ if error.is_ambiguous() => Meaning::Lost,
        ErrorKind::Fenced => Meaning::Fenced,
        ErrorKind::Retryable | ErrorKind::LockNotHad => not_happened(step, error),
        ErrorKind::Cancelled => match not_happened(step, error) {
            Meaning::Event(event) => Meaning::Event(event),
            // We cancelled it, and what a cancelled definition left behind must be looked up.
            _ => Meaning::Lost,
        },
        ErrorKind::DuplicateKey => match step {
            Step::CopyChunk(index) => Meaning::Event(Event::ChunkClashed { index }),
            _ => Meaning::Event(failed(step, FailureKind::Violation, error)),
        },
        ErrorKind::DataError => Meaning::Event(failed(step, FailureKind::Violation, error)),
        ErrorKind::Truncated => Meaning::Event(failed(step, FailureKind::Truncated, error)),
        ErrorKind::SourceChanged => Meaning::Event(failed(step, FailureKind::SourceChanged, error)),
        _ => Meaning::Event(failed(step, FailureKind::Other, error)),
    }
}

/// The database rolled the step back, or the lock was not had.
fn not_happened(step: Step, error: &DbError) -> Meaning {
    let why = error.to_string();
    match step {
        Step::CopyChunk(index) | Step::CopyWithPending(index) | Step::Verify(index) => {
            Meaning::Event(Event::ChunkRolledBack { index, why })
        }
        Step::Apply => Meaning::Event(Event::ApplyRolledBack { why }),
        Step::Tidy => Meaning::Event(failed(step, FailureKind::Other, error)),
        Step::Prepare | Step::TrySwap | Step::Arrive | Step::Finish | Step::Abort => {
            // A cancelled definition is no matter of locks.
            if error.kind == ErrorKind::Cancelled {
                Meaning::Lost
            } else {
                Meaning::Event(Event::LockNotHad { why })
            }
        }
        Step::Save
        | Step::Beat
        | Step::Close
        | Step::CheckSource
        | Step::Plan
        | Step::Settle
        | Step::BuildIndexes
        | Step::Repair => Meaning::Again,
    }
}

/// The event for a step that failed for good.
pub(crate) fn failed(step: Step, kind: FailureKind, error: &DbError) -> Event {
    let failure = Failure { kind, message: error.to_string() };
    match step.index() {
        _ if step == Step::Tidy => Event::TidyFailed(failure),
        Some(index) => Event::ChunkFailed { index, failure },
        None => Event::Failed(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: [Step; 18] = [
        Step::Save,
        Step::Beat,
        Step::Close,
        Step::Prepare,
        Step::CheckSource,
        Step::Plan,
        Step::CopyChunk(3),
        Step::CopyWithPending(3),
        Step::Apply,
        Step::Settle,
        Step::BuildIndexes,
        Step::Verify(3),
        Step::Repair,
        Step::Tidy,
        Step::TrySwap,
        Step::Arrive,
        Step::Finish,
        Step::Abort,
    ];

    fn meaning(step: Step, kind: ErrorKind) -> String {
        let text = format!("{:?}", meaning_of(step, &DbError::new(kind, "x", "y")));
        // "Event(ChunkClashed { index: 3 })" is told apart by its first two words.
        text.replace("Event(", "").split([' ', '(', '{']).next().unwrap_or_default().to_owned()
    }

    #[test]
    fn an_unknown_outcome_is_never_an_event() {
        for step in STEPS {
            for kind in [ErrorKind::Ambiguous, ErrorKind::ConnectionLost] {
                assert_eq!(meaning(step, kind), "Lost", "{step:?} {kind:?}");
            }
        }
    }

    #[test]
    fn a_newer_runner_always_wins() {
        for step in STEPS {
            assert_eq!(meaning(step, ErrorKind::Fenced), "Fenced", "{step:?}");
        }
    }

    #[test]
    fn a_roll_back_is_tried_again_by_the_machine_or_by_us() {
        let cases = [
            (Step::CopyChunk(3), "ChunkRolledBack"),
            (Step::CopyWithPending(3), "ChunkRolledBack"),
            (Step::Verify(3), "ChunkRolledBack"),
            (Step::Apply, "ApplyRolledBack"),
            (Step::Tidy, "TidyFailed"),
            (Step::Prepare, "LockNotHad"),
            (Step::TrySwap, "LockNotHad"),
            (Step::Finish, "LockNotHad"),
            (Step::Abort, "LockNotHad"),
            (Step::Save, "Again"),
            (Step::Plan, "Again"),
            (Step::Repair, "Again"),
            (Step::CheckSource, "Again"),
            (Step::Settle, "Again"),
            (Step::BuildIndexes, "Again"),
        ];
        for (step, expected) in cases {
            assert_eq!(meaning(step, ErrorKind::Retryable), expected, "{step:?}");
            assert_eq!(meaning(step, ErrorKind::LockNotHad), expected, "{step:?}");
        }
    }

    #[test]
    fn what_we_cancelled_is_rolled_back_or_looked_up() {
        assert_eq!(meaning(Step::CopyChunk(3), ErrorKind::Cancelled), "ChunkRolledBack");
        assert_eq!(meaning(Step::Apply, ErrorKind::Cancelled), "ApplyRolledBack");
        for step in [Step::TrySwap, Step::BuildIndexes, Step::Finish, Step::Save, Step::Plan] {
            assert_eq!(meaning(step, ErrorKind::Cancelled), "Lost", "{step:?}");
        }
    }

    #[test]
    fn a_clash_is_taken_again_once_and_is_real_after_that() {
        assert_eq!(meaning(Step::CopyChunk(3), ErrorKind::DuplicateKey), "ChunkClashed");
        for step in [Step::CopyWithPending(3), Step::Apply, Step::BuildIndexes, Step::TrySwap] {
            let Meaning::Event(event) =
                meaning_of(step, &DbError::new(ErrorKind::DuplicateKey, "x", "y"))
            else {
                panic!("{step:?}");
            };
            assert!(is_failure(&event, FailureKind::Violation), "{step:?} {event:?}");
        }
    }

    #[test]
    fn failures_keep_their_nature_and_their_chunk() {
        let cases = [
            (ErrorKind::DataError, FailureKind::Violation),
            (ErrorKind::SourceChanged, FailureKind::SourceChanged),
            (ErrorKind::Truncated, FailureKind::Truncated),
            (ErrorKind::AccessDenied, FailureKind::Other),
            (ErrorKind::NotFound, FailureKind::Other),
            (ErrorKind::ReadOnly, FailureKind::Other),
            (ErrorKind::Refused, FailureKind::Other),
            (ErrorKind::Other, FailureKind::Other),
        ];
        for (kind, expected) in cases {
            let error = DbError::new(kind, "x", "y");
            let Meaning::Event(event) = meaning_of(Step::CopyChunk(3), &error) else {
                panic!("{kind:?}");
            };
            assert!(matches!(event, Event::ChunkFailed { index: 3, .. }), "{event:?}");
            assert!(is_failure(&event, expected), "{kind:?} {event:?}");
            let Meaning::Event(event) = meaning_of(Step::Apply, &error) else { panic!("{kind:?}") };
            assert!(matches!(event, Event::Failed(_)) && is_failure(&event, expected));
        }
    }

    fn is_failure(event: &Event, kind: FailureKind) -> bool {
        match event {
            Event::Failed(failure) | Event::ChunkFailed { failure, .. } => failure.kind == kind,
            _ => false,
        }
    }
}
