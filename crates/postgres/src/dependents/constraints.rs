//! CHECK constraints, and NOT NULL constraints that were never validated. Those that an index stands
//! behind are in `indexes`, foreign keys in `foreign_keys`.

use underpin_dialect::DbResult;

use super::{Subject, statements};
use crate::connect::Session;
use crate::query::literal;

/// Statements for the twin. A constraint that is NOT VALID stays so.
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

/// What was never validated is checked for rows that are written, and the copy writes rows that violate
/// it: such a constraint is taken from the shadow, and stands again, NOT VALID, when the shadow stands in
/// the table's place.
///
/// # Errors
/// The server's.
pub(crate) async fn set_aside(
    session: &Session,
    shadow: &Subject,
    place: &str,
) -> DbResult<(Vec<String>, Vec<String>)> {
    // What is not enforced at all is no hindrance.
    let enforced = if shadow.version >= 180_000 { "AND conenforced" } else { "" };
    let which = format!(
        "FROM pg_catalog.pg_constraint WHERE conrelid = {} AND contype IN ('c', 'n') AND NOT \
         convalidated {enforced} ORDER BY conname",
        shadow.oid
    );
    let now = format!(
        "SELECT pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I', {}, conname) {which}",
        literal(&shadow.quoted()?)?
    );
    let later = format!(
        "SELECT pg_catalog.format('ALTER TABLE %s ADD CONSTRAINT %I %s', {place}, conname, \
         pg_catalog.pg_get_constraintdef(oid)) || coalesce(pg_catalog.format('; COMMENT ON CONSTRAINT \
         %I ON %s IS ', conname, {place}) || pg_catalog.quote_literal(pg_catalog.obj_description(oid, \
         'pg_constraint')), '') {which}",
        place = literal(place)?
    );
    Ok((
        statements(session, &now, "the constraints", shadow).await?,
        statements(session, &later, "the constraints", shadow).await?,
    ))
}
