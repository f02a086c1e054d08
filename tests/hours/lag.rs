//! A replica that falls behind: its applier stands still for a while, or is slow all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use underpin_tests::busy;
use underpin_tests::runner::Runner;
use underpin_tests::servers::{Flavor, Pair, ServerSpec, sql, wanted};

use super::watch::{self, Watch};
use super::{LIMIT, change, fill, is, is_pause, ms};

/// From this lag the copy is to stand still.
const MAX_LAG: Duration = Duration::from_secs(2);
/// What the copy may take to stand still after that.
const STOP_WITHIN: Duration = Duration::from_secs(2);
/// The law waits until the replica is well below the limit; a busy machine adds its share.
const RESUME_WITHIN: Duration = Duration::from_secs(6);

/// How long the applier stands still: 30 seconds in the full test.
fn hold() -> Duration {
    let seconds = std::env::var("UNDERPIN_TEST_HOLD_S").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(7))
}

struct Ground {
    pair: Pair,
    url: String,
    replica: String,
}

fn ground(flavor: Flavor, rows: u32, row_bytes: u32) -> Ground {
    let pair = Pair::start(&ServerSpec::new(flavor)).unwrap();
    let database = if flavor.is_postgres() { "postgres" } else { "shop" };
    if !flavor.is_postgres() {
        sql::execute(&pair.primary.url(), vec!["CREATE DATABASE shop".to_owned()]).unwrap();
    }
    let url = format!("{}{database}", pair.primary.url());
    let replica = format!("{}{database}", pair.replica.url());
    fill(flavor, &url, "t", rows, row_bytes);
    pair.wait_caught_up(LIMIT).unwrap();
    Ground { pair, url, replica }
}

/// The plot of a run out of its own events: time, lag, rate, and whether it stood still.
fn plot(title: &str, events: &[Value]) {
    eprintln!("{title}\n  time s  lag ms  rows/s  why it waits");
    let mut before: Option<(u64, u64)> = None;
    for event in events.iter().filter(|event| is(event, "progress") && event["phase"] == "copy") {
        let (at_ms, rows) =
            (event["at_ms"].as_u64().unwrap(), event["rows_copied"].as_u64().unwrap());
        let rate = before.map_or(0, |(then_ms, then)| {
            rows.saturating_sub(then) * 1000 / std::cmp::max(at_ms.saturating_sub(then_ms), 1)
        });
        let lag = event["lag_ms"].as_u64().map_or_else(|| "?".into(), |lag_ms| lag_ms.to_string());
        let why = event["waiting"].as_str().unwrap_or_default();
        eprintln!("  {:>4}.{}  {lag:>6}  {rate:>6}  {why}", at_ms / 1000, at_ms % 1000 / 100);
        before = Some((at_ms, rows));
    }
}

/// The applier stands still: the copy stops, and goes on afterwards.
pub fn stands_still(flavor: Flavor) {
    if !wanted(flavor) {
        return;
    }
    let ground = ground(flavor, 60_000, 60);
    let watch = Watch::start(&ground.url, &ground.replica);
    let mut words = vec!["run", &ground.url, change(flavor), "--strategy", "shadow", "--yes"];
    words.extend(["--max-lag", "2s", "--rate", "12000", "--chunk-time", "200ms"]);
    let mut runner = Runner::start(&words).unwrap();
    runner.wait_for(LIMIT, |event| event["rows_copied"].as_u64() > Some(8000)).unwrap().unwrap();
    let stopped = Instant::now();
    ground.pair.stop_applying().unwrap();
    thread::sleep(hold());
    let started = Instant::now();
    ground.pair.start_applying().unwrap();
    runner.wait_for(LIMIT, |event| is(event, "resumed")).unwrap().unwrap();
    let called = runner.wait(LIMIT).unwrap();
    let looks = watch.stop();
    plot(
        &format!("{}, applier stopped for {} ms", flavor.name(), ms(started - stopped)),
        &called.events,
    );
    assert!(called.code() == 0, "{}", called.complaint());
    assert_eq!(called.ended.verdict(), "equal");

    let passed = watch::passed(&looks, stopped, MAX_LAG).unwrap();
    let last = watch::moved_last(&looks, stopped, started).unwrap_or(stopped);
    let back = watch::below(&looks, started, MAX_LAG).unwrap();
    let first = watch::moved_first(&looks, last + Duration::from_millis(50)).unwrap();
    let worst = watch::worst_lag(&looks);
    eprintln!(
        "  copy stood still {} ms after the lag passed {} ms, went on {} ms after it was back; worst lag {} ms",
        ms(last.saturating_duration_since(passed)),
        ms(MAX_LAG),
        ms(first.saturating_duration_since(back)),
        ms(worst)
    );
    let allowed = |limit| busy::allows(stopped, limit);
    let on = last.saturating_duration_since(passed);
    assert!(on < allowed(STOP_WITHIN), "the copy went on for {on:?}");
    assert!(first > started, "the copy went on while the applier stood still");
    let still = first.saturating_duration_since(back);
    assert!(still < allowed(RESUME_WITHIN), "the copy stood still for {still:?}");
    assert!(worst < (started - stopped) + MAX_LAG + allowed(STOP_WITHIN), "{worst:?}");
    let reasons = called.events.iter().filter(|event| is_pause(event, "lag"));
    let reasons: Vec<&str> = reasons.filter_map(|event| event["reason"].as_str()).collect();
    let is_told = |reason: &&str| reason.contains("replica ") && reason.contains("(limit 2 s)");
    assert!(reasons.iter().any(is_told), "{reasons:?}");
    let waited = called.ended.done["waits"].as_array().unwrap();
    assert!(waited.iter().any(|wait| wait["kind"] == "lag"), "{waited:?}");
}

/// Stops and continues the replica's processes all the time, so that it has a share of its strength.
struct Brake {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

/// Rows that are long enough to keep it busy.
const SLOW_ROWS: u32 = 80_000;
const SLOW_ROW_BYTES: u32 = 800;
/// Plays of which one must keep to the limit.
const SLOW_PLAYS: u32 = 3;

/// How long the replica stands and runs in turn.
const STANDS: Duration = Duration::from_millis(45);
const RUNS: Duration = Duration::from_millis(5);

impl Brake {
    fn on(pair: &Arc<Pair>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (pair, until) = (Arc::clone(pair), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                pair.replica.freeze().unwrap();
                thread::sleep(STANDS);
                pair.replica.thaw().unwrap();
                thread::sleep(RUNS);
            }
        });
        Self { stop, thread }
    }

    fn off(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// Rows a second that the replica applies, with the brake on.
fn strength(flavor: Flavor, pair: &Pair, url: &str) -> u64 {
    const ROWS: u32 = 10_000;
    let begun = Instant::now();
    fill(flavor, url, "trial", ROWS, SLOW_ROW_BYTES);
    pair.wait_caught_up(LIMIT).unwrap();
    u64::from(ROWS) * 1000 / std::cmp::max(u64::try_from(begun.elapsed().as_millis()).unwrap(), 1)
}

/// A replica that can apply half of what the copy would write: the copy finds a pace that it bears. Not for
/// PostgreSQL, whose replica replays faster than any copy writes even with a twentieth of its strength.
pub fn is_slow(flavor: Flavor) {
    if !wanted(flavor) {
        return;
    }
    // What the replica bears changes with what else the machine does: then it is played again.
    let plays = (0..SLOW_PLAYS).map(|_| play_slow(flavor));
    let good = plays
        .inspect(|why| eprintln!("  {}", why.as_deref().unwrap_or("good")))
        .any(|why| why.is_none());
    let what = format!("{MAX_LAG:?} of lag and a pace that the replica bears");
    assert!(good, "played {SLOW_PLAYS} times, and not once with {what}: see above");
}

/// What was wrong with it, if anything was.
fn play_slow(flavor: Flavor) -> Option<String> {
    let Ground { pair, url, replica } = ground(flavor, SLOW_ROWS, SLOW_ROW_BYTES);
    let pair = Arc::new(pair);
    let brake = Brake::on(&pair);
    let strength = strength(flavor, &pair, &url);
    let rate = (strength * 2).to_string();
    let watch = Watch::start(&url, &replica);
    let mut words = vec!["run", &url, change(flavor), "--strategy", "shadow", "--yes"];
    words.extend(["--max-lag", "2s", "--rate", &rate, "--chunk-time", "100ms"]);
    let mut runner = Runner::start(&words).unwrap();
    runner.wait_phase("copy", LIMIT).unwrap();
    let begun = Instant::now();
    let is_over = |event: &Value| is(event, "phase") && event["phase"] == "verify";
    while begun.elapsed() < Duration::from_secs(20) && runner.find(is_over).is_none() {
        assert!(!runner.has_ended().unwrap(), "{}", runner.story());
        thread::sleep(Duration::from_millis(50));
    }
    let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap();
    let looks = watch.stop();
    brake.off();
    let events = runner.events();
    plot(
        &format!("{}, a replica that applies {strength} rows/s, --rate {rate}", flavor.name()),
        &events,
    );
    let copied = events.iter().rev().find_map(|event| event["rows_copied"].as_u64()).unwrap();
    let worst = watch::worst_lag(&looks);
    eprintln!("  worst lag {} ms, {copied} rows copied", ms(worst));
    let allowed = MAX_LAG + busy::allows(begun, STOP_WITHIN);
    let called = runner.wait(LIMIT).unwrap();
    assert!(called.code() == 0, "{}", called.complaint());
    let borne = strength * took_ms / 1000;
    if worst < Duration::from_millis(500) {
        Some(format!("the replica was not slow: {worst:?}"))
    } else if worst > allowed {
        Some(format!("{worst:?} of lag, {allowed:?} allowed"))
    } else if copied < borne / 3 {
        Some(format!("{copied} rows copied, and the replica bears {borne} in that time"))
    } else {
        None
    }
}
