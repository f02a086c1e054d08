//! The heart: one small durable write a round. How long it takes is what a commit of the application takes
//! just now; and it moves the log on, so that the lag of a replica can be told while nobody else writes.
//!
//! It is a row of the run's own in the state schema. Each write is a transaction of a single statement, so
//! no snapshot is older than that. The row's old versions are cleared away by the next write, in its own
//! page, unless somebody's old snapshot still needs them; then the table grows by some bytes a second, and
//! because the row is found by its place, not by its key, a write costs no more for that.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use underpin_core::signal::{Reading, Unit, WRITE_LATENCY};
use underpin_dialect::{DbError, DbResult, ErrorKind};

use super::aside::{Aside, Outcome, session_or};
use crate::connect::Session;
use crate::database::Postgres;
use crate::query::{first, literal, optional_text, quote, run};

/// How it is read.
const SOURCE: &str = "a write of our own";

/// How long a round waits for the write. One that takes longer is told by the time it has taken so far.
const WAIT: Duration = Duration::from_millis(250);

/// How long the session may take to open before that is worth a word.
const OPENING_MAX: Duration = Duration::from_secs(5);

/// The write reaches the server's own disk, whatever the default is; beyond that it waits for whom every
/// commit waits for.
const SETTINGS: &str = "SET statement_timeout = '5s'; SELECT pg_catalog.set_config('synchronous_commit', \
                        CASE setting WHEN 'off' THEN 'local' ELSE setting END, false) \
                        FROM pg_catalog.pg_settings WHERE name = 'synchronous_commit'";

/// See the module's head.
#[derive(Debug)]
pub(super) struct Heart {
    server: Postgres,
    writes: Arc<Writes>,
    aside: Aside<Option<Beat>>,
    /// Where the row was written last.
    place: String,
    /// When the write that is open was sent.
    sent: Arc<Mutex<Option<Instant>>>,
    /// The table is not there, or not ours to write to: then there is no such signal.
    off: bool,
}

/// The statements.
#[derive(Debug)]
struct Writes {
    beats: String,
    runs: String,
    id: String,
}

/// A write that was answered: how long it took, and where the row is now. There is none where the run is
/// not open any more.
type Beat = (Duration, String);

impl Heart {
    /// Opens nothing yet.
    ///
    /// # Errors
    /// A name that no identifier can have.
    pub(super) fn new(server: &Postgres, run_id: &str) -> DbResult<Self> {
        let state = quote(&server.state_schema)?;
        let writes = Writes {
            beats: format!("{state}.beats"),
            runs: format!("{state}.runs"),
            id: literal(run_id)?,
        };
        Ok(Self {
            server: server.clone(),
            writes: Arc::new(writes),
            aside: Aside::new(),
            place: String::new(),
            sent: Arc::default(),
            off: false,
        })
    }

    /// Writes, and waits a little for the answer.
    pub(super) async fn beat(&mut self) -> Option<Reading> {
        if self.off {
            return None;
        }
        let (server, writes) = (self.server.clone(), Arc::clone(&self.writes));
        let (place, sent) = (self.place.clone(), Arc::clone(&self.sent));
        self.aside.ask(|session| write(session, server, writes, place, sent));
        match self.aside.answer(Instant::now() + WAIT).await {
            Some(Ok(beat)) => {
                let (took, place) = beat?;
                self.place = place;
                Some(Reading::new(WRITE_LATENCY, "", SOURCE, Unit::Ms, ms(took)))
            }
            Some(Err(error)) if no_such_signal(&error) => {
                tracing::debug!(%error, "no write of our own");
                self.off = true;
                None
            }
            Some(Err(error)) => Some(unreadable(&error.to_string())),
            None => self.still_open(),
        }
    }

    /// What can be said of a write that has not been answered yet.
    fn still_open(&self) -> Option<Reading> {
        let sent = *self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        match sent {
            Some(sent) => {
                let so_far = ms(sent.elapsed());
                Some(Reading::new(WRITE_LATENCY, "", SOURCE, Unit::Ms, so_far))
            }
            None if self.aside.open_for() > Some(OPENING_MAX) => {
                Some(unreadable("the session for it does not open"))
            }
            None => None,
        }
    }
}

async fn write(
    session: Option<Session>,
    server: Postgres,
    writes: Arc<Writes>,
    place: String,
    sent: Arc<Mutex<Option<Instant>>>,
) -> Outcome<Option<Beat>> {
    let session = match session_or(session, server.session(), SETTINGS).await {
        Ok(session) => session,
        Err(error) => return (None, Err(error)),
    };
    let answer = writes.beat(&session, place, &sent).await;
    *sent.lock().unwrap_or_else(PoisonError::into_inner) = None;
    (Some(session), answer)
}

impl Writes {
    async fn beat(
        &self,
        session: &Session,
        place: String,
        sent: &Mutex<Option<Instant>>,
    ) -> DbResult<Option<Beat>> {
        if !place.is_empty() {
            let here = format!("ctid = {} AND run_id = {}", literal(&place)?, self.id);
            let written = self.update(session, &here, sent).await?;
            if written.is_some() {
                return Ok(written);
            }
        }
        // It was not there: the first time, or somebody has rewritten the table.
        let sql = format!(
            "INSERT INTO {} (run_id) SELECT run_id FROM {} WHERE run_id = {} AND state = 'open' \
             ON CONFLICT DO NOTHING",
            self.beats, self.runs, self.id
        );
        run(session, &sql, "making a row of our own in", &self.beats).await?;
        let by_key = format!("run_id = {}", self.id);
        self.update(session, &by_key, sent).await
    }

    async fn update(
        &self,
        session: &Session,
        which: &str,
        sent: &Mutex<Option<Instant>>,
    ) -> DbResult<Option<Beat>> {
        let sql = format!(
            "UPDATE {} SET beat = beat + 1, beat_at = pg_catalog.clock_timestamp() WHERE {which} \
             RETURNING ctid",
            self.beats
        );
        let begun = Instant::now();
        *sent.lock().unwrap_or_else(PoisonError::into_inner) = Some(begun);
        let row = first(session, &sql, "writing a row of our own to", &self.beats).await?;
        let place = row.and_then(|row| optional_text(&row, 0));
        Ok(place.map(|place| (begun.elapsed(), place)))
    }
}

/// Whether an error means that this is not to be had here, now or later.
pub(super) fn no_such_signal(error: &DbError) -> bool {
    matches!(error.kind, ErrorKind::AccessDenied | ErrorKind::NotFound | ErrorKind::Refused)
}

fn unreadable(why: &str) -> Reading {
    Reading::unreadable(WRITE_LATENCY, "", SOURCE, Unit::Ms, why)
}

fn ms(took: Duration) -> f64 {
    took.as_secs_f64() * 1000.0
}
