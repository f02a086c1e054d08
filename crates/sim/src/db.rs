//! The simulated server: a table in the old and one in the new shape, a change log, the store of the
//! run, transactions, names. Everything committed is what a snapshot shows; what a transaction writes
//! stays its own until it commits.
//!
//! Owns what a server does in one instant. That statements last, and who may run between two instants,
//! is `session`'s.

mod app;
mod define;
mod heaps;
mod locks;
mod sides;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

pub(crate) use app::AppRow;
pub(crate) use heaps::{Definition, Heaps, Xids};
pub(crate) use locks::Mode;
use locks::{Busy, Lock, NameLocks, RowLocks};
use sides::Sides;
pub(crate) use sides::{retired_name, shadow_name, source_of, target_of};

pub(crate) type SessionId = u32;
pub(crate) type RowKey = i64;
pub(crate) type Rows = BTreeMap<RowKey, Row>;
/// Committed entries of the change log: id → key.
pub(crate) type Entries = BTreeMap<u64, RowKey>;

/// The name that the application uses.
pub(crate) const SOURCE: &str = "orders";
/// The table in the new shape, until the swap.
pub(crate) const SHADOW: &str = "orders_new";
/// The old table, after the swap.
pub(crate) const RETIRED: &str = "orders_old";

/// A table, whatever its name is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Object {
    /// The one that the application began with.
    Original,
    /// The one in the new shape.
    Shadow,
    /// The empty one that holds the retired name during the two-session swap.
    Sentry,
}

/// A row of either shape. In the new one `value` is converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    /// A unique column that may be NULL.
    pub(crate) uniq: Option<i64>,
    /// A plain column; the change converts it and may make it unique.
    pub(crate) value: i64,
    /// A column that the other shape does not have, with a default that differs at each draw.
    pub(crate) draw: u64,
}

/// A unique index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Index {
    Key,
    Uniq,
    Value,
}

/// Which constraints and conversions the two shapes have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// The application keeps `value` unique although the old shape does not ask for it.
    pub(crate) app_keeps_value_unique: bool,
    /// The new shape makes `value` unique.
    pub(crate) new_unique: bool,
    /// Greatest value that fits the new shape.
    pub(crate) fit_max: Option<i64>,
    /// Greatest value that fits the old shape.
    pub(crate) old_fit_max: Option<i64>,
}

/// A write that the constraints refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Clash {
    pub(crate) index: Index,
    /// The row that was to be written.
    pub(crate) key: RowKey,
    /// The row that is in its way.
    pub(crate) holder: RowKey,
}

/// Why a row was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Somebody else holds a lock: try again.
    Wait,
    Deadlock,
    Clash(Clash),
    /// The value of this key does not fit the shape.
    Unfit(RowKey),
    /// The fence of the two-session swap.
    Fenced,
    /// A statement met no table under its name.
    NoTable,
    /// A trigger met no change log.
    NoLog,
}

impl From<Busy> for Refusal {
    fn from(busy: Busy) -> Self {
        match busy {
            Busy::Wait => Self::Wait,
            Busy::Deadlock => Self::Deadlock,
        }
    }
}

/// A chunk that has committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) round: u64,
    pub(crate) index: u32,
    pub(crate) after: Option<RowKey>,
    pub(crate) up_to: Option<RowKey>,
    pub(crate) rows: u64,
}

/// What the run keeps on the server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Store {
    /// The checkpoint as the core encodes it.
    pub(crate) checkpoint: Option<String>,
    pub(crate) marks: Vec<Mark>,
    /// The incarnation of a table when it was made sure that it is captured and live.
    pub(crate) identity: BTreeMap<Object, u64>,
    /// Greatest entry id consumed; only `Fault::ConsumeByLastId` looks at it.
    pub(crate) entry_last: u64,
}

/// What one statement, or one consistent transaction, sees.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    /// Number of the last commit that is in it.
    pub(crate) no: u64,
    /// Which table the source is.
    pub(crate) of: Object,
    pub(crate) source: Rc<Rows>,
    pub(crate) shadow: Option<Rc<Rows>>,
    pub(crate) log: Option<Rc<Entries>>,
    /// The source's file.
    pub(crate) incarnation: u64,
    /// Where tables are heaps.
    pub(crate) heaps: Option<Heaps>,
}

#[derive(Debug, Clone, Default)]
struct Txn {
    /// Drawn at its first write.
    no: u64,
    rows: BTreeMap<(Object, RowKey), Option<Row>>,
    entries_new: Vec<(Object, u64, RowKey)>,
    entries_gone: Vec<u64>,
    marks: Vec<Mark>,
    checkpoint: Option<String>,
    entry_last: Option<u64>,
    heap: heaps::HeapWrites,
    /// It has neither a client nor an end yet.
    is_prepared: bool,
}

/// What a commit did, for the checker.
#[derive(Debug, Clone)]
pub(crate) struct Commit {
    /// Its number; commits are numbered in order.
    pub(crate) no: u64,
    /// Keys of the original table that it wrote.
    pub(crate) original_keys: Vec<RowKey>,
    /// Keys that it wrote to the shadow.
    pub(crate) shadow_puts: Vec<RowKey>,
    /// Whether it wrote or deleted a row of the shadow.
    pub(crate) touches_shadow: bool,
    /// Keys of the log entries that it deleted.
    pub(crate) entries_gone: Vec<RowKey>,
    pub(crate) marks: Vec<Mark>,
    pub(crate) checkpoint: Option<String>,
    /// What it defined, where definitions are part of transactions.
    pub(crate) definition: Option<Definition>,
}

/// The server.
#[derive(Debug)]
pub(crate) struct Db {
    pub(crate) rules: Rules,
    pub(crate) commit_no: u64,
    pub(crate) names: BTreeMap<&'static str, Object>,
    pub(crate) tables: BTreeMap<Object, Rc<Rows>>,
    /// Triggers, change log and file of each table.
    pub(crate) sides: Sides,
    /// Besides, where tables are heaps. The logs of `sides` tell what is pending in truth then.
    pub(crate) heaps: Option<Heaps>,
    /// Whether capture triggers fire for our own sessions too.
    pub(crate) captures_own: bool,
    /// Whether the swap leaves the new table's capture for later; for a fault.
    pub(crate) returns_late: bool,
    /// Whether the swap keeps the way back.
    pub(crate) keeps_way_back: bool,
    /// Whether an update of a key logs the old key too.
    pub(crate) logs_old_key: bool,
    /// Whether an entry bears the id of its savepoint, not of its transaction; for a fault.
    pub(crate) logs_savepoint: bool,
    /// Whether the end of the copy may be fixed before the triggers stand; for a fault.
    pub(crate) keeps_end: bool,
    /// Writes to this table are refused before this time, in microseconds.
    pub(crate) fence: Option<(Object, u64)>,
    /// Whether the shadow's unique indexes stand.
    pub(crate) shadow_indexed: bool,
    pub(crate) store: Store,
    pub(crate) name_locks: NameLocks,
    row_locks: RowLocks,
    txns: BTreeMap<SessionId, Txn>,
    /// Transactions as they were at their savepoints.
    saved: BTreeMap<SessionId, Txn>,
    txn_next: u64,
    entry_next: u64,
    draw_next: u64,
}

impl Db {
    /// A server with the original table and nothing of ours.
    pub(crate) fn new(rules: Rules, rows: Rows) -> Self {
        Self {
            rules,
            commit_no: 0,
            names: BTreeMap::from([(SOURCE, Object::Original)]),
            tables: BTreeMap::from([(Object::Original, Rc::new(rows))]),
            sides: Sides::default(),
            heaps: None,
            captures_own: false,
            returns_late: false,
            keeps_way_back: false,
            logs_old_key: true,
            logs_savepoint: false,
            keeps_end: false,
            fence: None,
            shadow_indexed: true,
            store: Store::default(),
            name_locks: NameLocks::default(),
            row_locks: RowLocks::default(),
            txns: BTreeMap::new(),
            saved: BTreeMap::new(),
            txn_next: 1,
            entry_next: 1,
            draw_next: 1_000,
        }
    }

    /// The row as this transaction sees it.
    pub(crate) fn view(&self, session: SessionId, object: Object, key: RowKey) -> Option<Row> {
        let own = self.txns.get(&session).and_then(|txn| txn.rows.get(&(object, key)));
        match own {
            Some(row) => *row,
            None => self.tables.get(&object).and_then(|rows| rows.get(&key)).copied(),
        }
    }

    /// Writes a new row.
    pub(crate) fn insert(
        &mut self,
        session: SessionId,
        object: Object,
        key: RowKey,
        row: Row,
    ) -> Result<(), Refusal> {
        self.row_locks.take(session, Lock::Row(object, key))?;
        if self.view(session, object, key).is_some() {
            return Err(Refusal::Clash(Clash { index: Index::Key, key, holder: key }));
        }
        self.put(session, object, key, Some(row))
    }

    /// Deletes a row, which need not be there. Returns what it was.
    pub(crate) fn delete(
        &mut self,
        session: SessionId,
        object: Object,
        key: RowKey,
    ) -> Result<Option<Row>, Refusal> {
        self.row_locks.take(session, Lock::Row(object, key))?;
        let old = self.view(session, object, key);
        if old.is_some() {
            self.put(session, object, key, None)?;
        }
        Ok(old)
    }

    /// Locks what the row was and will be, checks the unique indexes, and writes it.
    fn put(
        &mut self,
        session: SessionId,
        object: Object,
        key: RowKey,
        row: Option<Row>,
    ) -> Result<(), Refusal> {
        self.row_locks.take(session, Lock::Row(object, key))?;
        let old = self.view(session, object, key);
        let enforced = self.enforced(object);
        for (index, value) in old.iter().chain(row.iter()).flat_map(|row| values_of(*row)) {
            if enforced.contains(&index) {
                self.row_locks.take(session, Lock::Value(object, index, value))?;
            }
        }
        for (index, value) in row.into_iter().flat_map(values_of) {
            if enforced.contains(&index)
                && let Some(holder) = self.holder(session, object, index, value, key)
            {
                return Err(Refusal::Clash(Clash { index, key, holder }));
            }
        }
        self.txn(session).rows.insert((object, key), row);
        Ok(())
    }

    /// The unique indexes that stand on the table.
    fn enforced(&self, object: Object) -> &'static [Index] {
        let with_value = match object {
            Object::Original => self.rules.app_keeps_value_unique,
            Object::Shadow if !self.shadow_indexed => return &[],
            Object::Shadow => self.rules.new_unique,
            Object::Sentry => false,
        };
        if with_value { &[Index::Uniq, Index::Value] } else { &[Index::Uniq] }
    }

    /// The session's transaction, which begins with its first write.
    fn txn(&mut self, session: SessionId) -> &mut Txn {
        self.txns.entry(session).or_insert_with(|| {
            self.txn_next += 1;
            Txn { no: self.txn_next, ..Txn::default() }
        })
    }

    /// The number of the session's transaction, once it has written.
    pub(crate) fn txn_no(&self, session: SessionId) -> Option<u64> {
        self.txns.get(&session).map(|txn| txn.no)
    }

    /// Whether a transaction with a number up to this one is active.
    pub(crate) fn is_any_active(&self, up_to: u64) -> bool {
        self.txns.values().any(|txn| txn.no <= up_to)
    }

    /// Another row of this transaction's view that has the value.
    pub(crate) fn holder(
        &self,
        session: SessionId,
        object: Object,
        index: Index,
        value: i64,
        except: RowKey,
    ) -> Option<RowKey> {
        let own = self.txns.get(&session).map(|txn| &txn.rows);
        let has = |row: &Row| values_of(*row).any(|found| found == (index, value));
        let written = own
            .into_iter()
            .flat_map(|rows| rows.range((object, RowKey::MIN)..=(object, RowKey::MAX)))
            .find(|((_, key), row)| *key != except && row.as_ref().is_some_and(has))
            .map(|((_, key), _)| *key);
        written.or_else(|| {
            self.tables
                .get(&object)?
                .iter()
                .filter(|(key, row)| **key != except && has(row))
                .map(|(key, _)| *key)
                .find(|key| own.is_none_or(|rows| !rows.contains_key(&(object, *key))))
        })
    }

    /// A value that was never drawn before.
    pub(crate) fn draw(&mut self) -> u64 {
        self.draw_next += 1;
        self.draw_next
    }

    /// Appends to the log of a table in this transaction. The id is drawn now, so that ids do not commit in order
    /// and those of rolled-back transactions leave gaps.
    pub(crate) fn append(
        &mut self,
        session: SessionId,
        of: Object,
        key: RowKey,
    ) -> Result<(), Refusal> {
        if self.log(of).is_none() {
            return Err(Refusal::NoLog);
        }
        let id = self.entry_next;
        self.entry_next += 1;
        self.txn(session).entries_new.push((of, id, key));
        self.append_to_heap(session, of, id, key);
        Ok(())
    }

    /// Deletes entries by id in this transaction.
    pub(crate) fn consume(&mut self, session: SessionId, ids: impl IntoIterator<Item = u64>) {
        self.txn(session).entries_gone.extend(ids);
    }

    /// Notes the greatest consumed id in this transaction; for `Fault::ConsumeByLastId`.
    pub(crate) fn consume_to(&mut self, session: SessionId, id: u64) {
        self.txn(session).entry_last = Some(id);
    }

    /// Marks a chunk as done in this transaction.
    pub(crate) fn mark(&mut self, session: SessionId, mark: Mark) {
        self.txn(session).marks.push(mark);
    }

    /// Writes the checkpoint in this transaction.
    pub(crate) fn save(&mut self, session: SessionId, checkpoint: String) {
        self.txn(session).checkpoint = Some(checkpoint);
    }

    /// Makes what the transaction wrote durable and visible, all at once, and ends it.
    pub(crate) fn commit(&mut self, session: SessionId) -> Commit {
        let txn = self.txns.remove(&session).unwrap_or_default();
        self.saved.remove(&session);
        self.commit_no += 1;
        let mut commit = Commit {
            no: self.commit_no,
            original_keys: Vec::new(),
            shadow_puts: Vec::new(),
            touches_shadow: false,
            entries_gone: Vec::new(),
            marks: txn.marks.clone(),
            checkpoint: txn.checkpoint.clone(),
            definition: Self::definition_of(&txn),
        };
        let txn = self.commit_rows(txn, &mut commit);
        self.commit_entries(&txn, &mut commit);
        self.store.marks.extend(txn.marks);
        self.store.checkpoint = txn.checkpoint.or(self.store.checkpoint.take());
        self.store.entry_last = txn.entry_last.unwrap_or(self.store.entry_last);
        self.row_locks.release(session);
        commit
    }

    /// A log that is not there any more takes nothing in; ids are those of one log only.
    fn commit_entries(&mut self, txn: &Txn, commit: &mut Commit) {
        for object in [Object::Original, Object::Shadow] {
            let new = txn.entries_new.iter().filter(|(of, ..)| *of == object);
            let Some(log) = &mut self.sides.of(object).log else { continue };
            let log = Rc::make_mut(log);
            log.extend(new.map(|(_, id, key)| (*id, *key)));
            commit.entries_gone.extend(txn.entries_gone.iter().filter_map(|id| log.remove(id)));
        }
    }

    fn commit_rows(&mut self, txn: Txn, commit: &mut Commit) -> Txn {
        for ((object, key), row) in &txn.rows {
            match (object, row) {
                (Object::Original, _) => commit.original_keys.push(*key),
                (Object::Shadow, Some(_)) => commit.shadow_puts.push(*key),
                _ => {}
            }
            commit.touches_shadow |= *object == Object::Shadow;
            let Some(rows) = self.tables.get_mut(object) else { continue };
            match row {
                Some(row) => Rc::make_mut(rows).insert(*key, *row),
                None => Rc::make_mut(rows).remove(key),
            };
        }
        let in_bag = self.commit_to_heaps(&txn);
        commit.shadow_puts.extend(in_bag);
        txn
    }

    /// Undoes what the transaction wrote. Entry ids that it drew stay gaps.
    pub(crate) fn roll_back(&mut self, session: SessionId) {
        self.txns.remove(&session);
        self.saved.remove(&session);
        self.row_locks.release(session);
    }

    /// Ends a session: its transaction is rolled back, its locks are gone.
    pub(crate) fn end_session(&mut self, session: SessionId) {
        self.roll_back(session);
        self.name_locks.release(session);
    }

    /// The server dies and comes back: what was committed is there, nothing else.
    pub(crate) fn crash(&mut self) {
        self.txns.retain(|_, txn| txn.is_prepared);
        self.saved.clear();
        let prepared: BTreeSet<SessionId> = self.txns.keys().copied().collect();
        self.row_locks.keep(&prepared);
        self.name_locks.keep(&prepared);
    }
}

/// The values of a row that unique indexes look at. NULL is never in the way.
fn values_of(row: Row) -> impl Iterator<Item = (Index, i64)> {
    let uniq = row.uniq.map(|value| (Index::Uniq, value));
    uniq.into_iter().chain([(Index::Value, row.value)])
}

#[cfg(test)]
mod tests;
