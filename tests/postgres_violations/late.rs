//! Rows that the application brings in while the run is under way.

use tokio::runtime::Handle;
use tokio::task::block_in_place;
use tokio_postgres::Client;
use underpin_dialect::{ErrorKind, Swap, SwapOutcome};
use underpin_tests::servers::{Flavor, TestDb};

use super::{State, abort, run, stopped};
use crate::postgres_steps::{self, Steps, apply_all, make_table, on_each};

async fn table(db: &TestDb) -> Client {
    let client = db.client().await.unwrap();
    let sql = "CREATE TABLE t (id int PRIMARY KEY, a int, v text); INSERT INTO t SELECT i, i, i::text \
               FROM generate_series(1, 2000) i";
    client.batch_execute(sql).await.unwrap();
    client
}

/// Runs `change`; when it comes to `phase`, `write` is committed. The table is held until the run waits for
/// it, so that the swap cannot come before the row.
async fn written_at(phase: &str, write: &str, change: &str, says: &[&str]) {
    let Some(db) = TestDb::new(Flavor::PostgresDistro) else { return };
    let client = table(&db).await;
    let before = State::read(&db, &client).await;
    let holder = db.client().await.unwrap();
    let handle = Handle::current();
    let mut written = false;
    let called = block_in_place(|| {
        run(&db, change, |event| {
            if event["event"] == "phase" && event["phase"] == "copy" {
                let hold = "BEGIN; SELECT count(*) FROM t";
                handle.block_on(holder.batch_execute(hold)).unwrap();
            }
            if event["event"] == "phase" && event["phase"] == phase {
                handle.block_on(client.batch_execute(write)).unwrap();
                written = true;
            }
            if event["event"] == "lock_try" {
                handle.block_on(holder.batch_execute("COMMIT")).unwrap();
            }
        })
    });
    assert!(written, "phase {phase} never came: {:?}", called.events);
    stopped(&called, says);
    holder.batch_execute("COMMIT").await.unwrap();
    // The application's own row stays, of course.
    let undo = "DELETE FROM t WHERE id > 2000; UPDATE t SET v = id::text, a = id WHERE id = 1";
    client.batch_execute(undo).await.unwrap();
    abort(&db, &client, &before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_does_not_fit_and_comes_while_copying() {
    written_at(
        "copy",
        "INSERT INTO t VALUES (777777, 1, 'bad')",
        "ALTER TABLE t ALTER v TYPE int USING v::int",
        &["row id=777777", "invalid input syntax for type integer: \"bad\""],
    )
    .await;
}

/// The row was copied before; it is met when the log is applied.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_breaks_a_new_rule_after_it_was_copied() {
    written_at(
        "verify",
        "UPDATE t SET a = NULL WHERE id = 1",
        "ALTER TABLE t ADD CONSTRAINT there CHECK (a IS NOT NULL)",
        &["row id=1", "violates check constraint \"there\""],
    )
    .await;
}

/// The index stands already; whether it is checked at once or when the transaction commits.
#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_that_comes_behind_the_index() {
    for when in ["", " DEFERRABLE INITIALLY DEFERRED"] {
        let change = format!("ALTER TABLE t ADD CONSTRAINT once UNIQUE (a){when}");
        let says = ["id=55 and id=777777", "violates unique constraint \"once\"", "Key (a)=(55)"];
        written_at("verify", "INSERT INTO t VALUES (777777, 55, '1')", &change, &says).await;
    }
}

/// What is met under the swap's lock lets everybody through; it is named afterwards, without the lock.
#[test]
fn a_row_that_breaks_a_rule_under_the_lock_of_the_swap_is_named_without_it() {
    for (change, write, kind, says) in [
        (
            "ALTER TABLE t ALTER v DROP DEFAULT, ALTER v TYPE int USING length(v) / id",
            "INSERT INTO t VALUES (0, 1, 'late')",
            ErrorKind::DataError,
            "row id=0",
        ),
        (
            "ALTER TABLE t ADD CONSTRAINT once UNIQUE (v)",
            "INSERT INTO t VALUES (5000, 1, 'row 7')",
            ErrorKind::DuplicateKey,
            "id=7 and id=5000",
        ),
    ] {
        on_each(&[Flavor::PostgresDistro], async |db| {
            make_table(&db, 100).await;
            let steps = Steps::begin(&db, change).await;
            let mut worker = steps.worker().await;
            steps.copied(&mut worker).await;
            let app = db.client().await.unwrap();
            postgres_steps::run(&app, &[write]).await;
            let mut control = steps.control().await;
            let error = control.try_swap(&steps.spec, &steps.grip, 1000).await.unwrap_err();
            assert_eq!(error.kind, kind);
            assert!(error.to_string().contains(says), "{error}");
            // Gone again: nothing stands in the way any more.
            postgres_steps::run(&app, &["DELETE FROM t WHERE id IN (0, 5000)"]).await;
            apply_all(&mut worker).await;
            let outcome = control.try_swap(&steps.spec, &steps.grip, 1000).await.unwrap();
            assert!(matches!(outcome, SwapOutcome::Swapped { .. }), "{outcome:?}");
        });
    }
}
