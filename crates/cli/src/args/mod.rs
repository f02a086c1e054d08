//! The command line as it is written: commands, options, defaults and their help.
//!
//! Owns the raw shapes only. They are filled in by the argument parser, touch neither file nor
//! environment nor server, and promise nothing beyond the form of each value; what they mean together
//! is decided in [`crate::resolve`].

mod connection;
mod duration;
mod given;
mod help;
mod leftovers;
mod load;
mod run;
mod setting;
mod statement;
mod steer;
#[cfg(test)]
mod tests;
mod turn;
mod verify;
mod when;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

pub(crate) use connection::{ConnectionArgs, SslMode};
pub(crate) use duration::DurationMs;
pub(crate) use leftovers::LeftoversArgs;
pub(crate) use run::{Capture, Finish, Indexes, RunArgs, ShapeArgs, Strategy, Verify, WorkArgs};
pub(crate) use setting::{KNOWN, LoadLimit, Rate};
pub(crate) use statement::{Source, StatementArgs};
pub(crate) use steer::{HistoryArgs, ListArgs, SetArgs, StatusArgs, TableArgs};
pub(crate) use turn::{ResumeArgs, TurnArgs, inherited};
pub(crate) use verify::VerifyArgs;
pub(crate) use when::{AtDeadline, SwapTime};

/// Change a MySQL, MariaDB or PostgreSQL table while it is in use
#[derive(Debug, Parser)]
#[command(
    name = "underpin",
    version,
    long_about = help::TOP_ABOUT,
    after_help = help::TOP_AFTER_SHORT,
    after_long_help = help::TOP_AFTER,
    max_term_width = 100,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Options that every command knows.
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
}

impl Cli {
    /// Reads this program's command line.
    ///
    /// # Errors
    /// It is wrong, or asks for help or the version.
    pub(crate) fn read() -> Result<Self, clap::Error> {
        Self::read_from(std::env::args_os())
    }

    /// Reads a command line of words.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn read_from(
        line: impl IntoIterator<Item = impl Into<std::ffi::OsString> + Clone>,
    ) -> Result<Self, clap::Error> {
        let mut definition = <Self as CommandFactory>::command();
        // Puts the global options into the subcommands.
        definition.build();
        let matches = definition.clone().try_get_matches_from(line)?;
        let mut cli = Self::from_arg_matches(&matches)?;
        if cli.global.json {
            cli.global.output = Output::Json;
        }
        if let Some((name, matches)) = matches.subcommand()
            && let Some(definition) = definition.find_subcommand(name)
        {
            let given = || given::given(definition, matches);
            match &mut cli.command {
                Command::Run(run) => run.given = given(),
                Command::Resume(resume) => resume.of.given = given(),
                Command::Revert(turn) | Command::Finish(turn) => turn.given = given(),
                _ => {}
            }
        }
        Ok(cli)
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show how a change would be made and what stands in its way; changes nothing
    #[command(long_about = help::PLAN_ABOUT, after_long_help = help::PLAN_AFTER, override_usage = help::PLAN_USAGE)]
    Plan(PlanArgs),
    /// Make a change, or go on with one that was interrupted
    #[command(long_about = help::RUN_ABOUT, after_long_help = help::RUN_AFTER, override_usage = help::RUN_USAGE)]
    Run(Box<RunArgs>),
    /// Show runs that are not finished, how they fare, and how they go on
    #[command(long_about = help::STATUS_ABOUT, after_long_help = help::STATUS_AFTER)]
    Status(StatusArgs),
    /// List all runs that the server remembers
    #[command(long_about = help::LIST_ABOUT, after_long_help = help::LIST_AFTER)]
    List(ListArgs),
    /// Show what was done: statements, who, when, why, with which result
    #[command(long_about = help::HISTORY_ABOUT, after_long_help = help::HISTORY_AFTER)]
    History(HistoryArgs),
    /// Have a run begin nothing new until it is resumed
    #[command(long_about = help::PAUSE_ABOUT, after_long_help = help::PAUSE_AFTER)]
    Pause(TableArgs),
    /// Let a paused run go on; where its program is dead, go on with it here
    #[command(long_about = help::RESUME_ABOUT, after_long_help = help::RESUME_AFTER)]
    Resume(Box<ResumeArgs>),
    /// Let a run that waits for it make its swap
    #[command(long_about = help::SWAP_ABOUT, after_long_help = help::SWAP_AFTER)]
    Swap(TableArgs),
    /// Compare the two tables of an unfinished run, at any time and beside it; repairs nothing
    #[command(long_about = verify::ABOUT, after_long_help = verify::AFTER)]
    Verify(VerifyArgs),
    /// Change limits of a run while it goes on
    #[command(long_about = help::SET_ABOUT, after_long_help = help::SET_AFTER)]
    Set(SetArgs),
    /// Take a made change back: the old table returns, with everything that was written since
    #[command(long_about = help::REVERT_ABOUT, after_long_help = help::REVERT_AFTER)]
    Revert(Box<TurnArgs>),
    /// End a run whose swap is made: remove the way back and the table that is not live
    #[command(long_about = help::FINISH_ABOUT, after_long_help = help::FINISH_AFTER)]
    Finish(Box<TurnArgs>),
    /// End an unfinished run and remove everything of it; the table stays as it is
    #[command(long_about = help::ABORT_ABOUT, after_long_help = help::ABORT_AFTER)]
    Abort(TableArgs),
    /// Show what of underpin's own stands on a server, and remove what is left over
    #[command(long_about = leftovers::ABOUT, after_long_help = leftovers::AFTER)]
    Leftovers(LeftoversArgs),
}

/// Options that every command knows.
#[derive(Debug, Args)]
pub(crate) struct GlobalArgs {
    /// Where the connection comes from.
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,

    /// Database (on PostgreSQL: schema) that holds underpin's own state on the server
    ///
    /// It is created where it is missing. Name another one where the account may not create
    /// databases; all runs against a server must name the same.
    #[arg(long, global = true, value_name = "NAME", default_value = "underpin")]
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    #[arg(help_heading = "Connection")]
    pub(crate) state_schema: String,

    /// How to print: progress bars, plain lines, or one JSON object a line
    #[arg(
        long,
        global = true,
        value_name = "FORM",
        default_value = "auto",
        help_heading = "Output"
    )]
    pub(crate) output: Output,

    /// The same as --output json
    #[arg(long, global = true, conflicts_with = "output", help_heading = "Output")]
    pub(crate) json: bool,

    /// Log what is done, to standard error; twice for more
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Output")]
    pub(crate) verbose: u8,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Bars on a terminal, plain lines elsewhere
    Auto,
    /// Plain lines everywhere
    Text,
    /// One JSON object a line on standard output, for programs
    Json,
}

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The database: mysql://USER@HOST:PORT/DATABASE or postgres://USER@HOST:PORT/DATABASE
    #[arg(value_name = "URL", long_help = help::URL)]
    pub(crate) url: String,
    /// The change.
    #[command(flatten)]
    pub(crate) statement: StatementArgs,
    /// What of the change a plan depends on.
    #[command(flatten)]
    pub(crate) shape: ShapeArgs,
}
