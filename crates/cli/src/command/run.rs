//! `underpin run`: makes a change, or goes on with one that was interrupted.
//!
//! Owns the order of things a person sees: the plan, the question, the work, the end. The work itself
//! is the engine's.

use std::future::Future;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::mpsc;
use underpin_core::finding::{Finding, is_refused};
use underpin_core::plan::{Plan, RunSpec, Strategy};
use underpin_core::signal::SwapWhen;
use underpin_core::way::Way;
use underpin_dialect::{Database, Inspect, Request};
use underpin_engine::{
    EngineResult, OpenRun, Outcome, RunOptions, alter_natively, find_open, resume, start,
};

use super::end::{Hints, tell_end};
use super::plan::{ask, tell_plan};
use super::stop::{Ended, until_stopped};
use super::{introduce, verify};
use crate::args::{GlobalArgs, RunArgs, Verify};
use crate::backend::Task;
use crate::exit::{ExitStatus, Problem};
use crate::resolve;
use crate::ui::{Printer, plan_text};

/// Commands that may wait for the engine: more keys than anybody presses.
const COMMANDS_MAX: usize = 16;

/// Plans, asks, works, reports.
pub(super) async fn run(
    args: &RunArgs,
    global: &GlobalArgs,
    input: &mut dyn Read,
    printer: &Printer,
) -> anyhow::Result<ExitStatus> {
    let order = resolve::run(args, global, printer.can_ask(), input)?;
    introduce(&order.change.backend, global, printer);
    if let Some(why) = verify::warning(args.work.verify) {
        printer.warning(why);
    }
    let table = order.change.request.alter.table.to_string();
    let hints = Hints::of(&order.change.backend, &table, global);
    let resolve::Change { backend, request } = order.change;
    let verify = args.work.verify;
    let work =
        Make { request, options: order.options, yes: order.yes, verify, printer, hints: &hints };
    backend.carry_out(work).await
}

/// Statements of the swap between lock and exchange, with one batch of the log among them.
const STATEMENTS_OF_A_SWAP: u32 = 20;

/// What is said where the way to the server alone takes as long as the swap may.
fn far_away(trip: Duration, budget_ms: u64) -> Option<Finding> {
    let needed = trip.saturating_mul(STATEMENTS_OF_A_SWAP);
    let message = format!(
        "each statement takes {:.1} ms to the server and back, and the swap has some \
         {STATEMENTS_OF_A_SWAP} under its lock: {} ms, and --swap-budget allows {budget_ms} ms",
        trip.as_secs_f64() * 1000.0,
        needed.as_millis()
    );
    let remedy = "run underpin nearer to the server, or let the application wait longer with \
                  --swap-budget";
    (needed > Duration::from_millis(budget_ms))
        .then(|| Finding::warning("far-away", message, remedy))
}

struct Make<'a> {
    request: Request,
    options: RunOptions,
    yes: bool,
    verify: Verify,
    printer: &'a Printer,
    hints: &'a Hints,
}

/// What there is to do.
enum Work {
    New(Box<RunSpec>),
    Native(Box<RunSpec>),
    GoOn(Box<OpenRun>),
    /// The person said no.
    Nothing,
}

impl Task for Make<'_> {
    type Output = ExitStatus;

    async fn on<D: Database>(self, db: Arc<D>) -> anyhow::Result<ExitStatus> {
        let work = self.find_work(&*db).await?;
        let (commands, heard) = mpsc::channel(COMMANDS_MAX);
        let reporter = self.printer.reporter();
        let options = self.options.clone();
        let ended = match work {
            Work::Nothing => {
                self.printer.talk("nothing was begun");
                return Ok(ExitStatus::Refused);
            }
            Work::New(spec) => {
                self.work(start(db, *spec, options, heard, reporter), &commands).await
            }
            Work::Native(spec) => {
                self.work(alter_natively(db, *spec, options, heard, reporter), &commands).await
            }
            Work::GoOn(run) => {
                self.work(resume(db, *run, options, heard, reporter), &commands).await
            }
        };
        tell_end(ended?, self.hints, self.printer)
    }
}

impl Make<'_> {
    /// An unfinished run of the same statement goes on; otherwise the change is planned and asked for.
    async fn find_work<D: Database>(&self, db: &D) -> anyhow::Result<Work> {
        let request = &self.request;
        let mut control = db.control().await?;
        let table = &request.alter.table;
        if let Some(schema) = table.schema.as_ref().or(request.default_schema.as_ref()) {
            let open = find_open(&mut control, schema, &table.name)
                .await
                .with_context(|| format!("looking for an unfinished run of {table}"))?;
            if let Some(open) = open {
                self.must_be_ours(&open)?;
                self.must_go_forward(&open)?;
                self.printer.talk(&format!(
                    "an unfinished run of {table} with this statement was found; it goes on"
                ));
                return Ok(Work::GoOn(Box::new(open)));
            }
        }
        let mut plan = ask(&mut control, request).await?;
        if plan.strategy != Strategy::Native {
            let trip = control.round_trip().await.context("timing the way to the server")?;
            plan.findings.extend(far_away(trip, self.options.settings.swap_budget_ms));
        }
        // While a person thinks nothing of ours should hold a connection.
        drop(control);
        self.accept(plan)
    }

    /// Lets only a run of the same statement pass; the error shows both, and what can be typed.
    fn must_be_ours(&self, open: &OpenRun) -> anyhow::Result<()> {
        if open.is_of(&self.request.alter.fingerprint()) {
            return Ok(());
        }
        let spec = &open.spec;
        Err(Problem {
            status: ExitStatus::Refused,
            message: format!(
                "{}.{} has an unfinished run ({}) of another statement\n  unfinished: {}\n  \
                 requested:  {}",
                spec.schema, spec.table, spec.run_id, spec.statement, self.request.statement
            ),
            next: format!(
                "see it, go on with its own statement, or end it:\n  {}\n  {}",
                self.hints.status, self.hints.abort
            ),
        }
        .into())
    }

    /// A run that goes back, or went back, is no matter of making its change.
    fn must_go_forward(&self, open: &OpenRun) -> anyhow::Result<()> {
        if open.checkpoint.way == Way::Forward {
            return Ok(());
        }
        let spec = &open.spec;
        let done = match open.checkpoint.stands {
            Some(Way::Back) => "was taken back",
            _ => "is being taken back",
        };
        Err(Problem {
            status: ExitStatus::Refused,
            message: format!(
                "the change of {}.{} {done} (run {})",
                spec.schema, spec.table, spec.run_id
            ),
            next: self.hints.after_revert(open.checkpoint.stands),
        }
        .into())
    }

    /// Shows the plan and asks.
    fn accept(&self, mut plan: Plan) -> anyhow::Result<Work> {
        let (printer, request) = (self.printer, &self.request);
        let native = plan.strategy == Strategy::Native;
        if !native {
            plan.findings.extend(verify::finding(self.verify));
        }
        if printer.is_json() {
            tell_plan(&plan, printer);
        } else {
            printer.talk(plan_text(&plan, &request.statement).trim_end());
        }
        if is_refused(&plan.findings) {
            return Err(refused(&plan).into());
        }
        let Some(spec) = plan.spec else {
            return Err(anyhow::anyhow!(
                "internal fault: the plan has neither facts nor a refusal"
            ));
        };
        if native && self.options.settings.swap_when == SwapWhen::Asked {
            return Err(nothing_to_wait_with().into());
        }
        let agreed = self.yes
            || printer.ask("Type yes to go on:").context("asking whether the change may begin")?;
        Ok(match (agreed, native) {
            (false, _) => Work::Nothing,
            (true, true) => Work::Native(Box::new(spec)),
            (true, false) => Work::New(Box::new(spec)),
        })
    }

    async fn work(
        &self,
        work: impl Future<Output = EngineResult<Outcome>>,
        commands: &mpsc::Sender<underpin_core::machine::Command>,
    ) -> anyhow::Result<Ended> {
        let ended = until_stopped(work, commands, self.printer).await;
        self.printer.close();
        ended
    }
}

/// The server makes the change by itself and at once: there is no run that `underpin swap` could find.
fn nothing_to_wait_with() -> Problem {
    Problem {
        status: ExitStatus::Refused,
        message: "--swap wait: the server makes this change by itself and at once; nothing would \
                  be prepared that `underpin swap` could let go on"
            .into(),
        next: "leave it out and run this when it is wanted, or name a --swap-window; --strategy \
               shadow prepares a copy all the same"
            .into(),
    }
}

fn refused(plan: &Plan) -> Problem {
    let reasons: Vec<String> = plan
        .findings
        .iter()
        .filter(|finding| finding.severity == underpin_core::finding::Severity::Refusal)
        .map(|finding| format!("{} [{}]", finding.message, finding.code))
        .collect();
    Problem {
        status: ExitStatus::Refused,
        message: format!("the change is refused: {}", reasons.join("; ")),
        next: "mend what the findings name, then run the same command again".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::far_away;

    #[test]
    fn a_server_is_far_away_where_the_way_alone_takes_the_swaps_time() {
        assert!(far_away(Duration::from_micros(400), 300).is_none());
        assert!(far_away(Duration::from_millis(15), 300).is_none());
        let finding = far_away(Duration::from_micros(25_400), 300).unwrap();
        assert_eq!(finding.code, "far-away");
        assert!(finding.message.contains("25.4 ms"), "{finding:?}");
        assert!(finding.message.contains("508 ms"), "{finding:?}");
        assert!(far_away(Duration::from_millis(25), 1000).is_none());
    }
}
