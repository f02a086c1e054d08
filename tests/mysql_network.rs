//! A network that fails without closing anything: it stalls and comes back, it closes one direction, it
//! is slow. Whatever it does, and above all at the statements that decide, the run ends well, no row is
//! wrong, and no writer is held up beyond the time-outs.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

mod mysql_steps;

use std::time::Duration;

use mysql_async::prelude::Queryable;
use underpin_tests::prober::Prober;
use underpin_tests::proxy::{Deed, Proxy, Trap};
use underpin_tests::servers::{Flavor, TestDb, sql};
use underpin_tests::workload::{self, Layout, Settings, Workload};

use mysql_steps::{named, on_each, start, succeed};

const LAYOUT: Layout = Layout { rows: 3000, writers: 3 };

const CHANGE: &str = "ALTER TABLE orders MODIFY customer BIGINT NOT NULL, ADD KEY amount (amount)";

/// A stall under a lock: longer than the server waits there for a session that has fallen silent.
const LONG: Duration = Duration::from_secs(6);

/// A stall where nobody waits.
const SHORT: Duration = Duration::from_millis(1500);

/// Longest that the application may wait: the server's three seconds for a silent session that holds the
/// lock, the lock time-out of one, and the way.
const HELD_UP_MAX: Duration = Duration::from_millis(4800);

/// A swap of many statements is to fit into its budget on a busy machine, and far away from its server.
const ROOM: [&str; 2] = ["--swap-budget", "2s"];

/// A gap of the protocol: words of the statement before it on its connection, and of itself.
type Gap = (&'static [&'static str], &'static [&'static str]);

/// Statements behind which nobody waits.
const QUIET: [Gap; 5] = [
    // a chunk, a checkpoint
    (&["INSERT INTO", ".marks"], &["COMMIT"]),
    (&["DELETE FROM", ".marks"], &["COMMIT"]),
    // a batch of the log
    (&[], &["DELETE l FROM"]),
    (&[], &["BIT_XOR"]),
    (&[], &["state = 'done'"]),
];

/// Statements under the swap's lock, or that take it.
const LOCKED: [Gap; 2] = [(&[], &["LOCK TABLES", "~up_new` WRITE"]), (&[], &["RENAME TABLE"])];

/// Where the lock is let go behind the swap's exchange: `UNLOCK TABLES` alone also ends the installation
/// of the triggers, which is left alone here.
fn letting_go(flavor: Flavor) -> Gap {
    if flavor.is_mariadb() {
        (&["DROP TABLE", "~up_old"], &["UNLOCK TABLES"])
    } else {
        (&["RENAME TABLE"], &["UNLOCK TABLES"])
    }
}

/// Runs the change through the proxy with `deeds` at each gap, and looks at everything afterwards.
async fn run(
    db: &TestDb,
    what: &str,
    more: &[&'static str],
    set: impl Fn(&Proxy) -> Vec<(String, Trap)>,
) {
    workload::load(&db.url(), LAYOUT).await.unwrap();
    let settings = Settings { url: db.url(), layout: LAYOUT, rate_per_s: Some(60), seed: 7 };
    let writers = Workload::start(&settings).await.unwrap();
    let prober = Prober::start(&db.url(), vec!["SELECT * FROM orders WHERE id = 1".to_owned()]);
    let proxy = Proxy::start(&db.endpoints().primary).unwrap();
    let traps = set(&proxy);
    let url = proxy.url(db.name());
    let mut words = vec!["--workers", "2", "--chunk-time", "20ms"];
    words.extend(more);
    let called =
        tokio::task::spawn_blocking(move || succeed(start(&url, CHANGE, &words))).await.unwrap();
    let outcome = writers.stop().await.unwrap();
    let felt = prober.stop().unwrap();
    let flavor = db.endpoints().flavor;
    eprintln!(
        "{} {what}: {} traps, {} new beginnings, {:.0?}; the application waited {:.0?} at most (of it {:.0?} for us); \
         writers' errors: {}",
        flavor.name(),
        traps.len(),
        named(&called, "reconnecting").len(),
        called.ended.took,
        felt.longest,
        felt.held_up(),
        outcome.errors
    );
    for (words, trap) in &traps {
        assert_eq!(trap.sprung(), 1, "{what}: {words}");
    }
    let found = workload::compare_table(&db.url(), LAYOUT, &outcome.models).await.unwrap();
    assert!(found.none() && found.unsure == 0, "{what}: {found}");
    let fenced = if flavor.is_mariadb() { outcome.errors.of("1213") } else { 0 };
    assert_eq!(outcome.errors.total(), fenced, "{what}: {}", outcome.errors);
    only_orders_left(db, what).await;
    assert!(felt.held_up() < HELD_UP_MAX, "{what}: {felt:?}");
}

async fn only_orders_left(db: &TestDb, what: &str) {
    let mut conn = sql::connect(&db.url()).await.unwrap();
    let mut rows = async |query: &str| conn.query::<String, _>(query).await.unwrap();
    assert_eq!(rows("SHOW TABLES").await, ["orders"], "{what}: tables");
    let triggers = "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = \
                    DATABASE()";
    assert_eq!(rows(triggers).await, Vec::<String>::new(), "{what}: triggers");
    let open = "SELECT run_id FROM underpin.runs WHERE schema_name = DATABASE() AND state = 'open'";
    assert_eq!(rows(open).await, Vec::<String>::new(), "{what}: open runs");
}

fn trap(proxy: &Proxy, (before, words): &Gap, deed: Deed) -> (String, Trap) {
    (format!("{deed:?} {before:?} {words:?}"), proxy.trap_after(before, words, deed))
}

/// Every gap with a stall before the server hears of it, and with one before the answer arrives.
fn stalls(proxy: &Proxy, flavor: Flavor) -> Vec<(String, Trap)> {
    let mut traps = Vec::new();
    for (gaps, time) in [(&QUIET[..], SHORT), (&LOCKED[..], LONG)] {
        for gap in gaps {
            // what ended a run is not said again, nor is a rename that may have been made
            if gap.1 != ["state = 'done'"] && gap.1 != ["RENAME TABLE"] {
                traps.push(trap(proxy, gap, Deed::StallBefore(time)));
            }
            traps.push(trap(proxy, gap, Deed::StallAfter(time)));
        }
    }
    if flavor.is_mariadb() {
        // on MySQL the rename's own session lets go, which is lost with it
        traps.push(trap(proxy, &letting_go(flavor), Deed::StallAfter(LONG)));
    }
    traps
}

/// Every gap with one direction closed behind the statement, the other left open.
fn deaf(proxy: &Proxy, flavor: Flavor) -> Vec<(String, Trap)> {
    let gaps = QUIET.iter().chain(&LOCKED);
    let mut traps: Vec<_> = gaps.map(|gap| trap(proxy, gap, Deed::DeafClient)).collect();
    let twice = [QUIET[0], QUIET[1], QUIET[2], QUIET[3], LOCKED[0]];
    traps.extend(twice.iter().map(|gap| trap(proxy, gap, Deed::DeafServer)));
    if flavor.is_mariadb() {
        traps.push(trap(proxy, &letting_go(flavor), Deed::DeafServer));
    }
    traps
}

fn stalled(flavor: Flavor) {
    on_each(&[flavor], async |db| run(&db, "stalled", &ROOM, |proxy| stalls(proxy, flavor)).await);
}

#[test]
fn a_network_that_stalls_holds_nobody_up_beyond_the_time_outs_on_mysql() {
    stalled(Flavor::MySql97);
}

#[test]
fn a_network_that_stalls_holds_nobody_up_beyond_the_time_outs_on_mariadb() {
    stalled(Flavor::MariaDbDistro);
}

fn half_closed(flavor: Flavor) {
    on_each(&[flavor], async |db| {
        run(&db, "half closed", &ROOM, |proxy| deaf(proxy, flavor)).await
    });
}

#[test]
fn a_connection_of_which_one_direction_is_closed_loses_nothing_on_mysql() {
    half_closed(Flavor::MySql97);
}

#[test]
fn a_connection_of_which_one_direction_is_closed_loses_nothing_on_mariadb() {
    half_closed(Flavor::MariaDbDistro);
}

/// Each statement takes 25 ms to the server: so does each of the swap, which needs a longer budget for it.
/// And the statement that lets everybody go behind the exchange gets stuck on the way.
fn far_away(flavor: Flavor) {
    on_each(&[flavor], async |db| {
        let slow = |proxy: &Proxy| {
            proxy.delay(Duration::from_millis(25));
            vec![trap(proxy, &letting_go(flavor), Deed::StallBefore(LONG))]
        };
        run(&db, "25 ms away", &ROOM, slow).await;
    });
}

#[test]
fn a_server_far_away_is_changed_all_the_same_on_mysql() {
    far_away(Flavor::MySql97);
}

#[test]
fn a_server_far_away_is_changed_all_the_same_on_mariadb() {
    far_away(Flavor::MariaDbDistro);
}
