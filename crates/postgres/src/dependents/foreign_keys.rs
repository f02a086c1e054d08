//! Foreign keys: out of the table, into it, and to itself. They are dropped and made again, NOT
//! VALID, inside the swap; what was valid is validated afterwards, one by one.

use underpin_core::mapping::Mapping;
use underpin_dialect::DbResult;

use super::{Subject, mapping_sql, statements};
use crate::connect::Session;
use crate::query::{quote, rows, text};

/// What the swap and the steps after it do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ForeignKeys {
    /// Drops, before the tables move.
    pub(crate) drops: Vec<String>,
    /// Adds, when the new table stands in its place.
    pub(crate) adds: Vec<String>,
    /// Validations, after the swap.
    pub(crate) validations: Vec<String>,
    /// The other tables, quoted, in the order of their OIDs: locked before anything is dropped.
    pub(crate) tables: Vec<String>,
    /// Those that the change takes along, for the way back.
    pub(crate) lost: Vec<Lost>,
}

/// A foreign key that the new shape does not have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    /// The other table, quoted.
    pub(crate) other: String,
    /// What makes it again on the old shape.
    pub(crate) add: String,
    /// What validates it; empty where it was not valid.
    pub(crate) validation: String,
}

/// Reads the foreign keys of the source. Those whose columns the change drops go with them; those in
/// `dropped`, by name, the user's statement drops.
///
/// # Errors
/// The server's.
pub(crate) async fn in_swap(
    session: &Session,
    source: &Subject,
    mapping: &Mapping,
    dropped: &[String],
) -> DbResult<ForeignKeys> {
    let attempted = "reading the foreign keys of";
    let found = rows(session, &query(source, mapping)?, attempted, &source.object()).await?;
    let mut keys = ForeignKeys::default();
    for row in &found {
        let own = text(row, 4) == "t";
        keys.drops.push(text(row, 0));
        if text(row, 3) == "t" || own && dropped.contains(&text(row, 5)) {
            let (other, add) = (text(row, 10), text(row, 11));
            keys.lost.push(Lost { other, add, validation: text(row, 2) });
            continue;
        }
        keys.adds.push(text(row, 1));
        let validation = text(row, 2);
        if !validation.is_empty() {
            keys.validations.push(validation);
        }
    }
    let sql = format!(
        "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c JOIN \
         pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid <> {oid} AND c.oid IN \
         (SELECT CASE WHEN conrelid = {oid} THEN confrelid ELSE conrelid END FROM \
         pg_catalog.pg_constraint WHERE contype = 'f' AND (conrelid = {oid} OR confrelid = {oid})) \
         ORDER BY c.oid",
        oid = source.oid
    );
    keys.tables = statements(session, &sql, "the foreign keys", source).await?;
    Ok(keys)
}

/// Statements that make each surviving foreign key between the twin and an empty table like the other
/// one, as the swap will make it between the real ones: no lock on anybody's table, no right to read it
/// needed, and an error where the new shape does not allow the key.
///
/// # Errors
/// The server's.
pub(crate) async fn trials(
    session: &Session,
    source: &Subject,
    twin: &Subject,
    mapping: &Mapping,
    dropped: &[String],
) -> DbResult<Vec<(String, String)>> {
    let attempted = "reading the foreign keys of";
    let sql = query(source, mapping)?;
    let found = rows(session, &sql, attempted, &source.object()).await?;
    let (private, twin) = (quote(&twin.schema)?, twin.quoted()?);
    let mut trials = Vec::new();
    for (number, row) in found.iter().enumerate() {
        let (own, is_self) = (text(row, 4) == "t", text(row, 6) == "t");
        let name = text(row, 5);
        if text(row, 3) == "t" || own && dropped.contains(&name) {
            continue;
        }
        let (from, to, other) = (text(row, 7), text(row, 8), text(row, 9));
        let trial = format!("{private}.underpin_trial_{number}");
        let like = format!("CREATE TABLE {trial} ({other})");
        let sql = match (own, is_self) {
            (_, true) => {
                format!("ALTER TABLE {twin} ADD FOREIGN KEY ({from}) REFERENCES {twin} ({to})")
            }
            (true, _) => format!(
                "{like}; ALTER TABLE {trial} ADD UNIQUE ({to}); ALTER TABLE {twin} ADD FOREIGN KEY \
                 ({from}) REFERENCES {trial} ({to})"
            ),
            _ => format!(
                "{like}; ALTER TABLE {trial} ADD FOREIGN KEY ({from}) REFERENCES {twin} ({to})"
            ),
        };
        trials.push((name, sql));
    }
    Ok(trials)
}

/// Drop, add, validation (NULL where it is not to be made), whether a column of ours in it is dropped,
/// whether it goes out of the table, its name, whether it stays within the table, its columns on both
/// sides, those of the other table with their types, the table that it points at, and what would make it
/// again as it is.
fn query(source: &Subject, mapping: &Mapping) -> DbResult<String> {
    let mapping = mapping_sql(source, mapping)?;
    let oid = source.oid;
    // The columns of one side, as they are and as they will be.
    let columns = |name: &str, side: &str, table: &str| {
        format!(
            "(SELECT pg_catalog.string_agg(pg_catalog.quote_ident({name}), ', ' ORDER BY u.ord) FROM \
             pg_catalog.unnest({side}) WITH ORDINALITY AS u(num, ord) JOIN pg_catalog.pg_attribute a \
             ON a.attrelid = {table} AND a.attnum = u.num LEFT JOIN {mapping} ON m.source = a.attname \
             AND {table} = {oid})"
        )
    };
    let new_name = "CASE WHEN a.attrelid = OID THEN m.target ELSE a.attname END"
        .replace("OID", &oid.to_string());
    let (from_old, from_new) = (
        columns("a.attname", "k.conkey", "k.conrelid"),
        columns(&new_name, "k.conkey", "k.conrelid"),
    );
    let (to_old, to_new) = (
        columns("a.attname", "k.confkey", "k.confrelid"),
        columns(&new_name, "k.confkey", "k.confrelid"),
    );
    let typed = |side: &str, table: &str| {
        format!(
            "(SELECT pg_catalog.string_agg(DISTINCT pg_catalog.format('%I %s%s', a.attname, \
             pg_catalog.format_type(a.atttypid, a.atttypmod), CASE WHEN a.attcollation <> 0 THEN ' \
             COLLATE ' || a.attcollation::regcollation::text ELSE '' END), ', ') FROM \
             pg_catalog.unnest({side}) AS u(num) JOIN pg_catalog.pg_attribute a ON a.attrelid = \
             {table} AND a.attnum = u.num)"
        )
    };
    let (from_typed, to_typed) =
        (typed("k.conkey", "k.conrelid"), typed("k.confkey", "k.confrelid"));
    let valid = if source.version >= 180_000 {
        "(k.convalidated AND k.conenforced)"
    } else {
        "k.convalidated"
    };
    let child = "pg_catalog.format('%I.%I', cn.nspname, c.relname)";
    Ok(format!(
        "SELECT pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I', {child}, k.conname), \
         pg_catalog.format('ALTER TABLE %s ADD CONSTRAINT %I FOREIGN KEY (%s) REFERENCES \
         %I.%I(%s)%s%s', {child}, k.conname, x.from_new, pn.nspname, p.relname, x.to_new, \
         pg_catalog.substr(pg_catalog.pg_get_constraintdef(k.oid), pg_catalog.length(\
         pg_catalog.format('FOREIGN KEY (%s) REFERENCES %I.%I(%s)', x.from_old, pn.nspname, \
         p.relname, x.to_old)) + 1), CASE WHEN {valid} THEN ' NOT VALID' ELSE '' END) || \
         coalesce(pg_catalog.format('; COMMENT ON CONSTRAINT %I ON %s IS ', k.conname, {child}) || \
         pg_catalog.quote_literal(pg_catalog.obj_description(k.oid, 'pg_constraint')), ''), CASE \
         WHEN {valid} THEN pg_catalog.format('ALTER TABLE %s VALIDATE CONSTRAINT %I', {child}, \
         k.conname) END, k.conrelid = {oid} AND EXISTS (SELECT FROM pg_catalog.unnest(k.conkey) AS \
         u(num) JOIN pg_catalog.pg_attribute a ON a.attrelid = {oid} AND a.attnum = u.num WHERE \
         a.attname NOT IN (SELECT m.source FROM {mapping})), k.conrelid = \
         {oid}, k.conname, k.conrelid = k.confrelid, x.from_new, x.to_new, CASE WHEN k.conrelid = {oid} \
         THEN {to_typed} ELSE {from_typed} END, pg_catalog.format('%I.%I', pn.nspname, p.relname), \
         pg_catalog.format('ALTER TABLE %s ADD CONSTRAINT %I %s%s', {child}, k.conname, \
         pg_catalog.pg_get_constraintdef(k.oid), CASE WHEN {valid} THEN ' NOT VALID' ELSE '' END) || \
         coalesce(pg_catalog.format('; COMMENT ON CONSTRAINT %I ON %s IS ', k.conname, {child}) || \
         pg_catalog.quote_literal(pg_catalog.obj_description(k.oid, 'pg_constraint')), '') FROM \
         pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = \
         k.conrelid JOIN pg_catalog.pg_namespace cn ON cn.oid = c.relnamespace JOIN \
         pg_catalog.pg_class p ON p.oid = k.confrelid JOIN pg_catalog.pg_namespace pn ON pn.oid = \
         p.relnamespace CROSS JOIN LATERAL (SELECT {from_old} AS from_old, {from_new} AS from_new, \
         {to_old} AS to_old, {to_new} AS to_new) AS x WHERE k.contype = 'f' AND k.conparentid = 0 AND \
         (k.conrelid = {oid} OR k.confrelid = {oid}) ORDER BY c.oid, k.conname"
    ))
}
