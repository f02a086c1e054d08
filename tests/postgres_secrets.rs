//! A password is seen nowhere, the program's state by nobody else, and hooks are told and never carried out.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

mod secrets;

use underpin_tests::servers::{Flavor, Server, ServerSpec, pg, sql, wanted};

use secrets::{Desk, ENCODED, FRAGMENT, HOSTILE, PASSWORD};

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

#[test]
fn a_password_is_seen_nowhere() {
    if !wanted(Flavor::PostgresDistro) {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let server = server(directory.path());
    let table = quoted(HOSTILE);
    let as_sql = PASSWORD.replace('\'', "''");
    sql::execute(
        &server.url(),
        vec![
            format!("CREATE ROLE app LOGIN PASSWORD '{as_sql}'"),
            "CREATE ROLE other LOGIN PASSWORD 'o'".to_owned(),
            "CREATE DATABASE shop OWNER app".to_owned(),
        ],
    )
    .unwrap();
    let root = format!("{}shop", server.url());
    sql::execute(
        &root,
        vec![
            // somebody was generous: whatever the role makes is everybody's
            "ALTER DEFAULT PRIVILEGES FOR ROLE app GRANT ALL ON SCHEMAS TO PUBLIC".to_owned(),
            "ALTER DEFAULT PRIVILEGES FOR ROLE app GRANT ALL ON TABLES TO PUBLIC".to_owned(),
            "ALTER DEFAULT PRIVILEGES FOR ROLE app GRANT ALL ON SEQUENCES TO PUBLIC".to_owned(),
            "CREATE SCHEMA s AUTHORIZATION app".to_owned(),
            format!("CREATE TABLE s.{table} (id int PRIMARY KEY, v int)"),
            format!("ALTER TABLE s.{table} OWNER TO app"),
            format!("INSERT INTO s.{table} VALUES (1, 1), (2, 2)"),
        ],
    )
    .unwrap();
    let url = |secret: &str| format!("postgres://app{secret}@127.0.0.1:{}/shop", server.port());
    let (bare, full) = (url(""), url(&format!(":{ENCODED}")));
    let desk = Desk::new();
    let hook = desk.hook();
    let run = |url: &str, column: &str, more: &[&str], environment: &[(&str, &str)]| {
        let change = format!("ALTER TABLE s.{table} ADD {column} int NOT NULL DEFAULT 7");
        let mut words = vec!["run", url, &change, "--yes", "--strategy", "shadow"];
        words.extend(["--on-event", &hook, "--reason", HOSTILE]);
        words.extend(more);
        desk.call(&words, environment)
    };
    let none = ["--replica", "none"];
    run(&full, "by_url", &none, &[]).silent("by URL", 0);
    let called = run(&bare, "by_environment", &none, &[("PGPASSWORD", PASSWORD)]);
    called.silent("by the environment", 0);
    assert!(!called.command_line.contains(FRAGMENT), "{}", called.command_line);
    let line = format!("*:*:*:app:{}\n", PASSWORD.replace('\\', "\\\\").replace(':', "\\:"));
    let file = desk.private("pass", &line);
    let called = run(&bare, "by_file", &none, &[("PGPASSFILE", &file)]);
    called.silent("by a file", 0);
    assert!(!called.command_line.contains(FRAGMENT), "{}", called.command_line);
    let words = format!(
        "host=127.0.0.1 port={} user=app dbname=shop password='{}'",
        server.port(),
        PASSWORD.replace('\\', "\\\\").replace('\'', "\\'")
    );
    desk.call(&["list", &words], &[]).silent("by words", 0);
    desk.hooks_are_harmless(&format!("s.{HOSTILE}"));
    // errors
    desk.call(&["list", &url(&format!(":{ENCODED}x"))], &[]).silent("a wrong password", 3);
    let nowhere = format!("postgres://app:{ENCODED}@127.0.0.1:1/d");
    let ended = desk.call(&["list", &nowhere], &[]);
    assert!(ended.code != 0 && !ended.said.contains(FRAGMENT), "no server: {}", ended.said);
    for parameters in ["?sslmode=require", "?sslmode=verify-full", "?sslmode=no", "?x"] {
        let ended = desk.call(&["list", &format!("{full}{parameters}")], &[]);
        assert!(ended.code != 0 && !ended.said.contains(FRAGMENT), "{parameters}: {}", ended.said);
    }
    for command in ["list", "history", "status"] {
        desk.call(&[command, &full], &[]).silent(command, 0);
    }
    // what is kept
    let kept = runtime.block_on(state_of(&root));
    assert!(kept.contains("by_url") && kept.contains("by_file"), "{kept}");
    assert!(!kept.contains(FRAGMENT), "{kept}");
    // nobody else reads it, whatever new tables of the role are granted by default
    let other = format!("postgres://other:o@127.0.0.1:{}/shop", server.port());
    for name in ["runs", "history", "orders", "live", "beats", "fences", "marks"] {
        let read = sql::execute(&other, vec![format!("SELECT * FROM underpin.{name}")]);
        assert!(format!("{read:?}").contains("denied"), "{name}: {read:?}");
        let granted = format!("SELECT has_table_privilege('other', 'underpin.{name}', 'SELECT')");
        let granted: Option<bool> = pg::first_value(&root, &granted).unwrap();
        assert_eq!(granted, Some(false), "{name}");
    }
}
