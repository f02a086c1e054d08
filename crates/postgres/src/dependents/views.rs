//! Views on the table: replaced by their own text inside the swap, so that they keep their OIDs, and
//! with them their grants and all that depends on them. Views on views need nothing.

use underpin_dialect::DbResult;

use super::{Subject, statements};
use crate::connect::Session;

/// Statements for the swap, when the new table stands in its place.
///
/// # Errors
/// The server's.
pub(crate) async fn in_swap(session: &Session, source: &Subject) -> DbResult<Vec<String>> {
    let sql = format!(
        "SELECT pg_catalog.format('CREATE OR REPLACE VIEW %I.%I%s AS %s', n.nspname, v.relname, \
         coalesce(' WITH (' || (SELECT pg_catalog.string_agg(pg_catalog.format('%s=%L', \
         pg_catalog.split_part(o, '=', 1), pg_catalog.substr(o, pg_catalog.strpos(o, '=') + 1)), ', \
         ') FROM pg_catalog.unnest(v.reloptions) AS o) || ')', ''), \
         pg_catalog.rtrim(pg_catalog.rtrim(pg_catalog.pg_get_viewdef(v.oid)), ';')) FROM \
         pg_catalog.pg_class v JOIN pg_catalog.pg_namespace n ON n.oid = v.relnamespace WHERE \
         v.relkind = 'v' AND EXISTS (SELECT FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_depend d \
         ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid WHERE r.ev_class = \
         v.oid AND r.rulename = '_RETURN' AND d.refclassid = 'pg_catalog.pg_class'::regclass AND \
         d.refobjid = {}) ORDER BY v.oid",
        source.oid
    );
    statements(session, &sql, "the views", source).await
}
