//! The server is killed while a run is at a chosen statement, and started again; at some of them the
//! program is killed with it.

use underpin_tests::proxy::{Deed, Proxy};
use underpin_tests::servers::{Flavor, Server, ServerSpec, sql, wanted};
use underpin_tests::workload::Layout;

use crate::{all_is_well, count, open_shop, spring, start, succeed};

const LAYOUT: Layout = Layout { rows: 8000, writers: 3 };

const CHANGE: &str = "ALTER TABLE orders ALTER customer TYPE bigint";

/// Whether the program dies with its server.
type Dies = bool;

/// Statements at which the server is killed, in the order in which a run comes by.
const CRASHES: [(&[&str], &[&str], Dies); 7] = [
    (&["SET identity ="], &["COMMIT"], false),
    (&["INSERT INTO", ".marks"], &["COMMIT"], true),
    (&["DELETE FROM", "USING", "underpin_todo"], &["COMMIT"], false),
    (&[], &["maintenance_work_mem", "orders_code_key"], true),
    (&["^SET CONSTRAINTS ALL IMMEDIATE"], &["COMMIT"], false),
    (&["underpin_proof"], &["COMMIT"], true),
    (&[], &["; DROP TABLE ", "_old", "DROP SCHEMA"], false),
];

#[test]
fn killed_with_its_server_in_every_phase_nothing_is_lost() {
    if wanted(Flavor::PostgresDistro) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(crash_a_server(Flavor::PostgresDistro));
    }
}

async fn crash_a_server(flavor: Flavor) {
    let server = Server::start(&ServerSpec::new(flavor), false).unwrap();
    sql::execute(&server.url(), vec!["CREATE DATABASE shop".to_owned()]).unwrap();
    let url = format!("{}shop", server.url());
    let writers = open_shop(&url, LAYOUT, 60).await;
    let proxy = Proxy::start(&server.url()).unwrap();
    let traps = CRASHES.map(|(before, words, dies)| {
        (proxy.trap_after(before, words, Deed::Hold), dies, format!("{before:?} {words:?}"))
    });
    let begin = || start(&proxy.url("shop"), CHANGE, &["--workers", "2", "--chunk-time", "20ms"]);
    let mut runner = begin();
    for (trap, dies, words) in &traps {
        tokio::task::block_in_place(|| {
            spring(trap, &mut runner);
            server.kill9().unwrap();
            trap.release();
            if *dies {
                runner.signal("KILL").unwrap();
            }
            server.restart().unwrap();
            if *dies {
                runner = begin();
                let resumed =
                    runner.wait_for(crate::LIMIT, |event| event["event"] == "run_resumed");
                assert!(resumed.unwrap().is_some(), "{words}: {}", runner.story());
            }
        });
    }
    let called = tokio::task::block_in_place(|| succeed(runner));
    let outcome = writers.stop().await.unwrap();
    assert_eq!(outcome.errors.of("unequal"), 0, "{}", outcome.errors);
    all_is_well(&url, "after the crashes").await;
    eprintln!(
        "{}: the server was killed at {} statements, the last program began {} times anew; {} transactions; \
         writers' errors: {}",
        flavor.name(),
        traps.len(),
        count(&called, "reconnecting"),
        outcome.samples.len(),
        outcome.errors
    );
}
