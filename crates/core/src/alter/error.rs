//! What can be wrong with a statement: the problem, where it is, and what to write instead.

use std::fmt;

use thiserror::Error;

/// A place in the statement, counted as an editor counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Bytes from the start, from 0.
    pub offset: usize,
    /// Line, from 1.
    pub line: usize,
    /// Character of the line, from 1.
    pub column: usize,
}

impl Position {
    /// The place of byte `offset` in `sql`; an offset past the end, or within a character, gives
    /// the nearest place before it.
    pub fn of(sql: &str, offset: usize) -> Self {
        let mut position = Self { offset: 0, line: 1, column: 1 };
        for (at, c) in sql.char_indices() {
            if at + c.len_utf8() > offset {
                return Self { offset: at, ..position };
            }
            if c == '\n' {
                position = Self { line: position.line + 1, column: 1, ..position };
            } else {
                position.column += 1;
            }
        }
        Self { offset: sql.len(), ..position }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// What is wrong, for callers that decide by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// A string, quoted name, dollar quote or comment does not end.
    Unterminated,
    /// A character or construct that this program does not read.
    Unreadable,
    /// Brackets do not pair.
    Unbalanced,
    /// There is no statement.
    Empty,
    /// Not an `ALTER TABLE`.
    NotAlterTable,
    /// More than one statement.
    SeveralStatements,
    /// The table's name is missing or not of the form `schema.name`.
    BadTableName,
    /// No clause follows the table's name.
    NoClause,
    /// Nothing between two commas, or after the last.
    EmptyClause,
    /// An executable comment holds a part of several clauses.
    SplitComment,
    /// A `CHANGE` or `RENAME` whose names cannot be told.
    UnclearRename,
}

/// A statement that is refused before any server sees it.
///
/// Its text says what is wrong, where, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what} at {at}{}: {help}", near_text(.near))]
pub struct AlterError {
    /// The kind of problem.
    pub problem: Problem,
    /// What is wrong, in words.
    pub what: String,
    /// Where.
    pub at: Position,
    /// The text from there on, a few words of it; empty at the end of the statement.
    pub near: String,
    /// What to do.
    pub help: String,
}

/// Characters of the statement that a message repeats.
const NEAR_CHARS: usize = 32;

impl AlterError {
    pub(super) fn new(
        problem: Problem,
        sql: &str,
        offset: usize,
        what: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        let at = Position::of(sql, offset);
        let rest = sql.get(at.offset..).unwrap_or("");
        let line = rest.lines().next().unwrap_or("").trim_end();
        let mut near: String = line.chars().take(NEAR_CHARS).collect();
        if near.len() < line.len() {
            near.push('…');
        }
        Self { problem, what: what.into(), at, near, help: help.into() }
    }
}

fn near_text(near: &str) -> String {
    if near.is_empty() { String::new() } else { format!(", near \"{near}\"") }
}
