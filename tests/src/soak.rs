//! The demo many times over: one lucky run proves little.
//!
//! Owns the table that is printed.

use anyhow::{Result, ensure};

use crate::demo::{self, Report, Script, grouped, ms};
use crate::product::Product;

/// Plays the demo `runs` times, each with servers and dice of its own, and prints a row for each.
///
/// # Errors
/// When a run could not be played, or was not flawless.
pub async fn run(script: Script, runs: u64, product: &Product) -> Result<()> {
    println!(
        "{:>4} {:>7} {:>10} {:>9} {:>9} {:>8} {:>7} {:>9} {:>9} {:>9}  lost or wrong",
        "run",
        "seconds",
        "copied",
        "captured",
        "applied",
        "verified",
        "errors",
        "stall",
        "p99",
        "lag"
    );
    let mut flawless: u64 = 0;
    for number in 1..=runs {
        let script = Script { seed: script.seed.wrapping_add(number), ..script };
        let report = demo::play(script, product).await?;
        print_row(number, &report);
        if report.flawless() {
            flawless += 1;
        } else {
            println!("{report}");
        }
    }
    println!("{flawless} of {runs} runs without an error, verified equal, nothing lost");
    ensure!(flawless == runs, "{} of {runs} runs were not flawless", runs - flawless);
    Ok(())
}

fn print_row(number: u64, report: &Report) {
    let product = &report.product;
    let figure = |field| product.number(field).map_or("-".to_owned(), grouped);
    let differences = &report.differences;
    let lost = differences.missing + differences.unexpected + differences.different;
    println!(
        "{number:>4} {:>7.1} {:>10} {:>9} {:>9} {:>8} {:>7} {:>9} {:>9} {:>9}  {lost}{}",
        product.took.as_secs_f64(),
        figure("rows_copied"),
        figure("changes_captured"),
        figure("changes_applied"),
        product.verdict(),
        report.errors.total(),
        ms(report.during.longest),
        ms(report.during.p99),
        ms(report.lag_peak),
        if report.replica.is_ok() { "" } else { ", replica differs" }
    );
}
