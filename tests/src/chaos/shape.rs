//! A random table: its name, key, columns, indexes, and how a row of it is written.
//!
//! Every row bears the writer it belongs to (`w`) and a bucket (`b`), so that a statement on many rows can
//! be kept to rows that nobody else writes.

use crate::servers::Flavor;
use crate::workload::Dice;

use super::values::{Family, at, name, quoted};

/// What tells the rows apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Auto,
    Int,
    Big,
    Text,
    Folding,
    Bytes,
    Decimal,
    Uuid,
    IntText,
    TextInt,
}

const KEYS: [Key; 10] = [
    Key::Auto,
    Key::Int,
    Key::Big,
    Key::Text,
    Key::Folding,
    Key::Bytes,
    Key::Decimal,
    Key::Uuid,
    Key::IntText,
    Key::TextInt,
];

/// A column beside the key, `w`, `b` and `u`.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) family: Family,
    pub(super) nullable: bool,
    pub(super) default: Option<&'static str>,
    /// Written when the table is loaded and never again: its values would not survive the change alike
    /// before and after the swap.
    pub(super) frozen: bool,
    /// A generated column or an index expression hangs on it: not to be changed.
    pub(super) pinned: bool,
    /// A clause is about it.
    pub(super) touched: bool,
    /// No awkward values: they must fit a smaller type.
    pub(super) tame: bool,
}

/// A table.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) flavor: Flavor,
    pub(super) table: String,
    pub(super) key: Key,
    /// The key's columns, named.
    pub(super) key_names: Vec<String>,
    /// A unique key of NOT NULL columns instead of a primary one.
    pub(super) no_primary: bool,
    pub(super) columns: Vec<Column>,
    pub(super) u_unique: bool,
    pub(super) generated: Option<(String, bool)>,
    pub(super) indexed: Vec<usize>,
    pub(super) child: bool,
    pub(super) rows: u64,
}

const TABLES: [&str; 10] = [
    "orders", "Orders", "my table", "it's", "q\"uote", "b`tick", "täble", "表 🦀", "select", "t%s",
];
const COLUMNS: [&str; 12] = [
    "amount",
    "note",
    "Größe",
    "two words",
    "from",
    "it's",
    "q\"q",
    "b`t",
    "x-y",
    "ключ",
    "C",
    "c_1",
];

impl Shape {
    // One field after the other, in the order of the dice.
    #[allow(clippy::too_many_lines)]
    pub(super) fn draw(dice: &mut Dice, flavor: Flavor) -> Self {
        let key = dice.one_of(&KEYS).unwrap_or(Key::Int);
        let table = match dice.below(20) {
            0..=8 => "orders".to_owned(),
            9 if flavor.is_postgres() => "l".repeat(63),
            9 => "l".repeat(64),
            _ => {
                let word = dice.one_of(&TABLES).unwrap_or_default();
                // four bytes a character are no name on MySQL
                if flavor.is_postgres() { word.to_owned() } else { word.replace('🦀', "é") }
            }
        };
        let count = 2 + dice.below(9);
        let awkward = dice.below(3) == 0;
        let columns: Vec<Column> = (0..count)
            .map(|number| {
                let family = Family::draw(dice, flavor);
                let has_default = dice.below(3) == 0;
                let plain = format!("c{number}");
                let picked = dice.one_of(&COLUMNS).unwrap_or_default();
                let name =
                    if awkward && dice.below(2) == 0 { format!("{picked}{number}") } else { plain };
                Column {
                    name,
                    family,
                    nullable: dice.below(4) != 0,
                    default: family.default().filter(|_| has_default),
                    frozen: false,
                    pinned: false,
                    touched: false,
                    tame: false,
                }
            })
            .collect();
        let key_names = match key {
            Key::IntText | Key::TextInt => vec!["k1".to_owned(), "K 2".to_owned()],
            _ if awkward => vec!["the key".to_owned()],
            _ => vec!["id".to_owned()],
        };
        let rows = match dice.below(10) {
            0 => 0,
            1..=6 => 200 + dice.below(1200),
            7 | 8 => 1400 + dice.below(3000),
            _ if dice.below(2) == 0 => 4400 + dice.below(8000),
            _ => 1 + dice.below(20),
        };
        let mut shape = Self {
            flavor,
            table,
            key,
            key_names,
            no_primary: key != Key::Auto && dice.below(6) == 0,
            u_unique: dice.below(2) == 0,
            generated: None,
            indexed: Vec::new(),
            // refused on MySQL: seldom is enough
            child: dice.below(if flavor.is_postgres() { 10 } else { 60 }) == 0,
            columns,
            rows,
        };
        let count = shape.columns.len();
        for _ in 0..dice.below(3) {
            let index = at(dice, count.try_into().unwrap_or(1));
            let can = shape.columns.get(index).is_some_and(|column| column.family.is_indexable());
            if can && !shape.indexed.contains(&index) {
                shape.indexed.push(index);
            }
        }
        let ints = [Family::Small, Family::Int, Family::Big];
        let base = shape.columns.iter_mut().find(|column| ints.contains(&column.family));
        if let Some(column) = base.filter(|_| dice.below(3) == 0) {
            column.pinned = true;
            let stored = flavor.is_postgres() || dice.below(2) == 0;
            shape.generated = Some((column.name.clone(), stored));
        }
        shape
    }

    pub(super) fn q(&self, text: &str) -> String {
        name(text, self.flavor)
    }

    /// The table's name, quoted.
    pub(super) fn quoted(&self) -> String {
        self.q(&self.table)
    }

    fn key_types(&self) -> Vec<&'static str> {
        let postgres = self.flavor.is_postgres();
        let text =
            if postgres { "varchar(40) COLLATE \"C\"" } else { "varchar(40) COLLATE utf8mb4_bin" };
        let folding =
            if postgres { "varchar(40)" } else { "varchar(40) COLLATE utf8mb4_general_ci" };
        match self.key {
            Key::Auto if postgres => vec!["integer GENERATED BY DEFAULT AS IDENTITY"],
            Key::Auto => vec!["integer NOT NULL AUTO_INCREMENT"],
            Key::Int => vec!["integer NOT NULL"],
            Key::Big => vec!["bigint NOT NULL"],
            Key::Text => vec![text],
            Key::Folding => vec![folding],
            Key::Bytes if postgres => vec!["bytea"],
            Key::Bytes => vec!["varbinary(20)"],
            Key::Decimal if postgres => vec!["numeric(20,3)"],
            Key::Decimal => vec!["decimal(20,3)"],
            Key::Uuid if postgres => vec!["uuid"],
            Key::Uuid if self.flavor.is_mariadb() => vec!["uuid"],
            Key::Uuid => vec!["binary(16)"],
            Key::IntText => vec!["integer NOT NULL", folding],
            Key::TextInt => vec![text, "bigint NOT NULL"],
        }
    }

    /// `CREATE TABLE` and what belongs to it, in the schema that is the session's.
    pub(super) fn ddl(&self) -> Vec<String> {
        let postgres = self.flavor.is_postgres();
        let mut lines = Vec::new();
        for (column, kind) in self.key_names.iter().zip(self.key_types()) {
            let not_null = if kind.contains("NOT NULL") { "" } else { " NOT NULL" };
            lines.push(format!("{} {kind}{not_null}", self.q(column)));
        }
        lines.push("w integer NOT NULL, b integer NOT NULL, u bigint NULL".to_owned());
        for column in &self.columns {
            lines.push(format!("{} {}", self.q(&column.name), self.definition(column)));
        }
        if let Some((base, stored)) = &self.generated {
            let (base, how) = (self.q(base), if *stored { "STORED" } else { "VIRTUAL" });
            // twice the greatest number is no number of its type any more
            let twice = if postgres {
                format!("gen numeric GENERATED ALWAYS AS ({base}::numeric * 2)")
            } else {
                format!("gen decimal(30,0) GENERATED ALWAYS AS (CAST({base} AS decimal(25,0)) * 2)")
            };
            lines.push(format!("{twice} {how}"));
        }
        let key: Vec<String> = self.key_names.iter().map(|name| self.q(name)).collect();
        let unique = if postgres { "CONSTRAINT the_key UNIQUE" } else { "UNIQUE KEY the_key" };
        let how = if self.no_primary { unique } else { "PRIMARY KEY" };
        lines.push(format!("{how} ({})", key.join(", ")));
        if self.u_unique {
            let how = if postgres { "CONSTRAINT uniq UNIQUE" } else { "UNIQUE KEY uniq" };
            lines.push(format!("{how} (u)"));
        }
        if self.child {
            lines.push("parent integer NULL".to_owned());
            lines.push(
                "CONSTRAINT of_parent FOREIGN KEY (parent) REFERENCES parents (id)".to_owned(),
            );
        }
        let mut after = Vec::new();
        match postgres {
            true => after.push(format!("CREATE INDEX of_writer ON {} (w, b)", self.quoted())),
            false => lines.push("KEY of_writer (w, b)".to_owned()),
        }
        for &index in &self.indexed {
            let Some(column) = self.columns.get(index) else { continue };
            let column = self.q(&column.name);
            match postgres {
                true => {
                    after.push(format!("CREATE INDEX ix{index} ON {} ({column})", self.quoted()))
                }
                false => lines.push(format!("KEY ix{index} ({column})")),
            }
        }
        let tail = if postgres { "" } else { " ENGINE=InnoDB DEFAULT CHARSET=utf8mb4" };
        let mut statements = Vec::new();
        if self.child {
            statements.push("CREATE TABLE parents (id integer PRIMARY KEY)".to_owned());
            statements.push("INSERT INTO parents VALUES (1), (2), (3)".to_owned());
        }
        statements.push(format!("CREATE TABLE {} ({}){tail}", self.quoted(), lines.join(", ")));
        statements.extend(after);
        statements
    }

    /// Type, NULL and default.
    pub(super) fn definition(&self, column: &Column) -> String {
        format!("{}{}", column.family.ddl(self.flavor), Self::attributes(column))
    }

    pub(super) fn attributes(column: &Column) -> String {
        let null = if column.nullable { " NULL" } else { " NOT NULL" };
        let default = column.default.map(|value| format!(" DEFAULT {value}")).unwrap_or_default();
        format!("{null}{default}")
    }

    /// The literals of key number `n`, the same for the same number.
    pub(super) fn key_values(&self, n: i64) -> Vec<String> {
        let fate = Dice::new(n.unsigned_abs()).next();
        let decor = ["", "a", "Ä", "zz ", "é", "'", "Z"];
        let decor = decor[at(&mut Dice::new(fate), 7)];
        let text = quoted(
            &format!("{decor}{n}{}", if fate.is_multiple_of(5) { " x" } else { "" }),
            self.flavor,
        );
        let big = i128::from(n) * if fate.is_multiple_of(2) { 1_000_003 } else { -1_000_003 };
        match self.key {
            Key::Auto | Key::Int => vec![n.to_string()],
            Key::Big => vec![big.to_string()],
            Key::Text | Key::Folding => vec![text],
            Key::Bytes if self.flavor.is_postgres() => vec![format!("'\\x{n:016x}00ff'")],
            Key::Bytes => vec![format!("x'{:02x}{n:016x}'", fate % 256)],
            Key::Decimal => vec![format!("{n}.{:03}", fate % 1000)],
            Key::Uuid => {
                let hex = format!("{fate:016x}{n:016x}");
                match self.flavor {
                    Flavor::MySql97 => vec![format!("x'{hex}'")],
                    _ => vec![format!(
                        "'{}-{}-{}-{}-{}'",
                        &hex[..8],
                        &hex[8..12],
                        &hex[12..16],
                        &hex[16..20],
                        &hex[20..]
                    )],
                }
            }
            Key::IntText => vec![(n % 97).to_string(), text],
            Key::TextInt => vec![quoted(decor, self.flavor), n.to_string()],
        }
    }

    /// `key = …` of key number `n`.
    pub(super) fn key_is(&self, n: i64) -> String {
        let parts = self.key_names.iter().zip(self.key_values(n));
        let parts = parts.map(|(name, value)| format!("{} = {value}", self.q(name)));
        parts.collect::<Vec<String>>().join(" AND ")
    }

    /// Names and values of a new row, the key's first; frozen columns only with `load`.
    pub(super) fn row(
        &self,
        dice: &mut Dice,
        n: i64,
        writer: i64,
        load: bool,
    ) -> Vec<(String, String)> {
        let mut cells: Vec<(String, String)> =
            self.key_names.iter().cloned().zip(self.key_values(n)).collect();
        cells.push(("w".to_owned(), writer.to_string()));
        cells.push(("b".to_owned(), dice.below(20).to_string()));
        let u = if dice.below(4) == 0 { "NULL".to_owned() } else { (n * 3).to_string() };
        cells.push(("u".to_owned(), u));
        for column in self.columns.iter().filter(|column| load || !column.frozen) {
            // its default, where that stays the same
            let defaulted = column.nullable || column.default.is_some();
            if !load && defaulted && !column.touched && dice.below(6) == 0 {
                continue;
            }
            cells.push((column.name.clone(), self.value(dice, column)));
        }
        if self.child {
            let parent = ["NULL", "1", "2", "3"][at(dice, 4)];
            cells.push(("parent".to_owned(), parent.to_owned()));
        }
        cells
    }

    pub(super) fn value(&self, dice: &mut Dice, column: &Column) -> String {
        if column.nullable && dice.below(7) == 0 {
            return "NULL".to_owned();
        }
        column.family.value(dice, self.flavor, !column.tame)
    }

    /// In short, for a line.
    pub(super) fn in_short(&self) -> String {
        format!(
            "{:?}{}, {} columns, {} rows, {:?}{}{}",
            self.key,
            if self.no_primary { " (no primary key)" } else { "" },
            self.columns.len(),
            self.rows,
            self.table,
            if self.generated.is_some() { ", generated" } else { "" },
            if self.child { ", foreign key" } else { "" }
        )
    }
}
