//! A MySQL or MariaDB server behind the seam: opens the three kinds of sessions.

use std::sync::Arc;

use underpin_core::plan::RunSpec;
use underpin_dialect::{Database, DbResult, Grip};

use crate::cancel::{CancelLimits, Canceller};
use crate::connect::{ServerIdentity, Session, SessionSettings, connect, connect_to};
use crate::control::Control;
use crate::floor::Floor;
use crate::health::Probe;
use crate::inspect::read_table;
use crate::options::ConnectOptions;
use crate::shape::Shape;
use crate::wayback::mark_own;
use crate::worker::Worker;

/// See the module's head.
#[derive(Debug, Clone)]
pub struct MySql {
    pub(crate) options: ConnectOptions,
    pub(crate) settings: SessionSettings,
    /// Where the state of runs is kept.
    pub(crate) state_schema: String,
    /// The server that every session must reach.
    pub(crate) identity: ServerIdentity,
    /// Replicas that the user named, as URLs; one `none` switches the watch off.
    pub(crate) replicas: Vec<String>,
    /// Opened early: when it is needed the server may have no free connection.
    canceller: Arc<Canceller>,
    /// How far the log is known to be over.
    pub(crate) floor: Arc<Floor>,
}

impl MySql {
    /// Connects once to learn who the server is; every later session must reach the same one.
    ///
    /// # Errors
    /// As [`connect`].
    pub async fn open(
        options: ConnectOptions,
        settings: SessionSettings,
        state_schema: String,
        replicas: Vec<String>,
    ) -> DbResult<Self> {
        let session = connect(&options, &settings).await?;
        let identity = session.identity.clone();
        session.close().await;
        let limits = CancelLimits::default();
        let canceller = Arc::new(Canceller::open(&options, &settings, limits).await?);
        Ok(Self {
            options,
            settings,
            state_schema,
            identity,
            replicas,
            canceller,
            floor: Arc::default(),
        })
    }

    /// A new session that reaches the same server.
    pub(crate) async fn session(&self) -> DbResult<Session> {
        let session = connect_to(&self.identity, &self.options, &self.settings).await?;
        self.canceller.register(&session.id);
        Ok(session)
    }

    /// The server's numbers of all sessions of this program that it was opened for.
    pub(crate) fn sessions(&self) -> Vec<u64> {
        self.canceller.sessions()
    }
}

impl Database for MySql {
    type Control = Control;
    type Worker = Worker;
    type Probe = Probe;

    async fn control(&self) -> DbResult<Control> {
        Ok(Control {
            source_seen: None,
            session: self.session().await?,
            state_schema: self.state_schema.clone(),
            server: self.clone(),
        })
    }

    async fn worker(&self, spec: &Arc<RunSpec>, grip: &Grip) -> DbResult<Worker> {
        let mut session = self.session().await?;
        let source = read_table(&mut session, &spec.schema, &spec.table).await?;
        let shadow = read_table(&mut session, &spec.schema, &spec.names.shadow).await?;
        let shape = Shape::new(spec, &source, &shadow)?;
        mark_own(&mut session, spec).await?;
        Ok(Worker {
            session,
            spec: Arc::clone(spec),
            shape,
            grip: grip.clone(),
            state_schema: self.state_schema.clone(),
            staged: false,
            staged_rows: 0,
            floor: Arc::clone(&self.floor),
            under_lock: false,
        })
    }

    async fn probe(&self, spec: &Arc<RunSpec>) -> DbResult<Probe> {
        Probe::open(self, spec).await
    }

    async fn cancel(&self, session: u64) -> DbResult<()> {
        self.canceller.cancel_thread(session).await.map(drop)
    }

    async fn end(&self, session: u64) -> DbResult<()> {
        self.canceller.end_thread(session).await
    }
}
