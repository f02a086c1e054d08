//! By what the tables of a run are known again: their ids and their shape, kept with the run.

use underpin_dialect::DbResult;

use crate::control::Control;
use crate::query::{first, literal, quote, run, text};

impl Control {
    /// Keeps a print of the run, in the place of an earlier one.
    pub(crate) async fn save_print(
        &mut self,
        run_id: &str,
        what: &str,
        print: &str,
    ) -> DbResult<()> {
        let sql = format!(
            "REPLACE INTO {}.prints (run_id, what, print) VALUES ({}, {}, {})",
            quote(&self.state_schema)?,
            literal(run_id)?,
            literal(what)?,
            literal(print)?
        );
        run(&mut self.session.conn, &sql, "noting the tables of run", run_id).await.map(|_| ())
    }

    /// A print of the run; `None` where none was kept.
    pub(crate) async fn load_print(
        &mut self,
        run_id: &str,
        what: &str,
    ) -> DbResult<Option<String>> {
        let sql = format!(
            "SELECT print FROM {}.prints WHERE run_id = {} AND what = {}",
            quote(&self.state_schema)?,
            literal(run_id)?,
            literal(what)?
        );
        let conn = &mut self.session.conn;
        let row = first(conn, &sql, "reading what is noted of the tables of run", run_id).await?;
        Ok(row.map(|row| text(&row, 0)))
    }
}
