//! What we wrote and when: rows in all, over time.
//!
//! A replica whose lag at time `t` is `l` has applied what was written up to `t - l`. So this tells how
//! many of our rows it has applied, without asking it.

use std::collections::VecDeque;

/// Time between two entries; rows written in between are spread evenly.
const STEP_MS: u64 = 200;

/// Entries kept: some four minutes, longer than any delay and lag that the law reckons with.
const ENTRIES_MAX: usize = 1_200;

/// Rows written in all, at times that rise.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    /// (time, rows written up to then).
    entries: VecDeque<(u64, f64)>,
}

impl Ledger {
    /// Notes that `rows` more rows were committed at `now_ms`.
    #[allow(clippy::cast_precision_loss)] // rows stay far below 2^53
    pub(super) fn note(&mut self, now_ms: u64, rows: u64) {
        let in_all = self.entries.back().map_or(0.0, |(_, rows)| *rows) + rows as f64;
        match self.entries.back_mut() {
            Some((at_ms, last)) if now_ms < at_ms.saturating_add(STEP_MS) => *last = in_all,
            last => {
                // What lies long back was not written evenly since: nothing was, up to now.
                let idle = last.map(|(at_ms, rows)| (*at_ms, *rows));
                if let Some((at_ms, rows)) = idle
                    && now_ms > at_ms + 2_000
                {
                    self.push(now_ms - 400, rows);
                }
                self.push(now_ms, in_all);
            }
        }
    }

    fn push(&mut self, at_ms: u64, rows: f64) {
        if self.entries.len() == ENTRIES_MAX {
            self.entries.pop_front();
        }
        self.entries.push_back((at_ms, rows));
    }

    /// Rows written up to a time.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn rows_at(&self, at_ms: f64) -> f64 {
        let behind = self.entries.partition_point(|(time_ms, _)| (*time_ms as f64) <= at_ms);
        let Some((from_ms, from)) = behind.checked_sub(1).and_then(|i| self.entries.get(i)) else {
            return self.entries.front().map_or(0.0, |(_, rows)| *rows);
        };
        let Some((to_ms, to)) = self.entries.get(behind) else { return *from };
        let share = (at_ms - *from_ms as f64) / ((to_ms - from_ms) as f64);
        from + (to - from) * share
    }

    /// Rows a second between two times.
    pub(super) fn rate(&self, from_ms: f64, to_ms: f64) -> f64 {
        if to_ms <= from_ms {
            return 0.0;
        }
        (self.rows_at(to_ms) - self.rows_at(from_ms)) * 1000.0 / (to_ms - from_ms)
    }
}
