//! The layers and the URL, without a server.

use super::*;

const NO_FILES: fn() -> FileSearch = FileSearch::none;

fn no_environment(_: &str) -> Option<String> {
    None
}

fn options(url: &str) -> ConnectOptions {
    resolve(url, &NO_FILES(), &no_environment).unwrap().options
}

fn help(url: &str) -> String {
    let error = resolve(url, &NO_FILES(), &no_environment).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused);
    error.help.unwrap()
}

/// A personal option file with this text.
fn file(text: &str) -> (tempfile::TempDir, FileSearch) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("my.cnf");
    std::fs::write(&path, text).unwrap();
    (directory, FileSearch { defaults_file: Some(path), ..FileSearch::none() })
}

#[test]
fn a_full_url_is_read() {
    let options = options(
        "mysql://app%40x:p%2Fw%3A%40%25%C3%A4+@db.example:3307/shop%2F1\
         ?ssl-mode=VERIFY_CA&ssl-ca=/ca.pem&ssl_cert=/c.pem&ssl-key=/k.pem&connect-timeout-ms=250",
    );
    assert_eq!(options.user, "app@x");
    assert_eq!(options.password, Some(Secret::new("p/w:@%ä+")));
    assert_eq!((options.host.as_str(), options.port), ("db.example", 3307));
    assert_eq!(options.database.as_deref(), Some("shop/1"));
    assert_eq!(options.tls.mode, TlsMode::VerifyCa);
    assert_eq!(options.tls.ca, Some(PathBuf::from("/ca.pem")));
    assert_eq!(options.tls.cert, Some(PathBuf::from("/c.pem")));
    assert_eq!(options.tls.key, Some(PathBuf::from("/k.pem")));
    assert_eq!(options.connect_timeout_ms, 250);
}

#[test]
fn what_the_url_leaves_out_has_defaults() {
    let options = options("mariadb://app@/");
    assert_eq!((options.host.as_str(), options.port), ("127.0.0.1", 3306));
    assert_eq!((options.password, options.database, options.socket), (None, None, None));
    assert_eq!(options.tls.mode, TlsMode::Preferred);
    assert_eq!(options.connect_timeout_ms, 10_000);
    assert_eq!(options.application_name, "underpin");
}

#[test]
fn ipv6_stands_in_brackets() {
    let with_port = options("mysql://app@[::1]:3310/shop");
    assert_eq!((with_port.host.as_str(), with_port.port), ("::1", 3310));
    assert_eq!(with_port.describe(), "app@[::1]:3310/shop");
    assert_eq!(options("mysql://app@[fe80::1%25eth0]").host, "fe80::1%eth0");
    assert!(help("mysql://app@[::1").contains("']'"));
    assert!(help("mysql://app@[nonsense]").contains("IPv6"));
    assert!(help("mysql://app@::1/shop").contains("brackets"));
}

#[test]
fn a_socket_is_a_parameter() {
    let options = options("mysql://app@/shop?socket=/run/mysqld/mysqld.sock");
    assert_eq!(options.socket, Some(PathBuf::from("/run/mysqld/mysqld.sock")));
    assert_eq!(options.describe(), "app@/run/mysqld/mysqld.sock/shop");
    assert!(help("mysql://app@%2Frun%2Fmysqld.sock/shop").contains("socket="));
}

#[test]
fn an_unknown_parameter_names_the_known_ones() {
    let text = help("mysql://app@h/?sslmode=required");
    assert!(text.contains("\"sslmode\"") && text.contains("ssl-mode, ssl-ca"), "{text}");
    assert!(help("mysql://app@h/?ssl-mode=on").contains("verify-identity"));
    assert!(help("mysql://app@h/?ssl-ca=/a&ssl-ca=/b").contains("twice"));
    assert!(help("mysql://app@h/?ssl-ca=").contains("empty"));
}

#[test]
fn what_is_wrong_is_said_and_the_password_is_not() {
    let secret = "s3cr3t";
    for url in [
        format!("mysql://app:{secret}/x@host/db"),
        format!("mysql://app:{secret}?x@host/db"),
        format!("mysql://app:1?{secret}=@host/db"),
        format!("mysql://app:a@b?{secret}=@host/db"),
        format!("mysql://app:{secret}#x@host/db"),
        format!("mysql://app:{secret}"),
        format!("mysql://app:{secret}%zz@host/db"),
        format!("mysql://app:{secret}%ff@host/db"),
        format!("mysql://app@host:{secret}"),
        format!("postgres://app:{secret}@host/db"),
    ] {
        let error = resolve(&url, &NO_FILES(), &no_environment).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(secret), "{error}");
    }
    let options = options(&format!("mysql://app:{secret}@host/db"));
    assert!(!format!("{options} {options:?}").contains(secret));
}

#[test]
fn a_port_is_a_port() {
    for url in ["mysql://a@h:0", "mysql://a@h:65536", "mysql://a@h:x", "mysql://a@h:33:06"] {
        assert!(help(url).contains("no port"), "{url}");
    }
    assert_eq!(options("mysql://a@h:/db").port, 3306);
}

#[test]
fn modes_that_cannot_be_kept_are_refused() {
    assert!(help("mysql://a@h/?ssl-mode=verify-ca").contains("needs ssl-ca"));
    assert!(help("mysql://a@h/?ssl-cert=/c").contains("go together"));
    assert!(help("mysql://a@/?socket=/s&ssl-mode=verify-identity").contains("Unix socket"));
    // Public authorities vouch for a name, so identity can be checked without a CA of one's own.
    assert_eq!(options("mysql://a@h/?ssl-mode=verify-identity").tls.mode, TlsMode::VerifyIdentity);
}

#[test]
fn a_ca_alone_means_verify_ca() {
    assert_eq!(options("mysql://a@h/?ssl-ca=/ca").tls.mode, TlsMode::VerifyCa);
    let (_directory, search) = file("[client]\nssl-ca=/ca\n");
    let resolved = resolve("mysql://a@h", &search, &no_environment).unwrap();
    assert_eq!(resolved.options.tls.mode, TlsMode::VerifyCa);
    let resolved = resolve("mysql://a@h/?ssl-mode=required", &search, &no_environment).unwrap();
    assert_eq!(resolved.options.tls.mode, TlsMode::Required);
    assert!(resolved.warnings[0].contains("ssl-ca is not used"), "{:?}", resolved.warnings);
}

#[test]
fn layers_in_order() {
    let (_directory, search) = file(
        "[client]\nuser=file\npassword=from-file\nhost=file-host\nport=3333\ndatabase=file-db\n",
    );
    let environment = |name: &str| (name == "MYSQL_PWD").then(|| "from-environment".to_owned());

    let files = resolve("mysql:///", &search, &no_environment).unwrap().options;
    assert_eq!(files.describe(), "file@file-host:3333/file-db");
    assert_eq!(files.password, Some(Secret::new("from-file")));

    let both = resolve("mysql://url@/", &search, &environment).unwrap().options;
    assert_eq!(both.describe(), "url@file-host:3333/file-db");
    assert_eq!(both.password, Some(Secret::new("from-environment")));

    let all = resolve("mysql://url:from-url@url-host:1/d", &search, &environment).unwrap().options;
    assert_eq!(all.describe(), "url@url-host:1/d");
    assert_eq!(all.password, Some(Secret::new("from-url")));
}

#[test]
fn the_login_name_is_the_last_resort() {
    let login = |name: &str| (name == "USER").then(|| "me".to_owned());
    let options = resolve("mysql://h/db", &NO_FILES(), &login).unwrap().options;
    assert_eq!(options.user, "me");
    assert!(help("mysql://h/db").contains("no user"));
}

#[test]
fn a_host_in_the_url_excludes_the_socket_of_a_file() {
    let (_directory, search) = file("[client]\nuser=a\nhost=localhost\nsocket=/run/s\n");
    let socket = resolve("mysql:///db", &search, &no_environment).unwrap().options.socket;
    assert_eq!(socket, Some(PathBuf::from("/run/s")));
    for url in ["mysql://localhost/db", "mysql://db.example/db"] {
        let options = resolve(url, &search, &no_environment).unwrap().options;
        assert_eq!(options.socket, None, "{url}");
    }
    let (_directory, search) = file("[client]\nuser=a\nhost=db.example\nsocket=/run/s\n");
    assert_eq!(resolve("mysql:///db", &search, &no_environment).unwrap().options.socket, None);
}

#[test]
fn certificate_and_key_come_from_one_place() {
    let (_directory, search) = file("[client]\nuser=a\nssl-cert=/file.pem\nssl-key=/file.key\n");
    let files = resolve("mysql:///", &search, &no_environment).unwrap().options.tls;
    assert_eq!(files.key, Some(PathBuf::from("/file.key")));
    let mixed = resolve("mysql:///?ssl-cert=/url.pem", &search, &no_environment).unwrap_err();
    assert!(mixed.to_string().contains("go together"), "{mixed}");
}
