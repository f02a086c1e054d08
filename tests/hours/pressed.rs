//! A server at saturation: its writers come first. The light version; for one with more turns see
//! `underpin-lab pressure`.
//!
//! The last hundredth of many short transactions tells more of what else runs on the machine than of anything
//! else; so where one play fails, two more decide. A run that does not give way fails in all of them.

use std::time::Duration;

use underpin_tests::pressure::{self, Plan};
use underpin_tests::servers::{Flavor, wanted};
use underpin_tests::workload::Layout;

/// What is promised is 1.5, which `underpin-lab pressure` holds to on a machine of its own. Here everything is a
/// debug build, and the writers share two cores with it: what captures the changes alone comes to 1.4.
const RATIO_MAX: f64 = 1.75;

/// Rows a second that are some progress.
const PROGRESS: u64 = 100;

/// The writers' 99th percentile stays near its value without a run, and the copy moves.
pub fn writers_come_first(flavor: Flavor) {
    if !wanted(flavor) {
        return;
    }
    let plan = Plan {
        flavor,
        layout: Layout { rows: 120_000, writers: 8 },
        rounds: 3,
        turn: Duration::from_secs(4),
        options: pressure::giving_way(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut ratios = Vec::new();
    while ratios.len() < 3 {
        let outcome = match runtime.block_on(pressure::play(&plan)) {
            Ok(outcome) => outcome,
            // a machine that is busier still: a run that never works fails in all plays
            Err(error) => {
                eprintln!("{}: {error:#}", flavor.name());
                ratios.push(f64::INFINITY);
                continue;
            }
        };
        eprintln!("{}\n{outcome}", flavor.name());
        assert!(outcome.slowest() >= PROGRESS, "{:?}", outcome.rates);
        if outcome.ratio() <= RATIO_MAX {
            return;
        }
        ratios.push(outcome.ratio());
    }
    panic!("the writers' p99 by its value without a run: {ratios:.2?}");
}
