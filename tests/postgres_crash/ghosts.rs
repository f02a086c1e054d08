//! Runners that are gone and have something in flight all the same, or come back when another has taken
//! their place.

use std::time::{Duration, Instant};

use underpin_tests::busy;
use underpin_tests::proxy::{Deed, Proxy};
use underpin_tests::runner::Runner;
use underpin_tests::servers::pg;
use underpin_tests::workload::Layout;

use crate::{LIMIT, all_is_well, longest, on_distro, open_shop, rows, spring, start, succeed};

const LAYOUT: Layout = Layout { rows: 5000, writers: 2 };

/// How long a runner is watched that must not go on.
const WATCHED: Duration = Duration::from_millis(1500);

/// The server's patience with a silent swap, and what a busy machine adds.
const STALL_MAX: Duration = Duration::from_millis(3000 + 2000);

/// The first thing that a worker asks when it has connected.
const SHAPE: &str = "^SELECT pg_catalog.pg_get_userbyid(c.relowner) FROM pg_catalog.pg_class";

/// What a killed runner has on its way: words of the statement, and of the one before it.
const IN_FLIGHT: [(&[&str], &[&str]); 8] = [
    // control and its lock are gone, the worker is not
    (&[], &["OVERRIDING SYSTEM VALUE", ".ctid >="]),
    (&["INSERT INTO", ".marks"], &["COMMIT"]),
    (&["DELETE FROM", "USING", "underpin_todo"], &["COMMIT"]),
    // a build beside the control's own
    (&[], &["maintenance_work_mem", "orders_code_key"]),
    (&[], &["^UPDATE", "SET applied ="]),
    (&["^SET CONSTRAINTS ALL IMMEDIATE"], &["COMMIT"]),
    (&["underpin_proof"], &["COMMIT"]),
    // the control's own, with its lock
    (&[], &["SET checkpoint =", "COMMIT"]),
];

/// Something of a killed runner is on its way and arrives late. Whoever goes on waits for it: else it
/// would write behind the other's back.
#[test]
fn what_a_dead_runner_has_in_flight_is_awaited() {
    on_distro(async |db| {
        let begun = Instant::now();
        let writers = open_shop(&db.url(), LAYOUT, 60).await;
        for (number, (before, words)) in IN_FLIGHT.into_iter().enumerate() {
            let change = format!(
                "ALTER TABLE orders ADD made_{number} timestamptz NOT NULL DEFAULT clock_timestamp()"
            );
            let proxy = Proxy::start(&db.endpoints().primary).unwrap();
            let held = proxy.trap_after(before, words, Deed::Hold);
            let mut first = start(&proxy.url(db.name()), &change, &["--workers", "1"]);
            tokio::task::block_in_place(|| spring(&held, &mut first));
            first.kill9().unwrap();
            let mut second = start(&db.url(), &change, &["--workers", "1"]);
            tokio::time::sleep(WATCHED).await;
            let resumed = |event: &serde_json::Value| event["event"] == "run_resumed";
            assert!(!second.has_ended().unwrap(), "{words:?}: {}", second.story());
            assert!(
                second.find(resumed).is_none(),
                "{words:?}: it went on beside what is in flight"
            );
            held.release();
            let called = tokio::task::block_in_place(|| succeed(second));
            assert!(called.event("run_resumed").is_some(), "{words:?}: it began anew");
        }
        let outcome = writers.stop().await.unwrap();
        assert_eq!(outcome.errors.total(), 0, "{}", outcome.errors);
        all_is_well(&db.url(), "ghosts").await;
        assert!(longest(&outcome) < busy::allows(begun, STALL_MAX), "{:?}", longest(&outcome));
    });
}

/// The server does not learn that a connection was lost while another worker was still connecting. What
/// that one began all the same is ended too: nobody else would for minutes.
#[test]
fn a_worker_that_was_still_connecting_is_ended_with_the_others() {
    on_distro(async |db| {
        let writers = open_shop(&db.url(), LAYOUT, 60).await;
        let change = "ALTER TABLE orders ADD made timestamptz NOT NULL DEFAULT clock_timestamp()";
        let proxy = Proxy::start(&db.endpoints().primary).unwrap();
        // The control reads it when it prepares, the first worker when it plans the round.
        let connecting = proxy.trap_nth(&[SHAPE], 2, Deed::Hold);
        let lost = proxy.trap(&["OVERRIDING SYSTEM VALUE", ".ctid >="], Deed::VanishAfter);
        let mut runner = start(&proxy.url(db.name()), change, &["--workers", "2"]);
        tokio::task::block_in_place(|| {
            spring(&connecting, &mut runner);
            spring(&lost, &mut runner);
            let reconnecting = |event: &serde_json::Value| event["event"] == "reconnecting";
            assert!(runner.wait_for(LIMIT, reconnecting).unwrap().is_some(), "{}", runner.story());
            let begun = proxy.trap(&["BEGIN ISOLATION LEVEL READ COMMITTED"], Deed::VanishAfter);
            connecting.release();
            spring(&begun, &mut runner);
            succeed(runner)
        });
        let outcome = writers.stop().await.unwrap();
        assert_eq!(outcome.errors.total(), 0, "{}", outcome.errors);
        all_is_well(&db.url(), "after a late worker").await;
    });
}

/// The swap's commit never comes and nobody says so: the server ends that session by itself, so that the
/// application does not wait for a dead runner for ever. What comes after that does nothing.
#[test]
fn a_swap_that_falls_silent_is_ended_by_the_server() {
    on_distro(async |db| {
        let begun = Instant::now();
        let writers = open_shop(&db.url(), LAYOUT, 60).await;
        let change = "ALTER TABLE orders ADD made timestamptz NOT NULL DEFAULT clock_timestamp()";
        let proxy = Proxy::start(&db.endpoints().primary).unwrap();
        let held = proxy.trap_after(&["underpin_proof"], &["COMMIT"], Deed::Hold);
        let mut first = start(&proxy.url(db.name()), change, &[]);
        tokio::task::block_in_place(|| spring(&held, &mut first));
        first.kill9().unwrap();
        let called = tokio::task::block_in_place(|| succeed(start(&db.url(), change, &[])));
        assert_eq!(called.event("run_resumed").unwrap()["phase"], "swap");
        assert_eq!(called.ended.number("swap_attempts"), Some(2), "the first was undone");
        held.release();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let outcome = writers.stop().await.unwrap();
        assert_eq!(outcome.errors.total(), 0, "{}", outcome.errors);
        all_is_well(&db.url(), "after a silent swap").await;
        let stall = longest(&outcome);
        eprintln!("a swap that fell silent held the application up for {stall:.0?}");
        assert!(stall < busy::allows(begun, STALL_MAX), "{stall:?}");
    });
}

/// A runner sleeps, the server drops its sessions, another one takes the run over and ends it. Then the
/// first wakes up.
#[test]
fn a_runner_that_wakes_up_behind_another_does_nothing() {
    on_distro(async |db| {
        let writers = open_shop(&db.url(), LAYOUT, 60).await;
        let change = "ALTER TABLE orders ADD made timestamptz NOT NULL DEFAULT clock_timestamp()";
        // A replica that cannot be read: it waits before its first chunk.
        let nobody = "postgres://postgres@127.0.0.1:1/";
        let words =
            ["run", &db.url(), change, "--strategy", "shadow", "--replica", nobody, "--yes"];
        let mut sleeper = Runner::start(&words).unwrap();
        let paused = tokio::task::block_in_place(|| {
            sleeper.wait_for(LIMIT, |event| event["event"] == "paused").unwrap()
        });
        assert!(paused.is_some(), "{}", sleeper.story());
        sleeper.signal("STOP").unwrap();
        let dropped = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = \
                       current_database() AND application_name LIKE 'underpin%'";
        assert_ne!(rows(&db.url(), dropped).await, ["0"]);
        tokio::task::block_in_place(|| succeed(start(&db.url(), change, &[])));
        let client = pg::connect(&db.url()).await.unwrap();
        let tables = "SELECT 'orders'::regclass::oid, 'orders'::regclass::oid::regclass";
        let before = pg::text_rows(&client, tables).await.unwrap();
        sleeper.signal("CONT").unwrap();
        let woken = tokio::task::block_in_place(|| sleeper.wait(LIMIT).unwrap());
        assert!([1, 3].contains(&woken.code()), "{}: {}", woken.code(), woken.complaint());
        assert_eq!(pg::text_rows(&client, tables).await.unwrap(), before, "another table");
        let outcome = writers.stop().await.unwrap();
        assert_eq!(outcome.errors.total(), 0, "{}", outcome.errors);
        all_is_well(&db.url(), "after the sleeper woke up").await;
    });
}
