//! PostgreSQL behind the seam.
//!
//! One of the two rooms that name a driver and hold SQL. The same file names stand in the other one, so
//! a reader who knows this crate knows that one.

mod build;
pub mod cancel;
mod changelog;
pub mod connect;
mod control;
mod copy;
mod database;
mod dependents;
mod diagnose;
pub mod error;
mod fingerprint;
pub mod flavor;
mod health;
mod inspect;
mod kept;
mod keys;
mod leftovers;
mod long_log;
mod names;
pub mod options;
mod pgpass;
mod preflight;
mod privileges;
mod query;
mod service;
mod shadow;
mod shadow_print;
mod shape;
mod statements;
mod steps;
mod store;
mod swap;
pub mod tls;
mod trigger;
mod turned;
mod twin;
mod types;
mod verify;
mod way_back;
mod worker;

pub use control::Control;
pub use database::Postgres;
pub use health::Probe;
pub use worker::Worker;
