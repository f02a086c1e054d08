//! Many changes of one small table in a row while writers write: the swap, again and again.
//!
//! Owns the sequence and the tally. The writers and the check of what they were promised are
//! `workload`'s.

use std::fmt;

use anyhow::{Context, Result, ensure};

use crate::app::{self, App};
use crate::demo::ms;
use crate::product::Product;
use crate::servers::{Flavor, Pair, ServerSpec, sql};
use crate::workload::{Differences, Errors, Layout, Settings, Summary};

/// The same on PostgreSQL.
const CHANGES_POSTGRES: [&str; 2] = [
    "ALTER TABLE orders ALTER customer TYPE bigint, ALTER status TYPE varchar(20)",
    "ALTER TABLE orders ALTER customer TYPE integer, ALTER status TYPE varchar(16)",
];
/// There and back again, so that each change has something to change.
const CHANGES: [&str; 2] = [
    "ALTER TABLE orders MODIFY customer BIGINT NOT NULL, MODIFY note VARCHAR(200) NULL",
    "ALTER TABLE orders MODIFY customer INT NOT NULL, MODIFY note VARCHAR(120) NULL",
];

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The database, without the table.
    pub url: String,
    /// The table and its writers.
    pub layout: Layout,
    /// Changes, and thus swaps.
    pub swaps: u32,
    /// Transactions a second of all writers; `None` without pause.
    pub rate_per_s: Option<u32>,
    /// The writers' dice.
    pub seed: u64,
    /// Whether to print a line now and then.
    pub talk: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Changes that ended with exit code 0.
    pub swaps: u32,
    /// How long each swap held the application up by the product's own account, sorted.
    pub stalls_ms: Vec<u64>,
    /// Swaps tried in all.
    pub attempts: u64,
    /// Changes of the application captured in all.
    pub captured: u64,
    /// Every error that a writer saw.
    pub errors: Errors,
    /// What the writers felt.
    pub felt: Summary,
    /// The final table against the acknowledged writes.
    pub differences: Differences,
}

/// Loads the table, lets the writers go, makes the changes, and compares.
///
/// # Errors
/// When a change failed, or it could not be played; what was lost is in the tally.
pub async fn run(plan: &Plan, product: &Product) -> Result<Tally> {
    app::load(&plan.url, plan.layout).await.context("loading the table")?;
    let settings = Settings {
        url: plan.url.clone(),
        layout: plan.layout,
        rate_per_s: plan.rate_per_s,
        seed: plan.seed,
    };
    let writers = App::start(&settings).await?;
    let (mut stalls_ms, mut attempts, mut captured) = (Vec::new(), 0, 0);
    let began = writers.elapsed();
    let changes = if sql::is_postgres(&plan.url) { &CHANGES_POSTGRES } else { &CHANGES };
    for (number, change) in (1..=plan.swaps).zip(changes.iter().cycle()) {
        let (product, url) = (product.clone(), plan.url.clone());
        let call = move || {
            // Longer than the default: what is asked here is whether anything is lost, also on a machine
            // that has much else to do.
            let budget = ["--swap-budget", "3s"];
            let options = ["--strategy", "shadow", "--replica", "none", "--yes"];
            let words = [&["run", &url, change][..], &options, &budget].concat();
            product.call(&words, |_| {})
        };
        let ended = tokio::task::spawn_blocking(call).await.context("calling underpin")??;
        ensure!(
            ended.code == Some(0) && ended.verdict() == "equal",
            "change {number} ended with {:?}: {}",
            ended.code,
            ended.stderr
        );
        stalls_ms.extend(ended.number("swap_stall_ms"));
        attempts += ended.number("swap_attempts").unwrap_or(0);
        captured += ended.number("changes_captured").unwrap_or(0);
        if plan.talk && number % 20 == 0 {
            println!("· {number} of {} swaps, {attempts} tries", plan.swaps);
        }
    }
    let felt = (began, writers.elapsed());
    let seen = writers.stop(plan.layout).await?;
    let differences = seen.compare(&plan.url).await?;
    stalls_ms.sort_unstable();
    Ok(Tally {
        swaps: plan.swaps,
        stalls_ms,
        attempts,
        captured,
        felt: Summary::between(&seen.samples, felt.0, felt.1),
        errors: seen.errors,
        differences,
    })
}

/// The same on servers of its own, printed.
///
/// # Errors
/// As [`run`]; and when the tally is not flawless.
pub async fn soak(flavor: Flavor, plan: Plan, product: &Product) -> Result<()> {
    let pair = Pair::start(&ServerSpec::new(flavor))?;
    let url = pair.primary.url();
    sql::execute(&url, vec!["CREATE DATABASE swaps".to_owned()])?;
    let plan = Plan { url: format!("{url}swaps"), ..plan };
    let tally = run(&plan, product).await?;
    println!("{}: {tally}", flavor.name());
    ensure!(tally.flawless(flavor.is_mariadb()), "not flawless");
    Ok(())
}

impl Tally {
    /// Whether nothing was lost and no writer saw an error; with `fences` an error of the swap's fence
    /// is none.
    #[must_use]
    pub fn flawless(&self, fences: bool) -> bool {
        let allowed = if fences { self.errors.of("1213") } else { 0 };
        self.errors.total() == allowed
            && (allowed == 0 || self.errors.to_string().contains("underpin is swapping"))
            && self.differences.none()
            && self.differences.unsure == 0
    }

    fn stall_ms(&self, percent: usize) -> u64 {
        let rank = (self.stalls_ms.len() * percent).div_ceil(100);
        self.stalls_ms.get(rank.saturating_sub(1)).copied().unwrap_or(0)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} swaps in {} tries; stall p50 {} ms, p95 {} ms, longest {} ms; {} transactions, \
             {} changes captured; the longest transaction took {}; errors: {}; {}",
            self.swaps,
            self.attempts,
            self.stall_ms(50),
            self.stall_ms(95),
            self.stall_ms(100),
            self.felt.transactions,
            self.captured,
            ms(self.felt.longest),
            self.errors,
            self.differences
        )
    }
}
