//! Whether a change could be taken back: what `plan` says where that is asked for.

use underpin_core::finding::Finding;
use underpin_core::mapping::{KeyFit, KeySpec, Mapping};
use underpin_core::schema::{Column, Table};
use underpin_dialect::DbResult;

use crate::connect::Session;
use crate::dependents::Subject;
use crate::keys::NOT_DETERMINISTIC;
use crate::query::{quote, run, undo};

/// What to do where the way back cannot be kept.
const LEAVE_OUT: &str =
    "Leave --finish keep out: then the change can be made, and not be taken back";

/// Looks at the change from its other end.
///
/// # Errors
/// The server's.
pub(crate) async fn findings(
    session: &Session,
    source: &Subject,
    old: &Table,
    new: &Table,
    mapping: &Mapping,
    key: &KeySpec,
) -> DbResult<Vec<Finding>> {
    let mut findings = Vec::new();
    for pair in mapping.pairs.iter().filter(|pair| pair.changed) {
        let (Some(from), Some(to)) = (new.column(&pair.target), old.column(&pair.source)) else {
            continue;
        };
        if from.full_type == to.full_type || to.generated {
            continue;
        }
        if !can_be_assigned(session, source, from, to).await? {
            findings.push(Finding::refusal(
                "way-back-cast",
                format!(
                    "column {} cannot be taken back: the server assigns no {} to a column of type {}",
                    from.name, from.full_type, to.full_type
                ),
                LEAVE_OUT,
            ));
        }
    }
    for column in &key.columns {
        let (Some(from), Some(to)) = (old.column(&column.source), new.column(&column.target))
        else {
            continue;
        };
        if column.fit != KeyFit::Same && !can_be_looked_for(from, to) {
            findings.push(Finding::refusal(
                "way-back-key",
                format!(
                    "key column {} changes from {} to {}: going back, rows could not be told apart by it",
                    column.source, from.full_type, to.full_type
                ),
                LEAVE_OUT,
            ));
        }
    }
    let needed = |name: &&String| old.column(name).is_some_and(|column| !column.has_default);
    for name in mapping.dropped.iter().filter(needed) {
        findings.push(Finding::warning(
            "way-back-default",
            format!(
                "column {name}, which is dropped, is NOT NULL and has no default: rows that are inserted after \
                 the swap cannot be taken back"
            ),
            "Give it a DEFAULT first, if the change is to be revertible once rows have come",
        ));
    }
    Ok(findings)
}

/// Whether a value of the new column may be written to the old one without a cast of the user's. The server
/// tells it without doing it.
async fn can_be_assigned(
    session: &Session,
    source: &Subject,
    from: &Column,
    to: &Column,
) -> DbResult<bool> {
    let object = source.object();
    let sql = format!(
        "BEGIN; SET LOCAL ROLE {}; EXPLAIN INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT NULL::{}; \
         ROLLBACK",
        quote(&source.owner)?,
        source.quoted()?,
        quote(&to.name)?,
        from.full_type
    );
    let tried = run(session, &sql, "trying the way back of", &object).await.map(drop);
    match undo(session, tried).await {
        Ok(()) => Ok(true),
        Err(error) if error.is_ambiguous() || error.is_retryable() => Err(error),
        Err(error) => Ok(!crate::error::has_state(&error, "42804")),
    }
}

/// Whether the old table's index finds a row by a key of the new shape, and never another one.
fn can_be_looked_for(old: &Column, new: &Column) -> bool {
    let among =
        |kinds: &[&str]| [old, new].iter().all(|column| kinds.contains(&column.base_type.as_str()));
    let is_loose = [old, new].iter().any(|column| {
        column.collation.as_ref().is_some_and(|name| name.ends_with(NOT_DETERMINISTIC))
    });
    !is_loose
        && (among(&["int2", "int4", "int8"])
            || among(&["varchar", "text"])
            || among(&["bpchar"])
            || among(&["numeric"]))
}
