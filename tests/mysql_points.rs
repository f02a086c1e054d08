//! Fail points on MySQL and MariaDB: struck before and after what we change at a server, the same command
//! goes on. Here every second point once; `cargo xtask walk --db DB` strikes at all of them, both ways.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

#[path = "points/brief.rs"]
mod brief;

use underpin_tests::servers::Flavor;

#[test]
fn struck_at_every_second_point_of_mysql_it_goes_on() {
    brief::walk_run(Flavor::MySql97);
}

#[test]
fn struck_at_every_second_point_of_mariadb_it_goes_on() {
    brief::walk_run(Flavor::MariaDbDistro);
}
