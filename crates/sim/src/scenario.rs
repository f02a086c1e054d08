//! What a seed means: the table, the change, the settings, the writers, and what goes wrong.
//!
//! Small on purpose: a table of sixty rows with chunks of a few meets every edge in every run.

use underpin_core::machine::{Command, Settings};
use underpin_core::plan::Flow;
use underpin_core::proof::Verification;
use underpin_core::signal::SwapWhen;
use underpin_core::turn::Turn;

use crate::db::{AppRow, Row, Rows, Rules};
use crate::dice::Dice;
use crate::fault::Fault;
use crate::steering::Steering;

/// How the swap is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SwapStyle {
    /// The session that holds the lock renames.
    OneSession,
    /// A second session renames; a sentry and a fence guard the gap.
    TwoSessions,
}

/// Somebody who touches the table behind our back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meddling {
    Truncate,
    /// Gives every row another place (`VACUUM FULL`).
    Rewrite,
    /// Drops the capture trigger of this event.
    DropTrigger(usize),
    /// Changes a row of the shadow, which verification must find.
    SpoilShadow,
}

/// What goes wrong, and how often.
#[derive(Debug, Clone)]
pub(crate) struct Chaos {
    /// Chance of a crash after each step, in ten thousand.
    pub(crate) crash_per_10k: u64,
    /// Chance of a crash right after a commit of ours, in percent.
    pub(crate) crash_at_commit_percent: u64,
    pub(crate) runner_crashes: u64,
    pub(crate) server_crashes: u64,
    /// Chance that a commit's answer, or the commit itself, is lost, in percent.
    pub(crate) lost_percent: u64,
    pub(crate) lost: u64,
    /// Chance that a commit of ours is rolled back by the server instead, in percent.
    pub(crate) rolled_back_percent: u64,
    pub(crate) rolled_back: u64,
    /// What people ask for, and when.
    pub(crate) commands: Vec<(u64, Command)>,
    pub(crate) meddling: Option<(u64, Meddling)>,
    /// When the application empties the table, which is captured where the copy goes by blocks.
    pub(crate) truncates: Vec<u64>,
    /// A third session that holds the table open: from when, and for how long, in microseconds.
    pub(crate) holder: Option<(u64, u64)>,
    /// Chance that a reading of the replicas is bad, in percent; 0 where there are none.
    pub(crate) bad_lag_percent: u64,
    /// Readings after which every replica is well.
    pub(crate) lag_readings: u64,
}

/// Who writes, and how wildly.
#[derive(Debug, Clone)]
pub(crate) struct Traffic {
    pub(crate) writers: usize,
    /// Transactions of each writer.
    pub(crate) transactions: u64,
    pub(crate) think_us: u64,
    /// Whether most of the writing is kept for the time when the triggers stand.
    pub(crate) waits_for_capture: bool,
    /// Chance that a transaction is long, in percent.
    pub(crate) long_percent: u64,
    pub(crate) long_us: u64,
    pub(crate) rollback_percent: u64,
    /// Whether values may be written that the new shape forbids.
    pub(crate) violates: bool,
    /// Share of the deeds that move unique values between rows, in percent.
    pub(crate) moves_percent: u64,
    /// Chance of a savepoint around a deed, in percent.
    pub(crate) savepoint_percent: u64,
    /// Chance that a transaction is prepared and ended much later, in percent.
    pub(crate) prepare_percent: u64,
}

/// Everything that a seed decides before the run begins.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) settings: Settings,
    pub(crate) rules: Rules,
    pub(crate) rows: Rows,
    pub(crate) swap: SwapStyle,
    /// Whether the last chunk of a plan has no upper bound.
    pub(crate) open_end: bool,
    /// Whether the new shape has a column with a default that differs at each draw, so that all pending
    /// rows must be taken at once.
    pub(crate) volatile: bool,
    pub(crate) lock_timeout_us: u64,
    /// How much longer than the writers' our own statements take, in microseconds a step.
    pub(crate) our_step_us: u64,
    /// Length of the rare slow steps, in microseconds.
    pub(crate) slow_us: u64,
    pub(crate) chaos: Chaos,
    pub(crate) traffic: Traffic,
    /// Whether an aborted run is begun again from the start.
    pub(crate) again_after_abort: bool,
    pub(crate) steering: Steering,
    /// Whether capture triggers fire for our own sessions too.
    pub(crate) captures_own: bool,
    /// Whether somebody gets past the fence of the two-session swap.
    pub(crate) slips: bool,
    /// What is asked for once the change is made, before the end.
    pub(crate) turns: Vec<Turn>,
    /// What befalls the live table once the change is made, and at which turn.
    pub(crate) meddling_at_turn: Option<(usize, Meddling)>,
    /// Whether the application writes values that the old shape cannot hold.
    pub(crate) outgrows: bool,
    /// Chance that people stop or leave a turn, in percent.
    pub(crate) leaves_percent: u64,
}

impl Scenario {
    /// The scenario of these dice. A fault may ask for what it needs to show.
    pub(crate) fn draw(dice: &mut Dice, fault: Option<Fault>) -> Self {
        let violates = dice.percent(12);
        let new_unique = violates || dice.percent(40);
        let violates = violates || (fault == Some(Fault::Replace));
        let rules = Rules {
            app_keeps_value_unique: new_unique && !violates,
            new_unique: new_unique || violates,
            fit_max: (violates && dice.percent(40)).then_some(140),
            old_fit_max: None,
        };
        let settings = settings(dice);
        let rows = rows(dice, rules);
        let swap = if fault == Some(Fault::NameOrder) || dice.percent(35) {
            SwapStyle::TwoSessions
        } else {
            SwapStyle::OneSession
        };
        Self {
            rules,
            rows,
            swap,
            open_end: dice.percent(70),
            volatile: fault == Some(Fault::PartsLoseDraws) || dice.percent(50),
            lock_timeout_us: dice.between(20_000, 400_000),
            our_step_us: if dice.percent(50) { 0 } else { dice.between(1_000, 15_000) },
            slow_us: dice.between(2_000, 200_000),
            chaos: chaos(dice, settings.replicas_known),
            traffic: traffic(dice, violates),
            again_after_abort: dice.percent(50),
            steering: Steering::default(),
            captures_own: false,
            slips: false,
            turns: Vec::new(),
            meddling_at_turn: None,
            outgrows: false,
            leaves_percent: 0,
            settings,
        }
    }
}

impl Scenario {
    /// How the run is steered. Drawn after everything else.
    pub(crate) fn steered(&mut self, dice: &mut Dice, fault: Option<Fault>) {
        self.steering = Steering::draw(dice, fault, &mut self.settings);
    }

    /// Whether the way back is kept, and how often it is gone. Drawn last of all.
    pub(crate) fn turned(&mut self, dice: &mut Dice, fault: Option<Fault>) {
        let needs_turns = fault.is_some_and(Fault::is_of_turns);
        let slips = fault == Some(Fault::LateForgotten) || dice.percent(15);
        self.slips = slips && !self.rules.new_unique;
        if fault == Some(Fault::LateForgotten) {
            self.swap = SwapStyle::TwoSessions;
        }
        if !needs_turns && dice.percent(50) {
            return;
        }
        self.settings.keeps_way_back = true;
        self.captures_own = dice.percent(50);
        let mut next = Turn::Revert;
        for _ in 0..dice.below(5) + if needs_turns { 2 } else { 0 } {
            self.turns.push(next);
            // Now and then what is asked for is done already.
            if dice.percent(85) {
                next = if next == Turn::Revert { Turn::Again } else { Turn::Revert };
            }
        }
        if fault == Some(Fault::NoIdentityCheckBack) || dice.percent(12) {
            let what = match dice.below(5) {
                0 | 1 => Meddling::Truncate,
                2 | 3 => Meddling::SpoilShadow,
                _ => Meddling::DropTrigger(dice.pick(&[0, 1, 2]).unwrap_or(0)),
            };
            let at = usize::try_from(dice.below(3)).unwrap_or(0);
            self.meddling_at_turn = Some((at, what));
        }
        if dice.percent(15) {
            self.outgrows = true;
            self.rules.old_fit_max = Some(OLD_FIT_MAX);
        }
        self.leaves_percent = if dice.percent(50) { dice.between(10, 60) } else { 0 };
    }

    /// A short day without calamities, on which the change is taken back and made again.
    pub(crate) fn small(&mut self, dice: &mut Dice) {
        let settings = &mut self.settings;
        settings.keeps_way_back = true;
        settings.replicas_known = false;
        settings.limits.clear();
        settings.work_share = 1000;
        settings.rows_per_s = None;
        settings.swap_when = SwapWhen::Now;
        settings.apply_entries_high = std::cmp::min(settings.apply_entries_high, 25);
        self.steering = Steering::default();
        self.chaos = Chaos::none();
        self.rows = std::mem::take(&mut self.rows).into_iter().take(6).collect();
        self.rules.new_unique = self.rules.app_keeps_value_unique;
        self.rules.fit_max = None;
        self.rules.old_fit_max = None;
        self.outgrows = false;
        self.meddling_at_turn = None;
        self.leaves_percent = 0;
        self.slips = false;
        self.captures_own = dice.percent(50);
        self.turns = vec![Turn::Revert, Turn::Again];
        self.slow_us = 5_000;
        self.our_step_us = 0;
        let traffic = &mut self.traffic;
        (traffic.writers, traffic.transactions) = (1, 8);
        (traffic.long_percent, traffic.violates) = (0, false);
        (traffic.savepoint_percent, traffic.prepare_percent) = (0, 0);
        traffic.think_us = 8_000;
    }

    /// What else there is on a server whose tables are heaps. Drawn last, so that the dice of the
    /// other flow fall as ever.
    pub(crate) fn by_blocks(&mut self, dice: &mut Dice, fault: Option<Fault>) {
        self.settings.flow = Flow::Blocks;
        self.swap = SwapStyle::OneSession;
        // Nobody sees a draw before the swap: there they are drawn again with each application.
        self.volatile = false;
        if let Some((_, what)) = &mut self.chaos.meddling
            && *what == Meddling::Truncate
        {
            *what = Meddling::Rewrite;
        }
        let calm = self.chaos.runner_crashes + self.chaos.server_crashes == 0;
        let truncates =
            fault == Some(Fault::MarkerIgnored) || dice.percent(if calm { 5 } else { 15 });
        if truncates {
            for _ in 0..dice.between(1, 2) {
                self.chaos.truncates.push(dice.between(1_000, 1_500_000));
            }
        }
        self.traffic.savepoint_percent = if dice.percent(50) { dice.between(5, 50) } else { 0 };
        self.traffic.prepare_percent = if dice.percent(30) { dice.between(1, 10) } else { 0 };
    }
}

/// Greatest value of the old shape, where it holds less than the new one.
const OLD_FIT_MAX: i64 = 145;

impl Chaos {
    /// Nothing goes wrong.
    fn none() -> Self {
        Self {
            crash_per_10k: 0,
            crash_at_commit_percent: 0,
            runner_crashes: 0,
            server_crashes: 0,
            lost_percent: 0,
            lost: 0,
            rolled_back_percent: 0,
            rolled_back: 0,
            commands: Vec::new(),
            meddling: None,
            truncates: Vec::new(),
            holder: None,
            bad_lag_percent: 0,
            lag_readings: 0,
        }
    }
}

fn settings(dice: &mut Dice) -> Settings {
    let rows_min = dice.between(1, 4);
    let applies_often = dice.percent(60);
    Settings {
        flow: Flow::KeyRanges,
        workers: u32::try_from(dice.between(1, 4)).unwrap_or(1),
        chunk_ms_target: dice.between(5, 60),
        chunk_rows_start: dice.between(1, 10),
        chunk_rows_min: rows_min,
        chunk_rows_max: dice.between(rows_min, 10),
        round_chunks_per_worker: u32::try_from(dice.between(1, 4)).unwrap_or(1),
        // Applied often, or hardly ever before the copy is done: then chunks meet what is pending.
        apply_entries_high: if applies_often { dice.between(1, 25) } else { 1_000_000 },
        apply_age_ms: if applies_often {
            dice.between(20, 2000)
        } else {
            dice.between(2000, 60_000)
        },
        apply_keys_max: dice.between(1, 20),
        near_empty_entries: dice.between(0, 5),
        deferred_indexes: dice.percent(30),
        verify: match dice.below(100) {
            0..60 => Verification::Full,
            60..75 => Verification::Sample,
            _ => Verification::Off,
        },
        sample_seed: 0,
        verify_rows_max: dice.between(1, 30),
        lag_ms_max: 2000,
        replicas_known: dice.percent(40),
        swap_budget_ms: dice.between(5, 200),
        lock_patience_ms: dice.between(10_000, 600_000),
        ..Settings::default()
    }
}

fn rows(dice: &mut Dice, rules: Rules) -> Rows {
    let count = if dice.percent(5) { 0 } else { dice.between(1, 60) };
    let mut rows = Rows::new();
    let mut key = dice.signed(-40, 10);
    for at in 0..count {
        key += dice.signed(1, 4);
        let at = i64::try_from(at).unwrap_or(0);
        let uniq = dice.percent(80).then_some(at * 2);
        // In order, so that they are unique where they must be.
        let value = if rules.app_keeps_value_unique || dice.percent(50) {
            at * 2
        } else {
            dice.signed(0, 125)
        };
        // Below whatever is drawn later.
        let draw = u64::try_from(at).unwrap_or(0) + 1;
        rows.insert(key, Row { uniq, value, draw });
    }
    rows
}

fn chaos(dice: &mut Dice, replicas_known: bool) -> Chaos {
    let calm = dice.percent(15);
    let budget = |dice: &mut Dice, percent: u64, most: u64| {
        if calm || !dice.percent(percent) { 0 } else { dice.between(1, most) }
    };
    let commands = commands(dice, calm);
    Chaos {
        crash_per_10k: dice.between(5, 150),
        crash_at_commit_percent: dice.between(0, 12),
        runner_crashes: budget(dice, 60, 4),
        server_crashes: budget(dice, 25, 2),
        lost_percent: dice.between(1, 15),
        lost: budget(dice, 50, 4),
        rolled_back_percent: dice.between(1, 20),
        rolled_back: budget(dice, 50, 8),
        commands,
        meddling: (!calm && dice.percent(9)).then(|| {
            let what = match dice.below(6) {
                0 | 1 => Meddling::Truncate,
                2 | 3 => Meddling::SpoilShadow,
                _ => Meddling::DropTrigger(dice.pick(&[0, 1, 2]).unwrap_or(0)),
            };
            (dice.between(1_000, 1_500_000), what)
        }),
        truncates: Vec::new(),
        holder: dice
            .percent(20)
            .then(|| (dice.between(0, 1_000_000), dice.between(100_000, 60_000_000))),
        bad_lag_percent: if replicas_known { dice.between(0, 60) } else { 0 },
        lag_readings: dice.between(0, 30),
    }
}

fn commands(dice: &mut Dice, calm: bool) -> Vec<(u64, Command)> {
    let mut commands = Vec::new();
    let mut at_us = 0;
    while !calm && dice.percent(35) && commands.len() < 6 {
        at_us += dice.between(0, 700_000);
        match dice.below(10) {
            0..=4 => {
                commands.push((at_us, Command::Pause));
                at_us += dice.between(0, 1_000_000);
                commands.push((at_us, Command::Resume));
            }
            5..=7 => commands.push((at_us, Command::Stop)),
            _ => commands.push((at_us, Command::Abort)),
        }
    }
    commands
}

fn traffic(dice: &mut Dice, violates: bool) -> Traffic {
    Traffic {
        writers: usize::try_from(dice.between(1, 4)).unwrap_or(1),
        transactions: if dice.percent(50) { dice.between(0, 30) } else { dice.between(20, 100) },
        think_us: if dice.percent(30) {
            dice.between(50, 2_000)
        } else {
            dice.between(200, 30_000)
        },
        waits_for_capture: dice.percent(75),
        long_percent: if dice.percent(40) { dice.between(1, 10) } else { 0 },
        long_us: dice.between(50_000, 3_000_000),
        rollback_percent: dice.between(0, 30),
        violates,
        moves_percent: if dice.percent(50) { 80 } else { 30 },
        savepoint_percent: 0,
        prepare_percent: 0,
    }
}

/// The initial rows as the application thinks of them.
pub(crate) fn app_rows(rows: &Rows) -> impl Iterator<Item = (i64, AppRow)> {
    rows.iter().map(|(key, row)| (*key, AppRow { uniq: row.uniq, value: row.value }))
}
