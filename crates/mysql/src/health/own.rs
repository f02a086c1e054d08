//! The user's own signals: queries that return a number, on a session of their own that may only read.
//!
//! A task runs them one after the other, so that a slow one delays neither heartbeat nor lag; what is
//! told is the newest result with its age.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use underpin_core::signal::{Reading, Unit};
use underpin_dialect::{DbError, DbResult, ErrorKind, OwnQuery};

use super::beats::millis;
use super::{bound_statements, within};
use crate::connect::Session;
use crate::database::MySql;
use crate::query::{first, optional_text, run};

/// How often each is asked.
const EVERY: Duration = Duration::from_millis(500);

/// Bound on one query: on the server, and a little later here.
const QUERY_MAX_MS: u32 = 2000;
const ANSWER_MAX: Duration = Duration::from_millis(2500);

const SOURCE: &str = "query";

/// See the module's head. The task ends with it.
#[derive(Debug)]
pub(super) struct OwnQueries {
    queries: Vec<OwnQuery>,
    results: watch::Receiver<Vec<Option<(Instant, Reading)>>>,
    task: JoinHandle<()>,
}

impl Drop for OwnQueries {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl OwnQueries {
    /// Begins to ask.
    pub(super) fn start(server: &MySql, queries: &[OwnQuery]) -> Self {
        let (sender, results) = watch::channel(vec![None; queries.len()]);
        let task = tokio::spawn(ask(server.clone(), queries.to_vec(), sender));
        Self { queries: queries.to_vec(), results, task }
    }

    /// Whether these are the queries.
    pub(super) fn are(&self, queries: &[OwnQuery]) -> bool {
        self.queries == queries
    }

    /// Waits until each has been asked once, at most until `deadline`.
    pub(super) async fn first_results(&mut self, deadline: Instant) {
        let told = self.results.wait_for(|results| results.iter().all(Option::is_some));
        // In vain: then the readings say so.
        let _ = tokio::time::timeout_at(deadline, told).await;
    }

    /// The newest result of each.
    pub(super) fn readings(&self) -> Vec<Reading> {
        let results = self.results.borrow();
        self.queries
            .iter()
            .zip(results.iter())
            .map(|(query, result)| match result {
                Some((at, reading)) => Reading { age_ms: millis(at.elapsed()), ..reading.clone() },
                None => unreadable(query, "it has not been answered yet"),
            })
            .collect()
    }
}

fn unreadable(query: &OwnQuery, why: &str) -> Reading {
    Reading::unreadable(&query.name, "", SOURCE, Unit::Count, why)
}

async fn ask(
    server: MySql,
    queries: Vec<OwnQuery>,
    results: watch::Sender<Vec<Option<(Instant, Reading)>>>,
) {
    let mut kept: Option<Session> = None;
    while !results.is_closed() {
        let again = Instant::now() + EVERY;
        for (index, query) in queries.iter().enumerate() {
            let answer = within(ANSWER_MAX, "asking", &query.name, one(&server, &mut kept, query));
            let reading = match answer.await {
                Ok(value) => Reading::new(&query.name, "", SOURCE, Unit::Count, value),
                Err(error) => {
                    // Whatever state it is in, a new session is in a known one.
                    kept = None;
                    unreadable(query, &error.server.clone().unwrap_or_else(|| error.to_string()))
                }
            };
            results.send_modify(|results| {
                if let Some(result) = results.get_mut(index) {
                    *result = Some((Instant::now(), reading));
                }
            });
        }
        sleep_until(again).await;
    }
}

async fn one(server: &MySql, kept: &mut Option<Session>, query: &OwnQuery) -> DbResult<f64> {
    let session = match kept {
        Some(session) => session,
        None => {
            let mut session = server.session().await?;
            bound_statements(&mut session, QUERY_MAX_MS).await?;
            let sql = "SET SESSION TRANSACTION READ ONLY";
            run(&mut session.conn, sql, "setting up the session for", &query.name).await?;
            kept.insert(session)
        }
    };
    let row = first(&mut session.conn, &query.sql, "asking", &query.name).await?;
    let value = row.and_then(|row| optional_text(&row, 0));
    let number = value.as_deref().and_then(|text| text.trim().parse::<f64>().ok());
    number.filter(|number| number.is_finite()).ok_or_else(|| {
        let got = value.as_deref().unwrap_or("nothing");
        DbError::new(ErrorKind::Other, "asking", &query.name)
            .said(format!("the query returned {got} instead of a number"))
    })
}
