//! Everything that a database holds apart from rows, as text: to prove that nothing came, stayed or
//! changed.

use anyhow::{Context, Result};
use mysql_async::Row;
use mysql_async::prelude::Queryable;

use crate::servers::sql;

/// Tables with their definitions and triggers of one database, sorted; of those only whose names hold
/// `part` (all where it is empty). Counters (`AUTO_INCREMENT=`) are left out: any insert moves them.
///
/// # Errors
/// When the server cannot be asked.
pub fn dump(url: &str, schema: &str, part: &str) -> Result<Vec<String>> {
    let (url, schema, part) = (url.to_owned(), schema.to_owned(), part.to_owned());
    sql::block_on(async move {
        let mut conn = sql::connect(&url).await?;
        let mut lines = Vec::new();
        let tables: Vec<String> = conn
            .exec(
                "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? ORDER BY \
                 TABLE_NAME",
                (&schema,),
            )
            .await?;
        for table in tables.into_iter().filter(|table| table.contains(&part)) {
            let quoted = format!("`{schema}`.`{}`", table.replace('`', "``"));
            let row: Option<Row> = conn.query_first(format!("SHOW CREATE TABLE {quoted}")).await?;
            let create: String = row.and_then(|row| row.get(1)).context("no definition")?;
            lines.push(without_counter(&create));
        }
        let triggers: Vec<(String, String, String)> = conn
            .exec(
                "SELECT TRIGGER_NAME, EVENT_OBJECT_TABLE, ACTION_STATEMENT FROM \
                 information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = ? ORDER BY TRIGGER_NAME",
                (&schema,),
            )
            .await?;
        let triggers = triggers.into_iter().filter(|(_, table, _)| table.contains(&part));
        lines.extend(triggers.map(|(name, table, body)| format!("{name} {table} {body}")));
        Ok(lines)
    })
}

/// The names of all databases, sorted.
///
/// # Errors
/// When the server cannot be asked.
pub fn schemas(url: &str) -> Result<Vec<String>> {
    let url = url.to_owned();
    sql::block_on(async move {
        let mut conn = sql::connect(&url).await?;
        Ok(conn.query("SELECT SCHEMA_NAME FROM information_schema.SCHEMATA ORDER BY 1").await?)
    })
}

fn without_counter(create: &str) -> String {
    match create.split_once(" AUTO_INCREMENT=") {
        None => create.to_owned(),
        Some((head, rest)) => {
            format!("{head}{}", rest.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
    }
}
