//! Races between the application and the run, each brought about on purpose: by single steps of the
//! dialect where a gap lies inside a step, by traps on the real program's statements where it lies
//! between two. Each fails when its rule is taken out; `docs/safety.md` says which line that is.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

mod mysql_steps;

#[path = "mysql_races/between_steps.rs"]
mod between_steps;
#[path = "mysql_races/prepared.rs"]
mod prepared;
#[path = "mysql_races/source_changed.rs"]
mod source_changed;
#[path = "mysql_races/within_steps.rs"]
mod within_steps;
