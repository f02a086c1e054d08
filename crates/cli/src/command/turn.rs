//! `underpin revert`, `finish`, and `resume` of a run that nobody works on: commands that take up a run
//! from its record, with the options that it began with.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::mpsc;
use underpin_core::machine;
use underpin_core::turn::Turn;
use underpin_dialect::{Database, Given, Origin, Store as _};
use underpin_engine::{
    EngineError, OpenRun, RunOptions, find_open, resume as go_on, turn as take_turn,
};

use super::end::{Hints, tell_end};
use super::stop::until_stopped;
use super::{introduce, schema_of, steer, verify};
use crate::args::{Cli, Command, GlobalArgs, ResumeArgs, TurnArgs, inherited};
use crate::backend::{Backend, SessionWishes, Task};
use crate::exit::{ExitStatus, Problem};
use crate::resolve::{TableArg, options};
use crate::ui::Printer;

/// Commands that may wait for the engine: more keys than anybody presses.
const COMMANDS_MAX: usize = 16;

/// `underpin revert`.
pub(super) async fn revert(
    args: &TurnArgs,
    global: &GlobalArgs,
    printer: &Printer,
) -> anyhow::Result<ExitStatus> {
    take_up(args, "revert", Some(Turn::Revert), global, printer).await
}

/// `underpin finish`.
pub(super) async fn finish(
    args: &TurnArgs,
    global: &GlobalArgs,
    printer: &Printer,
) -> anyhow::Result<ExitStatus> {
    take_up(args, "finish", Some(Turn::Finish), global, printer).await
}

/// `underpin resume`: an order where a program works on the run; otherwise this one does.
pub(super) async fn resume(
    args: &ResumeArgs,
    global: &GlobalArgs,
    printer: &Printer,
) -> anyhow::Result<ExitStatus> {
    if args.again {
        return take_up(&args.of, "resume", Some(Turn::Again), global, printer).await;
    }
    let of = &args.of;
    match steer::resume(&of.url, &of.table, global, printer).await? {
        Some(status) => Ok(status),
        None => take_up(of, "resume", None, global, printer).await,
    }
}

/// Works on the run here. `turn`: which way it is to go from where it rests; `None`: on.
async fn take_up(
    args: &TurnArgs,
    verb: &str,
    turn: Option<Turn>,
    global: &GlobalArgs,
    printer: &Printer,
) -> anyhow::Result<ExitStatus> {
    let table = TableArg::parse(&args.table)?;
    let backend = Backend::resolve(&args.url, global, SessionWishes::default(), &[])?;
    let schema = schema_of(&table, &backend)?;
    introduce(&backend, global, printer);
    let look = Look { schema: &schema, table: &table.name };
    let (run, origin) = backend.carry_out(look).await?;
    let options = inherited(&origin.options, &args.given, turn.is_some());
    let again = read_again(args, verb, &options)?;
    if turn != Some(Turn::Finish)
        && let Some(why) = verify::warning(again.work.verify)
    {
        printer.warning(why);
    }
    let wishes = SessionWishes { lock_timeout_ms: Some(again.work.lock_timeout.0) };
    let backend = Backend::resolve(&args.url, global, wishes, &again.replicas)?;
    let options = options::options(&again.work, &again.given, backend.workers())?;
    let hints = Hints::of(&backend, &format!("{schema}.{}", table.name), global);
    backend.carry_out(Go { run, turn, options, hints: &hints, printer }).await
}

/// The arguments as if the options on record had been given too.
fn read_again(args: &TurnArgs, verb: &str, recorded: &[Given]) -> anyhow::Result<TurnArgs> {
    let mut line = vec!["underpin".to_owned(), verb.to_owned()];
    for option in args.given.iter().chain(recorded) {
        line.push(match option.value.as_str() {
            "" => format!("--{}", option.name),
            value => format!("--{}={value}", option.name),
        });
    }
    line.extend(["--".to_owned(), args.url.clone(), args.table.clone()]);
    let cli = Cli::read_from(line).map_err(|error| Problem {
        status: ExitStatus::Usage,
        message: format!("the options on record with the run do not fit this command: {error}"),
        next: "give those that count here anew".into(),
    })?;
    match cli.command {
        Command::Revert(args) | Command::Finish(args) => Ok(*args),
        Command::Resume(args) => Ok(args.of),
        _ => Err(anyhow::anyhow!("internal fault: {verb} was read as another command")),
    }
}

struct Look<'a> {
    schema: &'a str,
    table: &'a str,
}

impl Task for Look<'_> {
    type Output = (OpenRun, Origin);

    async fn on<D: Database>(self, db: Arc<D>) -> anyhow::Result<Self::Output> {
        let mut control = db.control().await?;
        let (schema, table) = (self.schema, self.table);
        let found = find_open(&mut control, schema, table).await.context("looking for the run")?;
        let run = found.ok_or_else(|| EngineError::NoRun { table: format!("{schema}.{table}") })?;
        let runs = control.runs(Some((schema, table))).await?;
        let of = runs.into_iter().find(|it| it.run_id == run.spec.run_id);
        let origin = of.and_then(|it| serde_json::from_str(&it.origin).ok()).unwrap_or_default();
        Ok((run, origin))
    }
}

struct Go<'a> {
    run: OpenRun,
    turn: Option<Turn>,
    options: RunOptions,
    hints: &'a Hints,
    printer: &'a Printer,
}

impl Task for Go<'_> {
    type Output = ExitStatus;

    async fn on<D: Database>(self, db: Arc<D>) -> anyhow::Result<ExitStatus> {
        let (commands, heard) = mpsc::channel::<machine::Command>(COMMANDS_MAX);
        let (printer, reporter) = (self.printer, self.printer.reporter());
        let ended = match self.turn {
            Some(turn) => {
                let work = take_turn(db, self.run, turn, self.options, heard, reporter);
                until_stopped(work, &commands, printer).await
            }
            None => {
                let work = go_on(db, self.run, self.options, heard, reporter);
                until_stopped(work, &commands, printer).await
            }
        };
        printer.close();
        tell_end(ended?, self.hints, printer)
    }
}
