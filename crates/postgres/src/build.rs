//! Index builds on the shadow: sorted, several side by side, each kept when it stands; then what hangs
//! on them, one by one; then fresh statistics and a visibility map.

use futures_util::future::join_all;
use underpin_core::plan::RunSpec;
use underpin_dialect::{DbError, DbResult};

use crate::connect::Session;
use crate::control::Control;
use crate::names::{self, places};
use crate::query::{holds, literal, quote, quote_table, run};
use crate::shadow::source_of;
use crate::steps::{self, Stage, Step};

/// Builds side by side. Each reads the whole shadow and sorts, and each holds a snapshot while it does.
const BUILDS_MAX: usize = 2;

/// Sorts in memory are several times faster than on disk; a quarter of a gigabyte for each of the few
/// builds side by side, or what the server gives where that is more.
const SORT_MEMORY_SQL: &str = "SELECT pg_catalog.set_config('maintenance_work_mem', \
    greatest(setting::bigint, 262144)::text, true) FROM pg_catalog.pg_settings WHERE name = \
    'maintenance_work_mem'";

/// Builds what is missing of the shadow's indexes.
///
/// # Errors
/// `DuplicateKey` where the rows clash in a new unique index.
pub(crate) async fn indexes(control: &Control, spec: &RunSpec) -> DbResult<()> {
    let owner = quote(&source_of(&control.session, spec).await?.owner)?;
    let pending = steps::pending(&control.session, spec, Stage::Index).await?;
    let mut missing = Vec::new();
    for step in &pending {
        if !step.sql.is_empty() && !stands(&control.session, spec, &step.name).await? {
            missing.push(step.clone());
        }
    }
    build_all(control, spec, &owner, &missing).await?;
    for step in &pending {
        attach(&control.session, spec, &owner, step).await?;
    }
    // The planner knows nothing of the new table yet, and an index-only scan needs to know which pages
    // everybody can see.
    let sql = format!("VACUUM (ANALYZE) {}", places(spec)?.shadow);
    let object = format!("{}.{}", spec.schema, spec.table);
    run(&control.session, &sql, "analysing the shadow of", &object).await.map(drop)
}

/// The primary key's index alone first would leave the others waiting: all in the order of the list,
/// on a few connections, this one among them so that cancelling it ends them all.
async fn build_all(
    control: &Control,
    spec: &RunSpec,
    owner: &str,
    missing: &[Step],
) -> DbResult<()> {
    for group in missing.chunks(BUILDS_MAX) {
        let mut helpers = Vec::new();
        let Some((own, others)) = group.split_first() else { continue };
        for step in others {
            let session = control.server.session().await?;
            let (pid, spec, owner, step) =
                (u64::from(session.id.pid), spec.clone(), owner.to_owned(), step.clone());
            let task = tokio::spawn(async move {
                let built = build(&session, &spec, &owner, &step).await;
                session.close().await;
                built
            });
            helpers.push((pid, task));
        }
        let mut result = build(&control.session, spec, owner, own).await;
        if result.is_err() {
            let pids = helpers.iter().map(|(pid, _)| *pid);
            join_all(pids.map(|pid| cancel(control, pid))).await;
        }
        for (_, task) in helpers {
            let built = task.await.unwrap_or_else(|fault| {
                let object = format!("{}.{}", spec.schema, spec.table);
                Err(DbError::new(
                    underpin_dialect::ErrorKind::Other,
                    "building an index of",
                    object,
                )
                .said(fault.to_string()))
            });
            result = result.and(built);
        }
        result?;
    }
    Ok(())
}

async fn cancel(control: &Control, session: u64) {
    use underpin_dialect::Database as _;
    if let Err(error) = control.server.cancel(session).await {
        tracing::warn!(session, %error, "an index build could not be cancelled");
    }
}

async fn build(session: &Session, spec: &RunSpec, owner: &str, step: &Step) -> DbResult<()> {
    let object = format!("{}.{}", spec.schema, spec.table);
    let what = format!("building index {} for", step.name);
    // Nobody else uses the shadow: whoever holds it (autovacuum) is waited for.
    let sql = format!(
        "BEGIN; SET LOCAL lock_timeout = 0; {SORT_MEMORY_SQL}; SET LOCAL ROLE {owner}; {}; COMMIT",
        step.sql
    );
    let built = run(session, &sql, &what, &object).await.map(drop);
    crate::query::undo(session, built).await
}

/// Constraint, comments and marks, and the note that the step is done, in one transaction.
async fn attach(session: &Session, spec: &RunSpec, owner: &str, step: &Step) -> DbResult<()> {
    let object = format!("{}.{}", spec.schema, spec.table);
    let what = format!("attaching index {} to the shadow of", step.name);
    let attach = if step.then.is_empty() { String::new() } else { format!("{}; ", step.then) };
    let sql = format!(
        "BEGIN; SET LOCAL lock_timeout = 0; SET LOCAL ROLE {owner}; {attach}{}; COMMIT",
        steps::done_sql(spec, Stage::Index, step.position)?
    );
    let attached = run(session, &sql, &what, &object).await.map(drop);
    crate::query::undo(session, attached).await
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
