//! The matrix of keys: how each is declared, which values it takes, which change is made to it.

use underpin_tests::servers::Flavor;

/// One kind of key.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Definitions of the key's columns.
    pub(crate) columns: String,
    /// Definitions of the keys.
    pub(crate) keys: &'static str,
    /// The index that must be chosen.
    pub(crate) index: &'static str,
    /// Each column that tells rows apart, with its value for the number `:n`.
    pub(crate) key: Vec<(&'static str, String)>,
    /// The clauses of the change.
    pub(crate) alter: &'static str,
    /// Assignments that change the key's bytes and not its identity.
    pub(crate) respell: Option<&'static str>,
    /// Unique values wander, so that chunks clash with pending rows.
    pub(crate) wanders: bool,
    /// Rows at the start.
    pub(crate) rows: u32,
    /// The new shape cannot take the application's statements, or reads them by other rules.
    pub(crate) stops_at_swap: bool,
}

const PLAIN_ALTER: &str =
    "MODIFY pad VARCHAR(80), ADD extra INT NOT NULL DEFAULT 7, ADD KEY (extra)";

fn case(name: &'static str, definition: &str, value: &str) -> Case {
    Case {
        name,
        columns: format!("a {definition} NOT NULL"),
        keys: "PRIMARY KEY (a)",
        index: "PRIMARY",
        key: vec![("a", value.to_owned())],
        alter: PLAIN_ALTER,
        respell: None,
        wanders: true,
        rows: 800,
        stops_at_swap: false,
    }
}

impl Case {
    fn alter(self, alter: &'static str) -> Self {
        Self { alter, ..self }
    }

    fn respell(self, respell: &'static str) -> Self {
        Self { respell: Some(respell), ..self }
    }

    fn stops_at_swap(self) -> Self {
        Self { stops_at_swap: true, ..self }
    }

    fn steady(self) -> Self {
        Self { wanders: false, ..self }
    }

    fn rows(self, rows: u32) -> Self {
        Self { rows, ..self }
    }

    fn composite(self, columns: &str, keys: &'static str, key: &[(&'static str, &str)]) -> Self {
        let key = key.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self { columns: columns.to_owned(), keys, key, ..self }
    }

    fn index(self, index: &'static str) -> Self {
        Self { index, ..self }
    }
}

/// The cases for this server.
pub(crate) fn cases(flavor: Flavor) -> Vec<Case> {
    let mut all = numbers();
    all.extend(bytes());
    all.extend(texts());
    all.extend(moments());
    all.extend(lists());
    all.extend(several_columns());
    all.extend(changed_keys());
    all.extend(recollated_keys());
    all.extend(if flavor.is_mariadb() { mariadb(flavor) } else { mysql() });
    all
}

fn numbers() -> Vec<Case> {
    vec![
        case("int_signed", "INT", ":n - 500"),
        case("int_unsigned", "INT UNSIGNED", ":n * 3000000"),
        case("mediumint", "MEDIUMINT", "(:n - 500) * 16000"),
        case("smallint_zerofill", "SMALLINT(5) UNSIGNED ZEROFILL", ":n * 3"),
        case("bigint_unsigned", "BIGINT UNSIGNED", "18446744073709551615 - :n * 3"),
        case("bigint_least", "BIGINT", "-9223372036854775808 + :n"),
        case("auto_from_zero", "INT AUTO_INCREMENT", ":n - 1"),
        case("decimal", "DECIMAL(20,5)", "(:n - 500) * 1.12345"),
        case("decimal_wide", "DECIMAL(65,30)", "(:n - 500) * 12345678901234567890.123456789"),
        case("bit10", "BIT(10)", ":n"),
        case("bit64", "BIT(64)", "18446744073709551615 - :n * 9007199254740993"),
    ]
}

fn bytes() -> Vec<Case> {
    vec![
        case("binary_zeros", "BINARY(4)", "UNHEX(CONCAT(LPAD(HEX(:n), 4, '0'), '0000'))"),
        case("binary16", "BINARY(16)", "LEFT(UNHEX(SHA2(:n, 256)), 16)"),
        case(
            "varbinary_zeros",
            "VARBINARY(12)",
            "UNHEX(CONCAT(LPAD(HEX(:n DIV 3), 4, '0'), REPEAT('00', :n % 3)))",
        ),
        case("varbinary_high", "VARBINARY(40)", "CONCAT(UNHEX('FF5C27'), :n)")
            .alter("MODIFY a VARBINARY(60) NOT NULL"),
    ]
}

fn texts() -> Vec<Case> {
    vec![
        case(
            "char_latin1",
            "CHAR(12) CHARACTER SET latin1 COLLATE latin1_swedish_ci",
            "CONCAT(IF(:n % 2, 'key', 'KEY'), :n)",
        )
        .respell("a = IF(BINARY a = BINARY UPPER(a), LOWER(a), UPPER(a))"),
        case(
            "varchar_accents",
            "VARCHAR(30) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci",
            "CONCAT(ELT(1 + :n % 4, 'ä', 'é', 'ø', 'z'), 'straße', :n)",
        )
        .respell("a = REPLACE(REPLACE(a, 'é', 'E'), 'ß', 'ss')"),
        case(
            "varchar_bin",
            "VARCHAR(30) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
            "CONCAT(IF(:n % 2, 'k', 'K'), 'ä', :n DIV 2)",
        ),
        case(
            "varchar_padded",
            "VARCHAR(30) CHARACTER SET latin1 COLLATE latin1_german1_ci",
            "CONCAT('x', :n, REPEAT(' ', :n % 3))",
        )
        .respell("a = IF(a LIKE '% ', RTRIM(a), CONCAT(a, ' '))"),
        case(
            "varchar_gbk",
            "VARCHAR(30) CHARACTER SET gbk COLLATE gbk_chinese_ci",
            "CONCAT(ELT(1 + :n % 3, '中', '文誠', 'a\\\\'), :n)",
        )
        .respell("a = UPPER(a)"),
        case(
            "varchar_utf8mb3",
            "VARCHAR(30) CHARACTER SET utf8mb3 COLLATE utf8mb3_general_ci",
            "CONCAT(ELT(1 + :n % 3, '日本', 'Ünï', ''''), :n)",
        )
        .respell("a = LOWER(a)"),
        case(
            "varchar_sjis",
            "VARCHAR(30) CHARACTER SET sjis COLLATE sjis_japanese_ci",
            "CONCAT(ELT(1 + :n % 3, 'ソ', '表', 'x'), :n)",
        ),
        case(
            "varchar_utf16",
            "VARCHAR(30) CHARACTER SET utf16 COLLATE utf16_unicode_ci",
            "CONCAT(ELT(1 + :n % 3, '😀', 'Ω', ''), :n)",
        ),
        case(
            "char_ascii_bin",
            "CHAR(36) CHARACTER SET ascii COLLATE ascii_bin",
            "LEFT(SHA2(:n, 256), 36)",
        ),
    ]
}

fn moments() -> Vec<Case> {
    vec![
        case(
            "date",
            "DATE",
            "CASE :n WHEN 1 THEN '0000-00-00' WHEN 2 THEN '2021-02-30' WHEN 3 THEN '2021-00-00' \
             ELSE DATE_ADD('1999-01-01', INTERVAL :n DAY) END",
        ),
        case(
            "datetime6",
            "DATETIME(6)",
            "IF(:n = 1, '0000-00-00 00:00:00', \
             DATE_ADD('2023-03-25 23:59:00', INTERVAL :n * 333333 MICROSECOND))",
        ),
        case(
            "timestamp_summer",
            "TIMESTAMP",
            "IF(:n = 1, '0000-00-00 00:00:00', DATE_ADD('2023-10-28 22:00:00', INTERVAL :n MINUTE))",
        ),
        case(
            "timestamp3",
            "TIMESTAMP(3)",
            "DATE_ADD('2023-10-29', INTERVAL :n * 9000 MICROSECOND)",
        )
        .alter("MODIFY a TIMESTAMP(6) NOT NULL"),
        case("time_negative", "TIME(3)", "SEC_TO_TIME((:n - 500) * 10.5)"),
        case("year", "YEAR", "IF(:n = 1, '0000', 1900 + :n)").rows(240),
    ]
}

/// Members that a careless list would break: quotes, commas, backslashes, parentheses, the empty one.
const MEMBERS: [&str; 8] = ["a''b", "c,d", "", "e\\\\f", ")", "G", "ä", "z\"`"];

fn lists() -> Vec<Case> {
    let members: Vec<String> = MEMBERS.iter().map(|member| format!("'{member}'")).collect();
    let members = members.join(",");
    let many: Vec<String> = (1..=400).map(|n| format!("'m{}'", n * 7 % 1000)).collect();
    let list = format!("ENUM({members}) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin");
    vec![
        case("enum_many", &format!("ENUM({})", many.join(",")), ":n").rows(300),
        // Position 0, the error value, reads as the empty text, like the member that is empty.
        case("enum_odd", "INT", ":n")
            .composite(
                &format!("e {list} NOT NULL, a INT NOT NULL"),
                "PRIMARY KEY (e, a)",
                &[("e", ":n % 9"), ("a", ":n DIV 9")],
            )
            .steady(),
        case("enum_error", "INT", ":n")
            .composite(
                "e ENUM('x','y') NOT NULL, a INT NOT NULL",
                "PRIMARY KEY (e, a)",
                &[("e", ":n % 3"), ("a", ":n DIV 3")],
            )
            .steady(),
        case("enum_last", "INT", ":n").composite(
            &format!("a INT NOT NULL, e {list} NOT NULL"),
            "PRIMARY KEY (a, e)",
            &[("a", ":n DIV 8"), ("e", "1 + :n % 8")],
        ),
    ]
}

fn several_columns() -> Vec<Case> {
    let mut sixteen = case("sixteen", "INT", ":n").composite(
        "c1 TINYINT NOT NULL, c2 SMALLINT UNSIGNED NOT NULL, c3 DATE NOT NULL, \
         c4 VARCHAR(10) CHARACTER SET latin1 NOT NULL, c5 BINARY(2) NOT NULL, c6 DECIMAL(6,2) NOT NULL, \
         c7 TIME NOT NULL, c8 YEAR NOT NULL, c9 BIT(3) NOT NULL, c10 ENUM('x','y') NOT NULL, \
         c11 CHAR(3) NOT NULL, c12 DATETIME(2) NOT NULL, c13 VARBINARY(5) NOT NULL, \
         c14 BIGINT NOT NULL, c15 TIMESTAMP NOT NULL DEFAULT '2020-01-01 00:00:00', c16 INT NOT NULL",
        "PRIMARY KEY (c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13, c14, c15, c16)",
        &[
            ("c1", ":n % 3 - 1"),
            ("c2", "7"),
            ("c3", "DATE_ADD('2020-01-01', INTERVAL :n % 2 DAY)"),
            ("c4", "IF(:n % 2, 'a ', 'B')"),
            ("c5", "UNHEX('2700')"),
            ("c6", "-1.50"),
            ("c7", "'-00:00:01'"),
            ("c8", "2001"),
            ("c9", ":n % 8"),
            ("c10", "1 + :n % 2"),
            ("c11", "'é'"),
            ("c12", "'2020-01-01 00:00:00.25'"),
            ("c13", "UNHEX(HEX(:n % 5))"),
            ("c14", "-5"),
            ("c15", "'2023-10-29 01:30:00'"),
            ("c16", ":n"),
        ],
    );
    sixteen.rows = 600;
    vec![
        sixteen,
        case("text_int_moment", "INT", ":n")
            .composite(
                "a VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci NOT NULL, \
                 b INT UNSIGNED NOT NULL, c DATETIME(6) NOT NULL",
                "PRIMARY KEY (a, b, c)",
                &[
                    ("a", "CONCAT('Tenant', :n % 5)"),
                    ("b", ":n DIV 10"),
                    ("c", "DATE_ADD('2020-01-01', INTERVAL :n MICROSECOND)"),
                ],
            )
            .respell("a = IF(BINARY a = BINARY LOWER(a), UPPER(a), LOWER(a))"),
        case("unique_for_primary", "INT", ":n")
            .composite(
                "a BIGINT NOT NULL, b VARCHAR(20) NOT NULL",
                "UNIQUE KEY the_key (a, b)",
                &[("a", ":n % 40"), ("b", "CONCAT('b', :n)")],
            )
            .index("the_key"),
        case("unique_beside_nullable", "INT", ":n")
            .composite(
                "x INT NULL, a INT NOT NULL",
                "UNIQUE KEY first_one (x), UNIQUE KEY second_one (a)",
                &[("a", ":n")],
            )
            .index("second_one"),
    ]
}

fn changed_keys() -> Vec<Case> {
    let two = |name, keys, alter| {
        case(name, "INT", ":n")
            .composite(
                "a INT NOT NULL, b VARCHAR(20) CHARACTER SET latin1 NOT NULL",
                keys,
                &[("a", ":n"), ("b", "CONCAT('b', :n * 7 % 1999)")],
            )
            .alter(alter)
    };
    vec![
        two(
            "primary_for_unique",
            "PRIMARY KEY (a), UNIQUE KEY other (b)",
            "DROP PRIMARY KEY, DROP KEY other, ADD PRIMARY KEY (b), ADD UNIQUE KEY other (a)",
        ),
        two(
            "primary_dropped",
            "PRIMARY KEY (a), UNIQUE KEY other (b)",
            "DROP PRIMARY KEY, DROP COLUMN a",
        )
        .index("other")
        .stops_at_swap(),
        two("columns_reordered", "PRIMARY KEY (a, b)", "DROP PRIMARY KEY, ADD PRIMARY KEY (b, a)"),
        case("int_to_bigint", "INT", ":n - 500").alter("MODIFY a BIGINT NOT NULL FIRST"),
        case("unsigned_to_signed", "INT UNSIGNED", ":n * 4000000")
            .alter("MODIFY a BIGINT NOT NULL"),
        case("renamed_and_wider", "SMALLINT", ":n - 500")
            .alter("CHANGE a `new key` INT NOT NULL")
            .stops_at_swap(),
        case("decimal_wider", "DECIMAL(10,2)", "(:n - 500) * 1.25")
            .alter("MODIFY a DECIMAL(20,5) NOT NULL"),
        case("datetime_wider", "DATETIME", "DATE_ADD('2023-03-26', INTERVAL :n MINUTE)")
            .alter("MODIFY a DATETIME(3) NOT NULL"),
        case("enum_appended", "ENUM('a','b','c')", "1")
            .composite(
                "e ENUM('a','b','c') NOT NULL, a INT NOT NULL",
                "PRIMARY KEY (e, a)",
                &[("e", "1 + :n % 3"), ("a", ":n")],
            )
            .alter("MODIFY e ENUM('a','b','c','d','') NOT NULL"),
    ]
}

fn recollated_keys() -> Vec<Case> {
    vec![
        case(
            "utf8mb3_to_utf8mb4",
            "VARCHAR(30) CHARACTER SET utf8mb3 COLLATE utf8mb3_general_ci",
            "CONCAT(ELT(1 + :n % 3, '日本', 'ünï', 'K'), :n)",
        )
        .alter("CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci")
        .respell("a = IF(BINARY a = BINARY UPPER(a), LOWER(a), UPPER(a))")
        .stops_at_swap(),
        case(
            "latin1_to_utf8mb4_bin",
            "VARCHAR(30) CHARACTER SET latin1 COLLATE latin1_swedish_ci",
            "CONCAT(ELT(1 + :n % 3, 'é', 'ß', 'K'), :n)",
        )
        .alter("MODIFY a VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL")
        .respell("a = IF(BINARY a = BINARY UPPER(a), LOWER(a), UPPER(a))")
        .stops_at_swap(),
        case(
            "gbk_to_utf8mb4",
            "CHAR(20) CHARACTER SET gbk COLLATE gbk_chinese_ci",
            "CONCAT(ELT(1 + :n % 3, '中', '誠', 'a\\\\'), :n)",
        )
        .alter("MODIFY a VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci NOT NULL")
        .stops_at_swap(),
        case(
            "bin_to_ci",
            "VARCHAR(30) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
            "CONCAT(IF(:n % 2, 'k', 'K'), :n)",
        )
        .alter("MODIFY a VARCHAR(30) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci NOT NULL")
        .stops_at_swap(),
    ]
}

fn mysql() -> Vec<Case> {
    vec![
        case(
            "no_pad_ai_ci",
            "VARCHAR(30) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_ai_ci",
            "CONCAT('ä', :n DIV 3, REPEAT(' ', :n % 3))",
        )
        .respell("a = REPLACE(a, 'ä', 'A')"),
        case(
            "as_cs",
            "VARCHAR(30) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_as_cs",
            "CONCAT(ELT(1 + :n % 3, 'a', 'A', 'ä'), :n DIV 3)",
        ),
        case("descending", "INT", ":n").composite(
            "a INT NOT NULL, b INT NOT NULL",
            "PRIMARY KEY (a DESC, b)",
            &[("a", ":n DIV 20"), ("b", ":n % 20")],
        ),
        case("invisible_key", "BIGINT UNSIGNED AUTO_INCREMENT", ":n").composite(
            "a BIGINT UNSIGNED NOT NULL AUTO_INCREMENT INVISIBLE",
            "PRIMARY KEY (a)",
            &[("a", ":n")],
        ),
    ]
}

fn mariadb(flavor: Flavor) -> Vec<Case> {
    let mut all = vec![
        case(
            "no_pad_bin",
            "VARCHAR(30) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin",
            "CONCAT('ä', :n DIV 3, REPEAT(' ', :n % 3))",
        ),
        case(
            "uca1400",
            "VARCHAR(30) CHARACTER SET utf8mb4 COLLATE utf8mb4_uca1400_ai_ci",
            "CONCAT(ELT(1 + :n % 3, 'ä', 'é', 'ø'), :n)",
        )
        .respell("a = REPLACE(a, 'é', 'E')"),
        case("descending", "INT", ":n").composite(
            "a INT NOT NULL, b INT NOT NULL",
            "PRIMARY KEY (a DESC, b)",
            &[("a", ":n DIV 20"), ("b", ":n % 20")],
        ),
        case(
            "uuid",
            "UUID",
            "CONCAT(LPAD(HEX(:n * 77), 8, '0'), '-0000-4000-8000-', LPAD(HEX(:n * 99), 12, '0'))",
        ),
        case("inet6", "INET6", "CONCAT('2001:db8::', HEX(:n))"),
    ];
    if flavor == Flavor::MariaDb118 {
        all.push(case(
            "uca1400_no_pad",
            "VARCHAR(30) CHARACTER SET utf8mb4 COLLATE utf8mb4_uca1400_nopad_as_cs",
            "CONCAT(IF(:n % 2, 'k', 'K'), :n DIV 6, REPEAT(' ', :n DIV 2 % 3))",
        ));
    }
    all
}
