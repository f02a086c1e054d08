//! The way into a run: connect, take the table's lock, read what is stored, make older holds void, look
//! at the server. The same for a new run, a resumed one, and one whose connection was lost.

use std::sync::Arc;

use underpin_core::checkpoint::{Checkpoint, Phase};
use underpin_core::machine::{Observed, SwapState};
use underpin_core::plan::RunSpec;
use underpin_core::turn::Turn;
use underpin_dialect::{
    Database, DbResult, Grip, Inspect, Order, Origin, Shadow, Store, StoredRun,
};

use crate::error::{EngineError, EngineResult};
use crate::run::OpenRun;

/// The run that is to be entered.
#[derive(Debug, Clone)]
pub(crate) enum Goal {
    /// One that may not be recorded yet. Where one of the same statement is, that one is entered.
    New(Arc<RunSpec>),
    /// One that is recorded.
    Known(Arc<RunSpec>),
    /// One that is recorded and is to be turned before it goes on.
    Turn(Arc<RunSpec>, Turn),
}

impl Goal {
    pub(crate) fn spec(&self) -> &Arc<RunSpec> {
        match self {
            Self::New(spec) | Self::Known(spec) | Self::Turn(spec, _) => spec,
        }
    }
}

/// A run that was entered: nothing of an earlier hold runs any more, and nobody else may write for it.
#[derive(Debug)]
pub(crate) struct Entry<C> {
    pub(crate) control: C,
    pub(crate) spec: Arc<RunSpec>,
    pub(crate) grip: Grip,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) observed: Observed,
    /// Whether the run was recorded just now.
    pub(crate) is_new: bool,
    pub(crate) past: Past,
}

/// What is on record of the run besides its state.
#[derive(Debug, Default)]
pub(crate) struct Past {
    /// Who began it and why.
    pub(crate) origin: Origin,
    /// What its runner made known last; empty where it did not.
    pub(crate) live: String,
    /// All orders that were given, oldest first.
    pub(crate) orders: Vec<Order>,
}

/// Enters the run; `None` where a known run is not open any more. `origin`: of a run that is recorded now.
///
/// # Errors
/// `Fenced` of the seam where another runner holds the table; another run in the way; a damaged record.
pub(crate) async fn enter<D: Database>(
    db: &D,
    goal: &Goal,
    origin: &Origin,
) -> EngineResult<Option<Entry<D::Control>>> {
    let mut control = db.control().await?;
    let session = control.control_session();
    match enter_by(&mut control, goal, origin).await {
        Ok(None) => Ok(None),
        Ok(Some(Found { spec, grip, checkpoint, observed, is_new, past })) => {
            Ok(Some(Entry { control, spec, grip, checkpoint, observed, is_new, past }))
        }
        Err(error) => {
            if error.is_connection_lost()
                && let Err(failed) = db.end(session).await
            {
                // Then its lock may be in our own way for a while.
                tracing::warn!(session, %failed, "a session could not be ended");
            }
            Err(error)
        }
    }
}

/// What was found on the way in.
struct Found {
    spec: Arc<RunSpec>,
    grip: Grip,
    checkpoint: Checkpoint,
    observed: Observed,
    is_new: bool,
    past: Past,
}

async fn enter_by<C: Inspect + Store + Shadow>(
    control: &mut C,
    goal: &Goal,
    origin: &Origin,
) -> EngineResult<Option<Found>> {
    let wanted = goal.spec();
    control.acquire(&wanted.schema, &wanted.table).await?;
    let open = control.open_run(&wanted.schema, &wanted.table).await?;
    let (run, is_new) = match (open, goal) {
        (Some(stored), Goal::New(spec)) => {
            let run = OpenRun::read(&stored, &table_of(spec))?;
            run.must_be_of(&spec.fingerprint, &spec.statement)?;
            (run, false)
        }
        (Some(stored), Goal::Known(spec) | Goal::Turn(spec, _)) => {
            let run = OpenRun::read(&stored, &table_of(spec))?;
            if run.spec.run_id != spec.run_id {
                return Ok(None);
            }
            (run, false)
        }
        (None, Goal::Known(_) | Goal::Turn(..)) => return Ok(None),
        (None, Goal::New(spec)) => {
            let checkpoint = Checkpoint::begin();
            let origin = Origin {
                server: control.server(),
                fingerprint: fingerprint(control, spec).await?,
                ..origin.clone()
            };
            control.create_run(spec, &checkpoint, &origin).await?;
            (OpenRun { spec: RunSpec::clone(spec), checkpoint }, true)
        }
    };
    let grip = control.take_over(&run.spec.run_id).await?;
    // Read again: until the take-over an older hold could still save.
    let stored = control.open_run(&wanted.schema, &wanted.table).await?;
    let Some(stored) = stored.filter(|stored| is_run(stored, &run.spec.run_id)) else {
        return Ok(None);
    };
    let OpenRun { spec, checkpoint } = OpenRun::read(&stored, &table_of(wanted))?;
    let checkpoint = match goal {
        Goal::Turn(_, turn) => turned(control, &spec, &grip, checkpoint, *turn).await?,
        _ => checkpoint,
    };
    let spec = spec.on_way(checkpoint.way);
    let observed = control.observe(&spec, &checkpoint).await?;
    let past = past(control, &spec, checkpoint.orders_before).await?;
    Ok(Some(Found { spec: Arc::new(spec), grip, checkpoint, observed, is_new, past }))
}

/// Turns the run: durable before anything of the new way is begun. A swap whose answer was lost, or that
/// was not seen to its end, is brought there first.
async fn turned<C: Store + Shadow>(
    control: &mut C,
    spec: &RunSpec,
    grip: &Grip,
    checkpoint: Checkpoint,
    turn: Turn,
) -> EngineResult<Checkpoint> {
    let stored = checkpoint.clone();
    let checkpoint = arrived(control, spec, checkpoint).await?;
    let turned = checkpoint
        .turned(turn)
        .map_err(|why| EngineError::CannotTurn { table: table_of(spec), why })?;
    if turned == checkpoint {
        // What was brought to its end just now is on record before anybody is told of it.
        if turned != stored {
            control.save(grip, &turned).await?;
        }
        return Ok(turned);
    }
    // What was asked of the run on its way before does not count for this one.
    let turned = Checkpoint { orders_before: control.answer(&spec.run_id).await?, ..turned };
    control.save(grip, &turned).await?;
    Ok(turned)
}

/// The checkpoint of a run of whose last swap nothing is left to do.
async fn arrived<C: Shadow>(
    control: &mut C,
    spec: &RunSpec,
    checkpoint: Checkpoint,
) -> EngineResult<Checkpoint> {
    let on_way = spec.on_way(checkpoint.way);
    let seen = control.observe(&on_way, &checkpoint).await?;
    let is_made = match (seen.swap, checkpoint.phase >= Phase::Arrive) {
        (SwapState::Swapped, _) => true,
        (SwapState::NotSwapped, false) => false,
        (SwapState::Unclear(why), _) => return Err(EngineError::Unclear { why }),
        (SwapState::NotSwapped, true) => {
            let why = format!(
                "the run's record says that the swap was made, the server shows the table from before \
                 it under the name {}",
                table_of(spec)
            );
            return Err(EngineError::Unclear { why });
        }
    };
    if !is_made || !spec.keeps_way_back || checkpoint.phase >= Phase::Revertible {
        return Ok(checkpoint);
    }
    control.arrive(&on_way).await?;
    Ok(Checkpoint {
        phase: Phase::Revertible,
        stands: Some(checkpoint.way),
        round: None,
        ..checkpoint
    })
}

async fn past<C: Store>(control: &mut C, spec: &RunSpec, orders_before: usize) -> DbResult<Past> {
    let runs = control.runs(Some((&spec.schema, &spec.table))).await?;
    let Some(run) = runs.into_iter().find(|run| run.run_id == spec.run_id) else {
        return Ok(Past::default());
    };
    // An origin that cannot be read is statistics lost, and no reason to leave the run where it is.
    let origin = serde_json::from_str(&run.origin).unwrap_or_default();
    let orders = control.orders(&spec.run_id).await?.into_iter().skip(orders_before).collect();
    Ok(Past { origin, live: run.live, orders })
}

/// The table's definition as a hash; `None` where it cannot be told, which stops nothing.
pub(crate) async fn fingerprint<C: Inspect>(
    control: &mut C,
    spec: &RunSpec,
) -> DbResult<Option<String>> {
    match control.fingerprint(&spec.schema, &spec.table).await {
        Err(error) if error.is_ambiguous() => Err(error),
        other => Ok(other.unwrap_or_default()),
    }
}

fn is_run(stored: &StoredRun, run_id: &str) -> bool {
    serde_json::from_str::<RunSpec>(&stored.spec).is_ok_and(|spec| spec.run_id == run_id)
}

/// The table as `schema.table`.
pub(crate) fn table_of(spec: &RunSpec) -> String {
    format!("{}.{}", spec.schema, spec.table)
}
