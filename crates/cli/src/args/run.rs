//! Options of `run`, and those that `plan` shares with it.
//!
//! Owns names, defaults and bounds. A bound is here where a value beyond it is a slip of the pen, not
//! a wish; the product works at every value within.

use clap::{Args, ValueEnum};
use underpin_dialect::Given;

use super::duration::DurationMs;
use super::help;
use super::load::LoadArgs;
use super::statement::StatementArgs;
use super::when::{RecordArgs, WhenArgs};

/// A second, for the bounds below.
const SECOND: u64 = 1_000;
/// A day, for the bounds below.
const DAY: u64 = 86_400_000;

pub(super) fn chunk_time(text: &str) -> Result<DurationMs, String> {
    DurationMs::within(DurationMs(10), DurationMs(60 * SECOND))(text)
}

pub(super) fn lag(text: &str) -> Result<DurationMs, String> {
    DurationMs::within(DurationMs(100), DurationMs(DAY))(text)
}

fn lock_timeout(text: &str) -> Result<DurationMs, String> {
    DurationMs::within(DurationMs(10), DurationMs(60 * SECOND))(text)
}

fn swap_budget(text: &str) -> Result<DurationMs, String> {
    DurationMs::within(DurationMs(10), DurationMs(10 * SECOND))(text)
}

fn lock_patience(text: &str) -> Result<DurationMs, String> {
    DurationMs::within(DurationMs(0), DurationMs(7 * DAY))(text)
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The database: mysql://USER@HOST:PORT/DATABASE or postgres://USER@HOST:PORT/DATABASE
    #[arg(value_name = "URL", long_help = help::URL)]
    pub(crate) url: String,

    /// The change.
    #[command(flatten)]
    pub(crate) statement: StatementArgs,

    /// Do not ask: go on as planned unless preflight refuses (needed where nobody can answer)
    #[arg(short, long)]
    pub(crate) yes: bool,

    /// What of the change a plan depends on.
    #[command(flatten)]
    pub(crate) shape: ShapeArgs,

    /// How it works, and when it gives way.
    #[command(flatten)]
    pub(crate) work: WorkArgs,

    /// The options that were given; filled in by [`super::Cli::read`].
    #[arg(skip)]
    pub(crate) given: Vec<Given>,
}

/// How a run works, whichever way it goes.
#[derive(Debug, Args)]
pub(crate) struct WorkArgs {
    /// How hard it works, and when it gives way.
    #[command(flatten)]
    pub(crate) load: LoadArgs,

    /// When the copy and the swap may be.
    #[command(flatten)]
    pub(crate) when: WhenArgs,

    /// Who is told, and what is put on record.
    #[command(flatten)]
    pub(crate) record: RecordArgs,

    /// Longest wait for the table's lock in one try
    ///
    /// While we wait for the lock, later statements on the table queue behind us; so each try is
    /// short, and there are many of them (--lock-patience). Whole seconds on MySQL and MariaDB.
    #[arg(long, value_name = "TIME", default_value = "1s", help_heading = "Swap")]
    #[arg(value_parser = lock_timeout)]
    pub(crate) lock_timeout: DurationMs,

    /// Longest time under the swap's lock; past it everybody is let through and it is tried again
    #[arg(long, value_name = "TIME", default_value = "300ms", help_heading = "Swap")]
    #[arg(value_parser = swap_budget)]
    pub(crate) swap_budget: DurationMs,

    /// How long to go on trying for a lock before the run stops (exit code 6)
    #[arg(long, value_name = "TIME", default_value = "30m", help_heading = "Swap")]
    #[arg(value_parser = lock_patience)]
    pub(crate) lock_patience: DurationMs,

    /// Compare old and new table before the swap; sample and off swap without proof
    #[arg(long, value_name = "HOW", default_value = "full", help_heading = "Swap")]
    pub(crate) verify: Verify,

    /// Keep the old table after the swap, under another name
    #[arg(long, help_heading = "Swap")]
    pub(crate) keep_retired: bool,
}

/// Options that decide how a change is made, and thus what the plan says.
#[derive(Debug, Clone, Args)]
pub(crate) struct ShapeArgs {
    /// Whether a change that the server could make at once is copied all the same
    #[arg(long, value_name = "HOW", default_value = "auto", help_heading = "Method")]
    pub(crate) strategy: Strategy,

    /// When the new table's secondary indexes are filled
    #[arg(long, value_name = "WHEN", default_value = "auto", help_heading = "Method")]
    pub(crate) indexes: Indexes,

    /// PostgreSQL: how changes get into the log
    ///
    /// A run that is resumed goes on with what it began with.
    #[arg(long, value_name = "HOW", default_value = "row", help_heading = "Method")]
    pub(crate) capture: Capture,

    /// Whether the change can be taken back after the swap: `keep` leaves the old table and captures what
    /// is written to the new one, until `underpin finish`; `now` removes the old one at once
    #[arg(long, value_name = "WHEN", default_value = "now", help_heading = "Swap")]
    pub(crate) finish: Finish,

    /// A replica to watch, as a URL; may be given several times; `none` watches none
    ///
    /// Without this the replicas that the server lists are watched. What the URL leaves out (user,
    /// password, encryption) is as for the server itself.
    #[arg(long = "replica", value_name = "URL|none", help_heading = "Load")]
    pub(crate) replicas: Vec<String>,
}

/// How the change is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Strategy {
    /// Copy, unless the server can make the change at once, without a copy and a long lock
    Auto,
    /// Always copy into a shadow table and swap
    Shadow,
}

/// When secondary indexes are filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Indexes {
    /// After the copy where that is safe and no replica would stall on it, else during
    Auto,
    /// Row by row while copying
    During,
    /// In one sorted build after the copy
    After,
}

/// When the way back is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Finish {
    /// Right after the swap: the old table is dropped, there is no way back
    Now,
    /// With `underpin finish`: until then `underpin revert` takes the change back and loses nothing
    Keep,
}

/// How changes get into the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Capture {
    /// A trigger for each row: the cheapest where a statement changes few rows
    Row,
    /// A trigger for each statement: for tables that are changed in bulk
    Statement,
}

/// Whether old and new table are compared before the swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Verify {
    /// Compare every row
    Full,
    /// Compare about one range in ten, the first and the last among them: the rest is not proven
    Sample,
    /// Compare nothing: a fault would be noticed only after the swap
    Off,
}
