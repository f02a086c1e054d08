//! Identity sequences (the twin has its own, which take over name, grants and state) and sequences
//! that a column owns (the old ones go on, and change hands in the swap).

use underpin_core::finding::Finding;
use underpin_core::mapping::Mapping;
use underpin_dialect::DbResult;

use super::{Subject, mapping_sql, statements};
use crate::connect::Session;
use crate::query::{cell, literal, rows, text};

/// Joins each identity column of the source with the twin's column of the same name.
fn pairs_from(source: &Subject, twin: &Subject) -> String {
    format!(
        "FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_depend sd ON sd.deptype = 'i' AND \
         sd.classid = 'pg_catalog.pg_class'::regclass AND sd.refclassid = \
         'pg_catalog.pg_class'::regclass AND sd.refobjid = a.attrelid AND sd.refobjsubid = a.attnum \
         JOIN pg_catalog.pg_class ss ON ss.oid = sd.objid AND ss.relkind = 'S' JOIN \
         pg_catalog.pg_namespace sn ON sn.oid = ss.relnamespace JOIN pg_catalog.pg_attribute b ON \
         b.attrelid = {} AND b.attname = a.attname JOIN pg_catalog.pg_depend td ON td.deptype = 'i' \
         AND td.classid = 'pg_catalog.pg_class'::regclass AND td.refclassid = \
         'pg_catalog.pg_class'::regclass AND td.refobjid = b.attrelid AND td.refobjsubid = b.attnum \
         JOIN pg_catalog.pg_class ts ON ts.oid = td.objid AND ts.relkind = 'S' WHERE a.attrelid = {} \
         AND a.attidentity <> ''",
        twin.oid, source.oid
    )
}

/// Statements for the twin: the sequences' names, comments and persistence.
///
/// # Errors
/// The server's.
pub(crate) async fn identity_on_twin(
    session: &Session,
    source: &Subject,
    twin: &Subject,
) -> DbResult<Vec<String>> {
    let from = pairs_from(source, twin);
    let sql = format!(
        "SELECT pg_catalog.format('ALTER \
         SEQUENCE %I.%I RENAME TO %I', {private}, ts.relname, ss.relname) {from} AND ts.relname <> \
         ss.relname UNION ALL SELECT pg_catalog.format('ALTER SEQUENCE %I.%I SET %s', {private}, \
         ss.relname, CASE WHEN ss.relpersistence = 'u' THEN 'UNLOGGED' ELSE 'LOGGED' END) {from} AND \
         ss.relpersistence <> ts.relpersistence UNION ALL SELECT pg_catalog.format('ALTER SEQUENCE \
         %I.%I AS %s', {private}, ss.relname, {source_type}::regtype) {from} AND {source_type} <> \
         {twin_type} UNION ALL SELECT pg_catalog.format('COMMENT ON SEQUENCE %I.%I IS %L', {private}, \
         ss.relname, pg_catalog.obj_description(ss.oid, 'pg_class')) {from} AND pg_catalog.obj_description(ss.oid, 'pg_class') IS NOT NULL",
        private = literal(&twin.schema)?,
        // LIKE makes every identity sequence a bigint.
        source_type = "(SELECT q.seqtypid FROM pg_catalog.pg_sequence q WHERE q.seqrelid = ss.oid)",
        twin_type = "(SELECT q.seqtypid FROM pg_catalog.pg_sequence q WHERE q.seqrelid = ts.oid)",
    );
    statements(session, &sql, "the identity columns", source).await
}

/// Each identity sequence of the source with the twin's.
///
/// # Errors
/// The server's.
pub(crate) async fn identity_pairs(
    session: &Session,
    source: &Subject,
    twin: &Subject,
) -> DbResult<Vec<(Subject, Subject)>> {
    let sql = format!(
        "SELECT ss.oid, sn.nspname, ss.relname, ts.oid, ts.relname {}",
        pairs_from(source, twin)
    );
    let attempted = "reading the identity columns of";
    let found = rows(session, &sql, attempted, &source.object()).await?;
    found
        .iter()
        .map(|row| {
            let from = Subject {
                oid: cell(row, 0, attempted)?,
                schema: text(row, 1),
                name: text(row, 2),
                ..source.clone()
            };
            let to = Subject { oid: cell(row, 3, attempted)?, name: text(row, 4), ..twin.clone() };
            Ok((from, to))
        })
        .collect()
}

/// ALWAYS becomes BY DEFAULT until the swap, since the copy brings its own values.
///
/// # Errors
/// The server's.
pub(crate) async fn set_aside(
    session: &Session,
    shadow: &Subject,
    place: &str,
) -> DbResult<(Vec<String>, Vec<String>)> {
    let sql = |table: &str, kind: &str| -> DbResult<String> {
        Ok(format!(
            "SELECT pg_catalog.format('ALTER TABLE %s ALTER COLUMN %I SET GENERATED {kind}', {}, \
             attname) FROM pg_catalog.pg_attribute WHERE attrelid = {} AND attidentity = 'a' AND NOT \
             attisdropped",
            literal(table)?,
            shadow.oid
        ))
    };
    let what = "the identity columns";
    let now = statements(session, &sql(&shadow.quoted()?, "BY DEFAULT")?, what, shadow).await?;
    let later = statements(session, &sql(place, "ALWAYS")?, what, shadow).await?;
    Ok((now, later))
}

/// What the swap does before the tables move, and behind.
///
/// # Errors
/// The server's.
pub(crate) async fn in_swap(
    session: &Session,
    source: &Subject,
    shadow: &Subject,
    mapping: &Mapping,
) -> DbResult<(Vec<String>, Vec<String>)> {
    let owned = format!(
        "FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = \
         'S' JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace JOIN pg_catalog.pg_attribute a \
         ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid JOIN {} ON m.source = a.attname \
         WHERE d.deptype = 'a' AND d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = \
         'pg_catalog.pg_class'::regclass AND d.refobjid = {}",
        mapping_sql(source, mapping)?,
        source.oid
    );
    let identity = identity_from(source, shadow, mapping)?;
    let before = format!(
        "SELECT pg_catalog.format('ALTER SEQUENCE %I.%I OWNED BY NONE', n.nspname, s.relname) \
         {owned} UNION ALL SELECT pg_catalog.format('SELECT pg_catalog.setval(''%s''::regclass, \
         last_value, is_called) FROM %I.%I', ts.oid, sn.nspname, ss.relname) {identity}"
    );
    let table = literal(&source.quoted()?)?;
    let behind = format!(
        "SELECT pg_catalog.format('ALTER SEQUENCE %I.%I OWNED BY %s.%I', n.nspname, s.relname, \
         {table}, m.target) {owned}"
    );
    let what = "the sequences";
    Ok((
        statements(session, &before, what, source).await?,
        statements(session, &behind, what, source).await?,
    ))
}

/// As [`pairs_from`], by the mapping of the columns.
fn identity_from(source: &Subject, shadow: &Subject, mapping: &Mapping) -> DbResult<String> {
    let plain = pairs_from(source, shadow);
    Ok(plain
        .replacen(
            "FROM pg_catalog.pg_attribute a ",
            &format!(
                "FROM pg_catalog.pg_attribute a JOIN {} ON m.source = a.attname ",
                mapping_sql(source, mapping)?
            ),
            1,
        )
        .replacen("b.attname = a.attname", "b.attname = m.target", 1))
}

/// Identity columns whose counter stands beyond what the other table's can reach.
///
/// # Errors
/// The server's.
pub(crate) async fn beyond(
    session: &Session,
    source: &Subject,
    shadow: &Subject,
    mapping: &Mapping,
) -> DbResult<Vec<Finding>> {
    let sql = format!(
        "SELECT pg_catalog.format('identity column %I stands at %s, and the other table''s ends at %s', \
         a.attname, v.last, t.seqmax) {} AND false",
        identity_from(source, shadow, mapping)?
    );
    let sql = sql
        .replacen(
            "WHERE a.attrelid",
            "JOIN pg_catalog.pg_sequence t ON t.seqrelid = ts.oid CROSS JOIN \
         LATERAL (SELECT pg_catalog.pg_sequence_last_value(ss.oid) AS last) AS v WHERE a.attrelid",
            1,
        )
        .replacen("AND false", "AND v.last NOT BETWEEN t.seqmin AND t.seqmax", 1);
    let remedy = "Its next value would be one that was used, or none: set the counter back if those \
                  values are free (ALTER TABLE … RESTART)";
    let found = statements(session, &sql, "the identity columns", source).await?;
    Ok(found.into_iter().map(|said| Finding::refusal("identity-beyond", said, remedy)).collect())
}
