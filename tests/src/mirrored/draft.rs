//! What an application does in one transaction, drawn by dice.
//!
//! Owns the mix of operations. Runs nothing.

use std::time::Duration;

use crate::workload::Dice;

use super::keys::{Effect, Key, Keys};
use super::row::{self, Statement, Value};

/// One step of a transaction.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// The same statement on both tables.
    Both(Statement),
    /// An insert whose id the first table draws.
    Drawn(Statement),
    /// Two rows of unique codes change places, by way of null.
    SwapCodes(Key, Key),
    /// Lines in COPY's text format.
    Copy(String),
    /// A savepoint; everything up to [`Step::RollBackTo`] is undone.
    Save,
    RollBackTo,
    /// A statement that may fail for a duplicate, behind a savepoint of its own and undone.
    MayFail(Statement),
    /// Both tables are emptied.
    Truncate,
}

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Commit,
    RollBack,
    /// In two phases, some time between them.
    TwoPhases {
        commit: bool,
        pause: Duration,
    },
}

/// A transaction.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    /// Steps, each with the name of the operation it belongs to.
    pub(super) steps: Vec<(&'static str, Step)>,
    pub(super) effects: Vec<Effect>,
    pub(super) ending: Ending,
}

impl Draft {
    /// Draws a transaction of one to four operations. One in twelve is rolled back, one in eight
    /// rolls a part of it back, one in fifteen takes two phases.
    pub(super) fn draw(keys: &mut Keys, dice: &mut Dice) -> Self {
        let mut draft = Self { steps: Vec::new(), effects: Vec::new(), ending: Ending::Commit };
        let operations = if dice.below(3) == 0 { 2 + dice.below(3) } else { 1 };
        for _ in 0..operations {
            draft.add(keys, dice);
        }
        if dice.below(8) == 0 {
            let kept = draft.effects.len();
            draft.steps.push(("savepoint", Step::Save));
            draft.add(keys, dice);
            draft.add(keys, dice);
            draft.steps.push(("savepoint", Step::RollBackTo));
            draft.effects.truncate(kept);
            draft.add(keys, dice);
        }
        if dice.below(30) == 0 {
            let mut values = row::fresh(keys, dice);
            values.extend(key_values(keys.pick(dice)));
            let insert = Statement { sql: row::INSERT, values };
            draft.steps.push(("duplicate refused", Step::MayFail(insert)));
        }
        draft.ending = match dice.below(60) {
            0..5 => Ending::RollBack,
            throw @ 5..9 => {
                let pause = Duration::from_millis(dice.below(150));
                Ending::TwoPhases { commit: throw > 5, pause }
            }
            _ => Ending::Commit,
        };
        draft
    }

    /// Empties both tables and starts again with some rows.
    pub(super) fn draw_truncate(keys: &mut Keys, dice: &mut Dice) -> Self {
        let steps = vec![("truncate", Step::Truncate)];
        let mut draft = Self { steps, effects: Vec::new(), ending: Ending::Commit };
        draft.copy(keys, dice, 500);
        draft
    }

    fn add(&mut self, keys: &mut Keys, dice: &mut Dice) {
        let key = keys.pick(dice);
        match dice.below(100) {
            0..16 => self.insert_drawn(keys, dice),
            16..34 => self.payload(key, dice),
            34..42 => {
                let values = vec![row::customer(dice), row::placed(dice)];
                self.by_key("indexed update", row::CUSTOMER, key, values);
            }
            42..48 => {
                let code = (dice.below(4) > 0).then(|| keys.fresh_code());
                self.by_key("code update", row::CODE, key, vec![code]);
            }
            48..54 => {
                let other = keys.pick(dice);
                if other != key {
                    self.steps.push(("codes swapped", Step::SwapCodes(key, other)));
                }
            }
            54..59 => {
                let (one, two) = (keys.loaded_id(dice), keys.loaded_id(dice));
                if one != two {
                    let values = [keys.shop(), one, two].map(|n| Some(n.to_string())).to_vec();
                    self.both("slots swapped", row::SLOTS, values);
                }
            }
            59..64 => {
                let to = keys.pick_free(dice);
                self.move_key(key, to);
            }
            64..66 => self.exchange_keys(key, keys, dice),
            66..74 => {
                self.by_key("delete", row::DELETE, key, Vec::new());
                self.effects.push(Effect::Freed(key));
            }
            74..78 => {
                self.by_key("delete and insert", row::DELETE, key, Vec::new());
                self.insert("delete and insert", row::INSERT, key, keys, dice);
            }
            78..82 => {
                self.insert("insert or not", row::INSERT_OR_NOT, key, keys, dice);
            }
            82..88 => {
                self.insert("upsert by key", row::UPSERT_BY_KEY, key, keys, dice);
            }
            88..91 => self.upsert_by_code(keys, dice),
            91..94 => self.bulk("bulk update", row::BULK, 40, keys, dice),
            94 => self.bulk("bulk delete", row::BULK_DELETE, 5, keys, dice),
            95..98 => {
                let rows = 1 + dice.below(40);
                self.copy(keys, dice, rows);
            }
            _ => self.by_key("update of nothing", row::NOTHING, key, Vec::new()),
        }
    }

    fn both(&mut self, name: &'static str, sql: &'static str, values: Vec<Value>) {
        self.steps.push((name, Step::Both(Statement { sql, values })));
    }

    fn by_key(&mut self, name: &'static str, sql: &'static str, key: Key, more: Vec<Value>) {
        let mut values = key_values(key);
        values.extend(more);
        self.both(name, sql, values);
    }

    fn insert(
        &mut self,
        name: &'static str,
        sql: &'static str,
        key: Key,
        keys: &mut Keys,
        dice: &mut Dice,
    ) {
        let mut values = row::fresh(keys, dice);
        values.extend(key_values(key));
        self.both(name, sql, values);
        self.take(key, keys);
    }

    /// From here on no operation, not even of this transaction, may take the key for free.
    fn take(&mut self, key: Key, keys: &mut Keys) {
        keys.claim(key);
        self.effects.push(Effect::Taken(key));
    }

    fn insert_drawn(&mut self, keys: &mut Keys, dice: &mut Dice) {
        let mut values = row::fresh(keys, dice);
        values.push(Some(keys.shop().to_string()));
        let statement = Statement { sql: row::INSERT_DRAWN, values };
        self.steps.push(("insert", Step::Drawn(statement)));
    }

    fn payload(&mut self, key: Key, dice: &mut Dice) {
        let values = vec![
            row::status(dice),
            row::amount(dice),
            row::note(dice),
            row::tags(dice),
            row::details(dice),
        ];
        self.by_key("update", row::PAYLOAD, key, values);
    }

    fn move_key(&mut self, from: Key, to: Key) {
        self.by_key("key moved", row::KEY, from, key_values(to));
        self.effects.extend([Effect::Freed(from), Effect::Taken(to)]);
    }

    /// Two rows change keys, by way of a third.
    fn exchange_keys(&mut self, one: Key, keys: &mut Keys, dice: &mut Dice) {
        let two = keys.pick(dice);
        if one == two {
            return;
        }
        let between = (keys.shop(), keys.fresh_id());
        for (from, to) in [(one, between), (two, one), (between, two)] {
            self.by_key("keys exchanged", row::KEY, from, key_values(to));
        }
        self.take(one, keys);
        self.take(two, keys);
    }

    /// A code that another row may have, under a new key.
    fn upsert_by_code(&mut self, keys: &mut Keys, dice: &mut Dice) {
        let mut values = row::fresh(keys, dice);
        if let Some(code) = values.first_mut() {
            *code = Some(keys.old_code(dice));
        }
        let key = (keys.shop(), keys.fresh_id());
        values.extend(key_values(key));
        self.both("upsert by code", row::UPSERT_BY_CODE, values);
        self.effects.push(Effect::Taken(key));
    }

    fn bulk(
        &mut self,
        name: &'static str,
        sql: &'static str,
        rows: i64,
        keys: &Keys,
        dice: &mut Dice,
    ) {
        let from = keys.loaded_id(dice);
        let to = keys.after(from, rows);
        let mut values = [keys.shop(), from, to].map(|n| Some(n.to_string())).to_vec();
        if sql == row::BULK {
            values.push(row::note(dice));
        }
        self.both(name, sql, values);
    }

    fn copy(&mut self, keys: &mut Keys, dice: &mut Dice, rows: u64) {
        let mut lines = String::new();
        for _ in 0..rows {
            let mut values = row::fresh(keys, dice);
            // COPY takes no expressions
            if let Some(placed) = values.last_mut() {
                *placed = Some(format!("2026-03-29 01:{:02}:00+00", dice.below(60)));
            }
            let key = (keys.shop(), keys.fresh_id());
            values.extend(key_values(key));
            lines.push_str(&row::copy_line(&values));
            self.effects.push(Effect::Taken(key));
        }
        self.steps.push(("copy", Step::Copy(lines)));
    }
}

/// Shop and id as a statement takes them.
pub(super) fn key_values((shop, id): Key) -> Vec<Value> {
    vec![Some(shop.to_string()), Some(id.to_string())]
}
