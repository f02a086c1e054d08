//! Many swaps in a row with many writers: every acknowledged write is in the final table.

use underpin_tests::cli;
use underpin_tests::product::Product;
use underpin_tests::servers::Flavor;
use underpin_tests::swaps::{self, Plan};
use underpin_tests::workload::Layout;

use crate::mysql_steps::{LIMIT, on_each_alone};

#[test]
fn swaps_in_a_row_with_sixteen_writers_lose_nothing() {
    let swaps = std::env::var("UNDERPIN_TEST_SWAPS").ok().and_then(|text| text.parse().ok());
    on_each_alone(&Flavor::ALL[..2], async |db| {
        let product = Product::at(cli::program().unwrap().to_owned()).unwrap().limited(LIMIT);
        let plan = Plan {
            url: db.url(),
            layout: Layout { rows: 2000, writers: 16 },
            swaps: swaps.unwrap_or(15),
            rate_per_s: Some(600),
            seed: 7,
            talk: false,
        };
        let tally = swaps::run(&plan, &product).await.unwrap();
        println!("{}: {tally}", db.endpoints().flavor.name());
        let fences = db.endpoints().flavor.is_mariadb();
        assert!(tally.flawless(fences), "{tally}");
    });
}
