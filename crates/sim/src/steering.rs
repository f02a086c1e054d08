//! Steering: what people order while a run goes on, what the calendar allows, and loads that no server
//! bears; and whether what is begun is what may be begun.
//!
//! Orders are kept in the store, as on a real server: a program that begins to work on the run is told
//! all of them again.

use underpin_core::machine::{Action, Command, Event, Settings};
use underpin_core::signal::{Gates, Limit, RUNNING, Reading, Setting, SwapWhen, Unit};

use crate::clockwork::{Ctx, Owner};
use crate::dice::Dice;
use crate::fault::Fault;
use crate::world::{Message, World};

/// Statements at once from which the copy pauses, and from which the run is aborted.
const PAUSE_AT: u32 = 40;
const ABORT_AT: u32 = 100;

/// How a seed is steered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Steering {
    /// What people order, and when, in microseconds.
    orders: Vec<(u64, Command)>,
    /// When the calendar changes its mind, and to what. The last one allows everything.
    gates: Vec<(u64, Gates)>,
    /// Whether the load of the server is read.
    reads_load: bool,
    /// Chance that a reading of the load is above its limit, in percent.
    bad_load_percent: u64,
    /// From when until when the load is beyond what may be borne, in microseconds.
    critical: Option<(u64, u64)>,
}

impl Steering {
    /// Draws how a run with these settings is steered, and sets what belongs to it.
    pub(crate) fn draw(dice: &mut Dice, fault: Option<Fault>, settings: &mut Settings) -> Self {
        let is_needed =
            matches!(fault, Some(Fault::GatesIgnored | Fault::OrdersForgotten | Fault::OldOrders));
        let mut steering = Self::default();
        if !is_needed && dice.percent(55) {
            return steering;
        }
        if dice.percent(50) {
            settings.log_entries_max = dice.between(3, 60);
        }
        if dice.percent(20) {
            settings.work_share = u32::try_from(dice.between(100, 1000)).unwrap_or(1000);
        }
        if dice.percent(15) {
            settings.rows_per_s = Some(dice.between(200, 3000));
        }
        if dice.percent(40) {
            settings.swap_when = SwapWhen::Asked;
            steering.orders.push((dice.between(0, 3_000_000), Command::Swap));
        }
        for _ in 0..dice.below(4) {
            let setting = setting(dice);
            steering.orders.push((dice.between(0, 1_500_000), Command::Set(setting)));
        }
        if dice.percent(40) {
            let from_us = dice.between(0, 800_000);
            let to_us = from_us + dice.between(1_000, 1_000_000);
            steering.orders.push((from_us, Command::Pause));
            steering.orders.push((to_us, Command::Resume));
        }
        steering.orders.sort_by_key(|(at_us, _)| *at_us);
        if dice.percent(50) {
            steering.gates = gates(dice);
        }
        if dice.percent(40) {
            steering.loads(dice, settings);
        }
        steering
    }

    fn loads(&mut self, dice: &mut Dice, settings: &mut Settings) {
        self.reads_load = true;
        self.bad_load_percent = dice.between(0, 40);
        let is_critical = dice.percent(30);
        settings.limits.push(Limit {
            name: RUNNING.to_owned(),
            pause_at: Some(f64::from(PAUSE_AT)),
            abort_at: is_critical.then_some(f64::from(ABORT_AT)),
        });
        if is_critical {
            let from_us = dice.between(0, 1_500_000);
            self.critical = Some((from_us, from_us + dice.between(500_000, 4_000_000)));
        }
    }
}

fn setting(dice: &mut Dice) -> Setting {
    match dice.below(6) {
        0 => Setting::MaxLag(dice.between(500, 5_000)),
        1 => Setting::WorkShare(u32::try_from(dice.between(200, 1000)).unwrap_or(1000)),
        2 => Setting::RowsPerS(dice.percent(50).then(|| dice.between(200, 5_000))),
        3 => Setting::BytesPerS(None),
        4 => Setting::Workers(u32::try_from(dice.between(0, 6)).unwrap_or(1)),
        _ => Setting::ChunkMs(dice.between(1, 100)),
    }
}

fn gates(dice: &mut Dice) -> Vec<(u64, Gates)> {
    let mut gates = Vec::new();
    let mut at_us = 0;
    for _ in 0..dice.between(1, 4) {
        at_us += dice.between(0, 700_000);
        let closed = |dice: &mut Dice| dice.percent(50).then(|| "outside its window".to_owned());
        gates.push((at_us, Gates { copy: closed(dice), swap: closed(dice) }));
    }
    gates.push((at_us + dice.between(1_000, 700_000), Gates::default()));
    gates
}

/// Starts the people and the calendar.
pub(crate) fn start(ctx: &Ctx) {
    let Steering { orders, gates, .. } = ctx.world().scenario.steering.clone();
    let own = ctx.clone();
    ctx.spawn(Owner::Chaos, async move {
        for (at_us, command) in orders {
            let now_us = own.world().now_us;
            own.pause(at_us.saturating_sub(now_us)).await;
            own.world().command(command);
        }
    });
    let own = ctx.clone();
    ctx.spawn(Owner::Chaos, async move {
        for (at_us, gates) in gates {
            let now_us = own.world().now_us;
            own.pause(at_us.saturating_sub(now_us)).await;
            let mut world = own.world();
            world.note(|| format!("calendar: {gates:?}"));
            world.counts.gates_closed +=
                u64::from(gates.copy.is_some()) + u64::from(gates.swap.is_some());
            world.gates = gates.clone();
            world.tell(Message::Event(Event::Gates(gates)));
        }
    });
}

/// What the store keeps of a command; `None` where it is for the program alone.
pub(crate) fn is_kept(command: &Command) -> bool {
    matches!(command, Command::Pause | Command::Resume | Command::Swap | Command::Set(_))
}

/// A reading of the server's load, where it is read.
pub(crate) fn load(world: &mut World) -> Option<Reading> {
    let now_us = world.now_us;
    let Steering { reads_load, bad_load_percent, critical, .. } = &world.scenario.steering;
    if !reads_load {
        return None;
    }
    let (percent, critical) = (*bad_load_percent, *critical);
    let running = if critical.is_some_and(|(from_us, to_us)| (from_us..to_us).contains(&now_us)) {
        world.met.critical = true;
        world.checker.may_be_left();
        ABORT_AT + 1
    } else if world.budget.bad_load > 0 && world.dice.percent(percent) {
        world.budget.bad_load -= 1;
        PAUSE_AT + 1
    } else {
        u32::try_from(world.dice.below(u64::from(PAUSE_AT / 2))).unwrap_or(0)
    };
    Some(Reading::new(RUNNING, "", "sim", Unit::Count, f64::from(running)))
}

/// What the running program was told, or should have been.
#[derive(Debug)]
pub(crate) struct Told {
    is_paused: bool,
    /// An abort was given: where it comes after the swap, the run is ended in spite of a pause.
    is_aborted: bool,
    may_swap: bool,
    gates: Gates,
    log_entries_max: u64,
}

impl Told {
    /// What a program must know that begins to work on the run. `orders_before`: those of the way before.
    pub(crate) fn begin(world: &World, orders_before: usize) -> Self {
        let settings = &world.scenario.settings;
        let mut told = Self {
            is_paused: false,
            is_aborted: false,
            may_swap: settings.swap_when != SwapWhen::Asked,
            gates: world.gates.clone(),
            log_entries_max: settings.log_entries_max,
        };
        for command in world.orders.iter().skip(orders_before) {
            told.command(command);
        }
        told
    }

    /// Takes in what the machine is told.
    pub(crate) fn event(&mut self, event: &Event) {
        match event {
            Event::Command(command) => self.command(command),
            Event::Gates(gates) => self.gates = gates.clone(),
            _ => {}
        }
    }

    fn command(&mut self, command: &Command) {
        match command {
            Command::Pause => self.is_paused = true,
            Command::Resume => self.is_paused = false,
            Command::Swap => self.may_swap = true,
            Command::Abort => self.is_aborted = true,
            Command::Set(_) | Command::Stop => {}
        }
    }

    /// Why this may not be begun; `None` where it may. `backlog`: entries that wait, as the machine was
    /// told.
    pub(crate) fn forbids(&self, action: &Action, backlog: u64) -> Option<&'static str> {
        let is_heavy = matches!(
            action,
            Action::Prepare
                | Action::PlanRound { .. }
                | Action::Settle
                | Action::BuildIndexes
                | Action::PlanVerify { .. }
                | Action::Repair { .. }
        );
        let is_swap = matches!(action, Action::TrySwap { .. });
        let is_apply = matches!(action, Action::Apply { .. });
        let is_other = matches!(action, Action::Tidy | Action::Arrive | Action::Finish);
        let ends = self.is_aborted && matches!(action, Action::Arrive | Action::Finish);
        if self.is_paused && (is_heavy || is_swap || is_other) && !ends {
            return Some("the run is paused");
        }
        if self.is_paused && is_apply && backlog < self.log_entries_max {
            return Some("the run is paused, and its log is short");
        }
        if is_heavy && self.gates.copy.is_some() {
            return Some("the window of the copy is closed");
        }
        if is_swap && self.gates.swap.is_some() {
            return Some("the window of the swap is closed");
        }
        (is_swap && !self.may_swap).then_some("nobody has let the swap go")
    }
}
