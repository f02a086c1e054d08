//! Crashes: of the program, of the server, of the connection between them. The same command goes on, and
//! nothing that the application was promised is lost.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

#[path = "postgres_crash/cuts.rs"]
mod cuts;
#[path = "postgres_crash/ghosts.rs"]
mod ghosts;
#[path = "postgres_crash/kills.rs"]
mod kills;
#[path = "postgres_crash/server_crashes.rs"]
mod server_crashes;

use std::time::{Duration, Instant};

use underpin_tests::cli::Called;
use underpin_tests::mirrored::{self, Outcome, Settings, Writers};
use underpin_tests::proxy::Trap;
use underpin_tests::runner::{Runner, story};
use underpin_tests::servers::{Flavor, TestDb, pg};
use underpin_tests::workload::Layout;

/// How long anything may take that a busy machine does in seconds.
const LIMIT: Duration = Duration::from_secs(300);

/// A table that points at the one that is changed, so that the swap has a foreign key to carry and the end
/// of the run one to validate.
const PARCELS: &str = "CREATE TABLE parcels (id int PRIMARY KEY, shop smallint NOT NULL, order_id bigint NOT \
     NULL, CONSTRAINT of_order FOREIGN KEY (shop, order_id) REFERENCES orders (shop, id) ON UPDATE CASCADE ON \
     DELETE CASCADE); CREATE INDEX ON parcels (shop, order_id); \
     INSERT INTO parcels SELECT row_number() OVER (), shop, id FROM orders WHERE id % 9 = 0";

/// Loads the tables and lets the writers go, `rate_per_s` transactions a second.
async fn open_shop(url: &str, layout: Layout, rate_per_s: u32) -> Writers {
    mirrored::load(url, layout).await.unwrap();
    pg::connect(url).await.unwrap().batch_execute(PARCELS).await.unwrap();
    let settings = Settings {
        url: url.to_owned(),
        layout,
        rate_per_s: Some(rate_per_s),
        seed: 11,
        truncate_one_in: None,
    };
    Writers::start(&settings).await.unwrap()
}

/// Starts `underpin run URL CHANGE` as a copy, without replicas, and with `more` options.
fn start(url: &str, change: &str, more: &[&str]) -> Runner {
    let mut words = vec!["run", url, change, "--strategy", "shadow", "--replica", "none", "--yes"];
    words.extend(more);
    Runner::start(&words).unwrap()
}

/// Waits for its end, which must be a good one.
fn succeed(runner: Runner) -> Called {
    let called = runner.wait(LIMIT).unwrap();
    assert!(called.code() == 0, "{}\n{}", called.complaint(), story(&called.events));
    called
}

/// Waits until the trap has sprung; fails where the program ends before.
fn spring(trap: &Trap, runner: &mut Runner) {
    let until = Instant::now() + LIMIT;
    while trap.sprung() == 0 {
        let ended = runner.has_ended().unwrap();
        assert!(!ended && Instant::now() < until, "no statement came: {}", runner.story());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// How many events have this name.
fn count(called: &Called, name: &str) -> usize {
    called.events.iter().filter(|event| event["event"] == name).count()
}

/// The rows of a query as text, cells joined by a slash.
async fn rows(url: &str, query: &str) -> Vec<String> {
    let client = pg::connect(url).await.unwrap();
    let rows = pg::text_rows(&client, query).await.unwrap();
    rows.into_iter()
        .map(|row| row.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>().join("/"))
        .collect()
}

/// Fails where the tables differ from what the writers were promised, or anything of ours is left.
async fn all_is_well(url: &str, context: &str) {
    let found = mirrored::compare_tables(url).await.unwrap();
    assert!(found.none() && found.rows_read > 0, "{context}: {found}");
    let tables = "SELECT relnamespace::regnamespace || '.' || relname FROM pg_class WHERE relkind = 'r' AND \
                  (relnamespace = 'public'::regnamespace OR relnamespace::regnamespace::text ~ \
                  '^underpin_') ORDER BY 1";
    let tables = rows(url, tables).await;
    let ours = ["public.orders", "public.orders_mirror", "public.parcels"];
    assert_eq!(tables, ours, "{context}: tables");
    let schemas = "SELECT nspname FROM pg_namespace WHERE nspname ~ '^underpin_'";
    assert_eq!(rows(url, schemas).await, Vec::<String>::new(), "{context}: schemas");
    let triggers = "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal";
    assert_eq!(rows(url, triggers).await, Vec::<String>::new(), "{context}: triggers");
    let open = "SELECT run_id FROM underpin.runs WHERE state = 'open'";
    assert_eq!(rows(url, open).await, Vec::<String>::new(), "{context}: open runs");
    let key =
        "SELECT convalidated, confrelid::regclass FROM pg_constraint WHERE conname = 'of_order'";
    assert_eq!(rows(url, key).await, ["t/orders"], "{context}: the foreign key");
    let strays = "SELECT count(*) FROM parcels p LEFT JOIN orders o ON (o.shop, o.id) = (p.shop, p.order_id) \
                  WHERE o.id IS NULL";
    assert_eq!(rows(url, strays).await, ["0"], "{context}: rows that point at nothing");
}

/// The longest that a transaction of the application took.
fn longest(outcome: &Outcome) -> Duration {
    let took = outcome.samples.iter().map(|sample| sample.ended.saturating_sub(sample.started));
    took.max().unwrap_or_default()
}

/// Runs `test` in a database of its own, where the server can be had.
fn on_distro(test: impl AsyncFn(TestDb)) {
    let Some(db) = TestDb::new(Flavor::PostgresDistro) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(test(db));
}
