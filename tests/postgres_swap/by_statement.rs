//! Capture by statement (`--capture statement`): the keys come from what each statement changed, and the
//! run keeps to it.

use futures_util::SinkExt;
use tokio_postgres::Client;
use underpin_core::key::Frontier;
use underpin_core::plan::Capture;
use underpin_dialect::{ChangeLog, ErrorKind, Request, Shadow};
use underpin_tests::mirrored::{self, Settings, Writers};
use underpin_tests::proxy::{Deed, Proxy};
use underpin_tests::servers::{Flavor, TestDb};
use underpin_tests::workload::Layout;

use crate::postgres_runs::{between_the_locks, spring, start, succeed};
use crate::postgres_steps::{
    Steps, apply_all, both, make_table, on_each, request, rows, run, verify_all,
};
use crate::{Ready, swapped};

const CHANGE: &str = "ALTER TABLE t ADD n int NOT NULL DEFAULT 7";

/// Prepares the change with capture by statement, and copies.
async fn ready(db: &TestDb) -> Ready {
    let request = Request { capture: Capture::Statement, ..request(CHANGE) };
    let steps = Steps::recorded_for(db, &request).await;
    steps.control().await.prepare(&steps.spec).await.unwrap();
    let mut worker = steps.worker().await;
    steps.copied(&mut worker).await;
    Ready { steps, worker }
}

/// Our triggers on a table: how many fire for rows, how many for statements, and whether all always do.
async fn triggers(db: &TestDb, table: &str) -> Vec<String> {
    let sql = format!(
        "SELECT count(*) FILTER (WHERE tgtype & 1 = 1), count(*) FILTER (WHERE tgtype & 1 = 0), \
         bool_and(tgenabled = 'A') FROM pg_trigger WHERE tgrelid = '{table}'::regclass AND tgname ~ \
         '^underpin_'"
    );
    rows(db, &sql).await
}

/// Statements with the number of entries that each must leave in the log.
const STATEMENTS: [(&str, u64); 13] = [
    ("INSERT INTO t SELECT i, -i, 'new' FROM generate_series(101, 150) i", 50),
    ("UPDATE t SET v = NULLIF(v, '') || 'x' WHERE id <= 20", 2 * 20),
    ("DELETE FROM t WHERE id BETWEEN 21 AND 30", 10),
    ("UPDATE t SET v = 'nobody' WHERE id = -1", 0),
    // Both ways, and neither.
    (
        "INSERT INTO t VALUES (1, 10, 'x'), (200, 2000, 'x') ON CONFLICT (id) DO UPDATE SET v = 'upsert'",
        1 + 2,
    ),
    ("INSERT INTO t VALUES (2, 20, 'x'), (201, 2010, 'x') ON CONFLICT DO NOTHING", 1),
    // Keys move: to free ones, and each to the next one's place.
    ("UPDATE t SET id = id + 1000 WHERE id BETWEEN 31 AND 35", 2 * 5),
    (
        "UPDATE t SET id = -id WHERE id BETWEEN 41 AND 44; UPDATE t SET id = 41 + (2 - id) % 4 WHERE id < 0",
        16,
    ),
    // Two changes of the table in one statement.
    (
        "WITH gone AS (DELETE FROM t WHERE id = 51 RETURNING *) INSERT INTO t SELECT id + 5000, u, 'moved' \
         FROM gone",
        2,
    ),
    (
        "BEGIN; SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; UPDATE t SET v = 'kept' WHERE id = 52; COMMIT",
        2,
    ),
    (
        "SET session_replication_role = replica; DELETE FROM t WHERE id = 53; RESET session_replication_role",
        1,
    ),
    // A cascade.
    ("DELETE FROM owner WHERE id = 1", 3),
    // Unique values change places.
    (
        "BEGIN; UPDATE t SET u = NULL WHERE id = 54; UPDATE t SET u = 540 WHERE id = 55; UPDATE t SET u = \
         550 WHERE id = 54; COMMIT",
        6,
    ),
];

async fn copy_in(client: &Client, rows: &str) {
    let sink = client.copy_in("COPY t (id, u, v) FROM STDIN").await.unwrap();
    let mut sink = std::pin::pin!(sink);
    sink.send(std::io::Cursor::new(rows.to_owned())).await.unwrap();
    sink.close().await.unwrap();
}

#[test]
fn whatever_changes_rows_is_captured_by_statement() {
    on_each(&Flavor::POSTGRES_MATRIX, async |db| {
        make_table(&db, 100).await;
        let app = db.client().await.unwrap();
        run(
            &app,
            &[
                "CREATE TABLE owner (id int PRIMARY KEY)",
                "INSERT INTO owner VALUES (1), (2)",
                "ALTER TABLE t ADD o int REFERENCES owner ON DELETE CASCADE",
                "UPDATE t SET o = 1 WHERE id > 97",
            ],
        )
        .await;
        let mut ready = ready(&db).await;
        assert_eq!(triggers(&db, "t").await, ["0/4/t"]);
        for (statement, entries) in STATEMENTS {
            run(&app, &[statement]).await;
            assert_eq!(apply_all(&mut ready.worker).await, entries, "{statement}");
            let (source, shadow) = both(&db, &ready.steps, "id, u, v, o").await;
            assert_eq!(source, shadow, "{statement}");
        }
        copy_in(&app, "301\t1\ta\n302\t\\N\tb\n303\t3\tc\n").await;
        assert_eq!(apply_all(&mut ready.worker).await, 3);
        if rows(&db, "SELECT current_setting('server_version_num')::int >= 150000").await == ["t"] {
            let merge = "MERGE INTO t USING (VALUES (301), (302), (400)) AS s(id) ON t.id = s.id WHEN \
                         MATCHED AND s.id = 301 THEN DELETE WHEN MATCHED THEN UPDATE SET v = 'merged' WHEN \
                         NOT MATCHED THEN INSERT (id) VALUES (s.id)";
            run(&app, &[merge]).await;
            assert_eq!(apply_all(&mut ready.worker).await, 1 + 2 + 1);
        }
        assert_eq!(verify_all(&mut ready.worker, 20).await, (0, vec![]));
        run(&app, &["UPDATE t SET v = 'at the lock' WHERE id = 60"]).await;
        assert_eq!(swapped(&ready.swap().await), 2);
        assert_eq!(rows(&db, "SELECT v, n FROM t WHERE id = 60").await, ["at the lock/7"]);
        for table in ["t", "underpin_r1_old.t"] {
            assert_eq!(triggers(&db, table).await, ["0/0/null"], "{table}");
        }
        ready.finish().await;
    });
}

#[test]
fn a_truncate_and_an_abort_find_the_triggers_by_statement() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        make_table(&db, 10).await;
        let mut ready = ready(&db).await;
        let app = db.client().await.unwrap();
        run(&app, &["BEGIN; TRUNCATE t; INSERT INTO t VALUES (1, 1, 'after'); COMMIT"]).await;
        let error = ready.worker.apply(&Frontier::End, 100).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Truncated);
        let mut control = ready.steps.control().await;
        control.prepare(&ready.steps.spec).await.unwrap();
        assert_eq!(triggers(&db, "t").await, ["0/4/t"], "made anew");
        control.abort(&ready.steps.spec).await.unwrap();
        assert_eq!(triggers(&db, "t").await, ["0/0/null"]);
        assert_eq!(rows(&db, "SELECT v FROM t").await, ["after"]);
    });
}

/// The whole way: writers that write everything twice, and empty both tables now and then; a run that is
/// killed while it copies, and the same command without the option, which goes on as it began.
#[test]
fn a_run_that_captures_by_statement_loses_nothing_and_stays_with_it() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        let layout = Layout { rows: 4000, writers: 3 };
        mirrored::load(&db.url(), layout).await.unwrap();
        let settings = Settings {
            url: db.url(),
            layout,
            rate_per_s: Some(150),
            seed: 7,
            truncate_one_in: Some(400),
        };
        let writers = Writers::start(&settings).await.unwrap();
        let change = "ALTER TABLE orders ALTER customer TYPE bigint";
        let proxy = Proxy::start(&db.endpoints().primary).unwrap();
        let trap = proxy.trap(&["OVERRIDING SYSTEM VALUE"], Deed::Hold);
        let mut runner =
            start(&proxy.url(db.name()), change, &["--capture", "statement", "--workers", "1"]);
        spring(&trap, &mut runner);
        runner.kill9().unwrap();
        trap.release();
        let proxy = Proxy::start(&db.endpoints().primary).unwrap();
        let trap = between_the_locks(&proxy);
        let mut runner = start(&proxy.url(db.name()), change, &[]);
        spring(&trap, &mut runner);
        assert_eq!(triggers(&db, "orders").await, ["0/4/t"]);
        trap.release();
        succeed(runner);
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let outcome = writers.stop().await.unwrap();
        eprintln!("{:?}", outcome.tally);
        let documented = "cached plan must not change result type";
        assert_eq!(outcome.errors.total(), 0, "{} ({documented})", outcome.errors);
        let found = mirrored::compare_tables(&db.url()).await.unwrap();
        assert_eq!((found.missing, found.unexpected), (0, 0), "{found:?}");
        assert!(found.rows_read > 0);
    });
}
