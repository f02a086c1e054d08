//! Capture: the change log, the functions and triggers that append the key of each changed row to it in
//! the writer's own transaction, and what is kept beside it.
//!
//! Owns the SQL; who runs it, in which transaction and with which lock time-out, is the shadow's
//! business. All of it is to be run as the owner of the source.
//!
//! The functions are `SECURITY DEFINER`, because whoever writes to the table has no right to the log.
//! So everything in them is qualified, operators too: nothing in a writer's search path may be called
//! in the owner's name.

use underpin_core::plan::{Capture, RunSpec};
use underpin_dialect::DbResult;

use crate::names;
use crate::query::{literal, quote, quote_table};
use crate::shape::Shape;

/// The log, the keys that are still to do, and the run's own marks on the server.
///
/// A row of the log whose key is NULL is the marker of a `TRUNCATE`. The log is append-only: what has
/// been applied is told by a snapshot, so it bears no dead rows and nothing waits for a writer.
///
/// # Errors
/// A name that no identifier can have.
pub(crate) fn log_sql(shape: &Shape, spec: &RunSpec) -> DbResult<Vec<String>> {
    let columns = Shape::list(&shape.key, |part| format!("{} {}", part.log, part.log_type));
    let (log, todo, state) = (&shape.places.log, &shape.todo, &shape.state);
    let comment = literal(&names::comment(&spec.run_id))?;
    Ok(vec![
        format!(
            "CREATE TABLE {log} (xid pg_catalog.xid8 NOT NULL DEFAULT \
             pg_catalog.pg_current_xact_id(), {columns})"
        ),
        format!("CREATE INDEX {} ON {log} (xid)", quote(&format!("{}_xid", spec.names.log))?),
        format!("CREATE TABLE {todo} ({columns})"),
        // Whether a key is noted already is asked for each of a stretch of the log.
        format!(
            "CREATE INDEX {} ON {todo} ({})",
            quote(&format!("{}_todo_key", spec.names.log))?,
            shape.log_key("")
        ),
        format!(
            "CREATE TABLE {state} (applied pg_catalog.pg_snapshot NOT NULL DEFAULT '1:1:', \
             blocks bigint, filenode pg_catalog.oid)"
        ),
        format!("INSERT INTO {state} DEFAULT VALUES"),
        format!("COMMENT ON TABLE {log} IS {comment}"),
    ])
}

/// What keeps rows that are taken out of the shadow, for a way that was gone before: until they are written
/// again, it alone has what the source cannot give. Made of the table that stands as the source until the
/// swap, and is the shadow of `shape` behind it.
///
/// # Errors
/// A name that no identifier can have.
pub(crate) fn kept_sql(shape: &Shape, spec: &RunSpec) -> DbResult<Vec<String>> {
    let kept = names::own_place(spec, "kept")?;
    let key = Shape::list(&shape.key, |part| part.target.clone());
    Ok(vec![
        format!("CREATE TABLE {kept} (LIKE {})", shape.places.source),
        format!(
            "CREATE INDEX {} ON {kept} ({key})",
            quote(&format!("{}_kept_key", spec.names.log))?
        ),
    ])
}

/// Removes what [`log_sql`] and [`kept_sql`] made when this way was gone before.
///
/// # Errors
/// A name that no identifier can have.
pub(crate) fn forget_sql(shape: &Shape, spec: &RunSpec) -> DbResult<String> {
    let (log, todo, state) = (&shape.places.log, &shape.todo, &shape.state);
    Ok(format!("DROP TABLE IF EXISTS {log}, {todo}, {state}, {}", names::own_place(spec, "kept")?))
}

/// The functions of the triggers.
///
/// # Errors
/// A name that no identifier can have.
pub(crate) fn functions_sql(shape: &Shape, spec: &RunSpec) -> DbResult<Vec<String>> {
    let mut statements = Vec::new();
    for trigger in triggers(shape, spec) {
        let function = quote_table(&names::private_schema(&spec.run_id), &trigger.name)?;
        statements.extend([
            format!(
                "CREATE OR REPLACE FUNCTION {function}() RETURNS pg_catalog.trigger LANGUAGE plpgsql \
                 SECURITY DEFINER AS {}",
                literal(&format!("BEGIN {} RETURN NULL; END", trigger.body))?
            ),
            // Nobody else may hang it on a table of his own and write into the log by it.
            format!("REVOKE ALL ON FUNCTION {function}() FROM PUBLIC"),
        ]);
    }
    Ok(statements)
}

/// The triggers, to be made under the source's lock after [`log_sql`] and [`functions_sql`] in one
/// transaction.
///
/// They are `ENABLE ALWAYS`: writes of a session whose `session_replication_role` is `replica` are
/// changes like all others.
///
/// # Errors
/// A name that no identifier can have.
pub(crate) fn capture_sql(shape: &Shape, spec: &RunSpec) -> DbResult<Vec<String>> {
    let mut statements = Vec::new();
    for trigger in triggers(shape, spec) {
        let function = quote_table(&names::private_schema(&spec.run_id), &trigger.name)?;
        let name = quote(&trigger.name)?;
        let source = &shape.places.source;
        statements.extend([
            format!(
                "CREATE TRIGGER {name} {} ON {source} {} EXECUTE FUNCTION {function}()",
                trigger.when, trigger.each
            ),
            format!("ALTER TABLE {source} ENABLE ALWAYS TRIGGER {name}"),
        ]);
    }
    Ok(statements)
}

/// Drops the triggers where they exist; needs the source's lock. The functions stand in the private
/// schema and go with it.
///
/// # Errors
/// A name that no identifier can have.
pub(crate) fn drop_sql(table: &str, spec: &RunSpec) -> DbResult<Vec<String>> {
    all_names(spec)
        .iter()
        .map(|name| Ok(format!("DROP TRIGGER IF EXISTS {} ON {table}", quote(name)?)))
        .collect()
}

/// The names of both kinds.
fn all_names(spec: &RunSpec) -> Vec<String> {
    let mut names = spec.names.triggers.to_vec();
    names.push(names::capture_trigger(&spec.run_id, spec.way));
    names.push(names::truncate_trigger(&spec.run_id, spec.way));
    names
}

struct Trigger {
    name: String,
    when: &'static str,
    each: &'static str,
    body: String,
}

fn triggers(shape: &Shape, spec: &RunSpec) -> Vec<Trigger> {
    let log = &shape.places.log;
    let key = shape.log_key("");
    let of = |row: &str| Shape::list(&shape.key, |part| format!("{row}.{}", part.source));
    let mut list = vec![Trigger {
        name: names::truncate_trigger(&spec.run_id, spec.way),
        // Before, so that the marker stands even where the same transaction writes rows again.
        when: "BEFORE TRUNCATE",
        each: "FOR EACH STATEMENT",
        body: format!("INSERT INTO {log} DEFAULT VALUES;"),
    }];
    if spec.capture == Capture::Row {
        list.push(Trigger {
            name: names::capture_trigger(&spec.run_id, spec.way),
            when: "AFTER INSERT OR UPDATE OR DELETE",
            each: "FOR EACH ROW",
            body: row_body(shape, &of),
        });
        return list;
    }
    let append =
        |table: &str| format!("INSERT INTO {log} ({key}) SELECT {} FROM {table};", of(table));
    let [insert, update, delete] = &spec.names.triggers;
    list.push(Trigger {
        name: insert.clone(),
        when: "AFTER INSERT",
        each: "REFERENCING NEW TABLE AS underpin_new FOR EACH STATEMENT",
        body: append("underpin_new"),
    });
    list.push(Trigger {
        name: update.clone(),
        when: "AFTER UPDATE",
        each: "REFERENCING OLD TABLE AS underpin_old NEW TABLE AS underpin_new FOR EACH STATEMENT",
        // Which old row became which new one cannot be told, so both keys are always logged.
        body: format!(
            "INSERT INTO {log} ({key}) SELECT {} FROM underpin_old UNION ALL SELECT {} FROM \
             underpin_new;",
            of("underpin_old"),
            of("underpin_new")
        ),
    });
    list.push(Trigger {
        name: delete.clone(),
        when: "AFTER DELETE",
        each: "REFERENCING OLD TABLE AS underpin_old FOR EACH STATEMENT",
        body: append("underpin_old"),
    });
    list
}

/// An update that moves the key logs both keys. They are compared as they are stored: two keys that are
/// equal for an operator may be two keys in the new shape.
fn row_body(shape: &Shape, of: &impl Fn(&str) -> String) -> String {
    let append = |rows: &str| {
        format!("INSERT INTO {} ({}) VALUES {rows};", shape.places.log, shape.log_key(""))
    };
    let (old, new) = (of("OLD"), of("NEW"));
    format!(
        "IF TG_OP OPERATOR(pg_catalog.=) 'INSERT' THEN {} \
         ELSIF TG_OP OPERATOR(pg_catalog.=) 'DELETE' THEN {} \
         ELSIF ROW({old})::pg_catalog.record OPERATOR(pg_catalog.*<>) ROW({new})::pg_catalog.record \
         THEN {} ELSE {} END IF;",
        append(&format!("({new})")),
        append(&format!("({old})")),
        append(&format!("({old}), ({new})")),
        append(&format!("({new})"))
    )
}
