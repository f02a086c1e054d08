//! Why our names sort behind the source's: the swap of two sessions, in plain SQL, with helpers that sort
//! before it and with such that sort behind. An experiment on the servers, and the product's names.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use underpin_tests::servers::{Flavor, TestDb};

use crate::mysql_steps::{LIMIT, Steps, make_table, on_each, rows, run};

const WRITERS: u32 = 8;

/// Inserts rows until stopped; returns those that were acknowledged. Told apart by their text: the new
/// table draws the ids of lost rows once more.
async fn insert(mut conn: Conn, writer: u32, stop: Arc<AtomicBool>) -> Vec<String> {
    let mut acknowledged = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let text = format!("{writer} wrote {}", acknowledged.len());
        run(&mut conn, &[&format!("INSERT INTO t (v) VALUES ('{text}')")]).await;
        acknowledged.push(text);
    }
    acknowledged
}

/// Sentry, locks, drain, RENAME from the side, release: without fence. Returns the acknowledged rows that
/// the new table lacks.
async fn lost_by_a_swap(db: &TestDb, [shadow, log, retired]: [&str; 3]) -> usize {
    let (mut a, mut b) = (db.conn().await.unwrap(), db.conn().await.unwrap());
    let setup = [
        "CREATE TABLE t (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, v VARCHAR(20) NOT NULL)"
            .into(),
        format!("CREATE TABLE `{shadow}` LIKE t"),
        format!(
            "CREATE TABLE `{log}` (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, k INT NOT NULL)"
        ),
        format!(
            "CREATE TRIGGER capture AFTER INSERT ON t FOR EACH ROW INSERT INTO `{log}` (k) VALUES \
             (NEW.id)"
        ),
        format!("CREATE TABLE `{retired}` (id INT NOT NULL PRIMARY KEY)"),
    ];
    for statement in &setup {
        run(&mut a, &[statement]).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for number in 0..WRITERS {
        let conn = db.conn().await.unwrap();
        writers.push(tokio::spawn(insert(conn, number, Arc::clone(&stop))));
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let lock = format!("LOCK TABLES t WRITE, `{retired}` WRITE, `{shadow}` WRITE, `{log}` WRITE");
    let drain =
        format!("REPLACE INTO `{shadow}` SELECT * FROM t WHERE id IN (SELECT k FROM `{log}`)");
    run(&mut a, &[&lock, &drain, &format!("DELETE FROM `{log}`")]).await;
    // by now every writer has sent a statement and waits
    tokio::time::sleep(Duration::from_millis(100)).await;
    let session: u64 = b.query_first("SELECT CONNECTION_ID()").await.unwrap().unwrap();
    let rename = format!("RENAME TABLE t TO `{retired}`, `{shadow}` TO t");
    let renaming = tokio::spawn(async move { run(&mut b, &[&rename]).await });
    let waiting = format!(
        "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = {session} AND STATE LIKE \
         'Waiting for table metadata lock%'"
    );
    let until = Instant::now() + LIMIT;
    while a.query_first::<u64, _>(&waiting).await.unwrap() != Some(1) {
        assert!(Instant::now() < until, "the RENAME does not wait");
    }
    run(&mut a, &[&format!("DROP TABLE `{retired}`"), "UNLOCK TABLES"]).await;
    renaming.await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    stop.store(true, Ordering::SeqCst);
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    let found: Vec<String> = a.query("SELECT v FROM t").await.unwrap();
    for table in ["t", log, retired] {
        run(&mut a, &[&format!("DROP TABLE `{table}`")]).await;
    }
    assert!(acknowledged.len() > 2 * 8, "the writers wrote {} rows only", acknowledged.len());
    acknowledged.iter().filter(|text| !found.contains(text)).count()
}

#[test]
fn helpers_that_sort_before_the_source_lose_writes_and_those_behind_it_none() {
    on_each(&Flavor::ALL, async |db| {
        let before = lost_by_a_swap(&db, ["_t_new", "_t_log", "_t_old"]).await;
        let mut behind = Vec::new();
        for _ in 0..4 {
            behind.push(lost_by_a_swap(&db, ["t~up_new", "t~up_log", "t~up_old"]).await);
        }
        eprintln!(
            "{}: {before} writes of {WRITERS} writers lost with names before, {behind:?} behind",
            db.endpoints().flavor.name()
        );
        assert!(before > 0, "the rule has lost its reason: nothing was lost");
        assert_eq!(behind, [0; 4]);
    });
}

#[test]
fn all_our_names_sort_behind_the_source_for_the_server() {
    on_each(&Flavor::ALL, async |db| {
        make_table(&db, 1).await;
        let steps = Steps::begin(&db, "ALTER TABLE t ADD n INT NOT NULL DEFAULT 7").await;
        let names = &steps.spec.names;
        for name in [&names.shadow, &names.log, &names.retired] {
            // the server orders its lock requests by the bytes of the names
            let sql = format!("SELECT CAST('{name}' AS BINARY) > CAST('t' AS BINARY)");
            assert_eq!(rows(&db, &sql).await, ["1"], "{name}");
        }
    });
}
