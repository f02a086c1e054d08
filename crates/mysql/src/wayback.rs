//! The way back: what must stand before a swap so that it can be taken back, and its removal.
//!
//! Before the swap the table that is to become live gets capture triggers of its own, which RENAME carries
//! along, and its identity is noted: whatever anybody does to it from then on is seen. The triggers of
//! the table that retires stay with it, so that after a revert they capture again; the next swap finds
//! everything in place.

use underpin_core::plan::RunSpec;
use underpin_dialect::DbResult;

use crate::connect::Session;
use crate::control::Control;
use crate::fingerprint::Fingerprint;
use crate::inspect::{comment_of, read_table, table_exists};
use crate::query::{define, literal, number, quote_table, run};
use crate::shadow::our_comment;
use crate::shape::Shape;
use crate::trigger;

/// Tells the server that this session's writes need no entry in a log of the run.
///
/// # Errors
/// The server's.
pub(crate) async fn mark_own(session: &mut Session, spec: &RunSpec) -> DbResult<()> {
    if !spec.keeps_way_back {
        return Ok(());
    }
    let sql = format!("SET {} = 1", trigger::own_variable(&spec.run_id)?);
    run(&mut session.conn, &sql, "setting up the session for run", &spec.run_id).await.map(drop)
}

impl Control {
    /// Sees to it that the shadow's changes are captured from the swap on, and notes what it is. May be
    /// done again; nobody but the run writes to the shadow yet.
    pub(crate) async fn prepare_way_back(&mut self, spec: &RunSpec) -> DbResult<()> {
        if !spec.keeps_way_back {
            return Ok(());
        }
        let back = spec.on_way(spec.way.turned());
        let shadow = read_table(&mut self.session, &spec.schema, &spec.names.shadow).await?;
        let source = read_table(&mut self.session, &spec.schema, &spec.table).await?;
        let shape = Shape::new(&back, &shadow, &source)?;
        let object = format!("{}.{}", spec.schema, spec.names.shadow);
        if !table_exists(&mut self.session, &spec.schema, &back.names.log).await? {
            let comment = literal(&our_comment(&spec.run_id, "change log of the way back"))?;
            let sql = trigger::log_sql(&shape, &comment);
            define(&mut self.session.conn, &sql, "making the return log of", &object).await?;
        }
        if self.count_triggers_of_shadow(spec).await? < spec.names.return_triggers.len() {
            for sql in trigger::drop_sql(&spec.schema, &back.names.triggers)? {
                self.run_on_live(&sql, "dropping a trigger of", &object).await?;
            }
            for sql in trigger::capture_sql(&shape, &back, &spec.names.shadow)? {
                self.run_on_live(&sql, "installing a capture trigger on", &object).await?;
            }
        }
        let capabilities = self.session.capabilities.clone();
        let conn = &mut self.session.conn;
        let print =
            Fingerprint::read_as(conn, &capabilities, &back, &spec.names.shadow).await?.encode();
        self.save_identity(&spec.run_id, back.way, &print).await
    }

    async fn count_triggers_of_shadow(&mut self, spec: &RunSpec) -> DbResult<usize> {
        let list: Vec<String> =
            spec.names.return_triggers.iter().map(|name| literal(name)).collect::<DbResult<_>>()?;
        let sql = format!(
            "SELECT COUNT(*) FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = {} AND \
             EVENT_OBJECT_TABLE = {} AND TRIGGER_NAME IN ({})",
            literal(&spec.schema)?,
            literal(&spec.names.shadow)?,
            list.join(", ")
        );
        let conn = &mut self.session.conn;
        let count = number(conn, &sql, "looking for triggers in", &spec.schema).await?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// Removes the fence that went with the retired table: what brings that one up to date on the way back
    /// must not run into it.
    pub(crate) async fn drop_fences(&mut self, spec: &RunSpec) -> DbResult<()> {
        let object = format!("{}.{}", spec.schema, spec.names.retired);
        if self.any_trigger(&spec.schema, &spec.names.fences).await? {
            for sql in trigger::drop_sql(&spec.schema, &spec.names.fences)? {
                self.run_on_live(&sql, "dropping a trigger of", &object).await?;
            }
        }
        Ok(())
    }

    /// Ends the capture of the live table, all triggers under one lock: until the last one is gone each
    /// write must find its log.
    pub(crate) async fn drop_return_triggers(&mut self, spec: &RunSpec) -> DbResult<()> {
        let names = &spec.names.return_triggers;
        if !spec.keeps_way_back || !self.any_trigger(&spec.schema, names).await? {
            return Ok(());
        }
        let object = format!("{}.{}", spec.schema, spec.table);
        let lock = format!("LOCK TABLES {} WRITE", quote_table(&spec.schema, &spec.table)?);
        self.run_on_live(&lock, "locking to remove the triggers of", &object).await?;
        let mut result = Ok(());
        for sql in trigger::drop_sql(&spec.schema, names)? {
            let dropped = run(&mut self.session.conn, &sql, "dropping a trigger of", &object).await;
            result = result.and(dropped.map(drop));
        }
        run(&mut self.session.conn, "UNLOCK TABLES", "unlocking", &object).await?;
        result
    }

    /// Whether the table of this name is the sentry of a swap that was cut off.
    pub(crate) async fn is_sentry(&mut self, spec: &RunSpec, name: &str) -> DbResult<bool> {
        let comment = comment_of(&mut self.session, &spec.schema, name).await?;
        Ok(comment.as_deref() == Some(our_comment(&spec.run_id, "sentry").as_str()))
    }
}
