//! Two tables hold the same: every row as the binary protocol gives it, and the definition as the
//! server prints it. Written apart from the product's verification, and without its expressions.

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value};

/// Rows of each side that are shown where they differ.
const SHOWN: usize = 4;

/// A name in backticks.
pub(crate) fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// One row: each value written out in full.
type Cells = Vec<String>;

/// Every row of the table, its columns in order of the table and without `skipped`, sorted.
async fn all_rows(conn: &mut Conn, table: &str, skipped: &[&str]) -> Result<Vec<Cells>> {
    let columns = columns(conn, table).await?;
    let values: Vec<String> = columns
        .iter()
        .filter(|(name, _)| !skipped.contains(&name.as_str()))
        .map(|(name, kind)| value(&quote(name), kind))
        .collect();
    let select = format!("SELECT {} FROM {}", values.join(", "), quote(table));
    // Bytes as they are stored, floats as they are: text and connection character sets stay out.
    conn.query_drop("SET NAMES binary").await?;
    let found: Vec<Row> = conn.exec(&select, ()).await.with_context(|| select.clone())?;
    conn.query_drop("SET NAMES utf8mb4").await?;
    let mut rows: Vec<Cells> =
        found.into_iter().map(|row| row.unwrap().iter().map(written_out).collect()).collect();
    rows.sort();
    Ok(rows)
}

/// The driver's own way of showing a value cuts long ones.
fn written_out(value: &Value) -> String {
    match value {
        Value::Bytes(bytes) => bytes.escape_ascii().to_string(),
        other => format!("{other:?}"),
    }
}

/// Long values travel as length and digest: a row of several could exceed what a packet holds.
fn value(name: &str, kind: &str) -> String {
    if kind.ends_with("text") || kind.ends_with("blob") {
        format!("CONCAT(LENGTH({name}), ' ', SHA2({name}, 256))")
    } else {
        name.to_owned()
    }
}

/// Names and types of the columns, invisible ones included.
pub(crate) async fn columns(conn: &mut Conn, table: &str) -> Result<Vec<(String, String)>> {
    let sql = "SELECT COLUMN_NAME, DATA_TYPE FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = \
               DATABASE() AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION";
    Ok(conn.exec(sql, (table,)).await?)
}

/// The columns that an INSERT may name.
pub(crate) async fn stored_columns(conn: &mut Conn, table: &str) -> Result<Vec<String>> {
    let sql = "SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND \
               TABLE_NAME = ? AND (EXTRA NOT LIKE '%GENERATED%' OR EXTRA LIKE '%DEFAULT_GENERATED%') \
               ORDER BY ORDINAL_POSITION";
    Ok(conn.exec(sql, (table,)).await?)
}

/// Fails where one table has a row that the other has not.
pub(crate) async fn same_rows(
    conn: &mut Conn,
    found: &str,
    expected: &str,
    skipped: &[&str],
) -> Result<usize> {
    let (found, expected) =
        (all_rows(conn, found, skipped).await?, all_rows(conn, expected, skipped).await?);
    let surplus = missing_from(&expected, &found);
    let lost = missing_from(&found, &expected);
    ensure!(
        surplus.is_empty() && lost.is_empty(),
        "rows differ: {} are there and should not be, {} should be and are not: {}",
        surplus.len(),
        lost.len(),
        lost.iter().take(SHOWN).map(|row| explain(row, &surplus)).collect::<Vec<_>>().join("; ")
    );
    ensure!(found.len() == expected.len(), "{} rows, expected {}", found.len(), expected.len());
    Ok(found.len())
}

/// The rows of `rows` that `sorted` lacks.
fn missing_from<'a>(sorted: &[Cells], rows: &'a [Cells]) -> Vec<&'a Cells> {
    rows.iter().filter(|row| sorted.binary_search(row).is_err()).collect()
}

/// A row that should be there, against the one that stands in its place.
fn explain(row: &Cells, surplus: &[&Cells]) -> String {
    match surplus.iter().find(|other| other.first() == row.first()) {
        None => format!("{row:?}"),
        Some(other) => {
            let cells = row.iter().zip(other.iter()).enumerate();
            let differing: Vec<String> = cells
                .filter(|(_, (expected, found))| expected != found)
                .map(|(index, (expected, found))| format!("#{index} {found} for {expected}"))
                .collect();
            format!("{:?}: {}", row.first(), differing.join(", "))
        }
    }
}

/// Fails where the definitions differ in more than the order of indexes and the table's name.
pub(crate) async fn same_shape(conn: &mut Conn, found: &str, expected: &str) -> Result<()> {
    let (found, expected) = (definition(conn, found).await?, definition(conn, expected).await?);
    ensure!(found == expected, "the shapes differ:\n{found:#?}\nexpected:\n{expected:#?}");
    Ok(())
}

/// The lines of SHOW CREATE TABLE, without name and counter, indexes sorted.
pub(crate) async fn definition(conn: &mut Conn, table: &str) -> Result<Vec<String>> {
    let row: Option<(String, String)> =
        conn.query_first(format!("SHOW CREATE TABLE {}", quote(table))).await?;
    let create = row.context("SHOW CREATE TABLE gave nothing")?.1;
    let mut lines: Vec<String> = Vec::new();
    let mut indexes: Vec<String> = Vec::new();
    for line in create.lines().skip(1) {
        let line = line.trim().trim_end_matches(',');
        // Names of constraints are unique in a database, so that two tables cannot share them.
        let line =
            match line.strip_prefix("CONSTRAINT ").and_then(|rest| rest.split_once(" CHECK ")) {
                Some((_, check)) => format!("CHECK {check}"),
                None => without_counter(line),
            };
        if line.contains("KEY ") && !line.starts_with('`') {
            indexes.push(line);
        } else {
            lines.push(line);
        }
    }
    indexes.sort();
    lines.extend(indexes);
    Ok(lines)
}

fn without_counter(line: &str) -> String {
    match line.split_once(" AUTO_INCREMENT=") {
        Some((head, rest)) if line.starts_with(')') => {
            format!("{head}{}", rest.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        _ => line.to_owned(),
    }
}

/// The number that the table's counter gives next; `None` where it has none.
pub(crate) async fn counter(conn: &mut Conn, table: &str) -> Result<Option<u64>> {
    let row: Option<(String, String)> =
        conn.query_first(format!("SHOW CREATE TABLE {}", quote(table))).await?;
    let create = row.context("SHOW CREATE TABLE gave nothing")?.1;
    let options = create.split_once("\n) ").map_or("", |(_, options)| options);
    let digits = options.split_once(" AUTO_INCREMENT=").map(|(_, rest)| rest);
    Ok(digits.and_then(|rest| rest.split(' ').next()).and_then(|digits| digits.parse().ok()))
}
