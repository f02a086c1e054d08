//! `underpin plan`: shows how a change would be made and what stands in its way.

use std::io::Read;
use std::sync::Arc;

use anyhow::Context as _;
use underpin_core::finding::is_refused;
use underpin_core::plan::Plan;
use underpin_dialect::{Database, Inspect, Request};
use underpin_engine::{PlanSummary, Report};

use super::introduce;
use crate::args::{GlobalArgs, PlanArgs};
use crate::backend::Task;
use crate::exit::ExitStatus;
use crate::resolve;
use crate::ui::{Printer, plan_text};

/// Plans, prints, and tells by the exit status whether `run` would go ahead.
pub(super) async fn plan(
    args: &PlanArgs,
    global: &GlobalArgs,
    input: &mut dyn Read,
    printer: &Printer,
) -> anyhow::Result<ExitStatus> {
    let resolve::Change { backend, request } = resolve::plan(args, global, input)?;
    introduce(&backend, global, printer);
    let plan = backend.carry_out(Ask { request: &request }).await?;
    if printer.is_json() {
        tell_plan(&plan, printer);
    } else {
        printer.data(&plan_text(&plan, &request.statement));
    }
    Ok(if is_refused(&plan.findings) { ExitStatus::Refused } else { ExitStatus::Done })
}

/// Sends the plan as an event.
pub(super) fn tell_plan(plan: &Plan, printer: &Printer) {
    let summary = PlanSummary::of(plan);
    printer.tell(|at_ms| Report::Plan { at_ms, plan: summary });
}

struct Ask<'a> {
    request: &'a Request,
}

impl Task for Ask<'_> {
    type Output = Plan;

    async fn on<D: Database>(self, db: Arc<D>) -> anyhow::Result<Plan> {
        let mut control = db.control().await?;
        ask(&mut control, self.request).await
    }
}

/// Has the change planned.
///
/// # Errors
/// The database's; refusals are findings in the plan.
pub(super) async fn ask<C: Inspect>(control: &mut C, request: &Request) -> anyhow::Result<Plan> {
    control
        .plan(request)
        .await
        .with_context(|| format!("planning the change of {}", request.alter.table))
}
