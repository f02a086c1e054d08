//! Talking to PostgreSQL: connections for tests, and SQL run to its end from plain code.
//!
//! Owns how the harness connects to it (no TLS, one way for all). Holds no test's SQL.

use anyhow::{Context, Result};
use tokio_postgres::types::FromSql;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use super::sql::block_on;

/// The database that a URL without one means.
const DATABASE: &str = "postgres";

/// Opens a connection to `url`; it ends when the client is dropped.
///
/// # Errors
/// When the URL cannot be read or the server does not let us in.
pub async fn connect(url: &str) -> Result<Client> {
    let mut config: Config = url.parse().with_context(|| format!("reading the URL {url}"))?;
    if config.get_dbname().is_none_or(str::is_empty) {
        config.dbname(DATABASE);
    }
    let connected = config.connect(NoTls).await;
    let (client, connection) = connected.with_context(|| format!("connecting to {url}"))?;
    tokio::spawn(async move {
        // the client's own calls report a lost connection
        let _ended = connection.await;
    });
    Ok(client)
}

/// Runs statements one after the other on one new connection, each on its own.
///
/// # Errors
/// The server's words, with the statement.
pub fn execute(url: &str, statements: Vec<String>) -> Result<()> {
    let url = url.to_owned();
    block_on(async move {
        let client = connect(&url).await?;
        // as on MySQL: a lock that a failed test left shall hold up nobody for ever
        client.batch_execute("SET lock_timeout = '60s'").await.context("setting up the session")?;
        for statement in statements {
            let ran = client.batch_execute(&statement).await;
            ran.with_context(|| format!("running {statement}"))?;
        }
        Ok(())
    })
}

/// The first column of the first row that `statement` returns, on a new connection; `None` when
/// there is no row, or it is null.
///
/// # Errors
/// The server's words, with the statement; another type than asked for.
pub fn first_value<T>(url: &str, statement: &str) -> Result<Option<T>>
where
    T: for<'a> FromSql<'a> + Send + 'static,
{
    let (url, statement) = (url.to_owned(), statement.to_owned());
    block_on(async move {
        let client = connect(&url).await?;
        let rows = client.query(&statement, &[]).await;
        let rows = rows.with_context(|| format!("running {statement}"))?;
        let Some(row) = rows.first() else { return Ok(None) };
        row.try_get(0).with_context(|| format!("reading the answer to {statement}"))
    })
}

/// Every row that `statement` returns, each cell as the server writes it; `None` is null.
///
/// # Errors
/// The server's words, with the statement.
pub async fn text_rows(client: &Client, statement: &str) -> Result<Vec<Vec<Option<String>>>> {
    let answer = client.simple_query(statement).await;
    let answer = answer.with_context(|| format!("running {statement}"))?;
    let rows = answer.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|index| row.get(index).map(str::to_owned)).collect())
        }
        _ => None,
    });
    Ok(rows.collect())
}
