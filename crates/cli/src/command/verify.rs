//! `underpin verify`: compares the two tables of an unfinished run; and what is said of a run that is
//! compared by less than all of it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;
use tokio::time::Instant;
use underpin_core::finding::Finding;
use underpin_dialect::Database;
use underpin_engine::{
    Compared, Counterpart, EngineError, Extent, RunStatus, Verdict, VerifyOptions,
};

use super::{introduce, schema_of, shell};
use crate::args::{GlobalArgs, Verify, VerifyArgs};
use crate::backend::{Backend, SessionWishes, Task};
use crate::exit::{ExitStatus, Problem};
use crate::resolve::TableArg;
use crate::signals::Signals;
use crate::ui::{Printer, count, listed, millis};

/// Time between two lines on how far it is.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Compares, tells, and ends with 0 or 5.
pub(super) async fn verify(
    args: &VerifyArgs,
    global: &GlobalArgs,
    printer: &Printer,
) -> anyhow::Result<ExitStatus> {
    let table = TableArg::parse(&args.of.table)?;
    let backend = Backend::resolve(&args.of.url, global, SessionWishes::default(), &[])?;
    let schema = schema_of(&table, &backend)?;
    introduce(&backend, global, printer);
    let mut signals = Signals::listen().context("listening to signals")?;
    let options = VerifyOptions {
        range_ms_target: args.chunk_time.0,
        work_share: args.nice,
        ..VerifyOptions::default()
    };
    let (stop, stopped) = watch::channel(false);
    let look = Look { schema: &schema, table: &table.name, options, stopped, printer };
    let work = backend.carry_out(look);
    tokio::pin!(work);
    let found = tokio::select! {
        found = &mut work => found?,
        () = signals.next() => {
            stop.send_replace(true);
            tokio::select! {
                found = &mut work => found?,
                () = signals.next() => return Ok(ExitStatus::Interrupted),
            }
        }
    };
    match found {
        Ok(found) => Ok(tell(&found, printer)),
        Err(error @ (EngineError::NothingToCompare { .. } | EngineError::NoRun { .. })) => {
            let (url, name) = backend.place_of(&schema, &table.name);
            let look = shell::underpin("status", &[&url, &name], global);
            let message = error.to_string();
            Err(Problem { status: ExitStatus::Refused, message, next: format!("see it: {look}") }
                .into())
        }
        Err(error) => Err(error.into()),
    }
}

struct Look<'a> {
    schema: &'a str,
    table: &'a str,
    options: VerifyOptions,
    stopped: watch::Receiver<bool>,
    printer: &'a Printer,
}

impl Task for Look<'_> {
    type Output = Result<Compared, EngineError>;

    async fn on<D: Database>(self, db: Arc<D>) -> anyhow::Result<Self::Output> {
        let Self { schema, table, options, stopped, printer } = self;
        let mut told_at = Instant::now();
        let told = |found: &Compared| {
            if told_at.elapsed() >= LINE_EVERY {
                told_at = Instant::now();
                let (rows, differences) = (count(found.rows), count(found.differences));
                printer.talk(&format!("{rows} rows compared, {differences} differ"));
            }
        };
        Ok(underpin_engine::verify(&*db, schema, table, &options, stopped, told).await)
    }
}

/// Prints the result.
fn tell(found: &Compared, printer: &Printer) -> ExitStatus {
    if printer.is_json() {
        printer.data(&format!("{}\n", listed("compared", found)));
    } else {
        printer.data(&text(found));
    }
    match found {
        Compared { differences: 1.., .. } => ExitStatus::Different,
        Compared { complete: false, .. } => ExitStatus::Interrupted,
        Compared { .. } => ExitStatus::Done,
    }
}

fn text(found: &Compared) -> String {
    let Compared { table, phase, rows, differences, samples, .. } = found;
    let extent = match (found.complete, found.extent) {
        (false, _) => "stopped before the end",
        (true, Extent::Copied) => "all that was copied when it began",
        (true, Extent::All) => "all of it",
    };
    let with = match found.with {
        Counterpart::Shadow => "its new table",
        Counterpart::Retired => "the table that was live before the swap",
    };
    let mut out = format!(
        "{table} compared with {with} (phase {phase}): {} rows in {}, {extent}\n",
        count(*rows),
        millis(found.took_ms)
    );
    if *differences == 0 {
        out.push_str("  equal, but for what waits in the change log\n");
        return out;
    }
    out.push_str(&format!("  {} DIFFERENT:\n", count(*differences)));
    for sample in samples {
        out.push_str(&format!("    {sample}\n"));
    }
    let named = u64::try_from(samples.len()).unwrap_or(u64::MAX);
    if *differences > named {
        out.push_str(&format!("    and {} more\n", count(differences - named)));
    }
    out.push_str(
        "  nothing was repaired; a run that has not compared them yet finds them itself, writes them once \
         more, and stops before the swap where that does not help\n",
    );
    out
}

/// What is said at the beginning of a run that compares less than everything.
pub(super) fn warning(how: Verify) -> Option<&'static str> {
    match how {
        Verify::Full => None,
        Verify::Sample => Some(
            "--verify sample: about one range in ten will be compared before the swap. The rest is not \
             proven equal: a fault there would be noticed only when the old table is gone",
        ),
        Verify::Off => Some(
            "--verify off: nothing will be compared before the swap. A fault in the new table would \
             be noticed only when the old one is gone",
        ),
    }
}

/// The same among the findings of the plan.
pub(super) fn finding(how: Verify) -> Option<Finding> {
    let code = match how {
        Verify::Full => return None,
        Verify::Sample => "verify-sample",
        Verify::Off => "verify-off",
    };
    let remedy =
        "leave --verify out, unless the time of a full comparison is dearer than its proof";
    warning(how).map(|why| Finding::warning(code, why, remedy))
}

/// What `status` says of a run that is not proven equal; `None` where there is nothing to say.
pub(super) fn doubt(run: &RunStatus) -> Option<String> {
    let asked = run.options.iter().find(|given| given.name == "verify");
    match (run.verified, asked.map(|given| given.value.as_str())) {
        (Some(Verdict::Equal), _) => None,
        (Some(Verdict::Sampled), _) => Some("by a sample only, not proven equal".to_owned()),
        (Some(Verdict::Skipped), _) => Some("NOT verified before the swap".to_owned()),
        (None, Some(how @ ("sample" | "off"))) => {
            Some(format!("it was begun with --verify {how}: not everything will be compared"))
        }
        (None, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared() -> Compared {
        Compared {
            run_id: "r1".into(),
            table: "shop.orders".into(),
            with: Counterpart::Shadow,
            phase: "copy".into(),
            extent: Extent::Copied,
            complete: true,
            rows: 12_345,
            ranges: 3,
            differences: 0,
            samples: vec![],
            took_ms: 1_200,
        }
    }

    #[test]
    fn equal_is_said_with_its_extent() {
        let text = text(&compared());
        assert!(text.contains("12,345 rows in 1.2 s, all that was copied"), "{text}");
        assert!(text.contains("\n  equal, but for"), "{text}");
    }

    #[test]
    fn differences_are_named_and_the_rest_is_counted() {
        let text = text(&Compared {
            differences: 3,
            samples: vec!["id=7 (differs in v)".into()],
            ..compared()
        });
        assert!(
            text.contains("  3 DIFFERENT:\n    id=7 (differs in v)\n    and 2 more\n"),
            "{text}"
        );
        assert!(!text.contains("equal,"), "{text}");
    }

    #[test]
    fn less_than_everything_is_warned_of_in_the_plan() {
        assert_eq!(finding(Verify::Full), None);
        assert_eq!(finding(Verify::Sample).unwrap().code, "verify-sample");
        assert_eq!(finding(Verify::Off).unwrap().code, "verify-off");
    }
}
