//! Publications that the table is a member of: the new table takes its place in the same transaction,
//! with its columns and its row filter. Subscribers go on without a refresh.

use underpin_core::mapping::Mapping;
use underpin_dialect::DbResult;

use super::{Subject, mapping_sql, statements};
use crate::connect::Session;
use crate::query::literal;

/// What the swap does before the tables move, and behind.
///
/// # Errors
/// The server's.
pub(crate) async fn in_swap(
    session: &Session,
    source: &Subject,
    mapping: &Mapping,
) -> DbResult<(Vec<String>, Vec<String>)> {
    let table = literal(&source.quoted()?)?;
    let from = format!(
        "FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid \
         WHERE r.prrelid = {}",
        source.oid
    );
    let drops = format!(
        "SELECT pg_catalog.format('ALTER PUBLICATION %I DROP TABLE %s', p.pubname, {table}) {from}"
    );
    let details = if source.version >= 150_000 {
        format!(
            "coalesce(' (' || (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(m.target), ', ' \
             ORDER BY a.attnum) FROM pg_catalog.pg_attribute a JOIN {} ON m.source = a.attname WHERE \
             a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs)) || ')', '') || coalesce(' WHERE \
             (' || pg_catalog.pg_get_expr(r.prqual, r.prrelid) || ')', '')",
            mapping_sql(source, mapping)?
        )
    } else {
        "''".to_owned()
    };
    let adds = format!(
        "SELECT pg_catalog.format('ALTER PUBLICATION %I ADD TABLE %s%s', p.pubname, {table}, \
         {details}) {from}"
    );
    let what = "the publications";
    Ok((
        statements(session, &drops, what, source).await?,
        statements(session, &adds, what, source).await?,
    ))
}
