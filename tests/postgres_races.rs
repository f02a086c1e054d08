//! Races between the application and the run, each brought about on purpose by single steps of the
//! dialect. Each fails when its rule is taken out; what rule that is stands at each test.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

mod postgres_steps;

#[path = "postgres_races/capture.rs"]
mod capture;
#[path = "postgres_races/copy.rs"]
mod copy;
#[path = "postgres_races/ground.rs"]
mod ground;
#[path = "postgres_races/keys.rs"]
mod keys;
#[path = "postgres_races/log.rs"]
mod log;
