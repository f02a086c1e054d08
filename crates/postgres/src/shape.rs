//! The shape of a run in SQL: quoted names, column pairs with the expressions that convert them, and
//! key columns, made once per connection from the run's facts and the catalogues of source and shadow.
//!
//! Owns the fragments; the rooms (`trigger`, `copy`, `changelog`, `verify`) put them into statements.
//! In statements the source is named without an alias, because a `USING` expression of the user's may
//! name its columns bare or by the table's name; the shadow is `underpin_n`, a set of keys is `underpin_p`: names that no table of a user has.

use underpin_core::key::{Key, KeyRange};
use underpin_core::mapping::KeyFit;
use underpin_core::plan::RunSpec;
use underpin_core::way::Way;
use underpin_dialect::{DbError, DbResult, ErrorKind};

use crate::connect::Session;
use crate::kept::Kept;
use crate::names::{self, Places};
use crate::query::{first, literal, quote, quote_table, rows, text};
use crate::steps;
use crate::types::{self, ColumnType};

/// Where the server keeps its own types and operators.
const SERVERS_OWN: &str = "pg_catalog";

/// One column of the key; names and types are ready for statements.
#[derive(Debug, Clone)]
pub(crate) struct KeyPart {
    /// Bare name in the source, for people.
    pub(crate) name: String,
    /// Name in the source.
    pub(crate) source: String,
    /// Name in the shadow.
    pub(crate) target: String,
    /// Name in the log, and wherever else keys are kept.
    pub(crate) log: String,
    /// Type in the log, collation included: the source's, below its domains.
    pub(crate) log_type: String,
    /// The source's type alone, for literals.
    pub(crate) bound_type: String,
    /// The shadow's type, collation included.
    pub(crate) target_type: String,
    /// What follows a key of the source that is looked for in the shadow, collation included: `::bigint`.
    pub(crate) target_cast: String,
    /// The operator by which the source's key tells its values apart.
    pub(crate) equal: String,
    /// Whether it becomes a text that is told apart otherwise.
    recollated: bool,
    /// Where its type's operators stand, quoted.
    operators: String,
}

/// One copied column.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    /// Bare name in the source, for people.
    pub(crate) name: String,
    /// Name in the shadow.
    pub(crate) target: String,
    /// Expression over the source's columns.
    pub(crate) value: String,
    /// The source's type.
    pub(crate) source_type: ColumnType,
    /// The shadow's type.
    pub(crate) target_type: ColumnType,
    /// Whether it can be written: the server computes the others.
    pub(crate) is_written: bool,
    /// On the way back, where the two may hold different values that count as the same: what the change
    /// makes of the shadow's value, over the shadow's columns by their table's bare name.
    pub(crate) made_of: Option<String>,
}

/// See the module's head.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    /// The table's name for messages.
    pub(crate) table: String,
    /// The source's owner, as whom user expressions are evaluated.
    pub(crate) owner: String,
    pub(crate) places: Places,
    /// Keys whose rows have been taken out of the shadow and not been written yet.
    pub(crate) todo: String,
    /// One row: where the copy ends, and which snapshot has been applied.
    pub(crate) state: String,
    /// Definitions that are still to be made, or have been.
    pub(crate) steps: String,
    /// Rows that were taken out of the shadow and have what the source cannot give; `None` on a way that is
    /// gone for the first time.
    pub(crate) kept: Option<Kept>,
    /// What a USING expression calls the table in the old shape.
    pub(crate) bare: String,
    pub(crate) key: Vec<KeyPart>,
    pub(crate) pairs: Vec<Pair>,
    /// Whether a stretch of keys covers the same rows in both tables.
    pub(crate) same_order: bool,
    /// Whether every copied value is the source's own, in its own type.
    pub(crate) keeps_values: bool,
}

impl Shape {
    /// Reads the catalogues. Source and shadow must exist.
    ///
    /// # Errors
    /// `SourceChanged` where a column of the run's facts is not there.
    // One statement after the other, each for one field.
    #[allow(clippy::too_many_lines)]
    pub(crate) async fn read(session: &Session, spec: &RunSpec) -> DbResult<Self> {
        let table = format!("{}.{}", spec.schema, spec.table);
        let places = names::places(spec)?;
        let source = types::columns(session, &spec.schema, &spec.table).await?;
        let shadow_schema = names::shadow_schema(spec);
        let shadow = types::columns(session, &shadow_schema, &spec.names.shadow).await?;
        let generated = generated_columns(session, &places.shadow).await?;
        let operators = key_operators(session, spec).await?;
        let mut key = Vec::new();
        for (position, column) in spec.key.columns.iter().enumerate() {
            let old = find(&source, &column.source, "the table", &table)?;
            let new = find(&shadow, &column.target, "the shadow", &table)?;
            key.push(KeyPart {
                name: column.source.clone(),
                source: quote(&column.source)?,
                target: quote(&column.target)?,
                log: format!("k{position}"),
                log_type: format!("{}{}", old.base, old.collate()),
                target_type: format!("{}{}", new.base, new.collate()),
                target_cast: match spec.way {
                    Way::Forward => format!("::{}{}", new.base, new.collate()),
                    Way::Back => cast_back(&old, &new),
                },
                recollated: column.fit == KeyFit::Recollated,
                equal: match (column.fit, operators.get(position)) {
                    (KeyFit::Same, Some((_, operator))) => operator.clone(),
                    // Two types that share their equality are the server's own.
                    _ => "OPERATOR(pg_catalog.=)".to_owned(),
                },
                operators: operators
                    .get(position)
                    .map_or_else(|| SERVERS_OWN.to_owned(), |(schema, _)| schema.clone()),
                bound_type: old.base,
            });
        }
        let old_shape = match spec.way {
            Way::Forward => &places.source,
            Way::Back => &places.shadow,
        };
        let conversions = types::conversions(session, spec, old_shape).await?;
        let (mut pairs, mut keeps_values) = (Vec::new(), conversions.is_empty());
        let bare = quote(&spec.names.shadow)?;
        for pair in &spec.mapping.pairs {
            let old = find(&source, &pair.source, "the table", &table)?;
            let new = find(&shadow, &pair.target, "the shadow", &table)?;
            keeps_values &= old.full == new.full;
            let place = format!("{}.{}", places.source, quote(&pair.source)?);
            let target = quote(&pair.target)?;
            let converted = |name: &str| {
                let found = conversions.iter().find(|(column, _)| column == name);
                found.map(|(_, expression)| format!("({expression})"))
            };
            let (value, made_of) = match spec.way {
                Way::Forward => (converted(&pair.source).unwrap_or(place), None),
                Way::Back => {
                    let plain = (old.full != new.full).then(|| format!("{bare}.{target}"));
                    (place, converted(&pair.target).or(plain))
                }
            };
            pairs.push(Pair {
                name: pair.source.clone(),
                is_written: !generated.contains(&pair.target),
                target,
                value,
                made_of: made_of.map(|value| format!("({value})::{}", old.full)),
                source_type: old,
                target_type: new,
            });
        }
        let kept = Kept::read(session, spec, &generated).await?;
        let owner = "SELECT pg_catalog.pg_get_userbyid(c.relowner) FROM pg_catalog.pg_class c \
                     WHERE c.oid = ";
        let owner = format!("{owner}{}::pg_catalog.regclass", literal(&places.source)?);
        let owner = first(session, &owner, "reading the owner of", &table).await?;
        Ok(Self {
            owner: quote(&owner.map(|row| text(&row, 0)).unwrap_or_default())?,
            todo: names::own_place(spec, "todo")?,
            state: names::own_place(spec, "state")?,
            steps: steps::table(spec)?,
            kept,
            bare,
            table,
            places,
            key,
            pairs,
            same_order: spec.key.same_order,
            keeps_values,
        })
    }

    /// What the capture of the other way needs to know, whose source is the shadow of this one, and stands in
    /// the source's place by then.
    ///
    /// # Errors
    /// A name that no identifier can have.
    pub(crate) fn of_capture(&self, other: &RunSpec) -> DbResult<Self> {
        let turned = |part: &KeyPart| KeyPart {
            name: part.target.clone(),
            source: part.target.clone(),
            target: part.source.clone(),
            log_type: part.target_type.clone(),
            ..part.clone()
        };
        Ok(Self {
            places: names::places(other)?,
            todo: names::own_place(other, "todo")?,
            state: names::own_place(other, "state")?,
            key: self.key.iter().map(turned).collect(),
            pairs: Vec::new(),
            kept: None,
            ..self.clone()
        })
    }

    /// The pairs that a statement writes.
    pub(crate) fn written(&self) -> Vec<&Pair> {
        self.pairs.iter().filter(|pair| pair.is_written).collect()
    }

    /// `a, b, c` over a list.
    pub(crate) fn list<T>(items: &[T], name: impl Fn(&T) -> String) -> String {
        items.iter().map(name).collect::<Vec<_>>().join(", ")
    }

    /// Columns that an INSERT into the shadow names.
    pub(crate) fn targets(&self) -> String {
        Self::list(&self.written(), |pair| pair.target.clone())
    }

    /// What they take, over the source's columns.
    pub(crate) fn values(&self) -> String {
        Self::list(&self.written(), |pair| pair.value.clone())
    }

    /// The source's key columns. Qualified: in an ORDER BY a bare name means what the SELECT makes of it,
    /// as its text.
    pub(crate) fn source_key(&self) -> String {
        Self::list(&self.key, |part| format!("{}.{}", self.places.source, part.source))
    }

    /// Key columns of log and todo, as `l.k0, l.k1` for the prefix `l.`.
    pub(crate) fn log_key(&self, prefix: &str) -> String {
        Self::list(&self.key, |part| format!("{prefix}{}", part.log))
    }

    /// Whether the source's row bears the key of `underpin_p`.
    pub(crate) fn source_meets(&self) -> String {
        let parts: Vec<String> = self
            .key
            .iter()
            .map(|part| {
                format!(
                    "{}.{} {} underpin_p.{}",
                    self.places.source, part.source, part.equal, part.log
                )
            })
            .collect();
        parts.join(" AND ")
    }

    /// Whether the shadow's row `underpin_n` bears the key of `underpin_p`, in the shadow's own types, so that its index
    /// serves.
    pub(crate) fn shadow_meets(&self) -> String {
        self.shadow_meets_as("underpin_n")
    }

    /// The same for a row of the shadow's shape by another name.
    pub(crate) fn shadow_meets_as(&self, row: &str) -> String {
        self.meets(row, |part| format!("underpin_p.{}", part.log))
    }

    /// Whether the shadow's row `underpin_n` and the source's row bear the same key.
    pub(crate) fn shadow_meets_source(&self) -> String {
        self.meets("underpin_n", |part| format!("{}.{}", self.places.source, part.source))
    }

    fn meets(&self, row: &str, other: impl Fn(&KeyPart) -> String) -> String {
        let parts: Vec<String> = self
            .key
            .iter()
            .map(|part| {
                let (new, old) = (format!("{row}.{}", part.target), other(part));
                let cast = &part.target_cast;
                let meets = format!("{new} {} {old}{cast}", part.equal);
                if part.recollated {
                    // Two texts of the source may be one to the shadow's index.
                    let bytes = "COLLATE pg_catalog.\"C\"";
                    format!("{meets} AND ({new} {bytes}) {} (({old}{cast}) {bytes})", part.equal)
                } else {
                    meets
                }
            })
            .collect();
        parts.join(" AND ")
    }

    /// The key columns of `from` as a bound takes them: the server's text. Not by a cast, which may be a
    /// user's own and give what its type does not read.
    pub(crate) fn key_texts(&self, from: &str) -> String {
        Self::list(&self.key, |part| format!("pg_catalog.concat({from}.{})", part.source))
    }

    /// One text of the source's key for a person: `id=3, b=x`.
    pub(crate) fn key_shown(&self, column: impl Fn(&KeyPart) -> String) -> DbResult<String> {
        let mut parts = Vec::new();
        for (position, part) in self.key.iter().enumerate() {
            let joint = if position == 0 { "" } else { ", " };
            let name = literal(&format!("{joint}{}=", part.name))?;
            parts.push(format!("{name}, {}::text", column(part)));
        }
        Ok(format!("pg_catalog.concat({})", parts.join(", ")))
    }

    /// The predicate of a range of keys over the columns that `name` gives; `true` for the whole table.
    ///
    /// # Errors
    /// A key that is not one of this table.
    pub(crate) fn range(
        &self,
        range: &KeyRange,
        name: impl Fn(&KeyPart) -> String,
    ) -> DbResult<String> {
        let mut parts = Vec::new();
        for (bound, operator) in [(&range.after, ">"), (&range.up_to, "<=")] {
            if let Some(key) = bound {
                parts.push(self.beside(key, operator, &name)?);
            }
        }
        Ok(if parts.is_empty() { "true".to_owned() } else { parts.join(" AND ") })
    }

    /// Whether the columns lie beyond the bound (`>`), or up to it (`<=`).
    fn beside(
        &self,
        key: &Key,
        operator: &str,
        name: &impl Fn(&KeyPart) -> String,
    ) -> DbResult<String> {
        if key.0.len() != self.key.len() {
            return Err(DbError::new(ErrorKind::Other, "reading a key bound", self.table.clone())
                .help("The run's record does not fit the table's key; abort the run"));
        }
        let mut bounds = Vec::new();
        for (part, value) in self.key.iter().zip(&key.0) {
            bounds.push(format!("{}::{}", literal(value)?, part.bound_type));
        }
        if self.key.iter().all(|part| part.operators == SERVERS_OWN) {
            let columns = Self::list(&self.key, name);
            return Ok(format!("({columns}) {operator} ({})", bounds.join(", ")));
        }
        // Operators of several schemas do not fit into one comparison of rows.
        let mut alternatives = Vec::new();
        for last in 0..self.key.len() {
            let mut terms = Vec::new();
            for (place, (part, bound)) in self.key.iter().zip(&bounds).take(last + 1).enumerate() {
                let operator = match (place < last, last + 1 == self.key.len()) {
                    (true, _) => "=",
                    (false, true) => operator,
                    (false, false) => operator.trim_end_matches('='),
                };
                let column = name(part);
                terms.push(format!("{column} OPERATOR({}.{operator}) {bound}", part.operators));
            }
            alternatives.push(format!("({})", terms.join(" AND ")));
        }
        let any = format!("({})", alternatives.join(" OR "));
        Ok(match (self.key.split_first(), bounds.first()) {
            // It follows, but from an alternative the server takes no end of an index to read.
            (Some((part, [_, ..])), Some(bound)) => {
                let operator = format!("{}=", operator.trim_end_matches('='));
                let column = name(part);
                format!("{column} OPERATOR({}.{operator}) {bound} AND {any}", part.operators)
            }
            _ => any,
        })
    }
}

/// The type of a column of the run's facts.
fn find(
    columns: &[(String, ColumnType)],
    name: &str,
    place: &str,
    table: &str,
) -> DbResult<ColumnType> {
    let found = columns.iter().find(|(column, _)| column == name);
    found.map(|(_, kind)| kind.clone()).ok_or_else(|| {
        let attempted = format!("looking for column {name} of {place}");
        DbError::new(ErrorKind::SourceChanged, attempted, table)
    })
}

/// What follows a key of the new shape that is looked for in the old one. It must not be cut or rounded on
/// the way: it would find the row of another key, or fail for one that no row of the old shape can have.
/// Whole numbers of two widths are compared by one family of operators, texts as what they are below
/// their length.
fn cast_back(new: &ColumnType, old: &ColumnType) -> String {
    if new.full == old.full {
        format!("::{}{}", old.base, old.collate())
    } else if old.is_one_of(&["int2", "int4", "int8"]) {
        String::new()
    } else if old.is_one_of(&["bpchar"]) {
        format!("::pg_catalog.bpchar{}", old.collate())
    } else if old.is_one_of(&["numeric"]) {
        "::pg_catalog.numeric".to_owned()
    } else {
        format!("::pg_catalog.text{}", old.collate())
    }
}

/// The columns of a table that the server computes.
async fn generated_columns(session: &Session, table: &str) -> DbResult<Vec<String>> {
    let sql = format!(
        "SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = {}::pg_catalog.regclass AND \
         attgenerated <> '' AND NOT attisdropped",
        literal(table)?
    );
    let found = rows(session, &sql, "reading the generated columns of", table).await?;
    Ok(found.iter().map(|row| text(row, 0)).collect())
}

/// The equality of each column of the source's key, by the operator family of its index, and its schema.
async fn key_operators(session: &Session, spec: &RunSpec) -> DbResult<Vec<(String, String)>> {
    let table = format!("{}.{}", spec.schema, spec.table);
    let mut operators = Vec::new();
    for column in &spec.key.columns {
        let sql = format!(
            "SELECT pg_catalog.quote_ident(s.nspname), \
             'OPERATOR(' || pg_catalog.quote_ident(s.nspname) || '.' || o.oprname || ')' \
             FROM pg_catalog.pg_index i \
             JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid AND x.relname = {} \
             JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attname = {} \
             CROSS JOIN LATERAL pg_catalog.generate_series(0, i.indnkeyatts - 1) AS place(n) \
             JOIN pg_catalog.pg_opclass c ON c.oid = i.indclass[place.n] \
             JOIN pg_catalog.pg_amop m ON m.amopfamily = c.opcfamily AND m.amopstrategy = 3 \
             AND m.amoplefttype = c.opcintype AND m.amoprighttype = c.opcintype \
             JOIN pg_catalog.pg_operator o ON o.oid = m.amopopr \
             JOIN pg_catalog.pg_namespace s ON s.oid = o.oprnamespace \
             WHERE i.indrelid = {}::pg_catalog.regclass AND i.indkey[place.n] = a.attnum",
            literal(&spec.key.source_index)?,
            literal(&column.source)?,
            literal(&quote_table(&spec.schema, &spec.table)?)?
        );
        let row = first(session, &sql, "reading the key of", &table).await?;
        operators.push(row.map_or_else(
            || (SERVERS_OWN.to_owned(), "OPERATOR(pg_catalog.=)".to_owned()),
            |row| (text(&row, 0), text(&row, 1)),
        ));
    }
    Ok(operators)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, schema: &str) -> KeyPart {
        KeyPart {
            name: name.into(),
            source: name.into(),
            target: name.into(),
            log: name.into(),
            log_type: "t".into(),
            bound_type: "t".into(),
            target_type: "t".into(),
            target_cast: "::t".into(),
            equal: "=".into(),
            recollated: false,
            operators: schema.into(),
        }
    }

    fn shape(key: Vec<KeyPart>) -> Shape {
        Shape {
            table: String::new(),
            owner: String::new(),
            places: Places {
                source: String::new(),
                shadow: String::new(),
                log: String::new(),
                retired: String::new(),
            },
            todo: String::new(),
            state: String::new(),
            steps: String::new(),
            kept: None,
            bare: String::new(),
            key,
            pairs: vec![],
            same_order: true,
            keeps_values: true,
        }
    }

    /// From alternatives alone the server reads an index from its beginning, for each range anew.
    #[test]
    fn a_key_with_operators_of_several_schemas_begins_with_a_bound_of_its_first_column() {
        let bound = |keys: [&str; 2]| Some(Key(keys.map(str::to_owned).to_vec()));
        let range = KeyRange { after: bound(["1", "x"]), up_to: bound(["2", "y"]) };
        let own = shape(vec![part("a", "pg_catalog"), part("b", "pg_catalog")]);
        let name = |part: &KeyPart| part.source.clone();
        assert_eq!(
            own.range(&range, name).unwrap(),
            "(a, b) > ('1'::t, 'x'::t) AND (a, b) <= ('2'::t, 'y'::t)"
        );
        let mixed = shape(vec![part("a", "pg_catalog"), part("b", "ext")]);
        assert_eq!(
            mixed.range(&range, name).unwrap(),
            "a OPERATOR(pg_catalog.>=) '1'::t AND ((a OPERATOR(pg_catalog.>) '1'::t) OR (a \
             OPERATOR(pg_catalog.=) '1'::t AND b OPERATOR(ext.>) 'x'::t)) AND a \
             OPERATOR(pg_catalog.<=) '2'::t AND ((a OPERATOR(pg_catalog.<) '2'::t) OR (a \
             OPERATOR(pg_catalog.=) '2'::t AND b OPERATOR(ext.<=) 'y'::t))"
        );
    }
}
