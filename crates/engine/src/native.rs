//! The change that the server makes by itself: no shadow, no copy, only the bounded wait for the lock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use underpin_core::machine::Command;
use underpin_core::plan::RunSpec;
use underpin_dialect::{Database, ErrorKind, Shadow, Store};

use crate::error::EngineResult;
use crate::options::RunOptions;
use crate::report::{Report, Reporter};

/// First rest after a lock was not had; it doubles with each try.
const REST: Duration = Duration::from_millis(500);

/// Longest rest between two tries.
const REST_MAX: Duration = Duration::from_secs(15);

/// How a native change ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Altered {
    /// It is made.
    Done {
        /// Tries for the lock.
        tries: u64,
        /// Milliseconds of the statement that made it.
        took_ms: u64,
    },
    /// Stopped on request before it was made.
    Interrupted,
}

/// Has the server make the change, trying for the lock until the patience ends.
///
/// # Errors
/// `LockNotHad` beyond the patience; the server's refusal; `Ambiguous` where the answer was lost: then
/// the table's definition tells whether the change was made.
pub async fn alter_natively<D: Database>(
    db: Arc<D>,
    spec: &RunSpec,
    options: &RunOptions,
    commands: &mut mpsc::Receiver<Command>,
    reporter: &Reporter,
) -> EngineResult<Altered> {
    let mut control = db.control().await?;
    control.acquire(&spec.schema, &spec.table).await?;
    let begun = Instant::now();
    let patience = Duration::from_millis(options.settings.lock_patience_ms);
    let mut rest = REST;
    for tries in 1.. {
        if matches!(commands.try_recv(), Ok(Command::Stop | Command::Abort)) {
            return Ok(Altered::Interrupted);
        }
        let at = Instant::now();
        match control.alter_natively(spec).await {
            Ok(()) => {
                let took_ms = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
                return Ok(Altered::Done { tries, took_ms });
            }
            Err(error) if error.kind == ErrorKind::LockNotHad && begun.elapsed() < patience => {
                reporter.tell(|at| Report::LockTry { at, attempt: tries, why: error.to_string() });
            }
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(rest).await;
        rest = std::cmp::min(rest * 2, REST_MAX);
    }
    Ok(Altered::Interrupted)
}
