//! How busy the server is: statements that run, waits for locks, row versions not yet purged, the redo
//! log, free disk.
//!
//! Each is read where the server and the account allow it. What is not to be had is left out, once said
//! in the log, and never asked for again by this probe.

use std::collections::{BTreeSet, HashMap};

use underpin_core::signal::{CHECKPOINT, DISK_FREE, HISTORY, LOCK_WAITS, RUNNING, Reading, Unit};
use underpin_dialect::{DbResult, ErrorKind};

use crate::connect::Session;
use crate::flavor::Flavor;
use crate::query::{cell, first, number, rows, text};

const OF: &str = "the server";

/// Global status variables, of which each server has some.
const STATUS: &str = "'Threads_running', 'Innodb_row_lock_current_waits', \
                      'Innodb_history_list_length', 'Innodb_checkpoint_age', \
                      'Innodb_checkpoint_max_age', 'Innodb_redo_log_current_lsn', \
                      'Innodb_redo_log_checkpoint_lsn', 'Innodb_redo_log_capacity_resized'";

/// Reads the server's load.
#[derive(Debug, Default)]
pub(super) struct Load {
    left_out: BTreeSet<&'static str>,
}

/// A value and where it stood; `None`: this server does not have it.
type Found = DbResult<Option<(f64, &'static str)>>;

impl Load {
    /// All that can be read. `ours`: our own sessions, which are no load of others.
    pub(super) async fn read(
        &mut self,
        session: &mut Session,
        ours: &[u64],
    ) -> DbResult<Vec<Reading>> {
        let status = status(session).await?;
        let mut readings = Vec::new();
        let threads = threads(session, ours, &status).await;
        let metadata = threads.as_ref().map_or(0.0, |found| found.metadata_waits);
        let running = threads.map(|found| Some((found.running, found.source)));
        self.take(&mut readings, RUNNING, Unit::Count, running)?;
        if !self.left_out.contains(LOCK_WAITS) {
            let waits = row_lock_waits(session, ours, &status).await;
            let waits = waits.map(|found| found.map(|(rows, source)| (rows + metadata, source)));
            self.take(&mut readings, LOCK_WAITS, Unit::Count, waits)?;
        }
        if !self.left_out.contains(HISTORY) {
            let history = history(session, &status).await;
            self.take(&mut readings, HISTORY, Unit::Count, history)?;
        }
        if let Some((value, source)) = checkpoint(&status) {
            readings.push(Reading::new(CHECKPOINT, "", source, Unit::Permille, value));
        }
        if !self.left_out.contains(DISK_FREE) {
            let free = disk_free(session).await;
            self.take(&mut readings, DISK_FREE, Unit::Bytes, free)?;
        }
        Ok(readings)
    }

    /// Takes one up, or leaves it out for good.
    fn take(
        &mut self,
        readings: &mut Vec<Reading>,
        name: &'static str,
        unit: Unit,
        found: Found,
    ) -> DbResult<()> {
        match found {
            Ok(Some((value, source))) => readings.push(Reading::new(name, "", source, unit, value)),
            Ok(None) => {
                self.left_out.insert(name);
            }
            Err(error) if error.is_ambiguous() => return Err(error),
            Err(error) if is_missing(error.kind) => {
                tracing::info!(signal = name, %error, "a signal is left out");
                self.left_out.insert(name);
            }
            Err(error) => {
                let why = error.server.clone().unwrap_or_else(|| error.to_string());
                readings.push(Reading::unreadable(name, "", "server", unit, &why));
            }
        }
        Ok(())
    }
}

fn is_missing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::AccessDenied | ErrorKind::NotFound | ErrorKind::Refused)
}

/// Empty where the server does not tell just now: what stands on it is left out or read otherwise.
async fn status(session: &mut Session) -> DbResult<HashMap<String, f64>> {
    let sql = format!("SHOW GLOBAL STATUS WHERE Variable_name IN ({STATUS})");
    let found = match rows(&mut session.conn, &sql, "reading the status of", OF).await {
        Err(error) if !error.is_ambiguous() => {
            tracing::debug!(%error, "the status cannot be read");
            Vec::new()
        }
        other => other?,
    };
    let pair = |row: &mysql_async::Row| Some((text(row, 0), text(row, 1).parse().ok()?));
    Ok(found.iter().filter_map(pair).collect())
}

/// Statements that run, and those of them that wait for a table.
struct Threads {
    running: f64,
    metadata_waits: f64,
    source: &'static str,
}

/// From the list of threads, where our own can be told apart. MySQL's list in `information_schema` would
/// hold up every session that connects or leaves: it is not used.
async fn threads(
    session: &mut Session,
    ours: &[u64],
    status: &HashMap<String, f64>,
) -> DbResult<Threads> {
    let (source, view, prefix) = match session.capabilities.flavor {
        Flavor::MySql => ("performance_schema", "performance_schema.threads", "PROCESSLIST_"),
        Flavor::MariaDb => ("process list", "information_schema.PROCESSLIST", ""),
    };
    // `system user` applies what it replicates; who sends the log to replicas only waits.
    let sql = format!(
        "SELECT COUNT(*), CAST(COALESCE(SUM({prefix}STATE LIKE 'Waiting for %lock%'), 0) AS UNSIGNED) \
         FROM {view} WHERE {prefix}COMMAND NOT IN ('Sleep', 'Daemon', 'Binlog Dump', 'Binlog Dump \
         GTID') AND {prefix}USER NOT IN ('system user', 'event_scheduler', 'unauthenticated user') AND \
         {prefix}ID NOT IN ({})",
        list(ours)
    );
    let row = match first(&mut session.conn, &sql, "counting the threads of", OF).await {
        Ok(row) => row,
        Err(error) if error.is_ambiguous() => return Err(error),
        // Ours are among them then, this one at least.
        Err(error) => {
            let running = status.get("Threads_running").copied().ok_or(error)?;
            let (running, source) = ((running - 1.0).max(0.0), "Threads_running");
            return Ok(Threads { running, metadata_waits: 0.0, source });
        }
    };
    let number = |index| row.as_ref().map_or(Ok(0), |row| cell::<u32>(row, index, "counting"));
    let (running, waits) = (number(0)?, number(1)?);
    Ok(Threads { running: f64::from(running), metadata_waits: f64::from(waits), source })
}

/// Transactions that wait for a row.
async fn row_lock_waits(
    session: &mut Session,
    ours: &[u64],
    status: &HashMap<String, f64>,
) -> Found {
    let sql = format!(
        "SELECT COUNT(*) FROM information_schema.INNODB_TRX WHERE trx_state = 'LOCK WAIT' AND \
         trx_mysql_thread_id NOT IN ({})",
        list(ours)
    );
    match number(&mut session.conn, &sql, "counting the lock waits of", OF).await {
        Ok(waits) => Ok(Some((float(waits), "INNODB_TRX"))),
        Err(error) if error.is_ambiguous() => Err(error),
        // Not to be seen just now, or not by this account: the server's own count, ours among them.
        Err(error) => match status.get("Innodb_row_lock_current_waits") {
            Some(waits) => Ok(Some((*waits, "Innodb_row_lock_current_waits"))),
            None => Err(error),
        },
    }
}

async fn history(session: &mut Session, status: &HashMap<String, f64>) -> Found {
    if let Some(length) = status.get("Innodb_history_list_length") {
        return Ok(Some((*length, "Innodb_history_list_length")));
    }
    let sql = "SELECT COUNT FROM information_schema.INNODB_METRICS WHERE NAME = \
               'trx_rseg_history_len' AND STATUS = 'enabled'";
    let row = first(&mut session.conn, sql, "reading the history list of", OF).await?;
    let length = row.map(|row| text(&row, 0)).and_then(|text| text.parse().ok());
    Ok(length.map(|length| (length, "trx_rseg_history_len")))
}

/// The part of the redo log that could not be reused yet.
fn checkpoint(status: &HashMap<String, f64>) -> Option<(f64, &'static str)> {
    let get = |name: &str| status.get(name).copied();
    let (age, capacity, source) = match get("Innodb_checkpoint_age") {
        Some(age) => (age, get("Innodb_checkpoint_max_age")?, "Innodb_checkpoint_age"),
        None => {
            let current = get("Innodb_redo_log_current_lsn")?;
            let age = current - get("Innodb_redo_log_checkpoint_lsn")?;
            (age, get("Innodb_redo_log_capacity_resized")?, "Innodb_redo_log")
        }
    };
    (capacity > 0.0).then(|| ((age * 1000.0 / capacity).max(0.0).round(), source))
}

/// Only MariaDB's plugin DISKS tells.
async fn disk_free(session: &mut Session) -> Found {
    if session.capabilities.flavor != Flavor::MariaDb {
        return Ok(None);
    }
    let sql = "SELECT Path, Available FROM information_schema.DISKS";
    let found = rows(&mut session.conn, sql, "reading the free disk of", OF).await?;
    let datadir = session.capabilities.datadir.as_str();
    let disks = found.iter().map(|row| (text(row, 0), text(row, 1)));
    let here = disks.filter(|(path, _)| datadir.starts_with(path.as_str()));
    let Some((_, free)) = here.max_by_key(|disk| disk.0.len()) else { return Ok(None) };
    Ok(free.parse::<f64>().ok().map(|kib| (kib * 1024.0, "information_schema.DISKS")))
}

/// Ids for an IN; 0 is nobody's.
fn list(ids: &[u64]) -> String {
    let mut list = String::from("0");
    for id in ids {
        list.push_str(&format!(", {id}"));
    }
    list
}

fn float(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}
