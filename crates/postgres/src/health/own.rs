//! Queries of the user's that return a number.
//!
//! They have a session of their own, on which nothing can be written and names are found as in any session
//! of the user's. What has not been answered in time is told by its last answer, with its age.

use std::time::Duration;

use tokio::time::Instant;
use underpin_core::signal::{Reading, Unit};
use underpin_dialect::OwnQuery;

use super::aside::{Aside, Outcome, session_or};
use crate::connect::{Session, users_meanings};
use crate::database::Postgres;
use crate::query::{optional_text, rows};

/// How it is read.
const SOURCE: &str = "query";

/// How long a round waits for the answers.
const WAIT: Duration = Duration::from_millis(100);

/// And the first round.
const FIRST_WAIT: Duration = Duration::from_secs(2);

/// See the module's head.
#[derive(Debug)]
pub(super) struct Own {
    server: Postgres,
    aside: Aside<Vec<Asked>>,
    last: Vec<Asked>,
}

/// An answer, and when it came.
#[derive(Debug, Clone)]
struct Asked {
    at: Instant,
    reading: Reading,
}

impl Own {
    /// Opens nothing yet.
    pub(super) fn new(server: &Postgres) -> Self {
        Self { server: server.clone(), aside: Aside::new(), last: Vec::new() }
    }

    /// Asks them all, and tells what is known of each.
    pub(super) async fn read(&mut self, queries: &[OwnQuery]) -> Vec<Reading> {
        if queries.is_empty() {
            return Vec::new();
        }
        let (server, asked) = (self.server.clone(), queries.to_vec());
        self.aside.ask(|session| ask(session, server, asked));
        let wait = if self.last.is_empty() { FIRST_WAIT } else { WAIT };
        match self.aside.answer(Instant::now() + wait).await {
            Some(Ok(last)) => self.last = last,
            Some(Err(error)) => {
                return queries.iter().map(|one| unreadable(one, &error.to_string())).collect();
            }
            None => {}
        }
        let known = |query: &OwnQuery| self.last.iter().find(|one| one.reading.name == query.name);
        let tell = |query| match known(query) {
            Some(asked) => Reading { age_ms: age_ms(asked.at), ..asked.reading.clone() },
            None => unreadable(query, "it has not been answered yet"),
        };
        queries.iter().map(tell).collect()
    }
}

async fn ask(
    session: Option<Session>,
    server: Postgres,
    queries: Vec<OwnQuery>,
) -> Outcome<Vec<Asked>> {
    // `SET LOCAL` there, for the session here.
    let settings = format!(
        "SET statement_timeout = '2s'; SET default_transaction_read_only = on; \
         SET search_path TO DEFAULT; SET row_security TO DEFAULT; {}",
        users_meanings().replace("SET LOCAL", "SET")
    );
    let session = match session_or(session, server.session(), &settings).await {
        Ok(session) => session,
        Err(error) => return (None, Err(error)),
    };
    let mut asked = Vec::new();
    for query in &queries {
        let reading = match rows(&session, &query.sql, "asking for the signal", &query.name).await {
            Ok(found) => read(query, found.first().and_then(|row| optional_text(row, 0))),
            Err(error) if error.is_connection_lost() => return (None, Err(error)),
            Err(error) => unreadable(query, error.server.as_deref().unwrap_or("it failed")),
        };
        asked.push(Asked { at: Instant::now(), reading });
    }
    (Some(session), Ok(asked))
}

/// The number that a query gave; yes is 1 and no is 0.
fn read(query: &OwnQuery, cell: Option<String>) -> Reading {
    let value = match cell.as_deref() {
        Some("t") => Ok(1.0),
        Some("f") => Ok(0.0),
        Some(text) => text.parse::<f64>().ok().filter(|value| value.is_finite()).ok_or(text),
        None => Err("nothing"),
    };
    match value {
        Ok(value) => Reading::new(&query.name, "", SOURCE, Unit::Count, value),
        Err(text) => {
            let text: String = text.chars().take(80).collect();
            unreadable(query, &format!("it gave {text}, which is no number"))
        }
    }
}

fn unreadable(query: &OwnQuery, why: &str) -> Reading {
    Reading::unreadable(&query.name, "", SOURCE, Unit::Count, why)
}

/// How long ago that was.
pub(super) fn age_ms(at: Instant) -> u64 {
    u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_nothing_else() {
        let query = OwnQuery { name: "queue".into(), sql: String::new() };
        let value = |text: &str| read(&query, Some(text.into())).value;
        assert_eq!(value("12.5"), Some(12.5));
        assert_eq!(value("t"), Some(1.0));
        assert_eq!(value("f"), Some(0.0));
        for text in ["NaN", "Infinity", "many", ""] {
            assert_eq!(value(text), None, "{text}");
        }
        let nothing = read(&query, None);
        assert!(nothing.value.is_none() && nothing.error.contains("nothing"), "{nothing:?}");
    }
}
