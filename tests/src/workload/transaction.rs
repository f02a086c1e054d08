//! What an application does in one transaction, drawn by dice from what it knows.
//!
//! Owns the mix of statements and their effect on the model. Runs nothing.

use mysql_async::Value;

use super::Dice;
use super::model::{FIRST_PLACED_S, Model, Row, STATUSES};

/// One statement and what the server must say about it.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub(super) sql: &'static str,
    pub(super) params: Vec<Value>,
    /// Rows it must report as affected.
    pub(super) affected: u64,
    /// The row inserted, when its id is drawn by the server.
    pub(super) drawn: Option<Row>,
}

/// A transaction, and the rows as they are once it is acknowledged.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    pub(super) statements: Vec<Statement>,
    pub(super) effects: Vec<(i64, Option<Row>)>,
    /// Whether to end it by ROLLBACK.
    pub(super) roll_back: bool,
}

const INSERT_DRAWN: &str = "INSERT INTO orders (code, customer, status, amount, note, placed_at) \
     VALUES (?, ?, ?, ?, ?, FROM_UNIXTIME(?))";
const INSERT: &str = "INSERT INTO orders (id, code, customer, status, amount, note, placed_at) \
     VALUES (?, ?, ?, ?, ?, ?, FROM_UNIXTIME(?))";
const REPLACE: &str = "REPLACE INTO orders (id, code, customer, status, amount, note, placed_at) \
     VALUES (?, ?, ?, ?, ?, ?, FROM_UNIXTIME(?))";
const UPSERT: &str = "INSERT INTO orders (id, code, customer, status, amount, note, placed_at) \
     VALUES (?, ?, ?, ?, ?, ?, FROM_UNIXTIME(?)) \
     ON DUPLICATE KEY UPDATE amount = VALUES(amount), note = VALUES(note)";
const PAYLOAD: &str = "UPDATE orders SET status = ?, amount = ?, note = ? WHERE id = ?";
const CUSTOMER: &str = "UPDATE orders SET customer = ?, placed_at = FROM_UNIXTIME(?) WHERE id = ?";
const CODE: &str = "UPDATE orders SET code = ? WHERE id = ?";
const KEY: &str = "UPDATE orders SET id = ? WHERE id = ?";
const DELETE: &str = "DELETE FROM orders WHERE id = ?";

impl Draft {
    /// Draws a transaction of one to four operations; one in twelve is rolled back.
    pub(super) fn draw(model: &mut Model, dice: &mut Dice) -> Self {
        let mut draft = Self::default();
        let operations = if dice.below(3) == 0 { 2 + dice.below(3) } else { 1 };
        for _ in 0..operations {
            draft.add(model, dice);
        }
        if draft.statements.is_empty() {
            // chance found no row: an insert is always possible
            draft.insert_drawn(model, dice);
        }
        draft.roll_back = dice.below(12) == 0;
        draft
    }

    fn add(&mut self, model: &mut Model, dice: &mut Dice) {
        let taken: Vec<i64> = self.effects.iter().map(|(id, _)| *id).collect();
        let throw = dice.below(100);
        if throw < 14 {
            self.insert_drawn(model, dice);
            return;
        }
        if throw < 20 {
            let id = model.pick_free(dice, &taken);
            let row = fresh_row(model, dice);
            self.push(INSERT, with_id(id, &row), 1);
            self.effects.push((id, Some(row)));
            return;
        }
        let own_only = throw >= 90;
        let found = if own_only { model.pick_own(dice, &taken) } else { model.pick(dice, &taken) };
        let Some((id, row)) = found else { return };
        match throw {
            20..46 => self.update_payload(id, row, dice),
            46..56 => self.update_customer(id, row, dice),
            56..64 => self.update_code(id, row, model),
            64..74 => self.swap_codes((id, row), model, dice, taken),
            74..80 => {
                let new_id = model.pick_free(dice, &taken);
                self.push(KEY, vec![new_id.into(), id.into()], 1);
                self.effects.push((id, None));
                self.effects.push((new_id, Some(row)));
            }
            80..90 => {
                self.push(DELETE, vec![id.into()], 1);
                self.effects.push((id, None));
            }
            _ => self.renew(id, row, throw, model, dice),
        }
    }

    fn insert_drawn(&mut self, model: &mut Model, dice: &mut Dice) {
        let row = fresh_row(model, dice);
        let params = without_id(&row);
        self.statements.push(Statement {
            sql: INSERT_DRAWN,
            params,
            affected: 1,
            drawn: Some(row),
        });
    }

    fn update_payload(&mut self, id: i64, mut row: Row, dice: &mut Dice) {
        next_status(&mut row, dice);
        row.amount_cents = cents(dice);
        row.note = note(dice);
        let params = vec![
            row.status.clone().into(),
            amount(row.amount_cents).into(),
            row.note.clone().into(),
            id.into(),
        ];
        self.push(PAYLOAD, params, 1);
        self.effects.push((id, Some(row)));
    }

    fn update_customer(&mut self, id: i64, mut row: Row, dice: &mut Dice) {
        row.customer = signed(dice.below(50_021));
        row.placed_s = FIRST_PLACED_S + signed(dice.below(10_000_000));
        self.push(CUSTOMER, vec![row.customer.into(), row.placed_s.into(), id.into()], 1);
        self.effects.push((id, Some(row)));
    }

    fn update_code(&mut self, id: i64, mut row: Row, model: &mut Model) {
        row.code = model.fresh_code();
        self.push(CODE, vec![row.code.clone().into(), id.into()], 1);
        self.effects.push((id, Some(row)));
    }

    /// Two rows change places in the unique index, by way of a third value.
    fn swap_codes(
        &mut self,
        (id, mut row): (i64, Row),
        model: &mut Model,
        dice: &mut Dice,
        mut taken: Vec<i64>,
    ) {
        taken.push(id);
        let Some((other_id, mut other)) = model.pick(dice, &taken) else { return };
        let between = model.fresh_code();
        std::mem::swap(&mut row.code, &mut other.code);
        self.push(CODE, vec![between.into(), id.into()], 1);
        self.push(CODE, vec![other.code.clone().into(), other_id.into()], 1);
        self.push(CODE, vec![row.code.clone().into(), id.into()], 1);
        self.effects.push((id, Some(row)));
        self.effects.push((other_id, Some(other)));
    }

    /// The same id once more, in the three ways in which SQL can say it.
    fn renew(&mut self, id: i64, row: Row, throw: u64, model: &mut Model, dice: &mut Dice) {
        let mut new = fresh_row(model, dice);
        match throw {
            90..94 => {
                self.push(DELETE, vec![id.into()], 1);
                self.push(INSERT, with_id(id, &new), 1);
            }
            94..97 => self.push(REPLACE, with_id(id, &new), 2),
            _ => {
                let (amount_cents, note) = (new.amount_cents, new.note.clone());
                // a value that changes for certain: an upsert that changes nothing reports 1
                let note = note.or_else(|| Some(new.code.clone()));
                new = Row { amount_cents, note, ..row };
                self.push(UPSERT, with_id(id, &new), 2);
            }
        }
        self.effects.push((id, Some(new)));
    }

    fn push(&mut self, sql: &'static str, params: Vec<Value>, affected: u64) {
        self.statements.push(Statement { sql, params, affected, drawn: None });
    }
}

fn fresh_row(model: &mut Model, dice: &mut Dice) -> Row {
    Row {
        code: model.fresh_code(),
        customer: signed(dice.below(50_021)),
        status: "new".to_owned(),
        amount_cents: cents(dice),
        note: note(dice),
        placed_s: FIRST_PLACED_S + signed(dice.below(10_000_000)),
    }
}

fn next_status(row: &mut Row, dice: &mut Dice) {
    if let Some(status) = dice.one_of(&STATUSES) {
        status.clone_into(&mut row.status);
    }
}

fn cents(dice: &mut Dice) -> i64 {
    signed(dice.below(100_000_000)) - 1_000_000
}

fn note(dice: &mut Dice) -> Option<String> {
    match dice.below(4) {
        0 => None,
        1 => Some(String::new()),
        _ => Some(format!("changed {} “später” ☂", dice.next())),
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Hundredths as the server writes a DECIMAL.
pub(super) fn amount(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    let cents = cents.unsigned_abs();
    format!("{sign}{}.{:02}", cents / 100, cents % 100)
}

fn without_id(row: &Row) -> Vec<Value> {
    vec![
        row.code.clone().into(),
        row.customer.into(),
        row.status.clone().into(),
        amount(row.amount_cents).into(),
        row.note.clone().into(),
        row.placed_s.into(),
    ]
}

fn with_id(id: i64, row: &Row) -> Vec<Value> {
    let mut params = vec![id.into()];
    params.extend(without_id(row));
    params
}
