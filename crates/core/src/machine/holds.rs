//! Why something is not begun just now: a person's pause, the calendar, the throttle, the table's lock;
//! and for how long it has been so.
//!
//! The order in which work gives way: the copy and the comparison first, the application of the log
//! last, because the log grows while it waits. Beyond `Settings::log_entries_max` it is applied
//! whatever anybody says.

use super::{Busy, Machine};
use crate::checkpoint::Phase;
use crate::plan::Flow;
use crate::signal::SwapWhen;
use crate::throttle::Pause;

/// In a pause of the throttle the log is still applied for so long, in milliseconds; where that has not
/// helped, it waits as well.
const APPLY_YIELDS_AFTER_MS: u64 = 5_000;

/// What a run says that has done everything but the swap.
const READY: &str = "everything is ready; waiting for `underpin swap`";

/// Something that may have to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// Preparing, copying, settling, building indexes, comparing: what loads the servers.
    Heavy,
    /// Applying the log.
    Apply,
    /// Trying the swap.
    Swap,
    /// Removing what is left over after the swap.
    Finish,
}

impl Machine {
    /// Why this may not be begun now; `None` where it may.
    pub(super) fn held(&self, now_ms: u64, deed: Deed) -> Option<Pause> {
        if deed == Deed::Apply && !self.log_waits(now_ms) {
            return None;
        }
        self.closed(now_ms, deed).or_else(|| match deed {
            // What is left over after the swap costs nobody anything but a lock.
            Deed::Finish => None,
            Deed::Heavy | Deed::Apply | Deed::Swap => self.throttle.pause(now_ms),
        })
    }

    /// Whether a person or the calendar forbids it.
    pub(super) fn closed(&self, now_ms: u64, deed: Deed) -> Option<Pause> {
        if let Some(since_ms) = self.paused_since_ms {
            return Some(pause("asked", "on request, until `underpin resume`", since_ms));
        }
        let waits_for_word = self.settings.swap_when == SwapWhen::Asked && !self.swap_asked;
        let (kind, why) = match deed {
            Deed::Heavy => ("copy-window", self.gates.copy.as_deref()?),
            Deed::Swap if waits_for_word => ("swap-asked", READY),
            Deed::Swap => ("swap-gate", self.gates.swap.as_deref()?),
            Deed::Apply | Deed::Finish => return None,
        };
        Some(pause(kind, why, now_ms))
    }

    /// Whether the log waits with everything else, as it is not too long yet.
    fn log_waits(&self, now_ms: u64) -> bool {
        self.backlog < self.settings.log_entries_max && self.apply_yields(now_ms)
    }

    /// Whether even the application of the log gives way, as long as the log allows it.
    fn apply_yields(&self, now_ms: u64) -> bool {
        let in_long_pause = || {
            let pause = self.throttle.pause(now_ms);
            pause.is_some_and(|it| now_ms.saturating_sub(it.since_ms) >= APPLY_YIELDS_AFTER_MS)
        };
        self.paused_since_ms.is_some() || in_long_pause()
    }

    /// Whether the log is long or old enough to be applied between rounds.
    pub(super) fn apply_due(&self, now_ms: u64) -> bool {
        if self.apply_yields(now_ms) {
            return self.backlog >= self.settings.log_entries_max;
        }
        let age_ms = now_ms.saturating_sub(self.applied_at_ms);
        self.backlog >= self.settings.apply_entries_high
            || (self.backlog > 0 && age_ms >= self.settings.apply_age_ms)
    }

    /// Whether the log must be applied now, for which a round has to come to its end.
    pub(super) fn log_is_too_long(&self) -> bool {
        self.settings.flow == Flow::KeyRanges && self.backlog >= self.settings.log_entries_max
    }

    /// Entries that may stay in the log while the swap waits.
    pub(super) fn log_entries_while_waiting(&self, now_ms: u64) -> u64 {
        if self.apply_yields(now_ms) {
            self.settings.log_entries_max
        } else {
            self.settings.apply_entries_high / 2
        }
    }

    /// Why the run waits just now, and since when.
    pub(super) fn pause(&self, now_ms: u64) -> Option<Pause> {
        let mut pause = self.pause_now(now_ms)?;
        if let Some(before) = &self.pause
            && pause.kind == before.kind
        {
            pause.since_ms = before.since_ms;
        }
        Some(pause)
    }

    /// The same, where `since_ms` is that of the reason in hand.
    fn pause_now(&self, now_ms: u64) -> Option<Pause> {
        // Before `Started` it does not wait yet: it is still being told.
        if !self.started || self.stopping.is_some() || self.stopped {
            return None;
        }
        if self.is_at_long_work() {
            let since_ms = self.paused_since_ms?;
            return Some(pause(
                "asked",
                "on request, as soon as what is under way has ended",
                since_ms,
            ));
        }
        let deed = match self.phase {
            Phase::Prepare | Phase::Copy | Phase::Settle | Phase::Indexes | Phase::Verify => {
                Deed::Heavy
            }
            Phase::CatchUp => Deed::Apply,
            Phase::Swap => Deed::Swap,
            Phase::Arrive | Phase::Finish => Deed::Finish,
            Phase::Revertible | Phase::Done => return None,
        };
        self.held(now_ms, deed).or_else(|| {
            if self.phase == Phase::Swap && self.tidying.is_in_flight() {
                let why = "the server gathers statistics of the new table";
                return Some(pause("statistics", why, now_ms));
            }
            let since_ms = self.lock.since_ms?;
            let why = format!("waiting for the table's lock: {}", self.lock_why);
            Some(pause("lock", &why, since_ms))
        })
    }

    /// Whether something is in flight that may last, and cannot be held up once it has begun.
    fn is_at_long_work(&self) -> bool {
        match self.busy {
            None | Some(Busy::Planning | Busy::Applying | Busy::Redoing(_)) => false,
            Some(Busy::Repairing(_) | Busy::Rechecking(_)) => false,
            Some(Busy::Preparing | Busy::Settling | Busy::Indexing | Busy::Swapping) => true,
            Some(Busy::Arriving | Busy::Finishing | Busy::Aborting) => true,
        }
    }

    /// Looks after each step whether the run waits, and accounts the time that it has.
    pub(super) fn note_pause(&mut self, now_ms: u64) {
        if let Some(before) = &self.pause
            && !std::mem::replace(&mut self.was_at_work, false)
        {
            let waited_ms = now_ms.saturating_sub(self.looked_at_ms);
            let spent_ms = self.counters.paused_ms.entry(before.kind.clone()).or_insert(0);
            *spent_ms = spent_ms.saturating_add(waited_ms);
        }
        self.looked_at_ms = now_ms;
        self.was_at_work = self.is_at_long_work();
        self.pause = self.pause(now_ms);
    }
}

fn pause(kind: &str, reason: &str, since_ms: u64) -> Pause {
    Pause { kind: kind.to_owned(), reason: reason.to_owned(), since_ms }
}
