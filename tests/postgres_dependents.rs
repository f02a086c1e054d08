//! What hangs on a table goes on working across the swap: sessions that were there before it, keys,
//! sequences, and a runner that is no superuser.
#![allow(clippy::unwrap_used)] // what cannot be had here fails the test

use underpin_dialect::{ErrorKind, Shadow};
use underpin_tests::cli;
use underpin_tests::servers::{Flavor, TestDb, pg};

#[path = "postgres_steps/mod.rs"]
mod postgres_steps;
use postgres_steps::Steps;

fn underpin(url: &str, change: &str) {
    let words = ["run", url, change, "--strategy", "shadow", "--replica", "none", "--yes"];
    let called = cli::call(&words).unwrap();
    assert!(called.code() == 0, "{change}: {}", called.complaint());
}

async fn one(client: &tokio_postgres::Client, sql: &str) -> String {
    let found = pg::text_rows(client, sql).await.unwrap_or_else(|error| panic!("{sql}: {error:#}"));
    found[0][0].clone().unwrap_or_default()
}

const SCHEMA: &str = "
CREATE TABLE parent (id int PRIMARY KEY);
INSERT INTO parent SELECT generate_series(1, 9);
CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text, n int, p int REFERENCES parent ON DELETE CASCADE);
INSERT INTO t (v, n, p) SELECT 'v' || i, i, 1 + i % 9 FROM generate_series(1, 100) i;
CREATE TABLE child (t int REFERENCES t ON DELETE CASCADE);
INSERT INTO child SELECT generate_series(1, 100);
CREATE VIEW tv AS SELECT id, v FROM t;
CREATE FUNCTION row_of(i int) RETURNS text LANGUAGE plpgsql AS $$ DECLARE r t%ROWTYPE; BEGIN SELECT * INTO r FROM t WHERE id = i; RETURN r.v; END $$;
CREATE FUNCTION body_of(i int) RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT v FROM t WHERE id = i; END;
CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE x t%ROWTYPE; BEGIN x := NEW; NEW.v := x.v || '!'; RETURN NEW; END $$;
CREATE TRIGGER mark BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION mark();
CREATE PUBLICATION pt FOR TABLE t;
";

/// A session of a pool: it has compiled and planned everything before the swap.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_from_before_go_on() {
    for flavor in Flavor::POSTGRES_MATRIX {
        let Some(db) = TestDb::new(flavor) else { continue };
        let pooled = db.client().await.unwrap();
        pooled.batch_execute(SCHEMA).await.unwrap();
        let use_all = async || {
            assert_eq!(one(&pooled, "SELECT row_of(7)").await, "v7");
            assert_eq!(one(&pooled, "SELECT body_of(7)").await, "v7");
            assert_eq!(one(&pooled, "SELECT v FROM tv WHERE id = 7").await, "v7");
            let sql = "INSERT INTO t (v, n, p) VALUES ('w', 1, 1) RETURNING v";
            assert_eq!(one(&pooled, sql).await, "w!");
            pooled.batch_execute("EXECUTE pi; EXECUTE pu").await.unwrap();
        };
        pooled
            .batch_execute(
                "PREPARE pi AS INSERT INTO t (v, n, p) VALUES ('p', 2, 2); PREPARE pu AS UPDATE t SET \
                 n = n + 1 WHERE id = 7",
            )
            .await
            .unwrap();
        use_all().await;
        underpin(&db.url(), "ALTER TABLE t ALTER n TYPE bigint");
        use_all().await;
        // 100 rows, then two before and two after the swap: the identity went on.
        assert_eq!(one(&pooled, "SELECT max(id) FROM t").await, "104");
        assert_eq!(one(&pooled, "SELECT n FROM t WHERE id = 7").await, "9");
        // The old table does not stand in the way of its former parent, the new one obeys it.
        pooled.batch_execute("DELETE FROM parent WHERE id = 3").await.unwrap();
        assert_eq!(one(&pooled, "SELECT count(*) FROM t WHERE p = 3").await, "0");
        let orphans = "SELECT count(*) FROM child WHERE t NOT IN (SELECT id FROM t)";
        assert_eq!(one(&pooled, orphans).await, "0");
        let invalid = "SELECT count(*) FROM pg_constraint WHERE NOT convalidated";
        assert_eq!(one(&pooled, invalid).await, "0");
        let published = "SELECT count(*) FROM pg_publication_tables WHERE tablename = 't'";
        assert_eq!(one(&pooled, published).await, "1");
        let left = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'underpin\\_%'";
        assert_eq!(one(&pooled, left).await, "0");
    }
}

/// A role that may act as the owner and make schemas is enough.
#[tokio::test(flavor = "multi_thread")]
async fn no_superuser_is_needed() {
    for flavor in Flavor::POSTGRES_MATRIX {
        let Some(db) = TestDb::new(flavor) else { continue };
        let client = db.client().await.unwrap();
        let (owner, runner) = (format!("owner_{}", db.name()), format!("runner_{}", db.name()));
        client.batch_execute(SCHEMA).await.unwrap();
        let roles = format!(
            "CREATE ROLE {owner}; CREATE ROLE {runner} LOGIN; GRANT {owner} TO {runner}; GRANT CREATE \
             ON DATABASE {} TO {runner}; GRANT CREATE ON SCHEMA public TO {owner}; ALTER TABLE t OWNER \
             TO {owner}; ALTER TABLE child OWNER TO {owner}; ALTER TABLE parent OWNER TO {owner}; ALTER \
             VIEW tv OWNER TO {owner}; ALTER FUNCTION body_of OWNER TO {owner}; DROP PUBLICATION pt",
            db.name()
        );
        client.batch_execute(&roles).await.unwrap();
        let url = db.url().replacen("postgres@", &format!("{runner}@"), 1);
        underpin(&url, "ALTER TABLE t ALTER n TYPE bigint");
        let owned = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 't'";
        assert_eq!(one(&client, owned).await, owner);
        assert_eq!(one(&client, "SELECT count(*) FROM t").await, "100");
        // Somebody who may not act as the owner is told what to grant.
        let other = format!("other_{}", db.name());
        client.batch_execute(&format!("CREATE ROLE {other} LOGIN")).await.unwrap();
        let url = db.url().replacen("postgres@", &format!("{other}@"), 1);
        let change = "ALTER TABLE t ALTER n TYPE numeric";
        let called = cli::call(&["plan", &url, change, "--replica", "none"]).unwrap();
        assert_eq!(called.code(), 3, "{}", called.complaint());
        let dropped = format!(
            "DROP OWNED BY {owner}, {runner}, {other}; DROP ROLE {owner}, {runner}, {other}"
        );
        client.batch_execute(&dropped).await.unwrap();
    }
}

/// The planner knows the new table, and index-only scans know its pages, from the first query on; what is
/// counted of the table's use begins anew, as after any new table. A comment on the rows' type, which no
/// dump shows, is there too.
#[tokio::test(flavor = "multi_thread")]
async fn what_no_dump_shows() {
    let Some(db) = TestDb::new(Flavor::PostgresDistro) else { return };
    let client = db.client().await.unwrap();
    let setup = "CREATE TABLE seen (id int PRIMARY KEY, v int, w int); CREATE STATISTICS seen_s ON v, w FROM \
                 seen; INSERT INTO seen SELECT i, i % 7, i % 7 FROM generate_series(1, 5000) i; COMMENT ON \
                 TYPE seen IS 'rows'; CREATE INDEX seen_e ON seen ((v + w)); UPDATE seen SET v = v + 1; \
                 SELECT pg_stat_force_next_flush()";
    client.batch_execute(setup).await.unwrap();
    let changed = "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'seen'";
    assert_eq!(one(&client, changed).await, "5000");
    underpin(&db.url(), "ALTER TABLE seen ALTER v TYPE bigint");
    for (what, sql) in [
        ("rows", "SELECT reltuples = 5000 FROM pg_class WHERE oid = 'seen'::regclass"),
        (
            "pages",
            // Pages made ahead of their rows, or looked at in that moment, are passed over.
            "SELECT relallvisible * 3 >= relpages * 2 AND relpages > 9 FROM pg_class WHERE oid = 'seen'::regclass",
        ),
        ("columns", "SELECT count(*) = 3 FROM pg_stats WHERE tablename = 'seen'"),
        ("expression", "SELECT count(*) = 1 FROM pg_stats WHERE tablename = 'seen_e'"),
        (
            "extended",
            "SELECT count(*) = 1 FROM pg_statistic_ext_data JOIN pg_statistic_ext ON stxoid = oid WHERE \
             stxname = 'seen_s' AND stxddependencies IS NOT NULL",
        ),
        ("counted", "SELECT n_tup_upd = 0 FROM pg_stat_user_tables WHERE relname = 'seen'"),
        ("type", "SELECT obj_description('seen'::regtype, 'pg_type') = 'rows'"),
    ] {
        assert_eq!(one(&client, sql).await, "t", "{what}");
    }
}

/// What somebody hangs on the table, or takes from it, while the run goes on, is not lost by the swap: the
/// run notices and stops. By single steps, so that it happens behind the making of the shadow.
#[tokio::test(flavor = "multi_thread")]
async fn what_changes_meanwhile_is_noticed() {
    let Some(db) = TestDb::new(Flavor::PostgresDistro) else { return };
    let client = db.client().await.unwrap();
    let setup = "CREATE TABLE m (id int GENERATED ALWAYS AS IDENTITY CONSTRAINT m_pk PRIMARY KEY, v text, n \
                 int, e int); CREATE INDEX m_e ON m ((n + e)); CREATE STATISTICS m_s ON n, e FROM m; CREATE \
                 FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; CREATE TRIGGER \
                 m_t AFTER INSERT ON m EXECUTE FUNCTION f(); CREATE POLICY m_p ON m USING (true)";
    client.batch_execute(setup).await.unwrap();
    let steps = Steps::begin(&db, "ALTER TABLE m ALTER n TYPE bigint").await;
    let mut control = steps.control().await;
    control.check_source(&steps.spec).await.unwrap();
    for (done, undone) in [
        ("COMMENT ON CONSTRAINT m_pk ON m IS 'x'", "COMMENT ON CONSTRAINT m_pk ON m IS NULL"),
        ("COMMENT ON INDEX m_e IS 'x'", "COMMENT ON INDEX m_e IS NULL"),
        ("COMMENT ON TRIGGER m_t ON m IS 'x'", "COMMENT ON TRIGGER m_t ON m IS NULL"),
        ("COMMENT ON POLICY m_p ON m IS 'x'", "COMMENT ON POLICY m_p ON m IS NULL"),
        ("COMMENT ON COLUMN m.v IS 'x'", "COMMENT ON COLUMN m.v IS NULL"),
        ("COMMENT ON SEQUENCE m_id_seq IS 'x'", "COMMENT ON SEQUENCE m_id_seq IS NULL"),
        ("ALTER SEQUENCE m_id_seq INCREMENT 2", "ALTER SEQUENCE m_id_seq INCREMENT 1"),
        ("GRANT USAGE ON SEQUENCE m_id_seq TO PUBLIC", ""),
        ("ALTER TABLE m ALTER v SET STATISTICS 9", "ALTER TABLE m ALTER v SET STATISTICS -1"),
        ("ALTER TABLE m ALTER v SET (n_distinct = 5)", "ALTER TABLE m ALTER v RESET (n_distinct)"),
        (
            "ALTER TABLE m ALTER v SET COMPRESSION pglz",
            "ALTER TABLE m ALTER v SET COMPRESSION default",
        ),
        (
            "ALTER TABLE m SET (toast.autovacuum_enabled = off)",
            "ALTER TABLE m RESET (toast.autovacuum_enabled)",
        ),
        (
            "ALTER INDEX m_e ALTER COLUMN 1 SET STATISTICS 9",
            "ALTER INDEX m_e ALTER COLUMN 1 SET STATISTICS -1",
        ),
        ("ALTER STATISTICS m_s SET STATISTICS 9", "ALTER STATISTICS m_s SET STATISTICS -1"),
        ("GRANT SELECT (v) ON m TO PUBLIC", ""),
    ] {
        client.batch_execute(done).await.unwrap();
        let noticed = control.check_source(&steps.spec).await;
        assert!(noticed.is_err_and(|error| error.kind == ErrorKind::SourceChanged), "{done}");
        if undone.is_empty() {
            // An empty list is not the list that was never written: as it was is not to be had again.
            let sql = "UPDATE pg_class SET relacl = NULL WHERE relname = 'm_id_seq'; UPDATE pg_attribute SET \
                       attacl = NULL WHERE attrelid = 'm'::regclass";
            client
                .batch_execute(&format!("SET allow_system_table_mods = on; {sql}"))
                .await
                .unwrap();
        } else {
            client.batch_execute(undone).await.unwrap();
        }
        control.check_source(&steps.spec).await.unwrap_or_else(|error| panic!("{undone}: {error}"));
    }
}
