//! Indexes, and the constraints that stand on them: definitions as scripts that build one index with
//! all that belongs to it, in one transaction.

use underpin_dialect::DbResult;

use super::Subject;
use crate::connect::Session;
use crate::query::{literal, quote, rows, text};

/// One index and how to build it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IndexScript {
    /// Its name, unquoted.
    pub(crate) name: String,
    /// What builds it in the target schema; empty for constraints that build their own.
    pub(crate) build: String,
    /// What follows, under the table's exclusive lock: its constraint, comments, statistics targets,
    /// replica identity and cluster mark; may be empty.
    pub(crate) attach: String,
    /// What drops it from the target schema.
    pub(crate) drop: String,
}

/// The valid indexes of a table, the primary key's first, for a table of the same name in the schema
/// `target`. Invalid ones are left out: building them again would make them valid.
///
/// # Errors
/// The server's.
pub(crate) async fn read(
    session: &Session,
    table: &Subject,
    target: &str,
) -> DbResult<Vec<IndexScript>> {
    let sql = query(table, target)?;
    let found = rows(session, &sql, "reading the indexes of", &table.object()).await?;
    let target = quote(target)?;
    found
        .iter()
        .map(|row| {
            let name = text(row, 0);
            let quoted = quote(&name)?;
            let drop = if text(row, 3) == "t" {
                format!("ALTER TABLE {target}.{} DROP CONSTRAINT {quoted}", quote(&table.name)?)
            } else {
                format!("DROP INDEX {target}.{quoted}")
            };
            Ok(IndexScript { name, build: text(row, 1), attach: text(row, 2), drop })
        })
        .collect()
}

/// Name, build, attachment, whether a constraint stands on it.
fn query(table: &Subject, target: &str) -> DbResult<String> {
    let target_table = literal(&super::quote_table(target, &table.name)?)?;
    let target = literal(target)?;
    // The prefix is computed exactly as the server spells it, so that nothing behind it is touched.
    let definition = format!(
        "pg_catalog.format('CREATE %sINDEX %I ON %s%s', CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE \
         '' END, c.relname, {target_table}, pg_catalog.substr(pg_catalog.pg_get_indexdef(c.oid), \
         pg_catalog.length(pg_catalog.format('CREATE %sINDEX %I ON %I.%I', CASE WHEN i.indisunique \
         THEN 'UNIQUE ' ELSE '' END, c.relname, tn.nspname, t.relname)) + 1))"
    );
    let period = if table.version >= 180_000 { "coalesce(k.conperiod, false)" } else { "false" };
    let builds_itself = format!("(k.oid IS NOT NULL AND (k.contype = 'x' OR {period}))");
    let constraint = format!(
        "CASE WHEN k.oid IS NULL THEN '' WHEN {builds_itself} THEN pg_catalog.format('; ALTER TABLE \
         %s ADD CONSTRAINT %I %s', {target_table}, k.conname, \
         pg_catalog.pg_get_constraintdef(k.oid)) ELSE pg_catalog.format('; ALTER TABLE %s ADD \
         CONSTRAINT %I %s USING INDEX %I%s%s', {target_table}, k.conname, CASE k.contype WHEN 'p' \
         THEN 'PRIMARY KEY' ELSE 'UNIQUE' END, c.relname, CASE WHEN k.condeferrable THEN ' \
         DEFERRABLE' ELSE '' END, CASE WHEN k.condeferred THEN ' INITIALLY DEFERRED' ELSE '' END) END"
    );
    let options = format!(
        "CASE WHEN {builds_itself} AND c.reloptions IS NOT NULL THEN \
         pg_catalog.format('; ALTER INDEX %I.%I SET (%s)', {target}, c.relname, \
         pg_catalog.array_to_string(c.reloptions, ', ')) ELSE '' END"
    );
    let extras = format!(
        "{options} || coalesce((SELECT pg_catalog.string_agg(pg_catalog.format('; ALTER INDEX %I.%I \
         ALTER COLUMN %s SET STATISTICS %s', {target}, c.relname, a.attnum, a.attstattarget), '') \
         FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attstattarget >= 0 AND \
         i.indkey[a.attnum - 1] = 0), '') || coalesce(pg_catalog.format('; COMMENT ON INDEX %I.%I IS \
         ', {target}, c.relname) || pg_catalog.quote_literal(pg_catalog.obj_description(c.oid, \
         'pg_class')), '') || coalesce(CASE WHEN k.oid IS NOT NULL THEN pg_catalog.format('; COMMENT ON CONSTRAINT %I ON %s IS \
         ', k.conname, {target_table}) END || pg_catalog.quote_literal(pg_catalog.obj_description(k.oid, \
         'pg_constraint')), '') || CASE WHEN i.indisreplident THEN pg_catalog.format('; ALTER TABLE \
         %s REPLICA IDENTITY USING INDEX %I', {target_table}, c.relname) ELSE '' END || CASE WHEN \
         i.indisclustered THEN pg_catalog.format('; ALTER TABLE %s CLUSTER ON %I', {target_table}, \
         c.relname) ELSE '' END || coalesce((SELECT pg_catalog.string_agg(pg_catalog.format('; ALTER \
         INDEX %I.%I DEPENDS ON EXTENSION %I', {target}, c.relname, e.extname), '') FROM \
         pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid WHERE d.classid \
         = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.refclassid = \
         'pg_catalog.pg_extension'::regclass AND d.deptype = 'x'), '')"
    );
    let place = "'SET LOCAL default_tablespace = ' || \
                 coalesce(pg_catalog.quote_literal(s.spcname), '''''') || '; '";
    Ok(format!(
        "SELECT c.relname, CASE WHEN {builds_itself} THEN '' ELSE {place} || {definition} END, CASE \
         WHEN {builds_itself} THEN {place} ELSE '' END || pg_catalog.ltrim({constraint} || {extras}, \
         '; '), k.oid IS NOT NULL \
         FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN \
         pg_catalog.pg_class t ON t.oid = i.indrelid JOIN pg_catalog.pg_namespace tn ON tn.oid = \
         t.relnamespace LEFT JOIN pg_catalog.pg_tablespace s ON s.oid = c.reltablespace LEFT JOIN \
         pg_catalog.pg_constraint k ON k.conindid = c.oid AND k.conrelid = t.oid AND k.contype IN \
         ('p', 'u', 'x') WHERE i.indrelid = {} AND i.indisvalid AND i.indisready AND i.indislive \
         ORDER BY i.indisprimary DESC, i.indisunique DESC, c.relname",
        table.oid
    ))
}
