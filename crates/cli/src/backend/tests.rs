//! URLs, flags and what may be shown of them.

use clap::Parser as _;

use super::*;
use crate::args::{Cli, SslMode};

/// Flags with an option file that exists and is empty, whatever this machine has.
fn global(flags: &[&str]) -> GlobalArgs {
    let line = ["underpin", "status", "mysql://"];
    let mut global = Cli::try_parse_from(line.iter().chain(flags)).unwrap().global;
    let file = std::env::temp_dir().join(format!("underpin-cli-{}.cnf", std::process::id()));
    std::fs::write(&file, "").unwrap();
    global.connection.defaults_file = Some(file);
    global
}

fn resolve(url: &str, flags: &[&str], replicas: &[&str]) -> Result<Backend, Problem> {
    let replicas: Vec<String> = replicas.iter().map(|url| (*url).to_owned()).collect();
    Backend::resolve(url, &global(flags), SessionWishes::default(), &replicas)
}

#[test]
fn a_url_shows_no_password() {
    for (url, text) in [
        ("mysql://a:secret@db1/shop", "mysql://a@db1/shop"),
        ("mysql://a:sec@ret@db1", "mysql://a@db1"),
        ("mysql://a:se/c?r@et@db1/x?socket=/y", "mysql://a@db1/x?socket=/y"),
        ("mysql://:secret@db1", "mysql://@db1"),
        ("mysql://a@db1", "mysql://a@db1"),
        ("mysql://db1", "mysql://db1"),
        ("mysql://", "mysql://"),
    ] {
        assert_eq!(shown(url), text);
    }
}

#[test]
fn no_message_holds_a_password() {
    for url in [
        "mysql://a:secret@db1:port/shop",
        "mysql://a:se?cret=secret@db1",
        "postgres://a:secret@db1:port/shop",
        "postgres://a:se?cret=secret@db1",
        "host=db1 password=secret colour=blue",
        "secret",
    ] {
        let problem = resolve(url, &[], &[]).unwrap_err();
        assert!(!format!("{problem:?}").contains("secret"), "{problem:?}");
    }
    let problem = resolve("mysql://a@db1", &[], &["mysql://b:secret@db2:port"]).unwrap_err();
    assert!(problem.message.starts_with("--replica mysql://b@db2:port:"), "{problem}");
    assert!(!format!("{problem:?}").contains("secret"), "{problem:?}");
}

#[test]
fn a_password_in_the_url_is_a_remark_only() {
    let backend = resolve("mysql://a:secret@db1", &[], &[]).unwrap();
    assert!(backend.remarks().iter().any(|remark| remark.contains("MYSQL_PWD")));
    assert!(backend.warnings().is_empty(), "{:?}", backend.warnings());
    let backend = resolve("mysql://a@db1", &[], &[]).unwrap();
    assert!(!backend.remarks().iter().any(|remark| remark.contains("MYSQL_PWD")));
}

#[test]
fn tls_flags_become_settings() {
    let flags = ["--ssl-mode", "verify-identity", "--ssl-ca", "/etc/my ca&x.pem"];
    let backend = resolve("mysql://a@db1/shop", &flags, &[]).unwrap();
    let Family::MySql(server) = &backend.family else { panic!("another family") };
    assert_eq!(server.options.tls.mode.name(), SslMode::VerifyIdentity.name());
    assert_eq!(server.options.tls.ca.as_deref(), Some(Path::new("/etc/my ca&x.pem")));
    assert_eq!(backend.default_schema().as_deref(), Some("shop"));
}

#[test]
fn a_setting_stands_in_one_place() {
    let problem = resolve("mysql://a@db1?ssl_mode=required", &["--ssl-mode", "disabled"], &[]);
    let problem = problem.unwrap_err();
    assert_eq!(problem.message, "--ssl-mode and the URL's ssl-mode exclude each other");
}

#[test]
fn an_unknown_scheme_says_how_urls_look() {
    for url in ["orders", "http://db1"] {
        assert!(resolve(url, &[], &[]).unwrap_err().next.contains("mysql://"), "{url}");
    }
}

#[test]
fn none_stands_alone() {
    assert!(resolve("mysql://a@db1", &[], &["none"]).is_ok());
    assert!(resolve("mysql://a@db1", &[], &["none", "mysql://db2"]).is_err());
}

#[test]
fn the_lock_time_out_reaches_the_sessions() {
    let wishes = SessionWishes { lock_timeout_ms: Some(7_000) };
    let backend = Backend::resolve("mysql://a@db1", &global(&[]), wishes, &[]).unwrap();
    let Family::MySql(server) = &backend.family else { panic!("another family") };
    assert_eq!(server.settings.lock_wait_timeout_s, 7);
}

#[test]
fn a_missing_option_file_is_a_usage_error() {
    let mut global = global(&[]);
    global.connection.defaults_file = Some("/nowhere/my.cnf".into());
    let problem =
        Backend::resolve("mysql://a@db1", &global, SessionWishes::default(), &[]).unwrap_err();
    assert_eq!(problem.status, crate::exit::ExitStatus::Usage);
    assert!(problem.message.contains("/nowhere/my.cnf"), "{problem}");
}

#[test]
fn a_shown_url_can_be_given_a_database() {
    for (url, expected) in [
        ("mysql://a@db1:3307", "mysql://a@db1:3307/shop"),
        ("mysql://a@db1/other?ssl-mode=required", "mysql://a@db1/shop?ssl-mode=required"),
        ("mysql://", "mysql:///shop"),
    ] {
        assert_eq!(with_database(url, "shop"), expected);
    }
    assert_eq!(with_database("mysql://db1", "a b"), "mysql://db1/a%20b");
    let backend = resolve("mysql://a:secret@db1", &[], &[]).unwrap();
    assert_eq!(backend.url(), "mysql://a@db1");
    let place = backend.place_of("shop", "orders");
    assert_eq!(place, ("mysql://a@db1/shop".to_owned(), "orders".to_owned()));
}

fn postgres(url: &str, flags: &[&str], replicas: &[&str]) -> Result<Backend, Problem> {
    let line = ["underpin", "status", "postgres://"];
    let global = Cli::try_parse_from(line.iter().chain(flags)).unwrap().global;
    let replicas: Vec<String> = replicas.iter().map(|url| (*url).to_owned()).collect();
    let wishes = SessionWishes { lock_timeout_ms: Some(700) };
    Backend::resolve(url, &global, wishes, &replicas)
}

#[test]
fn postgres_is_known_by_its_scheme_or_its_pairs() {
    for (url, shown) in [
        ("postgres://a:secret@db1/shop", "postgres://a@db1/shop"),
        (
            "postgresql://a@db1/shop?password=secret&connect_timeout=5",
            "postgresql://a@db1/shop?connect_timeout=5",
        ),
        ("postgres://a@db1/shop?password=secret", "postgres://a@db1/shop"),
        ("host=db1 port=5433 user=a dbname=shop password=secret", "postgres://a@db1:5433/shop"),
    ] {
        let backend = postgres(url, &[], &["none"]).unwrap();
        assert_eq!(backend.url(), shown);
        assert_eq!(syntax_of(url), Syntax::postgres());
        assert!(backend.remarks().iter().any(|remark| remark.contains(".pgpass")), "{url}");
        assert_eq!(backend.default_schema().as_deref(), Some("public"));
        let place = backend.place_of("sales", "orders");
        assert_eq!(place, (shown.to_owned(), "sales.orders".to_owned()));
        let Family::Postgres(server) = &backend.family else { panic!("another family") };
        assert_eq!(server.settings.lock_timeout_ms, 700);
        assert_eq!(server.options.password.as_ref().unwrap().expose(), "secret");
    }
}

#[test]
fn flags_of_encryption_mean_the_same_there() {
    let flags = ["--ssl-mode", "verify-full", "--ssl-ca", "/etc/my ca&x'.pem"];
    for url in ["postgres://a@db1/shop", "host=db1 user=a"] {
        let backend = postgres(url, &flags, &[]).unwrap();
        let Family::Postgres(server) = &backend.family else { panic!("another family") };
        let tls = &server.options.tls;
        assert_eq!(tls.mode.name(), "verify-full");
        let expected = underpin_postgres::options::RootCert::File("/etc/my ca&x'.pem".into());
        assert_eq!(tls.root_cert, Some(expected));
    }
    assert!(postgres("postgres://a@db1?sslmode=require", &flags, &[]).is_err());
    assert!(postgres("postgres://a@db1", &["--defaults-file", "/x"], &[]).is_err());
    assert!(postgres("postgres://a@db1", &[], &["postgres://b:secret@db2,db3"]).is_err());
}
