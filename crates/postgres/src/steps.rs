//! What a run still has to do with definitions: index builds before the swap, statements inside it,
//! validations after it. Kept in the private schema, so that a crash finds them again.

use underpin_core::plan::RunSpec;
use underpin_core::way::Way;
use underpin_dialect::DbResult;

use crate::connect::Session;
use crate::names;
use crate::query::{cell, literal, quote_table, rows, run, text};

/// When a step is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Between copy and application: build an index.
    Index,
    /// Inside the swap, when the new table stands in its place.
    Swap,
    /// After the swap.
    After,
}

impl Stage {
    /// As it is kept. A step belongs to one way.
    fn name(self, way: Way) -> &'static str {
        match (self, way) {
            (Self::Index, _) => "index",
            (Self::Swap, Way::Forward) => "swap",
            (Self::Swap, Way::Back) => "swap-back",
            (Self::After, Way::Forward) => "after",
            (Self::After, Way::Back) => "after-back",
        }
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// Its number among the steps of its stage.
    pub(crate) position: u64,
    /// What it is about, for people.
    pub(crate) name: String,
    /// What it runs.
    pub(crate) sql: String,
    /// What follows when all steps of the stage have run, one by one, after a swap as a step of its own; may
    /// be empty.
    pub(crate) then: String,
}

/// The table of steps, quoted.
///
/// # Errors
/// A name that no identifier can have.
pub(crate) fn table(spec: &RunSpec) -> DbResult<String> {
    quote_table(&names::private_schema(&spec.run_id), "underpin_steps")
}

/// Makes the table.
///
/// # Errors
/// As [`table`].
pub(crate) fn create_sql(spec: &RunSpec) -> DbResult<String> {
    Ok(format!(
        "CREATE TABLE {} (stage text NOT NULL, position bigint NOT NULL, name text NOT NULL, sql text \
         NOT NULL, afterwards text NOT NULL, done boolean NOT NULL DEFAULT false)",
        table(spec)?
    ))
}

/// Records steps of a stage, replacing those that are there.
///
/// # Errors
/// As [`table`].
pub(crate) fn record_sql(
    spec: &RunSpec,
    stage: Stage,
    steps: &[(String, String, String)],
) -> DbResult<String> {
    let table = table(spec)?;
    let stage = literal(stage.name(spec.way))?;
    let mut sql = format!("DELETE FROM {table} WHERE stage = {stage}");
    for (position, (name, statement, then)) in steps.iter().enumerate() {
        sql.push_str(&format!(
            "; INSERT INTO {table} (stage, position, name, sql, afterwards) VALUES ({stage}, \
             {position}, {}, {}, {})",
            literal(name)?,
            literal(statement)?,
            literal(then)?
        ));
    }
    Ok(sql)
}

/// The steps of a stage that are not done, in order.
///
/// # Errors
/// The server's.
pub(crate) async fn pending(
    session: &Session,
    spec: &RunSpec,
    stage: Stage,
) -> DbResult<Vec<Step>> {
    let object = format!("{}.{}", spec.schema, spec.table);
    let attempted = "reading the steps of";
    let sql = format!(
        "SELECT position, name, sql, afterwards FROM {} WHERE stage = {} AND NOT done ORDER BY \
         position",
        table(spec)?,
        literal(stage.name(spec.way))?
    );
    let found = rows(session, &sql, attempted, &object).await?;
    found
        .iter()
        .map(|row| {
            Ok(Step {
                position: cell(row, 0, attempted)?,
                name: text(row, 1),
                sql: text(row, 2),
                then: text(row, 3),
            })
        })
        .collect()
}

/// Marks a step as done; in the step's own transaction where it has one.
///
/// # Errors
/// As [`table`].
pub(crate) fn done_sql(spec: &RunSpec, stage: Stage, position: u64) -> DbResult<String> {
    Ok(format!(
        "UPDATE {} SET done = true WHERE stage = {} AND position = {position}",
        table(spec)?,
        literal(stage.name(spec.way))?
    ))
}

/// Marks a step as done in a transaction of its own.
///
/// # Errors
/// The server's.
pub(crate) async fn mark_done(
    session: &Session,
    spec: &RunSpec,
    stage: Stage,
    position: u64,
) -> DbResult<()> {
    let object = format!("{}.{}", spec.schema, spec.table);
    let sql = done_sql(spec, stage, position)?;
    run(session, &sql, "marking a step as done for", &object).await.map(|_| ())
}
