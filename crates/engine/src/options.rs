//! What the caller may set about how a run is carried out. What is decided by the run itself (left-out
//! indexes) or must not be set (that readings of replicas are expected) is put right in `for_spec`.

use underpin_core::machine::Settings;
use underpin_core::plan::{Flow, RunSpec};
use underpin_core::proof::{Verification, seed_of};
use underpin_dialect::{Origin, OwnQuery};

use crate::calendar::Calendar;
use crate::hooks::HookOptions;
use crate::own_signals::OwnSignals;

/// Rows of a chunk or of a range to verify at most: each ends with a flush of the server's log, which takes
/// a share of a small one's time.
const BLOCKS_ROWS_MAX: u64 = 200_000;

/// Rows of a range of a sample at least: below it the questions cost more than the answers.
const SAMPLED_ROWS_MIN: u64 = 1_000;

/// How a run is carried out. All times in milliseconds.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Limits and targets of the machine. `flow`, `deferred_indexes`, `row_bytes` and `replicas_known` are
    /// set by the engine.
    pub settings: Settings,
    /// Whether the old table is kept after the swap.
    pub keep_retired: bool,
    /// How long to go on reconnecting while nothing of the run moves.
    pub reconnect_for_ms: u64,
    /// Longest time for one chunk, range, application of the log or step of the control connection;
    /// beyond it the statement is cancelled on the server.
    pub job_deadline_ms: u64,
    /// The same for building the left-out indexes.
    pub index_deadline_ms: u64,
    /// How long to wait for an earlier runner of the table to let go: after a crash the server notices
    /// late that its client is gone.
    pub predecessor_wait_ms: u64,
    /// Time between two reports of progress.
    pub progress_every_ms: u64,
    /// Who begins the run, why, and with which options. The engine adds what the server says.
    pub origin: Origin,
    /// The user's own signals that are read by a query.
    pub own_queries: Vec<OwnQuery>,
    /// The user's own signals that are read elsewhere.
    pub own_signals: OwnSignals,
    /// The command that is told of events; `None`: nobody is.
    pub hooks: Option<HookOptions>,
    /// When the copy and the swap may be, and until when.
    pub calendar: Calendar,
    /// How long after the swap the table's statements are watched to compare them with those before the
    /// run; 0: they are not compared.
    pub compare_after_ms: u64,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            keep_retired: false,
            reconnect_for_ms: 10 * 60 * 1000,
            job_deadline_ms: 10 * 60 * 1000,
            index_deadline_ms: 48 * 60 * 60 * 1000,
            predecessor_wait_ms: 10_000,
            progress_every_ms: 1000,
            origin: Origin::default(),
            own_queries: Vec::new(),
            calendar: Calendar::default(),
            own_signals: OwnSignals::default(),
            hooks: None,
            compare_after_ms: 0,
        }
    }
}

impl RunOptions {
    /// The machine's settings for this run.
    pub(crate) fn for_spec(&self, spec: &RunSpec) -> Settings {
        let settings = match spec.flow {
            Flow::KeyRanges => self.settings.clone(),
            Flow::Blocks => by_blocks(self.settings.clone()),
        };
        Settings {
            flow: spec.flow,
            keeps_way_back: spec.keeps_way_back,
            deferred_indexes: !spec.deferred_indexes.is_empty(),
            // The probe always answers, if only with an empty list: silence is a reason to wait.
            replicas_known: true,
            row_bytes: spec.row_bytes,
            sample_seed: seed_of(&spec.run_id),
            verify_rows_max: match settings.verify {
                Verification::Sample => sampled_rows_max(spec, settings.verify_rows_max),
                Verification::Full | Verification::Off => settings.verify_rows_max,
            },
            ..settings
        }
    }
}

/// A sample is to come from all over the table: from a hundred ranges and more where it is large.
fn sampled_rows_max(spec: &RunSpec, rows_max: u64) -> u64 {
    std::cmp::min(rows_max, std::cmp::max(spec.rows_estimate / 100, SAMPLED_ROWS_MIN))
}

fn by_blocks(settings: Settings) -> Settings {
    Settings {
        chunk_rows_max: std::cmp::max(settings.chunk_rows_max, BLOCKS_ROWS_MAX),
        verify_rows_max: std::cmp::max(settings.verify_rows_max, BLOCKS_ROWS_MAX),
        ..settings
    }
}
