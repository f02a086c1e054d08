//! A change that alters nothing must leave nothing behind: every table of a schema that holds all that
//! is carried is copied and swapped, and the schema's dump, the rows and the sequences are the same
//! before and after.
#![allow(clippy::unwrap_used)] // what cannot be had here fails the test

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinSet;
use tokio_postgres::Client;
use underpin_tests::cli;
use underpin_tests::servers::{Flavor, TestDb, pg, postgres_tool};

/// All that the checklist of a table's dependents has; then what somebody somewhere has.
const SCHEMAS: [&str; 3] = [
    include_str!("postgres_null_migration/schema.sql"),
    include_str!("postgres_null_migration/odd.sql"),
    include_str!("postgres_null_migration/extensions.sql"),
];

/// Runs side by side.
const RUNS_AT_ONCE: usize = 4;

/// Fewer tables would not hold the checklist.
const TABLES_MIN: usize = 60;

/// A table to change, and a column of it that is NOT NULL already; both as a statement writes them.
type Change = (String, String);

/// What a server of this major version gets, paragraph by paragraph, and the tables to change: side by
/// side, and one after the other behind them.
fn schema_for(major: u32) -> (Vec<String>, [Vec<Change>; 2]) {
    let mut paragraphs = Vec::new();
    let mut changes = [Vec::new(), Vec::new()];
    for paragraph in SCHEMAS.iter().flat_map(|schema| schema.split("\n\n")) {
        let marks = |mark: &'static str| {
            paragraph.lines().filter_map(move |line| line.strip_prefix(mark)).map(str::trim)
        };
        if marks("-- from: ").any(|from| from.parse::<u32>().unwrap() > major) {
            continue;
        }
        changes[0].extend(marks("-- change: ").map(parted));
        changes[1].extend(marks("-- change alone: ").map(parted));
        let lines = paragraph.lines().filter(|line| !line.starts_with("--"));
        paragraphs.push(lines.collect::<Vec<_>>().join("\n"));
    }
    (paragraphs, changes)
}

/// Table and column, parted by the last blank that is not within a quoted name.
fn parted(change: &str) -> Change {
    let mut blanks = change.rmatch_indices(' ').map(|(at, _)| change.split_at(at));
    let whole = |(_, column): &(&str, &str)| column.matches('"').count() % 2 == 0;
    let (table, column) = blanks.find(whole).unwrap();
    (table.to_owned(), column.trim_start().to_owned())
}

/// The schema as `pg_dump` prints it, without what differs between two dumps of the same.
fn dump(flavor: Flavor, url: &str) -> String {
    let out = Command::new(postgres_tool(flavor, "pg_dump").unwrap())
        .args(["--schema-only", "--exclude-schema=underpin", url])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.lines().filter(|line| !line.contains("restrict ")).collect::<Vec<_>>().join("\n")
}

/// What the dump of a schema does not tell.
#[derive(Debug, PartialEq, Eq)]
struct Contents {
    /// Number and sum of each changed table's rows.
    rows: BTreeMap<String, String>,
    /// State of each sequence.
    sequences: BTreeMap<String, String>,
    /// The rights as they are kept, order of the grants included.
    rights: Vec<Vec<Option<String>>>,
}

impl Contents {
    async fn read(client: &Client, changes: &[Change]) -> Self {
        let mut rows = BTreeMap::new();
        for (table, _) in changes {
            let sql = format!(
                "SELECT count(*) || ' rows, ' || md5(string_agg(r, ',' ORDER BY r)) FROM (SELECT \
                 md5(x::text) AS r FROM {table} x) AS all_rows"
            );
            rows.insert(table.clone(), one(client, &sql).await);
        }
        let sql = "SELECT format('%I.%I', schemaname, sequencename) FROM pg_sequences WHERE schemaname \
                   <> 'underpin'";
        let mut sequences = BTreeMap::new();
        for row in pg::text_rows(client, sql).await.unwrap() {
            let name = row[0].clone().unwrap();
            let sql = format!("SELECT last_value || ', ' || is_called FROM {name}");
            sequences.insert(name, one(client, &sql).await);
        }
        let sql = "SELECT oid::regclass::text, coalesce(relacl, acldefault((CASE relkind WHEN 'S' THEN 's' \
                   ELSE 'r' END)::\"char\", relowner))::text, (SELECT string_agg(attacl::text, ' ' ORDER \
                   BY attname) FROM pg_attribute WHERE attrelid = c.oid) FROM pg_class c WHERE relkind \
                   IN ('r', 'S', 'v') AND relnamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname \
                   IN ('pg_catalog', 'information_schema', 'underpin')) ORDER BY 1";
        let rights = pg::text_rows(client, sql).await.unwrap();
        Self { rows, sequences, rights }
    }
}

async fn one(client: &Client, sql: &str) -> String {
    let found = pg::text_rows(client, sql).await.unwrap_or_else(|error| panic!("{sql}: {error:#}"));
    found[0][0].clone().unwrap_or_default()
}

/// OIDs of the tables: a table that kept its own was not swapped.
async fn oids(client: &Client, changes: &[Change]) -> Vec<String> {
    let mut oids = Vec::new();
    for (table, _) in changes {
        let quoted = table.replace('\'', "''");
        oids.push(one(client, &format!("SELECT '{quoted}'::regclass::oid")).await);
    }
    oids
}

/// Changes each table by the program itself, so many at once; returns what went wrong.
async fn change_all(url: &str, changes: &[Change], at_once: usize) -> Vec<String> {
    let next = std::sync::Arc::new(AtomicUsize::new(0));
    let mut runs = JoinSet::new();
    for _ in 0..at_once {
        let (next, url, changes) = (next.clone(), url.to_owned(), changes.to_owned());
        runs.spawn_blocking(move || {
            let mut failures = Vec::new();
            while let Some((table, column)) = changes.get(next.fetch_add(1, Ordering::SeqCst)) {
                let statement = format!("ALTER TABLE {table} ALTER COLUMN {column} SET NOT NULL");
                let words =
                    ["run", &url, &statement, "--strategy", "shadow", "--replica", "none", "--yes"];
                let called = cli::call(&words).unwrap();
                if called.code() != 0 {
                    failures.push(format!(
                        "{table}: {} {}",
                        called.complaint(),
                        called.findings().join("\n")
                    ));
                }
            }
            failures
        });
    }
    runs.join_all().await.concat()
}

async fn null_migration(flavor: Flavor) {
    let Some(db) = TestDb::new(flavor) else { return };
    let client = db.client().await.unwrap();
    let major = one(&client, "SHOW server_version_num").await.parse::<u32>().unwrap() / 10_000;
    let (paragraphs, [mut together, mut alone]) = schema_for(major);
    if major >= 15 {
        client.batch_execute("SET allow_in_place_tablespaces = on").await.unwrap();
        // It belongs to the whole server: another test may have made it.
        let _made = client.batch_execute("CREATE TABLESPACE nm_space LOCATION ''").await;
    }
    for paragraph in paragraphs {
        let made = client.batch_execute(&paragraph).await;
        made.unwrap_or_else(|error| panic!("{paragraph}: {error:?}"));
    }
    if let Ok(only) = std::env::var("UNDERPIN_TEST_TABLE") {
        together.retain(|(table, _)| *table == only);
        alone.retain(|(table, _)| *table == only);
    } else {
        let tables = together.len() + alone.len();
        assert!(tables >= TABLES_MIN, "{tables} tables");
    }
    let changes = [together.clone(), alone.clone()].concat();
    let (before, held) = (dump(flavor, &db.url()), Contents::read(&client, &changes).await);
    let empty: Vec<_> = held.rows.iter().filter(|(_, sum)| sum.is_empty()).collect();
    assert!(empty.iter().all(|(table, _)| *table == "empty_one"), "without rows: {empty:?}");
    let old = oids(&client, &changes).await;
    let mut failures = change_all(&db.url(), &together, RUNS_AT_ONCE).await;
    failures.extend(change_all(&db.url(), &alone, 1).await);
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
    assert_same(&before, &dump(flavor, &db.url()));
    assert_eq!(Contents::read(&client, &changes).await, held);
    for (number, (table, _)) in changes.iter().enumerate() {
        assert_ne!(old[number], oids(&client, &changes).await[number], "{table} was not swapped");
    }
}

fn assert_same(before: &str, after: &str) {
    if before == after {
        return;
    }
    let gone: Vec<_> = before.lines().filter(|line| !after.contains(line)).collect();
    let new: Vec<_> = after.lines().filter(|line| !before.contains(line)).collect();
    std::fs::write(std::env::temp_dir().join("underpin-before.sql"), before).unwrap();
    std::fs::write(std::env::temp_dir().join("underpin-after.sql"), after).unwrap();
    panic!("the dump differs:\n- {}\n+ {}", gone.join("\n- "), new.join("\n+ "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_nothing_changes_nothing_on_the_distributions_server() {
    null_migration(Flavor::PostgresDistro).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_nothing_changes_nothing_on_the_oldest() {
    null_migration(Flavor::Postgres14).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_nothing_changes_nothing_on_the_newest() {
    null_migration(Flavor::Postgres18).await;
}

/// Not part of the matrix: run by hand.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "outside of the matrix"]
async fn a_change_of_nothing_changes_nothing_in_between() {
    null_migration(Flavor::Postgres16).await;
    null_migration(Flavor::Postgres17).await;
}
