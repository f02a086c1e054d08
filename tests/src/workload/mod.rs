//! An application that writes to one table, and knows exactly what it was promised.
//!
//! Owns the demo table, its load, its writers and the check of the final table against what was
//! acknowledged. Built so that without a schema change running the writers never see an error:
//! each keeps to key ranges of its own, so that no two ever wait for each other in a circle. Knows
//! nothing of the product.

mod check;
mod dice;
mod load;
mod model;
mod pace;
mod stats;
#[cfg(test)]
mod tests;
mod transaction;
mod writer;

pub use check::{Differences, compare_replica, compare_table};
pub use dice::Dice;
pub use load::load;
pub use model::{Layout, Model, Row};
pub use pace::Pace;
pub use stats::{Errors, Sample, Summary};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinHandle;

/// The demo table's name.
pub const TABLE: &str = "orders";

/// What the writers are to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The database's URL.
    pub url: String,
    /// The table as it was loaded; says how many writers share it.
    pub layout: Layout,
    /// Transactions a second, all writers together, on a fixed schedule (open loop); `None`: each
    /// writer goes on as soon as its last transaction ended.
    pub rate_per_s: Option<u32>,
    /// Same seed, same choices of each writer.
    pub seed: u64,
}

/// Writers at work.
#[derive(Debug)]
pub struct Workload {
    started: Instant,
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<writer::Written>>,
}

/// What the writers saw and were promised.
#[derive(Debug)]
pub struct Outcome {
    /// One entry a transaction that was acknowledged, in no order.
    pub samples: Vec<Sample>,
    /// Everything that went wrong.
    pub errors: Errors,
    /// The rows as each writer knows them.
    pub models: Vec<Model>,
}

impl Workload {
    /// Connects all writers, then lets them go.
    ///
    /// # Errors
    /// When a first connection cannot be had.
    pub async fn start(settings: &Settings) -> Result<Self> {
        let mut ready = Vec::new();
        for number in 0..settings.layout.writers {
            let writer = writer::Writer::connect(settings, number).await;
            ready.push(writer.with_context(|| format!("connecting writer {number}"))?);
        }
        let (started, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let start = |writer: writer::Writer| {
            let number = writer.number();
            let writers = settings.layout.writers;
            let pace = Pace::new(started, settings.rate_per_s, number, writers);
            tokio::spawn(writer.write_until(pace, Arc::clone(&stop)))
        };
        let writers = ready.into_iter().map(start).collect();
        Ok(Self { started, stop, writers })
    }

    /// Time since the writers began: the clock of [`Sample`].
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Lets each writer end its transaction, and collects what they saw.
    ///
    /// # Errors
    /// When a writer panicked.
    pub async fn stop(self) -> Result<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        let mut outcome =
            Outcome { samples: Vec::new(), errors: Errors::default(), models: Vec::new() };
        for writer in self.writers {
            let written = writer.await.context("a writer panicked")?;
            outcome.samples.extend(written.samples);
            outcome.errors.add(&written.errors);
            outcome.models.push(written.model);
        }
        Ok(outcome)
    }
}
