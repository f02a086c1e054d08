//! Benchmark against what a user would pick instead: paired runs on one server, ratios.
//!
//! Owns the order of the runs and what is printed. Every run has a table loaded afresh: a tool that
//! comes second would otherwise meet another table (fuller pages, another column) than the first.

mod postgres;
mod rivals;
mod table;
mod traffic;

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::demo::ms;
use crate::product::Product;
use crate::servers::{Flavor, Server, ServerSpec, install_peer_tools};
use crate::workload::{Errors, Summary};

pub use rivals::Rival;

/// Writers' transactions before the tool starts, for comparison.
const BEFORE: Duration = Duration::from_secs(10);
/// Idle wall time, against pt-online-schema-change.
const TARGET_RATIO: f64 = 0.75;
/// The same on PostgreSQL, against the server's own rewriting ALTER.
const TARGET_RATIO_ALTER: f64 = 1.5;
/// Longest single transaction while underpin runs.
const TARGET_STALL: Duration = Duration::from_millis(200);
/// The same on PostgreSQL.
const TARGET_STALL_POSTGRES: Duration = Duration::from_millis(100);

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// On which server.
    pub flavor: Flavor,
    /// Rows of the table.
    pub rows: u64,
    /// How often every case is run.
    pub rounds: u32,
    /// Transactions a second of the four writers, on a fixed schedule.
    pub rate_per_s: u32,
}

/// One run of one tool.
#[derive(Clone, Debug)]
pub struct Run {
    rival: Rival,
    took: Duration,
    memory_peak_bytes: u64,
    /// The writers, when there were any.
    traffic: Option<Traffic>,
}

/// What the writers saw.
#[derive(Clone, Debug)]
struct Traffic {
    before: Summary,
    during: Summary,
    errors: Errors,
}

/// Measures everything and prints it.
///
/// # Errors
/// When a tool fails or a server cannot be had; a missed target is printed, not an error.
pub async fn run(plan: Plan, product: &Product) -> Result<()> {
    if !plan.flavor.is_postgres() {
        install_peer_tools()?;
    }
    let server = start_server(plan.flavor)?;
    println!(
        "{} rows on {}, durable commits; {} round(s), each tool on a table loaded afresh",
        plan.rows,
        plan.flavor.name(),
        plan.rounds
    );
    if plan.flavor.is_postgres() {
        for _ in 0..postgres::WARM_UPS {
            table::load(&server, plan.rows).await?;
        }
    }
    print_head();
    let mut runs = Vec::new();
    for round in 0..plan.rounds {
        let mut idle = Rival::idle(plan.flavor).to_vec();
        let mut busy = Rival::busy(plan.flavor).to_vec();
        // whoever comes first has the quietest disk: take turns
        for list in [&mut idle, &mut busy] {
            let turn = usize::try_from(round)? % list.len();
            list.rotate_left(turn);
        }
        for (rival, under_load) in
            idle.into_iter().map(|rival| (rival, false)).chain(busy.into_iter().map(|r| (r, true)))
        {
            table::load(&server, plan.rows).await?;
            let run = if under_load {
                measure_busy(plan, rival, &server, product).await?
            } else {
                measure_idle(plan, rival, &server, product).await?
            };
            print_run(&run);
            runs.push(run);
        }
    }
    conclude(plan.flavor, &runs);
    Ok(())
}

fn start_server(flavor: Flavor) -> Result<Server> {
    if flavor.is_postgres() {
        return Server::start(&postgres::roomy(ServerSpec::new(flavor).durable()), false);
    }
    let spec = ServerSpec::new(flavor).durable().option("innodb-buffer-pool-size=2G");
    let spec = if flavor.is_mariadb() {
        spec.option("innodb-log-file-size=1G")
    } else {
        // with the default of this version pt-online-schema-change misreads EXPLAIN, takes the
        // table for empty and copies it in one locking statement: that would be no comparison
        spec.option("innodb-redo-log-capacity=1G").option("explain-format=TRADITIONAL")
    };
    Server::start(&spec, false)
}

async fn measure_idle(plan: Plan, rival: Rival, server: &Server, product: &Product) -> Result<Run> {
    let (took, memory_peak_bytes) = rival.change(server, product).await?;
    table::check(server, plan.rows).await?;
    Ok(Run { rival, took, memory_peak_bytes, traffic: None })
}

async fn measure_busy(plan: Plan, rival: Rival, server: &Server, product: &Product) -> Result<Run> {
    let writers = traffic::Writers::start(&table::url(server), plan.rows, plan.rate_per_s).await?;
    tokio::time::sleep(BEFORE).await;
    let from = writers.elapsed();
    let changed = rival.change(server, product).await;
    let to = writers.elapsed();
    let (samples, errors) = writers.stop().await?;
    let (took, memory_peak_bytes) = changed?;
    table::check(server, plan.rows).await?;
    let before = Summary::between(&samples, Duration::ZERO, from);
    let during = Summary::between(&samples, from, to);
    ensure!(during.transactions > 0, "the writers wrote nothing");
    let traffic = Some(Traffic { before, during, errors });
    Ok(Run { rival, took, memory_peak_bytes, traffic })
}

fn print_head() {
    println!(
        "{:<26} {:<5} {:>7} {:>6} {:>8} {:>8} {:>8} {:>8} {:>7} {:>7}",
        "tool", "load", "seconds", "MiB", "tx", "p50", "p95", "p99", "longest", "errors"
    );
}

fn print_run(run: &Run) {
    let name = run.rival.name();
    let seconds = run.took.as_secs_f64();
    // only ours is watched
    let memory = match run.memory_peak_bytes {
        0 => "-".to_owned(),
        bytes => (bytes >> 20).to_string(),
    };
    let Some(traffic) = &run.traffic else {
        println!("{name:<26} {:<5} {seconds:>7.1} {memory:>6}", "idle");
        return;
    };
    for (when, seen) in [("alone", traffic.before), (name, traffic.during)] {
        let errors = if when == name { traffic.errors.total().to_string() } else { String::new() };
        println!(
            "{when:<26} {:<5} {:>7} {:>6} {:>8} {:>8} {:>8} {:>8} {:>7} {errors:>7}",
            "busy",
            if when == name { format!("{seconds:.1}") } else { String::new() },
            if when == name { memory.clone() } else { String::new() },
            seen.transactions,
            ms(seen.p50),
            ms(seen.p95),
            ms(seen.p99),
            ms(seen.longest)
        );
    }
    if traffic.errors.total() > 0 {
        println!("  errors: {}", traffic.errors);
    }
}

/// Medians and ratios, and whether the targets were reached.
fn conclude(flavor: Flavor, runs: &[Run]) {
    let median = |rival: Rival, busy: bool, of: &dyn Fn(&Run) -> Duration| -> Duration {
        let fits = |run: &&Run| run.rival == rival && run.traffic.is_some() == busy;
        let mut values: Vec<Duration> = runs.iter().filter(fits).map(of).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    let idle = |rival| median(rival, false, &|run| run.took).as_secs_f64();
    let during = |rival, of: fn(&Summary) -> Duration| {
        median(rival, true, &move |run| {
            run.traffic.as_ref().map(|traffic| of(&traffic.during)).unwrap_or_default()
        })
    };
    let (peer, ratio_max, stall_max) = match flavor.is_postgres() {
        true => (Rival::Alter, TARGET_RATIO_ALTER, TARGET_STALL_POSTGRES),
        false => (Rival::PtOsc, TARGET_RATIO, TARGET_STALL),
    };
    let (ours, theirs) = (idle(Rival::Underpin), idle(peer));
    println!("\nmedians");
    for &rival in Rival::idle(flavor) {
        println!("  idle, {:<26} {:.1} s", rival.name(), idle(rival));
    }
    if !flavor.is_postgres() {
        println!("  idle, underpin to INSERT … SELECT: {:.2}", ours / idle(Rival::InsertSelect));
    }
    verdict(
        &format!("idle, underpin to {}: {:.2}", peer.name(), ours / theirs),
        ours / theirs <= ratio_max,
        &format!("at most {ratio_max}"),
    );
    // the longest of all runs, not the median: a stall that comes once is a stall
    let longest = runs
        .iter()
        .filter(|run| run.rival == Rival::Underpin)
        .filter_map(|run| run.traffic.as_ref().map(|traffic| traffic.during.longest))
        .max()
        .unwrap_or_default();
    verdict(
        &format!("busy, longest stall under underpin: {}", ms(longest)),
        longest <= stall_max,
        &format!("at most {}", ms(stall_max)),
    );
    let (ours, theirs) = (during(Rival::Underpin, |seen| seen.p99), during(peer, |seen| seen.p99));
    verdict(
        &format!("busy, p99 {} against {}", ms(ours), ms(theirs)),
        ours <= theirs,
        &format!("no worse than {}", peer.name()),
    );
}

fn verdict(figure: &str, reached: bool, target: &str) {
    println!("  {figure} ({target}: {})", if reached { "reached" } else { "MISSED" });
}
