//! The table itself: persistence, access method, storage parameters, tablespace, replica identity.

use underpin_dialect::DbResult;

use super::{Subject, statements};
use crate::connect::Session;
use crate::query::literal;

/// The statement that makes the empty twin. Identity columns get sequences of their own there;
/// defaults share the source's sequences.
///
/// # Errors
/// The server's.
pub(crate) async fn create(
    session: &Session,
    source: &Subject,
    private: &str,
) -> DbResult<Vec<String>> {
    let option = "pg_catalog.format('%s%s=%L', prefix, pg_catalog.split_part(o, '=', 1), \
                  pg_catalog.substr(o, pg_catalog.strpos(o, '=') + 1))";
    let sql = format!(
        "SELECT pg_catalog.format('CREATE %sTABLE %I.%I (LIKE %I.%I INCLUDING DEFAULTS INCLUDING \
         GENERATED INCLUDING IDENTITY INCLUDING STORAGE INCLUDING COMPRESSION)%s%s%s', CASE WHEN \
         c.relpersistence = 'u' THEN 'UNLOGGED ' ELSE '' END, {private}, c.relname, n.nspname, \
         c.relname, coalesce(' USING ' || pg_catalog.quote_ident(am.amname), ''), coalesce(' WITH (' \
         || w.options || ')', ''), coalesce(' TABLESPACE ' || pg_catalog.quote_ident(ts.spcname), \
         '')) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN pg_catalog.pg_am am ON am.oid = c.relam LEFT JOIN pg_catalog.pg_tablespace ts ON \
         ts.oid = c.reltablespace LEFT JOIN LATERAL (SELECT pg_catalog.string_agg({option}, ', ') AS \
         options FROM (SELECT '' AS prefix, pg_catalog.unnest(c.reloptions) AS o UNION ALL SELECT \
         'toast.', pg_catalog.unnest(t.reloptions) FROM pg_catalog.pg_class t WHERE t.oid = \
         c.reltoastrelid) AS s) AS w ON true WHERE c.oid = {oid} UNION ALL SELECT \
         pg_catalog.format('ALTER TABLE %I.%I REPLICA IDENTITY %s', {private}, c.relname, CASE \
         c.relreplident WHEN 'f' THEN 'FULL' ELSE 'NOTHING' END) FROM pg_catalog.pg_class c WHERE \
         c.oid = {oid} AND c.relreplident IN ('f', 'n')",
        private = literal(private)?,
        oid = source.oid,
    );
    statements(session, &sql, "the definition", source).await
}
