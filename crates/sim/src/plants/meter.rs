//! What is measured of a played plant, and what counts as swinging.

use super::plant::{LENGTH_S, Plant, QUIET_S};

/// Rates are taken over windows of so many seconds at least.
const WINDOW_S_MIN: u64 = 5;

/// What came of one plant.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// How late the reading was, in seconds.
    pub delay_s: f64,
    /// The limit, in milliseconds.
    pub limit_ms: f64,
    /// Rows copied, as a share of what the oracle copied.
    pub of_oracle: f64,
    /// Worst lag, in milliseconds, in all,
    pub worst_ms: f64,
    /// and the worst of an oracle that hears of everything as late as the reading comes: no law that
    /// has only the reading can promise less.
    pub unavoidable_ms: f64,
    /// Worst lag after the first meeting with the replica's capacity, in milliseconds.
    pub worst_later_ms: f64,
    /// Of the whole time, the share in which the lag was above the limit by more than 2 s.
    pub far_over: f64,
    /// In the quiet end: how far the rate swings, as a share of its mean,
    pub swing: f64,
    /// how often the copy was stopped for more than 2 s,
    pub stops: u32,
    /// and whether that went on to the end.
    pub is_swinging: bool,
}

/// Follows a run.
#[derive(Debug, Clone)]
pub(super) struct Meter {
    rows: Vec<f64>,
    lags: Vec<f64>,
    stopped: Vec<bool>,
}

impl Meter {
    pub(super) fn new() -> Self {
        let seconds = usize::try_from(LENGTH_S).unwrap_or_default();
        Self { rows: vec![0.0; seconds], lags: vec![0.0; seconds], stopped: vec![false; seconds] }
    }

    /// Notes a step within a second: rows begun, lag at its end, whether the copy was stopped.
    pub(super) fn note(&mut self, second: usize, rows: f64, lag_ms: f64, stopped: bool) {
        self.rows[second] += rows;
        self.lags[second] = f64::max(self.lags[second], lag_ms);
        self.stopped[second] |= stopped;
    }

    /// Sustained swinging is looked for where nothing changes from outside any more: in each half of
    /// the quiet end the rate goes up and down by more than half of its mean, or the copy is
    /// stopped twice and more. One half may be what is left of the last change.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(super) fn outcome(&self, plant: &Plant, oracle_rows: f64, unavoidable_ms: f64) -> Outcome {
        let rows: f64 = self.rows.iter().sum();
        let worst = |lags: &[f64]| lags.iter().copied().fold(0.0, f64::max);
        let over_ms = plant.limit_ms + 2_000.0;
        let far = self.lags.iter().filter(|lag_ms| **lag_ms > over_ms).count();
        // The first meeting is over when the lag was above the limit and is well below it again.
        let met = self.stopped.iter().position(|stopped| *stopped);
        let later = met.map_or(self.lags.len(), |met| {
            let rest = &self.lags[met..];
            let settle = rest.iter().position(|lag_ms| *lag_ms < plant.limit_ms * 0.2);
            met + settle.unwrap_or(rest.len())
        });
        let quiet = (LENGTH_S - QUIET_S) as usize;
        let half = (QUIET_S / 2) as usize;
        let window = std::cmp::max(WINDOW_S_MIN, (plant.delay_s / 2.0) as u64) as usize;
        let (early, early_stops) = self.swing(quiet, quiet + half, window);
        let (late, late_stops) = self.swing(quiet + half, self.rows.len(), window);
        let swings = |swing: f64, stops| swing > 0.5 || stops >= 2;
        Outcome {
            seed: plant.seed,
            delay_s: plant.delay_s,
            limit_ms: plant.limit_ms,
            of_oracle: rows / f64::max(oracle_rows, 1.0),
            worst_ms: worst(&self.lags),
            unavoidable_ms,
            worst_later_ms: worst(&self.lags[later..]),
            far_over: far as f64 / self.lags.len() as f64,
            swing: f64::max(early, late),
            stops: early_stops + late_stops,
            is_swinging: swings(early, early_stops) && swings(late, late_stops),
        }
    }

    /// How far the rate over windows goes up and down (from the tenth to the ninetieth percentile) as a
    /// share of its mean, and how often the copy was stopped for more than 2 s.
    #[allow(clippy::cast_precision_loss)]
    fn swing(&self, from: usize, to: usize, window: usize) -> (f64, u32) {
        let rows = &self.rows[from..to];
        let mut rates: Vec<f64> =
            rows.windows(window).map(|rows| rows.iter().sum::<f64>() / window as f64).collect();
        rates.sort_by(f64::total_cmp);
        let mean = rates.iter().sum::<f64>() / rates.len() as f64;
        let spread = rates[rates.len() * 9 / 10] - rates[rates.len() / 10];
        let mut stops = 0;
        let mut length = 0;
        for stopped in &self.stopped[from..to] {
            length = if *stopped { length + 1 } else { 0 };
            if length == 3 {
                stops += 1;
            }
        }
        (spread / f64::max(mean, 1e-9), stops)
    }
}
