//! Grants on the table, its columns and its identity sequences, by their grantors; and what default
//! privileges gave beyond them is taken away.

use underpin_dialect::{DbError, DbResult, ErrorKind};

use super::{Subject, statements};
use crate::connect::Session;
use crate::query::{Row, flag, literal, rows, text};

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
    let sql = grants_sql(from, to, kind)?;
    let found = rows(session, &sql, "reading the grants of", &from.object()).await?;
    all.extend(in_order(found.iter().map(Grant::of).collect()));
    Ok(all)
}

/// One privilege that somebody gave to somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Grant {
    sql: String,
    grantor: String,
    grantee: String,
    privilege: String,
    /// The column that it is confined to; empty for the whole.
    column: String,
    /// Whether the grantee may give it on.
    grantable: bool,
    by_owner: bool,
}

impl Grant {
    fn of(row: &Row) -> Self {
        Self {
            sql: text(row, 0),
            grantor: text(row, 1),
            grantee: text(row, 2),
            privilege: text(row, 3),
            column: text(row, 4),
            grantable: flag(row, 5),
            by_owner: flag(row, 6),
        }
    }

    /// Whether this one is what the grantor of `other` gives on.
    fn allows(&self, other: &Self) -> bool {
        self.grantable
            && self.grantee == other.grantor
            && self.privilege == other.privilege
            && (self.column.is_empty() || self.column == other.column)
    }
}

/// The order of the list, except where somebody would grant what he has not been given yet: grants
/// that were made at different times share a place in the list.
fn in_order(mut waiting: Vec<Grant>) -> Vec<String> {
    let mut made: Vec<Grant> = Vec::new();
    // Each turn makes one grant at least, or is the last.
    for _ in 0..=waiting.len() {
        let mut left = Vec::new();
        let before = made.len();
        for grant in waiting {
            if grant.by_owner || made.iter().any(|other| other.allows(&grant)) {
                made.push(grant);
            } else {
                left.push(grant);
            }
        }
        waiting = left;
        if made.len() == before {
            break;
        }
    }
    // What nobody could have given is left to the server to refuse.
    made.into_iter().chain(waiting).map(|grant| grant.sql).collect()
}

/// Compares what has become of the grants: the server only warns where it grants less than was asked.
///
/// # Errors
/// `Refused`, naming what is missing or too much.
pub(crate) async fn ensure_same(
    session: &Session,
    source: &Subject,
    twin: &Subject,
) -> DbResult<()> {
    let all = |oid: u32| {
        format!(
            "SELECT ''::name AS col, a.* FROM pg_catalog.pg_class c CROSS JOIN LATERAL \
             pg_catalog.aclexplode(coalesce(c.relacl, pg_catalog.acldefault((CASE c.relkind WHEN 'S' \
             THEN 's' ELSE 'r' END)::\"char\", c.relowner))) AS a WHERE c.oid = {oid} UNION ALL SELECT \
             t.attname, a.* FROM pg_catalog.pg_attribute t CROSS JOIN LATERAL \
             pg_catalog.aclexplode(t.attacl) AS a WHERE t.attrelid = {oid} AND NOT t.attisdropped"
        )
    };
    let mut pairs = super::sequences::identity_pairs(session, source, twin).await?;
    pairs.push((source.clone(), twin.clone()));
    for (from, to) in pairs {
        let (old, new) = (all(from.oid), all(to.oid));
        let sql = format!(
            "SELECT pg_catalog.format('%s %s from %s to %s', privilege_type, col, {}, {}) FROM \
             ((({old}) EXCEPT ({new})) UNION ALL (({new}) EXCEPT ({old}))) AS x",
            role("grantor"),
            role("grantee")
        );
        let differing = statements(session, &sql, "the grants", &from).await?;
        if let Some(grant) = differing.first() {
            let attempted = "making the grants again of";
            return Err(DbError::new(ErrorKind::Refused, attempted, from.object())
                .said(format!("the grant of {grant} does not come out the same"))
                .help("REVOKE it and GRANT it again, or leave it out"));
        }
    }
    Ok(())
}

/// The grants in the order of the list: statement, grantor, grantee, privilege, column, whether it may
/// be given on, whether the owner gave it.
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
         pg_catalog.format('; SET LOCAL ROLE %I', pg_catalog.pg_get_userbyid(c.relowner)) END, \
         c.grantor, c.grantee, c.privilege_type, c.cols, c.is_grantable, c.grantor = c.relowner FROM \
         g AS c ORDER BY c.place, c.ord",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_grants_what_he_has_not_been_given() {
        let grant = |grantor: &str, grantee: &str, privilege: &str, grantable| Grant {
            sql: format!("{grantor} {privilege} {grantee}"),
            grantor: grantor.into(),
            grantee: grantee.into(),
            privilege: privilege.into(),
            column: String::new(),
            grantable,
            by_owner: grantor == "o",
        };
        let list = vec![
            grant("o", "b", "I", true),
            grant("b", "c", "I", false),
            grant("b", "c", "S", false),
            grant("o", "a", "S", true),
            grant("a", "b", "S", true),
            grant("x", "y", "S", false),
        ];
        assert_eq!(in_order(list), ["o I b", "b I c", "o S a", "a S b", "b S c", "x S y"]);
    }
}
