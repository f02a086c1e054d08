//! Transactions of one snapshot that is older than the swap.

use tokio_postgres::Client;
use underpin_tests::servers::Flavor;

use crate::postgres_steps::{apply_all, make_table, on_each, rows, run};
use crate::{Ready, swapped};

const CHANGE: &str = "ALTER TABLE t ALTER u TYPE bigint";

const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class";

async fn count(client: &Client, table: &str) -> i64 {
    let rows = client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await;
    rows.unwrap().get(0)
}

/// What the plan says of them: rows that are newer than the snapshot cannot be seen, as after the server's
/// own rewrite. What such a transaction writes is in the new table, or it is told that it came too late.
#[test]
fn a_snapshot_from_before_the_copy_sees_what_it_would_after_the_servers_own_rewrite() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        make_table(&db, 100).await;
        let app = db.client().await.unwrap();
        run(&app, &["CREATE TABLE native (LIKE t INCLUDING ALL)", "INSERT INTO native TABLE t"])
            .await;
        let old = db.client().await.unwrap();
        run(&old, &[BEGIN]).await;
        let ready = Ready::make(&db, CHANGE).await;
        swapped(&ready.swap().await);
        run(&app, &["ALTER TABLE native ALTER u TYPE bigint"]).await;
        assert_eq!((count(&old, "t").await, count(&old, "native").await), (0, 0));
        run(&old, &["INSERT INTO t VALUES (1000, 1, 'old snapshot')", "COMMIT"]).await;
        assert_eq!(count(&app, "t").await, 101);
    });
}

/// A row that was written anew since the snapshot cannot be overwritten by it unseen.
#[test]
fn a_snapshot_from_before_the_last_application_overwrites_nothing() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        make_table(&db, 100).await;
        let app = db.client().await.unwrap();
        let mut ready = Ready::make(&db, CHANGE).await;
        run(&app, &["UPDATE t SET v = 'applied later' WHERE id = 1"]).await;
        let (reader, writer) = (db.client().await.unwrap(), db.client().await.unwrap());
        run(&reader, &[BEGIN]).await;
        run(&writer, &[BEGIN]).await;
        apply_all(&mut ready.worker).await;
        run(&app, &["UPDATE t SET v = 'drained' WHERE id = 2"]).await;
        swapped(&ready.swap().await);
        assert_eq!(count(&reader, "t").await, 100, "it misses no row");
        for id in [1, 2] {
            run(&writer, &["SAVEPOINT s"]).await;
            let write = format!("UPDATE t SET v = v || ' and overwritten' WHERE id = {id}");
            let error = writer.batch_execute(&write).await.unwrap_err();
            assert_eq!(error.code().unwrap().code(), "40001", "{id}");
            run(&writer, &["ROLLBACK TO s"]).await;
        }
        run(&writer, &["UPDATE t SET v = 'free' WHERE id = 3", "COMMIT"]).await;
        let content = "SELECT v FROM t WHERE id <= 3 ORDER BY id";
        assert_eq!(rows(&db, content).await, ["applied later", "drained", "free"]);
    });
}
