//! The server's own counters of the statements that touch a table, where `pg_stat_statements` keeps them.

use underpin_core::statements::StatementStats;
use underpin_dialect::DbResult;

use crate::connect::Session;
use crate::names::ANY_RUN;
use crate::query::{cell, first, flag, literal, optional_text, quote, rows, text};

/// The costliest statements that are told, and how many are looked at to find them.
const TOLD_MAX: usize = 200;
const LOOKED_AT_MAX: usize = 1000;

/// Characters of a statement that are told.
const TEXT_MAX: usize = 1000;

/// The extension's schema in this database, and whether the role may see other roles' statements.
const WHERE: &str = "SELECT n.nspname, pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') \
                     FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n \
                     ON n.oid = e.extnamespace WHERE e.extname = 'pg_stat_statements'";

/// The counters of the statements that name `table`, the costliest first.
///
/// `None` where the extension is not installed here, not loaded by the server or older than we know, and
/// where the role may not see other roles' statements.
///
/// # Errors
/// The connection is lost.
pub(crate) async fn read(session: &Session, table: &str) -> DbResult<Option<Vec<StatementStats>>> {
    match ask(session, table).await {
        Ok(found) => Ok(found),
        Err(error) if error.is_connection_lost() => Err(error),
        Err(error) => {
            tracing::debug!(%error, "no counters of statements");
            Ok(None)
        }
    }
}

async fn ask(session: &Session, table: &str) -> DbResult<Option<Vec<StatementStats>>> {
    let attempted = "reading the counters of statements on";
    let row = first(session, WHERE, attempted, table).await?;
    let Some(row) = row.filter(|row| flag(row, 1)) else { return Ok(None) };
    let sql = sql(&quote(&text(&row, 0))?, table)?;
    let mut told = Vec::new();
    for row in rows(session, &sql, attempted, table).await? {
        let Some(statement) = optional_text(&row, 1) else { continue };
        if told.len() < TOLD_MAX && names(&statement, table) {
            told.push(StatementStats {
                digest: text(&row, 0),
                text: statement.chars().take(TEXT_MAX).collect(),
                calls: cell(&row, 2, attempted)?,
                total_ms: cell(&row, 3, attempted)?,
                examined: cell(&row, 4, attempted)?,
                rows: cell(&row, 5, attempted)?,
                without_index: 0,
            });
        }
    }
    Ok(Some(told))
}

/// One row a statement, whoever ran it. Left out is what we run ourselves: it names a schema of a run.
fn sql(schema: &str, table: &str) -> DbResult<String> {
    let (table, ours) = (literal(table)?, literal(ANY_RUN)?);
    Ok(format!(
        "SET LOCAL statement_timeout = '5s'; \
         SELECT s.queryid, s.query, pg_catalog.sum(s.calls), pg_catalog.sum(s.total_exec_time), \
         pg_catalog.sum(s.shared_blks_hit + s.shared_blks_read), pg_catalog.sum(s.rows) \
         FROM {schema}.pg_stat_statements s WHERE s.dbid = (SELECT d.oid FROM pg_catalog.pg_database d \
         WHERE d.datname = pg_catalog.current_database()) \
         AND pg_catalog.strpos(pg_catalog.lower(s.query), pg_catalog.lower({table})) > 0 \
         AND pg_catalog.strpos(s.query, {ours}) = 0 \
         GROUP BY 1, 2 ORDER BY 4 DESC LIMIT {LOOKED_AT_MAX}"
    ))
}

/// Whether a statement names the table: as a word of its own, in whatever case.
fn names(statement: &str, table: &str) -> bool {
    let (statement, table) = (statement.to_lowercase(), table.to_lowercase());
    let part = |character: Option<char>| {
        character.is_some_and(|one| one.is_alphanumeric() || one == '_' || one == '$')
    };
    statement.match_indices(&table).any(|(at, found)| {
        let before = statement.get(..at).and_then(|text| text.chars().next_back());
        let after = statement.get(at + found.len()..).and_then(|text| text.chars().next());
        !part(before) && !part(after)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_a_word_of_its_own() {
        for (statement, found) in [
            ("SELECT * FROM orders", true),
            ("select * from Shop.\"Orders\" where id = $1", true),
            ("SELECT * FROM orders_old", false),
            ("SELECT * FROM preorders, orders", true),
            ("SELECT reorders FROM t", false),
        ] {
            assert_eq!(names(statement, "orders"), found, "{statement}");
        }
    }
}
