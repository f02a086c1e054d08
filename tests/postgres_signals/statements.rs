//! What the server counts of the statements on a table.

use underpin_dialect::{Database, Inspect};
use underpin_tests::servers::{Flavor, Server, ServerSpec, TestDb, pg, wanted};

use super::TABLE;
use crate::postgres_steps::{on_each, open, open_through, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_are_counted_where_the_server_does() {
    for flavor in Flavor::POSTGRES_MATRIX {
        if !wanted(flavor) {
            continue;
        }
        let spec = ServerSpec::new(flavor)
            .option("shared_preload_libraries=pg_stat_statements")
            .option("pg_stat_statements.track=all");
        let server = Server::start(&spec, false).unwrap();
        let url = format!("{}postgres", server.url());
        let client = pg::connect(&url).await.unwrap();
        let make = [TABLE, "CREATE TABLE t_other (id int)", "CREATE TABLE \"Top t\" (id int)"];
        run(&client, &make).await;
        let dialect = open_through(&url).await;
        let mut control = dialect.control().await.unwrap();
        // Loaded, but not installed in this database.
        assert_eq!(control.statements("public", "t").await.unwrap(), None);
        run(&client, &["CREATE SCHEMA ext", "CREATE EXTENSION pg_stat_statements SCHEMA ext"])
            .await;
        run(&client, &["INSERT INTO t SELECT g, 'x' FROM generate_series(1, 500) g"]).await;
        for id in 1..=7 {
            run(&client, &[&format!("SELECT v FROM t WHERE id = {id}")]).await;
        }
        run(&client, &["SELECT count(*) FROM t_other", "SELECT 1 AS t_"]).await;
        run(&client, &["CREATE SCHEMA underpin_r9", "CREATE TABLE underpin_r9.t (id int)"]).await;
        run(&client, &["INSERT INTO underpin_r9.t SELECT id FROM t"]).await;
        let found = control.statements("public", "t").await.unwrap().unwrap();
        let by_key = found.iter().find(|one| one.text == "SELECT v FROM t WHERE id = $1");
        let by_key = by_key.unwrap_or_else(|| panic!("{found:?}"));
        assert_eq!((by_key.calls, by_key.rows), (7, 7));
        assert!(by_key.total_ms > 0.0 && by_key.examined >= 7, "{by_key:?}");
        assert!(!by_key.digest.is_empty());
        for other in ["t_other", "AS t_", "underpin_"] {
            assert!(!found.iter().any(|one| one.text.contains(other)), "{other}: {found:?}");
        }
        let costs: Vec<f64> = found.iter().map(|one| one.total_ms).collect();
        assert!(costs.windows(2).all(|pair| pair[0] >= pair[1]), "{costs:?}");

        // Who may not see other roles' statements is told nothing, rather than his own.
        run(&client, &["CREATE ROLE someone LOGIN", "GRANT USAGE ON SCHEMA ext TO someone"]).await;
        let theirs = open_through(&url.replace("postgres@", "someone@")).await;
        let mut control = theirs.control().await.unwrap();
        assert_eq!(control.statements("public", "t").await.unwrap(), None);
    }
}

#[test]
fn a_server_that_counts_nothing_is_no_error() {
    on_each(&[Flavor::PostgresDistro], async |db: TestDb| {
        let client = db.client().await.unwrap();
        run(&client, &[TABLE]).await;
        let mut control = open(&db).await.control().await.unwrap();
        assert_eq!(control.statements("public", "t").await.unwrap(), None);
        // Installed, and not loaded by the server.
        run(&client, &["CREATE EXTENSION pg_stat_statements"]).await;
        assert_eq!(control.statements("public", "t").await.unwrap(), None);
        // The session is of use afterwards, and tells one definition from another.
        let one = control.fingerprint("public", "t").await.unwrap().unwrap();
        assert_eq!(control.fingerprint("public", "t").await.unwrap(), Some(one.clone()));
        run(&client, &["ALTER TABLE t ADD n int"]).await;
        assert_ne!(control.fingerprint("public", "t").await.unwrap(), Some(one));
        assert_eq!(control.fingerprint("public", "u").await.unwrap(), None);
    });
}
