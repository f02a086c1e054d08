//! Chunks of the copy: bounds found by the server, rows moved inside the server, the done mark in the
//! same transaction.
//!
//! The copy statement is a consistent read under READ COMMITTED: it takes no lock on the source. It is
//! a plain INSERT: a duplicate is never swallowed.

use underpin_core::key::{Chunk, Frontier, Key, KeyRange};
use underpin_core::machine::Applied;
use underpin_dialect::{Copy, DbResult, ErrorKind};

use crate::changelog::Takes;
use crate::query::{first, optional_text, rows, run, unquote};
use crate::shape::{KeyPart, Shape};
use crate::worker::Worker;
use crate::{diagnose, store};

impl Copy for Worker {
    async fn plan_chunks(
        &mut self,
        after: Option<&Key>,
        chunk_rows: u64,
        chunks_max: u32,
    ) -> DbResult<(Vec<Chunk>, bool)> {
        let all = KeyRange { after: after.cloned(), up_to: None };
        self.chunks_within(&all, chunk_rows, chunks_max).await
    }

    async fn copy_chunk(&mut self, round: u64, chunk: &Chunk) -> DbResult<u64> {
        let sql = copy_sql(&self.shape, &chunk.range)?;
        let object = self.shape.table.clone();
        let result = async {
            self.begin().await?;
            let copied = run(&mut self.session.conn, &sql, "copying a chunk of", &object).await?;
            self.refuse_warnings("copying a chunk of").await?;
            self.refuse_copied_losses(&chunk.range).await?;
            let mark = store::mark_sql(&self.state_schema, &self.grip, round, chunk.index, copied)?;
            run(&mut self.session.conn, &mark, "marking a chunk as done", &object).await?;
            Ok(copied)
        }
        .await;
        match result {
            Ok(copied) => {
                self.commit().await?;
                Ok(copied)
            }
            Err(error) => {
                self.roll_back(&error).await?;
                if error.kind == ErrorKind::DataError {
                    return Err(diagnose::chunk_value(self, &chunk.range, error).await);
                }
                Err(error)
            }
        }
    }

    async fn copy_with_pending(
        &mut self,
        round: u64,
        chunk: &Chunk,
        frontier: &Frontier,
    ) -> DbResult<(u64, Applied)> {
        self.apply_staged(frontier, Takes::Oldest(u64::MAX), Some((round, chunk))).await
    }
}

impl Worker {
    /// The key of the row `rows` places behind `after`; `None` where the table ends before.
    /// Bounds of up to `chunks_max` chunks within a range of keys, and whether they reach its end.
    pub(crate) async fn chunks_within(
        &mut self,
        within: &KeyRange,
        chunk_rows: u64,
        chunks_max: u32,
    ) -> DbResult<(Vec<Chunk>, bool)> {
        let mut chunks = Vec::new();
        let mut rest = within.clone();
        for index in 0..chunks_max {
            let Some(up_to) = self.bound(&rest, chunk_rows).await? else {
                chunks.push(Chunk { index, range: rest });
                return Ok((chunks, true));
            };
            let after = rest.after.replace(up_to.clone());
            chunks.push(Chunk { index, range: KeyRange { after, up_to: Some(up_to) } });
        }
        Ok((chunks, false))
    }

    async fn bound(&mut self, range: &KeyRange, chunk_rows: u64) -> DbResult<Option<Key>> {
        let shape = &self.shape;
        let predicate = shape.range(range, |part| part.source.clone())?;
        let sql = format!(
            "SELECT {} FROM {} FORCE INDEX ({}) WHERE {predicate} ORDER BY {} LIMIT 1 OFFSET {}",
            shape.key_readers(""),
            shape.source,
            shape.source_index,
            shape.source_key(""),
            chunk_rows.saturating_sub(1)
        );
        let object = shape.table.clone();
        let row = first(&mut self.session.conn, &sql, "finding the bounds of a chunk of", &object)
            .await?;
        Ok(row.map(|row| {
            Key((0..self.shape.key.len())
                .map(|index| optional_text(&row, index).unwrap_or_default())
                .collect())
        }))
    }

    /// Keys as text for messages, as `id=3`; with one more column behind them, as `id=3 (that)`.
    pub(crate) async fn key_samples(&mut self, sql: &str) -> DbResult<Vec<String>> {
        let object = self.shape.table.clone();
        let found = rows(&mut self.session.conn, sql, "naming rows of", &object).await?;
        Ok(found
            .iter()
            .map(|row| {
                let parts: Vec<String> = self
                    .shape
                    .key
                    .iter()
                    .enumerate()
                    .map(|(index, part)| {
                        let name = unquote(&part.source);
                        format!("{name}={}", optional_text(row, index).unwrap_or_default())
                    })
                    .collect();
                let remark = optional_text(row, parts.len())
                    .map_or_else(String::new, |remark| format!(" ({remark})"));
                format!("{}{remark}", parts.join(", "))
            })
            .collect())
    }
}

/// The statement that copies a range.
pub(crate) fn copy_sql(shape: &Shape, range: &KeyRange) -> DbResult<String> {
    let (names, values) = shape.fills(|_, pair| pair.value(""));
    Ok(format!(
        "INSERT INTO {} ({names}) SELECT {values} FROM {} FORCE INDEX ({}) WHERE {}",
        shape.shadow,
        shape.source,
        shape.source_index,
        shape.range(range, |part: &KeyPart| part.source.clone())?
    ))
}
