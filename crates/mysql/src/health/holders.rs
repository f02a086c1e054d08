//! Who holds a table, in words: for messages and for waiting with reason.

use underpin_dialect::DbResult;

use crate::connect::Session;
use crate::error::STATEMENT_UNREADABLE;
use crate::query::{first, literal, rows, text};

/// Who holds or waits for a table's metadata lock, in words; for messages only.
pub(crate) async fn holders(session: &mut Session, schema: &str, table: &str) -> String {
    let listed = if session.capabilities.metadata_locks_visible {
        lock_holders(session, schema, table).await
    } else {
        long_transactions(session).await
    };
    match listed {
        Ok(lines) if !lines.is_empty() => format!("It is held by {}", lines.join("; ")),
        _ => "Who holds it could not be seen".to_owned(),
    }
}

async fn lock_holders(session: &mut Session, schema: &str, table: &str) -> DbResult<Vec<String>> {
    let sql = format!(
        "SELECT t.PROCESSLIST_ID, t.PROCESSLIST_USER, t.PROCESSLIST_HOST, m.LOCK_TYPE, \
         t.PROCESSLIST_TIME, LEFT(COALESCE(t.PROCESSLIST_INFO, 'idle in a transaction'), 80) \
         FROM performance_schema.metadata_locks AS m JOIN performance_schema.threads AS t \
         ON t.THREAD_ID = m.OWNER_THREAD_ID WHERE m.OBJECT_TYPE = 'TABLE' AND m.OBJECT_SCHEMA = {} \
         AND m.OBJECT_NAME = {} AND m.LOCK_STATUS = 'GRANTED' AND t.PROCESSLIST_ID <> \
         CONNECTION_ID() ORDER BY t.PROCESSLIST_TIME DESC LIMIT 3",
        literal(schema)?,
        literal(table)?
    );
    let found = rows(&mut session.conn, &sql, "looking for lock holders of", table).await?;
    Ok(found
        .iter()
        .map(|row| {
            format!(
                "session {} of {}@{} ({}, {} s: {})",
                text(row, 0),
                text(row, 1),
                text(row, 2),
                text(row, 3),
                text(row, 4),
                text(row, 5)
            )
        })
        .collect())
}

/// Where the server does not show metadata locks: its oldest transactions are the likely holders.
async fn long_transactions(session: &mut Session) -> DbResult<Vec<String>> {
    let sql = "SELECT p.ID, p.USER, p.HOST, TIMESTAMPDIFF(SECOND, t.trx_started, NOW()), \
               LEFT(COALESCE(p.INFO, 'idle in a transaction'), 80) \
               FROM information_schema.INNODB_TRX AS t JOIN information_schema.PROCESSLIST AS p \
               ON p.ID = t.trx_mysql_thread_id WHERE p.ID <> CONNECTION_ID() \
               ORDER BY t.trx_started LIMIT 3";
    let found = rows(&mut session.conn, sql, "looking for old transactions", "").await?;
    Ok(found
        .iter()
        .map(|row| {
            format!(
                "perhaps session {} of {}@{} (transaction of {} s: {})",
                text(row, 0),
                text(row, 1),
                text(row, 2),
                text(row, 3),
                text(row, 4)
            )
        })
        .collect())
}

/// A session that has been in a transaction on the table for longer than `limit_s`; `None` where there
/// is none, or where the server does not show it.
pub(crate) async fn old_holder(
    session: &mut Session,
    schema: &str,
    table: &str,
    limit_s: u32,
) -> DbResult<Option<String>> {
    if !session.capabilities.metadata_locks_visible {
        return Ok(None);
    }
    let sql = format!(
        "SELECT t.PROCESSLIST_ID, t.PROCESSLIST_USER, t.PROCESSLIST_HOST, m.LOCK_TYPE, \
         TIMESTAMPDIFF(SECOND, x.trx_started, NOW()) \
         FROM performance_schema.metadata_locks AS m JOIN performance_schema.threads AS t \
         ON t.THREAD_ID = m.OWNER_THREAD_ID JOIN information_schema.INNODB_TRX AS x \
         ON x.trx_mysql_thread_id = t.PROCESSLIST_ID WHERE m.OBJECT_TYPE = 'TABLE' AND \
         m.OBJECT_SCHEMA = {} AND m.OBJECT_NAME = {} AND m.LOCK_STATUS = 'GRANTED' AND \
         t.PROCESSLIST_ID <> CONNECTION_ID() AND TIMESTAMPDIFF(SECOND, x.trx_started, NOW()) > \
         {limit_s} ORDER BY x.trx_started LIMIT 1",
        literal(schema)?,
        literal(table)?
    );
    let row = match first(&mut session.conn, &sql, "looking for old holders of", table).await {
        // Not to be seen just now; the lock's time-out bounds the wait all the same.
        Err(error) if error.code == Some(STATEMENT_UNREADABLE) => return Ok(None),
        other => other?,
    };
    Ok(row.map(|row| {
        format!(
            "session {} of {}@{} ({}, in a transaction for {} s)",
            text(&row, 0),
            text(&row, 1),
            text(&row, 2),
            text(&row, 3),
            text(&row, 4)
        )
    }))
}
