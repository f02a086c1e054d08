//! The rooms of the MySQL dialect, one step at a time on a real server: each call of the seam does what
//! the protocol says, without engine or machine in between.
#![allow(clippy::unwrap_used)] // what cannot be had here fails the test

use std::sync::Arc;

use mysql_async::prelude::Queryable;
use underpin_core::alter::{Alter, Syntax};
use underpin_core::checkpoint::{Checkpoint, Phase};
use underpin_core::key::Frontier;
use underpin_core::machine::SwapState;
use underpin_core::plan::{Capture, RunSpec};
use underpin_dialect::{
    ChangeLog, Copy, Database, DbResult, ErrorKind, Grip, IndexTiming, Inspect, Request, Shadow,
    Store, Swap, SwapOutcome, Verify,
};
use underpin_mysql::connect::SessionSettings;
use underpin_mysql::mycnf::FileSearch;
use underpin_mysql::{MySql, options};
use underpin_tests::servers::{Flavor, TestDb};

async fn open(db: &TestDb) -> DbResult<MySql> {
    let resolved = options::resolve(&db.url(), &FileSearch::none(), &|_| None)?;
    MySql::open(
        resolved.options,
        SessionSettings::default(),
        format!("{}_state", db.name()),
        vec!["none".into()],
    )
    .await
}

fn request(db: &TestDb, statement: &str) -> Request {
    Request {
        run_id: "r1".into(),
        alter: Alter::parse(statement, Syntax::mysql()).unwrap(),
        statement: statement.into(),
        default_schema: Some(db.name().into()),
        replicas: vec!["none".into()],
        indexes: IndexTiming::Auto,
        force_shadow: true,
        keeps_way_back: false,
        capture: Capture::default(),
    }
}

async fn begin(db: &TestDb, statement: &str) -> (MySql, Arc<RunSpec>, Grip) {
    let server = open(db).await.unwrap();
    let mut control = server.control().await.unwrap();
    let plan = control.plan(&request(db, statement)).await.unwrap();
    let spec = plan.spec.unwrap_or_else(|| panic!("{:?}", plan.findings));
    control.acquire(&spec.schema, &spec.table).await.unwrap();
    control
        .create_run(&spec, &Checkpoint::begin(), &underpin_dialect::Origin::default())
        .await
        .unwrap();
    let grip = control.take_over(&spec.run_id).await.unwrap();
    control.prepare(&spec).await.unwrap();
    (server, Arc::new(spec), grip)
}

fn on_each(test: impl AsyncFn(TestDb)) {
    for flavor in Flavor::ALL {
        let Some(db) = TestDb::new(flavor) else { continue };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(test(db));
    }
}

async fn rows(db: &TestDb, sql: &str) -> Vec<String> {
    db.conn().await.unwrap().query(sql).await.unwrap()
}

#[test]
fn a_change_made_step_by_step_keeps_every_row() {
    on_each(async |db| {
        let mut app = db.conn().await.unwrap();
        for sql in [
            "CREATE TABLE t (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, u INT NULL, v VARCHAR(20), \
             UNIQUE KEY uk (u), KEY vk (v))",
            "INSERT INTO t (u, v) VALUES (1,'a'),(2,'b'),(NULL,NULL),(4,'d'),(5,'e'),(6,''),(7,'g')",
        ] {
            app.query_drop(sql).await.unwrap();
        }
        let statement =
            "ALTER TABLE t MODIFY v VARCHAR(100), ADD n INT NOT NULL DEFAULT 7, ADD KEY (n)";
        let (server, spec, grip) = begin(&db, statement).await;
        let mut worker = server.worker(&spec, &grip).await.unwrap();
        let (chunks, last) = worker.plan_chunks(None, 3, 2).await.unwrap();
        assert!(!last);
        assert_eq!(chunks.len(), 2);
        assert_eq!(worker.copy_chunk(1, &chunks[0]).await.unwrap(), 3);
        // A swap of unique values, one of them copied, the other beyond the frontier.
        for sql in [
            "BEGIN",
            "UPDATE t SET u = NULL WHERE id = 1",
            "UPDATE t SET u = 1 WHERE id = 5",
            "UPDATE t SET u = 5 WHERE id = 1",
            "COMMIT",
            "DELETE FROM t WHERE id = 2",
            "UPDATE t SET id = 20 WHERE id = 3",
            "INSERT INTO t VALUES (2, 22, 'again')",
        ] {
            app.query_drop(sql).await.unwrap();
        }
        // The chunk now meets the unique value of row 1, whose own change is pending.
        let clash = worker.copy_chunk(1, &chunks[1]).await.unwrap_err();
        assert_eq!(clash.kind, ErrorKind::DuplicateKey);
        let end = Frontier::At(chunks[1].range.up_to.clone().unwrap());
        let (copied, applied) = worker.copy_with_pending(1, &chunks[1], &end).await.unwrap();
        assert_eq!((copied, applied.left), (3, 0));
        let (tail, last) = worker.plan_chunks(chunks[1].range.up_to.as_ref(), 3, 9).await.unwrap();
        assert!(last);
        for chunk in &tail {
            worker.copy_chunk(2, chunk).await.unwrap();
        }
        let mut control = server.control().await.unwrap();
        control.build_indexes(&spec).await.unwrap();
        worker.apply(&Frontier::End, 100).await.unwrap();
        let (ranges, _) = worker.plan_chunks(None, 3, 9).await.unwrap();
        for range in &ranges {
            let report = worker.verify_range(range).await.unwrap();
            assert_eq!(report.differences, 0, "{report:?}");
        }
        let before = rows(&db, "SELECT CONCAT_WS('/', id, u, v) FROM t ORDER BY id").await;
        let outcome = control.try_swap(&spec, &grip, 1000).await.unwrap();
        assert!(matches!(outcome, SwapOutcome::Swapped { .. }), "{outcome:?}");
        let checkpoint = Checkpoint { phase: Phase::Swap, ..Checkpoint::begin() };
        let seen = control.observe(&spec, &checkpoint).await.unwrap();
        assert_eq!(seen.swap, SwapState::Swapped);
        control.finish(&spec, false).await.unwrap();
        assert_eq!(rows(&db, "SELECT CONCAT_WS('/', id, u, v) FROM t ORDER BY id").await, before);
        assert_eq!(rows(&db, "SELECT DISTINCT n FROM t").await, ["7"]);
        assert_eq!(rows(&db, "SHOW TABLES").await, ["t"]);
        let _ = rows(&db, &format!("DROP DATABASE {}_state", db.name())).await;
    });
}

#[test]
fn the_floor_of_the_log_never_passes_an_entry_that_commits_late() {
    on_each(async |db| {
        let mut app = db.conn().await.unwrap();
        app.query_drop("CREATE TABLE t (id INT NOT NULL PRIMARY KEY, v INT)").await.unwrap();
        app.query_drop("INSERT INTO t VALUES (1,1),(2,2),(3,3)").await.unwrap();
        let (server, spec, grip) = begin(&db, "ALTER TABLE t ADD n INT NOT NULL DEFAULT 1").await;
        let mut worker = server.worker(&spec, &grip).await.unwrap();
        let (chunks, _) = worker.plan_chunks(None, 100, 1).await.unwrap();
        worker.copy_chunk(1, &chunks[0]).await.unwrap();
        // A writer draws the lowest id and does not commit; others go on for longer than the floor
        // takes to rise.
        let mut late = db.conn().await.unwrap();
        late.query_drop("BEGIN").await.unwrap();
        late.query_drop("UPDATE t SET v = 100 WHERE id = 1").await.unwrap();
        for round in 0..3 {
            app.query_drop(format!("UPDATE t SET v = {round} WHERE id = 2")).await.unwrap();
            assert_eq!(worker.apply(&Frontier::End, 100).await.unwrap().entries, 1);
            tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
        }
        late.query_drop("COMMIT").await.unwrap();
        assert_eq!(worker.apply(&Frontier::End, 100).await.unwrap().entries, 1, "the late entry");
        // With nobody left the floor rises: entries below it are not read any more.
        for round in 0..3 {
            app.query_drop(format!("UPDATE t SET v = {round} WHERE id = 3")).await.unwrap();
            worker.apply(&Frontier::End, 100).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
        }
        app.query_drop(format!("INSERT INTO `{}` (id, k0) VALUES (1, 1)", spec.names.log))
            .await
            .unwrap();
        assert_eq!(worker.apply(&Frontier::End, 100).await.unwrap().entries, 0, "below the floor");
        let rows = rows(&db, &format!("SELECT v FROM `{}` ORDER BY id", spec.names.shadow)).await;
        assert_eq!(rows, ["100", "2", "2"]);
        server.control().await.unwrap().abort(&spec).await.unwrap();
    });
}
