//! Random tables, random changes, random writers, random faults; the same seed draws the same.
//!
//! Owns the sequence of rounds, the lines that are printed, and what is kept of a round that failed. Knows
//! the product only as a user does; what must hold at the end is found out by SQL of its own and by the
//! plain server's own `ALTER TABLE` (`check`).

mod change;
mod check;
mod deeds;
mod faults;
mod round;
mod session;
mod shape;
mod values;
mod writers;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::servers::{Flavor, Pair, ServerSpec};
use round::{Result_ as Outcome, Told};

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The servers, side by side.
    pub flavors: Vec<Flavor>,
    /// How long new rounds are begun.
    pub limit: Duration,
    /// The first round's seed; those that follow count on.
    pub seed: u64,
    /// At most so many rounds on each server.
    pub rounds: u64,
}

/// Sums over rounds.
#[derive(Debug, Default)]
struct Sum {
    rounds: u64,
    swapped: u64,
    refused: u64,
    stopped: u64,
    aborted: u64,
    rows: u64,
    transactions: u64,
    longest: Duration,
    faults: BTreeMap<String, u64>,
    failed: Vec<String>,
}

/// Plays rounds until the time is over, and prints a line for each and a summary.
///
/// # Errors
/// When a round failed, or servers cannot be had.
pub fn soak(plan: &Plan) -> Result<()> {
    let sum = Mutex::new(Sum::default());
    let ended: Vec<Result<()>> = thread::scope(|scope| {
        let sum = &sum;
        let threads: Vec<_> = plan
            .flavors
            .iter()
            .map(|&flavor| scope.spawn(move || rounds_of(flavor, plan, sum)))
            .collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Result<()>>| {
            thread.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked")))
        };
        threads.into_iter().map(join).collect()
    });
    let sum = sum.into_inner().map_err(|_| anyhow!("a thread panicked"))?;
    sum.print();
    ended.into_iter().collect::<Result<()>>()?;
    ensure!(sum.failed.is_empty(), "{} rounds failed", sum.failed.len());
    ensure!(sum.rounds > 0, "no round was played");
    Ok(())
}

/// The rounds of one server, one after the other. A server that a failed round may have spoilt is thrown
/// away.
fn rounds_of(flavor: Flavor, plan: &Plan, sum: &Mutex<Sum>) -> Result<()> {
    let began = Instant::now();
    let mut pair = None;
    for number in 0..plan.rounds {
        if began.elapsed() >= plan.limit && number > 0 {
            break;
        }
        let servers = match pair.take() {
            Some(servers) => servers,
            None => Pair::start(&spec(flavor))?,
        };
        let seed = plan.seed.wrapping_add(number);
        let told = round::play(&servers, seed);
        let mut sum = sum.lock().map_err(|_| anyhow!("another thread panicked"))?;
        sum.add(flavor, seed, &told, &servers)?;
        if told.outcome.is_ok() {
            pair = Some(servers);
        }
    }
    Ok(())
}

/// Commits reach the operating system, so that a server that is killed keeps what it promised.
fn spec(flavor: Flavor) -> ServerSpec {
    let spec = ServerSpec::new(flavor);
    if flavor.is_postgres() {
        return spec.option("synchronous_commit=local");
    }
    spec.option("innodb-flush-log-at-trx-commit=2")
}

impl Sum {
    fn add(&mut self, flavor: Flavor, seed: u64, told: &Told, servers: &Pair) -> Result<()> {
        self.rounds += 1;
        self.rows += told.rows;
        self.transactions += told.transactions;
        self.longest = std::cmp::max(self.longest, told.longest);
        for kind in &told.kinds {
            *self.faults.entry(kind.clone()).or_default() += 1;
        }
        let outcome = match &told.outcome {
            Ok(Outcome::Swapped) => {
                self.swapped += 1;
                "swapped".to_owned()
            }
            Ok(Outcome::Refused(words)) => {
                self.refused += 1;
                format!("refused: {}", in_short(words))
            }
            Ok(Outcome::Stopped(words)) => {
                self.stopped += 1;
                format!("stopped: {}", in_short(words))
            }
            Ok(Outcome::Aborted) => {
                self.aborted += 1;
                "aborted".to_owned()
            }
            Err(error) => {
                let kept = keep(flavor, seed, told, servers)?;
                self.failed.push(format!("--db {} --seed {seed}", flavor.name()));
                format!("FAILED: {error:#}\n  kept in {}", kept.display())
            }
        };
        println!(
            "{:<8} seed {seed} | {} | {} | {} | {} starts, {} transactions, longest {} ms, {:.0} s | {} rows equal | \
             {outcome}",
            flavor.name(),
            told.shape,
            told.change,
            if told.faults.is_empty() { "no fault".to_owned() } else { told.faults.join(", ") },
            told.starts,
            told.transactions,
            told.longest.as_millis(),
            told.took.as_secs_f64(),
            told.rows
        );
        Ok(())
    }

    fn print(&self) {
        println!(
            "\n{} rounds: {} swapped, {} refused by preflight, {} stopped as documented, {} aborted on request, \
             {} failed",
            self.rounds,
            self.swapped,
            self.refused,
            self.stopped,
            self.aborted,
            self.failed.len()
        );
        println!(
            "{} rows compared, {} transactions of writers, the longest {} ms",
            self.rows,
            self.transactions,
            self.longest.as_millis()
        );
        let faults: Vec<String> =
            self.faults.iter().map(|(kind, times)| format!("{kind} {times}")).collect();
        println!("faults: {}", faults.join(", "));
        for failed in &self.failed {
            println!("play it again: underpin-lab soak --chaos {failed}");
        }
    }
}

/// Leaves what is needed to understand a failed round in a folder of its own.
fn keep(flavor: Flavor, seed: u64, told: &Told, servers: &Pair) -> Result<PathBuf> {
    let name = format!("underpin-chaos-{}-{seed}-{}", flavor.name(), std::process::id());
    let folder = std::env::temp_dir().join(name);
    fs::create_dir_all(&folder).context("making the folder of a failed round")?;
    let text = format!(
        "{}\n{}\n{:?}\n{}\n{:?}\n",
        told.shape, told.change, told.faults, told.log, told.outcome
    );
    let files = [
        ("round.log", text),
        ("server.log", servers.primary.log()),
        ("replica.log", servers.replica.log()),
    ];
    for (name, text) in files {
        fs::write(folder.join(name), text).context("writing what is kept of a failed round")?;
    }
    Ok(folder)
}

fn in_short(words: &str) -> String {
    let line = words.split('\n').next().unwrap_or_default();
    line.chars().take(300).collect()
}
