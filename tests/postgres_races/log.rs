//! What the log's reader must see, and in what order it need not.

use std::time::{Duration, Instant};

use underpin_core::key::Frontier;
use underpin_dialect::{ChangeLog, ErrorKind, Verify, Worker as _};
use underpin_tests::busy;
use underpin_tests::servers::Flavor;

use crate::postgres_steps::{
    Steps, apply_all, both, make_table, on_each, ranges, rows, run, verify_all, wait_for_lock_wait,
};

const CHANGE: &str = "ALTER TABLE t ADD n int NOT NULL DEFAULT 7";

/// Whoever takes longer has waited for somebody.
const AT_ONCE: Duration = Duration::from_millis(900);

/// The rule: pending is what the last snapshot did not see, not what lies behind the last number.
#[test]
fn a_transaction_that_began_earlier_and_commits_later_is_applied_later() {
    on_each(&Flavor::POSTGRES_MATRIX, async |db| {
        make_table(&db, 10).await;
        let steps = Steps::begin(&db, CHANGE).await;
        let mut worker = steps.worker().await;
        steps.copied(&mut worker).await;
        let (slow, fast) = (db.client().await.unwrap(), db.client().await.unwrap());
        run(&slow, &["BEGIN", "UPDATE t SET v = 'slow' WHERE id = 1"]).await;
        run(&slow, &["SAVEPOINT s", "UPDATE t SET v = 'slow' WHERE id = 3"]).await;
        run(&fast, &["UPDATE t SET v = 'fast' WHERE id = 2"]).await;
        let begun = Instant::now();
        let applied = worker.apply(&Frontier::End, 1000).await.unwrap();
        assert_eq!((applied.entries, applied.left), (1, 0), "what is committed is taken");
        assert!(
            begun.elapsed() < busy::allows(begun, AT_ONCE),
            "applying waited {:?}",
            begun.elapsed()
        );
        for number in 0..3 {
            run(&fast, &[&format!("UPDATE t SET v = 'fast {number}' WHERE id = 2")]).await;
            assert_eq!(worker.apply(&Frontier::End, 1000).await.unwrap().entries, 1);
        }
        run(&slow, &["COMMIT"]).await;
        let applied = worker.apply(&Frontier::End, 1000).await.unwrap();
        assert_eq!(applied.entries, 2, "entries older than all that were taken");
        assert_eq!(worker.apply(&Frontier::End, 1000).await.unwrap().entries, 0);
        let (source, shadow) = both(&db, &steps, "id, u, v").await;
        assert_eq!(source, shadow);
    });
}

/// The same for a transaction that is prepared, and whose session is gone.
#[test]
fn a_prepared_transaction_is_applied_when_it_commits() {
    on_each(&Flavor::POSTGRES_MATRIX, async |db| {
        make_table(&db, 10).await;
        let steps = Steps::begin(&db, CHANGE).await;
        let mut worker = steps.worker().await;
        steps.copied(&mut worker).await;
        let app = db.client().await.unwrap();
        let name = format!("two_phase_{}", db.name());
        run(&app, &["BEGIN", "UPDATE t SET v = 'prepared' WHERE id = 1"]).await;
        run(&app, &[&format!("PREPARE TRANSACTION '{name}'")]).await;
        run(&app, &["UPDATE t SET v = 'meanwhile' WHERE id = 2"]).await;
        assert_eq!(apply_all(&mut worker).await, 1);
        run(&app, &[&format!("COMMIT PREPARED '{name}'")]).await;
        assert_eq!(apply_all(&mut worker).await, 1);
        let (source, shadow) = both(&db, &steps, "id, u, v").await;
        assert_eq!(source, shadow);
    });
}

/// The rule: log and source are read in one snapshot.
#[test]
fn what_commits_while_a_batch_is_applied_is_none_of_its_business() {
    on_each(&Flavor::POSTGRES_MATRIX, async |db| {
        make_table(&db, 10).await;
        let steps = Steps::begin(&db, CHANGE).await;
        let mut worker = steps.worker().await;
        steps.copied(&mut worker).await;
        let (app, holder) = (db.client().await.unwrap(), db.client().await.unwrap());
        run(&app, &["UPDATE t SET u = NULL WHERE id = 1"]).await;
        // The batch has its snapshot when it comes to wait for the shadow.
        run(&holder, &["BEGIN", &format!("LOCK TABLE {} IN SHARE MODE", steps.shadow())]).await;
        let session = worker.session();
        let applying = tokio::spawn(async move {
            let applied = worker.apply(&Frontier::End, 1000).await;
            (worker, applied)
        });
        wait_for_lock_wait(&db, session).await;
        // Row 1 takes the value of row 2, of which the log told nothing yet.
        run(
            &app,
            &["BEGIN; UPDATE t SET u = 99 WHERE id = 2; UPDATE t SET u = 20 WHERE id = 1; COMMIT"],
        )
        .await;
        run(&holder, &["COMMIT"]).await;
        let (mut worker, applied) = applying.await.unwrap();
        assert_eq!(applied.unwrap().entries, 1, "one snapshot");
        let then = format!("SELECT u FROM {} WHERE id <= 2 ORDER BY id", steps.shadow());
        assert_eq!(rows(&db, &then).await, ["null", "20"], "as it was in that snapshot");
        assert_eq!(apply_all(&mut worker).await, 2);
        let (source, shadow) = both(&db, &steps, "id, u, v").await;
        assert_eq!(source, shadow);
    });
}

/// The rule: all pending rows are taken out before one is written, also where they are written in parts.
#[test]
fn unique_values_that_change_places_never_clash() {
    on_each(&Flavor::POSTGRES_MATRIX, async |db| {
        make_table(&db, 40).await;
        let steps = Steps::begin(&db, CHANGE).await;
        let mut worker = steps.worker().await;
        steps.copied(&mut worker).await;
        let app = db.client().await.unwrap();
        let rotate = "BEGIN; UPDATE t SET u = -u; UPDATE t SET u = 10 * (1 + (id % 40)); COMMIT";
        for keys_max in [1, 7, 1000] {
            run(&app, &[rotate, "UPDATE t SET v = v || 'x' WHERE u = 20"]).await;
            for _ in 0..60 {
                let applied = worker.apply(&Frontier::End, keys_max).await.unwrap();
                run(&app, &["BEGIN; UPDATE t SET u = -u WHERE id IN (3, 33); UPDATE t SET u = CASE id \
                             WHEN 3 THEN (SELECT -u FROM t WHERE id = 33) ELSE (SELECT -u FROM t WHERE \
                             id = 3) END WHERE id IN (3, 33); COMMIT"]).await;
                if applied.left == 0 {
                    break;
                }
            }
            apply_all(&mut worker).await;
            let (source, shadow) = both(&db, &steps, "id, u, v").await;
            assert_eq!(source, shadow, "in parts of {keys_max}");
        }
    });
}

/// The rules: a key that is to do counts as pending for the comparison, and what is pending is left out.
#[test]
fn what_is_pending_is_no_difference_and_the_rest_is() {
    on_each(&Flavor::POSTGRES_MATRIX, async |db| {
        make_table(&db, 100).await;
        let steps = Steps::begin(&db, CHANGE).await;
        let mut worker = steps.worker().await;
        steps.copied(&mut worker).await;
        let app = db.client().await.unwrap();
        run(&app, &["UPDATE t SET v = 'x' WHERE id <= 30"]).await;
        assert_eq!(verify_all(&mut worker, 10).await, (0, vec![]), "in the log");
        let applied = worker.apply(&Frontier::End, 10).await.unwrap();
        assert_eq!((applied.keys, applied.left), (10, 20));
        assert_eq!(verify_all(&mut worker, 10).await, (0, vec![]), "to do");
        let shadow = steps.shadow();
        run(
            &app,
            &[
                &format!("UPDATE {shadow} SET v = 'wrong' WHERE id = 50"),
                &format!("DELETE FROM {shadow} WHERE id = 60"),
                &format!("INSERT INTO {shadow} (id, u, v) VALUES (200, 1, '')"),
                &format!("UPDATE {shadow} SET u = NULL WHERE id = 70"),
            ],
        )
        .await;
        let (differences, samples) = verify_all(&mut worker, 10).await;
        assert_eq!(differences, 4, "{samples:?}");
        assert_eq!(
            samples,
            [
                "id=50 (differs in v)",
                "id=60 (missing in the shadow)",
                "id=70 (differs in u)",
                "id=200 (only in the shadow)"
            ]
        );
        for range in &ranges(&mut worker, 10).await {
            worker.repair(range).await.unwrap();
        }
        apply_all(&mut worker).await;
        assert_eq!(verify_all(&mut worker, 10).await, (0, vec![]), "repaired");
        let (source, shadow) = both(&db, &steps, "id, u, v").await;
        assert_eq!(source, shadow);
    });
}

/// The rule: after settling, a clash is a real violation.
#[test]
fn a_duplicate_under_a_new_unique_key_is_named() {
    on_each(&Flavor::POSTGRES_MATRIX, async |db| {
        make_table(&db, 100).await;
        let steps = Steps::begin(&db, "ALTER TABLE t ADD CONSTRAINT v_key UNIQUE (v)").await;
        let mut worker = steps.worker().await;
        steps.copied(&mut worker).await;
        let app = db.client().await.unwrap();
        run(&app, &["UPDATE t SET v = 'row 7' WHERE id = 77"]).await;
        let error = worker.apply(&Frontier::End, 100).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::DuplicateKey);
        let text = error.to_string();
        assert!(text.contains("id=7") && text.contains("id=77"), "{text}");
        // Nothing of the batch has happened, and it goes on when the rows are mended.
        run(&app, &["UPDATE t SET v = 'other' WHERE id = 7"]).await;
        assert_eq!(apply_all(&mut worker).await, 2);
        let (source, shadow) = both(&db, &steps, "id, u, v").await;
        assert_eq!(source, shadow);
    });
}

/// The rule: keys that are pending excuse their rows and no others, and looking them up takes no loop over
/// the log for each row, whatever the server thinks of the log's length.
#[test]
fn comparing_goes_on_beside_a_long_log() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        let app = db.client().await.unwrap();
        let make = "CREATE TABLE t (a int, b bigint, v text NOT NULL, c int, PRIMARY KEY (a, b))";
        let fill = "INSERT INTO t SELECT i % 4, i, 'v' FROM generate_series(1, 60000) AS i";
        run(&app, &[make, fill, "ANALYZE t"]).await;
        let steps = Steps::begin(&db, "ALTER TABLE t ALTER c TYPE bigint").await;
        let mut worker = steps.worker().await;
        steps.copied(&mut worker).await;
        // Figures of a log in which hardly anything is pending, as autovacuum makes them.
        run(&app, &["UPDATE t SET v = 'w' WHERE b > 59000"]).await;
        apply_all(&mut worker).await;
        run(&app, &[&format!("ANALYZE {}", steps.log())]).await;
        let shadow = steps.shadow();
        let spoil = [
            format!("UPDATE {shadow} SET v = 'V' WHERE b = 7"),
            format!("DELETE FROM {shadow} WHERE b = 8"),
            format!("INSERT INTO {shadow} VALUES (101, 60001, 'v')"),
        ];
        run(&app, &spoil.each_ref().map(String::as_str)).await;
        let change = [
            "UPDATE t SET v = 'changed' WHERE b % 4 = 1",
            "DELETE FROM t WHERE b % 40 = 2",
            "INSERT INTO t SELECT i % 4, i, 'new' FROM generate_series(70001, 72000) AS i",
        ];
        run(&app, &change).await;
        let begun = Instant::now();
        let (differences, samples) = verify_all(&mut worker, 100_000).await;
        assert_eq!(differences, 3, "{samples:?}");
        for said in ["a=3, b=7", "a=0, b=8", "a=101, b=60001 (only in the shadow)"] {
            assert!(samples.iter().any(|sample| sample.starts_with(said)), "{said}: {samples:?}");
        }
        apply_all(&mut worker).await;
        run(&app, &["UPDATE t SET v = v || '' WHERE b IN (7, 8)"]).await;
        assert_eq!(verify_all(&mut worker, 10_000).await.0, 1, "the two are pending now");
        assert!(
            begun.elapsed() < busy::allows(begun, Duration::from_secs(5)),
            "{:?}",
            begun.elapsed()
        );
    });
}

/// The rule: rows are equal to the last bit, however many digits the database shows.
#[test]
fn a_number_that_is_shown_alike_and_differs_is_found() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        let set = format!("ALTER DATABASE {} SET extra_float_digits = 0", db.name());
        run(&db.client().await.unwrap(), &[&set]).await;
        let app = db.client().await.unwrap();
        let make = "CREATE TABLE t (id int PRIMARY KEY, d float8, r float4, a float8[], n int)";
        let fill = "INSERT INTO t SELECT i, 0.3, 0.3, '{0.3}', i FROM generate_series(1, 9) AS i";
        run(&app, &[make, fill]).await;
        for (change, found) in [
            // Nothing is converted: every type is compared as it is.
            ("ALTER TABLE t ADD m int", 3),
            // A number that becomes a text is spelled as the user's own ALTER would spell it.
            ("ALTER TABLE t ALTER r TYPE text, ALTER n TYPE bigint", 1),
        ] {
            let steps = Steps::begin(&db, change).await;
            let mut worker = steps.worker().await;
            steps.copied(&mut worker).await;
            assert_eq!(verify_all(&mut worker, 100).await, (0, vec![]), "{change}");
            let shadow = steps.shadow();
            let spoil = [
                format!("UPDATE {shadow} SET d = '0.30000000000000004' WHERE id = 1"),
                format!("UPDATE {shadow} SET r = '0.30000004' WHERE id = 2"),
                format!("UPDATE {shadow} SET a = '{{0.30000000000000004}}' WHERE id = 3"),
            ];
            run(&app, &["SET extra_float_digits = 1"]).await;
            run(&app, &spoil.each_ref().map(String::as_str)).await;
            let (differences, samples) = verify_all(&mut worker, 100).await;
            assert!(differences >= found, "{change}: {samples:?}");
            drop(worker);
            let clear = "DROP SCHEMA underpin, underpin_r1, underpin_r1_old CASCADE";
            run(&app, &[clear]).await;
        }
    });
}
