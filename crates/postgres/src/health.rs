//! How the servers around us fare: lag of replicas, length of the log, and requests.
//!
//! Who holds a table is `holders`', how lag is told from positions in the log is `clock`'s.

mod clock;
mod holders;
mod replicas;

use std::sync::Arc;

use underpin_core::machine::Command;
use underpin_core::plan::RunSpec;
use underpin_core::signal::Reading;
use underpin_dialect::{DbResult, ErrorKind, Order, OwnQuery};

use crate::changelog;
use crate::connect::Session;
use crate::database::Postgres;
use crate::query::{first, literal, number, quote, text};
use crate::store::command_of;

pub(crate) use holders::{Wish, holders, refuse_old_holders};
use replicas::Replicas;
pub(crate) use replicas::{replica_findings, replica_names};

/// Entries beyond which the length of the log is not counted on.
const BACKLOG_COUNTED_MAX: u64 = 200_000;

/// The probe's sessions: one to the primary, one to each replica that was named.
#[derive(Debug)]
pub struct Probe {
    session: Session,
    server: Postgres,
    spec: Arc<RunSpec>,
    replicas: Replicas,
}

impl Probe {
    /// Opens the probe and finds the replicas.
    ///
    /// # Errors
    /// The primary cannot be reached. Replicas that cannot be read are readings, not errors.
    pub(crate) async fn open(server: &Postgres, spec: &Arc<RunSpec>) -> DbResult<Self> {
        let session = server.session().await?;
        let replicas = Replicas::find(&session, server).await?;
        Ok(Self { session, server: server.clone(), spec: Arc::clone(spec), replicas })
    }
}

impl underpin_dialect::Probe for Probe {
    async fn signals(&mut self, _own: &[OwnQuery]) -> DbResult<Vec<Reading>> {
        self.replicas.read(&self.session).await
    }

    async fn backlog(&mut self) -> DbResult<u64> {
        let sql = changelog::backlog_sql(&self.spec, BACKLOG_COUNTED_MAX)?;
        match number(&self.session, &sql, "counting the log of", &self.spec.table).await {
            // Before it is made and after it is dropped there is no log.
            Err(error) if error.kind == ErrorKind::NotFound => Ok(0),
            other => other,
        }
    }

    async fn requested(&mut self) -> DbResult<Vec<Order>> {
        let runs = format!("{}.runs", quote(&self.server.state_schema)?);
        let id = literal(&self.spec.run_id)?;
        // The request is taken away by reading it; and a sign of life, at most every few seconds.
        let sql = format!(
            "WITH asked AS (SELECT requested FROM {runs} WHERE run_id = {id} AND state = 'open' \
             AND (requested <> '' OR updated_at < clock_timestamp() - interval '5 seconds') \
             FOR UPDATE) \
             UPDATE {runs} AS r SET requested = '', updated_at = clock_timestamp() FROM asked \
             WHERE r.run_id = {id} RETURNING asked.requested"
        );
        match first(&self.session, &sql, "reading requests for run", &self.spec.run_id).await {
            Ok(row) => {
                let command = row.and_then(|row| command_of(&text(&row, 0)));
                Ok(command.map(order).into_iter().collect())
            }
            // The runner itself is writing its record: the request will be there at the next look.
            Err(error) if error.kind == ErrorKind::LockNotHad => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    async fn publish(&mut self, _live: &str) -> DbResult<()> {
        Ok(())
    }
}

/// A request as an order of nobody in particular.
fn order(command: Command) -> Order {
    Order { command, by: String::new(), at: String::new(), taken_at: None }
}
