//! Carries out the faults of a round as their time comes, and undoes those that last.

use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cli::Called;
use crate::proxy::{Deed, Proxy, Trap};
use crate::runner::Runner;
use crate::servers::Pair;
use crate::workload::Dice;

use super::faults::{Fault, Planned};
use super::round::Place;
use super::session::{Refused, Session};
use super::values::{name, quoted};

/// How long a call of the program that steers a run may take.
const ORDER_MAX: Duration = Duration::from_secs(60);
const SECOND_MAX: Duration = Duration::from_secs(180);

/// What is to be undone.
enum Undo {
    Release(Trap),
    Quick,
    LetIn,
    /// Ends a session, and what it holds with it.
    Close(Box<Session>),
    Resume,
    Apply,
}

/// The faults of one round.
pub(super) struct Deeds<'a> {
    pair: &'a Pair,
    place: &'a Place,
    proxy: &'a Proxy,
    planned: Vec<Planned>,
    undo: Vec<(Instant, Undo)>,
    /// With the kinds of the faults that set them.
    traps: Vec<(String, Trap)>,
    second: Option<Runner>,
    dice: Dice,
    began: Instant,
    /// When each phase was first seen.
    phases: Vec<(String, Instant)>,
    /// The command line of the run.
    pub(super) words: Vec<String>,
    /// What was done, in words.
    pub(super) done: Vec<String>,
    /// The kinds of what was done.
    pub(super) kinds: Vec<String>,
    pub(super) log: String,
    /// An `underpin abort` ended well.
    pub(super) aborted: bool,
    pub(super) crashed: bool,
    pub(super) corrupted: bool,
    /// Rows of the shadow that were spoilt.
    pub(super) spoilt: u64,
}

impl<'a> Deeds<'a> {
    pub(super) fn new(pair: &'a Pair, place: &'a Place, proxy: &'a Proxy, seed: u64) -> Self {
        Self {
            pair,
            place,
            proxy,
            planned: Vec::new(),
            undo: Vec::new(),
            traps: Vec::new(),
            second: None,
            dice: Dice::new(seed),
            began: Instant::now(),
            phases: Vec::new(),
            words: Vec::new(),
            done: Vec::new(),
            kinds: Vec::new(),
            log: String::new(),
            aborted: false,
            crashed: false,
            corrupted: false,
            spoilt: 0,
        }
    }

    /// Another command, with faults of its own; what lasts goes on.
    pub(super) fn begin(&mut self, words: Vec<String>, planned: Vec<Planned>) {
        self.words = words;
        self.planned = planned;
        self.phases.clear();
        self.aborted = false;
        self.began = Instant::now();
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, runner: &mut Runner) -> Result<()> {
        self.heal()?;
        for event in runner.events() {
            let phase = ["phase", "run_resumed"].iter().any(|name| event["event"] == *name);
            if let Some(phase) = event["phase"].as_str().filter(|_| phase)
                && !self.phases.iter().any(|(seen, _)| seen == phase)
            {
                self.phases.push((phase.to_owned(), Instant::now()));
            }
        }
        let due = self.planned.iter().position(|planned| {
            let since = match planned.phase {
                None => Some(self.began),
                Some(phase) => {
                    self.phases.iter().find(|(seen, _)| seen == phase).map(|seen| seen.1)
                }
            };
            since.is_some_and(|since| since.elapsed() >= Duration::from_millis(planned.after_ms))
        });
        let Some(due) = due else { return Ok(()) };
        let planned = self.planned.remove(due);
        let at = self.began.elapsed().as_secs_f64();
        let before = self.spoilt;
        let (said, has_bitten) = match self.carry_out(&planned.fault, runner) {
            Ok(said) => said,
            Err(error) => bail!("fault {:?}: {error:#}", planned.fault),
        };
        if planned.fault == Fault::Corrupt && self.spoilt == before && planned.after_ms < 20_000 {
            // the shadow had no row yet, or none that was free
            let after_ms = planned.after_ms + 200;
            let _text = writeln!(self.log, "nothing spoilt at {at:.2} s: {said}");
            self.planned.push(Planned { after_ms, ..planned });
            return Ok(());
        }
        let _text = writeln!(self.log, "fault at {at:.2} s: {:?}: {said}", planned);
        self.done.push(format!("{:?}", planned.fault));
        if has_bitten {
            self.kinds.push(planned.fault.kind());
        }
        Ok(())
    }

    fn later(&mut self, ms: u64, undo: Undo) {
        self.undo.push((Instant::now() + Duration::from_millis(ms), undo));
    }

    /// What came of it, and whether it counts: a trap does not before it has sprung.
    fn carry_out(&mut self, fault: &Fault, runner: &mut Runner) -> Result<(String, bool)> {
        match fault {
            Fault::Signal(name) => return Ok((signal(runner.pid(), name), true)),
            Fault::Freeze(ms) => {
                self.proxy.delay(Duration::from_millis(*ms));
                self.later(*ms, Undo::Quick);
            }
            Fault::Trap(word, nth, deed, ms) => {
                let trap = self.proxy.trap_nth(&[word], *nth, *deed);
                if *deed == Deed::Hold {
                    self.later(*ms, Undo::Release(trap.clone()));
                }
                self.traps.push((fault.kind(), trap));
                return Ok((String::new(), false));
            }
            Fault::Delay(each, ms) => {
                self.proxy.delay(Duration::from_millis(*each));
                self.later(*ms, Undo::Quick);
            }
            Fault::Refuse(ms) => {
                self.proxy.refuse(true);
                self.later(*ms, Undo::LetIn);
            }
            Fault::KillSession => return self.kill_session(),
            Fault::Crash(ms) => {
                self.crashed = true;
                self.undo.retain(|(_, undo)| !matches!(undo, Undo::Close(_)));
                self.pair.primary.kill9()?;
                std::thread::sleep(Duration::from_millis(*ms));
                self.pair.primary.restart().context("starting the server again")?;
            }
            Fault::IdleWriter(ms)
            | Fault::LongReader(ms)
            | Fault::LockTable(ms)
            | Fault::LockShadow(ms) => {
                return Ok(match self.hold(fault, *ms) {
                    Ok(held) => (format!("held: {held}"), held),
                    Err(refused) => (refused.to_string(), false),
                });
            }
            Fault::SecondRunner => {
                let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
                self.second = Some(Runner::start(&words)?);
            }
            Fault::Pause(ms) => {
                let said = self.order(&["pause", &self.place.url, &self.place.named])?;
                self.later(*ms, Undo::Resume);
                return Ok((describe(&said), said.ended.code == Some(0)));
            }
            Fault::Set(limit) => {
                let said = self.order(&["set", &self.place.url, &self.place.named, limit])?;
                return Ok((describe(&said), said.ended.code == Some(0)));
            }
            Fault::Abort => {
                let said = self.order(&["abort", &self.place.url, &self.place.named])?;
                self.aborted |= said.ended.code == Some(0);
                return Ok((describe(&said), said.ended.code == Some(0)));
            }
            Fault::Replica(ms) => {
                self.pair.stop_applying()?;
                self.later(*ms, Undo::Apply);
            }
            Fault::Corrupt => {
                let before = self.spoilt;
                let said = self.corrupt(runner);
                return Ok((said, self.spoilt > before));
            }
        }
        Ok((String::new(), true))
    }

    /// What stalls meanwhile must not stall for longer than it was to.
    fn order(&mut self, words: &[&str]) -> Result<Called> {
        let mut order = Runner::start(words)?;
        let until = Instant::now() + ORDER_MAX;
        while !order.has_ended()? && Instant::now() < until {
            self.heal_stalls();
            std::thread::sleep(Duration::from_millis(5));
        }
        let called = order.wait(Duration::ZERO);
        let called = called.with_context(|| format!("underpin {}", words.join(" ")))?;
        let known = matches!(called.ended.code, Some(0 | 1 | 3));
        if !known {
            bail!(
                "underpin {} ended with {:?}: {}",
                words.join(" "),
                called.ended.code,
                called.complaint()
            );
        }
        Ok(called)
    }

    fn kill_session(&mut self) -> Result<(String, bool)> {
        let ports: Vec<String> = self.proxy.ports().iter().map(u16::to_string).collect();
        if ports.is_empty() {
            return Ok(("no session".to_owned(), false));
        }
        let (ports, postgres) = (ports.join(", "), self.place.flavor.is_postgres());
        let mut session = Session::open(&self.pair.primary.url())?;
        // MySQL's information_schema cannot be read while a statement with a rare character runs [3854];
        // MariaDB breaks the table whose RENAME is killed, see docs/safety.md
        let (list, spared) = match self.place.flavor.is_mariadb() {
            true => ("information_schema.PROCESSLIST", "COALESCE(INFO, '') NOT LIKE 'RENAME%'"),
            false => ("performance_schema.processlist", "TRUE"),
        };
        let ids = session.rows(&match postgres {
            true => format!("SELECT pid FROM pg_stat_activity WHERE client_port IN ({ports})"),
            false => {
                format!(
                    "SELECT ID FROM {list} WHERE SUBSTRING_INDEX(HOST, ':', -1) IN ({ports}) AND {spared}"
                )
            }
        })?;
        let ids: Vec<String> = ids.into_iter().flatten().flatten().collect();
        let length = u64::try_from(ids.len())?;
        let Some(id) = ids.get(super::values::at(&mut self.dice, length)) else {
            return Ok(("no session".to_owned(), false));
        };
        let killed = session.run(&match postgres {
            true => format!("SELECT pg_terminate_backend({id})"),
            false => format!("KILL {id}"),
        });
        Ok((format!("session {id} of {length}: {killed:?}"), killed.is_ok()))
    }

    fn hold(&mut self, fault: &Fault, ms: u64) -> Result<bool, Refused> {
        let postgres = self.place.flavor.is_postgres();
        let mut session = Session::open(&self.place.url)?;
        session.run(if postgres {
            "SET lock_timeout = '2s'"
        } else {
            "SET lock_wait_timeout = 2"
        })?;
        let table = &self.place.tables[0];
        if !postgres {
            session.run("SET innodb_lock_wait_timeout = 2")?;
        }
        match fault {
            Fault::LockShadow(_) => {
                let Some(shadow) = self.shadow(&mut session)? else { return Ok(false) };
                session.run("BEGIN")?;
                let limit = 1 + self.dice.below(200);
                session.rows(&format!("SELECT b FROM {shadow} LIMIT {limit} FOR UPDATE"))?;
            }
            Fault::LockTable(_) if !postgres => {
                session.run(&format!("LOCK TABLES {table} WRITE"))?;
            }
            Fault::LockTable(_) => {
                session.run("BEGIN")?;
                session.run(&format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))?;
            }
            Fault::IdleWriter(_) => {
                session.run("BEGIN")?;
                session.rows(&format!("SELECT b FROM {table} LIMIT 1 FOR UPDATE"))?;
            }
            _ => {
                session.run(if postgres {
                    "BEGIN ISOLATION LEVEL REPEATABLE READ"
                } else {
                    "START TRANSACTION WITH CONSISTENT SNAPSHOT"
                })?;
                session.rows(&format!("SELECT COUNT(*) FROM {table}"))?;
            }
        }
        self.later(ms, Undo::Close(Box::new(session)));
        Ok(true)
    }

    /// Only while the copy goes on for certain: what changes behind the comparison nobody can find. Each
    /// statement of the program takes so long meanwhile that it cannot come there.
    fn corrupt(&mut self, runner: &Runner) -> String {
        match self.has_rows() {
            Ok(true) => {}
            Ok(false) => return "no row yet".to_owned(),
            Err(refused) => return refused.to_string(),
        }
        self.proxy.delay(Duration::from_millis(1500));
        std::thread::sleep(Duration::from_millis(20));
        let events = runner.events();
        let mut phases = events
            .iter()
            .filter(|event| event["event"] == "phase" || event["event"] == "run_resumed");
        let copying = phases.next_back().is_some_and(|event| event["phase"] == "copy");
        let said = if copying { self.spoil() } else { Ok("no copy goes on".to_owned()) };
        self.proxy.delay(Duration::ZERO);
        said.unwrap_or_else(|refused| refused.to_string())
    }

    /// The shadow, or the table that is not live, quoted with its schema.
    fn shadow(&self, session: &mut Session) -> Result<Option<String>, Refused> {
        let schema = quoted(&self.place.schemas[0], self.place.flavor);
        let table = quoted(&self.place.table, self.place.flavor);
        let found = session.rows(&match self.place.flavor.is_postgres() {
            true => format!(
                "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE n.nspname LIKE 'underpin\\_%' AND c.relname = {table} AND c.relkind = 'r'"
            ),
            // the shadow before the sentry
            false => format!(
                "SELECT table_schema, table_name FROM information_schema.tables WHERE table_schema = {schema} \
                 AND (table_name LIKE '%~up_new' OR table_name LIKE '%~up_old') ORDER BY table_name"
            ),
        })?;
        Ok(found.into_iter().next().map(|row| {
            let parts = row.into_iter().flatten().map(|part| name(&part, self.place.flavor));
            parts.collect::<Vec<String>>().join(".")
        }))
    }

    fn has_rows(&self) -> Result<bool, Refused> {
        let mut session = Session::open(&self.place.url)?;
        let Some(shadow) = self.shadow(&mut session)? else { return Ok(false) };
        Ok(session.first(&format!("SELECT 1 FROM {shadow} LIMIT 1"))?.is_some())
    }

    fn spoil(&mut self) -> Result<String, Refused> {
        let postgres = self.place.flavor.is_postgres();
        let mut session = Session::open(&self.place.url)?;
        let Some(shadow) = self.shadow(&mut session)? else { return Ok("no shadow".to_owned()) };
        let one = if postgres {
            format!("WHERE ctid = (SELECT ctid FROM {shadow} LIMIT 1)")
        } else {
            "LIMIT 1".to_owned()
        };
        session.run(if postgres {
            "SET lock_timeout = '500ms'"
        } else {
            "SET innodb_lock_wait_timeout = 1, lock_wait_timeout = 1"
        })?;
        let removes = self.dice.below(2) == 0;
        let count = session.run(&match removes {
            true => format!("DELETE FROM {shadow} {one}"),
            false => format!("UPDATE {shadow} SET b = b + 30 {one}"),
        })?;
        self.corrupted |= count > 0;
        self.spoilt += count;
        Ok(format!("{count} rows of {shadow}{}", if removes { " removed" } else { " changed" }))
    }

    /// Whether something lasts.
    pub(super) fn is_pending(&self) -> bool {
        !self.undo.is_empty()
    }

    /// Traps that have sprung.
    pub(super) fn sprung(&self) -> u32 {
        self.traps.iter().map(|(_, trap)| trap.sprung()).sum()
    }

    /// The kinds of faults that were felt.
    pub(super) fn felt(&self) -> Vec<String> {
        let sprung = self.traps.iter().filter(|(_, trap)| trap.sprung() > 0);
        self.kinds.iter().cloned().chain(sprung.map(|(kind, _)| kind.clone())).collect()
    }

    /// Undoes what has lasted long enough.
    pub(super) fn heal(&mut self) -> Result<()> {
        let now = Instant::now();
        while let Some(index) = self.undo.iter().position(|(until, _)| *until <= now) {
            let (_, undo) = self.undo.remove(index);
            self.heal_one(undo)?;
        }
        Ok(())
    }

    /// Ends stalls and locks that are over; no more than that.
    fn heal_stalls(&mut self) {
        let now = Instant::now();
        let is_stall = |undo: &Undo| {
            matches!(undo, Undo::Release(_) | Undo::Quick | Undo::LetIn | Undo::Close(_))
        };
        while let Some(index) =
            self.undo.iter().position(|(until, undo)| *until <= now && is_stall(undo))
        {
            match self.undo.remove(index).1 {
                Undo::Release(trap) => trap.release(),
                Undo::Quick => self.proxy.delay(Duration::ZERO),
                Undo::LetIn => self.proxy.refuse(false),
                _ => {}
            }
        }
    }

    fn heal_one(&mut self, undo: Undo) -> Result<()> {
        match undo {
            Undo::Release(trap) => trap.release(),
            Undo::Quick => self.proxy.delay(Duration::ZERO),
            Undo::LetIn => self.proxy.refuse(false),
            Undo::Close(session) => drop(session),
            Undo::Resume => {
                self.order(&["resume", &self.place.url, &self.place.named])?;
            }
            Undo::Apply => self.pair.start_applying()?,
        }
        Ok(())
    }

    /// The second runner, ended.
    pub(super) fn second_ended(&mut self) -> Result<Option<Called>> {
        let Some(mut second) = self.second.take() else { return Ok(None) };
        let until = Instant::now() + SECOND_MAX;
        while !second.has_ended()? {
            if Instant::now() > until {
                bail!("the second runner has not ended: {}", second.story());
            }
            self.heal()?;
            std::thread::sleep(Duration::from_millis(10));
        }
        let called = second.wait(ORDER_MAX)?;
        let _text = writeln!(self.log, "second runner: {}", describe(&called));
        Ok(Some(called))
    }

    /// Everything, at the end.
    pub(super) fn undo_all(&mut self) -> Result<()> {
        for (_, trap) in &self.traps {
            trap.release();
        }
        self.second = None;
        for (_, undo) in std::mem::take(&mut self.undo) {
            if !matches!(undo, Undo::Resume) {
                self.heal_one(undo)?;
            }
        }
        Ok(())
    }
}

/// Sends a signal; a process that is gone does no harm.
fn signal(pid: u32, name: &str) -> String {
    let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status();
    format!("{name} to {pid}: {status:?}")
}

fn describe(called: &Called) -> String {
    format!("exit {:?}: {}", called.ended.code, called.complaint().trim())
}
