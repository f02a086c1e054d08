//! Strangers at the tables of a run on PostgreSQL: who changes the shadow, exchanges the tables by hand, or
//! hangs something on the source, stops the run by name before the swap, or is carried. Nothing is lost.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

mod postgres_steps;

use underpin_core::checkpoint::{Checkpoint, Phase};
use underpin_core::machine::SwapState;
use underpin_dialect::{ErrorKind, Shadow, Store, Swap, SwapOutcome};
use underpin_tests::cli;
use underpin_tests::runner::Runner;
use underpin_tests::servers::Flavor;

use postgres_steps::{LIMIT, Steps, make_table, on_each, rows, run};

const CHANGE: &str = "ALTER TABLE t ADD n int NOT NULL DEFAULT 7";

const SERVERS: [Flavor; 1] = [Flavor::PostgresDistro];

/// What is done to the shadow, and by which words the run stops.
const DEEDS: [(&str, &str); 9] = [
    ("ALTER TABLE SHADOW DROP CONSTRAINT uk", "no longer has: uk UNIQUE"),
    ("DROP INDEX underpin_r1.by_v", "no longer has: by_v"),
    ("ALTER TABLE SHADOW ADD x int", "not made with: x integer"),
    ("ALTER TABLE SHADOW ALTER v TYPE varchar(10)", "no longer has: v text"),
    ("ALTER TABLE SHADOW ALTER v DROP NOT NULL", "no longer has: v NOT NULL"),
    (
        "CREATE TRIGGER strange BEFORE INSERT ON SHADOW FOR EACH ROW EXECUTE FUNCTION nothing()",
        "strange",
    ),
    (
        "CREATE TRIGGER strange BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION nothing()",
        "altered",
    ),
    ("ALTER TABLE t DISABLE TRIGGER underpin_r1_capture", "disabled"),
    ("GRANT SELECT ON t TO PUBLIC", "altered"),
];

const FUNCTION: &str =
    "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'";

async fn ready(steps: &Steps) {
    let mut worker = steps.worker().await;
    steps.copied(&mut worker).await;
}

#[test]
fn what_somebody_does_to_the_tables_stops_the_run_by_name() {
    on_each(&SERVERS, async |db| {
        make_table(&db, 20).await;
        let client = db.client().await.unwrap();
        run(&client, &["CREATE INDEX by_v ON t (v)", FUNCTION]).await;
        for (deed, words) in DEEDS {
            let steps = Steps::begin(&db, CHANGE).await;
            let mut control = steps.control().await;
            ready(&steps).await;
            control.check_source(&steps.spec).await.unwrap();
            // No change: another OID and file, the same definition.
            run(&client, &["REINDEX TABLE CONCURRENTLY underpin_r1.t"]).await;
            control.check_source(&steps.spec).await.unwrap();
            let deed = deed.replace("SHADOW", &steps.shadow());
            run(&client, &[&deed]).await;
            for error in [
                control.check_source(&steps.spec).await.unwrap_err(),
                control.try_swap(&steps.spec, &steps.grip, 2000).await.unwrap_err(),
            ] {
                assert_eq!(error.kind, ErrorKind::SourceChanged, "{deed}: {error}");
                assert!(error.to_string().contains(words), "{deed}: {error}");
            }
            run(
                &client,
                &["DROP TRIGGER IF EXISTS strange ON t", "REVOKE SELECT ON t FROM PUBLIC"],
            )
            .await;
            control.abort(&steps.spec).await.unwrap();
            run(&client, &["DROP SCHEMA underpin CASCADE"]).await;
            assert_eq!(rows(&db, "SELECT count(*)::text FROM t").await, ["20"]);
        }
    });
}

/// What points at the table from elsewhere is read at the swap, so it is carried however late it came.
#[test]
fn a_foreign_key_and_a_publication_from_after_the_plan_are_carried() {
    on_each(&SERVERS, async |db| {
        make_table(&db, 20).await;
        let client = db.client().await.unwrap();
        let steps = Steps::begin(&db, CHANGE).await;
        let mut control = steps.control().await;
        ready(&steps).await;
        run(
            &client,
            &[
                "CREATE TABLE child (t int REFERENCES t (id) ON DELETE CASCADE)",
                "INSERT INTO child VALUES (3)",
                "CREATE PUBLICATION late FOR TABLE t",
                "CREATE VIEW seen AS SELECT id, v FROM t",
            ],
        )
        .await;
        let outcome = control.try_swap(&steps.spec, &steps.grip, 5000).await.unwrap();
        assert!(matches!(outcome, SwapOutcome::Swapped { .. }), "{outcome:?}");
        control.finish(&steps.spec, false).await.unwrap();
        let n = "SELECT count(*)::text FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'n'";
        assert_eq!(rows(&db, n).await, ["1"]);
        let published = "SELECT tablename::text FROM pg_publication_tables WHERE pubname = 'late'";
        assert_eq!(rows(&db, published).await, ["t"]);
        run(&client, &["DELETE FROM t WHERE id = 3"]).await;
        assert_eq!(rows(&db, "SELECT count(*)::text FROM child").await, ["0"]);
        assert_eq!(rows(&db, "SELECT count(*)::text FROM seen").await, ["19"]);
    });
}

/// While the run waits for its swap: the last look is under the lock.
#[test]
fn a_run_that_waits_for_its_swap_does_not_swap_what_was_changed() {
    on_each(&SERVERS, async |db| {
        make_table(&db, 200).await;
        let client = db.client().await.unwrap();
        let words = [
            "run",
            &db.url(),
            CHANGE,
            "--strategy",
            "shadow",
            "--replica",
            "none",
            "--yes",
            "--swap",
            "wait",
        ];
        let mut waiting = Runner::start(&words).unwrap();
        assert!(waiting.wait_phase("swap", LIMIT).unwrap(), "{}", waiting.story());
        let id = rows(&db, "SELECT run_id FROM underpin.runs").await.remove(0);
        run(&client, &[&format!("ALTER TABLE underpin_{id}.t DROP CONSTRAINT uk")]).await;
        assert_eq!(cli::call(&["swap", &db.url(), "t"]).unwrap().code(), 0);
        let called = waiting.wait(LIMIT).unwrap();
        assert_eq!(called.code(), 1, "{}", called.complaint());
        assert!(called.complaint().contains("uk UNIQUE"), "{}", called.complaint());
        assert_eq!(cli::call(&["abort", &db.url(), "t"]).unwrap().code(), 0);
        assert_eq!(rows(&db, "SELECT count(*)::text FROM t").await, ["200"]);
    });
}

/// Whoever exchanges the tables by hand does not pass for the swap, and the rows are not dropped in the
/// shadow's place.
#[test]
fn tables_exchanged_by_hand_are_unclear() {
    on_each(&SERVERS, async |db| {
        make_table(&db, 20).await;
        let client = db.client().await.unwrap();
        let mut steps = Steps::begin(&db, CHANGE).await;
        let mut control = steps.control().await;
        let at = |phase| Checkpoint { phase, ..Checkpoint::begin() };
        let as_swap =
            "ALTER TABLE t SET SCHEMA underpin_r1_old; ALTER TABLE underpin_r1.t SET SCHEMA public";
        let as_it_was =
            "ALTER TABLE t SET SCHEMA underpin_r1; ALTER TABLE underpin_r1_old.t SET SCHEMA public";
        let both = "ALTER TABLE t SET SCHEMA underpin_r1_old; ALTER TABLE underpin_r1.t SET SCHEMA \
                    public; ALTER TABLE underpin_r1_old.t SET SCHEMA underpin_r1";
        for (deed, undo) in [(as_swap, as_it_was), (both, both)] {
            run(&client, &[deed]).await;
            for phase in [Phase::Copy, Phase::Swap] {
                let seen = control.observe(&steps.spec, &at(phase)).await.unwrap();
                assert!(matches!(seen.swap, SwapState::Unclear(_)), "{deed}: {:?}", seen.swap);
            }
            let called = cli::call(&["abort", &db.url(), "t"]).unwrap();
            assert_eq!(called.code(), 4, "{deed}: {}", called.complaint());
            let orders = control.orders(&steps.spec.run_id).await.unwrap();
            assert!(
                orders.iter().all(|order| order.taken_at.is_some()),
                "{deed}: an order is left"
            );
            assert!(control.abort(&steps.spec).await.is_err(), "{deed}");
            run(&client, &[undo]).await;
            assert_eq!(rows(&db, "SELECT count(*)::text FROM t").await, ["20"], "{deed}");
            let seen = control.observe(&steps.spec, &at(Phase::Copy)).await.unwrap();
            assert_eq!(seen.swap, SwapState::NotSwapped, "{deed}");
        }
        // Our own swap is told by its mark.
        // Each abort has taken the run over.
        steps.grip = control.take_over("r1").await.unwrap();
        ready(&steps).await;
        control.try_swap(&steps.spec, &steps.grip, 5000).await.unwrap();
        let seen = control.observe(&steps.spec, &at(Phase::Swap)).await.unwrap();
        assert_eq!(seen.swap, SwapState::Swapped);
    });
}
