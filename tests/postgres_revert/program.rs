//! The commands, with an application that never stops: a hundred thousand writes go back, the program is
//! killed in each step of the way, and a turn is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use underpin_tests::busy;
use underpin_tests::cli::{self, Called};
use underpin_tests::proxy::{Deed, Proxy};
use underpin_tests::runner::{Runner, story};
use underpin_tests::servers::{Flavor, TestDb, pg};
use underpin_tests::workload::Dice;

use crate::postgres_steps::{on_each, rows, run};

/// How long anything may take that a busy machine does in seconds.
const LIMIT: Duration = Duration::from_secs(300);

/// The longest that the application may stand still.
const STALL_MAX: Duration = Duration::from_millis(200);

/// What goes on with a run that is on record.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Turn {
    Revert,
    Again,
    Finish,
}

fn start_turn(url: &str, turn: Turn) -> Runner {
    let words: &[&str] = match turn {
        Turn::Revert => &["revert", url, "t"],
        Turn::Again => &["resume", "--again", url, "t"],
        Turn::Finish => &["finish", url, "t"],
    };
    Runner::start(words).unwrap()
}

fn make(db: &TestDb, change: &str) {
    let url = db.url();
    let words = ["run", &url, change, "--strategy", "shadow", "--replica", "none", "--yes"];
    let called = cli::call(&[&words[..], &["--finish", "keep"]].concat()).unwrap();
    assert!(called.code() == 0, "{}\n{}", called.complaint(), story(&called.events));
}

fn take(db: &TestDb, turn: Turn) -> Called {
    let called = start_turn(&db.url(), turn).wait(LIMIT).unwrap();
    assert!(called.code() == 0, "{turn:?}: {}\n{}", called.complaint(), story(&called.events));
    called
}

/// Writes the same to `t` and to a mirror of it in each transaction, until it is stopped.
async fn mirror(url: String, number: u64, stop: Arc<AtomicBool>) -> u64 {
    let client = pg::connect(&url).await.unwrap();
    let mut dice = Dice::new(number);
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        let id = dice.below(4000) * 10 + number;
        let words = match dice.below(4) {
            0 => format!("DELETE FROM {{}} WHERE id = {id}"),
            1 => format!(
                "INSERT INTO {{}} (id, v) VALUES ({id}, 'by {number}') ON CONFLICT (id) DO UPDATE SET v = \
                 'over {done}'"
            ),
            _ => format!("UPDATE {{}} SET v = 'at {done}' WHERE id = {id}"),
        };
        let both = ["t", "m"].map(|table| words.replace("{}", table)).join("; ");
        client.batch_execute(&both).await.unwrap_or_else(|error| panic!("{words}: {error:?}"));
        done += 1;
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    done
}

/// Rows of one of the two that the other one has not.
async fn apart(db: &TestDb) -> Vec<String> {
    rows(
        db,
        "SELECT id, v, count(*) FROM (SELECT id, v FROM t UNION ALL SELECT id, v FROM m) AS both_ GROUP BY \
         id, v HAVING count(*) <> 2 LIMIT 5",
    )
    .await
}

fn stall(called: &Called) -> Duration {
    let swap = called.event("swap").unwrap();
    Duration::from_millis(swap["stall_ms"].as_u64().unwrap())
}

/// More than a hundred thousand writes to the new table and to the mirror. Rows whose last digit is 1, 2
/// or 3 are the writers' own.
async fn write_a_hundred_thousand(app: &tokio_postgres::Client) {
    for words in [
        "UPDATE {} SET v = 'new ' || id WHERE id % 10 IN (0, 4, 5, 6)",
        "INSERT INTO {} (id, v) SELECT id + 100000, 'more' FROM m WHERE id < 40000 AND id % 10 > 3",
        "UPDATE {} SET v = 'again' WHERE id % 10 IN (4, 5, 6, 7, 8) OR id > 100000",
        "DELETE FROM {} WHERE id > 120000",
        "UPDATE {} SET v = 'once more' WHERE id % 10 IN (7, 8, 9)",
    ] {
        for table in ["t", "m"] {
            run(app, &[&words.replace("{}", table)]).await;
        }
    }
}

#[test]
fn a_hundred_thousand_writes_go_back_under_writers() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        let app = db.client().await.unwrap();
        run(
            &app,
            &[
                "CREATE TABLE t (id int PRIMARY KEY, v varchar(40) NOT NULL, old int NOT NULL DEFAULT 5)",
                "CREATE INDEX ON t (v); CREATE TABLE m (id int PRIMARY KEY, v varchar(40) NOT NULL)",
                "INSERT INTO t SELECT i, 'first', i FROM generate_series(0, 39999) i",
                "INSERT INTO m SELECT id, v FROM t",
            ],
        )
        .await;
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (1..=3)
            .map(|number| tokio::spawn(mirror(db.url(), number, Arc::clone(&stop))))
            .collect();
        let change =
            "ALTER TABLE t DROP old, ALTER v TYPE varchar(80), ADD n int NOT NULL DEFAULT 7";
        tokio::task::block_in_place(|| make(&db, change));
        write_a_hundred_thousand(&app).await;
        let log = "SELECT format('%I.underpin_return_log', nspname) FROM pg_namespace WHERE nspname ~ \
                   '^underpin_' AND nspname !~ '_old$'";
        let log = rows(&db, log).await;
        let logged = rows(&db, &format!("SELECT count(*) FROM {}", log[0])).await;
        let logged: u64 = logged[0].parse().unwrap();
        assert!(logged > 100_000, "{logged} writes since the swap");
        let begun = Instant::now();
        let reverted = tokio::task::block_in_place(|| take(&db, Turn::Revert));
        let again = tokio::task::block_in_place(|| take(&db, Turn::Again));
        run(
            &app,
            &[
                "UPDATE t SET v = 'third', n = 8 WHERE id % 10 = 9",
                "UPDATE m SET v = 'third' WHERE id % 10 = 9",
            ],
        )
        .await;
        let third = tokio::task::block_in_place(|| take(&db, Turn::Revert));
        stop.store(true, Ordering::Relaxed);
        let mut done = 0;
        for writer in writers {
            done += writer.await.unwrap();
        }
        assert_eq!(apart(&db).await, Vec::<String>::new(), "the old table and what was written");
        let own =
            "SELECT count(*) FROM t WHERE id < 40000 AND id % 10 NOT IN (1, 2, 3) AND old <> id";
        assert_eq!(rows(&db, own).await, ["0"], "values that only the old table knew");
        let stalls = [&reverted, &again, &third].map(stall);
        eprintln!(
            "{logged} writes and {done} transactions beside; the swaps held up for {stalls:?}"
        );
        assert!(done > 100, "{done} transactions");
        let stall_max = busy::allows(begun, STALL_MAX);
        assert!(
            stalls.iter().all(|stall| *stall <= stall_max),
            "{stalls:?}, {stall_max:?} allowed"
        );
        tokio::task::block_in_place(|| take(&db, Turn::Finish));
        nothing_left(&db).await;
        assert_eq!(apart(&db).await, Vec::<String>::new());
    });
}

/// Statements of a turn back, in the order in which they come: at each of them the program is killed.
///
/// None of them is cut: the program would go on by itself, and how far before it is killed the machine decides.
const MOMENTS: [&[&str]; 8] = [
    // The turn is about to be on record.
    &["UPDATE", ".runs SET checkpoint"],
    // Changes are applied: taken out and kept, then written.
    &["underpin_gone"],
    &["underpin_old AS (INSERT"],
    // Compared.
    &["LEFT JOIN", "underpin_n"],
    // The swap.
    &["IN ACCESS EXCLUSIVE MODE"],
    &["SET SCHEMA"],
    &["SET identity"],
    // It is made, and nobody has noted it.
    &[AFTER_THE_SWAP],
];

/// Starts it by way of a proxy and kills it at the statement; false where that does not come.
fn kill_at(db: &TestDb, turn: Turn, words: &[&str]) -> bool {
    let proxy = Proxy::start(&db.endpoints().primary).unwrap();
    let trap = proxy.trap(words, Deed::Hold);
    let mut runner = start_turn(&proxy.url(db.name()), turn);
    while trap.sprung() == 0 && !runner.has_ended().unwrap() {
        std::thread::sleep(Duration::from_millis(2));
    }
    let has_come = trap.sprung() > 0;
    let said = runner.kill9().unwrap();
    trap.release();
    if !has_come {
        eprintln!("{words:?} did not come: {}", story(&said.events));
    }
    has_come
}

/// Part of what is sent first when the swap is made: the run's checkpoint.
const AFTER_THE_SWAP: &str = r#""phase":"arrive""#;

async fn nothing_left(db: &TestDb) {
    let schemas = "SELECT nspname FROM pg_namespace WHERE nspname ~ '^underpin_'";
    assert_eq!(rows(db, schemas).await, Vec::<String>::new());
    let triggers = "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal";
    assert_eq!(rows(db, triggers).await, Vec::<String>::new());
    let open = "SELECT run_id FROM underpin.runs WHERE state = 'open'";
    assert_eq!(rows(db, open).await, Vec::<String>::new());
}

#[test]
fn killed_in_each_step_of_the_way_back_it_goes_on() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        let app = db.client().await.unwrap();
        run(
            &app,
            &[
                "CREATE TABLE t (id int PRIMARY KEY, v int, old int NOT NULL DEFAULT 5)",
                "INSERT INTO t VALUES (1, 1, 10), (2, 2, 20), (3, 3, 30)",
            ],
        )
        .await;
        tokio::task::block_in_place(|| {
            make(&db, "ALTER TABLE t DROP old, ADD n int NOT NULL DEFAULT 7")
        });
        for (round, words) in (10..).zip(MOMENTS) {
            run(&app, &[&format!("UPDATE t SET v = {round} WHERE id = 2")]).await;
            let has_come = tokio::task::block_in_place(|| kill_at(&db, Turn::Revert, words));
            assert!(has_come, "{words:?}");
            run(&app, &[&format!("UPDATE t SET v = {round} WHERE id = 1")]).await;
        }
        tokio::task::block_in_place(|| take(&db, Turn::Revert));
        let shown = "SELECT id, v, old FROM t ORDER BY id";
        assert_eq!(rows(&db, shown).await, ["1/17/10", "2/17/20", "3/3/30"]);
        // The same on the way forward again.
        run(&app, &["UPDATE t SET v = 21, old = 11 WHERE id = 1"]).await;
        let words = &[AFTER_THE_SWAP];
        assert!(tokio::task::block_in_place(|| kill_at(&db, Turn::Again, words)));
        tokio::task::block_in_place(|| take(&db, Turn::Again));
        let shown = "SELECT id, v, n FROM t ORDER BY id";
        assert_eq!(rows(&db, shown).await, ["1/21/7", "2/17/7", "3/3/7"]);
        for words in [&["DROP TRIGGER"][..], &["DROP TABLE"]] {
            let has_come = tokio::task::block_in_place(|| kill_at(&db, Turn::Finish, words));
            assert!(has_come, "{words:?}");
            run(&app, &["UPDATE t SET v = v + 1 WHERE id = 3"]).await;
        }
        tokio::task::block_in_place(|| take(&db, Turn::Finish));
        nothing_left(&db).await;
        assert_eq!(rows(&db, "SELECT v, n FROM t WHERE id = 3").await, ["5/7"]);
    });
}

#[test]
fn an_abort_on_the_way_back_leaves_the_new_table_and_loses_nothing() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        let app = db.client().await.unwrap();
        run(
            &app,
            &[
                "CREATE TABLE t (id int PRIMARY KEY, v int, old int NOT NULL DEFAULT 5)",
                "INSERT INTO t SELECT i, i, i FROM generate_series(1, 1000) i",
            ],
        )
        .await;
        tokio::task::block_in_place(|| {
            make(&db, "ALTER TABLE t DROP old, ADD n int NOT NULL DEFAULT 7")
        });
        run(&app, &["UPDATE t SET v = -id, n = 8"]).await;
        // No runner is alive, and the swap back has not been made.
        let words = &["IN ACCESS EXCLUSIVE MODE"];
        assert!(tokio::task::block_in_place(|| kill_at(&db, Turn::Revert, words)));
        let url = db.url();
        let called = tokio::task::block_in_place(|| cli::call(&["abort", &url, "t"]).unwrap());
        eprintln!("abort before the swap: {} {}", called.code(), called.complaint());
        assert_eq!(rows(&db, "SELECT count(*) FROM t WHERE v = -id AND n = 8").await, ["1000"]);
        run(&app, &["UPDATE t SET v = v - 1 WHERE id <= 10"]).await;
        // The swap back is made, and nobody has noted it.
        let words = &[AFTER_THE_SWAP];
        assert!(tokio::task::block_in_place(|| kill_at(&db, Turn::Revert, words)));
        let live =
            "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'old'";
        assert_eq!(rows(&db, live).await, ["1"], "the swap back is made");
        let called = tokio::task::block_in_place(|| cli::call(&["abort", &url, "t"]).unwrap());
        eprintln!("abort at the swap: {} {}", called.code(), called.complaint());
        tokio::task::block_in_place(|| take(&db, Turn::Revert));
        let all = "SELECT count(*) FILTER (WHERE v = -id), count(*) FILTER (WHERE v = -id - 1), count(*) \
                   FILTER (WHERE old = id) FROM t";
        assert_eq!(rows(&db, all).await, ["990/10/1000"]);
        tokio::task::block_in_place(|| take(&db, Turn::Finish));
        nothing_left(&db).await;
        assert_eq!(rows(&db, all).await, ["990/10/1000"]);
    });
}
