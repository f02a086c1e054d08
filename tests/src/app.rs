//! The demo's application, whichever the server.
//!
//! Owns the choice between the two: on MySQL and MariaDB writers that remember what they were
//! promised (`workload`), on PostgreSQL writers that write everything twice (`mirrored`).

use std::time::Duration;

use anyhow::Result;

use crate::servers::sql;
use crate::workload::{self, Differences, Errors, Layout, Model, Sample, Settings, Workload};
use crate::{mirrored, workload::TABLE};

/// Writers at work.
#[derive(Debug)]
pub enum App {
    /// They remember.
    Remembered(Workload),
    /// They write twice.
    Mirrored(mirrored::Writers),
}

/// What the writers saw, and how to find out whether they got what they were promised.
#[derive(Debug)]
pub struct Seen {
    /// One entry a transaction that was acknowledged, in no order.
    pub samples: Vec<Sample>,
    /// Everything that went wrong.
    pub errors: Errors,
    /// What was done, by operation; empty on MySQL.
    pub tally: mirrored::Tally,
    promised: Promised,
}

#[derive(Debug)]
enum Promised {
    Models(Layout, Vec<Model>),
    Mirror,
}

/// Makes and fills the table (and its mirror) in the database of `url`.
///
/// # Errors
/// The server's words.
pub async fn load(url: &str, layout: Layout) -> Result<()> {
    if sql::is_postgres(url) {
        return mirrored::load(url, layout).await;
    }
    workload::load(url, layout).await
}

impl App {
    /// Connects all writers, then lets them go.
    ///
    /// # Errors
    /// When a first connection cannot be had.
    pub async fn start(settings: &Settings) -> Result<Self> {
        if !sql::is_postgres(&settings.url) {
            return Ok(Self::Remembered(Workload::start(settings).await?));
        }
        let Settings { url, layout, rate_per_s, seed } = settings.clone();
        let settings = mirrored::Settings { url, layout, rate_per_s, seed, truncate_one_in: None };
        Ok(Self::Mirrored(mirrored::Writers::start(&settings).await?))
    }

    /// Time since the writers began: the clock of [`Sample`].
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        match self {
            Self::Remembered(writers) => writers.elapsed(),
            Self::Mirrored(writers) => writers.elapsed(),
        }
    }

    /// Lets each writer end its transaction, and collects what they saw.
    ///
    /// # Errors
    /// When a writer panicked.
    pub async fn stop(self, layout: Layout) -> Result<Seen> {
        match self {
            Self::Remembered(writers) => {
                let workload::Outcome { samples, errors, models } = writers.stop().await?;
                let promised = Promised::Models(layout, models);
                Ok(Seen { samples, errors, tally: mirrored::Tally::new(), promised })
            }
            Self::Mirrored(writers) => {
                let mirrored::Outcome { samples, errors, tally } = writers.stop().await?;
                Ok(Seen { samples, errors, tally, promised: Promised::Mirror })
            }
        }
    }
}

impl Seen {
    /// Compares the table with what the writers were promised; nobody may write.
    ///
    /// # Errors
    /// The server's words; a difference is no error.
    pub async fn compare(&self, url: &str) -> Result<Differences> {
        match &self.promised {
            Promised::Models(layout, models) => workload::compare_table(url, *layout, models).await,
            Promised::Mirror => mirrored::compare_tables(url).await,
        }
    }
}

/// Compares the table on both servers; the replica must have caught up and nobody may write.
/// Returns the number of rows.
///
/// # Errors
/// A difference, or the server's words.
pub async fn compare_replica(primary_url: &str, replica_url: &str) -> Result<u64> {
    if sql::is_postgres(primary_url) {
        return mirrored::compare_replica(primary_url, replica_url).await;
    }
    workload::compare_replica(primary_url, replica_url).await
}

/// Whether the table has a column of that name.
///
/// # Errors
/// The server's words.
pub fn has_column(url: &str, name: &str) -> Result<bool> {
    if sql::is_postgres(url) {
        let ask = format!(
            "SELECT count(*) FROM pg_attribute
             WHERE attrelid = '{TABLE}'::regclass AND attname = '{name}' AND NOT attisdropped"
        );
        let count: Option<i64> = crate::servers::pg::first_value(url, &ask)?;
        return Ok(count == Some(1));
    }
    Ok(sql::first_row(url, &format!("SHOW COLUMNS FROM {TABLE} LIKE '{name}'"))?.is_some())
}
