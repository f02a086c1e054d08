//! Definition statements of the simulated server. Each happens in an instant, for good, and cannot be
//! rolled back. All of them are idempotent, as the dialect makes them.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Clash, Db, Index, Mark, Object, RETIRED, RowKey, Rows, SHADOW, SOURCE, Store};

impl Db {
    /// Makes the shadow, empty.
    pub(crate) fn create_shadow(&mut self, indexed: bool) {
        self.tables.insert(Object::Shadow, Rc::new(Rows::new()));
        self.names.insert(SHADOW, Object::Shadow);
        self.shadow_indexed = indexed;
    }

    /// Makes the change log, empty.
    pub(crate) fn create_log(&mut self) {
        self.log = Some(Rc::default());
    }

    /// Makes the table that holds the retired name during the two-session swap.
    pub(crate) fn create_sentry(&mut self) {
        self.names.entry(RETIRED).or_insert(Object::Sentry);
    }

    /// Drops the sentry; a real retired table stays.
    pub(crate) fn drop_sentry(&mut self) {
        if self.names.get(RETIRED) == Some(&Object::Sentry) {
            self.names.remove(RETIRED);
        }
    }

    /// Drops the table of this name.
    pub(crate) fn drop_table(&mut self, name: &'static str) {
        if let Some(object) = self.names.remove(name) {
            self.tables.remove(&object);
        }
    }

    /// Drops the change log.
    pub(crate) fn drop_log(&mut self) {
        self.log = None;
    }

    /// Forgets everything that the run keeps on the server.
    pub(crate) fn clear_store(&mut self) {
        self.store = Store::default();
    }

    /// `RENAME TABLE source TO retired, shadow TO source`, all or nothing.
    ///
    /// False where a name is missing or taken.
    pub(crate) fn rename_both(&mut self) -> bool {
        if self.names.contains_key(RETIRED) || !self.names.contains_key(SHADOW) {
            return false;
        }
        self.rename(SOURCE, RETIRED) && self.rename(SHADOW, SOURCE)
    }

    /// Gives a table another name.
    pub(crate) fn rename(&mut self, from: &'static str, to: &'static str) -> bool {
        match self.names.remove(from) {
            Some(object) => self.names.insert(to, object).is_none(),
            None => false,
        }
    }

    /// `TRUNCATE`: no trigger fires, and the table is another one afterwards.
    pub(crate) fn truncate_original(&mut self) {
        self.tables.insert(Object::Original, Rc::new(Rows::new()));
        self.incarnation += 1;
        self.commit_no += 1;
    }

    /// Changes a row of the shadow that nobody has asked to change. Returns its key.
    pub(crate) fn spoil_shadow(&mut self, nth: u64) -> Option<RowKey> {
        if !self.shadow_indexed && self.heaps.is_some() {
            return self.spoil_bag(nth);
        }
        let rows = self.tables.get_mut(&Object::Shadow)?;
        let count = u64::try_from(rows.len()).ok()?;
        let at = usize::try_from(nth.checked_rem(count)?).ok()?;
        let key = rows.keys().nth(at).copied()?;
        // No other row has such a value, so that nothing clashes.
        Rc::make_mut(rows).get_mut(&key)?.value = -1_000_000 - key;
        self.commit_no += 1;
        Some(key)
    }

    /// Whether the original still is what it was when the triggers were installed, with its triggers.
    pub(crate) fn is_source_unchanged(&self) -> bool {
        self.names.get(SOURCE) == Some(&Object::Original)
            && self.triggers == [true; 3]
            && self.store.identity == Some(self.incarnation)
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
