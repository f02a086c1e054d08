//! Options on when a run may work and swap, who is told of it, and what is put on record.
//!
//! Owns their names, forms and defaults. What they mean together is `resolve`'s.

use clap::{Args, ValueEnum};

use super::duration::DurationMs;

/// A second, for the bounds below.
const SECOND: u64 = 1_000;

fn hook_timeout(text: &str) -> Result<DurationMs, String> {
    DurationMs::within(DurationMs(100), DurationMs(600 * SECOND))(text)
}

fn compare_after(text: &str) -> Result<DurationMs, String> {
    DurationMs::within(DurationMs(0), DurationMs(300 * SECOND))(text)
}

/// When the copy and the swap may be.
#[derive(Debug, Args)]
#[command(next_help_heading = "Time")]
pub(crate) struct WhenArgs {
    /// When the swap may be made once everything is ready [default: now; window with --swap-window]
    #[arg(long, value_name = "WHEN")]
    pub(crate) swap: Option<SwapTime>,

    /// When rows may be copied, as 'mon-fri 20:00-06:00 Europe/Berlin'; may be given several times
    #[arg(long, value_name = "WINDOW")]
    pub(crate) copy_window: Vec<String>,

    /// When the swap may be made, likewise
    #[arg(long, value_name = "WINDOW")]
    pub(crate) swap_window: Vec<String>,

    /// By when the swap is to be made: '06:00 Europe/Berlin', '2026-11-23 06:00 Europe/Berlin' or 8h
    #[arg(long, value_name = "TIME")]
    pub(crate) deadline: Option<String>,

    /// What is done at the deadline where the swap is not made [default: stop]
    #[arg(long, value_name = "WHAT", requires = "deadline")]
    pub(crate) at_deadline: Option<AtDeadline>,
}

/// Who is told, and what is put on record.
#[derive(Debug, Args)]
#[command(next_help_heading = "Record")]
pub(crate) struct RecordArgs {
    /// Why the change is made; kept in the history
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,

    /// Where the change is asked for, as OPS-4711; kept in the history
    #[arg(long, value_name = "TEXT")]
    pub(crate) ticket: Option<String>,

    /// Who approved of the change; kept in the history
    #[arg(long, value_name = "NAME")]
    pub(crate) approved_by: Option<String>,

    /// Run this command at each event, with JSON on its standard input
    ///
    /// Events: started, throttled, resumed, ready, swapped, stopped, failed, finished. It is run without a
    /// shell. The command is kept in the history: put no password into it.
    #[arg(long, value_name = "COMMAND")]
    #[arg(value_parser = underpin_engine::HookCommand::read)]
    pub(crate) on_event: Option<underpin_engine::HookCommand>,

    /// How long that command may take
    #[arg(long, value_name = "TIME", default_value = "10s", requires = "on_event")]
    #[arg(value_parser = hook_timeout)]
    pub(crate) hook_timeout: DurationMs,

    /// Swap only after that command has answered `ready` with exit code 0
    #[arg(long, requires = "on_event")]
    pub(crate) hook_veto: bool,

    /// Watch the table's statements so long after the swap and name those that fare worse; 0s: do not
    #[arg(long, value_name = "TIME", default_value = "5s")]
    #[arg(value_parser = compare_after)]
    pub(crate) compare_after: DurationMs,
}

/// When the swap may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SwapTime {
    /// As soon as everything is ready
    Now,
    /// When somebody says `underpin swap`
    Wait,
    /// While --swap-window is open
    Window,
}

/// What is done at the deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AtDeadline {
    /// Stop; the same command goes on
    Stop,
    /// End the run and remove everything of it
    Abort,
    /// Swap as soon as everything is ready, whatever window or --swap wait said
    Swap,
}
