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

use super::postgres;
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
            conns.push(match sql::is_postgres(url) {
                true => Session::Postgres(Box::new(postgres::Session::connect(url).await?)),
                false => Session::MySql(Box::new(sql::connect(url).await?)),
            });
        }
        let (started, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let start = |(number, conn): (u16, Session)| {
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

/// A writer's connection.
enum Session {
    MySql(Box<Conn>),
    Postgres(Box<postgres::Session>),
}

/// A transaction that failed: the server's code and words.
struct Refusal {
    kind: Option<String>,
    words: String,
}

async fn write(
    mut session: Session,
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
        let (writers, number) = (u64::from(WRITERS), u64::from(number));
        let ids = [(); 3].map(|()| dice.below(rows / writers) * writers + number + 1);
        match session.transaction(ids, &mut dice).await {
            Ok(()) => samples.push(Sample { intended, started, ended: pace.elapsed() }),
            Err(refusal) => {
                let kind = refusal.kind.unwrap_or_else(|| "connection lost".to_owned());
                errors.count(kind, &refusal.words);
                if !session.roll_back().await {
                    // nothing here cuts connections; if it happens the error count tells
                    break;
                }
            }
        }
    }
    if let Session::MySql(conn) = session {
        let _told = conn.disconnect().await;
    }
    (samples, errors)
}

impl Session {
    async fn transaction(&mut self, ids: [u64; 3], dice: &mut Dice) -> Result<(), Refusal> {
        match self {
            Self::MySql(conn) => transaction(conn, ids, dice).await.map_err(|error| Refusal {
                kind: match &error {
                    Error::Server(server) => Some(server.code.to_string()),
                    _ => None,
                },
                words: error.to_string(),
            }),
            Self::Postgres(session) => {
                session.transaction(ids, dice).await.map_err(|error| Refusal {
                    kind: error.code().map(|code| code.code().to_owned()),
                    words: error
                        .as_db_error()
                        .map_or_else(|| error.to_string(), ToString::to_string),
                })
            }
        }
    }

    async fn roll_back(&mut self) -> bool {
        match self {
            Self::MySql(conn) => conn.query_drop("ROLLBACK").await.is_ok(),
            Self::Postgres(session) => session.roll_back().await,
        }
    }
}

async fn transaction(
    conn: &mut Conn,
    [indexed, other, renewed]: [u64; 3],
    dice: &mut Dice,
) -> Result<(), Error> {
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
