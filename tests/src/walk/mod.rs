//! The walk of the fail points: at each point of each flow the program is struck, by kill and by cut, and
//! the same command is given again until it is done.
//!
//! Owns the order of it and the tally. Where one may strike is `points`', what is done `flows`', what must
//! hold at the end `ground`'s.

mod flows;
mod ground;
mod points;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

pub use flows::{COLUMN, Flow};
pub use ground::Ground;
pub use points::{Passed, Strike, Way};

use crate::runner::{Runner, story};
use crate::servers::Flavor;

/// How long one command may take that a busy machine does in a second.
pub const LIMIT: Duration = Duration::from_secs(240);

/// How often the same command is given again at most.
const AGAIN_MAX: usize = 4;

/// How often a blow is aimed anew that did not fall: how often a point is passed is left to chance.
const AIMS_MAX: usize = 3;

/// What to walk.
#[derive(Clone, Debug)]
pub struct Plan {
    /// On which server.
    pub flavor: Flavor,
    /// Which flows.
    pub flows: Vec<Flow>,
    /// Plays side by side, each in a database of its own.
    pub lanes: usize,
    /// Every second point once, kill and cut in turn; else each in every context, both ways.
    pub brief: bool,
    /// Only points whose names hold this.
    pub only: String,
    /// Whether each play is told of.
    pub talk: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Tally {
    /// Points by flow.
    pub points: BTreeMap<&'static str, BTreeSet<String>>,
    /// Blows that fell.
    pub strikes: usize,
    /// Points struck, by way.
    pub struck: BTreeSet<(Way, String)>,
    /// The exit codes of commands whose connection was cut.
    pub codes: BTreeMap<String, usize>,
    /// The longest transaction of the application.
    pub longest: Duration,
    /// What went wrong: the blow and the words.
    pub findings: Vec<String>,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: BTreeSet<&String> = self.points.values().flatten().collect();
        write!(f, "{} points (", names.len())?;
        for (index, (flow, names)) in self.points.iter().enumerate() {
            write!(f, "{}{flow} {}", if index == 0 { "" } else { ", " }, names.len())?;
        }
        let of = |way| self.struck.iter().filter(|(struck, _)| *struck == way).count();
        write!(
            f,
            "), {} strikes: {} points by kill, {} by cut; codes after a cut: {:?}; the application's \
             longest transaction took {:.0?}; {} findings",
            self.strikes,
            of(Way::Kill),
            of(Way::Cut),
            self.codes,
            self.longest,
            self.findings.len()
        )
    }
}

impl Tally {
    /// Whether each point of each flow was struck both ways (in brief: every second one way).
    #[must_use]
    pub fn is_complete(&self, plan: &Plan) -> bool {
        let wanted = self.points.values().flatten().filter(|point| point.contains(&plan.only));
        let wanted: BTreeSet<&String> = wanted.collect();
        match plan.brief {
            true => self.struck.len() + 1 >= wanted.len() / 2,
            false => wanted.iter().all(|point| {
                [Way::Kill, Way::Cut]
                    .iter()
                    .all(|way| self.struck.contains(&(*way, (*point).clone())))
            }),
        }
    }
}

/// Walks; `None` where the server is not to be had.
///
/// # Errors
/// When a flow does not even go well unstruck.
pub fn walk(plan: &Plan) -> Result<Option<Tally>> {
    let tally = Mutex::new(Tally::default());
    for &flow in &plan.flows {
        let Some(ground) = Ground::new(plan.flavor) else { return Ok(None) };
        let calm =
            play(&ground, flow, None).with_context(|| format!("{}, unstruck", flow.name()))?;
        drop(ground);
        let aims = aims(plan, &calm.passed);
        locked(&tally).points.insert(flow.name(), calm.passed.names());
        if plan.talk {
            println!("{}: {} points, {} blows", flow.name(), calm.passed.names().len(), aims.len());
        }
        let aims = Mutex::new(aims);
        thread::scope(|scope| {
            for _ in 0..plan.lanes {
                scope.spawn(|| lane(plan, flow, &aims, &tally));
            }
        });
    }
    Ok(Some(tally.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

fn aims(plan: &Plan, passed: &Passed) -> VecDeque<Strike> {
    let places = if plan.brief { passed.firsts() } else { passed.contexts() };
    let places = places.into_iter().filter(|(point, _)| point.contains(&plan.only));
    let strike =
        |way, (point, nth): &(String, u64)| Strike { way, point: point.clone(), nth: *nth };
    if !plan.brief {
        return places
            .flat_map(|place| [strike(Way::Kill, &place), strike(Way::Cut, &place)])
            .collect();
    }
    let ways = [Way::Kill, Way::Cut].into_iter().cycle();
    // before and after stand side by side: of two pairs one point of each side, and both ways
    places
        .enumerate()
        .filter(|(index, _)| matches!(index % 4, 0 | 3))
        .zip(ways)
        .map(|((_, place), way)| strike(way, &place))
        .collect()
}

/// One lane: a database of its own, a new one after each finding.
fn lane(plan: &Plan, flow: Flow, aims: &Mutex<VecDeque<Strike>>, tally: &Mutex<Tally>) {
    let mut ground = None;
    loop {
        let Some(strike) = locked(aims).pop_front() else { return };
        let Some(here) = ground.take().or_else(|| Ground::new(plan.flavor)) else { return };
        let begun = Instant::now();
        let played = aim(&here, flow, &strike);
        if plan.talk {
            let told = match &played {
                Ok(played) => format!("{:?}", played.codes),
                Err(error) => format!("FOUND {error:#}"),
            };
            println!("{} {strike}: {told} in {:.1?}", flow.name(), begun.elapsed());
        }
        let mut tally = locked(tally);
        match played {
            Ok(played) => {
                tally.strikes += 1;
                tally.struck.insert((strike.way, strike.point.clone()));
                tally.longest = std::cmp::max(tally.longest, played.longest);
                if strike.way == Way::Cut {
                    *tally.codes.entry(format!("{:?}", played.codes)).or_default() += 1;
                }
                ground = Some(here);
            }
            Err(error) => tally.findings.push(format!("{} {strike}: {error:#}", flow.name())),
        }
    }
}

/// Plays until the blow has fallen; at another pass where that one did not come.
fn aim(ground: &Ground, flow: Flow, strike: &Strike) -> Result<Played> {
    let mut strike = strike.clone();
    for _ in 0..AIMS_MAX {
        let played = play(ground, flow, Some(&strike))?;
        if played.passed.was_struck() {
            return Ok(played);
        }
        strike.nth = std::cmp::max(1, strike.nth / 2);
    }
    bail!("the blow never fell")
}

/// One play, ended well.
#[derive(Debug)]
struct Played {
    passed: Passed,
    codes: Vec<Option<i32>>,
    longest: Duration,
}

fn play(ground: &Ground, flow: Flow, strike: Option<&Strike>) -> Result<Played> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("building a runtime")?;
    runtime.block_on(async {
        let writers = ground.open(1).await?;
        let acted = tokio::task::block_in_place(|| act(ground, flow, strike));
        // The rows are looked at whatever else there is.
        let closed = ground.close(writers).await;
        let (passed, codes) = match (acted, &closed) {
            (Ok(acted), _) => acted,
            (Err(error), Ok(_)) => return Err(error),
            (Err(error), Err(also)) => bail!("{error:#}; {also:#}"),
        };
        let longest = closed.with_context(|| format!("exit codes {codes:?}"))?;
        Ok(Played { passed, codes, longest })
    })
}

/// Carries the flow out, struck once.
fn act(ground: &Ground, flow: Flow, strike: Option<&Strike>) -> Result<(Passed, Vec<Option<i32>>)> {
    flow.prepare(ground).context("preparing")?;
    let dir = tempfile::tempdir().context("making a folder")?;
    let list = dir.path().join("points");
    let list_name = list.to_string_lossy().into_owned();
    let words = flow.words(ground);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut environment = vec![("UNDERPIN_POINTS_LIST", list_name.as_str())];
    let wish = strike.map(Strike::wish);
    environment.extend(wish.as_deref().map(|wish| ("UNDERPIN_POINTS_STRIKE", wish)));
    let mut called = Runner::start_with(&words, &environment)?.wait(LIMIT)?;
    let passed = Passed::read(&list)?;
    let mut codes = vec![called.ended.code];
    if passed.was_struck() && strike.is_some_and(|strike| strike.way == Way::Kill) {
        ensure!(called.ended.code.is_none(), "the program was not killed");
    } else {
        documented(called.ended.code, &called.complaint())?;
    }
    while !flow.is_done(ground)? {
        let told = || format!("{codes:?}: {}\n  {}", called.complaint(), story(&called.events));
        ensure!(codes.len() <= AGAIN_MAX, "it is not done after exit codes {}", told());
        ensure!(called.ended.code != Some(0), "it said done and is not: {}", told());
        called = Runner::start(&words)?.wait(LIMIT)?;
        codes.push(called.ended.code);
        documented(called.ended.code, &called.complaint())?;
    }
    Ok((passed, codes))
}

/// Who is cut off is done, or has failed safely; nothing is refused, and nobody has to look.
fn documented(code: Option<i32>, complaint: &str) -> Result<()> {
    ensure!(matches!(code, Some(0 | 1 | 6)), "exit code {code:?}: {complaint}");
    Ok(())
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
