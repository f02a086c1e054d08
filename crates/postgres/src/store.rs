//! The state of runs, kept in the database that is changed: runs, fences and done marks.
//!
//! Works where nothing of ours exists yet: reading then finds nothing, the first write makes the
//! tables. Every time is the server's, in UTC.
//!
//! How far the change log has been applied is not kept here: that stands beside the log. The tables are
//! `tables`', what is asked of runs `orders`'.

mod orders;
mod prints;
mod tables;

use std::collections::HashSet;

use underpin_core::checkpoint::Checkpoint;
use underpin_core::machine::{Command, DoneChunk};
use underpin_core::plan::RunSpec;
use underpin_dialect::{
    DbError, DbResult, ErrorKind, Grip, Order, Origin, RunSummary, Store, StoredRun,
};

use crate::control::Control;
use crate::error::{LOCK_NOT_AVAILABLE, has_state};
use crate::query::{cell, first, literal, number, optional_text, quote, rows, run, text, undo};
pub(crate) use orders::{order, take_sql};
pub(crate) use prints::print_sql;
use tables::Shape;

/// Tries to bump a fence that an older runner's transaction still holds; one `lock_timeout` each.
const TAKE_OVER_TRIES: u32 = 200;

/// Tries to take the table's runner lock, one `lock_timeout` each: long enough for the server to
/// notice that a killed runner is gone.
const RUNNER_LOCK_TRIES: u32 = 3;

/// How times are shown.
const TIME_FORMAT: &str = "'YYYY-MM-DD HH24:MI:SS.US'";

/// The statement that reads a fence so that a take-over waits for our transaction.
///
/// Under REPEATABLE READ it fails with a serialization failure where a take-over came between.
pub(crate) fn fence_sql(state_schema: &str, run_id: &str) -> DbResult<String> {
    Ok(format!(
        "SELECT epoch FROM {}.fences WHERE run_id = {} FOR SHARE",
        quote(state_schema)?,
        literal(run_id)?
    ))
}

/// The statement that marks a chunk as done.
pub(crate) fn mark_sql(
    state_schema: &str,
    grip: &Grip,
    round: u64,
    index: u32,
    copied: u64,
) -> DbResult<String> {
    Ok(format!(
        "INSERT INTO {}.marks (run_id, round, chunk, row_count) VALUES ({}, {round}, {index}, {copied})",
        quote(state_schema)?,
        literal(&grip.run_id)?
    ))
}

/// The statement that keeps the identity of the table that is live.
pub(crate) fn identity_sql(state_schema: &str, run_id: &str, identity: &str) -> DbResult<String> {
    Ok(format!(
        "UPDATE {}.runs SET identity = {} WHERE run_id = {}",
        quote(state_schema)?,
        literal(identity)?,
        literal(run_id)?
    ))
}

/// The error of a runner whose grip is stale.
pub(crate) fn fenced(object: &str) -> DbError {
    DbError::new(ErrorKind::Fenced, "going on with the run", object).help(
        "Another underpin has taken this run over; this one has stopped and changed nothing since",
    )
}

impl Store for Control {
    async fn acquire(&mut self, schema: &str, table: &str) -> DbResult<()> {
        let object = format!("{schema}.{table}");
        let key = runner_lock(schema, table);
        let sql = format!("SELECT pg_catalog.pg_advisory_lock({key})");
        for _ in 0..RUNNER_LOCK_TRIES {
            match run(&self.session, &sql, "taking the runner's lock of", &object).await {
                Ok(_) => return Ok(()),
                Err(error) if has_state(&error, LOCK_NOT_AVAILABLE) => {}
                Err(error) => return Err(error),
            }
        }
        let sql = format!("{} AND {} LIMIT 1", holders_sql(), is_key(key));
        let row = first(&self.session, &sql, "looking for the runner of", &object).await?;
        let holder = row.map(|row| text(&row, 0)).unwrap_or_default();
        Err(DbError::new(ErrorKind::Fenced, "taking the runner's lock of", object).help(format!(
            "Another underpin works on this table (session {holder} of the server); see `underpin \
             status`. Where its machine is gone and the server has not noticed, \
             `SELECT pg_terminate_backend({holder})` ends it"
        )))
    }

    async fn open_run(&mut self, schema: &str, table: &str) -> DbResult<Option<StoredRun>> {
        let object = format!("{schema}.{table}");
        if self.state_shape().await? == Shape::Missing {
            return Ok(None);
        }
        let sql = format!(
            "SELECT spec, checkpoint FROM {}.runs WHERE schema_name = {} AND table_name = {} \
             AND state = 'open' ORDER BY created_at DESC LIMIT 1",
            quote(&self.state_schema)?,
            literal(schema)?,
            literal(table)?
        );
        let row = first(&self.session, &sql, "looking for an open run of", &object).await?;
        Ok(row.map(|row| StoredRun { spec: text(&row, 0), checkpoint: text(&row, 1) }))
    }

    async fn create_run(
        &mut self,
        spec: &RunSpec,
        checkpoint: &Checkpoint,
        origin: &Origin,
    ) -> DbResult<()> {
        self.make_state().await?;
        let object = format!("{}.{}", spec.schema, spec.table);
        let spec_json = serde_json::to_string(spec)
            .map_err(|error| not_encodable(&object, &error.to_string()))?;
        let origin = serde_json::to_string(origin)
            .map_err(|error| not_encodable(&object, &error.to_string()))?;
        let checkpoint =
            checkpoint.encode().map_err(|error| not_encodable(&object, &error.to_string()))?;
        let state = quote(&self.state_schema)?;
        let run_id = literal(&spec.run_id)?;
        // One string is one transaction.
        let sql = format!(
            "INSERT INTO {state}.runs (run_id, schema_name, table_name, state, statement, spec, \
             checkpoint, runner) VALUES ({run_id}, {}, {}, 'open', {}, {}, {}, session_user); \
             INSERT INTO {state}.history (run_id, origin) VALUES ({run_id}, {}); INSERT INTO {state}.fences (run_id, epoch) VALUES ({run_id}, 0); \
             INSERT INTO {state}.live (run_id) VALUES ({run_id})",
            literal(&spec.schema)?,
            literal(&spec.table)?,
            literal(&spec.statement)?,
            literal(&spec_json)?,
            literal(&checkpoint)?,
            literal(&origin)?,
        );
        run(&self.session, &sql, "recording the run of", &object).await.map(drop)
    }

    async fn take_over(&mut self, run_id: &str) -> DbResult<Grip> {
        // The run may have been begun by an older version.
        self.make_state().await?;
        let sql = format!(
            "UPDATE {}.fences SET epoch = epoch + 1 WHERE run_id = {} RETURNING epoch",
            quote(&self.state_schema)?,
            literal(run_id)?
        );
        // Whatever an older runner still has in flight holds the row shared: so this waits for its end.
        for attempt in 1..=TAKE_OVER_TRIES {
            match number(&self.session, &sql, "taking over run", run_id).await {
                Ok(epoch) => return Ok(Grip { run_id: run_id.to_owned(), epoch }),
                Err(error) if error.is_retryable() && attempt < TAKE_OVER_TRIES => {}
                Err(error) => return Err(error),
            }
        }
        Err(DbError::new(ErrorKind::Retryable, "taking over run", run_id))
    }

    async fn save(&mut self, grip: &Grip, checkpoint: &Checkpoint) -> DbResult<()> {
        let saved = self.save_in_transaction(grip, checkpoint).await;
        undo(&self.session, saved).await
    }

    async fn close_run(&mut self, run_id: &str, result: &str, record: &str) -> DbResult<()> {
        self.make_state().await?;
        let state = quote(&self.state_schema)?;
        let (id, record) = (literal(run_id)?, literal(record)?);
        // Said twice: it ended when it was said first, and what was remembered is not forgotten.
        let sql = format!(
            "DELETE FROM {state}.beats WHERE run_id = {id}; \
             UPDATE {state}.runs SET state = {}, \
             ended_at = COALESCE(ended_at, pg_catalog.clock_timestamp()), \
             updated_at = pg_catalog.clock_timestamp() WHERE run_id = {id}; \
             INSERT INTO {state}.history AS h (run_id, record) VALUES ({id}, {record}) \
             ON CONFLICT (run_id) DO UPDATE SET record = \
             COALESCE(NULLIF(EXCLUDED.record, ''), h.record)",
            literal(result)?,
        );
        run(&self.session, &sql, "closing run", run_id).await.map(drop)
    }

    async fn request(&mut self, run_id: &str, command: &Command, by: &str) -> DbResult<()> {
        if self.state_shape().await? == Shape::Missing {
            return Ok(());
        }
        self.make_state().await?;
        let sql = orders::give_sql(&quote(&self.state_schema)?, run_id, command, by)?;
        run(&self.session, &sql, "leaving an order for run", run_id).await.map(drop)
    }

    async fn answer(&mut self, run_id: &str) -> DbResult<usize> {
        let sql = orders::take_sql(&quote(&self.state_schema)?, run_id)?;
        run(&self.session, &sql, "taking the orders for run", run_id).await?;
        self.orders(run_id).await.map(|orders| orders.len())
    }

    async fn orders(&mut self, run_id: &str) -> DbResult<Vec<Order>> {
        if self.state_shape().await? != Shape::Current {
            return Ok(Vec::new());
        }
        let sql = orders::list_sql(&quote(&self.state_schema)?, run_id)?;
        let found = rows(&self.session, &sql, "reading the orders of run", run_id).await?;
        Ok(found.iter().filter_map(order).collect())
    }

    async fn runs(&mut self, of: Option<(&str, &str)>) -> DbResult<Vec<RunSummary>> {
        let shape = self.state_shape().await?;
        if shape == Shape::Missing {
            return Ok(Vec::new());
        }
        let attempted = "listing runs";
        let mut runners: HashSet<i64> = HashSet::new();
        for row in rows(&self.session, &holders_sql(), "looking for runners", "").await? {
            let half = |index| cell::<u32>(&row, index, attempted);
            let key = (u64::from(half(1)?) << 32) | u64::from(half(2)?);
            runners.insert(key.cast_signed());
        }
        let of = match of {
            Some((schema, table)) => format!(
                "WHERE schema_name = {} AND table_name = {}",
                literal(schema)?,
                literal(table)?
            ),
            None => String::new(),
        };
        let state = quote(&self.state_schema)?;
        // Who only lists runs changes nothing, so tables of an older version are read as they are.
        let (told, lives) = if shape == Shape::Current {
            (
                "h.origin, l.live, h.record",
                format!(
                    "LEFT JOIN {state}.live l ON l.run_id = r.run_id \
                     LEFT JOIN {state}.history h ON h.run_id = r.run_id"
                ),
            )
        } else {
            ("'', '', ''", "CROSS JOIN (SELECT NULL::timestamptz AS seen_at) l".to_owned())
        };
        let seen = "GREATEST(r.updated_at, l.seen_at)";
        let sql = format!(
            "SELECT r.run_id, r.schema_name, r.table_name, r.state, r.statement, r.checkpoint, \
             pg_catalog.to_char(r.created_at, {TIME_FORMAT}), \
             pg_catalog.to_char({seen}, {TIME_FORMAT}), GREATEST(0, pg_catalog.floor(\
             EXTRACT(epoch FROM pg_catalog.clock_timestamp() - {seen}))), \
             pg_catalog.to_char(r.ended_at, {TIME_FORMAT}), {told} \
             FROM {state}.runs r {lives} {of} ORDER BY r.created_at DESC LIMIT 100"
        );
        let found = rows(&self.session, &sql, attempted, "").await?;
        let summary = |row| {
            let (schema, table, state) = (text(row, 1), text(row, 2), text(row, 3));
            Ok(RunSummary {
                run_id: text(row, 0),
                running: state == "open" && runners.contains(&runner_lock(&schema, &table)),
                table: format!("{schema}.{table}"),
                state,
                statement: text(row, 4),
                checkpoint: text(row, 5),
                created_at: text(row, 6),
                updated_at: text(row, 7),
                silent_s: cell(row, 8, attempted)?,
                ended_at: optional_text(row, 9),
                origin: text(row, 10),
                live: text(row, 11),
                record: text(row, 12),
            })
        };
        found.iter().map(summary).collect()
    }
}

impl Control {
    async fn save_in_transaction(&self, grip: &Grip, checkpoint: &Checkpoint) -> DbResult<()> {
        let record =
            checkpoint.encode().map_err(|error| not_encodable(&grip.run_id, &error.to_string()))?;
        let state = quote(&self.state_schema)?;
        let id = literal(&grip.run_id)?;
        let keep = checkpoint.round.as_ref().map_or(checkpoint.round_next, |round| round.number);
        let sql = format!("BEGIN; {}", fence_sql(&self.state_schema, &grip.run_id)?);
        if number(&self.session, &sql, "reading the fence of run", &grip.run_id).await?
            != grip.epoch
        {
            return Err(fenced(&grip.run_id));
        }
        let sql = format!(
            "UPDATE {state}.runs SET checkpoint = {}, updated_at = pg_catalog.clock_timestamp() \
             WHERE run_id = {id}; \
             DELETE FROM {state}.marks WHERE run_id = {id} AND round < {keep}; COMMIT",
            literal(&record)?
        );
        run(&self.session, &sql, "saving run", &grip.run_id).await.map(drop)
    }

    /// Done marks of a round.
    pub(crate) async fn marks(&self, run_id: &str, round: u64) -> DbResult<Vec<DoneChunk>> {
        let sql = format!(
            "SELECT chunk, row_count FROM {}.marks WHERE run_id = {} AND round = {round}",
            quote(&self.state_schema)?,
            literal(run_id)?
        );
        let found = rows(&self.session, &sql, "reading the marks of run", run_id).await?;
        let mark = |row| {
            Ok(DoneChunk {
                index: cell(row, 0, "reading marks")?,
                rows: cell(row, 1, "reading marks")?,
            })
        };
        found.iter().map(mark).collect()
    }

    /// Keeps the source's identity as it was when the triggers were installed.
    pub(crate) async fn save_identity(&self, run_id: &str, identity: &str) -> DbResult<()> {
        let sql = identity_sql(&self.state_schema, run_id, identity)?;
        run(&self.session, &sql, "noting the identity of run", run_id).await.map(drop)
    }

    /// The identity that was kept.
    pub(crate) async fn load_identity(&self, run_id: &str) -> DbResult<String> {
        let sql = format!(
            "SELECT identity FROM {}.runs WHERE run_id = {}",
            quote(&self.state_schema)?,
            literal(run_id)?
        );
        let row = first(&self.session, &sql, "reading the identity of run", run_id).await?;
        Ok(row.map(|row| text(&row, 0)).unwrap_or_default())
    }
}

/// The key of the advisory lock that makes one runner a table. FNV-1a, written out because every
/// version of the program must take the same one.
fn runner_lock(schema: &str, table: &str) -> i64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in
        "underpin.runner".bytes().chain([0]).chain(schema.bytes()).chain([0]).chain(table.bytes())
    {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash.cast_signed()
}

/// Who holds advisory locks of one 64-bit key in this database: process, and the key's two halves.
fn holders_sql() -> String {
    "SELECT l.pid, l.classid, l.objid FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_database d \
     ON d.oid = l.database WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted \
     AND d.datname = pg_catalog.current_database()"
        .to_owned()
}

/// Whether somebody holds the runner's lock of the table.
pub(crate) fn is_runner_alive_sql(schema: &str, table: &str) -> String {
    format!("SELECT EXISTS ({} AND {})", holders_sql(), is_key(runner_lock(schema, table)))
}

/// The condition for one key in [`holders_sql`].
fn is_key(key: i64) -> String {
    let key = key.cast_unsigned();
    format!("l.classid = {} AND l.objid = {}", key >> 32, key & 0xffff_ffff)
}

fn not_encodable(object: &str, why: &str) -> DbError {
    DbError::new(ErrorKind::Other, "writing the run's record", object).said(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runner_lock_is_the_tables_own() {
        assert_ne!(runner_lock("a", "b"), runner_lock("ab", ""));
        assert_ne!(runner_lock("a", "b"), runner_lock("b", "a"));
        // Fixed for all versions: two of them must not both run on a table.
        assert_eq!(runner_lock("shop", "orders"), runner_lock("shop", "orders"));
    }
}
