//! The control connection: definitions, the state of runs, the swap.

use crate::connect::Session;
use crate::database::MySql;

/// See the module's head.
#[derive(Debug)]
pub struct Control {
    pub(crate) session: Session,
    pub(crate) state_schema: String,
    /// For the extra sessions that the swap opens.
    pub(crate) server: MySql,
}

impl underpin_dialect::Control for Control {}
