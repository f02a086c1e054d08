//! A new constraint or type that the rows violate stops the run before the swap and names them; after
//! `abort` nothing is left of it. What does not violate anything becomes what the server's own ALTER
//! makes of it: no value is cut, rounded or emptied in another way.
#![allow(clippy::unwrap_used)] // what cannot be had here fails the test

mod postgres_steps;

#[path = "postgres_violations/as_the_server.rs"]
mod as_the_server;
#[path = "postgres_violations/late.rs"]
mod late;
#[path = "postgres_violations/rows.rs"]
mod rows;

use std::process::Command;

use serde_json::Value;
use tokio_postgres::Client;
use underpin_tests::cli::{self, Called};
use underpin_tests::servers::{TestDb, pg, postgres_tool};

/// Everything about the database that a run could leave a trace in.
#[derive(Debug, PartialEq, Eq)]
struct State {
    /// The definitions, as `pg_dump` prints them.
    dump: String,
    /// Number of rows of table `t`, and a sum over them.
    rows: Option<String>,
    /// Triggers, functions and schemas, whoever made them.
    objects: Option<String>,
}

impl State {
    async fn read(db: &TestDb, client: &Client) -> Self {
        // The record of closed runs stays: it is the history.
        let objects = "SELECT string_agg(name, ', ' ORDER BY name) FROM (SELECT 'trigger ' || tgname \
                       FROM pg_trigger UNION ALL SELECT 'function ' || oid::regprocedure FROM pg_proc \
                       WHERE oid >= 16384 UNION ALL SELECT 'schema ' || nspname FROM pg_namespace \
                       WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'underpin') AS o (name)";
        let rows = "SELECT count(*) || ' rows, ' || sum(hashtextextended(t::text, 0)) FROM t";
        Self { dump: dump(db), rows: one(client, rows).await, objects: one(client, objects).await }
    }
}

/// The schema without what differs between two dumps of the same.
fn dump(db: &TestDb) -> String {
    let out = Command::new(postgres_tool(db.endpoints().flavor, "pg_dump").unwrap())
        .args(["--schema-only", "--exclude-schema=underpin", &db.url()])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.lines().filter(|line| !line.contains("restrict ")).collect::<Vec<_>>().join("\n")
}

async fn one(client: &Client, query: &str) -> Option<String> {
    let rows = pg::text_rows(client, query).await.unwrap();
    rows[0][0].clone()
}

fn run(db: &TestDb, change: &str, on_event: impl FnMut(&Value)) -> Called {
    let url = db.url();
    let words = ["run", &url, change, "--strategy", "shadow", "--replica", "none", "--yes"];
    cli::call_watching(&words, on_event).unwrap()
}

/// The run stopped with the code of a violation; what it says has all of `says`, and the way on.
fn stopped(called: &Called, says: &[&str]) {
    let said = called.complaint();
    assert_eq!(called.code(), 1, "{said}");
    let kind = called.event("error").map(|event| event["kind"].clone());
    assert_eq!(kind, Some("violation".into()), "{said}");
    assert!(called.event("swap").is_none(), "it swapped: {:?}", called.events);
    for part in says.iter().chain(&["the same command", "`underpin abort URL public.t`"]) {
        assert!(said.contains(part), "{part:?} is missing in {said:?}");
    }
}

/// Aborts, and proves that everything is as it was.
async fn abort(db: &TestDb, client: &Client, before: &State) {
    let called = cli::call(&["abort", &db.url(), "t"]).unwrap();
    assert!(called.code() == 0, "{}", called.complaint());
    assert_eq!(State::read(db, client).await, *before);
    let open = one(client, "SELECT count(*) FROM underpin.runs WHERE state = 'open'").await;
    assert_eq!(open.as_deref(), Some("0"));
}
