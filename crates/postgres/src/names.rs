//! The names of everything that a run makes: derived from the run's id and the source, in one place.
//!
//! The shadow stands in a private schema under the source's own name, so that whatever belongs to it
//! (indexes, constraints, sequences) can bear the source's names too: the swap renames nothing. The
//! log stands there as well. The old table goes to a second private schema, because for a moment of
//! the swap's transaction both stand outside the source's schema.

use underpin_core::plan::{Names, RunSpec};
use underpin_core::way::Way;

/// The change log's name in the private schema.
const LOG: &str = "underpin_log";

/// The return log's name in the private schema.
const RETURN_LOG: &str = "underpin_return_log";

/// What the names of everything begin with that a run makes.
pub(crate) const ANY_RUN: &str = "underpin_";

/// The schema of the shadow and the log. A run's id is of lower-case letters and digits, so this
/// fits into 63 bytes and needs no shortening.
pub(crate) fn private_schema(run_id: &str) -> String {
    format!("{ANY_RUN}{run_id}")
}

/// Where the shadow stands: on the way back that is the retired table.
pub(crate) fn shadow_schema(spec: &RunSpec) -> String {
    match spec.way {
        Way::Forward => private_schema(&spec.run_id),
        Way::Back => retired_schema(&spec.run_id),
    }
}

/// Where the swap takes the source to.
pub(crate) fn away_schema(spec: &RunSpec) -> String {
    match spec.way {
        Way::Forward => retired_schema(&spec.run_id),
        Way::Back => private_schema(&spec.run_id),
    }
}

/// A table that each way has for itself: it stands in the private schema under this name, quoted.
pub(crate) fn own_place(spec: &RunSpec, what: &str) -> underpin_dialect::DbResult<String> {
    let name = match spec.way {
        Way::Forward => format!("{ANY_RUN}{what}"),
        Way::Back => format!("{ANY_RUN}return_{what}"),
    };
    crate::query::quote_table(&private_schema(&spec.run_id), &name)
}

/// The schema of the old table, from the swap on.
pub(crate) fn retired_schema(run_id: &str) -> String {
    format!("underpin_{run_id}_old")
}

/// All names of a run on this table.
pub(crate) fn names(run_id: &str, table: &str) -> Names {
    let trigger = |event: &str| format!("underpin_{run_id}_{event}");
    Names {
        shadow: table.to_owned(),
        log: LOG.to_owned(),
        retired: table.to_owned(),
        triggers: [trigger("insert"), trigger("update"), trigger("delete")],
        return_log: RETURN_LOG.to_owned(),
        return_triggers: [trigger("back_insert"), trigger("back_update"), trigger("back_delete")],
        // No server of this family needs a fence.
        fences: [String::new(), String::new(), String::new()],
    }
}

/// The row-level capture trigger and its function, which lives in the private schema.
pub(crate) fn capture_trigger(run_id: &str, way: Way) -> String {
    format!("underpin_{run_id}_{}capture", of_way(way))
}

/// The trigger that marks a TRUNCATE in the log, and its function.
pub(crate) fn truncate_trigger(run_id: &str, way: Way) -> String {
    format!("underpin_{run_id}_{}truncate", of_way(way))
}

fn of_way(way: Way) -> &'static str {
    match way {
        Way::Forward => "",
        Way::Back => "back_",
    }
}

/// The comment that every object of ours bears, so that left-overs can be told from other people's.
pub(crate) fn comment(run_id: &str) -> String {
    format!("underpin run {run_id}")
}

/// Where things of this run stand, quoted and ready for statements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places {
    /// `"shop"."orders"`.
    pub(crate) source: String,
    /// The table that the swap brings, before it.
    pub(crate) shadow: String,
    /// The change log of this way.
    pub(crate) log: String,
    /// The table that the swap takes away, after it.
    pub(crate) retired: String,
}

/// The places of a run.
///
/// # Errors
/// A name that no identifier can have.
pub(crate) fn places(spec: &RunSpec) -> underpin_dialect::DbResult<Places> {
    let private = private_schema(&spec.run_id);
    Ok(Places {
        source: crate::query::quote_table(&spec.schema, &spec.table)?,
        shadow: crate::query::quote_table(&shadow_schema(spec), &spec.names.shadow)?,
        log: crate::query::quote_table(&private, &spec.names.log)?,
        retired: crate::query::quote_table(&away_schema(spec), &spec.names.retired)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_short_whatever_the_table_is_called() {
        // Run ids have at most 20 characters.
        let run_id = "a".repeat(20);
        let table = "t".repeat(63);
        let names = names(&run_id, &table);
        assert_eq!(names.shadow, table);
        let ours = [
            private_schema(&run_id),
            retired_schema(&run_id),
            capture_trigger(&run_id, Way::Back),
            truncate_trigger(&run_id, Way::Back),
            names.triggers[0].clone(),
            names.return_triggers[0].clone(),
        ];
        for name in ours {
            assert!(name.len() <= 63, "{name}");
        }
    }
}
