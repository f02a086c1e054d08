//! By what the tables of a run are known again: their OIDs and their shape, kept with the run.

use underpin_dialect::DbResult;

use crate::control::Control;
use crate::query::{first, literal, quote, run, text};

/// The statement that keeps a print of the run, in the place of an earlier one.
///
/// # Errors
/// A name that no identifier can have.
pub(crate) fn print_sql(
    state_schema: &str,
    run_id: &str,
    what: &str,
    print: &str,
) -> DbResult<String> {
    Ok(format!(
        "INSERT INTO {}.prints (run_id, what, print) VALUES ({}, {}, {}) ON CONFLICT (run_id, what) DO \
         UPDATE SET print = EXCLUDED.print",
        quote(state_schema)?,
        literal(run_id)?,
        literal(what)?,
        literal(print)?
    ))
}

impl Control {
    /// Keeps a print of the run.
    pub(crate) async fn save_print(&self, run_id: &str, what: &str, print: &str) -> DbResult<()> {
        let sql = print_sql(&self.state_schema, run_id, what, print)?;
        run(&self.session, &sql, "noting the tables of run", run_id).await.map(drop)
    }

    /// A print of the run; `None` where none was kept.
    pub(crate) async fn load_print(&self, run_id: &str, what: &str) -> DbResult<Option<String>> {
        let sql = format!(
            "SELECT print FROM {}.prints WHERE run_id = {} AND what = {}",
            quote(&self.state_schema)?,
            literal(run_id)?,
            literal(what)?
        );
        let row = first(&self.session, &sql, "reading what is noted of the tables of run", run_id);
        Ok(row.await?.map(|row| text(&row, 0)))
    }
}
