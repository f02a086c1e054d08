//! Around the swap's lock: what comes just before it, takes too long under it, or comes after it.

use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use underpin_tests::prober::Prober;
use underpin_tests::proxy::{Deed, Proxy, Trap};
use underpin_tests::runner::story;
use underpin_tests::servers::{Flavor, TestDb, sql};
use underpin_tests::{busy, cli};

use crate::mysql_steps::{
    LIMIT, make_table, named, nothing_left, on_each_alone, rows, run, spring, start, succeed,
};

const CHANGE: &str = "ALTER TABLE t ADD n INT NOT NULL DEFAULT 7";

const CONTENT: &str = "SELECT CONCAT_WS('/', id, COALESCE(u, 'null'), v) FROM t ORDER BY id";

/// A trap on the swap's LOCK TABLES.
fn at_the_lock(proxy: &Proxy) -> Trap {
    proxy.trap(&["LOCK TABLES", "~up_new` WRITE"], Deed::Hold)
}

/// Every kind of change, one unique swap and a change of the key among them.
const CHANGES: [&str; 9] = [
    "INSERT INTO t (id, u, v) VALUES (2001, 1, 'new')",
    "UPDATE t SET v = 'changed' WHERE id <= 5",
    "DELETE FROM t WHERE id = 6",
    "UPDATE t SET id = 3000 WHERE id = 7",
    "BEGIN",
    "UPDATE t SET u = NULL WHERE id = 8",
    "UPDATE t SET u = 80 WHERE id = 9",
    "UPDATE t SET u = 90 WHERE id = 8",
    "COMMIT",
];

#[test]
fn what_is_pending_at_the_lock_arrives_and_keeps_its_first_draw() {
    on_each_alone(&Flavor::ALL, async |db| {
        make_table(&db, 2000).await;
        let proxy = Proxy::start(&db.endpoints().primary).unwrap();
        let trap = at_the_lock(&proxy);
        // a column whose default is another at each draw, and an index that is built after the copy
        let change = "ALTER TABLE t ADD drawn TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6), ADD \
                      KEY (v)";
        let mut runner = start(&proxy.url(db.name()), change, &["--swap-budget", "5s"]);
        spring(&trap, &mut runner);
        let draws = "SELECT drawn FROM {t} WHERE id IN (1, 2, 3, 8, 9, 10, 1999) ORDER BY id";
        let first = rows(&db, &draws.replace("{t}", "`t~up_new`")).await;
        let mut app = db.conn().await.unwrap();
        run(&mut app, &CHANGES).await;
        let expected = rows(&db, CONTENT).await;
        trap.release();
        let called = succeed(runner);
        let swap = called.event("swap").unwrap();
        assert_eq!(swap["drained"], 12, "{swap}");
        assert_eq!(rows(&db, CONTENT).await, expected);
        assert_eq!(rows(&db, &draws.replace("{t}", "t")).await, first, "drawn anew");
        nothing_left(&db).await;
    });
}

/// Whoever queues for the table before the RENAME of another session goes first: his TRUNCATE would empty
/// the old table, and the new one would bring every row back.
#[test]
fn somebody_who_queues_before_the_rename_is_let_through_first() {
    let two_sessions: Vec<Flavor> = Flavor::ALL.into_iter().filter(|f| f.is_mariadb()).collect();
    on_each_alone(&two_sessions, async |db| {
        make_table(&db, 2000).await;
        let proxy = Proxy::start(&db.endpoints().primary).unwrap();
        let rename = proxy.trap(&["RENAME TABLE"], Deed::Hold);
        let mut runner = start(&proxy.url(db.name()), CHANGE, &[]);
        spring(&rename, &mut runner);
        let mut other = db.conn().await.unwrap();
        let truncating = tokio::spawn(async move { other.query_drop("TRUNCATE TABLE t").await });
        let waiting = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND \
                       INFO LIKE 'TRUNCATE%' AND STATE LIKE 'Waiting for table metadata lock%'";
        let until = Instant::now() + Duration::from_millis(600);
        while rows(&db, waiting).await == ["0"] {
            assert!(Instant::now() < until, "the TRUNCATE does not wait");
        }
        rename.release();
        truncating.await.unwrap().unwrap();
        let called = runner.wait(LIMIT).unwrap();
        assert_eq!(called.code(), 1, "{}\n{}", called.complaint(), story(&called.events));
        assert_eq!(rows(&db, "SELECT COUNT(*) FROM t").await, ["0"], "rows that were truncated");
        let tries = named(&called, "lock_try");
        let first = |why: &str| why.contains("TRUNCATE");
        assert!(tries.iter().any(|event| event["why"].as_str().is_some_and(first)), "{tries:?}");
    });
}

#[test]
fn a_drain_that_takes_too_long_lets_everybody_through() {
    on_each_alone(&Flavor::ALL[..2], async |db| {
        make_table(&db, 20_000).await;
        let proxy = Proxy::start(&db.endpoints().primary).unwrap();
        let trap = at_the_lock(&proxy);
        let mut runner = start(&proxy.url(db.name()), CHANGE, &["--swap-budget", "100ms"]);
        spring(&trap, &mut runner);
        let mut app = db.conn().await.unwrap();
        run(&mut app, &["UPDATE t SET v = 'pending'"]).await;
        let expected = rows(&db, CONTENT).await;
        let begun = Instant::now();
        let prober = Prober::start(&db.url(), vec!["SELECT * FROM t WHERE id = 17".to_owned()]);
        trap.release();
        let called = succeed(runner);
        let felt = prober.stop().unwrap();
        assert_eq!(felt.errors.total(), 0, "{}", felt.errors);
        let tries = named(&called, "lock_try");
        let slow = |why: &str| why.contains("--swap-budget");
        assert!(tries.iter().any(|event| event["why"].as_str().is_some_and(slow)), "{tries:?}");
        assert_eq!(rows(&db, CONTENT).await, expected);
        eprintln!("{}: held up for {:?}", db.endpoints().flavor.name(), felt.longest);
        let allowed = busy::allows(begun, Duration::from_millis(500));
        assert!(felt.held_up() < allowed, "held up: {felt:?}, {allowed:?} allowed");
        nothing_left(&db).await;
    });
}

/// Writes to the retired table as a writer that came late; waits for the fence to expire.
async fn write_late(db: &TestDb) {
    let mut late = db.conn().await.unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    let mut fenced = false;
    while let Err(error) = late.query_drop("UPDATE `t~up_old` SET v = 'late' WHERE id = 4").await {
        assert!(error.to_string().contains("underpin is swapping"), "{error}");
        assert!(Instant::now() < until, "the fence does not expire");
        fenced = true;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let two_sessions = db.endpoints().flavor.is_mariadb();
    assert_eq!(fenced, two_sessions, "a write that slips past must fail, not vanish");
    run(
        &mut late,
        &["DELETE FROM `t~up_old` WHERE id = 5", "INSERT INTO `t~up_old` (id) VALUES (51)"],
    )
    .await;
}

/// The first look into the log after the rename.
fn after_the_rename(proxy: &Proxy) -> Trap {
    proxy.trap(&["SELECT COUNT(*) FROM `", "~up_log`"], Deed::Hold)
}

#[test]
fn late_entries_are_applied_after_the_rename() {
    on_each_alone(&Flavor::ALL, async |db| {
        make_table(&db, 50).await;
        let proxy = Proxy::start(&db.endpoints().primary).unwrap();
        let trap = after_the_rename(&proxy);
        let mut runner = start(&proxy.url(db.name()), CHANGE, &[]);
        spring(&trap, &mut runner);
        write_late(&db).await;
        trap.release();
        succeed(runner);
        let late = "SELECT CONCAT(id, v, n) FROM t WHERE id IN (4, 5, 51) ORDER BY id";
        assert_eq!(rows(&db, late).await, ["4late7", "517"]);
        assert_eq!(rows(&db, "SELECT COUNT(*) FROM t").await, ["50"]);
        nothing_left(&db).await;
    });
}

#[test]
fn late_entries_are_applied_by_whoever_goes_on_after_a_crash() {
    on_each_alone(&Flavor::ALL[..2], async |db| {
        make_table(&db, 50).await;
        let proxy = Proxy::start(&db.endpoints().primary).unwrap();
        let trap = after_the_rename(&proxy);
        let mut runner = start(&proxy.url(db.name()), CHANGE, &[]);
        spring(&trap, &mut runner);
        runner.kill9().unwrap();
        write_late(&db).await;
        // only now does the proxy look whether its client is still there
        trap.release();
        succeed(start(&db.url(), CHANGE, &[]));
        let late = "SELECT CONCAT(id, v, n) FROM t WHERE id IN (4, 5, 51) ORDER BY id";
        assert_eq!(rows(&db, late).await, ["4late7", "517"]);
        nothing_left(&db).await;
    });
}

/// An account that may do nothing but read and write the one table.
struct Clerk<'a> {
    db: &'a TestDb,
    name: String,
}

impl<'a> Clerk<'a> {
    fn hire(db: &'a TestDb) -> Self {
        let name = format!("clerk_{}", db.name());
        let grant = format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {}.t TO {name}", db.name());
        let hire = vec![format!("CREATE USER {name} IDENTIFIED BY 'a'"), grant];
        sql::execute(&db.url(), hire).unwrap();
        Self { db, name }
    }

    fn url(&self) -> String {
        self.db.url().replace("root@", &format!("{}:a@", self.name))
    }
}

impl Drop for Clerk<'_> {
    fn drop(&mut self) {
        let _gone = sql::execute(&self.db.url(), vec![format!("DROP USER {}", self.name)]);
    }
}

#[test]
fn an_account_with_rights_on_the_table_alone_writes_through_the_whole_change() {
    on_each_alone(&Flavor::ALL[..2], async |db| {
        make_table(&db, 5000).await;
        let clerk = Clerk::hire(&db);
        let writes = [
            "INSERT INTO t (id, u, v) VALUES (10000 + %n, NULL, 'clerk')",
            "UPDATE t SET v = 'clerk' WHERE id = 1 + %n",
            "DELETE FROM t WHERE id = 5000 - %n",
            "SELECT COUNT(*) FROM t WHERE id < 100",
        ];
        let prober = Prober::start(&clerk.url(), writes.map(str::to_owned).to_vec());
        let called = cli::call(&[
            "run",
            &db.url(),
            CHANGE,
            "--strategy",
            "shadow",
            "--replica",
            "none",
            "--yes",
        ]);
        let felt = prober.stop().unwrap();
        let called = called.unwrap();
        assert!(called.code() == 0, "{}", called.complaint());
        assert_eq!(felt.errors.total(), 0, "{}", felt.errors);
        assert!(felt.statements > 40, "{felt:?}");
        let inserted = rows(&db, "SELECT COUNT(*) FROM t WHERE id >= 10000").await;
        let inserted: u64 = inserted[0].parse().unwrap();
        assert!(inserted >= felt.statements / 4 && inserted <= felt.statements / 4 + 1, "{felt:?}");
        nothing_left(&db).await;
    });
}
