//! Extended statistics: made on the twin, moved into their own schema by the swap.

use underpin_dialect::DbResult;

use super::{Subject, statements};
use crate::connect::Session;
use crate::query::literal;

/// Statements for the twin: each object under its own name in the private schema.
///
/// # Errors
/// The server's.
pub(crate) async fn on_twin(
    session: &Session,
    source: &Subject,
    twin: &Subject,
) -> DbResult<Vec<String>> {
    let private = literal(&twin.schema)?;
    let sql = format!(
        "SELECT pg_catalog.format('CREATE STATISTICS %I.%I%s FROM %s', {private}, s.stxname, \
         pg_catalog.substr(p.body, 1, pg_catalog.length(p.body) - pg_catalog.length(p.tail)), \
         {twin}) || CASE WHEN s.stxstattarget >= 0 THEN pg_catalog.format('; ALTER STATISTICS %I.%I SET STATISTICS \
         %s', {private}, s.stxname, s.stxstattarget) ELSE '' END || \
         coalesce(pg_catalog.format('; COMMENT ON STATISTICS %I.%I IS ', {private}, s.stxname) || \
         pg_catalog.quote_literal(pg_catalog.obj_description(s.oid, 'pg_statistic_ext')), '') FROM \
         pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace \
         CROSS JOIN LATERAL (SELECT pg_catalog.substr(pg_catalog.pg_get_statisticsobjdef(s.oid), \
         pg_catalog.length(pg_catalog.format('CREATE STATISTICS %I.%I', n.nspname, s.stxname)) + 1) \
         AS body, ' FROM ' || pg_catalog.format('%I.%I', {schema}, {name}) AS tail) AS p WHERE s.stxrelid = {oid}",
        twin = literal(&twin.quoted()?)?,
        schema = literal(&source.schema)?,
        name = literal(&source.name)?,
        oid = source.oid,
    );
    statements(session, &sql, "the extended statistics", source).await
}

/// For a table that may come back: what moves its objects into the schema `away` before the swap, and what
/// brings them back where they were.
///
/// # Errors
/// The server's.
pub(crate) async fn aside_sql(
    session: &Session,
    source: &Subject,
    away: &str,
) -> DbResult<(Vec<String>, Vec<String>)> {
    let away = literal(away)?;
    let sql = |from: &str, to: &str| {
        format!(
            "SELECT pg_catalog.format('ALTER STATISTICS %I.%I SET SCHEMA %I', {from}, s.stxname, {to}) \
             FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace n ON n.oid = \
             s.stxnamespace WHERE s.stxrelid = {}",
            source.oid
        )
    };
    let what = "the extended statistics";
    Ok((
        statements(session, &sql("n.nspname", &away), what, source).await?,
        statements(session, &sql(&away, "n.nspname"), what, source).await?,
    ))
}

/// What the swap does before and behind the move of the tables: the old objects go, the new ones take
/// their places. An object that the user's statement took along is gone, as it would be without us.
///
/// # Errors
/// The server's.
pub(crate) async fn in_swap(
    session: &Session,
    source: &Subject,
    shadow: &Subject,
) -> DbResult<(Vec<String>, Vec<String>)> {
    let before = format!(
        "SELECT pg_catalog.format('DROP STATISTICS %I.%I', n.nspname, s.stxname) FROM \
         pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace \
         WHERE s.stxrelid = {}",
        source.oid
    );
    let behind = format!(
        "SELECT pg_catalog.format('ALTER STATISTICS %I.%I SET SCHEMA %I', {private}, w.stxname, \
         coalesce(n.nspname, {schema})) || CASE WHEN s.stxowner <> w.stxowner THEN \
         pg_catalog.format('; ALTER STATISTICS %I.%I OWNER TO %I', n.nspname, s.stxname, \
         pg_catalog.pg_get_userbyid(s.stxowner)) ELSE '' END FROM pg_catalog.pg_statistic_ext w LEFT JOIN \
         pg_catalog.pg_statistic_ext s ON s.stxrelid = {source} AND s.stxname = w.stxname LEFT JOIN \
         pg_catalog.pg_namespace n ON n.oid = s.stxnamespace WHERE w.stxrelid = {shadow} AND \
         w.stxnamespace = {private}::regnamespace",
        private = literal(&shadow.schema)?,
        schema = literal(&source.schema)?,
        source = source.oid,
        shadow = shadow.oid,
    );
    let what = "the extended statistics";
    Ok((
        statements(session, &before, what, source).await?,
        statements(session, &behind, what, shadow).await?,
    ))
}
