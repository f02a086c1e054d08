//! Applying the log: in one snapshot, the keys that changed and the rows they mean now; then the
//! shadow's rows are made equal, and the entries are deleted by id.
//!
//! One statement fills the stage. Under READ COMMITTED one statement is one snapshot, two are not: with
//! two, the source would be newer than the log, and a unique value that moved between two rows would
//! clash although nothing is wrong.

use std::time::Instant;

use underpin_core::key::{Chunk, Frontier};
use underpin_core::machine::Applied;
use underpin_dialect::{ChangeLog, DbError, DbResult, ErrorKind};

use crate::query::{cell, first, run};
use crate::shape::{Pair, Shape, bare};
use crate::worker::Worker;
use crate::{backlog, diagnose, store};

/// Rows of the stage beyond which it is emptied at one stroke, and not row by row.
const STAGED_MANY: u64 = 200;

/// Which entries an application takes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Takes {
    /// So many of the oldest, and a quarter of all at least: all of them are read, and a long log is not
    /// to be read many times. The rows of all others are removed until they are taken too.
    Oldest(u64),
    /// So many of the oldest; the others are neither read nor touched.
    Only(u64),
}

impl ChangeLog for Worker {
    async fn apply(&mut self, frontier: &Frontier, keys_max: u64) -> DbResult<Applied> {
        let takes = Takes::Only(keys_max);
        self.apply_staged(frontier, takes, None).await.map(|(_, applied)| applied)
    }

    async fn apply_and_clear(&mut self, frontier: &Frontier, keys_max: u64) -> DbResult<Applied> {
        let takes = self.clearing(keys_max);
        self.apply_staged(frontier, takes, None).await.map(|(_, applied)| applied)
    }
}

impl Worker {
    /// So many of the oldest entries, and the rows of all others are removed. Where the shadow holds
    /// values that the source does not have, all are taken: a row must not be deleted in one transaction
    /// and inserted in the next.
    fn clearing(&self, entries_max: u64) -> Takes {
        Takes::Oldest(if self.shape.keeps_values() { u64::MAX } else { entries_max })
    }

    /// Applies entries, together with a chunk where one is given. Returns the chunk's rows and what was
    /// applied.
    ///
    /// With [`Takes::Only`] a unique value may still be held by a row whose own change was not taken: then
    /// it is done once more, and those rows are removed too.
    pub(crate) async fn apply_staged(
        &mut self,
        frontier: &Frontier,
        mut takes: Takes,
        chunk: Option<(u64, &Chunk)>,
    ) -> DbResult<(u64, Applied)> {
        let begun = Instant::now();
        self.make_stage().await?;
        self.clear_stage().await?;
        self.shape.floor = self.floor.get();
        let mut result = self.apply_in_transaction(frontier, takes, chunk).await;
        if let (Takes::Only(entries_max), Err(error)) = (takes, &result)
            && error.kind == ErrorKind::DuplicateKey
        {
            self.roll_back(error).await?;
            takes = self.clearing(entries_max);
            result = self.apply_in_transaction(frontier, takes, chunk).await;
        }
        match result {
            Ok((rows, mut applied, high)) => {
                self.commit().await?;
                // All that it saw up to there has been consumed.
                let through = match takes {
                    _ if applied.left == 0 => u64::MAX,
                    Takes::Only(_) => high,
                    Takes::Oldest(_) => 0,
                };
                self.floor.emptied(begun, through);
                if !self.under_lock {
                    let object = self.shape.table.clone();
                    self.floor.look(&mut self.session.conn, &object).await?;
                }
                applied.took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                Ok((rows, applied))
            }
            Err(error) => {
                self.roll_back(&error).await?;
                match error.kind {
                    ErrorKind::DataError => {
                        let range = chunk.map(|(_, chunk)| &chunk.range);
                        Err(diagnose::pending_value(self, frontier, range, error).await)
                    }
                    ErrorKind::DuplicateKey => Err(diagnose::duplicate(self, error).await),
                    _ => Err(error),
                }
            }
        }
    }

    /// Returns the rows of the chunk, what was applied, and the highest id that was seen.
    async fn apply_in_transaction(
        &mut self,
        frontier: &Frontier,
        takes: Takes,
        chunk: Option<(u64, &Chunk)>,
    ) -> DbResult<(u64, Applied, u64)> {
        let seen_before = self.floor.seen();
        self.begin().await?;
        self.fill_stage(frontier, takes, chunk.map(|(_, chunk)| chunk)).await?;
        let (rows, mut applied, high) = self.read_stage().await?;
        if let Takes::Only(entries_max) = takes
            && applied.entries >= entries_max
        {
            applied.left = self.count_beyond(high).await?;
        }
        applied.cleared = matches!(takes, Takes::Oldest(_)) || applied.left == 0;
        self.floor.note(high);
        let object = self.shape.table.clone();
        if applied.keys > 0 || rows > 0 {
            for (sql, attempted) in write_shadow_sql(&self.shape) {
                run(&mut self.session.conn, &sql, attempted, &object).await?;
            }
            self.refuse_warnings("applying changes to").await?;
        }
        if applied.entries > 0 {
            let sql = consume_sql(&self.shape);
            run(&mut self.session.conn, &sql, "deleting applied entries of", &object).await?;
            if !self.under_lock {
                self.floor.propose(&mut self.session.conn, seen_before, &object).await?;
            }
        }
        if let Some((round, chunk)) = chunk {
            let mark = store::mark_sql(&self.state_schema, &self.grip, round, chunk.index, rows)?;
            run(&mut self.session.conn, &mark, "marking a chunk as done", &object).await?;
        }
        Ok((rows, applied, high))
    }

    async fn fill_stage(
        &mut self,
        frontier: &Frontier,
        takes: Takes,
        chunk: Option<&Chunk>,
    ) -> DbResult<()> {
        let object = self.shape.table.clone();
        let empty = format!("DELETE FROM {}", self.shape.stage);
        run(&mut self.session.conn, &empty, "emptying the stage for", &object).await?;
        let sql = fill_sql(&self.shape, frontier, takes, chunk, None)?;
        let filled =
            run(&mut self.session.conn, &sql, "reading pending changes of", &object).await?;
        // After a roll-back it holds what it held before.
        self.staged_rows = std::cmp::max(self.staged_rows, filled);
        self.refuse_warnings("reading pending changes of").await?;
        for sql in keep_sql(&self.shape) {
            run(&mut self.session.conn, &sql, "reading pending changes of", &object).await?;
            self.refuse_warnings("reading pending changes of").await?;
        }
        self.refuse_staged_losses().await?;
        self.refuse_valueless().await
    }

    /// Entries behind the highest one that was taken; where there may be any it is one at least.
    async fn count_beyond(&mut self, high: u64) -> DbResult<u64> {
        let (log, object) = (self.shape.log.clone(), self.shape.table.clone());
        let from = high.saturating_add(1);
        let conn = &mut self.session.conn;
        let left = backlog::count(conn, &log, from, "counting the log of", &object).await?;
        Ok(std::cmp::max(left, 1))
    }

    /// Empties a stage that holds much, outside any transaction: each transaction empties it row by row.
    async fn clear_stage(&mut self) -> DbResult<()> {
        if self.staged_rows <= STAGED_MANY || self.under_lock {
            return Ok(());
        }
        let (sql, object) = (format!("TRUNCATE TABLE {}", self.shape.stage), &self.shape.table);
        run(&mut self.session.conn, &sql, "emptying the stage for", object).await?;
        self.staged_rows = 0;
        Ok(())
    }

    /// What the stage holds: rows of the chunk, what is about to be applied, and the highest id seen.
    async fn read_stage(&mut self) -> DbResult<(u64, Applied, u64)> {
        let sql = format!(
            "SELECT COUNT(*), COALESCE(SUM(id IS NOT NULL AND taken), 0), \
             COALESCE(SUM(id IS NOT NULL AND NOT taken), 0), \
             COALESCE(SUM(id IS NOT NULL AND beyond AND taken), 0), \
             COALESCE(SUM(first_of_key AND taken AND id IS NOT NULL AND NOT beyond), 0), \
             COALESCE(SUM(id IS NULL AND first_of_key AND present), 0), COALESCE(MAX(id), 0) \
             FROM {}",
            self.shape.stage
        );
        let object = self.shape.table.clone();
        let row = first(&mut self.session.conn, &sql, "counting the stage for", &object).await?;
        let Some(row) = row else {
            return Err(DbError::new(ErrorKind::Other, "counting the stage for", object));
        };
        let at = |index: usize| cell::<u64>(&row, index, "counting the stage");
        let applied = Applied {
            entries: at(1)?,
            left: at(2)?,
            dropped: at(3)?,
            keys: at(4)?,
            ..Applied::default()
        };
        Ok((at(5)?, applied, at(6)?))
    }
}

/// Fills the stage: every pending entry, and for the first entry of each key (and for each row of the
/// chunk) the source's row, all in one statement and so in one snapshot.
///
/// `only_ids` narrows the entries, for finding a bad one.
pub(crate) fn fill_sql(
    shape: &Shape,
    frontier: &Frontier,
    takes: Takes,
    chunk: Option<&Chunk>,
    only_ids: Option<(u64, u64)>,
) -> DbResult<String> {
    let log_key = shape.log_key("l.");
    let beyond = shape.beyond_frontier(frontier, "l.")?;
    let (from, to) = only_ids.unwrap_or((shape.floor, u64::MAX));
    let (taken, limit) = match takes {
        Takes::Oldest(most) => {
            let most = std::cmp::min(most, u64::from(u32::MAX));
            let at_least = "CEIL(COUNT(*) OVER () / 4)";
            let taken =
                format!("ROW_NUMBER() OVER (ORDER BY l.id) <= GREATEST({most}, {at_least})");
            (taken, String::new())
        }
        Takes::Only(most) => ("1".to_owned(), format!(" ORDER BY l.id LIMIT {most}")),
    };
    let mut entries = format!(
        "SELECT l.id AS id, {beyond} AS beyond, {taken} AS taken, {log_key} FROM {} AS l WHERE l.id \
         BETWEEN {from} AND {to}{limit}",
        shape.log
    );
    if let Some(chunk) = chunk {
        let range = shape.range(&chunk.range, |part| format!("s.{}", part.source))?;
        entries.push_str(&format!(
            " UNION ALL SELECT NULL, 0, 1, {} FROM {} AS s FORCE INDEX ({}) WHERE {range}",
            shape.source_key("s."),
            shape.source,
            shape.source_index
        ));
    }
    // The empty text of an ENUM may be two keys, the error value and a member. Behind a UNION it is a
    // text without a position; an error value among the keys is refused there by the stage's type.
    let partition = Shape::list(&shape.key, |part| {
        let name = format!("e.{}", part.log);
        if part.is_enum() && chunk.is_none() { format!("{name}, {name}+0") } else { name }
    });
    // Where a key has both a taken and a later entry the taken one comes first, so that its row is read.
    let numbered = format!(
        "SELECT e.*, ROW_NUMBER() OVER (PARTITION BY {partition} ORDER BY e.id) = 1 AS first_of_key \
         FROM ({entries}) AS e"
    );
    let staged_key = Shape::list(&shape.key, |part| format!("t_{}", bare(part)));
    let (mut columns, mut values) = (Vec::new(), Vec::new());
    for (index, pair) in shape.pairs.iter().enumerate() {
        if pair.is_filled_at_once() {
            columns.push(format!("c{index}"));
            values.push(pair.value("s."));
        }
        if pair.staged_loss.is_some() {
            columns.push(format!("o{index}"));
            values.push(format!("s.{}", pair.source));
        }
    }
    let present =
        shape.key.first().map_or_else(String::new, |part| format!("s.{} IS NOT NULL", part.source));
    Ok(format!(
        "INSERT INTO {} (id, beyond, taken, first_of_key, present, {staged_key}, {}) \
         SELECT p.id, p.beyond, p.taken, p.first_of_key, {present}, {}, {} \
         FROM ({numbered}) AS p LEFT JOIN {} AS s FORCE INDEX ({}) \
         ON p.first_of_key AND p.taken AND NOT p.beyond AND {}",
        shape.stage,
        columns.join(", "),
        shape.log_key("p."),
        values.join(", "),
        shape.source,
        shape.source_index,
        shape.log_meets_source("p.", "s.")
    ))
}

/// The statements that take into the stage what the shadow's rows have and the source's do not tell: the
/// values of columns that only the shadow has, and on the way back old values that still hold good. The
/// others are converted then.
pub(crate) fn keep_sql(shape: &Shape) -> Vec<String> {
    if !shape.keeps_values() {
        return Vec::new();
    }
    let mut sets = vec!["st.drawn = 1".to_owned()];
    for (index, (name, _)) in shape.kept.iter().enumerate() {
        sets.push(format!("st.d{index} = n.{name}"));
    }
    let mut conversions = Vec::new();
    for (index, pair) in shape.pairs.iter().enumerate() {
        if let Some(kept_if) = &pair.kept_if {
            sets.push(format!("st.f{index} = {}", pair.forward(kept_if)));
            sets.push(format!("st.c{index} = n.{}", pair.target));
            conversions.push(format!(
                "UPDATE {} AS st SET st.c{index} = {} WHERE st.first_of_key AND st.taken AND \
                 st.present AND NOT (st.drawn AND {})",
                shape.stage,
                pair.read(format!("st.o{index}")),
                kept_if.same
            ));
        }
    }
    let keep = format!(
        "UPDATE {} AS st STRAIGHT_JOIN {} AS n FORCE INDEX ({}) ON {} SET {} WHERE st.first_of_key \
         AND NOT st.beyond",
        shape.stage,
        shape.shadow,
        shape.target_index,
        shape.shadow_meets_stage(),
        sets.join(", ")
    );
    std::iter::once(keep).chain(conversions).collect()
}

/// The statements that make the shadow's rows equal to the stage, in order.
pub(crate) fn write_shadow_sql(shape: &Shape) -> Vec<(String, &'static str)> {
    let mut statements = Vec::new();
    let meets = shape.shadow_meets_stage();
    // All pending keys first, then the rows: never REPLACE, which eats other rows on a unique clash.
    // Where the collation changes, one key of the log may stand in the shadow in any spelling that it
    // has had.
    let spellings = if shape.is_recollated() { "TRUE" } else { "st.first_of_key" };
    statements.push((
        format!(
            "DELETE n FROM {} AS st STRAIGHT_JOIN {} AS n FORCE INDEX ({}) ON {meets} \
             WHERE {spellings} AND NOT st.beyond",
            shape.stage, shape.shadow, shape.target_index
        ),
        "removing changed rows from the shadow of",
    ));
    let insert = |(names, values): (String, String), rows: &str| {
        format!(
            "INSERT INTO {} ({names}) SELECT {values} FROM {} WHERE first_of_key AND taken AND present \
             AND NOT beyond{rows}",
            shape.shadow, shape.stage
        )
    };
    let staged = |index: usize, _: &Pair| format!("c{index}");
    let mut rows = "";
    if !shape.kept.is_empty() {
        let kept = insert(shape.fills_kept(staged), " AND drawn = 1");
        statements.push((kept, "writing changed rows to the shadow of"));
        rows = " AND drawn = 0";
    }
    // There is no row that would need a value which nobody knows, and the server refuses without a look.
    if shape.valueless.is_empty() {
        statements
            .push((insert(shape.fills(staged), rows), "writing changed rows to the shadow of"));
    }
    statements
}

/// Deletes the consumed entries by id through the primary key. Driven from the stage: a DELETE that
/// scans the log would wait for entries that writers have not committed yet.
fn consume_sql(shape: &Shape) -> String {
    format!(
        "DELETE l FROM {} AS st STRAIGHT_JOIN {} AS l FORCE INDEX (PRIMARY) ON l.id = st.id \
         WHERE st.taken AND st.id IS NOT NULL",
        shape.stage, shape.log
    )
}
