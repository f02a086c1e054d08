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
    let table = TableArg::parse(&args.table)?;
    let backend = Backend::resolve(&args.url, global, SessionWishes::default(), &[])?;
    let schema = schema_of(&table, &backend)?;
    introduce(&backend, global, printer);
    let what: Vec<String> = commands.iter().map(command_text).collect();
    let give = Give { schema: &schema, table: &table.name, commands: &commands };
    match backend.carry_out(give).await? {
        Ok(taken) => {
            let said = format!("{schema}.{}: {}", table.name, what.join(", "));
            printer.talk(&format!("{said} (taken after {} ms)", taken.took_ms));
            Ok(ExitStatus::Done)
        }
        Err(EngineError::NoRunner(dead)) => Err(no_runner(&dead, &backend, global).into()),
        Err(error) => Err(error.into()),
    }
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
