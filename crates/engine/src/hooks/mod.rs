//! Hooks: a command of the user's that is told what happens to a run, and may be asked whether the swap
//! may be tried.
//!
//! Owns what is told (`docs/reference/hooks.md`) and that it never holds the run up: what is to be told
//! goes into a bounded queue, and one task tells it, one command at a time. How a command is run is
//! `process`'s, when which event is told is `teller`'s.

mod process;
mod teller;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use underpin_core::checkpoint::Phase;
use underpin_core::plan::RunSpec;

use crate::enter::table_of;
use crate::error::{EngineError, EngineResult};
use crate::report::Report;
use crate::reporter::Reporter;
use crate::run::Outcome;
use teller::{Pace, Teller};

/// Events that may wait to be told. Beyond it they are counted and left out.
const QUEUE_MAX: usize = 64;

/// Commands that the end of a run waits for at most: the one under way, the end of a pause, the swap, and
/// the end. Pauses that wait in the queue are not told: their ends are behind them, or the run's is.
const AT_THE_END_MAX: u32 = 4;

/// What the end waits beyond the time-outs of the commands.
const END_SLACK: Duration = Duration::from_secs(3);

/// What the swap waits for until a hook has been asked.
const NOT_ASKED: &str = "the hook has not been asked yet";

/// A command with its arguments. It is run as it is, without a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookCommand {
    /// At least one.
    words: Vec<String>,
}

impl HookCommand {
    /// Reads a command: words separated by spaces, quoted as in a shell. Nothing else of a shell is
    /// known: no variables, pipes or wildcards.
    ///
    /// # Errors
    /// A text that says what is wrong with it.
    pub fn read(text: &str) -> Result<Self, String> {
        let words =
            shlex::split(text).ok_or("a quotation mark or a backslash has no counterpart")?;
        match words.first() {
            Some(program) if !program.is_empty() => Ok(Self { words }),
            _ => Err("it names no program; write a command and its arguments, as \
                      `/usr/local/bin/tell-us --channel dba`"
                .to_owned()),
        }
    }
}

impl fmt::Display for HookCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words.join(" "))
    }
}

/// What the user wants to be told, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookOptions {
    /// What is run for each event.
    pub command: HookCommand,
    /// How long one may take before it is ended, with all that it has started.
    pub timeout_ms: u64,
    /// Whether the swap waits until the command has answered `ready` with exit code 0.
    pub veto: bool,
}

/// The run that is told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct About {
    /// The run.
    pub(crate) run_id: String,
    /// The table as `schema.table`.
    pub(crate) table: String,
    /// The statement, verbatim.
    pub(crate) statement: String,
}

impl About {
    /// The run of this spec.
    pub(crate) fn of(spec: &RunSpec) -> Self {
        Self {
            run_id: spec.run_id.clone(),
            table: table_of(spec),
            statement: spec.statement.clone(),
        }
    }
}

/// Something that has happened.
#[derive(Debug, Clone, PartialEq)]
struct Happening {
    kind: Kind,
    /// By the reporter's clock.
    at_ms: u64,
    /// Why, for people; empty where there is nothing to say.
    reason: String,
    /// What else is known of it.
    details: Map<String, Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Started,
    /// Told only where it lasts: `throttled`.
    Paused,
    Resumed,
    Ready,
    Swapped,
    Failed,
    Stopped,
    Finished,
}

impl Kind {
    /// The event's name.
    fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Paused => "throttled",
            Self::Resumed => "resumed",
            Self::Ready => "ready",
            Self::Swapped => "swapped",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::Finished => "finished",
        }
    }

    /// Nothing is told after it.
    fn is_end(self) -> bool {
        matches!(self, Self::Failed | Self::Stopped | Self::Finished)
    }
}

/// What was last seen of the run.
#[derive(Debug, Default)]
struct Seen {
    phase: String,
    progress: Map<String, Value>,
}

/// What the run's side and the teller share.
#[derive(Debug)]
struct Shared {
    seen: Mutex<Seen>,
    /// Events that found the queue full.
    missed: AtomicU64,
    /// Everything is done but the swap.
    is_ready: watch::Sender<bool>,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The hooks of a run, or none. To be made within a run time.
#[derive(Debug)]
pub(crate) struct Hooks {
    line: Option<Line>,
    veto: watch::Receiver<Option<String>>,
}

/// The line to the teller.
#[derive(Debug)]
struct Line {
    happenings: mpsc::Sender<Happening>,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
    end_wait: Duration,
    reporter: Reporter,
}

impl Hooks {
    /// Starts to listen where there is a command to be run. Failures of it go to `reporter`.
    pub(crate) fn start(options: Option<HookOptions>, about: About, reporter: &Reporter) -> Self {
        Self::start_at(Pace::default(), options, about, reporter)
    }

    fn start_at(
        pace: Pace,
        options: Option<HookOptions>,
        about: About,
        reporter: &Reporter,
    ) -> Self {
        let held_back = options.as_ref().is_some_and(|options| options.veto);
        let (gate, veto) = watch::channel(held_back.then(|| NOT_ASKED.to_owned()));
        let line = options.map(|options| {
            let (happenings, heard) = mpsc::channel(QUEUE_MAX);
            let shared = Arc::new(Shared {
                seen: Mutex::default(),
                missed: AtomicU64::new(0),
                is_ready: watch::Sender::new(false),
            });
            let end_wait = Duration::from_millis(options.timeout_ms)
                .saturating_add(process::GRACE)
                .saturating_mul(AT_THE_END_MAX)
                .saturating_add(END_SLACK);
            let reporter = reporter.clone();
            let told = (reporter.clone(), Arc::clone(&shared));
            let teller = Teller::new(options, pace, about, told, gate);
            let task = tokio::spawn(teller.tell_all(heard));
            Line { happenings, shared, task, end_wait, reporter }
        });
        Self { line, veto }
    }

    /// The same reporter, to which the hooks listen.
    pub(crate) fn attach(&self, reporter: &Reporter) -> Reporter {
        let Some(line) = &self.line else { return reporter.clone() };
        let (shared, happenings) = (Arc::clone(&line.shared), line.happenings.clone());
        reporter.also(move |report| hear(&shared, &happenings, report))
    }

    /// Why the swap is held back; `None` where it is not. Changes while the run goes on.
    pub(crate) fn veto(&self) -> watch::Receiver<Option<String>> {
        self.veto.clone()
    }

    /// Tells how the run ended for this program, and waits until that is told: not longer than the
    /// commands that must be told may take.
    pub(crate) async fn end(self, result: &EngineResult<Outcome>) {
        let Some(line) = self.line else { return };
        let Line { happenings, shared, mut task, end_wait, reporter } = line;
        shared.is_ready.send_replace(false);
        let (kind, at_ms) = (kind_of(result), reporter.at_ms());
        let (reason, details) = ending(result);
        let happening = Happening { kind, at_ms, reason, details };
        let told = timeout(end_wait, async {
            // The teller takes what is before it out of the queue.
            if happenings.send(happening).await.is_ok() {
                let _ = (&mut task).await;
            }
        });
        let is_told = told.await.is_ok();
        if !is_told {
            task.abort();
            let why = format!("not told within {} s of the end", end_wait.as_secs());
            let hook = kind.name().to_owned();
            reporter.tell(|at_ms| Report::HookFailed { at_ms, hook, why });
        }
    }
}

/// Takes in a report. Never waits.
fn hear(shared: &Shared, happenings: &mpsc::Sender<Happening>, report: &Report) {
    let details = |report: &Report| match serde_json::to_value(report) {
        Ok(Value::Object(mut fields)) => {
            // Both stand at the top of the message.
            fields.remove("event");
            fields.remove("at_ms");
            fields
        }
        _ => Map::new(),
    };
    let (kind, at_ms) = match report {
        Report::RunStarted { at_ms, .. } | Report::RunResumed { at_ms, .. } => {
            (Kind::Started, *at_ms)
        }
        Report::Paused { at_ms, .. } => (Kind::Paused, *at_ms),
        Report::Resumed { at_ms, .. } => (Kind::Resumed, *at_ms),
        Report::Swap { at_ms, .. } => (Kind::Swapped, *at_ms),
        Report::Progress { .. } => {
            shared.seen().progress = details(report);
            return;
        }
        Report::Phase { phase, .. } => {
            shared.seen().phase.clone_from(phase);
            let is_ready = phase == Phase::Swap.name();
            shared.is_ready.send_replace(is_ready);
            return;
        }
        _ => return,
    };
    let mut details = details(report);
    let reason = match report {
        Report::Paused { reason, .. } => reason.clone(),
        _ => String::new(),
    };
    if kind == Kind::Started {
        let is_resumed = matches!(report, Report::RunResumed { .. });
        details.insert("goes_on".to_owned(), Value::Bool(is_resumed));
    }
    if happenings.try_send(Happening { kind, at_ms, reason, details }).is_err() {
        shared.missed.fetch_add(1, Ordering::Relaxed);
    }
}

fn kind_of(result: &EngineResult<Outcome>) -> Kind {
    match result {
        Ok(Outcome::Done(_) | Outcome::Altered { .. } | Outcome::Revertible { .. }) => {
            Kind::Finished
        }
        Ok(_) => Kind::Stopped,
        Err(_) => Kind::Failed,
    }
}

/// Why the run ended for this program, and what else there is to tell of it.
fn ending(result: &EngineResult<Outcome>) -> (String, Map<String, Value>) {
    let mut details = Map::new();
    let reason = match result {
        Ok(outcome) => {
            details.insert("exit_code".to_owned(), outcome.exit_code().into());
            match outcome {
                Outcome::Done(summary) => {
                    let summary = serde_json::to_value(summary).unwrap_or_default();
                    details.insert("summary".to_owned(), summary);
                    String::new()
                }
                Outcome::Revertible { stands, summary } => {
                    let summary = serde_json::to_value(summary).unwrap_or_default();
                    details.insert("summary".to_owned(), summary);
                    let stands = serde_json::to_value(stands).unwrap_or_default();
                    details.insert("stands".to_owned(), stands);
                    String::new()
                }
                Outcome::Stayed { why, .. } if why.is_empty() => {
                    "left on request; the table that was live stays".to_owned()
                }
                Outcome::Stayed { why, .. } => {
                    format!("{why}; the table that was live stays")
                }
                Outcome::Interrupted => "interrupted; the same command goes on".to_owned(),
                Outcome::Aborted { why } if why.is_empty() => {
                    "ended on request; nothing of the run is left".to_owned()
                }
                Outcome::Aborted { why } => format!("ended, nothing of the run is left: {why}"),
                Outcome::Altered { tries, took_ms } => {
                    details.insert("tries".to_owned(), (*tries).into());
                    details.insert("took_ms".to_owned(), (*took_ms).into());
                    String::new()
                }
            }
        }
        Err(error) => failure(error, &mut details),
    };
    (reason, details)
}

fn failure(error: &EngineError, details: &mut Map<String, Value>) -> String {
    details.insert("exit_code".to_owned(), error.exit_code().into());
    details.insert("kind".to_owned(), error.kind().into());
    error.to_string()
}

#[cfg(unix)]
#[cfg(test)]
mod tests;
