//! The proof that source and shadow hold the same rows: sums per range, computed by the server in one
//! snapshot; only a range that differs is looked at row by row.
//!
//! Rows whose keys are pending in the log are left out: everything else must be equal, column by
//! column, through the change's own conversion.

use underpin_core::key::{Chunk, KeyRange};
use underpin_dialect::{DbResult, RangeReport, Verify};

use crate::query::{cell, first, literal, number, run, unquote};
use crate::shape::{KeyPart, Shape};
use crate::worker::Worker;

/// Differing rows that are named, of each kind.
const SAMPLES_MAX: u32 = 20;

/// An odd constant below 2^32. CRC32 alone is linear: two rows that swapped their values would cancel
/// out under `BIT_XOR`. The product of two numbers below 2^32 fits 64 bits and its carries are not linear.
const MIX: u64 = 2_654_435_761;

impl Verify for Worker {
    async fn plan_ranges_within(
        &mut self,
        within: &KeyRange,
        range_rows: u64,
        ranges_max: u32,
    ) -> DbResult<(Vec<Chunk>, bool)> {
        self.chunks_within(within, range_rows, ranges_max).await
    }

    async fn verify_range(&mut self, range: &Chunk) -> DbResult<RangeReport> {
        self.shape.floor = self.floor.get();
        self.begin_snapshot().await?;
        let result = self.compare(range).await;
        // Nothing was written; the snapshot ends whatever the outcome was.
        let object = self.shape.table.clone();
        run(&mut self.session.conn, "COMMIT", "ending a snapshot of", &object).await?;
        result
    }

    async fn repair(&mut self, range: &Chunk) -> DbResult<(u64, u64)> {
        let object = self.shape.table.clone();
        self.shape.floor = self.floor.get();
        self.begin().await?;
        let log = &self.shape.log;
        let key = self.shape.log_key("");
        let mut logged = 0;
        for select in difference_sql(&self.shape, range, true, false)? {
            let sql = format!("INSERT INTO {log} ({key}) {select}");
            logged +=
                run(&mut self.session.conn, &sql, "logging differing rows of", &object).await?;
        }
        self.commit().await?;
        let sql = format!("SELECT COUNT(*) FROM {}", self.shape.log);
        let backlog = number(&mut self.session.conn, &sql, "counting the log of", &object).await?;
        Ok((logged, backlog))
    }
}

impl Worker {
    async fn begin_snapshot(&mut self) -> DbResult<()> {
        let object = self.shape.table.clone();
        let conn = &mut self.session.conn;
        let level = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ";
        run(conn, level, "beginning a snapshot of", &object).await?;
        let begin = "START TRANSACTION WITH CONSISTENT SNAPSHOT";
        run(conn, begin, "beginning a snapshot of", &object).await.map(|_| ())
    }

    async fn compare(&mut self, range: &Chunk) -> DbResult<RangeReport> {
        let object = self.shape.table.clone();
        let probe = format!(
            "SELECT COUNT(*) FROM (SELECT 1 FROM {} WHERE id >= {} LIMIT 1) AS p",
            self.shape.log, self.shape.floor
        );
        let pending =
            number(&mut self.session.conn, &probe, "probing the log of", &object).await? > 0;
        if self.shape.same_order {
            let (source, shadow) = sum_sql(&self.shape, range, pending)?;
            let old = self.sum(&source).await?;
            let new = self.sum(&shadow).await?;
            if old == new {
                return Ok(RangeReport { rows: old.0, ..RangeReport::default() });
            }
            return self.differences(range, old.0, pending).await;
        }
        // The two tables order their keys differently: each source row is looked up in the shadow, and
        // at the end the numbers of rows must agree.
        let count = count_sql(&self.shape, range)?;
        let counted = number(&mut self.session.conn, &count, "counting rows of", &object).await?;
        let mut report = self.differences(range, counted, pending).await?;
        if range.range.up_to.is_none() {
            self.compare_totals(&mut report).await?;
        }
        Ok(report)
    }

    async fn sum(&mut self, sql: &str) -> DbResult<(u64, u64)> {
        let object = self.shape.table.clone();
        let row = first(&mut self.session.conn, sql, "summing a range of", &object).await?;
        match row {
            None => Ok((0, 0)),
            Some(row) => Ok((
                cell(&row, 0, "summing a range")?,
                cell::<Option<u64>>(&row, 1, "summing a range")?.unwrap_or(0),
            )),
        }
    }

    async fn differences(
        &mut self,
        range: &Chunk,
        rows: u64,
        pending: bool,
    ) -> DbResult<RangeReport> {
        let object = self.shape.table.clone();
        let mut report = RangeReport { rows, ..RangeReport::default() };
        let samples = difference_sql(&self.shape, range, pending, true)?;
        for (select, sample) in
            difference_sql(&self.shape, range, pending, false)?.iter().zip(samples)
        {
            let count = format!("SELECT COUNT(*) FROM ({select}) AS d");
            let found =
                number(&mut self.session.conn, &count, "counting differences of", &object).await?;
            report.differences += found;
            if found > 0 {
                let sql = format!("{sample} LIMIT {SAMPLES_MAX}");
                report.samples.extend(self.key_samples(&sql).await?);
            }
        }
        Ok(report)
    }

    /// Rows that only the shadow has show as a surplus of its number of rows.
    async fn compare_totals(&mut self, report: &mut RangeReport) -> DbResult<()> {
        let object = self.shape.table.clone();
        let (source, shadow) = total_sql(&self.shape);
        let old = number(&mut self.session.conn, &source, "counting rows of", &object).await?;
        let new = number(&mut self.session.conn, &shadow, "counting rows of", &object).await?;
        if new != old {
            report.differences += old.abs_diff(new);
            report.samples.push(format!("{old} rows in the source, {new} in the shadow"));
        }
        Ok(())
    }
}

/// Sums over a range: number of rows and a hash, for the source and for the shadow.
fn sum_sql(shape: &Shape, range: &Chunk, pending: bool) -> DbResult<(String, String)> {
    let source_range = shape.range(&range.range, |part| format!("s.{}", part.source))?;
    let shadow_range = shape.range(&range.range, |part| format!("n.{}", part.target))?;
    let source = format!(
        "SELECT COUNT(*), BIT_XOR({}) FROM {} AS s FORCE INDEX ({}) {} WHERE {source_range}{}",
        row_hash(shape, Side::Source),
        shape.source,
        shape.source_index,
        pending_join(shape, pending, &shape.log_meets_source("p.", "s.")),
        pending_filter(pending)
    );
    let meets = shape.shadow_meets("n.", "p.", |part| &part.log);
    let shadow = format!(
        "SELECT COUNT(*), BIT_XOR({}) FROM {} AS n FORCE INDEX ({}) {} WHERE {shadow_range}{}",
        row_hash(shape, Side::Shadow),
        shape.shadow,
        shape.target_index,
        pending_join(shape, pending, &meets),
        pending_filter(pending)
    );
    Ok((source, shadow))
}

fn count_sql(shape: &Shape, range: &Chunk) -> DbResult<String> {
    Ok(format!(
        "SELECT COUNT(*) FROM {} AS s FORCE INDEX ({}) WHERE {}",
        shape.source,
        shape.source_index,
        shape.range(&range.range, |part| format!("s.{}", part.source))?
    ))
}

fn total_sql(shape: &Shape) -> (String, String) {
    let source = format!(
        "SELECT COUNT(*) FROM {} AS s {} WHERE TRUE{}",
        shape.source,
        pending_join(shape, true, &shape.log_meets_source("p.", "s.")),
        pending_filter(true)
    );
    let meets = shape.shadow_meets("n.", "p.", |part| &part.log);
    let shadow = format!(
        "SELECT COUNT(*) FROM {} AS n {} WHERE TRUE{}",
        shape.shadow,
        pending_join(shape, true, &meets),
        pending_filter(true)
    );
    (source, shadow)
}

/// SELECTs of the keys that differ: source rows that the shadow lacks or has otherwise, and, where
/// ranges agree, shadow rows that the source lacks.
///
/// The columns are named as in the log; with `shown` they are keys for a person, and what differs.
fn difference_sql(
    shape: &Shape,
    range: &Chunk,
    pending: bool,
    shown: bool,
) -> DbResult<Vec<String>> {
    let first = |name: fn(&KeyPart) -> &String| shape.key.first().map_or("", |part| name(part));
    let missing = absent(&format!("n.{}", first(|part| &part.target)));
    let listed = if shown {
        format!("{}, {}", shape.key_shown("s."), differing(shape, &missing)?)
    } else {
        Shape::list(&shape.key, |part| format!("s.{} AS {}", part.source, part.log))
    };
    let mut selects = vec![format!(
        "SELECT {listed} FROM {} AS s FORCE INDEX ({}) LEFT JOIN {} AS n FORCE INDEX ({}) ON {} {} \
         WHERE {}{} AND ({missing} OR {} <> {})",
        shape.source,
        shape.source_index,
        shape.shadow,
        shape.target_index,
        shape.shadow_meets("n.", "s.", |part: &KeyPart| &part.source),
        pending_join(shape, pending, &shape.log_meets_source("p.", "s.")),
        shape.range(&range.range, |part| format!("s.{}", part.source))?,
        pending_filter(pending),
        row_text(shape, Side::Source),
        row_text(shape, Side::Shadow),
    )];
    if shape.same_order {
        let meets = shape.shadow_meets("n.", "p.", |part| &part.log);
        let listed = if shown {
            let keys =
                Shape::list(&shape.key, |part| part.kind.shown(&format!("n.{}", part.target)));
            format!("{keys}, 'only in the shadow'")
        } else {
            Shape::list(&shape.key, |part| format!("n.{} AS {}", part.target, part.log))
        };
        selects.push(format!(
            "SELECT {listed} FROM {} AS n FORCE INDEX ({}) LEFT JOIN {} AS s FORCE INDEX ({}) ON {} \
             {} WHERE {}{} AND {}",
            shape.shadow,
            shape.target_index,
            shape.source,
            shape.source_index,
            shape.shadow_meets("n.", "s.", |part: &KeyPart| &part.source),
            pending_join(shape, pending, &meets),
            shape.range(&range.range, |part| format!("n.{}", part.target))?,
            pending_filter(pending),
            absent(&format!("s.{}", first(|part| &part.source))),
        ));
    }
    Ok(selects)
}

/// The expression that names the columns in which a row differs.
fn differing(shape: &Shape, missing: &str) -> DbResult<String> {
    let names: Vec<String> = shape
        .pairs
        .iter()
        .map(|pair| {
            let name = literal(&unquote(&pair.source))?;
            // By their texts, as rows are compared: 0 = -0, but that is a difference.
            let text = |form: &str| format!("CAST(CONCAT({form}) AS BINARY)");
            let (old, new) = (text(&pair.source_form), text(&pair.target_form));
            Ok(format!("IF({old} <=> {new}, NULL, {name})"))
        })
        .collect::<DbResult<_>>()?;
    Ok(format!(
        "IF({missing}, 'missing in the shadow', CONCAT('differs in ', CONCAT_WS(', ', {})))",
        names.join(", ")
    ))
}

/// Joins the pending keys as `p`; `hit` tells whether there is one.
pub(crate) fn pending_join(shape: &Shape, pending: bool, meets: &str) -> String {
    if !pending {
        return String::new();
    }
    // Columns without a name of their own are there to be told apart only.
    let keys = shape.log_key_apart("");
    format!("LEFT JOIN (SELECT DISTINCT {keys}, 1 AS hit FROM {}) AS p ON {meets}", shape.log)
}

/// Leaves out the pending keys.
pub(crate) fn pending_filter(pending: bool) -> &'static str {
    if pending { " AND p.hit IS NULL" } else { "" }
}

/// Whether an outer join found no row. Not by IS NULL: on a date that cannot be NULL the server takes
/// that for a question about 0000-00-00.
fn absent(column: &str) -> String {
    format!("{column} <=> NULL")
}

/// Which of the two tables an expression is about: `s` or `n`.
#[derive(Clone, Copy)]
enum Side {
    Source,
    Shadow,
}

/// The text of a row: its values, and which of them are NULL (`CONCAT_WS` leaves NULLs out). Asked of
/// the column, not of the form, which would be computed twice.
fn row_text(shape: &Shape, side: Side) -> String {
    let mut values: Vec<&str> = Vec::new();
    let mut nulls: Vec<String> = Vec::new();
    for pair in &shape.pairs {
        let (form, name) = match side {
            Side::Source => (&pair.source_form, format!("s.{}", pair.source)),
            Side::Shadow => (&pair.target_form, format!("n.{}", pair.target)),
        };
        values.push(form);
        if pair.nullable {
            nulls.push(format!("ISNULL({name})"));
        }
    }
    if nulls.is_empty() {
        format!("CAST(CONCAT_WS('#', {}) AS BINARY)", values.join(", "))
    } else {
        let (values, nulls) = (values.join(", "), nulls.join(", "));
        format!("CAST(CONCAT_WS('#', {values}, CONCAT({nulls})) AS BINARY)")
    }
}

fn row_hash(shape: &Shape, side: Side) -> String {
    format!("CRC32({}) * {MIX}", row_text(shape, side))
}
