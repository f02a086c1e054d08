//! Row security: policies, and whether they are in force.

use underpin_dialect::DbResult;

use super::{Subject, statements};
use crate::connect::Session;
use crate::query::literal;

/// Statements for the twin.
///
/// # Errors
/// The server's.
pub(crate) async fn on_twin(
    session: &Session,
    source: &Subject,
    twin: &Subject,
) -> DbResult<Vec<String>> {
    let (oid, twin) = (source.oid, literal(&twin.quoted()?)?);
    let sql = format!(
        "SELECT pg_catalog.format('CREATE POLICY %I ON %s AS %s FOR %s TO %s%s%s', p.polname, \
         {twin}, CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END, CASE p.polcmd \
         WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' \
         ELSE 'ALL' END, (SELECT pg_catalog.string_agg(CASE WHEN r = 0 THEN 'PUBLIC' ELSE \
         pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(r)) END, ', ') FROM \
         pg_catalog.unnest(p.polroles) AS r), coalesce(' USING (' || \
         pg_catalog.pg_get_expr(p.polqual, p.polrelid) || ')', ''), coalesce(' WITH CHECK (' || \
         pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) || ')', '')) FROM pg_catalog.pg_policy p \
         WHERE p.polrelid = {oid} UNION ALL SELECT pg_catalog.format('ALTER TABLE %s ENABLE ROW \
         LEVEL SECURITY', {twin}) FROM pg_catalog.pg_class WHERE oid = {oid} AND relrowsecurity UNION ALL SELECT \
         pg_catalog.format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', {twin}) FROM \
         pg_catalog.pg_class WHERE oid = {oid} AND relforcerowsecurity"
    );
    statements(session, &sql, "the policies", source).await
}

/// FORCE waits for the swap: it would hold for the copy too, which runs as the owner.
///
/// # Errors
/// The server's.
pub(crate) async fn set_aside(
    session: &Session,
    shadow: &Subject,
    place: &str,
) -> DbResult<(Vec<String>, Vec<String>)> {
    let sql = |table: &str, verb: &str| -> DbResult<String> {
        Ok(format!(
            "SELECT pg_catalog.format('ALTER TABLE %s {verb} ROW LEVEL SECURITY', {}) FROM \
             pg_catalog.pg_class WHERE oid = {} AND relforcerowsecurity",
            literal(table)?,
            shadow.oid
        ))
    };
    let switch_off = sql(&shadow.quoted()?, "NO FORCE")?;
    let now = statements(session, &switch_off, "row security", shadow).await?;
    let later = statements(session, &sql(place, "FORCE")?, "row security", shadow).await?;
    Ok((now, later))
}

/// Policies of other tables that look into this one: their texts again, so that they see the new table.
///
/// # Errors
/// The server's.
pub(crate) async fn elsewhere_in_swap(
    session: &Session,
    source: &Subject,
) -> DbResult<Vec<String>> {
    let sql = format!(
        "SELECT DISTINCT pg_catalog.format('ALTER POLICY %I ON %I.%I%s%s', p.polname, n.nspname, \
         c.relname, coalesce(' USING (' || pg_catalog.pg_get_expr(p.polqual, p.polrelid) || ')', \
         ''), coalesce(' WITH CHECK (' || pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) || ')', \
         '')) FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_policy p ON p.oid = d.objid JOIN \
         pg_catalog.pg_class c ON c.oid = p.polrelid JOIN pg_catalog.pg_namespace n ON n.oid = \
         c.relnamespace WHERE d.classid = 'pg_catalog.pg_policy'::regclass AND d.refclassid = \
         'pg_catalog.pg_class'::regclass AND d.refobjid = {oid} AND p.polrelid <> {oid}",
        oid = source.oid
    );
    statements(session, &sql, "the policies elsewhere", source).await
}
