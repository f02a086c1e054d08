//! How a run with a way back ends: nothing of it is left. And a turn that is left half way: the live table
//! stays, and has everything.

use std::time::{Duration, Instant};

use underpin_tests::catalogue;
use underpin_tests::proxy::{Deed, Proxy, Trap};
use underpin_tests::runner::{Runner, story};
use underpin_tests::servers::TestDb;

use crate::bench::{BOTH, Turn, abort, make, start_change, start_turn, take, write};
use crate::mysql_steps::{LIMIT, nothing_left, on_each, rows, spring};

const CHANGE: &str = "ALTER TABLE t DROP old, ADD n INT NOT NULL DEFAULT 7, ADD CHECK (n > 0)";

const CONTENT: &str = "SELECT CONCAT_WS('/', id, v) FROM t ORDER BY id";

async fn fill(db: &TestDb) {
    write(
        db,
        &[
            "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(20) CHECK (v <> 'x'), old INT \
             DEFAULT 5, KEY (v)) COMMENT 'as it was'",
            "INSERT INTO t (v) VALUES ('a'),('b'),('c'),('d')",
        ],
    )
    .await;
}

fn dump(db: &TestDb) -> Vec<String> {
    catalogue::dump(&db.url(), db.name(), "").unwrap()
}

#[test]
fn nothing_of_it_is_left_whichever_table_stays() {
    on_each(&BOTH, async |db| {
        fill(&db).await;
        let before = dump(&db);
        make(&db, CHANGE);
        let of_ours = dump(&db).len();
        assert_eq!(of_ours, 4 + 6, "two tables, two logs, two sets of triggers: {:?}", dump(&db));
        write(&db, &["UPDATE t SET v = 'bb' WHERE id = 2"]).await;
        take(&db, Turn::Revert);
        assert_eq!(dump(&db).len(), of_ours);
        take(&db, Turn::Finish);
        assert_eq!(dump(&db), before, "finished as it was");
        assert_eq!(rows(&db, CONTENT).await, ["1/a", "2/bb", "3/c", "4/d"]);
        // An abort before the first swap.
        let proxy = Proxy::start(&db.endpoints().primary).unwrap();
        let trap = proxy.trap(&["LOCK TABLES", "~up_new` WRITE"], Deed::Hold);
        let mut runner = start_change(&proxy.url(db.name()), CHANGE);
        spring(&trap, &mut runner);
        assert!(dump(&db).len() >= of_ours, "what is captured after the swap stands before it");
        runner.kill9().unwrap();
        trap.release();
        let aborted = abort(&db);
        assert!(aborted.code() == 0, "{}", aborted.complaint());
        assert_eq!(dump(&db), before, "aborted before the swap");
        make(&db, CHANGE);
        write(&db, &["UPDATE t SET v = 'cc' WHERE id = 3"]).await;
        take(&db, Turn::Finish);
        nothing_left(&db).await;
        assert_eq!(rows(&db, CONTENT).await, ["1/a", "2/bb", "3/cc", "4/d"]);
    });
}

fn end(runner: Runner) -> (i32, String) {
    let called = runner.wait(LIMIT).unwrap();
    (called.code(), format!("{}\n{}", called.complaint(), story(&called.events)))
}

/// A made change, a write since, and a revert that is held at this statement.
async fn revert_held_at(db: &TestDb, words: &[&str]) -> (Proxy, Trap, Runner) {
    fill(db).await;
    make(db, CHANGE);
    write(db, &["UPDATE t SET v = 'back' WHERE id = 2"]).await;
    let proxy = Proxy::start(&db.endpoints().primary).unwrap();
    let trap = proxy.trap(words, Deed::Hold);
    let mut runner = start_turn(&proxy.url(db.name()), Turn::Revert);
    spring(&trap, &mut runner);
    (proxy, trap, runner)
}

#[test]
fn a_revert_that_is_left_loses_nothing_of_the_new_table() {
    on_each(&BOTH, async |db| {
        let (_proxy, trap, runner) = revert_held_at(&db, &["LOCK TABLES", "~up_old` WRITE"]).await;
        // Killed under way, the old table has the row already; then the application goes on.
        runner.kill9().unwrap();
        trap.release();
        assert_eq!(rows(&db, "SELECT v FROM `t~up_old` WHERE id = 2").await, ["back"]);
        write(&db, &["UPDATE t SET v = 'newer' WHERE id = 2"]).await;
        let left = abort(&db);
        assert!(left.code() == 0, "{}", left.complaint());
        // Somebody plays with the old table: that is no write to the table.
        write(&db, &["UPDATE `t~up_old` SET v = 'played' WHERE id = 1"]).await;
        // A sentry and a fence may have been left, and what the old table was given must not come back.
        take(&db, Turn::Finish);
        nothing_left(&db).await;
        assert_eq!(rows(&db, CONTENT).await, ["1/a", "2/newer", "3/c", "4/d"]);
        assert_eq!(rows(&db, "SELECT DISTINCT n FROM t").await, ["7"]);
    });
}

/// Whoever reads exit codes must not take it for made.
#[test]
fn a_turn_that_is_given_up_while_its_program_is_cut_off_is_not_called_made() {
    on_each(&BOTH, async |db| {
        let (proxy, trap, runner) = revert_held_at(&db, &["UPDATE", "underpin_stage"]).await;
        proxy.refuse(true);
        trap.release();
        let left = abort(&db);
        assert!(left.code() == 0, "{}", left.complaint());
        proxy.refuse(false);
        let (code, said) = end(runner);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("the new table stays live"), "{said}");
        assert_eq!(rows(&db, "SELECT DISTINCT n FROM t").await, ["7"]);
        take(&db, Turn::Finish);
        nothing_left(&db).await;
    });
}

/// Asks for the abort, in a thread, and waits until it is on record.
async fn ask_for_abort(db: &TestDb) -> Runner {
    let runner = Runner::start(&["abort", &db.url(), "t"]).unwrap();
    let asked = "SELECT COUNT(*) FROM underpin.orders AS o JOIN underpin.runs AS r ON r.run_id = \
                 o.run_id WHERE r.schema_name = DATABASE() AND r.state = 'open' AND o.command LIKE \
                 '%bort%'";
    let until = Instant::now() + Duration::from_secs(20);
    while rows(db, asked).await == ["0"] {
        assert!(Instant::now() < until, "the abort is not on record");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    runner
}

#[test]
fn an_abort_that_comes_during_the_swap_finds_the_table_as_the_swap_left_it() {
    on_each(&BOTH, async |db| {
        // The swap was quicker.
        let (proxy, trap, runner) = revert_held_at(&db, &["LOCK TABLES", "~up_old` WRITE"]).await;
        let aborting = ask_for_abort(&db).await;
        trap.release();
        let (code, said) = end(runner);
        assert_eq!(code, 0, "{said}");
        let (code, said) = end(aborting);
        assert_ne!(code, 0, "it came too late: {said}");
        assert_eq!(rows(&db, "SELECT DISTINCT old FROM t").await, ["5"], "the old table is live");
        // And again with an abort that comes before: the old table stays live, with what came since.
        write(&db, &["UPDATE t SET v = 'on' WHERE id = 1"]).await;
        let trap = proxy.trap(&["UPDATE", "underpin_stage"], Deed::Hold);
        let mut runner = start_turn(&proxy.url(db.name()), Turn::Again);
        spring(&trap, &mut runner);
        let aborting = ask_for_abort(&db).await;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        trap.release();
        let (code, said) = end(runner);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("the old table stays live"), "{said}");
        let (_, said) = end(aborting);
        assert_eq!(rows(&db, "SELECT DISTINCT old FROM t").await, ["5"], "{said}");
        take(&db, Turn::Finish);
        nothing_left(&db).await;
        assert_eq!(rows(&db, CONTENT).await, ["1/on", "2/back", "3/c", "4/d"]);
    });
}
