//! What is looked at before anything is created. Each check names what it saw and what to do.
//!
//! The order is fixed, so that a statement that fails several checks always reports them alike. What
//! cannot be carried is in `dependents::refused`, missing rights are in `privileges`.

use underpin_core::alter::ClauseKind;
use underpin_core::finding::Finding;
use underpin_core::mapping::{KeySpec, Mapping, qualifies};
use underpin_core::schema::{Column, Table};
use underpin_dialect::{DbError, DbResult, ErrorKind, Request};

use crate::build::BUILDS_MAX;
use crate::control::Control;
use crate::dependents::{Subject, refused};
use crate::query::{flag, literal, rows, text};
use crate::{health, names, privileges};

/// Checks that hold whatever way the change is made: the statement, the server, the table's name.
///
/// # Errors
/// The server's.
pub(crate) async fn before(
    control: &mut Control,
    request: &Request,
    schema: &str,
    table: &str,
) -> DbResult<Vec<Finding>> {
    let mut findings = statement(request);
    findings.extend(server(control).await?);
    findings.extend(
        health::replica_findings(&control.session, &control.server, &request.replicas).await?,
    );
    match Subject::read(&control.session, schema, table).await {
        Ok(source) => findings.extend(privileges::check(control, &source).await?),
        Err(error) if error.kind == ErrorKind::NotFound => findings.push(no_table(&error)),
        Err(error) => return Err(error),
    }
    findings.extend(left_overs(control, &request.run_id).await?);
    Ok(findings)
}

fn no_table(error: &DbError) -> Finding {
    Finding::refusal(
        "no-such-table",
        format!("there is no table {}", error.object),
        error.help.clone().unwrap_or_default(),
    )
}

fn statement(request: &Request) -> Vec<Finding> {
    let mut findings = Vec::new();
    for clause in &request.alter.clauses {
        let refused = match &clause.kind {
            ClauseKind::RenameTable { to } => Some((
                "rename-table",
                format!("the statement renames the table to {to}"),
                "Rename it in a statement of its own: that is done in an instant",
            )),
            ClauseKind::SetSchema { to } => Some((
                "set-schema",
                format!("the statement moves the table to schema {to}"),
                "Move it in a statement of its own: that is done in an instant",
            )),
            ClauseKind::PartitionVerb(verb) => Some((
                "partition-verb",
                format!("{verb} PARTITION works on single partitions"),
                "Run it directly: a copy would not do what it means",
            )),
            _ => None,
        };
        if let Some((code, message, remedy)) = refused {
            findings.push(Finding::refusal(code, message, remedy));
        }
    }
    findings
}

async fn server(control: &Control) -> DbResult<Vec<Finding>> {
    let sql = "SELECT pg_catalog.pg_is_in_recovery(), \
               pg_catalog.current_setting('transaction_read_only') = 'on'";
    let found = rows(&control.session, sql, "asking whether the server takes writes", "").await?;
    let Some(row) = found.first() else { return Ok(Vec::new()) };
    let mut findings = Vec::new();
    if flag(row, 0) {
        findings.push(Finding::refusal(
            "replica",
            "the server is a standby",
            "Connect to its primary: the change reaches the standby by itself",
        ));
    } else if flag(row, 1) {
        findings.push(Finding::refusal(
            "read-only",
            "the server refuses writes",
            "Set default_transaction_read_only to off for this role",
        ));
    }
    Ok(findings)
}

/// Left-overs of a run with this id.
async fn left_overs(control: &Control, run_id: &str) -> DbResult<Vec<Finding>> {
    let sql = format!(
        "SELECT nspname FROM pg_catalog.pg_namespace WHERE nspname IN ({}, {})",
        literal(&names::private_schema(run_id))?,
        literal(&names::retired_schema(run_id))?
    );
    let found = rows(&control.session, &sql, "looking for left-overs", "").await?;
    Ok(found
        .iter()
        .map(|row| {
            Finding::refusal(
                "left-over",
                format!("schema {} is left over from another run", text(row, 0)),
                "Look at `underpin status`; `underpin abort` clears an open run",
            )
        })
        .collect())
}

/// What stands in the way of a copy and a swap.
///
/// # Errors
/// The server's.
pub(crate) async fn obstacles(
    control: &Control,
    source: &Subject,
    table: &Table,
) -> DbResult<Vec<Finding>> {
    let mut findings = refused::findings(&control.session, source).await?;
    findings.extend(keys(table));
    findings.extend(privileges::check_for_copy(control, source).await?);
    findings.extend(warnings(control, source).await?);
    Ok(findings)
}

/// A key must exist in the source at least; whether it survives is told after the server judged the
/// statement.
fn keys(table: &Table) -> Option<Finding> {
    let unique: Vec<_> = table.indexes.iter().filter(|index| index.unique).collect();
    if unique.iter().any(|index| qualifies(index, table).is_ok()) {
        return None;
    }
    let mut reasons: Vec<String> = unique
        .iter()
        .filter_map(|index| {
            qualifies(index, table).err().map(|why| format!("{}: {why}", index.name))
        })
        .collect();
    if reasons.is_empty() {
        reasons.push("it has no unique index that holds at all times for all rows".to_owned());
    }
    Some(Finding::refusal(
        "no-usable-key",
        format!("{}.{} has no usable key ({})", table.schema, table.name, reasons.join("; ")),
        "Rows are told apart by a primary key, or by a unique key whose columns are all NOT NULL, \
         neither partial nor deferrable: add one first",
    ))
}

/// What is worth knowing before the run.
async fn warnings(control: &Control, source: &Subject) -> DbResult<Vec<Finding>> {
    let sql = format!(
        "SELECT 'invalid-index', pg_catalog.format('index %s is invalid and will not be made again', \
         indexrelid::regclass), 'DROP it, or REINDEX it first if it is wanted' FROM \
         pg_catalog.pg_index WHERE indrelid = {oid} AND NOT (indisvalid AND indisready AND indislive) \
         UNION ALL SELECT 'prepared-transaction', pg_catalog.format('prepared transaction %L holds \
         the table', x.gid), 'It cannot be cancelled: the swap waits until COMMIT PREPARED or \
         ROLLBACK PREPARED' FROM pg_catalog.pg_prepared_xacts x JOIN pg_catalog.pg_locks k ON \
         k.virtualtransaction = '-1/' || x.transaction WHERE k.relation = {oid} UNION ALL SELECT \
         'event-trigger', pg_catalog.format('event trigger %I fires for our definitions too', \
         evtname), 'Make sure that it lets them pass' FROM pg_catalog.pg_event_trigger WHERE \
         evtenabled <> 'D'",
        oid = source.oid
    );
    let found = rows(&control.session, &sql, "looking around", &source.object()).await?;
    Ok(found
        .iter()
        .map(|row| Finding::warning(&text(row, 0), text(row, 1), text(row, 2)))
        .collect())
}

/// What the change itself means for rows and dependents.
///
/// # Errors
/// The server's.
pub(crate) async fn change(
    control: &Control,
    source: &Subject,
    old: &Table,
    new: &Table,
    mapping: &Mapping,
) -> DbResult<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut retyped = Vec::new();
    for pair in mapping.pairs.iter().filter(|pair| pair.changed) {
        let (Some(from), Some(to)) = (old.column(&pair.source), new.column(&pair.target)) else {
            continue;
        };
        if from.full_type != to.full_type || from.collation != to.collation {
            retyped.push(pair.source.clone());
        }
        findings.push(conversion(from, to));
    }
    findings.extend(refused::by_column(&control.session, source, mapping, &retyped).await?);
    findings.extend(sessions(old, new, mapping, &retyped));
    for name in &mapping.added {
        if let Some(column) = new.column(name).filter(|column| !column.has_default) {
            findings.push(Finding::refusal(
                "no-default",
                format!(
                    "column {name} is added as {} NOT NULL, and nothing says what the rows there are \
                     shall have in it",
                    column.full_type
                ),
                "Give it a DEFAULT, or let it be NULL",
            ));
        }
    }
    for dropped in &mapping.dropped {
        findings.push(Finding::note("column-dropped", format!("column {dropped} is dropped")));
    }
    Ok(findings)
}

/// What of a run holds back vacuum for longer than a chunk takes.
pub(crate) fn long_snapshots(indexes: &[String], key: &KeySpec) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !indexes.is_empty() {
        findings.push(Finding::note(
            "index-builds",
            format!(
                "{} indexes are built after the copy, {BUILDS_MAX} at a time at most, and the new table is \
                 analysed; until each of that has ended vacuum removes no row that dies meanwhile",
                indexes.len()
            ),
        ));
    }
    if !key.same_order {
        findings.push(Finding::note(
            "key-order",
            "the key sorts otherwise in the new shape: at the end of the comparison the rows of both tables \
             are counted in one snapshot, and until that has ended vacuum removes no row that dies meanwhile",
        ));
    }
    findings
}

fn conversion(old: &Column, new: &Column) -> Finding {
    let mut change =
        format!("{} {} becomes {} {}", old.name, old.full_type, new.name, new.full_type);
    if old.nullable && !new.nullable {
        change.push_str(" NOT NULL");
    }
    Finding::note(
        "conversion",
        format!("{change}; a value that does not fit stops the run before the swap"),
    )
}

/// What sessions that are open at the swap may meet, as after any ALTER TABLE that changes what a query
/// returns. `retyped`: columns of the source with another type.
fn sessions(old: &Table, new: &Table, mapping: &Mapping, retyped: &[String]) -> Vec<Finding> {
    let mut findings = vec![Finding::note(
        "old-snapshots",
        "a REPEATABLE READ or SERIALIZABLE transaction that begins before the swap and first reads the \
         table after it may not see rows there, as after a rewriting ALTER TABLE; one that has read the \
         table before is waited for",
    )];
    let names = |table: &Table| -> Vec<String> {
        table.columns.iter().map(|column| column.name.clone()).collect()
    };
    let renamed = mapping.pairs.iter().any(|pair| pair.source != pair.target);
    if retyped.is_empty() && !renamed && names(old) == names(new) {
        return findings;
    }
    findings.push(Finding::warning(
        "prepared-statements",
        "a session that has prepared SELECT * on the table, or a query that returns a column with \
         another type, gets one error from the server after the swap: cached plan must not change \
         result type",
        "As after any ALTER TABLE: drivers that prepare anew or reconnect do not show it; with a pooler, \
         RECONNECT",
    ));
    findings
}
