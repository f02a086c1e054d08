//! Grants on the table, its columns and its identity sequences, by their grantors; and what default
//! privileges gave beyond them is taken away.

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
    let mut all = level(session, source, twin).await?;
    let pairs = super::sequences::identity_pairs(session, source, twin).await?;
    for (from, to) in pairs {
        all.extend(level(session, &from, &to).await?);
    }
    Ok(all)
}

/// An owner who took rights from himself gets them back for the copy, which runs as him.
///
/// # Errors
/// The server's.
pub(crate) async fn set_aside(
    session: &Session,
    shadow: &Subject,
    place: &str,
) -> DbResult<(Vec<String>, Vec<String>)> {
    let sql = |verb: &str, table: &str, word: &str| -> DbResult<String> {
        Ok(format!(
            "SELECT pg_catalog.format('{verb} %s ON %s {word} %I', p, {}, \
             pg_catalog.pg_get_userbyid(c.relowner)) FROM pg_catalog.pg_class c CROSS JOIN \
             pg_catalog.unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p WHERE c.oid = {} \
             AND NOT pg_catalog.has_table_privilege(c.relowner, c.oid, p)",
            literal(table)?,
            shadow.oid
        ))
    };
    let grants = sql("GRANT", &shadow.quoted()?, "TO")?;
    let now = statements(session, &grants, "the grants", shadow).await?;
    let later = statements(session, &sql("REVOKE", place, "FROM")?, "the grants", shadow).await?;
    Ok((now, later))
}

/// The grants of one relation and of its columns.
async fn level(session: &Session, from: &Subject, to: &Subject) -> DbResult<Vec<String>> {
    let kind = "(CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END)";
    let target = literal(&to.quoted()?)?;
    // Nothing to do where neither has a list of its own; else begin from nothing.
    let revokes = format!(
        "SELECT DISTINCT pg_catalog.format('REVOKE ALL ON %s %s FROM %s', {kind}, {target}, {who}) \
         FROM pg_catalog.pg_class c CROSS JOIN LATERAL \
         pg_catalog.aclexplode(coalesce(c.relacl, pg_catalog.acldefault((CASE c.relkind WHEN 'S' THEN \
         's' ELSE 'r' END)::\"char\", c.relowner))) AS a WHERE c.oid = {to_oid} AND EXISTS (SELECT \
         FROM pg_catalog.pg_class b WHERE b.oid IN ({to_oid}, {from_oid}) AND b.relacl IS NOT NULL)",
        who = role("a.grantee"),
        to_oid = to.oid,
        from_oid = from.oid,
    );
    let owner_again = format!(
        "SELECT pg_catalog.format('GRANT ALL ON %s %s TO %I', {kind}, {target}, \
         pg_catalog.pg_get_userbyid(c.relowner)) FROM pg_catalog.pg_class c WHERE c.oid = {} AND \
         c.relacl IS NULL AND EXISTS (SELECT FROM pg_catalog.pg_class b WHERE b.oid = {} AND \
         b.relacl IS NOT NULL)",
        from.oid, to.oid
    );
    let mut all = statements(session, &revokes, "the grants", from).await?;
    all.extend(statements(session, &owner_again, "the grants", from).await?);
    all.extend(statements(session, &grants_sql(from, to, kind)?, "the grants", from).await?);
    Ok(all)
}

/// The grants in the order of the list, in which each grantor stands before those he granted to.
fn grants_sql(from: &Subject, to: &Subject, kind: &str) -> DbResult<String> {
    let target = literal(&to.quoted()?)?;
    let schema = literal(&to.schema)?;
    Ok(format!(
        "WITH g AS (SELECT c.relowner, c.relkind, a.*, ''::text AS cols, 0 AS place FROM \
         pg_catalog.pg_class c CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) WITH ORDINALITY AS \
         a(grantor, grantee, privilege_type, is_grantable, ord) WHERE c.oid = {oid} UNION ALL SELECT \
         c.relowner, c.relkind, a.*, pg_catalog.format(' (%I)', t.attname), t.attnum FROM \
         pg_catalog.pg_class c JOIN pg_catalog.pg_attribute t ON t.attrelid = c.oid AND NOT \
         t.attisdropped CROSS JOIN LATERAL pg_catalog.aclexplode(t.attacl) WITH ORDINALITY AS \
         a(grantor, grantee, privilege_type, is_grantable, ord) WHERE c.oid = {oid}) SELECT CASE WHEN \
         c.grantor = c.relowner THEN '' ELSE pg_catalog.format('GRANT USAGE ON SCHEMA %I TO %I; SET \
         LOCAL ROLE %I; ', {schema}, pg_catalog.pg_get_userbyid(c.grantor), \
         pg_catalog.pg_get_userbyid(c.grantor)) END || pg_catalog.format('GRANT %s%s ON %s %s TO \
         %s%s', c.privilege_type, c.cols, {kind}, {target}, {who}, CASE WHEN c.is_grantable THEN ' \
         WITH GRANT OPTION' ELSE '' END) || CASE WHEN c.grantor = c.relowner THEN '' ELSE \
         pg_catalog.format('; SET LOCAL ROLE %I', pg_catalog.pg_get_userbyid(c.relowner)) END FROM g \
         AS c ORDER BY c.place, c.ord",
        oid = from.oid,
        who = role("c.grantee"),
    ))
}

fn role(oid: &str) -> String {
    format!(
        "(CASE WHEN {oid} = 0 THEN 'PUBLIC' ELSE \
         pg_catalog.quote_ident(pg_catalog.pg_get_userbyid({oid})) END)"
    )
}
