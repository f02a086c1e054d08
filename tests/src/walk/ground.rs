//! The ground of a walk: a table with writers in a database of its own, and what must hold at the end.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::app::{self, App};
use crate::busy;
use crate::servers::{Endpoints, TestDb, pg, sql};
use crate::workload::{Layout, Settings};

/// The table: no larger than it must be, so that a blow is a matter of seconds.
pub(super) const LAYOUT: Layout = Layout { rows: 800, writers: 2 };

/// Transactions a second of all writers.
const RATE_PER_S: u32 = 20;

/// What the application may be held up by one transaction on a machine at rest: lock time-out and swap; how
/// short it is is measured by tests of its own.
const HELD_UP_MAX: Duration = Duration::from_secs(5);

/// A database with the table and its state.
#[derive(Debug)]
pub struct Ground {
    db: TestDb,
    begun: Instant,
}

impl Ground {
    /// A ground in a database of its own.
    ///
    /// # Errors
    /// The server's words.
    pub fn new(endpoints: &Endpoints) -> Result<Self> {
        busy::watch();
        Ok(Self { db: TestDb::on(endpoints)?, begun: Instant::now() })
    }

    /// The database's URL.
    #[must_use]
    pub fn url(&self) -> String {
        self.db.url()
    }

    /// Whether this is PostgreSQL.
    #[must_use]
    pub fn is_postgres(&self) -> bool {
        sql::is_postgres(&self.url())
    }

    /// Where runs are remembered: each database has a place of its own, made anew for each play.
    #[must_use]
    pub fn state(&self) -> String {
        if self.is_postgres() { "underpin".to_owned() } else { format!("{}_state", self.db.name()) }
    }

    /// Removes what was, loads the table and lets the writers go.
    ///
    /// # Errors
    /// The server's words.
    pub async fn open(&self, seed: u64) -> Result<App> {
        self.execute(&[&self.forget()])?;
        if self.is_postgres() {
            self.execute(&["DROP TABLE IF EXISTS parcels"])?;
        }
        app::load(&self.url(), LAYOUT).await.context("loading the table")?;
        if self.is_postgres() {
            // what hangs on the table has steps of its own
            self.execute(&[
                "GRANT SELECT ON orders TO pg_monitor",
                "CREATE TABLE parcels (id int PRIMARY KEY, shop smallint, of_order bigint, FOREIGN KEY \
                 (shop, of_order) REFERENCES orders (shop, id))",
            ])?;
        }
        let settings =
            Settings { url: self.url(), layout: LAYOUT, rate_per_s: Some(RATE_PER_S), seed };
        App::start(&settings).await
    }

    fn forget(&self) -> String {
        match self.is_postgres() {
            true => format!("DROP SCHEMA IF EXISTS {} CASCADE", self.state()),
            false => format!("DROP DATABASE IF EXISTS {}", self.state()),
        }
    }

    /// Runs statements.
    ///
    /// # Errors
    /// The server's words.
    pub fn execute(&self, statements: &[&str]) -> Result<()> {
        sql::execute(&self.url(), statements.iter().map(|&text| text.to_owned()).collect())
    }

    /// The first column of a query as text.
    ///
    /// # Errors
    /// The server's words.
    pub fn column(&self, query: &str) -> Result<Vec<String>> {
        let (url, query) = (self.url(), query.to_owned());
        sql::block_on(async move {
            if sql::is_postgres(&url) {
                let client = pg::connect(&url).await?;
                let rows = pg::text_rows(&client, &query).await?;
                let first = rows.into_iter().filter_map(|row| row.into_iter().next());
                return Ok(first.map(Option::unwrap_or_default).collect());
            }
            let mut conn = sql::connect(&url).await?;
            use mysql_async::prelude::Queryable;
            let found: Vec<String> = conn.query(query).await?;
            conn.disconnect().await?;
            Ok(found)
        })
    }

    fn state_is_there(&self) -> Result<bool> {
        let ask = match self.is_postgres() {
            true => format!("SELECT 1 WHERE to_regclass('{}.runs') IS NOT NULL", self.state()),
            false => format!(
                "SELECT '1' FROM information_schema.TABLES WHERE TABLE_SCHEMA = '{}' AND TABLE_NAME = \
                 'runs'",
                self.state()
            ),
        };
        Ok(!self.column(&ask)?.is_empty())
    }

    /// The states of all runs, in order.
    ///
    /// # Errors
    /// The server's words.
    pub fn runs(&self) -> Result<Vec<String>> {
        if !self.state_is_there()? {
            return Ok(Vec::new());
        }
        self.column(&format!("SELECT state FROM {}.runs ORDER BY 1", self.state()))
    }

    /// The one run that there was.
    ///
    /// # Errors
    /// The server's words; no run.
    pub fn only_run(&self) -> Result<String> {
        let ask = format!("SELECT run_id FROM {}.runs", self.state());
        self.column(&ask)?.into_iter().next().context("there is no run")
    }

    /// Whether it was seen that nothing of ours is left; not where it cannot be seen.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.nothing_is_left().is_ok()
    }

    /// Where the run that is open stands: its phase, and the way of its last swap. `None` without one.
    ///
    /// # Errors
    /// The server's words; a checkpoint that is none.
    pub fn stands(&self) -> Result<Option<(String, String)>> {
        if !self.state_is_there()? {
            return Ok(None);
        }
        let ask = format!("SELECT checkpoint FROM {}.runs WHERE state = 'open'", self.state());
        let found = self.column(&ask)?;
        let Some(text) = found.first() else { return Ok(None) };
        let json = text.get(text.find('{').unwrap_or(0)..).unwrap_or_default();
        let checkpoint: Value = serde_json::from_str(json).context("reading the checkpoint")?;
        let word = |name: &str| checkpoint[name].as_str().unwrap_or_default().to_owned();
        Ok(Some((word("phase"), word("stands"))))
    }

    /// Changes a row of the shadow behind everybody's back.
    ///
    /// # Errors
    /// The server's words; no shadow.
    pub fn spoil_shadow(&self) -> Result<()> {
        let find = match self.is_postgres() {
            true => {
                "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = \
                 c.relnamespace WHERE n.nspname ~ '^underpin_' AND c.relname = 'orders'"
            }
            false => {
                "SELECT CONCAT('`', TABLE_NAME, '`') FROM information_schema.TABLES WHERE TABLE_SCHEMA = \
                 DATABASE() AND TABLE_NAME LIKE '%~up\\_new'"
            }
        };
        let found = self.column(find)?;
        let shadow = found.first().context("there is no shadow")?;
        let first = format!("(SELECT id FROM (SELECT MIN(id) AS id FROM {shadow}) AS f)");
        self.execute(&[&format!("UPDATE {shadow} SET customer = customer + 1 WHERE id = {first}")])
    }

    /// Whether the table has the column that the change adds.
    ///
    /// # Errors
    /// The server's words.
    pub fn is_changed(&self, column: &str) -> Result<bool> {
        app::has_column(&self.url(), column)
    }

    /// Ends the writers and looks: the table holds what they were promised, nobody saw an error, and
    /// nothing of ours is left. Returns the longest transaction.
    ///
    /// # Errors
    /// What does not hold.
    pub async fn close(&self, writers: App) -> Result<Duration> {
        let seen = writers.stop(LAYOUT).await?;
        let found = seen.compare(&self.url()).await?;
        ensure!(found.none() && found.rows_read > 0, "rows: {found}");
        let fences = match self.db.endpoints().flavor.is_mariadb() {
            // the fence of its swap answers so: told of in docs/safety.md
            true => seen.errors.of("1213"),
            false => 0,
        };
        ensure!(seen.errors.total() == fences, "the application saw errors: {}", seen.errors);
        ensure!(
            fences == 0 || seen.errors.to_string().contains("underpin is swapping"),
            "the application saw errors: {}",
            seen.errors
        );
        let took = seen.samples.iter().map(|sample| sample.ended.saturating_sub(sample.started));
        let longest = took.max().unwrap_or_default();
        let allowed = busy::allows(self.begun, HELD_UP_MAX);
        ensure!(longest < allowed, "the application was held up for {longest:?} of {allowed:?}");
        self.nothing_is_left()?;
        Ok(longest)
    }

    fn nothing_is_left(&self) -> Result<()> {
        let state = self.state();
        let (tables, others): (&str, Vec<(&str, String)>) = match self.is_postgres() {
            true => (
                "SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'v', 'm', 'S', 'p') AND \
                 relnamespace = 'public'::regnamespace AND relkind <> 'S' ORDER BY 1",
                vec![
                    ("schemas", "SELECT nspname::text FROM pg_namespace WHERE nspname ~ '^underpin_'".to_owned()),
                    ("triggers", "SELECT tgname::text FROM pg_trigger WHERE NOT tgisinternal".to_owned()),
                    ("functions", "SELECT proname::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace".to_owned()),
                    (
                        "unready indexes",
                        "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT (indisvalid AND indisready)".to_owned(),
                    ),
                    (
                        "constraints that are not valid",
                        "SELECT conname::text FROM pg_constraint WHERE NOT convalidated".to_owned(),
                    ),
                ],
            ),
            false => (
                "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() ORDER BY 1",
                vec![(
                    "triggers",
                    "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE()"
                        .to_owned(),
                )],
            ),
        };
        let tables = self.column(tables)?;
        let ours: &[&str] = match self.is_postgres() {
            true => &["orders", "orders_mirror", "parcels"],
            false => &["orders"],
        };
        ensure!(tables == ours, "tables are left: {tables:?}");
        for (what, query) in others {
            let found = self.column(&query)?;
            ensure!(found.is_empty(), "{what} are left: {found:?}");
        }
        if !self.state_is_there()? {
            return Ok(());
        }
        let open = self.runs()?.into_iter().filter(|state| state == "open").count();
        ensure!(open == 0, "{open} runs are open");
        let live = self.column(&format!("SELECT run_id FROM {state}.beats"))?;
        ensure!(live.is_empty(), "heartbeats are left of {live:?}");
        Ok(())
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if let Err(error) = self.execute(&[&self.forget()]) {
            eprintln!("{} stays behind: {error:#}", self.state());
        }
    }
}
