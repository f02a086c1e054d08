//! The final table against its mirror, and the replica against the primary.
//!
//! Owns its own SQL, written apart from the product's verification on purpose.

use anyhow::{Context, Result, ensure};
use tokio_postgres::Client;

use super::{MIRROR, TABLE};
use crate::servers::pg;
use crate::workload::Differences;

/// How many rows are shown of each side.
const EXAMPLES: u32 = 5;

/// Compares the mirror's columns of all rows, both ways, duplicates counted; the writers must have
/// stopped. A row with another value counts as one missing and one unexpected.
///
/// # Errors
/// The server's words; a difference is no error.
pub async fn compare_tables(url: &str) -> Result<Differences> {
    let client = pg::connect(url).await?;
    let columns = client
        .query_one(
            "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
             WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped",
            &[&MIRROR],
        )
        .await
        .context("listing the columns")?;
    let columns: String = columns.try_get(0).context("the mirror has no columns")?;
    let count = client.query_one(&format!("SELECT count(*) FROM {TABLE}"), &[]).await;
    let count: i64 = count.context("counting the rows")?.try_get(0)?;
    let mut found = Differences { rows_read: u64::try_from(count)?, ..Differences::default() };
    let (missing, examples) = surplus(&client, &columns, MIRROR, TABLE).await?;
    found.missing = missing;
    found.examples.extend(examples.into_iter().map(|row| format!("missing {row}")));
    let (unexpected, examples) = surplus(&client, &columns, TABLE, MIRROR).await?;
    found.unexpected = unexpected;
    found.examples.extend(examples.into_iter().map(|row| format!("unexpected {row}")));
    Ok(found)
}

/// Rows of `one` that `other` has not, counted and the first of them in words.
async fn surplus(
    client: &Client,
    columns: &str,
    one: &str,
    other: &str,
) -> Result<(u64, Vec<String>)> {
    let ask = format!(
        "WITH surplus AS MATERIALIZED
           (SELECT {columns} FROM {one} EXCEPT ALL SELECT {columns} FROM {other})
         SELECT count(*), (SELECT array_agg(row) FROM
           (SELECT left(surplus::text, 300) AS row FROM surplus LIMIT {EXAMPLES}) AS few)
         FROM surplus"
    );
    let row = client.query_one(&ask, &[]).await.context("comparing table and mirror")?;
    let examples: Option<Vec<String>> = row.try_get(1).context("reading examples")?;
    Ok((u64::try_from(row.try_get::<_, i64>(0)?)?, examples.unwrap_or_default()))
}

/// Compares row count and a checksum of all columns on both servers; the replica must have caught
/// up and nobody may write. Returns the number of rows.
///
/// # Errors
/// A difference, or the server's words.
pub async fn compare_replica(primary_url: &str, replica_url: &str) -> Result<u64> {
    let primary = checksum(primary_url).await.context("on the primary")?;
    let replica = checksum(replica_url).await.context("on the replica")?;
    ensure!(primary == replica, "primary and replica differ: {primary:?} and {replica:?}");
    Ok(u64::try_from(primary.0)?)
}

/// Number of rows and the sum of their hashes, of the table and of its mirror.
async fn checksum(url: &str) -> Result<(i64, String, String)> {
    let client = pg::connect(url).await?;
    let mut sums = Vec::new();
    for table in [TABLE, MIRROR] {
        let ask = format!(
            "SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)), 0)::text FROM {table} AS t"
        );
        let row = client.query_one(&ask, &[]).await.context("summing the table")?;
        sums.push((row.try_get::<_, i64>(0)?, row.try_get::<_, String>(1)?));
    }
    let (mirror, table) = (sums.pop().context("no sum")?, sums.pop().context("no sum")?);
    Ok((table.0, table.1, mirror.1))
}
