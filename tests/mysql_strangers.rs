//! Strangers at the tables of a run on MySQL and MariaDB: who changes the shadow, exchanges the tables by
//! hand, or hangs something on the source, stops the run by name before the swap. Nothing is lost.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

mod mysql_steps;

use mysql_async::prelude::Queryable;
use underpin_core::checkpoint::{Checkpoint, Phase};
use underpin_core::machine::SwapState;
use underpin_dialect::{ErrorKind, Shadow, Store, Swap};
use underpin_tests::cli;
use underpin_tests::servers::{Flavor, sql};

use mysql_steps::{LIMIT, Steps, make_table, on_each, rows, run, start};

const CHANGE: &str = "ALTER TABLE t ADD n INT NOT NULL DEFAULT 7, ADD KEY later (v)";

const FOUND: &str = "SELECT CONCAT_WS('/', id, u, v) FROM t ORDER BY id";

/// What is done, how it is undone, and by which words the run stops.
const DEEDS: [(&str, &str, &str); 9] = [
    ("ALTER TABLE `t~up_new` DROP KEY uk", "", "no longer has: UNIQUE KEY `uk`"),
    ("ALTER TABLE `t~up_new` ADD x INT", "", "not made with: `x` int"),
    ("ALTER TABLE `t~up_new` MODIFY v VARCHAR(10) NOT NULL", "", "no longer has: `v` varchar(40)"),
    ("TRUNCATE `t~up_new`", "", "truncated, rebuilt or replaced"),
    ("DROP TABLE `t~up_new`", "", "it is gone"),
    (
        "CREATE TRIGGER strange BEFORE INSERT ON t FOR EACH ROW SET NEW.v = NEW.v",
        "DROP TRIGGER strange",
        "trigger strange on t",
    ),
    (
        "CREATE TRIGGER strange BEFORE INSERT ON `t~up_new` FOR EACH ROW SET NEW.v = NEW.v",
        "DROP TRIGGER strange",
        "trigger strange on t~up_new",
    ),
    (
        "CREATE TABLE child (id INT PRIMARY KEY, t INT NOT NULL, CONSTRAINT strange FOREIGN KEY (t) REFERENCES t (id))",
        "DROP TABLE child",
        "strange of",
    ),
    ("DROP TRIGGER `CAPTURE`", "", "capture triggers were dropped"),
];

/// Before the swap, and under its lock although nobody looked before it.
#[test]
fn what_somebody_does_to_the_tables_stops_the_run_by_name() {
    on_each(&Flavor::ALL[..2], async |db| {
        make_table(&db, 20).await;
        let mut conn = db.conn().await.unwrap();
        let steps = Steps::begin(&db, CHANGE).await;
        let mut control = steps.control().await;
        control.build_indexes(&steps.spec).await.unwrap();
        control.check_source(&steps.spec).await.unwrap();
        for (deed, undo, words) in DEEDS {
            let deed = deed.replace("CAPTURE", &steps.spec.names.triggers[1]);
            run(&mut conn, &[&deed]).await;
            let error = control.check_source(&steps.spec).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::SourceChanged, "{deed}: {error}");
            assert!(error.to_string().contains(words), "{deed}: {error}");
            if !deed.starts_with("DROP TABLE") {
                let error = control.try_swap(&steps.spec, &steps.grip, 2000).await.unwrap_err();
                assert_eq!(error.kind, ErrorKind::SourceChanged, "{deed}: {error}");
                assert!(error.to_string().contains(words), "{deed}: {error}");
            }
            let (count, of) = (rows(&db, "SELECT COUNT(*) FROM t").await, deed);
            assert_eq!(count, ["20"], "{of}");
            if undo.is_empty() {
                control.prepare(&steps.spec).await.unwrap();
                control.build_indexes(&steps.spec).await.unwrap();
            } else {
                run(&mut conn, &[undo]).await;
            }
            control.check_source(&steps.spec).await.unwrap();
        }
        // An index that is built later is missed once it stood, not before.
        run(&mut conn, &["ALTER TABLE `t~up_new` DROP KEY later"]).await;
        let error = control.check_source(&steps.spec).await.unwrap_err();
        assert!(error.to_string().contains("no longer has: KEY `later`"), "{error}");
        control.prepare(&steps.spec).await.unwrap();
        control.check_source(&steps.spec).await.unwrap();
        control.abort(&steps.spec).await.unwrap();
        mysql_steps::nothing_left(&db).await;
    });
}

/// While the run waits for its swap: the last look is under the lock.
#[test]
fn a_run_that_waits_for_its_swap_does_not_swap_what_was_changed() {
    on_each(&Flavor::ALL[..2], async |db| {
        make_table(&db, 200).await;
        let mut conn = db.conn().await.unwrap();
        let before = rows(&db, FOUND).await;
        let mut waiting = start(&db.url(), CHANGE, &["--swap", "wait"]);
        assert!(waiting.wait_phase("swap", LIMIT).unwrap(), "{}", waiting.story());
        run(&mut conn, &["ALTER TABLE `t~up_new` DROP KEY uk"]).await;
        assert_eq!(cli::call(&["swap", &db.url(), "t"]).unwrap().code(), 0);
        let called = waiting.wait(LIMIT).unwrap();
        assert_eq!(called.code(), 1, "{}", called.complaint());
        assert!(called.complaint().contains("UNIQUE KEY `uk`"), "{}", called.complaint());
        assert_eq!(rows(&db, FOUND).await, before);
        assert_eq!(cli::call(&["abort", &db.url(), "t"]).unwrap().code(), 0);
        mysql_steps::nothing_left(&db).await;
    });
}

/// Whoever exchanges the tables by hand does not pass for the swap, and the rows are not dropped under the
/// shadow's name.
#[test]
fn tables_exchanged_by_hand_are_unclear() {
    on_each(&Flavor::ALL[..2], async |db| {
        make_table(&db, 20).await;
        let mut conn = db.conn().await.unwrap();
        let steps = Steps::begin(&db, CHANGE).await;
        let mut control = steps.control().await;
        let at = |phase| Checkpoint { phase, ..Checkpoint::begin() };
        let as_swap = "RENAME TABLE t TO `t~up_old`, `t~up_new` TO t";
        let as_it_was = "RENAME TABLE t TO `t~up_new`, `t~up_old` TO t";
        let both = "RENAME TABLE t TO x, `t~up_new` TO t, x TO `t~up_new`";
        let state = format!("{}_state", db.name());
        let abort = || cli::call(&["abort", &db.url(), "t", "--state-schema", &state]).unwrap();
        for (deed, undo) in [(as_swap, as_it_was), (both, both)] {
            run(&mut conn, &[deed]).await;
            let phases: &[Phase] =
                if deed == both { &[Phase::Copy, Phase::Swap] } else { &[Phase::Copy] };
            for phase in phases {
                let seen = control.observe(&steps.spec, &at(*phase)).await.unwrap();
                assert!(matches!(seen.swap, SwapState::Unclear(_)), "{deed}: {:?}", seen.swap);
            }
            let called = abort();
            assert_eq!(called.code(), 4, "{deed}: {}", called.complaint());
            let orders = control.orders(&steps.spec.run_id).await.unwrap();
            assert!(
                orders.iter().all(|order| order.taken_at.is_some()),
                "{deed}: an order is left"
            );
            assert!(control.abort(&steps.spec).await.is_err(), "{deed}");
            run(&mut conn, &[undo]).await;
            assert_eq!(rows(&db, "SELECT COUNT(*) FROM t").await, ["20"], "{deed}");
            let seen = control.observe(&steps.spec, &at(Phase::Copy)).await.unwrap();
            assert_eq!(seen.swap, SwapState::NotSwapped, "{deed}");
        }
        // Another table under the retired name is none of the swap's either.
        run(&mut conn, &["RENAME TABLE `t~up_new` TO y", "CREATE TABLE `t~up_old` (id INT)"]).await;
        let seen = control.observe(&steps.spec, &at(Phase::Swap)).await.unwrap();
        assert!(matches!(seen.swap, SwapState::Unclear(_)), "{:?}", seen.swap);
        run(&mut conn, &["DROP TABLE `t~up_old`", "RENAME TABLE y TO `t~up_new`"]).await;
        let called = abort();
        assert!(called.code() == 0, "{}", called.complaint());
        mysql_steps::nothing_left(&db).await;
    });
}

/// A transaction that was prepared before the triggers stood, and whose session is gone, is waited for:
/// committed behind them nobody would know of it.
#[test]
fn a_prepared_transaction_is_waited_for() {
    on_each(&Flavor::ALL[..2], async |db| {
        make_table(&db, 20).await;
        let id = db.name().to_owned();
        let mut app = db.conn().await.unwrap();
        run(
            &mut app,
            &[
                &format!("XA START '{id}'"),
                "UPDATE t SET v = 'prepared' WHERE id = 3",
                &format!("XA END '{id}'"),
                &format!("XA PREPARE '{id}'"),
            ],
        )
        .await;
        app.disconnect().await.unwrap();
        let more = ["--lock-patience", "3s"];
        let called = start(&db.url(), CHANGE, &more).wait(LIMIT).unwrap();
        let commit = sql::execute(&db.url(), vec![format!("XA COMMIT '{id}'")]);
        assert_eq!(called.code(), 6, "{}", called.complaint());
        assert!(called.complaint().contains("XA COMMIT"), "{}", called.complaint());
        commit.unwrap();
        let called = start(&db.url(), CHANGE, &[]).wait(LIMIT).unwrap();
        assert!(called.code() == 0, "{}", called.complaint());
        let mut conn = db.conn().await.unwrap();
        let kept: Option<String> = conn.query_first("SELECT v FROM t WHERE id = 3").await.unwrap();
        assert_eq!(kept.as_deref(), Some("prepared"));
    });
}
