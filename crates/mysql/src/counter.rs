//! The `AUTO_INCREMENT` counter: the new table must not hand out a number that the old one gave away.
//!
//! Copying brings the shadow's counter past the greatest value; numbers that were drawn and then rolled
//! back or deleted are carried here.

use underpin_core::plan::RunSpec;
use underpin_dialect::DbResult;

use crate::connect::Session;
use crate::query::{literal, number, quote_table, run};

/// Raises the shadow's counter to the source's where it lags. Works under LOCK TABLES too.
pub(crate) async fn carry(session: &mut Session, spec: &RunSpec) -> DbResult<()> {
    let source = read(session, &spec.schema, &spec.table).await?;
    let shadow = read(session, &spec.schema, &spec.names.shadow).await?;
    if shadow == 0 || source <= shadow {
        return Ok(());
    }
    let sql = format!(
        "ALTER TABLE {} AUTO_INCREMENT = {source}",
        quote_table(&spec.schema, &spec.names.shadow)?
    );
    let object = format!("{}.{}", spec.schema, spec.names.shadow);
    run(&mut session.conn, &sql, "carrying the counter to", &object).await.map(|_| ())
}

/// The next number of a table; 0 where it has no counter.
async fn read(session: &mut Session, schema: &str, table: &str) -> DbResult<u64> {
    let sql = format!(
        "SELECT AUTO_INCREMENT FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_NAME \
         = {}",
        literal(schema)?,
        literal(table)?
    );
    let object = format!("{schema}.{table}");
    number(&mut session.conn, &sql, "reading the counter of", &object).await
}
