//! Talking to MySQL and MariaDB: connections for tests, and SQL run to its end from plain code.
//!
//! Owns how the harness connects (TCP only, one way for all servers), and what is the same for
//! every server: [`block_on`], [`wait_until`], [`execute`]. For more of PostgreSQL see `pg`. Holds
//! no test's SQL.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, Row};

/// How long the harness's own statements wait for a table.
const LOCK_WAIT: &str = "SET lock_wait_timeout = 60";

/// Opens a connection to `url`, over TCP even where a socket would do.
///
/// # Errors
/// When the URL cannot be read or the server does not let us in.
pub async fn connect(url: &str) -> Result<Conn> {
    let opts = Opts::from_url(url).with_context(|| format!("reading the URL {url}"))?;
    let opts = OptsBuilder::from_opts(opts).prefer_socket(false);
    Conn::new(opts).await.with_context(|| format!("connecting to {url}"))
}

/// Runs `work` to its end on a thread and runtime of its own, so that it may be called from plain
/// code and from inside any runtime.
///
/// # Errors
/// Those of `work`.
pub fn block_on<T, F>(work: F) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("building a runtime")?;
        runtime.block_on(work)
    });
    thread.join().map_err(|_| anyhow!("the thread that ran SQL panicked"))?
}

/// Whether the URL is one of a PostgreSQL server.
#[must_use]
pub fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

/// Runs statements one after the other on one new connection, to whichever server.
///
/// # Errors
/// The server's words, with the statement.
pub fn execute(url: &str, statements: Vec<String>) -> Result<()> {
    if is_postgres(url) {
        return super::pg::execute(url, statements);
    }
    let url = url.to_owned();
    block_on(async move {
        let mut conn = connect(&url).await?;
        // The server's own default is a year; a lock that a failed test left shall hold up nobody so long.
        conn.query_drop(LOCK_WAIT).await.context("setting up the session")?;
        for statement in statements {
            conn.query_drop(&statement).await.with_context(|| format!("running {statement}"))?;
        }
        conn.disconnect().await.context("disconnecting")
    })
}

/// The first row that `statement` returns, on a new connection.
///
/// # Errors
/// The server's words, with the statement.
pub fn first_row(url: &str, statement: &str) -> Result<Option<Row>> {
    let (url, statement) = (url.to_owned(), statement.to_owned());
    block_on(async move {
        let mut conn = connect(&url).await?;
        let row = conn.query_first(&statement).await;
        let row = row.with_context(|| format!("running {statement}"))?;
        conn.disconnect().await.context("disconnecting")?;
        Ok(row)
    })
}

/// Asks again and again until `ready` says yes, at most for `limit`.
///
/// # Errors
/// `what` was not reached in time; or what `ready` reports.
pub fn wait_until(
    what: &str,
    limit: Duration,
    mut ready: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let started = Instant::now();
    while started.elapsed() < limit {
        if ready()? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("{what}: not within {} s", limit.as_secs())
}
