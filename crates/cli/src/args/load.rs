//! Options on how hard a run works and what makes it give way.
//!
//! Owns their names, forms and defaults. What they mean together is `resolve`'s.

use std::path::PathBuf;

use clap::Args;

use super::duration::DurationMs;
use super::run::{chunk_time, lag};
use super::setting::{LoadLimit, Rate, load_limit, max_load, nice, rate};

/// How hard, and when to give way.
#[derive(Debug, Args)]
#[command(next_help_heading = "Load")]
pub(crate) struct LoadArgs {
    /// Chunks copied side by side, each on a connection of its own [default: 4; PostgreSQL: 2]
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) workers: Option<u32>,

    /// How long one chunk should take; its number of rows follows from it
    #[arg(long, value_name = "TIME", default_value = "400ms")]
    #[arg(value_parser = chunk_time)]
    pub(crate) chunk_time: DurationMs,

    /// Pause the copy while a replica lags more than this, or cannot be read
    #[arg(long, value_name = "TIME", default_value = "2s")]
    #[arg(value_parser = lag)]
    pub(crate) max_lag: DurationMs,

    /// Slow down ahead of this value of a signal and pause at it; may be given several times
    ///
    /// Signals: running (statements at work besides ours), write-latency (of a small write of ours, as
    /// 50ms), lock-waits, history, checkpoint (as 80%), disk-free (as 20GB: pause below it), archive,
    /// slot-bytes, slot-share, lag-bytes, and your own names. Not every server has each of them; one that
    /// has a limit and cannot be read pauses the copy.
    #[arg(long, value_name = "NAME=VALUE", value_parser = max_load)]
    pub(crate) max_load: Vec<LoadLimit>,

    /// End the run and remove everything of it at this value of a signal; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = load_limit)]
    pub(crate) critical_load: Vec<LoadLimit>,

    /// Spend only this share of the time at work, as 50%
    #[arg(long, value_name = "SHARE", value_parser = nice)]
    pub(crate) nice: Option<u32>,

    /// Copy at most so many rows a second (20000) or bytes a second (20MB)
    #[arg(long, value_name = "N", value_parser = rate)]
    pub(crate) rate: Option<Rate>,

    /// A signal of your own: a query that returns one number; its limit by --max-load
    #[arg(long, value_name = "NAME=SQL")]
    pub(crate) signal_query: Vec<String>,

    /// A signal of your own: an address; any status but 2xx pauses, or the number it answers at its limit
    #[arg(long, value_name = "NAME=URL")]
    pub(crate) signal_url: Vec<String>,

    /// A signal of your own: pause while this file is there; its first line is the reason
    #[arg(long, value_name = "PATH")]
    pub(crate) signal_file: Vec<PathBuf>,
}
