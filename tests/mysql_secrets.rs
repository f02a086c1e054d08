//! A password is seen nowhere, the program's state by nobody else, and hooks are told and never carried out.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

mod mysql_steps;
mod secrets;

use mysql_async::prelude::Queryable;
use underpin_tests::servers::{Flavor, TestDb, sql};

use mysql_steps::on_each;
use secrets::{Desk, ENCODED, FRAGMENT, HOSTILE, PASSWORD};

/// A name as the server reads it, whatever is in it.
fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// All that the tables of the state hold.
async fn state_of(db: &TestDb, state: &str) -> String {
    let mut conn = db.conn().await.unwrap();
    let mut all = String::new();
    let names =
        format!("SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = '{state}'");
    for name in conn.query::<String, _>(names).await.unwrap() {
        let rows: Vec<mysql_async::Row> =
            conn.query(format!("SELECT * FROM {state}.{name}")).await.unwrap();
        for row in rows {
            let cells = row.unwrap();
            for cell in cells {
                if let mysql_async::Value::Bytes(bytes) = cell {
                    all.push_str(&String::from_utf8_lossy(&bytes));
                    all.push('\n');
                }
            }
        }
    }
    all
}

#[test]
fn a_password_is_seen_nowhere() {
    on_each(&[Flavor::MySql97, Flavor::MariaDbDistro], async |db| {
        let (user, state) = (format!("u_{}", db.name()), format!("{}_state", db.name()));
        let text: String = PASSWORD.bytes().map(|byte| format!("{byte:02X}")).collect();
        // the bytes as a text of the connection's
        let as_sql = PASSWORD.replace('\\', "\\\\").replace('\'', "\\'");
        assert!(!text.is_empty());
        let table = quoted(HOSTILE);
        sql::execute(
            &db.url(),
            vec![
                "SET GLOBAL log_bin_trust_function_creators = 1".to_owned(),
                format!("CREATE USER {user} IDENTIFIED BY '{as_sql}'"),
                format!("GRANT ALL ON *.* TO {user}"),
                format!("CREATE TABLE {table} (id INT PRIMARY KEY, v INT)"),
                format!("INSERT INTO {table} VALUES (1, 1), (2, 2)"),
            ],
        )
        .unwrap();
        let url = |secret: &str| db.url().replacen("root@", &format!("{user}{secret}@"), 1);
        let (bare, full) = (url(""), url(&format!(":{ENCODED}")));
        let desk = Desk::new();
        let hook = desk.hook();
        let file_text = format!(
            "[client]\npassword='{}'\n",
            PASSWORD.replace('\\', "\\\\").replace('\'', "\\'")
        );
        let file = desk.private("my.cnf", &file_text);
        let run = |url: &str, column: &str, more: &[&str], environment: &[(&str, &str)]| {
            let change = format!("ALTER TABLE {table} ADD {column} INT NOT NULL DEFAULT 7");
            let mut words =
                vec!["run", url, &change, "--yes", "--strategy", "shadow", "--state-schema"];
            words.extend([state.as_str(), "--on-event", &hook, "--reason", HOSTILE]);
            words.extend(more);
            desk.call(&words, environment)
        };
        run(&full, "by_url", &["--replica", &full], &[]).silent("by URL", 0);
        let none = ["--replica", "none"];
        let called = run(&bare, "by_environment", &none, &[("MYSQL_PWD", PASSWORD)]);
        called.silent("by the environment", 0);
        assert!(!called.command_line.contains(FRAGMENT), "{}", called.command_line);
        let with_file = ["--replica", "none", "--defaults-file", &file];
        let called = run(&bare, "by_file", &with_file, &[]);
        called.silent("by a file", 0);
        assert!(!called.command_line.contains(FRAGMENT), "{}", called.command_line);
        desk.hooks_are_harmless(&format!("{}.{HOSTILE}", db.name()));
        // errors
        let wrong = url(&format!(":{ENCODED}x"));
        desk.call(&["list", &wrong, "--state-schema", &state], &[]).silent("a wrong password", 3);
        let nowhere = format!("mysql://{user}:{ENCODED}@127.0.0.1:1/d");
        let ended = desk.call(&["list", &nowhere], &[]);
        assert!(ended.code != 0 && !ended.said.contains(FRAGMENT), "no server: {}", ended.said);
        let authority = desk.private("ca.pem", "no certificate");
        for parameters in [
            format!("?ssl-mode=verify-ca&ssl-ca={authority}"),
            "?ssl-mode=no".to_owned(),
            "?x".to_owned(),
        ] {
            let ended = desk.call(&["list", &format!("{full}{parameters}")], &[]);
            assert!(
                ended.code != 0 && !ended.said.contains(FRAGMENT),
                "{parameters}: {}",
                ended.said
            );
        }
        for command in ["list", "history", "status"] {
            desk.call(&[command, &full, "--state-schema", &state], &[]).silent(command, 0);
        }
        // what is kept
        let kept = state_of(&db, &state).await;
        assert!(kept.contains("by_url") && kept.contains("by_file"), "{kept}");
        assert!(!kept.contains(FRAGMENT), "{kept}");
        // nobody else reads it
        let other = format!("o_{}", db.name());
        let grants = vec![
            format!("CREATE USER {other} IDENTIFIED BY ''"),
            format!("GRANT ALL ON {}.* TO {other}", db.name()),
        ];
        sql::execute(&db.url(), grants).unwrap();
        let as_other = db.url().replacen("root@", &format!("{other}@"), 1);
        let read = sql::execute(&as_other, vec![format!("SELECT * FROM {state}.runs")]);
        assert!(format!("{read:?}").contains("denied"), "{read:?}");
        let end = [
            format!("DROP USER {user}, {other}"),
            format!("DROP DATABASE {state}"),
            "SET GLOBAL log_bin_trust_function_creators = 0".to_owned(),
        ];
        sql::execute(&db.url(), end.to_vec()).unwrap();
    });
}
