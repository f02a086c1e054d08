//! Whether a run ended as it should, and left what it should.

use underpin_core::machine::{Command, Ending, FailureKind};

use super::Checker;
use crate::db::{Db, Object, RETIRED, SHADOW, target_of};
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
                self.nothing_left(db, self.stands);
                self.is_swapped
            }
            Ending::Revertible { stands, .. } => {
                let live = target_of(*stands);
                // A turn that was not begun, or may have been left, need not have come to its end.
                let is_wanted = self.goal.is_none_or(|goal| goal == live);
                self.all_kept(db, live) && (is_wanted || !self.is_begun || self.may_be_left)
            }
            Ending::Stayed { stands, why } => {
                let is_asked = met.commanded == Some(Command::Abort);
                self.all_kept(db, target_of(*stands))
                    && if why.is_some() { met.critical } else { is_asked }
            }
            Ending::Interrupted => met.commanded.is_some(),
            Ending::Aborted { why } => {
                self.nothing_left(db, Object::Original);
                let is_asked = met.commanded == Some(Command::Abort);
                !self.is_swapped
                    && (met.abort_begun || if why.is_some() { met.critical } else { is_asked })
            }
            Ending::Failed(failure) => match failure.kind {
                FailureKind::Violation => self.violations > 0,
                FailureKind::SourceChanged | FailureKind::Different => self.is_tampered,
                FailureKind::LockNotHad => met.lock_not_had,
                // Behind a swap nothing is begun again.
                FailureKind::Truncated => {
                    let heaps = db.heaps.as_ref().filter(|_| self.is_swapped);
                    heaps.is_some_and(|heaps| heaps.log(self.stands).is_truncated())
                }
                FailureKind::Ambiguous | FailureKind::Other => false,
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

    /// The table is live, and everything of the way back stands.
    fn all_kept(&self, db: &Db, live: Object) -> bool {
        let other = if live == Object::Shadow { Object::Original } else { Object::Shadow };
        let is_there = |object: Object| {
            db.tables.contains_key(&object) && db.names.values().any(|named| *named == object)
        };
        let is_kept = [live, other].into_iter().all(|object| {
            is_there(object)
                && db.log(object).is_some()
                && (db.is_captured(object) || self.is_tampered)
        });
        self.keeps_way_back
            && self.is_swapped
            && self.late.is_empty()
            && self.stands == live
            && db.live() == Some(live)
            && is_kept
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
        for object in [Object::Original, Object::Shadow] {
            if db.log(object).is_some() {
                left.push(format!("the change log of {object:?}"));
            }
            if db.tables.contains_key(&object) && db.triggers(object) != [false; 3] {
                left.push(format!("triggers of {object:?}"));
            }
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
