//! What a person watching the run should hear: turns events and the machine's progress into reports and
//! the live status, and remembers what outlives a lost connection (worst readings, stall, tries).

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use underpin_core::checkpoint::{Checkpoint, Counters, Phase};
use underpin_core::machine::{Event, FailureKind, Machine, Progress};
use underpin_core::plan::RunSpec;
use underpin_core::proof::Verdict;
use underpin_core::signal::{Limit, Reading};
use underpin_dialect::{Given, Origin};

use crate::enter::table_of;
use crate::live::Live;
use crate::report::{Figures, Percentiles, Report, SignalView, StoppedAs, Summary, Wait};
use crate::reporter::Reporter;
use crate::spell::settings_in_force;
use crate::worst::{self, Worst};

/// Time between two reasons of one pause that are told.
const RETOLD_AFTER_MS: u64 = 1000;

/// What was seen and told so far.
#[derive(Debug)]
pub(crate) struct Watch {
    reporter: Reporter,
    every: Duration,
    /// Where the live status goes.
    live: watch::Sender<String>,
    by: String,
    version: String,
    phase: Option<Phase>,
    rows_copied: u64,
    /// Kind of the pause under way and when it began.
    paused: Option<ToldPause>,
    lock_tries: u32,
    told_at: Option<Instant>,
    /// The newest readings, and when they came.
    signals: (Vec<Reading>, Instant),
    worst: Vec<Worst>,
    stall_ms: Option<u64>,
}

/// A pause that was told.
#[derive(Debug)]
struct ToldPause {
    kind: String,
    /// As it was told last.
    reason: String,
    since_ms: u64,
    told_ms: u64,
}

impl ToldPause {
    /// Whether the reason is to be told again: it says something else, and not only another number.
    fn is_news(&self, now_ms: u64, reason: &str) -> bool {
        let words =
            |reason: &str| -> String { reason.chars().filter(|c| !c.is_ascii_digit()).collect() };
        now_ms.saturating_sub(self.told_ms) >= RETOLD_AFTER_MS
            && words(reason) != words(&self.reason)
    }
}

impl Watch {
    pub(crate) fn new(reporter: Reporter, every_ms: u64, origin: &Origin) -> Self {
        Self {
            reporter,
            every: Duration::from_millis(every_ms),
            live: watch::Sender::new(String::new()),
            by: origin.by.clone(),
            version: origin.version.clone(),
            phase: None,
            rows_copied: 0,
            paused: None,
            lock_tries: 0,
            told_at: None,
            signals: (Vec::new(), Instant::now()),
            worst: Vec::new(),
            stall_ms: None,
        }
    }

    /// Where the live status can be had from.
    pub(crate) fn live(&self) -> watch::Receiver<String> {
        self.live.subscribe()
    }

    /// Goes on with what an earlier program had made known.
    pub(crate) fn go_on_from(&mut self, published: &str) {
        if let Some(live) = Live::read(published) {
            self.worst = live.worst;
        }
    }

    /// Takes in an event before the machine does.
    pub(crate) fn event(&mut self, event: &Event, swap_attempts: u64) {
        match event {
            Event::RangeVerified { differences, samples, .. } if *differences > 0 => {
                let (differences, samples) = (*differences, samples.clone());
                self.reporter.tell(|at_ms| Report::Different { at_ms, differences, samples });
            }
            Event::ChunkRolledBack { why, .. } => {
                self.retrying("copying or verifying a chunk", why)
            }
            Event::ApplyRolledBack { why } => self.retrying("applying the log", why),
            Event::LockNotHad { why } => self.lock_try(why),
            Event::DrainTooSlow { .. } => {
                self.lock_try(
                    "what is done under it took longer than --swap-budget allows; each statement of it takes \
                     its way to the server",
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
            Event::Signals(readings) => {
                worst::note(&mut self.worst, readings);
                self.signals = (readings.clone(), Instant::now());
            }
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
        let pause = progress.pause.as_ref().filter(|_| self.lock_tries == 0);
        // A pause whose reason is of another kind is another pause.
        if let Some(told) =
            self.paused.take_if(|told| pause.is_none_or(|pause| pause.kind != told.kind))
            && pause.is_none()
        {
            self.reporter.tell(|at_ms| Report::Resumed {
                at_ms,
                paused_ms: at_ms.saturating_sub(told.since_ms),
                kind: told.kind,
            });
        }
        let Some(pause) = pause else { return };
        let now_ms = self.reporter.at_ms();
        let since_ms = match &self.paused {
            None => now_ms,
            Some(told) if told.is_news(now_ms, &pause.reason) => told.since_ms,
            Some(_) => return,
        };
        let (kind, reason) = (pause.kind.clone(), pause.reason.clone());
        self.reporter.tell(|at_ms| Report::Paused { at_ms, reason, kind });
        let (kind, reason) = (pause.kind.clone(), pause.reason.clone());
        self.paused = Some(ToldPause { kind, reason, since_ms, told_ms: now_ms });
    }

    /// Tells how far the run is, and makes it known, if it is time to.
    pub(crate) fn tick(&mut self, machine: &Machine, spec: &RunSpec) {
        if self.told_at.is_some_and(|told_at| told_at.elapsed() < self.every) {
            return;
        }
        self.told_at = Some(Instant::now());
        let now_ms = self.reporter.at_ms();
        let progress = machine.progress(now_ms);
        let figures = self.figures(machine, &progress, spec, now_ms);
        self.live.send_replace(
            Live {
                by: self.by.clone(),
                version: self.version.clone(),
                settings: in_force(machine, &progress),
                worst: self.worst.clone(),
                figures: figures.clone(),
            }
            .write(),
        );
        self.reporter.tell(|at_ms| Report::Progress { at_ms, figures });
    }

    fn figures(
        &self,
        machine: &Machine,
        progress: &Progress,
        spec: &RunSpec,
        now_ms: u64,
    ) -> Figures {
        let counters = &progress.counters;
        let left = spec.rows_estimate.saturating_sub(progress.rows_copied);
        let eta =
            (progress.phase == Phase::Copy).then(|| machine.time_left(now_ms, left)).flatten();
        let pause = progress.pause.as_ref();
        Figures {
            phase: progress.phase.name().to_owned(),
            rows_copied: progress.rows_copied,
            rows_estimate: spec.rows_estimate,
            rows_verified: counters.rows_verified,
            backlog: progress.backlog,
            rows_per_s: progress.rows_per_s,
            eta_s: eta.map(|eta| eta.likely_s),
            eta_low_s: eta.map(|eta| eta.low_s),
            eta_high_s: eta.map(|eta| eta.high_s),
            lag_ms: progress.lag_ms,
            chunk_ms: progress.chunk_ms,
            captured: counters.entries_consumed.saturating_add(progress.backlog),
            applied: counters.keys_applied,
            waiting: pause.map(|pause| pause.reason.clone()),
            waiting_kind: pause.map(|pause| pause.kind.clone()),
            waiting_ms: pause.map_or(0, |pause| now_ms.saturating_sub(pause.since_ms)),
            bytes_copied: progress.rows_copied.saturating_mul(spec.row_bytes),
            workers: progress.workers,
            signals: self.views(&progress.limits),
        }
    }

    fn views(&self, limits: &[Limit]) -> Vec<SignalView> {
        let (readings, read_at) = &self.signals;
        let since = u64::try_from(read_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let view = |reading: &Reading| {
            let limit = limits.iter().find(|limit| limit.name == reading.name);
            SignalView {
                name: reading.name.clone(),
                of: reading.of.clone(),
                source: reading.source.clone(),
                unit: reading.unit,
                value: reading.value,
                limit: limit.and_then(|limit| limit.pause_at),
                critical: limit.and_then(|limit| limit.abort_at),
                age_ms: reading.age_ms.saturating_add(since),
                error: reading.error.clone(),
            }
        };
        readings.iter().map(view).collect()
    }

    /// Tells that this program stops before the change is made.
    pub(crate) fn stopped(&self, ending: StoppedAs, run_id: &str, why: &str) {
        let phase = self.phase.unwrap_or(Phase::Prepare).name().to_owned();
        let (run_id, rows_copied, why) = (run_id.to_owned(), self.rows_copied, why.to_owned());
        let stopped = |at_ms| Report::Stopped { at_ms, ending, run_id, phase, rows_copied, why };
        self.reporter.tell(stopped);
    }

    /// What the run did. `last`: the last checkpoint that was saved.
    pub(crate) fn summary(
        &self,
        spec: &RunSpec,
        counters: &Counters,
        stall_ms: Option<u64>,
        last: Option<&Checkpoint>,
        keep_retired: bool,
    ) -> Summary {
        let proof = last.and_then(Checkpoint::proof);
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
            rows_verified: proof.map_or(counters.rows_verified, |proof| proof.rows),
            rows_repaired: counters.keys_repaired,
            verified: proof.map_or(Verdict::Skipped, |proof| proof.verdict),
            swap_stall_ms: stall_ms.or(self.stall_ms),
            swap_attempts: counters.swap_attempts,
            lag_ms_max: counters.lag_ms_worst,
            took_ms: self.reporter.at_ms(),
            retired: keep_retired.then(|| format!("{}.{}", spec.schema, spec.names.retired)),
            bytes_copied: counters.rows_copied.saturating_mul(spec.row_bytes),
            chunk_ms: percentiles(counters),
            waits: waits(counters),
            worst: self.worst.clone(),
        }
    }
}

fn percentiles(counters: &Counters) -> Percentiles {
    let times = &counters.chunk_times;
    let at = |percent| times.percentile_ms(percent).unwrap_or(0);
    Percentiles { p50: at(50), p95: at(95), p99: at(99), max: times.max_ms().unwrap_or(0) }
}

/// Time spent waiting, the longest first.
fn waits(counters: &Counters) -> Vec<Wait> {
    let wait = |(kind, ms): (&String, &u64)| Wait { kind: kind.clone(), ms: *ms };
    let mut waits: Vec<Wait> = counters.paused_ms.iter().map(wait).collect();
    waits.sort_by_key(|wait| std::cmp::Reverse(wait.ms));
    waits
}

fn in_force(machine: &Machine, progress: &Progress) -> Vec<Given> {
    settings_in_force(machine.settings(), &progress.limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_again_where_it_says_something_else() {
        let told = ToldPause {
            kind: "lag".into(),
            reason: "replica db2 lags 3.1 s (limit 2 s)".into(),
            since_ms: 0,
            told_ms: 500,
        };
        assert!(!told.is_news(9000, "replica db2 lags 14.7 s (limit 2 s)"), "another number");
        let other = "replica db2 cannot be read: refused";
        assert!(told.is_news(1500, other));
        assert!(!told.is_news(1499, other), "not so soon");
    }
}
