//! Every type of column, through the program itself: odd values stay what they are, conversions come
//! out as the server's own change makes them, and verification raises no false alarm.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use mysql_async::Conn;
use underpin_tests::cli;
use underpin_tests::servers::{Flavor, TestDb, sql};

use crate::app::{self, Luck, Reins};
use crate::column_cases::{Case, cases};
use crate::oracle::{self, quote};

/// Small, so that values of this size are cheap to make.
const PACKET_BYTES: u32 = 4 * 1024 * 1024;

/// Strict as the product is, so that both convert by the same rules.
const STRICT: &str = "SET sql_mode = 'STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES'";

/// All cases on one server.
pub(crate) fn check(flavor: Flavor) -> Result<()> {
    let Some(db) = TestDb::new(flavor) else { return Ok(()) };
    app::summer_time(&db.endpoints().primary)?;
    small_packet(&db)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async { app::numbers(&mut app::connect(&db).await?).await })?;
    let cases = crate::crowd::share(flavor, cases(flavor));
    let met = AtomicUsize::new(0);
    crate::crowd::each(
        flavor.name(),
        &cases,
        |case| case.name.to_owned(),
        |case| {
            let applied = runtime.block_on(change(&db, case))?;
            met.fetch_add(usize::from(applied > 0), Ordering::SeqCst);
            Ok(())
        },
    );
    // A change may be over before the writer came to it, but not many of them.
    let met = met.into_inner();
    let narrowed = std::env::var_os("UNDERPIN_TEST_CASE").is_some();
    let enough = narrowed || met * 10 > cases.len() * 7;
    ensure!(enough, "the writer met {met} changes of {}", cases.len());
    Ok(())
}

/// Makes values of a few megabytes long ones.
pub(crate) fn small_packet(db: &TestDb) -> Result<()> {
    let packet = format!("SET GLOBAL max_allowed_packet = {PACKET_BYTES}");
    sql::execute(&db.endpoints().primary, vec![packet])
}

/// One case: fill, mirror, change under a writer, compare. Returns the number of changes applied.
async fn change(db: &TestDb, case: &Case) -> Result<u64> {
    let mut conn = app::connect(db).await?;
    let table = case.table.clone();
    let (mirror, seed) = (format!("m_{}", case.name), format!("s_{}", case.name));
    let columns = fill(&mut conn, case, &table, [&mirror, &seed]).await?;
    oracle::same_rows(&mut conn, &table, &mirror, &[]).await.context("before the change")?;

    let reins = Reins::default();
    let statement = format!("ALTER TABLE {} {}", quote(&table), case.alter);
    let mut luck = Luck::new(case.name);
    let rows = u64::from(case.copies) * case.rows.len() as u64;
    let next = || transaction(&mut luck, rows, &columns, &seed);
    let writing = app::write(db, [quote(&table), quote(&mirror)], reins.clone(), next);
    let changing = run(db, &statement, &reins);
    let (written, changed) = tokio::join!(writing, changing);
    let called = changed?;
    ensure!(called.code() == 0, "exit code {}: {}", called.code(), called.complaint());
    written?;
    ensure!(called.ended.verdict() == "equal", "the verdict is {}", called.ended.verdict());

    app::run(&mut conn, STRICT).await?;
    // Names of constraints are unique in a database.
    let alter = case.alter.replace("CONSTRAINT not_seven", "CONSTRAINT not_seven_in_mirror");
    let native = format!("ALTER TABLE {} {alter}", quote(&mirror));
    app::run(&mut conn, &native).await.context("the server's own change of the mirror")?;
    oracle::same_rows(&mut conn, &table, &mirror, &case.skipped).await?;
    oracle::same_shape(&mut conn, &table, &mirror).await?;
    if let Some(counter) = case.counter {
        let next = oracle::counter(&mut conn, &table).await?;
        ensure!(next == Some(counter), "the counter is {next:?}, not {counter}");
    }
    called.ended.number("changes_applied").context("no figures")
}

async fn fill(conn: &mut Conn, case: &Case, table: &str, copies: [&str; 2]) -> Result<String> {
    let t = quote(table);
    let create = format!(
        "CREATE TABLE {t} (id INT NOT NULL{}, w INT NOT NULL DEFAULT 0, {}, PRIMARY KEY (id)) {}",
        if case.counter.is_some() { " AUTO_INCREMENT" } else { "" },
        case.columns,
        case.options
    );
    app::run(conn, &create).await?;
    for (index, row) in case.rows.iter().enumerate() {
        let insert = format!(
            "INSERT INTO {t} (id, w, {}) SELECT n * {} + {index}, n, {row} FROM seq WHERE n <= {}",
            case.into,
            case.rows.len(),
            case.copies
        );
        app::run(conn, &insert).await?;
    }
    for statement in &case.extra {
        app::run(conn, &statement.replace("{t}", &t)).await?;
    }
    let columns: Vec<String> =
        oracle::stored_columns(conn, table).await?.iter().map(|name| quote(name)).collect();
    let columns = columns.join(", ");
    for copy in copies {
        let copy = quote(copy);
        app::run(conn, &format!("CREATE TABLE {copy} LIKE {t}")).await?;
        let insert = format!("INSERT INTO {copy} ({columns}) SELECT {columns} FROM {t}");
        app::run(conn, &insert).await?;
    }
    Ok(columns)
}

/// One transaction: touch a row, take one away, or bring one back as it was or under a new key.
fn transaction(luck: &mut Luck, rows: u64, columns: &str, seed: &str) -> Vec<String> {
    let id = rows / 10 + luck.below(rows + 4);
    let seed = quote(seed);
    let moved = columns.replacen("`id`", "`id` + 100000", 1);
    match luck.below(8) {
        0..3 => vec![format!("UPDATE {{t}} SET w = w + 1 WHERE id = {id}")],
        3 | 4 => vec![format!("DELETE FROM {{t}} WHERE id = {id}")],
        5 => vec![format!(
            "INSERT INTO {{t}} ({columns}) SELECT {moved} FROM {seed} WHERE id = {id}"
        )],
        6 => vec![format!("UPDATE {{t}} SET id = -id WHERE id = {id}")],
        _ => vec![format!(
            "INSERT INTO {{t}} ({columns}) SELECT {columns} FROM {seed} WHERE id = {id}"
        )],
    }
}

/// The program, as a script would call it. The writer stops before the swap: in the new shape its
/// statements could mean something else.
async fn run(db: &TestDb, statement: &str, reins: &Reins) -> Result<cli::Called> {
    let (url, state) = (db.url(), format!("{}_state", db.name()));
    let (statement, stopped) = (statement.to_owned(), reins.clone());
    let called = tokio::task::spawn_blocking(move || {
        let words = [
            "run",
            &url,
            &statement,
            "--yes",
            "--strategy",
            "shadow",
            "--replica",
            "none",
            "--state-schema",
            &state,
        ];
        cli::call_watching(&words, |event| {
            if event["event"] == "phase" && event["phase"] == "swap" {
                stopped.stop();
            }
        })
    })
    .await;
    reins.stop();
    called?
}
