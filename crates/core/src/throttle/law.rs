//! From a signal's readings to a rate.

use super::ledger::Ledger;

/// The law.
#[derive(Debug, Clone)]
pub(super) struct Law {
    is_lag: bool,
    rate: Option<f64>,
}

impl Law {
    pub(super) fn new(is_lag: bool) -> Self {
        Self { is_lag, rate: None }
    }
    pub(super) fn rows_per_s(&self) -> Option<f64> {
        self.rate
    }
    pub(super) fn note_stop(&mut self, _now_ms: u64, _stands: bool) {}
    pub(super) fn read(
        &mut self,
        _at_ms: u64,
        _value: f64,
        _limit: f64,
        _ledger: &Ledger,
        _speed: Option<f64>,
    ) {
        let _ = self.is_lag;
    }
}
