//! Reads the head of the statement: `ALTER TABLE name`, and what to say to all that is not one.

use super::clause::object_name;
use super::cursor::Cursor;
use super::error::{AlterError, Problem};
use super::lexer::{Token, TokenKind};
use super::{ObjectName, Wait};

/// What stands before the first clause.
pub(super) struct Head {
    pub(super) table: ObjectName,
    pub(super) online: bool,
    pub(super) ignore: bool,
    pub(super) if_exists: bool,
    pub(super) only: bool,
    pub(super) wait: Option<Wait>,
}

/// Refuses a second statement and gives the tokens without the closing semicolon.
pub(super) fn only_statement<'t, 'a>(
    sql: &str,
    tokens: &'t [Token<'a>],
) -> Result<&'t [Token<'a>], AlterError> {
    let Some(end) = tokens.iter().position(|token| token.is_punct(";")) else { return Ok(tokens) };
    let next = tokens[end..].iter().find(|token| !token.is_trivia() && !token.is_punct(";"));
    match next {
        None => Ok(&tokens[..end]),
        Some(next) => Err(AlterError::new(
            Problem::SeveralStatements,
            sql,
            next.offset,
            "a second statement",
            "one run changes one table by one ALTER TABLE: give them one by one, \
             or put changes of the same table into one statement, parted by commas",
        )),
    }
}

/// Reads up to the first clause.
pub(super) fn head(sql: &str, c: &mut Cursor<'_>) -> Result<Head, AlterError> {
    let statement = c.clone();
    let (mut online, mut ignore) = (false, false);
    if !c.eat(&["ALTER"]) {
        return Err(not_alter(sql, statement));
    }
    while c.mysql() && (c.sees(&["ONLINE"]) || c.sees(&["IGNORE"])) {
        online |= c.sees(&["ONLINE"]);
        ignore |= c.sees(&["IGNORE"]);
        c.next();
    }
    if !c.eat(&["TABLE"]) || !c.mysql() && c.sees(&["ALL", "IN"]) {
        return Err(not_alter(sql, statement));
    }
    let if_exists = c.eat(&["IF", "EXISTS"]);
    let only = !c.mysql() && c.eat(&["ONLY"]);
    let Some(table) = object_name(c) else { return Err(bad_table_name(sql, c)) };
    if !c.mysql() {
        c.eat_punct("*");
    }
    if c.peek().is_some_and(|next| next.kind != TokenKind::Word) {
        return Err(bad_table_name(sql, c));
    }
    let wait = wait(sql, c)?;
    let unlike = c.sees(&["WAIT"]) || c.sees(&["NOWAIT"]);
    if wait.is_some() && c.peek().is_some_and(|next| unlike || next.kind != TokenKind::Word) {
        return Err(AlterError::new(
            Problem::Unreadable,
            sql,
            offset_of(sql, c),
            "no clause begins like this",
            "write the clauses after WAIT n or NOWAIT, or leave those out: they are not used",
        ));
    }
    Ok(Head { table, online, ignore, if_exists, only, wait })
}

/// MariaDB's `WAIT seconds` and `NOWAIT`.
fn wait(sql: &str, c: &mut Cursor<'_>) -> Result<Option<Wait>, AlterError> {
    if !c.mysql() {
        return Ok(None);
    }
    if c.eat(&["NOWAIT"]) {
        return Ok(Some(Wait::NoWait));
    }
    if !c.eat(&["WAIT"]) {
        return Ok(None);
    }
    let offset = offset_of(sql, c);
    match c.next().and_then(|token| token.text.parse().ok()) {
        Some(seconds) => Ok(Some(Wait::Seconds(seconds))),
        None => Err(AlterError::new(
            Problem::Unreadable,
            sql,
            offset,
            "WAIT without a number",
            "write whole seconds after WAIT, or leave it out: it is not used for the change",
        )),
    }
}

fn offset_of(sql: &str, c: &Cursor<'_>) -> usize {
    c.peek().map_or(sql.len(), |token| token.offset)
}

fn bad_table_name(sql: &str, c: &Cursor<'_>) -> AlterError {
    let next = c.peek();
    let quote = if c.mysql() { "`" } else { "\"" };
    let (what, help) = match next {
        None => ("the table's name is missing", format!("write ALTER TABLE {quote}name{quote} …")),
        Some(token) if token.kind == TokenKind::Text => (
            "a string in place of the table's name",
            format!(
                "quote names as {quote}name{quote}; double quotes hold strings on MySQL without the mode ANSI_QUOTES"
            ),
        ),
        Some(_) => (
            "this does not fit a table's name",
            format!(
                "write name or schema.name and then the clauses; a name with other characters than \
                 letters, digits and _ needs quotes: {quote}my-table{quote}"
            ),
        ),
    };
    AlterError::new(Problem::BadTableName, sql, offset_of(sql, c), what, help)
}

/// What to say to a statement that is no `ALTER TABLE`.
fn not_alter(sql: &str, c: Cursor<'_>) -> AlterError {
    let offset = offset_of(sql, &c);
    if c.at_end() {
        return AlterError::new(
            Problem::Empty,
            sql,
            offset,
            "there is no statement",
            "write ALTER TABLE name and the clauses",
        );
    }
    let (what, help) = if c.mysql() { mysql_instead(sql, c) } else { postgres_instead(c) };
    AlterError::new(Problem::NotAlterTable, sql, offset, what, help)
}

const NOT_ALTER: &str = "this is not an ALTER TABLE";

fn mysql_instead(sql: &str, c: Cursor<'_>) -> (&'static str, String) {
    let sees = |words: &[&str]| c.sees(words);
    if let Some(form) = create_index_as_alter(sql, c.clone()) {
        return ("CREATE INDEX is not an ALTER TABLE", format!("write {form}"));
    }
    if let Some(form) = drop_index_as_alter(sql, c.clone()) {
        return ("DROP INDEX is not an ALTER TABLE", format!("write {form}"));
    }
    if sees(&["OPTIMIZE"]) {
        return (NOT_ALTER, "to rebuild a table write ALTER TABLE name FORCE".to_owned());
    }
    if sees(&["RENAME", "TABLE"]) {
        return (NOT_ALTER, "RENAME TABLE copies no rows: run it on the server itself".to_owned());
    }
    const CLAUSES: [&str; 7] = ["ADD", "DROP", "CHANGE", "MODIFY", "CONVERT", "ENGINE", "FORCE"];
    if CLAUSES.iter().any(|word| sees(&[word])) && !sees(&["DROP", "TABLE"]) {
        return (NOT_ALTER, "write the whole statement: ALTER TABLE name and then this".to_owned());
    }
    (
        NOT_ALTER,
        "only ALTER TABLE changes are run; run other statements on the server itself".to_owned(),
    )
}

fn postgres_instead(c: Cursor<'_>) -> (&'static str, String) {
    let index = c.sees(&["CREATE", "INDEX"]) || c.sees(&["CREATE", "UNIQUE", "INDEX"]);
    if index || c.sees(&["DROP", "INDEX"]) {
        let help = "PostgreSQL does this without blocking writers by itself: \
                    add CONCURRENTLY after INDEX and run it on the server";
        return ("an index statement is not an ALTER TABLE", help.to_owned());
    }
    (
        NOT_ALTER,
        "only ALTER TABLE of one named table is run; run other statements on the server itself"
            .to_owned(),
    )
}

/// `CREATE UNIQUE INDEX i ON t (a) …` as the clause that does the same.
fn create_index_as_alter(sql: &str, mut c: Cursor<'_>) -> Option<String> {
    if !c.eat(&["CREATE"]) {
        return None;
    }
    c.eat(&["OR", "REPLACE"]);
    c.eat_any(&["ONLINE", "OFFLINE"]);
    let class = c.eat_any(&["UNIQUE", "FULLTEXT", "SPATIAL", "VECTOR"]);
    if !c.eat(&["INDEX"]) {
        return None;
    }
    c.eat_if_exists();
    let start = c.peek()?.offset;
    // The index's name and its USING clause stand before ON, in the same order as in ALTER TABLE.
    let mut end = start;
    while !c.eat(&["ON"]) {
        end = c.next()?.end();
    }
    let name = sql.get(start..end)?;
    let table = verbatim_table(sql, &mut c)?;
    let columns = c.peek().filter(|token| token.is_punct("("))?.offset;
    // ALGORITHM and LOCK are clauses of their own there, and do not concern the change.
    let mut end = columns;
    while let Some(token) = c.next().filter(|t| !t.is_word("ALGORITHM") && !t.is_word("LOCK")) {
        end = token.end();
    }
    let class = class.map(|class| format!("{class} ")).unwrap_or_default();
    Some(format!("ALTER TABLE {table} ADD {class}INDEX {name} {}", sql.get(columns..end)?))
}

fn drop_index_as_alter(sql: &str, mut c: Cursor<'_>) -> Option<String> {
    if !c.eat(&["DROP"]) {
        return None;
    }
    c.eat_any(&["ONLINE", "OFFLINE"]);
    if !c.eat(&["INDEX"]) {
        return None;
    }
    c.eat_if_exists();
    let index = c.peek()?.text;
    c.name()?;
    if !c.eat(&["ON"]) {
        return None;
    }
    Some(format!("ALTER TABLE {} DROP INDEX {index}", verbatim_table(sql, &mut c)?))
}

/// The table's name as it is written, quotes included.
fn verbatim_table<'s>(sql: &'s str, c: &mut Cursor<'_>) -> Option<&'s str> {
    let start = c.peek()?.offset;
    let mut ahead = c.clone();
    object_name(&mut ahead)?;
    let mut end = start;
    while offset_of(sql, c) < offset_of(sql, &ahead) {
        end = c.next()?.end();
    }
    sql.get(start..end)
}
