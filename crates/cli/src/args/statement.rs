//! Where the statement comes from: an argument, a file, or standard input.
//!
//! Owns the choice among the three. Reading and checking the text is [`crate::resolve`]'s.

use std::path::PathBuf;

use clap::Args;

/// The statement, or where it stands.
#[derive(Debug, Clone, Args)]
#[group(id = "change", required = true, multiple = false)]
pub(crate) struct StatementArgs {
    /// The change: one ALTER TABLE statement, or - to read it from standard input
    ///
    /// Write it as for the server itself; a closing semicolon and comments do no harm. Put it in
    /// single quotes, because double quotes let the shell run what stands between backticks.
    #[arg(value_name = "STATEMENT")]
    pub(crate) statement: Option<String>,

    /// Read the statement from this file
    #[arg(short, long, value_name = "PATH")]
    pub(crate) file: Option<PathBuf>,
}

/// Where the statement comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// It was written on the command line.
    Text(String),
    /// It stands in a file.
    File(PathBuf),
    /// It comes from standard input.
    StandardInput,
}

impl StatementArgs {
    /// The one source that was named; `None` only where the parser let none or two through.
    pub(crate) fn source(&self) -> Option<Source> {
        match (&self.statement, &self.file) {
            (Some(text), None) if text.trim() == "-" => Some(Source::StandardInput),
            (Some(text), None) => Some(Source::Text(text.clone())),
            (None, Some(path)) if path.as_os_str() == "-" => Some(Source::StandardInput),
            (None, Some(path)) => Some(Source::File(path.clone())),
            _ => None,
        }
    }
}
