//! Values that do not fit: one that does, one that does not, and what the message must say.

/// A column, a value that fits its new type and one that does not.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) column: &'static str,
    pub(crate) definition: &'static str,
    pub(crate) good: &'static str,
    pub(crate) bad: &'static str,
    /// The value as the message shows it.
    pub(crate) shown: &'static str,
    pub(crate) alter: &'static str,
    /// The server's words, on MySQL and on MariaDB.
    pub(crate) words: [&'static str; 2],
}

/// What is said where the server says nothing.
const SILENT: [&str; 2] = ["the server said: nothing, and stored"; 2];

fn case(
    name: &'static str,
    [definition, alter]: [&'static str; 2],
    [good, bad, shown]: [&'static str; 3],
    words: [&'static str; 2],
) -> Case {
    Case { name, column: "x", definition, good, bad, shown, alter, words }
}

const TRUNCATED: [&str; 2] = ["Data truncated for column"; 2];

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    let mut all = spoken_of();
    all.extend(silent());
    all.extend(odd());
    all
}

/// What the server refuses or warns about.
fn spoken_of() -> Vec<Case> {
    vec![
        case(
            "too_long",
            ["VARCHAR(20)", "MODIFY x VARCHAR(5)"],
            ["'short'", "'too long'", "'too long'"],
            ["for column", "Data too long for column"],
        ),
        case(
            "out_of_range",
            ["INT", "MODIFY x TINYINT"],
            ["7", "300", "'300'"],
            ["Out of range value", "Out of range value"],
        ),
        case(
            "negative",
            ["INT", "MODIFY x INT UNSIGNED"],
            ["7", "-1", "'-1'"],
            ["Out of range value", "Out of range value"],
        ),
        case(
            "null",
            ["INT NULL", "MODIFY x INT NOT NULL"],
            ["7", "NULL", "NULL"],
            ["cannot be null", "cannot be null"],
        ),
        case(
            "rounded",
            ["DECIMAL(10,3)", "MODIFY x DECIMAL(10,1)"],
            ["1.500", "1.250", "'1.250'"],
            TRUNCATED,
        ),
        case(
            "date_of_moment",
            ["DATETIME", "MODIFY x DATE"],
            ["'2020-01-01 00:00:00'", "'2020-01-01 10:00:00'", "'2020-01-01 10:00:00'"],
            ["Incorrect date value", "Data truncated for column"],
        ),
        case("no_number", ["VARCHAR(20)", "MODIFY x INT"], ["'12'", "'12x'", "'12x'"], TRUNCATED),
        case(
            "no_json",
            ["TEXT", "MODIFY x JSON"],
            ["'{}'", "'{bad'", "'{bad'"],
            ["Invalid JSON text", "failed for"],
        ),
        case(
            "no_member",
            ["ENUM('a','b')", "MODIFY x ENUM('a')"],
            ["'a'", "'b'", "'b'"],
            TRUNCATED,
        ),
        case(
            "no_flag",
            ["SET('a','b')", "MODIFY x SET('a')"],
            ["'a'", "'a,b'", "'a,b'"],
            TRUNCATED,
        ),
        case(
            "no_letter",
            ["VARCHAR(20) CHARACTER SET utf8mb4", "MODIFY x VARCHAR(20) CHARACTER SET latin1"],
            ["'é'", "'日本'", "'日本'"],
            ["Incorrect string value", "Incorrect string value"],
        ),
        case(
            "no_timestamp",
            ["DATETIME", "MODIFY x TIMESTAMP NULL"],
            ["'2020-01-01 10:00:00'", "'1900-01-01 10:00:00'", "'1900-01-01 10:00:00'"],
            ["Incorrect datetime value", "Incorrect datetime value"],
        ),
    ]
}

/// What it cuts without a word.
fn silent() -> Vec<Case> {
    vec![
        case(
            "fraction",
            ["DATETIME(6)", "MODIFY x DATETIME"],
            ["'2020-01-01 10:00:00'", "'2020-01-01 10:00:00.5'", "'2020-01-01 10:00:00.500000'"],
            SILENT,
        ),
        case(
            "time_fraction",
            ["TIME(3)", "MODIFY x TIME(1)"],
            ["'10:00:00.5'", "'10:00:00.25'", "'10:00:00.250'"],
            SILENT,
        ),
        case(
            "integer_of_decimal",
            ["DECIMAL(10,2)", "MODIFY x INT"],
            ["1.00", "1.25", "'1.25'"],
            SILENT,
        ),
        case(
            "integer_of_text",
            ["VARCHAR(20)", "MODIFY x INT"],
            ["'12'", "'1.5'", "'1.5'"],
            SILENT,
        ),
        case("float_of_double", ["DOUBLE", "MODIFY x FLOAT"], ["0.5", "0.1", "'0.1'"], SILENT),
        case(
            "double_of_integer",
            ["BIGINT", "MODIFY x DOUBLE"],
            ["9007199254740992", "9007199254740993", "'9007199254740993'"],
            SILENT,
        ),
        case(
            "trailing_space",
            ["VARCHAR(20)", "MODIFY x CHAR(20)"],
            ["'a'", "'a  '", "'a  '"],
            SILENT,
        ),
        case(
            "padded_bytes",
            ["VARBINARY(4)", "MODIFY x BINARY(4)"],
            ["'abcd'", "'ab'", "'ab'"],
            SILENT,
        ),
    ]
}

fn odd() -> Vec<Case> {
    vec![
        Case {
            column: "it's `odd`",
            ..case(
                "odd_name",
                ["VARCHAR(20)", "MODIFY `it's ``odd``` VARCHAR(5)"],
                ["'short'", "'too long'", "'too long'"],
                ["for column", "Data too long for column"],
            )
        },
        // Another rule than the column's type: no column is named, the row is.
        Case {
            column: "",
            ..case(
                "check",
                ["INT", "ADD CONSTRAINT CHECK (x < 10)"],
                ["7", "99", ""],
                ["Check constraint", "failed for"],
            )
        },
    ]
}
