//! What must hold at the end of a round: by SQL of its own, and the plain server's own ALTER.

use std::collections::HashMap;

use anyhow::{Context, Result, anyhow, bail};

use crate::servers::Flavor;

use super::round::Place;
use super::session::{Cells, Session};
use super::values::quoted;

/// The differences that are shown.
const SHOWN_MAX: usize = 5;

/// Compares the rows of the table with those of its mirror, all columns, both ways; returns how many.
pub(super) fn rows(place: &Place, session: &mut Session) -> Result<u64> {
    let columns = columns_in(place, session, &place.schemas[1])?;
    let there = columns_in(place, session, &place.schemas[0])?;
    if there != columns {
        bail!("the columns are {there:?}, must be {columns:?}");
    }
    let cells: Vec<String> = columns.iter().map(|(name, kind)| cell(place, name, kind)).collect();
    let read = |session: &mut Session, table: &str| -> Result<Vec<Cells>> {
        Ok(session.rows(&format!("SELECT {} FROM {table}", cells.join(", ")))?)
    };
    let mut balance: HashMap<Cells, i64> = HashMap::new();
    let mut count = 0;
    for row in read(session, &place.tables[1])? {
        *balance.entry(row).or_default() += 1;
        count += 1;
    }
    for row in read(session, &place.tables[0])? {
        *balance.entry(row).or_default() -= 1;
    }
    let wrong: Vec<String> = balance
        .iter()
        .filter(|(_, left)| **left != 0)
        .map(|(row, left)| {
            let what = if *left > 0 { "MISSING" } else { "UNEXPECTED" };
            let row: Vec<&str> = row.iter().map(|cell| cell.as_deref().unwrap_or("NULL")).collect();
            format!("{what} ({}) {}", left.abs(), row.join(" | "))
        })
        .collect();
    if wrong.is_empty() {
        return Ok(count);
    }
    let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
    let shown = wrong.get(..std::cmp::min(wrong.len(), SHOWN_MAX)).unwrap_or_default().join("\n");
    bail!("{} of {count} rows differ in {}:\n{shown}", wrong.len(), names.join(" | "))
}

/// Names and types, in order.
fn columns_in(place: &Place, session: &mut Session, schema: &str) -> Result<Vec<(String, String)>> {
    let flavor = place.flavor;
    let text = format!(
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = {} \
         AND table_name = {} ORDER BY ordinal_position",
        quoted(schema, flavor),
        quoted(&place.table, flavor)
    );
    let rows = session.rows(&text).context("reading the columns")?;
    let pair = |row: Cells| {
        let mut cells = row.into_iter();
        Some((cells.next()??, cells.next()??.to_lowercase()))
    };
    Ok(rows.into_iter().filter_map(pair).collect())
}

/// A column as text that tells any two values apart.
fn cell(place: &Place, column: &str, kind: &str) -> String {
    let name = super::values::name(column, place.flavor);
    if place.flavor.is_postgres() {
        return format!("{name}::text");
    }
    match kind {
        // as text they lose digits
        "float" | "double" => format!("CAST(CAST({name} AS DOUBLE) AS CHAR)"),
        _ => format!("HEX(CONCAT({name}))"),
    }
}

/// The structure of the table against that of the mirror, line by line.
pub(super) fn structure(place: &Place, session: &mut Session) -> Result<()> {
    let there = definition(place, session, 0)?;
    let promised = definition(place, session, 1)?;
    let lines = |one: &[String], two: &[String]| -> Vec<String> {
        one.iter().filter(|line| !two.contains(line)).cloned().collect()
    };
    let (odd, missing) = (lines(&there, &promised), lines(&promised, &there));
    if odd.is_empty() && missing.is_empty() {
        return Ok(());
    }
    bail!("the structure differs from the plain ALTER's:\n  is {odd:?}\n  must be {missing:?}")
}

fn definition(place: &Place, session: &mut Session, which: usize) -> Result<Vec<String>> {
    let schema = &place.schemas[which];
    if !place.flavor.is_postgres() {
        let rows = session.rows(&format!("SHOW CREATE TABLE {}", place.tables[which]))?;
        let text = rows.into_iter().next().and_then(|mut row| row.pop().flatten());
        let text = text.ok_or_else(|| anyhow!("no definition"))?;
        let lines = text.lines().map(|line| {
            let line = line.trim_end_matches(',');
            match line.split_once(" AUTO_INCREMENT=") {
                Some((head, rest)) => {
                    format!("{head}{}", rest.trim_start_matches(|c: char| c.is_ascii_digit()))
                }
                None => line.to_owned(),
            }
        });
        return Ok(lines.collect());
    }
    // what belongs to the schema is then named without it
    session.run(&format!("SET search_path = {}", super::values::name(schema, place.flavor)))?;
    let class = format!(
        "(SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE \
         n.nspname = {} AND c.relname = {})",
        quoted(schema, Flavor::PostgresDistro),
        quoted(&place.table, Flavor::PostgresDistro)
    );
    let asks = [
        format!(
            "SELECT concat_ws(' ', 'column', attname, format_type(atttypid, atttypmod), attnotnull, \
             attidentity, attgenerated, attstorage, attcompression, attstattarget, attcollation, \
             attacl::text, pg_get_expr(d.adbin, d.adrelid)) FROM pg_attribute LEFT JOIN pg_attrdef d ON \
             d.adrelid = attrelid AND d.adnum = attnum WHERE attrelid = {class} AND attnum > 0 AND NOT \
             attisdropped ORDER BY attnum"
        ),
        format!(
            "SELECT concat_ws(' ', 'constraint', conname, contype, pg_get_constraintdef(oid), \
             convalidated) FROM pg_constraint WHERE conrelid = {class} ORDER BY conname"
        ),
        format!(
            "SELECT concat_ws(' ', 'index', pg_get_indexdef(indexrelid), indisvalid, indisunique) FROM \
             pg_index WHERE indrelid = {class} ORDER BY indexrelid::regclass::text"
        ),
        format!(
            "SELECT concat_ws(' ', 'table', relkind, relpersistence, relreplident, reloptions::text, \
             relacl::text, relrowsecurity, relowner::regrole) FROM pg_class WHERE oid = {class}"
        ),
        format!(
            "SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgrelid = {class} AND NOT tgisinternal"
        ),
    ];
    let mut lines = Vec::new();
    for ask in asks {
        for row in session.rows(&ask)? {
            let line = row.into_iter().next().flatten().unwrap_or_default();
            // the mirror lives in a schema of its own
            let line = line.replace(" mirror.", " public.").replace("'mirror.", "'public.");
            lines.push(line);
        }
    }
    Ok(lines)
}

/// Nothing of ours but the history of runs, none of them open.
pub(super) fn nothing_left(place: &Place, session: &mut Session) -> Result<()> {
    let schema = quoted(&place.schemas[0], place.flavor);
    let mut found = Vec::new();
    let asks = if place.flavor.is_postgres() {
        vec![
            "SELECT 'table ' || n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON \
             n.oid = c.relnamespace WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN \
             ('information_schema', 'underpin', 'mirror') AND c.relkind IN ('r', 'p')"
                .to_owned(),
            "SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname LIKE 'underpin_%'".to_owned(),
            "SELECT 'trigger ' || tgname FROM pg_trigger WHERE NOT tgisinternal".to_owned(),
            "SELECT 'function ' || proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
             WHERE n.nspname IN ('public', 'underpin')"
                .to_owned(),
        ]
    } else {
        vec![
            format!(
                "SELECT CONCAT('table ', table_schema, '.', table_name) FROM information_schema.tables \
                 WHERE table_schema = {schema}"
            ),
            format!(
                "SELECT CONCAT('trigger ', trigger_name) FROM information_schema.triggers WHERE \
                 trigger_schema = {schema}"
            ),
        ]
    };
    for ask in asks {
        found.extend(session.rows(&ask)?.into_iter().filter_map(|mut row| row.pop().flatten()));
    }
    let named = format!("{}.{}", place.schemas[0], place.table);
    let expected = [format!("table {named}"), format!("table {}.parents", place.schemas[0])];
    found.retain(|thing| !expected.contains(thing));
    if let Some(state) = place.run_state(session)?.filter(|state| state == "open") {
        found.push(format!("a run that is {state}"));
    }
    if found.is_empty() { Ok(()) } else { bail!("left behind: {found:?}") }
}
