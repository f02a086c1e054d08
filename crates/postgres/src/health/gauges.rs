//! The server's own signals, one question each: what a lacking right or an unknown name leaves out, and
//! what a question that failed is told as.

use underpin_core::signal::{Reading, Unit};
use underpin_dialect::{DbError, DbResult};

use super::heart::no_such_signal;
use super::{load, reserves};
use crate::connect::Session;
use crate::database::Postgres;

/// A signal, to be told where it could not be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gauge {
    pub(super) name: &'static str,
    pub(super) source: &'static str,
    pub(super) unit: Unit,
}

/// Which questions are asked.
#[derive(Debug)]
pub(super) struct Gauges {
    server: Postgres,
    asked: [bool; 4],
}

impl Gauges {
    /// All of them, until the server says that it cannot answer.
    pub(super) fn new(server: &Postgres) -> Self {
        Self { server: server.clone(), asked: [true; 4] }
    }

    /// Asks.
    ///
    /// # Errors
    /// The connection is lost.
    pub(super) async fn read(&mut self, session: &Session) -> DbResult<Vec<Reading>> {
        let mut readings = Vec::new();
        for index in 0..self.asked.len() {
            if !self.asked[index] {
                continue;
            }
            let (gauges, answer): (&[Gauge], _) = match index {
                0 => (&load::GAUGE, load::read(session, &self.server.sessions()).await),
                1 => (&reserves::SLOT_GAUGE, reserves::slots(session).await),
                2 => (&reserves::ARCHIVE_GAUGE, reserves::archive(session).await),
                _ => (&reserves::CHECKPOINT_GAUGE, reserves::checkpoint(session).await),
            };
            match answer {
                Ok(found) => readings.extend(found),
                Err(error) if error.is_ambiguous() => return Err(error),
                Err(error) if no_such_signal(&error) => {
                    tracing::debug!(%error, "a signal that is not to be had");
                    self.asked[index] = false;
                }
                Err(error) => readings.extend(gauges.iter().map(|gauge| gauge.failed(&error))),
            }
        }
        Ok(readings)
    }
}

impl Gauge {
    fn failed(&self, error: &DbError) -> Reading {
        let why = error.server.clone().unwrap_or_else(|| error.to_string());
        Reading::unreadable(self.name, "", self.source, self.unit, &why)
    }
}
