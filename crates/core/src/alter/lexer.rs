//! Cuts a statement into tokens by the rules of MySQL, MariaDB or PostgreSQL.
//!
//! Owns where a string, a quoted name or a comment begins and ends: that decides whether a comma is
//! a comma. Does not own meaning. The texts of the tokens, put together, are the statement.

use super::error::{AlterError, Problem};
use crate::ident::Dialect;

/// The settings of a session that decide how a statement is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Syntax {
    /// Whose rules.
    pub dialect: Dialect,
    /// `"…"` is a name, not a string. Always so on PostgreSQL; on MySQL with the mode `ANSI_QUOTES`.
    pub ansi_quotes: bool,
    /// `\` escapes within a plain string. So on MySQL without the mode `NO_BACKSLASH_ESCAPES`, and on
    /// PostgreSQL only with `standard_conforming_strings` off.
    pub backslash_escapes: bool,
}

impl Syntax {
    /// MySQL and MariaDB as they come.
    pub fn mysql() -> Self {
        Self { dialect: Dialect::MySql, ansi_quotes: false, backslash_escapes: true }
    }

    /// PostgreSQL as it comes.
    pub fn postgres() -> Self {
        Self { dialect: Dialect::Postgres, ansi_quotes: true, backslash_escapes: false }
    }
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// White space.
    Space,
    /// A comment that the server skips, its line end not included.
    Comment,
    /// The opening of a comment that the server executes, version included: `/*!80000`.
    ExecOpen,
    /// Its closing `*/`.
    ExecClose,
    /// A keyword or an unquoted name.
    Word,
    /// Digits, also hexadecimal; a decimal point is punctuation.
    Number,
    /// A string, quotes included.
    Text,
    /// A quoted name, quotes included.
    QuotedName,
    /// One character of anything else.
    Punct,
}

/// A piece of the statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'a> {
    /// What it is.
    pub kind: TokenKind,
    /// The piece itself, verbatim.
    pub text: &'a str,
    /// Bytes from the start of the statement.
    pub offset: usize,
}

impl Token<'_> {
    /// The byte after its last.
    pub fn end(&self) -> usize {
        self.offset + self.text.len()
    }

    /// Whether the server skips it: white space or a plain comment.
    pub fn is_trivia(&self) -> bool {
        matches!(self.kind, TokenKind::Space | TokenKind::Comment)
    }

    /// Whether it is this unquoted word, whatever its case.
    pub fn is_word(&self, word: &str) -> bool {
        self.kind == TokenKind::Word && self.text.eq_ignore_ascii_case(word)
    }

    /// Whether it is this character of punctuation.
    pub fn is_punct(&self, punct: &str) -> bool {
        self.kind == TokenKind::Punct && self.text == punct
    }
}

/// Cuts `sql` into tokens whose texts, put together, are `sql` again.
///
/// ```
/// use underpin_core::alter::{lex, Syntax};
/// let tokens = lex("ADD `a,b` INT", Syntax::mysql())?;
/// let texts: Vec<_> = tokens.iter().map(|token| token.text).collect();
/// assert_eq!(texts, ["ADD", " ", "`a,b`", " ", "INT"]);
/// # Ok::<(), underpin_core::alter::AlterError>(())
/// ```
///
/// # Errors
/// When a string, quoted name or comment does not end; when executable comments are nested, which
/// MySQL does not read as anyone expects; for PostgreSQL's names with Unicode escapes (`U&"…"`).
pub fn lex(sql: &str, syntax: Syntax) -> Result<Vec<Token<'_>>, AlterError> {
    let mut lexer = Lexer { sql, syntax, at: 0, exec_open: None };
    let mut tokens = Vec::new();
    while let Some(first) = lexer.rest().chars().next() {
        let offset = lexer.at;
        // Every branch takes one character at least, so this ends.
        let kind = lexer.scan(first)?;
        tokens.push(Token { kind, text: &sql[offset..lexer.at], offset });
    }
    match lexer.exec_open {
        None => Ok(tokens),
        Some(start) => Err(lexer.unterminated(start, "executable comment", "*/")),
    }
}

struct Lexer<'a> {
    sql: &'a str,
    syntax: Syntax,
    /// Byte of the next token.
    at: usize,
    /// Where the executable comment that we are inside of began.
    exec_open: Option<usize>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.sql[self.at..]
    }

    fn scan(&mut self, first: char) -> Result<TokenKind, AlterError> {
        let rest = self.rest();
        let mysql = self.syntax.dialect == Dialect::MySql;
        match first {
            _ if is_space(first) => Ok(self.take_while(TokenKind::Space, is_space)),
            '-' if rest.starts_with("--") && self.dashes_comment() => Ok(self.line_comment()),
            '#' if mysql => Ok(self.line_comment()),
            '/' if rest.starts_with("/*") => self.block_comment(),
            '*' if self.exec_open.is_some() && rest.starts_with("*/") => {
                self.at += 2;
                self.exec_open = None;
                Ok(TokenKind::ExecClose)
            }
            '\'' => self.quoted('\'', self.syntax.backslash_escapes, TokenKind::Text),
            '"' if self.syntax.ansi_quotes => self.quoted('"', false, TokenKind::QuotedName),
            '"' => self.quoted('"', self.syntax.backslash_escapes, TokenKind::Text),
            '`' if mysql => self.quoted('`', false, TokenKind::QuotedName),
            '$' if !mysql => self.dollar_quoted(),
            'e' | 'E' if !mysql && rest[1..].starts_with('\'') => {
                self.at += 1;
                self.escape_string()
            }
            'u' | 'U' if !mysql && rest[1..].starts_with("&\"") => Err(self.error(
                Problem::Unreadable,
                "a name with Unicode escapes (U&\"…\")",
                "write the name itself between double quotes",
            )),
            '\0' => Err(self.error(
                Problem::Unreadable,
                "a NUL character",
                "remove it: servers end the statement there or refuse it",
            )),
            _ if is_word(first) => Ok(self.word()),
            _ => {
                self.at += first.len_utf8();
                Ok(TokenKind::Punct)
            }
        }
    }

    fn take_while(&mut self, kind: TokenKind, wanted: impl Fn(char) -> bool) -> TokenKind {
        let rest = self.rest();
        self.at += rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        kind
    }

    fn word(&mut self) -> TokenKind {
        let start = self.at;
        self.take_while(TokenKind::Word, is_word);
        let text = &self.sql[start..self.at];
        // MySQL's names may begin with a digit: `2020_sales` is one, `0x41` and `1e5` are not.
        if is_number(text, self.syntax.dialect) { TokenKind::Number } else { TokenKind::Word }
    }

    /// Whether `--` here begins a comment: MySQL wants white space, a control character or the end
    /// after it, so that `5--1` stays arithmetic.
    fn dashes_comment(&self) -> bool {
        let after = self.rest()[2..].chars().next();
        self.syntax.dialect == Dialect::Postgres
            || after.is_none_or(|c| c == ' ' || c.is_ascii_control())
    }

    fn line_comment(&mut self) -> TokenKind {
        let postgres = self.syntax.dialect == Dialect::Postgres;
        self.take_while(TokenKind::Comment, |c| c != '\n' && !(postgres && c == '\r'))
    }

    fn block_comment(&mut self) -> Result<TokenKind, AlterError> {
        let (start, rest) = (self.at, self.rest());
        if self.syntax.dialect == Dialect::Postgres {
            return self.nested_comment();
        }
        let marks = if rest.starts_with("/*!") { 3 } else { 4 };
        if marks == 4 && !rest.starts_with("/*M!") {
            let Some(length) = rest[2..].find("*/") else {
                return Err(self.unterminated(start, "comment", "*/"));
            };
            self.at += 2 + length + 2;
            return Ok(TokenKind::Comment);
        }
        if self.exec_open.is_some() {
            return Err(self.error(
                Problem::Unreadable,
                "an executable comment within another",
                "write the clauses without /*! */",
            ));
        }
        // A version has five or six digits; fewer belong to the code.
        let digits = rest[marks..].bytes().take(6).take_while(u8::is_ascii_digit).count();
        self.exec_open = Some(start);
        self.at += marks + if digits >= 5 { digits } else { 0 };
        Ok(TokenKind::ExecOpen)
    }

    /// PostgreSQL's comments contain comments.
    fn nested_comment(&mut self) -> Result<TokenKind, AlterError> {
        let start = self.at;
        let mut depth = 0_usize;
        while let Some(step) = self.rest().find(['/', '*']) {
            self.at += step;
            if self.rest().starts_with("/*") {
                depth += 1;
                self.at += 2;
            } else if self.rest().starts_with("*/") {
                depth -= 1;
                self.at += 2;
            } else {
                self.at += 1;
            }
            if depth == 0 {
                return Ok(TokenKind::Comment);
            }
        }
        Err(self.unterminated(start, "comment", "*/"))
    }

    /// A run between two `quote`s, where a doubled quote stands for one.
    fn quoted(
        &mut self,
        quote: char,
        backslash: bool,
        kind: TokenKind,
    ) -> Result<TokenKind, AlterError> {
        let start = self.at;
        let body = start + quote.len_utf8();
        let mut chars = self.sql[body..].char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            if c == '\\' && backslash {
                chars.next();
            } else if c == quote && chars.next_if(|(_, next)| *next == quote).is_none() {
                self.at = body + at + quote.len_utf8();
                return Ok(kind);
            }
        }
        let what = if kind == TokenKind::Text { "string" } else { "quoted name" };
        Err(self.unterminated(start, what, &quote.to_string()))
    }

    /// `E'…'`, and its continuation after a line end, where `\` still escapes.
    fn escape_string(&mut self) -> Result<TokenKind, AlterError> {
        self.quoted('\'', true, TokenKind::Text)?;
        loop {
            let rest = self.rest();
            let gap = rest.find(|c| !is_space(c)).unwrap_or(rest.len());
            if !rest[gap..].starts_with('\'') || !rest[..gap].contains('\n') {
                return Ok(TokenKind::Text);
            }
            self.at += gap;
            self.quoted('\'', true, TokenKind::Text)?;
        }
    }

    /// `$tag$ … $tag$`, or a lone `$`.
    fn dollar_quoted(&mut self) -> Result<TokenKind, AlterError> {
        let (start, rest) = (self.at, self.rest());
        let tag = rest[1..].find(|c| c == '$' || !is_word(c)).unwrap_or(rest.len() - 1);
        let opens = rest[1 + tag..].starts_with('$')
            && !rest[1..].starts_with(|c: char| c.is_ascii_digit());
        if !opens {
            self.at += 1;
            return Ok(TokenKind::Punct);
        }
        let fence = &rest[..tag + 2];
        let Some(length) = rest[fence.len()..].find(fence) else {
            return Err(self.unterminated(start, "dollar-quoted string", fence));
        };
        self.at += fence.len() + length + fence.len();
        Ok(TokenKind::Text)
    }

    fn error(&self, problem: Problem, what: &str, help: &str) -> AlterError {
        AlterError::new(problem, self.sql, self.at, what, help)
    }

    fn unterminated(&self, start: usize, what: &str, end: &str) -> AlterError {
        AlterError::new(
            Problem::Unterminated,
            self.sql,
            start,
            format!("a {what} that does not end"),
            format!("close it with {end}, or look for a quote too many before it"),
        )
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

/// All that lies beyond ASCII counts as a letter, on both servers.
fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

fn is_number(text: &str, dialect: Dialect) -> bool {
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return false;
    }
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let hexadecimal = text
        .strip_prefix("0x")
        .is_some_and(|hex| !hex.is_empty() && hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let binary = text
        .strip_prefix("0b")
        .is_some_and(|bits| !bits.is_empty() && bits.bytes().all(|bit| matches!(bit, b'0' | b'1')));
    let scientific =
        text.split_once(['e', 'E']).is_some_and(|(left, right)| digits(left) && digits(right));
    dialect == Dialect::Postgres || digits(text) || hexadecimal || binary || scientific
}
