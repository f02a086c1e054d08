//! One round: a table, a change, writers, faults, and what must hold at the end.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::cli::Called;
use crate::proxy::Proxy;
use crate::runner::{Runner, story};
use crate::servers::{Flavor, Pair};
use crate::workload::Dice;

use super::change::Change;
use super::check;
use super::deeds::Deeds;
use super::faults::{self, Planned};
use super::session::Session;
use super::shape::{Key, Shape};
use super::values::{name, quoted};
use super::writers::{Scene, Seen, Writers};

/// How long a round may take from the first start of the program to its end.
const ROUND_MAX: Duration = Duration::from_secs(240);
const CALL_MAX: Duration = Duration::from_secs(60);
const STARTS_MAX: u32 = 40;

/// Where a round takes place.
pub(super) struct Place {
    pub(super) flavor: Flavor,
    pub(super) table: String,
    /// The table as orders to the program name it.
    pub(super) named: String,
    /// Of the table and of its mirror.
    pub(super) schemas: [String; 2],
    /// Both, quoted, with their schemas.
    pub(super) tables: [String; 2],
    /// The database that the program is told, directly.
    pub(super) url: String,
    pub(super) database: String,
}

/// How a round ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Result_ {
    /// The change was made.
    Swapped,
    /// Preflight refused it; its words.
    Refused(String),
    /// It stopped for good with the source as it was, as documented; its words.
    Stopped(String),
    /// Somebody ended it.
    Aborted,
}

/// What is told of a round.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) shape: String,
    pub(super) change: String,
    pub(super) faults: Vec<String>,
    pub(super) kinds: Vec<String>,
    pub(super) rows: u64,
    pub(super) starts: u32,
    pub(super) transactions: u64,
    pub(super) longest: Duration,
    pub(super) took: Duration,
    pub(super) log: String,
    pub(super) outcome: Result<Result_>,
}

impl Place {
    fn new(flavor: Flavor, server: &str, seed: u64, shape: &Shape) -> Self {
        let database = format!("chaos_{seed}");
        let schemas = match flavor.is_postgres() {
            true => ["public".to_owned(), "mirror".to_owned()],
            false => [database.clone(), format!("mirror_{seed}")],
        };
        let tables =
            [0, 1].map(|at: usize| format!("{}.{}", name(&schemas[at], flavor), shape.quoted()));
        Self {
            flavor,
            table: shape.table.clone(),
            named: shape.quoted(),
            url: format!("{server}{database}"),
            schemas,
            tables,
            database,
        }
    }

    /// What the server has recorded of the last run of the table; none before there is one.
    pub(super) fn run_state(&self, session: &mut Session) -> Result<Option<String>> {
        let there = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'underpin' AND \
                     table_name = 'runs'";
        if session.first(there)?.as_deref() != Some("1") {
            return Ok(None);
        }
        let schema = quoted(&self.schemas[0], self.flavor);
        Ok(session.first(&format!(
            "SELECT state FROM underpin.runs WHERE schema_name = {schema} ORDER BY created_at DESC LIMIT 1"
        ))?)
    }

    fn drop(&self, server: &str) -> Result<()> {
        let mut session = Session::open(server)?;
        if self.flavor.is_postgres() {
            session.run(&format!("DROP DATABASE {} WITH (FORCE)", self.database))?;
            return Ok(());
        }
        session.run("SET lock_wait_timeout = 5")?;
        for schema in &self.schemas {
            session.run(&format!("DROP DATABASE {schema}"))?;
        }
        Ok(())
    }
}

/// Plays the round of this seed; what is left on the server is removed if it went well.
pub(super) fn play(pair: &Pair, seed: u64) -> Told {
    let flavor = pair.flavor();
    let mut dice = Dice::new(seed);
    let mut shape = Shape::draw(&mut dice, flavor);
    let change = Change::draw(&mut dice, &mut shape);
    let planned = faults::draw(&mut dice, flavor.is_postgres());
    let place = Place::new(flavor, &pair.primary.url(), seed, &shape);
    let mut told = Told {
        shape: shape.in_short(),
        change: change.statement.clone(),
        faults: Vec::new(),
        kinds: Vec::new(),
        rows: 0,
        starts: 0,
        transactions: 0,
        longest: Duration::ZERO,
        took: Duration::ZERO,
        log: String::new(),
        outcome: Ok(Result_::Aborted),
    };
    let began = Instant::now();
    told.outcome = Round { pair, place: &place, shape: &shape, change: &change }
        .play(&mut dice, &planned, &mut told);
    told.took = began.elapsed();
    if told.outcome.is_ok()
        && let Err(error) = place.drop(&pair.primary.url())
    {
        told.outcome = Err(error.context("dropping the round's databases"));
    }
    told
}

struct Round<'a> {
    pair: &'a Pair,
    place: &'a Place,
    shape: &'a Shape,
    change: &'a Change,
}

impl Round<'_> {
    fn play(&self, dice: &mut Dice, planned: &[Planned], told: &mut Told) -> Result<Result_> {
        let count = 2 + i64::try_from(dice.below(5))?;
        self.load(dice, count).context("loading the tables")?;
        let scene = Arc::new(Scene {
            shape: self.shape.clone(),
            change: self.change.clone(),
            url: if self.place.flavor.is_postgres() {
                self.place.url.clone()
            } else {
                self.pair.primary.url()
            },
            tables: self.place.tables.clone(),
            pause_ms: 1 + dice.below(20),
            repeatable: dice.below(4) == 0,
        });
        if scene.repeatable {
            told.shape.push_str(", REPEATABLE READ");
        }
        let options = options(dice, self.place.flavor);
        let proxy = Proxy::start(&self.pair.primary.url())?;
        let writers = Writers::start(&scene, count, dice.next());
        let mut deeds = Deeds::new(self.pair, self.place, &proxy, planned, dice.next());
        let driven = self.drive(&proxy, &options, &mut deeds, &writers, told);
        let healed = deeds.undo_all();
        let seen = writers.stop();
        told.faults = deeds.done.clone();
        told.kinds = deeds.kinds.clone();
        told.transactions = seen.transactions;
        told.longest = seen.longest;
        let _text = writeln!(told.log, "repeatable read: {}, writers: {seen:?}", scene.repeatable);
        told.log.push_str(&deeds.log);
        let outcome = driven?;
        healed.context("after the faults")?;
        self.judge(&seen, deeds.crashed)?;
        let mut session = Session::open(&self.place.url)?;
        if let Result_::Stopped(words) = &outcome {
            self.abort(told).with_context(|| format!("after it had stopped: {words}"))?;
        }
        check::nothing_left(self.place, &mut session)?;
        if outcome == Result_::Swapped {
            self.convert(&mut session)?;
        }
        told.rows = check::rows(self.place, &mut session)?;
        check::structure(self.place, &mut session)?;
        if let Result_::Stopped(words) = &outcome
            && self.convert(&mut session).is_ok()
        {
            return Ok(Result_::Stopped(format!("(the plain ALTER passes) {words}")));
        }
        Ok(outcome)
    }

    fn load(&self, dice: &mut Dice, writers: i64) -> Result<()> {
        let server = self.pair.primary.url();
        let flavor = self.place.flavor;
        let mut session = Session::open(&server)?;
        if flavor.is_postgres() {
            let database = &self.place.database;
            session.run(&format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)"))?;
            session.run(&format!("CREATE DATABASE {database}"))?;
            session = Session::open(&self.place.url)?;
            session.run("CREATE SCHEMA mirror")?;
        } else {
            for schema in &self.place.schemas {
                session.run(&format!("DROP DATABASE IF EXISTS {schema}"))?;
                session.run(&format!("CREATE DATABASE {schema} CHARACTER SET utf8mb4"))?;
            }
        }
        for which in [0, 1] {
            self.enter(&mut session, which)?;
            for statement in self.shape.ddl() {
                session.run(&statement).with_context(|| statement.clone())?;
            }
        }
        let rows = i64::try_from(self.shape.rows)?;
        let mut n = 1;
        while n <= rows {
            let last = std::cmp::min(n + 299, rows);
            let tuples = (n..=last).map(|n| {
                // the writers' numbers divide them; see `Writers::start`
                self.shape.row(dice, n, n % writers, true)
            });
            let tuples: Vec<Vec<(String, String)>> = tuples.collect();
            let names = tuples.first().map(|cells| {
                cells.iter().map(|(name, _)| self.shape.q(name)).collect::<Vec<String>>().join(", ")
            });
            let values = tuples.iter().map(|cells| {
                let cells: Vec<&str> = cells.iter().map(|(_, value)| value.as_str()).collect();
                format!("({})", cells.join(", "))
            });
            let values = values.collect::<Vec<String>>().join(", ");
            for table in &self.place.tables {
                let text = format!(
                    "INSERT INTO {table} ({}) VALUES {values}",
                    names.clone().unwrap_or_default()
                );
                session.run(&text)?;
            }
            n = last + 1;
        }
        if self.shape.key == Key::Auto && flavor.is_postgres() && rows > 0 {
            let id = self.shape.q(self.shape.key_names.first().map_or("id", String::as_str));
            let table = &self.place.tables[0];
            session.run(&format!(
                "SELECT setval(pg_get_serial_sequence({}, {}), (SELECT max({id}) FROM {table}))",
                quoted(table, flavor),
                quoted(self.shape.key_names.first().map_or("id", String::as_str), flavor)
            ))?;
        }
        Ok(())
    }

    fn enter(&self, session: &mut Session, which: usize) -> Result<()> {
        let schema = name(&self.place.schemas[which], self.place.flavor);
        session.run(&match self.place.flavor.is_postgres() {
            true => format!("SET search_path = {schema}"),
            false => format!("USE {schema}"),
        })?;
        Ok(())
    }

    /// The plain server's own change of the mirror.
    fn convert(&self, session: &mut Session) -> Result<()> {
        self.enter(session, 1)?;
        session.run(&self.change.statement).context("the plain ALTER of the mirror")?;
        self.enter(session, 0)
    }

    /// Starts the program again and again until the run has come to an end.
    fn drive(
        &self,
        proxy: &Proxy,
        options: &[String],
        deeds: &mut Deeds<'_>,
        writers: &Writers,
        told: &mut Told,
    ) -> Result<Result_> {
        let url = proxy.url(&self.place.database);
        let mut words = vec!["run", url.as_str(), self.change.statement.as_str()];
        words.extend(options.iter().map(String::as_str));
        deeds.words = words.iter().map(|word| (*word).to_owned()).collect();
        let _text = writeln!(told.log, "underpin {words:?}");
        let limit = Instant::now() + ROUND_MAX;
        let mut tries = Tries::default();
        // some writes before it begins
        std::thread::sleep(Duration::from_millis(100));
        loop {
            told.starts += 1;
            ensure!(told.starts <= STARTS_MAX, "started {STARTS_MAX} times and never done");
            let mut runner = Runner::start(&words)?;
            let faults_before = (deeds.done.len(), deeds.sprung());
            while !runner.has_ended()? {
                if Instant::now() > limit {
                    let log = runner.story();
                    let _text = writeln!(told.log, "HANGS: {log}");
                    bail!("the round has not ended after {} s: {log}", ROUND_MAX.as_secs());
                }
                deeds.tick(&mut runner)?;
                std::thread::sleep(Duration::from_millis(5));
            }
            let called = runner.wait(CALL_MAX)?;
            self.note(told, &called, writers.done());
            let second = deeds.second_ended()?;
            let aborted = deeds.aborted;
            let calm = (deeds.done.len(), deeds.sprung()) == faults_before && !deeds.is_pending();
            if let Some(outcome) = self.weigh(&called, second, aborted, calm, &mut tries, deeds)? {
                return Ok(outcome);
            }
            for _ in 0..10 {
                deeds.heal()?;
                std::thread::sleep(Duration::from_millis(30));
            }
        }
    }

    /// What an end of the program means for the round; none: it is started again.
    fn weigh(
        &self,
        called: &Called,
        second: Option<Called>,
        aborted: bool,
        calm: bool,
        tries: &mut Tries,
        deeds: &Deeds<'_>,
    ) -> Result<Option<Result_>> {
        let words = called.complaint();
        let short = words.trim().to_owned();
        let code = called.ended.code;
        if code == Some(0) || second.is_some_and(|second| second.ended.code == Some(0)) {
            return Ok(Some(Result_::Swapped));
        }
        // a program that was killed may have been done all the same
        let state = Session::open(&self.place.url)
            .map_err(anyhow::Error::from)
            .and_then(|mut session| self.place.run_state(&mut session));
        match state.as_ref().ok().and_then(Option::as_deref) {
            Some("done") => return Ok(Some(Result_::Swapped)),
            Some("aborted") if aborted => return Ok(Some(Result_::Aborted)),
            Some("aborted") => bail!("the run was aborted, and nobody asked for it: {short}"),
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
                    return Ok(Some(Result_::Stopped(short)));
                }
            }
            Some(3) => {
                tries.refusals += 1;
                if !is_open && calm && tries.refusals >= 2 {
                    return Ok(Some(Result_::Refused(short)));
                }
                ensure!(tries.refusals < 30, "refused again and again: {short}");
            }
            Some(5) if deeds.corrupted => {
                return Ok(Some(Result_::Stopped(short)));
            }
            Some(code) => bail!("exit code {code}: {short}"),
        }
        Ok(None)
    }

    fn note(&self, told: &mut Told, called: &Called, transactions: u64) {
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

    fn abort(&self, told: &mut Told) -> Result<()> {
        let words = ["abort", &self.place.url, &self.place.named];
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

    /// Errors of the application that nothing explains.
    fn judge(&self, seen: &Seen, crashed: bool) -> Result<()> {
        if let Some(words) = seen.unexplained.first() {
            bail!("{} errors of the application, the first: {words}", seen.unexplained.len());
        }
        let lost = seen.errors.iter().find(|(kind, _)| ["lost", "late"].contains(&kind.as_str()));
        match lost.filter(|_| !crashed) {
            Some((kind, (times, words))) => {
                bail!("the application {kind} {times} answers: {words}")
            }
            None => Ok(()),
        }
    }
}

/// How often it ended in some way while nothing was wrong.
#[derive(Default)]
struct Tries {
    stops: u32,
    refusals: u32,
    locks: u32,
}

/// Options of the run.
fn options(dice: &mut Dice, flavor: Flavor) -> Vec<String> {
    let mut words: Vec<&str> = vec!["--strategy", "shadow", "--yes", "--lock-patience", "45s"];
    words.extend(match dice.below(3) {
        0 => ["--chunk-time", "10ms"],
        1 => ["--chunk-time", "40ms"],
        _ => ["--chunk-time", "300ms"],
    });
    words.extend(match dice.below(4) {
        0 => ["--workers", "1"],
        1 => ["--workers", "2"],
        _ => ["--workers", "4"],
    });
    words.extend(match dice.below(4) {
        0 => ["--indexes", "during"],
        1 => ["--indexes", "after"],
        _ => ["--indexes", "auto"],
    });
    if flavor.is_postgres() && dice.below(3) == 0 {
        words.extend(["--capture", "statement"]);
    }
    if dice.below(2) == 0 {
        words.extend(["--replica", "none"]);
    }
    if dice.below(3) == 0 {
        words.extend(["--rate", "4000"]);
    }
    words.into_iter().map(str::to_owned).collect()
}
