//! The writers alone: they see no error, and the check finds what is done behind their backs.

use std::time::{Duration, Instant};

use super::{MIRROR, Settings, TABLE, Writers, compare_replica, compare_tables, load};
use crate::busy;
use crate::servers::{Flavor, TestDb, pg};
use crate::workload::Layout;

const LAYOUT: Layout = Layout { rows: 5_000, writers: 4 };

#[tokio::test(flavor = "multi_thread")]
async fn writers_alone_see_no_error_and_leave_two_equal_tables() {
    for flavor in Flavor::POSTGRES_MATRIX {
        let Some(db) = TestDb::new(flavor) else { continue };
        load(&db.url(), LAYOUT).await.unwrap();
        let fresh = compare_tables(&db.url()).await.unwrap();
        assert!(fresh.none() && fresh.rows_read == 5_000, "{flavor:?}: {fresh}");
        // few rows and no pause: the writers are as much in each other's way as can be
        let settings = Settings {
            url: db.url(),
            layout: LAYOUT,
            rate_per_s: None,
            seed: 7,
            truncate_one_in: Some(500),
        };
        let writers = Writers::start(&settings).await.unwrap();
        let begun = Instant::now();
        tokio::time::sleep(Duration::from_secs(3)).await;
        tokio::time::sleep(busy::allows(begun, Duration::from_secs(1))).await;
        let outcome = writers.stop().await.unwrap();
        assert_eq!(outcome.errors.total(), 0, "{flavor:?}: {}", outcome.errors);
        assert!(outcome.samples.len() > 200, "{flavor:?}: only {}", outcome.samples.len());
        for operation in [
            "insert",
            "update",
            "codes swapped",
            "slots swapped",
            "key moved",
            "keys exchanged",
            "delete",
            "insert or not",
            "upsert by key",
            "bulk update",
            "copy",
        ] {
            let done = outcome.tally.get(operation).copied().unwrap_or_default();
            assert!(done.1 > 0, "{flavor:?}: no row by {operation}: {:?}", outcome.tally);
        }
        for operation in ["savepoint", "truncate", "two phases", "two phases, undone"] {
            assert!(outcome.tally.contains_key(operation), "{flavor:?}: no {operation}");
        }
        let found = compare_tables(&db.url()).await.unwrap();
        assert!(found.none(), "{flavor:?}: {found}");
        db.endpoints().wait_caught_up(Duration::from_secs(60)).unwrap();
        if let Some(replica) = db.replica_url() {
            assert_eq!(compare_replica(&db.url(), &replica).await.unwrap(), found.rows_read);
        }
        assert_sees_tampering(&db).await;
    }
}

async fn assert_sees_tampering(db: &TestDb) {
    let client = db.client().await.unwrap();
    let any = format!("(SELECT shop, id FROM {MIRROR} WHERE amount <> 7 LIMIT 1)");
    for (change, wanted) in [
        (format!("DELETE FROM {TABLE} WHERE (shop, id) IN {any}"), (1, 0)),
        (format!("UPDATE {TABLE} SET amount = 7 WHERE (shop, id) IN {any}"), (1, 1)),
        (
            format!(
                "INSERT INTO {TABLE} (shop, customer, amount, placed_at) VALUES (9, 0, 0, now())"
            ),
            (0, 1),
        ),
        // the change that makes both equal again is none
        (format!("UPDATE {TABLE} SET note = note"), (0, 0)),
    ] {
        client.batch_execute("BEGIN").await.unwrap();
        client.batch_execute(&change).await.unwrap();
        client.batch_execute("COMMIT").await.unwrap();
        let found = compare_tables(&db.url()).await.unwrap();
        assert_eq!((found.missing, found.unexpected), wanted, "after {change}: {found}");
        let restore = format!("DELETE FROM {TABLE}; INSERT INTO {TABLE} SELECT * FROM {MIRROR}");
        client.batch_execute(&restore).await.unwrap();
    }
    if let Some(replica) = db.replica_url() {
        // a replica takes no writes of its own: another database stands in for one that differs
        let other = TestDb::new(db.endpoints().flavor).unwrap();
        load(&other.url(), LAYOUT).await.unwrap();
        assert!(compare_replica(&other.url(), &replica).await.is_err());
        assert!(pg::connect(&replica).await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_live_through_a_lost_connection_and_count_it() {
    for flavor in Flavor::POSTGRES_MATRIX {
        let Some(db) = TestDb::new(flavor) else { continue };
        load(&db.url(), LAYOUT).await.unwrap();
        let settings = Settings {
            url: db.url(),
            layout: LAYOUT,
            rate_per_s: None,
            seed: 8,
            truncate_one_in: None,
        };
        let writers = Writers::start(&settings).await.unwrap();
        let client = db.client().await.unwrap();
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                       WHERE datname = current_database() AND pid <> pg_backend_pid()";
            client.batch_execute(end).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let outcome = writers.stop().await.unwrap();
        assert!(outcome.errors.total() > 0, "{flavor:?}: the cuts went unnoticed");
        let prepared = client.query(
            "SELECT FROM pg_prepared_xacts WHERE database = \
                                     current_database()",
            &[],
        );
        assert!(prepared.await.unwrap().is_empty(), "{flavor:?}: a transaction is left in doubt");
        let found = compare_tables(&db.url()).await.unwrap();
        assert!(found.none(), "{flavor:?}: {found}");
    }
}
