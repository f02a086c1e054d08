//! How long the copy still takes, from what it did lately, and how far off that may be. Pure arithmetic.

use std::collections::VecDeque;

/// Samples kept; at one a round this covers the last minute or so.
const SAMPLES_MAX: usize = 30;

/// With fewer stretches than this between samples nothing is known about their spread.
const STRETCHES_MIN: usize = 5;

/// A standstill longer than so many usual stretches counts as time spent; a shorter one is a round that
/// has not ended yet.
const STANDSTILL_STRETCHES: u64 = 3;

/// An estimate of the time left, in seconds. `low_s` ≤ `likely_s` ≤ `high_s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// At the better pace of late.
    pub low_s: u64,
    /// At the mean pace of late, pauses included.
    pub likely_s: u64,
    /// At the worse pace of late.
    pub high_s: u64,
}

/// Remembers recent progress and estimates the rest.
#[derive(Debug, Clone, Default)]
pub struct Eta {
    samples: VecDeque<(u64, u64)>,
}

impl Eta {
    /// Notes that `rows` in all had been copied at `now_ms`.
    pub fn note(&mut self, now_ms: u64, rows: u64) {
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back((now_ms, rows));
    }

    /// Rows a second over the samples; `None` until there are two with time between them.
    pub fn rows_per_s(&self) -> Option<u64> {
        let (first_ms, first_rows) = self.samples.front()?;
        let (last_ms, last_rows) = self.samples.back()?;
        let span_ms = last_ms.checked_sub(*first_ms).filter(|span| *span > 0)?;
        Some(last_rows.saturating_sub(*first_rows).saturating_mul(1000) / span_ms)
    }

    /// The time left for `rows_left` more rows; `None` while nothing is known.
    ///
    /// The pace is the mean of the last rounds, pauses included, for there will be more of them. The
    /// spread is that of the rounds: the pace that a fifth of them beat, and the one that a fifth of
    /// them missed. While there are too few, half and twice.
    pub fn left(&self, now_ms: u64, rows_left: u64) -> Option<Estimate> {
        let mut stretches = self.stretches();
        let count = u64::try_from(stretches.len()).unwrap_or(u64::MAX);
        let (first_ms, first_rows) = *self.samples.front()?;
        let (last_ms, last_rows) = *self.samples.back()?;
        let usual_ms = last_ms.saturating_sub(first_ms).checked_div(count)?;
        let still_ms = now_ms.saturating_sub(last_ms);
        let mut until_ms = last_ms;
        if still_ms > usual_ms.saturating_mul(STANDSTILL_STRETCHES) {
            until_ms = now_ms;
            stretches.push((still_ms, 0));
        }
        let mean = (until_ms.saturating_sub(first_ms), last_rows.saturating_sub(first_rows));
        let likely_s = seconds(rows_left, mean)?;
        if stretches.len() < STRETCHES_MIN {
            return Some(Estimate {
                low_s: likely_s / 2,
                likely_s,
                high_s: likely_s.saturating_mul(2),
            });
        }
        // By pace, the fastest first; compared without dividing.
        stretches.sort_by_key(|(ms, rows)| std::cmp::Reverse(rows.saturating_mul(1_000_000) / ms));
        let fast = stretches[stretches.len() / 5];
        let slow = stretches[stretches.len() - 1 - stretches.len() / 5];
        let low_s = std::cmp::min(seconds(rows_left, fast).unwrap_or(likely_s), likely_s);
        // A standstill has no pace: then nobody knows better than by twice.
        let high_s = seconds(rows_left, slow).unwrap_or_else(|| likely_s.saturating_mul(2));
        Some(Estimate { low_s, likely_s, high_s: std::cmp::max(high_s, likely_s) })
    }

    /// Milliseconds and rows between samples that have time between them.
    fn stretches(&self) -> Vec<(u64, u64)> {
        let mut stretches = Vec::with_capacity(SAMPLES_MAX);
        let mut rows_kept = 0;
        let pairs = self.samples.iter().zip(self.samples.iter().skip(1));
        for ((from_ms, from_rows), (to_ms, to_rows)) in pairs {
            let rows = to_rows.saturating_sub(*from_rows).saturating_add(rows_kept);
            match to_ms.saturating_sub(*from_ms) {
                // Two samples at one time are one.
                0 => rows_kept = rows,
                ms => {
                    rows_kept = 0;
                    stretches.push((ms, rows));
                }
            }
        }
        stretches
    }
}

/// Seconds for `rows_left` at a pace of `rows` in `ms`; `None` where nothing moved.
fn seconds(rows_left: u64, (ms, rows): (u64, u64)) -> Option<u64> {
    let ms_left = u128::from(rows_left) * u128::from(ms);
    let ms_left = ms_left.checked_div(u128::from(rows))?;
    Some(u64::try_from(ms_left / 1000).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(samples: &[(u64, u64)]) -> Eta {
        let mut eta = Eta::default();
        for (now_ms, rows) in samples {
            eta.note(*now_ms, *rows);
        }
        eta
    }

    #[test]
    fn estimates_from_the_recent_rate() {
        assert_eq!(of(&[]).left(0, 10), None);
        assert_eq!(of(&[(0, 0)]).left(0, 10), None);
        let eta = of(&[(0, 0), (2000, 1000)]);
        assert_eq!(eta.rows_per_s(), Some(500));
        let estimate = eta.left(2000, 5000).unwrap();
        assert_eq!(estimate, Estimate { low_s: 5, likely_s: 10, high_s: 20 });
    }

    #[test]
    fn a_standstill_has_no_estimate() {
        assert_eq!(of(&[(0, 7), (1000, 7)]).left(1000, 5000), None);
    }

    #[test]
    fn an_even_pace_has_no_spread() {
        let samples: Vec<(u64, u64)> = (0..20).map(|i| (i * 1000, i * 500)).collect();
        let estimate = of(&samples).left(19_000, 50_000).unwrap();
        assert_eq!(estimate, Estimate { low_s: 100, likely_s: 100, high_s: 100 });
    }

    #[test]
    fn an_uneven_pace_shows_in_the_spread() {
        // By turns 1,000 and 250 rows a second.
        let mut samples = vec![(0, 0)];
        for i in 0..20_u64 {
            let (ms, rows) = samples[samples.len() - 1];
            samples.push((ms + 1000, rows + if i % 2 == 0 { 1000 } else { 250 }));
        }
        let estimate = of(&samples).left(20_000, 10_000).unwrap();
        assert_eq!(estimate, Estimate { low_s: 10, likely_s: 16, high_s: 40 });
    }

    #[test]
    fn a_pause_makes_it_longer_while_it_lasts() {
        let samples: Vec<(u64, u64)> = (0..11).map(|i| (i * 1000, i * 1000)).collect();
        let eta = of(&samples);
        assert_eq!(eta.left(12_000, 10_000).unwrap().likely_s, 10, "a round may take that long");
        let paused = eta.left(30_000, 10_000).unwrap();
        assert_eq!((paused.low_s, paused.likely_s), (10, 30));
    }

    #[test]
    fn samples_at_one_time_are_one() {
        let eta = of(&[(0, 0), (0, 100), (1000, 200), (1000, 300), (2000, 400)]);
        assert_eq!(eta.left(2000, 400).unwrap().likely_s, 2);
    }
}
