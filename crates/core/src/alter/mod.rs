//! The user's `ALTER TABLE`: read as far as safety needs, kept word for word otherwise.
//!
//! The clauses are applied to the shadow exactly as they were written, and the catalogues of source
//! and shadow are compared afterwards: the server is the parser. What a catalogue cannot tell is a
//! rename from a drop plus an add, so renames are recognised here, along with what has to be left out
//! or refused. Owns the lexer, the splitter and the recogniser; no SQL is ever rendered from a tree.
//!
//! ```
//! use underpin_core::alter::{Alter, ClauseKind, Syntax};
//!
//! let sql = "ALTER TABLE shop.orders CHANGE note remark VARCHAR(200), ALGORITHM=COPY;";
//! let alter = Alter::parse(sql, Syntax::mysql())?;
//! assert_eq!(alter.table.to_string(), "shop.orders");
//! assert_eq!(
//!     alter.clauses[0].kind,
//!     ClauseKind::ChangeColumn { from: "note".into(), to: "remark".into() },
//! );
//! let shadow = alter.render("`shop`.`orders~new`", |clause| clause.is_execution_hint());
//! assert_eq!(shadow, "ALTER TABLE `shop`.`orders~new` CHANGE note remark VARCHAR(200)");
//! # Ok::<(), underpin_core::alter::AlterError>(())
//! ```

mod clause;
mod cursor;
mod error;
mod lexer;
mod split;
mod statement;
#[cfg(test)]
mod tests;

use std::fmt;

pub use error::{AlterError, Position, Problem};
pub use lexer::{Syntax, Token, TokenKind, lex};

use crate::ident::{IdentError, TableName};
use cursor::Cursor;

/// A table's name as the statement gives it, without quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectName {
    /// The schema or database, where one was written.
    pub schema: Option<String>,
    /// The table; PostgreSQL's unquoted names are in lower case.
    pub name: String,
}

impl ObjectName {
    /// The full name, with the connection's own schema where the statement names none.
    ///
    /// # Errors
    /// When a part is empty or holds NUL.
    pub fn resolve(&self, default_schema: &str) -> Result<TableName, IdentError> {
        TableName::new(self.schema.as_deref().unwrap_or(default_schema), self.name.as_str())
    }
}

impl fmt::Display for ObjectName {
    /// For messages, never for a statement: without quotes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// MariaDB's word on how long to wait for the table's lock; not used for the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// `WAIT n`.
    Seconds(u64),
    /// `NOWAIT`.
    NoWait,
}

/// What stands between a clause and the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joiner {
    /// A comma.
    Comma,
    /// White space: MySQL's `PARTITION BY …` and `REMOVE PARTITIONING` follow without a comma.
    Space,
}

impl Joiner {
    fn text(self) -> &'static str {
        match self {
            Self::Comma => ", ",
            Self::Space => " ",
        }
    }
}

/// What a clause does, as far as it matters here. Names are without quotes; PostgreSQL's unquoted
/// names are in lower case, MySQL's are as written (compare column names there without case).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClauseKind {
    /// `ADD [COLUMN] a …`, or MySQL's `ADD (a …, b …)`, where indexes may stand among the columns.
    AddColumn {
        /// The new columns.
        names: Vec<String>,
    },
    /// `DROP [COLUMN] a`.
    DropColumn {
        /// The column.
        name: String,
    },
    /// A new definition or type: `MODIFY a …` on MySQL, `ALTER a TYPE …` on PostgreSQL.
    ModifyColumn {
        /// The column.
        name: String,
    },
    /// MySQL's `CHANGE a b …`: a new definition, and a new name unless both names are equal.
    ChangeColumn {
        /// The name in the source.
        from: String,
        /// The name in the shadow.
        to: String,
    },
    /// `RENAME COLUMN a TO b`.
    RenameColumn {
        /// The name in the source.
        from: String,
        /// The name in the shadow.
        to: String,
    },
    /// `ALTER [COLUMN] a …` other than a new type: default, visibility, storage.
    AlterColumn {
        /// The column.
        name: String,
    },
    /// The table gets another name.
    RenameTable {
        /// That name.
        to: ObjectName,
    },
    /// PostgreSQL's `SET SCHEMA`: the table moves.
    SetSchema {
        /// Where to.
        to: String,
    },
    /// `ADD INDEX`, also full-text, spatial and vector ones.
    AddIndex,
    /// `ADD [CONSTRAINT c] UNIQUE`.
    AddUnique,
    /// `ADD [CONSTRAINT c] PRIMARY KEY`.
    AddPrimaryKey,
    /// `ADD [CONSTRAINT c] FOREIGN KEY`. A column's own `REFERENCES` is not seen here.
    AddForeignKey,
    /// `ADD [CONSTRAINT c] CHECK`.
    AddCheck,
    /// `DROP PRIMARY KEY`, also as ``DROP INDEX `PRIMARY` ``.
    DropPrimaryKey,
    /// MySQL's `DROP FOREIGN KEY`.
    DropForeignKey {
        /// The constraint.
        name: String,
    },
    /// MySQL's `DROP INDEX` and `DROP KEY`.
    DropIndex {
        /// The index.
        name: String,
    },
    /// `DROP CONSTRAINT` and MySQL's `DROP CHECK`: may be a key of any kind.
    DropConstraint {
        /// The constraint.
        name: String,
    },
    /// `CONVERT TO CHARACTER SET …`.
    ConvertCharset,
    /// `ENGINE = …`, perhaps among other table options.
    Engine(String),
    /// `FORCE`: rebuild as it is.
    Force,
    /// MySQL's `ORDER BY a, b`.
    OrderBy,
    /// `ALGORITHM = …`; the value in capitals.
    Algorithm(String),
    /// `LOCK = …`; the value in capitals.
    Lock(String),
    /// `PARTITION BY …`.
    PartitionBy,
    /// `REMOVE PARTITIONING`.
    RemovePartitioning,
    /// A change of single partitions; the verb in capitals: `ADD`, `DROP`, `EXCHANGE`, `ATTACH`, ….
    PartitionVerb(String),
    /// `DISCARD` or `IMPORT TABLESPACE`, also of partitions.
    DiscardOrImportTablespace,
    /// MariaDB's `ADD SYSTEM VERSIONING`.
    AddSystemVersioning,
    /// MariaDB's `DROP SYSTEM VERSIONING`.
    DropSystemVersioning,
    /// MariaDB's `ADD PERIOD FOR` and `DROP PERIOD FOR`.
    Period,
    /// Anything else: the server knows.
    Other,
}

/// One clause, word for word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause {
    /// Its text without white space and comments around it.
    pub text: String,
    /// What it does.
    pub kind: ClauseKind,
    /// What stood before it.
    pub joiner: Joiner,
    /// Whether a part of it stands in an executable comment (`/*!80000 … */`): read as code here, but
    /// a server of another version or family skips it.
    pub conditional: bool,
    /// Its first byte in the statement.
    pub offset: usize,
    /// Its text with white space and comments evened out.
    normal: String,
}

impl Clause {
    /// Whether it says how the server should go about the change, not what to change: `ALGORITHM` and
    /// `LOCK`. Left out for the shadow, which is empty and nobody's.
    pub fn is_execution_hint(&self) -> bool {
        matches!(self.kind, ClauseKind::Algorithm(_) | ClauseKind::Lock(_))
    }
}

/// One `ALTER TABLE` statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alter {
    /// The table to change.
    pub table: ObjectName,
    /// MariaDB's `ONLINE`.
    pub online: bool,
    /// `IGNORE`: the server would drop rows that clash with a new unique key.
    pub ignore: bool,
    /// `IF EXISTS`.
    pub if_exists: bool,
    /// PostgreSQL's `ONLY`: without inherited tables.
    pub only: bool,
    /// MariaDB's `WAIT` or `NOWAIT`.
    pub wait: Option<Wait>,
    /// The clauses, in order; at least one.
    pub clauses: Vec<Clause>,
}

impl Alter {
    /// Reads one `ALTER TABLE` statement, with or without a closing semicolon.
    ///
    /// # Errors
    /// When it is not one `ALTER TABLE` statement, when strings, comments or brackets do not end, and
    /// when the names in a `CHANGE` or `RENAME` cannot be told. All else is the server's to judge.
    pub fn parse(sql: &str, syntax: Syntax) -> Result<Self, AlterError> {
        let tokens = lex(sql, syntax)?;
        let tokens = statement::only_statement(sql, &tokens)?;
        let mut cursor = Cursor::new(tokens, syntax);
        let head = statement::head(sql, &mut cursor)?;
        let Some(first) = cursor.peek() else {
            return Err(AlterError::new(
                Problem::NoClause,
                sql,
                tokens.last().map_or(sql.len(), Token::end),
                "no clause follows the table's name",
                "write what to change; to rebuild the table on MySQL write FORCE",
            ));
        };
        let body = body_from(tokens, first.offset);
        let mut clauses = Vec::new();
        for piece in split::split(sql, &body, syntax)? {
            clauses.push(clause_of(sql, &piece, syntax)?);
        }
        let statement::Head { table, online, ignore, if_exists, only, wait } = head;
        Ok(Self { table, online, ignore, if_exists, only, wait, clauses })
    }

    /// The statement for another table, which comes quoted: the clauses word for word, less those
    /// that `skip` picks. `ONLINE`, `IGNORE`, `IF EXISTS`, `ONLY` and `WAIT` are not repeated. With
    /// every clause left out it is `ALTER TABLE name`, which MySQL accepts and PostgreSQL does not.
    pub fn render(&self, table: &str, skip: impl Fn(&Clause) -> bool) -> String {
        let mut sql = format!("ALTER TABLE {table}");
        let mut joined = false;
        for clause in self.clauses.iter().filter(|clause| !skip(clause)) {
            sql.push_str(if joined { clause.joiner.text() } else { " " });
            sql.push_str(&clause.text);
            joined = true;
        }
        sql
    }

    /// A text that is equal for two statements that ask for the same change: the clauses, with white
    /// space and comments evened out, and `IGNORE`. Not the table, which has its own comparison; nor
    /// is the case of words evened out, for it may matter in names.
    ///
    /// ```
    /// use underpin_core::alter::{Alter, Syntax};
    /// let one = Alter::parse("ALTER TABLE t ADD a DECIMAL(10, 2) -- cents", Syntax::mysql())?;
    /// let two = Alter::parse("ALTER TABLE db.t\n  ADD a DECIMAL( 10,2 );", Syntax::mysql())?;
    /// assert_eq!(one.fingerprint(), two.fingerprint());
    /// # Ok::<(), underpin_core::alter::AlterError>(())
    /// ```
    pub fn fingerprint(&self) -> String {
        let mut text = String::from(if self.ignore { "IGNORE " } else { "" });
        for (index, clause) in self.clauses.iter().enumerate() {
            if index > 0 {
                text.push_str(clause.joiner.text());
            }
            text.push_str(&clause.normal);
        }
        text
    }
}

/// The tokens of the clauses, the first of which begins at `offset`: no white space, no comments.
fn body_from<'a>(tokens: &[Token<'a>], offset: usize) -> Vec<Token<'a>> {
    let counted: Vec<Token<'a>> =
        tokens.iter().filter(|token| !token.is_trivia()).copied().collect();
    let first = counted.iter().position(|token| token.offset >= offset).unwrap_or(counted.len());
    // An executable comment may open right before the first clause, and belongs to it then.
    let opens = first > 0 && counted[first - 1].kind == TokenKind::ExecOpen;
    counted[first - usize::from(opens)..].to_vec()
}

fn clause_of(
    sql: &str,
    piece: &split::Piece<'_, '_>,
    syntax: Syntax,
) -> Result<Clause, AlterError> {
    let tokens = piece.tokens;
    let cursor = Cursor::new(tokens, syntax);
    let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else {
        return Err(AlterError::new(Problem::EmptyClause, sql, 0, "an empty clause", "remove it"));
    };
    if last.kind == TokenKind::Punct && sql[first.offset..last.end()].ends_with("--") {
        // Before another text, or at the very end, these dashes would become a comment.
        return Err(AlterError::new(
            Problem::Unreadable,
            sql,
            last.offset - 1,
            "a clause that ends in --",
            "write a blank after -- where a comment is meant",
        ));
    }
    let renames = cursor.sees(&["RENAME"]) || cursor.sees(&["CHANGE"]) && cursor.mysql();
    let recognised = clause::recognise(cursor);
    let clear = !renames || first.kind == TokenKind::ExecOpen || {
        // A server that skips an executable comment must read the same names.
        recognised == clause::recognise(Cursor::new(&without_executable(tokens), syntax))
    };
    let kind = match recognised {
        Some(kind) if clear => kind,
        // A rename that goes unseen would be taken for a drop plus an add, and lose the values.
        _ if renames => {
            return Err(AlterError::new(
                Problem::UnclearRename,
                sql,
                first.offset,
                "it cannot be told what is renamed to what",
                "write RENAME COLUMN old TO new, or on MySQL CHANGE old new definition, \
                 with unusual names in quotes and no /*! */ within",
            ));
        }
        _ => ClauseKind::Other,
    };
    Ok(Clause {
        text: sql[first.offset..last.end()].to_owned(),
        kind,
        joiner: piece.joiner,
        conditional: tokens.iter().any(|token| token.kind == TokenKind::ExecOpen),
        offset: first.offset,
        normal: normal_text(tokens),
    })
}

/// What is left of a clause where the server skips executable comments.
fn without_executable<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    let mut inside = false;
    let mut kept = Vec::new();
    for token in tokens {
        inside |= token.kind == TokenKind::ExecOpen;
        if !inside {
            kept.push(*token);
        }
        inside &= token.kind != TokenKind::ExecClose;
    }
    kept
}

/// One blank where the statement has white space or comments, none beside `(`, `)`, `,` and `=`.
fn normal_text(tokens: &[Token<'_>]) -> String {
    let tight = |token: &Token<'_>| ["(", ")", ",", "="].iter().any(|punct| token.is_punct(punct));
    let mut text = String::new();
    let mut before: Option<&Token<'_>> = None;
    for token in tokens {
        let gap = before
            .is_some_and(|before| before.end() < token.offset && !tight(before) && !tight(token));
        if gap {
            text.push(' ');
        }
        text.push_str(token.text);
        before = Some(token);
    }
    text
}
