//! How rows are told apart: keys of every kind, keys that change their type, and what is no key.

use underpin_core::finding::is_refused;
use underpin_core::plan::Plan;
use underpin_dialect::{Database, Inspect, Shadow as _, Swap, SwapOutcome};
use underpin_tests::servers::{Flavor, TestDb};

use crate::postgres_steps::{
    Steps, apply_all, both, copy_all, on_each, open, request, rows, run, verify_all,
};

/// A table `t` with the key `k`, a change of it, and writes while it is copied.
struct Case {
    /// What the type of `k` needs.
    before: &'static str,
    kind: &'static str,
    /// Values, each once.
    values: &'static str,
    change: &'static str,
    writes: &'static [&'static str],
}

const ADD: &str = "ALTER TABLE t ADD n int NOT NULL DEFAULT 7";

const fn kept(kind: &'static str, values: &'static str, writes: &'static [&'static str]) -> Case {
    Case { before: "SELECT 1", kind, values, change: ADD, writes }
}

/// Among the writes are updates that give a key another spelling of the same value.
const KEYS: &[Case] = &[
    kept(
        "float8",
        "('-0'::float8), ('NaN'), ('Infinity'), ('-Infinity'), (0.1), (1e-300)",
        &["UPDATE t SET k = 0 WHERE k = '-0'", "UPDATE t SET k = 0.1::float8 + 0.2 WHERE k = 0.1"],
    ),
    kept(
        "numeric",
        "(1.0), (2.00), ('NaN'), (1e50), (-0.0)",
        &["UPDATE t SET k = 1.000 WHERE k = 1", "DELETE FROM t WHERE k = 'NaN'"],
    ),
    kept(
        "jsonb",
        r#"('{"a": 1.0}'::jsonb), ('[1, 2]'), ('"x"'), ('null'), ('{}')"#,
        &[r#"UPDATE t SET k = '{"a": 1.000}' WHERE k = '{"a": 1}'"#],
    ),
    kept(
        "int[]",
        "('{1,2}'::int[]), ('{}'), ('{1,NULL}')",
        &["UPDATE t SET k = '{7}' WHERE k = '{}'"],
    ),
    kept("text[]", r#"('{a,"b \\ c"}'::text[]), ('{"''"}')"#, &["DELETE FROM t WHERE k = '{''}'"]),
    kept("char(5)", "('a'), ('b '), ('''x\\')", &["UPDATE t SET k = 'a  ' WHERE k = 'a'"]),
    kept(
        "text",
        "(''), (' '), ('a'), ('a '), ('ä\\''\"'), (E'\\n')",
        &["UPDATE t SET k = 'A' WHERE k = ''"],
    ),
    kept(
        "interval",
        "('1 mon'::interval), ('-1 day 02:00'), ('31 days 1 us'), ('1 year -3 days -00:00:01')",
        &["UPDATE t SET k = '30 days' WHERE k = '1 mon'"],
    ),
    kept(
        "timestamptz",
        "('infinity'::timestamptz), ('0044-03-15 12:00 BC'), ('2024-10-27 02:30+02'), ('2024-10-27 02:30+01')",
        &["UPDATE t SET k = '-infinity' WHERE k = 'infinity'"],
    ),
    kept(
        "bytea",
        "(''::bytea), ('\\x00ff27'), ('\\x5c')",
        &["UPDATE t SET k = '\\x00' WHERE k = ''"],
    ),
    kept("\"char\"", "('a'::\"char\"), (''), ('''')", &["UPDATE t SET k = 'z' WHERE k = 'a'"]),
    kept(
        "tstzrange",
        "('empty'::tstzrange), ('[2020-01-01,)')",
        &["DELETE FROM t WHERE k = 'empty'"],
    ),
    Case {
        // A cast of the user's own gives what the type does not read.
        before: "CREATE TYPE mood AS ENUM ('sad', 'O''k', 'happy'); CREATE FUNCTION mood_text(mood) \
                 RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'so ' || format('%s', $1) $$; CREATE \
                 CAST (mood AS text) WITH FUNCTION mood_text(mood)",
        kind: "mood",
        values: "('happy'::mood), ('sad')",
        change: ADD,
        writes: &["UPDATE t SET k = 'O''k' WHERE k = 'sad'"],
    },
    Case {
        before: "CREATE TYPE pair AS (a int, b text)",
        kind: "pair",
        values: "('(1,x)'::pair), ('(1,)')",
        change: ADD,
        writes: &["UPDATE t SET k = '(2,\"y, z\")' WHERE k = '(1,x)'::pair"],
    },
    Case {
        before: "CREATE DOMAIN code AS varchar(9) CHECK (value <> 'no')",
        kind: "code",
        values: "('a'::code), ('b')",
        change: ADD,
        writes: &["UPDATE t SET k = 'c' WHERE k = 'a'"],
    },
    Case {
        before: "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        kind: "text COLLATE ci",
        values: "('Ab'), ('cD'), ('ef')",
        change: ADD,
        writes: &["UPDATE t SET k = 'aB' WHERE k = 'AB'", "DELETE FROM t WHERE k = 'EF'"],
    },
    Case {
        before: "SELECT 1",
        kind: "int",
        values: "(1), (-1), (2147483647)",
        change: "ALTER TABLE t ALTER k TYPE bigint USING k::bigint",
        writes: &["UPDATE t SET k = -2147483648 WHERE k = 1"],
    },
    Case {
        before: "SELECT 1",
        kind: "int",
        values: "(1), (-1), (10), (9)",
        change: "ALTER TABLE t ALTER k TYPE text",
        writes: &["UPDATE t SET k = 100 WHERE k = 10"],
    },
    Case {
        before: "SELECT 1",
        kind: "bigint",
        values: "(1), (9007199254740993)",
        change: "ALTER TABLE t ALTER k TYPE numeric",
        writes: &["UPDATE t SET k = 2 WHERE k = 1"],
    },
    Case {
        before: "SELECT 1",
        kind: "char(4)",
        values: "('a'), ('b ')",
        change: "ALTER TABLE t ALTER k TYPE varchar(9)",
        writes: &["UPDATE t SET k = 'c' WHERE k = 'a'"],
    },
    Case {
        before: "SELECT 1",
        kind: "varchar(4)",
        values: "('a'), ('a ')",
        change: "ALTER TABLE t ALTER k TYPE varchar(9) COLLATE \"C\"",
        writes: &["UPDATE t SET k = 'B' WHERE k = 'a'"],
    },
];

/// The rule: keys are told apart by the server, in their own types.
#[test]
fn every_kind_of_key_leads_to_its_row() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        // Values of the user's mean what they mean to him; bounds of ours do all the same.
        let settings = [
            "DateStyle = 'German, DMY'",
            "TimeZone = 'Asia/Kolkata'",
            "IntervalStyle = 'sql_standard'",
            "extra_float_digits = 0",
            "bytea_output = 'escape'",
        ];
        let set = settings.map(|setting| format!("ALTER DATABASE {} SET {setting}", db.name()));
        run(&db.client().await.unwrap(), &set.each_ref().map(String::as_str)).await;
        for case in KEYS {
            walk(&db, case).await;
        }
    });
}

async fn walk(db: &TestDb, case: &Case) {
    let what = format!("{} ({})", case.kind, case.change);
    let app = db.client().await.unwrap();
    run(
        &app,
        &[
            case.before,
            &format!("CREATE TABLE t (dropped int, k {} PRIMARY KEY, v text)", case.kind),
            "ALTER TABLE t DROP dropped",
            &format!("INSERT INTO t (k, v) SELECT column1, 'v' FROM (VALUES {}) AS x", case.values),
        ],
    )
    .await;
    let steps = Steps::begin(db, case.change).await;
    let mut worker = steps.worker().await;
    copy_all(&mut worker, 1).await;
    run(&app, case.writes).await;
    underpin_dialect::ChangeLog::settle(&mut worker).await.unwrap();
    underpin_dialect::Shadow::build_indexes(&mut steps.control().await, &steps.spec).await.unwrap();
    run(&app, &["UPDATE t SET v = 'w'"]).await;
    apply_all(&mut worker).await;
    let (source, shadow) = both(db, &steps, "k::text, v").await;
    let source_sorted = sorted(source);
    assert_eq!(source_sorted, sorted(shadow), "{what}");
    assert_eq!(verify_all(&mut worker, 1).await, (0, vec![]), "{what}");
    run(&app, &["UPDATE t SET v = 'last'"]).await;
    let swapped = steps.control().await.try_swap(&steps.spec, &steps.grip, 5000).await.unwrap();
    assert!(matches!(swapped, SwapOutcome::Swapped { .. }), "{what}: {swapped:?}");
    let keys = rows(db, "SELECT k::text, v FROM t").await;
    let expected: Vec<String> = source_sorted
        .iter()
        .map(|row| format!("{}/last", row.rsplit_once('/').map_or("", |(key, _)| key)))
        .collect();
    assert_eq!(sorted(keys), expected, "{what}");
    drop(worker);
    clear(db).await;
}

fn sorted(mut rows: Vec<String>) -> Vec<String> {
    rows.sort();
    rows
}

/// Nothing of the run and its table.
async fn clear(db: &TestDb) {
    let app = db.client().await.unwrap();
    run(
        &app,
        &["DROP SCHEMA IF EXISTS underpin, underpin_r1, underpin_r1_old CASCADE; DROP TABLE t CASCADE"],
    )
    .await;
}

async fn planned(db: &TestDb, statement: &str) -> Plan {
    open(db).await.control().await.unwrap().plan(&request(statement)).await.unwrap()
}

/// The rule: what is in the log must find its row in the shadow by a cast alone, and no other row.
#[test]
fn a_key_whose_values_change_is_no_key() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        let app = db.client().await.unwrap();
        run(
            &app,
            &["CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
              "CREATE TABLE t (k int PRIMARY KEY, s varchar(9) NOT NULL, c text COLLATE ci NOT NULL)",
              "CREATE TABLE u (c text COLLATE ci NOT NULL)",
              "CREATE UNIQUE INDEX ON u (c COLLATE \"C\")"],
        )
        .await;
        for refused in [
            "ALTER TABLE t ALTER k TYPE bigint USING k + 1",
            "ALTER TABLE t ALTER k TYPE int USING -k",
            "ALTER TABLE t ALTER k TYPE varchar(5)",
            // By the index two rows, by the column one.
            "ALTER TABLE u ADD n int",
        ] {
            let plan = planned(&db, refused).await;
            assert!(is_refused(&plan.findings), "{refused}");
            assert!(plan.findings.iter().any(|f| f.code == "no-usable-key"), "{:?}", plan.findings);
        }
        run(&app, &["ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (s)"]).await;
        for refused in
            ["ALTER TABLE t ALTER s TYPE varchar(5)", "ALTER TABLE t ALTER s TYPE int USING 1"]
        {
            assert!(is_refused(&planned(&db, refused).await.findings), "{refused}");
        }
        run(&app, &["ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (c)"]).await;
        let strict = "ALTER TABLE t ALTER c TYPE text COLLATE \"C\"";
        assert!(is_refused(&planned(&db, strict).await.findings));
        // Another unique key that does survive is taken instead.
        run(&app, &["ALTER TABLE t ADD UNIQUE (k)", "ALTER TABLE t ALTER k SET NOT NULL"]).await;
        assert!(!is_refused(&planned(&db, strict).await.findings));
    });
}

/// The rule: where two texts of the source are one to the new table, a logged key still finds its own row only.
#[test]
fn a_row_that_was_there_for_a_moment_takes_out_no_other() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        let app = db.client().await.unwrap();
        let collation = "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)";
        let make = "CREATE TABLE t (k text PRIMARY KEY, v text)";
        run(&app, &[collation, make, "INSERT INTO t VALUES ('A', 'v'), ('B', 'v'), ('C', 'v')"])
            .await;
        let steps = Steps::begin(&db, "ALTER TABLE t ALTER k TYPE text COLLATE ci").await;
        let mut worker = steps.worker().await;
        copy_all(&mut worker, 1).await;
        let passes = |key: &str| {
            format!("INSERT INTO t VALUES ('{key}', 'w'); DELETE FROM t WHERE k = '{key}'")
        };
        run(&app, &[&passes("a")]).await;
        underpin_dialect::ChangeLog::settle(&mut worker).await.unwrap();
        steps.control().await.build_indexes(&steps.spec).await.unwrap();
        apply_all(&mut worker).await;
        assert_eq!(verify_all(&mut worker, 2).await, (0, vec![]));
        run(&app, &[&passes("b")]).await;
        assert_eq!(verify_all(&mut worker, 2).await, (0, vec![]));
        apply_all(&mut worker).await;
        run(&app, &["UPDATE t SET k = 'c' WHERE k = 'C'"]).await;
        assert_eq!(verify_all(&mut worker, 2).await, (0, vec![]), "both spellings are pending");
        run(&app, &[&passes("a")]).await;
        let swapped = steps.control().await.try_swap(&steps.spec, &steps.grip, 5000).await.unwrap();
        assert!(matches!(swapped, SwapOutcome::Swapped { .. }), "{swapped:?}");
        assert_eq!(sorted(rows(&db, "SELECT k, v FROM t").await), ["A/v", "B/v", "c/v"]);
    });
}
