//! The program's memory does not grow with the table. Larger sizes: `cargo xtask soak --memory`.

use underpin_tests::cli;
use underpin_tests::memory;
use underpin_tests::product::Product;
use underpin_tests::servers::{Flavor, TestDb};

/// What a table of five times the size may take more: nothing but noise of the allocator.
const GROWTH_MAX_BYTES: u64 = 12 << 20;

#[test]
fn memory_is_bounded_whatever_the_size_of_the_table() {
    for flavor in &Flavor::ALL[..2] {
        let Some(db) = TestDb::new(*flavor) else { continue };
        let product = Product::at(cli::program().unwrap().to_owned()).unwrap();
        let of = |rows: i64| {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(memory::of_a_change(&db.url(), rows, &product)).unwrap()
        };
        let small = of(50_000);
        // loading takes most of the time, and what the program holds does not depend on the server
        let large = if flavor.is_mariadb() { of(250_000) } else { of(100_000) };
        eprintln!(
            "{}: {} KiB for 50,000 rows, {} KiB for the larger table",
            flavor.name(),
            small >> 10,
            large >> 10
        );
        assert!(small < memory::LIMIT_BYTES && large < memory::LIMIT_BYTES, "{small} {large}");
        assert!(large < small + GROWTH_MAX_BYTES, "{small} {large}");
    }
}
