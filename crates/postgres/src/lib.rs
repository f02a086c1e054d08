//! PostgreSQL behind the seam.
//!
//! One of the two rooms that name a driver and hold SQL. The same file names stand in the other one, so
//! a reader who knows this crate knows that one.

pub mod cancel;
mod changelog;
pub mod connect;
mod control;
mod copy;
mod database;
mod diagnose;
pub mod error;
pub mod flavor;
mod health;
mod names;
pub mod options;
mod pgpass;
mod query;
mod service;
mod shape;
mod store;
pub mod tls;
mod trigger;
mod types;
mod verify;
mod worker;

pub use control::Control;
pub use database::Postgres;
pub use health::Probe;
pub use worker::Worker;
