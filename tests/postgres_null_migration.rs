//! A change that alters nothing must leave nothing behind: every table of a schema that holds all that
//! is carried is copied and swapped, and the schema's dump is the same before and after.

use std::process::Command;
use std::sync::Arc;

use tokio::sync::mpsc;
use underpin_core::alter::{Alter, Syntax};
use underpin_core::plan::Capture;
use underpin_dialect::{Database, IndexTiming, Inspect, Request};
use underpin_engine::{Outcome, Reporter, RunOptions};
use underpin_postgres::connect::SessionSettings;
use underpin_postgres::options::FileSearch;
use underpin_postgres::{Postgres, options};
use underpin_tests::servers::{Flavor, TestDb, pg, postgres_tool};

const SCHEMA: &str = include_str!("postgres_null_migration/schema.sql");

/// The statements for a server of this major version, and the tables to change with a column of each.
fn schema_for(major: u32) -> (String, Vec<(String, String)>) {
    let mut statements = String::new();
    let mut changes = Vec::new();
    let mut wanted = true;
    for line in SCHEMA.lines() {
        if line.trim().is_empty() {
            wanted = true;
        }
        if let Some(from) = line.strip_prefix("-- from: ") {
            wanted = from.trim().parse::<u32>().unwrap() <= major;
        }
        if !wanted {
            continue;
        }
        if let Some(change) = line.strip_prefix("-- change: ") {
            let at = change.rfind(if change.ends_with('"') { " \"" } else { " " }).unwrap();
            let (table, column) = change.split_at(at);
            let (table, column) = match change {
                "\"Odd \"\"Schema\".\"Odd \"\"Table\" \"I d\"" => {
                    ("\"Odd \"\"Schema\".\"Odd \"\"Table\"", "\"I d\"")
                }
                _ => (table, column),
            };
            changes.push((table.trim().to_owned(), column.trim().to_owned()));
        } else if !line.starts_with("--") {
            statements.push_str(line);
            statements.push('\n');
        }
    }
    (statements, changes)
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

async fn change(db: &TestDb, run_id: &str, statement: &str) -> Result<(), String> {
    let resolved = options::resolve(&db.url(), &FileSearch::none(), &|_| None).unwrap();
    let server = Postgres::open(
        resolved.options,
        SessionSettings::default(),
        "underpin".into(),
        vec!["none".into()],
    )
    .await
    .map_err(|error| error.to_string())?;
    let server = Arc::new(server);
    let mut control = server.control().await.map_err(|error| error.to_string())?;
    let request = Request {
        run_id: run_id.into(),
        alter: Alter::parse(statement, Syntax::postgres()).unwrap(),
        statement: statement.into(),
        default_schema: Some("public".into()),
        replicas: vec!["none".into()],
        indexes: IndexTiming::Auto,
        force_shadow: true,
        capture: Capture::default(),
    };
    let plan = control.plan(&request).await.map_err(|error| error.to_string())?;
    drop(control);
    let refusals: Vec<_> = plan
        .findings
        .iter()
        .filter(|finding| finding.severity == underpin_core::finding::Severity::Refusal)
        .collect();
    if !refusals.is_empty() {
        return Err(format!("{refusals:?}"));
    }
    let (_keep, commands) = mpsc::channel(1);
    let spec = plan.spec.ok_or("no spec")?;
    let outcome =
        underpin_engine::start(server, spec, RunOptions::default(), commands, Reporter::silent())
            .await
            .map_err(|error| error.to_string())?;
    match outcome {
        Outcome::Done(_) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

async fn null_migration(flavor: Flavor) {
    let Some(db) = TestDb::new(flavor) else { return };
    let client = db.client().await.unwrap();
    let major = pg::text_rows(&client, "SHOW server_version_num").await.unwrap();
    let major = major[0][0].as_ref().unwrap().parse::<u32>().unwrap() / 10_000;
    let (statements, changes) = schema_for(major);
    if major >= 15 {
        client.batch_execute("SET allow_in_place_tablespaces = on").await.unwrap();
        // It belongs to the whole server: another test may have made it.
        let _made = client.batch_execute("CREATE TABLESPACE nm_space LOCATION ''").await;
    }
    client.batch_execute(&statements).await.unwrap();
    let only = std::env::var("UNDERPIN_TEST_TABLE").ok();
    let before = dump(flavor, &db.url());
    let mut failures = Vec::new();
    for (number, (table, column)) in changes.iter().enumerate() {
        if only.as_ref().is_some_and(|only| only != table) {
            continue;
        }
        let statement = format!("ALTER TABLE {table} ALTER COLUMN {column} SET NOT NULL");
        if let Err(error) = change(&db, &format!("n{number}"), &statement).await {
            failures.push(format!("{table}: {error}"));
        }
    }
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
    let after = dump(flavor, &db.url());
    assert_same(&before, &after);
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
