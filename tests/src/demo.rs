//! The demo: a large table changed under four writers, and what became of everything.
//!
//! Owns the sequence, the verdict and the summary. The servers are `stage`'s, the writers
//! `workload`'s, the change is the product's.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::app::{self, App};
use crate::product::{Ended, Product};
use crate::servers::Flavor;
use crate::stage::Stage;
use crate::workload::{Differences, Errors, Layout, Settings, Summary};

/// Needs a copy on every server: a column grows, one is added that may not be null, and an index.
pub const CHANGE: &str = "ALTER TABLE orders MODIFY customer BIGINT NOT NULL, \
     ADD COLUMN priority SMALLINT NOT NULL DEFAULT 3, ADD INDEX amount (amount)";
/// The same on PostgreSQL, where a constraint takes the index's place.
pub const CHANGE_POSTGRES: &str = "ALTER TABLE orders ALTER COLUMN customer TYPE bigint, \
     ADD COLUMN priority smallint NOT NULL DEFAULT 3, \
     ADD CONSTRAINT orders_customer_id UNIQUE (customer, shop, id)";

/// How long the writers write alone before and after.
const ALONE: Duration = Duration::from_secs(3);

/// What to play.
#[derive(Clone, Copy, Debug)]
pub struct Script {
    /// On which server.
    pub flavor: Flavor,
    /// Servers from `docker-compose.yml` instead of our own.
    pub docker: bool,
    /// The table and the number of writers.
    pub layout: Layout,
    /// Transactions a second of all writers; `None` without pause.
    pub rate_per_s: Option<u32>,
    /// The writers' dice.
    pub seed: u64,
    /// Whether to tell what happens as it happens.
    pub talk: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// The product's own account.
    pub product: Ended,
    /// The writers before the change.
    pub before: Summary,
    /// The writers during the change.
    pub during: Summary,
    /// Every error that a writer saw.
    pub errors: Errors,
    /// The final table against the acknowledged writes.
    pub differences: Differences,
    /// Rows on the replica, or how it differs.
    pub replica: Result<u64, String>,
    /// Longest lag of the replica, by heartbeat.
    pub lag_peak: Duration,
    /// Whether the table has the new shape.
    pub changed: bool,
}

/// Plays the demo from the start of the servers to the comparison of the tables.
///
/// # Errors
/// When it could not be played; a bad outcome is in the report.
pub async fn play(script: Script, product: &Product) -> Result<Report> {
    let Script { flavor, docker, layout, rate_per_s, seed, .. } = script;
    script.tell(|| format!("starting a primary and a replica ({})", flavor.name()));
    let stage = Stage::open(flavor, docker, layout)?;
    let began = Instant::now();
    stage.load().await.context("loading the table")?;
    let seconds = began.elapsed().as_secs_f64();
    script.tell(|| format!("loaded {} rows in {seconds:.1} s", grouped(rows(layout))));
    let lag = stage.watch_lag().await?;
    let settings = Settings { url: stage.url(), layout, rate_per_s, seed };
    let writers = App::start(&settings).await?;
    script.tell(|| format!("{} writers: insert, update, delete, roll back", layout.writers));
    tokio::time::sleep(ALONE).await;
    let change = change(flavor);
    script.tell(|| format!("underpin run '{change}'"));
    let from = writers.elapsed();
    let (product, url) = (product.clone(), stage.url());
    let call = move || {
        let words = ["run", &url, change, "--yes"];
        product.call(&words, |event| {
            if script.talk {
                show(event)
            }
        })
    };
    let product =
        tokio::task::spawn_blocking(call).await.context("calling underpin panicked")??;
    let to = writers.elapsed();
    tokio::time::sleep(ALONE).await;
    let seen = writers.stop(layout).await?;
    let lag_peak = lag.stop().await?;
    script.tell(|| "comparing the table with what the writers were promised".to_owned());
    let differences = seen.compare(&stage.url()).await?;
    Ok(Report {
        product,
        before: Summary::between(&seen.samples, Duration::ZERO, from),
        during: Summary::between(&seen.samples, from, to),
        errors: seen.errors,
        differences,
        replica: compare_with_replica(&stage).await.map_err(|error| format!("{error:#}")),
        lag_peak,
        changed: app::has_column(&stage.url(), "priority")?,
    })
}

async fn compare_with_replica(stage: &Stage) -> Result<u64> {
    stage.wait_caught_up()?;
    let replica = stage.replica_url().context("there is no replica")?;
    app::compare_replica(&stage.url(), &replica).await
}

/// The demo's change in the words of the server.
#[must_use]
pub const fn change(flavor: Flavor) -> &'static str {
    if flavor.is_postgres() { CHANGE_POSTGRES } else { CHANGE }
}

fn rows(layout: Layout) -> u64 {
    u64::try_from(layout.rows).unwrap_or(0)
}

impl Script {
    fn tell(&self, words: impl FnOnce() -> String) {
        if self.talk {
            println!("· {}", words());
        }
    }
}

/// An event in a line for people; progress in its main figures.
fn show(event: &Value) {
    let text = |field: &str| match event.get(field) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => "-".to_owned(),
        Some(value) => value.to_string(),
    };
    match event.get("event").and_then(Value::as_str).unwrap_or_default() {
        "phase" => println!("  {}", text("phase")),
        "progress" => println!(
            "    {} of about {} rows, backlog {}, replica lag {} ms",
            text("rows_copied"),
            text("rows_estimate"),
            text("backlog"),
            text("lag_ms")
        ),
        "paused" => println!("  paused: {}", text("reason")),
        "retrying" => println!("  again: {}: {}", text("what"), text("why")),
        "lock_try" => println!("  the lock was not had: {}", text("why")),
        "error" => println!("  error: {}", text("message")),
        _ => {}
    }
}

impl Report {
    /// Whether everything is as it must be: changed, verified, no error seen, nothing lost.
    #[must_use]
    pub fn flawless(&self) -> bool {
        self.product.code == Some(0)
            && self.product.verdict() == "equal"
            && self.changed
            && self.errors.total() == 0
            && self.differences.none()
            && self.differences.unsure == 0
            && self.replica.is_ok()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let product = &self.product;
        let number = |field| product.number(field).map_or("-".to_owned(), grouped);
        let mut line = |name: &str, value: String| writeln!(out, "{name:<22} {value}");
        if product.code != Some(0) {
            line("underpin ended with", product.code.map_or("a signal".into(), |c| c.to_string()))?;
            line("its words", product.stderr.trim().to_owned())?;
        }
        line("rows copied", number("rows_copied"))?;
        line("changes captured", number("changes_captured"))?;
        line("changes applied", number("changes_applied"))?;
        line("verification", product.verdict())?;
        line("swap held writers up", number("swap_stall_ms") + " ms")?;
        line(
            "longest stall",
            format!("{} (before: {})", ms(self.during.longest), ms(self.before.longest)),
        )?;
        line(
            "p99 from schedule",
            format!("{} (before: {})", ms(self.during.p99), ms(self.before.p99)),
        )?;
        line(
            "writers' transactions",
            grouped(u64::try_from(self.during.transactions).unwrap_or(0)),
        )?;
        line("errors they saw", self.errors.to_string())?;
        line("replica lag, peak", ms(self.lag_peak))?;
        line("acknowledged writes", self.differences.to_string())?;
        let replica = match &self.replica {
            Ok(rows) => format!("equal, {} rows", grouped(*rows)),
            Err(difference) => difference.clone(),
        };
        line("primary and replica", replica)?;
        line("underpin's memory", format!("{} MiB at most", product.memory_peak_bytes >> 20))?;
        line("wall time of the run", format!("{:.1} s", product.took.as_secs_f64()))
    }
}

/// Milliseconds, rounded.
pub(crate) fn ms(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1000.0)
}

/// A number with its thousands apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn thousands_are_apart() {
        let texts: Vec<String> = [0, 999, 1000, 1_000_005].into_iter().map(grouped).collect();
        assert_eq!(texts, ["0", "999", "1,000", "1,000,005"]);
    }
}
