//! How long things took: a small histogram from which percentiles are told, exact to an eighth.
//!
//! Kept with the run's counters, so it must stay small however many chunks there are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Below this every millisecond has a bucket of its own; above, each doubling has eight.
const EXACT_BELOW: u64 = 16;

/// Buckets of each doubling, as a power of two.
const EIGHTHS: u32 = 3;

/// Durations in milliseconds, counted by bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Times {
    /// Greatest duration of the bucket → how many.
    counts: BTreeMap<u64, u64>,
}

impl Times {
    /// Counts a duration.
    pub fn note(&mut self, took_ms: u64) {
        *self.counts.entry(bucket(took_ms)).or_insert(0) += 1;
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.counts.values().sum()
    }

    /// The duration that `percent` of all did not exceed, rounded up by an eighth at most; `None` while
    /// nothing was counted.
    pub fn percentile_ms(&self, percent: u32) -> Option<u64> {
        let wanted = self.count().saturating_mul(u64::from(percent)).div_ceil(100);
        let mut seen = 0;
        self.counts.iter().find_map(|(ms, count)| {
            seen += count;
            (seen >= wanted).then_some(*ms)
        })
    }

    /// The longest, likewise rounded.
    pub fn max_ms(&self) -> Option<u64> {
        self.counts.last_key_value().map(|(ms, _)| *ms)
    }
}

/// The greatest duration of the bucket that this one belongs to.
fn bucket(ms: u64) -> u64 {
    match ms.checked_ilog2() {
        Some(doublings) if ms >= EXACT_BELOW => {
            let width = 1_u64 << (doublings - EIGHTHS);
            ms | (width - 1)
        }
        _ => ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_exact_to_an_eighth_and_never_too_low() {
        let mut times = Times::default();
        assert_eq!((times.percentile_ms(50), times.max_ms()), (None, None));
        for ms in 1..=1000 {
            times.note(ms);
        }
        for percent in [1, 50, 95, 99, 100] {
            let exact = u64::from(percent) * 10;
            let told = times.percentile_ms(percent).unwrap();
            assert!(told >= exact && told <= exact + exact / 8, "{percent} %: {told} ms");
        }
        assert_eq!(times.percentile_ms(1), Some(10), "short ones are exact");
    }

    #[test]
    fn it_stays_small_and_takes_everything() {
        let mut times = Times::default();
        for doublings in 0..64 {
            for eighth in 0..8 {
                times.note((1_u64 << doublings) | (eighth << std::cmp::max(doublings, 3) >> 3));
            }
        }
        times.note(0);
        times.note(u64::MAX);
        assert!(times.counts.len() <= 500, "{}", times.counts.len());
        assert_eq!(times.max_ms(), Some(u64::MAX));
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let mut times = Times::default();
        times.note(7);
        times.note(700);
        let text = serde_json::to_string(&times).unwrap();
        assert_eq!(serde_json::from_str::<Times>(&text).unwrap(), times);
        assert_eq!(text, r#"{"7":1,"703":1}"#);
    }
}
