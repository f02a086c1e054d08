//! Limits and targets of a run, and how they are changed while it goes on.

use crate::plan::Flow;
use crate::proof::Verification;
use crate::signal::{LAG, Limit, Setting, SwapWhen};
use crate::throttle::Throttle;

/// Thousandths of the time spent at work where nobody asked for less.
const WORK_SHARE_FULL: u32 = 1000;

/// Limits and targets of a run. All of them have defaults that suit most tables.
#[derive(Debug, Clone)]
pub struct Settings {
    /// In which order the run goes through its phases.
    pub flow: Flow,
    /// Chunks copied side by side, at most.
    pub workers: u32,
    /// How long a chunk should take, in milliseconds.
    pub chunk_ms_target: u64,
    /// Rows of the first chunks.
    pub chunk_rows_start: u64,
    /// Rows of a chunk at least.
    pub chunk_rows_min: u64,
    /// Rows of a chunk at most.
    pub chunk_rows_max: u64,
    /// Chunks of a round for each worker.
    pub round_chunks_per_worker: u32,
    /// Log entries from which the log is applied between rounds.
    pub apply_entries_high: u64,
    /// Age from which even a short log is applied, in milliseconds.
    pub apply_age_ms: u64,
    /// Rows that one application writes at most, unless it falls behind.
    pub apply_keys_max: u64,
    /// Log entries beyond which the log is applied even in a pause.
    pub log_entries_max: u64,
    /// Log entries below which the log counts as near empty.
    pub near_empty_entries: u64,
    /// Whether some indexes are left out of the copy and built after it; by blocks all of them are.
    pub deferred_indexes: bool,
    /// What of source and shadow is compared before the swap.
    pub verify: Verification,
    /// Tells which ranges a sample takes; the same for the same run.
    pub sample_seed: u64,
    /// Rows of a range to verify at most.
    pub verify_rows_max: u64,
    /// Lag of a replica above which the copy pauses, in milliseconds. It is the limit on [`LAG`].
    pub lag_ms_max: u64,
    /// Limits on other signals; of one on [`LAG`] only the value to abort at counts.
    pub limits: Vec<Limit>,
    /// Whether replicas are known, so that the absence of a reading is a reason to wait.
    pub replicas_known: bool,
    /// Of each stretch of time, the share in thousandths that is spent at work.
    pub work_share: u32,
    /// Rows a second at most.
    pub rows_per_s: Option<u64>,
    /// Bytes a second at most, told by `row_bytes`.
    pub bytes_per_s: Option<u64>,
    /// Average bytes of a row; 0 where unknown.
    pub row_bytes: u64,
    /// Whether the run stays revertible after the swap.
    pub keeps_way_back: bool,
    /// When the swap may be tried.
    pub swap_when: SwapWhen,
    /// Longest time under the swap's lock, in milliseconds.
    pub swap_budget_ms: u64,
    /// Longest time to go on trying for a lock, in milliseconds.
    pub lock_patience_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            flow: Flow::KeyRanges,
            workers: 4,
            chunk_ms_target: 400,
            chunk_rows_start: 2000,
            chunk_rows_min: 50,
            chunk_rows_max: 100_000,
            round_chunks_per_worker: 4,
            apply_entries_high: 5000,
            apply_age_ms: 10_000,
            apply_keys_max: 5000,
            log_entries_max: 100_000,
            near_empty_entries: 200,
            deferred_indexes: false,
            verify: Verification::Full,
            sample_seed: 0,
            verify_rows_max: 100_000,
            lag_ms_max: 2000,
            limits: Vec::new(),
            replicas_known: false,
            work_share: WORK_SHARE_FULL,
            rows_per_s: None,
            bytes_per_s: None,
            row_bytes: 0,
            keeps_way_back: false,
            swap_when: SwapWhen::Now,
            swap_budget_ms: 300,
            lock_patience_ms: 30 * 60 * 1000,
        }
    }
}

impl Settings {
    /// A throttle with these limits.
    pub(super) fn throttle(&self) -> Throttle {
        let mut throttle = Throttle::new(&self.limits_all(), self.replicas_known, self.workers);
        throttle.set(&Setting::WorkShare(self.work_share));
        throttle.set(&Setting::RowsPerS(self.rows_per_s));
        throttle.set(&Setting::BytesPerS(self.bytes_per_s));
        throttle
    }

    /// The limits, the one on lag among them.
    fn limits_all(&self) -> Vec<Limit> {
        let abort_at = self.limits.iter().find(|limit| limit.name == LAG);
        // Far below what an `f64` holds exactly, or beyond any lag there is.
        #[allow(clippy::cast_precision_loss)]
        let pause_at = Some(self.lag_ms_max as f64);
        let lag = Limit {
            name: LAG.to_owned(),
            pause_at,
            abort_at: abort_at.and_then(|limit| limit.abort_at),
        };
        let others = self.limits.iter().filter(|limit| limit.name != LAG).cloned();
        others.chain([lag]).collect()
    }

    /// Takes over what was set while the run goes on. `workers_max`: what it began with.
    pub(super) fn set(&mut self, setting: &Setting, workers_max: u32) {
        match setting {
            Setting::MaxLag(lag_ms) => self.lag_ms_max = *lag_ms,
            Setting::MaxLoad(name, value) => self.limit_mut(name).pause_at = *value,
            Setting::CriticalLoad(name, value) => self.limit_mut(name).abort_at = *value,
            Setting::WorkShare(share) => self.work_share = (*share).clamp(1, WORK_SHARE_FULL),
            Setting::RowsPerS(rows) => self.rows_per_s = *rows,
            Setting::BytesPerS(bytes) => self.bytes_per_s = *bytes,
            Setting::Workers(workers) => {
                self.workers = (*workers).clamp(1, std::cmp::max(workers_max, 1));
            }
            Setting::ChunkMs(chunk_ms) => self.chunk_ms_target = std::cmp::max(*chunk_ms, 1),
        }
    }

    fn limit_mut(&mut self, name: &str) -> &mut Limit {
        let at = self.limits.iter().position(|limit| limit.name == name);
        let at = at.unwrap_or_else(|| {
            self.limits.push(Limit { name: name.to_owned(), pause_at: None, abort_at: None });
            self.limits.len() - 1
        });
        &mut self.limits[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_on_lag_is_one_among_the_limits() {
        let mut settings = Settings { lag_ms_max: 3000, ..Settings::default() };
        settings.set(&Setting::CriticalLoad(LAG.into(), Some(60_000.0)), 4);
        settings.set(&Setting::MaxLoad("running".into(), Some(40.0)), 4);
        settings.set(&Setting::MaxLoad("running".into(), Some(50.0)), 4);
        let limit =
            |name: &str, pause_at, abort_at| Limit { name: name.into(), pause_at, abort_at };
        assert_eq!(
            settings.limits_all(),
            [limit("running", Some(50.0), None), limit(LAG, Some(3000.0), Some(60_000.0))]
        );
    }

    #[test]
    fn workers_stay_between_one_and_what_the_run_began_with() {
        let mut settings = Settings::default();
        for (asked, had) in [(0, 1), (3, 3), (99, 4)] {
            settings.set(&Setting::Workers(asked), 4);
            assert_eq!(settings.workers, had);
        }
    }
}
