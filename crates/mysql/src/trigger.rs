//! The capture triggers: one narrow append to the change log for each changed row, in the writer's own
//! transaction, holding the key only.

use underpin_core::plan::RunSpec;
use underpin_dialect::DbResult;

use crate::query::{quote, quote_table};
use crate::shape::{KeyPart, Shape};

/// Definition of the change log: one row per changed source row.
pub(crate) fn log_sql(shape: &Shape, comment: &str) -> String {
    let columns =
        Shape::list(&shape.key, |part| format!("{} {} NOT NULL", part.log, part.source_type));
    format!(
        "CREATE TABLE {} (id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, {columns}) \
         ENGINE=InnoDB COMMENT={comment}",
        shape.log
    )
}

/// The session variable by which workers of a run whose way back is kept are told apart: what they write
/// needs no entry. It bears the run's id, so that nobody sets it by chance.
pub(crate) fn own_variable(run_id: &str) -> DbResult<String> {
    Ok(format!("@{}", quote(&format!("underpin_{run_id}"))?))
}

/// The three capture triggers on `table` (unquoted): insert, update, delete.
///
/// An update of the key logs both keys. Texts are compared byte by byte: under most collations 'a' and
/// 'A' are equal, yet the row that bears the one is not found under the other once the collation
/// changes.
pub(crate) fn capture_sql(shape: &Shape, spec: &RunSpec, table: &str) -> DbResult<Vec<String>> {
    let values = |row: &str| Shape::list(&shape.key, |part| format!("{row}.{}", part.source));
    let append =
        |rows: &str| format!("INSERT INTO {} ({}) VALUES {rows}", shape.log, shape.log_key(""));
    let moved: Vec<String> = shape.key.iter().map(moved).collect();
    let bodies = [
        ("INSERT", append(&format!("({})", values("NEW")))),
        (
            "UPDATE",
            format!(
                "IF {} THEN {}; ELSE {}; END IF",
                moved.join(" OR "),
                append(&format!("({}), ({})", values("OLD"), values("NEW"))),
                append(&format!("({})", values("NEW")))
            ),
        ),
        ("DELETE", append(&format!("({})", values("OLD")))),
    ];
    let own = own_variable(&spec.run_id)?;
    bodies
        .iter()
        .zip(&spec.names.triggers)
        .map(|((event, body), name)| {
            let body = if spec.keeps_way_back {
                // Applying to the table that is not live would else log every row anew.
                format!("IF {own} IS NULL THEN {body}; END IF")
            } else {
                body.clone()
            };
            Ok(format!(
                "CREATE TRIGGER {}.{} AFTER {event} ON {} FOR EACH ROW {body}",
                quote(&spec.schema)?,
                quote(name)?,
                quote_table(&spec.schema, table)?
            ))
        })
        .collect()
}

/// Whether the key column differs between the old and the new row.
fn moved(part: &KeyPart) -> String {
    if part.is_text {
        format!("CAST(OLD.{0} AS BINARY) <> CAST(NEW.{0} AS BINARY)", part.source)
    } else {
        format!("OLD.{0} <> NEW.{0}", part.source)
    }
}

/// Fence triggers: until the deadline every write to the table fails with a retryable error instead of
/// vanishing. They follow the table when it is renamed, and expire by themselves.
pub(crate) fn fence_sql(spec: &RunSpec, deadline: &str) -> DbResult<Vec<String>> {
    ["INSERT", "UPDATE", "DELETE"]
        .iter()
        .zip(&spec.names.fences)
        .map(|(event, name)| {
            Ok(format!(
                "CREATE TRIGGER {}.{} BEFORE {event} ON {} FOR EACH ROW \
                 IF UTC_TIMESTAMP(6) < '{deadline}' THEN SIGNAL SQLSTATE '40001' \
                 SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'underpin is swapping this table: try again'; \
                 END IF",
                quote(&spec.schema)?,
                quote(name)?,
                quote_table(&spec.schema, &spec.table)?
            ))
        })
        .collect()
}

/// Drops triggers that may or may not exist.
pub(crate) fn drop_sql(schema: &str, names: &[String]) -> DbResult<Vec<String>> {
    names
        .iter()
        .map(|name| Ok(format!("DROP TRIGGER IF EXISTS {}.{}", quote(schema)?, quote(name)?)))
        .collect()
}
