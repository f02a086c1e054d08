//! Arguments of `leftovers`.

use clap::Args;

use super::duration::DurationMs;
use super::help;

/// Arguments of `leftovers`.
#[derive(Debug, Args)]
pub(crate) struct LeftoversArgs {
    /// The database: mysql://USER@HOST:PORT/DATABASE or postgres://USER@HOST:PORT/DATABASE
    #[arg(value_name = "URL", long_help = help::URL)]
    pub(crate) url: String,
    /// Remove what may be removed; without it, it is only shown
    #[arg(long)]
    pub(crate) remove: bool,
    /// Only what belongs to this run
    #[arg(long, value_name = "ID")]
    pub(crate) run: Option<String>,
    /// Only what is at least this old, as 7d
    #[arg(long, value_name = "TIME", value_parser = DurationMs::parse)]
    pub(crate) older_than: Option<DurationMs>,
    /// Remove also what belongs to runs that are not on record
    ///
    /// The record may stand in another schema (--state-schema), or the account may not see it: then the
    /// run may be alive.
    #[arg(long, requires = "remove")]
    pub(crate) remove_unknown: bool,
    /// Do not ask
    #[arg(long, requires = "remove")]
    pub(crate) yes: bool,
}

/// The long text of `underpin leftovers --help`.
pub(super) const ABOUT: &str = "\
Show everything of underpin's own that stands on a server, and remove what is left over.

Shown are shadows, change logs, retired tables, sentries, triggers, schemas and functions, with the run \
they belong to, its state, their size and what would be lost. Nothing of an open run is removed (`abort` \
and `resume` do that), nothing that cannot be proven to be underpin's, and a retired table only with \
--run or --older-than.";

/// Examples of `leftovers`.
pub(super) const AFTER: &str = "\
Examples:
  underpin leftovers mysql://admin@db1/shop
  underpin leftovers mysql://admin@db1/shop --remove
  underpin leftovers mysql://admin@db1/shop --remove --older-than 24h";
