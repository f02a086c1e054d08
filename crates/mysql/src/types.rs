//! What the server's types mean for keys: how a key column travels as a literal, and how an old key
//! column fits a new one. How values are compared is `forms`' business.
//!
//! Pure functions over the catalogue's words. Values never pass through the program except as the
//! bounds of key ranges, and those as the server spelled them.

use underpin_core::mapping::KeyFit;
use underpin_core::schema::Column;

/// How the value of a key column is read and written in SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyKind {
    /// Digits as they are: integers, decimals, years.
    Number,
    /// Digits of the value taken as a number: bit fields.
    Bits,
    /// Quoted text of a date or time; the session's time zone is UTC.
    Temporal,
    /// Hexadecimal bytes with character set and collation of the column.
    Text { charset: String, collation: String },
    /// Hexadecimal bytes.
    Binary,
    /// Quoted text of a UUID or an internet address.
    Address,
    /// The position in the list of members; 0 is the error value.
    Enum { members: usize },
}

impl KeyKind {
    /// The kind for a column; `None` where its type cannot be a key of ours.
    pub(crate) fn of(column: &Column) -> Option<Self> {
        match column.base_type.as_str() {
            "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "decimal" | "year" => {
                Some(Self::Number)
            }
            "bit" => Some(Self::Bits),
            "date" | "datetime" | "timestamp" | "time" => Some(Self::Temporal),
            "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => {
                match (&column.charset, &column.collation) {
                    (Some(charset), Some(collation)) => {
                        Some(Self::Text { charset: charset.clone(), collation: collation.clone() })
                    }
                    _ => Some(Self::Binary),
                }
            }
            "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => {
                Some(Self::Binary)
            }
            "enum" => Some(Self::Enum { members: members(&column.full_type)?.len() }),
            // Read as text, ordered by the server: it compares the text as what it stands for.
            "uuid" | "inet4" | "inet6" => Some(Self::Address),
            // FLOAT and DOUBLE do not survive the way through text; SET cannot be ranged over by its
            // index.
            _ => None,
        }
    }

    /// The expression that reads the value of `column` (quoted) in the spelling of this kind.
    pub(crate) fn reader(&self, column: &str) -> String {
        match self {
            Self::Number | Self::Temporal | Self::Address => column.to_owned(),
            Self::Bits | Self::Enum { .. } => format!("{column}+0"),
            Self::Text { .. } | Self::Binary => format!("HEX({column})"),
        }
    }

    /// The expression that shows the value of `column` (quoted) to a person.
    pub(crate) fn shown(&self, column: &str) -> String {
        match self {
            Self::Text { .. } | Self::Enum { .. } => format!("QUOTE({column})"),
            Self::Binary => format!("CONCAT('0x', HEX({column}))"),
            _ => self.reader(column),
        }
    }

    /// `column = value`.
    pub(crate) fn equal(&self, column: &str, value: &str) -> String {
        format!("{column} = {}", self.literal(value))
    }

    /// `column > value` in the order of the index.
    pub(crate) fn greater(&self, column: &str, value: &str) -> String {
        match self {
            Self::Enum { members } => {
                let position = value.parse::<usize>().unwrap_or(usize::MAX);
                in_list(column, position.saturating_add(1)..=*members)
            }
            _ => format!("{column} > {}", self.literal(value)),
        }
    }

    /// `column < value` in the order of the index.
    pub(crate) fn less(&self, column: &str, value: &str) -> String {
        match self {
            // Not inclusive: 0, the error value, is the least.
            Self::Enum { .. } => in_list(column, 0..value.parse::<usize>().unwrap_or(0)),
            _ => format!("{column} < {}", self.literal(value)),
        }
    }

    fn literal(&self, value: &str) -> String {
        match self {
            Self::Number | Self::Bits | Self::Enum { .. } => value.to_owned(),
            Self::Temporal | Self::Address => format!("'{value}'"),
            Self::Text { charset, collation } => {
                format!("_{charset} X'{value}' COLLATE {collation}")
            }
            Self::Binary => format!("X'{value}'"),
        }
    }

    /// Whether the value could have been spelled by this kind: a guard before text meets SQL.
    pub(crate) fn is_spelled_well(&self, value: &str) -> bool {
        let all = |allowed: fn(char) -> bool| value.chars().all(allowed);
        match self {
            Self::Number => {
                !value.is_empty() && all(|c| c.is_ascii_digit() || c == '-' || c == '.')
            }
            Self::Bits | Self::Enum { .. } => !value.is_empty() && all(|c| c.is_ascii_digit()),
            Self::Temporal => {
                !value.is_empty() && all(|c| c.is_ascii_digit() || "-: .".contains(c))
            }
            Self::Address => {
                !value.is_empty() && all(|c| c.is_ascii_hexdigit() || ":.-".contains(c))
            }
            Self::Text { .. } | Self::Binary => {
                value.len().is_multiple_of(2) && all(|c| c.is_ascii_hexdigit())
            }
        }
    }
}

/// Positions as a list: `e > 3` would scan the whole table, `e IN (4, 5)` is ranged over. By number,
/// because the empty text may mean both the error value and a member.
fn in_list(column: &str, positions: impl Iterator<Item = usize>) -> String {
    let list: Vec<String> = positions.map(|position| position.to_string()).collect();
    if list.is_empty() { "FALSE".to_owned() } else { format!("{column} IN ({})", list.join(", ")) }
}

/// The member literals of `enum('a','b''c')` or `set(…)`, quotes included, as the server printed them.
pub(crate) fn members(full_type: &str) -> Option<Vec<String>> {
    let inner = full_type.strip_prefix("enum(").or_else(|| full_type.strip_prefix("set("))?;
    let mut members = Vec::new();
    let mut current = String::new();
    let mut chars = inner.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        match (quoted, c) {
            (false, '\'') => {
                quoted = true;
                current.push(c);
            }
            (true, '\'') if chars.peek() == Some(&'\'') => {
                chars.next();
                current.push_str("''");
            }
            (true, '\'') => {
                quoted = false;
                current.push(c);
                members.push(std::mem::take(&mut current));
            }
            (true, _) => current.push(c),
            (false, ')') => return Some(members),
            (false, _) => {}
        }
    }
    None
}

/// What rows get in a new column that is NOT NULL and has no DEFAULT, where the type has a value for
/// that which nobody would take for another: as the server's own ALTER TABLE does it. Not dates: a
/// server in its usual mode refuses `0000-00-00`.
pub(crate) fn implied_default(column: &Column) -> Option<&'static str> {
    Some(match column.base_type.as_str() {
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "decimal" | "float"
        | "double" | "bit" | "year" | "time" => "0",
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" | "set" => "''",
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => "''",
        // The first member.
        "enum" => "1",
        "json" => "'null'",
        _ => return None,
    })
}

/// How an old key column fits a new one; `None` where values, order or equality could be lost.
pub(crate) fn key_fit(old: &Column, new: &Column) -> Option<KeyFit> {
    KeyKind::of(old)?;
    KeyKind::of(new)?;
    let same_text = old.charset == new.charset && old.collation == new.collation;
    if old.full_type == new.full_type && same_text {
        return Some(KeyFit::Same);
    }
    if let (Some(old_range), Some(new_range)) = (integer_range(old), integer_range(new)) {
        let holds = new_range.0 <= old_range.0 && old_range.1 <= new_range.1;
        return holds.then_some(KeyFit::Wider);
    }
    let (old_args, new_args) = (arguments(&old.full_type), arguments(&new.full_type));
    let grows = |index: usize| {
        old_args.get(index).copied().unwrap_or(0) <= new_args.get(index).copied().unwrap_or(0)
    };
    match (old.base_type.as_str(), new.base_type.as_str()) {
        ("decimal", "decimal") => {
            let unsigned_ok =
                !new.full_type.contains("unsigned") || old.full_type.contains("unsigned");
            let digits = |args: &[u32]| {
                args.first()
                    .copied()
                    .unwrap_or(10)
                    .saturating_sub(args.get(1).copied().unwrap_or(0))
            };
            (unsigned_ok && grows(1) && digits(&old_args) <= digits(&new_args))
                .then_some(KeyFit::Wider)
        }
        ("datetime", "datetime") | ("timestamp", "timestamp") | ("time", "time") => {
            grows(0).then_some(KeyFit::Wider)
        }
        ("varbinary", "varbinary") => grows(0).then_some(KeyFit::Wider),
        ("varchar", "varchar") | ("char", "char") | ("char", "varchar") => {
            if !grows(0) {
                None
            } else if same_text {
                Some(KeyFit::Wider)
            } else {
                converts_losslessly(old, new).then_some(KeyFit::Recollated)
            }
        }
        // Members may be appended; then positions, order and equality stay.
        ("enum", "enum") if same_text => {
            let (old, new) = (members(&old.full_type)?, members(&new.full_type)?);
            new.starts_with(&old).then_some(KeyFit::Wider)
        }
        _ => None,
    }
}

/// Whether every text in the old character set has its own text in the new one.
fn converts_losslessly(old: &Column, new: &Column) -> bool {
    let (Some(from), Some(to)) = (old.charset.as_deref(), new.charset.as_deref()) else {
        return false;
    };
    from == to
        || to == "utf8mb4"
        || from == "ascii"
        || (from != "utf8mb4" && to.starts_with("utf8"))
}

/// The numbers in a type's parentheses, as `[10, 2]` of `decimal(10,2)`.
pub(crate) fn arguments(full_type: &str) -> Vec<u32> {
    let inner = full_type.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
    inner
        .map(|(args, _)| args.split(',').filter_map(|arg| arg.trim().parse().ok()).collect())
        .unwrap_or_default()
}

/// Smallest and greatest value of an integer type.
fn integer_range(column: &Column) -> Option<(i128, i128)> {
    let bits = match column.base_type.as_str() {
        "tinyint" => 8,
        "smallint" => 16,
        "mediumint" => 24,
        "int" => 32,
        "bigint" => 64,
        _ => return None,
    };
    Some(if column.full_type.contains("unsigned") {
        (0, (1_i128 << bits) - 1)
    } else {
        (-(1_i128 << (bits - 1)), (1_i128 << (bits - 1)) - 1)
    })
}

#[cfg(test)]
mod tests;
