//! Lag: told by the heartbeat to the fraction of a second, whatever the replica says of itself.

use std::time::{Duration, Instant};

use underpin_core::signal::{LAG, Reading};
use underpin_dialect::{Database, Shadow};
use underpin_tests::busy;
use underpin_tests::servers::{Flavor, Pair, ServerSpec, sql, wanted};

use crate::{Rounds, begin, open, runtime};

const LIMIT: Duration = Duration::from_secs(60);

/// Runs `test` on a pair of its own for each server, side by side: it mostly waits.
fn on_pairs(specs: &[ServerSpec], test: impl AsyncFn(Pair, String) + Sync) {
    std::thread::scope(|scope| {
        for spec in specs.iter().filter(|spec| wanted(spec.flavor)) {
            scope.spawn(|| {
                let pair = Pair::start(spec).unwrap();
                let create = vec!["CREATE DATABASE app".to_owned()];
                sql::execute(&pair.primary.url(), create).unwrap();
                let url = format!("{}app", pair.primary.url());
                runtime().block_on(test(pair, url));
            });
        }
    });
}

const BOTH: [ServerSpec; 2] =
    [ServerSpec::new(Flavor::MySql97), ServerSpec::new(Flavor::MariaDbDistro)];

fn at_ease(reading: &Reading) -> bool {
    reading.value.is_some_and(|lag_ms| lag_ms < 400.0)
}

#[test]
fn a_replica_that_falls_behind_is_told_to_the_fraction_of_a_second() {
    on_pairs(&BOTH, async |pair, url| {
        let server = open(&url, "underpin", &[]).await;
        let (spec, _grip) = begin(&server, &url, "app").await;
        let mut rounds = Rounds::begin(&server, &spec).await;
        let calm = rounds.until(LAG, LIMIT, at_ease).await;
        assert_eq!(calm.source, "heartbeat");
        assert_eq!(calm.of, format!("127.0.0.1:{}", pair.replica.port()));
        stopped_applier(&pair, &mut rounds).await;
        // The heartbeat is no change of the source.
        server.control().await.unwrap().check_source(&spec).await.unwrap();
        a_new_probe_knows_at_once(&pair, &server, &spec, &mut rounds).await;
        deliberate_delay(&pair, &mut rounds).await;
        frozen(&pair, &mut rounds).await;
        vanished(&pair, &mut rounds).await;
    });
}

async fn stopped_applier(pair: &Pair, rounds: &mut Rounds) {
    // The first beat is to be there: of a replica that stops before it nothing can be told.
    pair.wait_caught_up(LIMIT).unwrap();
    rounds.until(LAG, LIMIT, at_ease).await;
    pair.stop_applying().unwrap();
    let stopped = Instant::now();
    let since_ms = || stopped.elapsed().as_secs_f64() * 1000.0;
    let mut told = Vec::new();
    while told.len() < 7 && stopped.elapsed() < LIMIT {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let before_ms = since_ms().round();
        let lag = rounds.lag().await;
        // On a machine that stands still for seconds it may once have no answer.
        match lag.value {
            Some(lag_ms) => {
                told.push((before_ms, lag_ms.round(), since_ms().round(), lag.source));
            }
            None => eprintln!("after {before_ms} ms: {lag:?}"),
        }
    }
    eprintln!("{}: since the stop, lag told: {told:?}", pair.flavor().name());
    assert_eq!(told.len(), 7, "{told:?}");
    // Beats are half a second apart: that much may be missing, and a little for a busy machine.
    for (before_ms, lag_ms, after_ms, _) in &told {
        assert!((before_ms - 1000.0..=after_ms + 500.0).contains(lag_ms), "{told:?}");
    }
    assert!(told.iter().any(|one| one.3.contains("heartbeat (it does not apply")), "{told:?}");
    pair.start_applying().unwrap();
    let begun = Instant::now();
    rounds.until(LAG, LIMIT, at_ease).await;
    let took = begun.elapsed();
    assert!(took < busy::allows(begun, Duration::from_secs(4)), "back after {took:?}");
}

/// The probe is made anew when its connection is lost: what a replica lacks from before counts.
async fn a_new_probe_knows_at_once(
    pair: &Pair,
    server: &underpin_mysql::MySql,
    spec: &std::sync::Arc<underpin_core::plan::RunSpec>,
    rounds: &mut Rounds,
) {
    pair.stop_applying().unwrap();
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        rounds.read().await;
    }
    *rounds = Rounds::begin(server, spec).await;
    let first = rounds.lag().await;
    assert!(first.value.is_some_and(|lag_ms| lag_ms > 1500.0), "{first:?}");
    pair.start_applying().unwrap();
    rounds.until(LAG, LIMIT, at_ease).await;
}

async fn deliberate_delay(pair: &Pair, rounds: &mut Rounds) {
    pair.delay_replica(4).unwrap();
    let delayed = |reading: &Reading| reading.source.contains("less its delay of 4 s");
    rounds.until(LAG, LIMIT, delayed).await;
    for _ in 0..8 {
        let lag = rounds.lag().await;
        // The server keeps a delay by whole seconds, and may take one more.
        assert!(delayed(&lag) && lag.value.is_some_and(|lag_ms| lag_ms < 2500.0), "{lag:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    pair.delay_replica(0).unwrap();
    rounds.until(LAG, LIMIT, |reading| at_ease(reading) && reading.source == "heartbeat").await;
}

/// A replica that hangs is unreadable soon, and holds up nothing else.
async fn frozen(pair: &Pair, rounds: &mut Rounds) {
    pair.replica.freeze().unwrap();
    let begun = Instant::now();
    let error = |reading: &Reading| reading.error.contains("no answer within");
    rounds.until(LAG, LIMIT, error).await;
    let took = begun.elapsed();
    assert!(took < busy::allows(begun, Duration::from_secs(8)), "after {took:?}");
    let begun = Instant::now();
    let readings = rounds.read().await;
    let took = begun.elapsed();
    assert!(took < busy::allows(begun, Duration::from_millis(1500)), "a round of {took:?}");
    assert!(readings.iter().any(|reading| reading.name == "write-latency"), "{readings:?}");
    pair.replica.thaw().unwrap();
    rounds.until(LAG, LIMIT, at_ease).await;
}

async fn vanished(pair: &Pair, rounds: &mut Rounds) {
    pair.stop_replica().unwrap();
    let gone = rounds.until(LAG, LIMIT, |reading| reading.error.contains("has left")).await;
    assert_eq!((gone.value, gone.of), (None, format!("127.0.0.1:{}", pair.replica.port())));
    pair.start_applying().unwrap();
    rounds.until(LAG, LIMIT, at_ease).await;
}

#[test]
fn where_no_heartbeat_can_arrive_the_replica_is_asked_itself() {
    on_pairs(&BOTH, async |pair, url| {
        pair.stop_replica().unwrap();
        let filter = if pair.flavor().is_mariadb() {
            "SET GLOBAL replicate_wild_ignore_table = 'underpin.%'"
        } else {
            "CHANGE REPLICATION FILTER REPLICATE_WILD_IGNORE_TABLE = ('underpin.%')"
        };
        sql::execute(&pair.replica.url(), vec![filter.to_owned()]).unwrap();
        pair.start_applying().unwrap();
        let replica = pair.replica.url();
        let server = open(&url, "underpin", &[&replica, &url]).await;
        let (spec, _grip) = begin(&server, &url, "app").await;
        let mut rounds = Rounds::begin(&server, &spec).await;
        let itself = |reading: &Reading| {
            reading.source.starts_with("Seconds_Behind_") && reading.value == Some(0.0)
        };
        let told = rounds.until(LAG, LIMIT, itself).await;
        assert!(told.source.contains("filters"), "{told:?}");
        // The second that was named is the server that is changed: no replica.
        let readings = rounds.read().await;
        let other = readings.iter().rfind(|reading| reading.name == LAG).unwrap();
        assert!(other.error.contains("changed itself"), "{other:?}");
        // Here the figure is honest: what came in waits to be applied.
        pair.stop_applying().unwrap();
        let error = |reading: &Reading| reading.error.contains("does not apply");
        rounds.until(LAG, LIMIT, error).await;
    });
}

#[test]
fn a_replica_without_an_address_is_found_where_it_reads_from() {
    let spec = ServerSpec::new(Flavor::MySql97).option("report-host=");
    on_pairs(&[spec], async |pair, url| {
        let server = open(&url, "underpin", &[]).await;
        let (spec, _grip) = begin(&server, &url, "app").await;
        let mut rounds = Rounds::begin(&server, &spec).await;
        let calm = rounds.until(LAG, LIMIT, at_ease).await;
        assert_eq!(calm.of, format!("127.0.0.1:{}", pair.replica.port()));
    });
}
