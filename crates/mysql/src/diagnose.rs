//! From "Data truncated for column 'x' at row 7" to the row a person can look at.
//!
//! Runs only after a failure, outside any lock on the live table, with bounded statements: it tries
//! smaller and smaller parts of what failed and rolls each back. What it cannot find out it leaves out;
//! the server's own words always stay.

use std::time::{Duration, Instant};

use underpin_core::key::{Frontier, KeyRange};
use underpin_core::way::Way;
use underpin_dialect::{DbError, DbResult, ErrorKind};

use crate::changelog::{Takes, fill_sql, keep_sql, write_shadow_sql};
use crate::copy::copy_sql;
use crate::flavor::StatementTimeLimit;
use crate::query::{cell, first, number, optional_text, rows, run, text, unquote};
use crate::shape::Shape;
use crate::silent::CANNOT_GO_BACK;
use crate::worker::Worker;

/// Time that a search for the culprit may take on the server, in milliseconds.
const SEARCH_MS: u64 = 20_000;

/// Steps of a search by halves; enough for 2^40 rows.
const SEARCH_STEPS: u32 = 40;

/// Characters of a list of rows that a message shows.
const LIST_CHARS: u32 = 200;

/// Names the row of a chunk whose value the new shape cannot hold.
pub(crate) async fn chunk_value(worker: &mut Worker, range: &KeyRange, error: DbError) -> DbError {
    // Without a code it is our own finding, which names its row.
    if error.code.is_none() {
        return error;
    }
    let column = column_named(&worker.shape, &error);
    let error = for_a_person(&worker.shape, error, column);
    let Ok(predicate) = worker.shape.range(range, |part| part.source.clone()) else { return error };
    let Some(offset) = bad_row(worker, range, &error).await else { return error };
    let shape = &worker.shape;
    let sql = format!(
        "SELECT {}, {} FROM {} FORCE INDEX ({}) WHERE {predicate} ORDER BY {} LIMIT 1 OFFSET {offset}",
        shape.key_shown(""),
        value_shown(shape, column, ""),
        shape.source,
        shape.source_index,
        shape.source_key("")
    );
    with_row(worker, &sql, column, error).await
}

/// Names the pending row whose value the new shape cannot hold; where a chunk was taken along, it may
/// be a row of that.
pub(crate) async fn pending_value(
    worker: &mut Worker,
    frontier: &Frontier,
    chunk: Option<&KeyRange>,
    error: DbError,
) -> DbError {
    if error.code.is_none() || worker.under_lock {
        return error;
    }
    let column = column_named(&worker.shape, &error);
    let Some(id) = bad_entry(worker, frontier).await else {
        return match chunk {
            Some(range) => chunk_value(worker, range, error).await,
            None => for_a_person(&worker.shape, error, column),
        };
    };
    let error = for_a_person(&worker.shape, error, column);
    let shape = &worker.shape;
    let sql = format!(
        "SELECT {}, {} FROM {} AS l JOIN {} AS s ON {} WHERE l.id = {id}",
        shape.key_shown("s."),
        value_shown(shape, column, "s."),
        shape.log,
        shape.source,
        shape.log_meets_source("l.", "s.")
    );
    with_row(worker, &sql, column, error).await
}

/// Names rows of the source that are duplicates under the violated index.
pub(crate) async fn duplicate(worker: &mut Worker, mut error: DbError) -> DbError {
    error.help = Some(match worker.shape.way {
        Way::Forward => {
            "Two rows of the table are equal under a unique index of the new shape. Mend the \
                         rows or the statement; the source is untouched"
                .to_owned()
        }
        Way::Back => {
            "Two rows of the table are equal under a unique index of the old shape. Mend the rows \
                      and run the same command again; the table stays as it is"
                .to_owned()
        }
    });
    if worker.under_lock {
        return error;
    }
    let said = error.server.clone().unwrap_or_default();
    let Some(index) = index_named(&said, &worker.spec.names.shadow) else { return error };
    let Some(expressions) = index_expressions(worker, &index).await else { return error };
    let known: Vec<String> =
        expressions.iter().map(|expression| format!("{expression} IS NOT NULL")).collect();
    let keys = worker.shape.source_key("s.");
    let select = format!(
        "SELECT LEFT(GROUP_CONCAT(CONCAT_WS('/', {}) ORDER BY {keys} SEPARATOR ' and '), \
         {LIST_CHARS}) FROM {} AS s WHERE {} GROUP BY {} HAVING COUNT(*) > 1 LIMIT 3",
        worker.shape.key_shown("s."),
        worker.shape.source,
        known.join(" AND "),
        expressions.join(", ")
    );
    let select = bounded(worker, &select);
    let object = worker.shape.table.clone();
    let found = rows(&mut worker.session.conn, &select, "naming duplicates of", &object).await;
    let names: Vec<String> = found.iter().flatten().map(|row| text(row, 0)).collect();
    if !names.is_empty() {
        let key: Vec<String> = worker.shape.key.iter().map(|part| unquote(&part.source)).collect();
        error.object = format!(
            "{object}; rows that share a value, by {}: {}",
            key.join("/"),
            names.join("; ")
        );
    }
    error
}

/// What failed under the swap's lock, now that everybody has been let through.
pub(crate) async fn after_unlock(worker: &mut Worker, error: DbError) -> DbError {
    match error.kind {
        ErrorKind::DataError => pending_value(worker, &Frontier::End, None, error).await,
        ErrorKind::DuplicateKey => duplicate(worker, error).await,
        _ => error,
    }
}

/// The error with what to do, and with the table's column in place of the stage's.
fn for_a_person(shape: &Shape, mut error: DbError, column: Option<usize>) -> DbError {
    if let (Some(index), Some(said), true) = (column, &error.server, is_staged(&error)) {
        let name = shape.pairs.get(index).map(|pair| unquote(&pair.target)).unwrap_or_default();
        let renamed = said
            .replace(&format!("'c{index}'"), &format!("'{name}'"))
            .replace(&format!("`c{index}`"), &format!("`{name}`"))
            .replace(&format!(".c{index}'"), &format!(".{name}'"));
        error.server = Some(renamed);
    }
    error.help = Some(match shape.way {
        Way::Forward => {
            "The new shape cannot hold this value. Mend the row or the statement; the source \
                         is untouched"
                .to_owned()
        }
        Way::Back => CANNOT_GO_BACK.to_owned(),
    });
    error
}

/// Whether the statement that failed filled the stage, whose columns bear other names.
fn is_staged(error: &DbError) -> bool {
    error.attempted.starts_with("reading pending")
}

fn value_shown(shape: &Shape, column: Option<usize>, prefix: &str) -> String {
    column.and_then(|index| shape.pairs.get(index)).map_or_else(
        || "NULL".to_owned(),
        |pair| format!("LEFT(CAST({prefix}{} AS CHAR), 100)", pair.source),
    )
}

async fn with_row(
    worker: &mut Worker,
    sql: &str,
    column: Option<usize>,
    mut error: DbError,
) -> DbError {
    let object = worker.shape.table.clone();
    let found = first(&mut worker.session.conn, sql, "naming the row of", &object).await;
    let Ok(Some(row)) = found else { return error };
    let key: Vec<String> = worker
        .shape
        .key
        .iter()
        .enumerate()
        .map(|(index, part)| format!("{}={}", unquote(&part.source), text(&row, index)))
        .collect();
    error.object = format!("{object}; row {}", key.join(", "));
    if let Some(pair) = column.and_then(|index| worker.shape.pairs.get(index)) {
        let value = optional_text(&row, key.len())
            .map_or_else(|| "NULL".to_owned(), |value| format!("'{value}'"));
        error.object.push_str(&format!(", column {}, value {value}", unquote(&pair.source)));
    }
    error
}

/// The place in the range of the first row that cannot be copied, by trying parts of it.
async fn bad_row(worker: &mut Worker, range: &KeyRange, error: &DbError) -> Option<u64> {
    let begun = Instant::now();
    // The server counts rows as it reads them, which is in the order of the key.
    let hint = row_numbered(error.server.as_deref().unwrap_or_default());
    if let Some(place) = hint.and_then(|row| row.checked_sub(1))
        && copies_badly(worker, range, place, 1).await?
    {
        return Some(place);
    }
    let object = worker.shape.table.clone();
    let count = format!(
        "SELECT COUNT(*) FROM {} FORCE INDEX ({}) WHERE {}",
        worker.shape.source,
        worker.shape.source_index,
        worker.shape.range(range, |part| part.source.clone()).ok()?
    );
    let mut high =
        number(&mut worker.session.conn, &count, "counting rows of", &object).await.ok()?;
    let mut low = 0;
    for _ in 0..SEARCH_STEPS {
        if high <= low + 1 || begun.elapsed() > Duration::from_millis(SEARCH_MS) {
            break;
        }
        let middle = low + (high - low) / 2;
        if copies_badly(worker, range, low, middle - low).await? {
            high = middle;
        } else {
            low = middle;
        }
    }
    copies_badly(worker, range, low, 1).await?.then_some(low)
}

/// Whether copying these rows fails on a value; rolled back. `None` where that cannot be told.
async fn copies_badly(
    worker: &mut Worker,
    range: &KeyRange,
    offset: u64,
    limit: u64,
) -> Option<bool> {
    let sql = format!(
        "{} ORDER BY {} LIMIT {limit} OFFSET {offset}",
        copy_sql(&worker.shape, range).ok()?,
        worker.shape.source_key("")
    );
    let object = worker.shape.table.clone();
    worker.begin().await.ok()?;
    let tried = match run(&mut worker.session.conn, &sql, "trying rows of", &object).await {
        Ok(_) => worker.refuse_warnings("trying rows of").await,
        Err(error) => Err(error),
    };
    rolled_back(worker, tried).await
}

/// The lowest pending entry whose row cannot be applied.
async fn bad_entry(worker: &mut Worker, frontier: &Frontier) -> Option<u64> {
    let begun = Instant::now();
    let object = worker.shape.table.clone();
    let span =
        format!("SELECT COALESCE(MIN(id), 0), COALESCE(MAX(id), 0) FROM {}", worker.shape.log);
    let row =
        first(&mut worker.session.conn, &span, "reading the log of", &object).await.ok()??;
    let mut low: u64 = cell(&row, 0, "reading the log").ok()?;
    let mut high: u64 = cell(&row, 1, "reading the log").ok()?;
    for _ in 0..SEARCH_STEPS {
        if low >= high || begun.elapsed() > Duration::from_millis(SEARCH_MS) {
            break;
        }
        let middle = low + (high - low) / 2;
        if applies_badly(worker, frontier, low, middle).await? {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    applies_badly(worker, frontier, low, low).await?.then_some(low)
}

/// Whether applying the entries of these ids fails on a value; rolled back.
async fn applies_badly(
    worker: &mut Worker,
    frontier: &Frontier,
    low: u64,
    high: u64,
) -> Option<bool> {
    worker.begin().await.ok()?;
    let tried = apply_these(worker, frontier, low, high).await;
    rolled_back(worker, tried).await
}

async fn apply_these(
    worker: &mut Worker,
    frontier: &Frontier,
    low: u64,
    high: u64,
) -> DbResult<()> {
    let object = worker.shape.table.clone();
    let empty = format!("DELETE FROM {}", worker.shape.stage);
    run(&mut worker.session.conn, &empty, "emptying the stage for", &object).await?;
    let takes = Takes::Oldest(u64::MAX);
    let sql = fill_sql(&worker.shape, frontier, takes, None, Some((low, high)))?;
    for sql in std::iter::once(sql).chain(keep_sql(&worker.shape)) {
        run(&mut worker.session.conn, &sql, "trying changes of", &object).await?;
        worker.refuse_warnings("trying changes of").await?;
    }
    for (sql, _) in write_shadow_sql(&worker.shape) {
        run(&mut worker.session.conn, &sql, "trying changes of", &object).await?;
    }
    worker.refuse_warnings("trying changes of").await
}

/// Undoes a trial and tells what it showed. A unique clash shows nothing: only a part was tried.
async fn rolled_back(worker: &mut Worker, tried: DbResult<()>) -> Option<bool> {
    let object = worker.shape.table.clone();
    run(&mut worker.session.conn, "ROLLBACK", "rolling back on", &object).await.ok()?;
    match tried {
        Ok(()) => Some(false),
        Err(error) => match error.kind {
            ErrorKind::DataError => Some(true),
            ErrorKind::DuplicateKey => Some(false),
            _ => None,
        },
    }
}

/// The expressions over the source that fill the parts of a shadow's index; `None` where a part is an
/// expression or a new column.
async fn index_expressions(worker: &mut Worker, index: &str) -> Option<Vec<String>> {
    let sql = format!(
        "SELECT COLUMN_NAME, SUB_PART, \
         (SELECT CONCAT(CHARACTER_SET_NAME, ' ', COLLATION_NAME) FROM information_schema.COLUMNS c \
          WHERE c.TABLE_SCHEMA = i.TABLE_SCHEMA AND c.TABLE_NAME = i.TABLE_NAME \
          AND c.COLUMN_NAME = i.COLUMN_NAME) \
         FROM information_schema.STATISTICS i WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {} \
         AND INDEX_NAME = {} ORDER BY SEQ_IN_INDEX",
        crate::query::literal(&worker.spec.schema).ok()?,
        crate::query::literal(&worker.spec.names.shadow).ok()?,
        crate::query::literal(index).ok()?
    );
    let object = worker.shape.table.clone();
    let parts = rows(&mut worker.session.conn, &sql, "reading an index of", &object).await.ok()?;
    let mut expressions = Vec::new();
    for part in &parts {
        let column = text(part, 0);
        let pair = worker.shape.pairs.iter().find(|pair| unquote(&pair.target) == column)?;
        let mut expression = format!("s.{}", pair.source);
        if let Some((charset, collation)) = optional_text(part, 2)
            .and_then(|both| both.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())))
        {
            expression = format!("CONVERT({expression} USING {charset}) COLLATE {collation}");
        }
        if let Some(length) = optional_text(part, 1) {
            expression = format!("LEFT({expression}, {length})");
        }
        expressions.push(expression);
    }
    (!expressions.is_empty()).then_some(expressions)
}

/// A SELECT that the server ends by itself.
fn bounded(worker: &Worker, select: &str) -> String {
    match worker.session.capabilities.statement_time_limit {
        StatementTimeLimit::SelectMilliseconds => {
            select.replacen("SELECT", &format!("SELECT /*+ MAX_EXECUTION_TIME({SEARCH_MS}) */"), 1)
        }
        StatementTimeLimit::AnySeconds => {
            format!("SET STATEMENT max_statement_time={} FOR {select}", SEARCH_MS / 1000)
        }
    }
}

/// Which of the copied columns the server's message names.
fn column_named(shape: &Shape, error: &DbError) -> Option<usize> {
    let said = error.server.as_deref().unwrap_or_default();
    let staged = is_staged(error);
    let named = shape.pairs.iter().enumerate().filter(|(index, pair)| {
        let name = if staged { format!("c{index}") } else { unquote(&pair.target) };
        names_column(said, &name)
    });
    // A name may be the end of another one.
    named.max_by_key(|(_, pair)| pair.target.len()).map(|(index, _)| index)
}

/// Both servers write the name between straight quotes, MySQL at times with the table's before it,
/// MariaDB at times qualified in backticks.
fn names_column(said: &str, name: &str) -> bool {
    said.contains(&format!("olumn '{name}'"))
        || said.contains(&format!(".{name}'"))
        || said.contains(&format!(".`{name}`"))
        // The check that belongs to a column.
        || said.contains(&format!(".{name}` failed"))
}

fn row_numbered(message: &str) -> Option<u64> {
    let (_, rest) = message.rsplit_once("at row ")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn index_named(message: &str, table: &str) -> Option<String> {
    let (_, rest) = message.rsplit_once("for key '")?;
    let name = rest.strip_suffix('\'').unwrap_or(rest);
    // MySQL writes table.index.
    let bare = name.strip_prefix(table).and_then(|rest| rest.strip_prefix('.'));
    Some(bare.unwrap_or(name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_both_servers_are_understood() {
        for (said, name) in [
            ("Data too long for column 'a b' at row 12", "a b"),
            ("Out of range value for column `x`.`t`.`n` at row 3", "n"),
            ("Column 'v' cannot be null", "v"),
            ("Data truncated for column 'it's' at row 1", "it's"),
            ("CONSTRAINT `t~up_new.j` failed for `d`.`t~up_new`", "j"),
            ("Invalid JSON text: \"x\" at position 1 in value for column 'a.b~up_new.j'.", "j"),
        ] {
            assert!(names_column(said, name), "{said}");
            assert!(!names_column(said, "other"), "{said}");
        }
        assert_eq!(row_numbered("Data too long for column 'a' at row 12"), Some(12));
        assert_eq!(row_numbered("Column 'v' cannot be null"), None);
        for said in ["Duplicate entry 'x' for key 't.new.u.x'", "Duplicate entry 'x' for key 'u.x'"]
        {
            assert_eq!(index_named(said, "t.new").as_deref(), Some("u.x"), "{said}");
        }
    }
}
