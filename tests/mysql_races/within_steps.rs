//! Gaps inside one step: what one statement or transaction of the dialect must see and must not lock.

use std::time::{Duration, Instant};

use mysql_async::Conn;
use underpin_core::key::Frontier;
use underpin_dialect::{ChangeLog, Copy, Store, Worker};
use underpin_tests::busy;
use underpin_tests::proxy::{Deed, Proxy};
use underpin_tests::servers::{Flavor, TestDb};

use crate::mysql_steps::{Steps, make_table, on_each, rows, run, wait_for_lock_wait};

const CHANGE: &str = "ALTER TABLE t ADD n INT NOT NULL DEFAULT 7";

/// Less than a row lock is waited for: whoever takes longer has waited for somebody.
const AT_ONCE: Duration = Duration::from_millis(2500);

/// Source and shadow as text, the columns of the source only.
async fn both(db: &TestDb, steps: &Steps) -> (Vec<String>, Vec<String>) {
    let columns = "CONCAT_WS('/', id, COALESCE(u, 'null'), HEX(v))";
    let source = rows(db, &format!("SELECT {columns} FROM t ORDER BY id")).await;
    let shadow = rows(db, &format!("SELECT {columns} FROM {} ORDER BY id", steps.shadow())).await;
    (source, shadow)
}

#[test]
fn a_lower_id_that_commits_later_is_applied_later() {
    on_each(&Flavor::ALL, async |db| {
        make_table(&db, 10).await;
        let steps = Steps::begin(&db, CHANGE).await;
        let mut worker = steps.worker().await;
        let (chunks, _) = worker.plan_chunks(None, 100, 1).await.unwrap();
        worker.copy_chunk(1, &chunks[0]).await.unwrap();
        let (mut slow, mut fast) = (db.conn().await.unwrap(), db.conn().await.unwrap());
        run(&mut slow, &["BEGIN", "UPDATE t SET v = 'slow' WHERE id = 1"]).await;
        run(&mut fast, &["UPDATE t SET v = 'fast' WHERE id = 2"]).await;
        let applied = worker.apply(&Frontier::End, 1000).await.unwrap();
        assert_eq!((applied.entries, applied.left), (1, 0), "what is committed is taken");
        run(&mut slow, &["COMMIT"]).await;
        let applied = worker.apply(&Frontier::End, 1000).await.unwrap();
        assert_eq!(applied.entries, 1, "an entry with a lower id than one that was consumed");
        let (source, shadow) = both(&db, &steps).await;
        assert_eq!(source, shadow);
    });
}

/// The log is read from a floor on, so that reading stays cheap. A writer that drew a low id while an
/// application began must not come to lie below it.
#[test]
fn the_floor_of_the_log_waits_for_every_writer() {
    on_each(&Flavor::ALL[..2], async |db| {
        make_table(&db, 10).await;
        let proxy = Proxy::start(&db.endpoints().primary).unwrap();
        let steps = Steps::begin_through(&db, &proxy.url(db.name()), CHANGE).await;
        let mut worker = steps.worker().await;
        let (chunks, _) = worker.plan_chunks(None, 100, 1).await.unwrap();
        // Leaves rows in the stage, which the next application deletes before it reads the log.
        worker.copy_with_pending(1, &chunks[0], &Frontier::End).await.unwrap();
        let (mut slow, mut fast) = (db.conn().await.unwrap(), db.conn().await.unwrap());
        let reading = proxy.trap(&["INSERT INTO", "underpin_stage", "~up_log"], Deed::Hold);
        let applying = tokio::spawn(async move {
            let applied = worker.apply(&Frontier::End, 1000).await.unwrap();
            (worker, applied)
        });
        reading.wait_sprung(AT_ONCE * 10).unwrap();
        run(&mut slow, &["BEGIN", "UPDATE t SET v = 'slow' WHERE id = 1"]).await;
        run(&mut fast, &["UPDATE t SET v = 'fast' WHERE id = 2"]).await;
        reading.release();
        let (mut worker, applied) = applying.await.unwrap();
        assert_eq!((applied.entries, applied.left), (1, 0));
        // The floor rises by steps that lie two seconds apart.
        for number in 0..4 {
            tokio::time::sleep(Duration::from_millis(2100)).await;
            run(&mut fast, &[&format!("UPDATE t SET v = 'fast {number}' WHERE id = 2")]).await;
            worker.apply(&Frontier::End, 1000).await.unwrap();
        }
        run(&mut slow, &["COMMIT"]).await;
        let applied = worker.apply(&Frontier::End, 1000).await.unwrap();
        assert_eq!(applied.entries, 1, "the entry of a slow writer fell below the floor");
        let (source, shadow) = both(&db, &steps).await;
        assert_eq!(source, shadow);
    });
}

/// Some batches, none of which reaches the end. Each step of the floor takes two seconds.
async fn falls_behind(worker: &mut impl ChangeLog, fast: &mut Conn) {
    for number in 0..4 {
        run(
            fast,
            &[&format!("UPDATE t FORCE INDEX (PRIMARY) SET v = 'fast {number}' WHERE id > 50")],
        )
        .await;
        let applied = worker.apply(&Frontier::End, 5).await.unwrap();
        assert!(applied.entries == 5 && applied.left > 5, "{applied:?}");
        tokio::time::sleep(Duration::from_millis(2100)).await;
    }
}

/// Behind writers that are faster no batch ever leaves nothing. The floor must rise all the same, or each
/// batch steps over all that the ones before have deleted, and still wait for every writer.
#[test]
fn the_floor_rises_behind_a_run_that_falls_behind() {
    on_each(&Flavor::ALL[..2], async |db| {
        make_table(&db, 100).await;
        let proxy = Proxy::start(&db.endpoints().primary).unwrap();
        let steps = Steps::begin_through(&db, &proxy.url(db.name()), CHANGE).await;
        let mut worker = steps.worker().await;
        let (chunks, _) = worker.plan_chunks(None, 100, 1).await.unwrap();
        worker.copy_chunk(1, &chunks[0]).await.unwrap();
        let (mut slow, mut fast) = (db.conn().await.unwrap(), db.conn().await.unwrap());
        run(&mut slow, &["BEGIN", "UPDATE t SET v = 'slow' WHERE id = 1"]).await;
        let first = format!("SELECT v FROM {} WHERE id = 1", steps.shadow());
        falls_behind(&mut worker, &mut fast).await;
        run(&mut slow, &["COMMIT"]).await;
        let applied = worker.apply(&Frontier::End, 5).await.unwrap();
        assert_eq!((applied.entries, applied.keys), (5, 5));
        assert_eq!(rows(&db, &first).await, ["slow"]);
        falls_behind(&mut worker, &mut fast).await;
        let from_the_start = proxy.trap(&["underpin_stage", "l.id BETWEEN 0 AND"], Deed::CutBefore);
        worker.apply(&Frontier::End, 100_000).await.expect("the floor has not risen");
        drop(from_the_start);
        let (source, shadow) = both(&db, &steps).await;
        assert_eq!(source, shadow);
    });
}

#[test]
fn applying_goes_on_beside_an_open_transaction() {
    on_each(&Flavor::ALL, async |db| {
        make_table(&db, 3000).await;
        let steps = Steps::begin(&db, CHANGE).await;
        let mut worker = steps.worker().await;
        let (chunks, _) = worker.plan_chunks(None, 10_000, 1).await.unwrap();
        worker.copy_chunk(1, &chunks[0]).await.unwrap();
        let (mut slow, mut app) = (db.conn().await.unwrap(), db.conn().await.unwrap());
        run(&mut app, &["UPDATE t FORCE INDEX (PRIMARY) SET v = 'one' WHERE id > 100"]).await;
        run(&mut slow, &["BEGIN", "UPDATE t SET v = 'open' WHERE id <= 10"]).await;
        let update = "UPDATE t FORCE INDEX (PRIMARY) SET v = 'two' WHERE id > 100";
        run(&mut app, &[update, "DELETE FROM t WHERE id = 50"]).await;
        let began = Instant::now();
        let applied = worker.apply(&Frontier::End, 100_000).await.unwrap();
        assert!(
            began.elapsed() < busy::allows(began, AT_ONCE),
            "applying waited {:?}",
            began.elapsed()
        );
        assert_eq!((applied.entries, applied.keys, applied.left), (5801, 2901, 0));
        let left = format!("SELECT COUNT(*) FROM {}", steps.log());
        assert_eq!(rows(&db, &left).await, ["0"], "consumed, all but what is not committed");
        run(&mut slow, &["COMMIT"]).await;
        assert_eq!(worker.apply(&Frontier::End, 100_000).await.unwrap().entries, 10);
        let (source, shadow) = both(&db, &steps).await;
        assert_eq!(source, shadow);
    });
}

#[test]
fn consuming_the_log_blocks_no_writer() {
    on_each(&Flavor::ALL, async |db| {
        make_table(&db, 300).await;
        let steps = Steps::begin(&db, CHANGE).await;
        let mut worker = steps.worker().await;
        let (chunks, _) = worker.plan_chunks(None, 1000, 1).await.unwrap();
        let mut app = db.conn().await.unwrap();
        run(&mut app, &["UPDATE t SET v = 'one' WHERE id <= 200"]).await;
        // The last statement of the transaction, marking the chunk, has to wait: until then everything
        // is written and consumed, and nothing is committed.
        let mut blocker = db.conn().await.unwrap();
        let mark = format!("INSERT INTO {} VALUES ('r1', 1, 0, 1)", steps.marks());
        run(&mut blocker, &["BEGIN", &mark]).await;
        let session = worker.session();
        let chunk = chunks[0].clone();
        let applying =
            tokio::spawn(async move { worker.copy_with_pending(1, &chunk, &Frontier::End).await });
        wait_for_lock_wait(&db, session).await;
        run(
            &mut app,
            &[
                "UPDATE t SET v = 'two' WHERE id IN (1, 100, 200, 300)",
                "DELETE FROM t WHERE id = 7",
                "INSERT INTO t (id, u) VALUES (7, 7), (301, 301)",
                "UPDATE t SET id = 400 WHERE id = 8",
            ],
        )
        .await;
        assert!(!applying.is_finished(), "the writer had to wait until the log was consumed");
        run(&mut blocker, &["ROLLBACK"]).await;
        let (copied, applied) = applying.await.unwrap().unwrap();
        assert_eq!((copied, applied.entries, applied.left), (300, 200, 0));
        let mut worker = steps.worker().await;
        // 4 updates, a delete, two inserts, and a change of the key, which logs two
        assert_eq!(worker.apply(&Frontier::End, 1000).await.unwrap().entries, 9);
        let (source, shadow) = both(&db, &steps).await;
        assert_eq!(source, shadow);
    });
}

#[test]
fn a_chunk_is_a_plain_insert_and_swallows_no_clash() {
    on_each(&Flavor::ALL, async |db| {
        make_table(&db, 20).await;
        let steps = Steps::begin(&db, CHANGE).await;
        let mut worker = steps.worker().await;
        let (chunks, _) = worker.plan_chunks(None, 10, 2).await.unwrap();
        worker.copy_chunk(1, &chunks[0]).await.unwrap();
        let mut app = db.conn().await.unwrap();
        // The value of a copied row moves to one that is still to be copied.
        run(&mut app, &["UPDATE t SET u = -1 WHERE id = 3", "UPDATE t SET u = 30 WHERE id = 15"])
            .await;
        let clash = worker.copy_chunk(1, &chunks[1]).await.unwrap_err();
        assert_eq!(clash.kind, underpin_dialect::ErrorKind::DuplicateKey, "{clash}");
        let count = format!("SELECT COUNT(*) FROM {}", steps.shadow());
        assert_eq!(rows(&db, &count).await, ["10"], "the chunk was rolled back as a whole");
        let end = Frontier::after(chunks[1].range.up_to.as_ref());
        worker.copy_with_pending(1, &chunks[1], &end).await.unwrap();
        let (source, shadow) = both(&db, &steps).await;
        assert_eq!(source, shadow);
    });
}

/// The unique value of a row outside the batch is in the way of one inside it, unless the rows of
/// everything pending are removed first.
#[test]
fn a_batch_makes_room_for_itself() {
    on_each(&Flavor::ALL, async |db| {
        make_table(&db, 10).await;
        let steps = Steps::begin(&db, CHANGE).await;
        let mut worker = steps.worker().await;
        let (chunks, _) = worker.plan_chunks(None, 100, 1).await.unwrap();
        worker.copy_chunk(1, &chunks[0]).await.unwrap();
        let mut app = db.conn().await.unwrap();
        run(
            &mut app,
            &[
                "BEGIN",
                "UPDATE t SET u = NULL WHERE id = 1",
                "UPDATE t SET u = 10 WHERE id = 2",
                "UPDATE t SET u = 20 WHERE id = 1",
                "COMMIT",
            ],
        )
        .await;
        let applied = worker.apply(&Frontier::End, 1).await.unwrap();
        assert_eq!((applied.entries, applied.left), (1, 2));
        let applied = worker.apply(&Frontier::End, 100).await.unwrap();
        assert_eq!((applied.entries, applied.left), (2, 0));
        let (source, shadow) = both(&db, &steps).await;
        assert_eq!(source, shadow);
    });
}

/// A batch leaves the others' rows alone, however many they are; where the shadow is cleared they go, and a
/// quarter of all is taken at least.
#[test]
fn a_batch_touches_no_other_row_unless_it_clears() {
    on_each(&Flavor::ALL, async |db| {
        make_table(&db, 20).await;
        let steps = Steps::begin(&db, CHANGE).await;
        let mut worker = steps.worker().await;
        let (chunks, _) = worker.plan_chunks(None, 100, 1).await.unwrap();
        worker.copy_chunk(1, &chunks[0]).await.unwrap();
        let mut app = db.conn().await.unwrap();
        run(&mut app, &["UPDATE t SET u = u + 1000"]).await;
        let applied = worker.apply(&Frontier::End, 4).await.unwrap();
        assert_eq!((applied.entries, applied.left, applied.cleared), (4, 16, false));
        let shadow = steps.shadow();
        let old_and_new = format!("SELECT CONCAT_WS('/', COUNT(*), SUM(u > 1000)) FROM {shadow}");
        assert_eq!(rows(&db, &old_and_new).await, ["20/4"]);
        let applied = worker.apply_and_clear(&Frontier::End, 1).await.unwrap();
        assert_eq!((applied.entries, applied.left, applied.cleared), (4, 12, true));
        assert_eq!(rows(&db, &old_and_new).await, ["8/8"]);
        let applied = worker.apply(&Frontier::End, 100).await.unwrap();
        assert_eq!((applied.entries, applied.left, applied.cleared), (12, 0, true));
        let (source, shadow) = both(&db, &steps).await;
        assert_eq!(source, shadow);
    });
}

#[test]
fn a_worker_of_a_grip_that_was_taken_over_writes_nothing() {
    on_each(&Flavor::ALL, async |db| {
        make_table(&db, 10).await;
        let steps = Steps::begin(&db, CHANGE).await;
        let mut worker = steps.worker().await;
        let (chunks, _) = worker.plan_chunks(None, 100, 1).await.unwrap();
        steps.control().await.take_over(&steps.spec.run_id).await.unwrap();
        let refused = worker.copy_chunk(1, &chunks[0]).await.unwrap_err();
        assert_eq!(refused.kind, underpin_dialect::ErrorKind::Fenced, "{refused}");
        let refused = worker.apply(&Frontier::End, 100).await.unwrap_err();
        assert_eq!(refused.kind, underpin_dialect::ErrorKind::Fenced, "{refused}");
        let count = format!("SELECT COUNT(*) FROM {}", steps.shadow());
        assert_eq!(rows(&db, &count).await, ["0"]);
    });
}

#[test]
fn the_server_decides_what_lies_beyond_the_frontier() {
    on_each(&Flavor::ALL, async |db| {
        let mut app = db.conn().await.unwrap();
        run(
            &mut app,
            &[
                "CREATE TABLE t (k VARCHAR(20) NOT NULL PRIMARY KEY, v INT NOT NULL) \
                 CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci",
                // byte order: B D Ä… a c ä; the server's: a ä B c D
                "INSERT INTO t VALUES ('a', 1), ('ab', 1), ('B', 1), ('c', 1), ('D', 1), ('äz', 1)",
            ],
        )
        .await;
        let steps = Steps::begin(&db, CHANGE).await;
        let mut worker = steps.worker().await;
        let (chunks, _) = worker.plan_chunks(None, 4, 2).await.unwrap();
        let order = rows(&db, "SELECT k FROM t ORDER BY k").await;
        assert_eq!(order, ["a", "ab", "äz", "B", "c", "D"]);
        worker.copy_chunk(1, &chunks[0]).await.unwrap();
        let end = Frontier::after(chunks[0].range.up_to.as_ref());
        run(&mut app, &["UPDATE t SET v = 2"]).await;
        let applied = worker.apply(&end, 1000).await.unwrap();
        assert_eq!((applied.entries, applied.dropped, applied.keys), (6, 2, 4));
        worker.copy_chunk(2, &chunks[1]).await.unwrap();
        let shadow = format!("SELECT CONCAT(k, v) FROM {} ORDER BY k", steps.shadow());
        assert_eq!(rows(&db, &shadow).await, ["a2", "ab2", "äz2", "B2", "c2", "D2"]);
    });
}

/// A table whose key is text; the change gives the key another collation where asked to.
async fn text_key(db: &TestDb) {
    let mut app = db.conn().await.unwrap();
    run(
        &mut app,
        &[
            "CREATE TABLE t (k VARCHAR(20) NOT NULL PRIMARY KEY, v INT NOT NULL) CHARACTER SET utf8mb4 \
             COLLATE utf8mb4_general_ci",
            "INSERT INTO t VALUES ('a', 1), ('b', 2), ('c', 3), ('d', 4)",
        ],
    )
    .await;
}

/// Changes of the key that most collations do not call a change, and one that all do.
const KEY_CHANGES: [&str; 3] = [
    "UPDATE t SET k = 'A' WHERE k = 'a'",
    "UPDATE t SET k = 'b ' WHERE k = 'b'",
    "UPDATE t SET k = 'z' WHERE k = 'c'",
];

const BYTES: &str = "SELECT CONCAT(HEX(k), '/', v) FROM";

#[test]
fn a_change_of_the_key_logs_both_keys() {
    for change in [CHANGE, "ALTER TABLE t MODIFY k VARCHAR(20) COLLATE utf8mb4_bin NOT NULL"] {
        on_each(&Flavor::ALL, async |db| {
            text_key(&db).await;
            let steps = Steps::begin(&db, change).await;
            let mut worker = steps.worker().await;
            let (chunks, _) = worker.plan_chunks(None, 100, 1).await.unwrap();
            worker.copy_chunk(1, &chunks[0]).await.unwrap();
            let mut app = db.conn().await.unwrap();
            run(&mut app, &KEY_CHANGES).await;
            run(&mut app, &["UPDATE t SET v = 5 WHERE k = 'd'"]).await;
            let logged =
                rows(&db, &format!("SELECT HEX(k0) FROM {} ORDER BY id", steps.log())).await;
            assert_eq!(logged, ["61", "41", "62", "6220", "63", "7A", "64"]);
            worker.apply(&Frontier::End, 1000).await.unwrap();
            let shadow = rows(&db, &format!("{BYTES} {} ORDER BY v", steps.shadow())).await;
            assert_eq!(shadow, ["41/1", "6220/2", "7A/3", "64/5"], "{change}");
        });
    }
}

/// The chunk has read the new spelling already when the entries of the change are applied.
#[test]
fn a_change_of_the_key_before_its_chunk_is_applied_after_it() {
    for change in [CHANGE, "ALTER TABLE t MODIFY k VARCHAR(20) COLLATE utf8mb4_bin NOT NULL"] {
        on_each(&Flavor::ALL, async |db| {
            text_key(&db).await;
            let steps = Steps::begin(&db, change).await;
            let mut worker = steps.worker().await;
            let mut app = db.conn().await.unwrap();
            run(&mut app, &KEY_CHANGES).await;
            let (chunks, _) = worker.plan_chunks(None, 100, 1).await.unwrap();
            worker.copy_chunk(1, &chunks[0]).await.unwrap();
            run(&mut app, &["UPDATE t SET v = v + 10 WHERE k = 'a'"]).await;
            worker.apply(&Frontier::End, 1000).await.unwrap();
            let shadow = rows(&db, &format!("{BYTES} {} ORDER BY v", steps.shadow())).await;
            assert_eq!(shadow, ["6220/2", "7A/3", "64/4", "41/11"], "{change}");
        });
    }
}
