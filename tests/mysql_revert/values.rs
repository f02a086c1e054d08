//! What the rows hold after a way back and forth.

use mysql_async::prelude::Queryable;

use crate::bench::{BOTH, Turn, make, take, write};
use crate::mysql_steps::{nothing_left, on_each, rows};

const ALL: &str = "SELECT CONCAT_WS('/', id, v, old) FROM t ORDER BY id";

#[test]
fn columns_of_one_shape_keep_their_values_to_and_fro() {
    on_each(&BOTH, async |db| {
        write(
            &db,
            &[
                "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(20), old INT NOT NULL \
                 DEFAULT 5, twice INT AS (old * 2) STORED, was INT AS (LENGTH(v)) VIRTUAL)",
                "INSERT INTO t (id, v, old) VALUES (1,'a',10),(2,'b',20),(3,'c',30),(4,'d',40)",
            ],
        )
        .await;
        make(&db, "ALTER TABLE t DROP twice, DROP old, ADD n INT NOT NULL DEFAULT 7");
        write(
            &db,
            &[
                "UPDATE t SET v = 'B', n = 8 WHERE id = 2",
                "DELETE FROM t WHERE id = 3",
                "UPDATE t SET id = 40 WHERE id = 4",
                "INSERT INTO t (id, v, n) VALUES (5, 'e', 9)",
            ],
        )
        .await;
        take(&db, Turn::Revert);
        // A row whose key moved is a new one for the old shape.
        assert_eq!(rows(&db, ALL).await, ["1/a/10", "2/B/20", "5/e/5", "40/d/5"]);
        let logged = rows(&db, "SELECT COUNT(*) FROM `t~up_log`").await;
        assert_eq!(logged, ["0"], "what the run itself wrote is not to be applied again");
        assert_eq!(rows(&db, "SELECT DISTINCT twice - old * 2 FROM t").await, ["0"]);
        write(&db, &["UPDATE t SET v = 'BB', old = 21 WHERE id = 2", "DELETE FROM t WHERE id = 1"])
            .await;
        write(&db, &["INSERT INTO t (id, v) VALUES (6, 'f')"]).await;
        take(&db, Turn::Again);
        let new = "SELECT CONCAT_WS('/', id, v, n) FROM t ORDER BY id";
        assert_eq!(rows(&db, new).await, ["2/BB/8", "5/e/9", "6/f/7", "40/d/7"]);
        write(&db, &["UPDATE t SET v = 'E' WHERE id = 5"]).await;
        take(&db, Turn::Revert);
        assert_eq!(rows(&db, ALL).await, ["2/BB/21", "5/E/5", "6/f/5", "40/d/5"]);
        take(&db, Turn::Finish);
        nothing_left(&db).await;
        assert_eq!(rows(&db, ALL).await, ["2/BB/21", "5/E/5", "6/f/5", "40/d/5"]);
    });
}

#[test]
fn an_old_value_stays_where_it_still_means_what_the_new_row_says() {
    on_each(&BOTH, async |db| {
        write(
            &db,
            &[
                "CREATE TABLE t (id INT PRIMARY KEY, code VARCHAR(10) NOT NULL, price VARCHAR(20), at \
                 VARCHAR(30), zero INT(6) UNSIGNED ZEROFILL, w TEXT, x INT NOT NULL DEFAULT 0)",
                "INSERT INTO t VALUES (1,'007','1.500','2024-1-2 3:4:5',12,'text ',0),\
                 (2,'008','2.500','2024-2-3 3:4:5',13,'other',0),(3,'1e3','3','2024-3-4 0:0:0',NULL,'x',0),\
                 (4,'010','4','2024-3-4 0:0:0',14,NULL,0)",
            ],
        )
        .await;
        make(
            &db,
            "ALTER TABLE t MODIFY code INT NOT NULL, MODIFY price DECIMAL(10,4), MODIFY at DATETIME(3), \
             MODIFY zero VARCHAR(10), MODIFY w VARCHAR(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
        );
        assert_eq!(rows(&db, "SELECT zero FROM t WHERE id = 1").await, ["000012"]);
        write(
            &db,
            &[
                "UPDATE t SET x = 1",
                "UPDATE t SET code = 9, price = 2.75, at = '2025-01-01', zero = '000099', w = 'new' \
                 WHERE id = 2",
            ],
        )
        .await;
        take(&db, Turn::Revert);
        let shown = "SELECT CONCAT_WS('/', id, code, price, at, zero, CONCAT(w, '|'), x) FROM t ORDER BY \
                     id";
        assert_eq!(
            rows(&db, shown).await,
            [
                "1/007/1.500/2024-1-2 3:4:5/000012/text |/1",
                "2/9/2.7500/2025-01-01 00:00:00.000/000099/new|/1",
                // What the new row says would be 1000, which fits as well; the old value says it too.
                "3/1e3/3/2024-3-4 0:0:0/x|/1",
                "4/010/4/2024-3-4 0:0:0/000014/1",
            ]
        );
        take(&db, Turn::Finish);
        nothing_left(&db).await;
    });
}

#[test]
fn a_unique_value_that_moved_to_a_row_of_an_earlier_batch_is_no_clash() {
    on_each(&BOTH, async |db| {
        write(
            &db,
            &[
                "CREATE TABLE t (id INT PRIMARY KEY, u INT NULL, v INT, old INT NOT NULL DEFAULT 5, UNIQUE \
                 KEY (u))",
                "INSERT INTO t WITH RECURSIVE n AS (SELECT 0 AS i UNION ALL SELECT i + 1 FROM n WHERE i < \
                 99) SELECT a.i * 100 + b.i, a.i * 100 + b.i, 0, a.i * 100 + b.i FROM n AS a JOIN n AS b",
            ],
        )
        .await;
        make(&db, "ALTER TABLE t DROP old, ADD n INT");
        write(
            &db,
            &[
                "UPDATE t SET v = 1 WHERE id = 1",
                "UPDATE t SET v = 1 WHERE id BETWEEN 2 AND 9000",
                "UPDATE t SET u = NULL WHERE id = 9999",
                "UPDATE t SET u = 9999 WHERE id = 1",
            ],
        )
        .await;
        take(&db, Turn::Revert);
        let moved = "SELECT CONCAT_WS('/', id, u, v, old) FROM t WHERE id IN (1, 9999) ORDER BY id";
        assert_eq!(rows(&db, moved).await, ["1/9999/1/1", "9999/0/9999"]);
        assert_eq!(rows(&db, "SELECT COUNT(*) FROM t WHERE old <> id").await, ["0"]);
        take(&db, Turn::Finish);
        nothing_left(&db).await;
    });
}

/// The next number that an INSERT draws.
async fn drawn(db: &underpin_tests::servers::TestDb) -> u64 {
    let mut app = db.conn().await.unwrap();
    app.query_drop("INSERT INTO t (v) VALUES ('drawn')").await.unwrap();
    app.last_insert_id().unwrap()
}

#[test]
fn no_number_is_drawn_twice() {
    on_each(&BOTH, async |db| {
        write(
            &db,
            &[
                "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(20))",
                "INSERT INTO t VALUES (1, 'a')",
            ],
        )
        .await;
        make(&db, "ALTER TABLE t MODIFY id BIGINT AUTO_INCREMENT, ADD n INT");
        write(&db, &["INSERT INTO t (id, v) VALUES (500, 'gone')", "DELETE FROM t WHERE id = 500"])
            .await;
        take(&db, Turn::Revert);
        assert!(drawn(&db).await > 500);
        write(&db, &["INSERT INTO t (id, v) VALUES (900, 'gone')", "DELETE FROM t WHERE id = 900"])
            .await;
        take(&db, Turn::Again);
        assert!(drawn(&db).await > 900);
        take(&db, Turn::Finish);
        nothing_left(&db).await;
    });
}
