//! Business hours on MySQL and MariaDB: replicas that fall behind, writers at saturation, orders from
//! elsewhere, runners that died.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

#[path = "hours/mod.rs"]
mod hours;

use hours::{alone, dead, lag, pressed, steering};
use underpin_tests::servers::Flavor;

/// The newest of each; the other MariaDB differs in none of this.
const EACH: [Flavor; 2] = [Flavor::MySql97, Flavor::MariaDbDistro];

#[test]
fn a_replica_that_stands_still_stops_the_copy() {
    let _alone = alone();
    EACH.into_iter().for_each(lag::stands_still);
}

#[test]
fn a_replica_that_is_slow_slows_the_copy_down() {
    let _alone = alone();
    lag::is_slow(Flavor::MySql97);
}

#[test]
fn at_saturation_the_writers_come_first() {
    let _alone = alone();
    pressed::writers_come_first(Flavor::MySql97);
}

#[test]
fn orders_take_effect_within_a_second_and_a_paused_run_holds_nothing() {
    let _alone = alone();
    EACH.into_iter().for_each(steering::takes_effect_at_once);
}

#[test]
fn an_abort_from_elsewhere_takes_effect_within_a_second() {
    let _alone = alone();
    EACH.into_iter().for_each(steering::abort_takes_effect_at_once);
}

#[test]
fn a_run_misses_no_session_that_was_killed() {
    let _alone = alone();
    EACH.into_iter().for_each(dead::no_session_is_missed);
}

#[test]
fn a_dead_runner_is_told_as_such() {
    let _alone = alone();
    EACH.into_iter().for_each(dead::is_told_as_such);
}
