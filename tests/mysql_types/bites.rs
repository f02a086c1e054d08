//! That verification bites: each smallest change of a copied row is found and named, whatever the type,
//! and a row that was not changed is never named with it.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use mysql_async::Conn;
use underpin_core::alter::{Alter, Syntax};
use underpin_core::checkpoint::Checkpoint;
use underpin_core::key::Chunk;
use underpin_core::plan::{Capture, RunSpec};
use underpin_dialect::{
    Copy, Database, IndexTiming, Inspect, RangeReport, Request, Shadow, Store, Verify,
};
use underpin_mysql::connect::SessionSettings;
use underpin_mysql::mycnf::FileSearch;
use underpin_mysql::{MySql, Worker, options};
use underpin_tests::servers::{Flavor, TestDb};

use crate::app;

/// Name, type, value, and another value that is hard to tell from it.
const COLUMNS: [[&str; 4]; 25] = [
    ["i", "INT", "5", "6"],
    ["d", "DECIMAL(65,30)", "1.000000000000000000000000000001", "1.000000000000000000000000000002"],
    ["f", "FLOAT", "16777216", "16777218"],
    ["db", "DOUBLE", "0.1", "0.10000000000000002"],
    ["b", "BIT(64)", "18446744073709551615", "18446744073709551614"],
    ["dt", "DATETIME(6)", "'2020-01-01 00:00:00'", "'2020-01-01 00:00:00.000001'"],
    ["ts", "TIMESTAMP(6) NULL", "'2023-10-29 00:30:00'", "'2023-10-29 01:30:00'"],
    ["da", "DATE", "'0000-00-00'", "NULL"],
    ["t", "TIME(6)", "'-00:00:00.5'", "'00:00:00.5'"],
    ["y", "YEAR", "'0000'", "2000"],
    ["c", "CHAR(10) CHARACTER SET latin1", "'a'", "'A'"],
    ["v", "VARCHAR(10) CHARACTER SET utf8mb4", "'e'", "'é'"],
    ["sp", "VARCHAR(10) CHARACTER SET utf8mb4", "'x'", "'x '"],
    ["gb", "VARCHAR(10) CHARACTER SET gbk", "'中'", "'文'"],
    ["bi", "BINARY(4)", "UNHEX('00000000')", "UNHEX('00000001')"],
    ["vb", "VARBINARY(4)", "UNHEX('00')", "UNHEX('0000')"],
    ["e", "ENUM('a','')", "0", "''"],
    ["s", "SET('a','b')", "'a'", "'a,b'"],
    ["n1", "INT", "NULL", "0"],
    ["n2", "VARCHAR(10)", "NULL", "''"],
    [
        "lt",
        "LONGTEXT CHARACTER SET latin1",
        "REPEAT('x', 2200000)",
        "CONCAT(REPEAT('x', 2199999), 'y')",
    ],
    ["lb", "LONGBLOB", "REPEAT(UNHEX('00'), 2200000)", "REPEAT(UNHEX('00'), 2199999)"],
    ["bt", "TEXT", "'a'", "'b'"],
    ["p", "POINT", "ST_GeomFromText('POINT(1 2)')", "ST_GeomFromText('POINT(2 1)')"],
    ["j", "JSON", "'{\"a\": 1}'", "'{\"a\": \"1\"}'"],
];

/// The rows. The key of the first looks like no value to the server, and its long values together would
/// not fit a packet; the others have short ones.
const KEYS: [&str; 4] = ["'0000-00-00'", "'2020-01-01'", "'2020-01-02'", "'2020-01-03'"];

/// A table whose copy is done and that nobody else works on.
pub(crate) struct Bench {
    pub(crate) conn: Conn,
    pub(crate) worker: Worker,
    ranges: Vec<Chunk>,
    shadow: String,
}

impl Bench {
    async fn verify(&mut self) -> Result<RangeReport> {
        let mut all = RangeReport::default();
        for range in &self.ranges {
            let report = self.worker.verify_range(range).await?;
            all.rows += report.rows;
            all.differences += report.differences;
            all.samples.extend(report.samples);
        }
        Ok(all)
    }

    /// Does it to the shadow, and wants exactly this found; then takes it back.
    async fn tamper(&mut self, change: &str, back: &str, found: &[&str]) -> Result<()> {
        app::run(&mut self.conn, &change.replace("{n}", &self.shadow)).await?;
        let report = self.verify().await.with_context(|| change.to_owned())?;
        ensure!(report.samples == found, "{change}: found {report:?}, not {found:?}");
        ensure!(report.differences == found.len() as u64, "{change}: {report:?}");
        app::run(&mut self.conn, &back.replace("{n}", &self.shadow)).await?;
        let report = self.verify().await?;
        ensure!(report.differences == 0, "after {back}: {report:?}");
        Ok(())
    }
}

/// Copies a table by the rooms, up to the point where source and shadow are equal.
pub(crate) async fn copied(db: &TestDb, table: &str, alter: &str) -> Result<Bench> {
    let statement = format!("ALTER TABLE {table} {alter}");
    let resolved = options::resolve(&db.url(), &FileSearch::none(), &|_| None)?;
    let state = format!("{}_state", db.name());
    let settings = SessionSettings::default();
    let server = MySql::open(resolved.options, settings, state, vec!["none".into()]).await?;
    let mut control = server.control().await?;
    let request = Request {
        run_id: format!("b{table}"),
        alter: Alter::parse(&statement, Syntax::mysql())?,
        statement,
        default_schema: Some(db.name().to_owned()),
        replicas: vec!["none".into()],
        indexes: IndexTiming::Auto,
        force_shadow: true,
        keeps_way_back: false,
        capture: Capture::default(),
    };
    let plan = control.plan(&request).await?;
    let spec: Arc<RunSpec> =
        Arc::new(plan.spec.with_context(|| format!("refused: {:?}", plan.findings))?);
    control.create_run(&spec, &Checkpoint::begin(), &underpin_dialect::Origin::default()).await?;
    let grip = control.take_over(&spec.run_id).await?;
    control.prepare(&spec).await?;
    let mut worker = server.worker(&spec, &grip).await?;
    let (ranges, _) = worker.plan_chunks(None, 2, 9).await?;
    for chunk in &ranges {
        worker.copy_chunk(1, chunk).await?;
    }
    let shadow = format!("`{}`", spec.names.shadow);
    let mut conn = app::connect(db).await?;
    // Each change would be logged with its long values, before and after.
    app::run(&mut conn, "SET SESSION sql_log_bin = 0").await?;
    Ok(Bench { conn, worker, ranges, shadow })
}

/// Value and other value of a column in this row.
fn values<'a>([name, _, value, other]: &[&'a str; 4], key: &str) -> [&'a str; 2] {
    let is_long = *name == "lt" || *name == "lb";
    if is_long && key != KEYS[0] { ["'x'", "'y'"] } else { [value, other] }
}

async fn fill(db: &TestDb, table: &str, key: &str) -> Result<()> {
    let mut conn = app::connect(db).await?;
    let columns: Vec<String> =
        COLUMNS.iter().map(|[name, kind, ..]| format!("{name} {kind}")).collect();
    let create =
        format!("CREATE TABLE {table} (k {key} NOT NULL PRIMARY KEY, {})", columns.join(", "));
    app::run(&mut conn, &create).await?;
    for key in KEYS {
        let values: Vec<&str> = COLUMNS.iter().map(|column| values(column, key)[0]).collect();
        let insert = format!("INSERT INTO {table} SELECT {key}, {}", values.join(", "));
        app::run(&mut conn, &insert).await?;
    }
    Ok(())
}

/// One server: a key of the same order on both sides, and one whose collation changes, where rows are
/// looked up one by one.
pub(crate) fn check(flavor: Flavor) -> Result<()> {
    let Some(db) = TestDb::new(flavor) else { return Ok(()) };
    crate::columns::small_packet(&db)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        fill(&db, "ranges", "DATE").await?;
        let mut bench = copied(&db, "ranges", "ADD extra INT").await?;
        tampered(&mut bench, |key| key.trim_matches('\'').to_owned()).await.context("by ranges")?;
        fill(&db, "by_row", "VARCHAR(20) CHARACTER SET latin1").await?;
        let alter = "MODIFY k VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL";
        let mut bench = copied(&db, "by_row", alter).await?;
        tampered(&mut bench, str::to_owned).await.context("row by row")
    })
}

async fn tampered(bench: &mut Bench, shown: impl Fn(&str) -> String) -> Result<()> {
    let report = bench.verify().await?;
    ensure!(report.differences == 0 && report.rows == 4, "before: {report:?}");
    // Long values make rows that a packet could not hold: they must not hide what else differs.
    for column in COLUMNS {
        let (name, [value, other]) = (column[0], values(&column, KEYS[0]));
        let set = |to: &str| format!("UPDATE {{n}} SET {name} = {to} WHERE k = {}", KEYS[0]);
        let found = format!("k={} (differs in {name})", shown(KEYS[0]));
        bench.tamper(&set(other), &set(value), &[&found]).await?;
    }
    let key = KEYS[0];
    let kept =
        format!("CREATE TEMPORARY TABLE kept AS SELECT * FROM {} WHERE k = {key}", bench.shadow);
    app::run(&mut bench.conn, &kept).await?;
    let found = format!("k={} (missing in the shadow)", shown(key));
    let mut samples = vec![found.as_str()];
    let totals = "4 rows in the source, 3 in the shadow";
    if !bench.is_by_ranges() {
        samples.push(totals);
    }
    let delete = format!("DELETE FROM {{n}} WHERE k = {key}");
    bench.tamper(&delete, "INSERT INTO {n} SELECT * FROM kept", &samples).await?;
    app::run(&mut bench.conn, "UPDATE kept SET k = '2021-01-01'").await?;
    let found = format!("k={} (only in the shadow)", shown("'2021-01-01'"));
    let totals = "4 rows in the source, 5 in the shadow";
    let sample = if bench.is_by_ranges() { found.as_str() } else { totals };
    bench
        .tamper(
            "INSERT INTO {n} SELECT * FROM kept",
            "DELETE FROM {n} WHERE k = '2021-01-01'",
            &[sample],
        )
        .await
}

impl Bench {
    /// Whether both tables order their keys alike.
    fn is_by_ranges(&self) -> bool {
        self.shadow.contains("ranges")
    }
}
