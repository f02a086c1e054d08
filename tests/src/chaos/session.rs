//! A session with either server from plain code: text in, text out, and a bound on every answer.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use tokio::runtime::Runtime;
use tokio_postgres::SimpleQueryMessage;

use crate::servers::{pg, sql};

/// How long any statement of a round may take.
const ANSWER_MAX: Duration = Duration::from_secs(90);

/// One row, each cell as the server writes it; `None` is NULL.
pub(super) type Cells = Vec<Option<String>>;

/// Why a statement failed.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    /// The server's error number or SQLSTATE; `lost` without an answer, `late` when it took too long.
    pub(super) code: String,
    /// The server's words.
    pub(super) words: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}: {}", self.code, self.words)
    }
}

impl std::error::Error for Refused {}

impl Refused {
    pub(super) fn lost(words: impl std::fmt::Display) -> Self {
        Self { code: "lost".to_owned(), words: words.to_string() }
    }

    /// Whether nobody knows what became of the statement.
    pub(super) fn is_lost(&self) -> bool {
        ["lost", "late"].contains(&self.code.as_str())
    }
}

enum Conn {
    MySql(Box<mysql_async::Conn>),
    Postgres(tokio_postgres::Client),
}

/// A connection with a runtime of its own.
pub(super) struct Session {
    conn: Conn,
    runtime: Runtime,
}

impl Session {
    pub(super) fn open(url: &str) -> Result<Self, Refused> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(Refused::lost)?;
        let opening = async {
            let limit = Duration::from_secs(10);
            let opened = async {
                Ok(match sql::is_postgres(url) {
                    true => Conn::Postgres(pg::connect(url).await?),
                    false => Conn::MySql(Box::new(sql::connect(url).await?)),
                })
            };
            let opened: Result<anyhow::Result<Conn>, _> = tokio::time::timeout(limit, opened).await;
            opened.map_err(Refused::lost)?.map_err(|error| Refused::lost(format!("{error:#}")))
        };
        let conn = runtime.block_on(opening)?;
        Ok(Self { conn, runtime })
    }

    /// Runs one statement; returns the rows it reports.
    pub(super) fn run(&mut self, statement: &str) -> Result<u64, Refused> {
        self.ask(statement).map(|(count, _)| count)
    }

    /// Every row that it returns.
    pub(super) fn rows(&mut self, statement: &str) -> Result<Vec<Cells>, Refused> {
        self.ask(statement).map(|(_, rows)| rows)
    }

    /// The first cell of the first row; `None` is no row, or NULL.
    pub(super) fn first(&mut self, statement: &str) -> Result<Option<String>, Refused> {
        Ok(self
            .rows(statement)?
            .into_iter()
            .next()
            .and_then(|row| row.into_iter().next().flatten()))
    }

    /// The id that the last INSERT drew (MySQL).
    pub(super) fn drawn(&self) -> Option<u64> {
        match &self.conn {
            Conn::MySql(conn) => conn.last_insert_id(),
            Conn::Postgres(_) => None,
        }
    }

    fn ask(&mut self, statement: &str) -> Result<(u64, Vec<Cells>), Refused> {
        let conn = &mut self.conn;
        let asking = async { tokio::time::timeout(ANSWER_MAX, conn.ask(statement)).await };
        match self.runtime.block_on(asking) {
            Ok(answer) => answer,
            Err(_) => Err(Refused { code: "late".to_owned(), words: statement.to_owned() }),
        }
    }
}

impl Conn {
    async fn ask(&mut self, statement: &str) -> Result<(u64, Vec<Cells>), Refused> {
        match self {
            Self::MySql(conn) => {
                let rows: Vec<mysql_async::Row> = conn.query(statement).await.map_err(of_mysql)?;
                let text = |value: mysql_async::Value| match value {
                    mysql_async::Value::NULL => None,
                    mysql_async::Value::Bytes(bytes) => {
                        Some(String::from_utf8_lossy(&bytes).into_owned())
                    }
                    other => Some(other.as_sql(true)),
                };
                let rows = rows.into_iter().map(|row| row.unwrap().into_iter().map(text).collect());
                let rows = rows.collect();
                Ok((conn.affected_rows(), rows))
            }
            Self::Postgres(client) => {
                let answer = client.simple_query(statement).await.map_err(|e| of_postgres(&e))?;
                let (mut count, mut rows) = (0, Vec::new());
                for message in answer {
                    match message {
                        SimpleQueryMessage::Row(row) => {
                            let cells = 0..row.len();
                            rows.push(cells.map(|at| row.get(at).map(str::to_owned)).collect());
                        }
                        SimpleQueryMessage::CommandComplete(done) => count = done,
                        _ => {}
                    }
                }
                Ok((count, rows))
            }
        }
    }
}

fn of_mysql(error: mysql_async::Error) -> Refused {
    match error {
        mysql_async::Error::Server(server) => {
            Refused { code: server.code.to_string(), words: server.message }
        }
        other => Refused::lost(other),
    }
}

fn of_postgres(error: &tokio_postgres::Error) -> Refused {
    match error.as_db_error() {
        Some(server) => {
            let detail = server.detail().unwrap_or_default();
            let words = format!("{} {detail}", server.message());
            Refused { code: server.code().code().to_owned(), words }
        }
        None => Refused::lost(error),
    }
}
