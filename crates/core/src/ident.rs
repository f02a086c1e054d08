//! Names as types, and the one place where names and strings are quoted for a server.
//!
//! Owns: checked names, quoting of identifiers and literals, and the names of our own objects.
//! Does not own: what a name in a statement means (`alter`) or whether an object exists (a dialect).

use std::cmp::max;
use std::fmt;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The family of a server: decides quoting, the lexer's rules and how long a name may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// MySQL and MariaDB.
    MySql,
    /// PostgreSQL.
    Postgres,
}

impl Dialect {
    /// How long a name may be: 64 characters on MySQL and MariaDB, 63 bytes on PostgreSQL.
    pub fn name_limit(self) -> NameLimit {
        match self {
            Self::MySql => NameLimit::Chars(64),
            Self::Postgres => NameLimit::Bytes(63),
        }
    }
}

/// The greatest length of a name, in the unit the server counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameLimit {
    /// Characters.
    Chars(usize),
    /// Bytes of UTF-8.
    Bytes(usize),
}

/// A name or a string that no server can take, or that we cannot derive a safe name from.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IdentError {
    /// A name of no characters.
    #[error("a name is empty: give the table, column or schema a name")]
    Empty,
    /// A name holds the character NUL, which no server allows and which ends a string early in C.
    #[error(
        "the name {0:?} holds a NUL character: no server allows one, so check where it comes from"
    )]
    NulInName(String),
    /// A PostgreSQL string holds the character NUL.
    #[error("the text {0:?} holds a NUL character, which PostgreSQL cannot store")]
    NulInText(String),
    /// A suffix for our own names is not of lower-case letters, digits, `_`, `~` and `-`.
    #[error(
        "the suffix {0:?} cannot name our own objects: use lower-case ASCII letters, digits, '_', '-' or '~'"
    )]
    BadSuffix(String),
    /// A table's name is longer than the server allows.
    #[error("the table name {0:?} is longer than the server allows: check where it comes from")]
    TooLong(String),
    /// No shortened name sorts after the source's.
    #[error(
        "no name for {table_name:?} with the suffix {suffix:?} is both short enough and sorts after it, \
         which the swap needs in order not to lose writes: rename the table first"
    )]
    NoNameAfter {
        /// The source's name.
        table_name: String,
        /// The suffix that was asked for.
        suffix: String,
    },
}

/// A table and the schema (on MySQL: database) it lives in, unquoted, as the catalogue spells them.
///
/// ```
/// use underpin_core::ident::{Dialect, TableName};
/// let table = TableName::new("shop", "order`s")?;
/// assert_eq!(table.quoted(Dialect::MySql), "`shop`.`order``s`");
/// assert_eq!(table.to_string(), "shop.order`s");
/// # Ok::<(), underpin_core::ident::IdentError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "RawTableName")]
pub struct TableName {
    schema: String,
    name: String,
}

#[derive(Deserialize)]
struct RawTableName {
    schema: String,
    name: String,
}

impl TryFrom<RawTableName> for TableName {
    type Error = IdentError;

    fn try_from(raw: RawTableName) -> Result<Self, IdentError> {
        Self::new(raw.schema, raw.name)
    }
}

impl TableName {
    /// Checks both parts.
    ///
    /// # Errors
    /// When a part is empty or holds NUL.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Result<Self, IdentError> {
        let (schema, name) = (schema.into(), name.into());
        check_name(&schema)?;
        check_name(&name)?;
        Ok(Self { schema, name })
    }

    /// The schema or database, unquoted.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// The table's own name, unquoted.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `schema.name`, both quoted, for use in a statement.
    pub fn quoted(&self, dialect: Dialect) -> String {
        format!("{}.{}", quote_checked(dialect, &self.schema), quote_checked(dialect, &self.name))
    }

    /// Another table of the same schema.
    ///
    /// # Errors
    /// When `name` is empty or holds NUL.
    pub fn sibling(&self, name: impl Into<String>) -> Result<Self, IdentError> {
        Self::new(self.schema.clone(), name)
    }

    /// Our own table for this one: same schema, [`shadow_name`] for the name.
    ///
    /// # Errors
    /// As [`shadow_name`].
    pub fn with_suffix(&self, suffix: &str, limit: NameLimit) -> Result<Self, IdentError> {
        self.sibling(shadow_name(&self.name, suffix, limit)?)
    }
}

impl fmt::Display for TableName {
    /// `schema.name` without quotes: for messages, never for a statement.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// A column's name, unquoted, as the catalogue spells it.
///
/// ```
/// use underpin_core::ident::{ColumnName, Dialect};
/// assert_eq!(ColumnName::new("e\"mail")?.quoted(Dialect::Postgres), "\"e\"\"mail\"");
/// # Ok::<(), underpin_core::ident::IdentError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ColumnName(String);

impl ColumnName {
    /// Checks the name.
    ///
    /// # Errors
    /// When it is empty or holds NUL.
    pub fn new(name: impl Into<String>) -> Result<Self, IdentError> {
        let name = name.into();
        check_name(&name)?;
        Ok(Self(name))
    }

    /// The name, unquoted.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, quoted for use in a statement.
    pub fn quoted(&self, dialect: Dialect) -> String {
        quote_checked(dialect, &self.0)
    }
}

impl TryFrom<String> for ColumnName {
    type Error = IdentError;

    fn try_from(name: String) -> Result<Self, IdentError> {
        Self::new(name)
    }
}

impl From<ColumnName> for String {
    fn from(name: ColumnName) -> Self {
        name.0
    }
}

impl fmt::Display for ColumnName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Quotes one name: backticks on MySQL (right under every SQL mode), double quotes on PostgreSQL.
///
/// ```
/// use underpin_core::ident::{quote_ident, Dialect};
/// assert_eq!(quote_ident(Dialect::MySql, "a`b")?, "`a``b`");
/// # Ok::<(), underpin_core::ident::IdentError>(())
/// ```
///
/// # Errors
/// When the name is empty or holds NUL.
pub fn quote_ident(dialect: Dialect, name: &str) -> Result<String, IdentError> {
    check_name(name)?;
    Ok(quote_checked(dialect, name))
}

/// Quotes a string value so that it reads the same whatever the session's settings are.
///
/// - MySQL: `'…'` for printable ASCII without quote and backslash; otherwise `_utf8mb4 X'…'`, because
///   whether `\` escapes depends on `NO_BACKSLASH_ESCAPES`, and what bytes mean on the connection's
///   character set. The hexadecimal form is an expression: it does not fit where the grammar wants a
///   bare string (`COMMENT '…'`), so give such places printable ASCII only.
/// - PostgreSQL: `'…'`, and `E'…'` when a backslash is inside, because of `standard_conforming_strings`.
///
/// ```
/// use underpin_core::ident::{quote_literal, Dialect};
/// assert_eq!(quote_literal(Dialect::MySql, "it's")?, "_utf8mb4 X'69742773'");
/// assert_eq!(quote_literal(Dialect::Postgres, "it's")?, "'it''s'");
/// # Ok::<(), underpin_core::ident::IdentError>(())
/// ```
///
/// # Errors
/// PostgreSQL cannot store NUL in a text.
pub fn quote_literal(dialect: Dialect, text: &str) -> Result<String, IdentError> {
    match dialect {
        Dialect::MySql => {
            let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'\'' && byte != b'\\';
            if text.bytes().all(plain) {
                return Ok(format!("'{text}'"));
            }
            let mut out = String::with_capacity(text.len() * 2 + 12);
            out.push_str("_utf8mb4 X'");
            for byte in text.bytes() {
                // Writing to a String cannot fail.
                let _ = write!(out, "{byte:02X}");
            }
            out.push('\'');
            Ok(out)
        }
        Dialect::Postgres if text.contains('\0') => Err(IdentError::NulInText(text.to_owned())),
        Dialect::Postgres if text.contains('\\') => {
            Ok(format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''")))
        }
        Dialect::Postgres => Ok(format!("'{}'", text.replace('\'', "''"))),
    }
}

fn check_name(name: &str) -> Result<(), IdentError> {
    if name.is_empty() {
        return Err(IdentError::Empty);
    }
    if name.contains('\0') {
        return Err(IdentError::NulInName(name.to_owned()));
    }
    Ok(())
}

fn quote_checked(dialect: Dialect, name: &str) -> String {
    match dialect {
        Dialect::MySql => format!("`{}`", name.replace('`', "``")),
        Dialect::Postgres => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

/// Stand in for the first character that is cut off a long name, in order of preference. Each sorts
/// after nearly all others, in bytes and in either case; the last one after every character of the
/// basic plane but the non-characters.
const MARKERS: [char; 3] = ['~', '\u{FF5E}', '\u{FFFD}'];

/// A name may always take this many bytes as a file name: MySQL writes every character other than
/// ASCII letters, digits and `_` as up to five bytes, and file systems end at 255 bytes, extension
/// and partition's name included.
const FILE_NAME_BYTES: usize = 160;

/// The name of an object of ours: the source's name plus a suffix, shortened where it must be.
///
/// Guaranteed: the name is not longer than `limit`, it is the same in every version of the program,
/// and it **sorts after the source's name**, in bytes as well as with the case of letters folded. RENAME
/// takes its locks in the order of names, and an object of ours that came first would let
/// acknowledged writes slip into the retired table.
///
/// A name that is too long keeps its longest possible beginning, then one character that sorts after
/// the character it replaces (mostly `~`), then eight hexadecimal digits of a hash, then the suffix.
/// That is why it sorts after the source: the first character that differs is greater.
///
/// ```
/// use underpin_core::ident::{shadow_name, NameLimit};
/// assert_eq!(shadow_name("orders", "~new", NameLimit::Chars(64))?, "orders~new");
/// let long = "a_long_name_that_nobody_ever_thought_of_shortening_when_they_could";
/// let name = shadow_name(&long[..64], "~new", NameLimit::Chars(64))?;
/// assert!(name.starts_with("a_long_name_that_nobody_ever_thought_of_shortening_~") && name.ends_with("~new"));
/// # Ok::<(), underpin_core::ident::IdentError>(())
/// ```
///
/// # Errors
/// When the source's name is empty, holds NUL or is itself longer than `limit`; when the suffix is
/// empty or not of lower-case ASCII letters, digits, `_`, `-` and `~`; when no shortened name would
/// sort after the source's (only for names wholly of characters beyond U+FFFC, or a suffix too long).
pub fn shadow_name(source: &str, suffix: &str, limit: NameLimit) -> Result<String, IdentError> {
    check_name(source)?;
    // Capitals would come back in lower case from a server that stores names so.
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'~');
    if suffix.is_empty() || !suffix.bytes().all(allowed) {
        return Err(IdentError::BadSuffix(suffix.to_owned()));
    }
    if !fits(source, source, limit) {
        return Err(IdentError::TooLong(source.to_owned()));
    }
    let whole = format!("{source}{suffix}");
    if fits(&whole, source, limit) {
        return Ok(whole);
    }
    let tail = format!("{:08x}{suffix}", short_hash(source));
    for (cut, replaced) in source.char_indices().rev() {
        let Some(marker) = MARKERS.iter().find(|marker| **marker > replaced) else { continue };
        let name = format!("{}{marker}{tail}", &source[..cut]);
        if fits(&name, source, limit) {
            return Ok(name);
        }
    }
    Err(IdentError::NoNameAfter { table_name: source.to_owned(), suffix: suffix.to_owned() })
}

fn fits(name: &str, source: &str, limit: NameLimit) -> bool {
    match limit {
        NameLimit::Bytes(most) => name.len() <= most,
        NameLimit::Chars(most) => {
            let room = max(FILE_NAME_BYTES, file_name_bytes(source));
            name.chars().count() <= most && file_name_bytes(name) <= room
        }
    }
}

/// Bytes of the name as MySQL spells it in the file system, at most.
fn file_name_bytes(name: &str) -> usize {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { 1 } else { 5 }).sum()
}

/// FNV-1a folded to 32 bits: written out because it must never change, whatever a library does.
fn short_hash(text: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    (hash >> 32) ^ (hash & 0xffff_ffff)
}

#[cfg(test)]
mod tests;
