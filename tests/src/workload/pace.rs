//! When the next transaction is due.
//!
//! An open loop keeps its schedule whatever the server does: a transaction that had to wait behind
//! a stall counts the wait. A closed loop would go quiet during a stall and measure nothing.

use std::time::{Duration, Instant};

/// The schedule of one of several writers.
#[derive(Clone, Debug)]
pub struct Pace {
    origin: Instant,
    /// Time between two transactions of this writer; `None` in a closed loop.
    interval: Option<Duration>,
    due: Duration,
}

impl Pace {
    /// The schedule of writer `number` of `writers`, which together make `rate_per_s`.
    #[must_use]
    pub fn new(origin: Instant, rate_per_s: Option<u32>, number: u16, writers: u16) -> Self {
        let rate = rate_per_s.filter(|&rate| rate > 0);
        let interval = rate.map(|rate| Duration::from_secs(u64::from(writers)) / rate);
        // writers take turns instead of all striking at once
        let due = interval
            .map_or(Duration::ZERO, |interval| interval * u32::from(number) / u32::from(writers));
        Self { origin, interval, due }
    }

    /// Waits until the next transaction is due and returns that time, counted from the origin.
    /// Behind schedule it does not wait at all.
    pub async fn next(&mut self) -> Duration {
        let Some(interval) = self.interval else { return self.origin.elapsed() };
        let due = self.due;
        self.due += interval;
        tokio::time::sleep_until((self.origin + due).into()).await;
        due
    }

    /// Time since the origin.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }
}
