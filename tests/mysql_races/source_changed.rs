//! The source is not what it was: emptied, altered, rebuilt, or no longer captured. The run stops with
//! exit code 1, and `abort` leaves the table as somebody else made it.

use underpin_tests::cli::{self, Called};
use underpin_tests::proxy::{Deed, Proxy};
use underpin_tests::runner::story;
use underpin_tests::servers::{Flavor, TestDb};

use crate::mysql_steps::{LIMIT, make_table, nothing_left, on_each, rows, run, spring, start};

const CHANGE: &str = "ALTER TABLE t ADD n INT NOT NULL DEFAULT 7";

/// What somebody else does to the table; `TRIGGER` stands for the name of one of our triggers.
const DEEDS: [&[&str]; 6] = [
    &["TRUNCATE TABLE t"],
    &["ALTER TABLE t ADD extra INT NULL"],
    &["ALTER TABLE t ENGINE = InnoDB, FORCE"],
    &["DROP TRIGGER `TRIGGER`"],
    &[
        "DROP TRIGGER `TRIGGER`",
        "CREATE TRIGGER `TRIGGER` AFTER UPDATE ON t FOR EACH ROW SET @nothing = 1",
    ],
    &["CREATE TABLE other LIKE t", "RENAME TABLE t TO gone, other TO t", "DROP TABLE gone"],
];

async fn trigger_of_updates(db: &TestDb) -> String {
    let query = "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = \
                 DATABASE() AND EVENT_MANIPULATION = 'UPDATE'";
    rows(db, query).await.first().cloned().unwrap()
}

async fn table(db: &TestDb) -> (Vec<String>, Vec<String>) {
    let shape = "SELECT CONCAT_WS(' ', COLUMN_NAME, COLUMN_TYPE) FROM information_schema.COLUMNS WHERE \
                 TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 't' ORDER BY ORDINAL_POSITION";
    (rows(db, shape).await, rows(db, "SELECT CONCAT_WS('/', id, u, v) FROM t ORDER BY id").await)
}

/// Runs a change; when a statement with `words` comes by, `deed` is done to the table first.
async fn stopped_by(db: &TestDb, words: &[&str], deed: &[&str], table_rows: u32) -> Called {
    let mut somebody = db.conn().await.unwrap();
    run(&mut somebody, &["DROP TABLE IF EXISTS t"]).await;
    make_table(db, table_rows).await;
    let proxy = Proxy::start(&db.endpoints().primary).unwrap();
    let trap = proxy.trap(words, Deed::Hold);
    let more = ["--workers", "1", "--verify", "off"];
    let mut runner = start(&proxy.url(db.name()), CHANGE, &more);
    spring(&trap, &mut runner);
    let trigger = trigger_of_updates(db).await;
    for statement in deed {
        run(&mut somebody, &[&statement.replace("TRIGGER`", &format!("{trigger}`"))]).await;
    }
    let left = table(db).await;
    trap.release();
    let called = runner.wait(LIMIT).unwrap();
    assert_eq!(called.code(), 1, "{deed:?}: {}\n{}", called.complaint(), story(&called.events));
    let error = called.event("error").unwrap();
    assert_eq!(error["kind"], "source_changed", "{deed:?}: {error}");
    assert_eq!(table(db).await, left, "{deed:?}");
    let abort = cli::call(&["abort", &db.url(), "t"]).unwrap();
    assert!(abort.code() == 0, "{deed:?}: {}", abort.complaint());
    assert_eq!(table(db).await, left, "{deed:?}");
    nothing_left(db).await;
    called
}

#[test]
fn what_happens_to_the_source_before_the_swap_stops_the_run_under_its_lock() {
    on_each(&Flavor::ALL[..2], async |db| {
        for deed in DEEDS {
            stopped_by(&db, &["LOCK TABLES", "~up_new"], deed, 100).await;
        }
    });
}

#[test]
fn what_happens_to_the_source_while_it_is_copied_stops_the_run_at_the_next_round() {
    on_each(&Flavor::ALL[..2], async |db| {
        // The first round of one worker ends at 8000 rows.
        for deed in [DEEDS[0], DEEDS[4]] {
            let called = stopped_by(&db, &["INSERT INTO", "~up_new` ("], deed, 8100).await;
            let later = called.events.iter().find(|event| event["phase"] == "swap");
            assert!(later.is_none(), "noticed at the swap only: {deed:?}");
        }
    });
}
