//! The swap, with whoever else wants the table in that moment: before our locks, between them, under
//! them and after them. And capture by statement, up to the swap.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

mod postgres_runs;
mod postgres_steps;

#[path = "postgres_swap/by_statement.rs"]
mod by_statement;
#[path = "postgres_swap/commit.rs"]
mod commit;
#[path = "postgres_swap/queue.rs"]
mod queue;
#[path = "postgres_swap/snapshots.rs"]
mod snapshots;
#[path = "postgres_swap/writers.rs"]
mod writers;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::Client;
use underpin_core::checkpoint::{Checkpoint, Phase};
use underpin_core::machine::SwapState;
use underpin_dialect::{Database, DbResult, Shadow, Swap, SwapOutcome};
use underpin_tests::proxy::{Proxy, Trap};
use underpin_tests::servers::TestDb;

use postgres_steps::{LIMIT, Steps, Worker, open_through, wait_for_lock_wait};

/// Under the lock for so long at most, in milliseconds.
/// Ten times what it takes on a machine that has nothing else to do.
const BUDGET_MS: u64 = 3000;

/// A run that could be swapped now.
struct Ready {
    steps: Steps,
    worker: Worker,
}

impl Ready {
    /// Brings the change of a table `t` that exists as far as that.
    async fn make(db: &TestDb, change: &str) -> Self {
        let steps = Steps::begin(db, change).await;
        let mut worker = steps.worker().await;
        steps.copied(&mut worker).await;
        Self { steps, worker }
    }

    /// Tries the swap.
    async fn swap(&self) -> DbResult<SwapOutcome> {
        let mut control = self.steps.control().await;
        control.try_swap(&self.steps.spec, &self.steps.grip, BUDGET_MS).await
    }

    /// Begins to try it, each statement by way of the proxy.
    async fn begin_swap(&self, db: &TestDb, proxy: &Proxy) -> JoinHandle<DbResult<SwapOutcome>> {
        let server = open_through(&proxy.url(db.name())).await;
        let mut control = server.control().await.unwrap();
        let (spec, grip) = (Arc::clone(&self.steps.spec), self.steps.grip.clone());
        tokio::spawn(async move { control.try_swap(&spec, &grip, BUDGET_MS).await })
    }

    /// Which table bears the name, as a run that begins anew would see it.
    async fn observed(&self) -> SwapState {
        let checkpoint = Checkpoint { phase: Phase::Swap, ..Checkpoint::begin() };
        let mut control = self.steps.control().await;
        control.observe(&self.steps.spec, &checkpoint).await.unwrap().swap
    }

    /// Ends the run after the swap.
    async fn finish(&self) {
        self.steps.control().await.finish(&self.steps.spec, false).await.unwrap();
    }
}

/// Entries that were drained where the swap was made.
fn swapped(outcome: &DbResult<SwapOutcome>) -> u64 {
    match outcome {
        Ok(SwapOutcome::Swapped { drained, .. }) => *drained,
        other => panic!("not swapped: {other:?}"),
    }
}

/// Waits until the trap has sprung.
async fn sprung(trap: &Trap) {
    let trap = trap.clone();
    tokio::task::spawn_blocking(move || trap.wait_sprung(LIMIT)).await.unwrap().unwrap();
}

/// Sends a statement that must come to wait for a lock; returns when it waits.
async fn queue(db: &TestDb, client: Client, statement: &str) -> JoinHandle<Client> {
    let pid = postgres_runs::pid_of(&client).await;
    let statement = statement.to_owned();
    let waiting = tokio::spawn(async move {
        let done = client.batch_execute(&statement).await;
        done.unwrap_or_else(|error| panic!("{statement}: {:?}", error.as_db_error()));
        client
    });
    wait_for_lock_wait(db, u64::try_from(pid).unwrap()).await;
    waiting
}

/// A moment for what must not happen in it.
async fn moment() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}
