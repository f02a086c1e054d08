//! What may happen to the table while its blocks are copied.

use underpin_core::key::Frontier;
use underpin_dialect::{ChangeLog, Copy, ErrorKind, Grip, Verify, Worker as _};
use underpin_tests::servers::Flavor;

use crate::postgres_steps::{
    Steps, apply_all, both, copy_all, make_table, on_each, ranges, rows, run, verify_all,
};

const CHANGE: &str = "ALTER TABLE t ADD n int NOT NULL DEFAULT 7";

/// The rule: settling takes every logged key's row out of the shadow before an index is built.
#[test]
fn rows_that_move_between_blocks_are_neither_doubled_nor_missed() {
    on_each(&Flavor::POSTGRES_MATRIX, async |db| {
        let app = db.client().await.unwrap();
        make_table(&db, 5000).await;
        run(&app, &["ALTER TABLE t SET (autovacuum_enabled = off)"]).await;
        let steps = Steps::begin(&db, CHANGE).await;
        let mut worker = steps.worker().await;
        let (chunks, last) = worker.plan_chunks(None, 1000, 100).await.unwrap();
        assert!(last && chunks.len() > 2);
        worker.copy_chunk(1, &chunks[0]).await.unwrap();
        // Forward: a new version goes behind what is copied.
        run(&app, &["UPDATE t SET v = 'forward' WHERE id BETWEEN 1 AND 20"]).await;
        // Backward: room is made in front, and late rows move there.
        run(&app, &["DELETE FROM t WHERE id BETWEEN 100 AND 300", "VACUUM t"]).await;
        run(&app, &["UPDATE t SET v = 'backward' WHERE id BETWEEN 4900 AND 4950"]).await;
        let first_block: Vec<String> =
            rows(&db, "SELECT id FROM t WHERE id > 4899 AND ctid < '(4,0)'").await;
        assert!(!first_block.is_empty(), "no row moved backward");
        for chunk in &chunks[1..] {
            worker.copy_chunk(1, chunk).await.unwrap();
        }
        let doubled =
            format!("SELECT id FROM {} GROUP BY id HAVING count(*) > 1 LIMIT 1", steps.shadow());
        let missed = format!(
            "SELECT id FROM t WHERE NOT EXISTS (SELECT FROM {} n WHERE n.id = t.id) LIMIT 1",
            steps.shadow()
        );
        assert_eq!(rows(&db, &missed).await.len(), 1, "the test missed no row");
        // The end of the copy lies before new versions, so doubling needs a place that is free.
        let doubles = rows(&db, &doubled).await.len();
        let settled = worker.settle().await.unwrap();
        assert!(settled > 0, "{doubles}");
        assert_eq!(rows(&db, &doubled).await.len(), 0, "settled");
        underpin_dialect::Shadow::build_indexes(&mut steps.control().await, &steps.spec)
            .await
            .unwrap();
        apply_all(&mut worker).await;
        let (source, shadow) = both(&db, &steps, "id, u, v").await;
        assert!(source == shadow, "{} and {}", source.len(), shadow.len());
    });
}

/// The rule: settling is one transaction, and doing it again changes nothing.
#[test]
fn settling_twice_is_settling_once() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        make_table(&db, 500).await;
        let app = db.client().await.unwrap();
        let steps = Steps::begin(&db, CHANGE).await;
        let mut worker = steps.worker().await;
        copy_all(&mut worker, 100).await;
        run(&app, &["UPDATE t SET v = 'x' WHERE id <= 10", "DELETE FROM t WHERE id = 11"]).await;
        assert_eq!(worker.settle().await.unwrap(), 11);
        assert_eq!(worker.settle().await.unwrap(), 0);
        run(&app, &["UPDATE t SET v = 'y' WHERE id IN (10, 20)"]).await;
        assert_eq!(worker.settle().await.unwrap(), 1, "what came later goes as well");
        underpin_dialect::Shadow::build_indexes(&mut steps.control().await, &steps.spec)
            .await
            .unwrap();
        // In parts, each a snapshot of its own.
        for _ in 0..4 {
            worker.apply(&Frontier::End, 3).await.unwrap();
            run(&app, &["UPDATE t SET v = v || 'z' WHERE id IN (3, 30)"]).await;
        }
        apply_all(&mut worker).await;
        let (source, shadow) = both(&db, &steps, "id, u, v").await;
        assert_eq!(source, shadow);
    });
}

/// The rule: each chunk looks at the file it has read.
#[test]
fn a_table_that_is_rewritten_stops_the_copy() {
    on_each(&Flavor::POSTGRES_MATRIX, async |db| {
        make_table(&db, 3000).await;
        let app = db.client().await.unwrap();
        let steps = Steps::begin(&db, CHANGE).await;
        let mut worker = steps.worker().await;
        let (chunks, _) = worker.plan_chunks(None, 1000, 100).await.unwrap();
        worker.copy_chunk(1, &chunks[0]).await.unwrap();
        run(&app, &["DELETE FROM t WHERE id % 2 = 0", "VACUUM FULL t"]).await;
        let error = worker.copy_chunk(1, &chunks[1]).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::SourceChanged, "{error}");
        let marks = "SELECT count(*) FROM underpin.marks WHERE run_id = 'r1'";
        assert_eq!(rows(&db, marks).await, ["1"]);
    });
}

/// The rule: the marker of a TRUNCATE is never applied around.
#[test]
fn a_truncate_is_told_at_every_step() {
    on_each(&Flavor::POSTGRES_MATRIX, async |db| {
        make_table(&db, 3000).await;
        let app = db.client().await.unwrap();
        let steps = Steps::begin(&db, CHANGE).await;
        let mut worker = steps.worker().await;
        let (chunks, _) = worker.plan_chunks(None, 1000, 100).await.unwrap();
        worker.copy_chunk(1, &chunks[0]).await.unwrap();
        let ranges = ranges(&mut worker, 1000).await;
        // In one transaction with new rows, so that the table is not even empty.
        run(&app, &["BEGIN; TRUNCATE t; INSERT INTO t VALUES (1, 1, 'new'); COMMIT"]).await;
        let copied = worker.copy_chunk(1, &chunks[1]).await.unwrap_err();
        let settled = worker.settle().await.unwrap_err();
        let applied = worker.apply(&Frontier::End, 100).await.unwrap_err();
        let verified = worker.verify_range(&ranges[0]).await.unwrap_err();
        for error in [copied, settled, applied, verified] {
            assert_eq!(error.kind, ErrorKind::Truncated, "{error}");
        }
        // Prepared anew it is a run like any other.
        underpin_dialect::Shadow::prepare(&mut steps.control().await, &steps.spec).await.unwrap();
        let mut worker = steps.worker().await;
        steps.copied(&mut worker).await;
        run(&app, &["INSERT INTO t VALUES (2, 2, 'newer')"]).await;
        apply_all(&mut worker).await;
        let (source, shadow) = both(&db, &steps, "id, u, v").await;
        assert_eq!(source, shadow);
        assert_eq!(shadow.len(), 2);
    });
}

/// The rules: a chunk and its mark commit together, and nothing commits behind a newer grip.
#[test]
fn a_runner_that_was_taken_over_writes_nothing() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        make_table(&db, 3000).await;
        let steps = Steps::begin(&db, CHANGE).await;
        let mut old = steps.worker().await;
        let (chunks, _) = old.plan_chunks(None, 1000, 100).await.unwrap();
        let newer: Grip =
            underpin_dialect::Store::take_over(&mut steps.control().await, "r1").await.unwrap();
        let refused = [
            old.copy_chunk(1, &chunks[0]).await.unwrap_err(),
            old.apply(&Frontier::End, 100).await.unwrap_err(),
            old.settle().await.unwrap_err(),
        ];
        for error in refused {
            assert_eq!(error.kind, ErrorKind::Fenced, "{error}");
        }
        assert_eq!(rows(&db, &format!("SELECT count(*) FROM {}", steps.shadow())).await, ["0"]);
        let mut new =
            underpin_dialect::Database::worker(&steps.server, &steps.spec, &newer).await.unwrap();
        let copied = new.copy_chunk(1, &chunks[0]).await.unwrap();
        let marks = "SELECT row_count FROM underpin.marks WHERE run_id = 'r1'";
        assert_eq!(rows(&db, marks).await, [copied.to_string()]);
        // Once more under the same mark: the rows go with it.
        assert!(new.copy_chunk(1, &chunks[0]).await.is_err());
        let count = format!("SELECT count(*) FROM {}", steps.shadow());
        assert_eq!(rows(&db, &count).await, [copied.to_string()]);
    });
}

/// The rule: no snapshot outlives its step.
#[test]
fn between_steps_a_worker_holds_no_snapshot() {
    on_each(&Flavor::POSTGRES_MATRIX, async |db| {
        make_table(&db, 3000).await;
        let app = db.client().await.unwrap();
        let steps = Steps::begin(&db, CHANGE).await;
        let mut worker = steps.worker().await;
        let held = format!(
            "SELECT backend_xmin, backend_xid, state FROM pg_stat_activity WHERE pid = {}",
            worker.session()
        );
        let idle = ["null/null/idle"];
        let (chunks, _) = worker.plan_chunks(None, 1000, 100).await.unwrap();
        assert_eq!(rows(&db, &held).await, idle);
        for chunk in &chunks {
            worker.copy_chunk(1, chunk).await.unwrap();
            assert_eq!(rows(&db, &held).await, idle);
        }
        worker.settle().await.unwrap();
        assert_eq!(rows(&db, &held).await, idle);
        underpin_dialect::Shadow::build_indexes(&mut steps.control().await, &steps.spec)
            .await
            .unwrap();
        run(&app, &["UPDATE t SET v = 'x' WHERE id < 100"]).await;
        worker.apply(&Frontier::End, 10).await.unwrap();
        assert_eq!(rows(&db, &held).await, idle);
        assert_eq!(verify_all(&mut worker, 500).await, (0, vec![]));
        assert_eq!(rows(&db, &held).await, idle);
    });
}
