//! Values that only the shadow has, on a way that is not gone for the first time: columns that the
//! other shape lacks, and values of which the change made something less exact.
//!
//! A row that is taken out of the shadow is kept, in the same statement, until it is written again: so
//! that what it alone has outlives a crash between the two. Written again, a row takes from the source
//! what the source knows better, and everything else from what was kept.

use underpin_core::plan::RunSpec;
use underpin_dialect::DbResult;

use crate::connect::Session;
use crate::names;
use crate::query::{holds, literal, quote};
use crate::shape::{Pair, Shape};

/// Where rows are kept, and which columns they alone have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    /// The table, quoted.
    pub(crate) place: String,
    /// Columns of the shadow that the source has not, quoted.
    pub(crate) columns: Vec<String>,
}

impl Kept {
    /// `None` where this way is gone for the first time. `generated`: what the server computes.
    ///
    /// # Errors
    /// The server's.
    pub(crate) async fn read(
        session: &Session,
        spec: &RunSpec,
        generated: &[String],
    ) -> DbResult<Option<Self>> {
        let place = names::own_place(spec, "kept")?;
        let object = format!("{}.{}", spec.schema, spec.table);
        let sql = format!("SELECT pg_catalog.to_regclass({}) IS NOT NULL", literal(&place)?);
        if !holds(session, &sql, "looking for kept rows of", &object).await? {
            return Ok(None);
        }
        let columns = spec.volatile_added.iter().filter(|name| !generated.contains(name));
        let columns = columns.map(|name| quote(name)).collect::<DbResult<_>>()?;
        Ok(Some(Self { place, columns }))
    }
}

/// Takes rows out of the shadow; `delete` is the DELETE. They are kept where something of theirs must be.
pub(crate) fn taken_out(shape: &Shape, delete: &str) -> String {
    match &shape.kept {
        None => delete.to_owned(),
        Some(kept) => format!(
            "WITH underpin_gone AS ({delete} RETURNING *) INSERT INTO {} SELECT * FROM underpin_gone",
            kept.place,
        ),
    }
}

/// Writes the source's rows of some keys; `keys` is the SELECT or DELETE that gives them. Rows of which
/// one was kept take from it what it alone has; the others are new, and take the defaults. What was kept
/// of these keys is done with.
pub(crate) fn write_sql(shape: &Shape, kept: &Kept, keys: &str) -> String {
    let (shadow, place, bare) = (&shape.places.shadow, &kept.place, &shape.bare);
    let source = format!("ONLY {} WHERE {} LIMIT 1", shape.places.source, shape.source_meets());
    let was = format!("{place} AS {bare} WHERE {} LIMIT 1", shape.shadow_meets_as(bare));
    let pairs = shape.written();
    let mut targets: Vec<String> = pairs.iter().map(|pair| pair.target.clone()).collect();
    let mut values = Vec::new();
    let (mut now, mut then) = (Vec::new(), vec![format!("{bare}.ctid")]);
    for (position, pair) in pairs.iter().enumerate() {
        now.push(format!("{} AS c{position}", pair.value));
        values.push(match &pair.made_of {
            None => format!("underpin_v.c{position}"),
            Some(made_of) => {
                then.push(format!("{bare}.{} AS o{position}", pair.target));
                then.push(format!("{made_of} AS f{position}"));
                less_exact(pair, position)
            }
        });
    }
    for (position, column) in kept.columns.iter().enumerate() {
        targets.push(column.clone());
        then.push(format!("{bare}.{column} AS a{position}"));
        values.push(format!("underpin_k.a{position}"));
    }
    // A change may leave nothing but generated columns to write.
    let now = if now.is_empty() { "true AS c0".to_owned() } else { now.join(", ") };
    format!(
        "WITH underpin_p AS MATERIALIZED ({keys}), underpin_old AS (INSERT INTO {shadow} ({}) OVERRIDING \
         SYSTEM VALUE SELECT {} FROM underpin_p CROSS JOIN LATERAL (SELECT {} FROM {was}) AS underpin_k \
         CROSS JOIN LATERAL (SELECT {now} FROM {source}) AS underpin_v), underpin_done AS (DELETE FROM \
         {place} WHERE ctid = ANY (ARRAY(SELECT underpin_k.ctid FROM underpin_p CROSS JOIN LATERAL \
         (SELECT {bare}.ctid FROM {was}) AS underpin_k))) INSERT INTO {shadow} ({}) OVERRIDING SYSTEM \
         VALUE SELECT underpin_v.* FROM underpin_p CROSS JOIN LATERAL (SELECT {} FROM {source}) AS \
         underpin_v LEFT JOIN LATERAL (SELECT true AS is_kept FROM {was}) AS underpin_k ON true WHERE \
         underpin_k.is_kept IS NOT DISTINCT FROM NULL",
        targets.join(", "),
        values.join(", "),
        then.join(", "),
        shape.targets(),
        shape.values(),
    )
}

/// A value that the source still holds as the change made it is the one that was kept.
fn less_exact(pair: &Pair, position: usize) -> String {
    let same = format!(
        "{} IS NOT DISTINCT FROM {}",
        pair.source_type.exact(&format!("underpin_k.f{position}")),
        pair.source_type.exact(&format!("underpin_v.c{position}"))
    );
    let anew = pair.target_type.assigned(&format!("underpin_v.c{position}"));
    format!("CASE WHEN {same} THEN underpin_k.o{position} ELSE {anew} END")
}
