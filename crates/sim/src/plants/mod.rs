//! Simulated replicas, a thousand of them, each from a seed: the throttle of `underpin-core`, the very
//! one that runs in production, slows a copy down that would drown them.
//!
//! A plant is a replica that applies what is written in the order in which it was written, an
//! application with its bursts, and a reading of the lag that comes late, trembles and is coarse. The
//! law sees that reading and nothing else. Beside it an oracle copies onto the same plant: it knows
//! capacity and load at every moment. `docs/decisions/010-throttle.md` has the figures.

mod meter;
mod plant;
mod play;
mod table;

pub use meter::Outcome;
pub use plant::Plant;
pub use play::{Driver, play, play_many};
pub use table::table;
