//! Writers around the swap: what is pending at the lock arrives, and who waits at it writes into the new
//! table, whatever he had prepared before.

use futures_util::SinkExt;
use tokio_postgres::Client;
use underpin_core::plan::Plan;
use underpin_dialect::{Database, Inspect};
use underpin_tests::proxy::{Deed, Proxy};
use underpin_tests::servers::{Flavor, TestDb};

use crate::postgres_steps::{make_table, on_each, open, request, rows, run};
use crate::{Ready, moment, queue, sprung, swapped};

const CHANGE: &str = "ALTER TABLE t ADD n int NOT NULL DEFAULT 7";

const CONTENT: &str = "SELECT id, u, v FROM t ORDER BY id";

/// Every kind of change, unique values that change places and keys that do among them.
const CHANGES: [&str; 8] = [
    "INSERT INTO t VALUES (2001, 1, 'new')",
    "UPDATE t SET v = 'changed' WHERE id <= 5",
    "DELETE FROM t WHERE id = 6",
    "UPDATE t SET id = 3000 WHERE id = 7",
    "BEGIN; UPDATE t SET u = NULL WHERE id = 8; UPDATE t SET u = 80 WHERE id = 9; UPDATE t SET u = 90 \
     WHERE id = 8; COMMIT",
    "BEGIN; UPDATE t SET v = 'kept' WHERE id = 10; SAVEPOINT s; UPDATE t SET v = 'undone' WHERE id = 11; \
     ROLLBACK TO s; COMMIT",
    "BEGIN; UPDATE t SET v = 'rolled back'; ROLLBACK",
    "INSERT INTO t VALUES (12, 0, ''), (2002, 2, 'new') ON CONFLICT (id) DO UPDATE SET v = 'upsert'",
];

/// The rules: writers go on under the weak lock, and the last drain lies under the strong one.
#[test]
fn what_is_pending_at_the_lock_arrives() {
    on_each(&Flavor::POSTGRES_MATRIX, async |db| {
        make_table(&db, 100).await;
        let ready = Ready::make(&db, CHANGE).await;
        let proxy = Proxy::start(&db.endpoints().primary).unwrap();
        let trap = proxy.trap(&["IN ACCESS EXCLUSIVE MODE"], Deed::Hold);
        let swapping = ready.begin_swap(&db, &proxy).await;
        sprung(&trap).await;
        let app = db.client().await.unwrap();
        run(&app, &CHANGES).await;
        let id = format!("pending_{}", db.name());
        run(
            &app,
            &[
                &format!("BEGIN; DELETE FROM t WHERE id = 20; PREPARE TRANSACTION '{id}'"),
                &format!("COMMIT PREPARED '{id}'"),
            ],
        )
        .await;
        let expected = rows(&db, CONTENT).await;
        trap.release();
        // Of the key that moved both are logged, of what was undone nothing.
        assert_eq!(swapped(&swapping.await.unwrap()), 1 + 5 + 1 + 2 + 3 + 1 + 2 + 1);
        assert_eq!(rows(&db, CONTENT).await, expected);
        assert_eq!(rows(&db, "SELECT DISTINCT n FROM t").await, ["7"]);
    });
}

/// Statements of sessions that come to wait for the swap. All have been used before it, so that whatever
/// a session keeps of a statement, it has kept.
const BEFORE: &str = "CREATE FUNCTION plain(k int) RETURNS void LANGUAGE plpgsql AS $$ BEGIN UPDATE t SET v = \
    v || ' plain' WHERE id = k; END $$; \
    CREATE FUNCTION by_row(k int) RETURNS void LANGUAGE plpgsql AS $$ DECLARE r t%ROWTYPE; BEGIN SELECT * \
    INTO r FROM t WHERE id = k; UPDATE t SET v = r.v || ' by row' WHERE id = r.id; END $$";

const WAITING: [(&str, &str); 7] = [
    ("SELECT 1", "UPDATE t SET v = v || ' once' WHERE id = 1"),
    (
        "PREPARE p AS UPDATE t SET v = v || ' prepared' WHERE id = 2; EXECUTE p; EXECUTE p; EXECUTE p; \
         EXECUTE p; EXECUTE p; EXECUTE p",
        "EXECUTE p",
    ),
    ("SELECT plain(3)", "SELECT plain(3)"),
    ("SELECT by_row(4)", "SELECT by_row(4)"),
    // A transaction from before the swap that has met other tables only.
    (
        "BEGIN; SAVEPOINT s; SELECT count(*) FROM pg_class; ROLLBACK TO s",
        "UPDATE t SET v = 'old transaction' WHERE id = 5; SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; COMMIT",
    ),
    ("SELECT 1", "INSERT INTO t VALUES (6, 0, '') ON CONFLICT (id) DO UPDATE SET v = 'upsert'"),
    (
        "SELECT 1",
        "BEGIN; SELECT v FROM t WHERE id = 7 FOR UPDATE; UPDATE t SET id = -7 WHERE id = 7; COMMIT",
    ),
];

const WRITTEN: [&str; 7] = [
    "-7/row 7/7",
    "1/row 1 once/7",
    "2/row 2 prepared prepared prepared prepared prepared prepared prepared/7",
    "3/row 3 plain plain/7",
    "4/row 4 by row by row/7",
    "5/old transaction/7",
    "6/upsert/7",
];

#[test]
fn who_waits_at_the_lock_writes_into_the_new_table() {
    on_each(&Flavor::POSTGRES_MATRIX, async |db| {
        make_table(&db, 7).await;
        run(&db.client().await.unwrap(), &[BEFORE]).await;
        let ready = Ready::make(&db, CHANGE).await;
        let mut sessions = Vec::new();
        for (before, statement) in WAITING {
            let session = db.client().await.unwrap();
            run(&session, &[before]).await;
            sessions.push((session, statement));
        }
        let proxy = Proxy::start(&db.endpoints().primary).unwrap();
        let trap = proxy.trap(&["underpin_proof"], Deed::Hold);
        let swapping = ready.begin_swap(&db, &proxy).await;
        sprung(&trap).await;
        let mut waiting = Vec::new();
        for (session, statement) in sessions {
            waiting.push(queue(&db, session, statement).await);
        }
        let copying = tokio::spawn(copy_in(db.client().await.unwrap()));
        trap.release();
        swapped(&swapping.await.unwrap());
        for session in waiting {
            session.await.unwrap();
        }
        copying.await.unwrap();
        let mut expected = WRITTEN.map(str::to_owned).to_vec();
        expected.push("8/copied/7".to_owned());
        assert_eq!(rows(&db, "SELECT id, v, n FROM t ORDER BY id").await, expected);
        ready.finish().await;
    });
}

async fn copy_in(client: Client) {
    let sink = client.copy_in("COPY t (id, u, v) FROM STDIN").await.unwrap();
    let mut sink = std::pin::pin!(sink);
    sink.send(std::io::Cursor::new("8\t\\N\tcopied\n")).await.unwrap();
    sink.close().await.unwrap();
}

async fn planned(db: &TestDb, change: &str) -> Plan {
    open(db).await.control().await.unwrap().plan(&request(change)).await.unwrap()
}

fn warns(plan: &Plan) -> bool {
    let says = "cached plan must not change result type";
    plan.findings
        .iter()
        .any(|found| found.code == "prepared-statements" && found.message.contains(says))
}

/// The one error that an application sees: a query that it has prepared returns another type. It is the
/// server's own, as after any ALTER TABLE, and the plan has named it.
#[test]
fn what_was_prepared_goes_on_unless_its_result_has_another_type() {
    on_each(&Flavor::POSTGRES_MATRIX, async |db| {
        make_table(&db, 10).await;
        let change = "ALTER TABLE t ALTER u TYPE bigint, ADD n int NOT NULL DEFAULT 7";
        assert!(warns(&planned(&db, change).await));
        assert!(warns(&planned(&db, "ALTER TABLE t RENAME v TO w").await));
        assert!(!warns(&planned(&db, "ALTER TABLE t ALTER v SET DEFAULT 'x'").await));
        let ready = Ready::make(&db, change).await;
        let app = db.client().await.unwrap();
        let good = [
            "PREPARE g1 AS SELECT id, v FROM t WHERE id = 1",
            "PREPARE g2 AS UPDATE t SET u = u + 1 WHERE id = 2",
            "PREPARE g3 (int) AS INSERT INTO t (id, u) VALUES ($1, $1)",
            "PREPARE g4 AS DELETE FROM t WHERE id = 3",
        ];
        let bad = [
            "PREPARE b1 AS SELECT * FROM t WHERE id = 1",
            "PREPARE b2 AS SELECT u FROM t WHERE id = 1",
            "PREPARE b3 AS UPDATE t SET v = 'x' WHERE id = 4 RETURNING *",
        ];
        run(&app, &good).await;
        run(&app, &bad).await;
        for name in ["g1", "g2", "g3 (11)", "b1", "b2", "b3"] {
            run(&app, &[&format!("EXECUTE {name}")]).await;
        }
        swapped(&ready.swap().await);
        for name in ["g1", "g2", "g3 (12)", "g4"] {
            run(&app, &[&format!("EXECUTE {name}")]).await;
        }
        for name in ["b1", "b2", "b3"] {
            let error = app.batch_execute(&format!("EXECUTE {name}")).await.unwrap_err();
            let error = error.as_db_error().unwrap();
            assert_eq!(error.code().code(), "0A000", "{name}");
            assert_eq!(error.message(), "cached plan must not change result type", "{name}");
            run(&app, &["DEALLOCATE ".to_owned() + name].each_ref().map(String::as_str)).await;
        }
        run(&app, &bad).await;
        for name in ["b1", "b2", "b3"] {
            run(&app, &[&format!("EXECUTE {name}")]).await;
        }
        let content = "SELECT id, u, n FROM t WHERE id IN (2, 3, 11, 12) ORDER BY id";
        assert_eq!(rows(&db, content).await, ["2/22/7", "11/11/7", "12/12/7"]);
    });
}

/// No lock holds a GRANT off: one that falls between our last look and the exchange must not stay with
/// the old table.
#[test]
fn a_grant_within_the_swap_is_not_lost() {
    for grant in ["GRANT SELECT ON t TO", "GRANT UPDATE (v) ON t TO"] {
        on_each(&Flavor::POSTGRES_MATRIX, async |db| {
            make_table(&db, 10).await;
            let (app, role) = (db.client().await.unwrap(), format!("clerk_{}", db.name()));
            run(&app, &[&format!("CREATE ROLE {role}")]).await;
            let ready = Ready::make(&db, CHANGE).await;
            let proxy = Proxy::start(&db.endpoints().primary).unwrap();
            let trap = proxy.trap(&["^SET LOCAL statement_timeout", "SET SCHEMA"], Deed::Hold);
            let swapping = ready.begin_swap(&db, &proxy).await;
            sprung(&trap).await;
            let statement = format!("{grant} {role}");
            let granting = tokio::spawn(async move {
                let done = app.batch_execute(&statement).await;
                done.map(|()| app)
            });
            moment().await;
            eprintln!("{}: granted at once: {}", db.name(), granting.is_finished());
            trap.release();
            let outcome = swapping.await.unwrap();
            let granted = granting.await.unwrap().is_ok();
            let has = format!(
                "SELECT has_table_privilege('{role}', 't', 'SELECT') OR \
                 has_column_privilege('{role}', 't', 'v', 'UPDATE')"
            );
            assert_eq!(rows(&db, &has).await == ["t"], granted, "{outcome:?}");
            run(&db.client().await.unwrap(), &[&format!("DROP OWNED BY {role}; DROP ROLE {role}")])
                .await;
        });
    }
}
