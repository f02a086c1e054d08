//! What must hold for any input, whoever wrote it: a statement, an option file, a checkpoint, a name.
//!
//! Each function panics where it does not. Files lie in a directory of the caller's.

use std::fs;
use std::path::Path;

use underpin_core::alter::{Alter, Syntax, lex};
use underpin_core::checkpoint::Checkpoint;
use underpin_core::ident::{Dialect, NameLimit, quote_ident, quote_literal, shadow_name};

/// A statement is read without a panic; what is read is rendered so that it reads the same, and every
/// clause is in the statement word for word.
pub fn alter_split(sql: &str) {
    for syntax in [Syntax::mysql(), Syntax::postgres()] {
        let Ok(alter) = Alter::parse(sql, syntax) else { continue };
        for clause in &alter.clauses {
            let there = sql.get(clause.offset..).is_some_and(|rest| rest.starts_with(&clause.text));
            assert!(there, "{:?} is not at {} of {sql:?}", clause.text, clause.offset);
        }
        let rendered = alter.render("t", |_| false);
        let again = Alter::parse(&rendered, syntax)
            .unwrap_or_else(|error| panic!("{sql:?} became {rendered:?}: {error}"));
        let texts = |alter: &Alter| -> Vec<_> {
            alter
                .clauses
                .iter()
                .map(|one| (one.text.clone(), one.kind.clone(), one.joiner))
                .collect()
        };
        assert_eq!(texts(&alter), texts(&again), "{sql:?} became {rendered:?}");
        // IGNORE is not repeated on purpose
        let print = alter.fingerprint();
        let print = print.strip_prefix("IGNORE ").filter(|_| alter.ignore).unwrap_or(&print);
        assert_eq!(print, again.fingerprint(), "{sql:?} became {rendered:?}");
    }
}

/// Files of options, services and passwords are read without a panic, and no password is shown.
pub fn option_file(bytes: &[u8], dir: &Path) {
    let path = dir.join("file");
    write_private(&path, bytes);
    let search = underpin_mysql::mycnf::FileSearch {
        defaults_file: Some(path.clone()),
        ..underpin_mysql::mycnf::FileSearch::none()
    };
    let read = underpin_mysql::options::resolve("mysql://h/d", &search, &|_| None);
    if let Ok(resolved) = &read {
        let shown = format!("{resolved:?}");
        assert_hidden(&shown, resolved.options.password.as_ref().map(|secret| secret.expose()));
    }
    let path = path.to_string_lossy().into_owned();
    for name in ["PGPASSFILE", "PGSERVICEFILE"] {
        let environment = |wanted: &str| match wanted {
            _ if wanted == name => Some(path.clone()),
            "PGSERVICE" if name == "PGSERVICEFILE" => Some("s".to_owned()),
            _ => None,
        };
        let search = underpin_postgres::options::FileSearch::none();
        let url = "postgres://u@h/d";
        let read = underpin_postgres::options::resolve(url, &search, &environment);
        if let Ok(resolved) = &read {
            let shown = format!("{resolved:?}");
            assert_hidden(&shown, resolved.options.password.as_ref().map(|secret| secret.expose()));
        }
    }
}

/// Long enough that it is not there by chance.
fn assert_hidden(shown: &str, password: Option<&str>) {
    if let Some(password) = password.filter(|password| password.len() >= 16) {
        assert!(!shown.contains(password), "a password is shown: {shown}");
    }
}

fn write_private(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, bytes).expect("writing the file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("closing the file");
}

/// A checkpoint is read without a panic; what is read is written so that it reads the same.
pub fn checkpoint_decode(text: &str) {
    let Ok(checkpoint) = Checkpoint::decode(text) else { return };
    let written = checkpoint.encode().expect("writing what was read");
    let again = Checkpoint::decode(&written).expect("reading what was written");
    assert_eq!(checkpoint, again, "{text:?} became {written:?}");
}

/// A quoted name is one token that means the same name; so is a quoted text. Where a name is refused, it
/// is one that no server takes. A name of ours sorts behind the table's and is no longer than it may be.
pub fn quoting(name: &str) {
    for dialect in [Dialect::MySql, Dialect::Postgres] {
        let (quote, syntax) = match dialect {
            Dialect::MySql => ('`', Syntax::mysql()),
            Dialect::Postgres => ('"', Syntax::postgres()),
        };
        match quote_ident(dialect, name) {
            Ok(quoted) => {
                assert_eq!(scan(&quoted, quote).as_deref(), Some(name), "{quoted:?}");
                assert_one_token(&quoted, syntax);
            }
            Err(_) => assert!(name.is_empty() || name.contains('\0'), "{name:?} is refused"),
        }
        match quote_literal(dialect, name) {
            Ok(quoted) => {
                assert_eq!(text_of(dialect, &quoted).as_deref(), Some(name), "{quoted:?}")
            }
            Err(_) => assert!(dialect == Dialect::Postgres && name.contains('\0'), "{name:?}"),
        }
        let limit = dialect.name_limit();
        for suffix in ["~up_new", "~up_log", "~up_old"] {
            let Ok(ours) = shadow_name(name, suffix, limit) else { continue };
            let length = match limit {
                NameLimit::Chars(most) => ours.chars().count() <= most,
                NameLimit::Bytes(most) => ours.len() <= most,
            };
            assert!(length && ours.as_str() > name, "{name:?} became {ours:?}");
        }
    }
}

/// The product's own lexer agrees with the scanner below.
fn assert_one_token(quoted: &str, syntax: Syntax) {
    let tokens = lex(quoted, syntax).unwrap_or_else(|error| panic!("{quoted:?}: {error}"));
    assert_eq!(tokens.len(), 1, "{quoted:?}");
}

/// What stands between two quotes that span the whole text, doubled ones within taken for one.
fn scan(text: &str, quote: char) -> Option<String> {
    let mut rest = text.strip_prefix(quote)?.chars();
    let mut content = String::new();
    loop {
        match rest.next()? {
            one if one != quote => content.push(one),
            // the end, and nothing may follow; or the first of two
            _ => match rest.next() {
                None => return Some(content),
                Some(second) if second == quote => content.push(quote),
                Some(_) => return None,
            },
        }
    }
}

/// What a server reads in a quoted text, whatever its settings about backslashes are.
fn text_of(dialect: Dialect, quoted: &str) -> Option<String> {
    match dialect {
        Dialect::MySql => match quoted.strip_prefix("_utf8mb4 X") {
            Some(hexadecimal) => {
                let digits = scan(hexadecimal, '\'')?;
                let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
                let bytes: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(byte).collect();
                String::from_utf8(bytes?).ok()
            }
            None => scan(quoted, '\'').filter(|text| !text.contains('\\')),
        },
        Dialect::Postgres => match quoted.strip_prefix('E') {
            // each backslash is one of two
            Some(escaped) => {
                let text = scan(escaped, '\'')?;
                let halves = text.replace("\\\\", "\u{0}");
                (!halves.contains('\\')).then(|| halves.replace('\u{0}', "\\"))
            }
            None => scan(quoted, '\'').filter(|text| !text.contains('\\')),
        },
    }
}
