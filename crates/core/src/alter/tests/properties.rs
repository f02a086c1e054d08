//! Properties over generated statements: nothing panics, nothing is lost, nothing is moved.

use proptest::prelude::*;

use super::super::{Alter, Joiner, Syntax, lex};

fn syntaxes() -> impl Strategy<Value = Syntax> {
    prop_oneof![
        Just(Syntax::mysql()),
        Just(Syntax::postgres()),
        (any::<bool>(), any::<bool>()).prop_map(|(ansi_quotes, backslash_escapes)| Syntax {
            ansi_quotes,
            backslash_escapes,
            ..Syntax::mysql()
        }),
    ]
}

/// Pieces that are awkward beside one another, so that random strings of them meet every branch.
fn shreds() -> impl Strategy<Value = String> {
    let shred = prop::sample::select(vec![
        "'",
        "''",
        "\"",
        "`",
        "\\",
        "--",
        "-- ",
        "#",
        "\n",
        "\r",
        " ",
        "/*",
        "*/",
        "/*!",
        "/*!50100",
        "/*M!",
        "/",
        "*",
        "(",
        ")",
        "[",
        "]",
        ",",
        ";",
        ".",
        "=",
        "$",
        "$$",
        "$a$",
        "E'",
        "U&\"",
        "N'",
        "0x",
        "1",
        "1e5",
        "a",
        "é",
        "\u{FFFD}",
        "😀",
        "\0",
        "ALTER",
        " TABLE ",
        " t ",
        " ADD ",
        " COLUMN ",
        " RENAME ",
        " TO ",
        " CHANGE ",
        " PARTITION ",
        " BY ",
        " REMOVE PARTITIONING ",
        " ORDER BY ",
        " ALGORITHM=",
        " ENGINE ",
        " WAIT ",
        " DROP ",
        " IF EXISTS ",
    ]);
    prop::collection::vec(shred, 0..40).prop_map(|shreds| shreds.concat())
}

fn reads_in_full(sql: &str, syntax: Syntax) {
    if let Ok(tokens) = lex(sql, syntax) {
        let texts: String = tokens.iter().map(|token| token.text).collect();
        assert_eq!(texts, sql);
        assert!(tokens.iter().all(|token| !token.text.is_empty()));
    }
    for statement in [sql.to_owned(), format!("ALTER TABLE t {sql}"), format!("ALTER {sql}")] {
        match Alter::parse(&statement, syntax) {
            Err(error) => assert!(!error.to_string().is_empty()),
            Ok(alter) => {
                let again = Alter::parse(&alter.render("t", |_| false), syntax);
                let again = again.unwrap_or_else(|error| panic!("{statement:?}\n{error}"));
                assert_eq!(again.clauses.len(), alter.clauses.len(), "{statement:?}");
                for (one, two) in alter.clauses.iter().zip(&again.clauses) {
                    assert_eq!((&one.text, &one.kind), (&two.text, &two.kind), "{statement:?}");
                }
                assert_eq!(again.fingerprint(), alter.fingerprint(), "{statement:?}");
            }
        }
    }
}

/// What may stand within a clause, commas and quotes of every sort included.
fn inner(mysql: bool) -> impl Strategy<Value = String> {
    let word = "[a-z][a-z0-9_]{0,5}".prop_map(|word| format!("x{word}"));
    let text = prop::string::string_regex("[a-z,;()' ]{0,8}")
        .unwrap()
        .prop_map(|text| format!("'{}'", text.replace('\'', "''")));
    let name = "[a-z,;()\"`']{1,6}".prop_map(move |name| {
        let quote = if mysql { '`' } else { '"' };
        format!("{quote}{}{quote}", name.replace(quote, &format!("{quote}{quote}")))
    });
    let only_here: Vec<String> = if mysql {
        ["\"a, ( 'b\"", "'a\\', b'", "/*! NULL */", "# c, ('\nx"].map(String::from).into()
    } else {
        ["$$a, ('$$", "$q$ $$, $q$", "E'a\\', b'", "ARRAY[1, 2]", "/* /* , */ ( */ x"]
            .map(String::from)
            .into()
    };
    let leaf = prop_oneof![
        word,
        text,
        name,
        prop::sample::select(only_here),
        Just("/* a, (' */ x".to_owned()),
        Just("-- a, ('\nx".to_owned()),
        Just("1.5e3".to_owned()),
        Just("- 1 + 2".to_owned()),
    ];
    leaf.prop_recursive(3, 16, 4, |part| {
        prop::collection::vec(part, 1..4).prop_map(|parts| format!("({})", parts.join(", ")))
    })
}

fn clause(mysql: bool) -> impl Strategy<Value = String> {
    let verb = prop::sample::select(vec!["ADD", "DROP", "ALTER", "SET", "COMMENT", "ADD COLUMN"]);
    (verb, prop::collection::vec(inner(mysql), 1..4))
        .prop_map(|(verb, parts)| format!("{verb} xx {}", parts.join(" ")))
}

fn split_gives_back(syntax: Syntax, clauses: &[String], gap: &str, tail: bool) {
    let mut sql = format!("ALTER TABLE t {}", clauses.join(gap));
    let mut expected = clauses.to_vec();
    if tail {
        expected.push("PARTITION BY HASH(a)".to_owned());
        sql.push_str(" PARTITION BY HASH(a)");
    }
    let alter = Alter::parse(&sql, syntax).unwrap_or_else(|error| panic!("{sql}\n{error}"));
    let texts: Vec<&str> = alter.clauses.iter().map(|clause| clause.text.as_str()).collect();
    assert_eq!(texts, expected, "{sql}");
    let spaces = alter.clauses.iter().filter(|clause| clause.joiner == Joiner::Space).count();
    assert_eq!(spaces, usize::from(tail));
    let tail = if tail { " PARTITION BY HASH(a)" } else { "" };
    assert_eq!(alter.render("t", |_| false), format!("ALTER TABLE t {}{tail}", clauses.join(", ")),);
}

fn gaps() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![",", ", ", " , ", "\n,\n", " /* a, b */,", ", -- x, y\n"])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]

    #[test]
    fn any_text_is_read_or_refused(sql in any::<String>(), syntax in syntaxes()) {
        reads_in_full(&sql, syntax);
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        syntax in syntaxes(),
    ) {
        reads_in_full(&String::from_utf8_lossy(&bytes), syntax);
    }

    #[test]
    fn shreds_are_read_or_refused(sql in shreds(), syntax in syntaxes()) {
        reads_in_full(&sql, syntax);
    }

    #[test]
    fn splitting_undoes_joining_on_mysql(
        clauses in prop::collection::vec(clause(true), 1..6),
        gap in gaps(),
        tail in any::<bool>(),
    ) {
        split_gives_back(Syntax::mysql(), &clauses, gap, tail);
    }

    #[test]
    fn splitting_undoes_joining_on_postgres(
        clauses in prop::collection::vec(clause(false), 1..6),
        gap in gaps(),
    ) {
        split_gives_back(Syntax::postgres(), &clauses, gap, false);
    }
}
