//! Tidying: fresh statistics and a visibility map for the new table, made by the server beside the
//! verification.
//!
//! It changes no row, so it may run beside whatever else there is; only the swap waits for it. Nothing of
//! it is remembered: after a crash it is done again, and finds little left to do. It may last as long
//! as a look at the whole table does, so whoever wants to stop has it cancelled.

use super::{Action, Deed, Failure, Machine};
use crate::plan::Flow;

/// Tries of which each ended in an error, or was cancelled by somebody else.
const TRIES_MAX: u32 = 5;

/// Where tidying stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tidying {
    Due,
    InFlight,
    /// In flight, and to be cancelled.
    Cancelled,
    Done,
}

impl Tidying {
    /// Where it stands when a run begins or goes on. By key ranges the server does it as it goes.
    pub(super) fn begin(flow: Flow) -> Self {
        match flow {
            Flow::KeyRanges => Self::Done,
            Flow::Blocks => Self::Due,
        }
    }

    pub(super) fn is_in_flight(self) -> bool {
        matches!(self, Self::InFlight | Self::Cancelled)
    }
}

impl Machine {
    pub(super) fn tidy_if_due(&mut self, now_ms: u64, deed: Deed, actions: &mut Vec<Action>) {
        if self.tidying == Tidying::Due && self.held(now_ms, deed).is_none() {
            self.save_if_needed(actions);
            self.tidying = Tidying::InFlight;
            actions.push(Action::Tidy);
        }
    }

    /// For whoever waits until nothing is in flight.
    pub(super) fn cancel_tidying(&mut self, actions: &mut Vec<Action>) {
        if self.tidying == Tidying::InFlight {
            self.tidying = Tidying::Cancelled;
            actions.push(Action::CancelTidy);
        }
    }

    pub(super) fn tidied(&mut self) {
        if self.tidying.is_in_flight() {
            self.tidying = Tidying::Done;
        } else {
            self.unexpected("Tidied");
        }
    }

    pub(super) fn tidy_failed(&mut self, now_ms: u64, failure: Failure) {
        match self.tidying {
            Tidying::Cancelled => self.tidying = Tidying::Due,
            Tidying::InFlight => {
                self.tidying = Tidying::Due;
                self.tidy_tries += 1;
                self.rest(now_ms, self.tidy_tries);
                if self.tidy_tries >= TRIES_MAX {
                    self.fail(failure);
                }
            }
            Tidying::Due | Tidying::Done => self.unexpected("TidyFailed"),
        }
    }
}
