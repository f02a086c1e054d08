//! Arguments of the commands that look at runs and steer them from elsewhere.

use clap::Args;

use super::help;
use super::setting::{Assignment, assignment};

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
    /// Look again every second until no run is left, or Ctrl-C
    #[arg(short, long)]
    pub(crate) watch: bool,
}

/// Arguments of `list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// The database: mysql://USER@HOST:PORT/DATABASE or postgres://USER@HOST:PORT/DATABASE
    #[arg(value_name = "URL", long_help = help::URL)]
    pub(crate) url: String,
}

/// Arguments of `history`.
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// The database: mysql://USER@HOST:PORT/DATABASE or postgres://USER@HOST:PORT/DATABASE
    #[arg(value_name = "URL", long_help = help::URL)]
    pub(crate) url: String,
    /// Show this table only, as orders or shop.orders
    #[arg(value_name = "TABLE")]
    pub(crate) table: Option<String>,
}

/// Arguments of `abort`, `pause`, `resume` and `swap`.
#[derive(Debug, Args)]
pub(crate) struct TableArgs {
    /// The database: mysql://USER@HOST:PORT/DATABASE or postgres://USER@HOST:PORT/DATABASE
    #[arg(value_name = "URL", long_help = help::URL)]
    pub(crate) url: String,
    /// The table whose run is meant, as orders or shop.orders
    #[arg(value_name = "TABLE")]
    pub(crate) table: String,
}

/// Arguments of `set`.
#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// The table whose run is meant.
    #[command(flatten)]
    pub(crate) of: TableArgs,
    /// What to change, as max-lag=3s, max-load=running=50, nice=50%, rate=20MB, workers=2
    #[arg(value_name = "NAME=VALUE", required = true, value_parser = assignment)]
    pub(crate) settings: Vec<Assignment>,
}
