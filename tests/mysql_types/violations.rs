//! What an application does meanwhile: rows that a new unique index cannot hold, a bad row that comes
//! late, a statement that the server cannot show.

use std::sync::Mutex;

use anyhow::{Context, Result, ensure};
use mysql_async::Conn;
use underpin_core::key::Frontier;
use underpin_dialect::ChangeLog;
use underpin_tests::catalogue;
use underpin_tests::cli::{self, Called};
use underpin_tests::servers::{Flavor, TestDb, sql};

use crate::app;
use crate::bites::copied;

fn run(db: &TestDb, statement: &str, on_event: impl FnMut(&serde_json::Value)) -> Result<Called> {
    let (url, state) = (db.url(), format!("{}_state", db.name()));
    let words = [
        "run",
        &url,
        statement,
        "--yes",
        "--strategy",
        "shadow",
        "--replica",
        "none",
        "--state-schema",
        &state,
    ];
    cli::call_watching(&words, on_event)
}

fn abort(db: &TestDb, table: &str) -> Result<()> {
    let (url, state) = (db.url(), format!("{}_state", db.name()));
    let called = cli::call(&["abort", &url, table, "--state-schema", &state])?;
    ensure!(called.code() == 0, "abort: {}", called.complaint());
    Ok(())
}

fn ensure_says(called: &Called, code: i32, parts: &[&str]) -> Result<()> {
    let said = called.complaint();
    ensure!(called.code() == code, "exit code {}, not {code}: {said}", called.code());
    for part in parts {
        ensure!(said.contains(part), "{part:?} is missing in {said:?}");
    }
    Ok(())
}

async fn fill(db: &TestDb, table: &str) -> Result<Conn> {
    let mut conn = app::connect(db).await?;
    app::numbers(&mut conn).await?;
    let create = format!(
        "CREATE TABLE {table} (id INT NOT NULL PRIMARY KEY, code INT NULL, opt INT NULL, \
         name VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin)"
    );
    app::run(&mut conn, &create).await?;
    let insert =
        format!("INSERT INTO {table} SELECT n, n, NULL, CONCAT('n', n) FROM seq WHERE n <= 5000");
    app::run(&mut conn, &insert).await?;
    Ok(conn)
}

/// Duplicates are named; mended, the same command goes on where it stopped.
pub(crate) fn duplicates(flavor: Flavor) -> Result<()> {
    let Some(db) = TestDb::new(flavor) else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut conn = runtime.block_on(fill(&db, "twice"))?;
    let mut execute = |statement: &str| runtime.block_on(app::run(&mut conn, statement));
    execute("UPDATE twice SET code = 17 WHERE id = 4321")?;
    execute("UPDATE twice SET name = 'Ab' WHERE id = 5")?;
    execute("UPDATE twice SET name = 'aB' WHERE id = 7")?;
    let before = catalogue::dump(&db.url(), db.name(), "twice")?;

    let statement = "ALTER TABLE twice ADD UNIQUE KEY u_code (code), ADD n INT DEFAULT 1";
    let called = run(&db, statement, |_| {})?;
    ensure_says(&called, 1, &["17 and 4321", "by id", "Duplicate entry '17'", "abort"])?;
    let called = run(&db, statement, |_| {})?;
    ensure_says(&called, 1, &["17 and 4321"]).context("the same command with nothing mended")?;
    execute("UPDATE twice SET code = 100000 WHERE id = 4321")?;
    let called = run(&db, statement, |_| {})?;
    ensure_says(&called, 0, &[])?;
    ensure!(called.event("run_resumed").is_some(), "it began anew: {:?}", called.events);
    ensure!(called.ended.verdict() == "equal", "the verdict is {}", called.ended.verdict());

    // Equal only in the new collation; and NULLs, which are never equal.
    let statement = "ALTER TABLE twice MODIFY name VARCHAR(20) CHARACTER SET utf8mb4 COLLATE \
                     utf8mb4_general_ci, ADD UNIQUE KEY u_name (name), ADD UNIQUE KEY u_opt (n, opt)";
    let called = run(&db, statement, |_| {})?;
    ensure_says(&called, 1, &["5 and 7", "u_name"])?;
    abort(&db, "twice")?;
    let after = catalogue::dump(&db.url(), db.name(), "twice")?;
    ensure!(after.len() == 1 && before.len() == 1, "the run left a trace: {after:?}");
    let sums = sql::first_row(&db.url(), "SELECT COUNT(*), SUM(code), SUM(n) FROM twice")?;
    let sums: (u64, u64, u64) = mysql_async::from_row(sums.context("no sums")?);
    let codes = 5000 * 5001 / 2 - 4321 + 100_000;
    ensure!(sums == (5000, codes, 5000), "rows changed: {sums:?}");
    Ok(())
}

/// A row that the new shape cannot hold, written while the run waits for its lock.
pub(crate) fn late_row(flavor: Flavor) -> Result<()> {
    let Some(db) = TestDb::new(flavor) else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(fill(&db, "late"))?;
    let before = catalogue::dump(&db.url(), db.name(), "late")?;
    // An open transaction keeps the swap from coming before the row.
    let holder = Mutex::new(runtime.block_on(app::connect(&db))?);
    let hold = |statements: &[&str]| -> Result<()> {
        let mut conn = holder.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
        statements.iter().try_for_each(|one| runtime.block_on(app::run(&mut conn, one)))
    };
    let mut trouble = Ok(());
    let called = run(&db, "ALTER TABLE late MODIFY name VARCHAR(6)", |event| {
        let done = match event["phase"].as_str() {
            Some("copy") if event["event"] == "phase" => {
                hold(&["BEGIN", "SELECT COUNT(*) FROM late"])
            }
            Some("swap") if event["event"] == "phase" => {
                let insert = "INSERT INTO late VALUES (777777, 1, 1, 'longer than six')";
                let inserted = sql::execute(&db.url(), vec![insert.to_owned()]);
                inserted.and_then(|()| hold(&["COMMIT"]))
            }
            _ => Ok(()),
        };
        if trouble.is_ok() {
            trouble = done;
        }
    })?;
    trouble?;
    ensure_says(
        &called,
        1,
        &["id=777777, column name, value 'longer than six'", "for column 'name'"],
    )?;
    abort(&db, "late")?;
    let after = catalogue::dump(&db.url(), db.name(), "late")?;
    ensure!(after == before, "the run left a trace: {after:?}");
    Ok(())
}

/// While anybody's statement holds a character of four bytes, MySQL can show neither its transactions
/// nor its process list. Nothing of a run may depend on them.
pub(crate) fn unreadable_statements(flavor: Flavor) -> Result<()> {
    let Some(db) = TestDb::new(flavor) else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut app = fill(&db, "calm").await?;
        let mut bench = copied(&db, "calm", "ADD extra INT").await?;
        let mut other = app::connect(&db).await?;
        let asleep =
            tokio::spawn(async move { app::run(&mut other, "SELECT '\u{1F600}', SLEEP(2)").await });
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        for id in 0..3 {
            let insert = format!("INSERT INTO calm VALUES (-{id} - 1, NULL, NULL, NULL)");
            app::run(&mut app, &insert).await?;
            let applied = bench.worker.apply(&Frontier::End, 100).await?;
            ensure!(applied.keys == 1, "{applied:?}");
        }
        ensure!(!asleep.is_finished(), "it took too long to prove anything");
        asleep.await?
    })
}
