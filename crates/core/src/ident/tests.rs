//! Hostile names: quoting, and the order that the swap depends on.

use proptest::prelude::*;

use super::*;

const CHARS: NameLimit = NameLimit::Chars(64);

/// The order of names as servers compare them, with case folded in every way one might.
fn sorts_after(ours: &str, source: &str) -> bool {
    let lower = |name: &str| name.chars().flat_map(char::to_lowercase).collect::<String>();
    let upper = |name: &str| name.chars().flat_map(char::to_uppercase).collect::<String>();
    ours.as_bytes() > source.as_bytes()
        && ours.to_ascii_lowercase() > source.to_ascii_lowercase()
        && ours.to_ascii_uppercase() > source.to_ascii_uppercase()
        && lower(ours) > lower(source)
        && upper(ours) > upper(source)
}

fn check_shadow(source: &str, suffix: &str, limit: NameLimit) {
    let name = shadow_name(source, suffix, limit).unwrap();
    assert!(sorts_after(&name, source), "{name:?} before {source:?}");
    assert!(name.ends_with(suffix) && fits(&name, source, limit), "{name:?}");
    assert_eq!(name, shadow_name(source, suffix, limit).unwrap());
}

#[test]
fn names_are_quoted_by_doubling() {
    for (dialect, name, quoted) in [
        (Dialect::MySql, "a", "`a`"),
        (Dialect::MySql, "a`b``\"'\\", "`a``b````\"'\\`"),
        (Dialect::MySql, " é\n", "` é\n`"),
        (Dialect::Postgres, "a\"b`", "\"a\"\"b`\""),
    ] {
        assert_eq!(quote_ident(dialect, name).unwrap(), quoted);
        assert_eq!(ColumnName::new(name).unwrap().quoted(dialect), quoted);
    }
    assert_eq!(quote_ident(Dialect::MySql, ""), Err(IdentError::Empty));
    assert_eq!(quote_ident(Dialect::MySql, "a\0"), Err(IdentError::NulInName("a\0".into())));
    assert!(TableName::new("a\0", "b").is_err() && TableName::new("a", "").is_err());
    assert!(ColumnName::new("\0").is_err());
}

#[test]
fn strings_are_quoted_for_any_setting() {
    for (dialect, text, quoted) in [
        (Dialect::MySql, "", "''"),
        (Dialect::MySql, "plain ~ text", "'plain ~ text'"),
        (Dialect::MySql, "it's", "_utf8mb4 X'69742773'"),
        (Dialect::MySql, "a\\", "_utf8mb4 X'615C'"),
        (Dialect::MySql, "\0\n", "_utf8mb4 X'000A'"),
        (Dialect::MySql, "€", "_utf8mb4 X'E282AC'"),
        (Dialect::Postgres, "it's é", "'it''s é'"),
        (Dialect::Postgres, "a\\'", "E'a\\\\'''"),
    ] {
        assert_eq!(quote_literal(dialect, text).unwrap(), quoted);
    }
    assert!(quote_literal(Dialect::Postgres, "\0").is_err());
}

#[test]
fn names_survive_storage_and_stay_checked() {
    let table = TableName::new("s", "t").unwrap();
    let json = serde_json::to_string(&table).unwrap();
    assert_eq!(json, r#"{"schema":"s","name":"t"}"#);
    assert_eq!(serde_json::from_str::<TableName>(&json).unwrap(), table);
    assert!(serde_json::from_str::<TableName>(r#"{"schema":"s","name":""}"#).is_err());
    let column: ColumnName = serde_json::from_str("\"c\"").unwrap();
    assert_eq!((column.as_str(), serde_json::to_string(&column).unwrap()), ("c", "\"c\"".into()));
    assert!(serde_json::from_str::<ColumnName>("\"a\\u0000\"").is_err());
}

#[test]
fn long_names_sort_after_the_source_whatever_is_cut() {
    for source in [
        "z".repeat(64),
        "Z".repeat(64),
        "~".repeat(64),
        "\u{7f}".repeat(64),
        "é".repeat(64),
        "漢".repeat(64),
        "漢".repeat(40),
        "\u{FF5E}".repeat(64),
        "\u{FFFC}".repeat(64),
        format!("a{}", "\u{FFFF}".repeat(63)),
        format!("{}{}", "a".repeat(40), "~".repeat(24)),
        format!("{}{}", "a".repeat(63), "~"),
        "T".repeat(62),
        "Ab_".repeat(21),
        "K\u{212A}İ".repeat(21),
    ] {
        for suffix in ["~new", "~old", "_log", "-2"] {
            check_shadow(&source, suffix, CHARS);
        }
    }
    // Nothing sorts after these but characters that no name may hold.
    assert!(matches!(
        shadow_name(&"\u{FFFF}".repeat(64), "~new", CHARS),
        Err(IdentError::NoNameAfter { .. })
    ));
}

#[test]
fn every_character_of_the_basic_plane_is_outsorted() {
    for replaced in ('\u{1}'..='\u{FFFC}').filter(|c| *c != '\0') {
        // 63 letters that may stay and one character that must go.
        let source = format!("{replaced}{}", "\u{FFFF}".repeat(63));
        check_shadow(&source, "~new", CHARS);
    }
}

#[test]
fn shortened_names_are_fixed_for_ever() {
    // A run that is resumed by a later version must find its own tables.
    let source = "orders_of_the_previous_financial_year_by_region_and_by_customer1";
    let name = shadow_name(source, "~new", CHARS).unwrap();
    assert_eq!(name, "orders_of_the_previous_financial_year_by_region_and~df486b68~new");
    let other = source.replace("customer1", "customer2");
    assert_ne!(name, shadow_name(&other, "~new", CHARS).unwrap());
}

#[test]
fn file_names_stay_short() {
    // 45 of these take 225 bytes in the file system; nine more characters would break the limit of 255.
    let source = "漢".repeat(45);
    let name = shadow_name(&source, "~new", CHARS).unwrap();
    assert!(file_name_bytes(&name) <= file_name_bytes(&source), "{name}");
}

#[test]
fn what_cannot_be_named_is_refused() {
    for (source, suffix) in [
        ("", "~new"),
        ("a\0", "~new"),
        ("t", ""),
        ("t", "New"),
        ("t", " new"),
        ("t", "é"),
        (&"a".repeat(65), "~new"),
        (&"a".repeat(64), &"x".repeat(60)),
    ] {
        assert!(shadow_name(source, suffix, CHARS).is_err(), "{source:?} {suffix:?}");
    }
}

fn hostile_names() -> impl Strategy<Value = String> {
    let hostile = prop_oneof![
        8 => prop::char::range('a', 'z'),
        2 => prop::char::range('A', 'Z'),
        4 => Just('~'),
        1 => Just(' '),
        1 => Just('`'),
        1 => Just('"'),
        1 => prop::char::range('\u{1}', '\u{7f}'),
        4 => prop::char::range('\u{80}', '\u{D7FF}'),
        1 => prop::char::range('\u{E000}', '\u{FFFF}'),
    ];
    prop::collection::vec(hostile, 1..=64).prop_map(String::from_iter)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn ours_sort_after_hostile_names(source in hostile_names(), suffix in "[~_][a-z0-9]{1,7}") {
        check_shadow(&source, &suffix, CHARS);
        if source.len() <= 63 {
            check_shadow(&source, &suffix, NameLimit::Bytes(63));
        }
    }

    #[test]
    fn quoted_names_read_back(name in hostile_names()) {
        let quoted = quote_ident(Dialect::MySql, &name).unwrap();
        prop_assert_eq!(quoted[1..quoted.len() - 1].replace("``", "`"), name.clone());
        let sql = format!("ALTER TABLE {quoted} DROP {quoted}");
        let alter = crate::alter::Alter::parse(&sql, crate::alter::Syntax::mysql()).unwrap();
        prop_assert_eq!(alter.table.name, name.clone());
        prop_assert_eq!(&alter.clauses[0].kind, &crate::alter::ClauseKind::DropColumn { name });
    }
}
