//! Arguments of `verify`, and its help.

use clap::Args;

use super::duration::DurationMs;
use super::run::chunk_time;
use super::setting::nice;
use super::steer::TableArgs;

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The table whose run is meant.
    #[command(flatten)]
    pub(crate) of: TableArgs,
    /// How long comparing one range should take; its number of rows follows from it
    #[arg(long, value_name = "TIME", default_value = "400ms")]
    #[arg(value_parser = chunk_time)]
    pub(crate) chunk_time: DurationMs,
    /// Spend only this share of the time comparing
    #[arg(long, value_name = "SHARE", default_value = "50%", value_parser = nice)]
    pub(crate) nice: u32,
}

/// About `verify`.
pub(super) const ABOUT: &str = "\
Compare the two tables of an unfinished run, at any time and beside it; repairs nothing.

Works whether the run's program is alive or dead, takes no lock on the run and writes nothing. The tables \
are compared a range of keys at a time, each range in one snapshot: the table and its copy, and once the \
swap is made and can be taken back, the new table and the old one. Rows whose changes wait in the change \
log are left out; all others must be equal, column by column. Rows that differ are named with their keys.

On MySQL and MariaDB the part that is copied can be compared while the copy goes on; on PostgreSQL all of \
it, once the copy has caught up.

Ends with 0 where they are equal, with 5 where rows differ, with 3 where the table has no unfinished run or \
there is nothing to compare yet, or any more.";

/// Examples of `verify`.
pub(super) const AFTER: &str = "\
Examples:
  underpin verify mysql://admin@db1/shop orders
  underpin verify postgres://admin@db2/shop sales.orders --nice 20% --json";
