//! Fail points on PostgreSQL: struck before and after what we change at a server, the same command goes
//! on. Here a few points, each once; `cargo xtask walk --db postgres` strikes at all of them, both ways.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

#[path = "points/brief.rs"]
mod brief;

use underpin_tests::servers::Flavor;

/// Statements of a run without which the walk would not have come far, twice: before and after.
const POINTS_MIN: usize = 90;

#[test]
fn struck_at_some_points_of_postgres_it_goes_on() {
    brief::walk_run(Flavor::PostgresDistro, 21, POINTS_MIN);
}
