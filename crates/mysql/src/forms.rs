//! In which form an old and a new value are compared, and which conversions the server makes without a
//! word about what it cut.
//!
//! Pure functions over the catalogue's words. Both values are brought to one form in which they are
//! equal exactly where the new one says what the old one said, as far as its old type can tell: a
//! rounded or cut value shows as a difference even where the server converted it silently.

use underpin_core::schema::Column;

use crate::types::{arguments, members};

/// Digits behind the point that a text is compared with where it becomes a number.
const TEXT_SCALE: u32 = 20;

/// The most digits behind the point that a DECIMAL has.
const SCALE_MAX: u32 = 30;

/// A family of types whose values can be compared in one common form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Integer,
    Decimal,
    Year,
    Bit,
    /// FLOAT, of 4 bytes.
    Single,
    /// DOUBLE, of 8 bytes.
    Double,
    Date,
    /// DATETIME and TIMESTAMP.
    Moment,
    Time,
    Text,
    Enum,
    Set,
    Bytes,
    Json,
    /// MariaDB's UUID and internet addresses.
    Address,
    /// Geometry, vectors.
    Other,
}

fn family(column: &Column) -> Family {
    match column.base_type.as_str() {
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" => Family::Integer,
        "decimal" => Family::Decimal,
        "year" => Family::Year,
        "bit" => Family::Bit,
        "float" => Family::Single,
        "double" => Family::Double,
        "date" => Family::Date,
        "datetime" | "timestamp" => Family::Moment,
        "time" => Family::Time,
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => {
            if column.charset.is_some() { Family::Text } else { Family::Bytes }
        }
        "enum" => Family::Enum,
        "set" => Family::Set,
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Family::Bytes,
        "json" => Family::Json,
        "uuid" | "inet4" | "inet6" => Family::Address,
        _ => Family::Other,
    }
}

impl Family {
    fn is_exact(self) -> bool {
        matches!(self, Self::Integer | Self::Decimal | Self::Year | Self::Bit)
    }

    fn is_float(self) -> bool {
        matches!(self, Self::Single | Self::Double)
    }

    fn is_string(self) -> bool {
        matches!(self, Self::Text | Self::Bytes)
    }

    fn is_list(self) -> bool {
        matches!(self, Self::Enum | Self::Set)
    }

    fn is_temporal(self) -> bool {
        matches!(self, Self::Date | Self::Moment | Self::Time)
    }
}

/// Two expressions, over the old and the new column, that are equal exactly where the new value says
/// the same as the old one. `old_name` and `new_name` are quoted and qualified.
pub(crate) fn comparison(
    old: &Column,
    old_name: &str,
    new: &Column,
    new_name: &str,
) -> (String, String) {
    if is_unchanged(old, new) {
        return (unchanged(old, old_name), unchanged(new, new_name));
    }
    let both = |form: &dyn Fn(&str) -> String| (form(old_name), form(new_name));
    let (from, to) = (family(old), family(new));
    let digested = is_long(old) || is_long(new);
    match (from, to) {
        (_, Family::Date | Family::Moment) if from != Family::Time => {
            both(&|name| format!("CAST({name} AS DATETIME(6))"))
        }
        (_, Family::Time) if !matches!(from, Family::Date | Family::Moment) => {
            both(&|name| format!("CAST({name} AS TIME(6))"))
        }
        (Family::Set | Family::Text, Family::Set) => both(&|name| flags(old, new, name)),
        (Family::Json, Family::Text) | (Family::Text, Family::Json) => {
            both(&|name| digest(&format!("CAST(CAST({name} AS JSON) AS CHAR)")))
        }
        (_, Family::Address) => {
            both(&|name| format!("CAST(CAST({name} AS {}) AS CHAR)", new.base_type))
        }
        (Family::Text, Family::Text) if digested => {
            both(&|name| digest(&format!("CONVERT({name} USING utf8mb4)")))
        }
        _ if is_number(to) || to.is_list() && is_number(from) => {
            numbers(old, old_name, new, new_name)
        }
        _ if to.is_string() && (from.is_float() || from == Family::Bit) => {
            numbers(old, old_name, new, new_name)
        }
        (_, Family::Bytes) | (Family::Bytes, _) => {
            (bytes(old, old_name, digested), bytes(new, new_name, digested))
        }
        (Family::Other, _) | (_, Family::Other) => both(&digest),
        _ => both(&utf8),
    }
}

/// Whether two values of the same type are the same to the byte, as an expression that is never NULL.
pub(crate) fn identical(column: &Column, a: &str, b: &str) -> String {
    match family(column) {
        // Beyond what fits a packet the cast gives NULL, which is no proof.
        Family::Text | Family::Bytes => format!(
            "({a} IS NULL AND {b} IS NULL OR COALESCE(CAST({a} AS BINARY) = CAST({b} AS BINARY), FALSE))"
        ),
        Family::Json => format!(
            "({a} IS NULL AND {b} IS NULL OR COALESCE(CAST(CAST({a} AS CHAR) AS BINARY) = \
             CAST(CAST({b} AS CHAR) AS BINARY), FALSE))"
        ),
        Family::Other => {
            format!("({a} IS NULL AND {b} IS NULL OR COALESCE(HEX({a}) = HEX({b}), FALSE))")
        }
        Family::Bit | Family::Enum | Family::Set => format!("({a}+0 <=> {b}+0)"),
        _ => format!("({a} <=> {b})"),
    }
}

fn is_number(family: Family) -> bool {
    family.is_exact() || family.is_float()
}

/// Whether values need no conversion.
pub(crate) fn is_unchanged(old: &Column, new: &Column) -> bool {
    old.base_type == new.base_type && old.full_type == new.full_type && old.charset == new.charset
}

/// The form in which a value is compared with one of the same type.
fn unchanged(column: &Column, name: &str) -> String {
    match family(column) {
        Family::Text | Family::Bytes if is_long(column) => digest(name),
        Family::Text => format!("CAST({name} AS BINARY)"),
        // By position: the empty text may mean both the error value and a member.
        Family::Bit | Family::Enum | Family::Set => format!("{name}+0"),
        // As text a FLOAT shows six digits only.
        Family::Single | Family::Double => format!("{name}*1e0"),
        Family::Json | Family::Other => digest(name),
        _ => name.to_owned(),
    }
}

/// Old and new value as numbers, where at least one of them is one.
fn numbers(old: &Column, old_name: &str, new: &Column, new_name: &str) -> (String, String) {
    let (from, to) = (family(old), family(new));
    let number = |kind: Family, name: &str| {
        if kind == Family::Bit || kind.is_list() { format!("({name}+0)") } else { name.to_owned() }
    };
    let (old_name, new_name) = (number(from, old_name), number(to, new_name));
    if from.is_float() {
        // The sign of zero does not survive every conversion, and is no value.
        return (format!("{old_name}+0e0"), format!("{new_name}+0e0"));
    }
    if to.is_float() && matches!(from, Family::Integer | Family::Year | Family::Bit) {
        // As DECIMAL a float of many digits shows its shortest text, not its value.
        let signed = if old.full_type.contains("unsigned") || from == Family::Bit {
            "UNSIGNED"
        } else {
            "SIGNED"
        };
        return (old_name, format!("CAST({new_name} AS {signed})"));
    }
    let scale = if to.is_float() && from.is_string() {
        SCALE_MAX
    } else {
        std::cmp::max(scale(old), scale(new))
    };
    (exact(&old_name, scale), exact(&new_name, scale))
}

/// The bytes of a value, as it is stored where it is a string, as it is shown otherwise.
fn bytes(column: &Column, name: &str, digested: bool) -> String {
    let raw = match family(column) {
        Family::Text | Family::Bytes | Family::Enum | Family::Set | Family::Other => {
            name.to_owned()
        }
        _ => format!("CAST({name} AS CHAR)"),
    };
    if digested || family(column) == Family::Other {
        digest(&raw)
    } else {
        format!("CAST({raw} AS BINARY)")
    }
}

/// Which members of both lists a SET holds: its text follows the order of its own definition.
fn flags(old: &Column, new: &Column, name: &str) -> String {
    let lists = [members(&old.full_type), members(&new.full_type)];
    let flags: Vec<String> = lists
        .into_iter()
        .flatten()
        .flatten()
        .map(|member| {
            let text = format!("CONVERT({name} USING utf8mb4) COLLATE utf8mb4_bin");
            format!("FIND_IN_SET({member}, {text}) > 0")
        })
        .collect();
    if flags.is_empty() { utf8(name) } else { format!("CONCAT({})", flags.join(", ")) }
}

/// Whether values may be so long that a text made from several of them would not fit a packet, where
/// the server's functions give NULL.
fn is_long(column: &Column) -> bool {
    let base = column.base_type.as_str();
    base != "tinytext" && base != "tinyblob" && (base.ends_with("text") || base.ends_with("blob"))
}

fn digest(name: &str) -> String {
    format!("CONCAT(LENGTH({name}), ':', CRC32({name}))")
}

fn exact(name: &str, scale: u32) -> String {
    format!("CAST({name} AS DECIMAL(65,{}))", std::cmp::min(scale, SCALE_MAX))
}

fn utf8(name: &str) -> String {
    format!("CAST(CONVERT({name} USING utf8mb4) AS BINARY)")
}

/// Digits behind the point; texts may hold many.
fn scale(column: &Column) -> u32 {
    match family(column) {
        Family::Decimal => arguments(&column.full_type).get(1).copied().unwrap_or(0),
        Family::Text | Family::Bytes => TEXT_SCALE,
        kind if kind.is_temporal() => 6,
        _ => 0,
    }
}

/// Whether the value must be read as text to come out as the server's own change makes it: moved as a
/// number, ZEROFILL loses its zeros.
pub(crate) fn is_read_as_text(old: &Column, new: &Column) -> bool {
    old.full_type.contains("zerofill") && family(new).is_string()
}

/// Whether the server may cut or round a value on its way into the new column without an error and
/// without a warning. Where it is not known to speak up, it counts as silent.
pub(crate) fn loses_silently(old: &Column, new: &Column) -> bool {
    let (from, to) = (family(old), family(new));
    let argument = |column: &Column| arguments(&column.full_type).first().copied().unwrap_or(0);
    match (from, to) {
        _ if is_unchanged(old, new) => false,
        // MySQL rounds fractions of a second, MariaDB cuts them.
        (Family::Moment, Family::Moment) | (Family::Time, Family::Time) => {
            argument(new) < argument(old)
        }
        // CHAR drops trailing spaces.
        (_, Family::Text) if from == Family::Text || from.is_list() || from == Family::Json => {
            new.base_type == "char" && old.base_type != "char"
        }
        // BINARY is filled up with zero bytes.
        (Family::Bytes, Family::Bytes) => new.base_type == "binary",
        (Family::Integer, Family::Integer | Family::Decimal | Family::Bit)
        | (Family::Year | Family::Bit, Family::Integer | Family::Decimal)
        | (Family::Decimal, Family::Decimal)
        | (Family::Bit, Family::Bit)
        | (Family::Single, Family::Double)
        | (Family::Date | Family::Moment, Family::Date)
        | (Family::Date, Family::Moment)
        | (Family::Integer | Family::Decimal | Family::Year, Family::Text)
        | (Family::Date | Family::Moment | Family::Time, Family::Text)
        | (Family::Enum, Family::Enum)
        | (Family::Set, Family::Set)
        | (Family::Text, Family::Json)
        | (Family::Other, Family::Other) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests;
