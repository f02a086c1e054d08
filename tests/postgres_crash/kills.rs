//! `kill -9` of the program at moments drawn by seeded dice, spread over all phases, each followed by the
//! same command.
//!
//! The server is some milliseconds away, so that phases of a few statements last long enough to be hit.

use std::time::Duration;

use serde_json::Value;
use underpin_tests::cli::Called;
use underpin_tests::proxy::Proxy;
use underpin_tests::runner::Runner;
use underpin_tests::workload::{Dice, Layout};

use crate::{LIMIT, all_is_well, longest, on_distro, open_shop, rows, start, succeed};

const LAYOUT: Layout = Layout { rows: 20_000, writers: 3 };

/// How far the server is away.
const AWAY: Duration = Duration::from_millis(3);

/// The phases in order, by the names of the events, and the longest time after the beginning of each, in
/// milliseconds, at which the kill falls.
const PHASES: [(&str, u64); 8] = [
    ("prepare", 200),
    ("copy", 300),
    ("settle", 15),
    ("indexes", 150),
    ("catch-up", 10),
    ("verify", 25),
    ("swap", 250),
    ("finish", 15),
];

/// Entering these is made durable with their first step: a kill before it falls back to the one before.
const ENTERED_LATE: [&str; 2] = ["copy", "swap"];

/// Kills of one phase that are aimed at.
const KILLS_A_PHASE: usize = 3;

/// Bound on kills and runs where dice and machine keep missing a phase.
const KILLS_MAX: usize = 60;

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The place of the phase that an event tells of.
fn place(event: &Value) -> Option<usize> {
    PHASES.iter().position(|(name, _)| event["phase"] == *name)
}

/// The place of the phase that begins with this event.
fn begins(event: &Value) -> Option<usize> {
    place(event).filter(|_| event["event"] == "phase")
}

/// The kills of all runs.
struct Kills {
    /// Where each fell.
    places: Vec<usize>,
    wanted: usize,
    dice: Dice,
}

impl Kills {
    fn of(&self, place: usize) -> usize {
        self.places.iter().filter(|killed| **killed == place).count()
    }

    fn are_enough(&self) -> bool {
        assert!(self.places.len() < KILLS_MAX, "a phase is never hit: {}", self.told());
        self.places.len() >= self.wanted && (0..PHASES.len()).all(|place| self.of(place) > 0)
    }

    /// Where the next one is to fall: not before `from`, to which the run has come, and not far ahead.
    fn aim(&mut self, from: usize) -> Option<usize> {
        if self.are_enough() {
            return None;
        }
        let open = (from..PHASES.len()).filter(|place| self.of(*place) < KILLS_A_PHASE);
        let near: Vec<usize> = open.take(3).collect();
        self.dice.one_of(&near)
    }

    fn told(&self) -> String {
        let of = |(place, (name, _)): (usize, &(&str, u64))| format!("{name} {}", self.of(place));
        PHASES.iter().enumerate().map(of).collect::<Vec<_>>().join(", ")
    }
}

/// Kills the program some time after the phase at `target` has begun. The place of the phase in which it
/// was killed with what it said; `None` with what it said where it ended before.
fn kill_in(mut runner: Runner, target: usize, dice: &mut Dice) -> (Option<usize>, Called) {
    let later = Duration::from_micros(dice.below(PHASES[target].1 * 1000));
    let reached = runner.wait_for(LIMIT, |event| begins(event) >= Some(target)).unwrap();
    if reached.is_some() {
        std::thread::sleep(later);
    }
    if runner.has_ended().unwrap() {
        return (None, succeed(runner));
    }
    let killed = runner.kill9().unwrap();
    (killed.events.iter().rev().find_map(begins), killed)
}

/// What a kill has left: the place of its phase, and the rows of chunks that are marked as done.
#[derive(Clone, Copy)]
struct Left {
    place: usize,
    rows: u64,
}

impl Left {
    async fn look(url: &str, place: usize) -> Self {
        let marked = "SELECT coalesce(sum(row_count), 0) FROM underpin.marks JOIN underpin.runs USING \
                      (run_id) WHERE state = 'open'";
        Self { place, rows: rows(url, marked).await[0].parse().unwrap() }
    }
}

/// A run that was killed goes on where it was, or the program did not live to say anything.
fn goes_on(called: &Called, left: Option<Left>, told: &str) {
    let Some(Left { place: from, rows }) = left else { return };
    assert!(called.event("run_started").is_none(), "it began anew: {told}");
    let late = rows == 0 && ENTERED_LATE.contains(&PHASES[from].0);
    let from = from - usize::from(late);
    if let Some(resumed) = called.event("run_resumed") {
        assert!(place(resumed) >= Some(from), "{resumed} after {:?}: {told}", PHASES[from]);
        assert!(resumed["rows_copied"].as_u64() >= Some(rows), "{resumed}: {rows} rows were done");
    }
}

/// Whether the column is there and no run is open: then a kill came after the end.
async fn is_done(url: &str, column: &str) -> bool {
    let made = format!(
        "SELECT count(*) FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attname = '{column}'"
    );
    let exists = "SELECT to_regclass('underpin.runs') IS NOT NULL";
    let open = "SELECT count(*) FROM underpin.runs WHERE state = 'open'";
    rows(url, &made).await == ["1"]
        && rows(url, exists).await == ["t"]
        && rows(url, open).await == ["0"]
}

#[test]
fn killed_at_twenty_moments_it_goes_on_and_loses_nothing() {
    let wanted = usize::try_from(from_environment("UNDERPIN_TEST_KILLS", 20)).unwrap();
    let dice = Dice::new(from_environment("UNDERPIN_TEST_SEED", 5));
    on_distro(async |db| {
        let writers = open_shop(&db.url(), LAYOUT, 100).await;
        let proxy = Proxy::start(&db.endpoints().primary).unwrap();
        proxy.delay(AWAY);
        let mut kills = Kills { places: Vec::new(), wanted, dice: dice.clone() };
        let mut runs = 0;
        while !kills.are_enough() {
            runs += 1;
            assert!(runs <= KILLS_MAX, "a phase is never hit: {}", kills.told());
            let column = format!("made_{runs}");
            let change = format!(
                "ALTER TABLE orders ADD {column} timestamptz NOT NULL DEFAULT clock_timestamp()"
            );
            one_run(&db.url(), &proxy.url(db.name()), &change, &column, &mut kills).await;
        }
        let outcome = writers.stop().await.unwrap();
        assert_eq!(outcome.errors.total(), 0, "{}", outcome.errors);
        all_is_well(&db.url(), &kills.told()).await;
        eprintln!(
            "{} kills in {runs} runs: {}; {} transactions, the longest took {:.0?}",
            kills.places.len(),
            kills.told(),
            outcome.samples.len(),
            longest(&outcome)
        );
    });
}

/// One change, killed until the dice have had enough of it, then carried to its end.
async fn one_run(url: &str, by_proxy: &str, change: &str, column: &str, kills: &mut Kills) {
    let options = ["--workers", "2", "--chunk-time", "100ms"];
    let mut left: Option<Left> = None;
    while let Some(target) = kills.aim(left.map_or(0, |left| left.place)) {
        let runner = start(by_proxy, change, &options);
        let (killed, called) =
            tokio::task::block_in_place(|| kill_in(runner, target, &mut kills.dice));
        goes_on(&called, left, &kills.told());
        if let Some(place) = killed {
            kills.places.push(place);
            left = Some(Left::look(url, place).await);
        }
        if is_done(url, column).await {
            return;
        }
    }
    let called = tokio::task::block_in_place(|| succeed(start(by_proxy, change, &options)));
    goes_on(&called, left, &kills.told());
    let copied = called.ended.number("rows_copied").unwrap();
    let there: u64 = rows(url, "SELECT count(*) FROM orders").await[0].parse().unwrap();
    assert!(copied < there + there / 4, "{copied} rows copied of {there}: some twice");
    assert!(is_done(url, column).await, "after {}", kills.told());
}
