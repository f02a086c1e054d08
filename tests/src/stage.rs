//! Where a demo plays: a primary and a replica with the demo table loaded.
//!
//! Owns getting there and the measure of the replica's lag. Knows nothing of the product.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mysql_async::prelude::Queryable;
use tokio::task::JoinHandle;

use crate::app;
use crate::servers::{Endpoints, Flavor, Pair, ServerSpec, pg, sql};
use crate::workload::Layout;

const DATABASE: &str = "shop";
const CATCH_UP: Duration = Duration::from_secs(300);
const BEAT: Duration = Duration::from_millis(100);

/// Servers with the table on them; ends them when dropped.
#[derive(Debug)]
pub struct Stage {
    endpoints: Endpoints,
    layout: Layout,
    _servers: Servers,
}

/// What keeps the servers alive.
#[derive(Debug)]
enum Servers {
    Own { _pair: Box<Pair> },
    Docker { _compose: Compose },
}

impl Stage {
    /// Starts the servers; the table is not there yet.
    ///
    /// # Errors
    /// When they do not come up.
    pub fn open(flavor: Flavor, docker: bool, layout: Layout) -> Result<Self> {
        if docker {
            let (compose, endpoints) = Compose::up(flavor)?;
            return Ok(Self { endpoints, layout, _servers: Servers::Docker { _compose: compose } });
        }
        let pair = Pair::start(&roomy(flavor))?;
        let endpoints =
            Endpoints { flavor, primary: pair.primary.url(), replica: Some(pair.replica.url()) };
        Ok(Self { endpoints, layout, _servers: Servers::Own { _pair: Box::new(pair) } })
    }

    /// Makes and fills the table, and waits until the replica has it.
    ///
    /// # Errors
    /// The server's words.
    pub async fn load(&self) -> Result<()> {
        let make = ["DROP DATABASE IF EXISTS", "CREATE DATABASE"];
        let make = make.map(|words| format!("{words} {DATABASE}")).to_vec();
        sql::execute(&self.endpoints.primary, make)?;
        let heartbeat = [
            "CREATE TABLE heartbeat (id INT PRIMARY KEY, beat_us BIGINT NOT NULL)",
            "INSERT INTO heartbeat VALUES (1, 0)",
        ];
        sql::execute(&self.url(), heartbeat.map(str::to_owned).to_vec())?;
        app::load(&self.url(), self.layout).await?;
        self.wait_caught_up()
    }

    /// The database on the primary.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}{DATABASE}", self.endpoints.primary)
    }

    /// The same on the replica.
    #[must_use]
    pub fn replica_url(&self) -> Option<String> {
        self.endpoints.replica.as_ref().map(|url| format!("{url}{DATABASE}"))
    }

    /// How the table was loaded.
    #[must_use]
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// Waits until the replica has all.
    ///
    /// # Errors
    /// When it does not within some minutes.
    pub fn wait_caught_up(&self) -> Result<()> {
        self.endpoints.wait_caught_up(CATCH_UP)
    }

    /// Starts measuring the replica's lag.
    ///
    /// # Errors
    /// When a connection cannot be had.
    pub async fn watch_lag(&self) -> Result<LagWatch> {
        let stop = Arc::new(AtomicBool::new(false));
        let Some(replica) = self.replica_url() else { bail!("there is no replica") };
        let (primary, replica) =
            (Heart::connect(&self.url()).await?, Heart::connect(&replica).await?);
        let task = tokio::spawn(measure_lag(primary, replica, Arc::clone(&stop)));
        Ok(LagWatch { stop, task })
    }
}

/// A table that fits in memory, as the working set of a healthy production server does.
fn roomy(flavor: Flavor) -> ServerSpec {
    let spec = ServerSpec::new(flavor);
    if flavor.is_postgres() {
        return spec.option("shared_buffers=512MB").option("max_wal_size=2GB");
    }
    let spec = spec.option("innodb-buffer-pool-size=768M");
    match flavor.is_mariadb() {
        true => spec.option("innodb-log-file-size=512M"),
        false => spec.option("innodb-redo-log-capacity=512M"),
    }
}

/// Measures the replica's lag by a heartbeat: a time written on the primary, read on the replica.
#[derive(Debug)]
pub struct LagWatch {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<Duration>>,
}

impl LagWatch {
    /// Ends it and returns the longest lag seen. Below the beat (100 ms) it means nothing.
    ///
    /// # Errors
    /// The server's words.
    pub async fn stop(self) -> Result<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.context("measuring lag panicked")?
    }
}

/// A session that beats or feels the beat.
enum Heart {
    MySql(Box<mysql_async::Conn>),
    Postgres(tokio_postgres::Client),
}

impl Heart {
    async fn connect(url: &str) -> Result<Self> {
        Ok(match sql::is_postgres(url) {
            true => Self::Postgres(pg::connect(url).await?),
            false => Self::MySql(Box::new(sql::connect(url).await?)),
        })
    }

    async fn beat(&mut self, now_us: u64) -> Result<()> {
        let beat = format!("UPDATE heartbeat SET beat_us = {now_us} WHERE id = 1");
        match self {
            Self::MySql(conn) => conn.query_drop(beat).await?,
            Self::Postgres(client) => client.batch_execute(&beat).await?,
        }
        Ok(())
    }

    async fn feel(&mut self) -> Result<Option<i64>> {
        let ask = "SELECT beat_us FROM heartbeat";
        Ok(match self {
            Self::MySql(conn) => conn.query_first(ask).await?,
            Self::Postgres(client) => client.query_one(ask, &[]).await?.try_get(0)?,
        })
    }
}

async fn measure_lag(
    mut primary: Heart,
    mut replica: Heart,
    stop: Arc<AtomicBool>,
) -> Result<Duration> {
    let origin = Instant::now();
    let mut peak = Duration::ZERO;
    // the heartbeat of an earlier run would count as lag
    let mut seen_any = false;
    while !stop.load(Ordering::Relaxed) {
        let now = u64::try_from(origin.elapsed().as_micros()).context("reading the clock")? + 1;
        primary.beat(now).await.context("beating")?;
        tokio::time::sleep(BEAT).await;
        let seen = replica.feel().await.context("reading the beat")?;
        let seen = Duration::from_micros(u64::try_from(seen.unwrap_or(0)).unwrap_or(0));
        seen_any |= !seen.is_zero() && seen <= origin.elapsed();
        if seen_any {
            // at best the last beat was seen, which is one pause old: that is no lag
            let age = origin.elapsed().saturating_sub(seen).saturating_sub(BEAT);
            peak = std::cmp::max(peak, age);
        }
    }
    Ok(peak)
}

/// Containers of `docker-compose.yml`; taken down, with their data, when dropped.
#[derive(Debug)]
struct Compose;

impl Compose {
    fn up(flavor: Flavor) -> Result<(Self, Endpoints)> {
        let (service, port) = match flavor {
            Flavor::MySql97 => ("mysql84", 13384),
            Flavor::MariaDbDistro => ("mariadb10", 13310),
            Flavor::MariaDb118 => ("mariadb11", 13311),
            Flavor::Postgres14 => ("postgres14", 15414),
            Flavor::PostgresDistro => ("postgres15", 15415),
            Flavor::Postgres16 => ("postgres16", 15416),
            Flavor::Postgres17 => ("postgres17", 15417),
            Flavor::Postgres18 => ("postgres18", 15418),
        };
        let replica = format!("{service}-replica");
        let compose = Self;
        compose.run(&["up", "--wait", service, &replica])?;
        let user = if flavor.is_postgres() { "postgres://postgres" } else { "mysql://root" };
        let url = |port: u16| format!("{user}@127.0.0.1:{port}/");
        let endpoints = Endpoints { flavor, primary: url(port), replica: Some(url(port + 1000)) };
        Ok((compose, endpoints))
    }

    fn run(&self, words: &[&str]) -> Result<()> {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docker-compose.yml");
        let mut docker = Command::new("docker");
        docker.args(["compose", "--file", file]).args(words);
        let status = docker.status().context("starting docker (is it installed?)")?;
        ensure!(status.success(), "docker compose {} ended with {status}", words.join(" "));
        Ok(())
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        if let Err(error) = self.run(&["down", "--volumes"]) {
            eprintln!("containers may be left: {error:#}");
        }
    }
}
