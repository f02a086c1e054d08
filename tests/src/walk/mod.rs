//! The walk of the fail points: at each point of each flow the program is struck, by kill and by cut, and
//! the same command is given again until it is done.
//!
//! Owns the order of it and the tally. Where one may strike is `points`', what is done `flows`', what must
//! hold at the end `ground`'s.

mod beside;
mod flows;
mod ground;
mod points;
mod source;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use beside::Beside;
pub use flows::{COLUMN, Flow};
pub use ground::Ground;
pub use points::{Passed, Strike, Way};

use crate::runner::{Runner, story};
use crate::servers::Endpoints;

/// How long one command may take that a busy machine does in a second.
pub const LIMIT: Duration = Duration::from_secs(240);

/// How often the same command is given again at most.
const AGAIN_MAX: usize = 4;

/// How often a blow is aimed anew that did not fall: how often a point is passed is left to chance.
const AIMS_MAX: usize = 10;

/// What to walk.
#[derive(Clone, Debug)]
pub struct Plan {
    /// On which server.
    pub server: Endpoints,
    /// Which flows.
    pub flows: Vec<Flow>,
    /// Plays side by side, each in a database of its own.
    pub lanes: usize,
    /// Every n-th point once, kill and cut in turn; without it each both ways.
    pub brief: Option<usize>,
    /// Each point in each flow that passes it, and behind each other one of its session; without it where
    /// it is passed first.
    pub deep: bool,
    /// In brief: the first of the points that are struck.
    pub offset: usize,
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
    /// What was attempted in any flow.
    pub attempts: BTreeSet<String>,
    /// Blows that fell, and all ended well behind them.
    pub blows: BTreeMap<Way, usize>,
    /// Points struck, by flow and way.
    pub struck: BTreeSet<(&'static str, Way, String)>,
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
        write!(f, "{} flows, {} points (", self.points.len(), names.len())?;
        for (index, (flow, names)) in self.points.iter().enumerate() {
            write!(f, "{}{flow} {}", if index == 0 { "" } else { ", " }, names.len())?;
        }
        let all: BTreeSet<(Way, &String)> =
            self.struck.iter().map(|(_, way, point)| (*way, point)).collect();
        let of = |way| all.iter().filter(|(struck, _)| *struck == way).count();
        let blows = |way| self.blows.get(&way).copied().unwrap_or(0);
        write!(
            f,
            "); {} points struck by kill with {} blows, {} by cut with {}; {}; codes after a cut: {:?}; the \
             application's longest transaction took {:.0?}",
            of(Way::Kill),
            blows(Way::Kill),
            of(Way::Cut),
            blows(Way::Cut),
            match self.findings.len() {
                0 => "all ended well".to_owned(),
                many => format!("{many} findings"),
            },
            self.codes,
            self.longest,
        )
    }
}

impl Tally {
    /// Points that were not struck as the plan has it: both ways, in any flow or in each one; in brief every
    /// n-th one way.
    #[must_use]
    pub fn skipped(&self, plan: &Plan) -> Vec<String> {
        let mut skipped = Vec::new();
        for (flow, names) in &self.points {
            let wanted: Vec<&String> =
                names.iter().filter(|point| point.contains(&plan.only)).collect();
            let was_struck = |way, point: &String| {
                let mut struck = self.struck.iter();
                struck.any(|(of, by, at)| (*of == *flow || !plan.deep) && *by == way && at == point)
            };
            if let Some(nth) = plan.brief {
                let struck = self.struck.iter().filter(|(of, ..)| of == flow).count();
                if struck + 1 < wanted.len() / nth && plan.flows.len() == 1 {
                    skipped.push(format!("{flow}: {struck} of {} points", wanted.len()));
                }
                continue;
            }
            for point in wanted {
                for way in [Way::Kill, Way::Cut] {
                    if !was_struck(way, point) {
                        skipped.push(format!("{flow} {way:?} at {point}"));
                    }
                }
            }
        }
        skipped
    }
}

/// Walks. A walk of all flows, not in brief, also looks for statements in the source that none of them came to.
///
/// # Errors
/// When a flow does not even go well unstruck.
pub fn walk(plan: &Plan) -> Result<Tally> {
    let tally = Mutex::new(Tally::default());
    for &flow in &plan.flows {
        let ground = Ground::new(&plan.server)?;
        let calm =
            play(&ground, flow, None).with_context(|| format!("{}, unstruck", flow.name()))?;
        drop(ground);
        let aims = {
            let mut tally = locked(&tally);
            let known: BTreeSet<String> = match plan.deep {
                true => BTreeSet::new(),
                false => tally.points.values().flatten().cloned().collect(),
            };
            tally.points.insert(flow.name(), calm.passed.names());
            tally.attempts.extend(calm.passed.attempts());
            tally.attempts.extend(calm.around);
            aims(plan, &calm.passed, &known)
        };
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
    let mut tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    let is_whole = plan.brief.is_none() && plan.only.is_empty();
    if is_whole && plan.flows == Flow::ALL {
        let flavor = plan.server.flavor;
        let (source, listed) = (source::attempts(flavor)?, source::listed(flavor)?);
        let unknown = source::unknown(flavor.name(), &source, &tally.attempts, &listed);
        tally.findings.extend(unknown);
    }
    Ok(tally)
}

fn aims(plan: &Plan, passed: &Passed, known: &BTreeSet<String>) -> VecDeque<Strike> {
    let places = if plan.deep { passed.contexts() } else { passed.firsts() };
    let wanted = |point: &String| point.contains(&plan.only) && !known.contains(point);
    let places = places.into_iter().filter(|(point, _)| wanted(point));
    let strike =
        |way, (point, nth): &(String, u64)| Strike { way, point: point.clone(), nth: *nth };
    let Some(nth) = plan.brief else {
        return places
            .flat_map(|place| [strike(Way::Kill, &place), strike(Way::Cut, &place)])
            .collect();
    };
    // Before and after stand side by side: an odd step takes both sides in turn, each with both ways.
    let ways = [Way::Kill, Way::Cut, Way::Cut, Way::Kill].into_iter().cycle();
    places
        .skip(plan.offset % nth)
        .step_by(nth)
        .zip(ways)
        .map(|(place, way)| strike(way, &place))
        .collect()
}

/// One lane: a database of its own, a new one after each finding.
fn lane(plan: &Plan, flow: Flow, aims: &Mutex<VecDeque<Strike>>, tally: &Mutex<Tally>) {
    let mut ground = None;
    loop {
        let Some(strike) = locked(aims).pop_front() else { return };
        let begun = Instant::now();
        let played = match ground.take().map_or_else(|| Ground::new(&plan.server), Ok) {
            Ok(here) => aim(&here, flow, &strike).inspect(|_| ground = Some(here)),
            Err(error) => Err(error),
        };
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
                *tally.blows.entry(strike.way).or_default() += 1;
                tally.struck.insert((flow.name(), strike.way, strike.point.clone()));
                tally.longest = std::cmp::max(tally.longest, played.longest);
                tally.attempts.extend(played.passed.attempts());
                tally.attempts.extend(played.around);
                if strike.way == Way::Cut {
                    *tally.codes.entry(format!("{:?}", played.codes)).or_default() += 1;
                }
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
    /// What the commands behind the blow attempted.
    around: BTreeSet<String>,
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
        let (passed, around, codes) = match (acted, &closed) {
            (Ok(acted), _) => acted,
            (Err(error), Ok(_)) => return Err(error),
            (Err(error), Err(also)) => bail!("{error:#}; {also:#}"),
        };
        let longest = closed.with_context(|| format!("exit codes {codes:?}"))?;
        Ok(Played { passed, around, codes, longest })
    })
}

/// What the struck command passed, what the ones behind it attempted, and the exit codes of all.
type Acted = (Passed, BTreeSet<String>, Vec<Option<i32>>);

/// Carries the flow out, struck once.
fn act(ground: &Ground, flow: Flow, strike: Option<&Strike>) -> Result<Acted> {
    flow.prepare(ground).context("preparing")?;
    let dir = tempfile::tempdir().context("making a folder")?;
    let list = dir.path().join("points");
    let list_name = list.to_string_lossy().into_owned();
    let later = dir.path().join("later");
    let later_name = later.to_string_lossy().into_owned();
    let list_beside = dir.path().join("beside");
    let beside = Beside::begin(flow, ground, &list_beside)?;
    let words = flow.words(ground)?;
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
        called =
            Runner::start_with(&words, &[("UNDERPIN_POINTS_LIST", &later_name)])?.wait(LIMIT)?;
        codes.push(called.ended.code);
        documented(called.ended.code, &called.complaint())?;
    }
    let mut around = beside.end().with_context(|| format!("beside exit codes {codes:?}"))?;
    flow.conclude(ground).with_context(|| format!("concluding after exit codes {codes:?}"))?;
    around.extend(Passed::read(&later)?.attempts());
    Ok((passed, around, codes))
}

/// Who is cut off is done, or has failed safely; nothing is refused, and nobody has to look.
fn documented(code: Option<i32>, complaint: &str) -> Result<()> {
    ensure!(matches!(code, Some(0 | 1 | 6)), "exit code {code:?}: {complaint}");
    Ok(())
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
