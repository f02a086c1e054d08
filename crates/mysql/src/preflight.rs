//! What is looked at before anything is created. Each check names what it saw and what to do.
//!
//! The order is fixed, so that a statement that fails several checks always reports them alike.

use underpin_core::alter::ClauseKind;
use underpin_core::finding::Finding;
use underpin_core::mapping::{Mapping, qualifies};
use underpin_core::plan::Names;
use underpin_core::schema::{Column, Index, Table};
use underpin_dialect::{DbResult, Request};

use crate::connect::{Replication, server_role};
use crate::control::Control;
use crate::flavor::BinlogFormat;
use crate::health::{Listed, Replica};
use crate::inspect::{read_table, table_exists};
use crate::privileges;
use crate::query::{first, literal, rows, text};
use crate::types::{KeyKind, implied_default};

/// Checks that need nothing of ours: the statement, the server, the table.
pub(crate) async fn before(
    control: &mut Control,
    request: &Request,
    schema: &str,
    table: &str,
    listed: &Listed,
) -> DbResult<Vec<Finding>> {
    let mut findings = statement(request);
    findings.extend(privileges::check(control, request, schema).await?);
    findings.extend(server(control).await?);
    findings.extend(listed.replicas.iter().filter_map(unreachable_replica));
    findings.extend(listed.strangers.iter().map(|address| reader(address)));
    findings.extend(the_table(control, schema, table).await?);
    if !underpin_core::finding::is_refused(&findings) {
        findings.extend(keys(control, schema, table).await?);
        findings.extend(foreign_keys(control, schema, table).await?);
        findings.extend(user_triggers(control, schema, table).await?);
    }
    Ok(findings)
}

fn statement(request: &Request) -> Vec<Finding> {
    let mut findings = Vec::new();
    if request.alter.ignore {
        findings.push(Finding::refusal(
            "alter-ignore",
            "ALTER IGNORE drops rows that clash with a new unique index",
            "Leave IGNORE out; underpin never drops a row",
        ));
    }
    for clause in &request.alter.clauses {
        let refused = match &clause.kind {
            ClauseKind::RenameTable { to } => Some((
                "rename-table",
                format!("the statement renames the table to {to}"),
                "Rename it in a statement of its own: that is done in an instant",
            )),
            ClauseKind::PartitionVerb(verb) => Some((
                "partition-verb",
                format!("{verb} works on the data of single partitions"),
                "Run it directly: a copy would not do what it means",
            )),
            ClauseKind::Engine(engine) if !engine.eq_ignore_ascii_case("InnoDB") => Some((
                "target-engine",
                format!("the new table would be stored by {engine}"),
                "underpin needs transactions on both sides: convert the table directly",
            )),
            ClauseKind::DiscardOrImportTablespace => Some((
                "tablespace",
                "DISCARD and IMPORT TABLESPACE work on files".to_owned(),
                "Run it directly",
            )),
            ClauseKind::AddForeignKey => Some((
                "foreign-key-added",
                format!("foreign keys are not handled yet: {}", clause.text),
                "Add the constraint directly after the change",
            )),
            ClauseKind::AddSystemVersioning | ClauseKind::DropSystemVersioning => Some((
                "system-versioning",
                "system versioning keeps a history that a copy would not carry".to_owned(),
                "Run it directly",
            )),
            _ => None,
        };
        if let Some((code, message, remedy)) = refused {
            findings.push(Finding::refusal(code, message, remedy));
        }
    }
    findings
}

async fn server(control: &mut Control) -> DbResult<Vec<Finding>> {
    let mut findings = Vec::new();
    let capabilities = control.session.capabilities.clone();
    let role = server_role(&mut control.session.conn, &capabilities).await?;
    if role.refuses_writes() {
        findings.push(Finding::refusal(
            "read-only",
            "the server is read-only",
            "Connect to the primary",
        ));
    }
    match &role.replication {
        Replication::From(sources) if !sources.is_empty() => {
            let names: Vec<String> =
                sources.iter().map(|source| format!("{}:{}", source.host, source.port)).collect();
            findings.push(Finding::refusal(
                "replica",
                format!("the server is a replica of {}", names.join(", ")),
                "Connect to its source: the change reaches the replica by itself",
            ));
        }
        _ => {}
    }
    if capabilities.log_bin && capabilities.binlog_format != BinlogFormat::Row {
        findings.push(Finding::refusal(
            "statement-log",
            "the binary log is not row-based: the change log would differ between servers",
            "SET GLOBAL binlog_format = 'ROW', and have clients reconnect",
        ));
    }
    if capabilities.galera {
        findings.push(Finding::refusal(
            "galera",
            "this is a Galera cluster, whose certification the swap was not proven under",
            "Use the cluster's own online schema upgrade",
        ));
    }
    Ok(findings)
}

fn unreachable_replica(replica: &Replica) -> Option<Finding> {
    replica.options.as_ref().err().map(|why| {
        Finding::refusal(
            "replica-unknown",
            format!("replica {} cannot be watched: {why}", replica.name),
            "Name the replicas with --replica URL, or switch the watch off with --replica none",
        )
    })
}

/// Somebody who reads the binary log may be a replica that the server does not list.
fn reader(address: &str) -> Finding {
    Finding::warning(
        "log-reader",
        format!(
            "somebody at {address} reads the binary log and does not answer as a replica: his lag is \
             not watched"
        ),
        "Where it is a replica, name all of them with --replica URL",
    )
}

async fn the_table(control: &mut Control, schema: &str, table: &str) -> DbResult<Vec<Finding>> {
    let sql = format!(
        "SELECT TABLE_TYPE, ENGINE FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND \
         TABLE_NAME = {}",
        literal(schema)?,
        literal(table)?
    );
    let object = format!("{schema}.{table}");
    let row = first(&mut control.session.conn, &sql, "looking for", &object).await?;
    let Some(row) = row else {
        return Ok(vec![Finding::refusal(
            "no-such-table",
            format!("there is no table {object}, or the account may not see it"),
            "Check the names; on this server they may be case-sensitive",
        )]);
    };
    let (kind, engine) = (text(&row, 0), text(&row, 1));
    if kind != "BASE TABLE" {
        return Ok(vec![Finding::refusal(
            "no-base-table",
            format!("{object} is a {}", kind.to_lowercase()),
            "underpin changes base tables",
        )]);
    }
    if !engine.eq_ignore_ascii_case("InnoDB") {
        return Ok(vec![Finding::refusal(
            "not-innodb",
            format!("{object} is stored by {engine}"),
            "underpin needs transactions: convert the table to InnoDB first",
        )]);
    }
    Ok(Vec::new())
}

/// A key must exist in the source at least; whether it survives is told after the server judged the
/// statement.
async fn keys(control: &mut Control, schema: &str, table: &str) -> DbResult<Vec<Finding>> {
    let source = read_table(&mut control.session, schema, table).await?;
    let unique: Vec<_> = source.indexes.iter().filter(|index| index.unique).collect();
    if unique.iter().any(|index| can_be_key(index, &source).is_ok()) {
        return Ok(Vec::new());
    }
    let mut reasons: Vec<String> = unique
        .iter()
        .filter_map(|index| {
            can_be_key(index, &source).err().map(|why| format!("{}: {why}", index.name))
        })
        .collect();
    if reasons.is_empty() {
        reasons.push("it has no unique index at all".to_owned());
    }
    Ok(vec![Finding::refusal(
        "no-usable-key",
        format!("{schema}.{table} has no usable key ({})", reasons.join("; ")),
        "Rows are told apart by a primary key, or by a unique key whose columns are all NOT NULL: add \
         one first",
    )])
}

/// Whether the index tells rows apart, and has columns whose values can be bounds of a range.
fn can_be_key(index: &Index, table: &Table) -> Result<(), String> {
    qualifies(index, table)?;
    let columns = index.parts.iter().filter_map(|part| table.column(part.column.as_deref()?));
    match columns.into_iter().find(|column| KeyKind::of(column).is_none()) {
        None => Ok(()),
        Some(column) => Err(format!(
            "{} is of type {}, whose values have no exact order as text",
            column.name, column.full_type
        )),
    }
}

async fn foreign_keys(control: &mut Control, schema: &str, table: &str) -> DbResult<Vec<Finding>> {
    let (schema_text, table_text) = (literal(schema)?, literal(table)?);
    let sql = format!(
        "SELECT CONSTRAINT_NAME, TABLE_SCHEMA, TABLE_NAME, REFERENCED_TABLE_SCHEMA, \
         REFERENCED_TABLE_NAME FROM information_schema.KEY_COLUMN_USAGE WHERE REFERENCED_TABLE_NAME \
         IS NOT NULL AND ((TABLE_SCHEMA = {schema_text} AND TABLE_NAME = {table_text}) OR \
         (REFERENCED_TABLE_SCHEMA = {schema_text} AND REFERENCED_TABLE_NAME = {table_text})) \
         GROUP BY CONSTRAINT_NAME, TABLE_SCHEMA, TABLE_NAME, REFERENCED_TABLE_SCHEMA, \
         REFERENCED_TABLE_NAME ORDER BY CONSTRAINT_NAME"
    );
    let object = format!("{schema}.{table}");
    let found =
        rows(&mut control.session.conn, &sql, "reading the foreign keys of", &object).await?;
    Ok(found
        .iter()
        .map(|row| {
            Finding::refusal(
                "foreign-key",
                format!(
                    "foreign key {} from {}.{} to {}.{} is not handled yet",
                    text(row, 0),
                    text(row, 1),
                    text(row, 2),
                    text(row, 3),
                    text(row, 4)
                ),
                "Drop the constraint for the time of the change, or use another tool for this table",
            )
        })
        .collect())
}

async fn user_triggers(control: &mut Control, schema: &str, table: &str) -> DbResult<Vec<Finding>> {
    let sql = format!(
        "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA = {} AND \
         EVENT_OBJECT_TABLE = {} AND TRIGGER_NAME NOT LIKE '%~up|_%' ESCAPE '|'",
        literal(schema)?,
        literal(table)?
    );
    let object = format!("{schema}.{table}");
    let found = rows(&mut control.session.conn, &sql, "reading the triggers of", &object).await?;
    Ok(found
        .iter()
        .map(|row| {
            Finding::refusal(
                "trigger",
                format!(
                    "trigger {} stands on the table; triggers are not carried yet",
                    text(row, 0)
                ),
                "Drop the trigger for the time of the change and make it again afterwards",
            )
        })
        .collect())
}

/// Left-overs of another run, or tables of other people that bear the names we need.
pub(crate) async fn left_overs(
    control: &mut Control,
    schema: &str,
    names: &Names,
) -> DbResult<Vec<Finding>> {
    let mut findings = Vec::new();
    for name in [&names.shadow, &names.log, &names.retired, &names.return_log] {
        if table_exists(&mut control.session, schema, name).await? {
            findings.push(Finding::refusal(
                "left-over",
                format!("table {schema}.{name} is left over from another run"),
                format!(
                    "Look at `underpin status`; `underpin abort` clears an open run; a retired table \
                     that was kept is yours to drop: DROP TABLE {}",
                    crate::query::quote_table(schema, name)?
                ),
            ));
        }
    }
    Ok(findings)
}

/// A TIMESTAMP is an instant, which every session sees in its own time zone; other types are not.
fn zone(old: &Column, new: &Column) -> Option<Finding> {
    let is_instant = |column: &Column| column.base_type == "timestamp";
    (is_instant(old) != is_instant(new)).then(|| {
        Finding::warning(
            "time-zone",
            format!(
                "{} {} becomes {} {}: values are converted in UTC, not in the time zone of your \
                 sessions",
                old.name, old.full_type, new.name, new.full_type
            ),
            "If the column is to hold local times, shift it afterwards, or let the server make the \
             change in a session of that time zone",
        )
    })
}

/// Conversions that can lose something; they stop the run when they do.
pub(crate) fn conversions(source: &Table, scratch: &Table, mapping: &Mapping) -> Vec<Finding> {
    let mut findings = Vec::new();
    for pair in mapping.pairs.iter().filter(|pair| pair.changed) {
        let (Some(old), Some(new)) = (source.column(&pair.source), scratch.column(&pair.target))
        else {
            continue;
        };
        let mut change =
            format!("{} {} becomes {} {}", old.name, old.full_type, new.name, new.full_type);
        if old.nullable && !new.nullable {
            change.push_str(" NOT NULL");
        }
        findings.extend(zone(old, new));
        findings.push(Finding::note(
            "conversion",
            format!("{change}; a value that does not fit stops the run before the swap"),
        ));
    }
    for name in &mapping.added {
        let Some(column) = scratch.column(name).filter(|column| !column.has_default) else {
            continue;
        };
        findings.push(match implied_default(column) {
            Some(value) => Finding::note(
                "implied-default",
                format!("column {name} is NOT NULL without a DEFAULT: the rows there are get {value}"),
            ),
            None => Finding::refusal(
                "no-default",
                format!(
                    "column {name} is added as {} NOT NULL, and nothing says what the rows there are \
                     shall have in it",
                    column.full_type
                ),
                "Give it a DEFAULT, or let it be NULL",
            ),
        });
    }
    for dropped in &mapping.dropped {
        findings.push(Finding::note("column-dropped", format!("column {dropped} is dropped")));
    }
    findings
}
