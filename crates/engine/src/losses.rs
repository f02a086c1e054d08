//! How often and how long a run may lose its connection before this program gives up, and how long it
//! rests between two tries. Pure but for the clock.

use std::time::Duration;

use tokio::time::Instant;
use underpin_dialect::ErrorKind;

use crate::error::{EngineError, EngineResult};
use crate::options::RunOptions;

const BACK_OFF_MS: u64 = 100;
const BACK_OFF_MS_MAX: u64 = 5000;

/// After a lost connection our own old session may still hold the table's lock for a while.
const OWN_GHOST_WAIT: Duration = Duration::from_secs(60);

/// Losses in a row, without anything of the run moving between them.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    since: Option<Instant>,
    fenced_since: Option<Instant>,
    tries: u32,
    /// Whether the last one left a try of the swap without an answer.
    pub(crate) swap_in_flight: bool,
}

impl Losses {
    /// Counts a loss and returns the number of the next try. `table` as `schema.table`.
    ///
    /// # Errors
    /// No further try: the error is none that a new connection mends, or the time for it is over.
    pub(crate) fn count(
        &mut self,
        error: &EngineError,
        is_first: bool,
        options: &RunOptions,
        table: &str,
    ) -> EngineResult<u32> {
        let now = Instant::now();
        if let EngineError::Db(db) = error
            && db.kind == ErrorKind::Fenced
        {
            let wait = if is_first {
                Duration::from_millis(options.predecessor_wait_ms)
            } else {
                OWN_GHOST_WAIT
            };
            if now.duration_since(*self.fenced_since.get_or_insert(now)) >= wait {
                return Err(EngineError::Fenced { table: table.to_owned(), why: db.to_string() });
            }
        } else if error.is_connection_lost() || error.is_retryable() {
            let waited = now.duration_since(*self.since.get_or_insert(now));
            if waited >= Duration::from_millis(options.reconnect_for_ms) {
                return Err(EngineError::Unreachable {
                    waited_s: waited.as_secs(),
                    why: error.to_string(),
                    swap_in_flight: self.swap_in_flight,
                });
            }
        } else {
            return Err(error.clone());
        }
        self.tries = self.tries.saturating_add(1);
        Ok(self.tries)
    }

    /// The run was entered again: what the server holds is known.
    pub(crate) fn entered(&mut self) {
        self.fenced_since = None;
        self.swap_in_flight = false;
    }

    /// How long to rest before the next try; zero before the first.
    pub(crate) fn rest(&self) -> Duration {
        let Some(doublings) = self.tries.checked_sub(1) else { return Duration::ZERO };
        let wait_ms = BACK_OFF_MS << std::cmp::min(doublings, 6);
        Duration::from_millis(std::cmp::min(wait_ms, BACK_OFF_MS_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use underpin_dialect::DbError;

    fn db(kind: ErrorKind) -> EngineError {
        EngineError::Db(DbError::new(kind, "connecting", ""))
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_server_is_tried_until_the_time_is_over() {
        let options = RunOptions { reconnect_for_ms: 60_000, ..RunOptions::default() };
        let mut losses = Losses::default();
        let begun = Instant::now();
        let last = loop {
            match losses.count(&db(ErrorKind::ConnectionLost), false, &options, "s.t") {
                Ok(tries) => assert!(tries < 30, "rests grow"),
                Err(error) => break error,
            }
            tokio::time::sleep(losses.rest()).await;
        };
        assert!(matches!(last, EngineError::Unreachable { swap_in_flight: false, .. }), "{last:?}");
        let took_s = begun.elapsed().as_secs();
        assert!((60..70).contains(&took_s), "{took_s} s");
    }

    #[tokio::test(start_paused = true)]
    async fn another_runner_is_waited_for_briefly_and_named() {
        let options = RunOptions::default();
        let mut losses = Losses::default();
        let begun = Instant::now();
        let last = loop {
            match losses.count(&db(ErrorKind::Fenced), true, &options, "s.t") {
                Ok(_) => tokio::time::sleep(losses.rest()).await,
                Err(error) => break error,
            }
        };
        assert!(matches!(&last, EngineError::Fenced { table, .. } if table == "s.t"), "{last:?}");
        assert!(begun.elapsed() < Duration::from_secs(20));
    }

    #[tokio::test]
    async fn what_no_connection_mends_is_not_tried_again() {
        for kind in [ErrorKind::AccessDenied, ErrorKind::Refused, ErrorKind::Other] {
            let mut losses = Losses::default();
            let result = losses.count(&db(kind), false, &RunOptions::default(), "s.t");
            assert!(matches!(result, Err(EngineError::Db(_))), "{kind:?}");
        }
    }
}
