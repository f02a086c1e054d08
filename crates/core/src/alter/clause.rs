//! Recognises what one clause does, as far as somebody downstream needs to know.
//!
//! Owns the clauses that rename, that are ours to leave out, and that preflight asks about. All else
//! is `Other` and goes to the server as it stands: the server is the parser.

use super::cursor::Cursor;
use super::lexer::TokenKind;
use super::{ClauseKind, ObjectName};

/// The clause's kind; `None` where nothing here fits.
pub(super) fn recognise(mut cursor: Cursor<'_>) -> Option<ClauseKind> {
    let first = cursor.peek()?;
    if first.kind != TokenKind::Word {
        return None;
    }
    let verb = first.text.to_ascii_uppercase();
    let mysql = cursor.mysql();
    if let Some(kind) = if mysql { mysql_only(&cursor) } else { postgres_only(&cursor) } {
        return Some(kind);
    }
    let c = &mut cursor;
    match verb.as_str() {
        "ADD" => add(c),
        "DROP" => drop(c),
        "RENAME" => rename(c),
        "ALTER" => alter(c),
        "CHANGE" if mysql => change(c),
        "MODIFY" if mysql => {
            c.next();
            c.eat(&["COLUMN"]);
            c.eat_if_exists();
            Some(ClauseKind::ModifyColumn { name: c.column()? })
        }
        "ALGORITHM" if mysql => Some(ClauseKind::Algorithm(lone_setting(c)?)),
        "LOCK" if mysql => Some(ClauseKind::Lock(lone_setting(c)?)),
        _ if mysql => engine(c),
        _ => None,
    }
}

/// Verbs that take `PARTITION` after them.
const PARTITION_VERBS: [&str; 12] = [
    "ADD",
    "ANALYZE",
    "CHECK",
    "COALESCE",
    "CONVERT",
    "DROP",
    "EXCHANGE",
    "OPTIMIZE",
    "REBUILD",
    "REORGANIZE",
    "REPAIR",
    "TRUNCATE",
];

/// Whether the clause is about partitions of MySQL by name, so that commas in it part names.
pub(super) fn names_partitions(cursor: &Cursor<'_>) -> bool {
    partition_verb(cursor).is_some() || moves_tablespace(cursor)
}

fn partition_verb(cursor: &Cursor<'_>) -> Option<&'static str> {
    if cursor.sees(&["CONVERT", "TABLE"]) {
        return Some("CONVERT");
    }
    if cursor.sees(&["UPGRADE", "PARTITIONING"]) {
        return Some("UPGRADE");
    }
    PARTITION_VERBS.into_iter().find(|verb| cursor.sees(&[verb, "PARTITION"]))
}

fn moves_tablespace(cursor: &Cursor<'_>) -> bool {
    ["DISCARD", "IMPORT"]
        .iter()
        .any(|verb| cursor.sees(&[verb, "TABLESPACE"]) || cursor.sees(&[verb, "PARTITION"]))
}

fn mysql_only(cursor: &Cursor<'_>) -> Option<ClauseKind> {
    let verb = partition_verb(cursor).map(|verb| ClauseKind::PartitionVerb(verb.to_owned()));
    verb.or_else(|| {
        let sees = |words: &[&str]| cursor.sees(words);
        Some(match () {
            () if moves_tablespace(cursor) => ClauseKind::DiscardOrImportTablespace,
            () if sees(&["PARTITION", "BY"]) => ClauseKind::PartitionBy,
            () if sees(&["REMOVE", "PARTITIONING"]) => ClauseKind::RemovePartitioning,
            () if sees(&["ORDER", "BY"]) => ClauseKind::OrderBy,
            () if sees(&["CONVERT", "TO", "CHARACTER", "SET"]) => ClauseKind::ConvertCharset,
            () if sees(&["CONVERT", "TO", "CHARSET"]) => ClauseKind::ConvertCharset,
            () if sees(&["FORCE"]) => ClauseKind::Force,
            () if sees(&["ADD", "SYSTEM", "VERSIONING"]) => ClauseKind::AddSystemVersioning,
            () if sees(&["DROP", "SYSTEM", "VERSIONING"]) => ClauseKind::DropSystemVersioning,
            () if sees(&["ADD", "PERIOD", "FOR"]) => ClauseKind::Period,
            () if sees(&["DROP", "PERIOD", "FOR"]) => ClauseKind::Period,
            () => return None,
        })
    })
}

fn postgres_only(cursor: &Cursor<'_>) -> Option<ClauseKind> {
    if cursor.sees(&["SET", "SCHEMA"]) {
        let mut cursor = cursor.clone();
        cursor.eat(&["SET", "SCHEMA"]);
        return Some(ClauseKind::SetSchema { to: cursor.name()? });
    }
    let verb = ["ATTACH", "DETACH", "SPLIT", "MERGE"]
        .into_iter()
        .find(|verb| cursor.sees(&[verb, "PARTITION"]) || cursor.sees(&[verb, "PARTITIONS"]))?;
    Some(ClauseKind::PartitionVerb(verb.to_owned()))
}

fn add(c: &mut Cursor<'_>) -> Option<ClauseKind> {
    c.next();
    if c.eat(&["COLUMN"]) {
        return add_column(c);
    }
    if c.eat(&["CONSTRAINT"]) {
        c.eat_if_exists();
        let kind = constraint(c).or_else(|| {
            c.name()?;
            constraint(c)
        });
        return Some(kind.unwrap_or(ClauseKind::Other));
    }
    if let Some(kind) = constraint(c) {
        return Some(kind);
    }
    if c.mysql() {
        let vector = c.sees(&["VECTOR", "INDEX"]) || c.sees(&["VECTOR", "KEY"]);
        if vector || c.eat_any(&["INDEX", "KEY", "FULLTEXT", "SPATIAL"]).is_some() {
            return Some(ClauseKind::AddIndex);
        }
    } else if c.sees(&["NOT", "NULL"]) || c.sees(&["EXCLUDE", "USING"]) || excludes(c) {
        return Some(ClauseKind::Other);
    }
    add_column(c)
}

/// `EXCLUDE (`; a column named exclude has its type there.
fn excludes(c: &Cursor<'_>) -> bool {
    let mut ahead = c.clone();
    ahead.eat(&["EXCLUDE"]) && ahead.sees_punct("(")
}

/// The kinds of constraint whose first word is reserved on every server, so cannot name a column.
fn constraint(c: &mut Cursor<'_>) -> Option<ClauseKind> {
    Some(match c.eat_any(&["PRIMARY", "UNIQUE", "FOREIGN", "CHECK"])? {
        "PRIMARY" => ClauseKind::AddPrimaryKey,
        "UNIQUE" => ClauseKind::AddUnique,
        "FOREIGN" => ClauseKind::AddForeignKey,
        _ => ClauseKind::AddCheck,
    })
}

fn add_column(c: &mut Cursor<'_>) -> Option<ClauseKind> {
    c.eat_if_exists();
    if c.mysql() && c.eat_punct("(") {
        return Some(ClauseKind::AddColumn { names: listed_columns(c) });
    }
    Some(ClauseKind::AddColumn { names: vec![c.column()?] })
}

/// Columns of `(a INT, b INT, KEY (a))`, after its opening bracket; indexes in it are none.
fn listed_columns(c: &mut Cursor<'_>) -> Vec<String> {
    const NO_COLUMN: [&str; 9] = [
        "CONSTRAINT",
        "PRIMARY",
        "UNIQUE",
        "FOREIGN",
        "CHECK",
        "INDEX",
        "KEY",
        "FULLTEXT",
        "SPATIAL",
    ];
    let mut names = Vec::new();
    let (mut depth, mut at_start) = (1_usize, true);
    while depth > 0 && !c.at_end() {
        if at_start {
            at_start = false;
            let column =
                !NO_COLUMN.iter().any(|word| c.sees(&[word])) && !c.sees(&["PERIOD", "FOR"]);
            if let Some(name) = if column { c.column() } else { None } {
                names.push(name);
                continue;
            }
        }
        match c.next().map(|token| token.text) {
            Some("(") => depth += 1,
            Some(")") => depth -= 1,
            Some(",") => at_start = depth == 1,
            _ => {}
        }
    }
    names
}

fn drop(c: &mut Cursor<'_>) -> Option<ClauseKind> {
    c.next();
    let what = if c.mysql() {
        c.eat_any(&["COLUMN", "PRIMARY", "FOREIGN", "INDEX", "KEY", "CONSTRAINT", "CHECK"])
    } else {
        c.eat_any(&["COLUMN", "CONSTRAINT"])
    };
    if what == Some("PRIMARY") {
        return Some(ClauseKind::DropPrimaryKey);
    }
    if what == Some("FOREIGN") {
        c.eat(&["KEY"]);
    }
    c.eat_if_exists();
    let name = c.name()?;
    // MySQL drops the primary key under its index's and its constraint's name too.
    let primary = c.mysql() && name.eq_ignore_ascii_case("PRIMARY");
    Some(match what {
        Some("INDEX" | "KEY" | "CONSTRAINT") if primary => ClauseKind::DropPrimaryKey,
        Some("INDEX" | "KEY") => ClauseKind::DropIndex { name },
        Some("FOREIGN") => ClauseKind::DropForeignKey { name },
        Some("CONSTRAINT" | "CHECK") => ClauseKind::DropConstraint { name },
        _ => ClauseKind::DropColumn { name },
    })
}

fn change(c: &mut Cursor<'_>) -> Option<ClauseKind> {
    c.next();
    c.eat(&["COLUMN"]);
    c.eat_if_exists();
    let from = c.column()?;
    let to = c.column()?;
    // Without a definition the second name is more likely a type: `CHANGE a BIGINT`.
    if c.at_end() { None } else { Some(ClauseKind::ChangeColumn { from, to }) }
}

fn rename(c: &mut Cursor<'_>) -> Option<ClauseKind> {
    c.next();
    let mysql = c.mysql();
    if c.eat(&["CONSTRAINT"]) || mysql && (c.eat(&["INDEX"]) || c.eat(&["KEY"])) {
        return Some(ClauseKind::Other);
    }
    let column = c.eat(&["COLUMN"]);
    let to_table = !column
        && (c.eat_any(&["TO"]).is_some()
            || mysql && (c.eat_any(&["AS"]).is_some() || c.eat_punct("=") || bare_table(c)));
    if to_table {
        let to = object_name(c)?;
        return if c.at_end() { Some(ClauseKind::RenameTable { to }) } else { None };
    }
    c.eat_if_exists();
    let from = c.name()?;
    if !c.eat(&["TO"]) {
        return None;
    }
    let to = c.name()?;
    if c.at_end() { Some(ClauseKind::RenameColumn { from, to }) } else { None }
}

/// MySQL's `RENAME new_name`, with nothing between.
fn bare_table(c: &Cursor<'_>) -> bool {
    let mut ahead = c.clone();
    object_name(&mut ahead).is_some() && ahead.at_end()
}

fn alter(c: &mut Cursor<'_>) -> Option<ClauseKind> {
    c.next();
    if c.eat(&["CONSTRAINT"]) || c.mysql() && c.eat_any(&["INDEX", "KEY", "CHECK"]).is_some() {
        return Some(ClauseKind::Other);
    }
    c.eat(&["COLUMN"]);
    c.eat_if_exists();
    let name = c.name()?;
    if !c.mysql() && (c.sees(&["TYPE"]) || c.sees(&["SET", "DATA"])) {
        return Some(ClauseKind::ModifyColumn { name });
    }
    Some(ClauseKind::AlterColumn { name })
}

/// The value of `NAME [=] value` in capitals, if nothing follows: what is left out for the shadow
/// must not take a neighbour with it whose comma was forgotten.
fn lone_setting(c: &mut Cursor<'_>) -> Option<String> {
    c.next();
    c.eat_punct("=");
    let value = c.name()?.to_ascii_uppercase();
    if c.at_end() { Some(value) } else { None }
}

/// The engine among table options, which need no commas between them.
fn engine(c: &mut Cursor<'_>) -> Option<ClauseKind> {
    let mut after_equals = false;
    while let Some(token) = c.next() {
        if token.is_word("ENGINE") && !after_equals {
            c.eat_punct("=");
            let quoted = c.peek().filter(|value| value.kind == TokenKind::Text);
            let value = quoted.map(|value| value.text.trim_matches(['\'', '"']).to_owned());
            return Some(ClauseKind::Engine(value.or_else(|| c.name())?));
        }
        after_equals = token.is_punct("=");
    }
    None
}

/// Takes `[schema.]name`.
pub(super) fn object_name(c: &mut Cursor<'_>) -> Option<ObjectName> {
    let first = c.name()?;
    if !c.eat_punct(".") {
        return Some(ObjectName { schema: None, name: first });
    }
    Some(ObjectName { schema: Some(first), name: c.name_after_dot()? })
}
