//! The writers alone: they see no error, and the check finds what is done behind their backs.

use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;

use super::{Layout, Model, Settings, TABLE, Workload, compare_replica, compare_table, load};
use crate::busy;
use crate::servers::{Flavor, TestDb};

const LAYOUT: Layout = Layout { rows: 5_000, writers: 4 };

#[tokio::test(flavor = "multi_thread")]
async fn writers_alone_see_no_error_and_find_all_they_wrote() {
    for flavor in Flavor::ALL {
        let Some(db) = TestDb::new(flavor) else { continue };
        load(&db.url(), LAYOUT).await.unwrap();
        let fresh = compare_table(&db.url(), LAYOUT, &[]).await.unwrap();
        assert!(fresh.none() && fresh.rows_read == 5_005, "{flavor:?}: {fresh}");
        // few rows and no pause: the writers are as much in each other's way as can be
        let settings = Settings { url: db.url(), layout: LAYOUT, rate_per_s: None, seed: 7 };
        let writers = Workload::start(&settings).await.unwrap();
        let begun = Instant::now();
        tokio::time::sleep(Duration::from_secs(3)).await;
        tokio::time::sleep(busy::allows(begun, Duration::from_secs(1))).await;
        let outcome = writers.stop().await.unwrap();
        assert_eq!(outcome.errors.total(), 0, "{flavor:?}: {}", outcome.errors);
        assert!(outcome.samples.len() > 200, "{flavor:?}: only {}", outcome.samples.len());
        let found = compare_table(&db.url(), LAYOUT, &outcome.models).await.unwrap();
        assert!(found.none() && found.unsure == 0, "{flavor:?}: {found}");
        db.endpoints().wait_caught_up(Duration::from_secs(60)).unwrap();
        if let Some(replica) = db.replica_url() {
            assert_eq!(compare_replica(&db.url(), &replica).await.unwrap(), found.rows_read);
        }
        assert_sees_tampering(&db, &outcome.models).await;
    }
}

async fn assert_sees_tampering(db: &TestDb, models: &[Model]) {
    let before = compare_table(&db.url(), LAYOUT, models).await.unwrap();
    let (ours, _) = models[0].changed().iter().find(|(_, row)| row.is_some()).unwrap();
    let gone = models[1].changed().iter().find(|(id, row)| row.is_none() && **id > 0).unwrap();
    let mut conn = db.conn().await.unwrap();
    for statement in [
        format!("DELETE FROM {TABLE} WHERE id IN (1, {ours})"),
        format!(
            "INSERT INTO {TABLE} (id, code, customer, status, amount)
                 VALUES ({}, 'behind', 0, 'new', 0)",
            gone.0
        ),
        format!("UPDATE {TABLE} SET amount = amount + 0.01 WHERE id = {}", LAYOUT.rows),
    ] {
        conn.query_drop(statement).await.unwrap();
    }
    let after = compare_table(&db.url(), LAYOUT, models).await.unwrap();
    assert_eq!((after.missing, after.unexpected, after.different), (2, 1, 1), "{after}");
    assert_eq!(after.rows_read, before.rows_read - 1);
    if let Some(replica) = db.replica_url() {
        db.endpoints().wait_caught_up(Duration::from_secs(60)).unwrap();
        let mut other = crate::servers::sql::connect(&replica).await.unwrap();
        other.query_drop(format!("UPDATE {TABLE} SET note = 'x' WHERE id = 2501")).await.unwrap();
        assert!(compare_replica(&db.url(), &replica).await.is_err());
    }
}
