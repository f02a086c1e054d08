//! `underpin status`: lists the runs that are not finished, and how each goes on.

use std::sync::Arc;

use serde::Serialize;
use underpin_dialect::Database;
use underpin_engine::{RunStatus, Standing};

use super::{introduce, shell};
use crate::args::{GlobalArgs, StatusArgs};
use crate::backend::{Backend, SessionWishes, Task};
use crate::exit::ExitStatus;
use crate::resolve::TableArg;
use crate::ui::{Printer, count, span, table};

/// Prints the list.
pub(super) async fn status(
    args: &StatusArgs,
    global: &GlobalArgs,
    printer: &Printer,
) -> anyhow::Result<ExitStatus> {
    let wanted = args.table.as_deref().map(TableArg::parse).transpose()?;
    let backend = Backend::resolve(&args.url, global, SessionWishes::default(), &[])?;
    introduce(&backend, global, printer);
    let schema = backend.default_schema();
    let runs: Vec<RunStatus> = backend
        .carry_out(List)
        .await?
        .into_iter()
        .filter(|run| args.all || is_open(run))
        .filter(|run| wanted.as_ref().is_none_or(|table| table.is(&run.table, schema.as_deref())))
        .collect();
    if printer.is_json() {
        for run in &runs {
            printer.data(&format!("{}\n", line(run)?));
        }
    } else if runs.is_empty() {
        let what = if args.all { "no runs" } else { "no unfinished runs" };
        printer.talk(&format!("{what} (state in {})", global.state_schema));
    } else {
        let place_of = |schema: &str, table: &str| backend.place_of(schema, table);
        printer.data(&page(&runs, global, &place_of));
    }
    Ok(ExitStatus::Done)
}

struct List;

impl Task for List {
    type Output = Vec<RunStatus>;

    async fn on<D: Database>(self, db: Arc<D>) -> anyhow::Result<Vec<RunStatus>> {
        Ok(underpin_engine::status(&*db, None).await?)
    }
}

fn is_open(run: &RunStatus) -> bool {
    matches!(run.standing, Standing::Running | Standing::Silent | Standing::Unattended)
}

/// What a person is told about how a run stands.
fn standing(run: &RunStatus) -> String {
    match run.standing {
        Standing::Running => "running".to_owned(),
        Standing::Silent => format!("silent for {}", span(run.silent_s)),
        Standing::Unattended => format!("dead since {}", span(run.silent_s)),
        Standing::Done => "done".to_owned(),
        Standing::Aborted => "aborted".to_owned(),
        Standing::Failed => "failed".to_owned(),
    }
}

/// A run as a line for programs: the engine's fields behind the name of the event.
#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    #[serde(flatten)]
    run: &'a RunStatus,
}

fn line(run: &RunStatus) -> anyhow::Result<String> {
    Ok(serde_json::to_string(&Line { event: "run", run })?)
}

/// Schema and table → the URL and the table's name to show.
type PlaceOf<'a> = &'a dyn Fn(&str, &str) -> (String, String);

/// The table, and below it for each unfinished run what can be done.
fn page(runs: &[RunStatus], global: &GlobalArgs, place_of: PlaceOf<'_>) -> String {
    let rows: Vec<Vec<String>> = runs
        .iter()
        .map(|run| {
            let phase = run.phase.clone().unwrap_or_else(|| "unreadable".to_owned());
            // The server's time stamp without fractions.
            let began = run.created_at.split('.').next().unwrap_or_default().to_owned();
            vec![run.table.clone(), standing(run), phase, count(run.rows_copied), began]
        })
        .collect();
    let mut out = table(&["TABLE", "STATE", "PHASE", "ROWS COPIED", "BEGAN (UTC)"], &rows);
    for run in runs.iter().filter(|run| is_open(run)) {
        out.push_str(&next_steps(run, global, place_of));
    }
    out
}

fn next_steps(run: &RunStatus, global: &GlobalArgs, place_of: PlaceOf<'_>) -> String {
    let (schema, name) = run.table.split_once('.').unwrap_or(("", &run.table));
    let (url, name) = place_of(schema, name);
    let mut out = format!("\n{}: {}\n", run.table, run.statement.replace('\n', "\n  "));
    if run.standing == Standing::Unattended {
        let resume = shell::underpin("run", &[&url, &run.statement], global);
        out.push_str(&format!("  go on with  {resume}\n"));
    }
    // After the swap the change is made: what is left is to go on.
    if run.phase.as_deref() != Some("finish") {
        let abort = shell::underpin("abort", &[&url, &name], global);
        out.push_str(&format!("  end with    {abort}\n"));
    }
    if run.standing == Standing::Silent || run.phase.is_none() {
        out.push_str(&format!("  note        {}\n", run.next));
    }
    out
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Cli;

    fn run(table: &str, standing: Standing) -> RunStatus {
        RunStatus {
            run_id: "r1".into(),
            table: table.into(),
            statement: "ALTER TABLE orders ADD note TEXT".into(),
            standing,
            phase: Some("copy".into()),
            rows_copied: 1_234_000,
            rows_verified: 0,
            created_at: "2026-11-21 03:00:00.123456".into(),
            updated_at: "2026-11-21 03:05:00.000000".into(),
            silent_s: 720,
            next: "look".into(),
            by: "ann@ops1".into(),
            reason: String::new(),
            ticket: String::new(),
            approved_by: String::new(),
            options: Vec::new(),
            ended_at: None,
            live: None,
        }
    }

    fn text(runs: &[RunStatus]) -> String {
        let global = Cli::try_parse_from(["underpin", "status", "mysql://"]).unwrap().global;
        let place_of =
            |schema: &str, table: &str| (format!("mysql://a@db1/{schema}"), table.to_owned());
        page(runs, &global, &place_of)
    }

    #[test]
    fn the_page_says_how_each_run_goes_on() {
        let runs = [run("shop.orders", Standing::Running), run("shop.items", Standing::Unattended)];
        assert_eq!(
            text(&runs),
            "\
TABLE        STATE              PHASE  ROWS COPIED  BEGAN (UTC)
shop.orders  running            copy     1,234,000  2026-11-21 03:00:00
shop.items   dead since 12 min  copy     1,234,000  2026-11-21 03:00:00

shop.orders: ALTER TABLE orders ADD note TEXT
  end with    underpin abort mysql://a@db1/shop orders

shop.items: ALTER TABLE orders ADD note TEXT
  go on with  underpin run mysql://a@db1/shop 'ALTER TABLE orders ADD note TEXT'
  end with    underpin abort mysql://a@db1/shop items
"
        );
    }

    #[test]
    fn finished_runs_need_no_next_step() {
        let text = text(&[run("shop.orders", Standing::Done)]);
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("shop.orders  done "), "{text}");
    }

    #[test]
    fn after_the_swap_abort_is_not_offered() {
        let finishing =
            RunStatus { phase: Some("finish".into()), ..run("a.b", Standing::Unattended) };
        let text = text(&[finishing]);
        assert!(text.contains("go on with") && !text.contains("end with"), "{text}");
    }

    #[test]
    fn what_is_odd_is_explained() {
        let silent = run("a.b", Standing::Silent);
        assert!(text(&[silent]).contains("silent for 12 min"));
        let damaged = RunStatus { phase: None, ..run("a.b", Standing::Unattended) };
        let text = text(&[damaged]);
        assert!(text.contains("unreadable") && text.contains("  note        look\n"), "{text}");
    }

    #[test]
    fn a_line_for_programs() {
        let line = line(&run("shop.orders", Standing::Unattended)).unwrap();
        assert!(line.starts_with(r#"{"event":"run","run_id":"r1","#), "{line}");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["standing"], "unattended");
        assert_eq!(value["rows_copied"], 1_234_000);
    }
}
