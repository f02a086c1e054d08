//! The proof that source and shadow hold the same rows: a range of keys at a time, the server joins both
//! in one snapshot and compares each value with what the change's own conversion makes of its origin.
//!
//! Rows whose keys are pending (in the log or still to do) are left out: everything else must be equal.
//! Values are compared themselves, no sums of them: it reaches further, and costs half as much.

use underpin_core::key::{Chunk, Key, KeyRange};
use underpin_dialect::{DbResult, RangeReport, Verify};

use crate::changelog::{backlog_sql, is_pending, truncated};
use crate::query::{cell, first, literal, number, optional_text, rows, run, text};
use crate::shape::Shape;
use crate::worker::Worker;

/// Differing rows that are named, of each kind.
const SAMPLES_MAX: u32 = 5;

impl Verify for Worker {
    async fn plan_ranges(
        &mut self,
        after: Option<&Key>,
        range_rows: u64,
        ranges_max: u32,
    ) -> DbResult<(Vec<Chunk>, bool)> {
        let mut ranges = Vec::new();
        let mut after = after.cloned();
        for index in 0..ranges_max {
            let up_to = self.bound(after.as_ref(), range_rows).await?;
            let last = up_to.is_none();
            ranges.push(Chunk { index, range: KeyRange { after, up_to: up_to.clone() } });
            if last {
                return Ok((ranges, true));
            }
            after = up_to;
        }
        Ok((ranges, false))
    }

    async fn verify_range(&mut self, range: &Chunk) -> DbResult<RangeReport> {
        let result = async {
            self.begin_reading().await?;
            run(&self.session, JOIN_SETTINGS, "setting up for", &self.shape.table).await?;
            self.compare(range).await
        }
        .await;
        match result {
            Ok(report) => {
                // Nothing was written; the snapshot ends here.
                self.commit().await?;
                Ok(report)
            }
            Err(error) => {
                self.roll_back(&error).await?;
                Err(error)
            }
        }
    }

    async fn repair(&mut self, range: &Chunk) -> DbResult<(u64, u64)> {
        let result = async {
            self.begin_snapshot().await?;
            self.log_differences(range).await
        }
        .await;
        match result {
            Ok(answer) => {
                self.commit().await?;
                Ok(answer)
            }
            Err(error) => {
                self.roll_back(&error).await?;
                Err(error)
            }
        }
    }
}

impl Worker {
    /// The key of the row `rows` places behind `after`; `None` where the table ends before.
    async fn bound(&mut self, after: Option<&Key>, range_rows: u64) -> DbResult<Option<Key>> {
        let shape = &self.shape;
        let source = &shape.places.source;
        let range = KeyRange { after: after.cloned(), up_to: None };
        let sql = format!(
            "BEGIN; {}; SET LOCAL enable_seqscan = off; \
             SELECT {} FROM (SELECT {key} FROM ONLY {source} WHERE {} ORDER BY {key} LIMIT 1 OFFSET {}) AS \
             bound; COMMIT",
            self.as_owner(),
            shape.key_texts("bound"),
            shape.range(&range, |part| format!("{source}.{}", part.source))?,
            std::cmp::max(range_rows, 1) - 1,
            key = shape.source_key(),
        );
        let object = shape.table.clone();
        match first(&self.session, &sql, "finding the bounds of a range of", &object).await {
            Ok(row) => Ok(row.map(|row| {
                let values = 0..self.shape.key.len();
                Key(values.map(|index| optional_text(&row, index).unwrap_or_default()).collect())
            })),
            Err(error) => {
                self.roll_back(&error).await?;
                Err(error)
            }
        }
    }

    async fn compare(&mut self, range: &Chunk) -> DbResult<RangeReport> {
        let object = self.shape.table.clone();
        // Keys go by indexes: this probe says so for all that follows in this transaction.
        let pending =
            number(&self.session, &backlog_sql(&self.spec, 1)?, "probing the log of", &object)
                .await?
                > 0;
        if pending {
            self.refuse_truncated_since().await?;
        }
        let (joined, shadow) = counting_sql(&self.shape, range, pending)?;
        let compared = self.counts(&joined).await?;
        if self.shape.same_order {
            let held = number(&self.session, &shadow, "counting rows of", &object).await?;
            if compared.different == 0 && held == compared.rows {
                return Ok(RangeReport { rows: compared.rows, ..RangeReport::default() });
            }
            return self.differences(range, compared.rows, pending).await;
        }
        // The two tables order their keys differently: each source row is looked up in the shadow, and
        // at the end the numbers of rows must agree.
        let mut report = RangeReport { rows: compared.rows, ..RangeReport::default() };
        if compared.different > 0 {
            report = self.differences(range, compared.rows, pending).await?;
        }
        if range.range.up_to.is_none() {
            self.compare_totals(&mut report).await?;
        }
        Ok(report)
    }

    /// # Errors
    /// `Truncated` where the marker is pending: the tables differ then, and comparing them is no use.
    async fn refuse_truncated_since(&mut self) -> DbResult<()> {
        let sql = format!(
            "SELECT count(*) FROM {} AS l WHERE {} AND l.k0 IS NOT DISTINCT FROM NULL",
            self.shape.places.log,
            is_pending(&self.shape)
        );
        let object = self.shape.table.clone();
        let found = number(&self.session, &sql, "looking for a TRUNCATE of", &object).await?;
        if found == 0 { Ok(()) } else { Err(truncated(&self.shape)) }
    }

    async fn counts(&mut self, sql: &str) -> DbResult<Counts> {
        let object = self.shape.table.clone();
        let row = first(&self.session, sql, "comparing a range of", &object).await?;
        row.map_or(Ok(Counts::default()), |row| {
            let count = |index| cell(&row, index, "comparing a range");
            Ok(Counts { rows: count(0)?, different: count(1)? })
        })
    }

    async fn differences(
        &mut self,
        range: &Chunk,
        counted: u64,
        pending: bool,
    ) -> DbResult<RangeReport> {
        let object = self.shape.table.clone();
        let mut report = RangeReport { rows: counted, ..RangeReport::default() };
        for difference in differences(&self.shape, range, pending)? {
            let count = format!("SELECT count(*) FROM ({}) AS d", difference.keys);
            let found = number(&self.session, &count, "counting differences of", &object).await?;
            report.differences += found;
            if found > 0 {
                let sql = format!("{} LIMIT {SAMPLES_MAX}", difference.shown);
                let named = rows(&self.session, &sql, "naming rows of", &object).await?;
                report.samples.extend(named.iter().map(|row| text(row, 0)));
            }
        }
        Ok(report)
    }

    /// Rows that only the shadow has show as a surplus of its number of rows.
    async fn compare_totals(&mut self, report: &mut RangeReport) -> DbResult<()> {
        let object = self.shape.table.clone();
        let shape = &self.shape;
        let counts = [
            format!(
                "SELECT count(*) FROM ONLY {} WHERE {}",
                shape.places.source,
                not_pending(shape, true, &shape.source_meets())
            ),
            format!(
                "SELECT count(*) FROM {} AS underpin_n WHERE {}",
                shape.places.shadow,
                not_pending(shape, true, &shape.shadow_meets())
            ),
        ];
        let old = number(&self.session, &counts[0], "counting rows of", &object).await?;
        let new = number(&self.session, &counts[1], "counting rows of", &object).await?;
        if new != old {
            report.differences += old.abs_diff(new);
            report.samples.push(format!("{old} rows in the source, {new} in the shadow"));
        }
        Ok(())
    }

    async fn log_differences(&mut self, range: &Chunk) -> DbResult<(u64, u64)> {
        let object = self.shape.table.clone();
        let mut logged = 0;
        for difference in differences(&self.shape, range, true)? {
            let sql = format!(
                "INSERT INTO {} ({}) {}",
                self.shape.places.log,
                self.shape.log_key(""),
                difference.keys
            );
            logged += run(&self.session, &sql, "logging differing rows of", &object).await?;
        }
        let sql = backlog_sql(&self.spec, u64::from(u32::MAX))?;
        let backlog = number(&self.session, &sql, "counting the log of", &object).await?;
        Ok((logged, std::cmp::max(backlog, logged)))
    }
}

/// Whether the row that `meets` compares with `underpin_p` has no pending key.
fn not_pending(shape: &Shape, pending: bool, meets: &str) -> String {
    if !pending {
        return "true".to_owned();
    }
    let keys = format!(
        "(SELECT {} FROM {} AS l WHERE {} AND l.k0 IS DISTINCT FROM NULL UNION SELECT {} FROM {} AS l)",
        shape.log_key("l."),
        shape.places.log,
        is_pending(shape),
        shape.log_key("l."),
        shape.todo
    );
    format!("NOT EXISTS (SELECT 1 FROM {keys} AS underpin_p WHERE {meets})")
}

/// For the server's join of one range: room for some 100,000 rows in memory, and no parallel workers, of
/// which each would read all of the shadow's range.
const JOIN_SETTINGS: &str = "SET LOCAL max_parallel_workers_per_gather = 0; \
    SELECT pg_catalog.set_config('work_mem', greatest(setting::bigint, 65536)::text, true) \
    FROM pg_catalog.pg_settings WHERE name = 'work_mem'";

/// What a join of a range told.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    /// Rows of the source that are not pending.
    rows: u64,
    /// How many of them the shadow lacks or has otherwise.
    different: u64,
}

/// Two counts by a join of a range (see [`Counts`]), and the number of the shadow's rows in it.
///
/// A key is unique in the shadow, so that as many rows there as in the source, each of which has its
/// like there, leave none over.
fn counting_sql(shape: &Shape, range: &Chunk, pending: bool) -> DbResult<(String, String)> {
    let joined = format!(
        "SELECT count(*), count(*) FILTER (WHERE {}) {}",
        differs(shape),
        joined(shape, range, pending)?
    );
    let shadow = format!(
        "SELECT count(*) FROM {} AS underpin_n WHERE {} AND {}",
        shape.places.shadow,
        shape.range(&range.range, |part| format!("underpin_n.{}", part.target))?,
        not_pending(shape, pending, &shape.shadow_meets())
    );
    Ok((joined, shadow))
}

/// `FROM` and `WHERE` of each source row of a range with its like in the shadow, if it has one.
fn joined(shape: &Shape, range: &Chunk, pending: bool) -> DbResult<String> {
    let source = &shape.places.source;
    // It follows from the other range where both order their keys alike, but the server cannot know.
    let beside = match shape.same_order {
        true => shape.range(&range.range, |part| format!("underpin_n.{}", part.target))?,
        false => "true".to_owned(),
    };
    Ok(format!(
        "FROM ONLY {source} LEFT JOIN {} AS underpin_n ON {} AND {beside} WHERE {} AND {}",
        shape.places.shadow,
        shape.shadow_meets_source(),
        shape.range(&range.range, |part| format!("{source}.{}", part.source))?,
        not_pending(shape, pending, &shape.source_meets()),
    ))
}

/// Whether the shadow lacks the row of the source, or has it otherwise.
fn differs(shape: &Shape) -> String {
    let same: Vec<String> = shape
        .pairs
        .iter()
        .map(|pair| {
            let old =
                pair.target_type.exact(&format!("({})::{}", pair.value, pair.target_type.full));
            let new = pair.target_type.exact(&format!("underpin_n.{}", pair.target));
            format!("{old} IS NOT DISTINCT FROM {new}")
        })
        .collect();
    let same = if same.is_empty() { "true".to_owned() } else { same.join(" AND ") };
    format!("underpin_n.ctid IS NULL OR NOT ({same})")
}

/// The rows that differ in one way.
struct Difference {
    /// SELECT of their keys as the log holds them.
    keys: String,
    /// SELECT of a text for a person.
    shown: String,
}

/// Source rows that the shadow lacks or has otherwise, and, where ranges agree, shadow rows that the
/// source lacks.
fn differences(shape: &Shape, range: &Chunk, pending: bool) -> DbResult<Vec<Difference>> {
    let qualified = |column: &str| format!("{}.{column}", shape.places.source);
    let source_keys = Shape::list(&shape.key, |part| qualified(&part.source));
    let source_shown = shape.key_shown(|part| qualified(&part.source))?;
    let from = format!("{} AND ({})", joined(shape, range, pending)?, differs(shape));
    let mut list = vec![Difference {
        keys: format!("SELECT {source_keys} {from}"),
        shown: format!("SELECT concat({source_shown}, {}) {from}", differing(shape)?),
    }];
    if shape.same_order {
        let back = Shape::list(&shape.key, |part| {
            format!("underpin_n.{}::{}", part.target, part.log_type)
        });
        let shown = shape.key_shown(|part| format!("underpin_n.{}", part.target))?;
        let from = format!(
            "FROM {} AS underpin_n WHERE {} AND {} AND NOT EXISTS (SELECT 1 FROM ONLY {} WHERE {})",
            shape.places.shadow,
            shape.range(&range.range, |part| format!("underpin_n.{}", part.target))?,
            not_pending(shape, pending, &shape.shadow_meets()),
            shape.places.source,
            shape.shadow_meets_source(),
        );
        list.push(Difference {
            keys: format!("SELECT {back} {from}"),
            shown: format!("SELECT concat({shown}, ' (only in the shadow)') {from}"),
        });
    }
    Ok(list)
}

/// The expression that names the columns in which a row differs.
fn differing(shape: &Shape) -> DbResult<String> {
    let names: Vec<String> = shape
        .pairs
        .iter()
        .map(|pair| {
            let name = literal(&pair.name)?;
            let old =
                pair.target_type.exact(&format!("({})::{}", pair.value, pair.target_type.full));
            let new = pair.target_type.exact(&format!("underpin_n.{}", pair.target));
            Ok(format!("CASE WHEN ({old}) IS DISTINCT FROM ({new}) THEN {name} END"))
        })
        .collect::<DbResult<_>>()?;
    Ok(format!(
        "CASE WHEN underpin_n.ctid IS NULL THEN ' (missing in the shadow)' ELSE concat(' (differs in ', \
         array_to_string(ARRAY[{}], ', '), ')') END",
        // No list of arguments: a function takes a hundred at most.
        names.join(", ")
    ))
}
