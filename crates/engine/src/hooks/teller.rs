//! Tells the user's command what happens, one event at a time, and asks it whether the swap may be
//! tried.
//!
//! Owns which events are told. A pause is told once it has lasted for a while, so that a copy that gives
//! way for a moment here and there does not start a thousand commands; a question goes first.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::process::{Complaint, run};
use super::{About, Happening, HookOptions, Kind, NOT_ASKED, Shared};
use crate::report::Report;
use crate::reporter::Reporter;

/// When things are told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// How long a pause lasts before it is told.
    pub(super) pause_told_after: Duration,
    /// Time between two questions whether the swap may be tried.
    pub(super) ask_every: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { pause_told_after: Duration::from_secs(3), ask_every: Duration::from_secs(60) }
    }
}

/// The version of what is told. Fields are added without a new one.
const VERSION: u64 = 1;

/// The task that tells.
pub(super) struct Teller {
    options: HookOptions,
    pace: Pace,
    about: About,
    reporter: Reporter,
    shared: Arc<Shared>,
    ready: watch::Receiver<bool>,
    /// Why the swap is held back.
    gate: watch::Sender<Option<String>>,
    pause: Option<Pause>,
    /// When the command is to be told or asked next whether the swap may be tried.
    ask_at: Option<Instant>,
    is_ready_told: bool,
    asked: u64,
    missed_told: u64,
}

/// A pause of the run.
struct Pause {
    happening: Happening,
    /// When it is told; `None` where it has been.
    tell_at: Option<Instant>,
}

enum Next {
    Ready,
    Ask,
    Heard(Option<Happening>),
    PauseLasts,
}

impl Teller {
    pub(super) fn new(
        options: HookOptions,
        pace: Pace,
        about: About,
        (reporter, shared): (Reporter, Arc<Shared>),
        gate: watch::Sender<Option<String>>,
    ) -> Self {
        let ready = shared.is_ready.subscribe();
        Self {
            options,
            pace,
            about,
            reporter,
            shared,
            ready,
            gate,
            pause: None,
            ask_at: None,
            is_ready_told: false,
            asked: 0,
            missed_told: 0,
        }
    }

    /// Tells until the end is told, or nobody can say anything any more.
    pub(super) async fn tell_all(mut self, mut heard: mpsc::Receiver<Happening>) {
        loop {
            match self.next(&mut heard).await {
                Next::Ready => self.look_whether_ready(),
                Next::Ask => self.ask().await,
                Next::PauseLasts => self.tell_pause().await,
                Next::Heard(None) => return,
                Next::Heard(Some(happening)) => {
                    let is_end = happening.kind.is_end();
                    self.heard(happening).await;
                    if is_end {
                        return;
                    }
                }
            }
            self.tell_missed();
        }
    }

    async fn next(&mut self, heard: &mut mpsc::Receiver<Happening>) -> Next {
        let pause_told_at = self.pause.as_ref().and_then(|pause| pause.tell_at);
        tokio::select! {
            biased;
            Ok(()) = self.ready.changed() => Next::Ready,
            () = until(self.ask_at) => Next::Ask,
            // Before the pause: its end may be among them.
            happening = heard.recv() => Next::Heard(happening),
            () = until(pause_told_at) => Next::PauseLasts,
        }
    }

    fn look_whether_ready(&mut self) {
        let is_ready = *self.ready.borrow_and_update();
        let is_wanted = is_ready && (self.options.veto || !self.is_ready_told);
        self.ask_at = is_wanted.then(Instant::now);
        if self.options.veto && !is_ready {
            // What was said of another moment counts no longer.
            self.gate.send_replace(Some(NOT_ASKED.to_owned()));
        }
    }

    /// Tells that the run is ready for the swap; with a veto its answer is heard, and it is asked again
    /// as long as the swap is not made.
    async fn ask(&mut self) {
        self.is_ready_told = true;
        self.asked = self.asked.saturating_add(1);
        let happening = Happening {
            kind: Kind::Ready,
            at_ms: self.reporter.at_ms(),
            reason: String::new(),
            details: Map::new(),
        };
        let answer = self.run(&happening).await;
        if !self.options.veto {
            self.ask_at = None;
            self.report(Kind::Ready, answer);
            return;
        }
        self.ask_at = Some(Instant::now() + self.pace.ask_every);
        let held_back = answer.as_ref().err().map(|complaint| {
            let said = [&complaint.said, &complaint.how].into_iter().find(|text| !text.is_empty());
            format!("the hook holds it back: {}", said.map_or("", String::as_str))
        });
        // Meanwhile the run may have left that phase: then the answer is of another moment.
        if *self.ready.borrow() {
            self.gate.send_replace(held_back);
        }
        match answer {
            // An answer, and no failure.
            Err(complaint) if complaint.is_answer => {}
            answer => self.report(Kind::Ready, answer),
        }
    }

    async fn heard(&mut self, happening: Happening) {
        match happening.kind {
            Kind::Paused => self.note_pause(happening),
            Kind::Resumed => {
                let was_told = self.pause.take().is_some_and(|pause| pause.tell_at.is_none());
                if was_told {
                    self.tell(&happening).await;
                }
            }
            _ => self.tell(&happening).await,
        }
    }

    fn note_pause(&mut self, happening: Happening) {
        match &mut self.pause {
            // The same pause for another reason.
            Some(pause) => pause.happening = happening,
            None => {
                let lasted_ms = self.reporter.at_ms().saturating_sub(happening.at_ms);
                let left =
                    self.pace.pause_told_after.saturating_sub(Duration::from_millis(lasted_ms));
                self.pause = Some(Pause { happening, tell_at: Some(Instant::now() + left) });
            }
        }
    }

    async fn tell_pause(&mut self) {
        let Some(pause) = &mut self.pause else { return };
        pause.tell_at = None;
        let happening = pause.happening.clone();
        self.tell(&happening).await;
    }

    fn tell_missed(&mut self) {
        let missed = self.shared.missed.load(Ordering::Relaxed);
        if missed > self.missed_told {
            let why = format!(
                "{} events were not told: the command is too slow for them",
                missed - self.missed_told
            );
            self.missed_told = missed;
            self.reporter.tell(|at_ms| Report::HookFailed {
                at_ms,
                hook: "events".to_owned(),
                why,
            });
        }
    }

    async fn tell(&mut self, happening: &Happening) {
        let result = self.run(happening).await;
        self.report(happening.kind, result);
    }

    fn report(&self, kind: Kind, result: Result<(), Complaint>) {
        if let Err(complaint) = result {
            let (hook, why) = (kind.name().to_owned(), complaint.to_string());
            self.reporter.tell(|at_ms| Report::HookFailed { at_ms, hook, why });
        }
    }

    async fn run(&self, happening: &Happening) -> Result<(), Complaint> {
        let phase = self.shared.seen().phase.clone();
        let mut message = self.message(happening, &phase).to_string().into_bytes();
        message.push(b'\n');
        let environment = self.environment(happening, phase);
        let limit = Duration::from_millis(self.options.timeout_ms);
        run(&self.options.command, &environment, message, limit).await
    }

    /// What stands on the command's standard input, as one line.
    fn message(&self, happening: &Happening, phase: &str) -> Value {
        json!({
            "version": VERSION,
            "event": happening.kind.name(),
            "at": format!("{:.0}", jiff::Timestamp::now()),
            "at_ms": happening.at_ms,
            "run_id": self.about.run_id,
            "table": self.about.table,
            "statement": self.about.statement,
            "phase": phase,
            "reason": happening.reason,
            "asked": self.asked_of(happening.kind),
            "details": happening.details,
            "progress": self.shared.seen().progress,
        })
    }

    fn environment(&self, happening: &Happening, phase: String) -> Vec<(&'static str, String)> {
        let variables = [
            ("UNDERPIN_EVENT", happening.kind.name().to_owned()),
            ("UNDERPIN_RUN_ID", self.about.run_id.clone()),
            ("UNDERPIN_TABLE", self.about.table.clone()),
            ("UNDERPIN_PHASE", phase),
            ("UNDERPIN_REASON", happening.reason.clone()),
            ("UNDERPIN_ASKED", self.asked_of(happening.kind).to_string()),
        ];
        // A zero byte ends a variable: with one in it the command could not be started.
        variables.map(|(name, value)| (name, value.replace('\0', ""))).into()
    }

    /// How often the command has been asked whether the swap may be tried; 0 where it is only told.
    fn asked_of(&self, kind: Kind) -> u64 {
        if kind == Kind::Ready && self.options.veto { self.asked } else { 0 }
    }
}

/// Waits until then; for ever where there is no such time.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
