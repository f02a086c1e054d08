//! The neutral model of a table: what the catalogues say, as far as the decisions need it.
//!
//! Owns no SQL. A dialect fills it in; `mapping` compares two of them.

use serde::{Deserialize, Serialize};

/// A column as the catalogue shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name, unquoted.
    pub name: String,
    /// The full type as the server prints it, as `decimal(10,2) unsigned`.
    pub full_type: String,
    /// The bare type in lower case, as `decimal`.
    pub base_type: String,
    /// Character set, for text types.
    pub charset: Option<String>,
    /// Collation, for text types.
    pub collation: Option<String>,
    /// Whether NULL is allowed.
    pub nullable: bool,
    /// Whether the server computes it from other columns.
    pub generated: bool,
    /// Whether it draws its values from the table's counter or sequence.
    pub auto_increment: bool,
    /// Whether its default is not a constant: each draw may differ (now, random, counter).
    pub volatile_default: bool,
    /// Whether an INSERT may leave it out: it has a default, allows NULL, or is generated.
    pub has_default: bool,
    /// Spatial reference system, where one is fixed.
    pub srs_id: Option<u32>,
}

/// An index as the catalogue shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Its name, unquoted; `PRIMARY` on MySQL.
    pub name: String,
    /// Whether it is the primary key.
    pub primary: bool,
    /// Whether it is unique.
    pub unique: bool,
    /// Indexed columns in order; an expression or a prefix gives `None` in `whole`.
    pub parts: Vec<IndexPart>,
    /// BTREE, FULLTEXT, SPATIAL, …
    pub kind: String,
    /// The index definition as the server prints it, ready for `ADD`.
    pub definition: String,
}

/// One part of an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexPart {
    /// The column; `None` for an expression.
    pub column: Option<String>,
    /// Whether the whole value is indexed (no prefix length).
    pub whole: bool,
    /// Whether it sorts downwards.
    pub descending: bool,
}

/// A table as the catalogue shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Schema (PostgreSQL) or database (MySQL).
    pub schema: String,
    /// Its name, unquoted.
    pub name: String,
    /// Columns in the order of the table.
    pub columns: Vec<Column>,
    /// Indexes, primary key first.
    pub indexes: Vec<Index>,
    /// The server's estimate of the number of rows.
    pub rows_estimate: u64,
    /// Bytes of data by the server's estimate.
    pub data_bytes: u64,
    /// Average bytes of a row by the server's estimate; 0 where unknown.
    pub row_bytes: u64,
}

impl Table {
    /// The column of this name; MySQL compares column names without case, PostgreSQL names are exact.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns
            .iter()
            .find(|column| column.name == name)
            .or_else(|| self.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name)))
    }
}
