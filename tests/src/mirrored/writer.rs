//! One writer: a connection, its keys, and what it saw.
//!
//! Owns carrying out transactions on both tables and demanding the same answer from each. What
//! became of a transaction whose answer got lost need not be known: it is in both or in neither.

use std::collections::HashMap;
use std::io::Cursor;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Result;
use futures_util::SinkExt;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

use crate::servers::pg;
use crate::workload::{Dice, Errors, Pace, Sample};

use super::draft::{Draft, Ending, Step, key_values};
use super::keys::{Key, Keys};
use super::row::{self, Statement};
use super::{MIRROR, Settings, TABLE, Tally};

const RECONNECT_TRIES: u32 = 300;
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// In this order in every transaction: two that came from both ends would wait for each other.
const TABLES: [&str; 2] = [TABLE, MIRROR];

/// A writer with its connection.
pub(super) struct Writer {
    url: String,
    session: Session,
    keys: Keys,
    dice: Dice,
    truncate_one_in: Option<u64>,
    /// Begins the names of its prepared transactions, unlike any other writer's on the server.
    prefix: String,
    prepared: u64,
    written: Written,
}

/// What one writer did and saw.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) samples: Vec<Sample>,
    pub(super) errors: Errors,
    pub(super) tally: Tally,
}

/// A connection with what it knows of its own.
struct Session {
    client: Client,
    /// Sends text; the others prepare each statement once and keep it: a swap of tables makes the
    /// plans invalid, and that must not show.
    text: bool,
    kept: HashMap<(&'static str, &'static str), tokio_postgres::Statement>,
    two_phases: bool,
    /// Whether it may rest between the two phases: not where a schedule must be kept.
    pauses: bool,
}

/// How a transaction failed.
enum Failure {
    Server(Error),
    /// The two tables did not say the same.
    Unequal(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Server(error)
    }
}

impl Writer {
    pub(super) async fn connect(settings: &Settings, number: u16) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let client = pg::connect(&settings.url).await?;
        let setting = pg::text_rows(&client, "SHOW max_prepared_transactions").await?;
        let session = Session {
            client,
            text: number % 2 == 1,
            kept: HashMap::new(),
            two_phases: setting.concat().first() != Some(&Some("0".to_owned())),
            pauses: settings.rate_per_s.is_none(),
        };
        let seed = settings.seed.wrapping_mul(1_000_003).wrapping_add(u64::from(number));
        Ok(Self {
            url: settings.url.clone(),
            session,
            keys: Keys::new(settings.layout, number),
            dice: Dice::new(seed),
            truncate_one_in: settings.truncate_one_in,
            prefix: format!("lab-{}-{serial}-", std::process::id()),
            prepared: 0,
            written: Written::default(),
        })
    }

    pub(super) async fn write_until(mut self, mut pace: Pace, stop: Arc<AtomicBool>) -> Written {
        while !stop.load(Ordering::Relaxed) {
            let intended = pace.next().await;
            let draft = self.draw();
            let started = pace.elapsed();
            self.prepared += 1;
            let name = format!("{}{}", self.prefix, self.prepared);
            match self.session.carry_out(&draft, &name, &pace).await {
                Ok((ended, rows)) => {
                    self.written.samples.push(Sample { intended, started, ended });
                    if draft.is_kept() {
                        self.keys.acknowledge(&draft.effects, &mut self.dice);
                    }
                    for (name, rows) in rows {
                        let sum = self.written.tally.entry(name).or_default();
                        *sum = (sum.0 + 1, sum.1 + rows);
                    }
                }
                Err(failure) => self.recover(failure).await,
            }
        }
        self.written
    }

    fn draw(&mut self) -> Draft {
        let (keys, dice) = (&mut self.keys, &mut self.dice);
        match self.truncate_one_in {
            Some(often) if dice.below(often) == 0 => Draft::draw_truncate(keys, dice),
            _ => Draft::draw(keys, dice),
        }
    }

    async fn recover(&mut self, failure: Failure) {
        match failure {
            Failure::Server(error) => {
                let kind = kind(&error);
                self.written.errors.count(kind, &words(&error));
            }
            Failure::Unequal(words) => self.written.errors.count("unequal".to_owned(), &words),
        }
        self.keys.doubt();
        self.session.kept.clear();
        let rolled_back = self.session.client.batch_execute("ROLLBACK").await.is_ok();
        for _ in 0..RECONNECT_TRIES {
            if !self.session.client.is_closed() && rolled_back && self.resolve().await.is_ok() {
                return;
            }
            match pg::connect(&self.url).await {
                Ok(client) => {
                    self.session.client = client;
                    if self.resolve().await.is_ok() {
                        return;
                    }
                }
                Err(error) => {
                    let words = format!("{error:#}");
                    self.written.errors.count("no connection".to_owned(), &words);
                }
            }
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
    }

    /// Ends what this writer left between two phases: its rows would be locked for good.
    async fn resolve(&self) -> Result<()> {
        let ask = format!(
            "SELECT gid FROM pg_prepared_xacts
             WHERE database = current_database() AND starts_with(gid, '{}')",
            self.prefix
        );
        for row in pg::text_rows(&self.session.client, &ask).await? {
            if let Some(Some(gid)) = row.first() {
                self.session.client.batch_execute(&format!("COMMIT PREPARED '{gid}'")).await?;
            }
        }
        Ok(())
    }
}

impl Draft {
    /// Whether what it did is there afterwards.
    fn is_kept(&self) -> bool {
        !matches!(self.ending, Ending::RollBack | Ending::TwoPhases { commit: false, .. })
    }
}

/// Rows of the first table that each step met.
type Met = Vec<(&'static str, u64)>;

impl Session {
    /// Runs the draft; returns when it was acknowledged.
    async fn carry_out(
        &mut self,
        draft: &Draft,
        name: &str,
        pace: &Pace,
    ) -> Result<(Duration, Met), Failure> {
        self.client.batch_execute("BEGIN").await?;
        let mut met = Vec::new();
        for (operation, step) in &draft.steps {
            met.push((*operation, self.take(step).await?));
        }
        match draft.ending {
            Ending::RollBack => self.client.batch_execute("ROLLBACK").await?,
            Ending::TwoPhases { commit, pause } if self.two_phases => {
                self.client.batch_execute(&format!("PREPARE TRANSACTION '{name}'")).await?;
                // the row locks are held, and the application does something else
                let ended = pace.elapsed();
                if self.pauses {
                    tokio::time::sleep(pause).await;
                }
                let word = if commit { "COMMIT" } else { "ROLLBACK" };
                self.client.batch_execute(&format!("{word} PREPARED '{name}'")).await?;
                met.push((if commit { "two phases" } else { "two phases, undone" }, 0));
                return Ok((ended, met));
            }
            _ => self.client.batch_execute("COMMIT").await?,
        }
        Ok((pace.elapsed(), met))
    }

    async fn take(&mut self, step: &Step) -> Result<u64, Failure> {
        match step {
            Step::Both(statement) => self.both(statement).await,
            Step::Drawn(statement) => self.insert_drawn(statement).await,
            Step::SwapCodes(one, two) => self.swap_codes(*one, *two).await,
            Step::Copy(lines) => {
                let mut rows = [0; 2];
                for (rows, table) in rows.iter_mut().zip(TABLES) {
                    *rows = self.copy(table, lines).await?;
                }
                same("COPY", rows)
            }
            Step::Save => Ok(self.client.batch_execute("SAVEPOINT part").await.map(|()| 0)?),
            Step::RollBackTo => {
                let undo = "ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part";
                Ok(self.client.batch_execute(undo).await.map(|()| 0)?)
            }
            Step::MayFail(statement) => self.may_fail(statement).await,
            Step::Truncate => {
                for table in TABLES {
                    self.client.batch_execute(&format!("TRUNCATE {table}")).await?;
                }
                Ok(0)
            }
        }
    }

    async fn both(&mut self, statement: &Statement) -> Result<u64, Failure> {
        let mut rows = [0; 2];
        for (rows, table) in rows.iter_mut().zip(TABLES) {
            *rows = self.run(statement, table).await?;
        }
        same(&statement.as_text(TABLE), rows)
    }

    async fn insert_drawn(&mut self, statement: &Statement) -> Result<u64, Failure> {
        let id = self.fetch(statement, TABLE).await?;
        let id = id.first().and_then(Option::clone);
        if id.is_none() {
            return Err(Failure::Unequal("an insert returned no id".to_owned()));
        }
        let mut values = statement.values.clone();
        values.push(id);
        let rows = self.run(&Statement { sql: row::INSERT, values }, MIRROR).await?;
        same("INSERT", [1, rows])
    }

    async fn swap_codes(&mut self, one: Key, two: Key) -> Result<u64, Failure> {
        let mut codes = Vec::new();
        for key in [one, two] {
            let statement = Statement { sql: row::READ_CODE, values: key_values(key) };
            let there = self.fetch(&statement, TABLE).await?;
            let promised = self.fetch(&statement, MIRROR).await?;
            if there != promised {
                let words = format!("{key:?} has the code {there:?}, must have {promised:?}");
                return Err(Failure::Unequal(words));
            }
            codes.push(promised.first().cloned().flatten());
        }
        let mut rows = 0;
        for (key, code) in [(one, None), (two, codes.swap_remove(0)), (one, codes.pop().flatten())]
        {
            let mut values = key_values(key);
            values.push(code);
            rows += self.both(&Statement { sql: row::CODE, values }).await?;
        }
        Ok(rows)
    }

    /// A duplicate must be refused by both tables or by neither. Counts the refusals.
    async fn may_fail(&mut self, statement: &Statement) -> Result<u64, Failure> {
        let mut refused = [0; 2];
        for (refused, table) in refused.iter_mut().zip(TABLES) {
            self.client.batch_execute("SAVEPOINT attempt").await?;
            match self.run(statement, table).await {
                Ok(_) => {}
                Err(error) if kind(&error) == "23505" => *refused = 1,
                Err(error) => return Err(error.into()),
            }
            let undo = "ROLLBACK TO SAVEPOINT attempt; RELEASE SAVEPOINT attempt";
            self.client.batch_execute(undo).await?;
        }
        same("a duplicate", refused)
    }

    /// Runs a statement on one table; returns the rows it reports.
    async fn run(&mut self, statement: &Statement, table: &'static str) -> Result<u64, Error> {
        if self.text {
            let answer = self.client.simple_query(&statement.as_text(table)).await?;
            let done = answer.into_iter().rev().find_map(|message| match message {
                SimpleQueryMessage::CommandComplete(rows) => Some(rows),
                _ => None,
            });
            return Ok(done.unwrap_or(0));
        }
        let prepared = self.prepare(statement.sql, table).await?;
        self.client.execute(&prepared, &parameters(statement)).await
    }

    /// The first column of every row that a statement on one table returns.
    async fn fetch(
        &mut self,
        statement: &Statement,
        table: &'static str,
    ) -> Result<Vec<Option<String>>, Error> {
        if self.text {
            let answer = self.client.simple_query(&statement.as_text(table)).await?;
            let rows = answer.into_iter().filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row.get(0).map(str::to_owned)),
                _ => None,
            });
            return Ok(rows.collect());
        }
        let prepared = self.prepare(statement.sql, table).await?;
        let rows = self.client.query(&prepared, &parameters(statement)).await?;
        let text = |row: &tokio_postgres::Row| match row.try_get::<_, Option<String>>(0) {
            Ok(text) => Ok(text),
            Err(_) => row.try_get::<_, i64>(0).map(|id| Some(id.to_string())),
        };
        rows.iter().map(text).collect()
    }

    async fn prepare(
        &mut self,
        sql: &'static str,
        table: &'static str,
    ) -> Result<tokio_postgres::Statement, Error> {
        if let Some(kept) = self.kept.get(&(sql, table)) {
            return Ok(kept.clone());
        }
        let prepared = self.client.prepare(&sql.replace("{t}", table)).await?;
        self.kept.insert((sql, table), prepared.clone());
        Ok(prepared)
    }

    async fn copy(&self, table: &str, lines: &str) -> Result<u64, Error> {
        let statement = format!("COPY {table} ({}, shop, id) FROM STDIN", row::COLUMNS);
        let sink = self.client.copy_in::<_, Cursor<Vec<u8>>>(&statement).await?;
        let mut sink = pin!(sink);
        sink.send(Cursor::new(lines.as_bytes().to_vec())).await?;
        sink.finish().await
    }
}

fn parameters(statement: &Statement) -> Vec<&(dyn ToSql + Sync)> {
    statement.values.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

fn same(what: &str, [there, mirrored]: [u64; 2]) -> Result<u64, Failure> {
    if there == mirrored {
        return Ok(there);
    }
    let words = format!("{there} rows in {TABLE}, {mirrored} in {MIRROR}, by {what}");
    Err(Failure::Unequal(words))
}

/// The SQLSTATE, or that there was no answer.
fn kind(error: &Error) -> String {
    error.code().map_or_else(|| "connection lost".to_owned(), |code| code.code().to_owned())
}

fn words(error: &Error) -> String {
    match error.as_db_error() {
        Some(server) => match server.detail() {
            Some(detail) => format!("{} {detail}", server.message()),
            None => server.message().to_owned(),
        },
        None => error.to_string(),
    }
}
