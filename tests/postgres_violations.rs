//! A new constraint or type that the rows violate stops the run before the swap and names them.
#![allow(clippy::unwrap_used)] // what cannot be had here fails the test
