//! One signal of one server: its newest reading, how old it is, and whether it stops the copy.
//!
//! It stops at the limit and lets go well below it (hysteresis), so that a reading that trembles about
//! the limit does not start and stop the copy at each look. What cannot be read, or was not read for
//! long, stops too.

use super::law::{Law, Sight};
use super::ledger::Ledger;
use super::{CRITICAL_AFTER_MS, STALE_AFTER_MS, reason};
use crate::signal::{LAG, Limit, Reading};

/// Stopped, the copy goes on below this share of the limit,
const GO_ON_SHARE: f64 = 0.75;
/// or, for a signal whose floor is higher than that, after it was below the limit for this long.
const GO_ON_AFTER_MS: u64 = 10_000;

/// Why a signal stops the copy.
#[derive(Debug, Clone)]
pub(super) struct Cause {
    pub(super) kind: String,
    /// For sums: the signal and whose it is.
    pub(super) key: String,
    pub(super) reason: String,
    pub(super) since_ms: u64,
    /// The reading as a share of its limit; infinite where it cannot be read.
    pub(super) severity: f64,
}

/// A signal.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    reading: Reading,
    limit: Option<Limit>,
    /// When the newest reading was taken.
    taken_ms: u64,
    /// When the newest reading was handed over.
    read_ms: u64,
    unreadable_since_ms: Option<u64>,
    over_since_ms: Option<u64>,
    /// Below the limit again since, while it still stops.
    below_since_ms: Option<u64>,
    critical_since_ms: Option<u64>,
    law: Law,
}

impl Watched {
    pub(super) fn new(reading: &Reading, limit: Option<&Limit>) -> Self {
        Self {
            reading: reading.clone(),
            limit: limit.cloned(),
            taken_ms: 0,
            read_ms: 0,
            unreadable_since_ms: None,
            over_since_ms: None,
            below_since_ms: None,
            critical_since_ms: None,
            law: if reading.name == LAG { Law::lag() } else { Law::load() },
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.reading.name
    }

    pub(super) fn reading(&self) -> &Reading {
        &self.reading
    }

    pub(super) fn age_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.taken_ms)
    }

    /// Rows a second at which this signal is believed to stay short of its limit; `None`: no bound.
    pub(super) fn rows_per_s(&self) -> Option<f64> {
        self.pause_at().and_then(|_| self.law.rows_per_s())
    }

    pub(super) fn set_limit(&mut self, limit: Option<&Limit>) {
        self.limit = limit.cloned();
        let Some(pause_at) = self.pause_at() else {
            self.over_since_ms = None;
            self.below_since_ms = None;
            return;
        };
        let is_over = |value| reason::reaches(&self.reading.name, value, pause_at);
        if self.reading.value.is_some_and(is_over) {
            self.over_since_ms = self.over_since_ms.or(Some(self.read_ms));
        } else {
            self.over_since_ms = None;
        }
    }

    fn pause_at(&self) -> Option<f64> {
        self.limit.as_ref().and_then(|limit| limit.pause_at)
    }

    /// Takes in a reading. `stands`: the copy stands still; `speed`: rows a second that it reaches
    /// unbridled, where known.
    pub(super) fn read(
        &mut self,
        now_ms: u64,
        reading: Reading,
        stands: bool,
        ledger: &Ledger,
        speed: Option<f64>,
    ) {
        self.taken_ms = now_ms.saturating_sub(reading.age_ms);
        self.read_ms = now_ms;
        self.reading = reading;
        let Some(value) = self.reading.value else {
            self.unreadable_since_ms = self.unreadable_since_ms.or(Some(now_ms));
            return;
        };
        self.unreadable_since_ms = None;
        let name = &self.reading.name;
        let abort_at = self.limit.as_ref().and_then(|limit| limit.abort_at);
        let is_critical = abort_at.is_some_and(|bound| reason::reaches(name, value, bound));
        self.critical_since_ms =
            is_critical.then(|| self.critical_since_ms.unwrap_or(self.taken_ms));
        if let Some(pause_at) = self.pause_at() {
            self.stop_or_go_on(now_ms, value, pause_at);
            if !reason::is_reversed(&self.reading.name) {
                #[allow(clippy::cast_precision_loss)] // a time since the start
                let at_ms = self.taken_ms as f64;
                self.law.read(Sight { at_ms, value, limit: pause_at, stands, ledger, speed });
            }
        }
    }

    fn stop_or_go_on(&mut self, now_ms: u64, value: f64, pause_at: f64) {
        let name = &self.reading.name;
        if reason::reaches(name, value, pause_at) {
            self.over_since_ms = self.over_since_ms.or(Some(now_ms));
            self.below_since_ms = None;
        } else if self.over_since_ms.is_some() {
            let below_since_ms = *self.below_since_ms.get_or_insert(now_ms);
            let is_well_below = if reason::is_reversed(name) {
                value * GO_ON_SHARE >= pause_at
            } else {
                value <= pause_at * GO_ON_SHARE
            };
            if is_well_below || now_ms.saturating_sub(below_since_ms) >= GO_ON_AFTER_MS {
                self.over_since_ms = None;
                self.below_since_ms = None;
            }
        }
    }

    /// Why this signal stops the copy now.
    pub(super) fn cause(&self, now_ms: u64) -> Option<Cause> {
        let pause_at = self.pause_at()?;
        let cause = |reason, since_ms, severity| {
            let (kind, key) = (self.name().to_owned(), reason::key(&self.reading));
            Some(Cause { kind, key, reason, since_ms, severity })
        };
        if let Some(since_ms) = self.unreadable_since_ms {
            return cause(reason::unreadable(&self.reading), since_ms, f64::INFINITY);
        }
        let age_ms = self.age_ms(now_ms);
        if age_ms > STALE_AFTER_MS {
            let since_ms = self.taken_ms.saturating_add(STALE_AFTER_MS);
            return cause(reason::stale(&self.reading, age_ms), since_ms, f64::INFINITY);
        }
        let (since_ms, value) = (self.over_since_ms?, self.reading.value?);
        let falling = self.below_since_ms.is_some();
        let severity = if reason::is_reversed(&self.reading.name) {
            pause_at / f64::max(value, 1.0)
        } else {
            value / f64::max(pause_at, 1e-9)
        };
        cause(reason::over(&self.reading, value, pause_at, falling), since_ms, severity)
    }

    /// Why the run is to be aborted.
    pub(super) fn critical(&self, now_ms: u64) -> Option<String> {
        let since_ms = self.critical_since_ms?;
        let has_stood = self.taken_ms.saturating_sub(since_ms) >= CRITICAL_AFTER_MS;
        let is_fresh = self.age_ms(now_ms) <= STALE_AFTER_MS;
        let limit = self.limit.as_ref().filter(|_| has_stood && is_fresh)?;
        Some(reason::critical(&self.reading, self.reading.value?, limit))
    }
}
