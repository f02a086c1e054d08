//! Every kind of key: small chunks, many rounds, the log applied between them, and a writer that
//! inserts, deletes, moves keys, respells them and passes unique values around.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tokio::sync::mpsc;
use underpin_core::alter::{Alter, Syntax};
use underpin_core::machine::Settings;
use underpin_core::plan::Capture;
use underpin_dialect::{Database, IndexTiming, Inspect, Request};
use underpin_engine::{Outcome, Report, Reporter, RunOptions, Summary, Verdict};
use underpin_mysql::connect::SessionSettings;
use underpin_mysql::mycnf::FileSearch;
use underpin_mysql::{MySql, options};
use underpin_tests::servers::{Flavor, TestDb};

use crate::app::{self, Luck, Reins};
use crate::key_cases::{Case, cases};
use crate::oracle::{self, quote};

/// Unique values that wander from row to row.
const WANDERING: u64 = 12;

/// All cases on one server.
pub(crate) fn check(flavor: Flavor) -> Result<()> {
    let Some(db) = TestDb::new(flavor) else { return Ok(()) };
    app::summer_time(&db.endpoints().primary)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async { app::numbers(&mut app::connect(&db).await?).await })?;
    crate::crowd::each(
        flavor.name(),
        &crate::crowd::share(flavor, cases(flavor)),
        |case| case.name.to_owned(),
        |case| runtime.block_on(change(&db, case)),
    );
    Ok(())
}

/// One case: fill, mirror, change under a writer, compare.
async fn change(db: &TestDb, case: &Case) -> Result<()> {
    let (table, mirror) = (format!("k_{}", case.name), format!("m_{}", case.name));
    let mut conn = app::connect(db).await?;
    fill(&mut conn, case, &table, &mirror).await?;
    oracle::same_rows(&mut conn, &table, &mirror, &[]).await.context("before the change")?;

    let reins = Reins::default();
    let statement = format!("ALTER TABLE {table} {}", case.alter);
    let mut luck = Luck::new(case.name);
    let tables = [table.clone(), mirror.clone()];
    let writing = app::write(db, tables, reins.clone(), || case.transaction(&mut luck));
    let changing = async {
        let result = run(db, case, &table, &statement, &reins).await;
        reins.stop();
        result
    };
    let (written, changed) = tokio::join!(writing, changing);
    let summary = changed?;
    written?;

    ensure!(summary.verified == Verdict::Equal, "not verified");
    ensure!(summary.chunks >= 5, "too few chunks: {summary:?}");
    ensure!(summary.changes_applied > 0, "nothing was applied: {summary:?}");
    ensure!(reins.committed() > 10, "the writer did next to nothing: {}", reins.committed());
    app::run(&mut conn, &format!("ALTER TABLE {mirror} {}", case.alter)).await?;
    let rows = oracle::same_rows(&mut conn, &table, &mirror, &[]).await?;
    ensure!(rows > 100, "{rows} rows prove little");
    oracle::same_shape(&mut conn, &table, &mirror).await
}

async fn fill(conn: &mut mysql_async::Conn, case: &Case, table: &str, mirror: &str) -> Result<()> {
    let create = format!(
        "CREATE TABLE {table} ({}, w INT NOT NULL DEFAULT 0, u INT NULL, pad VARCHAR(40), {}, \
         UNIQUE KEY wander (u), KEY pad (pad))",
        case.columns, case.keys
    );
    app::run(conn, &create).await?;
    app::run(conn, &format!("CREATE TABLE {mirror} LIKE {table}")).await?;
    let unique = if case.wanders { "IF(n % 3 = 0, NULL, n)" } else { "NULL" };
    let insert = format!(
        "INSERT INTO {table} ({}, w, u, pad) SELECT {}, n, {unique}, CONCAT('pad', n) \
         FROM seq WHERE n <= {} ORDER BY n",
        case.names(),
        case.values("n"),
        case.rows
    );
    app::run(conn, &insert).await?;
    let columns: Vec<String> =
        oracle::stored_columns(conn, table).await?.iter().map(|name| quote(name)).collect();
    let columns = columns.join(", ");
    app::run(conn, &format!("INSERT INTO {mirror} ({columns}) SELECT {columns} FROM {table}")).await
}

/// The change itself, in this process: chunks of some forty rows, and no more than a few dozen entries
/// at a time.
async fn run(
    db: &TestDb,
    case: &Case,
    table: &str,
    statement: &str,
    reins: &Reins,
) -> Result<Summary> {
    let resolved = options::resolve(&db.url(), &FileSearch::none(), &|_| None)?;
    let state = format!("{}_state", db.name());
    let settings = SessionSettings::default();
    let server = MySql::open(resolved.options, settings, state, vec!["none".into()]).await?;
    let request = Request {
        run_id: format!("k{}", case.name.replace('_', "")),
        alter: Alter::parse(statement, Syntax::mysql())?,
        statement: statement.to_owned(),
        default_schema: Some(db.name().to_owned()),
        replicas: vec!["none".into()],
        indexes: IndexTiming::Auto,
        force_shadow: true,
        keeps_way_back: false,
        capture: Capture::default(),
    };
    let plan = server.control().await?.plan(&request).await?;
    let spec = plan.spec.with_context(|| format!("refused: {:?}", plan.findings))?;
    let index = &spec.key.source_index;
    ensure!(index == case.index, "{table}: key {index} chosen, not {}", case.index);
    let settings = Settings {
        workers: 3,
        chunk_rows_start: 40,
        chunk_rows_min: 20,
        chunk_rows_max: 60,
        round_chunks_per_worker: 2,
        apply_entries_high: 10,
        apply_keys_max: 60,
        near_empty_entries: 20,
        verify_rows_max: 100,
        ..Settings::default()
    };
    let options = RunOptions { settings, ..RunOptions::default() };
    // Where the new shape has another key or collation, a writer that goes on would mean other rows.
    let (stops_early, reins) = (case.stops_at_swap, reins.clone());
    let reporter = Reporter::new(move |report| {
        if let Report::Phase { phase, .. } = &report
            && phase == "swap"
            && stops_early
        {
            reins.stop();
        }
    });
    let (_keep, commands) = mpsc::channel(1);
    match underpin_engine::start(Arc::new(server), spec, options, commands, reporter).await? {
        Outcome::Done(summary) => Ok(*summary),
        other => anyhow::bail!("{other:?}"),
    }
}

impl Case {
    /// One transaction of the application.
    fn transaction(&self, luck: &mut Luck) -> Vec<String> {
        let rows = u64::from(self.rows) + u64::from(self.rows) / 5;
        let n = (1 + luck.below(rows)).to_string();
        let other = (1 + luck.below(rows)).to_string();
        let (here, names) = (self.equals(&n), self.names());
        let wandering = 1_000_000 + luck.below(WANDERING);
        match luck.below(12) {
            0..3 => vec![format!("UPDATE {{t}} SET w = w + 1, pad = CONCAT('p', w) WHERE {here}")],
            3 | 4 => vec![format!("DELETE FROM {{t}} WHERE {here}")],
            5 | 6 => vec![format!(
                "INSERT INTO {{t}} ({names}, w, pad) SELECT {}, -{n}, NULL",
                self.values(&n)
            )],
            7 | 8 => vec![format!("UPDATE {{t}} SET {} WHERE {here}", self.moved(&other))],
            9 if self.respell.is_some() => {
                let respell = self.respell.unwrap_or_default();
                vec![format!("UPDATE {{t}} SET {respell} WHERE {here}")]
            }
            _ if self.wanders => vec![
                format!("UPDATE {{t}} SET u = NULL WHERE u = {wandering}"),
                format!("UPDATE {{t}} SET u = {wandering} WHERE {here}"),
            ],
            _ => vec![format!("UPDATE {{t}} SET pad = NULL WHERE {here}")],
        }
    }

    /// The key's columns, as an INSERT lists them.
    fn names(&self) -> String {
        let names: Vec<&str> = self.key.iter().map(|(name, _)| *name).collect();
        names.join(", ")
    }

    /// The key's values for the row of number `n`.
    fn values(&self, n: &str) -> String {
        let values: Vec<String> =
            self.key.iter().map(|(_, value)| value.replace(":n", n)).collect();
        values.join(", ")
    }

    fn equals(&self, n: &str) -> String {
        self.pairs(n).join(" AND ")
    }

    fn moved(&self, n: &str) -> String {
        self.pairs(n).join(", ")
    }

    fn pairs(&self, n: &str) -> Vec<String> {
        self.key
            .iter()
            .map(|(name, value)| format!("{name} = {}", value.replace(":n", n)))
            .collect()
    }
}
