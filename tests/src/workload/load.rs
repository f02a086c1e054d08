//! The demo table, filled quickly.
//!
//! Owns its definition and the server-side half of the formula in `model`; the check of a freshly
//! loaded table proves that both halves say the same.

use std::cmp::{max, min};

use anyhow::{Context, Result};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::TABLE;
use super::model::{FIRST_PLACED_S, Layout};
use crate::servers::sql;

const BATCH_ROWS: i64 = 50_000;
const CONNECTIONS: i64 = 2;

/// Makes the table anew in the database of `url` and fills it.
///
/// # Errors
/// The server's words.
pub async fn load(url: &str, layout: Layout) -> Result<()> {
    let mut conn = sql::connect(url).await?;
    conn.query_drop(format!("DROP TABLE IF EXISTS {TABLE}")).await.context("clearing the table")?;
    conn.query_drop(definition()).await.context("making the table")?;
    let sentinels: Vec<String> = layout
        .sentinels()
        .enumerate()
        .map(|(number, id)| {
            format!(
                "({id}, '{:02}', 0, 'closed', 0, NULL, FROM_UNIXTIME({FIRST_PLACED_S}))",
                2 * number
            )
        })
        .collect();
    let insert = format!(
        "INSERT INTO {TABLE} (id, code, customer, status, amount, note, placed_at) VALUES {}",
        sentinels.join(", ")
    );
    conn.query_drop("SET time_zone = '+00:00'").await.context("setting the time zone")?;
    conn.query_drop(insert).await.context("inserting the sentinels")?;
    conn.disconnect().await.context("disconnecting")?;
    let mut parts = Vec::new();
    for part in 0..CONNECTIONS {
        let first = part * layout.rows / CONNECTIONS;
        let end = (part + 1) * layout.rows / CONNECTIONS;
        let conn = sql::connect(url).await?;
        parts.push(tokio::spawn(load_part(conn, layout, first, end)));
    }
    for part in parts {
        part.await.context("a loader panicked")??;
    }
    Ok(())
}

fn definition() -> String {
    format!(
        "CREATE TABLE {TABLE} (
           id BIGINT NOT NULL AUTO_INCREMENT,
           code VARCHAR(40) NOT NULL,
           customer INT NOT NULL,
           status VARCHAR(16) NOT NULL,
           amount DECIMAL(12,2) NOT NULL,
           note VARCHAR(120) NULL,
           placed_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
           changed_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)
                      ON UPDATE CURRENT_TIMESTAMP(6),
           PRIMARY KEY (id),
           UNIQUE KEY code (code),
           KEY customer (customer),
           KEY status_placed (status, placed_at)
         ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"
    )
}

/// Loads ids `first + 1` to `end`, a batch a transaction.
async fn load_part(mut conn: Conn, layout: Layout, first: i64, end: i64) -> Result<()> {
    let numbers = "CREATE TEMPORARY TABLE numbers (n INT PRIMARY KEY)";
    let digits = "(SELECT 0 AS d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 \
                  UNION ALL SELECT 4 UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 \
                  UNION ALL SELECT 8 UNION ALL SELECT 9)";
    // as many as a batch needs: a small table is loaded in no time
    let places = max(min(BATCH_ROWS, end - first) - 1, 1).ilog10() + 1;
    let terms: Vec<String> =
        (0..places).map(|place| format!("{} * d{place}.d", 10_i64.pow(place))).collect();
    let from: Vec<String> = (0..places).map(|place| format!("{digits} d{place}")).collect();
    let fill = format!("INSERT INTO numbers SELECT {} FROM {}", terms.join(" + "), from.join(", "));
    for statement in ["SET time_zone = '+00:00'", numbers, &fill] {
        conn.query_drop(statement).await.context("preparing to load")?;
    }
    let mut from = first;
    while from < end {
        let to = min(from + BATCH_ROWS, end);
        let insert = batch(layout, from, to);
        conn.query_drop(insert).await.with_context(|| format!("loading rows from {from}"))?;
        from = to;
    }
    conn.disconnect().await.context("disconnecting")
}

/// The formula of [`Layout::loaded`], in SQL, for ids `from + 1` to `to`.
fn batch(layout: Layout, from: i64, to: i64) -> String {
    let (rows, writers) = (layout.rows, layout.writers);
    format!(
        "INSERT INTO {TABLE} (id, code, customer, status, amount, note, placed_at)
         SELECT id,
           CONCAT(LPAD(2 * ((id - 1) * {writers} DIV {rows}) + 1, 2, '0'), 'x',
                  LPAD(MOD(id * 48271, 2147483647), 10, '0')),
           MOD(id * 7919, 50021),
           ELT(MOD(id, 4) + 1, 'new', 'paid', 'sent', 'closed'),
           MOD(id * 104729, 1000000) / 100,
           IF(MOD(id, 3) <> 0, CONCAT('order ', id, ' of customer, as it was loaded'), NULL),
           FROM_UNIXTIME({FIRST_PLACED_S} + id)
         FROM (SELECT {from} + 1 + n AS id FROM numbers WHERE n < {to} - {from}) AS ids
         ORDER BY id"
    )
}
