//! How long the copy still takes, from what it did lately. Pure arithmetic.

use std::collections::VecDeque;

/// Samples kept; at one a round this covers the last minute or so.
const SAMPLES_MAX: usize = 30;

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

    /// Seconds left for `rows_left` more rows; `None` while nothing moves.
    pub fn left_s(&self, rows_left: u64) -> Option<u64> {
        self.rows_per_s().filter(|rate| *rate > 0).map(|rate| rows_left / rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_from_the_recent_rate() {
        let mut eta = Eta::default();
        assert_eq!(eta.left_s(10), None);
        eta.note(0, 0);
        eta.note(2000, 1000);
        assert_eq!(eta.rows_per_s(), Some(500));
        assert_eq!(eta.left_s(5000), Some(10));
    }

    #[test]
    fn a_standstill_has_no_estimate() {
        let mut eta = Eta::default();
        eta.note(0, 7);
        eta.note(1000, 7);
        assert_eq!(eta.left_s(5000), None);
    }
}
