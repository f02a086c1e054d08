//! CHECK constraints, and NOT NULL constraints that were never validated. Those that an index stands
//! behind are in `indexes`, foreign keys in `foreign_keys`.

use underpin_dialect::DbResult;

use super::{Subject, statements};
use crate::connect::Session;
use crate::query::literal;

/// Statements for the twin. A constraint that is NOT VALID stays so: rows that violate it are copied
/// as they are.
///
/// # Errors
/// The server's.
pub(crate) async fn on_twin(
    session: &Session,
    source: &Subject,
    twin: &Subject,
) -> DbResult<Vec<String>> {
    let (oid, twin) = (source.oid, literal(&twin.quoted()?)?);
    let mut sql = format!(
        "SELECT pg_catalog.format('ALTER TABLE %s ADD CONSTRAINT %I %s', {twin}, conname, \
         pg_catalog.pg_get_constraintdef(oid)) FROM pg_catalog.pg_constraint WHERE conrelid = {oid} \
         AND contype = 'c'"
    );
    if source.version >= 180_000 {
        // The twin's NOT NULL was made valid.
        sql.push_str(&format!(
            " UNION ALL SELECT pg_catalog.format('ALTER TABLE %s ALTER COLUMN %I DROP NOT NULL, ADD \
             CONSTRAINT %I %s', {twin}, a.attname, k.conname, \
             pg_catalog.pg_get_constraintdef(k.oid)) FROM pg_catalog.pg_constraint k JOIN \
             pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1] WHERE \
             k.conrelid = {oid} AND k.contype = 'n' AND NOT k.convalidated"
        ));
    }
    statements(session, &sql, "the constraints", source).await
}
