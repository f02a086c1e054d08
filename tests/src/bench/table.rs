//! The benchmark's table: loaded afresh, the same each time, the server quiet afterwards.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::postgres;
use crate::servers::{Server, sql};

/// The table's name.
pub(super) const TABLE: &str = "items";
/// The clause of every tool's change, PostgreSQL excepted.
pub(super) const CLAUSE: &str = "ADD COLUMN extra INT NOT NULL DEFAULT 7";

pub(super) const DATABASE: &str = "bench";
const BATCH_ROWS: u64 = 100_000;
const CONNECTIONS: u64 = 2;
const QUIET_LIMIT: Duration = Duration::from_secs(60);

/// The database's URL.
pub(super) fn url(server: &Server) -> String {
    format!("{}{DATABASE}", server.url())
}

/// Makes the table anew and fills it, then waits until the server has written it to disk.
pub(super) async fn load(server: &Server, rows: u64) -> Result<()> {
    if server.flavor().is_postgres() {
        return postgres::load(server, rows).await;
    }
    let create = format!(
        "CREATE TABLE {DATABASE}.{TABLE} (
           id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, k INT NOT NULL, c CHAR(120) NOT NULL,
           pad CHAR(60) NOT NULL, created DATETIME NOT NULL
         ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"
    );
    let drop = format!("DROP DATABASE IF EXISTS {DATABASE}");
    sql::execute(&server.url(), vec![drop, format!("CREATE DATABASE {DATABASE}"), create])?;
    let mut parts = Vec::new();
    for part in 0..CONNECTIONS {
        let (from, to) = (part * rows / CONNECTIONS, (part + 1) * rows / CONNECTIONS);
        parts.push(tokio::spawn(load_part(sql::connect(&url(server)).await?, from, to)));
    }
    for part in parts {
        part.await.context("a loader panicked")??;
    }
    let mut conn = sql::connect(&url(server)).await?;
    for statement in [
        "SET sql_log_bin = 0".to_owned(),
        format!("ALTER TABLE {TABLE} ADD KEY k (k)"),
        format!("ANALYZE TABLE {TABLE}"),
        // the logs of the last tool's run are of no use to anybody
        "FLUSH BINARY LOGS".to_owned(),
        "PURGE BINARY LOGS BEFORE DATE_ADD(NOW(), INTERVAL 1 DAY)".to_owned(),
    ] {
        conn.query_drop(&statement).await.with_context(|| format!("running {statement}"))?;
    }
    conn.disconnect().await.context("disconnecting")?;
    settle(server)
}

async fn load_part(mut conn: Conn, first: u64, end: u64) -> Result<()> {
    let digits = "(SELECT 0 AS d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 \
                  UNION ALL SELECT 4 UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 \
                  UNION ALL SELECT 8 UNION ALL SELECT 9)";
    for statement in [
        "SET sql_log_bin = 0".to_owned(),
        "CREATE TEMPORARY TABLE numbers (n INT PRIMARY KEY)".to_owned(),
        format!(
            "INSERT INTO numbers SELECT a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d \
             FROM {digits} a, {digits} b, {digits} c, {digits} e, {digits} f"
        ),
    ] {
        conn.query_drop(&statement).await.with_context(|| format!("running {statement}"))?;
    }
    let mut from = first;
    while from < end {
        let to = std::cmp::min(from + BATCH_ROWS, end);
        let insert = format!(
            "INSERT INTO {TABLE} (id, k, c, pad, created)
             SELECT {from} + 1 + n, MOD(({from} + 1 + n) * 7919, 2000003),
               REPEAT(LPAD(MOD(({from} + n) * 48271, 2147483647), 12, '0'), 10),
               REPEAT(LPAD(MOD(({from} + n) * 16807, 2147483647), 12, '0'), 5),
               TIMESTAMPADD(SECOND, {from} + n, '2024-01-01')
             FROM numbers WHERE n < {to} - {from} ORDER BY n"
        );
        conn.query_drop(insert).await.with_context(|| format!("loading rows from {from}"))?;
        from = to;
    }
    conn.disconnect().await.context("disconnecting")
}

/// Has the server write its dirty pages, so that no tool pays for the load before it.
fn settle(server: &Server) -> Result<()> {
    let url = server.url();
    let row = sql::first_row(&url, "SELECT @@innodb_max_dirty_pages_pct")?.context("no answer")?;
    let usual: f64 = row.get(0).context("no answer")?;
    sql::execute(&url, vec!["SET GLOBAL innodb_max_dirty_pages_pct = 0".to_owned()])?;
    let quiet = sql::wait_until("the server wrote its dirty pages", QUIET_LIMIT, || {
        let ask = "SHOW GLOBAL STATUS LIKE 'Innodb_buffer_pool_pages_dirty'";
        let row = sql::first_row(&url, ask)?.context("no answer")?;
        let pages: String = row.get(1).context("no answer")?;
        Ok(pages.parse::<u64>().is_ok_and(|pages| pages < 200))
    });
    sql::execute(&url, vec![format!("SET GLOBAL innodb_max_dirty_pages_pct = {usual}")])?;
    quiet
}

/// The change was made, for every row.
pub(super) async fn check(server: &Server, rows: u64) -> Result<()> {
    if server.flavor().is_postgres() {
        return postgres::check(server, rows).await;
    }
    let mut conn = sql::connect(&url(server)).await?;
    let ask = format!("SELECT COUNT(*), COALESCE(SUM(extra = 7), 0) FROM {TABLE}");
    let counts: Option<(u64, u64)> =
        conn.query_first(ask).await.context("looking at the result")?;
    conn.disconnect().await.context("disconnecting")?;
    let (found, changed) = counts.context("no answer")?;
    ensure!(found == rows && changed == rows, "{changed} of {found} rows have the new column");
    Ok(())
}
