//! What the triggers must log, whoever writes and however.

use underpin_dialect::{ErrorKind, Shadow};
use underpin_tests::servers::Flavor;

use crate::postgres_steps::{
    Steps, apply_all, both, make_table, on_each, ranges, rows, run, verify_all,
};

const CHANGE: &str = "ALTER TABLE t ADD n int NOT NULL DEFAULT 7";

/// The rule: triggers are installed under a lock that waits for every older writer.
#[test]
fn a_writer_from_before_the_triggers_is_waited_for() {
    on_each(&Flavor::POSTGRES_MATRIX, async |db| {
        make_table(&db, 10).await;
        let old = db.client().await.unwrap();
        run(&old, &["BEGIN", "UPDATE t SET v = 'old writer' WHERE id = 1"]).await;
        let steps = Steps::recorded(&db, CHANGE).await;
        let mut control = steps.control().await;
        let error = control.prepare(&steps.spec).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::LockNotHad, "{error}");
        run(&old, &["COMMIT"]).await;
        control.prepare(&steps.spec).await.unwrap();
        let mut worker = steps.worker().await;
        steps.copied(&mut worker).await;
        let (source, shadow) = both(&db, &steps, "id, u, v").await;
        assert_eq!(source, shadow);
    });
}

/// The rule: an update of the key logs both keys.
#[test]
fn a_key_that_moves_leaves_no_ghost_and_loses_no_row() {
    on_each(&Flavor::POSTGRES_MATRIX, async |db| {
        let app = db.client().await.unwrap();
        run(
            &app,
            &[
                "CREATE TABLE t (a int, b text, v text, PRIMARY KEY (a, b))",
                "INSERT INTO t SELECT i, 'b' || i, 'v' FROM generate_series(1, 20) i",
            ],
        )
        .await;
        let steps = Steps::begin(&db, CHANGE).await;
        let mut worker = steps.worker().await;
        steps.copied(&mut worker).await;
        run(
            &app,
            &[
                "UPDATE t SET a = 100 WHERE a = 1",
                "UPDATE t SET b = 'moved' WHERE a = 2",
                // One row takes the place that another one leaves.
                "UPDATE t SET a = 5 + 1000 WHERE a = 5; UPDATE t SET a = 5, b = 'b5' WHERE a = 6",
                "DELETE FROM t WHERE a = 7; INSERT INTO t VALUES (7, 'b7', NULL)",
                "UPDATE t SET v = NULL WHERE a = 8",
            ],
        )
        .await;
        apply_all(&mut worker).await;
        let (source, shadow) = both(&db, &steps, "a, b, v").await;
        assert_eq!(source, shadow);
        assert_eq!(rows(&db, &format!("SELECT count(*) FROM {}", steps.shadow())).await, ["20"]);
    });
}

/// The rules: `ENABLE ALWAYS`, and functions with the owner's rights.
#[test]
fn writes_of_replication_and_of_strangers_are_captured() {
    on_each(&Flavor::POSTGRES_MATRIX, async |db| {
        make_table(&db, 10).await;
        let app = db.client().await.unwrap();
        let role = format!("stranger_{}", db.name());
        run(&app, &[&format!("CREATE ROLE {role}; GRANT ALL ON t TO {role}")]).await;
        let steps = Steps::begin(&db, CHANGE).await;
        let mut worker = steps.worker().await;
        steps.copied(&mut worker).await;
        run(
            &app,
            &[
                "SET session_replication_role = replica",
                "UPDATE t SET v = 'replicated' WHERE id = 1",
                "RESET session_replication_role",
                &format!("SET ROLE {role}"),
                "SET search_path = public, pg_temp",
                "UPDATE t SET v = 'stranger' WHERE id = 2",
                "RESET ROLE",
                // A savepoint that is rolled back takes its entries along.
                "BEGIN; SAVEPOINT s; UPDATE t SET v = 'no' WHERE id = 3; ROLLBACK TO s; \
                 UPDATE t SET v = 'yes' WHERE id = 4; COMMIT",
                "INSERT INTO t VALUES (1, 10, 'x'), (50, 500, 'x') ON CONFLICT (id) DO UPDATE SET v = \
                 'upsert'",
            ],
        )
        .await;
        assert_eq!(apply_all(&mut worker).await, 5);
        let (source, shadow) = both(&db, &steps, "id, u, v").await;
        assert_eq!(source, shadow);
        assert_eq!(verify_all(&mut worker, 4).await, (0, vec![]));
        run(&app, &[&format!("DROP OWNED BY {role}; DROP ROLE {role}")]).await;
    });
}

/// The rule: cascades fire the triggers of this family of servers, so nothing special is done.
#[test]
fn a_cascade_into_the_table_is_captured() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        let app = db.client().await.unwrap();
        run(
            &app,
            &[
                "CREATE TABLE parent (id int PRIMARY KEY)",
                "INSERT INTO parent SELECT generate_series(1, 10)",
                "CREATE TABLE t (id int PRIMARY KEY, p int REFERENCES parent ON DELETE CASCADE)",
                "INSERT INTO t SELECT i, i FROM generate_series(1, 10) i",
            ],
        )
        .await;
        let steps = Steps::begin(&db, CHANGE).await;
        let mut worker = steps.worker().await;
        steps.copied(&mut worker).await;
        run(&app, &["DELETE FROM parent WHERE id < 4"]).await;
        assert_eq!(apply_all(&mut worker).await, 3);
        let (source, shadow) = both(&db, &steps, "id, p").await;
        assert_eq!(source, shadow);
    });
}

/// The rule: keys are told apart by the operators of the key's own index, never as text.
#[test]
fn keys_whose_equality_is_their_own_are_told_apart_by_it() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        let app = db.client().await.unwrap();
        run(
            &app,
            &[
                "CREATE EXTENSION citext",
                "CREATE TABLE t (id citext, n numeric, v text, PRIMARY KEY (id, n))",
                "INSERT INTO t SELECT CASE WHEN i % 2 = 0 THEN 'Key' ELSE 'kEY' END || i, i, 'v' \
                 FROM generate_series(1, 100) i",
            ],
        )
        .await;
        let steps = Steps::begin(&db, CHANGE.replace(" n ", " m ").as_str()).await;
        let mut worker = steps.worker().await;
        steps.copied(&mut worker).await;
        run(
            &app,
            &[
                "UPDATE t SET id = upper(id::text) WHERE n <= 10",
                "UPDATE t SET n = n + 0.00 WHERE n = 11",
                "UPDATE t SET v = 'w' WHERE id = 'KEY12'",
            ],
        )
        .await;
        apply_all(&mut worker).await;
        let (source, shadow) = both(&db, &steps, "id::text, n, v").await;
        assert_eq!(source, shadow);
        assert_eq!(verify_all(&mut worker, 7).await, (0, vec![]));
        let count = format!("SELECT count(*) FROM {}", steps.shadow());
        assert_eq!(rows(&db, &count).await, ["100"]);
        // Bounds in an order of their own would not end here.
        assert_eq!(ranges(&mut worker, 7).await.len(), 15);
    });
}
