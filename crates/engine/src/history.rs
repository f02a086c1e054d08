//! What is remembered of a run when it is closed, and `underpin history`: all runs of a server or a table
//! with who asked for what, when and why.

use serde::{Deserialize, Serialize};
use underpin_core::statements::Comparison;
use underpin_dialect::{Database, Given, Origin, Store};

use crate::error::EngineResult;
use crate::report::Summary;
use crate::spell::command_text;
use crate::status::{RunStatus, Standing};

/// What is remembered of a run. Kept as JSON with the run; fields are added, never renamed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Who ran it to its end, as "user@machine".
    pub by: String,
    /// Version of the program that did.
    pub version: String,
    /// Why it ended, where it did not end well; empty where somebody asked for it.
    pub why: String,
    /// What it did.
    pub summary: Option<Summary>,
    /// The table's definition after the swap, as a hash; `None` where it cannot be told.
    pub fingerprint: Option<String>,
    /// Statements before the run and after the swap; `None` where they were not compared.
    pub statements: Option<Comparison>,
}

impl Record {
    pub(crate) fn write(&self) -> String {
        // Numbers and strings cannot fail to be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// An order as history shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GivenOrder {
    /// What was asked for, as "pause" or "set max-lag=3s".
    pub command: String,
    /// Who asked: the account at the server, and the person as far as known.
    pub by: String,
    /// When, as the server wrote it (UTC).
    pub at: String,
    /// When the runner took it, likewise; `None` where none did.
    pub taken_at: Option<String>,
}

/// A run as history shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PastRun {
    /// The run.
    pub run_id: String,
    /// Its table as `schema.table`.
    pub table: String,
    /// The statement, verbatim.
    pub statement: String,
    /// How it stands.
    pub standing: Standing,
    /// Begin, as the server wrote it (UTC).
    pub created_at: String,
    /// End, likewise; `None` while it is open.
    pub ended_at: Option<String>,
    /// Who began it, as "user@machine".
    pub by: String,
    /// Why, in that person's words; empty where it was not said.
    pub reason: String,
    /// Where it is asked for; empty likewise.
    pub ticket: String,
    /// Who approved of it; empty likewise.
    pub approved_by: String,
    /// Version of the program that began it.
    pub version: String,
    /// The server, as "MySQL 9.7.0 at 127.0.0.1:3306".
    pub server: String,
    /// The options that were given.
    pub options: Vec<Given>,
    /// The table's definition when the run began, as a hash; `None` where it cannot be told.
    pub fingerprint_before: Option<String>,
    /// The same after the swap.
    pub fingerprint_after: Option<String>,
    /// All orders, oldest first.
    pub orders: Vec<GivenOrder>,
    /// Who ran it to its end; empty while it is open, or where nothing is on record.
    pub ended_by: String,
    /// Why it ended, where it did not end well and nobody asked for it.
    pub why: String,
    /// What it did; `None` while it is open, or where nothing is on record.
    pub summary: Option<Summary>,
    /// Statements before the run and after the swap; `None` where they were not compared.
    pub statements: Option<Comparison>,
}

/// The runs that the server remembers, newest first, at most 100; of one table where one is named.
///
/// # Errors
/// The database's.
pub async fn history<D: Database>(db: &D, of: Option<(&str, &str)>) -> EngineResult<Vec<PastRun>> {
    let mut control = db.control().await?;
    let mut past = Vec::new();
    for run in control.runs(of).await? {
        let status = RunStatus::of(&run);
        let origin: Origin = serde_json::from_str(&run.origin).unwrap_or_default();
        let record: Record = serde_json::from_str(&run.record).unwrap_or_default();
        let orders = control.orders(&run.run_id).await?;
        let given = orders.into_iter().map(|order| GivenOrder {
            command: command_text(&order.command),
            by: order.by,
            at: order.at,
            taken_at: order.taken_at,
        });
        past.push(PastRun {
            run_id: run.run_id,
            table: run.table,
            statement: run.statement,
            standing: status.standing,
            created_at: run.created_at,
            ended_at: run.ended_at,
            by: origin.by,
            reason: origin.reason,
            ticket: origin.ticket,
            approved_by: origin.approved_by,
            version: origin.version,
            server: origin.server,
            options: origin.options,
            fingerprint_before: origin.fingerprint,
            fingerprint_after: record.fingerprint,
            orders: given.collect(),
            ended_by: record.by,
            why: record.why,
            summary: record.summary,
            statements: record.statements,
        });
    }
    Ok(past)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_tells_every_field() {
        let statements = crate::report::tests::comparison();
        let order = GivenOrder {
            command: "pause".into(),
            by: "ann".into(),
            at: "2026-11-21 10:00:00".into(),
            taken_at: Some("2026-11-21 10:00:01".into()),
        };
        let past = PastRun {
            run_id: "r1".into(),
            table: "shop.orders".into(),
            statement: "ALTER TABLE orders ADD note TEXT".into(),
            standing: Standing::Done,
            created_at: "2026-11-21 10:00:00".into(),
            ended_at: Some("2026-11-21 10:05:00".into()),
            by: "ann@ops1".into(),
            reason: String::new(),
            ticket: String::new(),
            approved_by: String::new(),
            version: "0.1.0".into(),
            server: "MySQL".into(),
            options: vec![Given { name: "nice".into(), value: "50%".into() }],
            fingerprint_before: Some("aa".into()),
            fingerprint_after: Some("bb".into()),
            orders: vec![order],
            ended_by: "ann@ops1".into(),
            why: String::new(),
            summary: Some(crate::report::tests::summary()),
            statements: Some(statements),
        };
        crate::reference::must_tell("past_run", &serde_json::to_value(past).unwrap());
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_an_older_one_is_partly_empty() {
        let record = Record { by: "ann@ops1".into(), ..Record::default() };
        assert_eq!(serde_json::from_str::<Record>(&record.write()).unwrap(), record);
        let older: Record = serde_json::from_str(r#"{"version":"0.1.0","new":1}"#).unwrap();
        assert_eq!((older.version.as_str(), older.summary), ("0.1.0", None));
    }
}
