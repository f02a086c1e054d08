//! What a person watching the run should hear: turns events and the machine's progress into reports,
//! and remembers what outlives a lost connection (worst lag, stall, tries).

use std::time::Duration;

use tokio::time::Instant;
use underpin_core::checkpoint::{Checkpoint, Counters, Phase};
use underpin_core::key::Frontier;
use underpin_core::machine::{Event, FailureKind, Progress};
use underpin_core::plan::RunSpec;
use underpin_core::signal::Reading;

use crate::enter::table_of;
use crate::report::{Report, StoppedAs, Summary, Verdict};
use crate::reporter::Reporter;

/// What was seen and told so far.
#[derive(Debug)]
pub(crate) struct Watch {
    reporter: Reporter,
    every: Duration,
    phase: Option<Phase>,
    rows_copied: u64,
    is_paused: bool,
    lock_tries: u32,
    told_at: Instant,
    lag_ms_max: Option<u64>,
    stall_ms: Option<u64>,
}

impl Watch {
    pub(crate) fn new(reporter: Reporter, every_ms: u64) -> Self {
        Self {
            reporter,
            every: Duration::from_millis(every_ms),
            phase: None,
            rows_copied: 0,
            is_paused: false,
            lock_tries: 0,
            told_at: Instant::now(),
            lag_ms_max: None,
            stall_ms: None,
        }
    }

    /// Takes in an event before the machine does.
    pub(crate) fn event(&mut self, event: &Event, swap_attempts: u64) {
        match event {
            Event::ChunkRolledBack { why, .. } => {
                self.retrying("copying or verifying a chunk", why)
            }
            Event::ApplyRolledBack { why } => self.retrying("applying the log", why),
            Event::LockNotHad { why } => self.lock_try(why),
            Event::DrainTooSlow { .. } => {
                self.lock_try(
                    "the log could not be drained within the time allowed under the lock",
                );
            }
            Event::Prepared | Event::Finished => self.lock_tries = 0,
            Event::Swapped { stall_ms, drained } => {
                self.lock_tries = 0;
                self.stall_ms = Some(*stall_ms);
                let (stall_ms, drained) = (*stall_ms, *drained);
                self.reporter.tell(|at_ms| Report::Swap {
                    at_ms,
                    stall_ms,
                    drained,
                    attempts: swap_attempts,
                });
            }
            Event::Signals(readings) => self.lag(readings),
            Event::Failed(failure) | Event::ChunkFailed { failure, .. }
                if failure.kind == FailureKind::Truncated =>
            {
                self.retrying("copying from the start", &failure.message);
            }
            _ => {}
        }
    }

    pub(crate) fn retrying(&self, what: &str, why: &str) {
        self.reporter.tell(|at_ms| Report::Retrying {
            at_ms,
            what: what.to_owned(),
            why: why.to_owned(),
        });
    }

    fn lock_try(&mut self, why: &str) {
        self.lock_tries = self.lock_tries.saturating_add(1);
        let attempt = self.lock_tries;
        self.reporter.tell(|at_ms| Report::LockTry { at_ms, attempt, why: why.to_owned() });
    }

    fn lag(&mut self, readings: &[Reading]) {
        let worst = readings.iter().filter_map(Reading::lag_ms);
        self.lag_ms_max = worst.fold(self.lag_ms_max, |worst, lag_ms| {
            Some(worst.map_or(lag_ms, |worst| std::cmp::max(worst, lag_ms)))
        });
    }

    /// Looks at the machine after a step: tells of a new phase, a pause, its end.
    pub(crate) fn look(&mut self, progress: &Progress) {
        self.rows_copied = progress.rows_copied;
        if self.phase != Some(progress.phase) {
            self.phase = Some(progress.phase);
            if progress.phase != Phase::Done {
                let phase = progress.phase.name().to_owned();
                self.reporter.tell(|at_ms| Report::Phase { at_ms, phase });
            }
        }
        // A wait for a lock is told try by try.
        let reason = progress.waiting.as_ref().filter(|_| self.lock_tries == 0);
        match (reason, self.is_paused) {
            (Some(reason), false) => {
                self.is_paused = true;
                let reason = reason.clone();
                self.reporter.tell(|at_ms| Report::Paused { at_ms, reason });
            }
            (None, true) => {
                self.is_paused = false;
                self.reporter.tell(|at_ms| Report::Resumed { at_ms });
            }
            _ => {}
        }
    }

    /// Tells how far the run is, if it is time to.
    pub(crate) fn tick(&mut self, progress: &Progress, rows_estimate: u64) {
        if self.told_at.elapsed() < self.every {
            return;
        }
        self.told_at = Instant::now();
        let counters = &progress.counters;
        let rate = progress.rows_per_s.filter(|rate| *rate > 0 && progress.phase == Phase::Copy);
        let left = rows_estimate.saturating_sub(progress.rows_copied);
        self.reporter.tell(|at_ms| Report::Progress {
            at_ms,
            phase: progress.phase.name().to_owned(),
            rows_copied: progress.rows_copied,
            rows_estimate,
            rows_verified: counters.rows_verified,
            backlog: progress.backlog,
            rows_per_s: progress.rows_per_s,
            eta_s: rate.map(|rate| left / rate),
            lag_ms: progress.lag_ms,
            chunk_ms: progress.chunk_ms,
            captured: counters.entries_consumed.saturating_add(progress.backlog),
            applied: counters.keys_applied,
            waiting: progress.waiting.clone(),
        });
    }

    /// Tells that this program stops before the change is made.
    pub(crate) fn stopped(&self, ending: StoppedAs, run_id: &str) {
        let phase = self.phase.unwrap_or(Phase::Prepare).name().to_owned();
        let (run_id, rows_copied) = (run_id.to_owned(), self.rows_copied);
        self.reporter.tell(|at_ms| Report::Stopped { at_ms, ending, run_id, phase, rows_copied });
    }

    /// What the finished run did. `last`: the last checkpoint that was saved.
    pub(crate) fn summary(
        &self,
        spec: &RunSpec,
        counters: &Counters,
        stall_ms: Option<u64>,
        last: Option<&Checkpoint>,
        keep_retired: bool,
    ) -> Summary {
        let verified = last.is_some_and(|checkpoint| checkpoint.verified == Frontier::End);
        let used = counters.keys_applied.saturating_add(counters.entries_dropped);
        Summary {
            run_id: spec.run_id.clone(),
            table: table_of(spec),
            rows_copied: counters.rows_copied,
            chunks: counters.chunks,
            chunks_redone: counters.chunks_redone,
            changes_captured: counters.entries_consumed,
            changes_applied: counters.keys_applied,
            changes_collapsed: counters.entries_consumed.saturating_sub(used),
            changes_dropped: counters.entries_dropped,
            rows_verified: counters.rows_verified,
            verified: if verified { Verdict::Equal } else { Verdict::Skipped },
            swap_stall_ms: stall_ms.or(self.stall_ms),
            swap_attempts: counters.swap_attempts,
            lag_ms_max: self.lag_ms_max,
            took_ms: self.reporter.at_ms(),
            retired: keep_retired.then(|| format!("{}.{}", spec.schema, spec.names.retired)),
        }
    }
}
