//! Writers that take a server to saturation, alone and beside a run, in turns.
//!
//! Owns the turns, the figures of each and the verdict: what a run that gives way may cost its neighbours.
//! Knows of the product no more than its options.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::app::App;
use crate::cli;
use crate::demo;
use crate::runner::Runner;
use crate::servers::Flavor;
use crate::stage::Stage;
use crate::workload::{Layout, Sample, Settings, Summary};

/// How long the writers get to come up to speed, and the server to come to rest after an abort.
const WARM_UP: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(120);

/// What is to be played.
#[derive(Clone, Debug)]
pub struct Plan {
    /// On which server.
    pub flavor: Flavor,
    /// The table, and writers that never pause.
    pub layout: Layout,
    /// Turns of each kind.
    pub rounds: u32,
    /// How long each takes; a turn with a run ends with its copy.
    pub turn: Duration,
    /// What the run is told besides the statement, as `--max-load write-latency=20ms`.
    pub options: Vec<String>,
}

/// Options for a server that is at saturation without the run: work in small pieces, one at a time, a part of
/// the time only, and give way when a small write of its own takes long.
#[must_use]
pub fn giving_way() -> Vec<String> {
    let bounds = ["--max-load", "write-latency=10ms", "--nice", "5%"];
    let pieces = ["--workers", "1", "--chunk-time", "20ms"];
    bounds.into_iter().chain(pieces).map(str::to_owned).collect()
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Turns without a run.
    pub alone: Vec<Summary>,
    /// Turns with a run.
    pub beside: Vec<Summary>,
    /// The same of all turns together.
    pub all: (Summary, Summary),
    /// Rows a second that the run copied in each turn.
    pub rates: Vec<u64>,
    /// For what it waited, or by what it was slowed down at the end of each turn.
    pub reasons: Vec<String>,
    /// The worst write latency that the run read, in milliseconds.
    pub latency_ms_worst: f64,
}

impl Outcome {
    /// 99 of 100 transactions: with the run, by without it.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.all.1.p99.as_secs_f64() / self.all.0.p99.as_secs_f64()
    }

    /// Rows a second of the slowest turn.
    #[must_use]
    pub fn slowest(&self) -> u64 {
        self.rates.iter().copied().min().unwrap_or(0)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        writeln!(
            out,
            "  turn  alone p50/p99 ms (tx)     beside p50/p99 ms (tx)    copied rows/s  waits"
        )?;
        for (turn, (alone, beside)) in self.alone.iter().zip(&self.beside).enumerate() {
            let cell = |one: &Summary| {
                format!("{:.1} / {:.1} ({})", ms(one.p50), ms(one.p99), one.transactions)
            };
            let rate = self.rates.get(turn).copied().unwrap_or(0);
            let reason = self.reasons.get(turn).map_or("", String::as_str);
            writeln!(
                out,
                "  {turn:>4}  {:<24}  {:<24}  {rate:>13}  {reason}",
                cell(alone),
                cell(beside)
            )?;
        }
        write!(
            out,
            "  p99 of all: {:.1} ms alone, {:.1} ms beside: {:.2} times; worst write latency read {:.1} ms",
            ms(self.all.0.p99),
            ms(self.all.1.p99),
            self.ratio(),
            self.latency_ms_worst
        )
    }
}

/// Plays the turns on servers of its own.
///
/// # Errors
/// The server's words, a run that fails, or an error that a writer saw.
pub async fn play(plan: &Plan) -> Result<Outcome> {
    let stage = Stage::open(plan.flavor, false, plan.layout)?;
    stage.load().await.context("loading the table")?;
    let settings = Settings { url: stage.url(), layout: plan.layout, rate_per_s: None, seed: 1 };
    let app = App::start(&settings).await?;
    let mut outcome = Outcome::default();
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    tokio::time::sleep(WARM_UP).await;
    for _ in 0..plan.rounds {
        let from = app.elapsed();
        tokio::time::sleep(plan.turn).await;
        alone.push((from, app.elapsed()));
        beside.push(turn(plan, &stage.url(), &app, &mut outcome).await?);
        tokio::time::sleep(WARM_UP).await;
    }
    let seen = app.stop(plan.layout).await?;
    ensure!(seen.errors.total() == 0, "the writers saw errors: {}", seen.errors);
    let sum = |spans: &[(Duration, Duration)]| -> (Vec<Summary>, Summary) {
        let each = spans.iter().map(|&(from, to)| Summary::between(&seen.samples, from, to));
        let within = |sample: &&Sample| {
            spans.iter().any(|&(from, to)| sample.ended >= from && sample.started <= to)
        };
        let all: Vec<Sample> = seen.samples.iter().filter(within).copied().collect();
        (each.collect(), Summary::between(&all, Duration::ZERO, Duration::MAX))
    };
    (outcome.alone, outcome.all.0) = sum(&alone);
    (outcome.beside, outcome.all.1) = sum(&beside);
    let found = seen.compare(&stage.url()).await?;
    ensure!(found.none(), "the table against the acknowledged writes: {found}");
    Ok(outcome)
}

/// One turn with a run, from the first rows copied; the run is ended afterwards and leaves nothing.
async fn turn(
    plan: &Plan,
    url: &str,
    app: &App,
    outcome: &mut Outcome,
) -> Result<(Duration, Duration)> {
    let mut words = vec!["run", url, demo::change(plan.flavor), "--yes", "--swap", "wait"];
    // Writers without a pause leave a replica behind that applies on one thread; this is about the primary.
    words.extend(["--replica", "none"]);
    words.extend(plan.options.iter().map(String::as_str));
    let mut runner = Runner::start(&words)?;
    let begun = tokio::task::block_in_place(|| runner.wait_phase("copy", LIMIT))?;
    ensure!(begun, "the run ended before it copied: {}", runner.story());
    let from = app.elapsed();
    let is_over = |event: &Value| event["event"] == "phase" && event["phase"] != "copy";
    let phases = runner.events().len();
    while app.elapsed() < from + plan.turn {
        tokio::time::sleep(Duration::from_millis(50)).await;
        ensure!(!runner.has_ended()?, "the run ended: {}", runner.story());
        if runner.events().iter().skip(phases).any(is_over) {
            break;
        }
    }
    let to = app.elapsed();
    outcome.note(&runner.events(), to.saturating_sub(from));
    let words = ["abort", url, demo_table()];
    let ended = tokio::task::block_in_place(|| cli::call(&words))?;
    ensure!(ended.code() == 0, "abort: {}", ended.complaint());
    tokio::task::block_in_place(|| runner.wait(LIMIT))?;
    Ok((from, to))
}

const fn demo_table() -> &'static str {
    crate::workload::TABLE
}

impl Outcome {
    fn note(&mut self, events: &[Value], took: Duration) {
        let progress: Vec<&Value> =
            events.iter().filter(|event| event["event"] == "progress").collect();
        let rows = progress.iter().filter_map(|event| event["rows_copied"].as_u64()).max();
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.rates.push(rows.unwrap_or(0) * 1000 / std::cmp::max(ms, 1));
        let waited = progress.iter().filter(|event| event["waiting"].is_string());
        let last = waited
            .clone()
            .next_back()
            .map_or("", |event| event["waiting"].as_str().unwrap_or_default());
        self.reasons.push(format!("{} of {} looks {last}", waited.count(), progress.len()));
        let signals = progress.iter().filter_map(|event| event["signals"].as_array()).flatten();
        let latencies = signals
            .filter(|signal| signal["name"] == "write-latency")
            .filter_map(|signal| signal["value"].as_f64());
        self.latency_ms_worst = latencies.fold(self.latency_ms_worst, f64::max);
    }
}
