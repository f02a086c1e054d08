//! The session from which others are looked at and killed.
//!
//! Owns one connection, made anew (to the same server) when it is lost, and a bound on each statement.
//! Knows how to look and how to kill; when to do which is the parent's.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{FromRowError, Row, from_row_opt};
use tokio::sync::Mutex;
use tokio::time::timeout;
use underpin_dialect::{DbError, DbResult, ErrorKind};

use super::{SessionState, label};
use crate::connect::{ServerIdentity, Session, SessionId, SessionSettings, connect, connect_to};
use crate::error::db_error;
use crate::options::ConnectOptions;

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

    /// Sends `KILL QUERY` or `KILL CONNECTION`.
    pub(super) async fn kill(&self, what: &str, target: &SessionId) -> DbResult<()> {
        match self.ask(&format!("KILL {what} {}", target.thread), &label(target)).await {
            Ok(_) => Ok(()),
            // "Unknown thread id": it went by itself; the next look will say so.
            Err(error) if error.code == Some(1094) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What the process list says of the session.
    pub(super) async fn look(&self, target: &SessionId) -> DbResult<SessionState> {
        let query = format!(
            "SELECT USER, HOST, COMMAND, IFNULL(STATE, '') FROM information_schema.PROCESSLIST \
             WHERE ID = {}",
            target.thread
        );
        let rows = self.ask(&query, &label(target)).await?;
        let Some(row) = rows.into_iter().next() else { return Ok(SessionState::Gone) };
        let (user, host, command, state): (String, String, String, String) = read(row)?;
        if user != target.user || host != target.host {
            // The number went to somebody else, so ours is gone.
            return Ok(SessionState::Gone);
        }
        // Over a socket the host is the same for all: it is ours unless the server was restarted.
        if !host.contains(':') && !self.is_same_start(target).await? {
            return Err(DbError::new(ErrorKind::Ambiguous, "finding", label(target)).help(
                "The server seems to have been restarted (or its clock was set), and a session with \
                 this number exists: it is left alone",
            ));
        }
        Ok(match command.as_str() {
            "Sleep" => SessionState::Idle,
            _ => SessionState::Running { state: format!("{command} {state}").trim().to_owned() },
        })
    }

    async fn is_same_start(&self, target: &SessionId) -> DbResult<bool> {
        let mut rows = self.ask("SHOW GLOBAL STATUS LIKE 'Uptime'", &label(target)).await?;
        rows.extend(self.ask("SELECT 'now', UNIX_TIMESTAMP()", &label(target)).await?);
        let mut numbers = Vec::with_capacity(2);
        for row in rows {
            numbers.push(read::<(String, u64)>(row)?.1);
        }
        match numbers.as_slice() {
            [uptime, now] => Ok(target.is_of_server_started(now.saturating_sub(*uptime))),
            _ => Ok(false),
        }
    }

    /// One statement, bounded. The connection is thrown away when it fails as a connection.
    async fn ask(&self, query: &str, object: &str) -> DbResult<Vec<Row>> {
        let attempted = "cancelling";
        let mut slot = self.session.lock().await;
        if slot.is_none() {
            *slot = Some(connect_to(&self.identity, &self.options, &self.settings).await?);
        }
        let Some(session) = slot.as_mut() else {
            return Err(DbError::new(ErrorKind::Other, attempted, object));
        };
        let error = match timeout(STATEMENT_TIMEOUT, session.conn.query(query)).await {
            Ok(Ok(rows)) => return Ok(rows),
            Ok(Err(error)) => db_error(&error, attempted, object),
            Err(_) => DbError::new(ErrorKind::ConnectionLost, attempted, object)
                .help("The server did not answer within 5 s"),
        };
        if error.is_connection_lost() {
            *slot = None;
        }
        Err(error)
    }
}

fn read<T: mysql_async::prelude::FromRow>(row: Row) -> DbResult<T> {
    from_row_opt(row).map_err(|FromRowError(_)| {
        DbError::new(ErrorKind::Other, "reading the process list", "")
            .help("The server's answer has an unexpected form")
    })
}
