//! The proof that source and shadow hold the same rows: a range of keys at a time, the server joins both
//! in one snapshot and compares each value with what the change's own conversion makes of its origin.
//!
//! Rows whose keys are pending (in the log or still to do) are left out: everything else must be equal.
//! Values are compared themselves, no sums of them: it reaches further, and costs half as much.

use underpin_core::key::{Chunk, Key, KeyRange};
use underpin_dialect::{DbResult, RangeReport, Verify};

use crate::changelog::{backlog_sql, is_pending, truncated};
use crate::connect::our_meanings;
use crate::query::{cell, first, literal, number, optional_text, rows, run, text};
use crate::shape::{Pair, Shape};
use crate::worker::Worker;

/// Differing rows that are named, of each kind.
const SAMPLES_MAX: u32 = 20;

impl Verify for Worker {
    async fn plan_ranges_within(
        &mut self,
        within: &KeyRange,
        range_rows: u64,
        ranges_max: u32,
    ) -> DbResult<(Vec<Chunk>, bool)> {
        let mut ranges = Vec::new();
        let mut rest = within.clone();
        for index in 0..ranges_max {
            let Some(up_to) = self.bound(&rest, range_rows).await? else {
                ranges.push(Chunk { index, range: rest });
                return Ok((ranges, true));
            };
            let after = rest.after.replace(up_to.clone());
            ranges.push(Chunk { index, range: KeyRange { after, up_to: Some(up_to) } });
        }
        Ok((ranges, false))
    }

    async fn verify_range(&mut self, range: &Chunk) -> DbResult<RangeReport> {
        let result = async {
            self.begin_reading().await?;
            self.set_up().await?;
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
            self.set_up().await?;
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
    async fn set_up(&mut self) -> DbResult<()> {
        let sql = if self.shape.keeps_values {
            // Texts without loss: the user's own may leave digits out.
            format!("{}; {JOIN_SETTINGS}", our_meanings())
        } else {
            JOIN_SETTINGS.to_owned()
        };
        run(&self.session, &sql, "setting up for", &self.shape.table).await.map(drop)
    }

    /// The key of the row `rows` places from the beginning of the range; `None` where it ends before.
    async fn bound(&mut self, range: &KeyRange, range_rows: u64) -> DbResult<Option<Key>> {
        let shape = &self.shape;
        let source = &shape.places.source;
        let sql = format!(
            "BEGIN; {}; SET LOCAL enable_seqscan = off; \
             SELECT {} FROM (SELECT {key} FROM ONLY {source} WHERE {} ORDER BY {key} LIMIT 1 OFFSET {}) AS \
             bound; COMMIT",
            self.as_owner(),
            shape.key_texts("bound"),
            shape.range(range, |part| format!("{source}.{}", part.source))?,
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
        let pending =
            number(&self.session, &backlog_sql(&self.spec, 1)?, "probing the log of", &object)
                .await?
                > 0;
        if pending {
            self.refuse_truncated_since().await?;
        }
        let mut report = RangeReport::default();
        // Rows that differ now may be pending; those that are equal need no excuse.
        if pending {
            let rows = counting_sql(&self.shape, range)?;
            report.rows = number(&self.session, &rows, "counting rows of", &object).await?;
            self.differences(range, true, &mut report).await?;
        } else if !self.is_equal(range, &mut report).await? {
            self.differences(range, false, &mut report).await?;
        }
        // Where the two tables order their keys differently, each source row was looked up in the
        // shadow, and at the end the numbers of rows must agree.
        if !self.shape.same_order && range.range.up_to.is_none() {
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

    /// One look at a range that should be equal: a join, and a count of the shadow's rows.
    ///
    /// A key is unique in the shadow, so that as many rows there as in the source, each of which has its
    /// like there, leave none over.
    async fn is_equal(&mut self, range: &Chunk, report: &mut RangeReport) -> DbResult<bool> {
        let object = self.shape.table.clone();
        let shape = &self.shape;
        let sql = format!(
            "SELECT count(*), count(*) FILTER (WHERE {}) {}",
            differs(shape),
            joined(shape, range)?
        );
        let attempted = "comparing a range of";
        let Some(row) = first(&self.session, &sql, attempted, &object).await? else {
            return Ok(false);
        };
        report.rows = cell(&row, 0, attempted)?;
        let different: u64 = cell(&row, 1, attempted)?;
        if different > 0 || !self.shape.same_order {
            return Ok(different == 0);
        }
        let sql = format!(
            "SELECT count(*) FROM {} AS underpin_n WHERE {}",
            self.shape.places.shadow,
            self.shape.range(&range.range, |part| format!("underpin_n.{}", part.target))?,
        );
        Ok(number(&self.session, &sql, "counting rows of", &object).await? == report.rows)
    }

    async fn differences(
        &mut self,
        range: &Chunk,
        pending: bool,
        report: &mut RangeReport,
    ) -> DbResult<()> {
        let object = self.shape.table.clone();
        for difference in differences(&self.shape, range)? {
            let count = difference.select(&self.shape, "count(*)", pending);
            let found = number(&self.session, &count, "counting differences of", &object).await?;
            report.differences += found;
            if found > 0 {
                let shown = difference.show(&self.shape, pending);
                let sql = format!("{shown} LIMIT {SAMPLES_MAX}");
                let named = rows(&self.session, &sql, "naming rows of", &object).await?;
                report.samples.extend(named.iter().map(|row| text(row, 0)));
            }
        }
        Ok(())
    }

    /// Rows that only the shadow has show as a surplus of its number of rows.
    async fn compare_totals(&mut self, report: &mut RangeReport) -> DbResult<()> {
        let (source, shadow) = (&self.shape.places.source, &self.shape.places.shadow);
        let source = (format!("ONLY {source}"), self.shape.source_meets());
        let shadow = (format!("{shadow} AS underpin_n"), self.shape.shadow_meets());
        let old = self.unexcused_rows(&source.0, &source.1).await?;
        let new = self.unexcused_rows(&shadow.0, &shadow.1).await?;
        if new != old {
            report.differences += old.abs_diff(new);
            report.samples.push(format!("{old} rows in the source, {new} in the shadow"));
        }
        Ok(())
    }

    /// How many rows of a table have no pending key.
    async fn unexcused_rows(&self, table: &str, meets: &str) -> DbResult<u64> {
        // All of a table is read as it stands: by an index each row that not everybody can see yet would
        // be fetched for itself.
        let all = format!(
            "SET LOCAL enable_seqscan = on; SET LOCAL max_parallel_workers_per_gather TO DEFAULT; \
             SELECT count(*) FROM {table}"
        );
        let excused = format!(
            "SET LOCAL enable_seqscan = off; SET LOCAL max_parallel_workers_per_gather = 0; \
             SELECT count(*) FROM ({}) AS underpin_p CROSS JOIN LATERAL (SELECT FROM {table} WHERE \
             {meets} LIMIT 1) AS found",
            pending_keys(&self.shape)
        );
        let (session, object) = (&self.session, &self.shape.table);
        let all = number(session, &all, "counting rows of", object).await?;
        let excused = number(session, &excused, "counting pending rows of", object).await?;
        Ok(all.saturating_sub(excused))
    }

    async fn log_differences(&mut self, range: &Chunk) -> DbResult<(u64, u64)> {
        let object = self.shape.table.clone();
        let mut logged = 0;
        for difference in differences(&self.shape, range)? {
            let keys = self.shape.log_key("underpin_d.");
            let sql = format!(
                "INSERT INTO {} ({}) {}",
                self.shape.places.log,
                self.shape.log_key(""),
                difference.select(&self.shape, &keys, true)
            );
            logged += run(&self.session, &sql, "logging differing rows of", &object).await?;
        }
        let sql = backlog_sql(&self.spec, u64::from(u32::MAX))?;
        let backlog = number(&self.session, &sql, "counting the log of", &object).await?;
        Ok((logged, std::cmp::max(backlog, logged)))
    }
}

/// SELECT of every key that is pending: in the log, or still to do.
fn pending_keys(shape: &Shape) -> String {
    format!(
        "SELECT {} FROM {} AS l WHERE {} AND l.k0 IS DISTINCT FROM NULL UNION SELECT {} FROM {} AS l",
        shape.log_key("l."),
        shape.places.log,
        is_pending(shape),
        shape.log_key("l."),
        shape.todo
    )
}

/// For the server's join of one range: room for some 100,000 rows in memory, no parallel workers, of
/// which each would read all of the shadow's range, and no loops but those that a LATERAL asks for: the
/// server takes a log for empty, whose figures are always out of date. Both tables are read by their keys'
/// indexes: where neighbours in the key are neighbours on disk too, in several stretches, the server's
/// one figure for that is too dark, and a bitmap and a sort take twice as long (`docs/decisions/004`).
const JOIN_SETTINGS: &str = "SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL enable_nestloop = off; \
    SET LOCAL enable_seqscan = off; SELECT pg_catalog.set_config(name, CASE name WHEN 'work_mem' THEN \
    greatest(setting::numeric, 65536) ELSE least(setting::numeric, 1.1) END::text, true) \
    FROM pg_catalog.pg_settings WHERE name IN ('work_mem', 'random_page_cost')";

/// SELECT of the number of the source's rows in a range.
fn counting_sql(shape: &Shape, range: &Chunk) -> DbResult<String> {
    let source = &shape.places.source;
    let range = shape.range(&range.range, |part| format!("{source}.{}", part.source))?;
    Ok(format!("SELECT count(*) FROM ONLY {source} WHERE {range}"))
}

/// `FROM` and `WHERE` of each source row of a range with its like in the shadow, if it has one.
fn joined(shape: &Shape, range: &Chunk) -> DbResult<String> {
    let (source, (shadow, all)) = (&shape.places.source, shadow_rows(shape));
    let meets = shape.shadow_meets_source();
    let like = if shape.same_order {
        // It follows from the other range, but the server cannot know.
        let beside = shape.range(&range.range, |part| format!("underpin_n.{}", part.target))?;
        format!("{shadow} ON {meets} AND {beside}")
    } else {
        format!("LATERAL (SELECT {all} FROM {shadow} WHERE {meets} LIMIT 1) AS underpin_n ON true")
    };
    Ok(format!(
        "FROM ONLY {source} LEFT JOIN {like} WHERE {}",
        shape.range(&range.range, |part| format!("{source}.{}", part.source))?,
    ))
}

/// The shadow's rows as `underpin_n` for FROM, and the list of all their columns. On the way back they bear
/// what the change makes of them, computed where the table's bare name is theirs.
fn shadow_rows(shape: &Shape) -> (String, &'static str) {
    let shadow = &shape.places.shadow;
    let made: Vec<String> = (0..)
        .zip(&shape.pairs)
        .filter_map(|(position, pair): (usize, _)| {
            pair.made_of.as_ref().map(|value| format!(", {value} AS underpin_f{position}"))
        })
        .collect();
    if made.is_empty() {
        return (format!("{shadow} AS underpin_n"), "underpin_n.ctid, underpin_n.*");
    }
    let (bare, made) = (&shape.bare, made.concat());
    let rows =
        format!("(SELECT {bare}.ctid, {bare}.*{made} FROM {shadow} AS {bare}) AS underpin_n");
    (rows, "underpin_n.*")
}

/// The value of a pair in the source and that of the shadow's row `underpin_n`, in the shape that the change
/// makes, in the form in which they are compared.
fn compared(pair: &Pair, position: usize) -> (String, String) {
    if pair.made_of.is_some() {
        let kind = &pair.source_type;
        return (kind.exact(&pair.value), kind.exact(&format!("underpin_n.underpin_f{position}")));
    }
    let kind = &pair.target_type;
    let value = kind.exact(&format!("({})::{}", pair.value, kind.full));
    (value, kind.exact(&format!("underpin_n.{}", pair.target)))
}

/// Whether the shadow lacks the row of the source, or has it otherwise.
fn differs(shape: &Shape) -> String {
    let same: Vec<String> = shape
        .pairs
        .iter()
        .enumerate()
        .map(|(position, pair)| {
            let (one, other) = compared(pair, position);
            format!("{one} IS NOT DISTINCT FROM {other}")
        })
        .collect();
    let same = if same.is_empty() { "true".to_owned() } else { same.join(" AND ") };
    format!("underpin_n.ctid IS NULL OR NOT ({same})")
}

/// The rows that differ in one way.
struct Difference {
    /// Their keys as the log holds them.
    keys: String,
    /// A text for a person.
    shown: String,
    /// `FROM` and `WHERE`.
    from: String,
}

impl Difference {
    /// SELECT of `what` of these rows as `underpin_d`, columns `k0`, `k1` and on, without those that are
    /// pending.
    fn select(&self, shape: &Shape, what: &str, pending: bool) -> String {
        self.unexcused(shape, &shape.log_key(""), &self.keys, what, pending)
    }

    /// SELECT of the texts that show them.
    fn show(&self, shape: &Shape, pending: bool) -> String {
        let names = format!("{}, shown", shape.log_key(""));
        let values = format!("{}, {}", self.keys, self.shown);
        self.unexcused(shape, &names, &values, "underpin_d.shown", pending)
    }

    /// Both sets are made once, before they are compared.
    fn unexcused(
        &self,
        shape: &Shape,
        names: &str,
        values: &str,
        what: &str,
        pending: bool,
    ) -> String {
        let from = &self.from;
        let with = format!("WITH underpin_d ({names}) AS MATERIALIZED (SELECT {values} {from})");
        if !pending {
            return format!("{with} SELECT {what} FROM underpin_d");
        }
        let same: Vec<String> = shape
            .key
            .iter()
            .map(|part| format!("underpin_p.{0} {1} underpin_d.{0}", part.log, part.equal))
            .collect();
        format!(
            "{with}, underpin_p ({}) AS MATERIALIZED ({}) SELECT {what} FROM underpin_d WHERE NOT \
             EXISTS (SELECT 1 FROM underpin_p WHERE {})",
            shape.log_key(""),
            pending_keys(shape),
            same.join(" AND ")
        )
    }
}

/// Source rows that the shadow lacks or has otherwise, and, where ranges agree, shadow rows that the
/// source lacks.
fn differences(shape: &Shape, range: &Chunk) -> DbResult<Vec<Difference>> {
    let source = &shape.places.source;
    let qualified = |column: &str| format!("{source}.{column}");
    let shown = shape.key_shown(|part| qualified(&part.source))?;
    let mut list = vec![Difference {
        keys: Shape::list(&shape.key, |part| qualified(&part.source)),
        shown: format!("pg_catalog.concat({shown}, {})", differing(shape)?),
        from: format!("{} AND ({})", joined(shape, range)?, differs(shape)),
    }];
    if shape.same_order {
        let shown = shape.key_shown(|part| format!("underpin_n.{}", part.target))?;
        list.push(Difference {
            keys: Shape::list(&shape.key, |part| {
                format!("underpin_n.{}::{}", part.target, part.log_type)
            }),
            shown: format!("pg_catalog.concat({shown}, ' (only in the shadow)')"),
            from: format!(
                "FROM {} AS underpin_n WHERE {} AND NOT EXISTS (SELECT 1 FROM ONLY {source} WHERE {} AND {})",
                shape.places.shadow,
                shape.range(&range.range, |part| format!("underpin_n.{}", part.target))?,
                shape.shadow_meets_source(),
                shape.range(&range.range, |part| qualified(&part.source))?,
            ),
        });
    }
    Ok(list)
}

/// The expression that names the columns in which a row differs.
fn differing(shape: &Shape) -> DbResult<String> {
    let names: Vec<String> = shape
        .pairs
        .iter()
        .enumerate()
        .map(|(position, pair)| {
            let name = literal(&pair.name)?;
            let (one, other) = compared(pair, position);
            Ok(format!("CASE WHEN ({one}) IS DISTINCT FROM ({other}) THEN {name} END"))
        })
        .collect::<DbResult<_>>()?;
    Ok(format!(
        "CASE WHEN underpin_n.ctid IS NULL THEN ' (missing in the shadow)' ELSE concat(' (differs in ', \
         array_to_string(ARRAY[{}], ', '), ')') END",
        // No list of arguments: a function takes a hundred at most.
        names.join(", ")
    ))
}
