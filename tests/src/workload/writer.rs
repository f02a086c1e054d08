//! One writer: a connection, its rows, and what it saw.
//!
//! Owns carrying out transactions and telling apart the three ends one can have: acknowledged,
//! refused, and unknown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Opts, OptsBuilder, Params};

use super::model::{Model, Row};
use super::transaction::{Draft, Statement};
use super::{Dice, Errors, Pace, Sample, Settings};

const RECONNECT_TRIES: u32 = 200;
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// A writer with its connection.
pub(super) struct Writer {
    number: u16,
    opts: Opts,
    conn: Conn,
    dice: Dice,
    written: Written,
}

/// What one writer did and saw.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) model: Model,
    pub(super) samples: Vec<Sample>,
    pub(super) errors: Errors,
}

/// How a transaction failed.
enum Failure {
    /// The server refused or rolled back: nothing happened.
    Refused(Error),
    /// The connection broke where the server may already have committed.
    Unknown(Error),
    /// The server did something else than asked: so many rows affected, not one.
    WrongRows(String),
}

impl Writer {
    pub(super) async fn connect(settings: &Settings, number: u16) -> Result<Self> {
        let opts = Opts::from_url(&settings.url).context("reading the URL")?;
        // found rows: an UPDATE that changes nothing still says that it met its row
        let opts: Opts = OptsBuilder::from_opts(opts)
            .prefer_socket(false)
            .client_found_rows(true)
            .init(vec!["SET time_zone = '+00:00'"])
            .into();
        let conn = Conn::new(opts.clone()).await?;
        let written = Written {
            model: Model::new(settings.layout, number),
            samples: Vec::new(),
            errors: Errors::default(),
        };
        let seed = settings.seed.wrapping_mul(1_000_003).wrapping_add(u64::from(number));
        Ok(Self { number, opts, conn, dice: Dice::new(seed), written })
    }

    pub(super) const fn number(&self) -> u16 {
        self.number
    }

    pub(super) async fn write_until(mut self, mut pace: Pace, stop: Arc<AtomicBool>) -> Written {
        while !stop.load(Ordering::Relaxed) {
            let intended = pace.next().await;
            let mut draft = Draft::draw(&mut self.written.model, &mut self.dice);
            let started = pace.elapsed();
            match self.carry_out(&mut draft).await {
                Ok(()) => {
                    let ended = pace.elapsed();
                    self.written.samples.push(Sample { intended, started, ended });
                    if !draft.roll_back {
                        for (id, row) in draft.effects {
                            self.written.model.acknowledge(id, row);
                        }
                    }
                }
                Err(failure) => self.recover(failure, draft).await,
            }
        }
        // an orderly goodbye: the server would log an aborted connection otherwise
        let _told = self.conn.disconnect().await;
        self.written
    }

    /// Runs the draft; ids drawn by the server join its effects.
    async fn carry_out(&mut self, draft: &mut Draft) -> Result<(), Failure> {
        let alone = draft.statements.len() == 1 && !draft.roll_back && self.dice.below(2) == 0;
        let text = self.number % 2 == 1;
        if !alone {
            self.conn.query_drop("START TRANSACTION").await.map_err(Failure::Refused)?;
        }
        let mut drawn: Vec<(i64, Option<Row>)> = Vec::new();
        for statement in &draft.statements {
            let end = run(&mut self.conn, statement, text).await;
            end.map_err(|error| if alone { unsure(error) } else { Failure::Refused(error) })?;
            let affected = self.conn.affected_rows();
            if affected != statement.affected {
                return Err(Failure::WrongRows(format!(
                    "{affected} rows affected, not {}, by {} {:?}",
                    statement.affected, statement.sql, statement.params
                )));
            }
            if let Some(row) = &statement.drawn {
                let id = self.conn.last_insert_id().and_then(|id| i64::try_from(id).ok());
                drawn.push((id.unwrap_or(0), Some(row.clone())));
            }
        }
        draft.effects.extend(drawn);
        if draft.roll_back {
            self.conn.query_drop("ROLLBACK").await.map_err(Failure::Refused)?;
        } else if !alone {
            self.conn.query_drop("COMMIT").await.map_err(unsure)?;
        }
        Ok(())
    }

    async fn recover(&mut self, failure: Failure, draft: Draft) {
        let lost = match failure {
            Failure::Refused(error) => {
                self.written.errors.count(kind(&error), &error.to_string());
                !matches!(error, Error::Server(_))
            }
            Failure::Unknown(error) => {
                self.written.errors.count(format!("unknown, {}", kind(&error)), &error.to_string());
                for (id, _) in draft.effects {
                    self.written.model.doubt(id);
                }
                // Where the answer was lost that would have told the id.
                for row in draft.statements.into_iter().filter_map(|statement| statement.drawn) {
                    self.written.model.doubt_code(row.code);
                }
                true
            }
            Failure::WrongRows(words) => {
                self.written.errors.count("wrong rows".to_owned(), &words);
                false
            }
        };
        let rolled_back = !lost && self.conn.query_drop("ROLLBACK").await.is_ok();
        if !rolled_back {
            self.reconnect().await;
        }
    }

    async fn reconnect(&mut self) {
        for _ in 0..RECONNECT_TRIES {
            match Conn::new(self.opts.clone()).await {
                Ok(conn) => {
                    self.conn = conn;
                    return;
                }
                Err(error) => {
                    self.written.errors.count("no connection".to_owned(), &error.to_string());
                    tokio::time::sleep(RECONNECT_PAUSE).await;
                }
            }
        }
    }
}

/// Half of the writers send text, half prepared statements: a swap of tables invalidates the
/// latter, and that must not show.
async fn run(conn: &mut Conn, statement: &Statement, text: bool) -> Result<(), Error> {
    if !text {
        return conn.exec_drop(statement.sql, Params::Positional(statement.params.clone())).await;
    }
    let mut sql = String::new();
    let mut params = statement.params.iter();
    for (number, part) in statement.sql.split('?').enumerate() {
        if number > 0
            && let Some(value) = params.next()
        {
            sql.push_str(&value.as_sql(false));
        }
        sql.push_str(part);
    }
    conn.query_drop(sql).await
}

/// A server's answer is an answer; anything else leaves open whether the commit took place.
fn unsure(error: Error) -> Failure {
    if matches!(error, Error::Server(_)) {
        Failure::Refused(error)
    } else {
        Failure::Unknown(error)
    }
}

fn kind(error: &Error) -> String {
    match error {
        Error::Server(server) => server.code.to_string(),
        _ => "connection lost".to_owned(),
    }
}
