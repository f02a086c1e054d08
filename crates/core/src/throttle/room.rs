//! What a replica has left for us, and how late its lag is read: found from the lag and from what we
//! wrote, without asking for more.
//!
//! A lag `l` read at time `t`, `d` late, says that at `t - d` what was written up to `t - d - l` was
//! applied. So between two readings the replica has applied a stretch of writing time, and the ledger
//! tells how many of our rows lie in it: as long as it had something to do, that many it can take.
//!
//! Which `d` is the right one, the readings tell too: under a wrong one a replica that works on steadily
//! seems to stand still and to hurry, each time the copy stopped or began. So the sum is done for a row
//! of delays side by side, and the one that is surprised least is believed.

use std::collections::VecDeque;

use super::ledger::Ledger;

/// Delays that come into question, in milliseconds.
const DELAYS_MS: [f64; 15] = [
    0.0, 1_000.0, 2_000.0, 3_000.0, 4_500.0, 6_000.0, 8_000.0, 10_000.0, 12_500.0, 15_000.0,
    18_000.0, 21_000.0, 24_000.0, 27_500.0, 31_000.0,
];

/// Stretches of time that are compared, in milliseconds.
const STRETCH_MS: f64 = 2_000.0;
/// What was found in a stretch is forgotten by this, for the capacity changes,
const KEEP: f64 = 0.985;
/// and by this at the beginning of a new time of lag;
const KEEP_OLD: f64 = 0.1;
/// the delay hardly ever changes.
const KEEP_ERRORS: f64 = 0.9985;

/// What the application is taken to write, as a share of the replica's capacity. It matters only while
/// the lag moves, and then little; what is found anew with a lag that moves less is found more exactly.
const SHARE: f64 = 0.25;

/// One delay, and what follows if it is the right one.
#[derive(Debug, Clone, Copy, Default)]
struct Line {
    errors: f64,
    /// Rows of ours applied, and the time that took, without the application's share.
    rows: f64,
    time: f64,
}

/// All delays, and the one believed in.
#[derive(Debug, Clone)]
pub(super) struct Room {
    lines: [Line; DELAYS_MS.len()],
    best: usize,
    /// Readings of the last stretch: when, and the lag.
    readings: VecDeque<(f64, f64)>,
    /// Rows a second that count as one.
    unit: f64,
    /// How long it took in the last times until what we did against a lag had brought it down.
    stops: VecDeque<f64>,
    /// A new time of lag begins: what was found in the one before counts for little.
    is_new: bool,
    /// Something was found in this time of lag.
    is_fresh: bool,
}

impl Room {
    pub(super) fn new() -> Self {
        Self {
            lines: [Line::default(); DELAYS_MS.len()],
            best: 0,
            readings: VecDeque::new(),
            unit: 0.0,
            stops: VecDeque::new(),
            is_new: true,
            is_fresh: false,
        }
    }

    pub(super) fn delay_ms(&self) -> f64 {
        DELAYS_MS[self.best]
    }

    /// After so long the lag had answered to what we did: it is not read later than that.
    pub(super) fn note_answer(&mut self, lasted_ms: f64) {
        if self.stops.len() == 4 {
            self.stops.pop_front();
        }
        self.stops.push_back(lasted_ms);
        self.choose();
    }

    /// Believes in the delay that was surprised least. A much longer one than so far must be much the
    /// better: too long a delay makes us slow for good, and bursts look like one.
    fn choose(&mut self) {
        let bound = self.stops.iter().copied().fold(f64::INFINITY, f64::min) + 500.0;
        if DELAYS_MS[self.best] > bound {
            self.best = 0;
        }
        for (index, line) in self.lines.iter().enumerate() {
            let best = self.lines[self.best].errors;
            // Errors are squares of shares; a stop under a wrong delay makes about one a second.
            let (share, less) = if index > self.best + 1 { (0.4, 3.0) } else { (0.8, 0.7) };
            if DELAYS_MS[index] <= bound && line.errors < best * share && line.errors < best - less
            {
                self.best = index;
            }
        }
    }

    /// Rows a second that the replica has left for us.
    pub(super) fn rows_per_s(&self) -> Option<f64> {
        let line = &self.lines[self.best];
        (self.is_fresh && line.time > 0.1 && line.rows > 0.0)
            .then(|| line.rows / line.time * (1.0 - SHARE) * self.unit)
    }

    /// The lag is low: the replica may have had nothing to do.
    pub(super) fn end(&mut self) {
        self.is_new = true;
        self.is_fresh = false;
        self.readings.clear();
    }

    /// Takes in a reading. `floor`: below this lag the replica may have had nothing to do.
    pub(super) fn read(&mut self, now: f64, lag: f64, floor: f64, ledger: &Ledger) {
        if self.readings.back().is_some_and(|(at, last)| *last == lag && now - at < 10_000.0) {
            return;
        }
        self.readings.push_back((now, lag));
        while self.readings.get(1).is_some_and(|(at, _)| now - at >= STRETCH_MS) {
            self.readings.pop_front();
        }
        let Some((from, from_lag)) = self.readings.front().copied() else { return };
        let passed = now - from;
        self.is_new |= lag < floor;
        if lag < floor || from_lag < floor || passed < STRETCH_MS * 0.4 {
            return;
        }
        let s = 1.0 - (lag - from_lag) / passed;
        if !(0.03..1.3).contains(&s) {
            return; // it stands still, or runs through what the application wrote alone
        }
        if self.unit <= 0.0 {
            self.unit = ledger.rate(now - 10_000.0, now);
            if self.unit <= 0.0 {
                return;
            }
        }
        self.is_fresh = true;
        let is_new = std::mem::take(&mut self.is_new);
        for (line, delay) in self.lines.iter_mut().zip(DELAYS_MS) {
            let rows = ledger.rows_at(now - delay - lag) - ledger.rows_at(from - delay - from_lag);
            let w = rows * 1000.0 / passed / self.unit;
            let t = 1.0 - SHARE * s;
            let slowness =
                if line.rows > 0.0 { f64::min(line.time / line.rows, 50.0) } else { 0.0 };
            let error =
                if line.time > 0.0 && s > 0.15 { (w * slowness - t).clamp(-0.7, 0.7) } else { 0.0 };
            line.errors = line.errors * KEEP_ERRORS + error * error;
            let keep = if is_new { KEEP_OLD } else { KEEP };
            line.rows = line.rows * keep + w;
            line.time = line.time * keep + t;
        }
        self.choose();
    }
}
