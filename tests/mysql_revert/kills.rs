//! `kill -9` of the program in each step of the way back, each followed by the same command.

use std::time::Duration;

use underpin_tests::proxy::{Deed, Proxy};
use underpin_tests::runner::story;
use underpin_tests::servers::TestDb;

use crate::bench::{BOTH, Turn, make, start_change, start_turn, take, write};
use crate::mysql_steps::{nothing_left, on_each, rows};

/// Statements of a turn back, in the order in which they come: at each of them the program is killed.
/// What the server says to it nobody hears.
const MOMENTS: [(&[&str], Deed); 11] = [
    // The turn is on record, or about to be.
    (&["^UPDATE", ".runs SET checkpoint"], Deed::Hold),
    (&["^UPDATE", ".runs SET checkpoint"], Deed::CutAfter),
    // Changes are applied.
    (&["INSERT INTO", "underpin_stage"], Deed::Hold),
    (&["DELETE l FROM", "underpin_stage"], Deed::CutAfter),
    // Compared.
    (&["BIT_XOR"], Deed::Hold),
    // What is needed for the way forward is noted.
    (&["^UPDATE", "SET identity"], Deed::Hold),
    (&["LOCK TABLES", "~up_old` WRITE"], Deed::Hold),
    (&["RENAME TABLE"], Deed::CutBefore),
    (&["RENAME TABLE"], Deed::CutAfter),
    // Arrived.
    (&["SELECT COUNT(*) FROM `", "~up_rlog`"], Deed::Hold),
    // A fence, on servers that need one.
    (&["DROP TRIGGER"], Deed::Hold),
];

/// Starts it by way of a proxy and kills it at the statement; false where that does not come.
fn kill_at(db: &TestDb, turn: Turn, words: &[&str], deed: Deed) -> bool {
    let proxy = Proxy::start(&db.endpoints().primary).unwrap();
    let trap = proxy.trap(words, deed);
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

#[test]
fn killed_in_each_step_of_the_way_back_it_goes_on() {
    on_each(&BOTH, async |db| {
        write(
            &db,
            &[
                "CREATE TABLE t (id INT PRIMARY KEY, v INT, old INT NOT NULL DEFAULT 5)",
                "INSERT INTO t VALUES (1,1,10),(2,2,20),(3,3,30)",
            ],
        )
        .await;
        make(&db, "ALTER TABLE t DROP old, ADD n INT NOT NULL DEFAULT 7");
        for (round, (words, deed)) in (10..).zip(MOMENTS) {
            write(&db, &[&format!("UPDATE t SET v = {round} WHERE id = 2")]).await;
            let has_come = kill_at(&db, Turn::Revert, words, deed);
            let fence = words[0] == "DROP TRIGGER";
            let expected = !fence || db.endpoints().flavor.is_mariadb();
            assert_eq!(has_come, expected, "{words:?}");
            write(&db, &[&format!("UPDATE t SET v = {round} WHERE id = 1")]).await;
        }
        take(&db, Turn::Revert);
        let shown = "SELECT CONCAT_WS('/', id, v, old) FROM t ORDER BY id";
        assert_eq!(rows(&db, shown).await, ["1/20/10", "2/20/20", "3/3/30"]);
        // While it goes forward again, and while it is ended.
        write(&db, &["UPDATE t SET v = 21, old = 11 WHERE id = 1"]).await;
        assert!(kill_at(&db, Turn::Again, &["RENAME TABLE"], Deed::CutAfter));
        take(&db, Turn::Again);
        let shown = "SELECT CONCAT_WS('/', id, v, n) FROM t ORDER BY id";
        assert_eq!(rows(&db, shown).await, ["1/21/7", "2/20/7", "3/3/7"]);
        for words in
            [&["DROP TRIGGER"][..], &["DROP TABLE", "~up_old"], &["DROP TABLE", "~up_rlog"]]
        {
            assert!(kill_at(&db, Turn::Finish, words, Deed::Hold), "{words:?}");
            write(&db, &["UPDATE t SET v = v + 1 WHERE id = 3"]).await;
        }
        take(&db, Turn::Finish);
        nothing_left(&db).await;
        assert_eq!(rows(&db, "SELECT CONCAT_WS('/', v, n) FROM t WHERE id = 3").await, ["6/7"]);
    });
}

#[test]
fn killed_before_its_first_swap_it_has_a_way_back_all_the_same() {
    on_each(&BOTH, async |db| {
        write(&db, &["CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1,1)"])
            .await;
        let change = "ALTER TABLE t ADD n INT NOT NULL DEFAULT 7";
        for words in [
            &["CREATE TABLE", "~up_rlog`"][..],
            &["CREATE TRIGGER", "_ru`"],
            &["^UPDATE", "SET identity"],
            &["RENAME TABLE"],
        ] {
            let proxy = Proxy::start(&db.endpoints().primary).unwrap();
            let trap = proxy.trap_nth(words, u32::from(words[0] == "^UPDATE"), Deed::Hold);
            let mut runner = start_change(&proxy.url(db.name()), change);
            while trap.sprung() == 0 && !runner.has_ended().unwrap() {
                std::thread::sleep(Duration::from_millis(2));
            }
            runner.kill9().unwrap();
            trap.release();
        }
        make(&db, change);
        write(&db, &["UPDATE t SET v = 2", "INSERT INTO t (id, v) VALUES (3, 3)"]).await;
        take(&db, Turn::Revert);
        assert_eq!(rows(&db, "SELECT CONCAT(id, v) FROM t ORDER BY id").await, ["12", "33"]);
        take(&db, Turn::Finish);
        nothing_left(&db).await;
    });
}
