//! The way back on MySQL and MariaDB: what was written to the new table is in the old one, what only the old
//! one knew is there still, and where that cannot be the new table stays.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

mod mysql_steps;

#[path = "mysql_revert/bench.rs"]
mod bench;
#[path = "mysql_revert/ends.rs"]
mod ends;
#[path = "mysql_revert/kills.rs"]
mod kills;
#[path = "mysql_revert/refusals.rs"]
mod refusals;
#[path = "mysql_revert/values.rs"]
mod values;
#[path = "mysql_revert/writers.rs"]
mod writers;
