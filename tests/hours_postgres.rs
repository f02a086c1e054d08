//! Business hours on PostgreSQL: replicas that fall behind, writers at saturation, orders from
//! elsewhere, runners that died.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

#[path = "hours/mod.rs"]
mod hours;

use hours::{alone, dead, lag, pressed, steering};
use underpin_tests::servers::Flavor;

const ONE: Flavor = Flavor::PostgresDistro;

#[test]
fn a_replica_that_stands_still_stops_the_copy() {
    let _alone = alone();
    lag::stands_still(ONE);
}

#[test]
fn at_saturation_the_writers_come_first() {
    let _alone = alone();
    pressed::writers_come_first(ONE);
}

#[test]
fn orders_take_effect_within_a_second_and_a_paused_run_holds_nothing() {
    let _alone = alone();
    steering::takes_effect_at_once(ONE);
}

#[test]
fn an_abort_from_elsewhere_takes_effect_within_a_second() {
    let _alone = alone();
    steering::abort_takes_effect_at_once(ONE);
}

#[test]
fn a_run_misses_no_session_that_was_killed() {
    let _alone = alone();
    dead::no_session_is_missed(ONE);
}

#[test]
fn a_dead_runner_is_told_as_such() {
    let _alone = alone();
    dead::is_told_as_such(ONE);
}
