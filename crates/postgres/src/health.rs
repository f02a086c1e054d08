//! How the servers around us fare: signals, length of the log, and orders.
//!
//! Who holds a table is `holders`', how lag is told from positions in the log is `clock`'s. What could hold
//! up the rest (a write that waits for a standby, a replica that does not answer, a query of the user's)
//! has a session of its own (`aside`), which is opened when it is first needed.

mod aside;
mod clock;
mod gauges;
mod heart;
mod holders;
mod load;
mod own;
mod replicas;
mod reserves;

use std::sync::Arc;
use std::time::Duration;

use underpin_core::plan::RunSpec;
use underpin_core::signal::Reading;
use underpin_dialect::{DbResult, ErrorKind, Order, OwnQuery};

use crate::changelog;
use crate::connect::Session;
use crate::database::Postgres;
use crate::query::{literal, number, quote, rows, run};
use crate::store::{order, take_sql};

use gauges::Gauges;
use heart::Heart;
pub(crate) use holders::{Wish, holders, refuse_old_holders};
use own::Own;
use replicas::Replicas;
pub(crate) use replicas::{Memory, replica_findings, replica_names};

/// Entries beyond which the length of the log is not counted on.
const BACKLOG_COUNTED_MAX: u64 = 200_000;

/// The server's own bound on each statement of the probe.
const STATEMENT_TIMEOUT: &str = "SET statement_timeout = '5s'";

/// An order that is taken and a sign of life need not wait for synchronous standbys: a run must be steered
/// also while one is gone.
const WAIT_FOR_NO_STANDBY: &str = "SET synchronous_commit = local";

/// How long the replicas are looked at for what was just written: a standby tells its position as soon as it
/// has replayed all that it has.
const LOOK: Duration = Duration::from_millis(200);

/// The probe: its session to the primary, and what it needs for signals once it is asked for them.
#[derive(Debug)]
pub struct Probe {
    session: Session,
    server: Postgres,
    spec: Arc<RunSpec>,
    signals: Option<Signals>,
}

/// Whatever is read of signals.
#[derive(Debug)]
struct Signals {
    heart: Heart,
    replicas: Replicas,
    gauges: Gauges,
    own: Own,
}

impl Probe {
    /// Opens the probe.
    ///
    /// # Errors
    /// The primary cannot be reached. Replicas that cannot be read are readings, not errors.
    pub(crate) async fn open(server: &Postgres, spec: &Arc<RunSpec>) -> DbResult<Self> {
        let session = server.session().await?;
        for setting in [STATEMENT_TIMEOUT, WAIT_FOR_NO_STANDBY] {
            run(&session, setting, "setting up the session", "of the probe").await?;
        }
        // Who vanishes from now on is missed.
        replica_names(&session, server, &server.replicas).await?;
        Ok(Self { session, server: server.clone(), spec: Arc::clone(spec), signals: None })
    }
}

impl Signals {
    fn open(server: &Postgres, spec: &RunSpec) -> DbResult<Self> {
        Ok(Self {
            heart: Heart::new(server, &spec.run_id)?,
            replicas: Replicas::find(server),
            gauges: Gauges::new(server),
            own: Own::new(server),
        })
    }

    async fn read(&mut self, session: &Session, own: &[OwnQuery]) -> DbResult<Vec<Reading>> {
        let mut readings: Vec<Reading> = self.heart.beat().await.into_iter().collect();
        self.replicas.look(session, LOOK).await?;
        readings.extend(self.replicas.readings());
        readings.extend(self.gauges.read(session).await?);
        readings.extend(self.own.read(own).await);
        Ok(readings)
    }
}

impl underpin_dialect::Probe for Probe {
    async fn signals(&mut self, own: &[OwnQuery]) -> DbResult<Vec<Reading>> {
        let signals = match &mut self.signals {
            Some(signals) => signals,
            none => none.insert(Signals::open(&self.server, &self.spec)?),
        };
        signals.read(&self.session, own).await
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
        let state = quote(&self.server.state_schema)?;
        // A sign of life too, every few seconds.
        let sql = format!(
            "UPDATE {state}.live SET seen_at = pg_catalog.clock_timestamp() WHERE run_id = {} \
             AND seen_at < pg_catalog.clock_timestamp() - interval '2 seconds'; {}",
            literal(&self.spec.run_id)?,
            take_sql(&state, &self.spec.run_id)?
        );
        let taken = rows(&self.session, &sql, "taking the orders for run", &self.spec.run_id);
        match taken.await {
            Ok(rows) => Ok(rows.iter().filter_map(order).collect()),
            // Somebody changes the tables: the orders will be there at the next look.
            Err(error) if error.kind == ErrorKind::LockNotHad => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    async fn publish(&mut self, live: &str) -> DbResult<()> {
        let sql = format!(
            "UPDATE {}.live SET live = {}, seen_at = pg_catalog.clock_timestamp() WHERE run_id = {}",
            quote(&self.server.state_schema)?,
            literal(live)?,
            literal(&self.spec.run_id)?
        );
        run(&self.session, &sql, "telling how it goes with run", &self.spec.run_id).await.map(drop)
    }
}
