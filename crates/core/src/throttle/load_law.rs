//! The law for signals of which nobody knows how the copy moves them: running statements, lock waits,
//! the latency of a write, a number of the user's own.
//!
//! Near the limit the rate is cut to a share, once in the time that the signal takes to answer, which is
//! learnt from the cuts; well below the limit it grows by steady steps. That finds a rate for any signal
//! that rises with the copy, and yields to a load that is the application's alone.

use super::law::{FREE_AT, SPEED_SHARE_MIN, Sight, middle};

/// Shares of the limit: above the one the rate is cut, below the other it grows.
const HIGH: f64 = 0.9;
const LOW: f64 = 0.8;
/// What a cut leaves.
const CUT: f64 = 0.75;
/// The time an answer takes, before one was seen, and bounds of what is believed, in milliseconds.
const ANSWER_MS: f64 = 2_000.0;
const ANSWER_MS_MIN: f64 = 500.0;
const ANSWER_MS_MAX: f64 = 40_000.0;
/// In so many times of an answer the rate grows by what it was before the last cut.
const GROW_ANSWERS: f64 = 10.0;
/// A gap between two readings counts as this much at most, in milliseconds.
const STEP_MS_MAX: f64 = 2_000.0;

/// The law of a load.
#[derive(Debug, Clone, Default)]
pub(super) struct LoadLaw {
    rate: Option<f64>,
    /// The last three readings as shares of the limit.
    last: [f64; 3],
    read_ms: Option<f64>,
    /// The rate before the last cut.
    before: f64,
    /// A cut that has not been answered yet.
    cut_ms: Option<f64>,
    hold_until_ms: f64,
    answer_ms: Option<f64>,
    brake: f64,
}

impl LoadLaw {
    pub(super) fn rows_per_s(&self) -> Option<f64> {
        self.rate.map(|rate| rate * self.brake)
    }

    pub(super) fn read(&mut self, sight: Sight<'_>) {
        let now = sight.at_ms;
        let passed_ms = self.read_ms.map_or(0.0, |last| now - last).clamp(0.0, STEP_MS_MAX);
        self.read_ms = Some(now);
        self.last = [self.last[1], self.last[2], sight.value / f64::max(sight.limit, 1e-9)];
        let share = middle(self.last);
        self.brake = ((1.0 - share) / (1.0 - HIGH)).clamp(0.1, 1.0);
        if share > HIGH {
            if now >= self.hold_until_ms {
                self.cut(sight);
            }
            return;
        }
        if let Some(cut_ms) = self.cut_ms.take() {
            let seen = (now - cut_ms).clamp(ANSWER_MS_MIN, ANSWER_MS_MAX);
            self.answer_ms = Some(self.answer_ms.map_or(seen, |old| old + (seen - old) * 0.3));
        }
        if share < LOW && !sight.stands && now >= self.hold_until_ms {
            self.grow(passed_ms, sight.speed);
        }
    }

    fn answer_ms(&self) -> f64 {
        self.answer_ms.unwrap_or(ANSWER_MS)
    }

    fn cut(&mut self, sight: Sight<'_>) {
        let now = sight.at_ms;
        let written = sight.ledger.rate(now - 5_000.0, now);
        let Some(before) = self.rate.or(sight.speed.filter(|_| written > 0.0)) else { return };
        // A copy that stands still has nothing to do with it.
        if !sight.stands || self.rate.is_none() {
            self.before = before;
            let least = sight.speed.unwrap_or(0.0) * SPEED_SHARE_MIN;
            self.rate = Some(f64::max(before * CUT, least));
        }
        self.cut_ms = self.cut_ms.or(Some(now));
        self.hold_until_ms = now + self.answer_ms() * 1.5;
    }

    fn grow(&mut self, passed_ms: f64, speed: Option<f64>) {
        let Some(rate) = self.rate else { return };
        let by = self.before * passed_ms / (self.answer_ms() * GROW_ANSWERS);
        let rate = rate + by;
        let is_free = speed.is_some_and(|speed| rate > speed * FREE_AT);
        self.rate = (!is_free).then_some(rate);
    }
}
