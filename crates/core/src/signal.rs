//! Signals: what can be read of the servers around a run, how much of it is too much, and what people
//! ask for while it goes on. Plain data; what follows from it is `throttle`'s.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The name of the signal that tells how far a replica is behind, in milliseconds.
pub const LAG: &str = "lag";
/// Whose lag it is that cannot be read where no reading could be taken at all, of whatever signal. A set
/// of readings without it says that they are taken again.
pub const UNREAD: &str = "(list of replicas)";
/// The same in bytes of the log.
pub const LAG_BYTES: &str = "lag-bytes";
/// How long our own small durable write took, in milliseconds.
pub const WRITE_LATENCY: &str = "write-latency";
/// Statements that run just now: `Threads_running`, active backends. Our own are not counted.
pub const RUNNING: &str = "running";
/// Sessions that wait for a lock.
pub const LOCK_WAITS: &str = "lock-waits";
/// Row versions that cannot be purged yet (`History list length`); transactions behind on PostgreSQL
/// (age of the oldest xmin).
pub const HISTORY: &str = "history";
/// How full the redo log or the WAL before the next forced checkpoint is, in thousandths.
pub const CHECKPOINT: &str = "checkpoint";
/// Bytes of log kept back for the slowest replication slot.
pub const SLOT_BYTES: &str = "slot-bytes";
/// The same in thousandths of what is kept for a slot at most, beyond which the slot is given up; only where
/// the server has such a bound.
pub const SLOT_SHARE: &str = "slot-share";
/// Log segments that wait to be archived.
pub const ARCHIVE: &str = "archive";
/// Free bytes of the disk, where the server tells. Less is worse.
pub const DISK_FREE: &str = "disk-free";
/// Whether a file of the user's is there: 1 or 0.
pub const FLAG: &str = "flag";

/// What a number means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Milliseconds.
    Ms,
    /// A number of things.
    Count,
    /// Bytes.
    Bytes,
    /// Thousandths.
    Permille,
}

/// One reading of one signal. A signal is told apart by `name` and `of`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// What is measured, as [`LAG`], or the user's own name for it.
    pub name: String,
    /// Whose it is, as `db2:3306`; empty for the server that is changed.
    pub of: String,
    /// How it was read, as "heartbeat", `Seconds_Behind_Source`, "query".
    pub source: String,
    /// What the number means.
    pub unit: Unit,
    /// The number; `None` where it could not be read, which counts as the worst.
    pub value: Option<f64>,
    /// Why it could not be read, or what else was said with it, as the first line of a flag file; empty
    /// otherwise.
    pub error: String,
    /// How old the reading was when it was handed over, in milliseconds.
    pub age_ms: u64,
}

impl Reading {
    /// A reading just taken.
    pub fn new(name: &str, of: &str, source: &str, unit: Unit, value: f64) -> Self {
        Self {
            name: name.to_owned(),
            of: of.to_owned(),
            source: source.to_owned(),
            unit,
            value: Some(value),
            error: String::new(),
            age_ms: 0,
        }
    }

    /// A reading that failed.
    pub fn unreadable(name: &str, of: &str, source: &str, unit: Unit, error: &str) -> Self {
        Self { value: None, error: error.to_owned(), ..Self::new(name, of, source, unit, 0.0) }
    }

    /// The lag of a replica in milliseconds; `None` where this is another signal or cannot be read.
    pub fn lag_ms(&self) -> Option<u64> {
        // A lag is never negative, and far from what a `u64` holds.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        self.value.filter(|_| self.name == LAG).map(|value| value as u64)
    }
}

/// How much of a signal is too much.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// The signal's name.
    pub name: String,
    /// The copy slows down ahead of this value and stops at it; for [`DISK_FREE`] below it.
    pub pause_at: Option<f64>,
    /// The run is aborted safely at this value.
    pub abort_at: Option<f64>,
}

/// A setting of a run that can be changed while it goes on. Spelled `name=value` by people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Setting {
    /// `max-lag=2s`: in milliseconds.
    MaxLag(u64),
    /// `max-load:NAME=VALUE`; `None` takes the limit away.
    MaxLoad(String, Option<f64>),
    /// `critical-load:NAME=VALUE`; `None` takes the limit away.
    CriticalLoad(String, Option<f64>),
    /// `nice=N`: of each stretch of time, the share in thousandths that is spent at work.
    WorkShare(u32),
    /// `rate=N`: rows a second at most; `None`: no bound.
    RowsPerS(Option<u64>),
    /// `rate=NMB`: bytes a second at most; `None`: no bound.
    BytesPerS(Option<u64>),
    /// `workers=N`: chunks side by side at most; never more than the run began with.
    Workers(u32),
    /// `chunk-time=400ms`: in milliseconds.
    ChunkMs(u64),
}

/// When the swap may be tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SwapWhen {
    /// As soon as everything is ready.
    #[default]
    Now,
    /// When somebody says so (`underpin swap`).
    Asked,
    /// While its window is open.
    Window,
}

/// Why the copy or the swap may not be begun for reasons of the calendar; `None` where it may.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gates {
    /// Of the copy, as "outside its window until Mon 20:00 (Europe/Berlin)".
    pub copy: Option<String>,
    /// Of the swap.
    pub swap: Option<String>,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ms => "ms",
            Self::Count => "",
            Self::Bytes => "B",
            Self::Permille => "‰",
        })
    }
}
