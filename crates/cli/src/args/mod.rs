//! The command line as it is written: commands, options, defaults and their help.
//!
//! Owns the raw shapes only. They are filled in by the argument parser, touch neither file nor
//! environment nor server, and promise nothing beyond the form of each value; what they mean together
//! is decided in [`crate::resolve`].

mod connection;
mod duration;
mod help;
mod run;
mod statement;
#[cfg(test)]
mod tests;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use connection::{ConnectionArgs, SslMode};
pub(crate) use run::{Capture, Indexes, RunArgs, ShapeArgs, Strategy, Verify};
pub(crate) use statement::{Source, StatementArgs};

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

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show how a change would be made and what stands in its way; changes nothing
    #[command(long_about = help::PLAN_ABOUT, after_long_help = help::PLAN_AFTER, override_usage = help::PLAN_USAGE)]
    Plan(PlanArgs),
    /// Make a change, or go on with one that was interrupted
    #[command(long_about = help::RUN_ABOUT, after_long_help = help::RUN_AFTER, override_usage = help::RUN_USAGE)]
    Run(RunArgs),
    /// List runs that are not finished
    #[command(long_about = help::STATUS_ABOUT, after_long_help = help::STATUS_AFTER)]
    Status(StatusArgs),
    /// End an unfinished run and remove everything of it; the table stays as it is
    #[command(long_about = help::ABORT_ABOUT, after_long_help = help::ABORT_AFTER)]
    Abort(AbortArgs),
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

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The database: mysql://USER@HOST:PORT/DATABASE or postgres://USER@HOST:PORT/DATABASE
    #[arg(value_name = "URL", long_help = help::URL)]
    pub(crate) url: String,
    /// Show this table only, as orders or shop.orders
    #[arg(value_name = "TABLE")]
    pub(crate) table: Option<String>,
    /// Show finished runs too (the newest hundred)
    #[arg(long)]
    pub(crate) all: bool,
}

/// Arguments of `abort`.
#[derive(Debug, Args)]
pub(crate) struct AbortArgs {
    /// The database: mysql://USER@HOST:PORT/DATABASE or postgres://USER@HOST:PORT/DATABASE
    #[arg(value_name = "URL", long_help = help::URL)]
    pub(crate) url: String,
    /// The table whose run is to end, as orders or shop.orders
    #[arg(value_name = "TABLE")]
    pub(crate) table: String,
}
