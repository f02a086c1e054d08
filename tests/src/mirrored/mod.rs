//! An application on PostgreSQL that writes everything twice: into the demo table, and into a
//! mirror of it in the same transaction.
//!
//! Owns the two tables, their load, the writers and the comparison. The mirror is the promise: a
//! transaction that was acknowledged is in both tables, one that was not is in neither, also where
//! the answer got lost. Built so that without a schema change running the writers never see an
//! error: each keeps to keys and unique values of its own, and every transaction meets the two
//! tables in the same order. Knows nothing of the product.

mod check;
mod draft;
mod keys;
mod load;
mod row;
#[cfg(test)]
mod tests;
mod writer;

pub use check::{compare_replica, compare_tables};
pub use load::load;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinHandle;

use crate::workload::{Errors, Layout, Pace, Sample};

/// The table that is changed; the same name as on MySQL.
pub const TABLE: &str = crate::workload::TABLE;
/// Its mirror, which nobody changes.
pub const MIRROR: &str = "orders_mirror";

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
    /// Of how many transactions about one empties both tables; `None` never.
    pub truncate_one_in: Option<u64>,
}

/// How often each kind of operation was carried out in acknowledged transactions, and how many rows
/// it changed.
pub type Tally = BTreeMap<&'static str, (u64, u64)>;

/// Writers at work.
#[derive(Debug)]
pub struct Writers {
    started: Instant,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<writer::Written>>,
}

/// What the writers saw.
#[derive(Debug, Default)]
pub struct Outcome {
    /// One entry a transaction that was acknowledged, in no order.
    pub samples: Vec<Sample>,
    /// Everything that went wrong, by SQLSTATE.
    pub errors: Errors,
    /// What was done.
    pub tally: Tally,
}

impl Writers {
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
        let start = |(number, writer): (u16, writer::Writer)| {
            let pace = Pace::new(started, settings.rate_per_s, number, settings.layout.writers);
            tokio::spawn(writer.write_until(pace, Arc::clone(&stop)))
        };
        let tasks = (0..).zip(ready).map(start).collect();
        Ok(Self { started, stop, tasks })
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
        let mut outcome = Outcome::default();
        for task in self.tasks {
            let written = task.await.context("a writer panicked")?;
            outcome.samples.extend(written.samples);
            outcome.errors.add(&written.errors);
            for (name, (times, rows)) in written.tally {
                let sum = outcome.tally.entry(name).or_default();
                *sum = (sum.0 + times, sum.1 + rows);
            }
        }
        Ok(outcome)
    }
}
