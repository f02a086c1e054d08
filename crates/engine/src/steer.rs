//! Orders to a run from elsewhere: `pause`, `resume`, `swap`, `set`. They are left in the database and
//! taken by the runner; where none is alive, nothing would happen, and that is said.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use underpin_core::machine::Command;
use underpin_dialect::{Database, Origin, RunSummary, Store};

use crate::error::{EngineError, EngineResult};
use crate::status::{RunStatus, Standing};

/// Time between two looks whether the runner has taken an order.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long to wait for that: many times what a living runner needs.
const TAKEN_MAX: Duration = Duration::from_secs(10);

/// An order that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The run.
    pub run_id: String,
    /// How long the runner took to take it, in milliseconds.
    pub took_ms: u64,
}

/// Gives orders to the runner of a table's unfinished run, and waits until it has taken them. `by`: the
/// person, as "user@machine".
///
/// # Errors
/// `NoRun`; `NoRunner` where nobody works on it (a `Resume` is kept all the same, so that a run that was
/// paused goes on when its next runner comes); `NotTaken`; the database's.
pub async fn order<D: Database>(
    db: &D,
    schema: &str,
    table: &str,
    commands: &[Command],
    by: &str,
) -> EngineResult<Taken> {
    let mut control = db.control().await?;
    let named = format!("{schema}.{table}");
    let runs = control.runs(Some((schema, table))).await?;
    let Some(run) = runs.into_iter().find(|run| run.state == "open") else {
        return Err(EngineError::NoRun { table: named });
    };
    let begun = Instant::now();
    let before = control.orders(&run.run_id).await?.len();
    if !run.running {
        if commands == [Command::Resume] {
            control.request(&run.run_id, &Command::Resume, by).await?;
        }
        return Err(EngineError::NoRunner(Box::new(dead(&run))));
    }
    for command in commands {
        control.request(&run.run_id, command, by).await?;
    }
    while begun.elapsed() < TAKEN_MAX {
        // Orders of others may be among them: taking is in order, so all of them must be taken.
        let orders = control.orders(&run.run_id).await?;
        let ours = orders.get(before..).unwrap_or_default();
        if ours.len() >= commands.len() && ours.iter().all(|order| order.taken_at.is_some()) {
            let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            return Ok(Taken { run_id: run.run_id, took_ms });
        }
        sleep(LOOK_EVERY).await;
    }
    Err(EngineError::NotTaken { table: named, waited_s: TAKEN_MAX.as_secs() })
}

/// A run that nobody works on.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadRun {
    /// What `status` says of it.
    pub status: RunStatus,
    /// Who began it and how.
    pub origin: Origin,
}

fn dead(run: &RunSummary) -> DeadRun {
    let origin = serde_json::from_str(&run.origin).unwrap_or_default();
    // Read just before, so it is unattended whatever the clock says of its last sign of life.
    let status = RunStatus { standing: Standing::Unattended, ..RunStatus::of(run) };
    DeadRun { status, origin }
}
