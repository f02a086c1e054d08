//! Statements, rows and their values as text: the server gives them their types.
//!
//! Owns every statement that the writers know. `{t}` stands for the table: each is run on both.

use crate::workload::Dice;

use super::keys::Keys;

/// A value as the server reads it; `None` is null.
pub(super) type Value = Option<String>;

/// One statement for both tables, which must report the same number of rows.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub(super) sql: &'static str,
    pub(super) values: Vec<Value>,
}

pub(super) const COLUMNS: &str =
    "code, slot, customer, status, amount, note, tags, details, placed_at";

/// The key comes after the other columns, so that those have the same numbers everywhere.
macro_rules! insert {
    ($tail:literal) => {
        concat!(
            "INSERT INTO {t} (code, slot, customer, status, amount, note, tags, details, \
             placed_at, shop, id) VALUES ($1::text, $2::text::int, $3::text::int, $4::text, \
             $5::text::numeric, $6::text, $7::text::text[], $8::text::jsonb, \
             to_timestamp($9::text::float8), $10::text::smallint, $11::text::bigint)",
            $tail
        )
    };
}

/// The id is drawn by the first table and given to the second.
pub(super) const INSERT_DRAWN: &str = "INSERT INTO {t} (code, slot, customer, status, amount, \
     note, tags, details, placed_at, shop) VALUES ($1::text, $2::text::int, $3::text::int, \
     $4::text, $5::text::numeric, $6::text, $7::text::text[], $8::text::jsonb, \
     to_timestamp($9::text::float8), $10::text::smallint) RETURNING id";
pub(super) const INSERT: &str = insert!("");
pub(super) const INSERT_OR_NOT: &str = insert!(" ON CONFLICT (shop, id) DO NOTHING");
pub(super) const UPSERT_BY_KEY: &str = insert!(
    " ON CONFLICT (shop, id) DO UPDATE SET amount = excluded.amount, note = excluded.note, \
     tags = excluded.tags"
);
pub(super) const UPSERT_BY_CODE: &str = insert!(
    " ON CONFLICT (code) DO UPDATE SET amount = excluded.amount, customer = excluded.customer"
);

/// Ends every statement that meets one row by its key.
macro_rules! by_key {
    ($head:literal) => {
        concat!($head, " WHERE shop = $1::text::smallint AND id = $2::text::bigint")
    };
}

pub(super) const PAYLOAD: &str = by_key!(
    "UPDATE {t} SET status = $3::text, amount = $4::text::numeric, note = $5::text, \
     tags = $6::text::text[], details = $7::text::jsonb"
);
pub(super) const CUSTOMER: &str =
    by_key!("UPDATE {t} SET customer = $3::text::int, placed_at = to_timestamp($4::text::float8)");
pub(super) const NOTHING: &str = by_key!("UPDATE {t} SET note = note");
pub(super) const CODE: &str = by_key!("UPDATE {t} SET code = $3::text");
pub(super) const KEY: &str =
    by_key!("UPDATE {t} SET shop = $3::text::smallint, id = $4::text::bigint");
pub(super) const DELETE: &str = by_key!("DELETE FROM {t}");
pub(super) const READ_CODE: &str = by_key!("SELECT code FROM {t}");
/// Two rows change places in a unique constraint that is checked at the statement's end.
pub(super) const SLOTS: &str = "UPDATE {t} AS a SET slot = (SELECT b.slot FROM {t} AS b \
     WHERE b.shop = $1::text::smallint AND b.id = $2::text::bigint + $3::text::bigint - a.id) \
     WHERE a.shop = $1::text::smallint AND a.id IN ($2::text::bigint, $3::text::bigint)";
pub(super) const BULK: &str = "UPDATE {t} SET amount = amount + 0.01, note = $4::text \
     WHERE shop = $1::text::smallint AND id BETWEEN $2::text::bigint AND $3::text::bigint";
pub(super) const BULK_DELETE: &str = "DELETE FROM {t} \
     WHERE shop = $1::text::smallint AND id BETWEEN $2::text::bigint AND $3::text::bigint";

/// What an order may be.
const STATUSES: [&str; 4] = ["new", "paid", "sent", "closed"];
/// Seconds since 1970 of the first order.
pub(super) const FIRST_PLACED_S: i64 = 1_700_000_000;

/// The values of [`COLUMNS`].
pub(super) fn fresh(keys: &mut Keys, dice: &mut Dice) -> Vec<Value> {
    let code = (dice.below(8) > 0).then(|| keys.fresh_code());
    let slot = (dice.below(2) == 0).then(|| keys.fresh_number().to_string());
    vec![
        code,
        slot,
        customer(dice),
        status(dice),
        amount(dice),
        note(dice),
        tags(dice),
        details(dice),
        placed(dice),
    ]
}

pub(super) fn customer(dice: &mut Dice) -> Value {
    Some(dice.below(50_021).to_string())
}

pub(super) fn status(dice: &mut Dice) -> Value {
    dice.one_of(&STATUSES).map(str::to_owned)
}

pub(super) fn amount(dice: &mut Dice) -> Value {
    let sign = if dice.below(10) == 0 { "-" } else { "" };
    Some(format!("{sign}{}.{:02}", dice.below(100_000), dice.below(100)))
}

pub(super) fn note(dice: &mut Dice) -> Value {
    match dice.below(5) {
        0 => None,
        1 => Some(String::new()),
        2 => Some("\\N 'quoted' \"twice\" \\t and\ta tab\nand a line".to_owned()),
        // long enough to be stored apart from the row
        3 if dice.below(4) == 0 => Some(format!("{}", dice.next()).repeat(300)),
        _ => Some(format!("changed {} “später” ☂", dice.next())),
    }
}

pub(super) fn tags(dice: &mut Dice) -> Value {
    match dice.below(4) {
        0 => None,
        1 => Some("{}".to_owned()),
        2 => Some(format!("{{a,NULL,\"b, c\",{}}}", dice.below(100))),
        _ => Some("{one}".to_owned()),
    }
}

pub(super) fn details(dice: &mut Dice) -> Value {
    match dice.below(3) {
        0 => None,
        1 => Some("null".to_owned()),
        _ => Some(format!("{{\"n\": {}, \"of\": [1, null, \"☂\"]}}", dice.below(1_000))),
    }
}

pub(super) fn placed(dice: &mut Dice) -> Value {
    let seconds = i64::try_from(dice.below(10_000_000)).unwrap_or(0);
    Some((FIRST_PLACED_S + seconds).to_string())
}

impl Statement {
    /// The statement for `table`, its values in place of their numbers.
    pub(super) fn as_text(&self, table: &str) -> String {
        let sql = self.sql.replace("{t}", table);
        let mut text = String::new();
        let mut rest = sql.as_str();
        while let Some((before, after)) = rest.split_once('$') {
            let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, tail) = after.split_at(digits);
            let index = number.parse::<usize>().unwrap_or(0).wrapping_sub(1);
            text.push_str(before);
            text.push_str(&quoted(self.values.get(index).and_then(Option::as_deref)));
            rest = tail;
        }
        text.push_str(rest);
        text
    }
}

/// A literal; backslashes mean themselves.
fn quoted(value: Option<&str>) -> String {
    match value {
        None => "NULL".to_owned(),
        Some(text) => format!("'{}'", text.replace('\'', "''")),
    }
}

/// A line of COPY's text format.
pub(super) fn copy_line(values: &[Value]) -> String {
    let cell = |value: &Value| match value {
        None => "\\N".to_owned(),
        Some(text) => text
            .replace('\\', "\\\\")
            .replace('\t', "\\t")
            .replace('\n', "\\n")
            .replace('\r', "\\r"),
    };
    let cells: Vec<String> = values.iter().map(cell).collect();
    cells.join("\t") + "\n"
}

#[cfg(test)]
mod tests {
    use super::{CODE, Statement, copy_line};

    #[test]
    fn values_take_the_place_of_their_numbers() {
        let values = vec![Some("1".to_owned()), Some("-2".to_owned()), Some("it's $1".to_owned())];
        let text = Statement { sql: CODE, values }.as_text("t");
        assert_eq!(
            text,
            "UPDATE t SET code = 'it''s $1'::text WHERE shop = '1'::text::smallint AND id = \
             '-2'::text::bigint"
        );
        let line = copy_line(&[None, Some("a\tb\\N\n".to_owned()), Some(String::new())]);
        assert_eq!(line, "\\N\ta\\tb\\\\N\\n\t\n");
    }
}
