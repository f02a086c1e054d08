//! The few ways our rooms talk to a session: run statements, fetch rows, quote a name.
//!
//! One place turns driver errors into the seam's, so that every statement says what it attempted. All
//! of it goes over the simple protocol: no prepared statement that a definition could outdate, no
//! value that must be of a type the driver knows; every cell is the server's own text of it. Several
//! statements in one string are one transaction, unless they hold BEGIN and COMMIT.

use std::str::FromStr;

use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};
use underpin_core::ident::{self, Dialect};
use underpin_dialect::points::Points;
use underpin_dialect::{DbError, DbResult, ErrorKind};

use crate::connect::Session;
use crate::error::db_error;

/// A row of text cells.
pub(crate) type Row = SimpleQueryRow;

/// A name in double quotes.
///
/// # Errors
/// A name that no identifier can have (empty, NUL).
pub(crate) fn quote(name: &str) -> DbResult<String> {
    ident::quote_ident(Dialect::Postgres, name)
        .map_err(|error| DbError::new(ErrorKind::Refused, error.to_string(), name))
}

/// A table as `"schema"."name"`.
///
/// # Errors
/// As [`quote`].
pub(crate) fn quote_table(schema: &str, name: &str) -> DbResult<String> {
    Ok(format!("{}.{}", quote(schema)?, quote(name)?))
}

/// A text literal that reads the same under every setting.
///
/// # Errors
/// Text that no literal can hold (NUL).
pub(crate) fn literal(text: &str) -> DbResult<String> {
    ident::quote_literal(Dialect::Postgres, text)
        .map_err(|error| DbError::new(ErrorKind::Refused, error.to_string(), text))
}

/// Runs one or more statements; returns the rows that the last one changed (or gave).
///
/// # Errors
/// The server's, saying what was attempted.
pub(crate) async fn run(
    session: &Session,
    sql: &str,
    attempted: &str,
    object: &str,
) -> DbResult<u64> {
    let messages = ask(session, sql, attempted, object).await?;
    Ok(messages
        .iter()
        .rev()
        .find_map(|message| match message {
            SimpleQueryMessage::CommandComplete(rows) => Some(*rows),
            _ => None,
        })
        .unwrap_or(0))
}

/// Fetches all rows (of all statements); callers bound their number by the statement.
///
/// # Errors
/// The server's, saying what was attempted.
pub(crate) async fn rows(
    session: &Session,
    sql: &str,
    attempted: &str,
    object: &str,
) -> DbResult<Vec<Row>> {
    let messages = ask(session, sql, attempted, object).await?;
    Ok(messages
        .into_iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        })
        .collect())
}

/// Fetches the first row, if there is one.
///
/// # Errors
/// The server's, saying what was attempted.
pub(crate) async fn first(
    session: &Session,
    sql: &str,
    attempted: &str,
    object: &str,
) -> DbResult<Option<Row>> {
    Ok(rows(session, sql, attempted, object).await?.into_iter().next())
}

/// Fetches one number; no row and NULL count as 0.
///
/// # Errors
/// The server's, or a value that is no number.
pub(crate) async fn number(
    session: &Session,
    sql: &str,
    attempted: &str,
    object: &str,
) -> DbResult<u64> {
    match first(session, sql, attempted, object).await? {
        None => Ok(0),
        Some(row) => Ok(optional_cell(&row, 0, attempted)?.unwrap_or(0)),
    }
}

/// Fetches one answer of yes or no; no row and NULL count as no.
///
/// # Errors
/// The server's.
pub(crate) async fn holds(
    session: &Session,
    sql: &str,
    attempted: &str,
    object: &str,
) -> DbResult<bool> {
    Ok(first(session, sql, attempted, object).await?.is_some_and(|row| flag(&row, 0)))
}

/// One cell of a row in the wanted type.
///
/// # Errors
/// The cell is missing, NULL or of another type: a fault of ours or a surprise of the server.
pub(crate) fn cell<T: FromStr>(row: &Row, index: usize, attempted: &str) -> DbResult<T> {
    optional_cell(row, index, attempted)?.ok_or_else(|| {
        DbError::new(ErrorKind::Other, attempted, format!("cell {index} is missing"))
    })
}

/// One cell of a row in the wanted type; `None` for NULL.
///
/// # Errors
/// As [`cell`].
pub(crate) fn optional_cell<T: FromStr>(
    row: &Row,
    index: usize,
    attempted: &str,
) -> DbResult<Option<T>> {
    match optional_text(row, index) {
        None => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| {
            DbError::new(ErrorKind::Other, attempted, format!("cell {index}"))
                .said(format!("{text:?}, which was not expected"))
        }),
    }
}

/// One cell as yes or no; NULL is no.
pub(crate) fn flag(row: &Row, index: usize) -> bool {
    optional_text(row, index).as_deref() == Some("t")
}

/// One cell as text; NULL as the empty string.
pub(crate) fn text(row: &Row, index: usize) -> String {
    optional_text(row, index).unwrap_or_default()
}

/// One cell as text; `None` for NULL, and where there is no such cell.
pub(crate) fn optional_text(row: &Row, index: usize) -> Option<String> {
    row.try_get(index).ok().flatten().map(str::to_owned)
}

/// Ends the transaction that a failed piece of work left open: until then the session does nothing
/// else. Where the connection is gone the server does it by itself.
///
/// # Errors
/// The work's own; the rollback's where that fails too.
pub(crate) async fn undo<T>(session: &Session, done: DbResult<T>) -> DbResult<T> {
    match done {
        Err(error) if !error.is_ambiguous() => {
            run(session, "ROLLBACK", "rolling back", &error.object).await?;
            Err(error)
        }
        other => other,
    }
}

async fn ask(
    session: &Session,
    sql: &str,
    attempted: &str,
    object: &str,
) -> DbResult<Vec<SimpleQueryMessage>> {
    let points = Points::of(attempted, sql);
    let pid = session.id.pid.into();
    if points.before(pid) {
        lose(session).await;
    }
    let mut answer = session.client.simple_query(sql).await;
    if answer.is_ok() && points.after(pid) {
        lose(session).await;
        answer = session.client.simple_query("").await;
    }
    match answer {
        Ok(messages) => Ok(messages),
        Err(error) => {
            let mut out = db_error(&error, attempted, object);
            if out.is_connection_lost()
                && let Some(epitaph) = session.epitaph()
            {
                // The driver hands what the server said last to the connection, not to the statement.
                out.server = Some(epitaph);
            }
            Err(out)
        }
    }
}

/// Loses the connection at a fail point: what is sent on it afterwards fails.
async fn lose(session: &Session) {
    let end = "SELECT pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid())";
    // The answer is the loss.
    let _ = session.client.simple_query(end).await;
}
