//! A log that is too long for one transaction: its keys are noted as to do, a stretch of the log in each
//! transaction, so that no snapshot of ours grows old over it.
//!
//! The stretches are told apart by where entries stand, which never changes: the log is append-only. What
//! a snapshot sees stands before the log's end at that moment; when all stretches up to there are noted,
//! what that snapshot saw counts as taken. An entry that came later may have been noted too: it stays
//! pending.

use underpin_dialect::{DbError, DbResult, ErrorKind};

use crate::changelog::{delete_keys_sql, entries_sql, to_do_keys_sql, truncated};
use crate::query::{cell, first, flag, literal, number, run, text};
use crate::worker::Worker;

/// Pending entries that one transaction takes at once: a fraction of a second's work.
const ENTRIES_AT_ONCE: u64 = 20_000;

/// Blocks of a stretch: about as many entries.
const STRETCH_BLOCKS: u64 = 100;

impl Worker {
    /// Where more is pending than one transaction should take, makes all of it keys that are to do.
    /// `take_out`: takes their rows out of the shadow as well, by the key's index. Returns the entries
    /// taken.
    ///
    /// # Errors
    /// `Truncated`; the server's. Nothing is in flight then.
    pub(crate) async fn shorten_log(&mut self, take_out: bool) -> DbResult<u64> {
        let object = self.shape.table.clone();
        let (log, state) = (&self.shape.places.log, &self.shape.state);
        let entries = entries_sql(log, state, ENTRIES_AT_ONCE + 1);
        let sql = format!("SET LOCAL enable_seqscan = off; {entries}");
        if number(&self.session, &sql, "measuring the log of", &object).await? <= ENTRIES_AT_ONCE {
            return Ok(0);
        }
        let attempted = "finding the end of the log of";
        let sql = format!(
            // The file first: where it is another one for what follows, that shows in the end.
            "SELECT pg_relation_filenode({log}::regclass), pg_current_snapshot(), \
             pg_relation_size({log}::regclass) / current_setting('block_size')::bigint",
            log = literal(log)?
        );
        let Some(row) = first(&self.session, &sql, attempted, &object).await? else {
            return Err(DbError::new(ErrorKind::Other, attempted, object));
        };
        let (file, seen, blocks) = (text(&row, 0), text(&row, 1), cell::<u64>(&row, 2, attempted)?);
        let seen = format!("{}::pg_snapshot", literal(&seen)?);
        let mut taken = 0;
        let mut from = 0;
        while from < blocks {
            let noted = self.note_stretch(from, &seen, take_out).await;
            taken += self.ended(noted).await?;
            from += STRETCH_BLOCKS;
        }
        let advanced = self.advance_to(&seen, &file).await;
        // In another file entries may stand where we had been: what was noted is no harm, and everything
        // is still pending.
        Ok(if self.ended(advanced).await? { taken } else { 0 })
    }

    /// Notes the pending keys of a stretch of the log; returns how many of its entries `seen` tells.
    async fn note_stretch(&mut self, from: u64, seen: &str, take_out: bool) -> DbResult<u64> {
        let object = self.shape.table.clone();
        self.begin_snapshot().await?;
        run(&self.session, "SET LOCAL enable_seqscan = off", "setting up for", &object).await?;
        let shape = &self.shape;
        // A function, not a range of the log's index: that would be read whole for each stretch.
        let entries = format!(
            "{} AS l WHERE l.ctid >= '({from},0)'::tid AND l.ctid < '({},0)'::tid AND NOT \
             pg_visible_in_snapshot(l.xid, (SELECT applied FROM {}))",
            shape.places.log,
            from + STRETCH_BLOCKS,
            shape.state
        );
        let attempted = "reading a stretch of the log of";
        let sql = format!(
            "SELECT count(*) FILTER (WHERE pg_visible_in_snapshot(l.xid, {seen})), count(*) > 0, \
             coalesce(bool_or(l.k0 IS NOT DISTINCT FROM NULL), false) FROM {entries}"
        );
        let Some(row) = first(&self.session, &sql, attempted, &object).await? else {
            return Err(DbError::new(ErrorKind::Other, attempted, object));
        };
        if flag(&row, 2) {
            return Err(truncated(shape));
        }
        if flag(&row, 1) {
            let keys = format!("(SELECT DISTINCT {} FROM {entries})", shape.log_key("l."));
            let mut sql = to_do_keys_sql(shape, &keys);
            if take_out {
                sql = format!("{}; {sql}", delete_keys_sql(shape, &keys));
            }
            run(&self.session, &sql, "noting changes of", &object).await?;
        }
        cell(&row, 0, attempted)
    }

    /// What `seen` tells is taken, where the log is still the file that was read; returns whether it is.
    async fn advance_to(&mut self, seen: &str, file: &str) -> DbResult<bool> {
        let object = self.shape.table.clone();
        self.begin().await?;
        let sql = format!(
            "LOCK TABLE {log} IN ACCESS SHARE MODE; UPDATE {} SET applied = {seen} WHERE \
             pg_relation_filenode({}::regclass) = {}",
            self.shape.state,
            literal(&self.shape.places.log)?,
            literal(file)?,
            log = self.shape.places.log,
        );
        Ok(run(&self.session, &sql, "noting what is taken of", &object).await? > 0)
    }
}
