//! Who reads the changes elsewhere: a streaming replica and a logical subscriber go on with equal rows.
#![allow(clippy::unwrap_used)] // what cannot be had here fails the test
