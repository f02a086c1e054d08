//! The ground that the copy stands on: files that shrink, grow and are exchanged, values out of line,
//! transactions of many parts, databases that speak otherwise.

use std::sync::Arc;
use std::time::{Duration, Instant};

use underpin_core::checkpoint::Checkpoint;
use underpin_core::finding::is_refused;
use underpin_core::key::Frontier;
use underpin_core::plan::Strategy;
use underpin_dialect::{
    ChangeLog, Copy, Database, ErrorKind, Inspect, Request, Shadow, Store, Swap, SwapOutcome,
    Verify,
};
use underpin_postgres::connect::SessionSettings;
use underpin_postgres::options::FileSearch;
use underpin_postgres::{Postgres, options};
use underpin_tests::busy;
use underpin_tests::proxy::{Deed, Proxy};
use underpin_tests::servers::{Flavor, TestDb, pg};

use crate::postgres_steps::{
    LIMIT, Steps, apply_all, both, copy_all, make_table, on_each, open, request, rows, run,
    verify_all,
};

const CHANGE: &str = "ALTER TABLE t ADD n int NOT NULL DEFAULT 7";

/// The rule: the end of the copy is fixed once; whatever is written later is in the log, wherever it stands.
#[test]
fn a_file_that_shrinks_and_grows_again_keeps_its_rows() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        let app = db.client().await.unwrap();
        make_table(&db, 5000).await;
        run(&app, &["ALTER TABLE t SET (autovacuum_enabled = off)"]).await;
        let steps = Steps::begin(&db, CHANGE).await;
        let mut worker = steps.worker().await;
        let (chunks, last) = worker.plan_chunks(None, 500, 100).await.unwrap();
        assert!(last && chunks.len() > 4);
        worker.copy_chunk(1, &chunks[0]).await.unwrap();
        let blocks = "SELECT pg_relation_size('t') / 8192";
        let planned: u64 = rows(&db, blocks).await[0].parse().unwrap();
        run(&app, &["DELETE FROM t WHERE id > 1000", "VACUUM t"]).await;
        let shrunk: u64 = rows(&db, blocks).await[0].parse().unwrap();
        assert!(shrunk * 3 < planned, "{shrunk} of {planned} blocks");
        worker.copy_chunk(1, &chunks[1]).await.unwrap();
        // Chunks behind the end of the file, then rows in blocks that are numbered as before.
        let behind = &chunks[chunks.len() - 2];
        assert_eq!(worker.copy_chunk(1, behind).await.unwrap(), 0);
        run(&app, &["INSERT INTO t SELECT i, -i, 'new' FROM generate_series(10001, 18000) i"])
            .await;
        for chunk in chunks[2..].iter().filter(|chunk| chunk.index != behind.index) {
            worker.copy_chunk(1, chunk).await.unwrap();
        }
        worker.settle().await.unwrap();
        steps.control().await.build_indexes(&steps.spec).await.unwrap();
        apply_all(&mut worker).await;
        let (source, shadow) = both(&db, &steps, "id, u, v").await;
        assert!(source == shadow && source.len() == 9000, "{} {}", source.len(), shadow.len());
    });
}

/// The same for a table that is empty when the copy begins, and for values that stand out of line.
#[test]
fn an_empty_table_and_large_values_arrive() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        let app = db.client().await.unwrap();
        run(
            &app,
            &["CREATE TABLE t (id int PRIMARY KEY, gone int, v text)", "ALTER TABLE t DROP gone"],
        )
        .await;
        let steps = Steps::begin(&db, CHANGE).await;
        let mut worker = steps.worker().await;
        assert_eq!(copy_all(&mut worker, 100).await, 0);
        let large = "(SELECT string_agg(md5(i::text || j), '') FROM generate_series(1, 5000) j)";
        run(&app, &[&format!("INSERT INTO t SELECT i, {large} FROM generate_series(1, 9) i")])
            .await;
        worker.settle().await.unwrap();
        let mut control = steps.control().await;
        control.build_indexes(&steps.spec).await.unwrap();
        apply_all(&mut worker).await;
        run(
            &app,
            &["UPDATE t SET v = v || 'x' WHERE id < 3", "UPDATE t SET id = -id WHERE id = 4"],
        )
        .await;
        let before = rows(&db, "SELECT id, md5(v), length(v) FROM t ORDER BY 1").await;
        assert_eq!(verify_all(&mut worker, 2).await, (0, vec![]));
        let swapped = control.try_swap(&steps.spec, &steps.grip, 5000).await.unwrap();
        assert!(matches!(swapped, SwapOutcome::Swapped { .. }), "{swapped:?}");
        assert_eq!(rows(&db, "SELECT id, md5(v), length(v) FROM t ORDER BY 1").await, before);
        assert_eq!(rows(&db, "SELECT DISTINCT n FROM t").await, ["7"]);
    });
}

/// The rule: an entry bears the id of its whole transaction. A snapshot lists no more than 64 savepoints of
/// one, and tells of none of them.
#[test]
fn entries_of_hundreds_of_savepoints_are_taken_when_all_commit() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        make_table(&db, 400).await;
        let steps = Steps::begin(&db, CHANGE).await;
        let mut worker = steps.worker().await;
        steps.copied(&mut worker).await;
        let (slow, fast) = (db.client().await.unwrap(), db.client().await.unwrap());
        run(&slow, &["BEGIN"]).await;
        for id in 1..=150 {
            let step = format!("SAVEPOINT s; UPDATE t SET v = 'slow' WHERE id = {id}");
            let end = if id % 3 == 0 { "; ROLLBACK TO s" } else { "; RELEASE s" };
            run(&slow, &[&format!("{step}{end}")]).await;
        }
        run(&fast, &["UPDATE t SET v = 'fast' WHERE id = 300"]).await;
        let applied = worker.apply(&Frontier::End, 1000).await.unwrap();
        assert_eq!((applied.entries, applied.left), (1, 0));
        run(&slow, &["COMMIT"]).await;
        assert_eq!(apply_all(&mut worker).await, 100);
        let (source, shadow) = both(&db, &steps, "id, u, v").await;
        assert_eq!(source, shadow);
    });
}

/// The rule: another file than the one the triggers were installed on is never swapped away.
#[test]
fn a_table_that_is_rewritten_after_the_copy_is_not_swapped() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        make_table(&db, 500).await;
        let app = db.client().await.unwrap();
        let steps = Steps::begin(&db, CHANGE).await;
        let mut worker = steps.worker().await;
        steps.copied(&mut worker).await;
        run(
            &app,
            &[
                "DELETE FROM t WHERE id = 7",
                "VACUUM FULL t",
                "UPDATE t SET v = 'moved' WHERE id = 1",
            ],
        )
        .await;
        apply_all(&mut worker).await;
        let (source, shadow) = both(&db, &steps, "id, u, v").await;
        assert_eq!(source, shadow, "rows are found by their keys");
        let swapped = steps.control().await.try_swap(&steps.spec, &steps.grip, 5000).await;
        assert_eq!(swapped.unwrap_err().kind, ErrorKind::SourceChanged);
        assert_eq!(rows(&db, "SELECT count(*) FROM t").await, ["499"]);
    });
}

/// The rule: a crash empties a table that is not logged and no trigger tells of it. Where the shadow is
/// logged, its rows would come back.
#[test]
fn a_table_that_a_crash_empties_is_not_made_a_logged_one() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        run(&db.client().await.unwrap(), &["CREATE UNLOGGED TABLE t (id int PRIMARY KEY)"]).await;
        let mut control = open(&db).await.control().await.unwrap();
        let plan = control.plan(&request("ALTER TABLE t SET LOGGED")).await.unwrap();
        assert!(
            plan.findings.iter().any(|f| f.code == "persistence-changed"),
            "{:?}",
            plan.findings
        );
        assert!(is_refused(&plan.findings));
        let plan = control.plan(&request(CHANGE)).await.unwrap();
        assert!(!is_refused(&plan.findings), "{:?}", plan.findings);
    });
}

/// The rule: what was judged to take an instant and does not is called off.
#[test]
fn a_change_in_place_that_takes_long_lets_everybody_through() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        make_table(&db, 10).await;
        let app = db.client().await.unwrap();
        // On the empty table that it is judged on it takes no time.
        let slow = "CREATE FUNCTION slow() RETURNS int STABLE LANGUAGE plpgsql AS $$ BEGIN IF \
                    to_regclass('underpin_r1.t') IS NULL THEN PERFORM pg_sleep(60); END IF; RETURN 1; \
                    END $$";
        run(&app, &[slow]).await;
        let mut control = open(&db).await.control().await.unwrap();
        let change =
            Request { force_shadow: false, ..request("ALTER TABLE t ADD n int DEFAULT slow()") };
        let plan = control.plan(&change).await.unwrap();
        assert_eq!(plan.strategy, Strategy::Native);
        let altering =
            tokio::spawn(async move { control.alter_natively(&plan.spec.unwrap()).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        let begun = Instant::now();
        run(&app, &["SET statement_timeout = '20s'", "UPDATE t SET v = 'x' WHERE id = 1"]).await;
        assert!(
            begun.elapsed() < busy::allows(begun, Duration::from_secs(10)),
            "{:?}",
            begun.elapsed()
        );
        let error = altering.await.unwrap().unwrap_err();
        assert_eq!(error.kind, ErrorKind::Cancelled, "{error}");
        assert_eq!(rows(&db, "SELECT count(*) FROM t").await, ["10"]);
    });
}

/// A database beside the test's own, in another encoding.
async fn begin_in(
    db: &TestDb,
    encoding: &str,
    rows: &[&str],
) -> (Steps, tokio_postgres::Client, String) {
    let name = format!("{}_{}", db.name(), encoding.to_lowercase());
    let make = format!(
        "CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    );
    run(&db.client().await.unwrap(), &[&make]).await;
    let url = db.url().replace(db.name(), &name);
    let app = pg::connect(&url).await.unwrap();
    run(&app, &["CREATE TABLE t (id text PRIMARY KEY, v text)"]).await;
    run(&app, rows).await;
    let steps = recorded_at(&url).await;
    steps.control().await.prepare(&steps.spec).await.unwrap();
    (steps, app, name)
}

/// A run on the table `t` of the database that the URL leads to.
async fn recorded_at(url: &str) -> Steps {
    let resolved = options::resolve(url, &FileSearch::none(), &|_| None).unwrap();
    let settings = SessionSettings::default();
    let replicas = vec!["none".into()];
    let server =
        Postgres::open(resolved.options, settings, "underpin".into(), replicas).await.unwrap();
    let mut control = server.control().await.unwrap();
    let spec = Arc::new(control.plan(&request(CHANGE)).await.unwrap().spec.unwrap());
    control
        .create_run(&spec, &Checkpoint::begin(), &underpin_dialect::Origin::default())
        .await
        .unwrap();
    let grip = control.take_over(&spec.run_id).await.unwrap();
    Steps { server, spec, grip }
}

/// The rule: where we fall silent while writers wait for us, the server lets them go.
#[test]
fn a_runner_that_freezes_while_it_installs_the_triggers_holds_nobody_up() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        make_table(&db, 10).await;
        let app = db.client().await.unwrap();
        let proxy = Proxy::start(&db.url()).unwrap();
        let steps = recorded_at(&proxy.url(db.name())).await;
        // The triggers stand, and their transaction is open.
        let frozen = proxy.trap(&["SET identity ="], Deed::Hold);
        let mut control = steps.control().await;
        let spec = Arc::clone(&steps.spec);
        let preparing = tokio::spawn(async move { control.prepare(&spec).await });
        let until = Instant::now() + LIMIT;
        while frozen.sprung() == 0 {
            assert!(Instant::now() < until);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let begun = Instant::now();
        run(&app, &["SET statement_timeout = '20s'", "UPDATE t SET v = 'x' WHERE id = 1"]).await;
        assert!(
            begun.elapsed() < busy::allows(begun, Duration::from_secs(8)),
            "{:?}",
            begun.elapsed()
        );
        frozen.release();
        let error = preparing.await.unwrap().unwrap_err();
        assert_eq!(error.kind, ErrorKind::ConnectionLost, "{error}");
        let triggers = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 't'::regclass";
        assert_eq!(rows(&db, triggers).await, ["0"]);
    });
}

/// The rule: the server converts what passes through the program; where it cannot, that is said.
#[test]
fn keys_of_other_encodings_are_bounds_or_an_error_and_never_a_wrong_bound() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        let insert = "INSERT INTO t SELECT chr(i), 'v' FROM generate_series(224, 255) i";
        let (steps, app, name) = begin_in(&db, "LATIN1", &[insert]).await;
        let mut worker = steps.worker().await;
        steps.copied(&mut worker).await;
        run(&app, &["UPDATE t SET v = 'w' WHERE id = 'é'", "DELETE FROM t WHERE id = 'ü'"]).await;
        apply_all(&mut worker).await;
        assert_eq!(verify_all(&mut worker, 3).await, (0, vec![]));
        let equal = format!(
            "SELECT count(*), count(n.id) FROM t LEFT JOIN {} n USING (id, v)",
            steps.shadow()
        );
        let counted = pg::text_rows(&app, &equal).await.unwrap();
        assert_eq!(counted, [[Some("31".to_owned()), Some("31".to_owned())]]);
        drop((worker, steps, app));
        run(&db.client().await.unwrap(), &[&format!("DROP DATABASE {name} WITH (FORCE)")]).await;

        let insert = "INSERT INTO t VALUES ('a', 'v'), (E'\\351', 'v'), ('b', 'v')";
        let (steps, app, name) = begin_in(&db, "SQL_ASCII", &[insert]).await;
        let mut worker = steps.worker().await;
        steps.copied(&mut worker).await;
        let error = worker.plan_ranges(None, 1, 100).await.unwrap_err();
        assert!(error.to_string().contains("UTF8"), "{error}");
        drop((worker, steps, app));
        run(&db.client().await.unwrap(), &[&format!("DROP DATABASE {name} WITH (FORCE)")]).await;
    });
}
