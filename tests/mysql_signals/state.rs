//! Orders and history: who asked for what, and what came of a run; state of an older version.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use underpin_core::machine::Command;
use underpin_core::signal::{Setting, WRITE_LATENCY};
use underpin_dialect::{Database, Origin, Probe, Store};
use underpin_tests::servers::{Flavor, TestDb, sql};

use crate::mysql_steps::on_each;
use crate::{begin, open};

/// The state schema of a test, dropped at its end.
struct State<'a>(&'a TestDb, String);

impl<'a> State<'a> {
    fn of(db: &'a TestDb) -> Self {
        Self(db, format!("{}_state", db.name()))
    }
}

impl Drop for State<'_> {
    fn drop(&mut self) {
        let drop = format!("DROP DATABASE IF EXISTS {}", self.1);
        let _gone = sql::execute(&self.0.url(), vec![drop]);
    }
}

#[test]
fn an_order_is_taken_once_and_stays_on_record_with_who_gave_it() {
    on_each(&Flavor::ALL, async |db| {
        let state = State::of(&db);
        let server = open(&db.url(), &state.1, &["none"]).await;
        let (spec, _grip) = begin(&server, &db.url(), db.name()).await;
        let mut probe = server.probe(&spec).await.unwrap();
        let mut control = server.control().await.unwrap();
        assert_eq!(probe.requested().await.unwrap(), vec![]);
        let slower = Command::Set(Setting::MaxLoad("queue".into(), Some(7.5)));
        control.request("r1", &Command::Pause, "anna@laptop").await.unwrap();
        control.request("r1", &slower, "").await.unwrap();
        // Somebody draws a number and is slow to commit: his order is not passed over.
        let mut late = db.conn().await.unwrap();
        late.query_drop("BEGIN").await.unwrap();
        let insert = format!(
            "INSERT INTO {}.orders (run_id, command, given_by, given_at) VALUES ('r1', '\"resume\"', \
             'x', UTC_TIMESTAMP(6))",
            state.1
        );
        late.query_drop(insert).await.unwrap();
        control.request("r1", &Command::Swap, "bo's \\ machine").await.unwrap();
        let taken = probe.requested().await.unwrap();
        let commands: Vec<&Command> = taken.iter().map(|order| &order.command).collect();
        assert_eq!(commands, [&Command::Pause, &slower, &Command::Swap]);
        assert!(taken[0].by.starts_with("root@") && taken[0].by.ends_with(" (anna@laptop)"));
        assert!(!taken[1].by.contains('('), "{}", taken[1].by);
        assert!(taken[2].by.ends_with(" (bo's \\ machine)"), "{}", taken[2].by);
        late.query_drop("COMMIT").await.unwrap();
        let taken = probe.requested().await.unwrap();
        assert_eq!(taken.len(), 1, "{taken:?}");
        assert_eq!(probe.requested().await.unwrap(), vec![]);
        let all = control.orders("r1").await.unwrap();
        assert_eq!(all.len(), 4);
        assert!(all.iter().all(|order| order.taken_at.is_some() && order.at.len() > 18));
        // A run that is over takes no orders.
        control.close_run("r1", "done", "").await.unwrap();
        control.request("r1", &Command::Abort, "anna").await.unwrap();
        assert_eq!(control.orders("r1").await.unwrap().len(), 4);
    });
}

#[test]
fn a_run_is_remembered_with_its_reason_and_its_record() {
    on_each(&Flavor::ALL, async |db| {
        let state = State::of(&db);
        let server = open(&db.url(), &state.1, &["none"]).await;
        let mut control = server.control().await.unwrap();
        assert_eq!(control.runs(None).await.unwrap(), vec![]);
        assert_eq!(control.orders("r1").await.unwrap(), vec![]);
        control.request("r1", &Command::Pause, "anna").await.unwrap();

        let (spec, _grip) = begin(&server, &db.url(), db.name()).await;
        let mut second = (*spec).clone();
        second.run_id = "r2".into();
        second.table = "other".into();
        let origin = Origin { reason: "it's \"too\" \\ slow".into(), ..Origin::default() };
        let checkpoint = underpin_core::checkpoint::Checkpoint::begin();
        control.create_run(&second, &checkpoint, &origin).await.unwrap();
        let runs = control.runs(Some((db.name(), "other"))).await.unwrap();
        assert_eq!(runs.len(), 1);
        let kept: Origin = serde_json::from_str(&runs[0].origin).unwrap();
        assert_eq!(kept, origin);
        assert_eq!((runs[0].live.as_str(), runs[0].ended_at.as_ref()), ("", None));

        let mut probe = server.probe(&spec).await.unwrap();
        probe.publish("{\"rows\": 1}").await.unwrap();
        probe.publish("{\"rows\": 2, \"why\": \"it's\"}").await.unwrap();
        // A sign of life is seen, from whichever of its tables.
        let age = |column: &str, table: &str| {
            format!("UPDATE {}.{table} SET {column} = {column} - INTERVAL 99 SECOND", state.1)
        };
        let mut conn = db.conn().await.unwrap();
        conn.query_drop(age("updated_at", "runs")).await.unwrap();
        let of = async |control: &mut <underpin_mysql::MySql as Database>::Control| {
            control.runs(Some((db.name(), "t"))).await.unwrap().remove(0)
        };
        let run = of(&mut control).await;
        assert_eq!(run.live, "{\"rows\": 2, \"why\": \"it's\"}");
        assert!(run.silent_s < 50 && run.updated_at > run.created_at, "{run:?}");
        conn.query_drop(age("seen_at", "live")).await.unwrap();
        assert!(of(&mut control).await.silent_s >= 99);
        probe.requested().await.unwrap();
        assert!(of(&mut control).await.silent_s < 50, "asking for orders is a sign of life");
        conn.query_drop(age("seen_at", "live")).await.unwrap();
        probe.signals(&[]).await.unwrap();
        assert!(of(&mut control).await.silent_s < 50, "so is the heartbeat");

        control.close_run("r1", "done", "{\"a\": 1}").await.unwrap();
        let first = of(&mut control).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        control.close_run("r1", "done", "{\"a\": 'two'}").await.unwrap();
        control.close_run("r1", "done", "").await.unwrap();
        let run = of(&mut control).await;
        assert_eq!((run.state.as_str(), run.record.as_str()), ("done", "{\"a\": 'two'}"));
        assert!(run.ended_at.is_some() && run.ended_at == first.ended_at, "{run:?}");
        // What the runner still writes afterwards leaves nothing behind.
        probe.publish("{}").await.unwrap();
        let readings = probe.signals(&[]).await.unwrap();
        assert!(!readings.iter().any(|one| one.name == WRITE_LATENCY), "{readings:?}");
        assert_eq!(of(&mut control).await.live, "");
        let left: Option<u64> =
            conn.query_first(format!("SELECT COUNT(*) FROM {}.beats", state.1)).await.unwrap();
        assert_eq!(left, Some(0));
    });
}

/// As the first release makes them.
const OLDER: [&str; 3] = [
    "runs (run_id VARCHAR(32) CHARACTER SET ascii NOT NULL PRIMARY KEY, schema_name VARCHAR(64) NOT \
     NULL, table_name VARCHAR(64) NOT NULL, state VARCHAR(16) NOT NULL, statement LONGTEXT NOT NULL, \
     spec LONGTEXT NOT NULL, checkpoint LONGTEXT NOT NULL, identity LONGTEXT NOT NULL, requested \
     VARCHAR(16) NOT NULL DEFAULT '', runner VARCHAR(255) NOT NULL, created_at DATETIME(6) NOT NULL, \
     updated_at DATETIME(6) NOT NULL, ended_at DATETIME(6) NULL, KEY by_table (schema_name, \
     table_name)) ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin COMMENT='underpin: runs and \
     their history'",
    "fences (run_id VARCHAR(32) CHARACTER SET ascii NOT NULL PRIMARY KEY, epoch BIGINT UNSIGNED NOT \
     NULL) ENGINE=InnoDB COMMENT='underpin: who may write for a run'",
    "marks (run_id VARCHAR(32) CHARACTER SET ascii NOT NULL, round BIGINT UNSIGNED NOT NULL, chunk INT \
     UNSIGNED NOT NULL, row_count BIGINT UNSIGNED NOT NULL, PRIMARY KEY (run_id, round, chunk)) \
     ENGINE=InnoDB COMMENT='underpin: chunks done in the running round'",
];

#[test]
fn state_that_an_older_version_made_is_gone_on_with() {
    on_each(&Flavor::ALL, async |db| {
        let state = State::of(&db);
        let server = open(&db.url(), &state.1, &["none"]).await;
        // A run of the newer version, put back into tables of the older.
        let (spec, _grip) = begin(&server, &db.url(), db.name()).await;
        let mut conn = db.conn().await.unwrap();
        let kept = ["runs", "fences", "marks"].map(|name| format!("{}.{name}", state.1));
        let spare =
            |name: &str| format!("{}.{}_spare", db.name(), name.rsplit('.').next().unwrap());
        for (name, definition) in kept.iter().zip(OLDER) {
            conn.query_drop(format!("RENAME TABLE {name} TO {}", spare(name))).await.unwrap();
            conn.query_drop(format!("CREATE TABLE {}.{definition}", state.1)).await.unwrap();
            let columns = "SELECT GROUP_CONCAT(COLUMN_NAME) FROM information_schema.COLUMNS WHERE \
                           TABLE_SCHEMA = DATABASE() AND CONCAT(TABLE_SCHEMA, '.', TABLE_NAME) = ";
            let columns: Option<String> =
                conn.query_first(format!("{columns}'{}'", spare(name))).await.unwrap();
            let columns = columns.unwrap();
            let copy =
                format!("INSERT INTO {name} ({columns}) SELECT {columns} FROM {}", spare(name));
            conn.query_drop(copy).await.unwrap();
            conn.query_drop(format!("DROP TABLE {}", spare(name))).await.unwrap();
        }
        for name in ["orders", "history", "live", "beats", "prints"] {
            conn.query_drop(format!("DROP TABLE {}.{name}", state.1)).await.unwrap();
        }
        // Reading changes nothing, and finds the run.
        let mut control = server.control().await.unwrap();
        let runs = control.runs(None).await.unwrap();
        assert_eq!((runs.len(), runs[0].run_id.as_str(), runs[0].origin.as_str()), (1, "r1", ""));
        assert!(control.open_run(db.name(), "t").await.unwrap().is_some());
        assert_eq!(control.orders("r1").await.unwrap(), vec![]);
        let tables = format!(
            "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = '{}'",
            state.1
        );
        assert_eq!(conn.query_first::<u64, _>(&tables).await.unwrap(), Some(3));
        // Whoever takes the run over makes what is missing.
        let grip = control.take_over("r1").await.unwrap();
        assert_eq!(grip.epoch, 2);
        assert_eq!(conn.query_first::<u64, _>(&tables).await.unwrap(), Some(8));
        // So does whoever leaves an order for a run that nobody has taken over yet.
        conn.query_drop(format!("DROP TABLE {}.orders", state.1)).await.unwrap();
        control.request("r1", &Command::Pause, "anna").await.unwrap();
        let mut probe = server.probe(&spec).await.unwrap();
        assert_eq!(probe.requested().await.unwrap().len(), 1);
        probe.publish("{}").await.unwrap();
        let readings = probe.signals(&[]).await.unwrap();
        assert!(readings.iter().any(|one| one.name == WRITE_LATENCY), "{readings:?}");
        let mut again = (*spec).clone();
        again.run_id = "r2".into();
        let checkpoint = underpin_core::checkpoint::Checkpoint::begin();
        control.create_run(&again, &checkpoint, &Origin::default()).await.unwrap();
        control.close_run("r1", "aborted", "{\"x\": 1}").await.unwrap();
        let runs = control.runs(None).await.unwrap();
        let old = runs.iter().find(|run| run.run_id == "r1").unwrap();
        assert_eq!((old.state.as_str(), old.record.as_str()), ("aborted", "{\"x\": 1}"));
    });
}
