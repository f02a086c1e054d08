//! Which replicas there are: those the user named, else those that the server knows of.
//!
//! Asked are the server's list of replicas, the members of its group, and who reads its binary log: a
//! replica without `report_host` is in no list of MariaDB, and has no address in MySQL's.

use std::time::Duration;

use futures_util::future::join_all;
use underpin_dialect::{DbResult, ErrorKind};

use super::within;
use crate::connect::{Replication, Session, connect, server_role};
use crate::database::MySql;
use crate::flavor::Flavor;
use crate::options::{self, ConnectOptions};
use crate::query::{literal, rows, text};

/// Unlisted readers of the log that are tried.
const READERS_MAX: usize = 8;

/// Bound on one such try.
const TRY_MAX: Duration = Duration::from_secs(3);

/// A replica that is to be watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Replica {
    /// How the user knows it, as `host:port`.
    pub(crate) name: String,
    /// How to reach it; an error text where that is not known.
    pub(crate) options: Result<ConnectOptions, String>,
    /// Its `server_id`, where the list tells.
    pub(crate) server_id: Option<u64>,
    /// It is a member of a replication group, which has no lag of its own to tell.
    pub(crate) in_group: bool,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    /// Replicas, each once.
    pub(crate) replicas: Vec<Replica>,
    /// Who reads the binary log and is not known as a replica: addresses.
    pub(crate) strangers: Vec<String>,
}

/// The replicas to watch. `known` readers of the log are not tried again.
///
/// # Errors
/// The server's or the connection's; a missing privilege only shortens the list.
pub(crate) async fn list(
    session: &mut Session,
    server: &MySql,
    named: &[String],
    known: &[String],
) -> DbResult<Listed> {
    let mut listed = Listed::default();
    if named.iter().any(|name| name == "none") {
        return Ok(listed);
    }
    if !named.is_empty() {
        listed.replicas = named.iter().map(|url| by_url(url, &server.options)).collect();
        return Ok(listed);
    }
    let is_mysql = session.capabilities.flavor == Flavor::MySql;
    let verb = session.capabilities.show_replicas_verb;
    let attempted = "listing the replicas of";
    let found = allowed(rows(&mut session.conn, verb, attempted, "the server").await)?;
    for row in &found {
        let (host, uuid) = (text(row, 1), text(row, 4));
        let host = if host.is_empty() && is_mysql { host_of(session, &uuid).await? } else { host };
        add(&mut listed.replicas, by_list(&text(row, 0), &host, &text(row, 2), server));
    }
    if is_mysql {
        for replica in members(session, server).await? {
            add(&mut listed.replicas, replica);
        }
    } else {
        unlisted(session, server, known, &mut listed).await?;
    }
    Ok(listed)
}

fn add(replicas: &mut Vec<Replica>, replica: Replica) {
    if !replicas.iter().any(|one| one.name == replica.name) {
        replicas.push(replica);
    }
}

/// Without the privilege nothing is seen; preflight names it where it is needed.
fn allowed<T: Default>(answer: DbResult<T>) -> DbResult<T> {
    match answer {
        Err(error) if matches!(error.kind, ErrorKind::AccessDenied | ErrorKind::NotFound) => {
            Ok(T::default())
        }
        other => other,
    }
}

/// A replica given as URL; account and TLS come from the primary's where the URL has none.
fn by_url(url: &str, primary: &ConnectOptions) -> Replica {
    let (name, options) = match options::replica(url, primary) {
        Ok(options) => (format!("{}:{}", options.host, options.port), Ok(options)),
        Err(error) => ("replica".to_owned(), Err(error.to_string())),
    };
    Replica { name, options, server_id: None, in_group: false }
}

fn by_list(server_id: &str, host: &str, port: &str, server: &MySql) -> Replica {
    let (name, options) = match (host.is_empty(), port.parse()) {
        (false, Ok(port)) => (format!("{host}:{port}"), Ok(at(host, port, &server.options))),
        _ => (
            format!("server {server_id}"),
            Err("it does not tell its address (report_host)".to_owned()),
        ),
    };
    Replica { name, options, server_id: server_id.parse().ok(), in_group: false }
}

/// The primary's options for another address.
fn at(host: &str, port: u16, primary: &ConnectOptions) -> ConnectOptions {
    ConnectOptions { host: host.to_owned(), port, socket: None, database: None, ..primary.clone() }
}

/// The address from which a replica of MySQL reads: it introduces itself by a variable.
async fn host_of(session: &mut Session, uuid: &str) -> DbResult<String> {
    let sql = format!(
        "SELECT t.PROCESSLIST_HOST FROM performance_schema.threads AS t JOIN \
         performance_schema.user_variables_by_thread AS v ON v.THREAD_ID = t.THREAD_ID WHERE \
         v.VARIABLE_NAME IN ('replica_uuid', 'slave_uuid') AND CONVERT(v.VARIABLE_VALUE USING \
         utf8mb4) = {} AND t.PROCESSLIST_COMMAND LIKE 'Binlog Dump%' LIMIT 1",
        literal(uuid)?
    );
    let found = rows(&mut session.conn, &sql, "looking for the address of", uuid).await;
    Ok(allowed(found)?.first().map(|row| text(row, 0)).unwrap_or_default())
}

/// The other members of the group that the server is in, if it is in one.
async fn members(session: &mut Session, server: &MySql) -> DbResult<Vec<Replica>> {
    let sql = "SELECT MEMBER_HOST, MEMBER_PORT, MEMBER_STATE FROM \
               performance_schema.replication_group_members WHERE MEMBER_ID NOT IN ('', \
               @@GLOBAL.server_uuid) ORDER BY MEMBER_HOST, MEMBER_PORT LIMIT 100";
    let found = rows(&mut session.conn, sql, "listing the group of", "the server").await;
    let member = |row: &mysql_async::Row| {
        let mut replica = by_list("", &text(row, 0), &text(row, 1), server);
        let state = text(row, 2);
        if state != "ONLINE" {
            replica.options = Err(format!("it is {state} in its group"));
        }
        Replica { in_group: true, ..replica }
    };
    Ok(allowed(found)?.iter().map(member).collect())
}

/// MariaDB lists only replicas that have a `report_host`. Who else reads the log is tried at the address
/// that he comes from, under the primary's port: a replica of ours that answers there is watched.
async fn unlisted(
    session: &mut Session,
    server: &MySql,
    known: &[String],
    listed: &mut Listed,
) -> DbResult<()> {
    let sql = "SELECT HOST FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%'";
    let found = rows(&mut session.conn, sql, "listing who reads the log of", "the server").await;
    let readers = allowed(found)?;
    if readers.len() <= listed.replicas.len() {
        return Ok(());
    }
    let mut hosts: Vec<String> = Vec::new();
    for row in &readers {
        let from = text(row, 0);
        let host = from.rsplit_once(':').map_or(from.as_str(), |(host, _port)| host);
        let is_listed =
            |replica: &Replica| replica.options.as_ref().is_ok_and(|options| options.host == host);
        if !listed.replicas.iter().any(is_listed) && !hosts.iter().any(|one| one == host) {
            hosts.push(host.to_owned());
        }
    }
    hosts.truncate(READERS_MAX);
    let tries = hosts.into_iter().map(async |host| {
        let found = if known.contains(&host) { None } else { try_reader(&host, server).await };
        (host, found)
    });
    for (host, found) in join_all(tries).await {
        match found {
            Some(replica) => add(&mut listed.replicas, replica),
            None => listed.strangers.push(host),
        }
    }
    Ok(())
}

/// The replica at this address, if one is there that follows our server.
async fn try_reader(host: &str, server: &MySql) -> Option<Replica> {
    let options = at(host, server.options.port, &server.options);
    let look = async {
        let mut session = connect(&options, &server.settings).await?;
        let role = server_role(&mut session.conn, &session.capabilities).await?;
        let ours = server.identity.ensure_same(&session.identity).is_ok();
        let follows = match role.replication {
            Replication::From(sources) => !sources.is_empty(),
            Replication::Unknown => false,
        };
        let server_id = session.identity.server_id;
        session.close().await;
        Ok((follows && !ours).then_some(server_id))
    };
    let found = within(TRY_MAX, "looking for a replica at", host, look).await.ok().flatten()?;
    let name = format!("{host}:{}", server.options.port);
    Some(Replica { name, options: Ok(options), server_id: Some(found), in_group: false })
}
