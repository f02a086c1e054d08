//! The server's own statistics of the statements that touch a table: what they were before a run and
//! are after its swap, and which statements fared worse.

use serde::{Deserialize, Serialize};

/// Counters of one kind of statement, since the server began to count.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StatementStats {
    /// The server's fingerprint of the statement.
    pub digest: String,
    /// The statement, its values replaced by placeholders.
    pub text: String,
    /// How often it ran.
    pub calls: u64,
    /// Milliseconds in all.
    pub total_ms: f64,
    /// Rows it read (MySQL, MariaDB) or blocks it touched (PostgreSQL), in all.
    pub examined: u64,
    /// Rows it returned or changed, in all.
    pub rows: u64,
    /// Times it used no index, in all; zero where the server does not tell.
    pub without_index: u64,
}
