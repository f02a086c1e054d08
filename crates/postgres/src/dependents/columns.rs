//! What a column has besides its type and default: statistics target, `n_distinct`. Storage and
//! compression come with the twin's definition.

use underpin_dialect::DbResult;

use super::{Subject, statements};
use crate::connect::Session;

/// Statements for the twin.
///
/// # Errors
/// The server's.
pub(crate) async fn on_twin(
    session: &Session,
    source: &Subject,
    twin: &Subject,
) -> DbResult<Vec<String>> {
    let (oid, twin) = (source.oid, twin.quoted()?);
    let twin = crate::query::literal(&twin)?;
    // Only the two documented names: some servers keep internal ones here.
    let sql = format!(
        "SELECT pg_catalog.format('ALTER TABLE %s ALTER COLUMN %I SET STATISTICS %s', {twin}, \
         attname, attstattarget) FROM pg_catalog.pg_attribute WHERE attrelid = {oid} AND attnum > 0 \
         AND NOT attisdropped AND attstattarget >= 0 UNION ALL SELECT pg_catalog.format('ALTER TABLE \
         %s ALTER COLUMN %I SET (%s)', {twin}, a.attname, (SELECT pg_catalog.string_agg(o, ', ') \
         FROM pg_catalog.unnest(a.attoptions) AS o WHERE pg_catalog.split_part(o, '=', 1) IN \
         ('n_distinct', 'n_distinct_inherited'))) FROM pg_catalog.pg_attribute a WHERE a.attrelid = \
         {oid} AND a.attnum > 0 AND NOT a.attisdropped AND EXISTS (SELECT FROM \
         pg_catalog.unnest(a.attoptions) AS o WHERE pg_catalog.split_part(o, '=', 1) IN \
         ('n_distinct', 'n_distinct_inherited'))"
    );
    statements(session, &sql, "the columns", source).await
}
