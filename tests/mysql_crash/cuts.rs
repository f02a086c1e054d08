//! The connection is cut at single statements: before the server has heard it, after it has carried it
//! out, and so that the server does not learn that its client is gone.

use std::time::{Duration, Instant};

use underpin_tests::busy;
use underpin_tests::prober::Prober;
use underpin_tests::proxy::{Deed, Proxy, Trap};
use underpin_tests::servers::{Flavor, TestDb};
use underpin_tests::workload::{self, Layout, Settings, Workload};

use crate::mysql_steps::{named, on_each, start, succeed};
use crate::{only_fence_errors, only_orders_left};

const LAYOUT: Layout = Layout { rows: 5000, writers: 4 };

const CHANGE: &str = "ALTER TABLE orders MODIFY customer BIGINT NOT NULL, ADD KEY amount (amount)";

/// A gap of the protocol: words of the statement, and of the one before it on its connection.
type Gap = (&'static [&'static str], &'static [&'static str]);

/// Statements at which every run is cut once.
const GAPS: [Gap; 22] = [
    // recording the run, and taking it over
    (&["INSERT INTO", ".history"], &["COMMIT"]),
    (&[], &["fences SET epoch = epoch + 1"]),
    // shadow, log, triggers
    (&[], &["CREATE TABLE", "~up_new` LIKE"]),
    (&[], &["CREATE TABLE", "~up_log` ("]),
    (&[], &["LOCK TABLES", "~up_log` WRITE"]),
    (&["AFTER UPDATE"], &["CREATE TRIGGER"]),
    (&["information_schema.TRIGGERS"], &["UNLOCK TABLES"]),
    // a checkpoint
    (&["DELETE FROM", ".marks"], &["COMMIT"]),
    // chunks
    (&[], &["LIMIT 1 OFFSET"]),
    (&[], &["INSERT INTO", "~up_new` ("]),
    (&["~up_new` ("], &["INSERT INTO", ".marks"]),
    (&["INSERT INTO", ".marks"], &["COMMIT"]),
    // the log
    (&[], &["INSERT INTO", "underpin_stage"]),
    (&[], &["DELETE l FROM"]),
    // indexes, verification
    (&[], &["ALTER TABLE", "~up_new`", "ADD"]),
    (&[], &["BIT_XOR"]),
    // the swap
    (&[], &["LOCK TABLES", "~up_new` WRITE"]),
    (&[], &["RENAME TABLE"]),
    // what is left
    (&[], &["DROP TABLE", "~up_old"]),
    (&[], &["DROP TABLE", "~up_log"]),
    (&[], &["state = 'done'"]),
    (&["DELETE FROM", ".beats"], &["COMMIT"]),
];

/// Letting go after the rename: in the session itself, or in the one that holds the lock.
const LETTING_GO: [Gap; 2] =
    [(&["RENAME TABLE"], &["UNLOCK TABLES"]), (&["DROP TABLE", "~up_old"], &["UNLOCK TABLES"])];

/// The fence, and the sentry in the rename's way: only where the swap takes two sessions.
const FENCED: [Gap; 2] =
    [(&["BEFORE UPDATE"], &["CREATE TRIGGER"]), (&[], &["CREATE TABLE", "~up_old"])];

/// The gaps of one run, or of two: where the rename's own session lets go, it does not come to that once
/// the rename is made and its answer lost.
fn gaps(flavor: Flavor, deed: Deed) -> Vec<Vec<Gap>> {
    let mut gaps = GAPS.to_vec();
    if flavor.is_mariadb() {
        gaps.extend(FENCED);
        gaps.push(LETTING_GO[1]);
        return vec![gaps];
    }
    if deed == Deed::CutBefore {
        gaps.push(LETTING_GO[0]);
        return vec![gaps];
    }
    vec![gaps, vec![LETTING_GO[0]]]
}

async fn cut_everywhere(db: &TestDb, deed: Deed) {
    for gaps in gaps(db.endpoints().flavor, deed) {
        cut_at(db, deed, &gaps).await;
    }
}

async fn cut_at(db: &TestDb, deed: Deed, gaps: &[Gap]) {
    let flavor = db.endpoints().flavor;
    workload::load(&db.url(), LAYOUT).await.unwrap();
    let settings = Settings { url: db.url(), layout: LAYOUT, rate_per_s: Some(100), seed: 5 };
    let begun = Instant::now();
    let writers = Workload::start(&settings).await.unwrap();
    let prober = Prober::start(&db.url(), vec!["SELECT * FROM orders WHERE id = 1".to_owned()]);
    let proxy = Proxy::start(&db.endpoints().primary).unwrap();
    let set = |(before, words): &Gap| {
        (format!("{before:?} {words:?}"), proxy.trap_after(before, words, deed))
    };
    let traps: Vec<(String, Trap)> = gaps.iter().map(set).collect();
    let url = proxy.url(db.name());
    let called = tokio::task::spawn_blocking(move || {
        succeed(start(&url, CHANGE, &["--workers", "2", "--chunk-time", "20ms"]))
    })
    .await
    .unwrap();
    let outcome = writers.stop().await.unwrap();
    let felt = prober.stop().unwrap();
    for (words, trap) in &traps {
        assert_eq!(trap.sprung(), 1, "{deed:?}: {words}");
    }
    let found = workload::compare_table(&db.url(), LAYOUT, &outcome.models).await.unwrap();
    assert!(found.none() && found.unsure == 0, "{deed:?}: {found}");
    only_fence_errors(&outcome.errors, flavor);
    only_orders_left(&db.url()).await;
    eprintln!(
        "{} {deed:?}: cut at {} statements, {} new beginnings; the application waited {:.0?} at most (of it {:.0?} for us); \
         {found}; writers' errors: {}",
        flavor.name(),
        traps.len(),
        named(&called, "reconnecting").len(),
        felt.longest,
        felt.held_up(),
        outcome.errors
    );
    let allowed = busy::allows(begun, Duration::from_millis(2500));
    assert!(felt.held_up() < allowed, "{deed:?}: {felt:?}");
}

#[test]
fn cut_before_the_server_hears_it_nothing_is_lost() {
    on_each(&Flavor::ALL[..2], async |db| cut_everywhere(&db, Deed::CutBefore).await);
}

#[test]
fn cut_after_the_server_has_done_it_nothing_is_lost_or_done_twice() {
    on_each(&Flavor::ALL[..2], async |db| cut_everywhere(&db, Deed::CutAfter).await);
}

#[test]
fn cut_so_that_the_server_does_not_notice_nobody_is_held_up() {
    on_each(&Flavor::ALL[..2], async |db| cut_everywhere(&db, Deed::VanishAfter).await);
}
