//! Runners that are gone and have something in flight all the same, or come back when another has taken
//! their place.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use underpin_tests::proxy::{Deed, Proxy};
use underpin_tests::servers::Flavor;

use crate::mysql_steps::{
    LIMIT, make_table, nothing_left, on_each, rows, run, spring, start, succeed,
};

const CHANGE: &str = "ALTER TABLE t ADD n INT NOT NULL DEFAULT 7";

const CONTENT: &str = "SELECT CONCAT_WS('/', id, COALESCE(u, 'null'), v) FROM t ORDER BY id";

/// The commit of a chunk is on its way when its runner is killed, and arrives late. Whoever goes on waits
/// for it: else the chunk would be copied twice.
#[test]
fn what_a_dead_runner_has_in_flight_is_awaited() {
    on_each(&Flavor::ALL[..2], async |db| {
        make_table(&db, 3000).await;
        let proxy = Proxy::start(&db.endpoints().primary).unwrap();
        let commit = proxy.trap_after(&["INSERT INTO", ".marks"], &["COMMIT"], Deed::Hold);
        let mut first = start(&proxy.url(db.name()), CHANGE, &["--workers", "1"]);
        spring(&commit, &mut first);
        first.kill9().unwrap();
        let expected = rows(&db, CONTENT).await;
        let mut second = start(&db.url(), CHANGE, &["--workers", "1"]);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!second.has_ended().unwrap(), "{}", second.story());
        let resumed = |event: &serde_json::Value| event["event"] == "run_resumed";
        assert!(second.find(resumed).is_none(), "went on beside a chunk in flight");
        commit.release();
        let called = succeed(second);
        assert_eq!(called.event("run_resumed").unwrap()["rows_copied"], 2000);
        assert_eq!(called.ended.number("rows_copied"), Some(3000), "each chunk once");
        assert_eq!(rows(&db, CONTENT).await, expected);
        nothing_left(&db).await;
    });
}

/// A runner sleeps, the server drops its sessions, another one takes the run over and ends it. Then the
/// first wakes up.
#[test]
fn a_runner_that_wakes_up_behind_another_does_nothing() {
    on_each(&Flavor::ALL[..2], async |db| {
        make_table(&db, 500).await;
        // A replica that cannot be read: it waits before its first chunk.
        let nobody = "mysql://root@127.0.0.1:1/";
        let words =
            ["run", &db.url(), CHANGE, "--strategy", "shadow", "--replica", nobody, "--yes"];
        let mut sleeper = underpin_tests::runner::Runner::start(&words).unwrap();
        let paused = sleeper.wait_for(LIMIT, |event| event["event"] == "paused").unwrap();
        assert!(paused.is_some(), "{}", sleeper.story());
        sleeper.signal("STOP").unwrap();
        let mut app = db.conn().await.unwrap();
        let sessions = "SELECT ID FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND ID <> \
                        CONNECTION_ID()";
        let sessions: Vec<u64> = app.query(sessions).await.unwrap();
        assert!(!sessions.is_empty());
        for session in sessions {
            // it may have gone by itself
            let _killed = app.query_drop(format!("KILL {session}")).await;
        }
        succeed(start(&db.url(), CHANGE, &[]));
        run(&mut app, &["UPDATE t SET v = 'after' WHERE id = 1"]).await;
        let expected = rows(&db, CONTENT).await;
        sleeper.signal("CONT").unwrap();
        let woken = sleeper.wait(LIMIT).unwrap();
        assert!([1, 3].contains(&woken.code()), "{}: {}", woken.code(), woken.complaint());
        assert_eq!(rows(&db, CONTENT).await, expected);
        nothing_left(&db).await;
    });
}
