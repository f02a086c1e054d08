//! One question at a time, on a session of its own: an answer that does not come holds up nobody.
//!
//! A question that is waited for in vain goes on by itself, and is what is waited for next time; another
//! one is not asked meanwhile. So whoever waits may be dropped at any point.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use underpin_dialect::{DbError, DbResult, ErrorKind};

use crate::connect::Session;
use crate::query::run;

/// Bound on any question, opening the session included. The server's own bound on statements is shorter,
/// but a commit that waits for a standby knows none.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// A question's outcome, and the session for the next one.
pub(super) type Outcome<T> = (Option<Session>, DbResult<T>);

/// A session of its own, and the question that is open on it.
#[derive(Debug)]
pub(super) struct Aside<T> {
    session: Option<Session>,
    open: Option<Open<T>>,
}

#[derive(Debug)]
struct Open<T> {
    since: Instant,
    task: JoinHandle<Outcome<T>>,
}

impl<T: Send + 'static> Aside<T> {
    /// Opens nothing yet.
    pub(super) fn new() -> Self {
        Self { session: None, open: None }
    }

    /// Asks, unless a question is open. `question` is handed the session, where there is one already.
    pub(super) fn ask<F>(&mut self, question: impl FnOnce(Option<Session>) -> F)
    where
        F: Future<Output = Outcome<T>> + Send + 'static,
    {
        if self.open.is_some() {
            return;
        }
        let work = question(self.session.take());
        let bounded = async move {
            timeout(ANSWER_MAX, work).await.unwrap_or_else(|_| {
                let error = DbError::new(ErrorKind::ConnectionLost, "waiting for", "an answer");
                (None, Err(error.said(format!("none within {} s", ANSWER_MAX.as_secs()))))
            })
        };
        self.open = Some(Open { since: Instant::now(), task: tokio::spawn(bounded) });
    }

    /// The answer to the open question, where there is one and it comes by then.
    pub(super) async fn answer(&mut self, until: Instant) -> Option<DbResult<T>> {
        let open = self.open.as_mut()?;
        let ended = timeout_at(until, &mut open.task).await.ok()?;
        self.open = None;
        Some(match ended {
            Ok((session, answer)) => {
                let lost = matches!(&answer, Err(error) if error.is_connection_lost());
                self.session = session.filter(|_| !lost);
                answer
            }
            Err(error) => {
                Err(DbError::new(ErrorKind::Other, "waiting for", "an answer")
                    .said(error.to_string()))
            }
        })
    }

    /// How long the open question has been open.
    pub(super) fn open_for(&self) -> Option<Duration> {
        self.open.as_ref().map(|open| open.since.elapsed())
    }
}

impl<T> Drop for Aside<T> {
    fn drop(&mut self) {
        if let Some(open) = &self.open {
            // The session goes with it: what the server still does is the server's.
            open.task.abort();
        }
    }
}

/// The session that is there, or a new one with `settings` on top of ours.
///
/// # Errors
/// The server's.
pub(super) async fn session_or(
    session: Option<Session>,
    open: impl Future<Output = DbResult<Session>>,
    settings: &str,
) -> DbResult<Session> {
    match session {
        Some(session) => Ok(session),
        None => {
            let session = open.await?;
            run(&session, settings, "setting up the session", "of the probe").await?;
            Ok(session)
        }
    }
}
