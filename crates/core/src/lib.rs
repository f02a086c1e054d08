//! The decisions of underpin, and nothing else.
//!
//! This crate does no I/O, has no clock, no randomness and no driver: time and readings come in as
//! values, actions go out as values. That is what lets the simulator drive the very machine that runs
//! in production, and what makes recovery a function of a checkpoint and what was observed.
//!
//! Start at [`machine`]. `docs/protocol.md` tells why no row is lost.

pub mod alter;
pub mod checkpoint;
pub mod chunk;
pub mod eta;
pub mod finding;
pub mod ident;
pub mod key;
pub mod machine;
pub mod mapping;
pub mod plan;
pub mod proof;
pub mod schema;
pub mod signal;
pub mod statements;
pub mod throttle;
pub mod times;
pub mod turn;
pub mod way;
pub mod window;
