//! The session from which others are looked at, cancelled and terminated.
//!
//! Owns one connection, made anew (to the same server) when it is lost, and a bound on each statement.
//! Knows how to look and how to cancel; when to do which is the parent's.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::timeout;
use underpin_dialect::{DbError, DbResult, ErrorKind};

use super::{SessionState, label};
use crate::connect::{ServerIdentity, Session, SessionId, SessionSettings, connect, connect_to};
use crate::options::ConnectOptions;
use crate::query::{Row, literal, optional_text, rows};

/// Bound on one statement; each takes well under a millisecond on a server that answers.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// The cancelling session.
#[derive(Debug)]
pub(super) struct Control {
    options: ConnectOptions,
    settings: SessionSettings,
    identity: ServerIdentity,
    session: Mutex<Option<Session>>,
}

impl Control {
    /// Connects.
    pub(super) async fn open(
        options: &ConnectOptions,
        settings: &SessionSettings,
    ) -> DbResult<Self> {
        let session = connect(options, settings).await?;
        Ok(Self {
            options: options.clone(),
            settings: settings.clone(),
            identity: session.identity.clone(),
            session: Mutex::new(Some(session)),
        })
    }

    pub(super) fn identity(&self) -> &ServerIdentity {
        &self.identity
    }

    /// Ends what the session runs; no effect where it runs nothing.
    pub(super) async fn cancel(&self, target: &SessionId) -> DbResult<()> {
        self.signal("pg_cancel_backend", target).await
    }

    /// Ends the session.
    pub(super) async fn terminate(&self, target: &SessionId) -> DbResult<()> {
        self.signal("pg_terminate_backend", target).await
    }

    /// Looks and signals in one statement, so that the number can hardly have changed hands between.
    async fn signal(&self, function: &str, target: &SessionId) -> DbResult<()> {
        let sql = format!(
            "SELECT pg_catalog.{function}(pid) FROM pg_catalog.pg_stat_activity WHERE {}",
            is_target(target)?
        );
        // No row: it went by itself; the next look will say so.
        self.ask(&sql, &label(target)).await.map(drop)
    }

    /// Whether the session is there and runs something.
    pub(super) async fn look(&self, target: &SessionId) -> DbResult<SessionState> {
        let sql = format!(
            "SELECT state, wait_event_type, wait_event FROM pg_catalog.pg_stat_activity WHERE {}",
            is_target(target)?
        );
        let found = self.ask(&sql, &label(target)).await?;
        let Some(row) = found.first() else { return Ok(SessionState::Gone) };
        let cell = |index| optional_text(row, index).unwrap_or_default();
        Ok(match cell(0).as_str() {
            "idle" | "idle in transaction" | "idle in transaction (aborted)" => SessionState::Idle,
            state => SessionState::Running {
                state: format!("{state} {} {}", cell(1), cell(2)).trim().to_owned(),
            },
        })
    }

    /// One statement, bounded. The connection is thrown away when it fails as a connection.
    async fn ask(&self, sql: &str, object: &str) -> DbResult<Vec<Row>> {
        let attempted = "cancelling";
        let mut slot = self.session.lock().await;
        if slot.is_none() {
            *slot = Some(connect_to(&self.identity, &self.options, &self.settings).await?);
        }
        let Some(session) = slot.as_ref() else {
            return Err(DbError::new(ErrorKind::Other, attempted, object));
        };
        let error = match timeout(STATEMENT_TIMEOUT, rows(session, sql, attempted, object)).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) => error,
            Err(_) => DbError::new(ErrorKind::ConnectionLost, attempted, object)
                .help("The server did not answer within 5 s"),
        };
        if error.is_connection_lost() {
            *slot = None;
        }
        Err(error)
    }
}

/// The condition for one session, by number and start.
fn is_target(target: &SessionId) -> DbResult<String> {
    Ok(format!("pid = {} AND backend_start = {}", target.pid, literal(&target.started)?))
}
