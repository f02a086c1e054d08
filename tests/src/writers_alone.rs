//! The writers of the demo without any schema change: they must see no error, and the final table
//! must hold what they were promised. Proves the demo's own ground.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::app::{self, App};
use crate::servers::Flavor;
use crate::stage::Stage;
use crate::workload::{Layout, Settings, Summary};

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
    let writers = App::start(&settings).await?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let span = writers.elapsed();
    let seen = writers.stop(layout).await?;
    let lag = lag.stop().await?;
    let summary = Summary::between(&seen.samples, Duration::ZERO, span);
    println!(
        "{} transactions ({:.0}/s), p50 {:.1?}, p95 {:.1?}, p99 {:.1?}, longest {:.1?}, \
         replica lag at most {lag:.1?}",
        summary.transactions,
        f64::from(u32::try_from(summary.transactions)?) / span.as_secs_f64(),
        summary.p50,
        summary.p95,
        summary.p99,
        summary.longest
    );
    println!("errors: {}", seen.errors);
    for (operation, (times, rows)) in &seen.tally {
        println!("  {operation}: {times} times, {rows} rows");
    }
    let began = Instant::now();
    let found = seen.compare(&stage.url()).await?;
    println!("table against acknowledged writes: {found} ({:.1?})", began.elapsed());
    stage.wait_caught_up()?;
    if let Some(replica) = stage.replica_url() {
        let rows = app::compare_replica(&stage.url(), &replica).await?;
        println!("replica equal: {rows} rows");
    }
    ensure!(seen.errors.total() == 0 && found.none(), "the writers alone must be flawless");
    Ok(())
}
