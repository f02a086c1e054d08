//! Arguments of the commands that go on with a run that is on record: `resume`, `revert`, `finish`.
//!
//! Owns which of the options that the run began with count for them too.

use clap::Args;
use underpin_dialect::Given;

use super::help;
use super::run::WorkArgs;

/// Arguments of `revert` and `finish`.
#[derive(Debug, Args)]
pub(crate) struct TurnArgs {
    /// The database: mysql://USER@HOST:PORT/DATABASE or postgres://USER@HOST:PORT/DATABASE
    #[arg(value_name = "URL", long_help = help::URL)]
    pub(crate) url: String,
    /// The table whose run is meant, as orders or shop.orders
    #[arg(value_name = "TABLE")]
    pub(crate) table: String,

    /// A replica to watch, as a URL; may be given several times; `none` watches none
    #[arg(long = "replica", value_name = "URL|none", help_heading = "Load")]
    pub(crate) replicas: Vec<String>,

    /// How it works, and when it gives way.
    #[command(flatten)]
    pub(crate) work: WorkArgs,

    /// The options that were given; filled in by [`super::Cli::read`].
    #[arg(skip)]
    pub(crate) given: Vec<Given>,
}

/// Arguments of `resume`.
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    /// Make a change again that was taken back by `underpin revert`
    #[arg(long)]
    pub(crate) again: bool,
    /// The run, and how it goes on where nobody works on it.
    #[command(flatten)]
    pub(crate) of: TurnArgs,
}

/// Options of the run that have nothing to say about its way back: when it might copy and swap, and what
/// the change was made for.
const FORWARD_ONLY: [&str; 11] = [
    "swap",
    "copy-window",
    "swap-window",
    "deadline",
    "at-deadline",
    "verify",
    "reason",
    "ticket",
    "approved-by",
    "compare-after",
    "hook-veto",
];

/// Options that belong to the change itself, and are on record with it.
const OF_THE_CHANGE: [&str; 4] = ["strategy", "indexes", "capture", "finish"];

/// The options that the run began with and that count for another command on it: those that are not
/// `given` to this one. `turns`: it goes another way than the run did.
pub(crate) fn inherited(recorded: &[Given], given: &[Given], turns: bool) -> Vec<Given> {
    recorded
        .iter()
        .filter(|option| {
            let name = option.name.as_str();
            let is_given = given.iter().any(|it| it.name == name);
            let is_forward = turns && FORWARD_ONLY.contains(&name);
            !is_given && !is_forward && !OF_THE_CHANGE.contains(&name)
        })
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(name: &str, value: &str) -> Given {
        Given { name: name.into(), value: value.into() }
    }

    #[test]
    fn what_is_given_counts_before_what_is_on_record() {
        let recorded = [
            option("replica", "none"),
            option("max-lag", "9s"),
            option("swap", "wait"),
            option("strategy", "shadow"),
        ];
        let given = [option("max-lag", "1s")];
        let names = |turns| {
            let inherited = inherited(&recorded, &given, turns);
            inherited.into_iter().map(|it| it.name).collect::<Vec<_>>()
        };
        assert_eq!(names(true), ["replica"]);
        assert_eq!(names(false), ["replica", "swap"]);
    }
}
