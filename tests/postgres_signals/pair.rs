//! A primary and a replica of the test's own, which nobody else writes to: lag, and what a replica that is
//! slow, late on purpose, cut off or silent does to the signals.

use std::sync::Arc;
use std::time::{Duration, Instant};

use underpin_core::machine::Command;
use underpin_core::plan::RunSpec;
use underpin_core::signal::{
    ARCHIVE, LAG, LAG_BYTES, Reading, SLOT_BYTES, SLOT_SHARE, WRITE_LATENCY,
};
use underpin_dialect::{Database, Probe, Store};
use underpin_postgres::connect::SessionSettings;
use underpin_postgres::options::FileSearch;
use underpin_postgres::{Postgres, options};
use underpin_tests::busy;
use underpin_tests::servers::{Flavor, Pair, ServerSpec, pg, wanted};

use super::{CHANGE, TABLE, TheProbe, of, until, value};
use crate::postgres_steps::{LIMIT, Steps, request};

/// What a lag is at most that is none, on a machine that is busy. Told by the rounds of the probe alone,
/// without what the write brings, it would be the time between two of them.
const NO_LAG_MS: f64 = 400.0;

/// Between two rounds.
const ROUND: Duration = Duration::from_millis(500);

struct Ground {
    pair: Pair,
    url: String,
    spec: Arc<RunSpec>,
}

impl Ground {
    async fn start(flavor: Flavor) -> Self {
        let wanted =
            ServerSpec::new(flavor).option("archive_mode=on").option("max_slot_wal_keep_size=1GB");
        let pair = Pair::start(&wanted).unwrap();
        let url = format!("{}postgres", pair.primary.url());
        set(
            &url,
            &[TABLE, "ALTER SYSTEM SET archive_command = 'false'", "SELECT pg_reload_conf()"],
        );
        let server = dialect(&url, &[]).await;
        let steps = Steps::recorded_at(server, &request(CHANGE)).await;
        Self { pair, url, spec: steps.spec }
    }

    /// A probe that reads the primary's list, or asks the replica itself.
    async fn probe(&self, asked: bool) -> TheProbe {
        let replica = format!("postgres://postgres@127.0.0.1:{}/", self.pair.replica.port());
        let replicas = if asked { vec![replica] } else { Vec::new() };
        dialect(&self.url, &replicas).await.probe(&self.spec).await.unwrap()
    }
}

async fn dialect(url: &str, replicas: &[String]) -> Postgres {
    let resolved = options::resolve(url, &FileSearch::none(), &|_| None).unwrap();
    let settings = SessionSettings::default();
    Postgres::open(resolved.options, settings, "underpin".to_owned(), replicas.to_vec())
        .await
        .unwrap()
}

fn set(url: &str, statements: &[&str]) {
    pg::execute(url, statements.iter().map(|&sql| sql.to_owned()).collect()).unwrap();
}

/// The greatest lag of some rounds.
async fn greatest_lag(probe: &mut TheProbe, rounds: usize) -> f64 {
    let mut greatest = 0.0;
    for _ in 0..rounds {
        tokio::time::sleep(ROUND).await;
        let readings = probe.signals(&[]).await.unwrap();
        let lag = value(&readings, LAG);
        greatest = if lag > greatest { lag } else { greatest };
    }
    greatest
}

fn lags(readings: &[Reading], from_ms: f64) -> bool {
    of(readings, LAG).and_then(|reading| reading.value).is_some_and(|lag| lag >= from_ms)
}

fn no_lag(readings: &[Reading]) -> bool {
    of(readings, LAG).and_then(|reading| reading.value).is_some_and(|lag| lag < NO_LAG_MS)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_are_measured_while_nobody_else_writes() {
    for flavor in [Flavor::PostgresDistro, Flavor::Postgres18] {
        if !wanted(flavor) {
            continue;
        }
        let ground = Ground::start(flavor).await;
        for asked in [false, true] {
            stalled(&ground, asked).await;
        }
        synchronous(&ground).await;
        late_on_purpose(&ground).await;
        silent(&ground).await;
        kept_back(&ground).await;
        archived(&ground).await;
    }
}

/// Exact while all is well, and growing from the moment at which it is not.
async fn stalled(ground: &Ground, asked: bool) {
    let mut probe = ground.probe(asked).await;
    until(&mut probe, "no lag", no_lag).await;
    let rest = Instant::now();
    let lag = greatest_lag(&mut probe, 6).await;
    eprintln!("asked itself: {asked}: greatest lag at rest {lag} ms");
    assert!(lag < NO_LAG_MS * busy::factor(rest), "at rest: {lag} ms");
    ground.pair.stop_applying().unwrap();
    let begun = Instant::now();
    let readings = until(&mut probe, "two seconds", |readings| lags(readings, 2000.0)).await;
    // From the last write that was replayed, which is up to a round old.
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(1400), "{took:?}");
    assert!(took < busy::allows(begun, Duration::from_secs(3)), "{took:?}");
    assert!(value(&readings, LAG_BYTES) > 0.0, "{readings:?}");
    ground.pair.start_applying().unwrap();
    let begun = Instant::now();
    until(&mut probe, "caught up", no_lag).await;
    let took = begun.elapsed();
    assert!(took < busy::allows(begun, Duration::from_secs(3)), "{took:?}");
}

/// Commits wait for the replica to receive them. While it is away they do not end, ours neither; orders are
/// taken all the same.
async fn synchronous(ground: &Ground) {
    let names = |names: &str| {
        let sql = format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'");
        set(&ground.url, &[&sql, "SELECT pg_reload_conf()"]);
    };
    names("replica");
    let mut probe = ground.probe(false).await;
    until(&mut probe, "no lag", no_lag).await;
    let lag = greatest_lag(&mut probe, 6).await;
    eprintln!("synchronous: greatest lag at rest {lag} ms");
    assert!(lag < NO_LAG_MS, "synchronous, at rest: {lag} ms");
    // What it does not replay does not hold up its commits.
    ground.pair.stop_applying().unwrap();
    until(&mut probe, "a second", |readings| lags(readings, 1000.0)).await;
    let readings = probe.signals(&[]).await.unwrap();
    assert!(value(&readings, WRITE_LATENCY) < 1000.0, "{readings:?}");
    ground.pair.start_applying().unwrap();
    until(&mut probe, "caught up", no_lag).await;

    ground.pair.stop_replica().unwrap();
    let mut slowest = Duration::ZERO;
    let stuck = Instant::now();
    loop {
        let begun = Instant::now();
        let readings = probe.signals(&[]).await.unwrap();
        slowest = std::cmp::max(slowest, begun.elapsed());
        if of(&readings, WRITE_LATENCY).and_then(|one| one.value).is_some_and(|ms| ms > 1500.0) {
            break;
        }
        assert!(stuck.elapsed() < LIMIT, "{readings:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(slowest < busy::allows(stuck, Duration::from_millis(1500)), "{slowest:?}");
    let mut orders = ground.probe(false).await;
    let mut control = dialect(&ground.url, &[]).await.control().await.unwrap();
    let steered = async {
        control.request("r1", &Command::Pause, "").await.unwrap();
        assert_eq!(orders.requested().await.unwrap().len(), 1);
        orders.publish("{}").await.unwrap();
    };
    let within = tokio::time::timeout(Duration::from_secs(1), steered).await;
    assert!(within.is_ok(), "an order waits for a standby that is gone");
    ground.pair.start_applying().unwrap();
    names("");
    until(&mut probe, "caught up", no_lag).await;
}

/// A replica that replays late on purpose is known when it is asked itself.
async fn late_on_purpose(ground: &Ground) {
    ground.pair.delay_replica(3).unwrap();
    let mut probe = ground.probe(true).await;
    let mut listed = ground.probe(false).await;
    // Until it is late there is less to take off; and both must have seen the primary for as long.
    let begun = Instant::now();
    while !lags(&listed.signals(&[]).await.unwrap(), 2500.0) {
        probe.signals(&[]).await.unwrap();
        assert!(begun.elapsed() < LIMIT, "it never was late");
        tokio::time::sleep(ROUND).await;
    }
    for _ in 0..3 {
        let readings = probe.signals(&[]).await.unwrap();
        let reading = of(&readings, LAG).unwrap();
        assert!(reading.source.contains("less its delay of 3000 ms"), "{reading:?}");
        assert!(reading.value.is_some_and(|lag| lag < 1500.0), "{reading:?}");
        listed.signals(&[]).await.unwrap();
        tokio::time::sleep(ROUND).await;
    }
    ground.pair.delay_replica(0).unwrap();
    until(&mut probe, "caught up", no_lag).await;
}

/// A replica that does not answer holds up nothing, and is not taken for one that keeps up.
async fn silent(ground: &Ground) {
    let mut probe = ground.probe(true).await;
    until(&mut probe, "no lag", no_lag).await;
    ground.pair.replica.freeze().unwrap();
    let begun = Instant::now();
    let mut grown = 0.0;
    loop {
        let asked = Instant::now();
        let readings = probe.signals(&[]).await.unwrap();
        let took = asked.elapsed();
        assert!(took < busy::allows(asked, Duration::from_millis(1500)), "{took:?}");
        let reading = of(&readings, LAG).unwrap();
        match reading.value {
            Some(lag) => grown = lag,
            None => {
                assert!(reading.error.contains("not answered for"), "{reading:?}");
                break;
            }
        }
        assert!(begun.elapsed() < LIMIT, "{readings:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(grown > 1500.0, "it was taken for well until it was given up: {grown} ms");
    ground.pair.replica.thaw().unwrap();
    until(&mut probe, "back", no_lag).await;
}

/// What is kept for a slot that nobody reads.
async fn kept_back(ground: &Ground) {
    let mut probe = ground.probe(false).await;
    until(&mut probe, "no lag", no_lag).await;
    ground.pair.stop_replica().unwrap();
    let fill = "INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 20000) g";
    set(&ground.url, &[fill, "TRUNCATE t"]);
    let readings = probe.signals(&[]).await.unwrap();
    let (kept, share) = (value(&readings, SLOT_BYTES), value(&readings, SLOT_SHARE));
    assert!(kept > 20e6, "{readings:?}");
    assert!((share - kept * 1000.0 / 1073741824.0).abs() < 1.0, "{readings:?}");
    let source = &of(&readings, SLOT_BYTES).unwrap().source;
    assert!(source.contains("slot replica (reserved, nobody reads it)"), "{source}");
    let lag = of(&readings, LAG).unwrap();
    assert!(lag.value.is_none() && lag.error.contains("has left the primary's list"), "{lag:?}");
    ground.pair.start_applying().unwrap();
    until(&mut probe, "read again", |readings| {
        of(readings, SLOT_BYTES).and_then(|one| one.value).is_some_and(|bytes| bytes < 20e6)
    })
    .await;
}

/// What waits to be archived: counted before anything was, told from names after that.
async fn archived(ground: &Ground) {
    let mut probe = ground.probe(false).await;
    let segment = ["INSERT INTO t VALUES (1, 'x')", "TRUNCATE t", "SELECT pg_switch_wal()"];
    for _ in 0..3 {
        set(&ground.url, &segment);
    }
    let waiting = value(&probe.signals(&[]).await.unwrap(), ARCHIVE);
    assert!(waiting >= 3.0, "{waiting}");
    let command = |command: &str| {
        let sql = format!("ALTER SYSTEM SET archive_command = '{command}'");
        set(&ground.url, &[&sql, "SELECT pg_reload_conf()"]);
    };
    command("true");
    until(&mut probe, "archived", |readings| value(readings, ARCHIVE) == 0.0).await;
    command("false");
    // the archiver takes the order when it looks next: what comes before that is still taken away
    let (mut waiting, mut made) = (0.0, 2.0);
    while waiting < 2.0 && made < 22.0 {
        set(&ground.url, &segment);
        made += 1.0;
        waiting = value(&probe.signals(&[]).await.unwrap(), ARCHIVE);
    }
    assert!(waiting >= 2.0 && waiting <= made, "{waiting} of {made}");
}
