//! Harness: throwaway database servers, write load, demo, soak and benchmarks.
//!
//! Owns everything the end-to-end tests share. Knows nothing of the product's inside: it meets
//! `underpin` only as a user does, by its command line and by the tables it leaves.
#![allow(clippy::print_stderr, clippy::print_stdout)]

pub mod app;
pub mod bench;
pub mod busy;
pub mod catalogue;
pub mod chaos;
pub mod cli;
pub mod demo;
pub mod disk;
pub mod memory;
pub mod mirrored;
pub mod pressure;
pub mod prober;
pub mod product;
pub mod proxy;
pub mod runner;
pub mod servers;
pub mod soak;
pub mod stage;
pub mod swaps;
pub mod walk;
pub mod workload;
pub mod writers_alone;
