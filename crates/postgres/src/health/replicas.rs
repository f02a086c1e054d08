//! The replicas that are watched, and what is read of them.
//!
//! Those that the user named are asked themselves; without names the primary's list is read. A replica
//! that leaves the list silently is not well: it counts as one that cannot be read.

use std::collections::BTreeMap;
use std::time::Instant;

use underpin_core::finding::Finding;
use underpin_core::signal::{LAG, Reading, Unit};
use underpin_dialect::{DbError, DbResult, ErrorKind};

use super::clock::{Clock, Position};
use crate::connect::{ServerIdentity, Session, SessionSettings, connect};
use crate::database::Postgres;
use crate::options::{self, ConnectOptions};
use crate::query::{first, flag, number, rows, text};

/// How the lag is told.
const SOURCE: &str = "position in the log";

/// The word that switches the watch off.
const NONE: &str = "none";

/// The receivers that the primary lists, each with the position it has replayed. Left out: backups and
/// archivers, which replay nothing, and the short-lived workers of a subscription that copy one table.
const LISTED: &str = "SELECT application_name || coalesce('@' || host(client_addr), ''), replay_lsn \
                      FROM pg_stat_replication WHERE state IN ('streaming', 'catchup') \
                      AND replay_lsn IS NOT NULL AND application_name !~ '^pg_\\d+_sync_\\d+_' \
                      ORDER BY 1, pid";

/// The replicas of a server.
#[derive(Debug)]
pub(super) struct Replicas {
    clock: Clock,
    watch: Watch,
}

#[derive(Debug)]
enum Watch {
    /// Nobody.
    Off,
    /// Those on the primary's list, as they were called when we first saw them.
    Listed(Vec<String>),
    /// Those that the user named.
    Named { replicas: Vec<Named>, settings: SessionSettings, primary: ServerIdentity },
}

/// A replica given as URL, and the session to it while there is one.
#[derive(Debug)]
struct Named {
    name: String,
    /// How to reach it; an error text where the URL cannot be read.
    options: Result<ConnectOptions, String>,
    session: Option<Session>,
}

impl Replicas {
    /// Finds out whom to watch.
    pub(super) async fn find(session: &Session, server: &Postgres) -> DbResult<Self> {
        let watch = if server.replicas.iter().any(|name| name == NONE) {
            Watch::Off
        } else if server.replicas.is_empty() {
            Watch::Listed(listed(session).await?.into_keys().collect())
        } else {
            Watch::Named {
                replicas: server.replicas.iter().map(|url| named(url, &server.options)).collect(),
                settings: server.settings.clone(),
                primary: server.identity.clone(),
            }
        };
        Ok(Self { clock: Clock::default(), watch })
    }

    /// Reads them all.
    pub(super) async fn read(&mut self, session: &Session) -> DbResult<Vec<Reading>> {
        let attempted = "reading the primary's position in";
        let row = first(session, "SELECT pg_current_wal_lsn()", attempted, "its log").await?;
        let position = row.as_ref().and_then(|row| Position::parse(&text(row, 0)));
        let position =
            position.ok_or_else(|| DbError::new(ErrorKind::Other, attempted, "its log"))?;
        self.clock.tick(Instant::now(), position);
        let mut readings = Vec::new();
        match &mut self.watch {
            Watch::Off => {}
            Watch::Listed(known) => {
                let found = listed(session).await?;
                for name in
                    found.keys().filter(|name| !known.contains(name)).cloned().collect::<Vec<_>>()
                {
                    known.push(name);
                }
                for name in known.iter() {
                    let replayed = found.get(name).copied().ok_or_else(|| {
                        "it has left the primary's list (pg_stat_replication); where it is gone for \
                         good, start again with the others named by --replica"
                            .to_owned()
                    });
                    readings.push(reading(&self.clock, name, replayed));
                }
            }
            Watch::Named { replicas, settings, primary } => {
                for replica in replicas {
                    let replayed = replica.replayed(settings, primary).await;
                    if replayed.is_err() {
                        replica.session = None;
                    }
                    let replayed = replayed
                        .map_err(|error| error.server.clone().unwrap_or_else(|| error.to_string()));
                    readings.push(reading(&self.clock, &replica.name, replayed));
                }
            }
        }
        Ok(readings)
    }
}

impl Named {
    /// The position that the replica has replayed.
    async fn replayed(
        &mut self,
        settings: &SessionSettings,
        primary: &ServerIdentity,
    ) -> DbResult<Position> {
        let unreadable =
            |why: &str| DbError::new(ErrorKind::Other, "reading the lag of", &self.name).said(why);
        let options = self.options.as_ref().map_err(|why| unreadable(why))?;
        if self.session.is_none() {
            let session = connect(options, settings).await?;
            if session.identity.system_identifier != primary.system_identifier {
                session.close().await;
                return Err(unreadable("it is no replica of this primary (another system)"));
            }
            self.session = Some(session);
        }
        let Some(session) = &self.session else { return Err(unreadable("not connected")) };
        let sql = "SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn()";
        let row = first(session, sql, "reading the lag of", &self.name).await?;
        match row {
            Some(row) if flag(&row, 0) => Position::parse(&text(&row, 1))
                .ok_or_else(|| unreadable("it has not replayed anything yet")),
            _ => Err(unreadable("it is no standby (any more)")),
        }
    }
}

fn reading(clock: &Clock, name: &str, replayed: Result<Position, String>) -> Reading {
    let now = Instant::now();
    match replayed {
        Ok(position) => {
            // No lag is as long as an `f64` is exact: nine million million seconds.
            #[allow(clippy::cast_precision_loss)]
            let lag_ms = clock.lag_ms(now, position) as f64;
            Reading::new(LAG, name, SOURCE, Unit::Ms, lag_ms)
        }
        Err(error) => Reading::unreadable(LAG, name, SOURCE, Unit::Ms, &error),
    }
}

/// The primary's list: name → position. Receivers of one name are numbered.
async fn listed(session: &Session) -> DbResult<BTreeMap<String, Position>> {
    let mut found = BTreeMap::new();
    for row in rows(session, LISTED, "listing the replicas of", "the server").await? {
        let Some(position) = Position::parse(&text(&row, 1)) else { continue };
        let name = text(&row, 0);
        let mut unique = name.clone();
        // Bound: a server has at most max_wal_senders of them.
        let mut number = 1;
        while found.contains_key(&unique) {
            number += 1;
            unique = format!("{name} ({number})");
        }
        found.insert(unique, position);
    }
    Ok(found)
}

/// A replica given as URL; role, password and TLS come from the primary's where the URL has none.
fn named(url: &str, primary: &ConnectOptions) -> Named {
    match options::replica(url, primary) {
        Ok(options) => Named {
            name: format!("{}:{}", options.host, options.port),
            options: Ok(options),
            session: None,
        },
        Err(error) => {
            Named { name: "replica".to_owned(), options: Err(error.to_string()), session: None }
        }
    }
}

/// The replicas that a run will watch, by name: for the plan.
///
/// # Errors
/// The server's.
pub(crate) async fn replica_names(
    session: &Session,
    server: &Postgres,
    asked: &[String],
) -> DbResult<Vec<String>> {
    if asked.iter().any(|name| name == NONE) {
        return Ok(Vec::new());
    }
    if asked.is_empty() {
        return Ok(listed(session).await?.into_keys().collect());
    }
    Ok(asked.iter().map(|url| named(url, &server.options).name).collect())
}

/// What stands in the way of watching the replicas: for the plan.
///
/// # Errors
/// The server's.
pub(crate) async fn replica_findings(
    session: &Session,
    server: &Postgres,
    asked: &[String],
) -> DbResult<Vec<Finding>> {
    if asked.iter().any(|name| name == NONE) {
        return Ok(Vec::new());
    }
    if !asked.is_empty() {
        let unreadable = asked.iter().filter_map(|url| {
            let why = named(url, &server.options).options.err()?;
            let remedy = "Name each replica as postgres://HOST:PORT, or switch the watch off with \
                          --replica none";
            let message = format!("a replica that was named cannot be watched: {why}");
            Some(Finding::refusal("replica-unknown", message, remedy))
        });
        return Ok(unreadable.collect());
    }
    // Of receivers that the role may not see the list shows the process and nothing else.
    let sql =
        "SELECT count(*) FROM pg_stat_replication WHERE state IS NULL AND backend_start IS NULL";
    let hidden = number(session, sql, "listing the replicas of", "the server").await?;
    if hidden == 0 {
        return Ok(Vec::new());
    }
    Ok(vec![Finding::warning(
        "replicas-hidden",
        format!(
            "{hidden} receivers of the server's log cannot be seen, so their lag is not watched"
        ),
        "GRANT pg_monitor to the role, name the replicas with --replica URL, or say --replica none",
    )])
}
