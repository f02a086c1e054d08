//! What cannot be carried is refused by name, with what to do, and nothing is created.
#![allow(clippy::unwrap_used)] // what cannot be had here fails the test

use tokio_postgres::Client;
use underpin_core::finding::Severity;
use underpin_core::plan::{Plan, Strategy};
use underpin_dialect::{Database, DbResult, ErrorKind, Inspect};
use underpin_tests::cli;
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

/// What no dependency on the table itself tells of, and what only a superuser's hand can make.
const HIDDEN: &[(&str, &str, &str, &str)] = &[
    (
        "CREATE FUNCTION other_heap(internal) RETURNS table_am_handler LANGUAGE internal AS \
         'heap_tableam_handler'; CREATE ACCESS METHOD other TYPE TABLE HANDLER other_heap; CREATE TABLE \
         h1 (a int PRIMARY KEY) USING other",
        "h1 ADD x int",
        "access-method",
        "other than heap",
    ),
    (
        "CREATE TABLE h2 (a int PRIMARY KEY); ALTER EXTENSION plpgsql ADD TABLE h2",
        "h2 ADD x int",
        "extension-member",
        "plpgsql",
    ),
    (
        "CREATE TABLE h3 (a int PRIMARY KEY); CREATE FUNCTION h3_f() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN RETURN NULL; END'; CREATE TRIGGER h3_t AFTER INSERT ON h3 EXECUTE FUNCTION h3_f(); SET \
         allow_system_table_mods = on; INSERT INTO pg_extension (oid, extname, extowner, extnamespace, \
         extrelocatable, extversion) VALUES (999999, 'pg_ivm', 10, 2200, true, '1'); ALTER EXTENSION \
         pg_ivm ADD FUNCTION h3_f()",
        "h3 ADD x int",
        "foreign-trigger",
        "trigger h3_t of extension pg_ivm",
    ),
    (
        "CREATE TABLE h4 (a int PRIMARY KEY); CREATE SUBSCRIPTION h4_s CONNECTION 'host=nowhere' \
         PUBLICATION p WITH (connect = false, slot_name = NONE); INSERT INTO pg_subscription_rel \
         (srsubid, srrelid, srsubstate) SELECT oid, 'h4'::regclass, 'r' FROM pg_subscription WHERE \
         subname = 'h4_s'",
        "h4 ADD x int",
        "subscription-target",
        "h4_s",
    ),
    (
        "CREATE TABLE h5 (a int PRIMARY KEY) WITH (user_catalog_table = true)",
        "h5 ADD x int",
        "system-table",
        "catalogue",
    ),
    ("SELECT", "pg_catalog.pg_amop ADD x int", "system-table", "pg_amop"),
    (
        "CREATE FOREIGN DATA WRAPPER h6_w; CREATE SERVER h6_s FOREIGN DATA WRAPPER h6_w; CREATE FOREIGN \
         TABLE h6 (a int) SERVER h6_s",
        "h6 ADD x int",
        "no-base-table",
        "h6 is not a table",
    ),
    (
        "CREATE TABLE h7 (a int GENERATED ALWAYS AS IDENTITY PRIMARY KEY); CREATE TABLE h7_b (b int \
         DEFAULT nextval('h7_a_seq'))",
        "h7 ADD x int",
        "identity-sequence-used",
        "h7_b uses public.h7_a_seq",
    ),
    (
        "CREATE TABLE h8 (a int PRIMARY KEY); CREATE TABLE h8_b (b int CONSTRAINT h8_fk REFERENCES h8); \
         ALTER TABLE h8_b DISABLE TRIGGER ALL",
        "h8 ADD x int",
        "constraint-trigger-switched",
        "h8_fk of public.h8_b",
    ),
    (
        "CREATE TABLE h9 (a int PRIMARY KEY); CREATE TEMP VIEW h9_v AS SELECT a FROM h9",
        "h9 ADD x int",
        "temporary-dependent",
        "h9_v",
    ),
    (
        "CREATE TABLE h10 (a int PRIMARY KEY); REVOKE USAGE ON TYPE h10 FROM PUBLIC",
        "h10 ADD x int",
        "row-type-granted",
        "h10",
    ),
    (
        "CREATE TABLE h11 (a int PRIMARY KEY); CREATE TABLE h11_b_key (a int)",
        "h11 ADD b int UNIQUE",
        "name-taken",
        "h11_b_key exists",
    ),
    (
        "CREATE TABLE h12 (a int PRIMARY KEY); CREATE TABLE _h12 (a int)",
        "h12 ADD x int",
        "name-taken",
        "_h12 exists",
    ),
    (
        "CREATE TABLE h13 (a int PRIMARY KEY); CREATE TYPE h13_t AS (x h13)",
        "h13 ADD x int",
        "row-type-used",
        "h13_t",
    ),
    (
        "CREATE TABLE h14 (a int PRIMARY KEY); CREATE FUNCTION h14_f(h14) RETURNS text LANGUAGE sql AS \
         'SELECT 1'; CREATE CAST (h14 AS text) WITH FUNCTION h14_f",
        "h14 ADD x int",
        "row-type-used",
        "cast from public.h14 to text",
    ),
    (
        "CREATE TABLE h15 (a int PRIMARY KEY); CREATE TABLE h15_b (b regclass CONSTRAINT h15_c CHECK (b <> \
         'h15'::regclass))",
        "h15 ADD x int",
        "points-at-the-table",
        "h15_c",
    ),
    (
        "CREATE TABLE h16 (a int PRIMARY KEY, b regclass); CREATE INDEX h16_i ON h16 ((b = \
         'h16'::regclass))",
        "h16 ADD x int",
        "names-itself",
        "h16_i",
    ),
    (
        "CREATE TABLE h17 (a int PRIMARY KEY, b regclass, CONSTRAINT h17_c CHECK (b IS NOT NULL)); ALTER \
         TABLE h17 ADD CONSTRAINT h17_d CHECK (b <> 'h17'::regclass)",
        "h17 ADD x int",
        "names-itself",
        "h17_d",
    ),
    (
        "CREATE TABLE h18 (a int PRIMARY KEY); CREATE CONSTRAINT TRIGGER h18_t AFTER INSERT ON h18 FROM \
         h18 FOR EACH ROW EXECUTE FUNCTION h3_f()",
        "h18 ADD x int",
        "names-itself",
        "h18_t",
    ),
    (
        "CREATE TABLE underpin_p (a int PRIMARY KEY)",
        "underpin_p ADD x int",
        "swap-schema",
        "underpin_p",
    ),
];

/// Obstacles that only some versions know.
const NEWEST: &[(&str, &str, &str, &str)] = &[
    (
        "CREATE TABLE n1 (a int4range, b daterange, n int PRIMARY KEY, CONSTRAINT n1_k UNIQUE (a, b WITHOUT \
         OVERLAPS)); CREATE TABLE n1_c (a int4range, b daterange, c int PRIMARY KEY, CONSTRAINT n1_fk \
         FOREIGN KEY (a, PERIOD b) REFERENCES n1 (a, PERIOD b))",
        "n1 ADD x int",
        "foreign-key-period",
        "n1_fk",
    ),
    ("SELECT", "n1_c ADD x int", "foreign-key-period", "n1_fk"),
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

/// As the other refusals; the client stays, since one of the obstacles is its own.
#[tokio::test(flavor = "multi_thread")]
async fn what_hides_is_refused_by_name_too() {
    for flavor in Flavor::POSTGRES_MATRIX {
        let Some(db) = TestDb::new(flavor) else { continue };
        let client = db.client().await.unwrap();
        let newest = if flavor == Flavor::Postgres18 { NEWEST } else { &[] };
        for (setup, statement, code, part) in HIDDEN.iter().chain(newest) {
            client.batch_execute(setup).await.unwrap_or_else(|error| panic!("{setup}: {error:?}"));
            refused(&db, statement, code, part).await;
        }
        let own = "CREATE TEMP TABLE h20 (a int PRIMARY KEY)";
        client.batch_execute(own).await.unwrap();
        let sql = "SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname = 'h20'";
        let schema = pg::text_rows(&client, sql).await.unwrap()[0][0].clone().unwrap();
        refused(&db, &format!("{schema}.h20 ADD x int"), "temporary-table", "h20").await;
        nothing_left(&client).await;
        // A database with a subscription cannot be dropped.
        client.batch_execute("DROP SUBSCRIPTION h4_s").await.unwrap();
    }
}

/// No provider of labels is at hand: one that is missing must be missed.
#[tokio::test(flavor = "multi_thread")]
async fn a_security_label_is_made_again_or_named() {
    let Some(db) = TestDb::new(Flavor::PostgresDistro) else { return };
    let client = db.client().await.unwrap();
    for (number, place) in [0, 1].into_iter().enumerate() {
        let setup = format!(
            "CREATE TABLE label{number} (a int PRIMARY KEY); SET allow_system_table_mods = on; INSERT INTO \
             pg_seclabel VALUES ('label{number}'::regclass, 'pg_class'::regclass, {place}, 'nobody', 'x')"
        );
        client.batch_execute(&setup).await.unwrap();
        let error = plan(&db, &format!("label{number} ADD x int"), true).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused);
        assert!(error.to_string().contains("\"nobody\" is not loaded"), "{error}");
    }
    nothing_left(&client).await;
}

/// What is no obstacle, but good to know.
#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_index_and_an_event_trigger_are_told_of() {
    for flavor in Flavor::POSTGRES_MATRIX {
        let Some(db) = TestDb::new(flavor) else { continue };
        let client = db.client().await.unwrap();
        client
            .batch_execute(
                "CREATE TABLE w (a int PRIMARY KEY, b int); INSERT INTO w VALUES (1, 1), (2, 1)",
            )
            .await
            .unwrap();
        let built = client.batch_execute("CREATE UNIQUE INDEX CONCURRENTLY w_b ON w (b)").await;
        assert!(built.is_err(), "the rows should clash");
        let setup = "CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT \
                     TRIGGER watcher ON ddl_command_end EXECUTE FUNCTION f(); CREATE EVENT TRIGGER sleeper \
                     ON sql_drop EXECUTE FUNCTION f(); ALTER EVENT TRIGGER sleeper DISABLE";
        client.batch_execute(setup).await.unwrap();
        let plan = plan(&db, "w ALTER a TYPE bigint", true).await.unwrap();
        let told: Vec<_> = plan
            .findings
            .iter()
            .filter(|finding| finding.severity == Severity::Warning)
            .map(|finding| format!("{}: {}", finding.code, finding.message))
            .collect();
        assert!(
            told.iter().any(|line| line.starts_with("invalid-index: index public.w_b")),
            "{told:?}"
        );
        assert!(told.iter().any(|line| line.starts_with("event-trigger: event trigger watcher")));
        assert!(!told.iter().any(|line| line.contains("sleeper")), "{told:?}");
        // It is left out, and does not come to life: its rows would clash.
        let words =
            ["run", &db.url(), "ALTER TABLE w ALTER a TYPE bigint", "--replica", "none", "--yes"];
        let called = cli::call(&words).unwrap();
        assert!(called.code() == 0, "{}", called.complaint());
        let left = "SELECT count(*) FROM pg_class WHERE relname = 'w_b'";
        assert_eq!(pg::text_rows(&client, left).await.unwrap()[0][0].as_deref(), Some("0"));
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
