//! Comments and security labels on the table and what stands on it from the start. Comments of
//! indexes, rules and foreign keys come with those.

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
    let sql = format!(
        "SELECT pg_catalog.format('COMMENT ON TABLE %s IS %L', {twin}, d.description) FROM \
         pg_catalog.pg_description d WHERE d.classoid = 'pg_catalog.pg_class'::regclass AND d.objoid \
         = {oid} AND d.objsubid = 0 UNION ALL SELECT pg_catalog.format('COMMENT ON COLUMN %s.%I IS \
         %L', {twin}, a.attname, d.description) FROM pg_catalog.pg_description d JOIN \
         pg_catalog.pg_attribute a ON a.attrelid = d.objoid AND a.attnum = d.objsubid WHERE \
         d.classoid = 'pg_catalog.pg_class'::regclass AND d.objoid = {oid} AND d.objsubid > 0 UNION \
         ALL SELECT pg_catalog.format('COMMENT ON CONSTRAINT %I ON %s IS %L', k.conname, {twin}, \
         d.description) FROM pg_catalog.pg_description d JOIN pg_catalog.pg_constraint k ON k.oid = \
         d.objoid WHERE d.classoid = 'pg_catalog.pg_constraint'::regclass AND k.conrelid = {oid} AND \
         k.contype IN ('c', 'n') UNION ALL SELECT pg_catalog.format('COMMENT ON TRIGGER %I ON %s IS \
         %L', t.tgname, {twin}, d.description) FROM pg_catalog.pg_description d JOIN \
         pg_catalog.pg_trigger t ON t.oid = d.objoid WHERE d.classoid = \
         'pg_catalog.pg_trigger'::regclass AND t.tgrelid = {oid} AND NOT t.tgisinternal AND EXISTS \
         (SELECT FROM pg_catalog.pg_trigger w WHERE w.tgrelid = {twin_oid} AND w.tgname = t.tgname) \
         UNION ALL SELECT pg_catalog.format('COMMENT ON POLICY %I ON %s IS %L', p.polname, {twin}, \
         d.description) FROM pg_catalog.pg_description d JOIN pg_catalog.pg_policy p ON p.oid = \
         d.objoid WHERE d.classoid = 'pg_catalog.pg_policy'::regclass AND p.polrelid = {oid} UNION \
         ALL SELECT pg_catalog.format('COMMENT ON TYPE %s IS %L', {twin}, d.description) FROM \
         pg_catalog.pg_description d JOIN pg_catalog.pg_type t ON t.oid = d.objoid WHERE d.classoid = \
         'pg_catalog.pg_type'::regclass AND t.typrelid = {oid} UNION \
         ALL SELECT pg_catalog.format('SECURITY LABEL FOR %I ON TABLE %s IS %L', provider, {twin}, \
         label) FROM pg_catalog.pg_seclabel WHERE classoid = 'pg_catalog.pg_class'::regclass AND \
         objoid = {oid} AND objsubid = 0 UNION ALL SELECT pg_catalog.format('SECURITY LABEL FOR %I ON \
         COLUMN %s.%I IS %L', l.provider, {twin}, a.attname, l.label) FROM pg_catalog.pg_seclabel l \
         JOIN pg_catalog.pg_attribute a ON a.attrelid = l.objoid AND a.attnum = l.objsubid WHERE \
         l.classoid = 'pg_catalog.pg_class'::regclass AND l.objoid = {oid} AND l.objsubid > 0",
        twin = literal(&twin.quoted()?)?,
        oid = source.oid,
        twin_oid = twin.oid,
    );
    statements(session, &sql, "the comments", source).await
}
