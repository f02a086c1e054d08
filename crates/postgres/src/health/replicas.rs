//! The replicas that are watched, and what is read of them.
//!
//! Those that the user named are asked themselves, side by side; without names the primary's list is read.
//! A replica that leaves the list silently is not well: it counts as one that cannot be read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use underpin_core::finding::Finding;
use underpin_core::signal::{LAG, LAG_BYTES, Reading, Unit};
use underpin_dialect::{DbError, DbResult, ErrorKind};

use super::aside::{Aside, Outcome, session_or};
use super::clock::{Clock, Position};
use super::own::age_ms;
use crate::connect::{ServerIdentity, Session, SessionSettings, connect};
use crate::database::Postgres;
use crate::options::{self, ConnectOptions};
use crate::query::{first, flag, number, optional_cell, rows, text};

/// How the lag is told.
const SOURCE: &str = "position in the log";

/// The word that switches the watch off.
const NONE: &str = "none";

/// The receivers that the primary lists, each with the position it has replayed, and where the primary is;
/// without any there is one row all the same. Left out: backups and archivers, which replay nothing, and
/// the short-lived workers of a subscription that copy one table.
const LISTED: &str = "SELECT pg_current_wal_lsn(), r.name, r.replay_lsn FROM (VALUES (1)) AS one (row) \
                      LEFT JOIN (SELECT application_name || coalesce('@' || host(client_addr), '') AS \
                      name, replay_lsn, pid FROM pg_stat_replication WHERE state IN ('streaming', \
                      'catchup') AND replay_lsn IS NOT NULL AND application_name !~ \
                      '^pg_\\d+_sync_\\d+_') AS r ON true ORDER BY 2, r.pid";

/// What a replica says of itself, with the delay at which it replays on purpose, in milliseconds.
const ASKED: &str = "SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn(), floor(1000 * extract(epoch FROM \
                     current_setting('recovery_min_apply_delay')::interval))";

/// Who is that far behind need not be waited for to tell how far.
const FAR_BEHIND_MS: u64 = 1000;

/// How long a replica may leave a question unanswered, and how long the first round waits for it.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// A replica's own bound on a question.
const REPLICA_SETTINGS: &str = "SET statement_timeout = '3s'";

/// What outlives a probe, so that a new one does not take a replica that is late or gone for well.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Remembered>>);

#[derive(Debug, Default)]
struct Remembered {
    /// Where the primary was when.
    clock: Clock,
    /// Replicas that the primary ever listed, as they were called then.
    known: Vec<String>,
}

/// The replicas of a server.
#[derive(Debug)]
pub(super) struct Replicas {
    memory: Memory,
    /// Where the primary was at the last look.
    position: Position,
    watch: Watch,
}

#[derive(Debug)]
enum Watch {
    /// Nobody.
    Off,
    /// Those on the primary's list, and where each was at the last look.
    Listed(BTreeMap<String, Position>),
    /// Those that the user named.
    Named(Vec<Named>),
}

/// A replica given as URL.
#[derive(Debug)]
struct Named {
    name: String,
    /// How to reach it; an error text where the URL cannot be read.
    options: Result<ConnectOptions, String>,
    settings: SessionSettings,
    primary: ServerIdentity,
    aside: Aside<Place>,
    /// What it said last; `None` before that.
    last: Option<Result<Place, String>>,
}

/// Where a replica was.
#[derive(Debug, Clone, Copy)]
struct Place {
    at: Instant,
    position: Position,
    /// It replays so late on purpose.
    delay_ms: u64,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers who is on the primary's list.
    fn note<'a>(&self, listed: impl Iterator<Item = &'a String>) {
        let known = &mut self.lock().known;
        for name in listed {
            if !known.contains(name) {
                known.push(name.clone());
            }
        }
    }

    fn lag_ms(&self, position: Position) -> u64 {
        self.lock().clock.lag_ms(Instant::now(), position)
    }
}

impl Replicas {
    /// Whom to watch; opens nothing yet.
    pub(super) fn find(server: &Postgres) -> Self {
        let watch = if server.replicas.iter().any(|name| name == NONE) {
            Watch::Off
        } else if server.replicas.is_empty() {
            Watch::Listed(BTreeMap::new())
        } else {
            Watch::Named(server.replicas.iter().map(|url| named(url, server)).collect())
        };
        Self { memory: server.memory.clone(), position: Position(0), watch }
    }

    /// Looks until everybody has replayed what the primary had written when this began, or is far behind,
    /// or `wait` is over.
    pub(super) async fn look(&mut self, session: &Session, wait: Duration) -> DbResult<()> {
        let until = Instant::now() + wait;
        let mut pause = Duration::from_millis(2);
        let mut target = None;
        // Bound: the pauses double.
        loop {
            let asked = Instant::now();
            let position = match &mut self.watch {
                Watch::Off => return Ok(()),
                Watch::Listed(found) => {
                    let position;
                    (position, *found) = listed(session).await?;
                    self.memory.note(found.keys());
                    position
                }
                Watch::Named(replicas) => {
                    replicas.iter_mut().for_each(Named::ask);
                    let position = primary_position(session).await?;
                    for replica in replicas {
                        replica.hear(until).await;
                    }
                    position
                }
            };
            self.memory.lock().clock.tick(asked, position);
            self.position = position;
            let target = *target.get_or_insert(position);
            if self.nobody_is_near(target) || Instant::now() + pause >= until {
                return Ok(());
            }
            sleep(pause).await;
            pause *= 2;
        }
    }

    /// Whether nobody is short of `target` by so little that it is worth to wait.
    fn nobody_is_near(&self, target: Position) -> bool {
        let near =
            |position: Position| position < target && self.memory.lag_ms(position) < FAR_BEHIND_MS;
        match &self.watch {
            Watch::Off => true,
            Watch::Listed(found) => !found.values().any(|&position| near(position)),
            Watch::Named(replicas) => !replicas
                .iter()
                .any(|replica| matches!(&replica.last, Some(Ok(place)) if near(place.position))),
        }
    }

    /// What was seen at the last look.
    pub(super) fn readings(&self) -> Vec<Reading> {
        let gone = "it has left the primary's list (pg_stat_replication); where it is gone for good, \
                    start again with the others named by --replica";
        let seen: Vec<(String, Result<Place, String>)> = match &self.watch {
            Watch::Off => Vec::new(),
            Watch::Listed(found) => {
                let place = |name: &String| {
                    let position = found.get(name).copied().ok_or_else(|| gone.to_owned());
                    position.map(|position| Place { at: Instant::now(), position, delay_ms: 0 })
                };
                let known = self.memory.lock().known.clone();
                known.into_iter().map(|name| (name.clone(), place(&name))).collect()
            }
            Watch::Named(replicas) => {
                replicas.iter().map(|replica| (replica.name.clone(), replica.place())).collect()
            }
        };
        seen.into_iter().flat_map(|(name, place)| self.of_one(&name, place)).collect()
    }

    fn of_one(&self, name: &str, place: Result<Place, String>) -> Vec<Reading> {
        let place = match place {
            Ok(place) => place,
            Err(why) => return vec![Reading::unreadable(LAG, name, SOURCE, Unit::Ms, &why)],
        };
        // One that has not answered this time may be where it was: its lag grows.
        let lag_ms = self.memory.lag_ms(place.position);
        let source = if place.delay_ms > 0 {
            format!("{SOURCE}, less its delay of {} ms", place.delay_ms)
        } else {
            SOURCE.to_owned()
        };
        let behind = self.position.0.saturating_sub(place.position.0);
        let reading = |name_of_it, source: &str, unit, value| Reading {
            age_ms: age_ms(place.at),
            ..Reading::new(name_of_it, name, source, unit, value)
        };
        // No lag is as long, and no log as large, as an `f64` is exact.
        #[allow(clippy::cast_precision_loss)]
        let (lag, behind) = (lag_ms.saturating_sub(place.delay_ms) as f64, behind as f64);
        vec![reading(LAG, &source, Unit::Ms, lag), reading(LAG_BYTES, SOURCE, Unit::Bytes, behind)]
    }
}

impl Named {
    /// Asks where it is, unless it is still being asked.
    fn ask(&mut self) {
        match &self.options {
            Ok(options) => {
                let (options, settings) = (options.clone(), self.settings.clone());
                let (primary, name) = (self.primary.clone(), self.name.clone());
                self.aside.ask(|session| place_of(session, options, settings, primary, name));
            }
            Err(why) => self.last = Some(Err(why.clone())),
        }
    }

    /// Hears the answer, if it comes in time; before the first one there is more of it.
    async fn hear(&mut self, until: Instant) {
        let until = if self.last.is_none() {
            std::cmp::max(until, Instant::now() + ANSWER_MAX)
        } else {
            until
        };
        if let Some(answer) = self.aside.answer(until).await {
            let why = |error: DbError| error.server.clone().unwrap_or_else(|| error.to_string());
            self.last = Some(answer.map_err(why));
        }
    }

    /// Where it is, as far as is known.
    fn place(&self) -> Result<Place, String> {
        match (&self.last, self.aside.open_for()) {
            (Some(Err(why)), _) => Err(why.clone()),
            (_, Some(open)) if open > ANSWER_MAX => {
                Err(format!("it has not answered for {:.1} s", open.as_secs_f64()))
            }
            (Some(Ok(place)), _) => Ok(*place),
            (None, _) => Err("it has not answered yet".to_owned()),
        }
    }
}

async fn place_of(
    session: Option<Session>,
    options: ConnectOptions,
    settings: SessionSettings,
    primary: ServerIdentity,
    name: String,
) -> Outcome<Place> {
    let opened = session_or(session, connect(&options, &settings), REPLICA_SETTINGS).await;
    let session = match opened {
        Ok(session) => session,
        Err(error) => return (None, Err(error)),
    };
    let place = ask_place(&session, &primary, &name).await;
    // Whatever failed: the next question begins anew.
    (Some(session).filter(|_| place.is_ok()), place)
}

async fn ask_place(session: &Session, primary: &ServerIdentity, name: &str) -> DbResult<Place> {
    let attempted = "reading the lag of";
    let unreadable = |why: &str| DbError::new(ErrorKind::Other, attempted, name).said(why);
    if session.identity.system_identifier != primary.system_identifier {
        return Err(unreadable("it is no replica of this primary (another system)"));
    }
    let at = Instant::now();
    match first(session, ASKED, attempted, name).await? {
        Some(row) if flag(&row, 0) => {
            let position = Position::parse(&text(&row, 1))
                .ok_or_else(|| unreadable("it has not replayed anything yet"))?;
            let delay_ms = optional_cell(&row, 2, attempted)?.unwrap_or(0);
            Ok(Place { at, position, delay_ms })
        }
        _ => Err(unreadable("it is no standby (any more)")),
    }
}

async fn primary_position(session: &Session) -> DbResult<Position> {
    let attempted = "reading the primary's position in";
    let row = first(session, "SELECT pg_current_wal_lsn()", attempted, "its log").await?;
    row.as_ref()
        .and_then(|row| Position::parse(&text(row, 0)))
        .ok_or_else(|| DbError::new(ErrorKind::Other, attempted, "its log"))
}

/// Where the primary is, and its list: name → position. Receivers of one name are numbered.
async fn listed(session: &Session) -> DbResult<(Position, BTreeMap<String, Position>)> {
    let attempted = "listing the replicas of";
    let mut found = BTreeMap::new();
    let mut primary = None;
    for row in rows(session, LISTED, attempted, "the server").await? {
        primary = Position::parse(&text(&row, 0)).or(primary);
        let Some(position) = Position::parse(&text(&row, 2)) else { continue };
        let name = text(&row, 1);
        let mut unique = name.clone();
        // Bound: a server has at most max_wal_senders of them.
        let mut number = 1;
        while found.contains_key(&unique) {
            number += 1;
            unique = format!("{name} ({number})");
        }
        found.insert(unique, position);
    }
    let primary = primary.ok_or_else(|| DbError::new(ErrorKind::Other, attempted, "the server"))?;
    Ok((primary, found))
}

/// A replica given as URL; role, password and TLS come from the primary's where the URL has none.
fn named(url: &str, server: &Postgres) -> Named {
    let (name, options) = match options::replica(url, &server.options) {
        Ok(options) => (format!("{}:{}", options.host, options.port), Ok(options)),
        Err(error) => ("replica".to_owned(), Err(error.to_string())),
    };
    Named {
        name,
        options,
        settings: server.settings.clone(),
        primary: server.identity.clone(),
        aside: Aside::new(),
        last: None,
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
        let listed = listed(session).await?.1;
        server.memory.note(listed.keys());
        return Ok(listed.into_keys().collect());
    }
    Ok(asked.iter().map(|url| named(url, server).name).collect())
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
            let why = named(url, server).options.err()?;
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
