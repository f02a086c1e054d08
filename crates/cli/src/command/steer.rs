//! `underpin pause`, `resume`, `swap` and `set`: orders to the program that works on a run, from anywhere.

use std::sync::Arc;

use underpin_core::machine::Command;
use underpin_dialect::Database;
use underpin_engine::{DeadRun, EngineError, EngineResult, Taken, command_text};

use super::{introduce, schema_of, shell};
use crate::args::{GlobalArgs, SetArgs, TableArgs};
use crate::backend::{Backend, SessionWishes, Task};
use crate::exit::{ExitStatus, Problem};
use crate::person;
use crate::resolve::TableArg;
use crate::ui::{Printer, span};

/// Gives one order.
pub(super) async fn order(
    args: &TableArgs,
    command: Command,
    global: &GlobalArgs,
    printer: &Printer,
) -> anyhow::Result<ExitStatus> {
    orders(args, vec![command], global, printer).await
}

/// Lets a paused run go on; `None` where nobody works on it, who goes on next is not paused then.
pub(super) async fn resume(
    url: &str,
    table: &str,
    global: &GlobalArgs,
    printer: &Printer,
) -> anyhow::Result<Option<ExitStatus>> {
    let args = TableArgs { url: url.to_owned(), table: table.to_owned() };
    match give(&args, vec![Command::Resume], global, printer).await?.0 {
        Ok(()) => Ok(Some(ExitStatus::Done)),
        Err(EngineError::NoRunner(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Changes settings.
pub(super) async fn set(
    args: &SetArgs,
    global: &GlobalArgs,
    printer: &Printer,
) -> anyhow::Result<ExitStatus> {
    let settings = args.settings.iter().flat_map(|assignment| assignment.0.clone());
    orders(&args.of, settings.map(Command::Set).collect(), global, printer).await
}

async fn orders(
    args: &TableArgs,
    commands: Vec<Command>,
    global: &GlobalArgs,
    printer: &Printer,
) -> anyhow::Result<ExitStatus> {
    match give(args, commands, global, printer).await? {
        (Ok(()), _) => Ok(ExitStatus::Done),
        (Err(EngineError::NoRunner(dead)), backend) => {
            Err(no_runner(&dead, &backend, global).into())
        }
        (Err(error), _) => Err(error.into()),
    }
}

async fn give(
    args: &TableArgs,
    commands: Vec<Command>,
    global: &GlobalArgs,
    printer: &Printer,
) -> anyhow::Result<(EngineResult<()>, Backend)> {
    let table = TableArg::parse(&args.table)?;
    let backend = Backend::resolve(&args.url, global, SessionWishes::default(), &[])?;
    let schema = schema_of(&table, &backend)?;
    introduce(&backend, global, printer);
    let what: Vec<String> = commands.iter().map(command_text).collect();
    let give = Give { schema: &schema, table: &table.name, commands: &commands };
    let given = backend.carry_out(give).await?.map(|taken| {
        let said = format!("{schema}.{}: {}", table.name, what.join(", "));
        printer.talk(&format!("{said} (taken after {} ms)", taken.took_ms));
    });
    Ok((given, backend))
}

struct Give<'a> {
    schema: &'a str,
    table: &'a str,
    commands: &'a [Command],
}

impl Task for Give<'_> {
    type Output = EngineResult<Taken>;

    async fn on<D: Database>(self, db: Arc<D>) -> anyhow::Result<Self::Output> {
        let by = person::who();
        Ok(underpin_engine::order(&*db, self.schema, self.table, self.commands, &by).await)
    }
}

/// Says that nobody works on the run, since when, and how it goes on.
fn no_runner(dead: &DeadRun, backend: &Backend, global: &GlobalArgs) -> Problem {
    let status = &dead.status;
    let since = status.updated_at.split('.').next().unwrap_or_default();
    let go_on = shell::go_on(backend.url(), &status.statement, &dead.origin.options, global);
    Problem {
        status: ExitStatus::Refused,
        message: format!(
            "no program works on the run of {}: its last sign of life was {since} UTC, {} ago",
            status.table,
            span(status.silent_s)
        ),
        next: format!("go on with it by\n  {go_on}"),
    }
}
