//! Ground for the tests of business hours: a table, a change that is copied, sessions to look with, and
//! figures out of the program's events.
//!
//! Owns what both test programs share. One test at a time: each measures times.
#![allow(dead_code, unreachable_pub)] // each program takes what it needs

pub mod dead;
pub mod lag;
pub mod pressed;
pub mod steering;
pub mod watch;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use mysql_async::prelude::Queryable;
use serde_json::Value;
use underpin_tests::servers::{Flavor, pg, sql};

/// How long anything may take that a busy machine does in seconds.
pub const LIMIT: Duration = Duration::from_secs(180);

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Waits until no other test of this program runs; hold it to the end of the test.
pub fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The change: a column grows, so every row is copied.
pub const fn change(flavor: Flavor) -> &'static str {
    if flavor.is_postgres() {
        "ALTER TABLE t ALTER n TYPE bigint"
    } else {
        "ALTER TABLE t MODIFY n BIGINT NOT NULL"
    }
}

/// Makes `t` with so many rows.
pub fn make_table(flavor: Flavor, url: &str, rows: u32) {
    fill(flavor, url, "t", rows, 60);
}

/// Makes a table of that name with so many rows, each so long.
pub fn fill(flavor: Flavor, url: &str, table: &str, rows: u32, row_bytes: u32) {
    let statements = if flavor.is_postgres() {
        vec![
            format!("CREATE TABLE {table} (id int PRIMARY KEY, n int NOT NULL, v text NOT NULL)"),
            format!(
                "INSERT INTO {table} SELECT i, i, repeat('x', {row_bytes}) FROM generate_series(1, {rows}) i"
            ),
            format!("ANALYZE {table}"),
        ]
    } else {
        let depth = if flavor.is_mariadb() {
            "max_recursive_iterations"
        } else {
            "cte_max_recursion_depth"
        };
        vec![
            format!(
                "CREATE TABLE {table} (id INT NOT NULL PRIMARY KEY, n INT NOT NULL, v VARCHAR(1000) NOT NULL)"
            ),
            format!("SET SESSION {depth} = 10000000"),
            format!(
                "INSERT INTO {table} WITH RECURSIVE ids (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM ids \
                 WHERE i < {rows}) SELECT i, i, REPEAT('x', {row_bytes}) FROM ids"
            ),
            format!("ANALYZE TABLE {table}"),
        ]
    };
    sql::execute(url, statements).unwrap();
}

/// A session of the test's own, whichever the server.
pub enum Session {
    MySql(Box<mysql_async::Conn>),
    Postgres(tokio_postgres::Client),
}

impl Session {
    pub async fn open(url: &str) -> Result<Self> {
        Ok(match sql::is_postgres(url) {
            true => Self::Postgres(pg::connect(url).await?),
            false => Self::MySql(Box::new(sql::connect(url).await?)),
        })
    }

    pub async fn run(&mut self, statement: &str) -> Result<()> {
        match self {
            Self::MySql(conn) => conn.query_drop(statement).await.context("MySQL")?,
            Self::Postgres(client) => {
                client.batch_execute(statement).await.context("PostgreSQL")?
            }
        }
        Ok(())
    }

    /// Every row, its cells joined by a blank.
    pub async fn rows(&mut self, query: &str) -> Result<Vec<String>> {
        let rows: Vec<Vec<Option<String>>> = match self {
            Self::MySql(conn) => {
                let rows: Vec<mysql_async::Row> = conn.query(query).await.context("MySQL")?;
                let cells = |row: mysql_async::Row| {
                    (0..row.len())
                        .map(|index| row.get::<Option<String>, _>(index).flatten())
                        .collect()
                };
                rows.into_iter().map(cells).collect()
            }
            Self::Postgres(client) => pg::text_rows(client, query).await?,
        };
        let joined = rows.into_iter().map(|row| {
            row.into_iter()
                .map(|cell| cell.unwrap_or_else(|| "-".into()))
                .collect::<Vec<_>>()
                .join(" ")
        });
        Ok(joined.collect())
    }

    /// The first cell as a number.
    pub async fn number(&mut self, query: &str) -> Result<Option<i64>> {
        let rows = self.rows(query).await?;
        Ok(rows.first().and_then(|row| row.parse().ok()))
    }
}

/// Whether an event has that name.
pub fn is(event: &Value, name: &str) -> bool {
    event["event"] == name
}

/// Whether an event is a pause of that kind.
pub fn is_pause(event: &Value, kind: &str) -> bool {
    is(event, "paused") && event["kind"] == kind
}

/// Milliseconds for a table of figures.
pub fn ms(time: Duration) -> u128 {
    time.as_millis()
}
