//! The final table against what the writers were promised, and the replica against the primary.
//!
//! Owns its own SQL, written apart from the product's verification on purpose.

use std::collections::{HashMap, HashSet};
use std::fmt;

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;

use super::TABLE;
use super::model::{Layout, Model, Row};
use crate::servers::sql;

const EXAMPLES: usize = 10;

/// How the table differs from what it must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Rows read from the table.
    pub rows_read: u64,
    /// Acknowledged rows that are not there.
    pub missing: u64,
    /// Rows that are there and must not be.
    pub unexpected: u64,
    /// Rows with other values than acknowledged.
    pub different: u64,
    /// Rows left out because their last write had no answer.
    pub unsure: usize,
    /// The first differences, in words.
    pub examples: Vec<String>,
}

impl Differences {
    /// Whether every acknowledged write is there and nothing else.
    #[must_use]
    pub const fn none(&self) -> bool {
        self.missing == 0 && self.unexpected == 0 && self.different == 0
    }

    fn note(&mut self, words: String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(words);
        }
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} rows read: {} missing, {} unexpected, {} different, {} unsure",
            self.rows_read, self.missing, self.unexpected, self.different, self.unsure
        )?;
        self.examples.iter().try_for_each(|example| write!(out, "\n  {example}"))
    }
}

/// Reads the whole table once and compares each row; the writers must have stopped.
///
/// # Errors
/// The server's words; a difference is no error.
pub async fn compare_table(url: &str, layout: Layout, models: &[Model]) -> Result<Differences> {
    let mut changed: HashMap<i64, Option<Row>> = HashMap::new();
    let mut unsure: HashSet<i64> = HashSet::new();
    let mut unsure_codes: HashSet<&str> = HashSet::new();
    for model in models {
        changed.extend(model.changed().iter().map(|(id, row)| (*id, row.clone())));
        unsure.extend(model.unsure());
        unsure_codes.extend(model.unsure_codes().iter().map(String::as_str));
    }
    let mut found = Differences { unsure: unsure.len(), ..Differences::default() };
    // every id that must be there and was not met yet, among those that were changed
    let mut awaited: HashSet<i64> =
        changed.iter().filter(|(_, row)| row.is_some()).map(|(id, _)| *id).collect();
    let mut loaded_met: i64 = 0;
    let mut conn = sql::connect(url).await?;
    conn.query_drop("SET time_zone = '+00:00'").await.context("setting the time zone")?;
    let read = format!(
        "SELECT id, code, customer, status, CAST(amount * 100 AS SIGNED), note,
                CAST(UNIX_TIMESTAMP(placed_at) AS SIGNED) FROM {TABLE} ORDER BY id"
    );
    let mut rows = conn.query_iter(read).await.context("reading the table")?;
    while let Some(row) = rows.next().await.context("reading the table")? {
        let (id, code, customer, status, amount_cents, note, placed_s) =
            mysql_async::from_row_opt(row).context("reading a row")?;
        let row = Row { code, customer, status, amount_cents, note, placed_s };
        found.rows_read += 1;
        awaited.remove(&id);
        let touched = changed.get(&id);
        if unsure.contains(&id) || (touched.is_none() && unsure_codes.contains(row.code.as_str())) {
            continue;
        }
        loaded_met += i64::from(touched.is_none() && layout.loaded(id).is_some());
        match touched.cloned().unwrap_or_else(|| layout.loaded(id)) {
            Some(wanted) if wanted == row => {}
            Some(wanted) => {
                found.different += 1;
                found.note(format!("id {id} is {row:?}, was acknowledged as {wanted:?}"));
            }
            None => {
                found.unexpected += 1;
                found.note(format!("id {id} must not be there: {row:?}"));
            }
        }
    }
    drop(rows);
    conn.disconnect().await.context("disconnecting")?;
    for id in awaited.difference(&unsure) {
        found.missing += 1;
        found.note(format!("id {id} is missing"));
    }
    let sentinels = i64::from(layout.writers) + 1;
    // One whose only write was a DELETE with a lost answer may be gone, and nobody knows.
    let touched: HashSet<i64> = changed.keys().chain(&unsure).copied().collect();
    let touched = touched.into_iter().filter(|&id| layout.loaded(id).is_some()).count();
    let untouched = layout.rows + sentinels - i64::try_from(touched).context("counting rows")?;
    if loaded_met < untouched {
        found.missing += u64::try_from(untouched - loaded_met).context("counting rows")?;
        found.note(format!("{} rows that nobody touched are gone", untouched - loaded_met));
    }
    Ok(found)
}

/// Compares row count and a checksum of all columns on both servers; the replica must have caught
/// up and nobody may write. Returns the number of rows.
///
/// # Errors
/// A difference, or the server's words.
pub async fn compare_replica(primary_url: &str, replica_url: &str) -> Result<u64> {
    let primary = checksum(primary_url).await.context("on the primary")?;
    let replica = checksum(replica_url).await.context("on the replica")?;
    ensure!(
        primary == replica,
        "primary and replica differ: rows {} and {}, checksums {:x} and {:x}",
        primary.0,
        replica.0,
        primary.1,
        replica.1
    );
    Ok(primary.0)
}

async fn checksum(url: &str) -> Result<(u64, u64)> {
    let mut conn = sql::connect(url).await?;
    conn.query_drop("SET time_zone = '+00:00'").await.context("setting the time zone")?;
    let columns: Vec<String> = conn
        .query(format!(
            "SELECT CONCAT('QUOTE(`', column_name, '`)') FROM information_schema.columns
             WHERE table_schema = DATABASE() AND table_name = '{TABLE}' ORDER BY ordinal_position"
        ))
        .await
        .context("listing columns")?;
    ensure!(!columns.is_empty(), "there is no table {TABLE}");
    let sum = format!(
        "SELECT COUNT(*), BIT_XOR(CRC32(CONCAT_WS('|', {}))) FROM {TABLE}",
        columns.join(", ")
    );
    let sums: Option<(u64, u64)> = conn.query_first(sum).await.context("summing the table")?;
    conn.disconnect().await.context("disconnecting")?;
    sums.context("no sum")
}
