//! Whether a run ended as it should, and left what it should.

use underpin_core::machine::{Command, Ending, FailureKind};

use super::Checker;
use crate::db::{Db, Object, RETIRED, SHADOW};
use crate::report::Invariant;

/// What the ended program had met.
#[derive(Debug, Clone, Default)]
pub(crate) struct Circumstances {
    /// The last stop or abort that it was told.
    pub(crate) commanded: Option<Command>,
    /// A lock on the live table was not had.
    pub(crate) lock_not_had: bool,
    /// An earlier abort of this run was cut off by a crash, or this one was.
    pub(crate) abort_begun: bool,
    /// The load was beyond what may be borne.
    pub(crate) critical: bool,
}

impl Checker {
    /// The program that runs the machine has ended of itself.
    pub(crate) fn ended(&mut self, db: &Db, ending: &Ending, met: Circumstances) {
        let is_right = match ending {
            Ending::Done { .. } => {
                self.nothing_left(db, Object::Shadow);
                true
            }
            Ending::Revertible { .. } | Ending::Stayed { .. } => false,
            Ending::Interrupted => met.commanded.is_some(),
            Ending::Aborted { why } => {
                self.nothing_left(db, Object::Original);
                let is_asked = met.commanded == Some(Command::Abort);
                met.abort_begun || if why.is_some() { met.critical } else { is_asked }
            }
            Ending::Failed(failure) => match failure.kind {
                FailureKind::Violation => self.violations > 0,
                FailureKind::SourceChanged | FailureKind::Different => self.is_tampered,
                FailureKind::LockNotHad => met.lock_not_had,
                FailureKind::Truncated | FailureKind::Ambiguous | FailureKind::Other => false,
            },
        };
        if !is_right {
            let what = format!("ended with {ending:?}; {met:?}, {} violations", self.violations);
            self.report(Invariant::RightEnding, what);
        }
        let invariant =
            if self.is_swapped { Invariant::AtomicSwap } else { Invariant::SourceUntouched };
        self.live(db, invariant);
    }

    /// The expected table has the source's name, and nothing else of the run stands.
    fn nothing_left(&mut self, db: &Db, expected: Object) {
        let invariant = if expected == Object::Original {
            Invariant::SourceUntouched
        } else {
            Invariant::RightEnding
        };
        let mut left = Vec::new();
        if db.live() != Some(expected) {
            left.push(format!("{:?} has the source's name", db.live()));
        }
        left.extend(
            [SHADOW, RETIRED]
                .iter()
                .filter(|name| db.names.contains_key(*name))
                .map(|name| format!("table {name}")),
        );
        if db.log.is_some() {
            left.push("the change log".to_owned());
        }
        if expected == Object::Original && db.triggers != [false; 3] {
            left.push("triggers".to_owned());
        }
        if !left.is_empty() {
            self.report(invariant, format!("left behind: {}", left.join(", ")));
        }
    }

    /// The run did not come to an end.
    pub(crate) fn endless(&mut self, what: String) {
        self.report(Invariant::RightEnding, what);
    }
}
