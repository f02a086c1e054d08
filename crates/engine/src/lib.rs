//! Carries out what the core decides: connections, workers, signals, stored state, reports.
//!
//! A loop over [`underpin_core::machine::Machine`]: take its actions, carry them out side by side over
//! [`underpin_dialect::Database`], feed the answers back. No decision about rows is made here, and no
//! statement is written here.
//!
//! The way through: [`start`] or [`resume`] → `drive` (enter, hold, enter again after a loss) → `hold`
//! (the loop) → `crew` and `seat` (connections) → `work` and `orders` (one task a connection).

mod abort;
mod crew;
mod drive;
mod ears;
mod enter;
mod error;
mod events;
mod hold;
mod losses;
mod native;
mod options;
mod orders;
mod probe;
mod report;
mod reporter;
mod run;
mod seat;
mod status;
mod watch;
mod work;

pub use abort::{AbortOptions, AbortedBy, abort};
pub use error::{EngineError, EngineResult};
pub use native::alter_natively;
pub use options::RunOptions;
pub use report::{PlanSummary, Report, StoppedAs, Summary, Verdict};
pub use reporter::Reporter;
pub use run::{OpenRun, Outcome, find_open, resume, start};
pub use status::{RunStatus, Standing, status};
