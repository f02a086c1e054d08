//! Index builds on the shadow: sorted, several side by side, each kept when it stands; then what hangs
//! on them, one by one.
//!
//! Builds run on sessions that outlive the control's and its lock by a while when the runner is killed. So
//! each reads the fence and holds it: who takes the run over waits for them, and none begins behind.

use futures_util::future::join_all;
use underpin_core::plan::RunSpec;
use underpin_dialect::{DbError, DbResult};

use crate::connect::Session;
use crate::control::Control;
use crate::names;
use crate::query::{holds, literal, number, quote, quote_table, run, undo};
use crate::shadow::source_of;
use crate::steps::{self, Stage, Step};
use crate::store;

/// Builds side by side. Each reads the whole shadow and sorts, and each holds a snapshot while it does.
pub(crate) const BUILDS_MAX: usize = 2;

/// Sorts in memory are several times faster than on disk; a quarter of a gigabyte for each of the few
/// builds side by side, or what the server gives where that is more.
const SORT_MEMORY_SQL: &str = "SELECT pg_catalog.set_config('maintenance_work_mem', \
    greatest(setting::bigint, 262144)::text, true) FROM pg_catalog.pg_settings WHERE name = \
    'maintenance_work_mem'";

/// What every build needs to know of its run.
#[derive(Debug, Clone)]
struct Job {
    /// The table, for people.
    object: String,
    /// The source's owner, quoted.
    owner: String,
    /// The statement that reads the fence and holds it, and what it must say.
    fence: String,
    epoch: u64,
}

/// Builds what is missing of the shadow's indexes.
///
/// # Errors
/// `DuplicateKey` where the rows clash in a new unique index.
pub(crate) async fn indexes(control: &Control, spec: &RunSpec) -> DbResult<()> {
    let object = format!("{}.{}", spec.schema, spec.table);
    let fence = store::fence_sql(&control.state_schema, &spec.run_id)?;
    // This session has the runner's lock: nobody can have taken over yet.
    let epoch = number(&control.session, &fence, "reading the fence of", &object).await?;
    let owner = quote(&source_of(&control.session, spec).await?.owner)?;
    let job = Job { object, owner, fence, epoch };
    let pending = steps::pending(&control.session, spec, Stage::Index).await?;
    let mut missing = Vec::new();
    for step in &pending {
        if !step.sql.is_empty() && !stands(&control.session, spec, &step.name).await? {
            missing.push(step.clone());
        }
    }
    build_all(control, &job, &missing).await?;
    for step in &pending {
        attach(&control.session, spec, &job, step).await?;
    }
    Ok(())
}

/// The primary key's index alone first would leave the others waiting: all in the order of the list,
/// on a few connections, this one among them so that cancelling it ends them all.
async fn build_all(control: &Control, job: &Job, missing: &[Step]) -> DbResult<()> {
    for group in missing.chunks(BUILDS_MAX) {
        let mut helpers = Vec::new();
        let Some((own, others)) = group.split_first() else { continue };
        for step in others {
            let session = control.server.session().await?;
            let (pid, job, step) = (u64::from(session.id.pid), job.clone(), step.clone());
            let task = tokio::spawn(async move {
                let built = build(&session, &job, &step).await;
                session.close().await;
                built
            });
            helpers.push((pid, task));
        }
        let mut result = build(&control.session, job, own).await;
        if result.is_err() {
            let pids = helpers.iter().map(|(pid, _)| *pid);
            join_all(pids.map(|pid| end(control, pid))).await;
        }
        for (pid, task) in helpers {
            let built = task.await.unwrap_or_else(|fault| {
                let (kind, object) = (underpin_dialect::ErrorKind::Other, job.object.clone());
                Err(DbError::new(kind, "building an index of", object).said(fault.to_string()))
            });
            if built.as_ref().is_err_and(DbError::is_ambiguous) {
                // The server may not know that its client is gone, and hold the fence for minutes.
                end(control, pid).await;
            }
            result = result.and(built);
        }
        result?;
    }
    Ok(())
}

/// Ends the session of a build: a cancel could come before its statement and have no effect.
async fn end(control: &Control, session: u64) {
    use underpin_dialect::Database as _;
    if let Err(error) = control.server.end(session).await {
        tracing::warn!(session, %error, "an index build could not be ended");
    }
}

async fn build(session: &Session, job: &Job, step: &Step) -> DbResult<()> {
    let built = build_in_transaction(session, job, step).await;
    undo(session, built).await
}

async fn build_in_transaction(session: &Session, job: &Job, step: &Step) -> DbResult<()> {
    let object = &job.object;
    let what = format!("building index {} for", step.name);
    let begin = format!("BEGIN; {}", job.fence);
    if number(session, &begin, &what, object).await? != job.epoch {
        return Err(store::fenced(object));
    }
    // Nobody else uses the shadow: whoever holds it (autovacuum) is waited for.
    let sql = format!(
        "SET LOCAL lock_timeout = 0; {SORT_MEMORY_SQL}; SET LOCAL ROLE {}; {}; COMMIT",
        job.owner, step.sql
    );
    run(session, &sql, &what, object).await.map(drop)
}

/// Constraint, comments and marks, and the note that the step is done, in one transaction.
async fn attach(session: &Session, spec: &RunSpec, job: &Job, step: &Step) -> DbResult<()> {
    let Job { object, owner, .. } = job;
    let what = format!("attaching index {} to the shadow of", step.name);
    let attach = if step.then.is_empty() { String::new() } else { format!("{}; ", step.then) };
    let sql = format!(
        "BEGIN; SET LOCAL lock_timeout = 0; SET LOCAL ROLE {owner}; {attach}{}; COMMIT",
        steps::done_sql(spec, Stage::Index, step.position)?
    );
    let attached = run(session, &sql, &what, object).await.map(drop);
    undo(session, attached).await
}

/// Whether the index stands on the shadow, whole.
async fn stands(session: &Session, spec: &RunSpec, name: &str) -> DbResult<bool> {
    let index = quote_table(&names::private_schema(&spec.run_id), name)?;
    let sql = format!(
        "SELECT indisvalid FROM pg_catalog.pg_index WHERE indexrelid = pg_catalog.to_regclass({})",
        literal(&index)?
    );
    holds(session, &sql, "looking for an index of", &format!("{}.{}", spec.schema, spec.table))
        .await
}
