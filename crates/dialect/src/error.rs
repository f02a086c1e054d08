//! The one error of the seam: what was attempted, on which object, what the server said, what to do.
//!
//! Dialects build it, the engine asks it questions (`is_retryable()`, …). It never carries a driver type.

use std::fmt;

/// What an error means for the run. The engine decides by this, never by a server's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The server rolled the statement or transaction back (deadlock, lock time-out): certain not to
    /// have happened, worth another try.
    Retryable,
    /// The lock on a live table was not had in time; nothing happened.
    LockNotHad,
    /// The server may have acted and the answer is lost: look first, never try again blindly.
    Ambiguous,
    /// The connection is gone. What was in flight has an unknown outcome.
    ConnectionLost,
    /// The statement was cancelled by us and ended without effect.
    Cancelled,
    /// A unique key was violated.
    DuplicateKey,
    /// A value does not fit its new column (too long, out of range, invalid, NULL not allowed).
    DataError,
    /// The account may not do this, or could not log in.
    AccessDenied,
    /// A table, database or column is missing.
    NotFound,
    /// The server refuses writes (read-only, or a replica).
    ReadOnly,
    /// The source is not what it was when the run began (altered, truncated, trigger gone).
    SourceChanged,
    /// The source was emptied and the log has the marker of it: certain not to have happened; the run is
    /// to be prepared and copied anew. Only where the copy goes by blocks.
    Truncated,
    /// Another runner holds this run.
    Fenced,
    /// The request itself is wrong: a statement the server cannot parse, a bad option.
    Refused,
    /// Anything else. Never retried.
    Other,
}

/// An error at the seam. Display prints one sentence that a person can act on.
#[derive(Debug, Clone)]
pub struct DbError {
    /// What it means for the run.
    pub kind: ErrorKind,
    /// What was attempted, as "copying a chunk".
    pub attempted: String,
    /// The object it was attempted on, as "shop.orders"; empty where there is none.
    pub object: String,
    /// What the server (or driver) said, verbatim; `None` where the error is our own finding.
    pub server: Option<String>,
    /// The server's error number, where it gave one.
    pub code: Option<u16>,
    /// The server's SQLSTATE, on servers whose errors are told apart by it.
    pub sqlstate: Option<Box<str>>,
    /// What to do next.
    pub help: Option<String>,
}

/// The result of every call across the seam.
pub type DbResult<T> = Result<T, DbError>;

impl DbError {
    /// An error that is our own finding, without server words.
    pub fn new(kind: ErrorKind, attempted: impl Into<String>, object: impl Into<String>) -> Self {
        Self {
            kind,
            attempted: attempted.into(),
            object: object.into(),
            server: None,
            code: None,
            sqlstate: None,
            help: None,
        }
    }

    /// Adds what the server said.
    #[must_use]
    pub fn said(mut self, server: impl Into<String>) -> Self {
        self.server = Some(server.into());
        self
    }

    /// Adds what to do next.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Replaces what was attempted and on what, keeping the server's words.
    #[must_use]
    pub fn doing(mut self, attempted: impl Into<String>, object: impl Into<String>) -> Self {
        self.attempted = attempted.into();
        self.object = object.into();
        self
    }

    /// True where the work certainly did not happen and may be tried again.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, ErrorKind::Retryable | ErrorKind::LockNotHad)
    }

    /// True where the server may have acted although no answer came.
    pub fn is_ambiguous(&self) -> bool {
        matches!(self.kind, ErrorKind::Ambiguous | ErrorKind::ConnectionLost)
    }

    /// True where the connection is gone and must be made anew.
    pub fn is_connection_lost(&self) -> bool {
        self.kind == ErrorKind::ConnectionLost
    }
}

impl fmt::Display for DbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.attempted)?;
        if !self.object.is_empty() {
            write!(f, " ({})", self.object)?;
        }
        if let Some(server) = &self.server {
            write!(f, ": the server said: {server}")?;
            if let Some(code) = self.code {
                write!(f, " [{code}]")?;
            }
            if let Some(sqlstate) = &self.sqlstate {
                write!(f, " [{sqlstate}]")?;
            }
        }
        if let Some(help) = &self.help {
            write!(f, ". {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for DbError {}
