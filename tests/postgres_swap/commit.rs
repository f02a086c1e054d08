//! The end of the swap: its outcome where the answer to COMMIT is lost, and a drain that takes too long.

use std::time::Duration;

use underpin_core::machine::SwapState;
use underpin_dialect::SwapOutcome;
use underpin_tests::proxy::{Deed, Proxy};
use underpin_tests::servers::Flavor;

use crate::postgres_runs::{Application, named, spring, start, succeed};
use crate::postgres_steps::{apply_all, make_table, on_each, rows, run};
use crate::{BUDGET_MS, Ready, swapped};

const CHANGE: &str = "ALTER TABLE t ADD n int NOT NULL DEFAULT 7";

const COLUMNS: &str =
    "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'n'";

/// A connection that is cut at COMMIT: the outcome is not known, and looking at the server tells it.
#[test]
fn the_outcome_of_a_commit_without_an_answer_is_found_out() {
    for (deed, expected, columns) in [
        (Deed::CutBefore, SwapState::NotSwapped, "0"),
        (Deed::CutAfter, SwapState::Swapped, "1"),
        (Deed::VanishAfter, SwapState::Swapped, "1"),
    ] {
        on_each(&[Flavor::PostgresDistro], async |db| {
            make_table(&db, 100).await;
            let ready = Ready::make(&db, CHANGE).await;
            run(&db.client().await.unwrap(), &["UPDATE t SET v = 'pending' WHERE id = 1"]).await;
            let proxy = Proxy::start(&db.endpoints().primary).unwrap();
            let trap = proxy.trap_after(&["underpin_proof"], &["^COMMIT"], deed);
            let outcome = ready.begin_swap(&db, &proxy).await.await.unwrap();
            assert_eq!(trap.sprung(), 1);
            let error = outcome.unwrap_err();
            assert!(error.is_ambiguous(), "{deed:?}: {error}");
            assert_eq!(ready.observed().await, expected, "{deed:?}");
            assert_eq!(rows(&db, COLUMNS).await, [columns], "{deed:?}");
            if expected == SwapState::NotSwapped {
                assert_eq!(swapped(&ready.swap().await), 1);
            }
            ready.finish().await;
            assert_eq!(rows(&db, "SELECT v, n FROM t WHERE id = 1").await, ["pending/7"]);
        });
    }
}

/// The same for a whole run: it is told right, and nothing is done twice.
#[test]
fn a_run_whose_last_answer_is_lost_tells_what_happened() {
    for (deed, swaps_told, attempts) in [(Deed::CutBefore, 1, 2), (Deed::CutAfter, 0, 1)] {
        on_each(&[Flavor::PostgresDistro], async |db| {
            make_table(&db, 1000).await;
            let proxy = Proxy::start(&db.endpoints().primary).unwrap();
            let trap = proxy.trap_after(&["underpin_proof"], &["^COMMIT"], deed);
            let mut runner = start(&proxy.url(db.name()), CHANGE, &[]);
            spring(&trap, &mut runner);
            let called = succeed(runner);
            assert_eq!(named(&called, "swap").len(), swaps_told, "{deed:?}");
            assert_eq!(named(&called, "reconnecting").len(), 1, "{deed:?}");
            let done = called.event("done").unwrap();
            eprintln!("{deed:?}: {done}");
            assert_eq!(done["swap_attempts"], attempts, "{done}");
            assert_eq!(done["swap_stall_ms"].is_null(), swaps_told == 0, "{done}");
            assert_eq!(rows(&db, "SELECT count(*), sum(n) FROM t").await, ["1000/7000"]);
        });
    }
}

/// A statement of the exchange takes too long, here for somebody's event trigger: everybody is let through.
#[test]
fn an_exchange_that_takes_too_long_lets_everybody_through() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        make_table(&db, 100).await;
        let ready = Ready::make(&db, CHANGE).await;
        let app = db.client().await.unwrap();
        let slow = "CREATE FUNCTION slow() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM \
                    pg_sleep(30); END $$; CREATE EVENT TRIGGER slow ON ddl_command_end WHEN TAG IN ('ALTER \
                    TABLE') EXECUTE FUNCTION slow()";
        run(&app, &[slow]).await;
        let begun = std::time::Instant::now();
        let outcome = ready.swap().await.unwrap();
        assert!(matches!(outcome, SwapOutcome::DrainTooSlow { .. }), "{outcome:?}");
        assert!(
            begun.elapsed() < Duration::from_millis(BUDGET_MS + 12_000),
            "the budget is no bound"
        );
        assert_eq!(ready.observed().await, SwapState::NotSwapped);
        run(&app, &["DROP EVENT TRIGGER slow", "UPDATE t SET v = 'meanwhile' WHERE id = 1"]).await;
        swapped(&ready.swap().await);
        assert_eq!(rows(&db, "SELECT v, n FROM t WHERE id = 1").await, ["meanwhile/7"]);
    });
}

/// The rule: the last drain has a bound; past it everybody is let through, and nothing has happened.
#[test]
fn a_drain_that_would_take_too_long_lets_everybody_through() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        make_table(&db, 12_000).await;
        let mut ready = Ready::make(&db, CHANGE).await;
        let app = db.client().await.unwrap();
        let application =
            Application::start(&db.url(), &["UPDATE t SET v = 'traffic' WHERE id = 17"]).await;
        run(&app, &["UPDATE t SET v = 'pending'"]).await;
        let outcome = ready.swap().await.unwrap();
        assert!(matches!(outcome, SwapOutcome::DrainTooSlow { .. }), "{outcome:?}");
        assert_eq!(ready.observed().await, SwapState::NotSwapped);
        apply_all(&mut ready.worker).await;
        tokio::time::sleep(Duration::from_millis(BUDGET_MS / 2)).await;
        swapped(&ready.swap().await);
        application.stop().await;
        let content = "SELECT v, count(*), sum(n) FROM t GROUP BY v ORDER BY v";
        assert_eq!(rows(&db, content).await, ["pending/11999/83993", "traffic/1/7"]);
    });
}
