//! The writers of the demo without any schema change: they must see no error, and the final table
//! must hold what they were promised. Proves the demo's own ground.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::servers::Flavor;
use crate::stage::Stage;
use crate::workload::{Layout, Settings, Summary, Workload, compare_replica, compare_table};

/// Loads the table, lets the writers write for `seconds`, checks and prints.
///
/// # Errors
/// Any error that a writer saw, any difference, and the server's words.
pub async fn run(
    flavor: Flavor,
    layout: Layout,
    rate_per_s: Option<u32>,
    seconds: u64,
    seed: u64,
) -> Result<()> {
    let stage = Stage::open(flavor, false, layout)?;
    let began = Instant::now();
    stage.load().await?;
    println!("loaded {} rows in {:.1} s", layout.rows, began.elapsed().as_secs_f64());
    let settings = Settings { url: stage.url(), layout, rate_per_s, seed };
    let lag = stage.watch_lag().await?;
    let writers = Workload::start(&settings).await?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let span = writers.elapsed();
    let outcome = writers.stop().await?;
    let lag = lag.stop().await?;
    let seen = Summary::between(&outcome.samples, Duration::ZERO, span);
    println!(
        "{} transactions ({:.0}/s), p50 {:.1?}, p95 {:.1?}, p99 {:.1?}, longest {:.1?}, \
         replica lag at most {lag:.1?}",
        seen.transactions,
        f64::from(u32::try_from(seen.transactions)?) / span.as_secs_f64(),
        seen.p50,
        seen.p95,
        seen.p99,
        seen.longest
    );
    println!("errors: {}", outcome.errors);
    let began = Instant::now();
    let found = compare_table(&stage.url(), layout, &outcome.models).await?;
    println!("table against acknowledged writes: {found} ({:.1?})", began.elapsed());
    stage.wait_caught_up()?;
    if let Some(replica) = stage.replica_url() {
        println!("replica equal: {} rows", compare_replica(&stage.url(), &replica).await?);
    }
    ensure!(outcome.errors.total() == 0 && found.none(), "the writers alone must be flawless");
    Ok(())
}
