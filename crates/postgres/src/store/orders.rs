//! Orders to a run: left by whoever may write to the state schema, taken by its runner, kept with who gave
//! them and when.
//!
//! Nothing here waits for a synchronous standby: a run must be steered also while one is gone.

use underpin_core::machine::Command;
use underpin_dialect::{DbError, DbResult, ErrorKind, Order};

use super::TIME_FORMAT;
use crate::query::{Row, literal, optional_text, text};

/// The columns that [`order`] reads.
fn columns() -> String {
    format!(
        "command, given_by, pg_catalog.to_char(given_at, {TIME_FORMAT}), \
         pg_catalog.to_char(taken_at, {TIME_FORMAT})"
    )
}

/// Leaves an order, where the run is open.
pub(super) fn give_sql(state: &str, run_id: &str, command: &Command, by: &str) -> DbResult<String> {
    let object = run_id.to_owned();
    let command = serde_json::to_string(command).map_err(|error| {
        DbError::new(ErrorKind::Other, "writing an order for run", object).said(error.to_string())
    })?;
    // The account is the server's word, the person the program's.
    let person = if by.is_empty() { String::new() } else { format!(" ({by})") };
    Ok(format!(
        "SET LOCAL synchronous_commit = local; \
         INSERT INTO {state}.orders (run_id, command, given_by) SELECT run_id, {}, \
         session_user || {} FROM {state}.runs WHERE run_id = {} AND state = 'open'",
        literal(&command)?,
        literal(&person)?,
        literal(run_id)?
    ))
}

/// Takes what has not been taken, oldest first. Writes nothing where there is nothing.
///
/// Without a session that is set to it the commit would wait for synchronous standbys.
pub(crate) fn take_sql(state: &str, run_id: &str) -> DbResult<String> {
    Ok(format!(
        "WITH taken AS (UPDATE {state}.orders SET taken_at = pg_catalog.clock_timestamp() \
         WHERE run_id = {} AND taken_at IS NULL RETURNING *) SELECT {} FROM taken ORDER BY order_no",
        literal(run_id)?,
        columns()
    ))
}

/// Everything that was ever asked of a run, oldest first; as much as anybody would read.
pub(super) fn list_sql(state: &str, run_id: &str) -> DbResult<String> {
    Ok(format!(
        "SELECT {} FROM {state}.orders WHERE run_id = {} ORDER BY order_no LIMIT 10000",
        columns(),
        literal(run_id)?
    ))
}

/// The order of a row; `None` where a newer version gave it and this one does not know it.
pub(crate) fn order(row: &Row) -> Option<Order> {
    Some(Order {
        command: serde_json::from_str(&text(row, 0)).ok()?,
        by: text(row, 1),
        at: text(row, 2),
        taken_at: optional_text(row, 3),
    })
}
