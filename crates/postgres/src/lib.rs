//! PostgreSQL behind the seam.
//!
//! One of the two rooms that name a driver and hold SQL. The same file names stand in the other one, so
//! a reader who knows this crate knows that one.

pub mod connect;
mod control;
mod database;
pub mod error;
pub mod flavor;
mod names;
pub mod options;
mod query;
pub mod tls;

pub use control::Control;
pub use database::Postgres;
