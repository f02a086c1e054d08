//! What a column of a random table may be, and the values that go into it, the awkward ones too.
//!
//! Values are SQL literals. Each can be written before the change and converted, or written after it, with
//! the same outcome; where a conversion has no such values its column is frozen (see `change`).

use crate::servers::Flavor;
use crate::workload::Dice;

/// The family of a column's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Small,
    Int,
    Big,
    Unsigned,
    Decimal,
    Float,
    Double,
    Varchar,
    Char,
    Text,
    Latin,
    Binary,
    Varbinary,
    Blob,
    Date,
    Datetime,
    Stamp,
    Time,
    Bool,
    Json,
    Enum,
    Set,
    Uuid,
    Bit,
    Year,
    Array,
    Inet,
    Interval,
    Range,
}

use Family::{
    Array, Big, Binary, Bit, Blob, Bool, Char, Date, Datetime, Decimal, Double, Enum, Float, Inet,
    Int, Interval, Json, Latin, Range, Set, Small, Stamp, Text, Time, Unsigned, Uuid, Varbinary,
    Varchar, Year,
};

/// What a table of MySQL or MariaDB may have.
const MYSQL: [Family; 25] = [
    Small, Int, Big, Unsigned, Decimal, Float, Double, Varchar, Char, Text, Latin, Binary,
    Varbinary, Blob, Date, Datetime, Stamp, Time, Bool, Json, Enum, Set, Bit, Year, Varchar,
];
/// What one of PostgreSQL may have.
const POSTGRES: [Family; 20] = [
    Small, Int, Big, Decimal, Float, Double, Varchar, Char, Text, Blob, Date, Datetime, Stamp,
    Time, Bool, Json, Uuid, Array, Inet, Range,
];

impl Family {
    pub(super) fn draw(dice: &mut Dice, flavor: Flavor) -> Self {
        if flavor.is_postgres() {
            return dice.one_of(&[&POSTGRES[..], &[Interval]].concat()).unwrap_or(Int);
        }
        dice.one_of(&MYSQL).unwrap_or(Int)
    }

    /// The type as the server spells it.
    pub(super) const fn ddl(self, flavor: Flavor) -> &'static str {
        let postgres = flavor.is_postgres();
        match self {
            Small => "smallint",
            Int => "integer",
            Big => "bigint",
            Unsigned => "bigint unsigned",
            Decimal if postgres => "numeric(14,4)",
            Decimal => "decimal(14,4)",
            Float if postgres => "real",
            Float => "float",
            Double if postgres => "double precision",
            Double => "double",
            Varchar => "varchar(40)",
            Char => "char(12)",
            Text => "text",
            Latin => "varchar(30) character set latin1",
            Binary => "binary(8)",
            Varbinary => "varbinary(24)",
            Blob if postgres => "bytea",
            Blob => "blob",
            Date => "date",
            Datetime if postgres => "timestamp",
            Datetime => "datetime(6)",
            Stamp if postgres => "timestamptz",
            Stamp => "timestamp(6)",
            Time if postgres => "time",
            Time => "time(6)",
            Bool => "boolean",
            Json if postgres => "jsonb",
            Json => "json",
            Enum => "enum('red','grün','it''s','')",
            Set => "set('a','b','c d')",
            Uuid => "uuid",
            Bit => "bit(13)",
            Year => "year",
            Array => "text[]",
            Inet => "inet",
            Interval => "interval",
            Range => "int8range",
        }
    }

    /// Whether an index (of a prefix, where the server asks for one) can be made on it.
    pub(super) const fn is_indexable(self) -> bool {
        !matches!(self, Json | Text | Blob | Float | Double | Array | Range)
    }

    /// A default that means the same before and after every change here.
    pub(super) const fn default(self) -> Option<&'static str> {
        Some(match self {
            Small | Int | Big | Unsigned => "7",
            Decimal => "1.5000",
            Varchar | Char | Latin => "'none'",
            Date => "'2001-02-03'",
            Bool => "true",
            Datetime => "'2001-02-03 04:05:06'",
            _ => return None,
        })
    }

    /// A value, with `edges` one in eight times an awkward one.
    // A table: one arm a type.
    #[allow(clippy::too_many_lines)]
    pub(super) fn value(self, dice: &mut Dice, flavor: Flavor, edges: bool) -> String {
        let edge = dice.below(8) == 0 && edges;
        let number = |dice: &mut Dice, bound: u64| -> String {
            let sign = if dice.below(3) == 0 { "-" } else { "" };
            format!("'{sign}{}'", dice.below(bound))
        };
        let picked = |dice: &mut Dice, edges: &[&str]| -> String {
            format!("'{}'", dice.one_of(edges).unwrap_or_default())
        };
        match self {
            Small if edge => picked(dice, &["0", "-32768", "32767", "-1"]),
            Small => number(dice, 100),
            Int if edge => picked(dice, &["0", "-2147483648", "2147483647", "-1"]),
            Int => number(dice, 30_000),
            Big if edge => {
                picked(dice, &["0", "-9223372036854775808", "9223372036854775807", "-1"])
            }
            Big => number(dice, 1_000_000_000),
            Unsigned if edge => picked(dice, &["0", "18446744073709551615", "9223372036854775808"]),
            Unsigned => format!("'{}'", dice.below(1_000_000)),
            Decimal if edge => {
                picked(dice, &["0", "-9999999999.9900", "9999999999.99", "-0.01", "0.10"])
            }
            Decimal => format!("'{}.{:02}'", dice.below(100_000), dice.below(100)),
            Float | Double if edge && flavor.is_postgres() => {
                picked(dice, &["-0", "NaN", "Infinity", "-Infinity", "0.125"])
            }
            Float | Double if edge => picked(dice, &["-0", "0", "0.125", "-65536.5"]),
            // exact in either width
            Float | Double => {
                format!("'{}.{}'", dice.below(9000), ["0", "25", "5", "75"][at(dice, 4)])
            }
            Varchar | Text | Latin | Char => self.text(dice, flavor, edge),
            Binary => bytes(dice, 8, flavor),
            Varbinary => {
                let length = dice.below(25);
                bytes(dice, length, flavor)
            }
            Blob => {
                let length = dice.below(60);
                bytes(dice, length, flavor)
            }
            Date if edge => picked(dice, &["1000-01-01", "9999-12-31", "2024-02-29", "1970-01-01"]),
            Date => format!(
                "'20{:02}-{:02}-{:02}'",
                dice.below(30),
                dice.below(12) + 1,
                dice.below(28) + 1
            ),
            Datetime if edge => picked(
                dice,
                &[
                    "1000-01-01 00:00:00.000001",
                    "9999-12-31 23:59:59.999999",
                    "2024-02-29 12:00:00",
                ],
            ),
            Stamp if edge => {
                picked(dice, &["1970-01-02 00:00:01.000001", "2037-12-31 23:59:59.999999"])
            }
            Datetime | Stamp => format!(
                "'20{:02}-{:02}-{:02} {:02}:{:02}:{:02}.{:06}'",
                dice.below(30),
                dice.below(12) + 1,
                dice.below(28) + 1,
                dice.below(24),
                dice.below(60),
                dice.below(60),
                dice.below(1_000_000)
            ),
            Time if edge && !flavor.is_postgres() => {
                picked(dice, &["-838:59:59", "838:59:59", "00:00:00.000001"])
            }
            Time => format!(
                "'{:02}:{:02}:{:02}.{:06}'",
                dice.below(24),
                dice.below(60),
                dice.below(60),
                dice.below(1_000_000)
            ),
            Bool => ["true", "false"][at(dice, 2)].to_owned(),
            Json if edge => picked(dice, &["null", "{}", "[]", "\"\"", "-0", "1e30"]),
            Json => {
                let text = format!(
                    "{{\"n\": {}, \"tags\": [\"ü\", \"{}\"]}}",
                    dice.below(99),
                    dice.below(9)
                );
                quoted(&text, flavor)
            }
            Enum => ["'red'", "'grün'", "'it''s'", "''"][at(dice, 4)].to_owned(),
            Set => ["''", "'a'", "'a,b'", "'a,b,c d'", "'c d'"][at(dice, 5)].to_owned(),
            Uuid => {
                let (one, two) = (dice.next(), dice.next());
                let hex = format!("{one:016x}{two:016x}");
                format!(
                    "'{}-{}-{}-{}-{}'",
                    &hex[..8],
                    &hex[8..12],
                    &hex[12..16],
                    &hex[16..20],
                    &hex[20..]
                )
            }
            Bit => format!("b'{:013b}'", dice.below(1 << 13)),
            Year => ["'1901'", "'2155'", "'0000'", "'2024'"][at(dice, 4)].to_owned(),
            Array => ["'{}'", "'{a,NULL,\"b c\"}'", "'{\"\",\"q\\\"x\"}'", "'{é}'"][at(dice, 4)]
                .to_owned(),
            Inet => format!("'10.{}.{}.0/24'", dice.below(256), dice.below(256)),
            Interval => format!("'{} days {} seconds'", dice.below(400), dice.below(90_000)),
            Range => {
                let low = dice.below(1000);
                format!("'[{low},{})'", low + dice.below(50))
            }
        }
    }

    fn text(self, dice: &mut Dice, flavor: Flavor, edge: bool) -> String {
        // neither trailing spaces nor what latin1 lacks where that would not survive every change
        let edges: &[&str] = match self {
            Char => &["", "é", "x y", "%_"],
            Latin => &["", " ", "Ünïcödé", "it's", "back\\slash", "a "],
            _ => &[
                "",
                " ",
                "a ",
                "a",
                "A",
                "🦀 emoji",
                "ẞß",
                "it's",
                "back\\slash",
                "line\nbreak",
                "\"q\"",
                "NULL",
            ],
        };
        if edge {
            return quoted(dice.one_of(edges).unwrap_or_default(), flavor);
        }
        let longest = if self == Text { 200 } else { 9 };
        let length = dice.below(longest) + 1;
        let text: String =
            (0..length).map(|_| char::from(b"abcdefgh XYZ0123"[at(dice, 16)])).collect();
        quoted(text.trim_end(), flavor)
    }
}

/// An index below `length`.
pub(super) fn at(dice: &mut Dice, length: u64) -> usize {
    usize::try_from(dice.below(length)).unwrap_or(0)
}

/// A string literal.
pub(super) fn quoted(text: &str, flavor: Flavor) -> String {
    let text = text.replace('\'', "''");
    if flavor.is_postgres() {
        format!("'{text}'")
    } else {
        format!("'{}'", text.replace('\\', "\\\\"))
    }
}

/// An identifier.
pub(super) fn name(text: &str, flavor: Flavor) -> String {
    if flavor.is_postgres() {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    format!("`{}`", text.replace('`', "``"))
}

/// So many random bytes.
fn bytes(dice: &mut Dice, length: u64, flavor: Flavor) -> String {
    let hex: String = (0..length).map(|_| format!("{:02x}", dice.below(256))).collect();
    if flavor.is_postgres() { format!("'\\x{hex}'") } else { format!("x'{hex}'") }
}
