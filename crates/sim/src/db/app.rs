//! What the application does to the table under its name: statements in its own terms, translated to
//! the shape that the table has at that moment, with the capture triggers firing.

use super::{Clash, Db, Index, Lock, Object, Refusal, Row, RowKey, SOURCE, SessionId};

/// A row as the application thinks of it, whatever the table's shape is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AppRow {
    pub(crate) uniq: Option<i64>,
    pub(crate) value: i64,
}

/// Factor and offset of the change's conversion.
const CONVERT_FACTOR: i64 = 10;
const CONVERT_OFFSET: i64 = 7;

impl Db {
    /// The value in the new shape; `None` where it does not fit.
    pub(crate) fn convert(&self, value: i64) -> Option<i64> {
        match self.rules.fit_max {
            Some(fit_max) if value > fit_max => None,
            _ => Some(value * CONVERT_FACTOR + CONVERT_OFFSET),
        }
    }

    /// The row of the new shape that a row of the old one becomes, with this draw.
    pub(crate) fn image(&self, key: RowKey, row: Row, draw: u64) -> Result<Row, Refusal> {
        let value = self.convert(row.value).ok_or(Refusal::Unfit(key))?;
        Ok(Row { uniq: row.uniq, value, draw })
    }

    /// The value in the old shape; `None` where it does not fit.
    pub(crate) fn convert_back(&self, value: i64) -> Option<i64> {
        let value = (value - CONVERT_OFFSET) / CONVERT_FACTOR;
        self.rules.old_fit_max.is_none_or(|most| value <= most).then_some(value)
    }

    /// The row of the old shape that a row of the new one becomes, with this draw.
    pub(crate) fn image_back(&self, key: RowKey, row: Row, draw: u64) -> Result<Row, Refusal> {
        let value = self.convert_back(row.value).ok_or(Refusal::Unfit(key))?;
        Ok(Row { uniq: row.uniq, value, draw })
    }

    /// The table that the application's name means now.
    pub(crate) fn live(&self) -> Option<Object> {
        self.names.get(SOURCE).copied()
    }

    fn open(&self, now_us: u64) -> Result<Object, Refusal> {
        let object = self.live().ok_or(Refusal::NoTable)?;
        if self.fence.is_some_and(|(fenced, until_us)| fenced == object && now_us < until_us) {
            return Err(Refusal::Fenced);
        }
        Ok(object)
    }

    fn stored_value(&self, object: Object, key: RowKey, value: i64) -> Result<i64, Refusal> {
        match object {
            Object::Shadow => self.convert(value).ok_or(Refusal::Unfit(key)),
            Object::Original if self.rules.old_fit_max.is_some_and(|most| value > most) => {
                Err(Refusal::Unfit(key))
            }
            Object::Original | Object::Sentry => Ok(value),
        }
    }

    fn fire(
        &mut self,
        session: SessionId,
        object: Object,
        trigger: usize,
        keys: &[RowKey],
    ) -> Result<(), Refusal> {
        if self.triggers(object).get(trigger) == Some(&true) {
            for key in keys {
                self.append(session, object, *key)?;
            }
        }
        Ok(())
    }

    /// `INSERT`.
    pub(crate) fn app_insert(
        &mut self,
        session: SessionId,
        now_us: u64,
        key: RowKey,
        row: AppRow,
    ) -> Result<(), Refusal> {
        let object = self.open(now_us)?;
        let value = self.stored_value(object, key, row.value)?;
        let draw = self.draw();
        self.insert(session, object, key, Row { uniq: row.uniq, value, draw })?;
        self.fire(session, object, 0, &[key])
    }

    /// `UPDATE … SET uniq = …`. False where no row has the key.
    pub(crate) fn app_set_uniq(
        &mut self,
        session: SessionId,
        now_us: u64,
        key: RowKey,
        uniq: Option<i64>,
    ) -> Result<bool, Refusal> {
        let object = self.open(now_us)?;
        self.app_update(session, object, key, |row| Row { uniq, ..row })
    }

    /// `UPDATE … SET value = …`. False where no row has the key.
    pub(crate) fn app_set_value(
        &mut self,
        session: SessionId,
        now_us: u64,
        key: RowKey,
        value: i64,
    ) -> Result<bool, Refusal> {
        let object = self.open(now_us)?;
        let value = self.stored_value(object, key, value)?;
        self.app_update(session, object, key, |row| Row { value, ..row })
    }

    fn app_update(
        &mut self,
        session: SessionId,
        object: Object,
        key: RowKey,
        change: impl Fn(Row) -> Row,
    ) -> Result<bool, Refusal> {
        self.row_locks.take(session, Lock::Row(object, key))?;
        let Some(old) = self.view(session, object, key) else { return Ok(false) };
        self.put(session, object, key, Some(change(old)))?;
        self.fire(session, object, 1, &[key])?;
        Ok(true)
    }

    /// `UPDATE … SET id = …`. False where no row has the key.
    pub(crate) fn app_move_key(
        &mut self,
        session: SessionId,
        now_us: u64,
        from: RowKey,
        to: RowKey,
    ) -> Result<bool, Refusal> {
        let object = self.open(now_us)?;
        self.row_locks.take(session, Lock::Row(object, from))?;
        self.row_locks.take(session, Lock::Row(object, to))?;
        let Some(row) = self.view(session, object, from) else { return Ok(false) };
        if from != to {
            if self.view(session, object, to).is_some() {
                return Err(Refusal::Clash(Clash { index: Index::Key, key: to, holder: to }));
            }
            self.put(session, object, from, None)?;
            self.put(session, object, to, Some(row))?;
        }
        let logged = if self.logs_old_key { vec![from, to] } else { vec![to] };
        self.fire(session, object, 1, &logged)?;
        Ok(true)
    }

    /// `DELETE`. False where no row has the key.
    pub(crate) fn app_delete(
        &mut self,
        session: SessionId,
        now_us: u64,
        key: RowKey,
    ) -> Result<bool, Refusal> {
        let object = self.open(now_us)?;
        if self.delete(session, object, key)?.is_none() {
            return Ok(false);
        }
        self.fire(session, object, 2, &[key])?;
        Ok(true)
    }

    /// Keys that the application can see.
    pub(crate) fn app_keys(&self) -> Vec<RowKey> {
        let rows = self.live().and_then(|object| self.tables.get(&object));
        rows.map(|rows| rows.keys().copied().collect()).unwrap_or_default()
    }

    /// The unique value that the transaction sees on a row.
    pub(crate) fn app_uniq(&self, session: SessionId, key: RowKey) -> Option<i64> {
        self.view(session, self.live()?, key)?.uniq
    }
}
