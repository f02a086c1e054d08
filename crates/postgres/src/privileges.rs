//! Whether the role may do what a run needs: what is missing is named, with the statement that helps.

use underpin_core::finding::Finding;
use underpin_dialect::DbResult;

use crate::control::Control;
use crate::dependents::Subject;
use crate::query::{literal, rows, text};

/// What any change of the table needs: to act as its owner.
///
/// # Errors
/// The server's.
pub(crate) async fn check(control: &Control, source: &Subject) -> DbResult<Vec<Finding>> {
    let settable = if source.version >= 160_000 { "SET" } else { "MEMBER" };
    let sql = format!(
        "SELECT pg_catalog.format('%I is owned by %I, as whom %I may not act', c.relname, o.rolname, \
         session_user), pg_catalog.format('GRANT %I TO %I', o.rolname, session_user) FROM \
         pg_catalog.pg_class c JOIN pg_catalog.pg_roles o ON o.oid = c.relowner WHERE c.oid = {} AND \
         NOT (pg_catalog.pg_has_role(session_user, o.oid, 'USAGE') AND \
         pg_catalog.pg_has_role(session_user, o.oid, '{settable}'))",
        source.oid
    );
    ask(control, source, &sql).await
}

/// What a copy and a swap need besides: schemas of our own, and to act for the owners of what moves.
///
/// # Errors
/// The server's.
pub(crate) async fn check_for_copy(control: &Control, source: &Subject) -> DbResult<Vec<Finding>> {
    let oid = source.oid;
    let schema = literal(&source.schema)?;
    let sql = format!(
        "SELECT pg_catalog.format('%I may not create schemas in this database', session_user), \
         pg_catalog.format('GRANT CREATE ON DATABASE %I TO %I', pg_catalog.current_database(), \
         session_user) WHERE NOT pg_catalog.has_database_privilege(session_user, \
         pg_catalog.current_database(), 'CREATE') UNION ALL SELECT pg_catalog.format('%I may not \
         create tables in schema %I', session_user, {schema}), pg_catalog.format('GRANT CREATE ON \
         SCHEMA %I TO %I', {schema}, session_user) WHERE NOT \
         pg_catalog.has_schema_privilege(session_user, {schema}, 'CREATE') UNION ALL SELECT \
         pg_catalog.format('%I, the table''s owner, may not use schema %I', w.rolname, {schema}), \
         pg_catalog.format('GRANT USAGE ON SCHEMA %I TO %I', {schema}, w.rolname) FROM \
         pg_catalog.pg_class c JOIN pg_catalog.pg_roles w ON w.oid = c.relowner WHERE c.oid = {oid} \
         AND NOT pg_catalog.has_schema_privilege(w.oid, {schema}, 'USAGE') UNION ALL SELECT \
         pg_catalog.format('%I, the table''s owner, may not read it', w.rolname), \
         pg_catalog.format('GRANT SELECT ON %s TO %I', c.oid::regclass, w.rolname) FROM \
         pg_catalog.pg_class c JOIN pg_catalog.pg_roles w ON w.oid = c.relowner WHERE c.oid = {oid} \
         AND NOT pg_catalog.has_table_privilege(w.oid, c.oid, 'SELECT') UNION ALL SELECT \
         pg_catalog.format('%s %s is owned by %I, as whom %I may not act', x.kind, x.name, w.rolname, \
         session_user), pg_catalog.format('GRANT %I TO %I', w.rolname, session_user) FROM (SELECT \
         'table' AS kind, f.oid::regclass::text AS name, f.relowner AS owner FROM \
         pg_catalog.pg_constraint k JOIN pg_catalog.pg_class f ON f.oid IN (k.conrelid, k.confrelid) \
         WHERE k.contype = 'f' AND {oid} IN (k.conrelid, k.confrelid) AND f.oid <> {oid} UNION SELECT \
         'view', v.oid::regclass::text, v.relowner FROM pg_catalog.pg_depend d JOIN \
         pg_catalog.pg_rewrite r ON r.oid = d.objid JOIN pg_catalog.pg_class v ON v.oid = r.ev_class \
         WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.refclassid = \
         'pg_catalog.pg_class'::regclass AND d.refobjid = {oid} UNION SELECT 'publication', p.pubname, \
         p.pubowner FROM pg_catalog.pg_publication_rel m JOIN pg_catalog.pg_publication p ON p.oid = \
         m.prpubid WHERE m.prrelid = {oid} UNION SELECT 'function', f.oid::regprocedure::text, \
         f.proowner FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_proc f ON f.oid = d.objid WHERE \
         d.classid = 'pg_catalog.pg_proc'::regclass AND d.refclassid = \
         'pg_catalog.pg_class'::regclass AND d.refobjid = {oid}) AS x JOIN pg_catalog.pg_roles w ON \
         w.oid = x.owner WHERE NOT pg_catalog.pg_has_role(session_user, w.oid, 'USAGE')"
    );
    ask(control, source, &sql).await
}

async fn ask(control: &Control, source: &Subject, sql: &str) -> DbResult<Vec<Finding>> {
    let found = rows(&control.session, sql, "reading the rights on", &source.object()).await?;
    Ok(found
        .iter()
        .map(|row| Finding::refusal("missing-privilege", text(row, 0), text(row, 1)))
        .collect())
}
