//! Where the copy goes by blocks: what must be in a shadow without an index, and when a clash of its
//! indexes is real.

use std::collections::{BTreeMap, BTreeSet};

use super::{Checker, image, is_real};
use crate::db::{Clash, Db, Definition, Heaps, Mark, Object, Row, RowKey};
use crate::report::Invariant;

impl Checker {
    /// A definition has taken effect with its transaction.
    pub(super) fn defined(&mut self, definition: Definition) {
        match definition {
            Definition::Prepare => self.capture_began(),
            Definition::Abort => self.forget_run(),
            Definition::Finish(_) => self.capture_ended(),
            Definition::BuildIndexes | Definition::Swap(_) | Definition::Return(_) => {}
        }
    }

    /// The shadow was settled in the snapshot of this commit.
    pub(super) fn settled(&mut self, snapshot_no: u64) {
        self.settled_no = snapshot_no;
    }

    /// Keys that are pending in truth: logged and not taken, or taken out and still to be written.
    pub(super) fn pending(db: &Db, of: Object) -> BTreeSet<RowKey> {
        let logged = db.log(of).into_iter().flat_map(|log| log.values()).copied();
        let todo = db.heaps.as_ref().map(|heaps| heaps.log(of).todo);
        logged.chain(todo.iter().flat_map(|todo| todo.iter().copied())).collect()
    }

    /// Nothing of ours is in flight, and the shadow has no index yet. A row that nobody has touched
    /// since the triggers stand is in the shadow exactly once if its block has been copied, and not at
    /// all otherwise. Whatever else there is has its key in the log.
    pub(super) fn quiet_bag(&mut self, heaps: &Heaps, pending: &BTreeSet<RowKey>) {
        let mut found: BTreeMap<RowKey, Vec<Row>> = BTreeMap::new();
        for (key, row) in heaps.bag.values() {
            found.entry(*key).or_default().push(*row);
        }
        let keys: BTreeSet<RowKey> = found.keys().chain(self.model.keys()).copied().collect();
        for key in keys.difference(pending) {
            self.rows_checked += 1;
            let rows = found.get(key).map_or(&[][..], Vec::as_slice);
            let promised = self.model.get(key).and_then(|row| image(*row));
            let is_copied = self.is_all_covered
                || heaps
                    .blocks
                    .get(key)
                    .is_some_and(|block| self.covered.iter().any(|mark| has_block(mark, *block)));
            let is_right = match (rows, promised, is_copied) {
                ([], None, _) | ([], Some(_), false) => true,
                ([row], Some(promised), true) => (row.uniq, row.value) == promised,
                _ => false,
            };
            if is_right {
                self.spoiled.remove(key);
            } else if !self.spoiled.contains(key) {
                let block = heaps.blocks.get(key);
                let what = format!(
                    "key {key} in block {block:?} (copied: {is_copied}): promised {promised:?}, \
                     shadow {rows:?}, not in the log"
                );
                self.report(Invariant::EqualOrPending, what);
            }
        }
    }

    /// Our work ends because of this clash, met as indexes were built on a settled shadow.
    pub(crate) fn clash_of_settled(&mut self, clash: Clash) {
        let is_spoiled = [clash.key, clash.holder].iter().any(|key| self.spoiled.contains(key));
        let state = self.state_at(self.settled_no);
        if self.is_tampered || is_spoiled || is_real(&state, clash, self.rules) {
            self.violations += 1;
        } else {
            let what = format!(
                "{clash:?} is no violation in the source of commit {}, as settled",
                self.settled_no
            );
            self.report(Invariant::RealViolation, what);
        }
    }
}

fn has_block(mark: &Mark, block: u64) -> bool {
    let block = block.cast_signed();
    mark.after.is_none_or(|after| block >= after) && mark.up_to.is_none_or(|up_to| block < up_to)
}

#[cfg(test)]
mod tests;
