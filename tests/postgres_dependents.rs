//! What hangs on a table goes on working across the swap: sessions that were there before it, keys,
//! sequences, and a runner that is no superuser.
#![allow(clippy::unwrap_used)] // what cannot be had here fails the test

use underpin_tests::cli;
use underpin_tests::servers::{Flavor, TestDb, pg};

fn underpin(url: &str, change: &str) {
    let words = ["run", url, change, "--strategy", "shadow", "--replica", "none", "--yes"];
    let called = cli::call(&words).unwrap();
    assert_eq!(called.code(), 0, "{change}: {}", called.complaint());
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
