//! The connection is cut at single statements: before the server has heard it, after it has carried it
//! out, and so that the server does not learn that its client is gone.

use std::time::{Duration, Instant};

use underpin_tests::busy;
use underpin_tests::proxy::{Deed, Proxy, Trap};
use underpin_tests::servers::TestDb;
use underpin_tests::workload::Layout;

use crate::{all_is_well, count, longest, on_distro, open_shop, rows, spring, start, succeed};

const LAYOUT: Layout = Layout { rows: 5000, writers: 3 };

/// Runs among which the gaps are dealt out: each loss in a row, without anything done between them, is
/// answered by a longer rest.
const RUNS: usize = 3;

/// A gap of the protocol: words of the statement, and of the one before it on its connection.
type Gap = (&'static [&'static str], &'static [&'static str]);

/// Statements at which a run is cut.
const GAPS: [Gap; 32] = [
    // recording the run, and taking it over
    (&[], &["CREATE SCHEMA IF NOT EXISTS"]),
    (&[], &["INSERT INTO", ".fences"]),
    (&[], &["SET epoch = epoch + 1"]),
    // shadow, log, triggers
    (&[], &["CREATE SCHEMA", "AUTHORIZATION", "_old"]),
    (&[], &["CREATE TABLE", "underpin_steps", "COMMIT"]),
    (&[], &["IN SHARE UPDATE EXCLUSIVE MODE"]),
    (&[], &["ENABLE ALWAYS TRIGGER"]),
    (&["SET identity ="], &["COMMIT"]),
    // a checkpoint
    (&[], &["SET checkpoint =", "COMMIT"]),
    // chunks
    (&[], &["blocks IS NULL"]),
    (&[], &["OVERRIDING SYSTEM VALUE", ".ctid >="]),
    (&[], &["INSERT INTO", ".marks"]),
    (&["INSERT INTO", ".marks"], &["COMMIT"]),
    // settling
    (&[], &["NOT EXISTS", "SET applied ="]),
    (&["NOT EXISTS", "SET applied ="], &["COMMIT"]),
    (&[], &["DELETE FROM", "USING", "underpin_todo"]),
    (&["DELETE FROM", "USING", "underpin_todo"], &["COMMIT"]),
    // indexes: on the control's own connection and beside it
    (&[], &["maintenance_work_mem", "orders_pkey"]),
    (&["pg_postmaster_start_time"], &["^BEGIN; SELECT epoch"]),
    (&[], &["maintenance_work_mem", "orders_code_key"]),
    (&[], &["SET done = true", "COMMIT"]),
    (&[], &["VACUUM (ANALYZE)"]),
    // the log
    (&[], &["^DELETE FROM", "ctid = ANY"]),
    (&[], &["^UPDATE", "SET applied ="]),
    (&["^SET CONSTRAINTS ALL IMMEDIATE"], &["COMMIT"]),
    // verification
    (&[], &["AS bound"]),
    (&[], &["^WITH underpin_d", "underpin_n.ctid IS NULL OR NOT"]),
    (&["^WITH underpin_d", "AS underpin_n WHERE"], &["COMMIT"]),
    // the swap
    (&[], &["IN ACCESS EXCLUSIVE MODE"]),
    (&[], &["^SET LOCAL statement_timeout", "SET SCHEMA"]),
    (&[], &["underpin_proof"]),
    // what is left
    (&[], &["SET state = 'done'"]),
];

/// The swap's end, after which the outcome is not known.
const SWAP: Gap = (&["underpin_proof"], &["COMMIT"]);

/// Set when the swap's outcome was lost: preparing, too, drops what an earlier try has left.
const LATE: [Gap; 3] = [
    (&[], &["VALIDATE CONSTRAINT"]),
    (&[], &["; DROP TABLE ", "_old", "DROP SCHEMA"]),
    (&[], &["; DROP TABLE ", "underpin_log"]),
];

fn set(proxy: &Proxy, gaps: &[Gap], deed: Deed) -> Vec<(String, Trap)> {
    let set = |(before, words): &Gap| {
        (format!("{before:?} {words:?}"), proxy.trap_after(before, words, deed))
    };
    gaps.iter().map(set).collect()
}

/// A run that is cut at all of `gaps`. Returns how often it began anew.
async fn cut_at(db: &TestDb, deed: Deed, gaps: &[Gap], change: &str) -> usize {
    let proxy = Proxy::start(&db.endpoints().primary).unwrap();
    let mut traps = set(&proxy, gaps, deed);
    traps.extend(set(&proxy, &[SWAP], deed));
    let mut runner =
        start(&proxy.url(db.name()), change, &["--workers", "2", "--chunk-time", "100ms"]);
    let called = tokio::task::block_in_place(|| {
        spring(&traps.last().unwrap().1, &mut runner);
        traps.extend(set(&proxy, &LATE, deed));
        succeed(runner)
    });
    for (words, trap) in &traps {
        assert_eq!(trap.sprung(), 1, "{deed:?}: {words}");
    }
    count(&called, "reconnecting")
}

async fn cut_everywhere(db: &TestDb, deed: Deed) {
    let begun = Instant::now();
    let writers = open_shop(&db.url(), LAYOUT, 90).await;
    let mut anew = 0;
    for run in 0..RUNS {
        let gaps: Vec<Gap> = GAPS.iter().skip(run).step_by(RUNS).copied().collect();
        let change = format!(
            "ALTER TABLE orders ADD made_{run} timestamptz NOT NULL DEFAULT clock_timestamp()"
        );
        anew += cut_at(db, deed, &gaps, &change).await;
        let made = format!(
            "SELECT count(*) FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attname = \
             'made_{run}'"
        );
        assert_eq!(rows(&db.url(), &made).await, ["1"], "{deed:?}: {change}");
    }
    let outcome = writers.stop().await.unwrap();
    assert_eq!(outcome.errors.total(), 0, "{deed:?}: {}", outcome.errors);
    all_is_well(&db.url(), &format!("{deed:?}")).await;
    eprintln!(
        "{deed:?}: cut at {} statements and {} times at each end, {anew} new beginnings; {} transactions, \
         the longest took {:.0?}",
        GAPS.len(),
        RUNS,
        outcome.samples.len(),
        longest(&outcome)
    );
    let allowed = busy::allows(begun, Duration::from_millis(2500));
    assert!(longest(&outcome) < allowed, "{deed:?}: {:?}", longest(&outcome));
}

#[test]
fn cut_before_the_server_hears_it_nothing_is_lost() {
    on_distro(async |db| cut_everywhere(&db, Deed::CutBefore).await);
}

#[test]
fn cut_after_the_server_has_done_it_nothing_is_lost_or_done_twice() {
    on_distro(async |db| cut_everywhere(&db, Deed::CutAfter).await);
}

#[test]
fn cut_so_that_the_server_does_not_notice_nobody_is_held_up() {
    on_distro(async |db| cut_everywhere(&db, Deed::VanishAfter).await);
}
