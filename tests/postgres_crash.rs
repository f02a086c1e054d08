//! Crashes: of the program and of the server. The same command goes on, and nothing is lost.
#![allow(clippy::unwrap_used)] // what cannot be had here fails the test
