//! The commands, each a function from checked arguments to an exit status.
//!
//! Owns the frame around them: printer, run time, the one place where an error is printed.

mod abort;
mod plan;
mod run;
mod shell;
mod status;
mod stop;

use std::io;

use anyhow::Context as _;

use crate::args::{Cli, Command, GlobalArgs};
use crate::backend::Backend;
use crate::exit::ExitStatus;
use crate::logs;
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
        Command::Abort(args) => abort::abort(args, global, printer).await,
    }
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
