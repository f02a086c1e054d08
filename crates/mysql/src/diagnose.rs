//! From "Data truncated for column 'x' at row 7" to the row a person can look at.
//!
//! Runs only after a failure, outside any transaction, with bounded statements. What it cannot find out
//! it leaves out; the server's own words always stay.

use mysql_async::prelude::Queryable;
use underpin_core::key::{Frontier, KeyRange};
use underpin_dialect::{DbError, ErrorKind};

use crate::changelog::fill_sql;
use crate::flavor::StatementTimeLimit;
use crate::query::{cell, first, optional_text, rows, text};
use crate::worker::Worker;

/// Time that a search for the culprit may take on the server, in milliseconds.
const SEARCH_MS: u64 = 20_000;

/// Steps of the search among pending entries; enough for 2^40 of them.
const SEARCH_STEPS: u32 = 40;

/// Names the row of a chunk whose value the new type cannot hold.
pub(crate) async fn chunk_value(worker: &mut Worker, range: &KeyRange, error: DbError) -> DbError {
    let said = error.server.clone().unwrap_or_default();
    let Some(column) = column_named(&said) else { return error };
    let Some(pair) = worker.shape.pairs.iter().find(|pair| pair.target.trim_matches('`') == column)
    else {
        return error;
    };
    let source = pair.source.clone();
    let Ok(predicate) = worker.shape.range(range, |part| part.source.clone()) else {
        return error;
    };
    let (filter, offset) = match row_numbered(&said) {
        Some(row) => (String::new(), row.saturating_sub(1)),
        None => (format!(" AND {source} IS NULL"), 0),
    };
    let sql = format!(
        "SELECT {}, LEFT({source}, 100) FROM {} FORCE INDEX ({}) WHERE {predicate}{filter} \
         ORDER BY {} LIMIT 1 OFFSET {offset}",
        worker.shape.key_readers(""),
        worker.shape.source,
        worker.shape.source_index,
        worker.shape.source_key("")
    );
    with_row(worker, &sql, &column, error).await
}

/// Names the pending row whose value the new type cannot hold, by halving the pending entries.
pub(crate) async fn pending_value(
    worker: &mut Worker,
    frontier: &Frontier,
    error: DbError,
) -> DbError {
    let said = error.server.clone().unwrap_or_default();
    let Some(column) = column_named(&said) else { return error };
    let Some(id) = bad_entry(worker, frontier).await else { return error };
    let Some(pair) = worker.shape.pairs.iter().find(|pair| pair.target.trim_matches('`') == column)
    else {
        return error;
    };
    let sql = format!(
        "SELECT {}, LEFT(s.{}, 100) FROM {} AS l JOIN {} AS s ON {} WHERE l.id = {id}",
        worker.shape.key_readers("s."),
        pair.source.clone(),
        worker.shape.log,
        worker.shape.source,
        worker.shape.log_meets_source("l.", "s.")
    );
    with_row(worker, &sql, &column, error).await
}

/// Names rows of the source that are duplicates under the violated index.
pub(crate) async fn duplicate(worker: &mut Worker, mut error: DbError) -> DbError {
    error.help = Some(
        "Two rows of the table are equal under a unique index of the new shape. Mend the rows or the \
         statement; the source is untouched"
            .to_owned(),
    );
    let said = error.server.clone().unwrap_or_default();
    let Some(index) = index_named(&said) else { return error };
    let Some(expressions) = index_expressions(worker, &index).await else { return error };
    let list = expressions.join(", ");
    let limit = bounded(
        worker,
        &format!(
            "SELECT GROUP_CONCAT(CONCAT_WS('/', {}) ORDER BY 1 SEPARATOR ' and ') FROM {} AS s \
         GROUP BY {list} HAVING COUNT(*) > 1 AND COUNT({}) = COUNT(*) LIMIT 3",
            worker.shape.source_key("s."),
            worker.shape.source,
            expressions.first().cloned().unwrap_or_default()
        ),
    );
    let object = worker.shape.table.clone();
    if let Ok(found) = rows(&mut worker.session.conn, &limit, "naming duplicates of", &object).await
    {
        let names: Vec<String> = found.iter().map(|row| text(row, 0)).collect();
        if !names.is_empty() {
            let key = worker
                .shape
                .key
                .iter()
                .map(|part| part.source.trim_matches('`'))
                .collect::<Vec<_>>()
                .join("/");
            error.object =
                format!("{object}; rows that share a value, by {key}: {}", names.join("; "));
        }
    }
    error
}

async fn with_row(worker: &mut Worker, sql: &str, column: &str, mut error: DbError) -> DbError {
    let object = worker.shape.table.clone();
    let found = first(&mut worker.session.conn, sql, "naming the row of", &object).await;
    if let Ok(Some(row)) = found {
        let key: Vec<String> = worker
            .shape
            .key
            .iter()
            .enumerate()
            .map(|(index, part)| format!("{}={}", part.source.trim_matches('`'), text(&row, index)))
            .collect();
        let value = optional_text(&row, worker.shape.key.len())
            .map_or_else(|| "NULL".to_owned(), |value| format!("'{value}'"));
        error.object = format!("{object}; row {}, column {column}, value {value}", key.join(", "));
    }
    error.help = Some(
        "The new shape cannot hold this value. Mend the row or the statement; the source is untouched"
            .to_owned(),
    );
    error
}

/// The lowest entry whose row cannot be staged.
async fn bad_entry(worker: &mut Worker, frontier: &Frontier) -> Option<u64> {
    let object = worker.shape.table.clone();
    let span =
        format!("SELECT COALESCE(MIN(id), 0), COALESCE(MAX(id), 0) FROM {}", worker.shape.log);
    let row =
        first(&mut worker.session.conn, &span, "reading the log of", &object).await.ok()??;
    let mut low: u64 = cell(&row, 0, "reading the log").ok()?;
    let mut high: u64 = cell(&row, 1, "reading the log").ok()?;
    for _ in 0..SEARCH_STEPS {
        if low >= high {
            break;
        }
        let middle = low + (high - low) / 2;
        if stages_badly(worker, frontier, low, middle).await? {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    stages_badly(worker, frontier, low, low).await?.then_some(low)
}

async fn stages_badly(
    worker: &mut Worker,
    frontier: &Frontier,
    low: u64,
    high: u64,
) -> Option<bool> {
    let empty = format!("DELETE FROM {}", worker.shape.stage);
    worker.session.conn.query_drop(empty).await.ok()?;
    let sql = fill_sql(&worker.shape, frontier, u64::MAX, None, Some((low, high))).ok()?;
    match worker.session.conn.query_drop(sql).await {
        Err(_) => Some(true),
        Ok(()) => match worker.refuse_warnings("staging").await {
            Ok(()) => Some(false),
            Err(error) if error.kind == ErrorKind::DataError => Some(true),
            Err(_) => None,
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
        let pair =
            worker.shape.pairs.iter().find(|pair| pair.target.trim_matches('`') == column)?;
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

fn column_named(message: &str) -> Option<String> {
    // Both servers write the name between straight quotes, MariaDB qualified with backticks.
    let (_, rest) = message.split_once("olumn '").or_else(|| message.split_once("olumn `"))?;
    let end =
        rest.find(" at row").or_else(|| rest.find("' ")).or_else(|| rest.rfind(['\'', '`']))?;
    let name = rest.get(..end)?.trim_end_matches(['\'', '`']);
    Some(name.rsplit("`.`").next().unwrap_or(name).to_owned())
}

fn row_numbered(message: &str) -> Option<u64> {
    let (_, rest) = message.rsplit_once("at row ")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn index_named(message: &str) -> Option<String> {
    let (_, rest) = message.rsplit_once("for key '")?;
    let name = rest.strip_suffix('\'').unwrap_or(rest);
    // MySQL writes table.index; an index name may hold a dot itself, a table of ours none of theirs.
    Some(name.split_once('.').map_or(name, |(_, index)| index).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_both_servers_are_understood() {
        assert_eq!(
            column_named("Data too long for column 'a b' at row 12").as_deref(),
            Some("a b")
        );
        assert_eq!(
            column_named("Out of range value for column `x`.`t`.`n` at row 3").as_deref(),
            Some("n")
        );
        assert_eq!(column_named("Column 'v' cannot be null").as_deref(), Some("v"));
        assert_eq!(row_numbered("Data too long for column 'a' at row 12"), Some(12));
        assert_eq!(row_numbered("Column 'v' cannot be null"), None);
        assert_eq!(
            index_named("Duplicate entry 'x' for key 't.u_code'").as_deref(),
            Some("u_code")
        );
        assert_eq!(index_named("Duplicate entry 'x' for key 'u_code'").as_deref(), Some("u_code"));
    }
}
