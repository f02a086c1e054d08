//! Carries out what the core decides: connections, workers, signals, stored state, reports.
//!
//! A loop over [`underpin_core::machine::Machine`]: take its actions, carry them out side by side over
//! [`underpin_dialect::Database`], feed the answers back. No decision about rows is made here, and no
//! statement is written here.

mod report;

pub use report::{PlanSummary, Report, Reporter, StoppedAs, Summary, Verdict};
