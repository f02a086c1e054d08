//! A server at saturation: its writers come first. The light version; for one with more turns see
//! `underpin-lab pressure`.

use std::time::Duration;

use underpin_tests::pressure::{self, Plan};
use underpin_tests::servers::{Flavor, wanted};
use underpin_tests::workload::Layout;

/// Rows a second that are some progress.
const PROGRESS: u64 = 100;

/// The writers' 99th percentile stays within one and a half of its value without a run.
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
    let outcome = runtime.block_on(pressure::play(&plan)).unwrap();
    eprintln!("{}\n{outcome}", flavor.name());
    assert!(outcome.ratio() <= 1.5, "{:.2}", outcome.ratio());
    assert!(outcome.slowest() >= PROGRESS, "{:?}", outcome.rates);
}
