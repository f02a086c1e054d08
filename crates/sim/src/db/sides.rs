//! The two tables of a run and how a way sees them: which one is the source, which one the shadow, and
//! under which names. Besides, what the server keeps for each: capture triggers, change log, file.

use std::collections::BTreeMap;
use std::rc::Rc;

use underpin_core::way::Way;

use super::{Db, Entries, Object, RETIRED, Refusal, RowKey, SHADOW, SessionId, Snapshot};

/// The table that is read from, and that is live until the swap of this way.
pub(crate) fn source_of(way: Way) -> Object {
    match way {
        Way::Forward => Object::Original,
        Way::Back => Object::Shadow,
    }
}

/// The table that is written to, and that is live from the swap of this way on.
pub(crate) fn target_of(way: Way) -> Object {
    source_of(way.turned())
}

/// The name of the target until the swap.
pub(crate) fn shadow_name(way: Way) -> &'static str {
    match way {
        Way::Forward => SHADOW,
        Way::Back => RETIRED,
    }
}

/// The name of the source after the swap.
pub(crate) fn retired_name(way: Way) -> &'static str {
    shadow_name(way.turned())
}

/// What the server keeps for a table besides its rows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Side {
    /// Capture triggers: insert, update, delete.
    pub(crate) triggers: [bool; 3],
    /// The log that they write to.
    pub(crate) log: Option<Rc<Entries>>,
    /// Changes when the table is truncated or altered.
    pub(crate) incarnation: u64,
}

/// Both sides; a table that is not there has an empty one.
#[derive(Debug, Default)]
pub(crate) struct Sides(BTreeMap<Object, Side>);

impl Sides {
    pub(crate) fn of(&mut self, object: Object) -> &mut Side {
        self.0.entry(object).or_default()
    }
}

impl Db {
    /// Whether all capture triggers of the table stand.
    pub(crate) fn is_captured(&self, object: Object) -> bool {
        self.triggers(object) == [true; 3]
    }

    /// Capture triggers of the table: insert, update, delete.
    pub(crate) fn triggers(&self, object: Object) -> [bool; 3] {
        self.sides.0.get(&object).map(|side| side.triggers).unwrap_or_default()
    }

    /// Installs or drops a trigger.
    pub(crate) fn set_trigger(&mut self, object: Object, at: usize, stands: bool) {
        if let Some(trigger) = self.sides.of(object).triggers.get_mut(at) {
            *trigger = stands;
        }
    }

    /// The log that the table's triggers write to.
    pub(crate) fn log(&self, object: Object) -> Option<&Rc<Entries>> {
        self.sides.0.get(&object).and_then(|side| side.log.as_ref())
    }

    /// The table's file.
    pub(crate) fn incarnation(&self, object: Object) -> u64 {
        self.sides.0.get(&object).map(|side| side.incarnation).unwrap_or_default()
    }

    /// The table has another file.
    pub(crate) fn rewritten(&mut self, object: Object) {
        self.sides.of(object).incarnation += 1;
    }

    /// Notes which table this is.
    pub(crate) fn note_identity(&mut self, object: Object) {
        let incarnation = self.incarnation(object);
        self.store.identity.insert(object, incarnation);
    }

    /// Whether the table is live, is what it was when its identity was noted, and has its triggers.
    pub(crate) fn is_source_unchanged(&self, source: Object) -> bool {
        self.live() == Some(source)
            && self.is_captured(source)
            && self.store.identity.get(&source) == Some(&self.incarnation(source))
    }

    /// Makes the change log of the table, empty, unless there is one.
    pub(crate) fn create_log(&mut self, object: Object) {
        self.sides.of(object).log.get_or_insert_with(Rc::default);
    }

    /// Drops the change log of the table.
    pub(crate) fn drop_log(&mut self, object: Object) {
        self.sides.of(object).log = None;
    }

    /// The capture triggers of the table fire for a write of our own, where our sessions are captured as
    /// everybody's are.
    pub(crate) fn fire_own(
        &mut self,
        session: SessionId,
        object: Object,
        key: RowKey,
    ) -> Result<(), Refusal> {
        if self.captures_own && self.is_captured(object) {
            self.append(session, object, key)?;
        }
        Ok(())
    }

    /// What is committed now, as this way sees it.
    pub(crate) fn snapshot(&self, way: Way) -> Snapshot {
        let source = source_of(way);
        Snapshot {
            no: self.commit_no,
            of: source,
            source: self.tables.get(&source).cloned().unwrap_or_default(),
            shadow: self.tables.get(&target_of(way)).cloned(),
            log: self.log(source).cloned(),
            incarnation: self.incarnation(source),
            heaps: self.heaps.clone(),
        }
    }
}
