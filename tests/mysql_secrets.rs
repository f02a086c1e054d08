//! A password is seen nowhere, the program's state by nobody else, and hooks are told and never carried out.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

mod mysql_steps;
mod secrets;

use mysql_async::prelude::Queryable;
use underpin_tests::servers::{Flavor, TestDb, sql};

use mysql_steps::{LIMIT, on_each};
use secrets::{Desk, ENCODED, Ended, FRAGMENT, HOSTILE, PASSWORD};

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

/// An account with the password, and a table with a hostile name.
struct Scene {
    db: TestDb,
    desk: Desk,
    user: String,
    state: String,
    table: String,
}

impl Scene {
    fn set(db: TestDb) -> Self {
        let (user, state) = (format!("u_{}", db.name()), format!("{}_state", db.name()));
        let table = quoted(HOSTILE);
        let statements = vec![
            "SET GLOBAL log_bin_trust_function_creators = 1".to_owned(),
            format!("CREATE USER {user} IDENTIFIED BY '{}'", escaped()),
            format!("GRANT ALL ON *.* TO {user}"),
            format!("CREATE TABLE {table} (id INT PRIMARY KEY, v INT)"),
            format!("INSERT INTO {table} VALUES (1, 1), (2, 2)"),
        ];
        sql::execute(&db.url(), statements).unwrap();
        Self { db, desk: Desk::new(), user, state, table }
    }

    fn url(&self, secret: &str) -> String {
        self.db.url().replacen("root@", &format!("{}{secret}@", self.user), 1)
    }

    /// The URL with the password.
    fn full(&self) -> String {
        self.url(&format!(":{ENCODED}"))
    }

    fn run(&self, url: &str, column: &str, more: &[&str], environment: &[(&str, &str)]) -> Ended {
        let change = format!("ALTER TABLE {} ADD {column} INT NOT NULL DEFAULT 7", self.table);
        let hook = self.desk.hook();
        let mut words = vec!["run", url, &change, "--yes", "--strategy", "shadow"];
        words.extend(["--state-schema", &self.state, "--on-event", &hook, "--reason", HOSTILE]);
        words.extend(more);
        self.desk.call(&words, environment)
    }

    /// The URL of the replica with the password; the account has come there by itself.
    fn replica(&self) -> String {
        let endpoints = self.db.endpoints();
        endpoints.wait_caught_up(LIMIT).unwrap();
        let (_, place) = endpoints.replica.as_ref().unwrap().split_once('@').unwrap();
        format!("mysql://{}:{ENCODED}@{place}", self.user)
    }

    /// The password is given in each way there is.
    fn given_in_each_way(&self) {
        let full = self.full();
        self.run(&full, "by_url", &["--replica", &self.replica()], &[]).silent("by URL", 0);
        let (bare, none) = (self.url(""), ["--replica", "none"]);
        let called = self.run(&bare, "by_environment", &none, &[("MYSQL_PWD", PASSWORD)]);
        called.silent("by the environment", 0);
        assert!(!called.command_line.contains(FRAGMENT), "{}", called.command_line);
        let text = format!("[client]\npassword='{}'\n", escaped());
        let file = self.desk.private("my.cnf", &text);
        let with_file = ["--replica", "none", "--defaults-file", &file];
        let called = self.run(&bare, "by_file", &with_file, &[]);
        called.silent("by a file", 0);
        assert!(!called.command_line.contains(FRAGMENT), "{}", called.command_line);
        self.desk.hooks_are_harmless(&format!("{}.{HOSTILE}", self.db.name()));
    }

    /// Whatever goes wrong, and what is shown of what was.
    fn errors_and_shows(&self) {
        let (desk, full) = (&self.desk, self.full());
        let wrong = self.url(&format!(":{ENCODED}x"));
        desk.call(&["list", &wrong, "--state-schema", &self.state], &[])
            .silent("a wrong password", 3);
        let authority = desk.private("ca.pem", "no certificate");
        for url in [
            format!("mysql://{}:{ENCODED}@127.0.0.1:1/d", self.user),
            format!("{full}?ssl-mode=verify-ca&ssl-ca={authority}"),
            format!("{full}?ssl-mode=no"),
            format!("{full}?x"),
        ] {
            let ended = desk.call(&["list", &url], &[]);
            assert!(ended.code != 0 && !ended.said.contains(FRAGMENT), "{url}: {}", ended.said);
        }
        for command in ["list", "history", "status"] {
            desk.call(&[command, &full, "--state-schema", &self.state], &[]).silent(command, 0);
        }
    }

    /// The state holds no password, and only who was granted it reads it.
    async fn what_is_kept(&self) {
        let kept = state_of(&self.db, &self.state).await;
        assert!(kept.contains("by_url") && kept.contains("by_file"), "{kept}");
        assert!(!kept.contains(FRAGMENT), "{kept}");
        let other = format!("o_{}", self.db.name());
        let grants = vec![
            format!("CREATE USER {other} IDENTIFIED BY ''"),
            format!("GRANT ALL ON {}.* TO {other}", self.db.name()),
        ];
        sql::execute(&self.db.url(), grants).unwrap();
        let as_other = self.db.url().replacen("root@", &format!("{other}@"), 1);
        let read = sql::execute(&as_other, vec![format!("SELECT * FROM {}.runs", self.state)]);
        assert!(format!("{read:?}").contains("denied"), "{read:?}");
        sql::execute(&self.db.url(), vec![format!("DROP USER {other}")]).unwrap();
    }
}

/// The password as a text of the server's and of an option file.
fn escaped() -> String {
    PASSWORD.replace('\\', "\\\\").replace('\'', "\\'")
}

#[test]
fn a_password_is_seen_nowhere() {
    on_each(&[Flavor::MySql97, Flavor::MariaDbDistro], async |db| {
        let scene = Scene::set(db);
        scene.given_in_each_way();
        scene.errors_and_shows();
        scene.what_is_kept().await;
        let end = [
            format!("DROP USER {}", scene.user),
            format!("DROP DATABASE {}", scene.state),
            "SET GLOBAL log_bin_trust_function_creators = 0".to_owned(),
        ];
        sql::execute(&scene.db.url(), end.to_vec()).unwrap();
    });
}
