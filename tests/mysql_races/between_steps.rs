//! Gaps between two steps of the real program. Verification is off: it would mend what these rules
//! prevent, and hide that one of them is gone.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use underpin_tests::cli::Called;
use underpin_tests::proxy::{Deed, Proxy};
use underpin_tests::runner::story;
use underpin_tests::servers::{Flavor, TestDb};
use underpin_tests::workload::Dice;

use crate::mysql_steps::{
    LIMIT, make_table, named, nothing_left, on_each, rows, run, spring, start, succeed,
};

const CHANGE: &str = "ALTER TABLE t ADD n INT NOT NULL DEFAULT 7";

/// The table's old columns as text.
const CONTENT: &str = "SELECT CONCAT_WS('/', id, COALESCE(u, 'null'), v) FROM t ORDER BY id";

/// Waits until a statement that writes to the shadow waits for a row lock.
async fn wait_until_blocked(db: &TestDb) {
    let query = "SELECT COUNT(*) FROM information_schema.INNODB_TRX WHERE trx_state = 'LOCK WAIT' AND \
                 trx_query LIKE CONCAT('INSERT INTO `', DATABASE(), '`.`t~up\\_new`%')";
    let until = Instant::now() + LIMIT;
    let mut conn = db.conn().await.unwrap();
    while conn.query_first::<u64, _>(query).await.unwrap() != Some(1) {
        assert!(Instant::now() < until, "no chunk came to wait");
        tokio::time::sleep(Duration::from_millis(110)).await;
    }
}

/// A chunk is in flight and has its snapshot; meanwhile rows of it change, and the log grows so long
/// that it is due. Returns how the run ended.
async fn change_rows_of_a_chunk_in_flight(db: &TestDb) -> Called {
    let mut app = db.conn().await.unwrap();
    run(&mut app, &["DROP TABLE IF EXISTS t"]).await;
    make_table(db, 3000).await;
    let proxy = Proxy::start(&db.endpoints().primary).unwrap();
    let trap = proxy.trap(&["INSERT INTO", "~up_new` ("], Deed::Hold);
    let mut runner = start(&proxy.url(db.name()), CHANGE, &["--workers", "1", "--verify", "off"]);
    spring(&trap, &mut runner);
    let mut blocker = db.conn().await.unwrap();
    let row = "INSERT INTO `t~up_new` (id, u, v) VALUES (1500, -1, '')";
    run(&mut blocker, &["BEGIN", row]).await;
    trap.release();
    wait_until_blocked(db).await;
    run(
        &mut app,
        &[
            "DELETE FROM t WHERE id = 1800",
            "UPDATE t SET v = 'changed' WHERE id = 1700",
            "UPDATE t SET v = CONCAT(v, '!')",
            "UPDATE t SET v = CONCAT(v, '?')",
        ],
    )
    .await;
    // The backlog is read twice a second: by now a program that applies at any time has done so.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let expected = rows(db, CONTENT).await;
    run(&mut blocker, &["ROLLBACK"]).await;
    let called = succeed(runner);
    assert_eq!(rows(db, CONTENT).await, expected, "a change of a row in flight was lost");
    assert_eq!(rows(db, "SELECT DISTINCT n FROM t").await, ["7"]);
    called
}

#[test]
fn a_slow_chunk_brings_nothing_back() {
    on_each(&Flavor::ALL[..2], async |db| {
        // A chunk that waited too long is rolled back and reads anew, and then the gap is closed.
        for _ in 0..3 {
            let called = change_rows_of_a_chunk_in_flight(&db).await;
            if named(&called, "retrying").is_empty() {
                return;
            }
        }
        eprintln!("this machine is too slow: the gap was never open");
    });
}

#[test]
fn a_unique_value_crosses_the_frontier_while_it_is_pending() {
    on_each(&Flavor::ALL, async |db| {
        make_table(&db, 3000).await;
        let proxy = Proxy::start(&db.endpoints().primary).unwrap();
        let second = proxy.trap_nth(&["INSERT INTO", "~up_new` ("], 1, Deed::Hold);
        let mut runner =
            start(&proxy.url(db.name()), CHANGE, &["--workers", "1", "--verify", "off"]);
        spring(&second, &mut runner);
        let mut app = db.conn().await.unwrap();
        run(
            &mut app,
            &[
                // moved on to a row that is still to be copied
                "UPDATE t SET u = -1 WHERE id = 100",
                "UPDATE t SET u = 1000 WHERE id = 2500",
                // changed places with one
                "BEGIN",
                "UPDATE t SET u = NULL WHERE id = 200",
                "UPDATE t SET u = 2000 WHERE id = 2600",
                "UPDATE t SET u = 26000 WHERE id = 200",
                "COMMIT",
                // left behind by one that is gone
                "DELETE FROM t WHERE id = 300",
                "UPDATE t SET u = 3000 WHERE id = 2700",
            ],
        )
        .await;
        let expected = rows(&db, CONTENT).await;
        second.release();
        let called = succeed(runner);
        assert_eq!(called.ended.number("chunks_redone"), Some(1), "{}", story(&called.events));
        assert_eq!(rows(&db, CONTENT).await, expected);
        nothing_left(&db).await;
    });
}

/// Swaps unique values between rows of its own as fast as the server can; returns them at the end.
async fn swap_values(mut conn: Conn, ids: Vec<u32>, stop: Arc<AtomicBool>) -> HashMap<u32, i64> {
    let mut values: HashMap<u32, i64> = ids.iter().map(|id| (*id, i64::from(*id) * 10)).collect();
    let mut dice = Dice::new(u64::from(ids[0]));
    run(&mut conn, &["SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"]).await;
    while !stop.load(Ordering::SeqCst) {
        let (Some(a), Some(b)) = (dice.one_of(&ids), dice.one_of(&ids)) else { break };
        if a == b {
            continue;
        }
        let statements = [
            "BEGIN".to_owned(),
            format!("UPDATE t SET u = NULL WHERE id = {a}"),
            format!("UPDATE t SET u = {} WHERE id = {b}", values[&a]),
            format!("UPDATE t SET u = {} WHERE id = {a}", values[&b]),
            "COMMIT".to_owned(),
        ];
        let mut done = Ok(());
        for statement in &statements {
            done = conn.query_drop(statement).await;
            if done.is_err() {
                break;
            }
        }
        match done {
            Ok(()) => {
                let (of_a, of_b) = (values[&a], values[&b]);
                values.extend([(a, of_b), (b, of_a)]);
            }
            Err(mysql_async::Error::Server(error)) if error.code == 1213 => {
                run(&mut conn, &["ROLLBACK"]).await;
            }
            Err(error) => panic!("the writer saw {error}"),
        }
    }
    values
}

#[test]
fn unique_values_swapped_at_full_speed_never_clash_in_apply() {
    on_each(&Flavor::ALL[..2], async |db| {
        make_table(&db, 20_000).await;
        let stop = Arc::new(AtomicBool::new(false));
        let mut writers = Vec::new();
        for number in 0..4_u32 {
            let ids = (1..=20_000).filter(|id| id % 4 == number).collect();
            let conn = db.conn().await.unwrap();
            writers.push(tokio::spawn(swap_values(conn, ids, Arc::clone(&stop))));
        }
        let runner = start(&db.url(), CHANGE, &["--chunk-time", "20ms", "--workers", "2"]);
        let called = tokio::task::spawn_blocking(|| runner.wait(LIMIT)).await.unwrap().unwrap();
        stop.store(true, Ordering::SeqCst);
        let mut expected = HashMap::new();
        for writer in writers {
            expected.extend(writer.await.unwrap());
        }
        assert!(called.code() == 0, "{}\n{}", called.complaint(), story(&called.events));
        let applying = named(&called, "retrying");
        let applying = applying.iter().filter(|event| event["what"] == "applying the log").count();
        assert_eq!(applying, 0, "{:?}", named(&called, "retrying"));
        let captured = called.ended.number("changes_captured").unwrap_or(0);
        assert!(captured > 500, "only {captured} changes: the writers were not in the way");
        let found: Vec<(u32, i64)> =
            db.conn().await.unwrap().query("SELECT id, u FROM t").await.unwrap();
        let found: HashMap<u32, i64> = found.into_iter().collect();
        assert_eq!(found.len(), expected.len());
        let lost = expected.iter().filter(|(id, value)| found.get(id) != Some(value));
        assert_eq!(lost.count(), 0, "values that differ from what was acknowledged");
        eprintln!(
            "{}: {captured} changes captured, {:?} chunks taken together with the log",
            db.endpoints().flavor.name(),
            called.ended.number("chunks_redone")
        );
    });
}
