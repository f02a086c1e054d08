//! `underpin leftovers`: what of ours stands on a server, and removing what is left over.

use std::sync::Arc;

use anyhow::Context as _;
use underpin_dialect::Database;
use underpin_engine::{Fate, LeftoverView, Sweep};

use super::introduce;
use crate::args::{GlobalArgs, LeftoversArgs};
use crate::backend::{Backend, SessionWishes, Task};
use crate::exit::{ExitStatus, Problem};
use crate::ui::{Printer, bytes, listed, span, table};

/// Shows, and removes where that is asked for.
pub(super) async fn leftovers(
    args: &LeftoversArgs,
    global: &GlobalArgs,
    printer: &Printer,
) -> anyhow::Result<ExitStatus> {
    let backend = Backend::resolve(&args.url, global, SessionWishes::default(), &[])?;
    introduce(&backend, global, printer);
    let sweep = Sweep {
        run_id: args.run.clone(),
        older_than_s: args.older_than.map(|age| age.0 / 1000),
        remove_unknown: args.remove_unknown,
    };
    let found = backend.carry_out(Look { sweep: &sweep }).await?;
    let removable = found.iter().filter(|view| view.fate == Fate::Removable).count();
    if !args.remove || removable == 0 {
        show(&found, printer, "nothing of underpin's is left over");
        return Ok(ExitStatus::Done);
    }
    if !args.yes {
        if !printer.can_ask() {
            let next = "say --yes, or run it without --remove first";
            return Err(Problem::usage("nobody can be asked whether to remove it", next).into());
        }
        show(&found, printer, "");
        let question = format!("Type yes to remove {removable} of them:");
        if !printer.ask(&question).context("asking whether to remove")? {
            printer.talk("nothing was removed");
            return Ok(ExitStatus::Done);
        }
    }
    let outcomes = backend.carry_out(Remove { shown: &found, sweep: &sweep }).await?;
    show(&outcomes, printer, "nothing was left to remove");
    let failed =
        outcomes.iter().any(|view| !matches!(&*view.outcome, "removed" | "gone by itself"));
    Ok(if failed { ExitStatus::Failed } else { ExitStatus::Done })
}

struct Look<'a> {
    sweep: &'a Sweep,
}

impl Task for Look<'_> {
    type Output = Vec<LeftoverView>;

    async fn on<D: Database>(self, db: Arc<D>) -> anyhow::Result<Vec<LeftoverView>> {
        Ok(underpin_engine::leftovers(&*db, self.sweep).await?)
    }
}

struct Remove<'a> {
    shown: &'a [LeftoverView],
    sweep: &'a Sweep,
}

impl Task for Remove<'_> {
    type Output = Vec<LeftoverView>;

    async fn on<D: Database>(self, db: Arc<D>) -> anyhow::Result<Vec<LeftoverView>> {
        Ok(underpin_engine::remove_leftovers(&*db, self.shown, self.sweep).await?)
    }
}

fn show(found: &[LeftoverView], printer: &Printer, nothing: &str) {
    if printer.is_json() {
        for view in found {
            printer.data(&format!("{}\n", listed("leftover", view)));
        }
    } else if found.is_empty() {
        printer.talk(nothing);
    } else {
        printer.data(&page(found));
    }
}

fn page(found: &[LeftoverView]) -> String {
    let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|view| {
            let state = if view.running { "running" } else { &view.run_state };
            let (size, age) = (view.bytes.map(bytes), view.age_s.map(span));
            vec![
                kind(view),
                format!("{}.{}", view.schema, view.name),
                dash(&view.run_id),
                state.to_owned(),
                dash(&view.by),
                age.unwrap_or_else(|| "-".into()),
                size.unwrap_or_else(|| "-".into()),
                view.loses.clone(),
                told(view),
            ]
        })
        .collect();
    table(&["WHAT", "NAME", "RUN", "STATE", "BY", "AGE", "SIZE", "LOSES", "REMOVED"], &rows)
}

fn kind(view: &LeftoverView) -> String {
    serde_json::to_value(view.kind)
        .ok()
        .and_then(|kind| kind.as_str().map(|kind| kind.replace('_', " ")))
        .unwrap_or_default()
}

/// What came of it, or what would.
fn told(view: &LeftoverView) -> String {
    if !view.outcome.is_empty() {
        return view.outcome.clone();
    }
    match view.fate {
        Fate::Removable => "with --remove",
        Fate::OpenRun => "never: its run is open, end it with `underpin abort`",
        Fate::NotOnRecord => "with --remove-unknown: its run is not on record here",
        Fate::Unproven => "never: nothing proves it underpin's; drop it by hand",
        Fate::Kept => "with --run or --older-than: it holds the old rows",
    }
    .to_owned()
}
