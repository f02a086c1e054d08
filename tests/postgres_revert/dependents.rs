//! What hangs on the table goes back and forth with it.

use std::process::Command;

use underpin_core::way::Way;
use underpin_tests::servers::{Flavor, TestDb, postgres_tool};

use crate::Made;
use crate::postgres_steps::{on_each, rows, run};

/// A table with one of everything that stands on a table or points at one.
const SCHEMA: &[&str] = &[
    "DROP ROLE IF EXISTS back_reader; CREATE ROLE back_reader",
    "CREATE SCHEMA elsewhere",
    "CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent SELECT generate_series(1, 20)",
    "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, nr serial, parent_id int CONSTRAINT of_parent \
     REFERENCES parent ON DELETE CASCADE, gone_id int CONSTRAINT of_gone REFERENCES parent, self_id int CONSTRAINT \
     of_self REFERENCES t, v text NOT NULL, w int, x int)",
    "INSERT INTO t (parent_id, gone_id, v, w) SELECT i, i, 'v' || i, i FROM generate_series(1, 20) i",
    "ALTER TABLE t ADD CONSTRAINT of_dropped FOREIGN KEY (w) REFERENCES parent NOT VALID",
    "COMMENT ON CONSTRAINT of_dropped ON t IS 'never validated'",
    "ALTER TABLE t ADD CONSTRAINT small CHECK (w < 10) NOT VALID",
    "CREATE TABLE child (t_id int CONSTRAINT of_t REFERENCES t ON UPDATE CASCADE); INSERT INTO child VALUES (1), (2)",
    "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.x := coalesce(NEW.x, 0) + 1; RETURN \
     NEW; END $$",
    "CREATE TRIGGER touched BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch()",
    "CREATE TRIGGER sleeping BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch(); ALTER TABLE t DISABLE TRIGGER \
     sleeping",
    "CREATE VIEW seen AS SELECT id, v FROM t; CREATE VIEW seen_again AS SELECT id FROM seen",
    "CREATE FUNCTION counted() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM t; END",
    "CREATE RULE noted AS ON DELETE TO t DO ALSO NOTIFY gone",
    "CREATE POLICY mine ON t USING (w IS NULL OR w < 1000); ALTER TABLE t ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY looks ON child USING (t_id IN (SELECT id FROM t))",
    "GRANT SELECT, UPDATE (v) ON t TO back_reader",
    "CREATE STATISTICS elsewhere.of_t (dependencies) ON w, x FROM t; COMMENT ON TABLE t IS 'the table'",
    "CREATE INDEX t_v ON t (lower(v)); ALTER TABLE t CLUSTER ON t_v; COMMENT ON INDEX t_v IS 'lower'",
    "ALTER TABLE t REPLICA IDENTITY USING INDEX t_pkey",
    "CREATE PUBLICATION published FOR TABLE t",
];

fn dump(db: &TestDb) -> String {
    let out = Command::new(postgres_tool(Flavor::PostgresDistro, "pg_dump").unwrap())
        .args(["--schema-only", "--exclude-schema=underpin*", &db.url()])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let told = |line: &&str| !line.is_empty() && !line.contains("restrict ");
    text.lines().filter(told).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_dump_after_the_way_back_is_the_one_before_the_change() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        let app = db.client().await.unwrap();
        run(&app, SCHEMA).await;
        let old_shape = dump(&db);
        let change = "ALTER TABLE t ALTER x TYPE bigint, DROP gone_id, DROP CONSTRAINT of_dropped, ADD n int \
                      NOT NULL DEFAULT 1";
        let made = Made::make(&db, change).await;
        let new_shape = without_ours(&dump(&db));
        assert_ne!(new_shape, old_shape);
        run(
            &app,
            &["INSERT INTO t (parent_id, v, w) SELECT 1, 'new', 5 FROM generate_series(1, 10)"],
        )
        .await;
        made.go(Way::Back).await;
        same(&without_ours(&dump(&db)), &old_shape);
        let fired = "SELECT count(*), max(x), count(*) FILTER (WHERE id > 20 AND nr = id) FROM t";
        assert_eq!(
            rows(&db, fired).await,
            ["30/1/10"],
            "a trigger fires once, for the application"
        );
        run(
            &app,
            &[
                "INSERT INTO t (parent_id, v) VALUES (2, 'on the old one')",
                "INSERT INTO child VALUES (31)",
                "UPDATE t SET v = 'x' WHERE id = 4",
            ],
        )
        .await;
        let fired = "SELECT id, nr, x, counted() FROM t WHERE id IN (4, 31) ORDER BY id";
        assert_eq!(rows(&db, fired).await, ["4/4/1/31", "31/31/1/31"]);
        let orphan = app.batch_execute("INSERT INTO child VALUES (99)").await.unwrap_err();
        assert_eq!(orphan.code().unwrap().code(), "23503");
        made.go(Way::Forward).await;
        same(&without_ours(&dump(&db)), &new_shape);
        run(&app, &["INSERT INTO t (parent_id, v) VALUES (3, 'on the new one')"]).await;
        assert_eq!(rows(&db, "SELECT max(id), max(nr), max(x) FROM t").await, ["32/32/1"]);
        // Made since, elsewhere: carried.
        run(
            &app,
            &[
                "CREATE VIEW later AS SELECT v FROM t",
                "CREATE TABLE later_child (t_id int CONSTRAINT of_later REFERENCES t)",
            ],
        )
        .await;
        made.go(Way::Back).await;
        made.finish(Way::Back).await;
        assert_eq!(rows(&db, "SELECT count(*) FROM later").await, ["32"]);
        run(
            &app,
            &["DROP VIEW later; INSERT INTO later_child VALUES (32); DROP TABLE later_child"],
        )
        .await;
        same(&dump(&db), &old_shape);
        run(&app, &["INSERT INTO t (parent_id, v) VALUES (3, 'last')"]).await;
        assert_eq!(rows(&db, "SELECT max(id), max(nr) FROM t").await, ["33/33"]);
        run(&app, &["DROP TABLE t, child CASCADE; DROP ROLE back_reader"]).await;
    });
}

/// The dump without our capture triggers.
fn without_ours(dump: &str) -> String {
    let mut left = Vec::new();
    let mut lines = dump.lines().peekable();
    // A dump is a list of blocks, each under three lines of comment.
    while let Some(line) = lines.next() {
        if line.contains("TRIGGER underpin_r1_") {
            continue;
        }
        if line == "--" && lines.peek().is_some_and(|next| next.contains("underpin_r1_")) {
            lines.next();
            lines.next();
            continue;
        }
        left.push(line);
    }
    left.join("\n")
}

/// Fails with the lines that one of the dumps has alone.
fn same(now: &str, wanted: &str) {
    let alone = |one: &str, other: &str| -> Vec<String> {
        let has = |line: &&str| other.lines().any(|its| its == *line);
        one.lines().filter(|line| !has(line)).map(str::to_owned).collect()
    };
    let (new, lost) = (alone(now, wanted), alone(wanted, now));
    assert!(new.is_empty() && lost.is_empty(), "new: {new:#?}\nlost: {lost:#?}");
    assert_eq!(now, wanted, "the order");
}
