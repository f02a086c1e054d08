//! The change that the server makes by itself: no shadow, no copy, only the bounded wait for the lock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use underpin_core::machine::Command;
use underpin_core::plan::RunSpec;
use underpin_dialect::{Database, ErrorKind, Shadow, Store};

use crate::error::EngineResult;
use crate::options::RunOptions;
use crate::report::Report;
use crate::reporter::Reporter;
use crate::run::Outcome;

/// First rest after a lock was not had; it doubles with each try.
const REST: Duration = Duration::from_millis(500);

/// Longest rest between two tries.
const REST_MAX: Duration = Duration::from_secs(15);

/// Has the server make the change, trying for the lock until the patience ends.
///
/// # Errors
/// `LockNotHad` beyond the patience; the server's refusal; `Ambiguous` where the answer was lost: then
/// the table's definition tells whether the change was made.
pub async fn alter_natively<D: Database>(
    db: Arc<D>,
    spec: RunSpec,
    options: RunOptions,
    mut commands: mpsc::Receiver<Command>,
    reporter: Reporter,
) -> EngineResult<Outcome> {
    let mut control = db.control().await?;
    control.acquire(&spec.schema, &spec.table).await?;
    let begun = Instant::now();
    let patience = Duration::from_millis(options.settings.lock_patience_ms);
    let mut rest = REST;
    for tries in 1..=u32::MAX {
        if matches!(commands.try_recv(), Ok(Command::Stop | Command::Abort)) {
            break;
        }
        let at = Instant::now();
        match control.alter_natively(&spec).await {
            Ok(()) => {
                let took_ms = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
                return Ok(Outcome::Altered { tries, took_ms });
            }
            Err(error) if error.kind == ErrorKind::LockNotHad && begun.elapsed() < patience => {
                reporter.tell(|at_ms| Report::LockTry {
                    at_ms,
                    attempt: tries,
                    why: error.to_string(),
                });
            }
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(rest).await;
        rest = std::cmp::min(rest * 2, REST_MAX);
    }
    Ok(Outcome::Interrupted)
}
