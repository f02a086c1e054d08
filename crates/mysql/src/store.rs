//! The state of runs, kept in the database that is changed: runs, fences and done marks.
//!
//! Works where nothing of ours exists yet: reading then finds nothing, the first write makes the
//! tables. Every time is the server's, in UTC.

use underpin_core::checkpoint::Checkpoint;
use underpin_core::machine::{Command, DoneChunk};
use underpin_core::plan::RunSpec;
use underpin_dialect::{
    DbError, DbResult, ErrorKind, Grip, Order, Origin, RunSummary, Store, StoredRun,
};

use crate::control::Control;
use crate::query::{cell, define, first, literal, number, quote, rows, run, text};

/// Tries to bump a fence that an older runner's transaction still holds; one innodb lock wait each.
const TAKE_OVER_TRIES: u32 = 200;

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
        if !self.state_exists().await? {
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
        _origin: &Origin,
    ) -> DbResult<()> {
        self.make_state().await?;
        let object = format!("{}.{}", spec.schema, spec.table);
        let spec_json = serde_json::to_string(spec)
            .map_err(|error| not_encodable(&object, &error.to_string()))?;
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
        run(conn, "COMMIT", "recording the run of", &object).await.map(|_| ())
    }

    async fn take_over(&mut self, run_id: &str) -> DbResult<Grip> {
        self.server.floor.reset();
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

    async fn close_run(&mut self, run_id: &str, result: &str, _record: &str) -> DbResult<()> {
        let sql = format!(
            "UPDATE {}.runs SET state = {}, ended_at = UTC_TIMESTAMP(6), \
             updated_at = UTC_TIMESTAMP(6), requested = '' WHERE run_id = {}",
            quote(&self.state_schema)?,
            literal(result)?,
            literal(run_id)?
        );
        run(&mut self.session.conn, &sql, "closing run", run_id).await.map(|_| ())
    }

    async fn request(&mut self, run_id: &str, command: &Command, _by: &str) -> DbResult<()> {
        let Some(word) = command_word(command) else {
            return Err(DbError::new(ErrorKind::Other, "leaving a request for run", run_id)
                .said("there is no room for it yet"));
        };
        let sql = format!(
            "UPDATE {}.runs SET requested = {} WHERE run_id = {} AND state = 'open'",
            quote(&self.state_schema)?,
            literal(word)?,
            literal(run_id)?
        );
        run(&mut self.session.conn, &sql, "leaving a request for run", run_id).await.map(|_| ())
    }

    async fn orders(&mut self, _run_id: &str) -> DbResult<Vec<Order>> {
        Ok(Vec::new())
    }

    async fn runs(&mut self, of: Option<(&str, &str)>) -> DbResult<Vec<RunSummary>> {
        if !self.state_exists().await? {
            return Ok(Vec::new());
        }
        let of = match of {
            Some((schema, table)) => format!(
                "WHERE schema_name = {} AND table_name = {}",
                literal(schema)?,
                literal(table)?
            ),
            None => String::new(),
        };
        let sql = format!(
            "SELECT run_id, schema_name, table_name, state, statement, checkpoint, created_at, \
             updated_at, TIMESTAMPDIFF(SECOND, updated_at, UTC_TIMESTAMP(6)) FROM {}.runs \
             {of} ORDER BY created_at DESC LIMIT 100",
            quote(&self.state_schema)?
        );
        let found = rows(&mut self.session.conn, &sql, "listing runs", "").await?;
        let mut runs = Vec::new();
        for row in &found {
            let (schema, table) = (text(row, 1), text(row, 2));
            let lock = literal(&runner_lock(&schema, &table))?;
            let sql = format!("SELECT IS_USED_LOCK({lock}) IS NOT NULL");
            let running = text(row, 3) == "open"
                && number(&mut self.session.conn, &sql, "looking for runners", "").await? == 1;
            runs.push(RunSummary {
                run_id: text(row, 0),
                table: format!("{schema}.{table}"),
                state: text(row, 3),
                statement: text(row, 4),
                checkpoint: text(row, 5),
                created_at: text(row, 6),
                updated_at: text(row, 7),
                silent_s: cell::<Option<u64>>(row, 8, "listing runs")?.unwrap_or(0),
                ended_at: None,
                origin: String::new(),
                live: String::new(),
                record: String::new(),
                running,
            });
        }
        Ok(runs)
    }
}

impl Control {
    /// Whether our tables exist; false also where the schema itself is missing.
    pub(crate) async fn state_exists(&mut self) -> DbResult<bool> {
        let sql = format!(
            "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} \
             AND TABLE_NAME IN ('runs', 'fences', 'marks')",
            literal(&self.state_schema)?
        );
        Ok(number(&mut self.session.conn, &sql, "looking for", &self.state_schema).await? == 3)
    }

    /// Makes our tables where they are missing.
    async fn make_state(&mut self) -> DbResult<()> {
        if self.state_exists().await? {
            return Ok(());
        }
        let state = quote(&self.state_schema)?;
        let object = self.state_schema.clone();
        let statements = [
            format!("CREATE DATABASE IF NOT EXISTS {state} CHARACTER SET utf8mb4"),
            format!(
                "CREATE TABLE IF NOT EXISTS {state}.runs (run_id VARCHAR(32) CHARACTER SET ascii \
                 NOT NULL PRIMARY KEY, schema_name VARCHAR(64) NOT NULL, table_name VARCHAR(64) NOT \
                 NULL, state VARCHAR(16) NOT NULL, statement LONGTEXT NOT NULL, spec LONGTEXT NOT \
                 NULL, checkpoint LONGTEXT NOT NULL, identity LONGTEXT NOT NULL, requested \
                 VARCHAR(16) NOT NULL DEFAULT '', runner VARCHAR(255) NOT NULL, created_at \
                 DATETIME(6) NOT NULL, updated_at DATETIME(6) NOT NULL, ended_at DATETIME(6) NULL, \
                 KEY by_table (schema_name, table_name)) ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE \
                 utf8mb4_bin COMMENT='underpin: runs and their history'"
            ),
            format!(
                "CREATE TABLE IF NOT EXISTS {state}.fences (run_id VARCHAR(32) CHARACTER SET ascii \
                 NOT NULL PRIMARY KEY, epoch BIGINT UNSIGNED NOT NULL) ENGINE=InnoDB \
                 COMMENT='underpin: who may write for a run'"
            ),
            format!(
                "CREATE TABLE IF NOT EXISTS {state}.marks (run_id VARCHAR(32) CHARACTER SET ascii \
                 NOT NULL, round BIGINT UNSIGNED NOT NULL, chunk INT UNSIGNED NOT NULL, row_count \
                 BIGINT UNSIGNED NOT NULL, PRIMARY KEY (run_id, round, chunk)) ENGINE=InnoDB \
                 COMMENT='underpin: chunks done in the running round'"
            ),
        ];
        for sql in statements {
            define(&mut self.session.conn, &sql, "making the state tables in", &object)
                .await
                .map_err(|error| {
                    error.help(
                        "underpin keeps the state of runs in this database; give the account the \
                         right to create it, or name another one with --state-schema",
                    )
                })?;
        }
        Ok(())
    }

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

    /// Keeps the source's identity as it was when the triggers were installed.
    pub(crate) async fn save_identity(&mut self, run_id: &str, identity: &str) -> DbResult<()> {
        let sql = format!(
            "UPDATE {}.runs SET identity = {} WHERE run_id = {}",
            quote(&self.state_schema)?,
            literal(identity)?,
            literal(run_id)?
        );
        run(&mut self.session.conn, &sql, "noting the identity of run", run_id).await.map(|_| ())
    }

    /// The identity that was kept.
    pub(crate) async fn load_identity(&mut self, run_id: &str) -> DbResult<String> {
        let sql = format!(
            "SELECT identity FROM {}.runs WHERE run_id = {}",
            quote(&self.state_schema)?,
            literal(run_id)?
        );
        let row =
            first(&mut self.session.conn, &sql, "reading the identity of run", run_id).await?;
        Ok(row.map(|row| text(&row, 0)).unwrap_or_default())
    }
}

/// The word by which a request is stored; `None` where the column has no room for it.
pub(crate) fn command_word(command: &Command) -> Option<&'static str> {
    match command {
        Command::Pause => Some("pause"),
        Command::Resume => Some("resume"),
        Command::Stop => Some("stop"),
        Command::Abort => Some("abort"),
        Command::Swap | Command::Set(_) => None,
    }
}

/// The request of a word; `None` where there is none.
pub(crate) fn command_of(word: &str) -> Option<Command> {
    [Command::Pause, Command::Resume, Command::Stop, Command::Abort]
        .into_iter()
        .find(|command| command_word(command) == Some(word))
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
