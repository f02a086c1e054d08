//! A network that fails without closing anything: it stalls and comes back, it closes one direction, it
//! is slow. Whatever it does, and above all at the statements that decide, the run ends well, no row is
//! wrong, and no writer is held up beyond the time-outs.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

mod postgres_runs;

use std::time::Duration;

use underpin_tests::mirrored::{self, Settings, Writers};
use underpin_tests::proxy::{Deed, Proxy, Trap};
use underpin_tests::servers::{Flavor, TestDb, pg};
use underpin_tests::workload::Layout;

use postgres_runs::{named, start, succeed};

const LAYOUT: Layout = Layout { rows: 3000, writers: 3 };

const CHANGE: &str = "ALTER TABLE orders ADD made timestamptz NOT NULL DEFAULT clock_timestamp()";

/// A stall under a lock: longer than the server waits there for a session that has fallen silent.
const LONG: Duration = Duration::from_secs(9);

/// A stall where nobody waits.
const SHORT: Duration = Duration::from_millis(1500);

/// Longest that the application may wait: the server's three seconds for a silent session that holds the
/// lock, the lock time-out, and the way on a busy machine. Who waited for the network would wait longer.
const HELD_UP_MAX: Duration = Duration::from_millis(7500);

/// A swap of many statements is to fit into its budget on a busy machine, and far away from its server.
const ROOM: [&str; 2] = ["--swap-budget", "2s"];

/// A gap of the protocol: words of the statement before it on its connection, and of itself.
type Gap = (&'static [&'static str], &'static [&'static str]);

/// Statements behind which nobody waits.
const QUIET: [Gap; 6] = [
    // a chunk, a checkpoint
    (&["^SET LOCAL ROLE NONE", ".marks"], &["COMMIT"]),
    (&[], &["SET checkpoint =", "COMMIT"]),
    // settling, a batch of the log, a comparison (its last look, whether something is pending or not)
    (&["NOT EXISTS", "SET applied ="], &["COMMIT"]),
    (&["^SET CONSTRAINTS ALL IMMEDIATE"], &["COMMIT"]),
    (&["AS underpin_n WHERE"], &["COMMIT"]),
    (&[], &["SET state = 'done'"]),
];

/// Statements under the swap's lock, or that take it.
const LOCKED: [Gap; 2] = [(&[], &["IN ACCESS EXCLUSIVE MODE"]), (&["underpin_proof"], &["COMMIT"])];

/// Runs the change through the proxy with the traps that `set` sets, and looks at everything afterwards.
async fn run(
    db: &TestDb,
    what: &str,
    more: &[&'static str],
    set: impl Fn(&Proxy) -> Vec<(String, Trap)>,
) {
    mirrored::load(&db.url(), LAYOUT).await.unwrap();
    let settings = Settings {
        url: db.url(),
        layout: LAYOUT,
        rate_per_s: Some(60),
        seed: 7,
        truncate_one_in: None,
    };
    let writers = Writers::start(&settings).await.unwrap();
    let proxy = Proxy::start(&db.endpoints().primary).unwrap();
    let traps = set(&proxy);
    let url = proxy.url(db.name());
    let mut words = vec!["--workers", "2", "--chunk-time", "100ms"];
    words.extend(more);
    let called =
        tokio::task::spawn_blocking(move || succeed(start(&url, CHANGE, &words))).await.unwrap();
    let outcome = writers.stop().await.unwrap();
    let took = outcome.samples.iter().map(|sample| sample.ended.saturating_sub(sample.started));
    let longest = took.max().unwrap_or_default();
    eprintln!(
        "{what}: {} traps, {} new beginnings, {:.0?}; of {} transactions the longest took {longest:.0?}",
        traps.len(),
        named(&called, "reconnecting").len(),
        called.ended.took,
        outcome.samples.len(),
    );
    for (words, trap) in &traps {
        assert_eq!(trap.sprung(), 1, "{what}: {words}");
    }
    assert_eq!(outcome.errors.total(), 0, "{what}: {}", outcome.errors);
    let found = mirrored::compare_tables(&db.url()).await.unwrap();
    assert!(found.none() && found.rows_read > 0, "{what}: {found}");
    nothing_left(db, what).await;
    assert!(longest < HELD_UP_MAX, "{what}: {longest:?}");
}

async fn nothing_left(db: &TestDb, what: &str) {
    let client = db.client().await.unwrap();
    let count = async |query: &str| -> i64 { client.query_one(query, &[]).await.unwrap().get(0) };
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname ~ '^underpin_'";
    assert_eq!(count(schemas).await, 0, "{what}: schemas");
    let triggers = "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal";
    assert_eq!(count(triggers).await, 0, "{what}: triggers");
    let open = "SELECT count(*) FROM underpin.runs WHERE state = 'open'";
    assert_eq!(count(open).await, 0, "{what}: open runs");
    let made = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attname = 'made'";
    assert_eq!(count(made).await, 1, "{what}: the change");
    assert_eq!(pg::text_rows(&client, "SELECT 1").await.unwrap().len(), 1);
}

fn trap(proxy: &Proxy, (before, words): &Gap, deed: Deed) -> (String, Trap) {
    (format!("{deed:?} {before:?} {words:?}"), proxy.trap_after(before, words, deed))
}

/// Every gap with a stall before the server hears of it, and with one before the answer arrives.
fn stalls(proxy: &Proxy) -> Vec<(String, Trap)> {
    let mut traps = Vec::new();
    for (gaps, time) in [(&QUIET[..], SHORT), (&LOCKED[..], LONG)] {
        for gap in gaps {
            // a run settles once, compares so few rows at once, and ends once
            let comes_once = [&["NOT EXISTS", "SET applied ="][..], &["AS underpin_n WHERE"]];
            if gap.1 != ["SET state = 'done'"] {
                traps.push(trap(proxy, gap, Deed::StallBefore(time)));
            }
            if !comes_once.contains(&gap.0) {
                traps.push(trap(proxy, gap, Deed::StallAfter(time)));
            }
        }
    }
    traps
}

/// Every gap with one direction closed behind the statement, the other left open.
fn deaf(proxy: &Proxy) -> Vec<(String, Trap)> {
    let mut traps: Vec<_> =
        QUIET.iter().chain(&LOCKED).map(|gap| trap(proxy, gap, Deed::DeafClient)).collect();
    let twice = [QUIET[0], QUIET[1], QUIET[3], LOCKED[0]];
    traps.extend(twice.iter().map(|gap| trap(proxy, gap, Deed::DeafServer)));
    traps
}

fn on_distro(test: impl AsyncFn(TestDb)) {
    let Some(db) = TestDb::new(Flavor::PostgresDistro) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(test(db));
}

#[test]
fn a_network_that_stalls_holds_nobody_up_beyond_the_time_outs() {
    on_distro(async |db| run(&db, "stalled", &ROOM, stalls).await);
}

#[test]
fn a_connection_of_which_one_direction_is_closed_loses_nothing() {
    on_distro(async |db| run(&db, "half closed", &ROOM, deaf).await);
}

/// Each statement takes 25 ms to the server: so does each of the swap, which needs a longer budget for it.
#[test]
fn a_server_far_away_is_changed_all_the_same() {
    on_distro(async |db| {
        let slow = |proxy: &Proxy| {
            proxy.delay(Duration::from_millis(25));
            Vec::new()
        };
        run(&db, "25 ms away", &ROOM, slow).await;
    });
}
