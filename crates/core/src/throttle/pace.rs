//! A rate turned into "this chunk may begin now": a bucket of rows that fills at the rate, and a budget
//! of time for the share of time at work. Both may go into debt by what was begun, and neither saves up
//! more than a second's worth.
//!
//! Without a rate and with the whole of the time nothing is reckoned: full speed costs nothing.

use std::collections::VecDeque;

/// A chunk takes at most this part of a second's worth of rows, so that a slow pace goes in small steps.
const CHUNK_SHARE: f64 = 0.25;

/// A chunk of which no end was told for this long is forgotten.
const FORGET_AFTER_MS: u64 = 600_000;

/// The pace.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    workers_max: u32,
    workers: u32,
    user_rows_per_s: Option<f64>,
    user_bytes_per_s: Option<f64>,
    law_rows_per_s: Option<f64>,
    /// Thousandths of the time that may be spent at work.
    work_share: u32,
    /// Rows that may be begun; negative: a debt.
    rows: f64,
    /// Milliseconds that may be worked; negative: a debt.
    work_ms: f64,
    counted_ms: u64,
    /// Chunks begun and not ended: when, and how many rows they were thought to have.
    begun: VecDeque<(u64, f64)>,
    bytes_per_row: Option<f64>,
    /// Rows a second of one worker at work, of late.
    worker_speed: Option<f64>,
}

impl Pace {
    pub(super) fn new(workers_max: u32) -> Self {
        let workers_max = std::cmp::max(workers_max, 1);
        Self {
            workers_max,
            workers: workers_max,
            user_rows_per_s: None,
            user_bytes_per_s: None,
            law_rows_per_s: None,
            work_share: 1000,
            rows: 0.0,
            work_ms: 0.0,
            counted_ms: 0,
            begun: VecDeque::new(),
            bytes_per_row: None,
            worker_speed: None,
        }
    }

    pub(super) fn set_work_share(&mut self, permille: u32) {
        self.work_share = permille.clamp(1, 1000);
        self.work_ms = 0.0;
    }

    #[allow(clippy::cast_precision_loss)]
    pub(super) fn set_rows_per_s(&mut self, rows: Option<u64>) {
        self.user_rows_per_s = rows.map(|rows| f64::max(rows as f64, 1.0));
    }

    #[allow(clippy::cast_precision_loss)]
    pub(super) fn set_bytes_per_s(&mut self, bytes: Option<u64>) {
        self.user_bytes_per_s = bytes.map(|bytes| f64::max(bytes as f64, 1.0));
    }

    /// Never more than the run began with.
    pub(super) fn set_workers(&mut self, workers: u32) {
        self.workers = workers.clamp(1, self.workers_max);
    }

    pub(super) fn set_law(&mut self, now_ms: u64, rows_per_s: Option<f64>) {
        self.count(now_ms);
        self.law_rows_per_s = rows_per_s;
    }

    fn rate(&self) -> Option<f64> {
        let bytes = self.user_bytes_per_s.zip(self.bytes_per_row);
        let by_bytes = bytes.map(|(bytes, row)| bytes / f64::max(row, 1.0));
        [self.user_rows_per_s, by_bytes, self.law_rows_per_s].into_iter().flatten().reduce(f64::min)
    }

    /// Rows a second that the copy reaches unbridled, as far as is known.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn speed(&self) -> Option<f64> {
        self.worker_speed.map(|speed| speed * f64::from(self.workers))
    }

    /// Lets time pass: both budgets fill, work empties its own.
    #[allow(clippy::cast_precision_loss)]
    fn count(&mut self, now_ms: u64) {
        let passed_ms = now_ms.saturating_sub(self.counted_ms) as f64;
        self.counted_ms = std::cmp::max(now_ms, self.counted_ms);
        match self.rate() {
            Some(rate) => self.rows = f64::min(self.rows + rate * passed_ms / 1000.0, rate),
            None => self.rows = 0.0,
        }
        if self.work_share < 1000 {
            let spent_ms = if self.begun.is_empty() { 0.0 } else { passed_ms };
            let earned_ms = passed_ms * f64::from(self.work_share) / 1000.0;
            self.work_ms = f64::min(self.work_ms + earned_ms - spent_ms, 1000.0);
        }
    }

    /// Rows of the bucket that are not spoken for by chunks under way.
    fn rows_free(&self) -> f64 {
        self.rows - self.begun.iter().map(|(_, rows)| rows).sum::<f64>()
    }

    #[allow(clippy::cast_precision_loss)]
    pub(super) fn may_begin(&mut self, now_ms: u64, rows: u64) -> bool {
        self.count(now_ms);
        while self.begun.front().is_some_and(|(at_ms, _)| at_ms + FORGET_AFTER_MS < now_ms) {
            self.begun.pop_front();
        }
        let has_time = self.work_share >= 1000 || self.work_ms >= 0.0;
        let has_rows = self.rate().is_none() || self.rows_free() >= 0.0;
        // Bytes a second are kept to from the first chunk on, whose rows tell how long a row is.
        let knows_bytes = self.user_bytes_per_s.is_none()
            || self.bytes_per_row.is_some()
            || self.begun.is_empty();
        let may = has_time && has_rows && knows_bytes;
        if may {
            self.begun.push_back((now_ms, rows as f64));
        }
        may
    }

    /// A chunk has ended; `wrote`: rows and bytes, where it was one that writes.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn note_ended(&mut self, now_ms: u64, wrote: Option<(u64, u64)>) {
        self.count(now_ms);
        let Some((at_ms, thought)) = self.begun.pop_front() else { return };
        let Some((rows, bytes)) = wrote else {
            self.rows -= thought;
            return;
        };
        self.rows -= rows as f64;
        if rows > 0 {
            let took_ms = std::cmp::max(now_ms.saturating_sub(at_ms), 1) as f64;
            let near = |old: Option<f64>, new: f64| old.map_or(new, |old| old + (new - old) * 0.2);
            self.worker_speed = Some(near(self.worker_speed, rows as f64 * 1000.0 / took_ms));
            if bytes > 0 {
                self.bytes_per_row = Some(near(self.bytes_per_row, bytes as f64 / rows as f64));
            }
        }
    }

    pub(super) fn ready_at_ms(&self, now_ms: u64) -> u64 {
        let mut wait_ms = 0.0;
        if let Some(rate) = self.rate()
            && self.rows_free() < 0.0
        {
            wait_ms = -self.rows_free() * 1000.0 / f64::max(rate, 1e-9);
        }
        if self.work_share < 1000 && self.work_ms < 0.0 {
            wait_ms = f64::max(wait_ms, -self.work_ms * 1000.0 / f64::from(self.work_share));
        }
        let from_ms = if wait_ms > 0.0 { self.counted_ms } else { now_ms };
        std::cmp::max(now_ms, from_ms.saturating_add(whole(wait_ms)))
    }

    pub(super) fn chunk_rows_max(&self) -> Option<u64> {
        self.rate().map(|rate| std::cmp::max(whole(rate * CHUNK_SHARE), 1))
    }

    pub(super) fn rows_per_s(&self) -> Option<u64> {
        self.rate().map(whole)
    }

    /// As many as the rate needs, and a quarter more.
    pub(super) fn workers(&self) -> u32 {
        let (Some(rate), Some(speed)) = (self.rate(), self.worker_speed) else {
            return self.workers;
        };
        let needed = (rate * 1.25 / f64::max(speed, 1e-9)).ceil();
        u32::try_from(whole(needed)).unwrap_or(u32::MAX).clamp(1, self.workers)
    }
}

/// Without its fraction; far from what a `u64` holds.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(value: f64) -> u64 {
    f64::max(value, 0.0) as u64
}
