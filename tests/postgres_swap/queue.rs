//! What others do to the table just before our locks, while we wait for them, and between them.

use underpin_dialect::{ErrorKind, Shadow};
use underpin_tests::proxy::{Deed, Proxy};
use underpin_tests::servers::{Flavor, TestDb};

use crate::postgres_runs::{before_the_locks, pid_of, spring, start, succeed};
use crate::postgres_steps::{make_table, on_each, rows, run, wait_for_lock_wait};
use crate::{Ready, queue, sprung, swapped};

const CHANGE: &str = "ALTER TABLE t ADD n int NOT NULL DEFAULT 7";

/// What somebody does before the swap, how the swap ends then, and what he finds as he left it.
const DEEDS: [(&str, &str, &str, &str); 9] = [
    ("ALTER TABLE t ADD m int DEFAULT 3", "altered", "SELECT sum(m) FROM t", "300"),
    ("CREATE INDEX by_v ON t (v)", "altered", "SELECT to_regclass('by_v') IS NOT NULL", "t"),
    ("VACUUM FULL t", "rewritten", "SELECT count(*) FROM t", "100"),
    ("ALTER TABLE t DISABLE TRIGGER USER", "triggers", "SELECT count(*) FROM t", "100"),
    // In between nothing was captured.
    (
        "ALTER TABLE t DISABLE TRIGGER USER; UPDATE t SET v = 'unseen'; ALTER TABLE t ENABLE TRIGGER USER",
        "triggers",
        "SELECT count(*) FROM t WHERE v = 'unseen'",
        "100",
    ),
    ("DROP TABLE t", "gone", "SELECT to_regclass('t') IS NULL", "t"),
    ("ALTER TABLE t RENAME TO t2", "gone", "SELECT count(*) FROM t2", "100"),
    (
        "ALTER TABLE t RENAME TO t2; CREATE TABLE t (LIKE t2 INCLUDING ALL)",
        "another table",
        "SELECT count(*) FROM t",
        "0",
    ),
    // Also where the same transaction writes rows again.
    (
        "BEGIN; TRUNCATE t; INSERT INTO t VALUES (1, 1, 'after'); COMMIT",
        "TRUNCATE",
        "SELECT string_agg(v, '') FROM t",
        "after",
    ),
];

/// The rule: the source is looked at under the weak lock, before anything else. What somebody did to it is
/// found out, and stands as he left it.
#[test]
fn what_somebody_did_before_the_locks_is_found_out_and_stands() {
    for (deed, says, question, answer) in DEEDS {
        on_each(&[Flavor::PostgresDistro], async |db| {
            make_table(&db, 100).await;
            let ready = Ready::make(&db, CHANGE).await;
            run(&db.client().await.unwrap(), &[deed]).await;
            let error = ready.swap().await.unwrap_err();
            let truncated = says == "TRUNCATE";
            let kind = if truncated { ErrorKind::Truncated } else { ErrorKind::SourceChanged };
            assert_eq!(error.kind, kind, "{deed}: {error}");
            assert!(error.to_string().contains(says), "{deed}: {error}");
            assert_eq!(rows(&db, question).await, [answer], "{deed}");
            // The same before each round, so that a run begins again or ends the same way wherever it is.
            let error = ready.steps.control().await.check_source(&ready.steps.spec).await;
            assert_eq!(error.unwrap_err().kind, kind, "{deed}");
        });
    }
}

/// The same where he commits only when we wait for the first lock.
#[test]
fn what_somebody_commits_while_we_wait_is_found_out() {
    let deeds = [
        ("TRUNCATE t", ErrorKind::Truncated),
        ("ALTER TABLE t ADD m int DEFAULT 3", ErrorKind::SourceChanged),
    ];
    for (deed, kind) in deeds {
        on_each(&[Flavor::PostgresDistro], async |db| {
            make_table(&db, 100).await;
            let ready = Ready::make(&db, CHANGE).await;
            let proxy = Proxy::start(&db.endpoints().primary).unwrap();
            let trap = proxy.trap(&["IN SHARE UPDATE EXCLUSIVE MODE"], Deed::Hold);
            let other = db.client().await.unwrap();
            let swapping = ready.begin_swap(&db, &proxy).await;
            sprung(&trap).await;
            run(&other, &["BEGIN", deed]).await;
            trap.release();
            wait_until_queued_behind(&db, pid_of(&other).await).await;
            run(&other, &["COMMIT"]).await;
            assert_eq!(swapping.await.unwrap().unwrap_err().kind, kind, "{deed}");
        });
    }
}

/// Waits until somebody waits for what this session holds.
async fn wait_until_queued_behind(db: &TestDb, pid: i32) {
    let blocked = format!(
        "SELECT pid FROM pg_stat_activity WHERE {pid} = ANY (pg_blocking_pids(pid)) AND \
         application_name = 'underpin'"
    );
    for _ in 0..400 {
        if let Some(pid) = rows(db, &blocked).await.first() {
            wait_for_lock_wait(db, pid.parse().unwrap()).await;
            return;
        }
    }
    panic!("nobody waits for session {pid}");
}

/// What somebody queues with between our two locks, and what becomes of it in the new table. Our strong
/// lock goes first, because he waits for our weak one; he finds the new table under the name.
const QUEUED: [(&str, &str, &str); 7] = [
    ("TRUNCATE t", "SELECT count(*), count(n) FROM t", "0/0"),
    ("ALTER TABLE t ADD m int DEFAULT 3", "SELECT sum(m), sum(n) FROM t", "300/700"),
    ("DROP TABLE t", "SELECT to_regclass('t') IS NULL", "t"),
    (
        "CREATE INDEX by_v ON t (v)",
        "SELECT indisvalid, indrelid = 't'::regclass FROM pg_index WHERE indexrelid = 'by_v'::regclass",
        "t/t",
    ),
    ("VACUUM FULL t", "SELECT sum(n) FROM t", "700"),
    ("ALTER TABLE t DISABLE TRIGGER USER", "SELECT sum(n) FROM t", "700"),
    ("BEGIN; LOCK TABLE t; DELETE FROM t WHERE n = 7 AND id > 1; COMMIT", "SELECT id FROM t", "1"),
];

#[test]
fn who_queues_between_the_locks_finds_the_new_table() {
    for (statement, question, answer) in QUEUED {
        on_each(&[Flavor::PostgresDistro], async |db| {
            make_table(&db, 100).await;
            let ready = Ready::make(&db, CHANGE).await;
            let proxy = Proxy::start(&db.endpoints().primary).unwrap();
            let trap = proxy.trap(&["IN ACCESS EXCLUSIVE MODE"], Deed::Hold);
            let swapping = ready.begin_swap(&db, &proxy).await;
            sprung(&trap).await;
            let waiting = queue(&db, db.client().await.unwrap(), statement).await;
            // Behind him an application waits, which does not care.
            let read = "SELECT count(*) FROM (SELECT FROM pg_class WHERE relname = 't') AS c";
            run(&db.client().await.unwrap(), &[read]).await;
            trap.release();
            swapped(&swapping.await.unwrap());
            waiting.await.unwrap();
            assert_eq!(rows(&db, question).await, [answer], "{statement}");
            ready.finish().await;
            assert_eq!(rows(&db, question).await, [answer], "{statement}");
        });
    }
}

/// The whole run: a TRUNCATE just before the swap begins it again, and no row of before comes back.
#[test]
fn a_truncate_just_before_the_swap_brings_nothing_back() {
    on_each(&[Flavor::PostgresDistro], async |db| {
        make_table(&db, 2000).await;
        let proxy = Proxy::start(&db.endpoints().primary).unwrap();
        let trap = before_the_locks(&proxy);
        let mut runner = start(&proxy.url(db.name()), CHANGE, &[]);
        spring(&trap, &mut runner);
        let app = db.client().await.unwrap();
        run(&app, &["TRUNCATE t", "INSERT INTO t VALUES (1, 10, 'new'), (2001, 20, 'new')"]).await;
        trap.release();
        let called = succeed(runner);
        let again = called.events.iter().filter(|event| event["phase"] == "prepare");
        assert!(again.filter(|event| event["event"] == "phase").count() == 2, "begun again");
        let content = "SELECT id, u, v, n FROM t ORDER BY id";
        assert_eq!(rows(&db, content).await, ["1/10/new/7", "2001/20/new/7"]);
    });
}
