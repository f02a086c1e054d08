//! A random change of a table, of one to four clauses, and what it means for who writes the table.

use crate::servers::Flavor;
use crate::workload::Dice;

use super::shape::{Column, Key, Shape};
use super::values::{Family, at};

/// A change.
#[derive(Clone, Debug, Default)]
pub(super) struct Change {
    /// The whole statement, without a schema.
    pub(super) statement: String,
    pub(super) clauses: Vec<String>,
    /// Columns that bear another name afterwards.
    pub(super) renamed: Vec<(String, String)>,
    /// Columns that are gone afterwards.
    pub(super) dropped: Vec<String>,
    /// It is to be taken back and made again: what only one of the shapes has is written by nobody.
    pub(super) turns: bool,
}

impl Change {
    /// Draws one for `shape`, of which columns are frozen or tamed as the clauses need it.
    pub(super) fn draw(dice: &mut Dice, shape: &mut Shape, turns: bool) -> Self {
        let mut change = Self { turns, ..Self::default() };
        let wanted = 1 + at(dice, 4);
        for _ in 0..wanted * 6 {
            if change.clauses.len() == wanted {
                break;
            }
            let clause = if shape.flavor.is_postgres() {
                change.postgres(dice, shape)
            } else {
                change.mysql(dice, shape)
            };
            change.clauses.extend(clause);
        }
        if change.clauses.is_empty() {
            change.clauses.push("ADD COLUMN added integer".to_owned());
        }
        change.statement = format!("ALTER TABLE {} {}", shape.quoted(), change.clauses.join(", "));
        change
    }

    /// One that nothing can be said against.
    pub(super) fn plain(shape: &Shape) -> Self {
        let clause = "ADD COLUMN added integer".to_owned();
        let statement = format!("ALTER TABLE {} {clause}", shape.quoted());
        Self { statement, clauses: vec![clause], ..Self::default() }
    }

    fn mysql(&mut self, dice: &mut Dice, shape: &mut Shape) -> Option<String> {
        let kind = dice.below(16);
        let table_wide = [
            "ENGINE=InnoDB",
            "ROW_FORMAT=DYNAMIC",
            "COMMENT='it''s changed'",
            "CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci",
            "FORCE",
        ];
        match kind {
            0 | 1 => Some(self.add_column(dice, shape)),
            2 => self.add_index(dice, shape),
            3 if !shape.u_unique => self.once("ADD UNIQUE KEY added_uniq (u)"),
            4 => self.drop_index(dice, shape),
            5 => {
                let clause = table_wide[at(dice, 5)];
                // one of these would undo what another clause says of a column
                self.once(clause)
            }
            6 => self.once("ADD CONSTRAINT b_small CHECK (b < 100)"),
            7 => self.widen_key(shape),
            _ => self.of_column(dice, shape),
        }
    }

    fn postgres(&mut self, dice: &mut Dice, shape: &mut Shape) -> Option<String> {
        match dice.below(16) {
            0 | 1 => Some(self.add_column(dice, shape)),
            2 if !shape.u_unique => self.once("ADD CONSTRAINT added_uniq UNIQUE (u)"),
            3 if shape.u_unique => self.once("DROP CONSTRAINT uniq"),
            4 => self.once("ADD CONSTRAINT b_small CHECK (b < 100)"),
            5 => self.once("SET (fillfactor = 85)"),
            6 => self.widen_key(shape),
            7 => self.once("ALTER b SET STATISTICS 50"),
            _ => self.of_column(dice, shape),
        }
    }

    fn once(&self, clause: &str) -> Option<String> {
        let head: Vec<&str> = clause.split_whitespace().take(2).collect();
        let head = head.join(" ");
        let stands = self.clauses.iter().any(|had| had.starts_with(&head));
        (!stands).then(|| clause.to_owned())
    }

    fn add_column(&self, dice: &mut Dice, shape: &Shape) -> String {
        let number = self.clauses.len();
        let name = shape.q(&format!("{}{number}", ["added ", "neu_", "n\"n", "x'"][at(dice, 4)]));
        let mysql = [
            "int NOT NULL DEFAULT 5",
            "varchar(20) NULL",
            "datetime(6) NULL",
            "decimal(8,2) NOT NULL DEFAULT '1.25'",
            "varchar(9) NOT NULL DEFAULT 'it''s'",
            "bigint GENERATED ALWAYS AS (b + 1) VIRTUAL",
            "json NULL",
        ];
        let postgres = [
            "integer NOT NULL DEFAULT 5",
            "varchar(20)",
            "timestamptz",
            "numeric(8,2) NOT NULL DEFAULT 1.25",
            "text NOT NULL DEFAULT 'it''s'",
            "bigint GENERATED ALWAYS AS (b + 1) STORED",
            "jsonb DEFAULT '{}'",
        ];
        if shape.flavor.is_postgres() {
            return format!("ADD COLUMN {name} {}", postgres[at(dice, 7)]);
        }
        let place = ["", "", " FIRST", " AFTER b"][at(dice, 4)];
        format!("ADD COLUMN {name} {}{place}", mysql[at(dice, 7)])
    }

    fn add_index(&self, dice: &mut Dice, shape: &Shape) -> Option<String> {
        let column =
            shape.columns.get(at(dice, 9)).filter(|column| column.family.is_indexable())?;
        if self.dropped.contains(&column.name) || column.touched {
            return None;
        }
        Some(format!("ADD INDEX added{} ({}, b)", self.clauses.len(), shape.q(&column.name)))
    }

    fn drop_index(&self, dice: &mut Dice, shape: &mut Shape) -> Option<String> {
        let choice = at(dice, 3);
        if choice < shape.indexed.len() {
            let index = shape.indexed[choice];
            if shape.columns.get(index)?.touched {
                return None;
            }
            return self.once(&format!("DROP INDEX ix{index}"));
        }
        if shape.u_unique { self.once("DROP INDEX uniq") } else { None }
    }

    fn widen_key(&self, shape: &Shape) -> Option<String> {
        let name = shape.q(shape.key_names.first()?);
        if shape.flavor.is_postgres() {
            return match shape.key {
                Key::Auto | Key::Int => self.once(&format!("ALTER {name} TYPE bigint")),
                Key::Text | Key::Folding => self.once(&format!("ALTER {name} TYPE varchar(80)")),
                Key::IntText => self.once(&format!("ALTER {name} TYPE bigint")),
                _ => None,
            };
        }
        match shape.key {
            Key::Auto => self.once(&format!("MODIFY {name} bigint NOT NULL AUTO_INCREMENT")),
            Key::Int | Key::IntText => self.once(&format!("MODIFY {name} bigint NOT NULL")),
            Key::Bytes => self.once(&format!("MODIFY {name} varbinary(40) NOT NULL")),
            _ => None,
        }
    }

    /// A clause about one of the columns that no other clause is about.
    fn of_column(&mut self, dice: &mut Dice, shape: &mut Shape) -> Option<String> {
        let (flavor, count) = (shape.flavor, shape.columns.len());
        let index = at(dice, u64::try_from(count).ok()?);
        let indexed = shape.indexed.contains(&index);
        let column = shape.columns.get(index)?.clone();
        if column.touched || column.pinned {
            return None;
        }
        let name = shape.q(&column.name);
        let mut next = Column { touched: true, ..column.clone() };
        let clause = match dice.below(10) {
            0 | 1 => {
                if self.turns && !column.nullable && column.default.is_none() {
                    // a row that is new to the old table would have no value there
                    return None;
                }
                next.frozen = self.turns;
                self.dropped.push(column.name.clone());
                format!("DROP COLUMN {name}")
            }
            2 if !flavor.is_postgres() => {
                let to = format!("renamed {index}");
                let clause = if dice.below(2) == 0 {
                    format!("RENAME COLUMN {name} TO {}", shape.q(&to))
                } else {
                    format!("CHANGE {name} {} {}", shape.q(&to), shape.definition(&column))
                };
                self.renamed.push((column.name.clone(), to));
                clause
            }
            2 | 3 => self.default_or_null(dice, shape, &column, &mut next)?,
            4 if flavor.is_postgres() => using(dice, shape, &mut next)?,
            4 | 5 => narrow(dice, shape, &mut next)?,
            _ => {
                let kinds = wider(column.family, flavor);
                let kind = kinds.get(at(dice, u64::try_from(kinds.len()).ok()?))?;
                if indexed && ["text", "blob"].contains(kind) {
                    return None;
                }
                retyped(shape, &column, kind)
            }
        };
        *shape.columns.get_mut(index)? = next;
        Some(clause)
    }

    fn default_or_null(
        &self,
        dice: &mut Dice,
        shape: &Shape,
        column: &Column,
        next: &mut Column,
    ) -> Option<String> {
        let name = shape.q(&column.name);
        if dice.below(2) == 0 {
            let default = column.family.default()?;
            let set = if dice.below(2) == 0 {
                format!("SET DEFAULT {default}")
            } else {
                "DROP DEFAULT".to_owned()
            };
            return Some(format!("ALTER COLUMN {name} {set}"));
        }
        // to NOT NULL; half of the time there are no NULLs in it
        next.nullable = column.nullable && dice.below(3) == 0;
        next.frozen = next.nullable;
        if shape.flavor.is_postgres() {
            return Some(format!("ALTER {name} SET NOT NULL"));
        }
        let plain = Column { nullable: false, ..column.clone() };
        Some(format!("MODIFY {name} {}", shape.definition(&plain)))
    }
}

fn retyped(shape: &Shape, column: &Column, kind: &str) -> String {
    let name = shape.q(&column.name);
    if shape.flavor.is_postgres() {
        return format!("ALTER {name} TYPE {kind}");
    }
    let text = ["text", "blob", "mediumtext", "mediumblob", "json"].contains(&kind);
    let plain = Column { default: column.default.filter(|_| !text), ..column.clone() };
    format!("MODIFY {name} {kind}{}", Shape::attributes(&plain))
}

/// Types that hold every value of the family, and hold it alike whether written before or after.
fn wider(family: Family, flavor: Flavor) -> &'static [&'static str] {
    if flavor.is_postgres() {
        return match family {
            Family::Small => &["integer", "bigint", "numeric"],
            Family::Int => &["bigint", "numeric(12,0)", "text"],
            Family::Big => &["numeric", "numeric(25,0)"],
            Family::Decimal => &["numeric(20,4)"],
            Family::Float => &["double precision"],
            Family::Varchar => &["varchar(300)", "text", "text COLLATE \"C\""],
            Family::Char => &["text", "varchar(20)"],
            Family::Text => &["text COLLATE \"C\""],
            Family::Date => &["timestamp"],
            Family::Datetime => &["timestamptz"],
            Family::Stamp => &["timestamp"],
            Family::Uuid => &["text"],
            _ => &[],
        };
    }
    match family {
        Family::Small => &["int", "bigint", "decimal(10,0)"],
        Family::Int => &["bigint", "varchar(20)", "decimal(12,2)"],
        Family::Big => &["decimal(25,0)"],
        Family::Unsigned => &["decimal(30,0)"],
        Family::Decimal => &["decimal(20,4)", "decimal(20,6)"],
        Family::Float => &["double"],
        Family::Varchar => &["varchar(300)", "text", "varchar(40) COLLATE utf8mb4_unicode_ci"],
        Family::Char => &["char(20)", "varchar(12)"],
        Family::Text => &["mediumtext"],
        Family::Latin => &["varchar(30) character set utf8mb4", "varchar(60) character set latin1"],
        Family::Binary => &["varbinary(8)"],
        Family::Varbinary => &["varbinary(100)", "blob"],
        Family::Blob => &["mediumblob"],
        Family::Date => &["datetime"],
        Family::Stamp => &["datetime(6)"],
        Family::Bool => &["int"],
        Family::Enum => &["enum('red','grün','it''s','','new')", "varchar(20)"],
        Family::Set => &["set('a','b','c d','e')"],
        Family::Bit => &["bit(20)"],
        _ => &[],
    }
}

/// A smaller type: two of three times for values that fit it, else for whatever there is.
fn narrow(dice: &mut Dice, shape: &Shape, column: &mut Column) -> Option<String> {
    let postgres = shape.flavor.is_postgres();
    let kind = match column.family {
        Family::Big => "integer",
        Family::Int => "smallint",
        Family::Varchar => "varchar(10)",
        Family::Text => "varchar(220)",
        Family::Char => "char(9)",
        Family::Decimal if postgres => "numeric(12,2)",
        Family::Decimal => "decimal(12,2)",
        Family::Latin => "varchar(12) character set latin1",
        Family::Unsigned => "int unsigned",
        _ => return None,
    };
    match dice.below(3) {
        0 if column.nullable && column.default.is_none() => column.frozen = true,
        _ => column.tame = true,
    }
    Some(retyped(shape, column, kind))
}

/// A conversion by an expression, for a column that nobody writes any more.
fn using(dice: &mut Dice, shape: &Shape, column: &mut Column) -> Option<String> {
    if !column.nullable || column.default.is_some() {
        return None;
    }
    let name = shape.q(&column.name);
    let (kind, expression) = match column.family {
        Family::Small | Family::Int => ("bigint", format!("{name}::bigint * 1000 + w")),
        Family::Varchar | Family::Text if dice.below(2) == 0 => {
            ("integer", format!("length({name})"))
        }
        Family::Varchar | Family::Text => ("bytea", format!("convert_to({name}, 'UTF8')")),
        Family::Json => ("text", format!("{name}::text")),
        Family::Date | Family::Stamp => ("text", format!("{name}::text")),
        Family::Array => ("integer", format!("cardinality({name})")),
        Family::Bool => ("integer", format!("CASE WHEN {name} THEN 1 WHEN NOT {name} THEN w END")),
        Family::Interval => ("double precision", format!("extract(epoch FROM {name})")),
        _ => return None,
    };
    column.frozen = true;
    Some(format!("ALTER {name} TYPE {kind} USING {expression}"))
}
