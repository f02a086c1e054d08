//! Functions: those with an SQL body point at the table by OID and are replaced by their own text;
//! PL/pgSQL functions that mention it are touched, so that pooled sessions compile them anew.

use underpin_dialect::DbResult;

use super::{Subject, statements};
use crate::connect::Session;
use crate::query::literal;

/// Statements for the swap, when the new table stands in its place.
///
/// # Errors
/// The server's.
pub(crate) async fn in_swap(session: &Session, source: &Subject) -> DbResult<Vec<String>> {
    // Replacing a function takes from it that it goes with an extension, and nothing else.
    // A variable of the table's row type, compiled before the swap, breaks in that session until the
    // function changes: any change of its catalogue row will do.
    let sql = format!(
        "SELECT pg_catalog.pg_get_functiondef(p.oid) FROM pg_catalog.pg_proc p WHERE p.prokind <> \
         'a' AND EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = \
         'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.refclassid = \
         'pg_catalog.pg_class'::regclass AND d.refobjid = {oid}) UNION ALL SELECT \
         pg_catalog.format('ALTER ROUTINE %s DEPENDS ON EXTENSION %I', d.objid::regprocedure, \
         e.extname) FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_depend x ON x.classid = d.classid \
         AND x.objid = d.objid AND x.deptype = 'x' JOIN pg_catalog.pg_extension e ON e.oid = \
         x.refobjid WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.refclassid = \
         'pg_catalog.pg_class'::regclass AND d.refobjid = {oid} GROUP BY d.objid, e.extname UNION ALL \
         SELECT pg_catalog.format('ALTER ROUTINE %s COST %s', p.oid::regprocedure, p.procost) FROM \
         pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang WHERE l.lanname = \
         'plpgsql' AND CASE WHEN {name} ~ '^[a-zA-Z0-9_]+$' THEN p.prosrc ~* ('\\m' || {name} || \
         '\\M') ELSE pg_catalog.strpos(p.prosrc, {name}) > 0 END \
         AND pg_catalog.pg_has_role(session_user, p.proowner, 'USAGE') AND NOT EXISTS (SELECT FROM \
         pg_catalog.pg_namespace n WHERE n.oid = p.pronamespace AND \
         pg_catalog.starts_with(n.nspname, 'underpin'))",
        oid = source.oid,
        name = literal(&source.name)?
    );
    statements(session, &sql, "the functions", source).await
}
