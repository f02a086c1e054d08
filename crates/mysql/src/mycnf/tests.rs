//! Option files: syntax, groups, includes, and that nothing makes the reader panic.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::parse::{Line, line};
use super::*;

fn setting(raw: &str) -> (String, Option<String>) {
    match line(raw).unwrap() {
        Line::Setting { key, value } => (key, value),
        other => panic!("{raw:?} is {other:?}"),
    }
}

fn value(raw: &str) -> String {
    setting(raw).1.unwrap()
}

/// The layer that one file's text makes.
fn layer_of(text: &str) -> DbResult<(Layer, Vec<String>)> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("my.cnf");
    fs::write(&path, text).unwrap();
    layer(&read(&FileSearch { defaults_file: Some(path), ..FileSearch::none() })?)
}

#[test]
fn lines_are_told_apart() {
    for blank in ["", "   ", "# a", " ; b", "\t#"] {
        assert_eq!(line(blank), Ok(Line::Empty), "{blank:?}");
    }
    assert_eq!(line(" [ client ] # x"), Ok(Line::Group("client".to_owned())));
    assert_eq!(line("!include /a b.cnf "), Ok(Line::Include("/a b.cnf".to_owned())));
    assert_eq!(line("!includedir\t/d"), Ok(Line::IncludeDir("/d".to_owned())));
    for bad in ["[client", "!includ /x", "!include", "!includedir ", "!includedirs /x", "= 1"] {
        assert!(line(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn keys_and_values() {
    assert_eq!(setting("ssl"), ("ssl".to_owned(), None));
    assert_eq!(setting(" ssl_ca = /x "), ("ssl-ca".to_owned(), Some("/x".to_owned())));
    assert_eq!(setting("loose-ssl_mode=required").0, "ssl-mode");
    assert_eq!(value("a="), "");
    assert_eq!(value("a=b=c"), "b=c");
}

#[test]
fn comments_quotes_and_escapes() {
    assert_eq!(value("a=b # c"), "b");
    assert_eq!(value("a=b;c"), "b;c");
    assert_eq!(value("a='b # c' # d"), "b # c");
    assert_eq!(value("a=\"b\\\"#c\""), "b\"#c");
    assert_eq!(value("a=\" b \""), " b ");
    assert_eq!(value("a='"), "'");
    assert_eq!(value("a=\"b'"), "\"b'");
    assert_eq!(value(r"a=\sb\tc\\d\qe\"), " b\tc\\d\\qe\\");
}

#[test]
fn only_our_groups_count_and_the_last_word_wins() {
    let (layer, warnings) = layer_of(
        "[mysqld]\nport=1\nuser=mysql\n[client]\nport=2\nno-auto-rehash\n[client-mariadb]\nport=3\n\
         [underpin]\nuser=me\n[mariadb-client]\nport=4\n[client]\nhost=h\n",
    )
    .unwrap();
    assert_eq!(
        (layer.port, layer.user.as_deref(), layer.host.as_deref()),
        (Some(4), Some("me"), Some("h"))
    );
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn an_unknown_key_of_ours_is_a_warning() {
    let (_, warnings) = layer_of("[client]\nfoo=1\n[underpin]\nfoo=1\n").unwrap();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains(":4: unknown key foo"), "{warnings:?}");
}

#[test]
fn switches_for_encryption() {
    let cases = [
        ("ssl", Some(TlsMode::Required)),
        ("ssl=0", Some(TlsMode::Disabled)),
        ("skip-ssl", Some(TlsMode::Disabled)),
        ("disable_ssl", Some(TlsMode::Disabled)),
        ("enable-ssl", Some(TlsMode::Required)),
        ("ssl-verify-server-cert", Some(TlsMode::VerifyIdentity)),
        ("ssl-verify-server-cert\nssl", Some(TlsMode::VerifyIdentity)),
        ("ssl-verify-server-cert\nskip-ssl-verify-server-cert", Some(TlsMode::Required)),
        ("skip-ssl-verify-server-cert", None),
        ("ssl-mode=VERIFY_CA", Some(TlsMode::VerifyCa)),
        ("ssl-mode=Preferred", Some(TlsMode::Preferred)),
    ];
    for (text, mode) in cases {
        let (layer, _) = layer_of(&format!("[client]\n{text}\n")).unwrap();
        assert_eq!(layer.mode, mode, "{text}");
    }
}

#[test]
fn bad_files_are_refused_with_their_line() {
    for (text, part) in [
        ("user=a\n", "before the first [group]"),
        ("[client]\n[x\n", ":2"),
        ("[client]\nport=many\n", "no port"),
        ("[client]\nssl-mode=x\n", "verify-identity"),
        ("[client]\nhost\n", "without a value"),
        ("[client]\n\nssl=perhaps\n", ":3"),
    ] {
        let error = layer_of(text).unwrap_err().to_string();
        assert!(error.contains(part), "{part:?} is missing in {error:?}");
    }
}

#[test]
fn a_password_is_never_quoted_in_a_message() {
    let error = layer_of("[client]\nport=s3cr3t\n").unwrap_err();
    assert!(!format!("{error} {error:?}").contains("s3cr3t"));
    let (layer, warnings) = layer_of("[client]\npassword\n").unwrap();
    assert_eq!(layer.password, None);
    assert!(warnings[0].contains("password without a value"));
    assert_eq!(
        layer_of("[client]\npassword=\"a#b\"\n").unwrap().0.password,
        Some(Secret::new("a#b"))
    );
}

#[test]
fn bytes_that_are_not_utf8_hurt_only_where_they_are_used() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("my.cnf");
    let search = FileSearch { defaults_file: Some(path.clone()), ..FileSearch::none() };
    fs::write(&path, b"# \xfc\n[mysqld]\nuser=\xfc\n[client]\nuser=a\n").unwrap();
    assert_eq!(layer(&read(&search).unwrap()).unwrap().0.user.as_deref(), Some("a"));
    fs::write(&path, b"[client]\npassword=\xfc\n").unwrap();
    assert!(layer(&read(&search).unwrap()).unwrap_err().to_string().contains("not UTF-8"));
}

#[test]
fn a_group_suffix_adds_groups() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("my.cnf");
    fs::write(&path, "[client]\nport=1\n[client_eu]\nport=2\n[client_us]\nport=3\n").unwrap();
    let mut search = FileSearch { defaults_file: Some(path), ..FileSearch::none() };
    assert_eq!(layer(&read(&search).unwrap()).unwrap().0.port, Some(1));
    search.group_suffix = Some("_eu".to_owned());
    assert_eq!(layer(&read(&search).unwrap()).unwrap().0.port, Some(2));
}

#[test]
fn includes_are_followed_in_place() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    fs::create_dir(root.join("d")).unwrap();
    fs::write(root.join("d/2.cnf"), "[client]\nport=2\n").unwrap();
    fs::write(root.join("d/1.cnf"), "[client]\nport=1\nuser=one\n").unwrap();
    fs::write(root.join("d/3.txt"), "[client]\nport=3\n").unwrap();
    fs::write(root.join("extra.cnf"), "[client]\nhost=extra\n").unwrap();
    let main = root.join("my.cnf");
    fs::write(
        &main,
        format!(
            "[client]\nhost=main\n!includedir {0}/d\n!include {0}/extra.cnf\ndatabase=db\n",
            root.display()
        ),
    )
    .unwrap();
    let search = FileSearch { defaults_file: Some(main), ..FileSearch::none() };
    let (layer, _) = layer(&read(&search).unwrap()).unwrap();
    assert_eq!((layer.port, layer.user.as_deref()), (Some(2), Some("one")));
    assert_eq!(layer.host.as_deref(), Some("extra"));
    // The group of the including file goes on after an include.
    assert_eq!(layer.database.as_deref(), Some("db"));
}

#[test]
fn includes_that_never_end_are_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let path = root.join("my.cnf");
    fs::write(&path, format!("!include {}\n", path.display())).unwrap();
    let search = FileSearch { defaults_file: Some(path), ..FileSearch::none() };
    assert!(read(&search).unwrap_err().to_string().contains("deeper than 10"));

    // Two files that include their directory twice each: 2^10 reads without the bound on files.
    for name in ["a.cnf", "b.cnf"] {
        let text = format!("!includedir {0}\n!includedir {0}\n", root.display());
        fs::write(root.join(name), text).unwrap();
    }
    fs::remove_file(root.join("my.cnf")).unwrap();
    let search = FileSearch { defaults_file: Some(root.join("a.cnf")), ..FileSearch::none() };
    let error = read(&search).unwrap_err().to_string();
    assert!(error.contains("deeper than 10") || error.contains("more than 200"), "{error}");
}

#[test]
fn a_file_that_everybody_may_write_is_ignored_with_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("my.cnf");
    fs::write(&path, "[client]\nport=1\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let search = FileSearch { search_path: vec![path.clone()], ..FileSearch::none() };
    let (layer_found, warnings) = layer(&read(&search).unwrap()).unwrap();
    assert_eq!(layer_found.port, None);
    assert!(warnings[0].contains("everybody may write"), "{warnings:?}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(layer(&read(&search).unwrap()).unwrap().0.port, Some(1));
}

#[test]
fn files_are_read_in_order_and_may_be_missing() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("global"), "[client]\nport=1\nhost=global\nuser=global\n").unwrap();
    fs::write(at("extra"), "[client]\nport=2\nhost=extra\n").unwrap();
    fs::write(at("home"), "[client]\nport=3\n").unwrap();
    let mut search = FileSearch {
        search_path: vec![at("absent"), at("global"), at("home")],
        defaults_extra_file: Some(at("extra")),
        ..FileSearch::none()
    };
    let (found, _) = layer(&read(&search).unwrap()).unwrap();
    assert_eq!(
        (found.port, found.host.as_deref(), found.user.as_deref()),
        (Some(3), Some("extra"), Some("global"))
    );
    search.defaults_file = Some(at("global"));
    assert_eq!(layer(&read(&search).unwrap()).unwrap().0.port, Some(1));
    search.defaults_file = Some(at("absent"));
    assert!(read(&search).is_err());
    assert!(read(&FileSearch::standard(Some(directory.path()))).is_ok());
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in any::<String>()) {
        for item in super::parse::lines(&text) {
            let _ = item;
        }
    }

    #[test]
    fn no_line_of_likely_characters_makes_the_reader_panic(
        text in "[a-z\\[\\]=#;!\"'\\\\ _\n-]{0,60}",
    ) {
        let _ = layer_of(&text);
    }

    #[test]
    fn a_quoted_value_comes_back(value in "[^\"\\\\\r\n\0\u{fffd}]{0,40}") {
        let raw = format!("password = \"{value}\" # comment");
        prop_assert_eq!(setting(&raw).1, Some(value));
    }
}
