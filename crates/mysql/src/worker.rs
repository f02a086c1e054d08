//! A worker's session: its shape, its grip, and the transaction around everything it writes.

use std::sync::Arc;

use mysql_async::prelude::Queryable;
use underpin_core::plan::RunSpec;
use underpin_dialect::{DbError, DbResult, ErrorKind, Grip};

use crate::connect::Session;
use crate::error::Doing;
use crate::floor::Floor;
use crate::query::{self, number, run};
use crate::shape::Shape;
use crate::store;

/// Codes of warnings that say nothing about a value: deprecations and advice.
const HARMLESS_WARNINGS: [u16; 6] = [1287, 1681, 1831, 3719, 3778, 4095];

/// See the module's head.
#[derive(Debug)]
pub struct Worker {
    pub(crate) session: Session,
    pub(crate) spec: Arc<RunSpec>,
    pub(crate) shape: Shape,
    pub(crate) grip: Grip,
    pub(crate) state_schema: String,
    /// Whether the stage exists in this session.
    pub(crate) staged: bool,
    /// Rows that the stage holds at most.
    pub(crate) staged_rows: u64,
    pub(crate) floor: Arc<Floor>,
    /// Inside the swap's LOCK TABLES: transactions are implicit (autocommit is off) and the fence was
    /// checked when the lock was had.
    pub(crate) under_lock: bool,
}

impl underpin_dialect::Worker for Worker {
    fn session(&self) -> u64 {
        self.session.id.thread
    }
}

impl Worker {
    /// Begins a transaction and proves that the grip is not stale.
    ///
    /// The fence row is read with a shared lock that lasts until the transaction ends: a take-over,
    /// which writes the row, waits for us, and we can never commit behind its back.
    pub(crate) async fn begin(&mut self) -> DbResult<()> {
        if self.under_lock {
            return Ok(());
        }
        let object = self.shape.table.clone();
        run(&mut self.session.conn, "START TRANSACTION", "beginning a transaction on", &object)
            .await?;
        let sql = store::fence_sql(&self.state_schema, &self.grip.run_id)?;
        let epoch = number(&mut self.session.conn, &sql, "reading the fence of", &object).await?;
        if epoch == self.grip.epoch { Ok(()) } else { Err(store::fenced(&object)) }
    }

    /// Commits. A lost answer is a lost connection: the engine looks at the server before it goes on.
    pub(crate) async fn commit(&mut self) -> DbResult<()> {
        let object = self.shape.table.clone();
        run(&mut self.session.conn, "COMMIT", "committing on", &object).await.map(|_| ())
    }

    /// Rolls back after `error`. Where the connection is gone the server does it by itself.
    pub(crate) async fn roll_back(&mut self, error: &DbError) -> DbResult<()> {
        if error.is_ambiguous() {
            return Err(error.clone());
        }
        let object = self.shape.table.clone();
        run(&mut self.session.conn, "ROLLBACK", "rolling back on", &object).await.map(|_| ())
    }

    /// Turns a warning about a value into an error: the server rounded or cut something without
    /// refusing it.
    pub(crate) async fn refuse_warnings(&mut self, attempted: &str) -> DbResult<()> {
        if self.session.conn.get_warnings() == 0 {
            return Ok(());
        }
        let object = self.shape.table.clone();
        let found: Vec<(String, u16, String)> = self
            .session
            .conn
            .query("SHOW WARNINGS LIMIT 20")
            .await
            .doing("reading the warnings after a statement on", &object)?;
        match found.into_iter().find(|(_, code, _)| !HARMLESS_WARNINGS.contains(code)) {
            None => Ok(()),
            Some((_, code, message)) => {
                let mut error = DbError::new(ErrorKind::DataError, attempted, object).said(message);
                error.code = Some(code);
                Err(error)
            }
        }
    }

    /// Makes the session's stage if it is not there yet.
    pub(crate) async fn make_stage(&mut self) -> DbResult<()> {
        if self.staged {
            return Ok(());
        }
        let object = self.shape.table.clone();
        let sql = stage_sql(&self.shape);
        query::run(&mut self.session.conn, &sql, "making the stage for", &object).await?;
        self.staged = true;
        Ok(())
    }
}

/// The stage holds one snapshot of pending entries with the rows they mean, in the shadow's types: the
/// conversion happens on the way in, strictly. On the way back it also holds what they are converted
/// from (`o`), and what the change makes of the values that stand (`f`).
fn stage_sql(shape: &Shape) -> String {
    let mut columns = vec![
        // Some servers demand a primary key of every table.
        "place BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY".to_owned(),
        "id BIGINT UNSIGNED NULL".to_owned(),
        "first_of_key TINYINT NOT NULL".to_owned(),
        "taken TINYINT NOT NULL".to_owned(),
        "beyond TINYINT NOT NULL".to_owned(),
        "present TINYINT NOT NULL".to_owned(),
        "drawn TINYINT NOT NULL DEFAULT 0".to_owned(),
    ];
    for part in &shape.key {
        columns.push(format!("t_{} {} NULL", crate::shape::bare(part), part.target_type));
    }
    for (index, pair) in shape.pairs.iter().enumerate() {
        if !pair.is_computed {
            columns.push(format!("c{index} {} NULL", pair.stage_type));
        }
        if pair.staged_loss.is_some() {
            columns.push(format!("o{index} {} NULL", pair.source_type));
        }
        if pair.kept_if.is_some() {
            columns.push(format!("f{index} {} NULL", pair.source_type));
        }
    }
    for (index, (_, kind)) in shape.kept.iter().enumerate() {
        columns.push(format!("d{index} {kind} NULL"));
    }
    format!(
        "CREATE TEMPORARY TABLE {} ({}) ENGINE=InnoDB ROW_FORMAT=DYNAMIC",
        shape.stage,
        columns.join(", ")
    )
}
