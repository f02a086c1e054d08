//! Starts the program again and again until what it was asked for has come to an end.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::busy;
use crate::cli::Called;
use crate::runner::{Runner, story};

use super::deeds::Deeds;
use super::round::{Place, Told};
use super::session::Session;
use super::writers::Writers;

/// How long one thing that was asked for may take, from the first start of the program to its end,
/// on a machine at rest; on a busy one more.
const LIMIT: Duration = Duration::from_secs(300);
const CALL_MAX: Duration = Duration::from_secs(120);
const STARTS_MAX: u32 = 40;

/// What the program is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// The change.
    Make,
    /// To take it back.
    Revert,
    /// To make it again.
    Again,
    /// To end the run.
    Finish,
}

impl Goal {
    /// As it is counted.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Make => "run",
            Self::Revert => "revert",
            Self::Again => "again",
            Self::Finish => "finish",
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It is done.
    Reached,
    /// Preflight refused it; its words.
    Refused(String),
    /// It stopped for good, as documented; its words.
    Stopped(String),
    /// Somebody ended it: the run is gone, or a turn was left.
    Aborted,
}

/// How often it ended in some way while nothing was wrong.
#[derive(Default)]
struct Tries {
    stops: u32,
    refusals: u32,
    locks: u32,
}

/// Drives the command that `deeds` knows towards its goal.
pub(super) fn drive(
    place: &Place,
    goal: Goal,
    deeds: &mut Deeds<'_>,
    writers: &Writers,
    told: &mut Told,
) -> Result<Ended> {
    let words = deeds.words.clone();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let _text = writeln!(told.log, "underpin {words:?}");
    busy::watch();
    let begun = Instant::now();
    let mut tries = Tries::default();
    for _ in 0..STARTS_MAX {
        told.starts += 1;
        let mut runner = Runner::start(&words)?;
        let faults_before = (deeds.done.len(), deeds.sprung());
        while !runner.has_ended()? {
            let took = begun.elapsed();
            if took > LIMIT && took > busy::allows(begun, LIMIT) {
                let log = runner.story();
                let _text = writeln!(told.log, "HANGS: {log}");
                bail!("{} has not ended after {} s: {log}", goal.name(), took.as_secs());
            }
            deeds.tick(&mut runner)?;
            std::thread::sleep(Duration::from_millis(5));
        }
        let called = runner.wait(CALL_MAX)?;
        note(told, &called, writers.done());
        told.log.push_str(&std::mem::take(&mut deeds.log));
        let second = deeds.second_ended()?;
        let calm = (deeds.done.len(), deeds.sprung()) == faults_before && !deeds.is_pending();
        let by_second = second.is_some_and(|second| second.ended.code == Some(0));
        if let Some(ended) = weigh(place, goal, &called, by_second, calm, &mut tries, deeds)? {
            return Ok(ended);
        }
        for _ in 0..10 {
            deeds.heal()?;
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    bail!("{}: started {STARTS_MAX} times and never done", goal.name())
}

/// What an end of the program means; none: it is started again.
fn weigh(
    place: &Place,
    goal: Goal,
    called: &Called,
    by_second: bool,
    calm: bool,
    tries: &mut Tries,
    deeds: &Deeds<'_>,
) -> Result<Option<Ended>> {
    let words = called.complaint();
    let short = words.trim().to_owned();
    let code = called.ended.code;
    if code == Some(0) || by_second {
        return Ok(Some(Ended::Reached));
    }
    // a program that was killed may have been done all the same
    let state = Session::open(&place.url)
        .map_err(anyhow::Error::from)
        .and_then(|mut session| place.run_state(&mut session));
    match (state.as_ref().ok().and_then(Option::as_deref), goal) {
        (Some("done"), Goal::Make | Goal::Finish) => return Ok(Some(Ended::Reached)),
        (Some("done"), _) => bail!("the run is at its end, and nobody asked for it: {short}"),
        (Some("aborted"), Goal::Make) if deeds.aborted => return Ok(Some(Ended::Aborted)),
        (Some("aborted"), _) => bail!("the run was aborted, and nobody asked for it: {short}"),
        // an abort that is told as done has left the turn
        (Some(_), Goal::Revert | Goal::Again) if deeds.aborted => return Ok(Some(Ended::Aborted)),
        _ => {}
    }
    let is_open = !matches!(state, Ok(None));
    match code {
        None | Some(130) => {}
        Some(1 | 6) => {
            if calm && code == Some(1) {
                tries.stops += 1;
            }
            if calm && code == Some(6) {
                tries.locks += 1;
            }
            if tries.stops >= 2 || tries.locks >= 3 {
                return Ok(Some(Ended::Stopped(short)));
            }
        }
        Some(3) => {
            tries.refusals += 1;
            if !is_open && calm && tries.refusals >= 2 {
                return Ok(Some(Ended::Refused(short)));
            }
            ensure!(tries.refusals < 30, "refused again and again: {short}");
        }
        Some(5) if deeds.corrupted => return Ok(Some(Ended::Stopped(short))),
        Some(code) => bail!("exit code {code}: {short}"),
    }
    Ok(None)
}

fn note(told: &mut Told, called: &Called, transactions: u64) {
    let repaired = called.ended.done["rows_repaired"].as_u64().unwrap_or(0);
    told.repaired += repaired;
    told.different += u64::from(called.events.iter().any(|event| event["event"] == "different"));
    let _text = writeln!(
        told.log,
        "--- start {} ended with {:?} after {:.1} s ({transactions} transactions so far)\n  {}\n{}",
        told.starts,
        called.ended.code,
        called.ended.took.as_secs_f64(),
        story(&called.events),
        called.ended.stderr
    );
}

/// `underpin abort`, which must end well.
pub(super) fn abort(place: &Place, told: &mut Told) -> Result<()> {
    let words = ["abort", &place.url, &place.named];
    let called = Runner::start(&words)?.wait(CALL_MAX)?;
    let _text = writeln!(told.log, "abort: {:?} {}", called.ended.code, called.complaint());
    ensure!(
        called.ended.code == Some(0),
        "abort ended with {:?}: {}",
        called.ended.code,
        called.complaint()
    );
    Ok(())
}
