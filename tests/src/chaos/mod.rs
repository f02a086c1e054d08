//! Random tables, random changes, random writers, random faults; the same seed draws the same.
//!
//! Owns the sequence of rounds, the lines that are printed, and what is kept of a round that failed. Knows
//! the product only as a user does; what must hold at the end is found out by SQL of its own and by the
//! plain server's own `ALTER TABLE` (`check`).

mod change;
mod check;
mod deeds;
mod drive;
mod faults;
mod round;
mod session;
mod shape;
mod sum;
mod turns;
mod values;
mod writers;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::servers::{Flavor, Pair, ServerSpec};
use round::{Proof, Told};
use sum::Sum;

/// Tries to start servers.
const STARTS_MAX: u32 = 4;

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
    /// Instead of rounds the proof that they can fail, see [`prove`].
    pub proves: bool,
}

/// Plays rounds until the time is over, and prints a line for each and a summary for each server.
///
/// # Errors
/// When a round failed, or servers cannot be had.
pub fn soak(plan: &Plan) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("underpin-chaos-{}", std::process::id()));
    fs::create_dir_all(&folder).context("making the folder of the rounds")?;
    println!("the rounds' logs are in {}", folder.display());
    let folder = folder.as_path();
    let ended: Vec<Result<Sum>> = thread::scope(|scope| {
        let threads: Vec<_> = plan
            .flavors
            .iter()
            .map(|&flavor| scope.spawn(move || rounds_of(flavor, plan, folder)))
            .collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Result<Sum>>| {
            thread.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked")))
        };
        threads.into_iter().map(join).collect()
    });
    let mut failed = 0;
    for (flavor, sum) in plan.flavors.iter().zip(ended) {
        match sum {
            Ok(sum) => {
                print!("{}", sum.summary(*flavor));
                failed += sum.failed.len() + usize::from(sum.rounds == 0);
            }
            Err(error) => {
                println!("\n{}: ended early: {error:#}", flavor.name());
                failed += 1;
            }
        }
    }
    ensure!(failed == 0, "{failed} rounds failed");
    Ok(())
}

/// The rounds of one server, one after the other. A server that a failed round may have spoilt is thrown
/// away.
fn rounds_of(flavor: Flavor, plan: &Plan, folder: &Path) -> Result<Sum> {
    let mut pair = None;
    let mut sum = Sum::default();
    let mut began = None;
    for number in 0..plan.rounds {
        if began.is_some_and(|began: Instant| began.elapsed() >= plan.limit) {
            break;
        }
        let servers = match pair.take() {
            Some(servers) => servers,
            None => servers_of(flavor)?,
        };
        began.get_or_insert_with(Instant::now);
        let seed = plan.seed.wrapping_add(number);
        if plan.proves {
            prove(&servers, seed)?;
            sum.rounds += 1;
            pair = Some(servers);
            continue;
        }
        let told = round::play(&servers, seed, Proof::None);
        sum.add(flavor, seed, &told, &servers, folder)?;
        if told.outcome.is_ok() {
            pair = Some(servers);
        }
    }
    Ok(sum)
}

/// That a row which is spoilt is hit and noticed: by the program where it compares, and by the check at the
/// end of a round where the program is told not to.
fn prove(servers: &Pair, seed: u64) -> Result<()> {
    let flavor = servers.flavor().name();
    let compared = round::play(servers, seed, Proof::Compared);
    let found = (compared.spoilt, compared.repaired, compared.different);
    let outcome = compared.outcome.context("a round with a spoilt row, compared")?;
    ensure!(compared.spoilt > 0, "no row was spoilt: {}", compared.log);
    ensure!(
        compared.different > 0,
        "the program told of no difference: {found:?}, {outcome:?}: {}",
        compared.log
    );
    println!(
        "{flavor:<8} seed {seed} | compared: {found:?} (spoilt, repaired, calls that told of it) | {outcome:?}"
    );
    let not = round::play(servers, seed, Proof::NotCompared);
    ensure!(not.spoilt > 0, "no row was spoilt: {}", not.log);
    match not.outcome {
        Ok(outcome) => bail!("a spoilt row passed unseen: {outcome:?}: {}", not.log),
        Err(error) => {
            let words = format!("{error:#}");
            ensure!(words.contains("rows differ"), "failed for another reason: {words}");
            println!("{flavor:<8} seed {seed} | not compared: the round fails: {words}");
        }
    }
    Ok(())
}

/// A machine that is too busy for a server to come up in time is no fault of the round.
fn servers_of(flavor: Flavor) -> Result<Pair> {
    let spec = spec(flavor);
    for _ in 1..STARTS_MAX {
        match Pair::start(&spec) {
            Ok(pair) => return Ok(pair),
            Err(error) => println!("{}: {error:#}; it is tried again", flavor.name()),
        }
    }
    Pair::start(&spec)
}

/// Commits reach the operating system, so that a server that is killed keeps what it promised.
fn spec(flavor: Flavor) -> ServerSpec {
    let spec = ServerSpec::new(flavor);
    if flavor.is_postgres() {
        return spec.option("synchronous_commit=local");
    }
    spec.option("innodb-flush-log-at-trx-commit=2")
}

/// Leaves what is needed to understand a failed round in a folder of its own.
fn keep(flavor: Flavor, seed: u64, told: &Told, servers: &Pair, folder: &Path) -> Result<PathBuf> {
    let folder = folder.join(format!("{}-{seed}", flavor.name()));
    fs::create_dir_all(&folder).context("making the folder of a failed round")?;
    let files = [
        ("round.log", told.log.clone()),
        ("server.log", servers.primary.log()),
        ("replica.log", servers.replica.log()),
    ];
    for (name, text) in files {
        fs::write(folder.join(name), text).context("writing what is kept of a failed round")?;
    }
    Ok(folder)
}
