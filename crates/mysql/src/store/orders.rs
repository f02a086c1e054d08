//! What people ask of a run: left by any process that reaches the database, taken by the runner.
//!
//! An order is never deleted: who asked for what, when, and when it was taken stays on record.

use underpin_core::machine::Command;
use underpin_dialect::{DbError, DbResult, ErrorKind, Order};

use mysql_async::{Conn, Row};

use crate::query::{literal, optional_text, quote, rows, run, text};

/// Orders that are taken or listed at once.
const ORDERS_MAX: u32 = 1000;

const COLUMNS: &str = "command, given_by, given_at, taken_at, id";

/// Leaves an order for an open run; nothing where the run is over.
pub(super) async fn leave(
    conn: &mut Conn,
    state_schema: &str,
    run_id: &str,
    command: &Command,
    by: &str,
) -> DbResult<()> {
    let attempted = "leaving an order for run";
    let command = serde_json::to_string(command).map_err(|error| {
        DbError::new(ErrorKind::Other, attempted, run_id).said(error.to_string())
    })?;
    let state = quote(state_schema)?;
    // The account is the server's word, the person only what his program says.
    let sql = format!(
        "INSERT INTO {state}.orders (run_id, command, given_by, given_at) SELECT run_id, {}, \
         LEFT(CONCAT(CURRENT_USER(), IF({by} = '', '', CONCAT(' (', {by}, ')'))), 512), \
         UTC_TIMESTAMP(6) FROM {state}.runs WHERE run_id = {} AND state = 'open'",
        literal(&command)?,
        literal(run_id)?,
        by = literal(by)?,
    );
    run(conn, &sql, attempted, run_id).await.map(|_| ())
}

/// Takes the orders that nobody has taken yet, oldest first.
pub(crate) async fn take(
    conn: &mut Conn,
    state_schema: &str,
    run_id: &str,
) -> DbResult<Vec<Order>> {
    let orders = format!("{}.orders", quote(state_schema)?);
    let sql = format!(
        "SELECT {COLUMNS} FROM {orders} WHERE run_id = {} AND taken_at IS NULL ORDER BY id LIMIT \
         {ORDERS_MAX}",
        literal(run_id)?
    );
    let found = rows(conn, &sql, "reading the orders for run", run_id).await?;
    if found.is_empty() {
        return Ok(Vec::new());
    }
    // By id: another order may have come meanwhile, with a lower id even.
    let ids: Vec<String> = found.iter().map(|row| text(row, 4)).collect();
    let sql =
        format!("UPDATE {orders} SET taken_at = UTC_TIMESTAMP(6) WHERE id IN ({})", ids.join(", "));
    run(conn, &sql, "taking the orders for run", run_id).await?;
    Ok(found.iter().filter_map(|row| order(row, run_id)).collect())
}

/// All orders that were given to a run, oldest first.
pub(super) async fn list(
    conn: &mut Conn,
    state_schema: &str,
    run_id: &str,
) -> DbResult<Vec<Order>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM {}.orders WHERE run_id = {} ORDER BY id LIMIT {ORDERS_MAX}",
        quote(state_schema)?,
        literal(run_id)?
    );
    let found = rows(conn, &sql, "listing the orders of run", run_id).await?;
    Ok(found.iter().filter_map(|row| order(row, run_id)).collect())
}

/// An order of a newer version may not be known here: it is passed over, and said.
fn order(row: &Row, run_id: &str) -> Option<Order> {
    match serde_json::from_str(&text(row, 0)) {
        Ok(command) => Some(Order {
            command,
            by: text(row, 1),
            at: text(row, 2),
            taken_at: optional_text(row, 3),
        }),
        Err(error) => {
            tracing::warn!(run_id, id = text(row, 4), %error, "an order is not understood");
            None
        }
    }
}
