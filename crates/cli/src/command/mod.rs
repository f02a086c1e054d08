//! The commands, each a function from checked arguments to an exit status.
//!
//! Owns the frame around them: printer, run time, the one place where an error is printed.

mod abort;
mod end;
mod history;
mod leftovers;
mod plan;
mod run;
mod shell;
mod status;
mod steer;
mod stop;
mod turn;
mod verify;

use std::io;

use anyhow::Context as _;

use underpin_core::machine;

use crate::args::{Cli, Command, GlobalArgs};
use crate::backend::Backend;
use crate::exit::{ExitStatus, Problem};
use crate::logs;
use crate::resolve::TableArg;
use crate::ui::Printer;

/// Threads of the run time. The work is the server's; ours is to wait for it.
const THREADS: usize = 2;

/// Carries out a command line and prints whatever went wrong, once.
pub(crate) fn execute(cli: &Cli) -> ExitStatus {
    logs::begin(cli.global.verbose);
    let printer = Printer::new(&cli.global);
    let ended = in_run_time(cli, &printer);
    printer.close();
    match ended {
        Ok(ExitStatus::Done) if !printer.broken().is_empty() => ExitStatus::Failed,
        Ok(status) => status,
        Err(error) => {
            printer.failure(&error);
            ExitStatus::of(&error)
        }
    }
}

fn in_run_time(cli: &Cli, printer: &Printer) -> anyhow::Result<ExitStatus> {
    let run_time = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .context("starting the run time")?;
    let ended = run_time.block_on(dispatch(cli, printer));
    // Who pressed Ctrl-C to the end does not wait for tasks that do.
    run_time.shutdown_background();
    ended
}

async fn dispatch(cli: &Cli, printer: &Printer) -> anyhow::Result<ExitStatus> {
    let (global, input) = (&cli.global, &mut io::stdin());
    match &cli.command {
        Command::Plan(args) => plan::plan(args, global, input, printer).await,
        Command::Run(args) => run::run(args, global, input, printer).await,
        Command::Status(args) => status::status(args, global, printer).await,
        Command::List(args) => history::list(args, global, printer).await,
        Command::History(args) => history::history(args, global, printer).await,
        Command::Pause(args) => steer::order(args, machine::Command::Pause, global, printer).await,
        Command::Resume(args) => turn::resume(args, global, printer).await,
        Command::Revert(args) => turn::revert(args, global, printer).await,
        Command::Finish(args) => turn::finish(args, global, printer).await,
        Command::Swap(args) => steer::order(args, machine::Command::Swap, global, printer).await,
        Command::Verify(args) => verify::verify(args, global, printer).await,
        Command::Set(args) => steer::set(args, global, printer).await,
        Command::Abort(args) => abort::abort(args, global, printer).await,
        Command::Leftovers(args) => leftovers::leftovers(args, global, printer).await,
    }
}

/// The schema of a table that was named.
///
/// # Errors
/// A usage error where neither the name nor the URL tells it.
fn schema_of(table: &TableArg, backend: &Backend) -> Result<String, Problem> {
    table.schema.clone().or_else(|| backend.default_schema()).ok_or_else(|| {
        Problem::usage(
            format!("{} is not named with its database", table.name),
            format!("write database.{}, or put the database into the URL", table.name),
        )
    })
}

/// Says once what was ignored in the settings, and for who asks for more where we connect.
fn introduce(backend: &Backend, global: &GlobalArgs, printer: &Printer) {
    for warning in backend.warnings() {
        printer.warning(warning);
    }
    if global.verbose > 0 {
        for remark in backend.remarks() {
            printer.talk(remark);
        }
    }
}
