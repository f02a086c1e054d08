//! What is read of PostgreSQL servers around a run: lag, the time a write takes, load, what runs out, the
//! user's own queries; and what the server counts of statements.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

mod postgres_steps;

#[path = "postgres_signals/pair.rs"]
mod pair;
#[path = "postgres_signals/statements.rs"]
mod statements;

use std::time::{Duration, Instant};

use underpin_core::signal::{
    ARCHIVE, CHECKPOINT, HISTORY, LAG, LOCK_WAITS, RUNNING, Reading, SLOT_BYTES, SLOT_SHARE,
    WRITE_LATENCY,
};
use underpin_dialect::{Database, OwnQuery, Probe};
use underpin_postgres::Postgres;
use underpin_tests::busy;
use underpin_tests::servers::{Flavor, TestDb, pg};

use crate::postgres_steps::{Steps, on_each, open_through, request, rows, run};

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text)";
const CHANGE: &str = "ALTER TABLE t ALTER v TYPE varchar(100)";

type TheProbe = <Postgres as Database>::Probe;

/// The reading of one signal, whoever it is of.
fn of<'a>(readings: &'a [Reading], name: &str) -> Option<&'a Reading> {
    readings.iter().find(|reading| reading.name == name)
}

/// Its value.
fn value(readings: &[Reading], name: &str) -> f64 {
    let reading = of(readings, name).unwrap_or_else(|| panic!("no {name} in {readings:?}"));
    reading.value.unwrap_or_else(|| panic!("{reading:?}"))
}

/// Reads until something holds.
async fn until(
    probe: &mut TheProbe,
    what: &str,
    holds: impl Fn(&[Reading]) -> bool,
) -> Vec<Reading> {
    let begun = Instant::now();
    loop {
        let readings = probe.signals(&[]).await.unwrap();
        if holds(&readings) {
            return readings;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}: {readings:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn own(name: &str, sql: &str) -> OwnQuery {
    OwnQuery { name: name.to_owned(), sql: sql.to_owned() }
}

#[test]
fn signals_are_read_without_a_trace_in_the_way_of_vacuum() {
    on_each(&Flavor::POSTGRES_MATRIX, async |db| {
        let client = db.client().await.unwrap();
        run(&client, &[TABLE, "CREATE TABLE queue (n int)", "INSERT INTO queue VALUES (7)"]).await;
        let steps = Steps::recorded(&db, CHANGE).await;
        let mut probe = steps.server.probe(&steps.spec).await.unwrap();
        let queries = [
            own("queue", "SELECT n FROM queue"),
            own("slow", "SELECT pg_sleep(60)"),
            own("writes", "DELETE FROM queue RETURNING n"),
            own("words", "SELECT 'many'"),
        ];
        // The slow one keeps the first round waiting for a while, and no round after it for long.
        probe.signals(&queries).await.unwrap();
        let begun = Instant::now();
        let readings = probe.signals(&queries).await.unwrap();
        let took = begun.elapsed();
        assert!(took < busy::allows(begun, Duration::from_millis(1200)), "{took:?}");
        tokio::time::sleep(Duration::from_secs(1)).await;
        let later = probe.signals(&queries).await.unwrap();
        assert!(value(&readings, WRITE_LATENCY) > 0.0, "{readings:?}");
        for name in [RUNNING, LOCK_WAITS, HISTORY, SLOT_BYTES, CHECKPOINT] {
            assert!(value(&readings, name) >= 0.0, "{readings:?}");
        }
        // This server archives nothing, keeps back any amount, and its replicas are not asked for.
        for name in [ARCHIVE, SLOT_SHARE, LAG] {
            assert_eq!(of(&readings, name), None);
        }
        assert_eq!(of(&later, "queue").unwrap().value, Some(7.0), "{later:?}");
        for (name, says) in [("slow", "timeout"), ("writes", "read-only"), ("words", "no number")] {
            let reading = of(&later, name).unwrap();
            assert!(reading.value.is_none() && reading.error.contains(says), "{reading:?}");
        }

        // A quarter of an hour's worth of writes: the row stays in its page and no index grows.
        // Nobody's snapshot is in the way: the slow query is given up after two seconds.
        let asleep = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = \
                      'active' AND query LIKE 'SELECT pg_sleep%'";
        while rows(&db, asleep).await != ["0"] {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let write = "UPDATE underpin.beats SET beat = beat + 1, beat_at = clock_timestamp()";
        for _ in 0..2000 {
            client.batch_execute(write).await.unwrap();
        }
        for _ in 0..20 {
            probe.signals(&[]).await.unwrap();
        }
        let sizes = "SELECT pg_relation_size('underpin.beats'), pg_relation_size('underpin.beats_pkey'), \
                     (SELECT beat > 2020 FROM underpin.beats)";
        assert_eq!(rows(&db, sizes).await, ["8192/16384/t"]);
        // Between two rounds nothing of the probe's holds back vacuum, nor holds any lock.
        let held = "SELECT count(*) FROM pg_stat_activity a WHERE datname = current_database() AND \
                    application_name LIKE 'underpin%' AND (backend_xmin IS NOT NULL OR backend_xid IS NOT \
                    NULL OR state <> 'idle' OR EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND \
                    l.locktype <> 'advisory'))";
        assert_eq!(rows(&db, held).await, ["0"]);
    });
}

#[test]
fn load_is_the_applications_and_not_ours() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        let client = db.client().await.unwrap();
        run(&client, &[TABLE, "INSERT INTO t VALUES (1, 'x')"]).await;
        let steps = Steps::recorded(&db, CHANGE).await;
        let mut probe = steps.server.probe(&steps.spec).await.unwrap();
        // Other tests use this server too: what is theirs comes and goes.
        let old = db.client().await.unwrap();
        run(&old, &["BEGIN", "UPDATE t SET v = 'y' WHERE id = 1"]).await;
        let mut waiting = Vec::new();
        for _ in 0..3 {
            let session = db.client().await.unwrap();
            waiting.push(tokio::spawn(async move {
                session.batch_execute("UPDATE t SET v = 'z' WHERE id = 1").await.unwrap();
            }));
        }
        for number in 0..60 {
            run(&client, &[&format!("INSERT INTO t VALUES ({}, 'n')", number + 10)]).await;
        }
        let readings = until(&mut probe, "three wait", |readings| {
            value(readings, LOCK_WAITS) >= 3.0 && value(readings, RUNNING) >= 3.0
        })
        .await;
        assert!(value(&readings, HISTORY) >= 60.0, "{readings:?}");
        run(&old, &["COMMIT"]).await;
        for session in waiting {
            session.await.unwrap();
        }
        until(&mut probe, "nobody waits", |readings| value(readings, LOCK_WAITS) < 3.0).await;

        // A statement of our own, as long as it may take, is not counted.
        let before = quietest(&mut probe).await;
        let mut other = steps.server.probe(&steps.spec).await.unwrap();
        let slow = [own("slow", "SELECT pg_sleep(1.5) IS NULL")];
        let busy = tokio::spawn(async move { other.signals(&slow).await.unwrap() });
        let at_work = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state \
                       = 'active' AND query LIKE 'SELECT pg_sleep%'";
        while rows(&db, at_work).await != ["1"] {
            assert!(!busy.is_finished(), "it was not seen at work");
        }
        let during = quietest(&mut probe).await;
        assert_eq!(rows(&db, at_work).await, ["1"]);
        assert_eq!(of(&busy.await.unwrap(), "slow").unwrap().value, Some(0.0));
        assert!(during <= before, "{during} were running, {before} before");
    });
}

/// The least that ran in some rounds: other tests use the server too.
async fn quietest(probe: &mut TheProbe) -> f64 {
    let mut least = f64::MAX;
    for _ in 0..5 {
        let running = value(&probe.signals(&[]).await.unwrap(), RUNNING);
        least = if running < least { running } else { least };
    }
    least
}

#[tokio::test]
async fn what_a_role_may_not_see_is_left_out() {
    let Some(db) = TestDb::new(Flavor::PostgresDistro) else { return };
    let role = format!("owner_{}", db.name());
    let statements = [
        format!("CREATE ROLE {role} LOGIN"),
        format!("GRANT CREATE ON DATABASE {} TO {role}", db.name()),
        format!("GRANT ALL ON SCHEMA public TO {role}"),
        format!("SET ROLE {role}"),
        TABLE.to_owned(),
    ];
    pg::execute(&db.url(), statements.to_vec()).unwrap();
    let server = open_through(&db.url().replace("postgres@", &format!("{role}@"))).await;
    let steps = Steps::recorded_at(server, &request(CHANGE)).await;
    for (grants, seen) in [("", false), ("GRANT pg_monitor TO", true)] {
        if !grants.is_empty() {
            pg::execute(&db.url(), vec![format!("{grants} {role}")]).unwrap();
        }
        let mut probe = steps.server.probe(&steps.spec).await.unwrap();
        let readings = probe.signals(&[]).await.unwrap();
        for name in [RUNNING, LOCK_WAITS, HISTORY] {
            assert_eq!(of(&readings, name).is_some(), seen, "{readings:?}");
        }
        for name in [WRITE_LATENCY, SLOT_BYTES, CHECKPOINT] {
            assert!(of(&readings, name).is_some(), "{readings:?}");
        }
    }
    // A table that is not ours to write to: then the signal is left out, and the others are there.
    let state = format!("REVOKE ALL ON underpin.beats FROM {role}");
    let owner = "ALTER TABLE underpin.beats OWNER TO postgres".to_owned();
    pg::execute(&db.url(), vec![owner, state]).unwrap();
    let mut probe = steps.server.probe(&steps.spec).await.unwrap();
    let readings = probe.signals(&[]).await.unwrap();
    assert_eq!(of(&readings, WRITE_LATENCY), None);
    assert!(of(&readings, CHECKPOINT).is_some());
    drop((probe, steps));
    let end = [format!("DROP OWNED BY {role} CASCADE"), format!("DROP ROLE {role}")];
    pg::execute(&db.url(), end.to_vec()).unwrap();
}
