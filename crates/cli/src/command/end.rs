//! How the work on a run ended, as a person reads it, with the commands that come next.

use underpin_core::way::Way;
use underpin_engine::{Outcome, Report};

use super::shell;
use super::stop::Ended;
use crate::args::GlobalArgs;
use crate::backend::Backend;
use crate::exit::{ExitStatus, Problem};
use crate::ui::{Printer, summary_text};

/// Commands to show, made while the URL is at hand.
pub(super) struct Hints {
    table: String,
    pub(super) status: String,
    pub(super) abort: String,
    revert: String,
    finish: String,
    again: String,
}

impl Hints {
    pub(super) fn of(backend: &Backend, table: &str, global: &GlobalArgs) -> Self {
        let command = |verb: &str| shell::underpin(verb, &[backend.url(), table], global);
        Self {
            table: table.to_owned(),
            status: command("status"),
            abort: command("abort"),
            revert: command("revert"),
            finish: command("finish"),
            again: format!("{} --again", command("resume")),
        }
    }

    /// What can be done with a run that goes back or went back, by who wanted to make the change.
    pub(super) fn after_revert(&self, stands: Option<Way>) -> String {
        match stands {
            Some(Way::Back) => self.at_rest(Way::Back),
            _ => format!("go on with it:  {}\n  leave it:       {}", self.revert, self.abort),
        }
    }

    /// What can be done with a run that rests.
    fn at_rest(&self, stands: Way) -> String {
        match stands {
            Way::Forward => format!(
                "the change can be taken back until it is finished\n  take it back:  {}\n  end the \
                 run:   {}",
                self.revert, self.finish
            ),
            Way::Back => format!(
                "the old table is live again; the new one is kept up with by `resume --again`\n  make \
                 it again:  {}\n  end the run:    {}",
                self.again, self.finish
            ),
        }
    }
}

/// Tells how it ended.
///
/// # Errors
/// It was ended from elsewhere.
pub(super) fn tell_end(
    ended: Ended,
    hints: &Hints,
    printer: &Printer,
) -> anyhow::Result<ExitStatus> {
    match ended {
        Ended::Here(Outcome::Done(summary)) => {
            if !printer.is_json() {
                printer.data(&summary_text(&summary));
            }
            Ok(ExitStatus::Done)
        }
        Ended::Here(Outcome::Revertible { stands, summary }) => {
            if !printer.is_json() {
                printer.data(&match stands {
                    Way::Forward => summary_text(&summary),
                    Way::Back => format!("{}: the old table is live again\n", summary.table),
                });
                printer.talk(&hints.at_rest(stands));
            }
            Ok(ExitStatus::Done)
        }
        Ended::Here(Outcome::Altered { tries, took_ms }) => {
            let table = hints.table.clone();
            if printer.is_json() {
                printer.tell(|at_ms| Report::Altered { at_ms, table, tries, took_ms });
            } else {
                printer.data(&format!(
                    "{table} is changed, by the server itself in {took_ms} ms (try {tries})\n"
                ));
            }
            Ok(ExitStatus::Done)
        }
        Ended::Here(Outcome::Aborted { why }) => Err(aborted(&why).into()),
        Ended::Here(Outcome::Stayed { stands, why }) => Err(stayed(stands, &why, hints).into()),
        Ended::Here(Outcome::Interrupted) => {
            printer.talk(&format!(
                "interrupted; the same command goes on where the run is\n  see it:  {}\n  end it:  {}",
                hints.status, hints.abort
            ));
            Ok(ExitStatus::Interrupted)
        }
        Ended::LeftBehind => {
            printer.talk(&format!(
                "not waiting any longer. What the server still does ends by itself, and the same \
                 command finds out and goes on exactly\n  see it:  {}\n  end it:  {}",
                hints.status, hints.abort
            ));
            Ok(ExitStatus::Interrupted)
        }
    }
}

/// The run was ended from elsewhere, or by its own limits.
fn aborted(why: &str) -> Problem {
    let (message, next) = match why {
        "" => ("the run was ended on request; the table is as it was".into(), ""),
        why => (
            format!("the run was ended: {why}; the table is as it was"),
            "run it again when the server has room, perhaps with --nice or --rate",
        ),
    };
    Problem { status: ExitStatus::Failed, message, next: next.into() }
}

/// The way back, or forward again, was left.
fn stayed(stands: Way, why: &str, hints: &Hints) -> Problem {
    let live = match stands {
        Way::Forward => "the new table stays live",
        Way::Back => "the old table stays live",
    };
    let why = if why.is_empty() { "on request" } else { why };
    Problem {
        status: ExitStatus::Failed,
        message: format!("the exchange was given up ({why}); {live}, and nothing is lost"),
        next: hints.at_rest(stands),
    }
}
