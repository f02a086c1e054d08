//! `abort` leaves the server as it was, proven by a dump before and after: in every phase, by the runner and
//! without one, and where the abort itself is killed half-way.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

mod mysql_steps;

use underpin_tests::cli;
use underpin_tests::proxy::{Deed, Proxy};
use underpin_tests::runner::Runner;
use underpin_tests::servers::{Flavor, TestDb};

use mysql_steps::{LIMIT, make_table, on_each, rows, run, spring, start};

const CHANGE: &str = "ALTER TABLE t ADD n INT NOT NULL DEFAULT 7, ADD KEY later (v)";

/// A statement of each phase; the last ones wait for their swap.
const PHASES: [(&str, &[&str]); 5] = [
    ("prepare", &["CREATE TRIGGER"]),
    ("copy", &["INSERT INTO", ".marks"]),
    ("indexes", &["ADD KEY `later`"]),
    ("verify", &[]),
    ("swap", &[]),
];

/// Everything in the test's database: definitions, identities, counters, rights and rows.
async fn dump(db: &TestDb) -> Vec<String> {
    let here = "TABLE_SCHEMA = DATABASE()";
    let queries = [
        format!("SELECT CONCAT_WS('|', 'table', TABLE_NAME, ENGINE, ROW_FORMAT, AUTO_INCREMENT, CREATE_TIME, TABLE_COLLATION, CREATE_OPTIONS, TABLE_COMMENT) FROM information_schema.TABLES WHERE {here} ORDER BY 1"),
        format!("SELECT CONCAT_WS('|', 'column', TABLE_NAME, ORDINAL_POSITION, COLUMN_NAME, COLUMN_TYPE, COLUMN_DEFAULT, IS_NULLABLE, EXTRA, COLUMN_COMMENT, PRIVILEGES) FROM information_schema.COLUMNS WHERE {here} ORDER BY 1"),
        format!("SELECT CONCAT_WS('|', 'index', TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX, COLUMN_NAME, NON_UNIQUE, SUB_PART, INDEX_COMMENT) FROM information_schema.STATISTICS WHERE {here} ORDER BY 1"),
        "SELECT CONCAT_WS('|', 'trigger', TRIGGER_NAME, EVENT_OBJECT_TABLE, ACTION_ORDER, ACTION_STATEMENT, DEFINER) FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE() ORDER BY 1".to_owned(),
        "SELECT CONCAT_WS('|', 'routine', ROUTINE_NAME, ROUTINE_DEFINITION) FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = DATABASE() ORDER BY 1".to_owned(),
        "SELECT CONCAT_WS('|', 'constraint', TABLE_NAME, CONSTRAINT_NAME, CONSTRAINT_TYPE) FROM information_schema.TABLE_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = DATABASE() ORDER BY 1".to_owned(),
        format!("SELECT CONCAT_WS('|', 'right', GRANTEE, TABLE_NAME, PRIVILEGE_TYPE) FROM information_schema.TABLE_PRIVILEGES WHERE {here} ORDER BY 1"),
        "SELECT CONCAT_WS('|', 'locks', COUNT(*)) FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND STATE LIKE 'Waiting%lock'".to_owned(),
        "SELECT CONCAT_WS('|', 'row', id, u, v) FROM t ORDER BY id".to_owned(),
        "SELECT CONCAT_WS('|', 'row', id) FROM other ORDER BY id".to_owned(),
        "SELECT CONCAT_WS('|', 'open', run_id) FROM underpin.runs WHERE schema_name = DATABASE() AND state = 'open'".to_owned(),
        "SELECT CONCAT_WS('|', 'live', run_id) FROM underpin.live WHERE run_id IN (SELECT run_id FROM underpin.runs WHERE schema_name = DATABASE())".to_owned(),
    ];
    let mut lines = Vec::new();
    for query in queries {
        lines.extend(rows(db, &query).await);
    }
    lines
}

async fn made(db: &TestDb) {
    make_table(db, 300).await;
    let mut conn = db.conn().await.unwrap();
    run(
        &mut conn,
        &[
            "ALTER TABLE t COMMENT = 'the rows', AUTO_INCREMENT = 900",
            "CREATE TABLE other (id INT PRIMARY KEY) COMMENT = 'somebody''s'",
            "INSERT INTO other VALUES (1), (2)",
            "CREATE TRIGGER mine BEFORE INSERT ON other FOR EACH ROW SET NEW.id = NEW.id + 0",
        ],
    )
    .await;
    // The state is there: it stays, as the history.
    let wait = start(&db.url(), CHANGE, &["--swap", "wait"]);
    ended(db, wait, "swap");
}

/// Brings the run to the phase and aborts it beside its runner.
fn ended(db: &TestDb, mut runner: Runner, phase: &str) {
    assert!(runner.wait_phase(phase, LIMIT).unwrap(), "{}", runner.story());
    abort(db);
    let called = runner.wait(LIMIT).unwrap();
    assert!(called.ended.code.is_some(), "{}", called.complaint());
}

/// Gives the abort once more that was killed: it may have come to its end all the same.
fn abort_again(db: &TestDb) {
    let called = cli::call(&["abort", &db.url(), "t"]).unwrap();
    assert!([0, 3].contains(&called.code()), "{}", called.complaint());
}

fn abort(db: &TestDb) {
    let called = cli::call(&["abort", &db.url(), "t"]).unwrap();
    assert!(called.code() == 0, "{}", called.complaint());
}

#[test]
fn an_abort_leaves_the_server_as_it_was() {
    on_each(&Flavor::ALL[..2], async |db| {
        made(&db).await;
        let before = dump(&db).await;
        assert!(before.len() > 300, "{before:?}");
        for (phase, words) in PHASES {
            // Its runner is dead.
            let proxy = Proxy::start(&db.endpoints().primary).unwrap();
            let trap = (!words.is_empty()).then(|| proxy.trap(words, Deed::Hold));
            let mut runner = start(&proxy.url(db.name()), CHANGE, &["--swap", "wait"]);
            match &trap {
                Some(trap) => spring(trap, &mut runner),
                None => assert!(runner.wait_phase(phase, LIMIT).unwrap(), "{}", runner.story()),
            }
            runner.kill9().unwrap();
            drop(proxy);
            abort(&db);
            assert_eq!(dump(&db).await, before, "{phase}, without a runner");
        }
        for phase in ["copy", "swap"] {
            ended(&db, start(&db.url(), CHANGE, &["--swap", "wait"]), phase);
            assert_eq!(dump(&db).await, before, "{phase}, beside the runner");
        }
        // The abort itself is killed half-way, twice: behind the triggers, and behind the shadow.
        for (words, skip) in [("^DROP TABLE", 0), ("^DROP TABLE", 1), ("DROP TRIGGER", 1)] {
            let mut runner = start(&db.url(), CHANGE, &["--swap", "wait"]);
            assert!(runner.wait_phase("swap", LIMIT).unwrap(), "{}", runner.story());
            runner.kill9().unwrap();
            let proxy = Proxy::start(&db.endpoints().primary).unwrap();
            let trap = proxy.trap_nth(&[words], skip, Deed::Hold);
            let mut first = Runner::start(&["abort", &proxy.url(db.name()), "t"]).unwrap();
            spring(&trap, &mut first);
            first.kill9().unwrap();
            drop(proxy);
            abort_again(&db);
            assert_eq!(dump(&db).await, before, "an abort that was killed at {words}");
        }
    });
}
