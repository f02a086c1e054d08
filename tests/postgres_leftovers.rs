//! `underpin leftovers` on PostgreSQL: what of ours stands in the database is found, and nothing is removed
//! that is not ours, of an open run, or whose run is not on record.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

mod postgres_steps;

use serde_json::Value;
use underpin_tests::cli::{self, Called};
use underpin_tests::runner::Runner;
use underpin_tests::servers::Flavor;

use postgres_steps::{LIMIT, make_table, on_each, rows, run};

const CHANGE: &str = "ALTER TABLE t ADD n int NOT NULL DEFAULT 7";

fn start(url: &str, more: &[&str]) -> Runner {
    let mut words = vec!["run", url, CHANGE, "--strategy", "shadow", "--replica", "none", "--yes"];
    words.extend(more);
    Runner::start(&words).unwrap()
}

fn leftovers(url: &str, more: &[&str]) -> Called {
    let mut words = vec!["leftovers", url];
    words.extend(more);
    let called = cli::call(&words).unwrap();
    assert!([0, 1].contains(&called.code()), "{}", called.complaint());
    called
}

/// `kind name fate` of everything.
fn seen(called: &Called) -> Vec<String> {
    let of = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
    let line = |event: &Value| {
        format!("{} {} {}", of(event, "kind"), of(event, "name"), of(event, "fate"))
    };
    called.events.iter().filter(|event| event["event"] == "leftover").map(line).collect()
}

#[test]
fn an_open_run_is_left_alone_and_a_kept_table_goes_when_it_is_named() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        make_table(&db, 50).await;
        let mut open = start(&db.url(), &["--swap", "wait"]);
        assert!(open.wait_phase("swap", LIMIT).unwrap(), "{}", open.story());
        open.kill9().unwrap();
        let all = seen(&leftovers(&db.url(), &[]));
        for what in ["shadow t ", "change_log ", "trigger underpin_", "function ", "schema "] {
            let line = all.iter().find(|line| line.starts_with(what));
            assert!(line.is_some_and(|line| line.ends_with(" open_run")), "{what}: {all:?}");
        }
        leftovers(&db.url(), &["--remove", "--remove-unknown", "--yes"]);
        assert_eq!(seen(&leftovers(&db.url(), &[])), all, "an open run was touched");
        let done = start(&db.url(), &["--keep-retired"]).wait(LIMIT).unwrap();
        assert!(done.code() == 0, "{}", done.complaint());
        let kept = seen(&leftovers(&db.url(), &[]));
        assert!(kept.contains(&"retired t kept".to_owned()), "{kept:?}");
        leftovers(&db.url(), &["--remove", "--yes", "--older-than", "1h"]);
        assert_eq!(seen(&leftovers(&db.url(), &[])), kept, "younger than was said");
        let removed = leftovers(&db.url(), &["--remove", "--yes", "--older-than", "0s"]);
        assert!(removed.code() == 0, "{:?}", removed.events);
        assert_eq!(seen(&leftovers(&db.url(), &[])), Vec::<String>::new());
        let ours = "SELECT count(*)::text FROM pg_namespace WHERE nspname LIKE 'underpin\\_%'";
        assert_eq!(rows(&db, ours).await, ["0"]);
        assert_eq!(rows(&db, "SELECT count(*)::text FROM t").await, ["50"]);
    });
}

/// The run's record is gone: its objects are proven ours, and go only on request.
#[test]
fn what_is_not_on_record_goes_only_on_request_and_never_unproven() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        make_table(&db, 50).await;
        let mut open = start(&db.url(), &["--swap", "wait"]);
        assert!(open.wait_phase("swap", LIMIT).unwrap(), "{}", open.story());
        open.kill9().unwrap();
        let client = db.client().await.unwrap();
        let id = rows(&db, "SELECT run_id FROM underpin.runs").await.remove(0);
        run(&client, &["CREATE SCHEMA underpin_mine", "CREATE TABLE underpin_mine.t (id int)"])
            .await;
        run(&client, &[&format!("CREATE TABLE underpin_{id}.somebodys (id int)")]).await;
        // Who may not read the record is refused before anything.
        let user = format!("u_{}", db.name());
        run(&client, &[&format!("CREATE ROLE {user} LOGIN")]).await;
        let blind = db.url().replacen("postgres@", &format!("{user}@"), 1);
        let words = ["leftovers", &blind, "--remove", "--remove-unknown", "--yes"];
        let refused = cli::call(&words).unwrap();
        assert_eq!(refused.code(), 3, "{}", refused.complaint());
        run(&client, &["DELETE FROM underpin.runs"]).await;
        let all = seen(&leftovers(&db.url(), &[]));
        assert!(all.contains(&"change_log underpin_log not_on_record".to_owned()), "{all:?}");
        assert!(all.contains(&"schema underpin_mine unproven".to_owned()), "{all:?}");
        assert!(all.contains(&"shadow somebodys unproven".to_owned()), "{all:?}");
        leftovers(&db.url(), &["--remove", "--yes"]);
        assert_eq!(seen(&leftovers(&db.url(), &[])), all, "removed as unknown");
        // A trigger that cannot be dropped, because somebody holds the table, keeps the log.
        run(&client, &["BEGIN", "INSERT INTO t (id) VALUES (1001)"]).await;
        let held = leftovers(&db.url(), &["--remove", "--remove-unknown", "--yes"]);
        assert_eq!(held.code(), 1, "{:?}", held.events);
        run(&client, &["INSERT INTO t (id) VALUES (1002)", "COMMIT"]).await;
        run(&client, &[&format!("DROP TABLE underpin_{id}.somebodys")]).await;
        let removed = leftovers(&db.url(), &["--remove", "--remove-unknown", "--yes"]);
        assert!(removed.code() == 0, "{:?}", removed.events);
        let left = seen(&leftovers(&db.url(), &[]));
        assert_eq!(left, ["shadow t unproven", "schema underpin_mine unproven"]);
        run(&client, &["INSERT INTO t (id) VALUES (1003)", &format!("DROP ROLE {user}")]).await;
        assert_eq!(rows(&db, "SELECT count(*)::text FROM t").await, ["53"]);
    });
}
