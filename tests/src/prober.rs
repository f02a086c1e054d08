//! An application in the smallest: short statements one after the other, and how long each took.
//!
//! Owns the measure of what the application felt, and beside it that of a statement which touches no
//! table: what a busy machine adds is no fault of the product. It keeps no promises in mind: for what must be in the
//! table at the end see `workload`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use mysql_async::prelude::Queryable;

use crate::servers::sql;
use crate::workload::Errors;

const REST: Duration = Duration::from_millis(2);

/// A session that sends its statements in turn until it is stopped.
#[derive(Debug)]
pub struct Prober {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Probed>>,
    idle: JoinHandle<Result<Probed>>,
}

/// What it felt.
#[derive(Clone, Debug, Default)]
pub struct Probed {
    /// Statements that were answered.
    pub statements: u64,
    /// The longest that one took.
    pub longest: Duration,
    /// The longest that a statement took meanwhile that touches no table.
    pub longest_idle: Duration,
    /// What the server refused.
    pub errors: Errors,
}

impl Prober {
    /// Starts the session; `%n` in a statement stands for a number that grows.
    #[must_use]
    pub fn start(url: &str, statements: Vec<String>) -> Self {
        let (stop, url) = (Arc::new(AtomicBool::new(false)), url.to_owned());
        let spawn = |statements: Vec<String>| {
            let (url, until) = (url.clone(), Arc::clone(&stop));
            thread::spawn(move || {
                sql::block_on(async move { probe(&url, &statements, &until).await })
            })
        };
        let (thread, idle) = (spawn(statements), spawn(vec!["DO 0".to_owned()]));
        Self { stop, thread, idle }
    }

    /// Ends it.
    ///
    /// # Errors
    /// When its connection was lost.
    pub fn stop(self) -> Result<Probed> {
        self.stop.store(true, Ordering::SeqCst);
        let panicked = || anyhow!("the prober panicked");
        let idle = self.idle.join().map_err(|_| panicked())??;
        let probed = self.thread.join().map_err(|_| panicked())??;
        Ok(Probed { longest_idle: idle.longest, ..probed })
    }
}

impl Probed {
    /// The longest wait, without what the machine itself added at its worst.
    #[must_use]
    pub fn held_up(&self) -> Duration {
        self.longest.saturating_sub(self.longest_idle)
    }
}

async fn probe(url: &str, statements: &[String], stop: &AtomicBool) -> Result<Probed> {
    let mut conn = sql::connect(url).await?;
    let mut probed = Probed::default();
    for number in 0_u64.. {
        for statement in statements {
            if stop.load(Ordering::SeqCst) {
                conn.disconnect().await.context("disconnecting")?;
                return Ok(probed);
            }
            let began = Instant::now();
            let answer = conn.query_drop(statement.replace("%n", &number.to_string())).await;
            probed.longest = std::cmp::max(probed.longest, began.elapsed());
            match answer {
                Ok(()) => probed.statements += 1,
                Err(mysql_async::Error::Server(error)) => {
                    probed.errors.count(error.code.to_string(), &error.message);
                }
                Err(error) => return Err(error).context("probing"),
            }
            tokio::time::sleep(REST).await;
        }
    }
    Ok(probed)
}
