//! The way back to the beginning after the source was emptied: only by blocks, and not for ever.
//!
//! The marker of a `TRUNCATE` stands in the log until `Prepare` makes the log anew, so nothing need be
//! remembered until nothing is in flight: a program that crashes before it has begun again meets the
//! marker once more.

use super::tidy::Tidying;
use super::{LockTries, Machine, Stopping};
use crate::checkpoint::Phase;
use crate::eta::Eta;
use crate::key::Frontier;
use crate::plan::Flow;

/// How often one program begins a run again. A table that is emptied more often is no table to change
/// while it is in use.
const STARTED_OVER_MAX: u32 = 20;

impl Machine {
    /// Whether a run whose source was emptied may be begun again; otherwise it fails.
    pub(super) fn may_begin_again(&self) -> bool {
        let goes_on = matches!(self.stopping, None | Some(Stopping::Interrupt | Stopping::Abort));
        self.settings.flow == Flow::Blocks
            // Behind a swap nothing is made anew: the tables hold what the application wrote.
            && self.stands.is_none()
            && self.phase < Phase::Arrive
            && !self.aborting
            && goes_on
            && self.started_over < STARTED_OVER_MAX
    }

    /// Back to `Prepare`, as soon as nothing is in flight; false where that is still awaited.
    ///
    /// The numbers of rounds go on: done marks of the old copy must not be mistaken for new ones.
    pub(super) fn begin_again(&mut self) -> bool {
        if !self.is_quiet() {
            return false;
        }
        self.start_over = false;
        self.started_over += 1;
        self.frontier = Frontier::Start;
        self.compare_anew();
        self.round = None;
        self.tidying = Tidying::begin(self.settings.flow);
        self.eta = Eta::default();
        self.backlog = 0;
        self.caught_up = false;
        self.settled = false;
        self.consume_before_recheck = None;
        self.lock = LockTries::default();
        self.counters.rows_copied = 0;
        self.enter(Phase::Prepare);
        true
    }
}
