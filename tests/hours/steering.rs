//! Orders from another process: each takes effect within a second. And what a paused run holds: nothing.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use underpin_tests::busy;
use underpin_tests::cli;
use underpin_tests::runner::Runner;
use underpin_tests::servers::{Flavor, TestDb, sql};

use super::{LIMIT, Session, change, is, is_pause, make_table, ms};

/// From the moment at which a person has pressed Enter.
const WITHIN: Duration = Duration::from_secs(1);
/// An order is given by a program as large as a look, waits for the next beat of the run and is carried out
/// by it: on a machine at rest a look takes 60 to 100 ms, an order 300 ms.
const LOOKS: u32 = 6;

/// What the copy may do at first: so slow that it lasts until it is told otherwise.
const SLOW_ROWS_PER_S: &str = "4000";
const ROWS: u32 = 80_000;

fn start(db: &TestDb, more: &[&str]) -> Runner {
    let url = db.url();
    let flavor = db.endpoints().flavor;
    let mut words = vec!["run", &url, change(flavor), "--strategy", "shadow", "--replica", "none"];
    words.extend(["--yes", "--rate", SLOW_ROWS_PER_S, "--chunk-time", "100ms"]);
    words.extend(more);
    Runner::start(&words).unwrap()
}

/// Gives an order from a process of its own, and waits until the runner says what `wanted` accepts. The
/// time from before the process was started.
fn order(
    db: &TestDb,
    runner: &mut Runner,
    words: &[&str],
    wanted: impl Fn(&Value) -> bool,
) -> Duration {
    let url = db.url();
    let mut line = vec![words[0], &url, "t"];
    line.extend(&words[1..]);
    let from = runner.events().len();
    thread::scope(|scope| {
        let begun = Instant::now();
        let ordering = scope.spawn(|| cli::call(&line).unwrap());
        let until = begun + LIMIT;
        loop {
            let events = runner.events();
            if events.get(from..).unwrap_or_default().iter().any(&wanted) {
                break;
            }
            assert!(Instant::now() < until, "{words:?}: {}", runner.story());
            thread::sleep(Duration::from_millis(2));
        }
        let took = begun.elapsed();
        let called = ordering.join().unwrap();
        assert!(called.code() == 0, "{words:?}: {}", called.complaint());
        eprintln!("  {:<24} effective after {} ms", words.join(" "), ms(took));
        took
    })
}

/// Within a second, or what that is on a busy machine; where a mere look at the runs takes a good part of it,
/// within some such looks.
fn ensure_soon(db: &TestDb, took: Duration) {
    if Instant::now().checked_sub(took).is_some_and(|begun| took < busy::allows(begun, WITHIN)) {
        return;
    }
    let begun = Instant::now();
    cli::call(&["list", &db.url()]).unwrap();
    let look = begun.elapsed();
    assert!(took < look * LOOKS, "{took:?}, while a look takes {look:?}");
}

/// How far the copy is, as a number that grows.
fn copied(db: &TestDb) -> i64 {
    let (url, query) = (db.url(), super::watch::copied_query(&db.url()));
    sql::block_on(async move { Session::open(&url).await?.number(query).await })
        .unwrap()
        .unwrap_or(0)
}

/// How far it goes in a second.
fn speed(db: &TestDb) -> i64 {
    let before = copied(db);
    thread::sleep(Duration::from_secs(1));
    copied(db) - before
}

/// What is held by sessions on this server, as words: transactions with or without a snapshot, locks on
/// rows and tables. The locks by which a run shows that it is alive are on names, not on tables.
fn held_queries(flavor: Flavor, db: &str) -> Vec<String> {
    if flavor.is_postgres() {
        return vec![
            "SELECT 'transaction', pid, xact_start, backend_xmin, backend_xid, state, left(query, 80) FROM \
             pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND (xact_start \
             IS NOT NULL OR backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) AND backend_type = \
             'client backend'"
                .into(),
            "SELECT 'lock', pid, relation::regclass, mode FROM pg_locks WHERE locktype <> 'advisory' AND \
             database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND pid <> \
             pg_backend_pid()"
                .into(),
            "SELECT 'prepared', gid FROM pg_prepared_xacts WHERE database = current_database() UNION ALL \
             SELECT 'slot', slot_name FROM pg_replication_slots WHERE database = current_database()"
                .into(),
        ];
    }
    let mut queries = vec![
        "SELECT 'transaction', trx_mysql_thread_id, trx_id, trx_started, trx_query FROM \
         information_schema.INNODB_TRX WHERE trx_mysql_thread_id <> CONNECTION_ID()"
            .to_owned(),
    ];
    if !flavor.is_mariadb() {
        queries.push(format!(
            "SELECT 'row lock', THREAD_ID, OBJECT_NAME, LOCK_TYPE, LOCK_MODE FROM \
             performance_schema.data_locks WHERE OBJECT_SCHEMA = '{db}'"
        ));
        queries.push(format!(
            "SELECT 'table lock', OWNER_THREAD_ID, OBJECT_NAME, LOCK_TYPE FROM \
             performance_schema.metadata_locks WHERE OBJECT_SCHEMA = '{db}' AND OBJECT_TYPE = 'TABLE' AND \
             OWNER_THREAD_ID <> PS_CURRENT_THREAD_ID()"
        ));
    }
    queries
}

/// Looks of which each saw it: what is seen in so many one after the other stays.
const STAYS: u32 = 3;

/// What stays while the run is looked at for two seconds. Readings of signals come and go.
fn staying(db: &TestDb) -> Vec<String> {
    let (url, queries) = (db.url(), held_queries(db.endpoints().flavor, db.name()));
    sql::block_on(async move {
        let mut session = Session::open(&url).await?;
        let mut seen: HashMap<String, u32> = HashMap::new();
        let mut staying = Vec::new();
        for _ in 0..8 {
            let mut now = HashMap::new();
            for query in &queries {
                for row in session.rows(query).await? {
                    let times = seen.get(&row).copied().unwrap_or(0) + 1;
                    if times == STAYS {
                        staying.push(row.clone());
                    }
                    now.insert(row, times);
                }
            }
            seen = now;
            tokio::time::sleep(Duration::from_millis(220)).await;
        }
        Ok(staying)
    })
    .unwrap()
}

/// Every table of the run can be had for oneself at once.
fn everything_is_free(db: &TestDb) {
    let flavor = db.endpoints().flavor;
    let statements = if flavor.is_postgres() {
        vec![
            "DO $$ DECLARE one regclass; BEGIN SET LOCAL lock_timeout = '500ms'; FOR one IN SELECT c.oid FROM \
             pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND (n.nspname = \
             'public' OR n.nspname LIKE 'underpin\\_%') LOOP EXECUTE format('LOCK TABLE %s IN ACCESS \
             EXCLUSIVE MODE', one); END LOOP; END $$"
                .to_owned(),
        ]
    } else {
        vec![
            "SET lock_wait_timeout = 1".to_owned(),
            "LOCK TABLES t WRITE, `t~up_new` WRITE, `t~up_log` WRITE".to_owned(),
            "UNLOCK TABLES".to_owned(),
        ]
    };
    sql::execute(&db.url(), statements).unwrap();
}

/// That the looks would see what a run could hold.
fn the_looks_see(db: &TestDb) {
    let (url, flavor) = (db.url(), db.endpoints().flavor);
    let (told, done) = std::sync::mpsc::channel::<()>();
    let (ready, is_ready) = std::sync::mpsc::channel::<()>();
    let holding = thread::spawn(move || {
        sql::block_on(async move {
            let mut session = Session::open(&url).await?;
            let begin = if flavor.is_postgres() {
                "BEGIN ISOLATION LEVEL REPEATABLE READ"
            } else {
                "BEGIN"
            };
            session.run(begin).await?;
            session.rows("SELECT id FROM t WHERE id = 1 FOR UPDATE").await?;
            let _told = ready.send(());
            let _done = done.recv();
            session.run("ROLLBACK").await
        })
    });
    is_ready.recv().unwrap();
    let seen = staying(db);
    drop(told);
    holding.join().unwrap().unwrap();
    let kinds = |kind: &str| seen.iter().filter(|row| row.starts_with(kind)).count();
    assert!(kinds("transaction") > 0, "{seen:?}");
    if flavor.is_postgres() {
        assert!(kinds("lock") > 0, "{seen:?}");
    } else if !flavor.is_mariadb() {
        assert!(kinds("row lock") > 0 && kinds("table lock") > 0, "{seen:?}");
    }
}

/// `pause`, `resume`, `set`, `swap`.
pub fn takes_effect_at_once(flavor: Flavor) {
    let Some(db) = TestDb::new(flavor) else { return };
    eprintln!("{}", flavor.name());
    make_table(flavor, &db.url(), ROWS);
    the_looks_see(&db);
    let mut runner = start(&db, &["--swap", "wait"]);
    runner.wait_for(LIMIT, |event| event["rows_copied"].as_u64() > Some(4000)).unwrap().unwrap();

    let begun = Instant::now();
    let took = order(&db, &mut runner, &["pause"], |event| is_pause(event, "asked"));
    ensure_soon(&db, took);
    thread::sleep((begun + WITHIN).saturating_duration_since(Instant::now()));
    let at = copied(&db);
    let held = staying(&db);
    assert!(held.is_empty(), "a paused run holds: {held:#?}");
    everything_is_free(&db);
    assert_eq!(copied(&db), at, "it went on");
    let paused = runner.events();
    let paused = paused.iter().find(|event| is_pause(event, "asked")).unwrap();
    assert!(paused["reason"].as_str().unwrap().contains("resume"), "{paused}");

    let begun = Instant::now();
    let took = order(&db, &mut runner, &["resume"], |event| is(event, "resumed"));
    ensure_soon(&db, took);
    while copied(&db) == at {
        assert!(begun.elapsed() < LIMIT, "nothing moves");
        thread::sleep(Duration::from_millis(20));
    }
    eprintln!("  rows moved after {} ms", ms(begun.elapsed()));
    ensure_soon(&db, begun.elapsed());

    thread::sleep(Duration::from_secs(1));
    let slow = speed(&db);
    let begun = Instant::now();
    let took = order(&db, &mut runner, &["set", "rate=16000"], |event| is(event, "ordered"));
    ensure_soon(&db, took);
    thread::sleep((begun + WITHIN).saturating_duration_since(Instant::now()));
    let fast = speed(&db);
    eprintln!("  speed {slow} before, {fast} from a second after the order");
    assert!(fast > slow * 2, "{slow} rows/s before, {fast} rows/s from {WITHIN:?} after the order");

    order(&db, &mut runner, &["set", "rate=off"], |event| is(event, "ordered"));
    runner.wait_for(LIMIT, |event| is_pause(event, "swap-asked")).unwrap().unwrap();
    thread::sleep(Duration::from_millis(300));
    assert!(runner.find(|event| is(event, "swap")).is_none(), "swapped unasked");
    let held = staying(&db);
    assert!(held.is_empty(), "a run that waits for the swap holds: {held:#?}");
    let took = order(&db, &mut runner, &["swap"], |event| is(event, "swap"));
    ensure_soon(&db, took);
    let called = runner.wait(LIMIT).unwrap();
    assert!(called.code() == 0, "{}", called.complaint());
    let ordered: Vec<&Value> = called.events.iter().filter(|event| is(event, "ordered")).collect();
    let commands: Vec<&str> =
        ordered.iter().filter_map(|event| event["command"].as_str()).collect();
    // `off` takes both bounds away, on rows and on bytes.
    assert_eq!(commands[..3], ["pause", "resume", "set rate=16000"], "{commands:?}");
    assert_eq!(commands.last(), Some(&"swap"), "{commands:?}");
    for event in ordered {
        let word = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
        assert!(word("by").contains('@') && word("ordered_at").starts_with("20"), "{event}");
    }
    let waits = called.ended.done["waits"].as_array().unwrap();
    for kind in ["asked", "swap-asked"] {
        assert!(waits.iter().any(|wait| wait["kind"] == kind), "{kind}: {waits:?}");
    }
}

/// `abort`.
pub fn abort_takes_effect_at_once(flavor: Flavor) {
    let Some(db) = TestDb::new(flavor) else { return };
    eprintln!("{}", flavor.name());
    make_table(flavor, &db.url(), ROWS / 2);
    let mut runner = start(&db, &[]);
    runner.wait_for(LIMIT, |event| event["rows_copied"].as_u64() > Some(3000)).unwrap().unwrap();
    let took = order(&db, &mut runner, &["abort"], |event| {
        is(event, "stopped") && event["ending"] == "aborted"
    });
    ensure_soon(&db, took);
    let called = runner.wait(LIMIT).unwrap();
    assert_ne!(called.code(), 0);
    let left = if flavor.is_postgres() {
        "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'underpin\\_%'"
    } else {
        "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME <> 't'"
    };
    let url = db.url();
    let left = sql::block_on(async move { Session::open(&url).await?.rows(left).await }).unwrap();
    assert_eq!(left, Vec::<String>::new());
}
