//! From "invalid input syntax for type integer" to the row a person can look at.
//!
//! Runs only after a failure, outside any lock on the live table, with bounded statements: it tries
//! smaller and smaller parts of what failed and rolls each back. What it cannot find out it leaves out;
//! the server's own words always stay.

use std::time::{Duration, Instant};

use underpin_core::alter::{Syntax, Token, lex};
use underpin_core::key::KeyRange;
use underpin_dialect::{DbError, ErrorKind};

use crate::changelog::{delete_sql, pending_keys};
use crate::connect::{Session, users_meanings};
use crate::copy::{blocks_predicate, copy_sql};
use crate::kept;
use crate::query::{cell, first, literal, rows, run, text};
use crate::shape::Shape;
use crate::worker::Worker;

/// Time that a search for the culprit may take.
const SEARCH_TIME_MAX: Duration = Duration::from_secs(20);

/// Tries of a search by halves: enough for 2^32 blocks and the rows of one.
const TRIES_MAX: u32 = 48;

/// Rows that a block may hold at most: its bytes over those of the smallest row, for blocks of 32 kB.
const PLACES_A_BLOCK: u64 = 2048;

/// Groups of duplicates that are named.
const GROUPS_MAX: u32 = 3;

/// Names the row of a chunk whose value the new shape cannot hold.
pub(crate) async fn chunk_value(worker: &mut Worker, range: &KeyRange, error: DbError) -> DbError {
    let error = with_help(&worker.shape, error);
    let Ok(predicate) = blocks_predicate(&worker.shape, range) else { return error };
    name_culprit(worker, &predicate, "", error).await
}

/// Names the row of a pending key whose value the new shape cannot hold.
pub(crate) async fn pending_value(worker: &mut Worker, error: DbError) -> DbError {
    let error = with_help(&worker.shape, error);
    let shape = &worker.shape;
    // Keys that are to do are looked at as well: they fail in the same way.
    let predicate = format!(
        "EXISTS (SELECT 1 FROM (SELECT {} FROM {} AS l UNION ALL SELECT * FROM {} AS l) AS underpin_p \
         WHERE {})",
        shape.log_key("l."),
        shape.todo,
        pending_keys(shape),
        shape.source_meets()
    );
    let before = format!("{};", delete_sql(shape));
    name_culprit(worker, &predicate, &before, error).await
}

/// Names rows of the source that are duplicates under the violated index.
///
/// The server names the index; its definition has the columns, as SQL text over the shadow's columns. The
/// search groups the source by them, converted as they would be. Nothing that the server says becomes
/// SQL: it holds values of rows too.
pub(crate) async fn duplicate(session: &Session, shape: &Shape, mut error: DbError) -> DbError {
    let help = match shape.kept {
        None => {
            "Two rows of the table clash under an index of the new shape. Mend the rows or the statement; \
             the source is untouched"
        }
        Some(_) => {
            "Two rows of the table clash under an index of the other shape. Mend the rows; the table that \
             is live stays"
        }
    };
    error.help = Some(help.to_owned());
    let said = error.server.clone().unwrap_or_default();
    let definition = definition(session, shape, &said).await;
    let Some(columns) = columns_of(&definition) else { return error };
    let scope = scope_of(&definition);
    let Ok(sql) = duplicates_sql(shape, &columns, &scope) else { return error };
    let object = shape.table.clone();
    let bounded = format!(
        "BEGIN READ ONLY; SET LOCAL ROLE {}; {}; SET LOCAL statement_timeout = {}; {sql}; ROLLBACK",
        shape.owner,
        users_meanings(),
        SEARCH_TIME_MAX.as_millis()
    );
    match rows(session, &bounded, "naming duplicates of", &object).await {
        Ok(found) if !found.is_empty() => {
            let groups: Vec<String> = found.iter().map(|row| text(row, 0)).collect();
            error.object = format!("{object}; rows that share a value: {}", groups.join("; "));
        }
        Ok(_) => {}
        Err(_) => {
            let _ = run(session, "ROLLBACK", "rolling back on", &object).await;
        }
    }
    error
}

/// Which rows an index tells apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Scope {
    /// The predicate of a partial index, over the shadow's names.
    predicate: Option<String>,
    /// NULLs are equal to each other.
    nulls_equal: bool,
}

/// The definition of the index that the server names first, from the run's own steps; empty where there
/// is none.
async fn definition(session: &Session, shape: &Shape, said: &str) -> String {
    let Some(Ok(name)) = said.split('"').nth(1).map(literal) else { return String::new() };
    // On the way back the shadow's indexes were not ours to make.
    let Ok(shadow) = literal(&shape.places.shadow) else { return String::new() };
    let sql = format!(
        "SELECT definition FROM (SELECT 1, pg_catalog.pg_get_indexdef(i.indexrelid) FROM \
         pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = \
         pg_catalog.to_regclass({shadow}) AND c.relname = {name} UNION ALL SELECT 2, CASE sql WHEN '' \
         THEN afterwards ELSE sql END FROM {} WHERE stage = 'index' AND name = {name}) AS found (place, \
         definition) ORDER BY place LIMIT 1",
        shape.steps
    );
    let found = first(session, &sql, "reading the definition of an index of", &shape.table).await;
    found.ok().flatten().map(|row| text(&row, 0)).unwrap_or_default()
}

/// What stands behind the columns in a definition of the server's own spelling.
fn scope_of(definition: &str) -> Scope {
    let tokens = lex(definition, Syntax::postgres()).unwrap_or_default();
    let mut scope = Scope::default();
    let (mut from, mut end) = (None, definition.len());
    let mut depth = 0_i32;
    for token in tokens.iter().filter(|token| !token.is_trivia()) {
        match token.text {
            "(" | "[" => depth += 1,
            ")" | "]" => depth -= 1,
            _ if depth > 0 => {}
            // The only place of this word: CREATE UNIQUE INDEX has no IF NOT EXISTS here.
            _ if token.is_word("DISTINCT") => scope.nulls_equal = true,
            _ if token.is_word("WHERE") => from = Some(token.end()),
            // Another statement begins.
            ";" if from.is_some() => {
                end = token.offset;
                break;
            }
            _ => {}
        }
    }
    scope.predicate =
        from.and_then(|from| definition.get(from..end)).map(|sql| sql.trim().to_owned());
    scope
}

/// SELECT of one text per group of rows that agree in `columns`, which are SQL over the shadow's names.
fn duplicates_sql(
    shape: &Shape,
    columns: &str,
    scope: &Scope,
) -> underpin_dialect::DbResult<String> {
    let converted = Shape::list(&shape.pairs, |pair| {
        format!("({})::{} AS {}", pair.value, pair.target_type.full, pair.target)
    });
    let shown = shape.key_shown(|part| format!("{}.{}", shape.places.source, part.source))?;
    let nulls = if scope.nulls_equal { "true" } else { "bool_and(ROW({columns}) IS NOT NULL)" };
    Ok(format!(
        "SELECT left(string_agg(underpin_key, ' and ' ORDER BY length(underpin_key), underpin_key), 200) \
         FROM (SELECT {shown} AS underpin_key, {converted} FROM ONLY {}) AS underpin_v WHERE ({}) GROUP \
         BY {columns} HAVING count(*) > 1 AND {} LIMIT {GROUPS_MAX}",
        shape.places.source,
        scope.predicate.as_deref().unwrap_or("true"),
        nulls.replace("{columns}", columns),
    ))
}

/// `a, lower(b)` of `… USING btree (a, lower(b) text_ops DESC) …` in the server's own spelling: a column, a
/// call of a function, or an expression in brackets; what follows it in each place is left out.
fn columns_of(definition: &str) -> Option<String> {
    let tokens: Vec<Token<'_>> = lex(definition, Syntax::postgres()).ok()?;
    let mut tokens = tokens.iter().filter(|token| !token.is_trivia()).peekable();
    while !tokens.next()?.is_word("USING") {}
    // The method, then the bracket.
    tokens.next()?;
    let open = tokens.next_if(|token| token.is_punct("("))?;
    let mut columns = Vec::new();
    let (mut begin, mut end) = (open.end(), None);
    let mut depth = 0_i32;
    loop {
        let token = tokens.next()?;
        if depth == 0 && (token.is_punct(",") || token.is_punct(")")) {
            columns.push(definition.get(begin..end?)?.trim());
            if token.is_punct(")") {
                return Some(columns.join(", "));
            }
            (begin, end) = (token.end(), None);
            continue;
        }
        if token.is_punct("(") {
            depth += 1;
        } else if token.is_punct(")") {
            depth -= 1;
        }
        let goes_on = tokens.peek().is_some_and(|next| next.is_punct("(") || next.is_punct("."));
        if end.is_none() && depth == 0 && !token.is_punct(".") && (token.is_punct(")") || !goes_on)
        {
            end = Some(token.end());
        }
    }
}

fn with_help(shape: &Shape, mut error: DbError) -> DbError {
    let help = match shape.kept {
        None => {
            "The new shape cannot hold this value. Mend the row or the statement; the source is untouched"
        }
        Some(_) => {
            "The other shape cannot hold this value. Mend the row; the table that is live stays"
        }
    };
    error.help = Some(help.to_owned());
    error
}

/// `before` is run before each try, in its transaction.
async fn name_culprit(
    worker: &mut Worker,
    predicate: &str,
    before: &str,
    mut error: DbError,
) -> DbError {
    if let Some((row, place)) = culprit(worker, predicate, before).await {
        let column = column_of(worker, &place).await.unwrap_or_default();
        error.object = format!("{}; row {row}{column}", worker.shape.table);
    }
    error
}

/// The column whose value of the row at this place the shadow's type cannot hold, as `, column a`.
async fn column_of(worker: &mut Worker, place: &str) -> Option<String> {
    let pairs: Vec<_> = worker.shape.written().into_iter().cloned().collect();
    for pair in pairs {
        let sql = format!(
            "BEGIN READ ONLY; {}; SELECT {} FROM ONLY {} WHERE {place} LIMIT 1; ROLLBACK",
            worker.as_user(),
            pair.target_type.assigned(&pair.value),
            worker.shape.places.source
        );
        let object = worker.shape.table.clone();
        if let Err(error) = run(&worker.session, &sql, "trying a column of", &object).await {
            run(&worker.session, "ROLLBACK", "rolling back on", &object).await.ok()?;
            if error.kind == ErrorKind::DataError {
                return Some(format!(", column {}", pair.name));
            }
        }
    }
    None
}

/// The key of the first row, in the order of the file, that cannot be copied, and its place.
async fn culprit(worker: &mut Worker, predicate: &str, before: &str) -> Option<(String, String)> {
    let begun = Instant::now();
    let ctid = format!("{}.ctid", worker.shape.places.source);
    let (mut low, mut high) = (0, blocks(worker).await?);
    let within = |from: u64, until: u64| {
        format!("{predicate} AND {ctid} >= '({from},0)'::tid AND {ctid} < '({until},0)'::tid")
    };
    let mut tries = 0;
    // First the block, then the place in it.
    while high > low + 1 && tries < TRIES_MAX && begun.elapsed() < SEARCH_TIME_MAX {
        let middle = low + (high - low) / 2;
        if copies_badly(worker, before, &within(low, middle)).await? {
            high = middle;
        } else {
            low = middle;
        }
        tries += 1;
    }
    let block = low;
    let within = |from: u64, until: u64| {
        format!(
            "{predicate} AND {ctid} >= '({block},{from})'::tid AND {ctid} < '({block},{until})'::tid"
        )
    };
    (low, high) = (0, PLACES_A_BLOCK);
    while high > low + 1 && tries < TRIES_MAX && begun.elapsed() < SEARCH_TIME_MAX {
        let middle = low + (high - low) / 2;
        if copies_badly(worker, before, &within(low, middle)).await? {
            high = middle;
        } else {
            low = middle;
        }
        tries += 1;
    }
    if !copies_badly(worker, before, &within(low, high)).await? {
        return None;
    }
    let shape = &worker.shape;
    let shown = shape.key_shown(|part| format!("{}.{}", shape.places.source, part.source)).ok()?;
    let sql = format!(
        "BEGIN READ ONLY; {}; SELECT {shown} FROM ONLY {} WHERE {} LIMIT 1; ROLLBACK",
        worker.as_owner(),
        shape.places.source,
        within(low, high)
    );
    let row = first(&worker.session, &sql, "naming the row of", &shape.table).await.ok()??;
    Some((text(&row, 0), within(low, high)))
}

/// Blocks of the source as it is now.
async fn blocks(worker: &mut Worker) -> Option<u64> {
    let sql = format!(
        "SELECT pg_relation_size({}::regclass) / current_setting('block_size')::bigint",
        crate::query::literal(&worker.shape.places.source).ok()?
    );
    let row = first(&worker.session, &sql, "measuring", &worker.shape.table).await.ok()??;
    cell(&row, 0, "measuring").ok()
}

/// Whether copying these rows fails on a value; rolled back. `None` where that cannot be told.
async fn copies_badly(worker: &mut Worker, before: &str, predicate: &str) -> Option<bool> {
    let shape = &worker.shape;
    let copy = match &shape.kept {
        None => copy_sql(shape, predicate),
        Some(kept) => {
            let source = &shape.places.source;
            let keys =
                Shape::list(&shape.key, |part| format!("{source}.{} AS {}", part.source, part.log));
            kept::write_sql(
                shape,
                kept,
                &format!("SELECT {keys} FROM ONLY {source} WHERE {predicate}"),
            )
        }
    };
    let sql = format!(
        "BEGIN; {}; SET LOCAL statement_timeout = {}; {before} {copy}; ROLLBACK",
        worker.as_user(),
        SEARCH_TIME_MAX.as_millis(),
    );
    let object = worker.shape.table.clone();
    match run(&worker.session, &sql, "trying rows of", &object).await {
        Ok(_) => Some(false),
        Err(error) => {
            run(&worker.session, "ROLLBACK", "rolling back on", &object).await.ok()?;
            (error.kind == ErrorKind::DataError).then_some(true)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scope_of_an_index_stands_behind_its_columns() {
        let made = |behind: &str| {
            scope_of(&format!("SET LOCAL x = ''; CREATE UNIQUE INDEX \"WHERE\" ON s.t {behind}"))
        };
        assert_eq!(made("USING btree (a, ((b IS DISTINCT FROM c)))"), Scope::default());
        let found = made("USING btree (a) NULLS NOT DISTINCT WITH (fillfactor='70')");
        assert_eq!(found, Scope { predicate: None, nulls_equal: true });
        let found = made("USING btree (a) INCLUDE (b) WHERE ((b IS DISTINCT FROM 1) AND (a > 2))");
        let predicate = Some("((b IS DISTINCT FROM 1) AND (a > 2))".to_owned());
        assert_eq!(found, Scope { predicate, nulls_equal: false });
        let found = made("EXCLUDE USING gist (a WITH &&) WHERE (b); COMMENT ON INDEX x IS ';'");
        assert_eq!(found, Scope { predicate: Some("(b)".to_owned()), nulls_equal: false });
    }

    #[test]
    fn the_columns_of_an_index_stand_in_its_definition() {
        let of = |list: &str| {
            let made = format!(
                "SET LOCAL x = ''; CREATE UNIQUE INDEX \"USING\" ON s.t USING btree {list}"
            );
            columns_of(&made)
        };
        for (list, columns) in [
            ("(a)", "a"),
            ("(a, \"b, c\") INCLUDE (d) WHERE (e > 1)", "a, \"b, c\""),
            (
                "(lower((v)::text) COLLATE \"C\" text_pattern_ops DESC NULLS LAST, b)",
                "lower((v)::text), b",
            ),
            ("(a WITH =, f(b) WITH &&) WHERE (c); COMMENT ON INDEX x IS ';'", "a, f(b)"),
            ("(((a + b)), s.f(a, b) int4_ops (x='1'))", "((a + b)), s.f(a, b)"),
            (
                "(EXTRACT(year FROM a), COALESCE(b, ')'::text))",
                "EXTRACT(year FROM a), COALESCE(b, ')'::text)",
            ),
        ] {
            assert_eq!(of(list), Some(columns.to_owned()), "{list}");
        }
        assert_eq!(columns_of(""), None);
        assert_eq!(of("(a"), None);
    }
}
