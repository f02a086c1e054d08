//! The rooms of the PostgreSQL dialect, one step at a time on a real server: each call of the seam does
//! what the protocol says, without engine or machine in between.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

mod postgres_steps;

use underpin_core::checkpoint::{Checkpoint, Phase};
use underpin_core::key::{Frontier, Key};
use underpin_core::machine::SwapState;
use underpin_dialect::{ChangeLog, Copy, ErrorKind, Shadow, Swap, SwapOutcome};
use underpin_tests::servers::Flavor;

use postgres_steps::{
    Steps, apply_all, copy_all, make_table, on_each, ranges, rows, run, verify_all,
};

#[test]
fn a_change_made_step_by_step_keeps_every_row() {
    on_each(&Flavor::POSTGRES_MATRIX, async |db| {
        let app = db.client().await.unwrap();
        run(
            &app,
            &[
                "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, u int UNIQUE, v \
                 varchar(20), w varchar(9), j json, s text GENERATED ALWAYS AS (v || '!') STORED)",
                "CREATE INDEX vk ON t (v)",
                "INSERT INTO t (u, w, v, j) SELECT i, i::text, nullif('v' || i, 'v3'), '{\"a\": 1}' FROM \
                 generate_series(1, 3000) i",
            ],
        )
        .await;
        let change = "ALTER TABLE t ALTER id TYPE bigint, ALTER w TYPE text, ADD n int NOT NULL DEFAULT \
                      7, ALTER j TYPE jsonb";
        let steps = Steps::begin(&db, change).await;
        let mut worker = steps.worker().await;
        let (chunks, last) = worker.plan_chunks(None, 700, 3).await.unwrap();
        assert!(!last);
        assert_eq!(chunks.len(), 3);
        for chunk in &chunks {
            assert!(worker.copy_chunk(1, chunk).await.unwrap() > 0);
        }
        run(
            &app,
            &[
                "BEGIN; UPDATE t SET u = NULL WHERE id = 1; UPDATE t SET u = 1 WHERE id = 5; UPDATE t \
                 SET u = 5 WHERE id = 1; COMMIT",
                "DELETE FROM t WHERE id = 2",
                "INSERT INTO t (id, u, v) OVERRIDING SYSTEM VALUE VALUES (2, 22000, 'again')",
                "UPDATE t SET v = NULL, j = NULL WHERE id = 2999",
            ],
        )
        .await;
        let after = chunks.last().and_then(|chunk| chunk.range.up_to.clone());
        let (tail, last) = worker.plan_chunks(after.as_ref(), 700, 100).await.unwrap();
        assert!(last);
        for chunk in &tail {
            worker.copy_chunk(2, chunk).await.unwrap();
        }
        assert!(worker.settle().await.unwrap() > 0);
        let mut control = steps.control().await;
        control.build_indexes(&steps.spec).await.unwrap();
        run(&app, &["UPDATE t SET v = 'late' WHERE id = 100"]).await;
        apply_all(&mut worker).await;
        assert_eq!(verify_all(&mut worker, 1000).await, (0, vec![]));
        let found = ranges(&mut worker, 1000).await;
        let bounds: Vec<_> = found.iter().filter_map(|range| range.range.up_to.clone()).collect();
        assert_eq!(
            bounds,
            [Key(vec!["1000".into()]), Key(vec!["2000".into()]), Key(vec!["3000".into()])]
        );
        run(&app, &["UPDATE t SET v = 'at the lock', u = NULL WHERE id IN (7, 8)"]).await;
        let shown = "SELECT id, u, v, w, j::jsonb, s FROM t ORDER BY id";
        let before = rows(&db, shown).await;
        let outcome = control.try_swap(&steps.spec, &steps.grip, 1000).await.unwrap();
        assert!(matches!(outcome, SwapOutcome::Swapped { drained: 2, .. }), "{outcome:?}");
        let checkpoint = Checkpoint { phase: Phase::Swap, ..Checkpoint::begin() };
        let seen = control.observe(&steps.spec, &checkpoint).await.unwrap();
        assert_eq!(seen.swap, SwapState::Swapped);
        control.finish(&steps.spec, false).await.unwrap();
        assert_eq!(rows(&db, shown).await, before);
        assert_eq!(rows(&db, "SELECT DISTINCT n FROM t").await, ["7"]);
        run(&app, &["INSERT INTO t (u) VALUES (-1)"]).await;
        assert_eq!(
            rows(&db, "SELECT id, pg_typeof(id) FROM t WHERE u = -1").await,
            ["3001/bigint"]
        );
    });
}

#[test]
fn a_conversion_of_the_users_own_is_the_users_own() {
    on_each(&Flavor::POSTGRES_MATRIX, async |db| {
        make_table(&db, 500).await;
        let app = db.client().await.unwrap();
        run(
            &app,
            &["CREATE FUNCTION digits(text) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT \
               regexp_replace($1, '[^0-9]', '', 'g')::int $$"],
        )
        .await;
        let change = "ALTER TABLE t ALTER COLUMN v DROP DEFAULT, ALTER COLUMN v TYPE int USING digits(v) + t.id - id";
        let steps = Steps::begin(&db, change).await;
        let mut worker = steps.worker().await;
        steps.copied(&mut worker).await;
        run(&app, &["UPDATE t SET v = 'now 7' WHERE id = 3"]).await;
        apply_all(&mut worker).await;
        assert_eq!(verify_all(&mut worker, 100).await, (0, vec![]));
        let shown = format!("SELECT v FROM {} WHERE id IN (3, 4) ORDER BY id", steps.shadow());
        assert_eq!(rows(&db, &shown).await, ["7", "4"]);
    });
}

#[test]
fn a_value_that_does_not_fit_is_named_wherever_it_shows() {
    on_each(&Flavor::POSTGRES_MATRIX, async |db| {
        make_table(&db, 3000).await;
        let app = db.client().await.unwrap();
        run(&app, &["UPDATE t SET v = id::text", "UPDATE t SET v = 'bad' WHERE id = 2468"]).await;
        let change = "ALTER TABLE t ALTER v DROP DEFAULT, ALTER v TYPE int USING v::int";
        let steps = Steps::begin(&db, change).await;
        let mut worker = steps.worker().await;
        let (chunks, _) = worker.plan_chunks(None, 1_000_000, 1).await.unwrap();
        let error = worker.copy_chunk(1, &chunks[0]).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::DataError);
        let text = error.to_string();
        assert!(text.contains("row id=2468") && text.contains("bad"), "{text}");
        assert_eq!(rows(&db, &format!("SELECT count(*) FROM {}", steps.shadow())).await, ["0"]);
        run(&app, &["UPDATE t SET v = '1' WHERE id = 2468"]).await;
        steps.copied(&mut worker).await;
        run(&app, &["UPDATE t SET v = 'worse' WHERE id = 11", "UPDATE t SET v = '5' WHERE id < 9"])
            .await;
        let error = worker.apply(&Frontier::End, 1000).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::DataError);
        let text = error.to_string();
        assert!(text.contains("row id=11") && text.contains("worse"), "{text}");
    });
}

#[test]
fn a_new_rule_that_rows_break_is_told_by_the_row() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        make_table(&db, 1000).await;
        let app = db.client().await.unwrap();
        run(&app, &["UPDATE t SET u = NULL WHERE id = 700"]).await;
        for (change, says) in [
            ("ALTER TABLE t ALTER u SET NOT NULL, ADD n int", "null value"),
            ("ALTER TABLE t ADD CONSTRAINT c CHECK (u IS NOT NULL), ADD n int", "\"c\""),
        ] {
            let steps = Steps::begin(&db, change).await;
            let mut worker = steps.worker().await;
            let (chunks, _) = worker.plan_chunks(None, 1_000_000, 1).await.unwrap();
            let error = worker.copy_chunk(1, &chunks[0]).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::DataError);
            let text = error.to_string();
            assert!(text.contains("row id=700") && text.contains(says), "{text}");
            let mut control = steps.control().await;
            control.abort(&steps.spec).await.unwrap();
            underpin_dialect::Store::close_run(&mut control, "r1", "aborted", "").await.unwrap();
            run(&app, &["DROP SCHEMA underpin CASCADE"]).await;
        }
        let left = "SELECT tgname FROM pg_trigger WHERE tgrelid = 't'::regclass";
        assert_eq!(rows(&db, left).await, Vec::<String>::new());
    });
}

#[test]
fn an_empty_table_is_copied_by_nothing() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        make_table(&db, 0).await;
        let steps = Steps::begin(&db, "ALTER TABLE t ADD n int").await;
        let mut worker = steps.worker().await;
        let (chunks, last) = worker.plan_chunks(None, 100, 10).await.unwrap();
        assert!(chunks.is_empty() && last);
        steps.copied(&mut worker).await;
        run(&db.client().await.unwrap(), &["INSERT INTO t VALUES (1, 1, 'first')"]).await;
        assert_eq!(apply_all(&mut worker).await, 1);
        assert_eq!(verify_all(&mut worker, 100).await, (0, vec![]));
        assert_eq!(copy_all(&mut worker, 100).await, 0, "the end was fixed before the row came");
    });
}
