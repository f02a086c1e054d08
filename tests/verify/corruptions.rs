//! Fourteen ways in which a copied row may be wrong and hard to tell from the right one, of which seeded
//! dice choose ten.

use underpin_tests::servers::Flavor;
use underpin_tests::workload::Dice;

/// One way. `{s}` is the shadow, `{k}` a key, `{o}` another one.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub name: &'static str,
    /// Statement on MySQL and MariaDB, on PostgreSQL.
    sql: [&'static str; 2],
    /// How it is told.
    told: &'static str,
    /// Which rows it is possible on.
    row: Row,
}

/// What a row must be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Row {
    Any,
    /// `n` is NULL.
    Null,
    /// `f` is zero.
    Zero,
    /// Neither.
    Plain,
    /// There is none.
    Gap,
}

const fn kind(name: &'static str, sql: [&'static str; 2], told: &'static str, row: Row) -> Kind {
    Kind { name, sql, told, row }
}

const KINDS: [Kind; 14] = [
    kind("a value", ["UPDATE {s} SET n = n + 1 WHERE id = {k}"; 2], "differs in n", Row::Plain),
    kind(
        "NULL for a value",
        ["UPDATE {s} SET v = NULL WHERE id = {k}"; 2],
        "differs in v",
        Row::Any,
    ),
    kind("a value for NULL", ["UPDATE {s} SET n = 0 WHERE id = {k}"; 2], "differs in n", Row::Null),
    kind(
        "a trailing space",
        ["UPDATE {s} SET v = CONCAT(v, ' ') WHERE id = {k}"; 2],
        "differs in v",
        Row::Any,
    ),
    kind(
        "-0 for 0, or next to it",
        [
            "UPDATE {s} SET f = -0e0 WHERE id = {k}",
            "UPDATE {s} SET f = '-0'::float8 WHERE id = {k}",
        ],
        "differs in f",
        Row::Zero,
    ),
    kind(
        "the last microsecond",
        [
            "UPDATE {s} SET d = d + INTERVAL 1 MICROSECOND WHERE id = {k}",
            "UPDATE {s} SET d = d + interval '1 microsecond' WHERE id = {k}",
        ],
        "differs in d",
        Row::Any,
    ),
    kind(
        // MySQL has one spelling of a document: so a value within it.
        "JSON",
        [
            "UPDATE {s} SET j = '{\"a\": 1, \"b\": \"2\"}' WHERE id = {k}",
            "UPDATE {s} SET j = '{\"b\": 2, \"a\": 1}' WHERE id = {k}",
        ],
        "differs in j",
        Row::Any,
    ),
    kind("a row missing", ["DELETE FROM {s} WHERE id = {k}"; 2], "missing in the shadow", Row::Any),
    kind(
        "a row too many",
        [
            "INSERT INTO {s} (id, n, v, c, f, d, j, j2, b, e) SELECT {k}, n, v, c, f, d, j, j2, b, e \
             FROM t WHERE id = {k} + 1",
            "INSERT INTO {s} (id, n, v, c, f, d, j, j2, b, e) SELECT {k}, n, v, c, f, d, j, j2, b, e \
             FROM t WHERE id = {k} + 1",
        ],
        "only in the shadow",
        Row::Gap,
    ),
    kind(
        "values exchanged",
        [
            "UPDATE {s} AS x JOIN t AS y ON (x.id = {k} AND y.id = {o}) OR (x.id = {o} AND y.id = {k}) \
             SET x.v = y.v",
            "UPDATE {s} AS x SET v = y.v FROM t AS y WHERE (x.id = {k} AND y.id = {o}) OR (x.id = {o} AND \
             y.id = {k})",
        ],
        "differs in v",
        Row::Any,
    ),
    kind("letter case", ["UPDATE {s} SET c = 'ROW' WHERE id = {k}"; 2], "differs in c", Row::Any),
    kind(
        "a bit",
        [
            "UPDATE {s} SET b = UNHEX('00FF11') WHERE id = {k}",
            "UPDATE {s} SET b = '\\x00ff11' WHERE id = {k}",
        ],
        "differs in b",
        Row::Any,
    ),
    kind(
        "a float's last bit",
        ["UPDATE {s} SET f = 0.10000000000000002 WHERE id = {k}"; 2],
        "differs in f",
        Row::Plain,
    ),
    kind("enum, boolean", ["UPDATE {s} SET e = 'off' WHERE id = {k}"; 2], "differs in e", Row::Any),
];

/// The table: ids are even, so that there is room for a row too many.
pub fn table(flavor: Flavor, rows: u32) -> Vec<String> {
    if flavor.is_postgres() {
        return vec![
            "CREATE COLLATION anycase (provider = icu, locale = 'und-u-ks-level2', deterministic = \
             false)"
                .to_owned(),
            "CREATE TABLE t (id int PRIMARY KEY, n int, v text, c text COLLATE anycase, f float8, d \
             timestamp(6), j json, j2 jsonb, b bytea, e boolean)"
                .to_owned(),
            format!(
                "INSERT INTO t SELECT 2 * i, nullif(i, i / 7 * 7), 'row ' || i, 'row', CASE WHEN i % 5 = 0 \
                 THEN 0 ELSE 0.1 END, '2024-01-01 00:00:00.000001', '{{\"a\": 1, \"b\": 2}}', '{{\"a\": 1}}', \
                 '\\x00ff10', true FROM generate_series(1, {rows}) i"
            ),
            "ANALYZE t".to_owned(),
        ];
    }
    let depth =
        if flavor.is_mariadb() { "max_recursive_iterations" } else { "cte_max_recursion_depth" };
    vec![
        "CREATE TABLE t (id INT NOT NULL PRIMARY KEY, n INT, v VARCHAR(40), c VARCHAR(40) COLLATE \
         utf8mb4_general_ci, f DOUBLE, d DATETIME(6), j JSON, j2 JSON, b BLOB, e ENUM('on', 'off')) \
         CHARACTER SET utf8mb4"
            .to_owned(),
        format!("SET SESSION {depth} = 10000000"),
        format!(
            "INSERT INTO t WITH RECURSIVE ids (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM ids WHERE i < \
             {rows}) SELECT 2 * i, NULLIF(i, i DIV 7 * 7), CONCAT('row ', i), 'row', IF(i % 5 = 0, 0, 0.1), \
             '2024-01-01 00:00:00.000001', '{{\"a\": 1, \"b\": 2}}', '{{\"a\": 1}}', UNHEX('00FF10'), 'on' \
             FROM ids"
        ),
        "ANALYZE TABLE t".to_owned(),
    ]
}

/// The change: one column is converted, all others go along.
pub const fn change(flavor: Flavor) -> &'static str {
    if flavor.is_postgres() {
        "ALTER TABLE t ALTER n TYPE bigint"
    } else {
        "ALTER TABLE t MODIFY n BIGINT"
    }
}

/// Every row as text, byte for byte; a value that is there differs from none.
pub fn every_row(flavor: Flavor) -> &'static str {
    if flavor.is_postgres() {
        "SELECT concat_ws('|', id, coalesce(n::text, '-'), coalesce(v, '-'), c, f::text, d::text, j::text, \
         j2::text, b::text, e::text) FROM t ORDER BY id"
    } else {
        "SELECT CAST(CONCAT_WS('|', id, COALESCE(n, '-'), COALESCE(v, '-'), c, f, d, j, j2, HEX(b), e) AS CHAR) \
         FROM t ORDER BY id"
    }
}

/// One that was chosen, on its row.
#[derive(Clone, Debug)]
pub struct Corruption {
    pub kind: Kind,
    /// The row, and for those that need one another.
    keys: Vec<u64>,
}

impl Corruption {
    pub fn sql(&self, flavor: Flavor, shadow: &str) -> String {
        let other = self.keys.last().copied().unwrap_or_default();
        let mut sql = self.kind.sql[usize::from(flavor.is_postgres())];
        if flavor.is_mariadb() && self.kind.row == Row::Zero {
            // MariaDB stores 0 for -0: the number next to it.
            sql = "UPDATE {s} SET f = 5e-324 WHERE id = {k}";
        }
        sql.replace("{s}", shadow)
            .replace("{k}", &self.keys[0].to_string())
            .replace("{o}", &other.to_string())
    }

    /// Its rows as they must be named.
    pub fn told(&self) -> Vec<String> {
        self.keys.iter().map(|key| format!("id={key} ({})", self.kind.told)).collect()
    }

    /// Writes to the source from which it follows that the rows are made right.
    pub fn touch(&self) -> Vec<String> {
        let key = self.keys[0];
        if self.kind.row == Row::Gap {
            return vec![
                format!("INSERT INTO t (id) VALUES ({key})"),
                format!("DELETE FROM t WHERE id = {key}"),
            ];
        }
        self.keys.iter().map(|key| format!("UPDATE t SET v = v WHERE id = {key}")).collect()
    }
}

/// Ten of them on rows among the first `rows`; each seed has its own. Two that follow each other take, all
/// together, every kind there is.
pub fn ten(seed: u64, is_second: bool, rows: u64) -> Vec<Corruption> {
    let mut dice = Dice::new(seed);
    let mut kinds = KINDS.to_vec();
    for at in (1..kinds.len()).rev() {
        let with = usize::try_from(dice.below(at as u64 + 1)).unwrap();
        kinds.swap(at, with);
    }
    let chosen = if is_second { &kinds[4..] } else { &kinds[..10] };
    let room = rows / 20;
    let slots = (0..).step_by(2);
    chosen
        .iter()
        .zip(slots)
        .map(|(kind, slot)| {
            let count = if kind.name == "values exchanged" { 2 } else { 1 };
            let key = |slot: u64, dice: &mut Dice| loop {
                let i = 1 + slot * room + dice.below(room);
                let fits = match kind.row {
                    Row::Any | Row::Gap => true,
                    Row::Null => i.is_multiple_of(7),
                    Row::Zero => i.is_multiple_of(5),
                    Row::Plain => !i.is_multiple_of(7) && !i.is_multiple_of(5),
                };
                if fits {
                    return if kind.row == Row::Gap { 2 * i - 1 } else { 2 * i };
                }
            };
            let keys = (slot..slot + count).map(|slot| key(slot, &mut dice)).collect();
            Corruption { kind: *kind, keys }
        })
        .collect()
}
