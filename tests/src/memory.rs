//! How much memory the product takes for tables of different sizes.
//!
//! Owns the runs and their table of figures. Watching the memory of a call is `product`'s.

use anyhow::{Context, Result, ensure};

use crate::app::{self, App};
use crate::demo::{self, grouped};
use crate::product::Product;
use crate::servers::{Flavor, Server, ServerSpec, sql};
use crate::workload::{Layout, Settings};

/// What the product may take at most, in bytes.
pub const LIMIT_BYTES: u64 = 64 << 20;

/// One change of a table of `rows` rows under four writers; returns the most memory that was held.
///
/// # Errors
/// When the change failed, a writer saw an error, or it could not be played.
pub async fn of_a_change(url: &str, rows: i64, product: &Product) -> Result<u64> {
    let layout = Layout { rows, writers: 4 };
    app::load(url, layout).await.context("loading the table")?;
    let settings = Settings { url: url.to_owned(), layout, rate_per_s: Some(100), seed: 3 };
    let writers = App::start(&settings).await?;
    let (product, url) = (product.clone(), url.to_owned());
    let change = if sql::is_postgres(&url) { demo::CHANGE_POSTGRES } else { demo::CHANGE };
    let call = move || product.call(&["run", &url, change, "--replica", "none", "--yes"], |_| {});
    let ended = tokio::task::spawn_blocking(call).await.context("calling underpin")??;
    let outcome = writers.stop(layout).await?;
    ensure!(ended.code == Some(0), "ended with {:?}: {}", ended.code, ended.stderr);
    ensure!(
        outcome.errors.total() == 0,
        "the writers saw errors: {}; the run: {:?}",
        outcome.errors,
        ended.notable
    );
    ensure!(ended.memory_peak_bytes > 0, "the memory could not be read");
    Ok(ended.memory_peak_bytes)
}

/// The same for each of `sizes` on a server of its own, printed.
///
/// # Errors
/// As [`of_a_change`]; and when it took more than the limit.
pub async fn soak(flavor: Flavor, sizes: &[i64], product: &Product) -> Result<()> {
    let cache = match flavor.is_postgres() {
        true => "shared_buffers=768MB",
        false => "innodb-buffer-pool-size=768M",
    };
    let server = Server::start(&ServerSpec::new(flavor).option(cache), false)?;
    sql::execute(&server.url(), vec!["CREATE DATABASE shop".to_owned()])?;
    println!("{:>12} {:>10}", "rows", "peak KiB");
    for &rows in sizes {
        let peak = of_a_change(&format!("{}shop", server.url()), rows, product).await?;
        println!("{:>12} {:>10}", grouped(u64::try_from(rows)?), grouped(peak >> 10));
        ensure!(peak < LIMIT_BYTES, "more than {} MiB", LIMIT_BYTES >> 20);
    }
    Ok(())
}
