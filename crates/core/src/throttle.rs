//! Readings of the servers around us → may the copy go on, and if not, why.
//!
//! This is the simple law of the first release: the copy pauses while a replica lags more than the
//! limit or cannot be read. Pure: readings and time come in as values.

use crate::signal::{LAG, Reading};

/// The state of the throttle.
#[derive(Debug, Clone, Default)]
pub struct Throttle {
    lag_ms_max: u64,
    readings: Vec<Reading>,
    read_at_ms: Option<u64>,
    expects_readings: bool,
}

/// A set of readings older than this is no reading at all.
pub const STALE_AFTER_MS: u64 = 10_000;

impl Throttle {
    /// A throttle with this limit. `expects_readings`: replicas are known, so that silence is a
    /// reason to stop.
    pub fn new(lag_ms_max: u64, expects_readings: bool) -> Self {
        Self { lag_ms_max, expects_readings, ..Self::default() }
    }

    /// Takes in the newest readings of all replicas.
    pub fn read(&mut self, now_ms: u64, readings: Vec<Reading>) {
        if !readings.is_empty() {
            self.expects_readings = true;
        }
        self.readings = readings;
        self.read_at_ms = Some(now_ms);
    }

    /// The greatest lag among the replicas, in milliseconds; `None` where one cannot be read.
    pub fn worst_lag_ms(&self) -> Option<u64> {
        self.readings
            .iter()
            .filter(|reading| reading.name == LAG)
            .map(Reading::lag_ms)
            .try_fold(0, |worst, lag| lag.map(|lag_ms| std::cmp::max(worst, lag_ms)))
    }

    /// Why the copy must wait; `None` where it may go on.
    pub fn reason(&self, now_ms: u64) -> Option<String> {
        if !self.expects_readings {
            return None;
        }
        let Some(read_at_ms) = self.read_at_ms else {
            return Some("the replicas have not been read yet".to_owned());
        };
        let age_ms = now_ms.saturating_sub(read_at_ms);
        if age_ms > STALE_AFTER_MS {
            return Some(format!("no reading of the replicas for {} s", age_ms / 1000));
        }
        let lags = self.readings.iter().filter(|reading| reading.name == LAG);
        lags.into_iter().find_map(|reading| match reading.lag_ms() {
            None => Some(format!("replica {} cannot be read: {}", reading.of, reading.error)),
            Some(lag_ms) if lag_ms > self.lag_ms_max => Some(format!(
                "replica {} lags {} (limit {})",
                reading.of,
                seconds(lag_ms),
                seconds(self.lag_ms_max)
            )),
            Some(_) => None,
        })
    }
}

/// Milliseconds as seconds with one digit, as `3.1 s`.
fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(lag_ms: Option<u32>) -> Reading {
        match lag_ms {
            Some(lag_ms) => {
                Reading::new(LAG, "db2:3306", "test", crate::signal::Unit::Ms, f64::from(lag_ms))
            }
            None => {
                Reading::unreadable(LAG, "db2:3306", "test", crate::signal::Unit::Ms, "refused")
            }
        }
    }

    #[test]
    fn pauses_over_the_limit_and_says_why() {
        let mut throttle = Throttle::new(2000, true);
        throttle.read(0, vec![reading(Some(2000))]);
        assert_eq!(throttle.reason(0), None);
        throttle.read(0, vec![reading(Some(3140))]);
        assert_eq!(
            throttle.reason(0).as_deref(),
            Some("replica db2:3306 lags 3.1 s (limit 2.0 s)")
        );
    }

    #[test]
    fn a_replica_that_cannot_be_read_is_infinite_lag() {
        let mut throttle = Throttle::new(2000, true);
        throttle.read(0, vec![reading(Some(0)), reading(None)]);
        assert!(throttle.reason(0).is_some_and(|why| why.contains("cannot be read: refused")));
        assert_eq!(throttle.worst_lag_ms(), None);
    }

    #[test]
    fn stale_or_missing_readings_fail_closed() {
        let mut throttle = Throttle::new(2000, true);
        assert!(throttle.reason(0).is_some());
        throttle.read(0, vec![reading(Some(0))]);
        assert_eq!(throttle.reason(STALE_AFTER_MS), None);
        assert!(throttle.reason(STALE_AFTER_MS + 1).is_some());
    }

    #[test]
    fn without_replicas_there_is_nothing_to_wait_for() {
        let mut throttle = Throttle::new(2000, false);
        assert_eq!(throttle.reason(99_999), None);
        throttle.read(0, vec![]);
        assert_eq!(throttle.reason(99_999), None);
    }
}
