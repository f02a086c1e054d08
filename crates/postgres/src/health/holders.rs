//! Who holds a table, in words: for messages and for waiting with reason.

use underpin_core::plan::RunSpec;
use underpin_dialect::{DbError, DbResult, ErrorKind};

use crate::connect::Session;
use crate::names;
use crate::query::{first, literal, rows, text};

/// Holders that a message names.
const NAMED_MAX: u32 = 3;

/// What a lock is wanted for: it decides whose locks are in its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Triggers on the source: who only reads is not in the way.
    Triggers,
    /// Everything: everybody is, on the shadow and on tables that foreign keys tie to the source too.
    Everything,
}

/// Sessions and prepared transactions with a lock in the way of `wish`, ours left out; who only reads
/// comes last, else the oldest first: process (empty for a prepared transaction), user, application,
/// lock, age of the transaction in seconds, what it does, and `t` for an autovacuum.
fn holders_sql(spec: &RunSpec, wish: Wish) -> DbResult<String> {
    let in_the_way = match wish {
        Wish::Triggers => {
            "l.relation IN (SELECT oid FROM source) AND l.mode NOT IN ('AccessShareLock', \
             'RowShareLock')"
        }
        Wish::Everything => "true",
    };
    let (schema, table) = (literal(&spec.schema)?, literal(&spec.table)?);
    let private = literal(&names::private_schema(&spec.run_id))?;
    Ok(format!(
        "WITH tables AS (SELECT c.oid, n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON \
         n.oid = c.relnamespace), source AS (SELECT oid FROM tables WHERE nspname = {schema} AND \
         relname = {table}), wanted AS (SELECT oid FROM source UNION SELECT oid FROM tables WHERE \
         nspname = {private} AND relname = {table} UNION SELECT CASE WHEN k.conrelid = s.oid THEN \
         k.confrelid ELSE k.conrelid END FROM pg_constraint k JOIN source s ON s.oid IN (k.conrelid, \
         k.confrelid) WHERE k.contype = 'f'), \
         held AS (SELECT l.pid, l.virtualtransaction, string_agg(DISTINCT l.mode || CASE WHEN \
         l.relation IN (SELECT oid FROM source) THEN '' ELSE ' on ' || l.relation::regclass END, ', ') \
         AS modes, bool_and(l.mode = 'AccessShareLock') AS reads \
         FROM pg_locks l JOIN wanted w ON w.oid = l.relation \
         WHERE l.locktype = 'relation' AND l.granted AND {in_the_way} AND l.database = \
         (SELECT oid FROM pg_database WHERE datname = current_database()) \
         AND l.pid IS DISTINCT FROM pg_backend_pid() GROUP BY 1, 2) \
         SELECT held.pid, coalesce(a.usename, p.owner, '?'), coalesce(nullif(a.application_name, ''), \
         a.backend_type, ''), held.modes, \
         coalesce(floor(extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, p.prepared))), 0) \
         AS age_s, CASE WHEN held.pid IS NULL THEN 'prepared transaction ' || coalesce(p.gid, '?') \
         WHEN a.state = 'active' THEN left(regexp_replace(a.query, '\\s+', ' ', 'g'), 80) \
         ELSE coalesce(a.state || ', last: ' || left(regexp_replace(a.query, '\\s+', ' ', 'g'), 60), \
         'what it does cannot be seen') END, a.backend_type = 'autovacuum worker' \
         FROM held LEFT JOIN pg_stat_activity a ON a.pid = held.pid \
         LEFT JOIN pg_locks x ON held.pid IS NULL AND x.pid IS NULL \
         AND x.locktype = 'transactionid' AND x.virtualtransaction = held.virtualtransaction \
         LEFT JOIN pg_prepared_xacts p ON p.transaction = x.transactionid ORDER BY held.reads, age_s DESC"
    ))
}

/// Who holds the tables of a run, in words; for messages only.
pub(crate) async fn holders(session: &Session, spec: &RunSpec, wish: Wish) -> String {
    let listed = match holders_sql(spec, wish) {
        Ok(sql) => {
            let sql = format!("{sql} LIMIT {NAMED_MAX}");
            rows(session, &sql, "looking for lock holders of", &spec.table).await
        }
        Err(error) => Err(error),
    };
    match listed {
        Ok(found) if !found.is_empty() => {
            let lines: Vec<String> = found.iter().map(words).collect();
            format!("It is held by {}", lines.join("; "))
        }
        _ => "Who holds it could not be seen".to_owned(),
    }
}

/// A transaction that has held a table for longer than the lock time-out will not let go within it: then
/// nobody is to queue behind us. An autovacuum gives way.
///
/// # Errors
/// `LockNotHad`, naming who it is.
pub(crate) async fn refuse_old_holders(
    session: &Session,
    spec: &RunSpec,
    wish: Wish,
    lock_timeout_ms: u32,
) -> DbResult<()> {
    let limit_s = std::cmp::max(lock_timeout_ms / 1000, 1);
    let sql = format!(
        "SELECT * FROM ({}) AS h(pid, usename, application, modes, age_s, doing, autovacuum) \
         WHERE age_s > {limit_s} AND autovacuum IS NOT TRUE LIMIT 1",
        holders_sql(spec, wish)?
    );
    let object = format!("{}.{}", spec.schema, spec.table);
    let attempted = "looking for holders before the lock of";
    match first(session, &sql, attempted, &object).await? {
        None => Ok(()),
        Some(row) => Err(DbError::new(ErrorKind::LockNotHad, attempted, object)
            .help(format!("It is held by {}", words(&row)))),
    }
}

fn words(row: &crate::query::Row) -> String {
    let (pid, user, application) = (text(row, 0), text(row, 1), text(row, 2));
    let (modes, age_s, doing) = (text(row, 3), text(row, 4), text(row, 5));
    if pid.is_empty() {
        return format!(
            "a {doing} of {user} ({modes}, {age_s} s old; COMMIT PREPARED or ROLLBACK PREPARED ends it)"
        );
    }
    let application =
        if application.is_empty() { String::new() } else { format!(", {application}") };
    format!(
        "session {pid} of {user}{application} ({modes}, in a transaction for {age_s} s: {doing})"
    )
}
