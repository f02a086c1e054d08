//! Tables of statements, refusals, and properties of reading an `ALTER TABLE`.
//!
//! `mysql.txt` and `postgres.txt` hold the statements; each was accepted by the grammar of a real
//! server before it was written down.

mod properties;
mod refusals;

use super::{Alter, ClauseKind, Joiner, Syntax, TokenKind, Wait, lex};

fn mysql(sql: &str) -> Alter {
    Alter::parse(sql, Syntax::mysql()).unwrap_or_else(|error| panic!("{sql}\n{error}"))
}

/// The cases of a table: statement and expectation.
fn cases(table: &str) -> Vec<(String, String)> {
    let mut cases = Vec::new();
    let mut statement = String::new();
    for line in table.lines() {
        if let Some(expected) = line.strip_prefix("=> ") {
            cases.push((std::mem::take(&mut statement).trim_end().to_owned(), expected.to_owned()));
        } else if !line.is_empty() && (!statement.is_empty() || !line.starts_with('#')) {
            statement.push_str(line);
            statement.push('\n');
        }
    }
    cases
}

/// The short spelling of a statement in the tables.
fn brief(alter: &Alter) -> String {
    let mut text = String::new();
    for (flag, word) in [
        (alter.online, "online "),
        (alter.ignore, "ignore "),
        (alter.if_exists, "if-exists "),
        (alter.only, "only "),
    ] {
        text.push_str(if flag { word } else { "" });
    }
    match alter.wait {
        Some(Wait::Seconds(seconds)) => text.push_str(&format!("wait-{seconds} ")),
        Some(Wait::NoWait) => text.push_str("nowait "),
        None => {}
    }
    text.push_str(&format!("{}: ", alter.table));
    for (index, clause) in alter.clauses.iter().enumerate() {
        text.push_str(match (index, clause.joiner) {
            (0, _) => "",
            (_, Joiner::Comma) => "; ",
            (_, Joiner::Space) => " + ",
        });
        text.push_str(&brief_kind(&clause.kind));
        text.push_str(if clause.conditional { "~" } else { "" });
    }
    text
}

fn brief_kind(kind: &ClauseKind) -> String {
    match kind {
        ClauseKind::AddColumn { names } => format!("add {}", names.join(",")),
        ClauseKind::DropColumn { name } => format!("drop {name}"),
        ClauseKind::ModifyColumn { name } => format!("modify {name}"),
        ClauseKind::ChangeColumn { from, to } => format!("change {from}>{to}"),
        ClauseKind::RenameColumn { from, to } => format!("rename {from}>{to}"),
        ClauseKind::AlterColumn { name } => format!("alter {name}"),
        ClauseKind::RenameTable { to } => format!("rename-table {to}"),
        ClauseKind::SetSchema { to } => format!("set-schema {to}"),
        ClauseKind::AddIndex => "add-index".into(),
        ClauseKind::AddUnique => "add-unique".into(),
        ClauseKind::AddPrimaryKey => "add-primary".into(),
        ClauseKind::AddForeignKey => "add-foreign".into(),
        ClauseKind::AddCheck => "add-check".into(),
        ClauseKind::DropPrimaryKey => "drop-primary".into(),
        ClauseKind::DropForeignKey { name } => format!("drop-foreign {name}"),
        ClauseKind::DropIndex { name } => format!("drop-index {name}"),
        ClauseKind::DropConstraint { name } => format!("drop-constraint {name}"),
        ClauseKind::ConvertCharset => "charset".into(),
        ClauseKind::Engine(name) => format!("engine {name}"),
        ClauseKind::Force => "force".into(),
        ClauseKind::OrderBy => "order-by".into(),
        ClauseKind::Algorithm(value) => format!("algorithm {value}"),
        ClauseKind::Lock(value) => format!("lock {value}"),
        ClauseKind::PartitionBy => "partition-by".into(),
        ClauseKind::RemovePartitioning => "remove-partitioning".into(),
        ClauseKind::PartitionVerb(verb) => format!("partition {verb}"),
        ClauseKind::DiscardOrImportTablespace => "tablespace".into(),
        ClauseKind::AddSystemVersioning => "add-versioning".into(),
        ClauseKind::DropSystemVersioning => "drop-versioning".into(),
        ClauseKind::Period => "period".into(),
        ClauseKind::Other => "other".into(),
    }
}

fn check_table(table: &str, syntax: Syntax, least: usize) {
    let cases = cases(table);
    assert!(cases.len() >= least, "only {} cases were read", cases.len());
    for (sql, expected) in cases {
        let alter = Alter::parse(&sql, syntax).unwrap_or_else(|error| panic!("{sql}\n{error}"));
        assert_eq!(brief(&alter), expected, "{sql}");

        // Rendered again it is the same change, word for word.
        let again = Alter::parse(&alter.render("s", |_| false), syntax)
            .unwrap_or_else(|error| panic!("{sql}\nrendered: {error}"));
        let print = alter.fingerprint();
        assert_eq!(again.fingerprint(), print.strip_prefix("IGNORE ").unwrap_or(&print), "{sql}");
        let texts = |alter: &Alter| -> Vec<String> {
            alter.clauses.iter().map(|clause| clause.text.clone()).collect()
        };
        assert_eq!(texts(&again), texts(&alter), "{sql}");
        for clause in &alter.clauses {
            assert_eq!(&sql[clause.offset..clause.offset + clause.text.len()], clause.text);
        }
    }
}

#[test]
fn mysql_statements() {
    check_table(include_str!("tests/mysql.txt"), Syntax::mysql(), 100);
}

#[test]
fn postgres_statements() {
    check_table(include_str!("tests/postgres.txt"), Syntax::postgres(), 60);
}

#[test]
fn clauses_stay_verbatim_when_hints_are_left_out() {
    let alter = mysql(
        "ALTER TABLE t  LOCK=NONE ,ADD  a ENUM('x,\"',\n 'y') /* why, so */ NULL -- end\n\
         , ALGORITHM = INPLACE PARTITION  BY HASH(a)",
    );
    assert_eq!(
        alter.render("`s`.`t~new`", |clause| clause.is_execution_hint()),
        "ALTER TABLE `s`.`t~new` ADD  a ENUM('x,\"',\n 'y') /* why, so */ NULL PARTITION  BY HASH(a)",
    );
    let alter = mysql("ALTER TABLE t ALGORITHM=COPY, LOCK=NONE PARTITION BY HASH(a)");
    assert_eq!(
        alter.render("s", |clause| clause.is_execution_hint()),
        "ALTER TABLE s PARTITION BY HASH(a)",
    );
    let alter = mysql("ALTER TABLE t LOCK=NONE");
    assert_eq!(alter.render("s", |clause| clause.is_execution_hint()), "ALTER TABLE s");
}

#[test]
fn a_hint_whose_comma_was_forgotten_takes_no_neighbour_with_it() {
    for sql in [
        "ALTER TABLE t ALGORITHM=COPY ADD a INT",
        "ALTER TABLE t LOCK=NONE DROP a",
        "ALTER TABLE t ALGORITHM=INPLACE LOCK=NONE",
    ] {
        let alter = mysql(sql);
        assert_eq!(alter.render("t", |clause| clause.is_execution_hint()), sql);
    }
}

#[test]
fn the_session_decides_what_double_quotes_and_backslashes_are() {
    let ansi = Syntax { ansi_quotes: true, ..Syntax::mysql() };
    let sql = r#"ALTER TABLE "t""1" CHANGE "a,\" b INT"#;
    assert_eq!(brief(&Alter::parse(sql, ansi).unwrap()), r#"t"1: change a,\>b"#);
    assert!(Alter::parse(sql, Syntax::mysql()).is_err());

    let bare = Syntax { backslash_escapes: false, ..Syntax::mysql() };
    let sql = r"ALTER TABLE t ADD a TEXT DEFAULT ('\'), ADD b INT";
    assert_eq!(brief(&Alter::parse(sql, bare).unwrap()), "t: add a; add b");
    assert!(Alter::parse(sql, Syntax::mysql()).is_err());
}

#[test]
fn an_engine_is_recognised_only_as_an_option() {
    assert_eq!(
        brief(&mysql("ALTER TABLE t TABLESPACE = engine COMMENT 'x', COMMENT 'ENGINE=x'")),
        "t: other; other"
    );
}

#[test]
fn fingerprints_see_meaning_and_not_spacing() {
    let print = |clauses: &str| mysql(&format!("ALTER TABLE t {clauses}")).fingerprint();
    let base = print("ADD a DECIMAL(10,2) DEFAULT 'x  y', DROP b");
    assert_eq!(base, "ADD a DECIMAL(10,2)DEFAULT 'x  y', DROP b");
    assert_eq!(base, print(" ADD/**/a DECIMAL( 10 ,\n2 ) DEFAULT  'x  y' -- c\n,DROP b ;"));
    for other in [
        "ADD a DECIMAL(10,2) DEFAULT 'x y', DROP b",
        "ADD A DECIMAL(10,2) DEFAULT 'x  y', DROP b",
        "ADD a DECIMAL(10,2) DEFAULT 'x  y' DROP b",
        "ADD a DECIMAL(10,2) DEFAULT 'x  y', DROP b, FORCE",
    ] {
        assert_ne!(base, print(other), "{other}");
    }
    assert_ne!(print("ADD a TEXT DEFAULT ('a' 'b')"), print("ADD a TEXT DEFAULT ('a''b')"));
    let ignoring = mysql("ALTER IGNORE TABLE t ADD UNIQUE (a)").fingerprint();
    assert_ne!(ignoring, print("ADD UNIQUE (a)"));
}

#[test]
fn names_resolve_in_the_connections_schema() {
    let name = |sql: &str| mysql(sql).table.resolve("app").unwrap().to_string();
    assert_eq!(name("ALTER TABLE t FORCE"), "app.t");
    assert_eq!(name("ALTER TABLE `other`.t FORCE"), "other.t");
    assert!(mysql("ALTER TABLE t FORCE").table.resolve("").is_err());
}

#[test]
fn tokens_tell_code_from_comments() {
    let kinds = |sql: &'static str, syntax| -> Vec<(TokenKind, &'static str)> {
        let tokens = lex(sql, syntax).unwrap();
        tokens.iter().filter(|t| t.kind != TokenKind::Space).map(|t| (t.kind, t.text)).collect()
    };
    use TokenKind::{Comment, ExecClose, ExecOpen, Number, Punct, QuotedName, Text, Word};
    assert_eq!(
        kinds("/*!501001 a*/ /*!5010 b*/ /*M!100100c*/ /*+ d */ 0x1F 1e5 0xg", Syntax::mysql()),
        [
            (ExecOpen, "/*!501001"),
            (Word, "a"),
            (ExecClose, "*/"),
            (ExecOpen, "/*!"),
            (Number, "5010"),
            (Word, "b"),
            (ExecClose, "*/"),
            (ExecOpen, "/*M!100100"),
            (Word, "c"),
            (ExecClose, "*/"),
            (Comment, "/*+ d */"),
            (Number, "0x1F"),
            (Number, "1e5"),
            (Word, "0xg"),
        ],
    );
    assert_eq!(
        kinds("5--1 --\ta\n--", Syntax::mysql()),
        [
            (Number, "5"),
            (Punct, "-"),
            (Punct, "-"),
            (Number, "1"),
            (Comment, "--\ta"),
            (Comment, "--")
        ],
    );
    assert_eq!(
        kinds("/*! /* */ */ --x\r$1 $a$ $ $a$ \"i\"\"\" E'\\''#", Syntax::postgres()),
        [
            (Comment, "/*! /* */ */"),
            (Comment, "--x"),
            (Punct, "$"),
            (Number, "1"),
            (Text, "$a$ $ $a$"),
            (QuotedName, "\"i\"\"\""),
            (Text, "E'\\''"),
            (Punct, "#"),
        ],
    );
}
