//! Rules: the table's own, and those of other tables and views that act on it. Their texts are
//! replayed inside the swap, when the table's name means the new table.

use underpin_dialect::DbResult;

use super::{Subject, statements};
use crate::connect::Session;

/// What takes them from a table that is still to be written to: they would act on that.
///
/// # Errors
/// The server's.
pub(crate) async fn drops(session: &Session, source: &Subject) -> DbResult<Vec<String>> {
    let sql = format!(
        "SELECT pg_catalog.format('DROP RULE %I ON %I.%I', r.rulename, n.nspname, c.relname) FROM \
         pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class JOIN \
         pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE r.ev_class = {} AND r.rulename <> \
         '_RETURN'",
        source.oid
    );
    statements(session, &sql, "the rules", source).await
}

/// Statements for the swap, when the new table stands in its place.
///
/// # Errors
/// The server's.
pub(crate) async fn in_swap(session: &Session, source: &Subject) -> DbResult<Vec<String>> {
    let enabled = "CASE r.ev_enabled WHEN 'O' THEN '' ELSE pg_catalog.format('; ALTER TABLE %I.%I \
                   %s RULE %I', n.nspname, c.relname, CASE r.ev_enabled WHEN 'A' THEN 'ENABLE \
                   ALWAYS' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'DISABLE' END, r.rulename) END";
    let comment = "coalesce(pg_catalog.format('; COMMENT ON RULE %I ON %I.%I IS ', r.rulename, \
                   n.nspname, c.relname) || \
                   pg_catalog.quote_literal(pg_catalog.obj_description(r.oid, 'pg_rewrite')), '')";
    let definition = "pg_catalog.rtrim(pg_catalog.rtrim(pg_catalog.pg_get_ruledef(r.oid)), ';')";
    let joins = "JOIN pg_catalog.pg_class c ON c.oid = r.ev_class JOIN pg_catalog.pg_namespace n ON \
                 n.oid = c.relnamespace";
    let sql = format!(
        "SELECT {definition} || {enabled} || {comment} FROM pg_catalog.pg_rewrite r {joins} WHERE \
         r.ev_class = {oid} AND r.rulename <> '_RETURN' UNION ALL SELECT pg_catalog.overlay(\
         {definition}, 'CREATE OR REPLACE RULE', 1, pg_catalog.length('CREATE RULE')) \
         FROM pg_catalog.pg_rewrite r {joins} WHERE r.ev_class <> {oid} AND r.rulename <> '_RETURN' \
         AND EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = \
         'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = \
         'pg_catalog.pg_class'::regclass AND d.refobjid = {oid})",
        oid = source.oid
    );
    statements(session, &sql, "the rules", source).await
}
