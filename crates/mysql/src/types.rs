//! What the server's types mean for us: how a key column travels as a literal, how an old key column
//! fits a new one, and by which expressions an old and a new value are compared.
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
    /// The position in the list of members (the literals of the members, in order).
    Enum { members: Vec<String> },
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
                    (Some(charset), Some(collation)) => Some(Self::Text {
                        charset: charset.clone(),
                        collation: collation.clone(),
                    }),
                    _ => Some(Self::Binary),
                }
            }
            "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => {
                Some(Self::Binary)
            }
            "enum" => Some(Self::Enum { members: enum_members(&column.full_type)? }),
            // FLOAT and DOUBLE do not survive the way through text; SET cannot be ranged over by its
            // index; UUID and INET are read back as text whose order is not the index's.
            _ => None,
        }
    }

    /// The expression that reads the value of `column` (quoted) in the spelling of this kind.
    pub(crate) fn reader(&self, column: &str) -> String {
        match self {
            Self::Number | Self::Temporal => column.to_owned(),
            Self::Bits | Self::Enum { .. } => format!("{column}+0"),
            Self::Text { .. } | Self::Binary => format!("HEX({column})"),
        }
    }

    /// `column = value`.
    pub(crate) fn equal(&self, column: &str, value: &str) -> String {
        match self {
            Self::Enum { members } => format!("{column} = {}", member(members, value)),
            _ => format!("{column} = {}", self.literal(value)),
        }
    }

    /// `column > value` in the order of the index.
    pub(crate) fn greater(&self, column: &str, value: &str) -> String {
        match self {
            Self::Enum { members } => {
                let position = value.parse::<usize>().unwrap_or(usize::MAX);
                in_list(column, members.iter().skip(position).map(String::as_str))
            }
            _ => format!("{column} > {}", self.literal(value)),
        }
    }

    /// `column < value` in the order of the index.
    pub(crate) fn less(&self, column: &str, value: &str) -> String {
        match self {
            Self::Enum { members } => {
                let position = value.parse::<usize>().unwrap_or(0);
                let before = members.iter().take(position.saturating_sub(1)).map(String::as_str);
                // The error value '' (position 0) sorts before every member.
                let error_value = (position > 0).then_some("''");
                in_list(column, error_value.into_iter().chain(before))
            }
            _ => format!("{column} < {}", self.literal(value)),
        }
    }

    fn literal(&self, value: &str) -> String {
        match self {
            Self::Number | Self::Bits | Self::Enum { .. } => value.to_owned(),
            Self::Temporal => format!("'{value}'"),
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
            Self::Text { .. } | Self::Binary => {
                value.len().is_multiple_of(2) && all(|c| c.is_ascii_hexdigit())
            }
        }
    }
}

/// The literal of the member at this position; position 0 is the error value.
fn member<'a>(members: &'a [String], value: &str) -> &'a str {
    value
        .parse::<usize>()
        .ok()
        .and_then(|position| position.checked_sub(1))
        .and_then(|index| members.get(index))
        .map_or("''", String::as_str)
}

/// An index can be ranged over by equalities, not by comparing an ENUM with a number: that would scan
/// the whole table.
fn in_list<'a>(column: &str, members: impl Iterator<Item = &'a str>) -> String {
    let list: Vec<&str> = members.collect();
    if list.is_empty() { "FALSE".to_owned() } else { format!("{column} IN ({})", list.join(", ")) }
}

/// The member literals of `enum('a','b''c')`, quotes included, as the server printed them.
fn enum_members(full_type: &str) -> Option<Vec<String>> {
    let inner = full_type.strip_prefix("enum(")?;
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
            let unsigned_ok = !new.full_type.contains("unsigned")
                || old.full_type.contains("unsigned");
            let digits = |args: &[u32]| {
                args.first().copied().unwrap_or(10).saturating_sub(args.get(1).copied().unwrap_or(0))
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
            let (old, new) = (enum_members(&old.full_type)?, enum_members(&new.full_type)?);
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
    from == to || to == "utf8mb4" || from == "ascii" || (from != "utf8mb4" && to.starts_with("utf8"))
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

/// A family of types whose values can be compared in one common form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Exact,
    Float,
    Moment,
    Time,
    Text,
    Enum,
    Bytes,
    Json,
    Other,
}

fn family(column: &Column) -> Family {
    match column.base_type.as_str() {
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "decimal" | "year" | "bit" => {
            Family::Exact
        }
        "float" | "double" => Family::Float,
        "date" | "datetime" | "timestamp" => Family::Moment,
        "time" => Family::Time,
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" | "set" => {
            if column.charset.is_some() { Family::Text } else { Family::Bytes }
        }
        "enum" => Family::Enum,
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Family::Bytes,
        "json" => Family::Json,
        _ => Family::Other,
    }
}

/// Two expressions, over the old and the new column, that are equal exactly where the new value says
/// the same as the old one. `old_name` and `new_name` are quoted and qualified.
///
/// Both values are brought to the more precise of the two forms, so that a rounded or cut value shows
/// as a difference even where the server converted it without a word.
pub(crate) fn comparison(
    old: &Column,
    old_name: &str,
    new: &Column,
    new_name: &str,
) -> (String, String) {
    let both = |form: &dyn Fn(&str) -> String| (form(old_name), form(new_name));
    let unchanged = old.base_type == new.base_type
        && old.full_type == new.full_type
        && old.charset == new.charset;
    let (from, to) = (family(old), family(new));
    if unchanged {
        return both(&|name| unchanged_form(old, to, name));
    }
    let scale = std::cmp::min(30, std::cmp::max(scale_of(old), scale_of(new)));
    match (from, to) {
        (Family::Exact, Family::Exact) => both(&|name| exact(name, scale)),
        (Family::Exact | Family::Float, Family::Exact | Family::Float) => {
            both(&|name| format!("{name}+0e0"))
        }
        (Family::Moment, Family::Moment) => {
            both(&|name| format!("CAST({name} AS DATETIME(6))"))
        }
        (Family::Time, Family::Time) => both(&|name| format!("CAST({name} AS TIME(6))")),
        (Family::Json, Family::Text) | (Family::Text, Family::Json) => {
            both(&|name| format!("CAST(CAST({name} AS JSON) AS CHAR)"))
        }
        (Family::Bytes, _) | (_, Family::Bytes) => both(&|name| format!("HEX({name})")),
        // An ENUM meets a number by its position, a text by its member.
        (Family::Enum, Family::Exact) => (exact(&format!("({old_name}+0)"), scale), exact(new_name, scale)),
        (Family::Exact, Family::Enum) => (exact(old_name, scale), exact(&format!("({new_name}+0)"), scale)),
        (Family::Text, Family::Exact) | (Family::Exact, Family::Text) if numbers_rule(to) => {
            both(&|name| exact(name, scale))
        }
        (Family::Text, Family::Float) => both(&|name| format!("{name}+0e0")),
        (Family::Text, Family::Moment) => both(&|name| format!("CAST({name} AS DATETIME(6))")),
        (Family::Text, Family::Time) => both(&|name| format!("CAST({name} AS TIME(6))")),
        _ => both(&|name| utf8(name)),
    }
}

fn numbers_rule(to: Family) -> bool {
    to == Family::Exact
}

fn unchanged_form(column: &Column, family: Family, name: &str) -> String {
    match family {
        Family::Text | Family::Enum if column.charset.as_deref() != Some("utf8mb4") => utf8(name),
        Family::Exact if column.base_type == "bit" => format!("{name}+0"),
        Family::Json => format!("CAST({name} AS CHAR)"),
        Family::Other => format!("HEX({name})"),
        _ => name.to_owned(),
    }
}

fn exact(name: &str, scale: u32) -> String {
    format!("CAST({name} AS DECIMAL(65,{scale}))")
}

fn utf8(name: &str) -> String {
    format!("CAST(CONVERT({name} USING utf8mb4) AS BINARY)")
}

/// Digits behind the point; texts may hold many.
fn scale_of(column: &Column) -> u32 {
    match column.base_type.as_str() {
        "decimal" => arguments(&column.full_type).get(1).copied().unwrap_or(0),
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => 20,
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
