//! After the swap the log must be empty. What is in it all the same came late, and is applied from the
//! retired table before that goes.
//!
//! Part of finishing, not of the swap: so it is done too where the swap's own answer was lost. Where the way
//! back is kept it is part of arriving, and never done later: once the run goes back and that is left
//! half way, an entry of this log would bring an old row over a newer one.

use std::sync::Arc;

use underpin_core::key::Frontier;
use underpin_core::plan::RunSpec;
use underpin_dialect::{DbError, DbResult, ErrorKind, Grip};

use crate::changelog::Takes;
use crate::control::Control;
use crate::floor::Floor;
use crate::inspect::{read_table, table_exists};
use crate::query::{literal, number, quote, quote_table};
use crate::shape::Shape;
use crate::wayback::mark_own;
use crate::worker::Worker;

/// Applications at most: whoever writes on and on to the retired table must be stopped by hand.
const ROUNDS_MAX: u32 = 1000;

impl Control {
    /// Applies what is left in the log. Nothing to do once log or retired table is gone.
    pub(crate) async fn apply_late_entries(&mut self, spec: &RunSpec) -> DbResult<()> {
        for name in [&spec.names.log, &spec.names.retired] {
            if !table_exists(&mut self.session, &spec.schema, name).await? {
                return Ok(());
            }
        }
        let object = format!("{}.{}", spec.schema, spec.table);
        let log = quote_table(&spec.schema, &spec.names.log)?;
        let probe = format!("SELECT COUNT(*) FROM {log}");
        let mut worker = None;
        for _ in 0..ROUNDS_MAX {
            if number(&mut self.session.conn, &probe, "probing the log of", &object).await? == 0 {
                return Ok(());
            }
            let late = match &mut worker {
                Some(worker) => worker,
                None => worker.insert(self.worker_after_rename(spec).await?),
            };
            // All at once: the new table is live, and no row of it may be missing even for a moment.
            late.apply_staged(&Frontier::End, Takes::Oldest(u64::MAX), None).await?;
        }
        Err(DbError::new(ErrorKind::Other, "applying late changes to", object).help(format!(
            "Somebody writes to {} without an end; stop that, and run the same command again",
            spec.names.retired
        )))
    }

    /// A worker whose rows come from the retired table and go into the new one.
    async fn worker_after_rename(&mut self, spec: &RunSpec) -> DbResult<Worker> {
        let mut session = self.server.session().await?;
        let retired = read_table(&mut session, &spec.schema, &spec.names.retired).await?;
        let new = read_table(&mut session, &spec.schema, &spec.table).await?;
        let shape = Shape::new(spec, &retired, &new)?.after_rename();
        mark_own(&mut session, spec).await?;
        let sql = format!(
            "SELECT epoch FROM {}.fences WHERE run_id = {}",
            quote(&self.state_schema)?,
            literal(&spec.run_id)?
        );
        let conn = &mut self.session.conn;
        let epoch = number(conn, &sql, "reading the fence of run", &spec.run_id).await?;
        Ok(Worker {
            session,
            spec: Arc::new(spec.clone()),
            shape,
            grip: Grip { run_id: spec.run_id.clone(), epoch },
            state_schema: self.state_schema.clone(),
            staged: false,
            staged_rows: 0,
            // What was learnt of the log before the swap does not hold for who comes after it.
            floor: Arc::new(Floor::default()),
            under_lock: false,
        })
    }
}
