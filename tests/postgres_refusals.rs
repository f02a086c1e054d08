//! What cannot be carried is refused by name, with what to do, and nothing is created.

use tokio_postgres::Client;
use underpin_core::finding::Severity;
use underpin_core::plan::{Plan, Strategy};
use underpin_dialect::{Database, DbResult, Inspect};
use underpin_tests::servers::{Flavor, TestDb, pg};

#[path = "postgres_steps/mod.rs"]
mod postgres_steps;
use postgres_steps::{open, request};

/// What is made, the statement, the finding's code, and a part of its message.
const REFUSALS: &[(&str, &str, &str, &str)] = &[
    ("CREATE TABLE r1 (a int, b int UNIQUE)", "r1 ADD x int", "no-usable-key", "b allows NULL"),
    ("CREATE TABLE r2 (a int)", "r2 ADD x int", "no-usable-key", "has no usable key"),
    (
        "CREATE TABLE r3 (a int NOT NULL); CREATE UNIQUE INDEX ON r3 (a) WHERE a > 0",
        "r3 ADD x int",
        "no-usable-key",
        "holds at all times for all rows",
    ),
    ("CREATE TABLE r4 (a int PRIMARY KEY DEFERRABLE)", "r4 ADD x int", "no-usable-key", "r4"),
    ("SELECT", "r_missing ADD x int", "no-such-table", "public.r_missing"),
    ("CREATE VIEW r5 AS SELECT 1 AS a", "r5 ADD x int", "no-base-table", "r5 is not a table"),
    (
        "CREATE TABLE r6 (a int PRIMARY KEY) PARTITION BY RANGE (a); CREATE TABLE r6_1 PARTITION OF \
         r6 FOR VALUES FROM (1) TO (9)",
        "r6 ADD x int",
        "partitioned-table",
        "r6 is partitioned",
    ),
    ("SELECT", "r6_1 ADD x int", "partition", "r6_1 is a partition"),
    (
        "CREATE TABLE r7 (a int PRIMARY KEY); CREATE TABLE r7_child (b int) INHERITS (r7)",
        "r7 ADD x int",
        "inheritance",
        "r7_child inherits from",
    ),
    (
        "CREATE TYPE r8_type AS (a int, b text); CREATE TABLE r8 OF r8_type (a PRIMARY KEY)",
        "r8 ALTER a SET NOT NULL",
        "typed-table",
        "composite type",
    ),
    (
        "CREATE TABLE r9 (a int PRIMARY KEY); CREATE MATERIALIZED VIEW r9_m AS SELECT a FROM r9",
        "r9 ADD x int",
        "materialized-view",
        "r9_m",
    ),
    (
        "CREATE TABLE r10 (a int PRIMARY KEY); CREATE FUNCTION r10_f(r10) RETURNS int LANGUAGE sql AS \
         'SELECT 1'",
        "r10 ADD x int",
        "row-type-used",
        "r10_f",
    ),
    (
        "CREATE TABLE r11 (a int PRIMARY KEY); CREATE TABLE r11_b (b r11[])",
        "r11 ALTER a SET NOT NULL",
        "row-type-used",
        "r11_b",
    ),
    (
        "CREATE TABLE r12 (a int PRIMARY KEY); CREATE TABLE r12_b (b regclass DEFAULT \
         'r12'::regclass)",
        "r12 ADD x int",
        "points-at-the-table",
        "r12_b",
    ),
    (
        "CREATE TABLE r13 (a int PRIMARY KEY, b regclass); ALTER TABLE r13 ALTER b SET DEFAULT \
         'r13'::regclass",
        "r13 ADD x int",
        "names-itself",
        "names the table itself",
    ),
    (
        "CREATE TABLE r14 (a int PRIMARY KEY, b int); ALTER TABLE r14 ENABLE ROW LEVEL SECURITY; \
         CREATE POLICY p ON r14 USING (EXISTS (SELECT FROM r14 o WHERE o.a = r14.b))",
        "r14 ADD x int",
        "names-itself",
        "policy p",
    ),
    (
        "CREATE ROLE rf_owner; CREATE TABLE r15 (a int PRIMARY KEY); ALTER TABLE r15 OWNER TO \
         rf_owner; ALTER TABLE r15 ENABLE ROW LEVEL SECURITY; ALTER TABLE r15 FORCE ROW LEVEL SECURITY",
        "r15 ADD x int",
        "forced-row-security",
        "forced on its owner",
    ),
    ("CREATE TABLE r16 (a int PRIMARY KEY)", "r16 RENAME TO r17", "rename-table", "r17"),
    ("SELECT", "r16 SET SCHEMA pg_catalog", "set-schema", "pg_catalog"),
    (
        "SELECT",
        "r16 ADD FOREIGN KEY (a) REFERENCES r1 (b)",
        "foreign-key-added",
        "adds foreign key",
    ),
    ("SELECT", "r16 ADD x int NOT NULL", "no-default", "column x is added"),
    (
        "CREATE TABLE r18 (a int PRIMARY KEY, b int); CREATE VIEW r18_v AS SELECT b FROM r18",
        "r18 RENAME b TO c",
        "column-in-use",
        "r18_v names column b",
    ),
    (
        "CREATE TABLE r19 (a int PRIMARY KEY, b int UNIQUE); CREATE TABLE r19_c (b int REFERENCES r19 (b))",
        "r19 DROP b",
        "foreign-key-loses-column",
        "refers to column b",
    ),
    (
        "CREATE TABLE r20 (a int PRIMARY KEY)",
        "r20 DROP a, ADD b int PRIMARY KEY DEFAULT 1",
        "no-usable-key",
        "a does not survive",
    ),
    (
        "CREATE TABLE r21 (a int PRIMARY KEY); CREATE TABLE r21_c (a int REFERENCES r21)",
        "r21 ALTER a TYPE text",
        "foreign-key-unfit",
        "r21_c_a_fkey cannot be made",
    ),
    (
        "CREATE TABLE r22 (a int PRIMARY KEY, b int CONSTRAINT r22_b UNIQUE); CREATE TABLE r22_c (b int \
         CONSTRAINT r22_fk REFERENCES r22 (b))",
        "r22 DROP CONSTRAINT r22_b",
        "foreign-key-unfit",
        "no unique constraint",
    ),
    (
        "CREATE TABLE underpin_log (a int PRIMARY KEY)",
        "underpin_log ADD x int",
        "swap-schema",
        "underpin_log",
    ),
];

async fn plan(db: &TestDb, statement: &str, force_shadow: bool) -> DbResult<Plan> {
    let server = open(db).await;
    let mut control = server.control().await?;
    let mut request = request(&format!("ALTER TABLE {statement}"));
    request.force_shadow = force_shadow;
    control.plan(&request).await
}

async fn refused(db: &TestDb, statement: &str, code: &str, part: &str) {
    let plan =
        plan(db, statement, true).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    let found = plan.findings.iter().find(|finding| {
        finding.severity == Severity::Refusal
            && finding.code == code
            && finding.message.contains(part)
            && !finding.remedy.is_empty()
    });
    assert!(
        found.is_some() || code == "no-usable-key" && holds_refusal(&plan, code, part),
        "{statement}: no refusal {code} with {part:?} in {:#?}",
        plan.findings
    );
}

fn holds_refusal(plan: &Plan, code: &str, part: &str) -> bool {
    plan.findings.iter().any(|finding| {
        finding.severity == Severity::Refusal
            && finding.code == code
            && finding.message.contains(part)
    })
}

async fn nothing_left(client: &Client) {
    let sql = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'underpin%' UNION ALL SELECT tgname \
               FROM pg_trigger WHERE tgname LIKE 'underpin%'";
    assert!(pg::text_rows(client, sql).await.unwrap().is_empty(), "something was created");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_obstacle_is_refused_by_name_and_nothing_is_created() {
    for flavor in Flavor::POSTGRES_MATRIX {
        let Some(db) = TestDb::new(flavor) else { continue };
        let client = db.client().await.unwrap();
        client.batch_execute("DROP ROLE IF EXISTS rf_owner").await.unwrap();
        for (setup, statement, code, part) in REFUSALS {
            client.batch_execute(setup).await.unwrap_or_else(|error| panic!("{setup}: {error:?}"));
            refused(&db, statement, code, part).await;
        }
        if flavor != Flavor::Postgres18 {
            let setup = "CREATE TABLE r25 (a int PRIMARY KEY); CREATE TABLE r25_p (a int CONSTRAINT \
                         r25_fk REFERENCES r25) PARTITION BY RANGE (a)";
            client.batch_execute(setup).await.unwrap();
            refused(&db, "r25 ADD x int", "foreign-key-of-partitioned-table", "r25_fk").await;
        }
        client.batch_execute("CREATE PUBLICATION everything FOR ALL TABLES").await.unwrap();
        refused(&db, "r16 ADD x int", "publication-for-all-tables", "everything").await;
        client.batch_execute("DROP PUBLICATION everything").await.unwrap();
        nothing_left(&client).await;
        client.batch_execute("DROP TABLE r15; DROP ROLE rf_owner").await.unwrap();
    }
}

/// Changes that the server makes in an instant, and changes that it would rewrite, scan or build for.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_decides_whether_a_copy_is_needed() {
    let Some(db) = TestDb::new(Flavor::PostgresDistro) else { return };
    let client = db.client().await.unwrap();
    client
        .batch_execute(
            "CREATE TABLE n (id int PRIMARY KEY, v varchar(10), w int, CONSTRAINT c CHECK (w > 0)); \
             CREATE INDEX ni ON n (v) WHERE v <> ''; CREATE MATERIALIZED VIEW nm AS SELECT id FROM n; \
             CREATE TABLE n_child (n int CONSTRAINT fk REFERENCES n)",
        )
        .await
        .unwrap();
    for (statement, native) in [
        ("n ADD a int", true),
        ("n ADD a int NOT NULL DEFAULT 5", true),
        ("n ADD a timestamptz DEFAULT now()", true),
        ("n DROP w", true),
        ("n RENAME w TO x", true),
        ("n ALTER w SET DEFAULT 3", true),
        ("n DROP CONSTRAINT c", true),
        ("n ADD CHECK (w < 9) NOT VALID", true),
        ("n SET (fillfactor = 50)", true),
        ("n ADD FOREIGN KEY (w) REFERENCES n NOT VALID", true),
        ("n_child DROP CONSTRAINT fk", true),
        ("n ADD a uuid DEFAULT gen_random_uuid()", false),
        ("n ALTER w TYPE bigint", false),
        ("n ALTER w SET NOT NULL", false),
        ("n ADD CHECK (w < 9)", false),
        ("n ADD UNIQUE (w)", false),
        // The partial index would be built again under the lock.
        ("n ALTER v TYPE varchar(20)", false),
    ] {
        let plan = plan(&db, statement, false).await.unwrap();
        assert_eq!(plan.strategy == Strategy::Native, native, "{statement}: {plan:#?}");
    }
    nothing_left(&client).await;
}
