//! The control connection: definitions, the state of runs, the swap.

use crate::connect::Session;
use crate::database::MySql;

/// See the module's head.
#[derive(Debug)]
pub struct Control {
    pub(crate) session: Session,
    pub(crate) state_schema: String,
    /// The source as it was when the triggers were installed, until that is noted.
    pub(crate) source_seen: Option<crate::shadow_print::Print>,
    /// For the extra sessions that the swap opens.
    pub(crate) server: MySql,
}

impl underpin_dialect::Control for Control {}
