//! The way back: a made change is taken back with everything that was written since, and made again; what
//! the old shape alone holds is kept, what it cannot hold stops the way before the swap, and what hangs
//! on the table goes both ways.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

mod postgres_steps;

#[path = "postgres_revert/dependents.rs"]
mod dependents;
#[path = "postgres_revert/program.rs"]
mod program;
#[path = "postgres_revert/refusals.rs"]
mod refusals;
#[path = "postgres_revert/values.rs"]
mod values;

use std::sync::Arc;

use underpin_core::checkpoint::{Checkpoint, Phase};
use underpin_core::machine::SwapState;
use underpin_core::plan::RunSpec;
use underpin_core::way::Way;
use underpin_dialect::{Database, DbResult, Request, Shadow, Swap, SwapOutcome};
use underpin_tests::servers::TestDb;

use postgres_steps::{Steps, Worker, apply_all, request, verify_all};

/// Under the lock for so long at most, in milliseconds: enough on a busy machine too.
const BUDGET_MS: u64 = 20_000;

/// A run that is to be revertible.
fn revertible(change: &str) -> Request {
    Request { keeps_way_back: true, ..request(change) }
}

/// A change that is made and can be taken back.
struct Made {
    steps: Steps,
}

impl Made {
    async fn make(db: &TestDb, change: &str) -> Self {
        let steps = Steps::recorded_for(db, &revertible(change)).await;
        steps.control().await.prepare(&steps.spec).await.unwrap();
        let mut worker = steps.worker().await;
        steps.copied(&mut worker).await;
        let made = Self { steps };
        made.go_on(&made.steps.spec, &mut worker).await;
        made
    }

    /// The run's facts on this way.
    fn spec(&self, way: Way) -> Arc<RunSpec> {
        Arc::new(self.steps.spec.on_way(way))
    }

    /// What is done first on a turn: the dialect looks whether it can be.
    async fn turn(&self, way: Way) -> DbResult<Arc<RunSpec>> {
        let spec = self.spec(way);
        let stands = Some(way.turned());
        let checkpoint = Checkpoint { phase: Phase::CatchUp, way, stands, ..Checkpoint::begin() };
        let seen = self.steps.control().await.observe(&spec, &checkpoint).await?;
        assert_eq!(seen.swap, SwapState::NotSwapped);
        Ok(spec)
    }

    async fn worker(&self, spec: &Arc<RunSpec>) -> Worker {
        self.steps.server.worker(spec, &self.steps.grip).await.unwrap()
    }

    /// Takes a turn to its end.
    async fn go(&self, way: Way) {
        let spec = self.turn(way).await.unwrap();
        let mut worker = self.worker(&spec).await;
        self.go_on(&spec, &mut worker).await;
    }

    /// From catching up to the rest behind the swap.
    async fn go_on(&self, spec: &Arc<RunSpec>, worker: &mut Worker) {
        apply_all(worker).await;
        assert_eq!(verify_all(worker, 1000).await, (0, vec![]));
        let mut control = self.steps.control().await;
        let outcome = control.try_swap(spec, &self.steps.grip, BUDGET_MS).await.unwrap();
        assert!(matches!(outcome, SwapOutcome::Swapped { .. }), "{outcome:?}");
        let stands = Some(spec.way);
        for phase in [Phase::Swap, Phase::Revertible] {
            let way = spec.way;
            let checkpoint = Checkpoint { phase, way, stands, ..Checkpoint::begin() };
            let seen = control.observe(spec, &checkpoint).await.unwrap();
            assert_eq!(seen.swap, SwapState::Swapped, "{phase:?}");
        }
        control.arrive(spec).await.unwrap();
    }

    async fn finish(&self, way: Way) {
        self.steps.control().await.finish(&self.spec(way), false).await.unwrap();
    }
}
