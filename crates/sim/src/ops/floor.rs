//! The floor of the log: an id below which no entry can still appear, so that reading begins there.
//!
//! The highest id seen becomes the floor when every transaction that could have drawn a lower one has
//! ended, and an application begun after that has left nothing of what it saw up to there.

use crate::db::Db;

/// What one runner has learnt; the next one begins anew.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Floor {
    /// The first id worth reading.
    pub(crate) id: u64,
    candidate: Option<Candidate>,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    high: u64,
    /// The transaction of ours that saw it: whoever drew an id up to `high` had begun to write before.
    ours: u64,
    /// Nobody can still hold an id up to `high`.
    is_closed: bool,
}

impl Floor {
    /// Our transaction has seen entries up to `high`, and has written after that.
    pub(super) fn propose(&mut self, high: u64, ours: u64) {
        self.candidate.get_or_insert(Candidate { high, ours, is_closed: false });
    }

    /// Looks at the active transactions; true where the candidate is closed.
    pub(super) fn look(&mut self, db: &Db, is_hasty: bool) -> bool {
        let Some(candidate) = &mut self.candidate else { return false };
        candidate.is_closed |= is_hasty || !db.is_any_active(candidate.ours);
        candidate.is_closed
    }

    /// An application that began when the candidate was closed has left nothing of what it saw up to
    /// `through`.
    pub(super) fn emptied(&mut self, through: u64) {
        if let Some(candidate) = self.candidate.take_if(|candidate| candidate.high <= through) {
            self.id = std::cmp::max(self.id, candidate.high + 1);
        }
    }
}
