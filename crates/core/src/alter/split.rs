//! Cuts what follows the table's name into clauses, at the commas that part them.
//!
//! Owns which commas those are. Does not own what a clause means (`clause`).

use std::cmp::min;

use super::Joiner;
use super::clause;
use super::cursor::Cursor;
use super::error::{AlterError, Problem};
use super::lexer::{Syntax, Token, TokenKind};

/// The tokens of one clause, without white space and comments, and what stood before it.
pub(super) struct Piece<'t, 'a> {
    pub(super) joiner: Joiner,
    pub(super) tokens: &'t [Token<'a>],
}

/// Cuts `body` (no white space, no plain comments) into clauses.
pub(super) fn split<'t, 'a>(
    sql: &'a str,
    body: &'t [Token<'a>],
    syntax: Syntax,
) -> Result<Vec<Piece<'t, 'a>>, AlterError> {
    let mut splitter =
        Splitter { sql, body, syntax, pieces: Vec::new(), start: 0, joiner: Joiner::Comma };
    splitter.run()?;
    Ok(splitter.pieces)
}

struct Splitter<'t, 'a> {
    sql: &'a str,
    body: &'t [Token<'a>],
    syntax: Syntax,
    pieces: Vec<Piece<'t, 'a>>,
    /// First token of the clause being read.
    start: usize,
    joiner: Joiner,
}

impl<'t, 'a> Splitter<'t, 'a> {
    fn run(&mut self) -> Result<(), AlterError> {
        let mut open: Vec<Token<'a>> = Vec::new();
        let mut in_comment = false;
        for (at, token) in self.body.iter().enumerate() {
            match token.kind {
                TokenKind::ExecOpen => in_comment = true,
                TokenKind::ExecClose if in_comment => in_comment = false,
                TokenKind::ExecClose => return Err(self.split_comment(*token)),
                TokenKind::Punct => self.pair(*token, &mut open)?,
                _ => {}
            }
            if !open.is_empty() {
                continue;
            }
            if token.is_punct(",") {
                if self.comma_belongs_to_clause(at) {
                    continue;
                }
                if in_comment {
                    return Err(self.split_comment(*token));
                }
                self.push(at)?;
                (self.start, self.joiner) = (at + 1, Joiner::Comma);
            } else if at > self.start && self.partitioning_begins(at) {
                let opens = self.body[at - 1].kind == TokenKind::ExecOpen;
                if in_comment && !opens {
                    return Err(self.split_comment(*token));
                }
                let cut = at - usize::from(opens);
                if cut > self.start {
                    self.push(cut)?;
                    (self.start, self.joiner) = (cut, Joiner::Space);
                }
            }
        }
        match open.last() {
            Some(bracket) => Err(self.unbalanced(*bracket, "is not closed")),
            None => self.push(self.body.len()),
        }
    }

    /// Keeps the stack of open brackets. PostgreSQL also has `ARRAY[1, 2]`.
    fn pair(&self, token: Token<'a>, open: &mut Vec<Token<'a>>) -> Result<(), AlterError> {
        let partner = match token.text {
            "(" | "[" => {
                open.push(token);
                return Ok(());
            }
            ")" => "(",
            "]" => "[",
            _ => return Ok(()),
        };
        match open.pop() {
            Some(bracket) if bracket.text == partner => Ok(()),
            _ => Err(self.unbalanced(token, "has no partner")),
        }
    }

    fn push(&mut self, end: usize) -> Result<(), AlterError> {
        let tokens = &self.body[self.start..end];
        if Cursor::new(tokens, self.syntax).at_end() {
            let offset = self.body.get(end).map_or(self.sql.len(), |token| token.offset);
            return Err(AlterError::new(
                Problem::EmptyClause,
                self.sql,
                offset,
                "a clause is missing beside a comma",
                "remove the comma or write the clause",
            ));
        }
        self.pieces.push(Piece { joiner: self.joiner, tokens });
        Ok(())
    }

    /// Whether the comma at `at` parts the names of one clause: `DROP PARTITION p0, p1` or
    /// `ORDER BY a, b`. The servers let nothing follow such a clause, so every later comma is its own.
    fn comma_belongs_to_clause(&self, at: usize) -> bool {
        // The longest opening that matters is two words and their comment marks.
        let opening = &self.body[self.start..min(at, self.start + 6)];
        let opening = Cursor::new(opening, self.syntax);
        opening.mysql() && (clause::names_partitions(&opening) || opening.sees(&["ORDER", "BY"]))
    }

    /// Whether `PARTITION BY` or `REMOVE PARTITIONING` begins at `at`: MySQL wants those last, with
    /// no comma before them.
    fn partitioning_begins(&self, at: usize) -> bool {
        let ahead = Cursor::new(&self.body[at..min(self.body.len(), at + 2)], self.syntax);
        ahead.mysql()
            && (ahead.sees(&["PARTITION", "BY"]) || ahead.sees(&["REMOVE", "PARTITIONING"]))
            && self.body[at].kind == TokenKind::Word
    }

    fn unbalanced(&self, token: Token<'a>, what: &str) -> AlterError {
        AlterError::new(
            Problem::Unbalanced,
            self.sql,
            token.offset,
            format!("the bracket {} {what}", token.text),
            "pair the brackets",
        )
    }

    fn split_comment(&self, token: Token<'a>) -> AlterError {
        AlterError::new(
            Problem::SplitComment,
            self.sql,
            token.offset,
            "an executable comment that holds more than one clause, or a part of two",
            "give each clause a /*! */ of its own, or write them without",
        )
    }
}
