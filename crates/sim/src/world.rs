//! Everything that tasks share: the server, the checker, the dice, who is alive, and what may still go
//! wrong.

use std::collections::{BTreeMap, VecDeque};

use underpin_core::machine::{Command, Ending, Event};
use underpin_core::plan::Flow;
use underpin_core::signal::Gates;
use underpin_core::way::Way;

use crate::Options;
use crate::checker::{Checker, Circumstances};
use crate::clockwork::{Calamity, NewTask, Owner};
use crate::db::{Db, Heaps, SessionId};
use crate::dice::Dice;
use crate::fault::Fault;
use crate::losses::Losses;
use crate::ops::Floor;
use crate::report::Counts;
use crate::scenario::{Chaos, Scenario, app_rows};
use crate::session::readable;
use crate::steering;

/// A session of ours on the server.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SessionState {
    /// Nobody waits for its answers any more: it ends before its next statement.
    pub(crate) is_gone: bool,
    /// It was killed: it ends within its statement.
    pub(crate) is_killed: bool,
}

/// What the runner is told.
#[derive(Debug)]
pub(crate) enum Message {
    Event(Event),
    /// A connection or an answer was lost: what the server did is not known.
    Lost,
}

/// How a runner ended.
#[derive(Debug, Clone)]
pub(crate) enum RunnerEnd {
    /// It was killed.
    Crashed,
    /// It lost a connection or an answer.
    Lost,
    /// The machine said so.
    Ended(Ending),
    /// The turn was not taken: the swap before it could not be brought to its end.
    NotTurned,
}

/// Orders of things that may still go wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    pub(crate) runner_crashes: u64,
    pub(crate) server_crashes: u64,
    pub(crate) lost: u64,
    pub(crate) rolled_back: u64,
    pub(crate) bad_lag: u64,
    pub(crate) bad_load: u64,
}

impl Budget {
    fn of(chaos: &Chaos) -> Self {
        Self {
            runner_crashes: chaos.runner_crashes,
            server_crashes: chaos.server_crashes,
            lost: chaos.lost,
            rolled_back: chaos.rolled_back,
            bad_lag: chaos.lag_readings,
            bad_load: chaos.lag_readings,
        }
    }
}

/// See the module's head.
pub(crate) struct World {
    pub(crate) now_us: u64,
    pub(crate) dice: Dice,
    pub(crate) scenario: Scenario,
    pub(crate) fault: Option<Fault>,
    pub(crate) db: Db,
    pub(crate) checker: Checker,
    pub(crate) counts: Counts,
    pub(crate) budget: Budget,
    /// Sessions of ours that are alive.
    pub(crate) sessions: BTreeMap<SessionId, SessionState>,
    pub(crate) inbox: VecDeque<Message>,
    pub(crate) runner_end: Option<RunnerEnd>,
    /// What the runner knows of the log.
    pub(crate) floor: Floor,
    pub(crate) met: Circumstances,
    /// What people have ordered, as the store keeps it.
    pub(crate) orders: Vec<Command>,
    /// What the calendar allows just now.
    pub(crate) gates: Gates,
    /// Transactions that each writer still has to do.
    pub(crate) writers: Vec<u64>,
    /// Transactions that have been prepared and not ended.
    pub(crate) prepared: usize,
    /// Writers that are at work.
    pub(crate) writers_alive: usize,
    /// Kill the runner after this step, whatever the dice say.
    pub(crate) crash_at: Option<u64>,
    /// Ask for an abort after this step, whatever the dice say.
    pub(crate) abort_at: Option<u64>,
    /// Answers that are lost, whatever the dice say.
    pub(crate) losses: Losses,
    /// Which way the run goes, as its runner has read it.
    pub(crate) way: Way,
    /// A swap of this run has been made.
    pub(crate) has_swapped: bool,
    /// A checkpoint that only the program knows; for a fault.
    pub(crate) remembered: Option<String>,
    /// Turns that people have asked for.
    pub(crate) turn_at: usize,
    /// Writes that passed the fence.
    pub(crate) slipped: i64,
    /// Something of ours has committed in this step.
    pub(crate) has_committed: bool,
    pub(crate) spawned: Vec<NewTask>,
    pub(crate) woken: Vec<Owner>,
    pub(crate) delay_us: u64,
    session_next: SessionId,
    checked_no: u64,
    log: Option<Vec<String>>,
}

impl World {
    pub(crate) fn new(seed: u64, flow: Flow, options: Options) -> Self {
        let Options { fault, keep_log, .. } = options;
        let mut dice = Dice::new(seed);
        let mut scenario = Scenario::draw(&mut dice, fault);
        let by_blocks = flow == Flow::Blocks;
        if by_blocks {
            scenario.by_blocks(&mut dice, fault);
        }
        scenario.steered(&mut dice, fault);
        scenario.turned(&mut dice, fault);
        if options.small {
            scenario.small(&mut dice);
        }
        let mut db = Db::new(scenario.rules, scenario.rows.clone());
        db.keeps_way_back = scenario.settings.keeps_way_back;
        db.captures_own = scenario.captures_own;
        db.returns_late = fault == Some(Fault::ReturnLogLate);
        db.logs_old_key = fault != Some(Fault::NewKeyOnly);
        let mut checker = Checker::new(scenario.rules, scenario.volatile, app_rows(&scenario.rows));
        if scenario.settings.keeps_way_back {
            checker = checker.keeps_way_back();
        }
        if by_blocks {
            db.heaps = Some(Heaps::new(&scenario.rows, dice.below(u64::MAX)));
            db.logs_savepoint = fault == Some(Fault::SavepointInLog);
            db.keeps_end = fault == Some(Fault::EndBeforeTriggers);
            checker = checker.by_blocks();
        }
        let budget = Budget::of(&scenario.chaos);
        let writers = vec![scenario.traffic.transactions; scenario.traffic.writers];
        Self {
            now_us: 0,
            dice,
            scenario,
            fault,
            db,
            checker,
            counts: Counts { seeds: 1, ..Counts::default() },
            budget,
            sessions: BTreeMap::new(),
            inbox: VecDeque::new(),
            runner_end: None,
            floor: Floor::default(),
            met: Circumstances::default(),
            orders: Vec::new(),
            gates: Gates::default(),
            writers,
            prepared: 0,
            writers_alive: 0,
            crash_at: options.crash_at,
            abort_at: options.abort_at,
            losses: Losses::new(options.lose_at),
            way: Way::Forward,
            has_swapped: false,
            slipped: 0,
            turn_at: 0,
            remembered: None,
            has_committed: false,
            spawned: Vec::new(),
            woken: Vec::new(),
            delay_us: 0,
            session_next: 1,
            checked_no: 0,
            log: keep_log.then(Vec::new),
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now_us / 1000
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// Whether what the swap replaces stays, so that it can be taken back.
    pub(crate) fn keeps_way_back(&self) -> bool {
        self.scenario.settings.keeps_way_back
    }

    /// Whether rows keep what only the target's shape has: where they do from the start, and behind a
    /// swap, before which the application has seen it.
    pub(crate) fn keeps_draws(&self) -> bool {
        self.scenario.volatile || self.has_swapped
    }

    /// How long the next step takes: mostly short, sometimes long enough for everybody else to pass.
    pub(crate) fn latency_us(&mut self) -> u64 {
        match self.dice.below(100) {
            0..=84 => 50 + self.dice.below(1_500),
            85..=96 => self.dice.below(20_000),
            _ => self.dice.below(self.scenario.slow_us),
        }
    }

    /// A line of the event log.
    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            let text = readable(&text());
            log.push(format!("{:>9}.{:03} {text}", self.now_us / 1000, self.now_us % 1000));
        }
    }

    /// What the seed has decided, as the first line.
    pub(crate) fn note_scenario(&mut self) {
        let scenario = self.scenario.clone();
        self.note(|| format!("{scenario:?}"));
    }

    pub(crate) fn take_log(&mut self) -> Vec<String> {
        self.log.take().unwrap_or_default()
    }

    /// A number for a session, ours or a writer's.
    pub(crate) fn session_id(&mut self) -> SessionId {
        self.session_next += 1;
        self.session_next
    }

    /// Tells the runner, and wakes it.
    pub(crate) fn tell(&mut self, message: Message) {
        self.inbox.push_back(message);
        self.woken.push(Owner::Runner);
    }

    /// A person asks for something. Where no runner is alive, the next one hears what the store keeps.
    pub(crate) fn command(&mut self, command: Command) {
        self.note(|| format!("person: {command:?}"));
        if command == Command::Abort {
            self.checker.may_be_left();
        }
        if matches!(command, Command::Stop | Command::Abort) {
            self.met.commanded = match self.met.commanded {
                Some(Command::Abort) => Some(Command::Abort),
                _ => Some(command.clone()),
            };
        }
        if steering::is_kept(&command) {
            self.counts.orders += 1;
            self.orders.push(command.clone());
        }
        self.tell(Message::Event(Event::Command(command)));
    }

    /// What follows from the last step of any task: checks where nothing of ours is in flight, and
    /// perhaps a calamity.
    pub(crate) fn after_step(&mut self, steps: u64) -> Option<Calamity> {
        if self.sessions.is_empty() && self.checked_no != self.db.commit_no {
            self.checked_no = self.db.commit_no;
            self.counts.quiet_points += 1;
            self.checker.quiet(&self.db);
        }
        if self.abort_at == Some(steps) {
            self.command(Command::Abort);
        }
        if self.crash_at == Some(steps) && self.runner_end.is_none() {
            return Some(Calamity::RunnerCrash);
        }
        let has_committed = std::mem::take(&mut self.has_committed);
        if self.budget.runner_crashes + self.budget.server_crashes == 0 {
            return None;
        }
        let chaos = &self.scenario.chaos;
        let strikes = self.dice.per_10k(chaos.crash_per_10k)
            || (has_committed && self.dice.percent(chaos.crash_at_commit_percent));
        if !strikes {
            return None;
        }
        let is_server = self.budget.runner_crashes == 0
            || (self.budget.server_crashes > 0 && self.dice.percent(40));
        if is_server {
            self.budget.server_crashes -= 1;
            return Some(Calamity::ServerCrash);
        }
        if self.runner_end.is_some() {
            return None;
        }
        self.budget.runner_crashes -= 1;
        Some(Calamity::RunnerCrash)
    }

    /// The program that runs the machine is dead. Its sessions do not know it yet.
    pub(crate) fn runner_crashed(&mut self) {
        self.counts.runner_crashes += 1;
        self.note(|| "CRASH of the program".to_owned());
        self.abandon_sessions();
        self.runner_end = Some(RunnerEnd::Crashed);
        self.woken.push(Owner::Director);
    }

    /// Nobody waits for our sessions any more. Some are killed in their statement, some go on to its
    /// end; a commit that was sent goes through.
    pub(crate) fn abandon_sessions(&mut self) {
        for state in self.sessions.values_mut() {
            state.is_gone = true;
            state.is_killed |= self.dice.percent(50);
        }
    }

    /// The server died and came back. Everybody's connection is lost.
    pub(crate) fn server_crashed(&mut self) {
        self.counts.server_crashes += 1;
        self.note(|| "CRASH of the server".to_owned());
        self.db.crash();
        let (log, shadow) = (self.has(Fault::UnloggedLog), self.has(Fault::UnloggedShadow));
        self.db.lose_unlogged(log, shadow);
        self.sessions.clear();
        self.writers_alive = 0;
        if self.runner_end.is_none() {
            self.tell(Message::Lost);
        }
    }
}
