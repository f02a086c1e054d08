//! The same statement on two tables that are the same: one is changed by the server's own ALTER, the
//! other by the run. Either both have the same rows then, or both refuse with the same words.

use tokio_postgres::Client;
use underpin_tests::servers::{Flavor, TestDb};

use super::{State, abort, one, run, stopped};

/// What a person's sessions have by default: values are read and written by it, and times converted.
const DEFAULTS: [(&str, &str); 5] = [
    ("TimeZone", "'Europe/Berlin'"),
    ("DateStyle", "'German, DMY'"),
    ("IntervalStyle", "'iso_8601'"),
    ("bytea_output", "'escape'"),
    ("extra_float_digits", "'-3'"),
];

const TABLE: &str = "
CREATE DOMAIN small AS int CHECK (VALUE < 100);
CREATE TABLE t (id int PRIMARY KEY, v varchar(20), w text, c char(8), n numeric(8,2), f float8, i bigint,
  at timestamptz, ts timestamp, i2 interval, b bytea, j json, day text, old int,
  third float8);
INSERT INTO t SELECT k, 'ab' || repeat(' ', k % 9), 'w' || k, 'c', k + 0.5, k + 0.5, k,
  timestamptz '2023-10-29 00:30:00+00' + k * interval '30 min', timestamp '2026-01-01 23:59:59.6',
  interval '1 mon' + k * interval '1 h', decode(lpad(to_hex(k), 4, '0'), 'hex'), '{\"a\": 1,  \"a\": 2}',
  lpad((1 + k % 12)::text, 2, '0') || '.02.2026', k - 50, k / 3.0
  FROM generate_series(300, 400) k;
ALTER TABLE t ADD CONSTRAINT never_checked CHECK (old < 340) NOT VALID;
COMMENT ON CONSTRAINT never_checked ON t IS 'for later';
";

/// Everything here loses something or means something, and all of it as the server does it: trailing
/// blanks, digits, fractions, hours by the time zone, spellings, days by the order of a date's parts. A
/// constraint that was not validated stays so, whatever the rows are.
const LOSSY: &str = "ALTER TABLE t ALTER v TYPE varchar(2), ALTER w TYPE varchar(2) USING \
    w::varchar(2), ALTER c TYPE varchar(8), ALTER n TYPE numeric(8,0), ALTER f TYPE int, ALTER i TYPE \
    numeric(10,1), ALTER at TYPE timestamp, ALTER ts TYPE timestamp(0), ALTER i2 TYPE text, ALTER b TYPE \
    text USING b::text, ALTER j TYPE jsonb, ALTER day TYPE date USING day::date, ALTER third TYPE text USING third::text, ADD \
    added date NOT NULL \
    DEFAULT '01.02.2026', ADD written text GENERATED ALWAYS AS (upper(w)) STORED, ADD CONSTRAINT \
    nor_this CHECK (id < 0) NOT VALID";

/// What the server refuses because of the rows.
const REFUSED: [&str; 6] = [
    "ALTER TABLE t ALTER w TYPE varchar(3)",
    "ALTER TABLE t ALTER n TYPE numeric(4,2)",
    "ALTER TABLE t ALTER i TYPE smallint USING i * 1000",
    "ALTER TABLE t ALTER day TYPE date USING (day || 'x')::date",
    "ALTER TABLE t ALTER id TYPE bigint, ALTER i TYPE small",
    "ALTER TABLE t ALTER w TYPE char(3), ALTER at TYPE date",
];

async fn make(db: &TestDb) -> Client {
    let client = db.client().await.unwrap();
    for (name, value) in DEFAULTS {
        let sql = format!("ALTER DATABASE {} SET {name} = {value}", db.name());
        client.batch_execute(&sql).await.unwrap();
    }
    client.batch_execute(TABLE).await.unwrap();
    // The defaults count for sessions that begin now.
    db.client().await.unwrap()
}

async fn rows(client: &Client) -> Vec<Vec<Option<String>>> {
    let set = "SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET extra_float_digits = 1";
    client.batch_execute(set).await.unwrap();
    underpin_tests::servers::pg::text_rows(client, "SELECT * FROM t ORDER BY id").await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_conversion_loses_is_what_the_servers_own_loses() {
    let flavor = Flavor::PostgresDistro;
    let (Some(native), Some(copied)) = (TestDb::new(flavor), TestDb::new(flavor)) else { return };
    let (one_way, other) = (make(&native).await, make(&copied).await);
    one_way.batch_execute(LOSSY).await.unwrap();
    let called = run(&copied, LOSSY, |_| {});
    assert!(called.code() == 0, "{}", called.complaint());
    let (wanted, made) = (rows(&one_way).await, rows(&other).await);
    assert_eq!(wanted.len(), 101);
    for (wanted, made) in wanted.iter().zip(&made) {
        assert_eq!(wanted, made);
    }
    assert_eq!(wanted.len(), made.len());
    assert_eq!(super::dump(&native), super::dump(&copied));
    let comment = "SELECT obj_description(oid) FROM pg_constraint WHERE conname = 'never_checked'";
    assert_eq!(one(&other, comment).await.as_deref(), Some("for later"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_refuses_is_refused_in_its_words() {
    let Some(db) = TestDb::new(Flavor::PostgresDistro) else { return };
    let client = make(&db).await;
    let before = State::read(&db, &client).await;
    for change in REFUSED {
        let error = client.batch_execute(change).await.unwrap_err();
        let words = error.as_db_error().unwrap().message().to_owned();
        // Our sessions see the schema as well.
        let words = words.replace("domain small", "domain public.small");
        stopped(&run(&db, change, |_| {}), &[&words, "row id=300"]);
        abort(&db, &client, &before).await;
    }
    // What it refuses whatever the rows are, is refused before anything is made.
    let change = "ALTER TABLE t ALTER w TYPE int";
    let error = client.batch_execute(change).await.unwrap_err();
    let called = run(&db, change, |_| {});
    assert_eq!(called.code(), 3, "{}", called.complaint());
    let words = error.as_db_error().unwrap().message();
    assert!(called.complaint().contains(words), "{}", called.complaint());
    assert_eq!(State::read(&db, &client).await, before);
}
