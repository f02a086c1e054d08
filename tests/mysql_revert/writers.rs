//! A hundred thousand writes to the new table, and writers that never stop: all of it is in the old table,
//! and nobody waits for long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use underpin_tests::busy;
use underpin_tests::cli::Called;
use underpin_tests::prober::Prober;
use underpin_tests::servers::{TestDb, sql};
use underpin_tests::workload::Dice;

use crate::bench::{BOTH, Turn, make, take, write};
use crate::mysql_steps::{nothing_left, on_each_alone, rows};

/// The longest that the application may stand still.
const STALL_MAX: Duration = Duration::from_millis(200);

/// Writes the same to `t` and to a mirror of it in each transaction, until it is stopped.
async fn mirror(url: String, number: u64, stop: Arc<AtomicBool>) -> u64 {
    let mut conn = sql::connect(&url).await.unwrap();
    let mut dice = Dice::new(number);
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        let id = dice.below(4000) * 10 + number;
        let words = match dice.below(4) {
            0 => format!("DELETE FROM {{}} WHERE id = {id}"),
            1 => format!("REPLACE INTO {{}} (id, v) VALUES ({id}, 'by {number}')"),
            _ => format!("UPDATE {{}} SET v = 'at {done}' WHERE id = {id}"),
        };
        let mut answer = conn.query_drop("BEGIN").await;
        for table in ["t", "m"] {
            if answer.is_ok() {
                answer = conn.query_drop(words.replace("{}", table)).await;
            }
        }
        match answer {
            Ok(()) => {
                conn.query_drop("COMMIT").await.unwrap();
                done += 1;
            }
            // The fence of the swap, on servers that need one.
            Err(mysql_async::Error::Server(error)) if error.code == 1213 => {
                conn.query_drop("ROLLBACK").await.unwrap();
            }
            Err(error) => panic!("{words}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    done
}

/// Rows of one of the two that the other one has not.
async fn apart(db: &TestDb) -> Vec<String> {
    rows(
        db,
        "SELECT CONCAT_WS('/', id, v) FROM (SELECT id, v FROM t UNION ALL SELECT id, v FROM m) AS both_ \
         GROUP BY id, v HAVING COUNT(*) <> 2 LIMIT 5",
    )
    .await
}

fn stall(called: &Called) -> Duration {
    let swap = called.event("swap").unwrap();
    Duration::from_millis(swap["stall_ms"].as_u64().unwrap())
}

/// Two tables of the same 40,000 rows, `t` with a column more.
async fn make_tables(db: &TestDb) {
    write(
        db,
        &[
            "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(40) NOT NULL, old INT NOT NULL DEFAULT 5, \
             KEY (v))",
            "CREATE TABLE m (id INT PRIMARY KEY, v VARCHAR(40) NOT NULL)",
            "INSERT INTO t WITH RECURSIVE n AS (SELECT 0 AS i UNION ALL SELECT i + 1 FROM n WHERE i < \
             199) SELECT a.i * 200 + b.i, 'first', a.i * 200 + b.i FROM n AS a JOIN n AS b",
            "INSERT INTO m SELECT id, v FROM t",
        ],
    )
    .await;
}

/// More than a hundred thousand writes to the new table and to the mirror. Rows whose last digit is 1, 2
/// or 3 are the writers' own.
async fn write_a_hundred_thousand(app: &mut mysql_async::Conn) {
    for words in [
        "UPDATE {} SET v = CONCAT('new ', id) WHERE id % 10 IN (0, 4, 5, 6)",
        "INSERT INTO {} (id, v) SELECT id + 100000, 'more' FROM m WHERE id < 40000 AND id % 10 > 3",
        "UPDATE {} SET v = 'again' WHERE id % 10 IN (4, 5, 6, 7, 8) OR id > 100000",
        "DELETE FROM {} WHERE id > 120000",
        "UPDATE {} SET v = 'once more' WHERE id % 10 IN (7, 8, 9)",
    ] {
        for table in ["t", "m"] {
            app.query_drop(words.replace("{}", table)).await.unwrap();
        }
    }
}

#[test]
fn a_hundred_thousand_writes_go_back_under_writers() {
    on_each_alone(&BOTH, async |db| {
        make_tables(&db).await;
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (1..=3)
            .map(|number| tokio::spawn(mirror(db.url(), number, Arc::clone(&stop))))
            .collect();
        make(
            &db,
            "ALTER TABLE t DROP old, MODIFY v VARCHAR(80) NOT NULL, ADD n INT NOT NULL DEFAULT 7",
        );
        let mut app = db.conn().await.unwrap();
        app.query_drop("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await.unwrap();
        write_a_hundred_thousand(&mut app).await;
        let logged = rows(&db, "SELECT COUNT(*) FROM `t~up_rlog`").await;
        let logged: u64 = logged[0].parse().unwrap();
        assert!(logged > 100_000, "{logged} writes since the swap");
        let read = vec!["SELECT * FROM t WHERE id = 17".to_owned()];
        let prober = Prober::start(&db.url(), read);
        let begun = Instant::now();
        let reverted = take(&db, Turn::Revert);
        let again = take(&db, Turn::Again);
        app.query_drop("UPDATE t SET v = 'third', n = 8 WHERE id % 10 = 9").await.unwrap();
        app.query_drop("UPDATE m SET v = 'third' WHERE id % 10 = 9").await.unwrap();
        let third = take(&db, Turn::Revert);
        let felt = prober.stop().unwrap();
        stop.store(true, Ordering::Relaxed);
        let mut done = 0;
        for writer in writers {
            done += writer.await.unwrap();
        }
        assert_eq!(apart(&db).await, Vec::<String>::new(), "the old table and what was written");
        let own =
            "SELECT COUNT(*) FROM t WHERE id < 40000 AND id % 10 NOT IN (1, 2, 3) AND old <> id";
        assert_eq!(rows(&db, own).await, ["0"], "values that only the old table knew");
        let stalls = [&reverted, &again, &third].map(stall);
        eprintln!(
            "{}: {logged} writes and {done} transactions of writers went back; {:?} in all, stalls \
             {stalls:?}, a reader felt {:?}",
            db.endpoints().flavor.name(),
            reverted.ended.took,
            felt.held_up()
        );
        let longest = stalls.into_iter().max().unwrap();
        let allowed = busy::allows(begun, STALL_MAX);
        assert!(longest <= allowed, "{longest:?}, {allowed:?} allowed");
        assert_eq!(felt.errors.total(), 0, "{}", felt.errors);
        take(&db, Turn::Finish);
        write(&db, &["DROP TABLE m"]).await;
        nothing_left(&db).await;
    });
}
