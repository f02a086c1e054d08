//! What the MySQL dialect reads while a run goes on, and what it keeps of runs: lag by the heartbeat,
//! load, the user's own queries; orders, history, and state that an older version made.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

mod mysql_steps;

#[path = "mysql_signals/lag.rs"]
mod lag;
#[path = "mysql_signals/load.rs"]
mod load;
#[path = "mysql_signals/state.rs"]
mod state;

use std::sync::Arc;
use std::time::{Duration, Instant};

use underpin_core::alter::{Alter, Syntax};
use underpin_core::checkpoint::Checkpoint;
use underpin_core::plan::{Capture, RunSpec};
use underpin_core::signal::{LAG, Reading};
use underpin_dialect::{
    Database, Grip, IndexTiming, Inspect, Origin, OwnQuery, Probe, Request, Shadow, Store,
};
use underpin_mysql::connect::SessionSettings;
use underpin_mysql::mycnf::FileSearch;
use underpin_mysql::{MySql, options};
use underpin_tests::servers::sql;

const CHANGE: &str = "ALTER TABLE t ADD n INT NOT NULL DEFAULT 7";

/// A server behind the seam; state in `STATE`.
async fn open(url: &str, state: &str, replicas: &[&str]) -> MySql {
    let resolved = options::resolve(url, &FileSearch::none(), &|_| None).unwrap();
    let replicas = replicas.iter().map(|url| (*url).to_owned()).collect();
    MySql::open(resolved.options, SessionSettings::default(), state.to_owned(), replicas)
        .await
        .unwrap()
}

fn request(schema: &str, replicas: &[&str]) -> Request {
    Request {
        run_id: "r1".into(),
        alter: Alter::parse(CHANGE, Syntax::mysql()).unwrap(),
        statement: CHANGE.into(),
        default_schema: Some(schema.into()),
        replicas: replicas.iter().map(|url| (*url).to_owned()).collect(),
        indexes: IndexTiming::Auto,
        force_shadow: true,
        keeps_way_back: false,
        capture: Capture::default(),
    }
}

/// Makes `schema.t`, and records and prepares a run on it.
async fn begin(server: &MySql, url: &str, schema: &str) -> (Arc<RunSpec>, Grip) {
    let table = format!("CREATE TABLE IF NOT EXISTS {schema}.t (id INT PRIMARY KEY, v INT)");
    let rows = format!("INSERT IGNORE INTO {schema}.t VALUES (1, 1), (2, 2), (3, 3)");
    sql::execute(url, vec![table, rows]).unwrap();
    let mut control = server.control().await.unwrap();
    let plan = control.plan(&request(schema, &["none"])).await.unwrap();
    let spec = plan.spec.unwrap_or_else(|| panic!("{:?}", plan.findings));
    control.acquire(&spec.schema, &spec.table).await.unwrap();
    control.create_run(&spec, &Checkpoint::begin(), &Origin::default()).await.unwrap();
    let grip = control.take_over(&spec.run_id).await.unwrap();
    control.prepare(&spec).await.unwrap();
    (Arc::new(spec), grip)
}

/// Reads signals twice a second, as the engine does.
struct Rounds {
    probe: <MySql as Database>::Probe,
    own: Vec<OwnQuery>,
}

impl Rounds {
    async fn begin(server: &MySql, spec: &Arc<RunSpec>) -> Self {
        Self { probe: server.probe(spec).await.unwrap(), own: Vec::new() }
    }

    async fn read(&mut self) -> Vec<Reading> {
        self.probe.signals(&self.own).await.unwrap()
    }

    /// Reads until one is as `wanted`; fails after `limit`, with the last of that name.
    async fn until(
        &mut self,
        name: &str,
        limit: Duration,
        wanted: impl Fn(&Reading) -> bool,
    ) -> Reading {
        let begun = Instant::now();
        let mut last = None;
        while begun.elapsed() < limit {
            let found = self.read().await.into_iter().find(|reading| reading.name == name);
            if let Some(reading) = found.as_ref().filter(|reading| wanted(reading)) {
                return reading.clone();
            }
            last = found;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        panic!("{name} within {limit:?}: the last was {last:?}");
    }

    /// The lag of the only replica.
    async fn lag(&mut self) -> Reading {
        let readings = self.read().await;
        let lags: Vec<&Reading> = readings.iter().filter(|one| one.name == LAG).collect();
        assert_eq!(lags.len(), 1, "{readings:?}");
        lags[0].clone()
    }
}

/// The value of a signal; fails where it was not read.
fn value(readings: &[Reading], name: &str) -> f64 {
    let found = readings.iter().find(|reading| reading.name == name);
    found.and_then(|reading| reading.value).unwrap_or_else(|| panic!("{name}: {readings:?}"))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}
