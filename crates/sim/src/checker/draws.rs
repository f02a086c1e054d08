//! First draws of the column that only one shape has: which row had which, and that it keeps it.

use std::collections::{BTreeMap, BTreeSet};

use super::Change;
use crate::db::{RowKey, Rows};

/// What was drawn.
#[derive(Debug)]
pub(crate) struct Draws {
    is_volatile: bool,
    first: BTreeMap<RowKey, u64>,
    /// Keys whose row was deleted or moved since it was last looked at: another draw is fair.
    may_differ: BTreeSet<RowKey>,
}

impl Draws {
    pub(crate) fn new(is_volatile: bool) -> Self {
        Self { is_volatile, first: BTreeMap::new(), may_differ: BTreeSet::new() }
    }

    /// From here on what was drawn counts, whatever was drawn before.
    pub(crate) fn begin(&mut self) {
        if !self.is_volatile {
            self.forget();
            self.is_volatile = true;
        }
    }

    pub(crate) fn forget(&mut self) {
        self.first.clear();
        self.may_differ.clear();
    }

    /// A writer's change has committed.
    pub(crate) fn changed(&mut self, change: Change) {
        match change {
            Change::Delete(key) => {
                self.may_differ.insert(key);
            }
            Change::MoveKey(from, to) => {
                self.may_differ.extend([from, to]);
            }
            Change::Clear => self.may_differ.extend(self.first.keys().copied()),
            Change::Insert(..) | Change::SetUniq(..) | Change::SetValue(..) => {}
        }
    }

    /// Compares with what was drawn first, and remembers what is new.
    ///
    /// # Errors
    /// What differs, in words.
    pub(crate) fn look(
        &mut self,
        rows: &Rows,
        is_pending: impl Fn(RowKey) -> bool,
    ) -> Result<(), String> {
        if !self.is_volatile {
            return Ok(());
        }
        for (key, row) in rows {
            if self.may_differ.contains(key) {
                if !is_pending(*key) {
                    self.may_differ.remove(key);
                    self.first.insert(*key, row.draw);
                }
                continue;
            }
            let first = *self.first.entry(*key).or_insert(row.draw);
            if first != row.draw {
                return Err(format!("key {key}: drew {first} first, has {} now", row.draw));
            }
        }
        Ok(())
    }
}
