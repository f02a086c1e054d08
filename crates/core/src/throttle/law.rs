//! From a signal's readings to a rate at which it stays short of its limit: one law for the lag of a
//! replica, of which we know how it comes about, and one for everything else.

use super::lag_law::LagLaw;
use super::ledger::Ledger;
use super::load_law::LoadLaw;

/// The rate is never set below this share of the copy's own speed: what is stopped altogether is
/// stopped by the limit, and a copy that crawls is still asked how it does.
pub(super) const SPEED_SHARE_MIN: f64 = 0.005;

/// A rate above the copy's own speed by this is no bridle any more.
pub(super) const FREE_AT: f64 = 1.1;

/// What a law is told with each reading.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sight<'a> {
    /// When the reading was taken, in milliseconds.
    pub(super) at_ms: f64,
    pub(super) value: f64,
    /// Where the copy stops.
    pub(super) limit: f64,
    /// Whether the copy stands still, for this reason or another.
    pub(super) stands: bool,
    /// What we wrote.
    pub(super) ledger: &'a Ledger,
    /// Rows a second that the copy reaches unbridled, where known.
    pub(super) speed: Option<f64>,
}

/// The law of a signal.
#[derive(Debug, Clone)]
pub(super) enum Law {
    /// The lag of a replica. Boxed: it is much larger.
    Lag(Box<LagLaw>),
    /// Anything else of which more is worse.
    Load(LoadLaw),
}

impl Law {
    pub(super) fn lag() -> Self {
        Self::Lag(Box::new(LagLaw::new()))
    }

    pub(super) fn load() -> Self {
        Self::Load(LoadLaw::default())
    }

    /// Rows a second; `None`: full speed.
    pub(super) fn rows_per_s(&self) -> Option<f64> {
        match self {
            Self::Lag(law) => law.rows_per_s(),
            Self::Load(law) => law.rows_per_s(),
        }
    }

    pub(super) fn read(&mut self, sight: Sight<'_>) {
        match self {
            Self::Lag(law) => law.read(sight),
            Self::Load(law) => law.read(sight),
        }
    }
}

/// The middle one of three readings: a single wrong one changes nothing.
pub(super) fn middle([a, b, c]: [f64; 3]) -> f64 {
    f64::max(f64::min(a, b), f64::min(f64::max(a, b), c))
}
