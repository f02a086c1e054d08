//! The swap, with whoever else wants the table in that moment.
#![allow(clippy::unwrap_used)] // what cannot be had here fails the test
