//! Readings of the servers around us → may the copy go on, how fast, and if not, why.
//!
//! Pure: time and readings come in as values. What each part is for, and why the law is what it is:
//! `docs/decisions/010-throttle.md`.
//!
//! - [`watched`]: one signal: its limit, its age, when it stops the copy and when it lets it go on;
//! - [`law`]: from a signal's readings to a rate at which it stays short of its limit, [`lag_law`] for
//!   replicas with [`room`], [`load_law`] for everything else;
//! - [`ledger`]: what we wrote and when, which tells what a replica has applied;
//! - [`pace`]: the rate turned into "this chunk may begin now"; the share of time at work;
//! - [`reason`]: the words for people.

mod lag_law;
mod law;
mod ledger;
mod load_law;
mod pace;
mod reason;
mod room;
#[cfg(test)]
mod tests;
mod watched;

use std::collections::BTreeMap;

use crate::signal::{LAG, Limit, Reading, SLOT_SHARE, Setting, UNREAD};
use ledger::Ledger;
use pace::Pace;
use watched::{Cause, Watched};

/// A signal that has not been read for this long counts as the worst.
pub const STALE_AFTER_MS: u64 = 5_000;

/// A replication slot that has used so many thousandths of what it may keep back stops the copy, unless
/// somebody says otherwise: at 1000 the server drops it, and a subscriber is lost. Holds only where the
/// signal is read.
const SLOT_SHARE_PAUSE_AT: f64 = 700.0;

/// Readings above `abort_at` abort the run when they have stood for this long: one reading alone may
/// be a slip.
const CRITICAL_AFTER_MS: u64 = 1_000;

/// Why the copy stands still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// The signal's name, as "lag".
    pub kind: String,
    /// For people, as "replica db2:3306 lags 3.1 s (limit 2 s)".
    pub reason: String,
    /// Since when the copy stands still, whatever the reasons were meanwhile.
    pub since_ms: u64,
}

impl Pause {
    /// The pause in words, as "paused 12 s: replica db2:3306 lags 3.1 s (limit 2 s)".
    pub fn said(&self, now_ms: u64) -> String {
        format!("paused {} s: {}", now_ms.saturating_sub(self.since_ms) / 1000, self.reason)
    }
}

/// A signal as `status` shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Gauge {
    /// The newest reading.
    pub reading: Reading,
    /// Where the copy stops.
    pub pause_at: Option<f64>,
    /// Where the run is aborted.
    pub abort_at: Option<f64>,
    /// How old the reading is now, in milliseconds.
    pub age_ms: u64,
}

/// The state of the throttle of one run.
#[derive(Debug, Clone)]
pub struct Throttle {
    limits: BTreeMap<String, Limit>,
    /// Replicas are known: silence about their lag is a reason to stop.
    replicas_known: bool,
    /// Readings have come. Where none was of a lag, there are no replicas.
    is_read: bool,
    watched: BTreeMap<(String, String), Watched>,
    ledger: Ledger,
    pace: Pace,
    /// Since when the copy stands still without a break.
    paused_since_ms: Option<u64>,
    /// Up to when `paused_ms` is kept.
    accounted_ms: u64,
    paused_ms: BTreeMap<String, u64>,
    worst_seen: BTreeMap<String, f64>,
}

impl Throttle {
    /// A throttle with these limits. `replicas_known`: silence about their lag is a reason to stop.
    /// `workers_max`: chunks side by side at most.
    pub fn new(limits: &[Limit], replicas_known: bool, workers_max: u32) -> Self {
        let slots = Limit {
            name: SLOT_SHARE.to_owned(),
            pause_at: Some(SLOT_SHARE_PAUSE_AT),
            abort_at: None,
        };
        let all = [&slots].into_iter().chain(limits);
        Self {
            limits: all.map(|limit| (limit.name.clone(), limit.clone())).collect(),
            replicas_known,
            is_read: false,
            watched: BTreeMap::new(),
            ledger: Ledger::default(),
            pace: Pace::new(workers_max),
            paused_since_ms: None,
            accounted_ms: 0,
            paused_ms: BTreeMap::new(),
            worst_seen: BTreeMap::new(),
        }
    }

    /// Takes a setting over. Settings that are none of ours (`ChunkMs`) change nothing.
    pub fn set(&mut self, setting: &Setting) {
        match setting {
            // A lag has milliseconds that an `f64` holds exactly.
            #[allow(clippy::cast_precision_loss)]
            Setting::MaxLag(lag_ms) => self.limit(LAG).pause_at = Some(*lag_ms as f64),
            Setting::MaxLoad(name, value) => self.limit(name).pause_at = *value,
            Setting::CriticalLoad(name, value) => self.limit(name).abort_at = *value,
            Setting::WorkShare(permille) => self.pace.set_work_share(*permille),
            Setting::RowsPerS(rows) => self.pace.set_rows_per_s(*rows),
            Setting::BytesPerS(bytes) => self.pace.set_bytes_per_s(*bytes),
            Setting::Workers(workers) => self.pace.set_workers(*workers),
            Setting::ChunkMs(_) => {}
        }
        for watched in self.watched.values_mut() {
            watched.set_limit(self.limits.get(watched.name()));
        }
    }

    /// The limits as they are now.
    pub fn limits(&self) -> Vec<Limit> {
        self.limits.values().cloned().collect()
    }

    fn limit(&mut self, name: &str) -> &mut Limit {
        self.limits.entry(name.to_owned()).or_insert_with(|| Limit {
            name: name.to_owned(),
            pause_at: None,
            abort_at: None,
        })
    }

    /// Takes in the newest readings of all signals. One that is missing here, and was there before,
    /// grows old until it counts as the worst.
    pub fn read(&mut self, now_ms: u64, readings: Vec<Reading>) {
        self.account(now_ms);
        self.is_read = true;
        if !readings.iter().any(|reading| reading.of == UNREAD) {
            self.watched.remove(&(LAG.to_owned(), UNREAD.to_owned()));
        }
        for reading in readings {
            if let Some(value) = reading.value {
                let worst = self.worst_seen.entry(reading.name.clone()).or_insert(value);
                *worst = reason::worse(&reading.name, *worst, value);
            }
            let key = (reading.name.clone(), reading.of.clone());
            let limit = self.limits.get(&reading.name);
            let watched = self.watched.entry(key).or_insert_with(|| Watched::new(&reading, limit));
            let stands = self.paused_since_ms.is_some();
            watched.read(now_ms, reading, stands, &self.ledger, self.pace.speed());
        }
        let rates = self.watched.values().filter_map(Watched::rows_per_s);
        self.pace.set_law(now_ms, rates.reduce(f64::min));
        let stands = self.cause(now_ms).is_some();
        self.paused_since_ms = stands.then(|| self.paused_since_ms.unwrap_or(now_ms));
    }

    /// Why the copy must stand still; `None` where it may go on, at the rate that `may_begin` allows.
    pub fn pause(&self, now_ms: u64) -> Option<Pause> {
        self.cause(now_ms).map(|cause| Pause {
            kind: cause.kind,
            reason: cause.reason,
            since_ms: self.paused_since_ms.unwrap_or(cause.since_ms),
        })
    }

    /// Whether a chunk of `rows` rows may begin now. A `true` counts it as begun: ask right before
    /// beginning it, and tell its end by `note_written` or `note_read`, exactly once.
    pub fn may_begin(&mut self, now_ms: u64, rows: u64) -> bool {
        self.cause(now_ms).is_none() && self.pace.may_begin(now_ms, rows)
    }

    /// Tells that a chunk has ended and what it wrote: rows and bytes; both 0 where it was rolled back.
    pub fn note_written(&mut self, now_ms: u64, rows: u64, bytes: u64) {
        self.pace.note_ended(now_ms, Some((rows, bytes)));
        self.ledger.note(now_ms, rows);
    }

    /// Tells that a verified range has ended.
    pub fn note_read(&mut self, now_ms: u64) {
        self.pace.note_ended(now_ms, None);
    }

    /// When `may_begin` is worth asking again; `now_ms` where it is now.
    pub fn ready_at_ms(&self, now_ms: u64) -> u64 {
        self.pace.ready_at_ms(now_ms)
    }

    /// Rows of a chunk at most, so that a slow pace goes in small steps; `None`: no bound.
    pub fn chunk_rows_max(&self) -> Option<u64> {
        self.pace.chunk_rows_max()
    }

    /// Chunks side by side at most, for now.
    pub fn workers(&self) -> u32 {
        self.pace.workers()
    }

    /// The rate that is kept to, in rows a second; `None`: full speed.
    pub fn pace_rows_per_s(&self) -> Option<u64> {
        self.pace.rows_per_s()
    }

    /// Why the run is to be aborted safely. A signal that cannot be read is never a reason for that.
    pub fn critical(&self, now_ms: u64) -> Option<String> {
        self.watched.values().find_map(|watched| watched.critical(now_ms))
    }

    /// How long the copy has stood still in all, by cause, in milliseconds; the longest first.
    pub fn time_paused(&self, now_ms: u64) -> Vec<(String, u64)> {
        let mut paused = self.paused_ms.clone();
        self.charge(now_ms, &mut paused);
        let mut paused: Vec<(String, u64)> = paused.into_iter().collect();
        paused.sort_by_key(|(_, ms)| std::cmp::Reverse(*ms));
        paused
    }

    /// The worst of the newest readings of a signal; `None` where there is none or one cannot be read.
    pub fn worst_now(&self, name: &str) -> Option<f64> {
        let values = self.watched.values().filter(|watched| watched.name() == name);
        let mut values = values.map(|watched| watched.reading().value);
        let first = values.next()??;
        values.try_fold(first, |worst, value| Some(reason::worse(name, worst, value?)))
    }

    /// The worst reading of a signal since this throttle was made.
    pub fn worst_seen(&self, name: &str) -> Option<f64> {
        self.worst_seen.get(name).copied()
    }

    /// All signals that were read, for `status`.
    pub fn gauges(&self, now_ms: u64) -> Vec<Gauge> {
        let gauge = |watched: &Watched| Gauge {
            reading: watched.reading().clone(),
            pause_at: self.limits.get(watched.name()).and_then(|limit| limit.pause_at),
            abort_at: self.limits.get(watched.name()).and_then(|limit| limit.abort_at),
            age_ms: watched.age_ms(now_ms),
        };
        self.watched.values().map(gauge).collect()
    }

    /// The worst lag of the newest readings in milliseconds; 0 where there is no replica, `None` where
    /// one cannot be read.
    pub fn worst_lag_ms(&self) -> Option<u64> {
        let lags = self.watched.values().filter(|watched| watched.name() == LAG);
        let lags = lags.map(|watched| watched.reading().lag_ms());
        lags.into_iter().try_fold(0, |worst, lag| lag.map(|lag_ms| std::cmp::max(worst, lag_ms)))
    }

    /// The words of [`Self::pause`] alone.
    pub fn reason(&self, now_ms: u64) -> Option<String> {
        self.pause(now_ms).map(|pause| pause.reason)
    }

    /// The worst of the causes for which the copy stands still.
    fn cause(&self, now_ms: u64) -> Option<Cause> {
        let causes = self.watched.values().filter_map(|watched| watched.cause(now_ms));
        let worst = causes.reduce(
            |worst, cause| {
                if cause.severity > worst.severity { cause } else { worst }
            },
        );
        worst.or_else(|| self.unread_limit(now_ms))
    }

    /// A limit on a signal that nobody reads.
    fn unread_limit(&self, now_ms: u64) -> Option<Cause> {
        let unread = self.limits.values().find(|limit| {
            limit.pause_at.is_some()
                && (limit.name != LAG || (self.replicas_known && !self.is_read))
                && limit.name != SLOT_SHARE
                && !self.watched.keys().any(|(name, _)| *name == limit.name)
        })?;
        Some(Cause {
            kind: unread.name.clone(),
            key: unread.name.clone(),
            reason: reason::not_read(&unread.name),
            since_ms: std::cmp::min(self.accounted_ms, now_ms),
            severity: f64::INFINITY,
        })
    }

    fn account(&mut self, now_ms: u64) {
        let mut paused = std::mem::take(&mut self.paused_ms);
        self.charge(now_ms, &mut paused);
        self.paused_ms = paused;
        self.accounted_ms = now_ms;
    }

    fn charge(&self, now_ms: u64, paused: &mut BTreeMap<String, u64>) {
        if let Some(cause) = self.cause(now_ms) {
            let from_ms = std::cmp::max(cause.since_ms, self.accounted_ms);
            let paused_ms = now_ms.saturating_sub(from_ms);
            if paused_ms > 0 {
                *paused.entry(cause.key).or_default() += paused_ms;
            }
        }
    }
}
