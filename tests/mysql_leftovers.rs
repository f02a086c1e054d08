//! `underpin leftovers` on MySQL and MariaDB: what of ours stands on the server is found, and nothing is
//! removed that is not ours, of an open run, or whose run is not on record.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

mod mysql_steps;

use mysql_async::prelude::Queryable;
use serde_json::Value;
use underpin_tests::cli::{self, Called};
use underpin_tests::servers::{Flavor, TestDb, sql};

use mysql_steps::{make_table, on_each, rows, run, start, succeed};

const CHANGE: &str = "ALTER TABLE t ADD n INT NOT NULL DEFAULT 7";

const OLD_TABLE: &str = "SELECT COUNT(*) FROM `t~up_old`";

fn state_of(db: &TestDb) -> String {
    format!("{}_state", db.name())
}

fn leftovers(db: &TestDb, url: &str, more: &[&str]) -> Called {
    let state = state_of(db);
    let mut words = vec!["leftovers", url, "--state-schema", &state];
    words.extend(more);
    cli::call(&words).unwrap()
}

/// `kind name fate` of what stands in the test's database.
fn seen(db: &TestDb, called: &Called) -> Vec<String> {
    let of = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
    let here = |event: &&Value| event["event"] == "leftover" && event["namespace"] == db.name();
    let line = |event: &Value| {
        format!("{} {} {}", of(event, "kind"), of(event, "name"), of(event, "fate"))
    };
    called.events.iter().filter(here).map(line).collect()
}

/// Ends with the state of the run gone, and the server as other tests expect it, however the test ends.
struct State(String, String);

impl Drop for State {
    fn drop(&mut self) {
        let drop = format!("DROP DATABASE IF EXISTS {}", self.1);
        let _gone = sql::execute(&self.0, vec![drop, trust(false)]);
    }
}

/// Whether accounts without SUPER may make and drop triggers, the binary log being on.
fn trust(them: bool) -> String {
    format!("SET GLOBAL log_bin_trust_function_creators = {}", u8::from(them))
}

#[test]
fn an_open_run_is_left_alone_and_a_kept_table_goes_when_it_is_named() {
    on_each(&Flavor::ALL[..2], async |db| {
        make_table(&db, 50).await;
        let state = state_of(&db);
        let _state = State(db.url(), state.clone());
        let open = start(&db.url(), CHANGE, &["--state-schema", &state, "--swap", "wait"]);
        let mut open = open;
        assert!(open.wait_phase("swap", mysql_steps::LIMIT).unwrap(), "{}", open.story());
        open.kill9().unwrap();
        let found = leftovers(&db, &db.url(), &[]);
        assert!(found.code() == 0, "{}", found.complaint());
        let all = seen(&db, &found);
        for what in ["shadow t~up_new", "change_log t~up_log", "trigger t~up_"] {
            let line = all.iter().find(|line| line.starts_with(what));
            assert!(line.is_some_and(|line| line.ends_with(" open_run")), "{what}: {all:?}");
        }
        let id = rows(&db, &format!("SELECT run_id FROM {state}.runs")).await.remove(0);
        let forced = ["--remove", "--remove-unknown", "--yes", "--run", id.as_str()];
        assert_eq!(leftovers(&db, &db.url(), &forced).code(), 0);
        assert_eq!(seen(&db, &leftovers(&db, &db.url(), &[])), all, "an open run was touched");
        // It goes on; the old table is kept.
        let on = ["--state-schema", state.as_str(), "--keep-retired"];
        succeed(start(&db.url(), CHANGE, &on));
        assert_eq!(seen(&db, &leftovers(&db, &db.url(), &[])), ["retired t~up_old kept"]);
        assert!(rows(&db, OLD_TABLE).await == ["50"]);
        let older = ["--remove", "--yes", "--run", id.as_str(), "--older-than", "1h"];
        assert_eq!(leftovers(&db, &db.url(), &older).code(), 0);
        assert!(rows(&db, OLD_TABLE).await == ["50"], "younger than was said");
        let removed = leftovers(&db, &db.url(), &["--remove", "--yes", "--run", &id]);
        assert!(removed.code() == 0, "{}", removed.complaint());
        assert_eq!(
            removed.event("leftover").unwrap()["outcome"],
            "removed",
            "{:?}",
            removed.events
        );
        mysql_steps::nothing_left(&db).await;
    });
}

/// Somebody's own tables under names like ours; and an account that sees the tables and not the record,
/// with what the guide says, and no more.
async fn make_strangers(db: &TestDb, conn: &mut mysql_async::Conn, user: &str) {
    run(
        conn,
        &[
            "CREATE TABLE `u~up_log` (id INT PRIMARY KEY) COMMENT='underpin stands here'",
            "CREATE TABLE `u~up_old` (id INT PRIMARY KEY)",
            &format!("CREATE USER {user}"),
            &format!("GRANT SELECT, DROP, TRIGGER ON {}.* TO {user}", db.name()),
            &format!("GRANT PROCESS ON *.* TO {user}"),
        ],
    )
    .await;
}

/// The run's record is gone, or cannot be seen: its objects are proven ours, and go only on request.
#[test]
fn what_is_not_on_record_goes_only_on_request_and_never_unproven() {
    on_each(&Flavor::ALL[..2], async |db| {
        make_table(&db, 50).await;
        let state = state_of(&db);
        let _state = State(db.url(), state.clone());
        let mut open = start(&db.url(), CHANGE, &["--state-schema", &state, "--swap", "wait"]);
        assert!(open.wait_phase("swap", mysql_steps::LIMIT).unwrap(), "{}", open.story());
        open.kill9().unwrap();
        let id = rows(&db, &format!("SELECT run_id FROM {state}.runs")).await.remove(0);
        let mut conn = db.conn().await.unwrap();
        let user = format!("u{}", db.name());
        make_strangers(&db, &mut conn, &user).await;
        let blind = db.url().replacen("root", &user, 1);
        let found = leftovers(&db, &blind, &[]);
        assert!(found.code() == 0, "{}", found.complaint());
        let all = seen(&db, &found);
        assert!(all.contains(&"change_log t~up_log not_on_record".to_owned()), "{all:?}");
        assert!(all.contains(&"shadow t~up_new unproven".to_owned()), "{all:?}");
        assert!(all.contains(&"change_log u~up_log unproven".to_owned()), "{all:?}");
        let plain = ["--remove", "--yes", "--run", id.as_str()];
        assert_eq!(leftovers(&db, &blind, &plain).code(), 0);
        assert_eq!(seen(&db, &leftovers(&db, &blind, &[])), all, "removed as unknown");
        // A trigger that cannot be dropped, because somebody holds the table, keeps the log.
        run(&mut conn, &["BEGIN", "SELECT COUNT(*) FROM t"]).await;
        let unknown = ["--remove", "--remove-unknown", "--yes", "--run", id.as_str()];
        let held = leftovers(&db, &blind, &unknown);
        assert_eq!(held.code(), 1, "{:?}", held.events);
        assert_eq!(
            seen(&db, &leftovers(&db, &blind, &[])),
            all,
            "the log went before its triggers"
        );
        run(&mut conn, &["INSERT INTO t (u, v) VALUES (7, 'written')", "COMMIT"]).await;
        // On MariaDB an account that is not trusted with triggers is told so, and nothing goes.
        if db.endpoints().flavor.is_mariadb() {
            let refused = leftovers(&db, &blind, &unknown);
            assert_eq!(refused.code(), 1, "{:?}", refused.events);
            let advice = "(on MariaDB also dropping) triggers needs SUPER, or on the server: SET GLOBAL \
                      log_bin_trust_function_creators = 1";
            assert!(format!("{:?}", refused.events).contains(advice), "{:?}", refused.events);
            assert_eq!(
                seen(&db, &leftovers(&db, &blind, &[])),
                all,
                "the log went before its triggers"
            );
        }
        run(&mut conn, &[&trust(true)]).await;
        let removed = leftovers(&db, &blind, &unknown);
        assert!(removed.code() == 0, "{:?}", removed.events);
        let mut left = seen(&db, &leftovers(&db, &blind, &[]));
        left.sort();
        let unproven = [
            "change_log u~up_log unproven",
            "retired u~up_old unproven",
            "shadow t~up_new unproven",
        ];
        assert_eq!(left, unproven);
        run(
            &mut conn,
            &["INSERT INTO t (u, v) VALUES (8, 'written')", &format!("DROP USER {user}")],
        )
        .await;
        assert_eq!(conn.query_first::<u64, _>("SELECT COUNT(*) FROM t").await.unwrap(), Some(52));
    });
}
