//! The few ways our rooms talk to a session: run a statement, fetch rows, quote a name.
//!
//! One place turns driver errors into the seam's, so that every statement says what it attempted.

use std::time::Duration;

use mysql_async::prelude::{FromValue, Queryable};
use mysql_async::{Conn, Row};
use tokio::time::sleep;
use underpin_core::ident::{self, Dialect};
use underpin_dialect::points::Points;
use underpin_dialect::{DbError, DbResult, ErrorKind};

use crate::error::Doing;

/// How often a definition is tried that the server rolls back.
const DEFINITION_TRIES: u32 = 8;

/// Rest after the first roll-back; it grows with each.
const DEFINITION_REST: Duration = Duration::from_millis(50);

/// A name in backticks.
///
/// # Errors
/// A name that no identifier can have (NUL).
pub(crate) fn quote(name: &str) -> DbResult<String> {
    ident::quote_ident(Dialect::MySql, name)
        .map_err(|error| DbError::new(ErrorKind::Refused, error.to_string(), name))
}

/// The name inside the backticks of [`quote`].
pub(crate) fn unquote(quoted: &str) -> String {
    let inner = quoted.strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
    inner.unwrap_or(quoted).replace("``", "`")
}

/// A table as `` `schema`.`name` ``.
///
/// # Errors
/// As [`quote`].
pub(crate) fn quote_table(schema: &str, name: &str) -> DbResult<String> {
    Ok(format!("{}.{}", quote(schema)?, quote(name)?))
}

/// A text literal that is safe under every SQL mode.
///
/// # Errors
/// Text that no literal can hold.
pub(crate) fn literal(text: &str) -> DbResult<String> {
    ident::quote_literal(Dialect::MySql, text)
        .map_err(|error| DbError::new(ErrorKind::Refused, error.to_string(), text))
}

/// Runs a statement; returns the rows it changed.
///
/// # Errors
/// The server's, saying what was attempted.
pub(crate) async fn run(
    conn: &mut Conn,
    sql: &str,
    attempted: &str,
    object: &str,
) -> DbResult<u64> {
    let points = lost_before(conn, sql, attempted).await;
    let done = conn.query_drop(sql).await.doing(attempted, object);
    let changed = conn.affected_rows();
    lost_after(points, conn, done.map(|()| changed), attempted, object).await
}

/// Runs a definition of ours, again where the server rolled it back: definitions made side by side
/// deadlock in MySQL's dictionary.
///
/// # Errors
/// As [`run`], the last one after [`DEFINITION_TRIES`].
pub(crate) async fn define(
    conn: &mut Conn,
    sql: &str,
    attempted: &str,
    object: &str,
) -> DbResult<()> {
    for attempt in 1..DEFINITION_TRIES {
        match run(conn, sql, attempted, object).await {
            Err(error) if error.is_retryable() => sleep(DEFINITION_REST * attempt).await,
            other => return other.map(|_| ()),
        }
    }
    run(conn, sql, attempted, object).await.map(|_| ())
}

/// Fetches all rows; callers bound their number by the statement.
///
/// # Errors
/// The server's, saying what was attempted.
pub(crate) async fn rows(
    conn: &mut Conn,
    sql: &str,
    attempted: &str,
    object: &str,
) -> DbResult<Vec<Row>> {
    let points = lost_before(conn, sql, attempted).await;
    let answer = conn.query(sql).await.doing(attempted, object);
    lost_after(points, conn, answer, attempted, object).await
}

/// Fetches the first row, if there is one.
///
/// # Errors
/// The server's, saying what was attempted.
pub(crate) async fn first(
    conn: &mut Conn,
    sql: &str,
    attempted: &str,
    object: &str,
) -> DbResult<Option<Row>> {
    let points = lost_before(conn, sql, attempted).await;
    let answer = conn.query_first(sql).await.doing(attempted, object);
    lost_after(points, conn, answer, attempted, object).await
}

/// Fetches one number; `None` and NULL count as 0.
///
/// # Errors
/// The server's, or a value that is no number.
pub(crate) async fn number(
    conn: &mut Conn,
    sql: &str,
    attempted: &str,
    object: &str,
) -> DbResult<u64> {
    match first(conn, sql, attempted, object).await? {
        None => Ok(0),
        Some(row) => Ok(cell::<Option<u64>>(&row, 0, attempted)?.unwrap_or(0)),
    }
}

/// One cell of a row in the wanted type.
///
/// # Errors
/// The cell is missing or of another type: a fault of ours or a surprise of the server.
pub(crate) fn cell<T: FromValue>(row: &Row, index: usize, attempted: &str) -> DbResult<T> {
    match row.get_opt(index) {
        Some(Ok(value)) => Ok(value),
        Some(Err(error)) => Err(DbError::new(ErrorKind::Other, attempted, format!("cell {index}"))
            .said(error.to_string())),
        None => Err(DbError::new(ErrorKind::Other, attempted, format!("cell {index} is missing"))),
    }
}

/// One cell as text; NULL as the empty string, bytes that are no UTF-8 replaced.
pub(crate) fn text(row: &Row, index: usize) -> String {
    optional_text(row, index).unwrap_or_default()
}

/// One cell as text; `None` for NULL.
pub(crate) fn optional_text(row: &Row, index: usize) -> Option<String> {
    match row.as_ref(index) {
        None | Some(mysql_async::Value::NULL) => None,
        Some(mysql_async::Value::Bytes(bytes)) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Some(other) => Some(other.as_sql(true).trim_matches('\'').to_owned()),
    }
}

/// The fail point before a statement: the server never hears it.
async fn lost_before(conn: &mut Conn, sql: &str, attempted: &str) -> Points {
    let points = Points::of(attempted, sql);
    if points.before(conn.id().into()) {
        lose(conn).await;
    }
    points
}

/// The fail point after a statement: the server has done it, and nobody hears of it.
async fn lost_after<T>(
    points: Points,
    conn: &mut Conn,
    answer: DbResult<T>,
    attempted: &str,
    object: &str,
) -> DbResult<T> {
    let answer = answer?;
    if points.after(conn.id().into()) {
        lose(conn).await;
        conn.query_drop("DO 0").await.doing(attempted, object)?;
    }
    Ok(answer)
}

/// Has the server end the session; what is sent on it afterwards fails as on a lost connection.
async fn lose(conn: &mut Conn) {
    // The answer is the loss.
    let _ = conn.query_drop("KILL CONNECTION_ID()").await;
}
