//! The benchmark's writers: a fixed schedule of small transactions.
//!
//! Each is an indexed update, another update, a delete and an insert of the same id, on random ids
//! of the writer's own residue class.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};
use tokio::task::JoinHandle;

use super::table::TABLE;
use crate::servers::sql;
use crate::workload::{Dice, Errors, Pace, Sample};

const WRITERS: u16 = 4;

/// Writers at work.
pub(super) struct Writers {
    started: Instant,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<(Vec<Sample>, Errors)>>,
}

impl Writers {
    pub(super) async fn start(url: &str, rows: u64, rate_per_s: u32) -> Result<Self> {
        let mut conns = Vec::new();
        for _ in 0..WRITERS {
            conns.push(sql::connect(url).await?);
        }
        let (started, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let start = |(number, conn): (u16, Conn)| {
            let pace = Pace::new(started, Some(rate_per_s), number, WRITERS);
            tokio::spawn(write(conn, number, rows, pace, Arc::clone(&stop)))
        };
        let tasks = (0..WRITERS).zip(conns).map(start).collect();
        Ok(Self { started, stop, tasks })
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) async fn stop(self) -> Result<(Vec<Sample>, Errors)> {
        self.stop.store(true, Ordering::Relaxed);
        let (mut samples, mut errors) = (Vec::new(), Errors::default());
        for task in self.tasks {
            let (more, seen) = task.await.context("a writer panicked")?;
            samples.extend(more);
            errors.add(&seen);
        }
        Ok((samples, errors))
    }
}

async fn write(
    mut conn: Conn,
    number: u16,
    rows: u64,
    mut pace: Pace,
    stop: Arc<AtomicBool>,
) -> (Vec<Sample>, Errors) {
    let (mut samples, mut errors) = (Vec::new(), Errors::default());
    let mut dice = Dice::new(u64::from(number) + 1);
    while !stop.load(Ordering::Relaxed) {
        let intended = pace.next().await;
        let started = pace.elapsed();
        match transaction(&mut conn, &mut dice, number, rows).await {
            Ok(()) => samples.push(Sample { intended, started, ended: pace.elapsed() }),
            Err(error) => {
                let kind = match &error {
                    Error::Server(server) => server.code.to_string(),
                    _ => "connection lost".to_owned(),
                };
                errors.count(kind, &error.to_string());
                if conn.query_drop("ROLLBACK").await.is_err() {
                    // nothing here cuts connections; if it happens the error count tells
                    break;
                }
            }
        }
    }
    let _told = conn.disconnect().await;
    (samples, errors)
}

async fn transaction(
    conn: &mut Conn,
    dice: &mut Dice,
    number: u16,
    rows: u64,
) -> Result<(), Error> {
    let (writers, number) = (u64::from(WRITERS), u64::from(number));
    let mut any_id = || dice.below(rows / writers) * writers + number + 1;
    let (indexed, other, renewed) = (any_id(), any_id(), any_id());
    let k = dice.below(2_000_003);
    let c = format!("{:0120}", dice.next());
    conn.query_drop("START TRANSACTION").await?;
    let update = format!("UPDATE {TABLE} SET k = k + 1 WHERE id = ?");
    conn.exec_drop(update, (indexed,)).await?;
    conn.exec_drop(format!("UPDATE {TABLE} SET c = ? WHERE id = ?"), (&c, other)).await?;
    conn.exec_drop(format!("DELETE FROM {TABLE} WHERE id = ?"), (renewed,)).await?;
    let insert =
        format!("INSERT INTO {TABLE} (id, k, c, pad, created) VALUES (?, ?, ?, 'again', NOW())");
    conn.exec_drop(insert, (renewed, k, &c)).await?;
    conn.query_drop("COMMIT").await
}
