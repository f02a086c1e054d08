//! The server's statistics of the statements that touch a table, from the performance schema's digests.
//!
//! A digest is a statement without its values. Whether it touches the table is told from its words: the
//! table's name where a table's name stands. Our own statements name our own tables too and are left out.

use underpin_core::statements::StatementStats;
use underpin_dialect::{DbResult, ErrorKind};

use crate::connect::Session;
use crate::query::{cell, literal, quote, rows, text};

/// Digests of a table that are told, the costliest.
const TOLD_MAX: usize = 200;

/// Digests that are read for it: those whose text has the name anywhere.
const READ_MAX: u32 = 2000;

/// Characters of a statement that are kept.
const TEXT_MAX: usize = 1000;

/// What names of our own tables have in them.
const OURS: &str = "~up_";

/// Words behind which a table's name stands.
const BEFORE_TABLES: [&str; 11] = [
    "FROM",
    "JOIN",
    "INTO",
    "UPDATE",
    "TABLE",
    "IGNORE",
    "LOW_PRIORITY",
    "DELAYED",
    "QUICK",
    "STRAIGHT_JOIN",
    "HIGH_PRIORITY",
];

/// The counters; `None` where the server keeps none, or not for this account.
///
/// # Errors
/// The server's or the connection's.
pub(crate) async fn read(
    session: &mut Session,
    schema: &str,
    table: &str,
) -> DbResult<Option<Vec<StatementStats>>> {
    let attempted = "reading the statistics of statements on";
    let name = quote(table)?;
    // No LIKE: the name may hold its wildcards.
    let sql = format!(
        "SELECT DIGEST, DIGEST_TEXT, COALESCE(SCHEMA_NAME, ''), COUNT_STAR, SUM_TIMER_WAIT / \
         1000000000, SUM_ROWS_EXAMINED, SUM_ROWS_SENT + SUM_ROWS_AFFECTED, SUM_NO_INDEX_USED \
         FROM performance_schema.events_statements_summary_by_digest WHERE DIGEST IS NOT NULL AND LOCATE({}, DIGEST_TEXT) > 0 ORDER BY SUM_TIMER_WAIT DESC LIMIT {READ_MAX}",
        literal(&name)?
    );
    let found = match rows(&mut session.conn, &sql, attempted, table).await {
        Ok(found) => found,
        Err(error) if matches!(error.kind, ErrorKind::AccessDenied | ErrorKind::NotFound) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    if found.is_empty() && !counts(session).await? {
        return Ok(None);
    }
    let mut stats = Vec::new();
    for row in &found {
        let words = text(row, 1);
        if stats.len() >= TOLD_MAX || !touches(&words, &text(row, 2), schema, table) {
            continue;
        }
        stats.push(StatementStats {
            digest: text(row, 0),
            text: words.chars().take(TEXT_MAX).collect(),
            calls: cell(row, 3, attempted)?,
            total_ms: text(row, 4).parse().unwrap_or(0.0),
            examined: cell(row, 5, attempted)?,
            rows: cell(row, 6, attempted)?,
            without_index: cell(row, 7, attempted)?,
        });
    }
    Ok(Some(stats))
}

/// Whether the server counts at all.
async fn counts(session: &mut Session) -> DbResult<bool> {
    let sql = "SELECT @@GLOBAL.performance_schema = 1 AND EXISTS (SELECT 1 FROM \
               performance_schema.setup_consumers WHERE NAME = 'statements_digest' AND ENABLED = \
               'YES')";
    let attempted = "asking whether statements are counted by";
    Ok(crate::query::number(&mut session.conn, sql, attempted, "the server").await? == 1)
}

/// Whether a digest's text names the table as a table. `default`: the schema it ran in.
fn touches(words: &str, default: &str, schema: &str, table: &str) -> bool {
    if words.contains(OURS) {
        return false;
    }
    let quoted = |name: &str| format!("`{}`", name.replace('`', "``"));
    let (table, schema_quoted) = (quoted(table), quoted(schema));
    words.match_indices(&table).any(|(at, _)| {
        let Some(before) = words.get(..at).map(str::trim_end) else { return false };
        match before.strip_suffix('.') {
            Some(qualified) => qualified.trim_end().ends_with(&schema_quoted),
            None => default.eq_ignore_ascii_case(schema) && stands_for_table(before),
        }
    })
}

/// Whether what follows these words is a table's name.
fn stands_for_table(before: &str) -> bool {
    let before = before.trim_end_matches(['(', ' ']);
    let last = before.rsplit(' ').next().unwrap_or_default();
    if BEFORE_TABLES.iter().any(|word| last.eq_ignore_ascii_case(word)) {
        return true;
    }
    // A list of tables: nothing but names since FROM or UPDATE.
    let Some(list) = before.strip_suffix(',') else { return false };
    let begun = ["FROM ", "UPDATE "].into_iter().filter_map(|word| list.rfind(word)).max();
    let names = begun.and_then(|at| list.get(at..)).unwrap_or_default();
    !names.is_empty() && !["WHERE", "SET", "ORDER", "GROUP"].iter().any(|word| names.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_touches_the_tables_that_it_names() {
        for (words, default, expected) in [
            ("SELECT * FROM `orders` WHERE `id` = ?", "shop", true),
            ("SELECT * FROM `orders` WHERE `id` = ?", "other", false),
            ("SELECT * FROM `shop` . `orders` WHERE `id` = ?", "other", true),
            ("SELECT * FROM `other` . `orders`", "shop", false),
            ("INSERT INTO `orders` ( `a` ) VALUES (?)", "shop", true),
            ("UPDATE `orders` SET `a` = ?", "shop", true),
            ("DELETE FROM `orders` WHERE `id` = ?", "shop", true),
            ("SELECT * FROM `items` , `orders` WHERE `x` = ?", "shop", true),
            ("SELECT `a` , `orders` FROM `items`", "shop", false),
            ("SELECT * FROM `items` ORDER BY `a` , `orders`", "shop", false),
            ("SELECT `i` . `orders` FROM `items` `i`", "shop", false),
            ("SELECT * FROM `items` LEFT JOIN `orders` USING ( `id` )", "shop", true),
            ("SELECT * FROM ( `orders` JOIN `items` )", "shop", true),
            ("INSERT INTO `items` ( `orders` ) VALUES (?)", "shop", false),
            ("SELECT * FROM `a` JOIN `b` USING ( `orders` )", "shop", false),
            ("INSERT INTO `orders~up_new` SELECT * FROM `orders`", "shop", false),
        ] {
            assert_eq!(touches(words, default, "shop", "orders"), expected, "{words}");
        }
    }
}
