//! Chunks of the copy: stretches of the source's physical blocks, moved inside the server, with the done
//! mark in the same transaction.
//!
//! A chunk is one statement under READ COMMITTED: its snapshot lives no longer than itself, so vacuum
//! goes on. A row that moves to another block meanwhile may be copied twice or not at all; its key is
//! in the log then, and settling takes care of it. The end is fixed once, when the triggers stand:
//! what is written behind it is in the log. Rewriting the table moves every row without a trace in the
//! log, so each chunk looks at the file that it has read, while its lock keeps others from rewriting.

use underpin_core::key::{Chunk, Frontier, Key, KeyRange};
use underpin_core::machine::Applied;
use underpin_dialect::{Copy, DbError, DbResult, ErrorKind};

use crate::changelog;
use crate::query::{cell, first, literal, number, optional_cell, run};
use crate::shape::Shape;
use crate::worker::Worker;
use crate::{diagnose, store};

/// Bytes of a block that rows fill, by the server's usual block size.
const BLOCK_BYTES: u64 = 8000;

/// Bytes that the server keeps with each row, and what a row has at least.
const ROW_HEAD_BYTES: u64 = 28;

impl Copy for Worker {
    async fn plan_chunks(
        &mut self,
        after: Option<&Key>,
        chunk_rows: u64,
        chunks_max: u32,
    ) -> DbResult<(Vec<Chunk>, bool)> {
        let (end, rows_a_block) = self.extent().await?;
        let step = std::cmp::max(chunk_rows / std::cmp::max(rows_a_block, 1), 1);
        let mut from = block_of(after, &self.shape)?.unwrap_or(0);
        let mut after = after.cloned();
        let mut chunks = Vec::new();
        for index in 0..chunks_max {
            if from >= end {
                return Ok((chunks, true));
            }
            let to = from.saturating_add(step);
            // The last chunk has no upper bound, by which it is known.
            let up_to = (to < end).then(|| Key(vec![to.to_string()]));
            chunks.push(Chunk { index, range: KeyRange { after, up_to: up_to.clone() } });
            if up_to.is_none() {
                return Ok((chunks, true));
            }
            (after, from) = (up_to, to);
        }
        Ok((chunks, false))
    }

    async fn copy_chunk(&mut self, round: u64, chunk: &Chunk) -> DbResult<u64> {
        let result = self.copy_in_transaction(round, chunk).await;
        match result {
            Ok(copied) => {
                self.commit().await?;
                Ok(copied)
            }
            Err(error) => {
                self.roll_back(&error).await?;
                match error.kind {
                    ErrorKind::DataError => {
                        Err(diagnose::chunk_value(self, &chunk.range, error).await)
                    }
                    _ => Err(error),
                }
            }
        }
    }

    /// The shadow has no index while it is copied: nothing can clash, and nothing need be taken along.
    async fn copy_with_pending(
        &mut self,
        round: u64,
        chunk: &Chunk,
        _frontier: &Frontier,
    ) -> DbResult<(u64, Applied)> {
        Ok((self.copy_chunk(round, chunk).await?, Applied::default()))
    }
}

impl Worker {
    async fn copy_in_transaction(&mut self, round: u64, chunk: &Chunk) -> DbResult<u64> {
        let object = self.shape.table.clone();
        self.begin().await?;
        let sql = copy_sql(&self.shape, &blocks_predicate(&self.shape, &chunk.range)?);
        let copied = run(&self.session, &sql, "copying a chunk of", &object).await?;
        self.ensure_same_file().await?;
        let mark = store::mark_sql(&self.state_schema, &self.grip, round, chunk.index, copied)?;
        let sql = format!("SET LOCAL ROLE NONE; {mark}");
        run(&self.session, &sql, "marking a chunk as done", &object).await?;
        Ok(copied)
    }

    /// After a statement that has read the source: it is still the file that the copy began with.
    async fn ensure_same_file(&mut self) -> DbResult<()> {
        let shape = &self.shape;
        let sql = format!(
            "SELECT filenode = pg_catalog.pg_relation_filenode({}::pg_catalog.regclass) FROM {}",
            literal(&shape.places.source)?,
            shape.state
        );
        let row = first(&self.session, &sql, "checking the file of", &shape.table).await?;
        if row.is_some_and(|row| crate::query::flag(&row, 0)) {
            return Ok(());
        }
        self.refuse_truncated().await?;
        Err(DbError::new(ErrorKind::SourceChanged, "copying a chunk of", self.shape.table.clone())
            .said("the table was rewritten (VACUUM FULL, CLUSTER, or an ALTER TABLE)")
            .help("Its rows have moved. Abort the run and start it again"))
    }

    /// # Errors
    /// `Truncated` where the log has the marker.
    pub(crate) async fn refuse_truncated(&mut self) -> DbResult<()> {
        let sql = changelog::markers_sql(&self.shape);
        let object = self.shape.table.clone();
        let found = number(&self.session, &sql, "looking for a TRUNCATE of", &object).await?;
        if found == 0 { Ok(()) } else { Err(changelog::truncated(&self.shape)) }
    }

    /// The block where the copy ends, and how many rows a block holds. The end is fixed at the first
    /// call, which comes when the triggers stand.
    async fn extent(&mut self) -> DbResult<(u64, u64)> {
        let object = self.shape.table.clone();
        if let Err(error) = self.begin().await {
            self.roll_back(&error).await?;
            return Err(error);
        }
        let shape = &self.shape;
        let source = literal(&shape.places.source)?;
        let sql = format!(
            // Size and file of one table: nobody rewrites it between the two looks.
            "LOCK TABLE ONLY {} IN ACCESS SHARE MODE; UPDATE {state} SET filenode = pg_catalog.pg_relation_filenode({source}::pg_catalog.regclass), \
             blocks = pg_catalog.pg_relation_size({source}::pg_catalog.regclass) / \
             pg_catalog.current_setting('block_size')::bigint WHERE blocks IS NULL; \
             SELECT s.blocks, CASE WHEN c.reltuples > 0 AND c.relpages > 0 \
             THEN pg_catalog.ceil(c.reltuples / c.relpages)::bigint END \
             FROM {state} s, pg_catalog.pg_class c WHERE c.oid = {source}::pg_catalog.regclass",
            shape.places.source,
            state = shape.state
        );
        let read = first(&self.session, &sql, "finding the end of", &object).await;
        let row = match read {
            Ok(Some(row)) => row,
            Ok(None) => {
                let error = DbError::new(ErrorKind::Other, "finding the end of", object);
                self.roll_back(&error).await?;
                return Err(error.help("The run's own tables are missing; abort the run"));
            }
            Err(error) => {
                self.roll_back(&error).await?;
                return Err(error);
            }
        };
        self.commit().await?;
        let attempted = "finding the end of the table";
        let by_size = BLOCK_BYTES / self.spec.row_bytes.saturating_add(ROW_HEAD_BYTES);
        let density = optional_cell(&row, 1, attempted)?.unwrap_or(by_size);
        Ok((cell(&row, 0, attempted)?, density))
    }
}

/// The statement that copies the rows for which the predicate over the source holds.
pub(crate) fn copy_sql(shape: &Shape, predicate: &str) -> String {
    format!(
        "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM ONLY {} WHERE {predicate}",
        shape.places.shadow,
        shape.targets(),
        shape.values(),
        shape.places.source
    )
}

/// The predicate of a chunk: a stretch of blocks, which the server reads as such.
pub(crate) fn blocks_predicate(shape: &Shape, range: &KeyRange) -> DbResult<String> {
    let from = block_of(range.after.as_ref(), shape)?.unwrap_or(0);
    let until = match block_of(range.up_to.as_ref(), shape)? {
        Some(block) => format!("'({block},0)'::pg_catalog.tid"),
        None => format!("(SELECT '(' || blocks || ',0)' FROM {})::pg_catalog.tid", shape.state),
    };
    let ctid = format!("{}.ctid", shape.places.source);
    Ok(format!("{ctid} >= '({from},0)'::pg_catalog.tid AND {ctid} < {until}"))
}

/// The block number of a bound.
fn block_of(bound: Option<&Key>, shape: &Shape) -> DbResult<Option<u64>> {
    let Some(key) = bound else { return Ok(None) };
    let block = match key.0.as_slice() {
        [block] => block.parse::<u64>().ok(),
        _ => None,
    };
    block.map(Some).ok_or_else(|| {
        DbError::new(ErrorKind::Other, "reading a bound of the copy", shape.table.clone())
            .help("The run's record holds no block number there; abort the run")
    })
}
