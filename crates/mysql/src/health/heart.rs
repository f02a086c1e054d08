//! The heartbeat: one row of the run in the state schema, written with each round of signals.
//!
//! The time that the write takes is the server's commit latency; the beats by which a replica shows
//! them are its lag. Nobody else's table is written to, and no trigger fires.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use tokio::sync::watch;
use underpin_core::plan::RunSpec;
use underpin_core::signal::{Reading, Unit, WRITE_LATENCY};
use underpin_dialect::DbResult;

use super::beats::Beats;
use super::follower::Shared;
use super::locked;
use crate::connect::Session;
use crate::database::MySql;
use crate::query::{cell, first, literal, quote, run};

pub(super) const SOURCE: &str = "heartbeat";

/// See the module's head.
#[derive(Debug)]
pub(super) struct Heart {
    run_id: String,
    /// The run's id as a literal.
    id: String,
    table: String,
    newest: watch::Sender<u64>,
    beats: Arc<Mutex<Beats>>,
}

impl Heart {
    /// Goes on where the run's last beat was.
    pub(super) async fn begin(
        session: &mut Session,
        server: &MySql,
        spec: &RunSpec,
    ) -> DbResult<Self> {
        let attempted = "reading the last heartbeat of run";
        let state = quote(&server.state_schema)?;
        let (table, id) = (format!("{state}.beats"), literal(&spec.run_id)?);
        let sql = format!(
            "INSERT IGNORE INTO {table} (run_id, beat, written_at) SELECT run_id, 0, UTC_TIMESTAMP(6) \
             FROM {state}.runs WHERE run_id = {id} AND state = 'open'"
        );
        run(&mut session.conn, &sql, "beginning the heartbeat of run", &spec.run_id).await?;
        let sql = format!(
            "SELECT COALESCE((SELECT beat FROM {table} WHERE run_id = {id}), 0), \
             TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))"
        );
        let row = first(&mut session.conn, &sql, attempted, &spec.run_id).await?;
        let (last, clock_us) = match row {
            Some(row) => (cell(&row, 0, attempted)?, cell(&row, 1, attempted)?),
            None => (0, 0),
        };
        Ok(Self {
            run_id: spec.run_id.clone(),
            id,
            table,
            newest: watch::channel(last).0,
            beats: Arc::new(Mutex::new(Beats::new(Instant::now(), clock_us))),
        })
    }

    /// Writes the next beat; how long that took. Nothing where the run is over.
    ///
    /// # Errors
    /// The connection is lost. A write that fails otherwise is a reading.
    pub(super) async fn beat(&mut self, session: &mut Session) -> DbResult<Option<Reading>> {
        let number = *self.newest.borrow() + 1;
        let sql = format!(
            "UPDATE {} SET beat = {number}, written_at = UTC_TIMESTAMP(6) WHERE run_id = {}",
            self.table, self.id
        );
        let begun = Instant::now();
        match run(&mut session.conn, &sql, "writing a heartbeat of run", &self.run_id).await {
            Ok(0) => Ok(None),
            Ok(_) => {
                let now = Instant::now();
                locked(&self.beats).note(number, now);
                // Only now: who is woken by it looks for its time.
                self.newest.send_replace(number);
                let took_ms = now.duration_since(begun).as_secs_f64() * 1000.0;
                Ok(Some(Reading::new(WRITE_LATENCY, "", SOURCE, Unit::Ms, took_ms)))
            }
            Err(error) if error.is_ambiguous() => Err(error),
            Err(error) => {
                let why = error.server.clone().unwrap_or_else(|| error.to_string());
                Ok(Some(Reading::unreadable(WRITE_LATENCY, "", SOURCE, Unit::Ms, &why)))
            }
        }
    }

    /// The beats written so far.
    pub(super) fn beats(&self) -> MutexGuard<'_, Beats> {
        locked(&self.beats)
    }

    /// What whoever follows a replica needs.
    pub(super) fn shared(&self, server: &MySql) -> Shared {
        Shared {
            settings: server.settings.clone(),
            primary: server.identity.clone(),
            look_sql: format!(
                "SELECT beat, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', written_at) FROM {} WHERE \
                 run_id = {}",
                self.table, self.id
            ),
            beats: Arc::clone(&self.beats),
            newest: self.newest.subscribe(),
        }
    }
}
