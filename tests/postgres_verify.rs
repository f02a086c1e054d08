//! Verification on PostgreSQL: ten corruptions of ten are found, and what is not proven is not told as proven.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

#[path = "verify/mod.rs"]
mod verify;

use underpin_tests::servers::Flavor;

const EACH: [Flavor; 1] = [Flavor::PostgresDistro];

/// Tells which corruptions there are, and on which rows.
const SEED: u64 = 1;

#[test]
fn ten_corruptions_of_ten_are_found_named_and_mended() {
    EACH.into_iter().for_each(|flavor| verify::ten_of_ten(flavor, SEED));
}

#[test]
fn what_is_corrupted_again_after_the_repair_is_never_swapped() {
    EACH.into_iter().for_each(verify::never_swaps);
}

#[test]
fn a_run_that_was_killed_while_it_compared_goes_on_there() {
    EACH.into_iter().for_each(verify::proofs::goes_on_where_it_was);
}

#[test]
fn a_sample_is_told_as_a_sample_until_everything_is_compared() {
    EACH.into_iter().for_each(verify::proofs::a_sample_is_told_as_such);
}
