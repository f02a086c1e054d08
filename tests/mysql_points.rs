//! Fail points on MySQL and MariaDB: struck before and after what we change at a server, the same command
//! goes on. Here a few points, each once; `cargo xtask walk --db DB` strikes at all of them, both ways.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

#[path = "points/brief.rs"]
mod brief;

use underpin_tests::servers::Flavor;

/// Statements of a run without which the walk would not have come far, twice: before and after.
const POINTS_MIN: usize = 90;

#[test]
fn struck_at_some_points_of_mysql_and_mariadb_it_goes_on() {
    // one after the other: side by side they hold each other up
    for flavor in [Flavor::MySql97, Flavor::MariaDbDistro] {
        brief::walk_run(flavor, 33, POINTS_MIN);
    }
}
