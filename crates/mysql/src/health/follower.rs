//! One replica that is watched: a task with a session of its own looks which heartbeat has arrived.
//!
//! A task each, so that a replica that hangs holds up neither the heartbeat nor the others. It looks
//! often while the newest beat is missing, and not at all while there is none to wait for.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mysql_async::Row;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use underpin_core::signal::Reading;
use underpin_dialect::{DbError, DbResult, ErrorKind};

use super::beats::{Beats, Seen};
use super::lag::{self, Look, Status};
use super::replicas::Replica;
use super::{locked, within};
use crate::connect::{ServerIdentity, Session, SessionSettings, connect};
use crate::flavor::Flavor;
use crate::query::{cell, first, rows, text};

/// Bound on one look.
const LOOK_MAX: Duration = Duration::from_secs(3);

/// Rest between two looks for a beat that is missing: a quarter of its age, within these.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(5);
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(250);

/// Rest while no new beat is written: proof that the replica still answers.
const IDLE: Duration = Duration::from_secs(1);

/// How old the replica's own word gets; and how old while the newest beat is missing.
const STATUS_EVERY: Duration = Duration::from_secs(5);
const STATUS_EVERY_BEHIND: Duration = Duration::from_secs(1);

/// Rest before the next try to reach it.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What all followers of a probe share.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) settings: SessionSettings,
    pub(super) primary: ServerIdentity,
    /// The query for the newest beat that has arrived.
    pub(super) look_sql: String,
    pub(super) beats: Arc<Mutex<Beats>>,
    /// Changes with each beat.
    pub(super) newest: watch::Receiver<u64>,
}

/// See the module's head. The task ends with it.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) replica: Replica,
    looks: watch::Receiver<Look>,
    task: JoinHandle<()>,
    its_word: &'static str,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Follower {
    /// Begins to watch.
    pub(super) fn start(replica: Replica, shared: Shared) -> Self {
        let its_word = match shared.primary.flavor {
            Flavor::MySql => "Seconds_Behind_Source",
            Flavor::MariaDb => "Seconds_Behind_Master",
        };
        let (sender, looks) = watch::channel(Look::default());
        let task = tokio::spawn(follow(replica.clone(), shared, sender));
        Self { replica, looks, task, its_word }
    }

    /// Waits until it has answered or failed once, at most until `deadline`.
    pub(super) async fn first_look(&mut self, deadline: tokio::time::Instant) {
        let told = self.looks.wait_for(|look| look.answered.is_some() || look.error.is_some());
        // In vain: then the reading says so.
        let _ = tokio::time::timeout_at(deadline, told).await;
    }

    /// The replica's lag now.
    pub(super) fn reading(&self, beats: &Beats) -> Reading {
        lag::reading(&self.replica.name, &self.looks.borrow(), beats, Instant::now(), self.its_word)
    }
}

/// Watches until nobody listens any more; what fails is told and tried again.
async fn follow(replica: Replica, mut shared: Shared, looks: watch::Sender<Look>) {
    let mut rest = RETRY_MIN;
    while !looks.is_closed() {
        let begun = Instant::now();
        let error = match attend(&replica, &mut shared, &looks).await {
            Ok(()) => return,
            Err(error) => error.server.clone().unwrap_or_else(|| error.to_string()),
        };
        tracing::debug!(replica = replica.name, %error, "a replica cannot be read");
        looks.send_modify(|look| look.error = Some(error));
        rest = if begun.elapsed() > RETRY_MAX { RETRY_MIN } else { rest * 2 };
        sleep(std::cmp::min(rest, RETRY_MAX)).await;
    }
}

/// Watches on one session; `Ok` when no more beats will be written.
async fn attend(
    replica: &Replica,
    shared: &mut Shared,
    looks: &watch::Sender<Look>,
) -> DbResult<()> {
    let mut session = reach(replica, shared).await?;
    let mut asked: Option<Instant> = None;
    loop {
        let newest = *shared.newest.borrow_and_update();
        let mut look = looks.borrow().clone();
        let is_behind = look.seen.is_none_or(|seen| seen.number < newest);
        let every = if is_behind { STATUS_EVERY_BEHIND } else { STATUS_EVERY };
        if !replica.in_group && asked.is_none_or(|at| at.elapsed() >= every) {
            let status = read_status(&mut session, &replica.name, &shared.primary);
            look.status = within(LOOK_MAX, "reading the state of", &replica.name, status).await?;
            asked = Some(Instant::now());
        }
        let sql = shared.look_sql.clone();
        let arrived = arrived(&mut session, &sql, &replica.name);
        let arrived = within(LOOK_MAX, "reading the heartbeat of", &replica.name, arrived).await?;
        note(&mut look, arrived, &shared.beats);
        let missing = look.seen.is_none_or(|seen| !locked(&shared.beats).is_newest(seen.number));
        let behind_ms = look
            .seen
            .map_or(u64::MAX, |seen| locked(&shared.beats).behind_ms(Instant::now(), seen));
        if looks.send(look).is_err() {
            return Ok(());
        }
        if missing {
            let rest = Duration::from_millis(behind_ms / 4);
            sleep(rest.clamp(LOOK_AGAIN_MIN, LOOK_AGAIN_MAX)).await;
        } else if let Ok(Err(_)) = timeout(IDLE, shared.newest.changed()).await {
            return Ok(());
        }
    }
}

/// What a look means beside the ones before.
fn note(look: &mut Look, arrived: Arrived, beats: &Arc<Mutex<Beats>>) {
    let now = Instant::now();
    look.answered = Some(now);
    look.error = None;
    look.is_forbidden = matches!(arrived, Arrived::Forbidden);
    let Arrived::Beat(seen) = arrived else { return };
    match look.seen {
        Some(before) if before.number >= seen.number => {}
        // It may have been there for long: what counts is whether a newer one is missing.
        None => look.delay_ms = 0,
        Some(_) => look.delay_ms = locked(beats).age_ms(now, seen.number).unwrap_or(0),
    }
    look.seen = Some(seen);
}

/// Connects, and makes sure that it is somebody else, and whom the list meant.
async fn reach(replica: &Replica, shared: &Shared) -> DbResult<Session> {
    let refused =
        |why: &str| DbError::new(ErrorKind::Other, "watching the replica", &replica.name).said(why);
    let options = replica.options.as_ref().map_err(|why| refused(why))?;
    let session = connect(options, &shared.settings).await?;
    let reached = &session.identity;
    let why = if shared.primary.ensure_same(reached).is_ok() {
        Some("it is the server that is changed itself".to_owned())
    } else {
        let other = replica.server_id.filter(|wanted| *wanted != reached.server_id);
        other.map(|wanted| {
            format!(
                "at its address answers the server with id {} instead of {wanted}; name the replicas \
                 with --replica",
                reached.server_id
            )
        })
    };
    match why {
        None => Ok(session),
        Some(why) => {
            session.close().await;
            Err(refused(&why))
        }
    }
}

/// The newest beat at a replica.
enum Arrived {
    Beat(Seen),
    /// None has arrived.
    Nothing,
    /// The account may not read it there.
    Forbidden,
}

async fn arrived(session: &mut Session, sql: &str, name: &str) -> DbResult<Arrived> {
    let attempted = "reading the heartbeat of";
    match first(&mut session.conn, sql, attempted, name).await {
        Ok(None) => Ok(Arrived::Nothing),
        Ok(Some(row)) => Ok(Arrived::Beat(Seen {
            number: cell(&row, 0, attempted)?,
            written_us: cell::<Option<u64>>(&row, 1, attempted)?.unwrap_or(0),
        })),
        // Table or database are not there: they have not arrived, or never will.
        Err(error) if error.kind == ErrorKind::NotFound => Ok(Arrived::Nothing),
        Err(error) if error.kind == ErrorKind::AccessDenied => Ok(Arrived::Forbidden),
        Err(error) => Err(error),
    }
}

/// What the replica says of its replication; `None` where the account may not ask.
async fn read_status(
    session: &mut Session,
    name: &str,
    primary: &ServerIdentity,
) -> DbResult<Option<Status>> {
    let verb = session.capabilities.replica_status_verb;
    match rows(&mut session.conn, verb, "reading the state of", name).await {
        Ok(found) => Ok(Some(status(&found, primary))),
        Err(error) if error.kind == ErrorKind::AccessDenied => Ok(None),
        Err(error) => Err(error),
    }
}

/// Of several sources the one that is ours; of strangers (a replica of a replica) the worst.
fn status(found: &[Row], primary: &ServerIdentity) -> Status {
    let ours: Vec<&Row> = found
        .iter()
        .filter(|row| match &primary.uuid {
            Some(uuid) => column(row, &["Source_UUID", "Master_UUID"]) == *uuid,
            None => {
                let id = column(row, &["Source_Server_Id", "Master_Server_Id"]);
                id == primary.server_id.to_string()
            }
        })
        .collect();
    let rows = if ours.is_empty() { found.iter().collect() } else { ours };
    let all: Vec<Status> = rows.into_iter().map(status_of).collect();
    let worst = all.iter().max_by_key(|status| status.behind_ms.unwrap_or(u64::MAX)).cloned();
    worst.unwrap_or_else(|| Status {
        trouble: "it does not replicate from anybody".to_owned(),
        ..Status::default()
    })
}

fn status_of(row: &Row) -> Status {
    let seconds = |names: &[&str]| column(row, names).parse::<u64>().ok();
    let behind = seconds(&["Seconds_Behind_Source", "Seconds_Behind_Master"]);
    let filters = [
        "Replicate_Do_DB",
        "Replicate_Ignore_DB",
        "Replicate_Do_Table",
        "Replicate_Ignore_Table",
        "Replicate_Wild_Do_Table",
        "Replicate_Wild_Ignore_Table",
        "Replicate_Rewrite_DB",
    ];
    let trouble = ["Last_SQL_Error", "Last_IO_Error"].map(|name| column(row, &[name]));
    let trouble = trouble.into_iter().find(|text| !text.is_empty());
    let stands_still = || {
        let applier = column(row, &["Replica_SQL_Running", "Slave_SQL_Running"]);
        let part = if applier == "No" { "it does not apply" } else { "it does not receive" };
        format!("{part}: its replication is stopped")
    };
    Status {
        behind_ms: behind.map(|seconds| seconds.saturating_mul(1000)),
        delay_ms: seconds(&["SQL_Delay"]).unwrap_or(0).saturating_mul(1000),
        is_filtered: filters.iter().any(|name| !column(row, &[name]).is_empty()),
        trouble: match behind {
            Some(_) => String::new(),
            None => trouble.unwrap_or_else(stands_still),
        },
    }
}

/// The first of these columns that the row has, as text.
fn column(row: &Row, names: &[&str]) -> String {
    let columns = row.columns_ref();
    let index = columns.iter().position(|column| names.contains(&column.name_str().as_ref()));
    index.map(|index| text(row, index)).unwrap_or_default()
}
