//! A PostgreSQL database behind the seam: opens the three kinds of sessions.

use underpin_dialect::DbResult;

use crate::connect::{ServerIdentity, Session, SessionSettings, connect, connect_to};
use crate::options::ConnectOptions;

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
        Ok(Self { options, settings, state_schema, identity, replicas })
    }

    /// A new session that reaches the same server.
    pub(crate) async fn session(&self) -> DbResult<Session> {
        connect_to(&self.identity, &self.options, &self.settings).await
    }
}
