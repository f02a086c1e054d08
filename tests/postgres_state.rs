//! What the PostgreSQL dialect keeps and reads beside the rows: the state of runs, who may write, the
//! lag of replicas, the length of the log, and who holds a table.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

mod postgres_steps;

use std::sync::Arc;
use std::time::{Duration, Instant};

use underpin_core::checkpoint::{Checkpoint, Phase};
use underpin_core::machine::Command;
use underpin_core::signal::{LAG, Reading, Setting, WRITE_LATENCY};
use underpin_dialect::{ChangeLog, Database, ErrorKind, Inspect, Origin, Probe, Shadow, Store};
use underpin_postgres::connect::SessionSettings;
use underpin_postgres::options::FileSearch;
use underpin_postgres::{Postgres, options};
use underpin_tests::servers::{Flavor, Pair, ServerSpec, TestDb, pg, sql, wanted};

use postgres_steps::{LIMIT, Steps, on_each, open, request, run};

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text)";
const CHANGE: &str = "ALTER TABLE t ALTER v TYPE varchar(100)";

async fn with_table(db: &TestDb) -> Steps {
    run(&db.client().await.unwrap(), &[TABLE, "INSERT INTO t VALUES (1, 'a'), (2, 'b')"]).await;
    Steps::begin(db, CHANGE).await
}

#[test]
fn a_run_is_found_again_and_closed() {
    on_each(&Flavor::POSTGRES_MATRIX, async |db| {
        let server = open(&db).await;
        let mut control = server.control().await.unwrap();
        // Nothing of ours exists yet.
        assert_eq!(control.open_run("public", "t").await.unwrap(), None);
        assert_eq!(control.runs(None).await.unwrap(), vec![]);

        let steps = with_table(&db).await;
        let stored = control.open_run("public", "t").await.unwrap().unwrap();
        assert!(stored.spec.contains("ALTER v TYPE"), "{}", stored.spec);
        let record = Checkpoint { phase: Phase::Copy, round_next: 7, ..Checkpoint::begin() };
        control.save(&steps.grip, &record).await.unwrap();
        let stored = control.open_run("public", "t").await.unwrap().unwrap();
        assert_eq!(Checkpoint::decode(&stored.checkpoint).unwrap(), record);

        let runs = control.runs(None).await.unwrap();
        assert_eq!(runs.len(), 1);
        assert_eq!((runs[0].table.as_str(), runs[0].state.as_str()), ("public.t", "open"));
        assert!(runs[0].silent_s < 60, "{runs:?}");
        control.close_run("r1", "aborted", "").await.unwrap();
        assert_eq!(control.open_run("public", "t").await.unwrap(), None);
        assert_eq!(control.runs(None).await.unwrap()[0].state, "aborted");
    });
}

#[test]
fn there_is_one_runner_and_its_end_frees_the_table() {
    on_each(&Flavor::POSTGRES_MATRIX, async |db| {
        let steps = with_table(&db).await;
        let mut first = steps.control().await;
        let mut second = steps.control().await;
        first.acquire("public", "t").await.unwrap();
        assert!(second.runs(None).await.unwrap()[0].running);
        second.acquire("public", "u").await.unwrap();
        let error = second.acquire("public", "t").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Fenced);
        let holder = first.control_session().to_string();
        assert!(error.to_string().contains(&holder), "{error}");
        drop(first);
        second.acquire("public", "t").await.unwrap();
    });
}

#[test]
fn a_take_over_waits_for_what_is_in_flight_and_ends_the_older_grip() {
    on_each(&Flavor::POSTGRES_MATRIX, async |db| {
        let steps = with_table(&db).await;
        let worker = db.client().await.unwrap();
        // What every transaction of a worker begins with.
        let fence = "BEGIN; SELECT epoch FROM underpin.fences WHERE run_id = 'r1' FOR SHARE";
        worker.batch_execute(fence).await.unwrap();
        let mut control = steps.control().await;
        let begun = Instant::now();
        let (newer, ()) = tokio::join!(control.take_over("r1"), async {
            // Longer than one lock time-out, so that it is tried again.
            tokio::time::sleep(Duration::from_millis(1500)).await;
            worker.batch_execute("COMMIT").await.unwrap();
        });
        let newer = newer.unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(1500));
        assert_eq!(newer.epoch, steps.grip.epoch + 1);
        let error = control.save(&steps.grip, &Checkpoint::begin()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Fenced, "{error}");
        // The session is of use afterwards.
        control.save(&newer, &Checkpoint::begin()).await.unwrap();
    });
}

#[test]
fn runners_that_begin_at_once_make_one_state() {
    on_each(&Flavor::POSTGRES_MATRIX, async |db| {
        let client = db.client().await.unwrap();
        let server = open(&db).await;
        let mut begun = Vec::new();
        for number in 0..6 {
            run(&client, &[&format!("CREATE TABLE t{number} (id int PRIMARY KEY)")]).await;
            let mut control = server.control().await.unwrap();
            let mut asked = request(&format!("ALTER TABLE t{number} ADD n int"));
            asked.run_id = format!("r{number}");
            let spec = control.plan(&asked).await.unwrap().spec.unwrap();
            begun.push((control, spec));
        }
        let tasks: Vec<_> = begun
            .into_iter()
            .map(|(mut control, spec)| {
                tokio::spawn(async move {
                    control
                        .create_run(
                            &spec,
                            &Checkpoint::begin(),
                            &underpin_dialect::Origin::default(),
                        )
                        .await
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        let mut control = server.control().await.unwrap();
        assert_eq!(control.runs(None).await.unwrap().len(), 6);
    });
}

#[test]
fn a_request_is_heard_once() {
    on_each(&Flavor::POSTGRES_MATRIX, async |db| {
        let steps = with_table(&db).await;
        let mut probe = steps.server.probe(&steps.spec).await.unwrap();
        assert_eq!(probe.requested().await.unwrap(), vec![]);
        let mut control = steps.control().await;
        for command in [Command::Pause, Command::Abort] {
            control.request("r1", &command, "").await.unwrap();
            let orders = probe.requested().await.unwrap();
            let heard: Vec<_> = orders.into_iter().map(|order| order.command).collect();
            assert_eq!(heard, [command]);
            assert_eq!(probe.requested().await.unwrap(), vec![]);
        }
        // A sign of life, where the last one is old.
        let client = db.client().await.unwrap();
        let age = [
            "UPDATE underpin.runs SET updated_at = updated_at - interval '1 hour'",
            "UPDATE underpin.live SET seen_at = seen_at - interval '1 hour'",
        ];
        run(&client, &age).await;
        assert!(control.runs(None).await.unwrap()[0].silent_s >= 3600);
        assert_eq!(probe.requested().await.unwrap(), vec![]);
        assert!(control.runs(None).await.unwrap()[0].silent_s < 60);
    });
}

#[test]
fn orders_stay_on_record_with_who_gave_them() {
    on_each(&Flavor::POSTGRES_MATRIX, async |db| {
        let steps = with_table(&db).await;
        let mut control = steps.control().await;
        let mut probe = steps.server.probe(&steps.spec).await.unwrap();
        let setting = Command::Set(Setting::MaxLoad("it's \\ \"odd\"".into(), Some(2.5)));
        for (command, by) in [(&setting, "ann@desk"), (&Command::Swap, "")] {
            control.request("r1", command, by).await.unwrap();
        }
        let waiting = control.orders("r1").await.unwrap();
        assert!(waiting.iter().all(|order| order.taken_at.is_none()), "{waiting:?}");
        // Another run's are another run's.
        assert_eq!(control.orders("r2").await.unwrap(), vec![]);
        let taken = probe.requested().await.unwrap();
        let what: Vec<_> = taken.iter().map(|one| (&one.command, one.by.as_str())).collect();
        assert_eq!(what, [(&setting, "postgres (ann@desk)"), (&Command::Swap, "postgres")]);
        assert_eq!(control.orders("r1").await.unwrap(), taken);
        assert!(taken.iter().all(|one| one.taken_at.as_ref() >= Some(&one.at)), "{taken:?}");

        // What a newer version may ask for is no reason to stumble.
        let client = db.client().await.unwrap();
        let unknown = "INSERT INTO underpin.orders (run_id, command, given_by) VALUES ('r1', \
                       '{\"dance\": 1}', 'x')";
        run(&client, &[unknown]).await;
        control.request("r1", &Command::Resume, "").await.unwrap();
        let taken = probe.requested().await.unwrap();
        assert_eq!(taken.len(), 1, "{taken:?}");

        control.close_run("r1", "done", "").await.unwrap();
        control.request("r1", &Command::Pause, "").await.unwrap();
        assert_eq!(probe.requested().await.unwrap(), vec![]);
        assert_eq!(control.orders("r1").await.unwrap().len(), 3);
    });
}

#[test]
fn what_a_run_was_and_how_it_fares_is_known_elsewhere() {
    on_each(&Flavor::POSTGRES_MATRIX, async |db| {
        let client = db.client().await.unwrap();
        run(&client, &[TABLE]).await;
        let mut control = open(&db).await.control().await.unwrap();
        let spec = Arc::new(control.plan(&request(CHANGE)).await.unwrap().spec.unwrap());
        let origin =
            Origin { by: "ann@desk".into(), reason: "it's time".into(), ..Origin::default() };
        control.create_run(&spec, &Checkpoint::begin(), &origin).await.unwrap();
        let mut probe = open(&db).await.probe(&spec).await.unwrap();
        for live in ["{\"phase\": \"copy\"}", "{\"phase\": \"it's ready\"}"] {
            probe.publish(live).await.unwrap();
            assert_eq!(control.runs(None).await.unwrap()[0].live, live);
        }
        let open_run = &control.runs(Some(("public", "t"))).await.unwrap()[0];
        assert_eq!(serde_json::from_str::<Origin>(&open_run.origin).unwrap(), origin);
        assert_eq!((open_run.ended_at.clone(), open_run.record.as_str()), (None, ""));
        assert_eq!(control.runs(Some(("public", "u"))).await.unwrap(), vec![]);
        assert_eq!(control.runs(Some(("shop", "t"))).await.unwrap(), vec![]);

        // Closed twice: the end is the first, the record the one that says something.
        control.close_run("r1", "done", "").await.unwrap();
        let first = control.runs(None).await.unwrap()[0].clone();
        assert!(first.ended_at.is_some(), "{first:?}");
        for (record, kept) in [("{\"rows\": 1}", "{\"rows\": 1}"), ("", "{\"rows\": 1}")] {
            control.close_run("r1", "done", record).await.unwrap();
            let closed = &control.runs(None).await.unwrap()[0];
            assert_eq!((&closed.ended_at, closed.record.as_str()), (&first.ended_at, kept));
            assert_eq!((closed.state.as_str(), closed.origin.as_str()), ("done", &*first.origin));
        }
    });
}

/// What the first version made, with a run that is open and one that has ended.
const OLDER_TABLES: &str =
    "DROP TABLE underpin.orders, underpin.history, underpin.live, underpin.beats";
const OLDER_ROWS: &str = "ALTER TABLE underpin.runs ADD COLUMN requested text NOT NULL DEFAULT ''; \
                           INSERT INTO underpin.runs (run_id, schema_name, table_name, state, statement, \
                           spec, checkpoint, runner, ended_at) VALUES ('r0', 'public', 't', 'done', 'x', \
                           '{}', '', 'ann', now())";

#[test]
fn the_state_of_an_older_version_is_read_and_gone_on_with() {
    on_each(&Flavor::POSTGRES_MATRIX, async |db| {
        let steps = with_table(&db).await;
        let client = db.client().await.unwrap();
        run(&client, &[OLDER_TABLES]).await;
        client.batch_execute(OLDER_ROWS).await.unwrap();
        // Its runner is at work: nothing that it holds may be in the way.
        let runner = db.client().await.unwrap();
        run(&runner, &["BEGIN", "UPDATE underpin.runs SET updated_at = now() WHERE run_id = 'r1'"])
            .await;
        let mut control = steps.control().await;
        // Who only reads makes nothing.
        let runs = control.runs(None).await.unwrap();
        let read: Vec<_> = runs.iter().map(|run| (&*run.run_id, run.ended_at.is_some())).collect();
        assert_eq!(read, [("r0", true), ("r1", false)]);
        assert!(runs.iter().all(|run| run.origin.is_empty() && run.live.is_empty()), "{runs:?}");
        assert_eq!(control.orders("r1").await.unwrap(), vec![]);
        let made = "SELECT to_regclass('underpin.orders') IS NULL";
        assert_eq!(postgres_steps::rows(&db, made).await, ["t"]);
        // Who asks for something does.
        control.request("r1", &Command::Pause, "ann").await.unwrap();
        assert_eq!(control.orders("r1").await.unwrap().len(), 1);
        run(&runner, &["COMMIT"]).await;
        client.batch_execute(OLDER_TABLES).await.unwrap();

        // So does who goes on with the run.
        assert!(control.open_run("public", "t").await.unwrap().is_some());
        let grip = control.take_over("r1").await.unwrap();
        assert_eq!(grip.epoch, steps.grip.epoch + 1);
        control.save(&grip, &Checkpoint::begin()).await.unwrap();
        let mut probe = steps.server.probe(&steps.spec).await.unwrap();
        probe.publish("{}").await.unwrap();
        control.request("r1", &Command::Resume, "").await.unwrap();
        assert_eq!(probe.requested().await.unwrap().len(), 1);
        let until = Instant::now() + LIMIT;
        loop {
            let readings = probe.signals(&[]).await.unwrap();
            if readings.iter().any(|reading| reading.name == WRITE_LATENCY) {
                break;
            }
            assert!(Instant::now() < until, "{readings:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        control.close_run("r1", "done", "{\"rows\": 2}").await.unwrap();
        let runs = control.runs(None).await.unwrap();
        let closed = runs.iter().find(|run| run.run_id == "r1").unwrap();
        assert_eq!((closed.live.as_str(), closed.record.as_str()), ("{}", "{\"rows\": 2}"));
    });
}

#[test]
fn the_log_is_counted_as_far_as_it_has_not_been_applied() {
    on_each(&Flavor::POSTGRES_MATRIX, async |db| {
        let steps = with_table(&db).await;
        let mut probe = steps.server.probe(&steps.spec).await.unwrap();
        assert_eq!(probe.backlog().await.unwrap(), 0);
        let mut worker = steps.worker().await;
        steps.copied(&mut worker).await;
        let app = db.client().await.unwrap();
        run(&app, &["INSERT INTO t SELECT g, 'x' FROM generate_series(10, 109) g"]).await;
        assert_eq!(probe.backlog().await.unwrap(), 100);
        worker.apply(&underpin_core::key::Frontier::End, 10_000).await.unwrap();
        assert_eq!(probe.backlog().await.unwrap(), 0);
        // What commits late is waiting all the same, although its number is lower.
        run(&app, &["BEGIN", "INSERT INTO t VALUES (200, 'late')"]).await;
        let other = db.client().await.unwrap();
        run(&other, &["INSERT INTO t VALUES (201, 'early')"]).await;
        worker.apply(&underpin_core::key::Frontier::End, 10_000).await.unwrap();
        run(&app, &["COMMIT"]).await;
        assert_eq!(probe.backlog().await.unwrap(), 1);
        steps.control().await.abort(&steps.spec).await.unwrap();
        assert_eq!(probe.backlog().await.unwrap(), 0);
    });
}

#[test]
fn who_holds_the_table_is_named() {
    on_each(&Flavor::POSTGRES_MATRIX, async |db| {
        let client = db.client().await.unwrap();
        run(&client, &[TABLE]).await;
        let steps = Steps::recorded(&db, CHANGE).await;
        let holder = db.client().await.unwrap();
        let begin =
            ["SET application_name = 'nightly report'", "BEGIN", "LOCK TABLE t IN EXCLUSIVE MODE"];
        run(&holder, &begin).await;
        let error = steps.control().await.prepare(&steps.spec).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::LockNotHad, "{error}");
        let pid: i32 = holder.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        let text = error.to_string();
        for part in [
            &format!("session {pid} of postgres"),
            "nightly report",
            "ExclusiveLock",
            "LOCK TABLE t",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        run(
            &holder,
            &["COMMIT", "BEGIN", "INSERT INTO t VALUES (1, 'x')", "PREPARE TRANSACTION 'batch 7'"],
        )
        .await;
        let error = steps.control().await.prepare(&steps.spec).await.unwrap_err();
        let text = error.to_string();
        for part in ["prepared transaction batch 7", "ROLLBACK PREPARED"] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        run(&holder, &["ROLLBACK PREPARED 'batch 7'"]).await;
        steps.control().await.prepare(&steps.spec).await.unwrap();
    });
}

async fn server(url: &str, replicas: &[String]) -> Postgres {
    let resolved = options::resolve(url, &FileSearch::none(), &|_| None).unwrap();
    let settings = SessionSettings::default();
    Postgres::open(resolved.options, settings, "underpin".to_owned(), replicas.to_vec())
        .await
        .unwrap()
}

/// The lag of each replica.
async fn lags(probe: &mut impl Probe) -> Vec<Reading> {
    let mut readings = probe.signals(&[]).await.unwrap();
    readings.retain(|reading| reading.name == LAG);
    readings
}

/// Reads the lag until it is as wanted.
async fn lag_until(
    probe: &mut impl Probe,
    what: &str,
    wanted: impl Fn(&Reading) -> bool,
) -> Reading {
    let until = Instant::now() + LIMIT;
    loop {
        let readings = lags(probe).await;
        assert_eq!(readings.len(), 1, "{readings:?}");
        if wanted(&readings[0]) {
            return readings[0].clone();
        }
        assert!(Instant::now() < until, "{what}: {readings:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lag_is_told_from_positions_whoever_is_asked() {
    for flavor in [Flavor::PostgresDistro, Flavor::Postgres18] {
        if !wanted(flavor) {
            continue;
        }
        let pair = Pair::start(&ServerSpec::new(flavor)).unwrap();
        let url = format!("{}postgres", pair.primary.url());
        let statements = [TABLE, "CREATE TABLE w (n int)"].map(str::to_owned).to_vec();
        sql::execute(&url, statements).unwrap();
        let replica = format!("postgres://postgres@127.0.0.1:{}/", pair.replica.port());
        for replicas in [vec![], vec![replica]] {
            let server = server(&url, &replicas).await;
            let mut asked = request(CHANGE);
            asked.replicas.clone_from(&replicas);
            let plan = server.control().await.unwrap().plan(&asked).await.unwrap();
            assert_eq!(plan.replicas.len(), 1, "{:?}", plan.replicas);
            let mut probe = server.probe(&Arc::new(plan.spec.unwrap())).await.unwrap();
            // Looked at for a while: this long nothing was written, and that is no lag either.
            let mut looked = Instant::now();
            for _ in 0..25 {
                looked = Instant::now();
                lag_until(&mut probe, "no lag at rest", |one| one.lag_ms() == Some(0)).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }

            pair.stop_applying().unwrap();
            let write = "INSERT INTO w SELECT generate_series(1, 1000)".to_owned();
            sql::execute(&url, vec![write]).unwrap();
            // The server's own figure would stand still here.
            lag_until(&mut probe, "two seconds", |one| one.lag_ms() >= Some(2000)).await;
            // It counts from the last look before the write, and never more than that.
            assert!(looked.elapsed() >= Duration::from_millis(1950), "{:?}", looked.elapsed());
            pair.start_applying().unwrap();
            lag_until(&mut probe, "caught up", |one| one.lag_ms() == Some(0)).await;

            // An idle primary makes no lag, however long.
            tokio::time::sleep(Duration::from_millis(1500)).await;
            let idle = lags(&mut probe).await;
            assert!(idle[0].lag_ms() < Some(1000), "{idle:?}");
        }
        let server = server(&url, &[]).await;
        let plan = server.control().await.unwrap().plan(&request(CHANGE)).await.unwrap();
        let spec = Arc::new(plan.spec.unwrap());
        let mut probe = server.probe(&spec).await.unwrap();
        pair.stop_replica().unwrap();
        let gone = lag_until(&mut probe, "gone", |one| one.lag_ms().is_none()).await;
        assert!(gone.error.contains("left the primary's list"), "{gone:?}");
        // A new connection of the probe's has not forgotten.
        let mut anew = server.probe(&spec).await.unwrap();
        lag_until(&mut anew, "still gone", |one| one.lag_ms().is_none()).await;
        pair.start_applying().unwrap();
        lag_until(&mut probe, "back", |one| one.lag_ms().is_some()).await;

        let off = self::server(&url, &["none".to_owned()]).await;
        let plan = off.control().await.unwrap().plan(&request(CHANGE)).await.unwrap();
        let mut probe = off.probe(&Arc::new(plan.spec.unwrap())).await.unwrap();
        assert_eq!(lags(&mut probe).await, vec![]);
    }
}

#[tokio::test]
async fn replicas_that_the_role_may_not_see_are_spoken_of() {
    let Some(db) = TestDb::new(Flavor::PostgresDistro) else { return };
    if db.replica_url().is_none() {
        return;
    }
    let role = format!("owner_{}", db.name());
    let statements = [
        format!("CREATE ROLE {role} LOGIN"),
        format!("GRANT CREATE ON DATABASE {} TO {role}", db.name()),
        format!("GRANT ALL ON SCHEMA public TO {role}"),
        format!("SET ROLE {role}"),
        TABLE.to_owned(),
    ];
    pg::execute(&db.url(), statements.to_vec()).unwrap();
    let url = db.url().replace("postgres@", &format!("{role}@"));
    for (allowed, expected) in [(false, true), (true, false)] {
        if allowed {
            pg::execute(&db.url(), vec![format!("GRANT pg_monitor TO {role}")]).unwrap();
        }
        let server = server(&url, &[]).await;
        let mut asked = request(CHANGE);
        asked.replicas.clear();
        let plan = server.control().await.unwrap().plan(&asked).await.unwrap();
        let spoken_of = plan.findings.iter().any(|finding| finding.code == "replicas-hidden");
        assert_eq!(spoken_of, expected, "{:?}", plan.findings);
        assert_eq!(plan.replicas.is_empty(), expected, "{:?}", plan.replicas);
        let off = request(CHANGE);
        let plan = server.control().await.unwrap().plan(&off).await.unwrap();
        assert!(!plan.findings.iter().any(|finding| finding.code == "replicas-hidden"));
    }
    let end = ["DROP OWNED BY", "DROP ROLE"].map(|verb| format!("{verb} {role}"));
    pg::execute(&db.url(), end.to_vec()).unwrap();
}

#[tokio::test]
async fn a_server_that_is_no_replica_is_not_taken_for_one() {
    let Some(db) = TestDb::new(Flavor::PostgresDistro) else { return };
    pg::execute(&db.url(), vec![TABLE.to_owned()]).unwrap();
    let itself = options::resolve(&db.url(), &FileSearch::none(), &|_| None).unwrap().options;
    let url = format!("postgres://127.0.0.1:{}/", itself.port);
    let nobody = "postgres://127.0.0.1:1/?connect_timeout=1".to_owned();
    let server = server(&db.url(), &[url, nobody]).await;
    let plan = server.control().await.unwrap().plan(&request(CHANGE)).await.unwrap();
    let mut probe = server.probe(&Arc::new(plan.spec.unwrap())).await.unwrap();
    let readings = lags(&mut probe).await;
    assert_eq!(readings.len(), 2);
    assert!(readings[0].error.contains("no standby"), "{readings:?}");
    assert!(readings[1].error.contains("refused"), "{readings:?}");
    assert!(readings.iter().all(|one| one.lag_ms().is_none()));
}
