//! One round: a table, a change, writers, faults, and what must hold at the end.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::proxy::Proxy;
use crate::servers::{Flavor, Pair};
use crate::workload::Dice;

use super::change::Change;
use super::check;
use super::deeds::Deeds;
use super::drive::{self, Ended, Goal};
use super::faults::{self, Fault, Planned};
use super::session::Session;
use super::shape::{Key, Shape};
use super::turns::{self, Live, Side};
use super::values::{name, quoted};
use super::writers::{Scene, Seen, Writers};

/// Of so many rounds two keep the way back.
const TURNED_OF: u64 = 5;

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
    /// It was made and taken back.
    Reverted,
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
    /// Turns taken, each as it ended.
    pub(super) turns: Vec<String>,
    /// Turns that stopped; their words.
    pub(super) stops: Vec<String>,
    /// Rows of the shadow that were spoilt, and rows that the program repaired.
    pub(super) spoilt: u64,
    pub(super) repaired: u64,
    /// Calls that found a difference.
    pub(super) different: u64,
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

/// What is other than the seed says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Proof {
    /// Nothing.
    #[default]
    None,
    /// No fault but a spoilt row, and the program compares.
    Compared,
    /// No fault but a spoilt row, and the program does not compare: the round must fail.
    NotCompared,
}

/// Plays the round of this seed; what is left on the server is removed if it went well.
pub(super) fn play(pair: &Pair, seed: u64, proof: Proof) -> Told {
    let flavor = pair.flavor();
    let mut dice = Dice::new(seed);
    let turns = proof == Proof::None && Dice::new(seed ^ 0x7e57_0f7e).below(TURNED_OF) < 2;
    let mut shape = Shape::draw(&mut dice, flavor);
    let change = match proof {
        Proof::None => Change::draw(&mut dice, &mut shape, turns),
        _ => Change::plain(&shape),
    };
    let planned = match proof {
        Proof::None => faults::draw(&mut dice, flavor.is_postgres()),
        _ => vec![Planned { phase: Some("copy"), after_ms: 0, fault: Fault::Corrupt }],
    };
    if proof != Proof::None {
        shape.rows = 2000;
    }
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
        turns: Vec::new(),
        stops: Vec::new(),
        spoilt: 0,
        repaired: 0,
        different: 0,
        outcome: Ok(Result_::Aborted),
    };
    let began = Instant::now();
    told.outcome = Round { pair, place: &place, shape: &shape, change: &change, proof }
        .play(&mut dice, planned, &mut told);
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
    proof: Proof,
}

impl Round<'_> {
    fn play(&self, dice: &mut Dice, planned: Vec<Planned>, told: &mut Told) -> Result<Result_> {
        let began = Instant::now();
        let count = 2 + i64::try_from(dice.below(5))?;
        self.load(dice, count).context("loading the tables")?;
        let _text = writeln!(told.log, "loaded after {:.1} s", began.elapsed().as_secs_f64());
        let scene = Arc::new(Scene {
            shape: self.shape.clone(),
            change: self.change.clone(),
            url: if self.place.flavor.is_postgres() {
                self.place.url.clone()
            } else {
                self.pair.primary.url()
            },
            tables: self.place.tables.clone(),
            pause_ms: 8 + dice.below(30),
            repeatable: dice.below(4) == 0,
        });
        if scene.repeatable {
            told.shape.push_str(", REPEATABLE READ");
        }
        let mut options = options(dice, self.place.flavor);
        match self.proof {
            Proof::NotCompared => options.extend(["--verify", "off"].map(str::to_owned)),
            Proof::Compared | Proof::None => {}
        }
        if self.proof != Proof::None {
            // slow enough that there is a row to spoil while the copy goes on
            options.retain(|word| !["--rate", "4000"].contains(&word.as_str()));
            options.extend(["--rate", "500"].map(str::to_owned));
        }
        let proxy = Proxy::start(&self.pair.primary.url())?;
        let writers = Writers::start(&scene, count, dice.next());
        let mut deeds = Deeds::new(self.pair, self.place, &proxy, dice.next());
        // some writes before it begins
        std::thread::sleep(Duration::from_millis(100));
        let driven = self.drive(dice, &proxy, options, planned, &mut deeds, &writers, told);
        let healed = deeds.undo_all();
        let seen = writers.stop();
        told.faults = deeds.done.clone();
        told.kinds = deeds.felt();
        told.spoilt = deeds.spoilt;
        told.transactions = seen.transactions;
        told.longest = seen.longest;
        told.log.push_str(&deeds.log);
        let _text = writeln!(
            told.log,
            "driven after {:.1} s; repeatable read: {}, writers: {seen:?}",
            began.elapsed().as_secs_f64(),
            scene.repeatable
        );
        let (outcome, live) = driven?;
        healed.context("after the faults")?;
        ensure!(
            told.different == 0 || told.spoilt > 0,
            "the program found rows that differ, and nobody had spoilt one"
        );
        self.judge(&seen, deeds.crashed)?;
        self.check(outcome, live, told)
    }

    /// What must hold at the end.
    fn check(&self, outcome: Result_, live: Live, told: &mut Told) -> Result<Result_> {
        let mut session = Session::open(&self.place.url)?;
        if let Result_::Stopped(words) = &outcome {
            drive::abort(self.place, told)
                .with_context(|| format!("after it had stopped: {words}"))?;
        }
        check::nothing_left(self.place, &mut session)?;
        let is_old = match live {
            Some(side) => side == Side::Old,
            // a turn was left: the table is one of the two, and all of it
            None => check::structure(self.place, &mut session).is_ok(),
        };
        if !is_old {
            self.convert(&mut session)?;
        }
        told.rows = check::rows(self.place, &mut session)?;
        check::structure(self.place, &mut session)?;
        match outcome {
            Result_::Swapped if is_old => Ok(Result_::Reverted),
            Result_::Stopped(words) if self.convert(&mut session).is_ok() => {
                Ok(Result_::Stopped(format!("(the plain ALTER passes) {words}")))
            }
            other => Ok(other),
        }
    }

    /// The change, and what is made of it afterwards; and which table is live then.
    // Everything that a round consists of is handed on.
    #[allow(clippy::too_many_arguments)]
    fn drive(
        &self,
        dice: &mut Dice,
        proxy: &Proxy,
        options: Vec<String>,
        planned: Vec<Planned>,
        deeds: &mut Deeds<'_>,
        writers: &Writers,
        told: &mut Told,
    ) -> Result<(Result_, Live)> {
        let url = proxy.url(&self.place.database);
        let mut words = vec!["run".to_owned(), url, self.change.statement.clone()];
        words.extend(options);
        let plain = words.clone();
        if self.change.turns {
            words.extend(["--finish", "keep"].map(str::to_owned));
        }
        let mut keeps = self.change.turns;
        deeds.begin(words, planned);
        let mut ended = drive::drive(self.place, Goal::Make, deeds, writers, told)?;
        if keeps && matches!(&ended, Ended::Refused(words) if words.contains("[way-back")) {
            // such a change cannot be taken back: it is made without
            keeps = false;
            deeds.begin(plain, Vec::new());
            ended = drive::drive(self.place, Goal::Make, deeds, writers, told)?;
        }
        Ok(match ended {
            Ended::Reached if keeps => {
                let live = turns::take(dice, self.place, proxy, deeds, writers, told)?;
                (Result_::Swapped, live)
            }
            Ended::Reached => (Result_::Swapped, Some(Side::New)),
            Ended::Refused(words) => (Result_::Refused(words), Some(Side::Old)),
            Ended::Stopped(words) => (Result_::Stopped(words), Some(Side::Old)),
            Ended::Aborted => (Result_::Aborted, Some(Side::Old)),
        })
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

/// Options of the run.
fn options(dice: &mut Dice, flavor: Flavor) -> Vec<String> {
    let mut words: Vec<&str> = vec!["--strategy", "shadow", "--yes", "--lock-patience", "45s"];
    // the machine may be slow, and what is tried here is not how long it holds anybody up
    words.extend(["--swap-budget", "4s", "--lock-timeout", "2s"]);
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
