//! Where a run begins or goes on: the functions that the command line calls, and how a run ends for
//! its caller.

use std::sync::Arc;

use tokio::sync::mpsc;
use underpin_core::checkpoint::Checkpoint;
use underpin_core::machine::Command;
use underpin_core::plan::RunSpec;
use underpin_core::turn::Turn;
use underpin_core::way::Way;
use underpin_dialect::{Database, Store, StoredRun};

use crate::calendar::Diary;
use crate::drive::Drive;
use crate::enter::{Goal, table_of};
use crate::error::{EngineError, EngineResult};
use crate::hooks::{About, Hooks};
use crate::options::RunOptions;
use crate::report::Summary;
use crate::reporter::Reporter;

/// How the work of this program on a run ended, where it did not fail.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The change is made.
    Done(Box<Summary>),
    /// The server made the change by itself.
    Altered {
        /// Tries for the lock.
        tries: u32,
        /// Milliseconds of the statement that made it.
        took_ms: u64,
    },
    /// The swap is made and can be taken back; the run stays open.
    Revertible {
        /// Which way it went: which table is live.
        stands: Way,
        /// What was done.
        summary: Box<Summary>,
    },
    /// A turn was left before its swap; the table that was live stays.
    Stayed {
        /// Which table that is.
        stands: Way,
        /// Why, where nobody asked for it; empty otherwise.
        why: String,
    },
    /// Stopped on request; the same command goes on.
    Interrupted,
    /// Ended; nothing of the run is left.
    Aborted {
        /// Why, where nobody asked for it, as a load that was critical; empty otherwise.
        why: String,
    },
}

impl Outcome {
    /// The exit code of `underpin run`.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Done(_) | Self::Altered { .. } | Self::Revertible { .. } => 0,
            // Somebody asked for it elsewhere: for this command the change was not made.
            Self::Aborted { .. } | Self::Stayed { .. } => 1,
            Self::Interrupted => 130,
        }
    }
}

/// An unfinished run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRun {
    /// Its fixed facts.
    pub spec: RunSpec,
    /// Where it is.
    pub checkpoint: Checkpoint,
}

impl OpenRun {
    /// Whether it is a run of the statement with this fingerprint.
    pub fn is_of(&self, fingerprint: &str) -> bool {
        self.spec.fingerprint == fingerprint
    }

    /// Lets only a run of the statement with this fingerprint pass.
    ///
    /// # Errors
    /// `OtherRun`, showing both statements and how to see or remove the one in the way.
    pub fn must_be_of(&self, fingerprint: &str, requested: &str) -> EngineResult<()> {
        if self.is_of(fingerprint) {
            return Ok(());
        }
        Err(EngineError::OtherRun {
            table: table_of(&self.spec),
            run_id: self.spec.run_id.clone(),
            unfinished: self.spec.statement.clone(),
            requested: requested.to_owned(),
        })
    }

    /// Reads what the store gave.
    pub(crate) fn read(stored: &StoredRun, table: &str) -> EngineResult<Self> {
        let spec = read_spec(stored, table)?;
        Ok(Self { spec, checkpoint: Checkpoint::decode(&stored.checkpoint)? })
    }
}

/// The facts of a stored run.
pub(crate) fn read_spec(stored: &StoredRun, table: &str) -> EngineResult<RunSpec> {
    serde_json::from_str(&stored.spec)
        .map_err(|error| EngineError::Record { table: table.to_owned(), why: error.to_string() })
}

/// The unfinished run of a table, if there is one. Takes no lock and changes nothing.
///
/// # Errors
/// The database's; a record that cannot be read.
pub async fn find_open<C: Store>(
    control: &mut C,
    schema: &str,
    table: &str,
) -> EngineResult<Option<OpenRun>> {
    match control.open_run(schema, table).await? {
        None => Ok(None),
        Some(stored) => OpenRun::read(&stored, &format!("{schema}.{table}")).map(Some),
    }
}

/// Begins a new run and works on it to its end, a stop, or a failure.
///
/// Where an unfinished run of the same statement exists, that one goes on. `commands` are the signals
/// of this program; those left in the store are heard too. A second `Stop` cancels what is in flight.
///
/// # Errors
/// As [`EngineError`] says. The run stays open and can be resumed.
pub async fn start<D: Database>(
    db: Arc<D>,
    spec: RunSpec,
    options: RunOptions,
    commands: mpsc::Receiver<Command>,
    reporter: Reporter,
) -> EngineResult<Outcome> {
    drive(db, options, commands, reporter, Goal::New(Arc::new(spec))).await
}

/// Goes on with an unfinished run.
///
/// # Errors
/// As [`start`].
pub async fn resume<D: Database>(
    db: Arc<D>,
    run: OpenRun,
    options: RunOptions,
    commands: mpsc::Receiver<Command>,
    reporter: Reporter,
) -> EngineResult<Outcome> {
    drive(db, options, commands, reporter, Goal::Known(Arc::new(run.spec))).await
}

/// Takes a made change back, makes it again, or ends the run with the way back.
///
/// # Errors
/// As [`start`]; `CannotTurn` where the run stands otherwise.
pub async fn turn<D: Database>(
    db: Arc<D>,
    run: OpenRun,
    turn: Turn,
    options: RunOptions,
    commands: mpsc::Receiver<Command>,
    reporter: Reporter,
) -> EngineResult<Outcome> {
    drive(db, options, commands, reporter, Goal::Turn(Arc::new(run.spec), turn)).await
}

async fn drive<D: Database>(
    db: Arc<D>,
    options: RunOptions,
    commands: mpsc::Receiver<Command>,
    reporter: Reporter,
    goal: Goal,
) -> EngineResult<Outcome> {
    let spec = goal.spec();
    let about = About {
        run_id: spec.run_id.clone(),
        table: table_of(spec),
        statement: spec.statement.clone(),
    };
    let own = options.own_signals.watch().map_err(|error| {
        EngineError::Internal(format!("your own signals cannot be read: {error}"))
    })?;
    let hooks = Hooks::start(options.hooks.clone(), about, &reporter);
    let diary = Diary::new(options.calendar.clone(), hooks.veto());
    let reporter = hooks.attach(&reporter);
    let result = Drive::new(db, options, commands, reporter, (diary, own), goal).finish().await;
    // The run is let go by now: nobody waits for it but this program.
    hooks.end(&result).await;
    result
}
