//! The floor of the log: an id below which no entry can still appear, so that reading begins there.
//!
//! Deleted entries stay in the index until the server purges them, and a long transaction anywhere
//! holds purge back: without a floor each reading of the log would step over all of them, at last under
//! the swap's lock.
//!
//! Ids are drawn in order but committed in any order, so the highest id seen is no floor. It becomes
//! one when every transaction that could have drawn a lower id has ended, and everything those left
//! behind has been consumed:
//!
//! 1. An application sees entries up to `high`. Whoever drew an id up to `high` had written its source
//!    row before, and so had its transaction id before that of the next application. (Not before the
//!    first one's own: that is drawn when the stage is emptied, before the log is read.)
//! 2. Later no transaction with an id below ours is active: all of them are visible or gone.
//! 3. A later application, begun after that, leaves nothing of what it sees up to `high`: so nothing up
//!    to `high` is left.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use mysql_async::Conn;
use underpin_dialect::DbResult;

use crate::error::STATEMENT_UNREADABLE;
use crate::query::number;

/// Rest between two looks at the server's transactions.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Read-only transactions bear numbers beyond this one, or 0.
const READ_ONLY_FROM: u64 = 1 << 48;

/// Shared by all sessions of a process that work on a run.
#[derive(Debug, Default)]
pub(crate) struct Floor {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    floor: u64,
    looked_at: Option<Instant>,
    candidate: Option<Candidate>,
    /// The highest id that any application has seen.
    seen: u64,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    high: u64,
    our_transaction: u64,
    /// Since when nobody can still draw or hold an id up to `high`.
    closed_at: Option<Instant>,
}

impl Floor {
    /// The first id worth reading.
    pub(crate) fn get(&self) -> u64 {
        self.lock().floor
    }

    /// The highest id seen so far; to be asked before the transaction that proposes it begins.
    pub(crate) fn seen(&self) -> u64 {
        self.lock().seen
    }

    /// Notes the highest id that an application sees.
    pub(crate) fn note(&self, high: u64) {
        let mut state = self.lock();
        state.seen = std::cmp::max(state.seen, high);
    }

    /// Forgets everything: after a loss of the server nothing that was learnt holds.
    pub(crate) fn reset(&self) {
        *self.lock() = State::default();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a look at the server is due; then the time is noted.
    fn look_is_due(&self) -> bool {
        let mut state = self.lock();
        let due = state.looked_at.is_none_or(|at| at.elapsed() >= LOOK_EVERY);
        if due {
            state.looked_at = Some(Instant::now());
        }
        due
    }

    /// Step 1, inside an application that has written: notes our transaction, and `high`, which was
    /// seen before it began.
    pub(crate) async fn propose(&self, conn: &mut Conn, high: u64, object: &str) -> DbResult<()> {
        if high == 0 || self.lock().candidate.is_some() || !self.look_is_due() {
            return Ok(());
        }
        // The server shows a picture of at most 0.1 s of age: ours may be missing from it.
        let sql = format!(
            "SELECT trx_id FROM information_schema.INNODB_TRX WHERE trx_mysql_thread_id = \
             CONNECTION_ID() AND trx_id BETWEEN 1 AND {READ_ONLY_FROM}"
        );
        let ours = readable(number(conn, &sql, "reading our transaction on", object).await)?;
        if let Some(our_transaction) = ours.filter(|id| *id > 0) {
            self.lock().candidate = Some(Candidate { high, our_transaction, closed_at: None });
        }
        Ok(())
    }

    /// Step 2, outside any transaction.
    pub(crate) async fn look(&self, conn: &mut Conn, object: &str) -> DbResult<()> {
        let waiting = self.lock().candidate.filter(|candidate| candidate.closed_at.is_none());
        let Some(candidate) = waiting else { return Ok(()) };
        if !self.look_is_due() {
            return Ok(());
        }
        let sql = format!(
            "SELECT COUNT(*) FROM information_schema.INNODB_TRX WHERE trx_id BETWEEN 1 AND {}",
            candidate.our_transaction
        );
        let older = readable(number(conn, &sql, "reading the transactions on", object).await)?;
        if older == Some(0) {
            let closed_at = Some(Instant::now());
            self.lock().candidate = Some(Candidate { closed_at, ..candidate });
        }
        Ok(())
    }

    /// Step 3, after an application that began at `begun` and left nothing of what it saw up to `through`.
    pub(crate) fn emptied(&self, begun: Instant, through: u64) {
        let mut state = self.lock();
        if let Some(Candidate { high, closed_at: Some(closed_at), .. }) = state.candidate
            && begun > closed_at
            && through >= high
        {
            state.floor = std::cmp::max(state.floor, high + 1);
            state.candidate = None;
        }
    }
}

/// `None` where the server cannot tell just now: without a floor reading is slower, and that is all.
fn readable(answer: DbResult<u64>) -> DbResult<Option<u64>> {
    match answer {
        Ok(number) => Ok(Some(number)),
        Err(error) if error.code == Some(STATEMENT_UNREADABLE) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(closed_at: Option<Instant>) -> Floor {
        let floor = Floor::default();
        floor.lock().candidate = Some(Candidate { high: 9, our_transaction: 5, closed_at });
        floor
    }

    #[test]
    fn it_rises_only_by_an_application_that_began_after_the_last_writer_ended() {
        let early = Instant::now();
        let floor = with(Some(Instant::now()));
        floor.emptied(early, u64::MAX);
        assert_eq!(floor.get(), 0, "begun before: an entry may have come in between");
        std::thread::sleep(Duration::from_millis(1));
        floor.emptied(Instant::now(), 8);
        assert_eq!(floor.get(), 0, "the ninth may be there still");
        floor.emptied(Instant::now(), 9);
        assert_eq!(floor.get(), 10);
    }

    #[test]
    fn it_stays_while_a_writer_is_active() {
        let floor = with(None);
        floor.emptied(Instant::now(), u64::MAX);
        assert_eq!(floor.get(), 0);
    }
}
