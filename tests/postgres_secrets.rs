//! A password is seen nowhere, the program's state by nobody else, and hooks are told and never carried out.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

mod secrets;

use underpin_tests::servers::{Flavor, Server, ServerSpec, pg, sql, wanted};

use secrets::{Desk, ENCODED, Ended, FRAGMENT, HOSTILE, PASSWORD};

/// A name as the server reads it, whatever is in it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A server that wants a password of everybody but its superuser.
fn server(directory: &std::path::Path) -> Server {
    use std::os::unix::fs::PermissionsExt;
    let hba = directory.join("pg_hba.conf");
    let lines =
        "local all all trust\nhost all postgres all trust\nhost all all all scram-sha-256\n";
    std::fs::write(&hba, lines).unwrap();
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&hba, std::fs::Permissions::from_mode(0o644)).unwrap();
    let spec =
        ServerSpec::new(Flavor::PostgresDistro).option(format!("hba_file={}", hba.display()));
    Server::start(&spec, false).unwrap()
}

/// All that the tables of the state hold.
async fn state_of(url: &str) -> String {
    let client = pg::connect(url).await.unwrap();
    let names = "SELECT relname FROM pg_class WHERE relnamespace = 'underpin'::regnamespace AND relkind = 'r'";
    let mut all = String::new();
    for name in pg::text_rows(&client, names).await.unwrap().concat().into_iter().flatten() {
        let rows = pg::text_rows(&client, &format!("SELECT r::text FROM underpin.{name} r"))
            .await
            .unwrap();
        all.extend(rows.concat().into_iter().flatten());
    }
    all
}

/// A role with the password, generous default privileges, and a table with a hostile name.
struct Scene {
    server: Server,
    desk: Desk,
    table: String,
}

impl Scene {
    fn set(directory: &std::path::Path) -> Self {
        let server = server(directory);
        let table = format!("s.{}", quoted(HOSTILE));
        let roles = [
            format!("CREATE ROLE app LOGIN PASSWORD '{}'", PASSWORD.replace('\'', "''")),
            "CREATE ROLE other LOGIN PASSWORD 'o'".to_owned(),
            "CREATE DATABASE shop OWNER app".to_owned(),
        ];
        sql::execute(&server.url(), roles.to_vec()).unwrap();
        let generous = ["SCHEMAS", "TABLES", "SEQUENCES"].map(|kind| {
            format!("ALTER DEFAULT PRIVILEGES FOR ROLE app GRANT ALL ON {kind} TO PUBLIC")
        });
        let mut statements = generous.to_vec();
        statements.extend([
            "CREATE SCHEMA s AUTHORIZATION app".to_owned(),
            format!("CREATE TABLE {table} (id int PRIMARY KEY, v int)"),
            format!("ALTER TABLE {table} OWNER TO app"),
            format!("INSERT INTO {table} VALUES (1, 1), (2, 2)"),
        ]);
        let scene = Self { server, desk: Desk::new(), table };
        sql::execute(&scene.root(), statements).unwrap();
        scene
    }

    fn root(&self) -> String {
        format!("{}shop", self.server.url())
    }

    fn url(&self, secret: &str) -> String {
        format!("postgres://app{secret}@127.0.0.1:{}/shop", self.server.port())
    }

    /// The URL with the password.
    fn full(&self) -> String {
        self.url(&format!(":{ENCODED}"))
    }

    fn run(&self, url: &str, column: &str, environment: &[(&str, &str)]) -> Ended {
        let change = format!("ALTER TABLE {} ADD {column} int NOT NULL DEFAULT 7", self.table);
        let hook = self.desk.hook();
        let mut words = vec!["run", url, &change, "--yes", "--strategy", "shadow"];
        words.extend(["--replica", "none", "--on-event", &hook, "--reason", HOSTILE]);
        self.desk.call(&words, environment)
    }

    /// The password is given in each way there is.
    fn given_in_each_way(&self) {
        self.run(&self.full(), "by_url", &[]).silent("by URL", 0);
        let bare = self.url("");
        let called = self.run(&bare, "by_environment", &[("PGPASSWORD", PASSWORD)]);
        called.silent("by the environment", 0);
        assert!(!called.command_line.contains(FRAGMENT), "{}", called.command_line);
        let line = PASSWORD.replace('\\', "\\\\").replace(':', "\\:");
        let file = self.desk.private("pass", &format!("*:*:*:app:{line}\n"));
        let called = self.run(&bare, "by_file", &[("PGPASSFILE", &file)]);
        called.silent("by a file", 0);
        assert!(!called.command_line.contains(FRAGMENT), "{}", called.command_line);
        let words = PASSWORD.replace('\\', "\\\\").replace('\'', "\\'");
        let port = self.server.port();
        let words = format!("host=127.0.0.1 port={port} user=app dbname=shop password='{words}'");
        self.desk.call(&["list", &words], &[]).silent("by words", 0);
        self.desk.hooks_are_harmless(&format!("s.{HOSTILE}"));
    }

    /// Whatever goes wrong, and what is shown of what was.
    fn errors_and_shows(&self) {
        let (desk, full) = (&self.desk, self.full());
        let wrong = self.url(&format!(":{ENCODED}x"));
        desk.call(&["list", &wrong], &[]).silent("a wrong password", 3);
        for url in [
            format!("postgres://app:{ENCODED}@127.0.0.1:1/d"),
            format!("{full}?sslmode=require"),
            format!("{full}?sslmode=verify-full"),
            format!("{full}?sslmode=no"),
            format!("{full}?x"),
        ] {
            let ended = desk.call(&["list", &url], &[]);
            assert!(ended.code != 0 && !ended.said.contains(FRAGMENT), "{url}: {}", ended.said);
        }
        for command in ["list", "history", "status"] {
            desk.call(&[command, &full], &[]).silent(command, 0);
        }
    }

    /// The state holds no password, and nobody else reads it, whatever new tables of the role are granted.
    fn what_is_kept(&self) {
        let root = self.root();
        let asked = root.clone();
        let kept = sql::block_on(async move { Ok(state_of(&asked).await) }).unwrap();
        assert!(kept.contains("by_url") && kept.contains("by_file"), "{kept}");
        assert!(!kept.contains(FRAGMENT), "{kept}");
        let other = format!("postgres://other:o@127.0.0.1:{}/shop", self.server.port());
        for name in ["runs", "history", "orders", "live", "beats", "fences", "marks"] {
            let read = sql::execute(&other, vec![format!("SELECT * FROM underpin.{name}")]);
            assert!(format!("{read:?}").contains("denied"), "{name}: {read:?}");
            let ask = format!("SELECT has_table_privilege('other', 'underpin.{name}', 'SELECT')");
            let granted: Option<bool> = pg::first_value(&root, &ask).unwrap();
            assert_eq!(granted, Some(false), "{name}");
        }
    }
}

#[test]
fn a_password_is_seen_nowhere() {
    if !wanted(Flavor::PostgresDistro) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let scene = Scene::set(directory.path());
    scene.given_in_each_way();
    scene.errors_and_shows();
    scene.what_is_kept();
}
