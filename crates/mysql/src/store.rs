//! The state of runs, kept in the database that is changed: runs and their history, fences, done marks.
//!
//! Works where nothing of ours exists yet: reading then finds nothing, the first write makes the
//! tables. Every time is the server's, in UTC.

pub(crate) mod orders;
mod prints;
mod tables;

use underpin_core::checkpoint::Checkpoint;
use underpin_core::machine::{Command, DoneChunk};
use underpin_core::plan::RunSpec;
use underpin_core::way::Way;
use underpin_dialect::{
    DbError, DbResult, ErrorKind, Grip, Order, Origin, RunSummary, Store, StoredRun,
};

use crate::control::Control;
use crate::query::{cell, first, literal, number, optional_text, quote, rows, run, text};
use tables::Found;

/// Tries to bump a fence that an older runner's transaction still holds; one innodb lock wait each.
const TAKE_OVER_TRIES: u32 = 200;

/// Stands between the identities of the old and of the new table.
const OTHER_IDENTITY: char = '\u{1d}';

/// Longest wait for the table's runner lock, in seconds: long enough for the server to notice that a
/// killed runner is gone.
const RUNNER_LOCK_S: u32 = 3;

/// The statement that reads a fence so that a take-over waits for our transaction.
pub(crate) fn fence_sql(state_schema: &str, run_id: &str) -> DbResult<String> {
    Ok(format!(
        "SELECT epoch FROM {}.fences WHERE run_id = {} LOCK IN SHARE MODE",
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

/// The error of a runner whose grip is stale.
pub(crate) fn fenced(object: &str) -> DbError {
    DbError::new(ErrorKind::Fenced, "going on with the run", object).help(
        "Another underpin has taken this run over; this one has stopped and changed nothing since",
    )
}

impl Store for Control {
    async fn acquire(&mut self, schema: &str, table: &str) -> DbResult<()> {
        let object = format!("{schema}.{table}");
        let name = literal(&runner_lock(schema, table))?;
        let sql = format!("SELECT GET_LOCK({name}, {RUNNER_LOCK_S})");
        if number(&mut self.session.conn, &sql, "taking the runner's lock of", &object).await? == 1
        {
            return Ok(());
        }
        let holder = number(
            &mut self.session.conn,
            &format!("SELECT IS_USED_LOCK({name})"),
            "looking for the runner of",
            &object,
        )
        .await?;
        Err(DbError::new(ErrorKind::Fenced, "taking the runner's lock of", object).help(format!(
            "Another underpin works on this table (session {holder} of the server); see `underpin \
             status`. Where its machine is gone and the server has not noticed, `KILL {holder}` ends it"
        )))
    }

    async fn open_run(&mut self, schema: &str, table: &str) -> DbResult<Option<StoredRun>> {
        let object = format!("{schema}.{table}");
        if self.find_state().await? == Found::Nothing {
            return Ok(None);
        }
        let sql = format!(
            "SELECT spec, checkpoint FROM {}.runs WHERE schema_name = {} AND table_name = {} \
             AND state = 'open' ORDER BY created_at DESC LIMIT 1",
            quote(&self.state_schema)?,
            literal(schema)?,
            literal(table)?
        );
        let row =
            first(&mut self.session.conn, &sql, "looking for an open run of", &object).await?;
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
        let encoded = |json: Result<String, serde_json::Error>| {
            json.map_err(|error| not_encodable(&object, &error.to_string()))
        };
        let spec_json = encoded(serde_json::to_string(spec))?;
        let origin = encoded(serde_json::to_string(origin))?;
        let checkpoint =
            checkpoint.encode().map_err(|error| not_encodable(&object, &error.to_string()))?;
        let state = quote(&self.state_schema)?;
        let run_id = literal(&spec.run_id)?;
        let conn = &mut self.session.conn;
        run(conn, "START TRANSACTION", "recording the run of", &object).await?;
        let sql = format!(
            "INSERT INTO {state}.runs (run_id, schema_name, table_name, state, statement, spec, \
             checkpoint, identity, created_at, updated_at, runner) VALUES ({run_id}, {}, {}, 'open', \
             {}, {}, {}, '', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), CURRENT_USER())",
            literal(&spec.schema)?,
            literal(&spec.table)?,
            literal(&spec.statement)?,
            literal(&spec_json)?,
            literal(&checkpoint)?,
        );
        run(conn, &sql, "recording the run of", &object).await?;
        let sql = format!("INSERT INTO {state}.fences (run_id, epoch) VALUES ({run_id}, 0)");
        run(conn, &sql, "recording the run of", &object).await?;
        let sql = format!(
            "INSERT INTO {state}.history (run_id, origin, record) VALUES ({run_id}, {}, '')",
            literal(&origin)?
        );
        run(conn, &sql, "recording the run of", &object).await?;
        run(conn, "COMMIT", "recording the run of", &object).await.map(|_| ())
    }

    async fn take_over(&mut self, run_id: &str) -> DbResult<Grip> {
        self.server.floor.reset();
        // The run may be one that an older version began.
        self.make_state().await?;
        let state = quote(&self.state_schema)?;
        let id = literal(run_id)?;
        let bump = format!("UPDATE {state}.fences SET epoch = epoch + 1 WHERE run_id = {id}");
        // Whatever an older runner still has in flight holds the row shared: so this waits for its end.
        for attempt in 1..=TAKE_OVER_TRIES {
            match run(&mut self.session.conn, &bump, "taking over run", run_id).await {
                Ok(_) => break,
                Err(error) if error.is_retryable() && attempt < TAKE_OVER_TRIES => {}
                Err(error) => return Err(error),
            }
        }
        let read = format!("SELECT epoch FROM {state}.fences WHERE run_id = {id}");
        let epoch =
            number(&mut self.session.conn, &read, "reading the fence of run", run_id).await?;
        Ok(Grip { run_id: run_id.to_owned(), epoch })
    }

    async fn save(&mut self, grip: &Grip, checkpoint: &Checkpoint) -> DbResult<()> {
        let text =
            checkpoint.encode().map_err(|error| not_encodable(&grip.run_id, &error.to_string()))?;
        let state = quote(&self.state_schema)?;
        let id = literal(&grip.run_id)?;
        let keep = checkpoint.round.as_ref().map_or(checkpoint.round_next, |round| round.number);
        let conn = &mut self.session.conn;
        run(conn, "START TRANSACTION", "saving run", &grip.run_id).await?;
        let fence = fence_sql(&self.state_schema, &grip.run_id)?;
        if number(conn, &fence, "reading the fence of run", &grip.run_id).await? != grip.epoch {
            run(conn, "ROLLBACK", "saving run", &grip.run_id).await?;
            return Err(fenced(&grip.run_id));
        }
        let sql = format!(
            "UPDATE {state}.runs SET checkpoint = {}, updated_at = UTC_TIMESTAMP(6) \
             WHERE run_id = {id}",
            literal(&text)?
        );
        run(conn, &sql, "saving run", &grip.run_id).await?;
        let sql = format!("DELETE FROM {state}.marks WHERE run_id = {id} AND round < {keep}");
        run(conn, &sql, "saving run", &grip.run_id).await?;
        run(conn, "COMMIT", "saving run", &grip.run_id).await.map(|_| ())
    }

    async fn close_run(&mut self, run_id: &str, result: &str, record: &str) -> DbResult<()> {
        self.make_state().await?;
        let attempted = "closing run";
        let state = quote(&self.state_schema)?;
        let id = literal(run_id)?;
        let mut statements = vec![format!(
            "UPDATE {state}.runs SET state = {}, ended_at = COALESCE(ended_at, UTC_TIMESTAMP(6)), \
             updated_at = UTC_TIMESTAMP(6) WHERE run_id = {id}",
            literal(result)?
        )];
        if !record.is_empty() {
            // A run that an older version began has no line there yet.
            statements.push(format!(
                "INSERT INTO {state}.history (run_id, origin, record) VALUES ({id}, '', {record}) ON \
                 DUPLICATE KEY UPDATE record = {record}",
                record = literal(record)?
            ));
        }
        statements.push(format!("DELETE FROM {state}.live WHERE run_id = {id}"));
        statements.push(format!("DELETE FROM {state}.beats WHERE run_id = {id}"));
        let conn = &mut self.session.conn;
        run(conn, "START TRANSACTION", attempted, run_id).await?;
        for sql in statements {
            if let Err(error) = run(conn, &sql, attempted, run_id).await {
                if !error.is_ambiguous() {
                    run(conn, "ROLLBACK", attempted, run_id).await?;
                }
                return Err(error);
            }
        }
        run(conn, "COMMIT", attempted, run_id).await.map(|_| ())
    }

    async fn request(&mut self, run_id: &str, command: &Command, by: &str) -> DbResult<()> {
        if self.find_state().await? == Found::Nothing {
            return Ok(());
        }
        self.make_state().await?;
        orders::leave(&mut self.session.conn, &self.state_schema, run_id, command, by).await
    }

    async fn answer(&mut self, run_id: &str) -> DbResult<usize> {
        orders::take(&mut self.session.conn, &self.state_schema, run_id).await?;
        self.orders(run_id).await.map(|orders| orders.len())
    }

    async fn orders(&mut self, run_id: &str) -> DbResult<Vec<Order>> {
        match self.find_state().await? {
            Found::All => orders::list(&mut self.session.conn, &self.state_schema, run_id).await,
            Found::Nothing | Found::Older => Ok(Vec::new()),
        }
    }

    async fn runs(&mut self, of: Option<(&str, &str)>) -> DbResult<Vec<RunSummary>> {
        let found = self.find_state().await?;
        if found == Found::Nothing {
            return Ok(Vec::new());
        }
        let sql = runs_sql(&quote(&self.state_schema)?, of, found == Found::All)?;
        let listed = rows(&mut self.session.conn, &sql, "listing runs", "").await?;
        let mut runs = Vec::new();
        for row in &listed {
            let (schema, table, state) = (text(row, 1), text(row, 2), text(row, 3));
            let lock = literal(&runner_lock(&schema, &table))?;
            let sql = format!("SELECT IS_USED_LOCK({lock}) IS NOT NULL");
            let running = state == "open"
                && number(&mut self.session.conn, &sql, "looking for runners", "").await? == 1;
            runs.push(RunSummary {
                run_id: text(row, 0),
                table: format!("{schema}.{table}"),
                state,
                statement: text(row, 4),
                checkpoint: text(row, 5),
                created_at: text(row, 6),
                ended_at: optional_text(row, 7),
                updated_at: text(row, 8),
                silent_s: cell::<Option<u64>>(row, 9, "listing runs")?.unwrap_or(0),
                origin: text(row, 10),
                record: text(row, 11),
                live: text(row, 12),
                running,
            });
        }
        Ok(runs)
    }
}

/// The list of runs; without what only newer versions keep where their tables are missing.
fn runs_sql(state: &str, of: Option<(&str, &str)>, all: bool) -> DbResult<String> {
    let condition = match of {
        Some((schema, table)) => format!(
            "WHERE r.schema_name = {} AND r.table_name = {}",
            literal(schema)?,
            literal(table)?
        ),
        None => String::new(),
    };
    let (seen, more, joins) = if all {
        (
            "GREATEST(r.updated_at, COALESCE(l.seen_at, r.updated_at), COALESCE(b.written_at, \
             r.updated_at))",
            "h.origin, h.record, l.live",
            format!(
                "LEFT JOIN {state}.history AS h ON h.run_id = r.run_id LEFT JOIN {state}.live AS l ON \
                 l.run_id = r.run_id LEFT JOIN {state}.beats AS b ON b.run_id = r.run_id"
            ),
        )
    } else {
        ("r.updated_at", "'', '', ''", String::new())
    };
    Ok(format!(
        "SELECT r.run_id, r.schema_name, r.table_name, r.state, r.statement, r.checkpoint, \
         r.created_at, r.ended_at, {seen}, CAST(GREATEST(TIMESTAMPDIFF(SECOND, {seen}, \
         UTC_TIMESTAMP(6)), 0) AS UNSIGNED), {more} FROM {state}.runs AS r {joins} {condition} ORDER \
         BY r.created_at DESC LIMIT 100"
    ))
}

impl Control {
    /// Done marks of a round.
    pub(crate) async fn marks(&mut self, run_id: &str, round: u64) -> DbResult<Vec<DoneChunk>> {
        let sql = format!(
            "SELECT chunk, row_count FROM {}.marks WHERE run_id = {} AND round = {round}",
            quote(&self.state_schema)?,
            literal(run_id)?
        );
        let found = rows(&mut self.session.conn, &sql, "reading the marks of run", run_id).await?;
        found
            .iter()
            .map(|row| {
                Ok(DoneChunk {
                    index: cell(row, 0, "reading marks")?,
                    rows: cell(row, 1, "reading marks")?,
                })
            })
            .collect()
    }

    /// Keeps the identity of the table that is the source on this way, as it was when the triggers were
    /// installed.
    pub(crate) async fn save_identity(
        &mut self,
        run_id: &str,
        way: Way,
        identity: &str,
    ) -> DbResult<()> {
        let mut kept = self.load_identities(run_id).await?;
        match way {
            Way::Forward => kept.0 = identity.to_owned(),
            Way::Back => kept.1 = identity.to_owned(),
        }
        let sql = format!(
            "UPDATE {}.runs SET identity = {} WHERE run_id = {}",
            quote(&self.state_schema)?,
            literal(&format!("{}{OTHER_IDENTITY}{}", kept.0, kept.1))?,
            literal(run_id)?
        );
        run(&mut self.session.conn, &sql, "noting the identity of run", run_id).await.map(|_| ())
    }

    /// The identity that was kept.
    pub(crate) async fn load_identity(&mut self, run_id: &str, way: Way) -> DbResult<String> {
        let (forward, back) = self.load_identities(run_id).await?;
        Ok(if way == Way::Forward { forward } else { back })
    }

    async fn load_identities(&mut self, run_id: &str) -> DbResult<(String, String)> {
        let sql = format!(
            "SELECT identity FROM {}.runs WHERE run_id = {}",
            quote(&self.state_schema)?,
            literal(run_id)?
        );
        let row =
            first(&mut self.session.conn, &sql, "reading the identity of run", run_id).await?;
        let kept = row.map(|row| text(&row, 0)).unwrap_or_default();
        Ok(match kept.split_once(OTHER_IDENTITY) {
            Some((forward, back)) => (forward.to_owned(), back.to_owned()),
            None => (kept, String::new()),
        })
    }
}

/// Whether somebody holds the runner's lock of the table, as 1 or 0.
pub(crate) fn is_runner_alive_sql(schema: &str, table: &str) -> DbResult<String> {
    Ok(format!("SELECT IS_USED_LOCK({}) IS NOT NULL", literal(&runner_lock(schema, table))?))
}

/// The name of the server-side lock that makes one runner a table. At most 64 characters, so hashed.
fn runner_lock(schema: &str, table: &str) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in schema.bytes().chain([0]).chain(table.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("underpin.runner.{hash:016x}")
}

fn not_encodable(object: &str, why: &str) -> DbError {
    DbError::new(ErrorKind::Other, "writing the run's record", object).said(why)
}
