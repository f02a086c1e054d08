//! Who the server is, who this session is there, and which part the server plays.
//!
//! Owns the proof that two connections reach the same server (a name may lead to several, and to
//! another one after a fail-over), the id by which a session can be cancelled without hitting a
//! stranger and proven to have ended, and the facts about read-only and replication. Does not refuse a replica: preflight does.

use std::fmt;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row};
use underpin_dialect::{DbError, DbResult, ErrorKind};

use crate::error::{Doing, classify, db_error};
use crate::flavor::{Capabilities, Flavor, Variables};
use crate::query::{cell, first};

/// What tells one server from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerIdentity {
    /// Flavour and version in words, as "MySQL 9.7.4". Not compared: a server may be upgraded.
    pub name: String,
    /// MySQL or MariaDB.
    pub flavor: Flavor,
    /// MySQL's `server_uuid`, unique in a replication topology.
    pub uuid: Option<String>,
    /// MariaDB's `server_uid`, made of network card and port; missing in older versions.
    pub uid: Option<String>,
    /// `hostname`, as the server sees itself.
    pub hostname: String,
    /// `port`, as the server sees itself.
    pub port: u16,
    /// `datadir`, on the server.
    pub datadir: String,
    /// `server_id`. Not compared: it can be changed while the server runs.
    pub server_id: u64,
}

impl ServerIdentity {
    /// From the server's variables.
    pub(crate) fn from_variables(capabilities: &Capabilities, variables: &Variables) -> Self {
        Self {
            name: capabilities.to_string(),
            flavor: capabilities.flavor,
            uuid: variables.get("server_uuid").map(str::to_owned),
            uid: variables.get("server_uid").map(str::to_owned),
            hostname: variables.text("hostname").to_owned(),
            port: variables.number("port").unwrap_or(0),
            datadir: variables.text("datadir").to_owned(),
            server_id: variables.number("server_id").unwrap_or(0),
        }
    }

    /// Checks that `other` is this server.
    ///
    /// MySQL: the same `server_uuid`. MariaDB has none, so all it shows of itself must agree.
    ///
    /// # Errors
    /// `Refused`, naming both.
    pub fn ensure_same(&self, other: &Self) -> DbResult<()> {
        let same = self.flavor == other.flavor
            && match (&self.uuid, &other.uuid) {
                (Some(mine), Some(theirs)) => mine == theirs,
                (None, None) => {
                    let place = |one: &Self| {
                        (one.uid.clone(), one.hostname.clone(), one.port, one.datadir.clone())
                    };
                    place(self) == place(other)
                }
                _ => false,
            };
        if same {
            return Ok(());
        }
        Err(DbError::new(
            ErrorKind::Refused,
            "checking that this is the same server",
            self.to_string(),
        )
        .help(format!(
            "The connection reached {other} instead: the address leads to several servers, or \
                 another one took over. Connect to the server by an address of its own"
        )))
    }
}

impl fmt::Display for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}:{}", self.name, self.hostname, self.port)?;
        match &self.uuid {
            Some(uuid) => write!(f, " (server_uuid {uuid})"),
            None => write!(f, " (server_id {}, {})", self.server_id, self.datadir),
        }
    }
}

/// A session as the server knows it.
///
/// The number alone is not enough: after a restart of the server it soon belongs to somebody else, and
/// a KILL would hit a stranger. And the process list is no proof of an end: both flavours leave a
/// thread out as soon as its connection is closed, while it may still roll back or even commit. So each
/// session takes a user-level lock under a name that was never used before. The server lets go of it
/// when the session's transaction is over, whatever ended the session; nobody needs a privilege to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionId {
    /// `CONNECTION_ID()`.
    pub thread: u64,
    /// The name of the lock, unique in the world: `IS_USED_LOCK` gives `thread` while the session lives.
    pub lock: String,
}

impl SessionId {
    /// Asks the server who this session is, and takes its lock.
    ///
    /// # Errors
    /// `Refused` where a proxy answers with sessions of its own, which could not be cancelled.
    pub(crate) async fn take(conn: &mut Conn) -> DbResult<Self> {
        let attempted = "asking for the session's id";
        let query = "SELECT CONNECTION_ID(), CONCAT('underpin ', UUID())";
        let row: Option<(u64, String)> = conn.query_first(query).await.doing(attempted, "")?;
        let (thread, lock) = row.ok_or_else(|| behind_a_proxy(attempted))?;
        // The greeting carries the low 32 bits of the id; behind a multiplexing proxy it is the proxy's.
        if thread & u64::from(u32::MAX) != u64::from(conn.id()) {
            return Err(behind_a_proxy(attempted));
        }
        let take = format!("SELECT GET_LOCK('{lock}', 0), IS_USED_LOCK('{lock}')");
        let attempted = "taking the session's lock";
        let taken = first(conn, &take, attempted, "").await?;
        let cells = |row: &Row| -> DbResult<(Option<u64>, Option<u64>)> {
            Ok((cell(row, 0, attempted)?, cell(row, 1, attempted)?))
        };
        if taken.as_ref().map(cells).transpose()? != Some((Some(1), Some(thread))) {
            return Err(behind_a_proxy(attempted));
        }
        Ok(Self { thread, lock })
    }
}

fn behind_a_proxy(attempted: &str) -> DbError {
    DbError::new(ErrorKind::Refused, attempted, "").help(
        "The server knows this session under another number than the one we were greeted with: a \
         proxy or pooler stands between. Connect straight to the server: locks and cancelling need \
         sessions of their own",
    )
}

/// One source that this server replicates from, or is set up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaSource {
    /// The source's address.
    pub host: String,
    /// The source's port.
    pub port: u16,
    /// Events are being fetched (also `Connecting`).
    pub io_running: bool,
    /// Events are being applied.
    pub sql_running: bool,
}

/// Whether this server is a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replication {
    /// The account may not ask (REPLICATION CLIENT; on MariaDB REPLICA MONITOR).
    Unknown,
    /// The sources it is set up to replicate from; empty where it is no replica.
    From(Vec<ReplicaSource>),
}

/// The part that the server plays now; it may change at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerRole {
    /// `read_only`.
    pub read_only: bool,
    /// `super_read_only` (MySQL).
    pub super_read_only: bool,
    /// `innodb_read_only`.
    pub innodb_read_only: bool,
    /// Whether it replicates from another server.
    pub replication: Replication,
}

impl ServerRole {
    /// True where ordinary accounts cannot write.
    pub fn refuses_writes(&self) -> bool {
        self.read_only || self.super_read_only || self.innodb_read_only
    }
}

/// Asks the server for its present role.
///
/// # Errors
/// The server's or the connection's. A missing privilege is an answer: [`Replication::Unknown`].
pub async fn server_role(conn: &mut Conn, capabilities: &Capabilities) -> DbResult<ServerRole> {
    let variables = Variables::read(conn).await?;
    let replication = match conn.query::<Row, _>(capabilities.replica_status_verb).await {
        Ok(rows) => Replication::From(rows.iter().map(replica_source).collect()),
        Err(error) if is_denied(&error) => Replication::Unknown,
        Err(error) => return Err(db_error(&error, "asking whether this is a replica", "")),
    };
    Ok(ServerRole {
        // MariaDB 12 has more than ON and OFF here.
        read_only: !matches!(variables.text("read_only"), "" | "OFF" | "0"),
        super_read_only: variables.is_on("super_read_only"),
        innodb_read_only: variables.is_on("innodb_read_only"),
        replication,
    })
}

fn is_denied(error: &Error) -> bool {
    classify(error) == ErrorKind::AccessDenied
}

fn replica_source(row: &Row) -> ReplicaSource {
    // Columns are called Source_… and Replica_… on newer MySQL, Master_… and Slave_… elsewhere.
    let text = |names: [&str; 2]| {
        names.iter().find_map(|name| row.get_opt::<String, _>(*name)?.ok()).unwrap_or_default()
    };
    let running = |names| text(names) != "No";
    ReplicaSource {
        host: text(["Source_Host", "Master_Host"]),
        port: text(["Source_Port", "Master_Port"]).parse().unwrap_or(0),
        io_running: running(["Replica_IO_Running", "Slave_IO_Running"]),
        sql_running: running(["Replica_SQL_Running", "Slave_SQL_Running"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(uuid: Option<&str>, hostname: &str) -> ServerIdentity {
        ServerIdentity {
            name: "MySQL 9.7.4".to_owned(),
            flavor: if uuid.is_some() { Flavor::MySql } else { Flavor::MariaDb },
            uuid: uuid.map(str::to_owned),
            uid: None,
            hostname: hostname.to_owned(),
            port: 3306,
            datadir: "/data/".to_owned(),
            server_id: 1,
        }
    }

    #[test]
    fn mysql_is_known_by_its_uuid_alone() {
        let server = identity(Some("a"), "one");
        assert!(server.ensure_same(&identity(Some("a"), "renamed")).is_ok());
        let error = server.ensure_same(&identity(Some("b"), "one")).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused);
        assert!(error.to_string().contains("server_uuid b"), "{error}");
    }

    #[test]
    fn mariadb_is_known_by_all_it_shows() {
        let server = identity(None, "one");
        assert!(server.ensure_same(&ServerIdentity { server_id: 2, ..server.clone() }).is_ok());
        for other in [
            identity(None, "two"),
            ServerIdentity { port: 3307, ..server.clone() },
            ServerIdentity { datadir: "/other/".to_owned(), ..server.clone() },
            ServerIdentity { uid: Some("x".to_owned()), ..server.clone() },
            identity(Some("a"), "one"),
        ] {
            assert!(server.ensure_same(&other).is_err(), "{other}");
        }
    }
}
