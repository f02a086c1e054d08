//! Who the server is, who this session is there, and which part the server plays.
//!
//! Owns the proof that two connections reach the same server and database (a name may lead to several,
//! and to another one after a fail-over), the id by which a session can be cancelled without hitting a
//! stranger and proven to have ended, and the fact of being a standby.

use std::fmt;

use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};
use underpin_dialect::{DbError, DbResult, ErrorKind};

use crate::error::Doing;
use crate::flavor::Capabilities;

/// What tells one server, and one database of it, from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerIdentity {
    /// Version in words, as "PostgreSQL 15.20". Not compared: a server may be upgraded.
    pub name: String,
    /// Drawn by `initdb`; shared by a primary and all its physical copies.
    pub system_identifier: u64,
    /// Grows at each promotion, so it tells a primary from its standby that took over. 0 on a standby.
    pub timeline: u32,
    /// The database's name. Not compared: it may be renamed.
    pub database: String,
    /// The database's oid.
    pub database_oid: u32,
    /// When the server was started, as it writes it: equal only for the very same postmaster.
    pub started: String,
    /// The server's own address and port, empty and 0 over a Unix socket.
    pub address: String,
    /// `port`, as the server sees itself.
    pub port: u16,
    /// It replays another server's log (`pg_is_in_recovery`).
    pub standby: bool,
}

impl ServerIdentity {
    /// Asks the server.
    pub(super) async fn read(client: &Client, capabilities: &Capabilities) -> DbResult<Self> {
        let attempted = "asking the server who it is";
        // The name of the file that is written to begins with the timeline, as hexadecimal digits.
        let sql = "SELECT (SELECT system_identifier FROM pg_catalog.pg_control_system()), \
             CASE WHEN pg_catalog.pg_is_in_recovery() THEN '0' \
             ELSE pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) \
             END, d.datname, d.oid, pg_catalog.pg_postmaster_start_time(), \
             pg_catalog.host(pg_catalog.inet_server_addr()), \
             pg_catalog.current_setting('port'), pg_catalog.pg_is_in_recovery() \
             FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()";
        let row = one_row(client, sql, attempted).await?;
        let text = |index: usize| row.get(index).unwrap_or_default().to_owned();
        let strange = || DbError::new(ErrorKind::Other, attempted, "").help("The answer is odd");
        Ok(Self {
            name: capabilities.to_string(),
            // The server prints it as a signed number.
            system_identifier: text(0).parse::<i64>().map_err(|_| strange())?.cast_unsigned(),
            timeline: u32::from_str_radix(&text(1), 16).map_err(|_| strange())?,
            database: text(2),
            database_oid: text(3).parse().map_err(|_| strange())?,
            started: text(4),
            address: text(5),
            port: text(6).parse().unwrap_or(0),
            standby: text(7) == "t",
        })
    }

    /// Checks that `other` is this database on this server.
    ///
    /// The same postmaster proves itself by its start. One that was started anew since is still the same
    /// server if it writes the same timeline at the same place: a standby, a promoted one and a server
    /// restored from a backup each differ in one of them.
    ///
    /// # Errors
    /// `Refused`, naming both.
    pub fn ensure_same(&self, other: &Self) -> DbResult<()> {
        let what = |one: &Self| (one.system_identifier, one.database_oid, one.standby);
        let place = |one: &Self| (one.timeline, one.port);
        let same_run = self.started == other.started && self.timeline == other.timeline;
        if what(self) == what(other) && (same_run || place(self) == place(other)) {
            return Ok(());
        }
        Err(DbError::new(
            ErrorKind::Refused,
            "checking that this is the same server",
            self.to_string(),
        )
        .help(format!(
            "The connection reached {other} instead: the address leads to several servers, or another \
             one took over. Connect to the server by an address of its own"
        )))
    }

    /// Checks that this server takes writes.
    ///
    /// # Errors
    /// `ReadOnly` for a standby.
    pub fn ensure_primary(&self) -> DbResult<()> {
        if !self.standby {
            return Ok(());
        }
        Err(DbError::new(ErrorKind::ReadOnly, "connecting", self.to_string()).help(
            "This server is a standby: connect to its primary (standbys are named with --replica)",
        ))
    }
}

impl fmt::Display for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let standby = if self.standby { ", a standby" } else { "" };
        let address = if self.address.is_empty() { "local socket" } else { &self.address };
        write!(
            f,
            "{} at {address}:{}, database {} (system {}, timeline {}{standby})",
            self.name, self.port, self.database, self.system_identifier, self.timeline
        )
    }
}

/// A session as the server knows it.
///
/// The number alone is not enough: the system gives it to another process soon after, and a cancel
/// would hit a stranger. The start makes it unique. The server takes a session off the list only after
/// its transaction has ended and its locks are gone: so being off the list is the proof of an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionId {
    /// `pg_backend_pid()`.
    pub pid: u32,
    /// `pg_stat_activity.backend_start`, as the server writes it in UTC.
    pub started: String,
}

impl SessionId {
    /// Asks the server who this session is. The session's settings must hold.
    pub(super) async fn take(client: &Client) -> DbResult<Self> {
        let attempted = "asking for the session's id";
        let sql = "SELECT pid, backend_start FROM pg_catalog.pg_stat_activity \
                   WHERE pid = pg_catalog.pg_backend_pid()";
        let row = one_row(client, sql, attempted).await?;
        let started = row.get(1).unwrap_or_default().to_owned();
        match row.get(0).and_then(|text| text.parse().ok()) {
            Some(pid) if !started.is_empty() => Ok(Self { pid, started }),
            _ => Err(DbError::new(ErrorKind::Other, attempted, "").help("The answer is odd")),
        }
    }
}

/// Refuses a session that is not ours alone; `greeted` is the number that we were greeted with.
///
/// To be asked before anything is set: a pooler would hand the session with our settings to others.
///
/// # Errors
/// `Refused` where somebody stands between.
pub(super) async fn refuse_pooler(client: &Client, greeted: u32) -> DbResult<()> {
    let attempted = "asking for the session's id";
    let row = one_row(client, "SELECT pg_catalog.pg_backend_pid()", attempted).await?;
    let pid = row.get(0).unwrap_or_default();
    if pid == greeted.to_string() {
        return Ok(());
    }
    Err(DbError::new(ErrorKind::Refused, attempted, format!("session {pid}")).help(format!(
        "The server knows this session as {pid}, but we were greeted as {greeted}: a connection pooler \
         (PgBouncer or its like) stands between. Connect straight to the server: locks, settings and \
         cancelling need sessions of their own"
    )))
}

async fn one_row(client: &Client, sql: &str, attempted: &str) -> DbResult<SimpleQueryRow> {
    let messages = client.simple_query(sql).await.doing(attempted, "")?;
    messages
        .into_iter()
        .find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        })
        .ok_or_else(|| DbError::new(ErrorKind::Other, attempted, "").help("No answer came"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> ServerIdentity {
        ServerIdentity {
            name: "PostgreSQL 15.20".to_owned(),
            system_identifier: 7,
            timeline: 1,
            database: "shop".to_owned(),
            database_oid: 16_384,
            started: "a".to_owned(),
            address: "127.0.0.1".to_owned(),
            port: 5432,
            standby: false,
        }
    }

    #[test]
    fn a_restarted_server_is_the_same_one() {
        let server = identity();
        assert!(server.ensure_same(&ServerIdentity { started: "b".into(), ..identity() }).is_ok());
        assert!(
            server.ensure_same(&ServerIdentity { address: String::new(), ..identity() }).is_ok()
        );
    }

    #[test]
    fn copies_and_other_databases_are_not() {
        let server = identity();
        for other in [
            ServerIdentity { system_identifier: 8, ..identity() },
            ServerIdentity { database_oid: 1, ..identity() },
            ServerIdentity { standby: true, timeline: 0, started: "b".into(), ..identity() },
            ServerIdentity { timeline: 2, started: "b".into(), ..identity() },
            ServerIdentity { port: 5433, started: "b".into(), ..identity() },
        ] {
            assert_eq!(server.ensure_same(&other).unwrap_err().kind, ErrorKind::Refused, "{other}");
        }
    }

    #[test]
    fn a_standby_is_refused_with_the_way_out() {
        let error = ServerIdentity { standby: true, ..identity() }.ensure_primary().unwrap_err();
        assert_eq!(error.kind, ErrorKind::ReadOnly);
        assert!(error.to_string().contains("primary"), "{error}");
    }
}
