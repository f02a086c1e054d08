//! Logical subscribers: one of the whole table, one of some rows and columns of it; and a streaming
//! replica beside them.

use std::time::{Duration, Instant};

use tokio_postgres::Client;
use underpin_tests::cli;
use underpin_tests::mirrored::{self, Settings, Writers};
use underpin_tests::servers::{Flavor, Pair, ServerSpec, pg, wanted};
use underpin_tests::workload::Layout;

use super::LIMIT;

const LAYOUT: Layout = Layout { rows: 20_000, writers: 3 };
const CHANGE: &str =
    "ALTER TABLE orders ALTER customer TYPE bigint, ADD COLUMN extra int NOT NULL DEFAULT 5";

/// What a subscriber keeps.
struct Subscriber {
    name: &'static str,
    /// Its table; it has the new shape already, as is usual.
    table: &'static str,
    /// What is published.
    member: &'static str,
    /// Its rows, to be asked of either side.
    rows: &'static str,
}

const SUBSCRIBERS: [Subscriber; 2] = [
    Subscriber {
        name: "whole",
        table: "CREATE TABLE orders (shop smallint, id bigint, code text, slot int, customer bigint, status \
                text, amount numeric, note text, tags text[], details jsonb, placed_at timestamptz, extra \
                int DEFAULT 5, PRIMARY KEY (shop, id))",
        member: "orders",
        rows: "SELECT shop, id, code, slot, customer, status, amount, note, tags, details, placed_at FROM \
               orders",
    },
    Subscriber {
        name: "part",
        table: "CREATE TABLE orders (shop smallint, id bigint, code text, amount numeric, PRIMARY KEY \
                (shop, id))",
        member: "orders (shop, id, code, amount) WHERE (shop % 1000 < 2)",
        rows: "SELECT shop, id, code, amount FROM orders WHERE shop % 1000 < 2",
    },
];

async fn run(client: &Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

async fn one(client: &Client, query: &str) -> Option<String> {
    let rows = pg::text_rows(client, query).await.unwrap();
    rows.first().and_then(|row| row[0].clone())
}

impl Subscriber {
    /// Subscribes in a database of its own on the same server, and waits for what was there before. The
    /// slot comes first: made by the subscription it would wait for the subscription itself.
    async fn attach(&self, server: &str, publisher: &Client) -> Client {
        run(publisher, &format!("CREATE DATABASE {}", self.name)).await;
        run(publisher, &format!("CREATE PUBLICATION {} FOR TABLE {}", self.name, self.member))
            .await;
        let slot =
            format!("SELECT pg_create_logical_replication_slot('{}', 'pgoutput')", self.name);
        run(publisher, &slot).await;
        let client = pg::connect(&format!("{server}{}", self.name)).await.unwrap();
        run(&client, self.table).await;
        let subscribe = format!(
            "CREATE SUBSCRIPTION {name} CONNECTION '{server}postgres' PUBLICATION {name} WITH (create_slot \
             = false)",
            name = self.name
        );
        run(&client, &subscribe).await;
        let ready = "SELECT bool_and(srsubstate = 'r')::text FROM pg_subscription_rel";
        let until = Instant::now() + LIMIT;
        while one(&client, ready).await.as_deref() != Some("true") {
            assert!(Instant::now() < until, "subscriber {} is not ready", self.name);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        client
    }

    /// Number of rows and a sum over them.
    async fn sum(&self, client: &Client) -> Option<String> {
        let query = format!(
            "SELECT count(*) || ' rows, ' || sum(hashtextextended(r::text, 0)) FROM ({}) AS r",
            self.rows
        );
        one(client, &query).await
    }

    /// Waits until it has what was published.
    async fn ensure_equal(&self, publisher: &Client, subscriber: &Client) {
        let wanted = self.sum(publisher).await;
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let found = self.sum(subscriber).await;
            if found == wanted {
                return;
            }
            assert!(Instant::now() < until, "{} has {found:?}, not {wanted:?}", self.name);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_and_a_replica_go_on_behind_the_swap_with_equal_rows() {
    if !wanted(Flavor::PostgresDistro) {
        return;
    }
    let pair = Pair::start(&ServerSpec::new(Flavor::PostgresDistro)).unwrap();
    let url = format!("{}postgres", pair.primary.url());
    mirrored::load(&url, LAYOUT).await.unwrap();
    let publisher = pg::connect(&url).await.unwrap();
    let mut attached = Vec::new();
    for subscriber in &SUBSCRIBERS {
        let client = subscriber.attach(&pair.primary.url(), &publisher).await;
        subscriber.ensure_equal(&publisher, &client).await;
        attached.push((subscriber, client));
    }
    let published =
        "SELECT string_agg(p::text, ', ' ORDER BY p::text) FROM pg_publication_tables AS p";
    let before = one(&publisher, published).await;
    let oid = "SELECT to_regclass('orders')::oid::text";
    let old = one(&publisher, oid).await;

    let settings = Settings {
        url: url.clone(),
        layout: LAYOUT,
        rate_per_s: Some(150),
        seed: 7,
        truncate_one_in: None,
    };
    let writers = Writers::start(&settings).await.unwrap();
    let called = cli::call(&["run", &url, CHANGE, "--yes", "--workers", "2"]).unwrap();
    assert!(called.code() == 0, "{}", called.complaint());
    let replicas = called.event("plan").unwrap()["replicas"].to_string();
    for name in ["replica", "whole", "part"] {
        assert!(replicas.contains(name), "{name} is not watched: {replicas}");
    }
    // What comes behind the swap is what this is about.
    tokio::time::sleep(Duration::from_millis(700)).await;
    let seen = writers.stop().await.unwrap();
    assert_ne!(one(&publisher, oid).await, old, "it was not swapped");

    let found = mirrored::compare_tables(&url).await.unwrap();
    assert!(found.missing + found.unexpected == 0, "{found:?} {:?}", seen.errors);
    pair.wait_caught_up(LIMIT).unwrap();
    let replica = format!("{}postgres", pair.replica.url());
    mirrored::compare_replica(&url, &replica).await.unwrap();
    let last = "UPDATE orders SET code = 'the last one' WHERE (shop, id) = (SELECT shop, id FROM orders WHERE \
                shop = 0 LIMIT 1)";
    run(&publisher, last).await;
    for (subscriber, client) in &attached {
        subscriber.ensure_equal(&publisher, client).await;
    }
    // The whole table has a column more; the other members are what they were.
    let after = one(&publisher, published).await.unwrap();
    assert_eq!(after.replace(",extra", ""), before.unwrap());
}
