//! MySQL and MariaDB behind the seam.
//!
//! One of the two rooms that name a driver and hold SQL. The same file names stand in the other one, so
//! a reader who knows this crate knows that one.

mod backlog;
pub mod cancel;
mod changelog;
pub mod connect;
mod control;
mod copy;
mod counter;
mod database;
mod diagnose;
pub mod error;
mod fingerprint;
pub mod flavor;
mod floor;
mod forms;
mod health;
mod inspect;
mod late;
mod leftovers;
pub mod mycnf;
pub mod options;
mod preflight;
mod privileges;
mod query;
mod reversal;
mod shadow;
mod shadow_print;
mod shape;
mod silent;
mod statements;
mod store;
mod strangers;
mod swap;
pub mod tls;
mod trigger;
mod types;
mod verify;
mod wayback;
mod worker;
mod xa;

pub use control::Control;
pub use database::MySql;
pub use health::Probe;
pub use worker::Worker;
