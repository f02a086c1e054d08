//! Values that the new shape cannot hold: the run stops before the swap, names row and column, and can
//! be ended without a trace or, once the row is mended, go on.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use underpin_core::alter::{Alter, Syntax};
use underpin_core::checkpoint::Checkpoint;
use underpin_core::key::Frontier;
use underpin_core::plan::Capture;
use underpin_dialect::{
    ChangeLog, Copy, Database, DbResult, ErrorKind, IndexTiming, Inspect, Request, Shadow, Store,
};
use underpin_mysql::connect::SessionSettings;
use underpin_mysql::mycnf::FileSearch;
use underpin_mysql::{MySql, options};
use underpin_tests::catalogue;
use underpin_tests::cli::{self, Called};
use underpin_tests::servers::{Flavor, TestDb, sql};

use crate::app;
use crate::loss_cases::{Case, cases};
use crate::oracle::quote;

/// Rows of each table, and the one among them that does not fit.
const ROWS: u32 = 500;
const BAD_ID: u32 = 321;
/// How often a lock that was not had is asked for again.
const TRIES: u32 = 10;

impl Case {
    fn column_name(&self) -> &'static str {
        if self.column.is_empty() { "x" } else { self.column }
    }

    /// What every message must hold.
    fn ensure_named(&self, flavor: Flavor, message: &str) -> Result<()> {
        let column = format!("column {}, value {}", self.column, self.shown);
        let mut parts = vec![
            format!("id={BAD_ID}"),
            self.words[usize::from(flavor.is_mariadb())].to_owned(),
            "Mend the row or the statement".to_owned(),
        ];
        if !self.column.is_empty() {
            parts.push(column);
        }
        for part in parts {
            ensure!(message.contains(&part), "{part:?} is missing in {message:?}");
        }
        Ok(())
    }

    async fn fill(&self, db: &TestDb, table: &str, with_bad: bool) -> Result<()> {
        let mut conn = app::connect(db).await?;
        let column = quote(self.column_name());
        let create = format!(
            "CREATE TABLE {table} (id INT NOT NULL PRIMARY KEY, {column} {})",
            self.definition
        );
        app::run(&mut conn, &create).await?;
        let bad = if with_bad { BAD_ID } else { 0 };
        let insert = format!(
            "INSERT INTO {table} SELECT n, {} FROM seq WHERE n <= {ROWS} AND n <> {BAD_ID}",
            self.good
        );
        app::run(&mut conn, &insert).await?;
        if bad > 0 {
            app::run(&mut conn, &format!("INSERT INTO {table} VALUES ({bad}, {})", self.bad))
                .await?;
        }
        Ok(())
    }
}

/// Calls the program on this table; small chunks, so that the bad row is in a later one.
fn call(db: &TestDb, words: &[&str]) -> Result<Called> {
    let state = format!("{}_state", db.name());
    let (command, rest) = words.split_first().context("no command")?;
    let url = db.url();
    let mut all = vec![*command, url.as_str(), "--state-schema", state.as_str()];
    all.extend(rest);
    cli::call(&all)
}

fn run(db: &TestDb, statement: &str) -> Result<Called> {
    call(db, &["run", statement, "--yes", "--strategy", "shadow", "--replica", "none"])
}

/// Every case on one server, found while copying and found while applying.
pub(crate) fn check(flavor: Flavor) -> Result<()> {
    let Some(db) = TestDb::new(flavor) else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async { app::numbers(&mut app::connect(&db).await?).await })?;
    crate::crowd::each(
        flavor.name(),
        &cases(),
        |case| case.name.to_owned(),
        |case| {
            runtime.block_on(case.fill(&db, &format!("a_{}", case.name), false))?;
            runtime.block_on(found_while_applying(&db, flavor, case)).context("applying")?;
            runtime.block_on(case.fill(&db, &format!("l_{}", case.name), true))?;
            found_while_copying(&db, flavor, case).context("copying")
        },
    );
    Ok(())
}

/// The whole program: exit code, message, and an end without a trace.
fn found_while_copying(db: &TestDb, flavor: Flavor, case: &Case) -> Result<()> {
    let table = format!("l_{}", case.name);
    let dump = || catalogue::dump(&db.url(), db.name(), &table);
    let before = dump()?;
    let called = run(db, &format!("ALTER TABLE {table} {}", case.alter))?;
    ensure!(called.code() == 1, "exit code {}: {}", called.code(), called.complaint());
    case.ensure_named(flavor, &called.complaint())?;
    ensure!(called.event("swap").is_none(), "it was swapped");
    let between = dump()?;
    ensure!(between.len() > before.len(), "what is left to resume from? {between:?}");
    let aborted = call(db, &["abort", &table])?;
    ensure!(aborted.code() == 0, "abort: {}", aborted.complaint());
    let after = dump()?;
    ensure!(after == before, "the run left a trace: {after:?}");
    let rows = sql::first_row(&db.url(), &format!("SELECT COUNT(*) FROM {table}"))?;
    ensure!(rows.and_then(|row| row.get(0)) == Some(ROWS), "rows went");
    Ok(())
}

/// As the engine does: a lock that was not had is asked for again, here where many tables are defined at
/// once.
async fn again<T>(mut ask: impl AsyncFnMut() -> DbResult<T>) -> Result<T> {
    for _ in 0..TRIES {
        match ask().await {
            Err(error) if error.is_retryable() => {}
            other => return Ok(other?),
        }
    }
    Ok(ask().await?)
}

/// The rooms alone, so that the row comes for certain after its chunk was copied.
async fn found_while_applying(db: &TestDb, flavor: Flavor, case: &Case) -> Result<()> {
    let table = format!("a_{}", case.name);
    let statement = format!("ALTER TABLE {table} {}", case.alter);
    let resolved = options::resolve(&db.url(), &FileSearch::none(), &|_| None)?;
    let state = format!("{}_state", db.name());
    let settings = SessionSettings::default();
    let server = MySql::open(resolved.options, settings, state, vec!["none".into()]).await?;
    let mut control = again(async || server.control().await).await?;
    let request = Request {
        run_id: format!("a{}", case.name.replace('_', "")),
        alter: Alter::parse(&statement, Syntax::mysql())?,
        statement,
        default_schema: Some(db.name().to_owned()),
        replicas: vec!["none".into()],
        indexes: IndexTiming::Auto,
        force_shadow: true,
        keeps_way_back: false,
        capture: Capture::default(),
    };
    let plan = again(async || control.plan(&request).await).await?;
    let spec = Arc::new(plan.spec.with_context(|| format!("refused: {:?}", plan.findings))?);
    control.create_run(&spec, &Checkpoint::begin(), &underpin_dialect::Origin::default()).await?;
    let grip = control.take_over(&spec.run_id).await?;
    again(async || control.prepare(&spec).await).await?;
    let mut worker = again(async || server.worker(&spec, &grip).await).await?;
    let (chunks, _) = worker.plan_chunks(None, 200, 9).await?;
    for chunk in &chunks {
        worker.copy_chunk(1, chunk).await?;
    }
    let mut conn = app::connect(db).await?;
    let insert = |id: u32, value: &str| format!("INSERT INTO {table} VALUES ({id}, {value})");
    for (id, value) in [(600, case.good), (BAD_ID, case.bad), (700, case.good)] {
        conn.query_drop(insert(id, value)).await?;
    }
    let Err(error) = worker.apply(&Frontier::End, 100).await else {
        anyhow::bail!("the row was applied")
    };
    ensure!(error.kind == ErrorKind::DataError, "{error:?}");
    case.ensure_named(flavor, &error.to_string())?;
    again(async || control.abort(&spec).await).await?;
    Ok(control.close_run(&spec.run_id, "aborted", "").await?)
}
