//! The properties that `tests/fuzz` throws bytes at, with what proptest draws: on stable, in every run.

#[path = "fuzz/src/properties.rs"]
#[allow(unreachable_pub)] // it is the fuzz targets' own module too
mod properties;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Pieces of which statements are made, hostile ones among them.
const PIECES: [&str; 44] = [
    "ALTER TABLE ",
    "ALTER TABLE t ",
    "ADD ",
    "DROP ",
    "COLUMN ",
    "RENAME ",
    "CHANGE ",
    "MODIFY ",
    "TO ",
    "a ",
    "b ",
    "INT",
    "DECIMAL(10,2)",
    ", ",
    ",",
    "(",
    ")",
    "`a``b`",
    "\"a\"\"b\"",
    "'it''s'",
    "'\\'",
    "E'\\''",
    "$$x$$",
    "$q$ ' $q$",
    "/*",
    "*/",
    "/*!80000 ",
    "/*M! ",
    "-- x\n",
    "#\n",
    "--",
    ";",
    "\n",
    "\0",
    "é",
    "😀",
    "DEFAULT ",
    "IGNORE ",
    "ONLINE ",
    "PARTITION BY ",
    "ALGORITHM=COPY",
    "USING ",
    "0x27",
    "_utf8mb4 X'27'",
];

/// Characters of which hostile names are made.
const MARKS: [char; 18] = [
    '`', '"', '\'', '\\', '\0', '\n', '\t', ' ', '.', ';', '$', '%', '~', 'a', 'Z', 'é',
    '\u{FFFD}', '😀',
];

/// Lines of which option files are made.
const LINES: [&str; 22] = [
    "[client]",
    "[underpin]",
    "[client-mariadb]",
    "[s]",
    "[",
    "user=u",
    "password=a very long secret word",
    "password='quoted # secret word'",
    "password=\"x\\",
    "!include /nowhere",
    "!includedir .",
    "host",
    "port=99999",
    "port=3306",
    "ssl-mode=x",
    "connect-timeout=0",
    "*:*:*:*:a very long secret word",
    "h:5432:d:u:a\\:b\\\\",
    "*:*:*:*",
    "host=h",
    "service=s",
    "#comment",
];

fn statements() -> impl Strategy<Value = String> {
    vec(select(PIECES.to_vec()), 0..24).prop_map(|pieces| pieces.concat())
}

fn names() -> impl Strategy<Value = String> {
    vec(select(MARKS.to_vec()), 0..70).prop_map(|marks| marks.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_statement_is_split_and_put_together_again(sql in statements()) {
        properties::alter_split(&format!("ALTER TABLE t {sql}"));
        properties::alter_split(&sql);
    }

    #[test]
    fn a_quoted_name_is_one_token(name in names()) {
        properties::quoting(&name);
    }

    #[test]
    fn any_text_is_no_checkpoint_or_a_whole_one(text in ".{0,80}", cut in 0_usize..600, put in any::<char>()) {
        properties::checkpoint_decode(&text);
        let mut whole: Vec<char> =
            underpin_core::checkpoint::Checkpoint::begin().encode().unwrap_or_default().chars().collect();
        properties::checkpoint_decode(&whole.iter().collect::<String>());
        let at = cut % whole.len();
        whole[at] = put;
        properties::checkpoint_decode(&whole.iter().collect::<String>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_option_file_is_read_or_refused(lines in vec(select(LINES.to_vec()), 0..10), junk in vec(any::<u8>(), 0..40)) {
        let dir = tempfile::tempdir()?;
        properties::option_file(lines.join("\n").as_bytes(), dir.path());
        properties::option_file(&junk, dir.path());
    }
}

/// Names that have broken programs; what no server takes is refused.
#[test]
fn names_that_have_broken_programs() {
    let long = "é".repeat(64);
    for name in [
        "",
        "\0",
        "a\0b",
        "`",
        "``",
        "\"",
        "a`;DROP TABLE t;--",
        "select",
        " ",
        "\\",
        "a\\",
        "\n",
        &long,
    ] {
        properties::quoting(name);
    }
}
