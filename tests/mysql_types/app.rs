//! The application: how it connects, the numbers that rows are made from, and a writer that never stops.
//!
//! Every write goes to the table and to its mirror in one transaction, so that at any time the mirror
//! is what the table was without the change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use underpin_tests::servers::{TestDb, sql};

/// What an application may have set: no strictness, so that odd values come in.
const LENIENT: &str = "SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES', \
                       time_zone = '+00:00', cte_max_recursion_depth = 100000";

/// The same for a server without that variable.
const LENIENT_MARIADB: &str =
    "SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES', time_zone = '+00:00'";

/// A zone in which an hour of the autumn of 2023 comes twice; the server's default for all sessions.
const ZONE: &str = "Underpin/Summer";

/// Rest between two transactions of a writer: it is there to be always in the way, not to outrun us.
const PACE: Duration = Duration::from_millis(4);

/// Opens a lenient session.
pub(crate) async fn connect(db: &TestDb) -> Result<Conn> {
    let mut conn = db.conn().await?;
    let mariadb = db.endpoints().flavor.is_mariadb();
    run(&mut conn, if mariadb { LENIENT_MARIADB } else { LENIENT }).await?;
    Ok(conn)
}

/// Runs one statement; the error shows it.
pub(crate) async fn run(conn: &mut Conn, statement: &str) -> Result<()> {
    let shown: String = statement.chars().take(300).collect();
    conn.query_drop(statement).await.with_context(|| shown)
}

/// Makes the server's default time zone one with summer time: a session that relies on the default
/// would then turn two instants into one.
pub(crate) fn summer_time(url: &str) -> Result<()> {
    let known = sql::first_row(
        url,
        "SELECT COUNT(*) FROM mysql.time_zone_name WHERE Name LIKE 'Underpin%'",
    )?;
    if known.and_then(|row| row.get::<u64, _>(0)) == Some(0) {
        let statements = vec![
            "INSERT INTO mysql.time_zone (Time_zone_id, Use_leap_seconds) VALUES (60001, 'N')".into(),
            format!("INSERT INTO mysql.time_zone_name VALUES ('{ZONE}', 60001)"),
            "INSERT INTO mysql.time_zone_transition_type (Time_zone_id, Transition_type_id, `Offset`, \
             Is_DST, Abbreviation) VALUES (60001, 0, 3600, 0, 'CET'), (60001, 1, 7200, 1, 'CEST')"
                .into(),
            // 2023-03-26 and 2023-10-29, 01:00 UTC
            "INSERT INTO mysql.time_zone_transition (Time_zone_id, Transition_time, \
             Transition_type_id) VALUES (60001, 1679792400, 1), (60001, 1698541200, 0)"
                .into(),
        ];
        sql::execute(url, statements)?;
    }
    sql::execute(url, vec![format!("SET GLOBAL time_zone = '{ZONE}'")])
}

/// Makes the table `seq` of the numbers 1 to 6000.
pub(crate) async fn numbers(conn: &mut Conn) -> Result<()> {
    run(conn, "CREATE TABLE seq (n INT NOT NULL PRIMARY KEY)").await?;
    let digit = "(SELECT 0 AS d UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION \
                 SELECT 5 UNION SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9)";
    let insert = format!(
        "INSERT INTO seq SELECT a.d + b.d * 10 + c.d * 100 + e.d * 1000 + 1 FROM {digit} a, {digit} b, \
         {digit} c, (SELECT 0 AS d UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION \
         SELECT 5) e"
    );
    run(conn, &insert).await
}

/// Luck that can be had again: xorshift from a seed.
#[derive(Debug)]
pub(crate) struct Luck(u64);

impl Luck {
    pub(crate) fn new(seed: &str) -> Self {
        let mixed = seed.bytes().fold(0x9E37_79B9_7F4A_7C15_u64, |sum, byte| {
            (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
        });
        Self(mixed | 1)
    }

    /// A number from 0 to `below` - 1.
    pub(crate) fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// Tells a writer to stop, and hears how much it did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reins {
    stop: Arc<AtomicBool>,
    committed: Arc<AtomicU64>,
}

impl Reins {
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Transactions that were acknowledged.
    pub(crate) fn committed(&self) -> u64 {
        self.committed.load(Ordering::SeqCst)
    }
}

/// Makes transactions by `next` until stopped: each a list of statements in which `{t}` stands for the
/// table, run for the table and for the mirror. A violated unique key rolls back, as applications do.
pub(crate) async fn write(
    db: &TestDb,
    tables: [String; 2],
    reins: Reins,
    mut next: impl FnMut() -> Vec<String>,
) -> Result<()> {
    let mut conn = connect(db).await?;
    while !reins.stop.load(Ordering::SeqCst) {
        let transaction = next();
        match transact(&mut conn, &tables, &transaction).await {
            Ok(()) => {
                reins.committed.fetch_add(1, Ordering::SeqCst);
            }
            Err(mysql_async::Error::Server(error)) if [1062, 1213].contains(&error.code) => {
                run(&mut conn, "ROLLBACK").await?;
            }
            Err(error) => bail!("the writer saw an error: {error} in {transaction:?}"),
        }
        tokio::time::sleep(PACE).await;
    }
    Ok(())
}

async fn transact(
    conn: &mut Conn,
    tables: &[String; 2],
    statements: &[String],
) -> Result<(), mysql_async::Error> {
    conn.query_drop("BEGIN").await?;
    for table in tables {
        for statement in statements {
            conn.query_drop(statement.replace("{t}", table)).await?;
        }
    }
    conn.query_drop("COMMIT").await
}
