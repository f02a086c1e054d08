//! Definition statements of the simulated server. Each happens in an instant, for good, and cannot be
//! rolled back. All of them are idempotent, as the dialect makes them.

use std::collections::BTreeMap;
use std::rc::Rc;

use underpin_core::way::Way;

use super::{Clash, Db, Index, Mark, Object, RowKey, Rows, SHADOW, SOURCE, Store};
use super::{retired_name, shadow_name};

impl Db {
    /// Makes the shadow, empty.
    pub(crate) fn create_shadow(&mut self, indexed: bool) {
        self.tables.insert(Object::Shadow, Rc::new(Rows::new()));
        self.names.insert(SHADOW, Object::Shadow);
        self.shadow_indexed = indexed;
    }

    /// Makes the table that holds the retired name during the two-session swap.
    pub(crate) fn create_sentry(&mut self, way: Way) {
        self.names.entry(retired_name(way)).or_insert(Object::Sentry);
    }

    /// Drops the sentry; a real retired table stays.
    pub(crate) fn drop_sentry(&mut self) {
        self.names.retain(|_, object| *object != Object::Sentry);
    }

    /// Drops the table of this name, and its triggers with it.
    pub(crate) fn drop_table(&mut self, name: &'static str) {
        if let Some(object) = self.names.remove(name) {
            self.tables.remove(&object);
            self.sides.of(object).triggers = [false; 3];
        }
    }

    /// Forgets everything that the run keeps on the server.
    pub(crate) fn clear_store(&mut self) {
        self.store = Store::default();
    }

    /// `RENAME TABLE source TO retired, shadow TO source`, all or nothing, by the names of this way.
    ///
    /// False where a name is missing or taken.
    pub(crate) fn rename_both(&mut self, way: Way) -> bool {
        let (retired, shadow) = (retired_name(way), shadow_name(way));
        if self.names.contains_key(retired) || !self.names.contains_key(shadow) {
            return false;
        }
        self.rename(SOURCE, retired) && self.rename(shadow, SOURCE)
    }

    /// Gives a table another name.
    pub(crate) fn rename(&mut self, from: &'static str, to: &'static str) -> bool {
        match self.names.remove(from) {
            Some(object) => self.names.insert(to, object).is_none(),
            None => false,
        }
    }

    /// `TRUNCATE`: no trigger fires, and the table is another one afterwards.
    pub(crate) fn truncate(&mut self, object: Object) {
        self.tables.insert(object, Rc::new(Rows::new()));
        self.rewritten(object);
        self.commit_no += 1;
    }

    /// Changes a row of a table that is not live, which nobody has asked to change. Returns its key.
    pub(crate) fn spoil(&mut self, object: Object, nth: u64) -> Option<RowKey> {
        if !self.shadow_indexed && self.heaps.is_some() {
            return self.spoil_bag(nth);
        }
        let rows = self.tables.get_mut(&object)?;
        let count = u64::try_from(rows.len()).ok()?;
        let at = usize::try_from(nth.checked_rem(count)?).ok()?;
        let key = rows.keys().nth(at).copied()?;
        // No other row has such a value, so that nothing clashes.
        Rc::make_mut(rows).get_mut(&key)?.value = -1_000_000 - key;
        self.commit_no += 1;
        Some(key)
    }

    /// Builds the unique indexes of the shadow.
    pub(crate) fn build_indexes(&mut self) -> Result<(), Clash> {
        let Some(rows) = self.tables.get(&Object::Shadow) else { return Ok(()) };
        let mut seen = BTreeMap::new();
        for (key, row) in rows.iter() {
            let uniq = row.uniq.map(|value| (Index::Uniq, value));
            let value = self.rules.new_unique.then_some((Index::Value, row.value));
            for (index, value) in uniq.into_iter().chain(value) {
                if let Some(holder) = seen.insert((index, value), *key) {
                    return Err(Clash { index, key: *key, holder });
                }
            }
        }
        self.shadow_indexed = true;
        Ok(())
    }

    /// The marks of a round.
    pub(crate) fn marks_of(&self, round: u64) -> Vec<Mark> {
        self.store.marks.iter().filter(|mark| mark.round == round).copied().collect()
    }
}
