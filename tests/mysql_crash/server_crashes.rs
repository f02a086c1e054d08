//! The server is killed while a run is at a chosen statement, and started again.

use underpin_tests::proxy::{Deed, Proxy};
use underpin_tests::servers::{Flavor, Server, ServerSpec, sql, wanted};
use underpin_tests::workload::{self, Layout, Settings, Workload};

use crate::mysql_steps::{named, spring, start, succeed};
use crate::only_orders_left;

const LAYOUT: Layout = Layout { rows: 20_000, writers: 4 };

const CHANGE: &str = "ALTER TABLE orders MODIFY customer BIGINT NOT NULL, ADD KEY amount (amount)";

#[test]
fn killed_with_its_server_at_five_statements_nothing_is_lost() {
    for flavor in &Flavor::ALL[..2] {
        if wanted(*flavor) {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(crash_a_server(*flavor));
        }
    }
}

async fn crash_a_server(flavor: Flavor) {
    let server = Server::start(&ServerSpec::new(flavor).durable(), false).unwrap();
    sql::execute(&server.url(), vec!["CREATE DATABASE shop".to_owned()]).unwrap();
    let url = format!("{}shop", server.url());
    workload::load(&url, LAYOUT).await.unwrap();
    let settings = Settings { url: url.clone(), layout: LAYOUT, rate_per_s: Some(60), seed: 5 };
    let writers = Workload::start(&settings).await.unwrap();
    let proxy = Proxy::start(&server.url()).unwrap();
    let let_go = if flavor.is_mariadb() { "~up_old" } else { "RENAME TABLE" };
    let traps = [
        proxy.trap_nth(&["INSERT INTO", "~up_new` ("], 3, Deed::Hold),
        proxy.trap_after(&["DELETE FROM", ".marks"], &["COMMIT"], Deed::Hold),
        proxy.trap(&["BIT_XOR"], Deed::Hold),
        proxy.trap(&["RENAME TABLE"], Deed::Hold),
        proxy.trap_after(&[let_go], &["UNLOCK TABLES"], Deed::Hold),
    ];
    let mut runner = start(&proxy.url("shop"), CHANGE, &["--workers", "2", "--chunk-time", "20ms"]);
    // A save comes before the first chunks.
    for trap in [&traps[1], &traps[0], &traps[2], &traps[3], &traps[4]] {
        spring(trap, &mut runner);
        server.kill9().unwrap();
        trap.release();
        server.restart().unwrap();
    }
    let called = succeed(runner);
    let outcome = writers.stop().await.unwrap();
    let found = workload::compare_table(&url, LAYOUT, &outcome.models).await.unwrap();
    assert!(found.none(), "{found}");
    only_orders_left(&url).await;
    eprintln!(
        "{}: the server was killed at {} statements, {} new beginnings; {found}; writers' errors: {}",
        flavor.name(),
        traps.len(),
        named(&called, "reconnecting").len(),
        outcome.errors
    );
}
