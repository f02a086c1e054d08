//! The matrix of changes to columns and tables; the one of their types is `column_values`.

use underpin_tests::servers::Flavor;

use crate::column_values;

/// One table and its change.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The table's name, unquoted.
    pub(crate) table: String,
    /// Definitions of the columns beside `id` and `w`, and of indexes.
    pub(crate) columns: String,
    /// Options of the table.
    pub(crate) options: &'static str,
    /// Columns that the rows fill.
    pub(crate) into: &'static str,
    /// Rows, as SELECT lists.
    pub(crate) rows: Vec<&'static str>,
    /// How often each row is there.
    pub(crate) copies: u32,
    /// Statements after the rows, with `{t}` for the table.
    pub(crate) extra: Vec<&'static str>,
    /// The clauses of the change.
    pub(crate) alter: &'static str,
    /// Columns whose values differ at each draw.
    pub(crate) skipped: Vec<&'static str>,
    /// What the table's counter must stand at in the end; makes `id` an `AUTO_INCREMENT`.
    pub(crate) counter: Option<u64>,
}

pub(crate) const PLAIN_ALTER: &str = "ADD extra INT NOT NULL DEFAULT 5, ADD KEY (extra)";

pub(crate) fn case(
    name: &'static str,
    columns: &str,
    into: &'static str,
    rows: &[&'static str],
    alter: &'static str,
) -> Case {
    Case {
        name,
        table: format!("c_{name}"),
        columns: columns.to_owned(),
        options: "",
        into,
        rows: rows.to_vec(),
        copies: 30,
        extra: Vec::new(),
        alter,
        skipped: Vec::new(),
        counter: None,
    }
}

impl Case {
    fn table(self, table: &str) -> Self {
        Self { table: table.to_owned(), ..self }
    }

    fn options(self, options: &'static str) -> Self {
        Self { options, ..self }
    }

    fn skipped(self, skipped: &[&'static str]) -> Self {
        Self { skipped: skipped.to_vec(), ..self }
    }

    /// Adds a statement that runs after the rows are there.
    pub(crate) fn and(mut self, statement: &'static str) -> Self {
        self.extra.push(statement);
        self
    }

    pub(crate) fn copies(self, copies: u32) -> Self {
        Self { copies, ..self }
    }
}

/// The cases for this server.
pub(crate) fn cases(flavor: Flavor) -> Vec<Case> {
    let mut all = column_values::cases(flavor);
    all.extend(structure());
    all.extend(drawn_and_generated());
    all.extend(names());
    all.extend(tables());
    all.extend(if flavor.is_mariadb() { mariadb() } else { mysql() });
    all
}

fn structure() -> Vec<Case> {
    let three = "a INT, b VARCHAR(20), c INT NOT NULL DEFAULT 3, KEY ab (a, b)";
    let rows = ["1, 'one', 10", "2, 'two', 20", "NULL, NULL, 30"];
    vec![
        case(
            "renamed_and_reordered",
            three,
            "a, b, c",
            &rows,
            "RENAME COLUMN a TO `new a`, CHANGE b b2 VARCHAR(30) FIRST, MODIFY c BIGINT NOT NULL AFTER id",
        ),
        case(
            "names_swapped",
            "a INT, b INT, c INT, KEY (a), KEY (b)",
            "a, b, c",
            &["1, 2, 3", "10, 20, 30", "NULL, 5, NULL"],
            "RENAME COLUMN a TO b, RENAME COLUMN b TO c, RENAME COLUMN c TO a",
        ),
        case(
            "swapped_by_change",
            "a INT, b INT",
            "a, b",
            &["1, 2", "10, 20", "NULL, 5"],
            "CHANGE a b BIGINT, CHANGE b a INT AFTER id",
        ),
        case(
            "dropped_and_added_again",
            three,
            "a, b, c",
            &rows,
            "DROP COLUMN a, ADD COLUMN a INT DEFAULT 9",
        ),
        case("dropped", three, "a, b, c", &rows, "DROP COLUMN b, DROP c, DROP KEY ab"),
        case(
            "added",
            three,
            "a, b, c",
            &rows,
            "ADD d1 INT NOT NULL, ADD d2 VARCHAR(10) NOT NULL FIRST, ADD d3 DATETIME NULL, \
             ADD d4 VARCHAR(20) DEFAULT 'it''s (x)' AFTER b, ADD (d5 INT DEFAULT 1, d6 TEXT), \
             ADD d7 DECIMAL(5,2) NOT NULL DEFAULT -1.5, ADD d8 ENUM('p','q') NOT NULL, \
             ADD d9 BIT(3) DEFAULT b'101'",
        ),
    ]
}

fn drawn_and_generated() -> Vec<Case> {
    let three = "a INT, b VARCHAR(20), c INT NOT NULL DEFAULT 3, KEY ab (a, b)";
    let rows = ["1, 'one', 10", "2, 'two', 20", "NULL, NULL, 30"];
    vec![
        case(
            "added_drawn",
            three,
            "a, b, c",
            &rows,
            "ADD made DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6), \
             ADD seen TIMESTAMP NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP",
        )
        .skipped(&["made", "seen"]),
        case(
            "numbered_anew",
            three,
            "a, b, c",
            &rows,
            "ADD number BIGINT NOT NULL AUTO_INCREMENT, ADD UNIQUE KEY (number)",
        )
        .skipped(&["number"]),
        case(
            "indexes",
            "a INT, b VARCHAR(300), g INT, KEY old_one (g), KEY keep (a, b(10)), FULLTEXT KEY ft (b)",
            "a, b, g",
            &["1, 'one word', 1", "2, 'two words', 1", "NULL, NULL, 2"],
            "DROP KEY old_one, RENAME INDEX keep TO kept, ADD UNIQUE KEY (id, g), \
             ADD KEY prefix (b(20)), ADD KEY down (a DESC, g)",
        ),
        case(
            "generated",
            "a INT, b INT AS (a * 2) STORED, c INT AS (a + 1) VIRTUAL, d VARCHAR(20), \
             e VARCHAR(40) AS (CONCAT(d, '!')) VIRTUAL, f DOUBLE AS (a / 0) STORED, KEY (c), KEY (b)",
            "a, d",
            &["1, 'x'", "NULL, NULL", "-5, 'it''s'"],
            "ADD g INT AS (a * a) STORED, ADD h VARCHAR(60) AS (UPPER(d)) VIRTUAL, ADD KEY (g), DROP e, \
             CHANGE b b2 INT AS (a * 2) STORED, MODIFY d VARCHAR(30)",
        ),
        case(
            "generated_no_more",
            "a INT, b INT AS (a * 2) STORED, c INT AS (a + 1) STORED",
            "a",
            &["1", "NULL", "-5"],
            "MODIFY b BIGINT, MODIFY c INT NOT NULL DEFAULT 0, ADD d INT AS (b + 1) STORED",
        )
        .and("UPDATE {t} SET a = 0 WHERE a IS NULL"),
        case(
            "defaults_and_checks",
            "a INT DEFAULT 5, b VARCHAR(10) DEFAULT 'x', c INT, CHECK (c IS NULL OR c < 1000)",
            "a, b, c",
            &["1, 'y', 2", "NULL, NULL, NULL"],
            "ALTER COLUMN a SET DEFAULT 6, ALTER COLUMN b DROP DEFAULT, ADD CHECK (c <> 77), \
             MODIFY c BIGINT COMMENT 'it''s a comment'",
        ),
    ]
}

fn names() -> Vec<Case> {
    let plain = |name, table: &str| {
        case(
            name,
            "v VARCHAR(10), KEY (v)",
            "v",
            &["'a'", "NULL"],
            "MODIFY v VARCHAR(20), ADD n INT",
        )
        .table(table)
    };
    vec![
        plain("name_odd", "a-b$é"),
        plain("name_quotes", "it's `quoted` \"here\""),
        plain("name_dots", "dots.and  spaces"),
        plain("name_long", &"long_name_".repeat(7)[..64]),
        plain("name_long_wide", &"é".repeat(64)),
        plain("name_japanese", "日本語のテーブル"),
        plain("name_word", "ALTER"),
        plain("name_like", "100%_|\\?#@"),
        plain("name_tilde", "x~up_new"),
        plain("name_digits", "123"),
        case(
            "column_names",
            "`a``b` INT, `it's` VARCHAR(10), `sp ace` INT, `dot.ted` INT, `\"d\"` INT, `日本` VARCHAR(10), \
             `select` INT, `c0` INT, `k0` INT, `t_k0` VARCHAR(5), `#%\\` INT, `s` INT, `n` INT, `p` INT, \
             `l` INT, `id2` INT, KEY `k``ey` (`a``b`, `it's`), KEY `日本` (`日本`)",
            "`a``b`, `it's`, `sp ace`, `dot.ted`, `\"d\"`, `日本`, `select`, `c0`, `k0`, `t_k0`, `#%\\`, \
             `s`, `n`, `p`, `l`, `id2`",
            &[
                "1, 'x', 2, 3, 4, 'y', 5, 6, 7, '8', 9, 10, 11, 12, 13, 14",
                "NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
                 NULL, NULL",
            ],
            "MODIFY `a``b` BIGINT, CHANGE `it's` `it''s not` VARCHAR(20), RENAME COLUMN `sp ace` TO `\"`, \
             DROP `dot.ted`, ADD `new ``one``` INT DEFAULT 1, MODIFY `日本` VARCHAR(30), \
             MODIFY `t_k0` INT, ADD KEY `an other` (`select`)",
        ),
    ]
}

fn tables() -> Vec<Case> {
    let rows = ["1, 'one'", "2, 'two'", "NULL, NULL"];
    let on = |name, options: &'static str, alter: &'static str| {
        case(name, "a INT, b VARCHAR(20)", "a, b", &rows, alter).options(options)
    };
    let mut counted = on(
        "counter",
        "COMMENT='kept; it''s the \"comment\" AUTO_INCREMENT=3'",
        "MODIFY b VARCHAR(50)",
    );
    counted.extra =
        vec!["INSERT INTO {t} (id) VALUES (7000000)", "DELETE FROM {t} WHERE id = 7000000"];
    counted.counter = Some(7_000_001);
    vec![
        counted,
        on(
            "by_range",
            "PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (0), PARTITION p1 \
            VALUES LESS THAN (50), PARTITION `p``2` VALUES LESS THAN MAXVALUE)",
            "MODIFY b VARCHAR(50)",
        ),
        on("by_hash", "PARTITION BY HASH (id) PARTITIONS 4", "ADD c INT DEFAULT 1"),
        on(
            "by_key_then_range",
            "PARTITION BY KEY (id) PARTITIONS 3",
            "MODIFY a BIGINT PARTITION BY RANGE (id) (PARTITION x VALUES LESS THAN (60), PARTITION y \
             VALUES LESS THAN MAXVALUE)",
        ),
        on(
            "subpartitions",
            "PARTITION BY RANGE (id) SUBPARTITION BY HASH (id) SUBPARTITIONS 2 (PARTITION p0 VALUES LESS \
             THAN (50), PARTITION p1 VALUES LESS THAN MAXVALUE)",
            "MODIFY b VARCHAR(50)",
        ),
        on("row_redundant", "ROW_FORMAT=REDUNDANT COMMENT='old one'", "MODIFY b VARCHAR(50)"),
        on("row_compact", "ROW_FORMAT=COMPACT", "ROW_FORMAT=DYNAMIC, COMMENT='new; one'"),
        on("row_compressed", "ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=8", "MODIFY b VARCHAR(50)"),
        on(
            "to_compressed",
            "STATS_PERSISTENT=1",
            "ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=4, ADD c INT",
        ),
        on(
            "charset_default",
            "DEFAULT CHARSET=latin1",
            "DEFAULT CHARSET=utf8mb4, ADD c VARCHAR(20)",
        ),
        on("engine_rebuild", "", "ENGINE=InnoDB"),
    ]
}

fn mysql() -> Vec<Case> {
    vec![
        case(
            "invisible",
            "a INT INVISIBLE, b INT",
            "a, b",
            &["1, 2", "NULL, 3"],
            "ALTER COLUMN b SET INVISIBLE, ADD c INT DEFAULT 4 INVISIBLE, MODIFY a BIGINT INVISIBLE",
        ),
        case(
            "functional_index",
            "a INT, b JSON, KEY fn ((a * 2))",
            "a, b",
            &[r#"1, '{"k": 5}'"#, "NULL, NULL"],
            "ADD KEY fn2 ((CAST(b->>'$.k' AS UNSIGNED))), ADD d INT DEFAULT (1 + 1), \
             ALTER INDEX fn INVISIBLE",
        ),
        case(
            "named_checks",
            "a INT, CONSTRAINT small_enough CHECK (a < 1000)",
            "a",
            &["1", "NULL"],
            "MODIFY a BIGINT, ADD CONSTRAINT not_seven CHECK (a <> 7)",
        ),
    ]
}

fn mariadb() -> Vec<Case> {
    vec![
        case(
            "invisible",
            "a INT INVISIBLE, b INT",
            "a, b",
            &["1, 2", "NULL, 3"],
            "ADD c INT INVISIBLE DEFAULT 4, MODIFY a BIGINT INVISIBLE",
        ),
        case(
            "named_checks",
            "a INT CHECK (a <> 5), b INT, CONSTRAINT small_enough CHECK (a < 1000)",
            "a, b",
            &["1, 1", "NULL, NULL"],
            "MODIFY a BIGINT, ADD CONSTRAINT not_seven CHECK (b <> 7), DROP CONSTRAINT small_enough",
        ),
        case(
            "drawn_from_expression",
            "a INT",
            "a",
            &["1", "NULL"],
            "ADD u UUID NOT NULL DEFAULT (UUID()), ADD e INT DEFAULT (a + 1)",
        )
        .skipped(&["u"]),
    ]
}
