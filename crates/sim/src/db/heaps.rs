//! What a server has besides where tables are heaps: the block of each row, transaction ids and
//! snapshots of them, savepoints, prepared transactions, definitions within transactions, and our own
//! tables of such a run.
//!
//! Owns what happens in one instant, as the parent does.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use underpin_core::way::Way;

use super::{Clash, Db, Index, Object, Refusal, Row, RowKey, Rows, SHADOW, SOURCE, SessionId, Txn};
use super::{retired_name, target_of, values_of};
use crate::dice::Dice;

/// Transactions that had committed when it was taken: those below `xmax` that were not active.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Xids {
    pub(crate) xmax: u64,
    pub(crate) active: BTreeSet<u64>,
}

impl Xids {
    /// Whether the transaction had ended.
    pub(crate) fn sees(&self, xid: u64) -> bool {
        xid < self.xmax && !self.active.contains(&xid)
    }
}

/// An entry of the append-only log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    /// `None` is the marker of a `TRUNCATE`.
    pub(crate) key: Option<RowKey>,
    /// The transaction that wrote it.
    pub(crate) xid: u64,
}

/// A definition that takes effect with its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Definition {
    Prepare,
    BuildIndexes,
    /// The swap of a way.
    Swap(Way),
    /// Capture of the table that the swap of this way made live; only a fault does it by itself.
    Return(Way),
    /// What is left after the swap of a way goes.
    Finish(Way),
    Abort,
}

/// What a transaction has written to heaps.
#[derive(Debug, Clone, Default)]
pub(super) struct HeapWrites {
    logged: Vec<(Object, Entry)>,
    bag_new: Vec<(RowKey, Row)>,
    bag_gone: Vec<u64>,
    todo_new: Vec<(Object, RowKey)>,
    todo_gone: Vec<(Object, RowKey)>,
    applied: Option<(Object, Xids)>,
    end: Option<u64>,
    definition: Option<Definition>,
    /// The id of the savepoint that is open.
    sub_xid: Option<u64>,
}

/// A change log and what has been made of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct HeapLog {
    /// Nothing is ever deleted from it.
    pub(crate) entries: Rc<Vec<Entry>>,
    /// Keys that are noted as still to be written.
    pub(crate) todo: Rc<BTreeSet<RowKey>>,
    /// What has been taken from the log: everything that this had seen.
    pub(crate) applied: Xids,
}

impl HeapLog {
    /// Whether the log has a marker.
    pub(crate) fn is_truncated(&self) -> bool {
        self.entries.iter().any(|entry| entry.key.is_none())
    }
}

/// The committed state; a clone of it is part of a snapshot.
#[derive(Debug, Clone)]
pub(crate) struct Heaps {
    /// The block that holds each row of the original.
    pub(crate) blocks: Rc<BTreeMap<RowKey, u64>>,
    /// Blocks of the original.
    pub(crate) pages: u64,
    /// The shadow while it has no index: its rows in no order, a key any number of times.
    pub(crate) bag: Rc<BTreeMap<u64, (RowKey, Row)>>,
    /// The change log of each table.
    logs: BTreeMap<Object, HeapLog>,
    /// Where the copy ends.
    pub(crate) end: Option<u64>,
    dice: Dice,
    bag_next: u64,
}

/// Rows of a block at the beginning, on average.
const ROWS_A_BLOCK: u64 = 3;

impl Heaps {
    /// The rows of the original, each in some block.
    pub(crate) fn new(rows: &Rows, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let pages = u64::try_from(rows.len()).unwrap_or(0).div_ceil(ROWS_A_BLOCK);
        let blocks = rows.keys().map(|key| (*key, dice.below(pages))).collect();
        Self {
            blocks: Rc::new(blocks),
            pages,
            bag: Rc::default(),
            logs: BTreeMap::new(),
            end: None,
            dice,
            bag_next: 1,
        }
    }

    /// The new version of a row finds a place: where the old one was, in any block, or behind all.
    fn place(&mut self, key: RowKey) {
        let old = self.blocks.get(&key).copied();
        let block = match (self.dice.below(10), old) {
            (0..=3, Some(old)) => old,
            (0..=6, _) if self.pages > 0 => self.dice.below(self.pages),
            _ => {
                if self.pages == 0 || self.dice.percent(60) {
                    self.pages += 1;
                }
                self.pages - 1
            }
        };
        Rc::make_mut(&mut self.blocks).insert(key, block);
    }

    fn displace(&mut self, key: RowKey) {
        Rc::make_mut(&mut self.blocks).remove(&key);
    }

    fn put_in_bag(&mut self, key: RowKey, row: Row) {
        Rc::make_mut(&mut self.bag).insert(self.bag_next, (key, row));
        self.bag_next += 1;
    }

    /// Nothing of a run.
    fn clear(&mut self) {
        self.bag = Rc::default();
        self.logs.clear();
        self.end = None;
    }

    /// The log of a table.
    pub(crate) fn log(&self, of: Object) -> HeapLog {
        self.logs.get(&of).cloned().unwrap_or_default()
    }

    fn log_mut(&mut self, of: Object) -> &mut HeapLog {
        self.logs.entry(of).or_default()
    }
}

impl Db {
    /// Which transactions have ended. `is_forgetful`: asked of those that have a client.
    pub(crate) fn xids(&self, is_forgetful: bool) -> Xids {
        let open = self.txns.iter().filter(|(_, txn)| !(is_forgetful && txn.is_prepared));
        Xids { xmax: self.txn_next + 1, active: open.map(|(_, txn)| txn.no).collect() }
    }

    /// Where the log ends: every entry that has been written stands before it.
    pub(crate) fn log_end(&self) -> u64 {
        self.entry_next
    }

    /// The append-only log's part of an entry. `by_savepoint`: it bears the savepoint's id.
    pub(super) fn append_to_heap(&mut self, session: SessionId, of: Object, id: u64, key: RowKey) {
        if self.heaps.is_none() {
            return;
        }
        let by_savepoint = self.logs_savepoint;
        let txn = self.txn(session);
        let xid = txn.heap.sub_xid.filter(|_| by_savepoint).unwrap_or(txn.no);
        txn.heap.logged.push((of, Entry { id, key: Some(key), xid }));
    }

    /// A row of a chunk, into a shadow without an index.
    pub(crate) fn put_in_bag(&mut self, session: SessionId, key: RowKey, row: Row) {
        self.txn(session).heap.bag_new.push((key, row));
    }

    /// Takes rows out of a shadow without an index.
    pub(crate) fn take_from_bag(&mut self, session: SessionId, places: Vec<u64>) {
        self.txn(session).heap.bag_gone.extend(places);
    }

    /// Notes keys as to do.
    pub(crate) fn add_to_do(
        &mut self,
        session: SessionId,
        of: Object,
        keys: impl IntoIterator<Item = RowKey>,
    ) {
        self.txn(session).heap.todo_new.extend(keys.into_iter().map(|key| (of, key)));
    }

    /// Keys that were to do are done.
    pub(crate) fn strike_off(
        &mut self,
        session: SessionId,
        of: Object,
        keys: impl IntoIterator<Item = RowKey>,
    ) {
        self.txn(session).heap.todo_gone.extend(keys.into_iter().map(|key| (of, key)));
    }

    /// Notes what has been taken from the log.
    pub(crate) fn advance(&mut self, session: SessionId, of: Object, to: Xids) {
        self.txn(session).heap.applied = Some((of, to));
    }

    /// Fixes where the copy ends.
    pub(crate) fn fix_end(&mut self, session: SessionId, end: u64) {
        self.txn(session).heap.end = Some(end);
    }

    /// A definition, which takes effect with the transaction.
    pub(crate) fn define(&mut self, session: SessionId, definition: Definition) {
        self.txn(session).heap.definition = Some(definition);
    }

    /// `SAVEPOINT`.
    pub(crate) fn savepoint(&mut self, session: SessionId) {
        self.txn(session);
        self.txn_next += 1;
        let sub_xid = self.txn_next;
        let before = self.txn(session).clone();
        self.txn(session).heap.sub_xid = Some(sub_xid);
        self.saved.insert(session, before);
    }

    /// `ROLLBACK TO`: what was written since is gone, the locks stay.
    pub(crate) fn roll_back_to_savepoint(&mut self, session: SessionId) {
        if let Some(before) = self.saved.remove(&session) {
            self.txns.insert(session, before);
        }
    }

    /// `RELEASE`: what was written since is part of the transaction.
    pub(crate) fn release_savepoint(&mut self, session: SessionId) {
        self.saved.remove(&session);
        self.txn(session).heap.sub_xid = None;
    }

    /// `PREPARE TRANSACTION`: it outlives its client and the server, with its locks.
    pub(crate) fn prepare_transaction(&mut self, session: SessionId) {
        self.txn(session).is_prepared = true;
    }

    /// Makes the heap's part of a transaction visible. Returns the keys that went into the shadow.
    pub(super) fn commit_to_heaps(&mut self, txn: &Txn) -> Vec<RowKey> {
        let is_logged = |object: &Object| self.log(*object).is_some();
        let writes = &txn.heap;
        let logged = writes.logged.iter().filter(|(of, _)| is_logged(of));
        let logged: Vec<(Object, Entry)> = logged.copied().collect();
        let Some(heaps) = &mut self.heaps else { return Vec::new() };
        for ((object, key), row) in &txn.rows {
            match (object, row) {
                (Object::Original, Some(_)) => heaps.place(*key),
                (Object::Original, None) => heaps.displace(*key),
                _ => {}
            }
        }
        for (of, entry) in logged {
            Rc::make_mut(&mut heaps.log_mut(of).entries).push(entry);
        }
        for (key, row) in &writes.bag_new {
            heaps.put_in_bag(*key, *row);
        }
        for place in &writes.bag_gone {
            Rc::make_mut(&mut heaps.bag).remove(place);
        }
        for (of, key) in &writes.todo_new {
            Rc::make_mut(&mut heaps.log_mut(*of).todo).insert(*key);
        }
        for (of, key) in &writes.todo_gone {
            Rc::make_mut(&mut heaps.log_mut(*of).todo).remove(key);
        }
        if let Some((of, applied)) = &writes.applied {
            heaps.log_mut(*of).applied = applied.clone();
        }
        heaps.end = writes.end.or(heaps.end);
        if let Some(definition) = writes.definition {
            self.carry_out(definition);
        }
        writes.bag_new.iter().map(|(key, _)| *key).collect()
    }

    /// The definition of a transaction, if it has one.
    pub(super) fn definition_of(txn: &Txn) -> Option<Definition> {
        txn.heap.definition
    }

    fn carry_out(&mut self, definition: Definition) {
        match definition {
            Definition::Prepare => {
                let end = self.heaps.as_mut().and_then(|heaps| {
                    let end = heaps.end;
                    heaps.clear();
                    end
                });
                // Only a fault fixes the end before the triggers stand.
                if let Some(heaps) = &mut self.heaps {
                    heaps.end = end.filter(|_| self.keeps_end);
                }
                self.create_shadow(false);
                self.create_log(Object::Original);
                self.capture(Object::Original);
                self.note_identity(Object::Original);
            }
            Definition::BuildIndexes => self.index_bag(),
            Definition::Swap(way) => {
                if self.rename_both(way) && self.keeps_way_back && !self.returns_late {
                    self.carry_out(Definition::Return(way));
                }
            }
            Definition::Return(way) => {
                self.create_log(target_of(way));
                self.capture(target_of(way));
                self.note_identity(target_of(way));
            }
            Definition::Finish(way) => {
                self.drop_captures();
                self.drop_table(retired_name(way));
                self.clear_heaps();
            }
            Definition::Abort => {
                self.drop_captures();
                self.drop_table(SHADOW);
                self.clear_heaps();
            }
        }
    }

    fn capture(&mut self, object: Object) {
        self.sides.of(object).triggers = [true; 3];
    }

    fn drop_captures(&mut self) {
        for object in [Object::Original, Object::Shadow] {
            self.sides.of(object).triggers = [false; 3];
            self.drop_log(object);
        }
    }

    fn clear_heaps(&mut self) {
        if let Some(heaps) = &mut self.heaps {
            heaps.clear();
        }
    }

    /// The rows of the bag become the rows of the indexed shadow.
    fn index_bag(&mut self) {
        let Some(heaps) = &mut self.heaps else { return };
        if !self.shadow_indexed {
            let rows = heaps.bag.values().copied().collect();
            heaps.bag = Rc::default();
            self.tables.insert(Object::Shadow, Rc::new(rows));
            self.shadow_indexed = true;
        }
    }

    /// Whether the bag can be indexed.
    ///
    /// # Errors
    /// Two rows that a unique index cannot both hold.
    pub(crate) fn look_for_duplicates(&self) -> Result<(), Clash> {
        let Some(heaps) = self.heaps.as_ref().filter(|_| !self.shadow_indexed) else {
            return Ok(());
        };
        let mut seen = BTreeMap::new();
        for (key, row) in heaps.bag.values() {
            let unique = values_of(*row)
                .filter(|(index, _)| *index == Index::Uniq || self.rules.new_unique)
                .chain([(Index::Key, *key)]);
            for (index, value) in unique {
                if let Some(holder) = seen.insert((index, value), *key) {
                    return Err(Clash { index, key: *key, holder });
                }
            }
        }
        Ok(())
    }

    /// `TRUNCATE`, and rows written again by the same transaction. The trigger logs its marker.
    pub(crate) fn truncate_and_fill(
        &mut self,
        session: SessionId,
        rows: &[(RowKey, Row)],
    ) -> Result<(), Refusal> {
        let Some(object) = self.live() else { return Err(Refusal::NoTable) };
        let is_captured = self.is_captured(object) && self.log(object).is_some();
        let xid = self.txn(session).no;
        self.tables.insert(object, Rc::default());
        self.rewritten(object);
        if let Some(heaps) = &mut self.heaps {
            if object == Object::Original {
                heaps.blocks = Rc::default();
                heaps.pages = 0;
            }
            if is_captured {
                let log = &mut heaps.log_mut(object).entries;
                Rc::make_mut(log).push(Entry { id: 0, key: None, xid });
            }
        }
        for (key, row) in rows {
            self.insert(session, object, *key, *row)?;
            if is_captured {
                self.append(session, object, *key)?;
            }
        }
        Ok(())
    }

    /// `VACUUM FULL`: every row has another place, in another file.
    pub(crate) fn rewrite(&mut self, object: Object) {
        if let Some(heaps) = self.heaps.as_mut().filter(|_| object == Object::Original) {
            let keys: Vec<RowKey> = heaps.blocks.keys().copied().collect();
            for key in keys {
                heaps.displace(key);
                heaps.place(key);
            }
        }
        self.rewritten(object);
        self.commit_no += 1;
    }

    /// Changes a row of a shadow without an index. Returns its key.
    pub(super) fn spoil_bag(&mut self, nth: u64) -> Option<RowKey> {
        let bag = &mut self.heaps.as_mut()?.bag;
        let at = usize::try_from(nth.checked_rem(u64::try_from(bag.len()).ok()?)?).ok()?;
        let (key, row) = Rc::make_mut(bag).values_mut().nth(at)?;
        row.value = -1_000_000 - *key;
        let key = *key;
        self.commit_no += 1;
        Some(key)
    }

    /// What a crash leaves of tables that are not logged; for faults.
    pub(crate) fn lose_unlogged(&mut self, log: bool, shadow: bool) {
        let is_swapped = self.names.get(SOURCE) != Some(&Object::Original);
        let Some(heaps) = &mut self.heaps else { return };
        if log {
            for log in heaps.logs.values_mut() {
                log.entries = Rc::default();
            }
        }
        if shadow && !is_swapped {
            heaps.bag = Rc::default();
            if let Some(rows) = self.tables.get_mut(&Object::Shadow) {
                *rows = Rc::default();
            }
        }
    }
}

#[cfg(test)]
mod tests;
