//! A reading place in the tokens of a clause or of a statement's head.

use super::lexer::{Syntax, Token, TokenKind};
use crate::ident::Dialect;

/// Reads forward over the tokens that count: no white space, no comments, no comment marks.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    syntax: Syntax,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(tokens: &[Token<'a>], syntax: Syntax) -> Self {
        let counts = |token: &&Token<'a>| {
            !token.is_trivia() && !matches!(token.kind, TokenKind::ExecOpen | TokenKind::ExecClose)
        };
        Self { tokens: tokens.iter().filter(counts).copied().collect(), at: 0, syntax }
    }

    pub(super) fn mysql(&self) -> bool {
        self.syntax.dialect == Dialect::MySql
    }

    pub(super) fn at_end(&self) -> bool {
        self.at >= self.tokens.len()
    }

    pub(super) fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).copied()
    }

    pub(super) fn next(&mut self) -> Option<Token<'a>> {
        let token = self.peek();
        self.at += usize::from(token.is_some());
        token
    }

    /// Whether the next tokens are these words.
    pub(super) fn sees(&self, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(ahead, word)| {
            self.tokens.get(self.at + ahead).is_some_and(|token| token.is_word(word))
        })
    }

    pub(super) fn sees_punct(&self, punct: &str) -> bool {
        self.peek().is_some_and(|token| token.is_punct(punct))
    }

    /// Takes these words, all of them or none.
    pub(super) fn eat(&mut self, words: &[&str]) -> bool {
        let seen = self.sees(words);
        if seen {
            self.at += words.len();
        }
        seen
    }

    /// Takes the next token if it is one of these words, and gives the word as spelt here.
    pub(super) fn eat_any<'w>(&mut self, words: &[&'w str]) -> Option<&'w str> {
        let token = self.peek()?;
        let word = words.iter().find(|word| token.is_word(word))?;
        self.at += 1;
        Some(word)
    }

    pub(super) fn eat_punct(&mut self, punct: &str) -> bool {
        let seen = self.sees_punct(punct);
        self.at += usize::from(seen);
        seen
    }

    /// Takes `IF EXISTS` or `IF NOT EXISTS`, if there.
    pub(super) fn eat_if_exists(&mut self) -> bool {
        self.eat(&["IF", "EXISTS"]) || self.eat(&["IF", "NOT", "EXISTS"])
    }

    /// Takes a name and gives it as the catalogue spells it: without quotes, and on PostgreSQL in
    /// lower case if it had none.
    pub(super) fn name(&mut self) -> Option<String> {
        let name = name_of(self.peek()?, self.syntax.dialect)?;
        self.at += 1;
        Some(name)
    }

    /// Takes a column's name; MySQL also reads `table.column` there, and means the column.
    pub(super) fn column(&mut self) -> Option<String> {
        let mut name = self.name()?;
        while self.mysql() && self.sees_punct(".") {
            self.at += 1;
            name = self.name_after_dot()?;
        }
        Some(name)
    }

    /// Takes a name after a dot, where MySQL also takes bare digits.
    pub(super) fn name_after_dot(&mut self) -> Option<String> {
        match self.peek() {
            Some(token) if token.kind == TokenKind::Number && self.mysql() => {
                self.at += 1;
                Some(token.text.to_owned())
            }
            _ => self.name(),
        }
    }
}

fn name_of(token: Token<'_>, dialect: Dialect) -> Option<String> {
    match token.kind {
        TokenKind::Word if dialect == Dialect::Postgres => Some(token.text.to_ascii_lowercase()),
        TokenKind::Word => Some(token.text.to_owned()),
        TokenKind::QuotedName => {
            let quote = token.text.get(..1)?;
            let inner = token.text.get(1..token.text.len() - 1)?;
            let name = inner.replace(&quote.repeat(2), quote);
            if name.is_empty() { None } else { Some(name) }
        }
        _ => None,
    }
}
