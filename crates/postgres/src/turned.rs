//! The way behind a swap that can be taken back, and what bars it.
//!
//! In the swap's own transaction, catalogue work only: the capture triggers of the other way, what the
//! table that goes must not have while it is written to beside (its triggers, its forced row security), how
//! all of that is put back when it comes again, and a list of what the live table has. Before a turn that
//! list is compared, and everything else looked at that could not be carried.

use underpin_core::finding::{Finding, Severity};
use underpin_core::plan::RunSpec;
use underpin_dialect::{DbError, DbResult, ErrorKind};

use crate::connect::Session;
use crate::dependents::foreign_keys::Lost;
use crate::dependents::{Subject, refused, refused_elsewhere, sequences};
use crate::inspect::read_table;
use crate::names;
use crate::query::{holds, literal, quote_table, rows, text};
use crate::shadow::source_of;
use crate::shape::Shape;
use crate::steps::{self, Stage};
use crate::{trigger, twin};

/// Things that are named at most where something was made or changed since the swap.
const NAMED_MAX: u32 = 5;

/// What a swap does besides, where the way back is kept.
#[derive(Debug, Clone, Default)]
pub(crate) struct Behind {
    /// Before the strong lock.
    pub(crate) before: String,
    /// When the other table stands in its place and nothing points at the one that went.
    pub(crate) after: String,
}

impl Behind {
    /// Spells it out for the table that goes, `source`. `lost`: foreign keys that go with the change;
    /// `again`: more that the swap of the other way has to do.
    ///
    /// # Errors
    /// The server's.
    pub(crate) async fn read(
        session: &Session,
        spec: &RunSpec,
        shape: &Shape,
        source: &Subject,
        lost: &[Lost],
        again: Vec<String>,
    ) -> DbResult<Self> {
        let other = spec.on_way(spec.way.turned());
        let capture = shape.of_capture(&other)?;
        let mut before =
            vec![format!("SET LOCAL ROLE {}", shape.owner), trigger::forget_sql(&capture, &other)?];
        before.extend(trigger::log_sql(&capture, &other)?);
        before.extend(trigger::kept_sql(&capture, &other)?);
        before.extend(trigger::functions_sql(&capture, &other)?);
        before.push("SET LOCAL ROLE NONE".to_owned());
        let list = names::own_place(&other, "parts")?;
        before.push(format!("DROP TABLE IF EXISTS {list}"));
        before.push(format!("CREATE TABLE {list} (part text NOT NULL, definition text)"));
        let gone = Subject { schema: names::away_schema(spec), ..source.clone() };
        let ours = format!("{}_", names::private_schema(&spec.run_id));
        let place = source.quoted()?;
        let (now, later) = twin::aside_sql(session, &gone, &place, &ours).await?;
        let mut steps: Vec<(String, String, String)> =
            later.into_iter().chain(again).map(|sql| (String::new(), sql, String::new())).collect();
        for key in lost {
            steps.push((key.other.clone(), key.add.clone(), key.validation.clone()));
        }
        let mut after = vec![format!("SET LOCAL ROLE {}", shape.owner)];
        after.extend(trigger::capture_sql(&capture, &other)?);
        after.push("SET LOCAL ROLE NONE".to_owned());
        after.extend(now);
        after.push(steps::record_sql(&other, Stage::Swap, &steps)?);
        after.push(format!("INSERT INTO {list} {}", parts_sql(&other)?));
        Ok(Self { before: before.join(";\n"), after: after.join(";\n") })
    }
}

/// Kind with name, and definition, of what stands on the live table, ours left out.
fn parts_sql(spec: &RunSpec) -> DbResult<String> {
    let table = literal(&quote_table(&spec.schema, &spec.table)?)?;
    let ours = literal(&format!("{}_", names::private_schema(&spec.run_id)))?;
    Ok(format!(
        "SELECT x.part, x.definition FROM pg_catalog.pg_class c CROSS JOIN LATERAL (SELECT \
         pg_catalog.format('column %I', a.attname) AS part, pg_catalog.concat_ws(' ', \
         pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attcollation, a.attidentity, \
         a.attgenerated, pg_catalog.pg_get_expr(d.adbin, d.adrelid)) AS definition FROM \
         pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND \
         d.adnum = a.attnum WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped UNION ALL \
         SELECT pg_catalog.format('constraint %I', k.conname), pg_catalog.regexp_replace(\
         pg_catalog.pg_get_constraintdef(k.oid), ' NOT VALID$', '') FROM pg_catalog.pg_constraint k \
         WHERE k.conrelid = c.oid AND k.contype <> 'n' UNION ALL SELECT pg_catalog.format('index %I', \
         w.relname), pg_catalog.pg_get_indexdef(w.oid) FROM pg_catalog.pg_index i JOIN \
         pg_catalog.pg_class w ON w.oid = i.indexrelid WHERE i.indrelid = c.oid UNION ALL SELECT \
         pg_catalog.format('trigger %I', t.tgname), pg_catalog.concat(t.tgenabled, ' ', \
         pg_catalog.pg_get_triggerdef(t.oid)) FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND \
         NOT t.tgisinternal AND NOT pg_catalog.starts_with(t.tgname, {ours}) UNION ALL SELECT \
         pg_catalog.format('policy %I', p.polname), p::text FROM pg_catalog.pg_policy p WHERE \
         p.polrelid = c.oid UNION ALL SELECT pg_catalog.format('statistics %I', s.stxname), \
         pg_catalog.pg_get_statisticsobjdef(s.oid) FROM pg_catalog.pg_statistic_ext s WHERE s.stxrelid \
         = c.oid UNION ALL SELECT pg_catalog.format('grant of %s to %s', g.privilege_type, CASE \
         g.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.pg_get_userbyid(g.grantee)::text END), \
         pg_catalog.concat(g.grantor, g.is_grantable) FROM pg_catalog.aclexplode(c.relacl) AS g UNION \
         ALL SELECT pg_catalog.format('grant of %s (%I) to %s', g.privilege_type, a.attname, CASE \
         g.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.pg_get_userbyid(g.grantee)::text END), \
         pg_catalog.concat(g.grantor, g.is_grantable) FROM pg_catalog.pg_attribute a CROSS JOIN LATERAL \
         pg_catalog.aclexplode(a.attacl) AS g WHERE a.attrelid = c.oid AND NOT a.attisdropped) AS x \
         WHERE c.oid = pg_catalog.to_regclass({table})"
    ))
}

/// Looks for what bars the turn, before anything is done. `spec` is turned already.
///
/// # Errors
/// `SourceChanged` where something was made on the live table, or taken from it, since the swap; `Refused`
/// for what cannot be carried. Both name it.
pub(crate) async fn refuse(session: &Session, spec: &RunSpec) -> DbResult<()> {
    refuse_changed_parts(session, spec).await?;
    let source = source_of(session, spec).await?;
    let shadow = Subject::read(session, &names::shadow_schema(spec), &spec.names.shadow).await?;
    let (old, new) = (read_table(session, &source).await?, read_table(session, &shadow).await?);
    let retyped: Vec<String> = spec
        .mapping
        .pairs
        .iter()
        .filter(|pair| match (old.column(&pair.source), new.column(&pair.target)) {
            (Some(from), Some(to)) => {
                from.full_type != to.full_type || from.collation != to.collation
            }
            _ => true,
        })
        .map(|pair| pair.source.clone())
        .collect();
    let mut findings = refused::findings(session, &source).await?;
    findings.extend(refused::by_column(session, &source, &spec.mapping, &retyped).await?);
    findings.extend(refused_elsewhere::taken_names(session, &source, &shadow).await?);
    findings.extend(sequences::beyond(session, &source, &shadow, &spec.mapping).await?);
    let barred = findings.into_iter().find(|finding| finding.severity == Severity::Refusal);
    let Some(Finding { message, remedy, .. }) = barred else { return Ok(()) };
    let object = source.object();
    Err(DbError::new(ErrorKind::Refused, "bringing the other table of the run back as", object)
        .said(message)
        .help(format!("{remedy}. Until then the table that is live stays")))
}

async fn refuse_changed_parts(session: &Session, spec: &RunSpec) -> DbResult<()> {
    let list = names::own_place(spec, "parts")?;
    let object = format!("{}.{}", spec.schema, spec.table);
    let sql = format!("SELECT pg_catalog.to_regclass({}) IS NOT NULL", literal(&list)?);
    if !holds(session, &sql, "looking for the parts of", &object).await? {
        return Ok(());
    }
    let sql = format!(
        "WITH now AS MATERIALIZED ({}) SELECT part || CASE WHEN part IN (SELECT part FROM {list}) THEN \
         CASE WHEN part IN (SELECT part FROM now) THEN ' (changed)' ELSE ' (gone)' END ELSE ' (made)' \
         END FROM ((SELECT * FROM now EXCEPT SELECT * FROM {list}) UNION (SELECT * FROM {list} EXCEPT \
         SELECT * FROM now)) AS x GROUP BY part ORDER BY part LIMIT {NAMED_MAX}",
        parts_sql(spec)?
    );
    let found = rows(session, &sql, "comparing the parts of", &object).await?;
    if found.is_empty() {
        return Ok(());
    }
    let named: Vec<String> = found.iter().map(|row| text(row, 0)).collect();
    Err(DbError::new(ErrorKind::SourceChanged, "bringing the other table of the run back as", object)
        .said(format!("since the swap somebody altered the table: {}", named.join(", ")))
        .help(
            "The other table has not got it, and would lose it: undo it, or stay with the table that is \
             live (`underpin finish`)",
        ))
}
