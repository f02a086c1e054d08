//! MySQL and MariaDB behind the seam.
//!
//! One of the two rooms that name a driver and hold SQL. The same file names stand in the other one, so
//! a reader who knows this crate knows that one.

pub mod cancel;
pub mod connect;
pub mod error;
pub mod flavor;
pub mod mycnf;
pub mod options;
pub mod tls;
