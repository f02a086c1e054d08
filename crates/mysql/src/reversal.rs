//! What `plan` says of the way back: whether a change can be reverted once rows were written to the new
//! table, and what would not come back.
//!
//! Told from the catalogues alone. What depends on values is told as what stops a revert; nothing is
//! lost in silence.

use underpin_core::finding::Finding;
use underpin_core::mapping::{KeyFit, Mapping};
use underpin_core::schema::{Column, Index, Table};

use crate::types::key_fit;

/// Findings for a run whose way back is kept.
pub(crate) fn findings(source: &Table, scratch: &Table, mapping: &Mapping) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in &mapping.dropped {
        findings.extend(source.column(name).and_then(dropped));
    }
    for name in &mapping.added {
        findings.push(Finding::note(
            "revert-added",
            format!(
                "a revert takes column {name} away; its values stay beside until `underpin finish`"
            ),
        ));
    }
    for pair in &mapping.pairs {
        if let (Some(old), Some(new)) = (source.column(&pair.source), scratch.column(&pair.target))
        {
            findings.extend(converted(old, new));
        }
    }
    findings.extend(source.columns.iter().filter_map(|old| computed(old, scratch, mapping)));
    let unique = source.indexes.iter().filter(|index| index.unique);
    findings.extend(unique.filter_map(|index| guard(index, scratch, mapping)));
    findings
}

/// A column that only the old shape has.
fn dropped(old: &Column) -> Option<Finding> {
    if old.generated {
        return None;
    }
    let name = &old.name;
    Some(if old.has_default {
        Finding::note(
            "revert-default",
            format!(
                "a revert brings column {name} back with its values; rows that were inserted since get \
                 its default"
            ),
        )
    } else {
        Finding::warning(
            "revert-no-default",
            format!(
                "column {name} is NOT NULL without a DEFAULT: once a row was inserted into the new table \
                 a revert stops there"
            ),
            format!("Give {name} a DEFAULT before the change, or take the change for final"),
        )
    })
}

/// A column of another type: its new values may not fit the old one.
fn converted(old: &Column, new: &Column) -> Option<Finding> {
    let allows_null = new.nullable && !old.nullable;
    // A type into which every value goes without loss.
    let holds = matches!(key_fit(new, old), Some(KeyFit::Same | KeyFit::Wider))
        || (old.full_type == new.full_type && old.charset == new.charset);
    let why = match (old.generated, allows_null, holds) {
        (true, ..) => "a value that the old shape would not compute",
        (false, false, true) => return None,
        (false, true, true) => "a NULL",
        (false, ..) => "a value that does not fit there",
    };
    Some(Finding::note(
        "revert-conversion",
        format!("{} goes back to {} {}: {why} stops a revert", new.name, old.name, old.full_type),
    ))
}

/// A column that was stored and is computed in the new shape.
fn computed(old: &Column, scratch: &Table, mapping: &Mapping) -> Option<Finding> {
    let is_carried = mapping.pairs.iter().any(|pair| pair.source == old.name)
        || mapping.dropped.contains(&old.name);
    let new = scratch.column(&old.name)?;
    (!is_carried && new.generated && !old.generated).then(|| {
        Finding::warning(
            "revert-computed",
            format!(
                "column {} is computed in the new shape: a revert brings back the values from before the \
                 change, also in rows that were written since",
                old.name
            ),
            "Look at those rows after a revert",
        )
    })
}

/// A unique index that the new shape does not have.
fn guard(index: &Index, scratch: &Table, mapping: &Mapping) -> Option<Finding> {
    let target = |name: &str| {
        let pair = mapping.pairs.iter().find(|pair| pair.source.eq_ignore_ascii_case(name));
        pair.map_or_else(|| name.to_owned(), |pair| pair.target.clone())
    };
    let parts: Vec<Option<String>> =
        index.parts.iter().map(|part| part.column.as_deref().map(target)).collect();
    let stands = scratch.indexes.iter().filter(|other| other.unique).any(|other| {
        other.parts.len() <= parts.len()
            && other.parts.iter().all(|part| {
                part.column.is_some()
                    && parts.iter().any(|mine| match (mine, &part.column) {
                        (Some(mine), Some(other)) => mine.eq_ignore_ascii_case(other),
                        _ => false,
                    })
            })
    });
    (!stands).then(|| {
        Finding::note(
            "revert-unique",
            format!(
                "unique index {} is gone after the change: duplicates stop a revert",
                index.name
            ),
        )
    })
}
