//! Which old column fills which new column, and which key identifies a row in both shapes.
//!
//! The server has judged the user's ALTER already; here the catalogues of source and shadow are
//! compared. What the catalogue cannot tell (a rename from a drop plus an add) comes from the clauses.

use serde::{Deserialize, Serialize};

use crate::schema::{Column, Index, Table};

/// A column that exists in both shapes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnPair {
    /// Its name in the source.
    pub source: String,
    /// Its name in the shadow.
    pub target: String,
    /// Whether its type, character set, collation or nullability changes.
    pub changed: bool,
}

/// What becomes of the columns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// Columns whose values are copied, in the order of the shadow.
    pub pairs: Vec<ColumnPair>,
    /// Columns that only the shadow has, and that are stored: they take their default.
    pub added: Vec<String>,
    /// Columns that only the source has.
    pub dropped: Vec<String>,
}

/// What the clauses of the user's statement say about columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColumnHints {
    /// (old name, new name) of each rename.
    pub renames: Vec<(String, String)>,
    /// Columns that the statement adds, also where a column of that name is dropped by it.
    pub added: Vec<String>,
    /// Columns that the statement drops.
    pub dropped: Vec<String>,
}

/// Why the columns cannot be mapped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MappingError {
    /// The shadow has a column that neither the source nor the statement explains.
    #[error(
        "column {0} appears in the new shape, but the statement neither adds it nor renames a column \
         to it; state it as ADD COLUMN, RENAME COLUMN or CHANGE COLUMN"
    )]
    Unexplained(String),
    /// The statement renames a column that the source does not have.
    #[error("the statement renames column {0}, which the table does not have")]
    NoSuchColumn(String),
    /// No key can serve in both shapes.
    #[error(
        "no usable key: a primary key, or a unique key whose columns are all NOT NULL, must stand in \
         the table before and after the change ({0}); add one first, in a change of its own"
    )]
    NoKey(String),
}

/// Maps the columns of `source` to those of `shadow`.
///
/// # Errors
/// A column that cannot be explained.
pub fn map_columns(
    source: &Table,
    shadow: &Table,
    hints: &ColumnHints,
) -> Result<Mapping, MappingError> {
    for (old, _) in &hints.renames {
        if source.column(old).is_none() {
            return Err(MappingError::NoSuchColumn(old.clone()));
        }
    }
    let mut mapping = Mapping::default();
    let mut used: Vec<&str> = Vec::new();
    for target in &shadow.columns {
        match origin(source, target, hints)? {
            Some(column) => {
                used.push(&column.name);
                if !target.generated {
                    mapping.pairs.push(ColumnPair {
                        source: column.name.clone(),
                        target: target.name.clone(),
                        changed: differs(column, target),
                    });
                }
            }
            None if target.generated => {}
            None => mapping.added.push(target.name.clone()),
        }
    }
    mapping.dropped = source
        .columns
        .iter()
        .filter(|column| !used.contains(&column.name.as_str()))
        .map(|column| column.name.clone())
        .collect();
    Ok(mapping)
}

/// The source column that fills `target`; `None` where the statement adds it.
fn origin<'a>(
    source: &'a Table,
    target: &Column,
    hints: &ColumnHints,
) -> Result<Option<&'a Column>, MappingError> {
    let same = |a: &str, b: &str| a.to_lowercase() == b.to_lowercase();
    if let Some((old, _)) = hints.renames.iter().find(|(_, new)| same(new, &target.name)) {
        return Ok(source.column(old));
    }
    if hints.added.iter().any(|added| same(added, &target.name)) {
        return Ok(None);
    }
    let moved_away = hints.renames.iter().any(|(old, _)| same(old, &target.name));
    match source.column(&target.name) {
        Some(column) if !moved_away => Ok(Some(column)),
        _ => Err(MappingError::Unexplained(target.name.clone())),
    }
}

fn differs(source: &Column, target: &Column) -> bool {
    source.full_type != target.full_type
        || source.charset != target.charset
        || source.collation != target.collation
        || source.srs_id != target.srs_id
        || (source.nullable && !target.nullable)
}

/// How a key column of the source fits its counterpart in the shadow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyFit {
    /// The same type: same values, same order, same equality.
    Same,
    /// A wider type: every value survives, order and equality stay.
    Wider,
    /// Every value survives byte by byte after conversion, but order or equality may differ.
    Recollated,
}

/// One column of the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyColumn {
    /// Its name in the source.
    pub source: String,
    /// Its name in the shadow.
    pub target: String,
    /// How the two fit.
    pub fit: KeyFit,
}

/// The key that identifies a row in both shapes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySpec {
    /// The source's index.
    pub source_index: String,
    /// The shadow's index over the same columns.
    pub target_index: String,
    /// Columns in the order of the source's index.
    pub columns: Vec<KeyColumn>,
    /// Whether a stretch of keys covers the same rows in both tables, so that ranges can be compared
    /// side by side.
    pub same_order: bool,
}

/// Chooses the key: the source's primary key if it survives, else the first unique key that does.
///
/// `fit` tells how a source column fits its target as a key column, `None` where it does not.
///
/// # Errors
/// No key qualifies; the message tells why each candidate does not.
pub fn choose_key(
    source: &Table,
    shadow: &Table,
    mapping: &Mapping,
    fit: impl Fn(&Column, &Column) -> Option<KeyFit>,
) -> Result<KeySpec, MappingError> {
    let mut reasons = Vec::new();
    for index in source.indexes.iter().filter(|index| index.unique) {
        match key_from(index, source, shadow, mapping, &fit) {
            Ok(key) => return Ok(key),
            Err(reason) => reasons.push(format!("{}: {reason}", index.name)),
        }
    }
    if reasons.is_empty() {
        reasons.push("the table has no unique index".to_owned());
    }
    Err(MappingError::NoKey(reasons.join("; ")))
}

/// Whether the index could be a key by the source alone: whole, NOT NULL, stored columns.
///
/// # Errors
/// The reason why not.
pub fn qualifies(index: &Index, table: &Table) -> Result<(), String> {
    for part in &index.parts {
        let Some(name) = part.column.as_deref() else {
            return Err("it has an expression".to_owned());
        };
        let Some(column) = table.column(name) else {
            return Err(format!("its column {name} is missing"));
        };
        if !part.whole {
            return Err(format!("it holds only a prefix of {name}"));
        }
        if column.nullable {
            return Err(format!("{name} allows NULL"));
        }
        if column.generated {
            return Err(format!("{name} is generated"));
        }
    }
    Ok(())
}

fn key_from(
    index: &Index,
    source: &Table,
    shadow: &Table,
    mapping: &Mapping,
    fit: impl Fn(&Column, &Column) -> Option<KeyFit>,
) -> Result<KeySpec, String> {
    qualifies(index, source)?;
    let mut columns = Vec::new();
    for part in &index.parts {
        let name = part.column.as_deref().unwrap_or_default();
        let pair = mapping
            .pairs
            .iter()
            .find(|pair| pair.source.eq_ignore_ascii_case(name))
            .ok_or_else(|| format!("{name} does not survive the change"))?;
        let (Some(old), Some(new)) = (source.column(name), shadow.column(&pair.target)) else {
            return Err(format!("{name} is missing"));
        };
        let fit = fit(old, new)
            .ok_or_else(|| format!("{name} changes from {} to {}", old.full_type, new.full_type))?;
        columns.push(KeyColumn { source: old.name.clone(), target: new.name.clone(), fit });
    }
    let descending = index.parts.iter().any(|part| part.descending);
    let target_index = shadow
        .indexes
        .iter()
        .filter(|candidate| candidate.unique && qualifies(candidate, shadow).is_ok())
        .find(|candidate| same_columns(candidate, &columns))
        .ok_or_else(|| "the new shape has no unique key over these columns".to_owned())?;
    let same_parts = target_index.parts.iter().zip(&columns).all(|(part, column)| {
        part.column.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(&column.target))
    });
    Ok(KeySpec {
        source_index: index.name.clone(),
        target_index: target_index.name.clone(),
        same_order: same_parts
            && !descending
            && columns.iter().all(|column| column.fit != KeyFit::Recollated),
        columns,
    })
}

fn same_columns(index: &Index, columns: &[KeyColumn]) -> bool {
    index.parts.len() == columns.len()
        && columns.iter().all(|column| {
            index.parts.iter().any(|part| {
                part.column.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(&column.target))
            })
        })
}
