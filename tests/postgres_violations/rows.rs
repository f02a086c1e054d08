//! Rows that were there when the run began.

use tokio_postgres::Client;
use underpin_tests::servers::{Flavor, TestDb};

use super::{State, abort, run, stopped};

/// `t` with `rows` rows, each value different from the others of its column.
async fn table(db: &TestDb, rows: u32) -> Client {
    let client = db.client().await.unwrap();
    let sql = format!(
        "CREATE TABLE t (id int PRIMARY KEY, a int, b int, v text); INSERT INTO t SELECT i, i, i, 'v' || \
         i FROM generate_series(1, {rows}) i"
    );
    client.batch_execute(&sql).await.unwrap();
    client
}

struct Case {
    /// What makes the rows bad.
    spoil: &'static str,
    change: &'static str,
    /// What must be said.
    says: &'static [&'static str],
    /// Rows that must not be blamed.
    innocent: &'static [&'static str],
}

/// Each on a table of its own; the server is the distribution's, which is not older than 15.
const CASES: [Case; 8] = [
    Case {
        spoil: "UPDATE t SET a = 17 WHERE id = 1321",
        change: "ALTER TABLE t ADD CONSTRAINT once UNIQUE (a)",
        says: &["id=17 and id=1321", "unique index \"once\"", "Key (a)=(17) is duplicated"],
        innocent: &[],
    },
    // NULLs are never equal.
    Case {
        spoil: "UPDATE t SET a = NULL, b = 5 WHERE id IN (5, 6, 7, 8); UPDATE t SET a = 1999, b = 1999 \
                WHERE id = 44",
        change: "ALTER TABLE t ADD CONSTRAINT once UNIQUE (a, b)",
        says: &["id=44 and id=1999", "Key (a, b)=(1999, 1999) is duplicated"],
        innocent: &["id=5 ", "id=6 ", "id=7 "],
    },
    Case {
        spoil: "UPDATE t SET b = NULL WHERE id IN (50, 900)",
        change: "ALTER TABLE t ADD CONSTRAINT once UNIQUE NULLS NOT DISTINCT (b)",
        says: &["id=50 and id=900", "Key (b)=(null) is duplicated"],
        innocent: &[],
    },
    // The index stood before; the new type makes two of its values one.
    Case {
        spoil: "UPDATE t SET v = 'x1234' WHERE id = 1234; UPDATE t SET v = 'v77 ' WHERE id = 3; CREATE \
                UNIQUE INDEX part ON t (lower(v)) WHERE a > 10 AND b IS NOT NULL",
        change: "ALTER TABLE t ALTER v TYPE varchar(9) USING rtrim(replace(v, 'x1234', 'V77'))",
        says: &["id=77 and id=1234", "unique index \"part\"", "is duplicated"],
        innocent: &["id=3 "],
    },
    Case {
        spoil: "UPDATE t SET a = NULL WHERE id = 700",
        change: "ALTER TABLE t ALTER a SET NOT NULL",
        says: &["row id=700", "null value in column \"a\""],
        innocent: &[],
    },
    Case {
        spoil: "UPDATE t SET b = -1 WHERE id = 800",
        change: "ALTER TABLE t ADD CONSTRAINT more CHECK (b > 0)",
        says: &["row id=800", "violates check constraint \"more\""],
        innocent: &[],
    },
    Case {
        spoil: "",
        change: "ALTER TABLE t ADD g int GENERATED ALWAYS AS (100 / (a - 50)) STORED",
        says: &["row id=50", "division by zero"],
        innocent: &[],
    },
    Case {
        spoil: "UPDATE t SET a = 17 WHERE id = 1321",
        change: "ALTER TABLE t ADD CONSTRAINT apart EXCLUDE USING gist (int4range(a, a, '[]') WITH &&)",
        says: &[
            "id=17 and id=1321",
            "exclusion constraint \"apart\"",
            "=([17,18)) conflicts with key",
        ],
        innocent: &[],
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_break_a_new_rule_are_named_and_nothing_is_left_of_the_run() {
    let Some(db) = TestDb::new(Flavor::PostgresDistro) else { return };
    for case in CASES {
        let client = table(&db, 2000).await;
        client.batch_execute(case.spoil).await.unwrap();
        let before = State::read(&db, &client).await;
        let called = run(&db, case.change, |_| {});
        stopped(&called, case.says);
        for innocent in case.innocent {
            let said = called.complaint();
            assert!(!said.contains(innocent), "{innocent} is blamed: {said}");
        }
        abort(&db, &client, &before).await;
        client.batch_execute("DROP TABLE t").await.unwrap();
    }
}

/// Mended, the same command goes on where it stopped.
#[tokio::test(flavor = "multi_thread")]
async fn duplicates_that_are_mended_let_the_same_command_go_on() {
    let Some(db) = TestDb::new(Flavor::PostgresDistro) else { return };
    let client = table(&db, 2000).await;
    client.batch_execute("UPDATE t SET a = 17 WHERE id = 1321").await.unwrap();
    let change = "ALTER TABLE t ADD CONSTRAINT once UNIQUE (a), ADD n int DEFAULT 1";
    for _ in 0..2 {
        stopped(&run(&db, change, |_| {}), &["id=17 and id=1321"]);
    }
    client.batch_execute("UPDATE t SET a = 100000 WHERE id = 1321").await.unwrap();
    let called = run(&db, change, |_| {});
    assert!(called.code() == 0, "{}", called.complaint());
    let resumed = called.event("run_resumed").unwrap();
    assert_eq!(resumed["rows_copied"], 2000, "it began anew: {:?}", called.events);
    let sums = "SELECT count(*) || ' ' || sum(a) || ' ' || sum(n) FROM t";
    let wanted = format!("2000 {} 2000", 2000 * 2001 / 2 - 1321 + 100_000);
    assert_eq!(super::one(&client, sums).await, Some(wanted));
}

/// Far into the copy, with chunks around it that have committed.
#[tokio::test(flavor = "multi_thread")]
async fn a_cast_that_fails_on_row_900_000_is_named_by_the_row() {
    let Some(db) = TestDb::new(Flavor::PostgresDistro) else { return };
    let client = db.client().await.unwrap();
    let make = "CREATE TABLE t (id int, v text); INSERT INTO t SELECT i, CASE i WHEN 900000 THEN 'bad' \
                ELSE i::text END FROM generate_series(1, 1000000) i; ALTER TABLE t ADD PRIMARY KEY \
                (id); ANALYZE t";
    client.batch_execute(make).await.unwrap();
    let before = State::read(&db, &client).await;
    let called = run(&db, "ALTER TABLE t ALTER v TYPE int USING v::int", |_| {});
    stopped(&called, &["row id=900000", "invalid input syntax for type integer: \"bad\""]);
    abort(&db, &client, &before).await;
}
