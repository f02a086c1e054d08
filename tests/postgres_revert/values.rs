//! Rows: everything that was written is on the other side, what only one shape holds is kept there, and
//! what does not fit stops the way.

use underpin_core::key::Frontier;
use underpin_core::way::Way;
use underpin_dialect::{ChangeLog, ErrorKind, Swap, SwapOutcome};
use underpin_tests::servers::Flavor;

use crate::postgres_steps::{apply_all, on_each, rows, run, verify_all};
use crate::{BUDGET_MS, Made};

#[test]
fn what_was_written_is_in_the_old_table_and_again_in_the_new_one() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        let app = db.client().await.unwrap();
        run(
            &app,
            &[
                "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, u int UNIQUE, gone text \
                 NOT NULL DEFAULT 'none', v varchar(20), s int GENERATED ALWAYS AS (u + 1) STORED)",
                "INSERT INTO t (u, gone, v) SELECT i, 'old ' || i, 'v' || i FROM generate_series(1, \
                 3000) i",
            ],
        )
        .await;
        let change = "ALTER TABLE t ALTER id TYPE bigint, DROP gone, ALTER v TYPE text, ADD n int NOT \
                      NULL DEFAULT 7";
        let made = Made::make(&db, change).await;
        run(
            &app,
            &[
                "UPDATE t SET n = id, v = 'new' WHERE id <= 1000",
                "DELETE FROM t WHERE id > 2990",
                "BEGIN; UPDATE t SET u = NULL WHERE id = 1; UPDATE t SET u = 1 WHERE id = 5; UPDATE t \
                 SET u = 5 WHERE id = 1; COMMIT",
                "INSERT INTO t (u, v, n) VALUES (-1, 'made', 9)",
                "BEGIN; INSERT INTO t (u) VALUES (-2); ROLLBACK",
            ],
        )
        .await;
        let shown = "SELECT id, u, v, s FROM t ORDER BY id";
        let written = rows(&db, shown).await;
        made.go(Way::Back).await;
        assert_eq!(rows(&db, shown).await, written);
        let kept = "SELECT count(*) FILTER (WHERE gone = 'old ' || id), count(*) FILTER (WHERE gone = \
                    'none'), pg_typeof(min(id)) FROM t";
        assert_eq!(rows(&db, kept).await, ["2990/1/integer"], "dropped columns keep their values");
        run(
            &app,
            &[
                "UPDATE t SET gone = 'again', v = 'twice' WHERE id BETWEEN 500 AND 1500",
                "INSERT INTO t (u, gone) VALUES (-3, 'x')",
            ],
        )
        .await;
        let written = rows(&db, shown).await;
        made.go(Way::Forward).await;
        assert_eq!(rows(&db, shown).await, written);
        let kept = "SELECT count(*) FILTER (WHERE n = id AND id <= 1000), count(*) FILTER (WHERE n = 7), \
                    count(*) FILTER (WHERE n = 9), max(id) FROM t";
        // Rows 7 and 9 hold their own number. 3000 were drawn, then one before the roll-back, one by it, one after the way back.
        assert_eq!(rows(&db, kept).await, ["1000/1992/2/3003"], "added columns keep theirs");
        run(&app, &["UPDATE t SET v = 'third' WHERE id % 7 = 0"]).await;
        let written = rows(&db, shown).await;
        made.go(Way::Back).await;
        assert_eq!(rows(&db, shown).await, written);
        let kept = "SELECT count(*) FILTER (WHERE gone = 'again'), count(*) FILTER (WHERE gone = 'x') FROM t";
        assert_eq!(rows(&db, kept).await, ["1001/1"]);
        made.finish(Way::Back).await;
        let left = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'underpin\\_%'";
        assert_eq!(rows(&db, left).await, Vec::<String>::new());
        let left = "SELECT tgname FROM pg_trigger WHERE tgrelid = 't'::regclass";
        assert_eq!(rows(&db, left).await, Vec::<String>::new());
        assert_eq!(rows(&db, shown).await, written);
    });
}

#[test]
fn what_the_change_made_less_exact_keeps_its_old_value() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        let app = db.client().await.unwrap();
        run(
            &app,
            &[
                "CREATE TABLE t (id int PRIMARY KEY, a numeric(12,4), b timestamp(6), c float8, d text, e \
                 text)",
                "INSERT INTO t SELECT i, i + 0.1234, timestamp '2024-01-01 00:00:00.123456' + i * interval \
                 '1 s', i + 0.4, 'd' || i, 'E' || i FROM generate_series(1, 100) i",
            ],
        )
        .await;
        let change = "ALTER TABLE t ALTER a TYPE numeric(12,2), ALTER b TYPE timestamp(0), ALTER c TYPE int \
                      USING floor(t.c), ALTER d TYPE varchar(9), ALTER e TYPE text USING lower(e)";
        let made = Made::make(&db, change).await;
        let touched = "SELECT id, a, b, c, d, e FROM t WHERE id IN (1, 2, 3, 4) ORDER BY id";
        run(
            &app,
            &[
                "UPDATE t SET d = 'touched' WHERE id = 1",
                "UPDATE t SET a = 5.67, d = 'x' WHERE id = 2",
                "UPDATE t SET b = b + interval '1 h', c = 77 WHERE id = 3",
                "UPDATE t SET e = 'small' WHERE id = 4",
            ],
        )
        .await;
        made.go(Way::Back).await;
        assert_eq!(
            rows(&db, touched).await,
            [
                "1/1.1234/2024-01-01 00:00:01.123456/1.4/touched/E1",
                "2/5.6700/2024-01-01 00:00:02.123456/2.4/x/E2",
                "3/3.1234/2024-01-01 01:00:03/77/d3/E3",
                "4/4.1234/2024-01-01 00:00:04.123456/4.4/d4/small",
            ]
        );
        made.go(Way::Forward).await;
        made.go(Way::Back).await;
        assert_eq!(rows(&db, "SELECT a, c, e FROM t WHERE id = 50").await, ["50.1234/50.4/E50"]);
    });
}

#[test]
fn a_value_that_does_not_fit_stops_the_way_back_and_the_new_table_stays() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        let app = db.client().await.unwrap();
        run(
            &app,
            &[
                "CREATE TABLE t (id int PRIMARY KEY, u int CONSTRAINT uk UNIQUE, v varchar(5), b timestamp(0))",
                "INSERT INTO t SELECT i, i, 'v' || i, now() FROM generate_series(1, 500) i",
            ],
        )
        .await;
        let change = "ALTER TABLE t ALTER id TYPE bigint, DROP CONSTRAINT uk, ALTER v TYPE text, ALTER b \
                      TYPE timestamp(6)";
        let made = Made::make(&db, change).await;
        let spec = made.turn(Way::Back).await.unwrap();
        let mut worker = made.worker(&spec).await;
        for (write, mend, kind, says) in [
            (
                "UPDATE t SET v = 'too long' WHERE id = 77",
                "UPDATE t SET v = 'short' WHERE id = 77",
                ErrorKind::DataError,
                ["row id=77, column v", "too long"],
            ),
            (
                "INSERT INTO t VALUES (3000000000, 0, 'x')",
                "DELETE FROM t WHERE id = 3000000000",
                ErrorKind::DataError,
                ["row id=3000000000, column id", "out of range"],
            ),
            (
                "UPDATE t SET u = 8 WHERE id = 9",
                "UPDATE t SET u = 9 WHERE id = 9",
                ErrorKind::DuplicateKey,
                ["\"uk\"", "id=8 and id=9"],
            ),
        ] {
            run(&app, &[write]).await;
            let error = worker.apply(&Frontier::End, 1000).await.unwrap_err();
            assert_eq!(error.kind, kind, "{error}");
            let text = error.to_string();
            assert!(says.iter().all(|word| text.contains(word)), "{text}");
            let mut control = made.steps.control().await;
            let swapped = control.try_swap(&spec, &made.steps.grip, BUDGET_MS).await;
            assert_eq!(swapped.unwrap_err().kind, kind);
            assert_eq!(rows(&db, "SELECT pg_typeof(v) FROM t WHERE id = 1").await, ["text"]);
            run(&app, &[mend]).await;
            apply_all(&mut worker).await;
        }
        // The server rounds it without a word: the comparison finds it.
        run(&app, &["UPDATE t SET b = '2024-01-01 00:00:00.5' WHERE id = 5"]).await;
        apply_all(&mut worker).await;
        let (differences, samples) = verify_all(&mut worker, 1000).await;
        assert_eq!((differences, samples), (1, vec!["id=5 (differs in b)".to_owned()]));
        run(&app, &["UPDATE t SET b = '2024-01-01' WHERE id = 5"]).await;
        made.go_on(&spec, &mut worker).await;
        assert_eq!(
            rows(&db, "SELECT pg_typeof(v), b FROM t WHERE id = 5").await,
            ["character varying/2024-01-01 00:00:00"]
        );
    });
}

/// A row that is taken out is written in a later transaction: what it alone has must outlive a crash.
#[test]
fn kept_values_outlive_a_crash_between_taking_out_and_writing() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        let app = db.client().await.unwrap();
        run(
            &app,
            &[
                "CREATE TABLE t (id int PRIMARY KEY, gone int, v int)",
                "INSERT INTO t SELECT i, i, i FROM generate_series(1, 30000) i",
            ],
        )
        .await;
        let made = Made::make(&db, "ALTER TABLE t DROP gone, ADD n int").await;
        run(&app, &["UPDATE t SET v = v + 1"]).await;
        let spec = made.turn(Way::Back).await.unwrap();
        for _ in 0..3 {
            // Each is gone after one part.
            let mut worker = made.worker(&spec).await;
            assert!(worker.apply(&Frontier::End, 1000).await.unwrap().left > 0);
            run(&app, &["UPDATE t SET v = v + 1 WHERE id % 100 = 0", "DELETE FROM t WHERE id = 7"])
                .await;
        }
        made.go(Way::Back).await;
        let all = "SELECT count(*), count(*) FILTER (WHERE gone = id), count(*) FILTER (WHERE v = id + 1), \
                   count(*) FILTER (WHERE v = id + 4) FROM t";
        assert_eq!(rows(&db, all).await, ["29999/29999/29699/300"]);
        assert_eq!(
            rows(&db, "SELECT count(*) FROM underpin_r1.underpin_log").await,
            ["0"],
            "the next way begins with an empty log"
        );
    });
}

#[test]
fn entries_of_the_last_moment_are_drained_on_the_way_back_too() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        crate::postgres_steps::make_table(&db, 300).await;
        let app = db.client().await.unwrap();
        let made = Made::make(&db, "ALTER TABLE t ADD n int, ALTER u TYPE bigint").await;
        let spec = made.turn(Way::Back).await.unwrap();
        let mut worker = made.worker(&spec).await;
        run(&app, &["UPDATE t SET v = 'one' WHERE id = 1"]).await;
        apply_all(&mut worker).await;
        run(&app, &["UPDATE t SET v = 'two' WHERE id = 2", "DELETE FROM t WHERE id = 3"]).await;
        let mut control = made.steps.control().await;
        let outcome = control.try_swap(&spec, &made.steps.grip, BUDGET_MS).await.unwrap();
        assert!(matches!(outcome, SwapOutcome::Swapped { drained: 2, .. }), "{outcome:?}");
        let shown = "SELECT id, v FROM t WHERE id < 4 ORDER BY id";
        assert_eq!(rows(&db, shown).await, ["1/one", "2/two"]);
    });
}

/// What was kept of a row is done with when its key was written: a row that takes the key later is another one.
#[test]
fn a_row_that_takes_the_key_of_one_that_is_gone_inherits_nothing() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        let app = db.client().await.unwrap();
        run(
            &app,
            &[
                "CREATE TABLE t (id int PRIMARY KEY, v int, gone text NOT NULL DEFAULT 'none')",
                "INSERT INTO t SELECT i, i, 'old ' || i FROM generate_series(1, 10) i",
            ],
        )
        .await;
        let made = Made::make(&db, "ALTER TABLE t DROP gone, ADD n int").await;
        let spec = made.turn(Way::Back).await.unwrap();
        let mut worker = made.worker(&spec).await;
        run(&app, &["DELETE FROM t WHERE id = 5"]).await;
        apply_all(&mut worker).await;
        run(&app, &["INSERT INTO t VALUES (5, 50)", "UPDATE t SET v = 60 WHERE id = 6"]).await;
        made.go_on(&spec, &mut worker).await;
        let shown = "SELECT id, v, gone FROM t WHERE id IN (5, 6) ORDER BY id";
        assert_eq!(rows(&db, shown).await, ["5/50/none", "6/60/old 6"]);
    });
}
