//! The control connection: definitions, the state of runs, the swap.

use crate::connect::Session;
use crate::database::Postgres;

/// See the module's head.
#[derive(Debug)]
pub struct Control {
    pub(crate) session: Session,
    /// The schema that keeps the state of runs.
    pub(crate) state_schema: String,
    /// For the extra sessions that index builds and the swap open.
    pub(crate) server: Postgres,
}

impl underpin_dialect::Control for Control {}
