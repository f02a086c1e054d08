//! `underpin history`: what was done, by whom, when, why and with which result; and `underpin list`.

use std::sync::Arc;

use underpin_dialect::Database;
use underpin_engine::{PastRun, RunStatus, Standing};

use super::introduce;
use super::status::standing;
use crate::args::{GlobalArgs, HistoryArgs, ListArgs};
use crate::backend::{Backend, SessionWishes, Task};
use crate::exit::ExitStatus;
use crate::resolve::TableArg;
use crate::ui::{Printer, count, listed, summary_facts, table};

/// Prints the history.
pub(super) async fn history(
    args: &HistoryArgs,
    global: &GlobalArgs,
    printer: &Printer,
) -> anyhow::Result<ExitStatus> {
    let wanted = args.table.as_deref().map(TableArg::parse).transpose()?;
    let backend = Backend::resolve(&args.url, global, SessionWishes::default(), &[])?;
    introduce(&backend, global, printer);
    let schema = backend.default_schema();
    let of = wanted.as_ref().and_then(|table| {
        let schema = table.schema.clone().or_else(|| schema.clone())?;
        Some((schema, table.name.clone()))
    });
    let runs = backend.carry_out(Look { of }).await?;
    let is_wanted = |run: &&PastRun| {
        wanted.as_ref().is_none_or(|table| table.is(&run.table, schema.as_deref()))
    };
    let runs: Vec<PastRun> = runs.iter().filter(is_wanted).cloned().collect();
    if printer.is_json() {
        for run in &runs {
            printer.data(&format!("{}\n", listed("past_run", run)));
        }
    } else if runs.is_empty() {
        printer.talk(&format!("no runs are remembered (state in {})", global.state_schema));
    } else {
        let pages: Vec<String> = runs.iter().map(page).collect();
        printer.data(&pages.join("\n"));
    }
    Ok(ExitStatus::Done)
}

struct Look {
    of: Option<(String, String)>,
}

impl Task for Look {
    type Output = Vec<PastRun>;

    async fn on<D: Database>(self, db: Arc<D>) -> anyhow::Result<Vec<PastRun>> {
        let of = self.of.as_ref().map(|(schema, table)| (schema.as_str(), table.as_str()));
        Ok(underpin_engine::history(&*db, of).await?)
    }
}

/// Prints all runs.
pub(super) async fn list(
    args: &ListArgs,
    global: &GlobalArgs,
    printer: &Printer,
) -> anyhow::Result<ExitStatus> {
    let backend = Backend::resolve(&args.url, global, SessionWishes::default(), &[])?;
    introduce(&backend, global, printer);
    let runs = backend.carry_out(super::status::Look { of: None }).await?;
    if printer.is_json() {
        for run in &runs {
            printer.data(&format!("{}\n", listed("run", run)));
        }
    } else if runs.is_empty() {
        printer.talk(&format!("no runs (state in {})", global.state_schema));
    } else {
        printer.data(&list_text(&runs));
    }
    Ok(ExitStatus::Done)
}

fn list_text(runs: &[RunStatus]) -> String {
    let rows: Vec<Vec<String>> = runs
        .iter()
        .map(|run| {
            let ended = run.ended_at.as_deref().map_or_else(|| "-".to_owned(), whole_seconds);
            vec![
                run.table.clone(),
                standing(run),
                whole_seconds(&run.created_at),
                ended,
                if run.by.is_empty() { "-".to_owned() } else { run.by.clone() },
                one_line(&run.statement, 60),
            ]
        })
        .collect();
    table(&["TABLE", "STATE", "BEGAN (UTC)", "ENDED (UTC)", "BY", "STATEMENT"], &rows)
}

/// The server's time stamp without fractions.
fn whole_seconds(at: &str) -> String {
    at.split('.').next().unwrap_or_default().to_owned()
}

fn one_line(text: &str, chars_max: usize) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(chars_max) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

/// A run as a page, a line a fact.
fn page(run: &PastRun) -> String {
    let mut facts: Vec<(&str, String)> = Vec::new();
    let mut push = |name: &'static str, text: &str| {
        if !text.is_empty() {
            facts.push((name, text.to_owned()));
        }
    };
    push("statement", &run.statement.replace('\n', "\n             "));
    let ended = run.ended_at.as_deref().map(whole_seconds);
    let ended = ended.map_or_else(String::new, |at| format!(" to {at}"));
    push("time", &format!("{}{ended} (UTC)", whole_seconds(&run.created_at)));
    push("by", &run.by);
    if run.ended_by != run.by {
        push("ended by", &run.ended_by);
    }
    push("reason", &run.reason);
    push("ticket", &run.ticket);
    push("approved", &run.approved_by);
    let option = |given: &underpin_dialect::Given| match given.value.as_str() {
        "" => format!("--{}", given.name),
        value => format!("--{} {value}", given.name),
    };
    let options: Vec<String> = run.options.iter().map(option).collect();
    push("options", &options.join(" "));
    push("server", &run.server);
    push("version", &run.version);
    if let Some(before) = &run.fingerprint_before {
        let after = run.fingerprint_after.as_deref().unwrap_or("unknown");
        push("definition", &format!("{before} before, {after} after"));
    }
    for order in &run.orders {
        let taken = if order.taken_at.is_some() { "" } else { ", not taken" };
        let at = whole_seconds(&order.at);
        push("order", &format!("{at} {} by {}{taken}", order.command, order.by));
    }
    push("why", &run.why);
    if let Some(summary) = &run.summary {
        let done = run.standing == Standing::Done;
        facts.extend(
            summary_facts(summary)
                .into_iter()
                .filter(|(name, _)| done || !["verified", "swap"].contains(name)),
        );
    }
    if let Some(statements) = &run.statements {
        let worse = statements.worsened.len();
        let text = format!("{} compared, {worse} fare worse", count(statements.compared));
        facts.push(("statements", text));
        for worsened in &statements.worsened {
            let ms = |ms: f64| format!("{ms:.1} ms");
            let times = format!("{} → {}", ms(worsened.before.ms), ms(worsened.after.ms));
            facts.push(("", format!("{times}: {}", one_line(&worsened.text, 80))));
        }
    }
    let mut out = format!("{}: {} (run {})\n", run.table, past_standing(run), run.run_id);
    for (name, fact) in facts {
        out.push_str(format!("  {name:<11}{fact}").trim_end());
        out.push('\n');
    }
    out
}

fn past_standing(run: &PastRun) -> &'static str {
    match run.standing {
        Standing::Done => "changed",
        Standing::Revertible => "changed, can be taken back",
        Standing::Reverted => "taken back, can be made again",
        Standing::Aborted => "aborted, the table is as it was",
        Standing::Failed => "failed",
        Standing::Running | Standing::Silent => "running",
        Standing::Unattended => "unfinished, nobody works on it",
    }
}

#[cfg(test)]
mod tests;
