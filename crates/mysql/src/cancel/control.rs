//! The session from which others are looked at and killed.
//!
//! Owns one connection, made anew (to the same server) when it is lost, and a bound on each statement.
//! Knows how to look and how to kill; when to do which is the parent's.

use std::time::Duration;

use mysql_async::{FromRowError, Row, from_row_opt};
use tokio::sync::Mutex;
use tokio::time::timeout;
use underpin_dialect::{DbError, DbResult, ErrorKind};

use super::{SessionState, label};
use crate::connect::{ServerIdentity, Session, SessionId, SessionSettings, connect, connect_to};
use crate::error::STATEMENT_UNREADABLE;
use crate::flavor::Flavor;
use crate::options::ConnectOptions;
use crate::query::rows;

/// Bound on one statement; each takes well under a millisecond on a server that answers.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// A statement of MariaDB's that is younger may still be opening its tables.
const OPENING_MS: u32 = 300;

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

    /// Sends `KILL QUERY` or `KILL CONNECTION`; false where that must wait, because the statement under way
    /// is to end by itself.
    pub(super) async fn kill(&self, what: &str, target: &SessionId) -> DbResult<bool> {
        if self.identity.flavor == Flavor::MariaDb && self.ends_by_itself(target).await? {
            return Ok(false);
        }
        match self.ask(&format!("KILL {what} {}", target.thread), &label(target)).await {
            Ok(_) => Ok(true),
            // "Unknown thread id": it went by itself; the next look will say so.
            Err(error) if error.code == Some(1094) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Whether the session runs what MariaDB must not be interrupted in. Where a RENAME is killed while it
    /// carries triggers along, it leaves a table that nobody can open any more (error 1343; seen on 10.11
    /// in four of five kills that were aimed at it), and whoever is killed while he opens a table may leave its
    /// triggers broken in the server's cache. A definition of ours waits for locks no longer than its
    /// time-out, so it ends soon.
    async fn ends_by_itself(&self, target: &SessionId) -> DbResult<bool> {
        let query = format!(
            "SELECT 1 FROM information_schema.PROCESSLIST WHERE ID = {} AND COMMAND <> 'Sleep' AND (INFO \
             RLIKE '^(RENAME|CREATE|DROP|LOCK) ' OR TIME_MS < {OPENING_MS} AND \
             COALESCE(STATE, '') NOT LIKE 'Waiting%')",
            target.thread
        );
        Ok(!self.ask(&query, &label(target)).await?.is_empty())
    }

    /// Whether the session is there and runs something.
    ///
    /// Its lock says whether it is there: see [`SessionId`]. The process list says what it does; a
    /// session that holds its lock and is not in the list is on its way out.
    pub(super) async fn look(&self, target: &SessionId) -> DbResult<SessionState> {
        let query = format!(
            "SELECT IS_USED_LOCK('{}'), p.COMMAND, p.STATE, p.INFO IS NULL FROM (SELECT 1) one \
             LEFT JOIN information_schema.PROCESSLIST p ON p.ID = {}",
            target.lock, target.thread
        );
        let rows = match self.ask(&query, &label(target)).await {
            Err(error) if error.code == Some(STATEMENT_UNREADABLE) => {
                return Ok(SessionState::Running { state: "not to be seen just now".to_owned() });
            }
            other => other?,
        };
        let Some(row) = rows.into_iter().next() else { return Ok(SessionState::Gone) };
        type Seen = (Option<u64>, Option<String>, Option<String>, bool);
        let (holder, command, state, no_statement): Seen = read(row)?;
        if holder.is_none() {
            return Ok(SessionState::Gone);
        }
        let Some(command) = command else {
            return Ok(SessionState::Running { state: "ending".to_owned() });
        };
        let state = state.unwrap_or_default();
        Ok(match command.as_str() {
            "Sleep" => SessionState::Idle,
            // MariaDB: a KILL QUERY that came just after the statement's end stays in the list until
            // the next statement, on which it has no effect.
            "Killed" if no_statement && state.is_empty() => SessionState::Idle,
            _ => SessionState::Running { state: format!("{command} {state}").trim().to_owned() },
        })
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
        let asked = rows(&mut session.conn, query, attempted, object);
        let error = match timeout(STATEMENT_TIMEOUT, asked).await {
            Ok(Ok(rows)) => return Ok(rows),
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

fn read<T: mysql_async::prelude::FromRow>(row: Row) -> DbResult<T> {
    from_row_opt(row).map_err(|FromRowError(_)| {
        DbError::new(ErrorKind::Other, "reading the process list", "")
            .help("The server's answer has an unexpected form")
    })
}
