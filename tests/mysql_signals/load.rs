//! Load of the server, commit latency and the user's own queries; what the account may not read is left
//! out, and nothing else.

use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use underpin_core::signal::{
    CHECKPOINT, HISTORY, LAG, LOCK_WAITS, RUNNING, Reading, WRITE_LATENCY,
};
use underpin_dialect::{Database, Inspect, OwnQuery};
use underpin_tests::busy;
use underpin_tests::servers::{Flavor, Server, ServerSpec, sql, wanted};

use crate::mysql_steps::run;
use crate::{Rounds, begin, open, runtime, value};

const LIMIT: Duration = Duration::from_secs(30);

/// A server of the test's own each, so that nobody else's statements are counted; side by side.
fn alone(specs: &[ServerSpec], test: impl AsyncFn(String) + Sync) {
    std::thread::scope(|scope| {
        for spec in specs.iter().filter(|spec| wanted(spec.flavor)) {
            scope.spawn(|| {
                let server = Server::start(spec, false).unwrap();
                sql::execute(&server.url(), vec!["CREATE DATABASE app".to_owned()]).unwrap();
                runtime().block_on(test(format!("{}app", server.url())));
            });
        }
    });
}

fn both(option: &str) -> [ServerSpec; 2] {
    [Flavor::MySql97, Flavor::MariaDbDistro].map(|flavor| ServerSpec::new(flavor).option(option))
}

#[test]
fn load_is_that_of_others_and_own_queries_may_only_read() {
    // Without a binary log too.
    alone(&both("skip-log-bin"), async |url| {
        let server = open(&url, "underpin", &[]).await;
        let (spec, grip) = begin(&server, &url, "app").await;
        let mut worker = server.worker(&spec, &grip).await.unwrap();
        let mut rounds = Rounds::begin(&server, &spec).await;
        let calm = rounds.read().await;
        assert!(!calm.iter().any(|reading| reading.name == LAG), "{calm:?}");
        assert_eq!((value(&calm, RUNNING), value(&calm, LOCK_WAITS)), (0.0, 0.0), "{calm:?}");
        assert!((0.0..1000.0).contains(&value(&calm, CHECKPOINT)), "{calm:?}");
        assert!((0.001..5000.0).contains(&value(&calm, WRITE_LATENCY)), "{calm:?}");
        statements_of_others(&url, &mut worker, &mut rounds).await;
        waits_for_locks(&url, &mut rounds).await;
        versions_that_are_kept(&url, &mut rounds).await;
        a_commit_that_cannot_be_made(&url, &mut rounds).await;
        own_queries(&mut rounds).await;
    });
}

async fn statements_of_others(
    url: &str,
    worker: &mut <underpin_mysql::MySql as Database>::Worker,
    rounds: &mut Rounds,
) {
    use underpin_dialect::Copy;
    let mut sleepers = Vec::new();
    for _ in 0..4 {
        let mut conn = sql::connect(url).await.unwrap();
        sleepers.push(tokio::spawn(async move { run(&mut conn, &["DO SLEEP(1.5)"]).await }));
    }
    // Ours is held up on the shadow meanwhile, and is no load of others.
    let mut blocker = sql::connect(url).await.unwrap();
    run(&mut blocker, &["BEGIN", "INSERT INTO `t~up_new` (id, v) VALUES (2, 0)"]).await;
    let (chunks, _) = worker.plan_chunks(None, 100, 1).await.unwrap();
    let (copied, ()) = tokio::join!(worker.copy_chunk(1, &chunks[0]), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let readings = rounds.read().await;
        assert_eq!((value(&readings, RUNNING), value(&readings, LOCK_WAITS)), (4.0, 0.0));
        run(&mut blocker, &["ROLLBACK"]).await;
    });
    copied.unwrap();
    for sleeper in sleepers {
        sleeper.await.unwrap();
    }
}

async fn waits_for_locks(url: &str, rounds: &mut Rounds) {
    let mut holder = sql::connect(url).await.unwrap();
    run(&mut holder, &["CREATE TABLE held (id INT PRIMARY KEY, v INT)"]).await;
    run(&mut holder, &["INSERT INTO held VALUES (1, 1)", "BEGIN", "UPDATE held SET v = 2"]).await;
    let mut waiting = Vec::new();
    for statement in ["UPDATE held SET v = 3", "ALTER TABLE held ADD w INT"] {
        let mut conn = sql::connect(url).await.unwrap();
        waiting.push(tokio::spawn(async move { run(&mut conn, &[statement]).await }));
    }
    // One waits for the row, one for the table.
    rounds.until(LOCK_WAITS, LIMIT, |reading| reading.value == Some(2.0)).await;
    run(&mut holder, &["COMMIT"]).await;
    for one in waiting {
        one.await.unwrap();
    }
    rounds.until(LOCK_WAITS, LIMIT, |reading| reading.value == Some(0.0)).await;
}

async fn versions_that_are_kept(url: &str, rounds: &mut Rounds) {
    let mut reader = sql::connect(url).await.unwrap();
    run(&mut reader, &["START TRANSACTION WITH CONSISTENT SNAPSHOT", "SELECT * FROM held"]).await;
    let before = value(&rounds.read().await, HISTORY);
    let mut writer = sql::connect(url).await.unwrap();
    for _ in 0..200 {
        run(&mut writer, &["UPDATE held SET v = v + 1"]).await;
    }
    let grown = |reading: &Reading| reading.value.is_some_and(|length| length >= before + 150.0);
    rounds.until(HISTORY, LIMIT, grown).await;
    run(&mut reader, &["COMMIT"]).await;
}

/// A server that commits nothing is told, not waited for.
async fn a_commit_that_cannot_be_made(url: &str, rounds: &mut Rounds) {
    let mut keeper = sql::connect(url).await.unwrap();
    run(&mut keeper, &["FLUSH TABLES WITH READ LOCK"]).await;
    let begun = Instant::now();
    let readings = rounds.read().await;
    let latency = readings.iter().find(|reading| reading.name == WRITE_LATENCY).unwrap();
    assert!(latency.value.is_none() && latency.error.contains("imeout"), "{latency:?}");
    let took = begun.elapsed();
    assert!(took < busy::allows(begun, Duration::from_secs(4)), "{took:?}");
    run(&mut keeper, &["UNLOCK TABLES"]).await;
    assert!(value(&rounds.read().await, WRITE_LATENCY) < 1000.0);
}

async fn own_queries(rounds: &mut Rounds) {
    let own = [
        ("queue", "SELECT COUNT(*) + 0.5 FROM t"),
        ("writes", "UPDATE t SET v = 99"),
        ("slow", "SELECT SLEEP(9)"),
        ("word", "SELECT 'many'"),
    ]
    .map(|(name, sql)| OwnQuery { name: name.into(), sql: sql.into() });
    rounds.own = own.to_vec();
    assert_eq!(value(&rounds.read().await, "queue"), 3.5);
    for (name, word) in [("writes", "READ ONLY"), ("word", "MANY")] {
        let refused =
            |one: &Reading| one.value.is_none() && one.error.to_uppercase().contains(word);
        rounds.until(name, LIMIT, refused).await;
    }
    // The slow one is ended by the server and delays no round; the others grow older meanwhile.
    for _ in 0..6 {
        let begun = Instant::now();
        let readings = rounds.read().await;
        let took = begun.elapsed();
        assert!(took < busy::allows(begun, Duration::from_millis(1000)), "{took:?}");
        let age_ms = readings.iter().find(|one| one.name == "queue").unwrap().age_ms;
        assert!(age_ms < 4000, "{readings:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    rounds.own.clear();
    assert!(!rounds.read().await.iter().any(|one| one.name == "queue"));
}

#[test]
fn what_the_account_may_not_read_is_left_out() {
    alone(&[ServerSpec::new(Flavor::MySql97)], async |url| {
        let root = open(&url, "underpin", &["none"]).await;
        let (spec, _grip) = begin(&root, &url, "app").await;
        let account = [
            "CREATE USER poor IDENTIFIED BY ''",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON underpin.* TO poor",
            "GRANT SELECT ON app.* TO poor",
        ];
        sql::execute(&url, account.map(str::to_owned).to_vec()).unwrap();
        let poor = open(&url.replacen("root@", "poor@", 1), "underpin", &["none"]).await;
        let mut rounds = Rounds::begin(&poor, &spec).await;
        for _ in 0..2 {
            let readings = rounds.read().await;
            assert!(readings.iter().all(|reading| reading.error.is_empty()), "{readings:?}");
            assert!(!readings.iter().any(|reading| reading.name == HISTORY), "{readings:?}");
            value(&readings, WRITE_LATENCY);
            value(&readings, CHECKPOINT);
            let running = readings.iter().find(|reading| reading.name == RUNNING).unwrap();
            assert_eq!(running.source, "Threads_running");
            let waits = readings.iter().find(|reading| reading.name == LOCK_WAITS).unwrap();
            assert_eq!(waits.source, "Innodb_row_lock_current_waits");
        }
        let mut control = poor.control().await.unwrap();
        assert_eq!(control.statements("app", "t").await.unwrap(), None);
    });
}

#[test]
fn statements_on_the_table_are_counted_by_the_server() {
    alone(&both("performance-schema=ON"), async |url| {
        let server = open(&url, "underpin", &["none"]).await;
        let (_spec, _grip) = begin(&server, &url, "app").await;
        let mut app = sql::connect(&url).await.unwrap();
        for id in 0..20 {
            let found: Option<u32> =
                app.query_first(format!("SELECT v FROM t WHERE v = {id}")).await.unwrap();
            assert_eq!(found.is_some(), (1..=3).contains(&id));
        }
        run(&mut app, &["UPDATE app.t SET v = 5 WHERE id = 1", "DO 1", COLUMN]).await;
        let mut control = server.control().await.unwrap();
        let stats = control.statements("app", "t").await.unwrap().unwrap();
        let read = stats.iter().find(|one| one.text.starts_with("SELECT `v`")).unwrap();
        assert_eq!((read.calls, read.rows, read.examined), (20, 3, 60), "{read:?}");
        assert_eq!(read.without_index, 20);
        assert!(read.total_ms > 0.0 && !read.digest.is_empty());
        assert!(stats.iter().any(|one| one.text.starts_with("UPDATE `app`")), "{stats:?}");
        let is_strange = |text: &str| text.contains("~up_") || text.starts_with("CREATE TABLE `u`");
        let strange = stats.iter().find(|one| is_strange(&one.text));
        assert!(strange.is_none(), "{strange:?}");
    });
}

/// Names the table's name, but as a column.
const COLUMN: &str = "CREATE TABLE u (t INT)";
