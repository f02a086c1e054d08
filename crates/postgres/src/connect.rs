//! Opening a session: encrypted as asked, set up explicitly, and proven to reach the right server.
//!
//! Owns the way from options to a [`Session`] and the questions that every session is asked once. There
//! is no pool: a pool hides when a session is new, and a new session has lost its settings and locks.
//! What the settings are is `settings`', who the server is `identity`'s, how `sslmode` turns into
//! attempts `dial`'s.

mod dial;
mod greeting;
mod identity;
mod settings;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::{Client, SimpleQueryMessage};
use underpin_dialect::{DbError, DbResult, ErrorKind};

use crate::error::Doing;
use crate::flavor::Capabilities;
use crate::options::ConnectOptions;
use crate::tls;
pub use identity::{ServerIdentity, SessionId};
pub use settings::SessionSettings;
pub(crate) use settings::{our_meanings, users_meanings};

/// How long a goodbye may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What was said last on a connection that has ended.
pub(crate) type Epitaph = Arc<Mutex<Option<String>>>;

/// An open session with what is known of it.
pub struct Session {
    /// The driver's half that statements are given to; the other half runs as a task.
    pub client: Client,
    /// How the server knows this session, for cancelling what it runs.
    pub id: SessionId,
    /// The server that it talks to.
    pub identity: ServerIdentity,
    /// What that server can do.
    pub capabilities: Capabilities,
    /// The connection is encrypted.
    pub encrypted: bool,
    epitaph: Epitaph,
    connection: JoinHandle<()>,
}

impl Session {
    /// Says goodbye to the server and waits until the connection has ended.
    pub async fn close(self) {
        let Self { client, connection, .. } = self;
        drop(client);
        // A lost connection cannot be closed any more closely.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection).await;
    }

    /// What the server (or the network) said when the connection ended; `None` while it lives.
    pub(crate) fn epitaph(&self) -> Option<String> {
        self.epitaph.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("identity", &self.identity)
            .field("encrypted", &self.encrypted)
            .finish_non_exhaustive()
    }
}

/// Opens a session, sets every setting and reads them back. Standbys are let in: who writes asks
/// [`ServerIdentity::ensure_primary`].
///
/// # Errors
/// `AccessDenied` for the role, `Refused` for settings, certificates, poolers and unsupported servers,
/// `ConnectionLost` where the server cannot be reached in time; nothing was in flight then.
pub async fn connect(options: &ConnectOptions, settings: &SessionSettings) -> DbResult<Session> {
    tls::install_crypto_provider();
    let limit = Duration::from_millis(options.connect_timeout_ms);
    // Dropping the attempt is safe here alone: no statement of it changes anything.
    match tokio::time::timeout(limit, open(options, settings)).await {
        Ok(result) => result,
        Err(_) => Err(DbError::new(ErrorKind::ConnectionLost, "connecting", options.describe())
            .help(format!(
                "No answer within {} ms: check host and port, or raise connect_timeout",
                options.connect_timeout_ms
            ))),
    }
}

/// Opens a session as [`connect`] does and refuses it where it does not reach the expected server.
///
/// # Errors
/// As [`connect`]; `Refused` for another server.
pub async fn connect_to(
    expected: &ServerIdentity,
    options: &ConnectOptions,
    settings: &SessionSettings,
) -> DbResult<Session> {
    let session = connect(options, settings).await?;
    match expected.ensure_same(&session.identity) {
        Ok(()) => Ok(session),
        Err(error) => {
            session.close().await;
            Err(error)
        }
    }
}

async fn open(options: &ConnectOptions, settings: &SessionSettings) -> DbResult<Session> {
    let dial::Dialled { client, connection, epitaph, encrypted } = dial::dial(options).await?;
    let object = options.describe();
    let capabilities = read_version(&client).await?;
    let greeted = greeting::greeted_pid(&client, encrypted).await?;
    identity::refuse_pooler(&client, greeted).await?;
    settings.apply(&client, &capabilities, &object).await?;
    settings.check(&client, &capabilities).await?;
    let id = SessionId::take(&client).await?;
    let identity = ServerIdentity::read(&client, &capabilities).await?;
    Ok(Session { client, id, identity, capabilities, encrypted, epitaph, connection })
}

/// The first question, so that a server of an unknown version is asked nothing else.
async fn read_version(client: &Client) -> DbResult<Capabilities> {
    let attempted = "reading the server's version";
    let sql = "SELECT pg_catalog.current_setting('server_version_num'), \
               pg_catalog.current_setting('server_version')";
    let messages = client.simple_query(sql).await.doing(attempted, "")?;
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let version_num = row.and_then(|row| row.get(0)).and_then(|text| text.parse().ok());
    let version = row.and_then(|row| row.get(1)).unwrap_or_default();
    let version_num = version_num.ok_or_else(|| {
        DbError::new(ErrorKind::Refused, attempted, "").help("The server does not tell its version")
    })?;
    Capabilities::new(version_num, version)
}
