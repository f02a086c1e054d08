//! What somebody puts on the table after the plan and the swap would lose: triggers and foreign keys stay
//! with the old table when it is renamed. Such a run stops and names them.
//!
//! A foreign key from the table is part of its definition, and grants are by name: neither is looked for
//! here. A trigger on the shadow would fire with our own writes.

use mysql_async::Conn;
use underpin_core::plan::RunSpec;
use underpin_dialect::{DbError, DbResult, ErrorKind};

use crate::fingerprint::file_pattern;
use crate::flavor::Capabilities;
use crate::query::{first, literal, rows, text};

/// Refuses to go on while there are any. Under LOCK TABLES this needs no further lock.
///
/// # Errors
/// `SourceChanged`, naming the first of them.
pub(crate) async fn refuse(
    conn: &mut Conn,
    capabilities: &Capabilities,
    spec: &RunSpec,
) -> DbResult<()> {
    let object = format!("{}.{}", spec.schema, spec.table);
    let stopped = |what: String, next: &str| {
        Err(DbError::new(ErrorKind::SourceChanged, "checking the source", object.clone())
            .said(what)
            .help(format!("The swap would lose it: {next}, then run the same command again")))
    };
    let names = &spec.names;
    let ours = names.triggers.iter().chain(&names.return_triggers).chain(&names.fences);
    let ours: Vec<String> = ours.map(|name| literal(name)).collect::<DbResult<_>>()?;
    let sql = format!(
        "SELECT TRIGGER_NAME, EVENT_OBJECT_TABLE FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = \
         {schema} AND EVENT_OBJECT_TABLE IN ({}, {}) AND TRIGGER_NAME NOT IN ({}) LIMIT 1",
        literal(&spec.table)?,
        literal(&names.shadow)?,
        ours.join(", "),
        schema = literal(&spec.schema)?
    );
    if let Some(row) = first(conn, &sql, "looking for triggers on", &object).await? {
        let what = format!(
            "somebody has put trigger {} on {} since the run began",
            text(&row, 0),
            text(&row, 1)
        );
        return stopped(what, "drop the trigger and make it again after the swap");
    }
    let view = capabilities.innodb_tables_view.replace("TABLES", "FOREIGN");
    let name = |table: &str| -> String {
        let schema = &spec.schema;
        let exact = format!("{}/{}", file_pattern(schema), file_pattern(table));
        let (schema, table) = (schema.to_lowercase(), table.to_lowercase());
        format!("{exact}|{}/{}", file_pattern(&schema), file_pattern(&table))
    };
    // As InnoDB spells the names, whatever the account may see of the other table.
    let sql = format!(
        "SELECT ID, FOR_NAME FROM {view} WHERE REF_NAME REGEXP {} OR REF_NAME IN ({}, {}) LIMIT 1",
        literal(&format!("(?-i)^({}|{})$", name(&spec.table), name(&names.shadow)))?,
        literal(&format!("{}/{}", spec.schema, spec.table))?,
        literal(&format!("{}/{}", spec.schema, names.shadow))?
    );
    let found = rows(conn, &sql, "looking for foreign keys to", &object).await?;
    match found.first() {
        None => Ok(()),
        Some(row) => stopped(
            format!(
                "somebody has made foreign key {} of {} point at the table since the run began",
                text(row, 0),
                text(row, 1)
            ),
            "drop the foreign key and make it again after the swap",
        ),
    }
}
