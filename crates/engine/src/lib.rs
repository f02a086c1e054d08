//! Carries out what the core decides: connections, workers, signals, stored state, reports.
//!
//! A loop over [`underpin_core::machine::Machine`]: take its actions, carry them out side by side over
//! [`underpin_dialect::Database`], feed the answers back. No decision about rows is made here, and no
//! statement is written here.
//!
//! The way through: [`start`] or [`resume`] → `drive` (enter, hold, enter again after a loss) → `hold`
//! (the loop) → `crew` and `seat` (connections) → `work` and `orders` (one task a connection).

mod abort;
mod calendar;
mod crew;
mod drive;
mod ears;
mod enter;
mod error;
mod events;
mod first_line;
mod history;
mod hold;
mod hooks;
mod leftovers;
mod live;
mod losses;
mod native;
mod options;
mod orders;
mod own_signals;
mod probe;
#[cfg(test)]
mod reference;
mod report;
mod reporter;
mod run;
mod sample;
mod seat;
mod spell;
mod status;
mod steer;
mod verify;
mod watch;
mod work;
mod worst;

pub use abort::{AbortOptions, AbortedBy, abort};
pub use calendar::{Calendar, wall_ms};
pub use error::{EngineError, EngineResult};
pub use history::{GivenOrder, PastRun, Record, history};
pub use hooks::{HookCommand, HookOptions};
pub use leftovers::{Fate, LeftoverView, Sweep, leftovers, remove_leftovers};
pub use live::Live;
pub use native::alter_natively;
pub use options::RunOptions;
pub use own_signals::{FlagFile, OwnSignals, UrlSignal, signal_name};
pub use report::{Figures, Percentiles, PlanSummary, Report, SignalView, StoppedAs, Summary, Wait};
pub use reporter::Reporter;
pub use run::{OpenRun, Outcome, find_open, resume, start, turn};
pub use spell::{command_text, limit_text, setting_text};
pub use status::{RunStatus, Standing, look, status};
pub use steer::{DeadRun, Taken, order};
pub use underpin_core::proof::Verdict;
pub use verify::{Compared, Counterpart, Extent, VerifyOptions, verify};
pub use worst::Worst;
