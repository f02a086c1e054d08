//! A PostgreSQL database behind the seam: opens the three kinds of sessions.

use std::sync::Arc;

use underpin_core::plan::RunSpec;
use underpin_dialect::{Database, DbResult, Grip};

use crate::cancel::{CancelLimits, Canceller};
use crate::connect::{ServerIdentity, Session, SessionSettings, connect, connect_to};
use crate::control::Control;
use crate::health::{Memory, Probe};
use crate::options::ConnectOptions;
use crate::worker::Worker;

/// See the module's head.
#[derive(Debug, Clone)]
pub struct Postgres {
    pub(crate) options: ConnectOptions,
    pub(crate) settings: SessionSettings,
    /// The schema that keeps the state of runs.
    pub(crate) state_schema: String,
    /// The server and database that every session must reach.
    pub(crate) identity: ServerIdentity,
    /// Replicas that the user named, as URLs; one `none` switches the watch off.
    pub(crate) replicas: Vec<String>,
    /// What was seen of replicas, for every probe that is opened.
    pub(crate) memory: Memory,
    /// Opened early: when it is needed the server may have no free connection.
    canceller: Arc<Canceller>,
}

impl Postgres {
    /// Connects once to learn who the server is; every later session must reach the same one.
    ///
    /// # Errors
    /// As [`connect`]; `ReadOnly` for a standby.
    pub async fn open(
        options: ConnectOptions,
        settings: SessionSettings,
        state_schema: String,
        replicas: Vec<String>,
    ) -> DbResult<Self> {
        let session = connect(&options, &settings).await?;
        let identity = session.identity.clone();
        session.close().await;
        identity.ensure_primary()?;
        let canceller = Canceller::open(&options, &settings, CancelLimits::default()).await?;
        // The second connection is the first proof that the address leads to one server.
        identity.ensure_same(canceller.identity())?;
        let canceller = Arc::new(canceller);
        let memory = Memory::default();
        Ok(Self { options, settings, state_schema, identity, replicas, memory, canceller })
    }

    /// A new session that reaches the same server.
    pub(crate) async fn session(&self) -> DbResult<Session> {
        let session = connect_to(&self.identity, &self.options, &self.settings).await?;
        self.canceller.register(&session.id);
        Ok(session)
    }

    /// The processes of the sessions that were opened here.
    pub(crate) fn sessions(&self) -> Vec<u32> {
        self.canceller.registered_pids()
    }
}

impl Database for Postgres {
    type Control = Control;
    type Worker = Worker;
    type Probe = Probe;

    async fn control(&self) -> DbResult<Control> {
        Ok(Control {
            session: self.session().await?,
            state_schema: self.state_schema.clone(),
            server: self.clone(),
        })
    }

    async fn worker(&self, spec: &Arc<RunSpec>, grip: &Grip) -> DbResult<Worker> {
        Worker::open(self, spec, grip).await
    }

    async fn probe(&self, spec: &Arc<RunSpec>) -> DbResult<Probe> {
        Probe::open(self, spec).await
    }

    async fn cancel(&self, session: u64) -> DbResult<()> {
        self.canceller.cancel_pid(session).await.map(drop)
    }

    async fn end(&self, session: u64) -> DbResult<()> {
        self.canceller.end_pid(session).await
    }
}
