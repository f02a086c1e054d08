//! The program that runs the machine: feeds it events, begins its actions, saves its checkpoints.
//!
//! After a crash, a lost connection or a lost answer it is the same way: wait until nothing of the old
//! runner is left on the server, read the checkpoint, look at what happened, recover.

use std::collections::VecDeque;

use underpin_core::checkpoint::{Checkpoint, Phase};
use underpin_core::key::Frontier;
use underpin_core::machine::{
    Action, Applied, Command, DoneChunk, Ending, Event, Machine, Observed, SwapState,
};
use underpin_core::signal::{Gates, LAG, Reading, Unit};
use underpin_core::turn::Turn;

use crate::checker::About;
use crate::clockwork::{Ctx, Owner};
use crate::db::{Db, Object, SOURCE, retired_name, shadow_name, source_of};
use crate::fault::Fault;
use crate::ops;
use crate::report::Invariant;
use crate::session::{Cut, Done, Session};
use crate::steering::{self, Told};
use crate::world::{Message, RunnerEnd, World};

/// Between two ticks, in microseconds.
const TICK_US: u64 = 100_000;

/// Begins a runner. `first` is what it is told at once, `turn` what it does before it goes on.
pub(crate) fn start(ctx: &Ctx, first: Option<Command>, turn: Option<Turn>) {
    {
        let mut world = ctx.world();
        world.inbox.clear();
        world.runner_end = None;
        world.floor = ops::Floor::default();
        world.met.commanded = None;
        world.met.lock_not_had = false;
        world.met.critical = false;
        world.remembered = None;
        world.checker.runner_began();
    }
    let own = ctx.clone();
    ctx.spawn(Owner::Runner, async move {
        let end = run(&own, first, turn).await;
        own.note(|| format!("runner: {end:?}"));
        let mut world = own.world();
        world.runner_end = Some(end);
        world.woken.push(Owner::Director);
    });
}

/// What a fault needs to remember of the actions that went by.
#[derive(Default)]
struct Memory {
    /// Where the last planned round began.
    planned_after: Option<Frontier>,
}

async fn run(ctx: &Ctx, first: Option<Command>, turn: Option<Turn>) -> RunnerEnd {
    if !ctx.world().has(Fault::NoFence) {
        // Everything of the old runner ends on its own: each statement is short, and nobody sends more.
        while !ctx.world().sessions.is_empty() {
            ctx.wait().await;
        }
    }
    if let Some(turn) = turn {
        match turned(ctx, turn).await {
            Ok(true) => ctx.world().checker.turn_begun(),
            Ok(false) => return RunnerEnd::NotTurned,
            Err(_) => return RunnerEnd::Lost,
        }
    }
    let Ok((checkpoint, observed)) = observe(ctx).await else { return RunnerEnd::Lost };
    let orders_before = checkpoint.orders_before;
    ctx.note(|| format!("runner: recovers from {checkpoint:?}, {observed:?}"));
    let settings = ctx.world().scenario.settings.clone();
    let mut machine = Machine::recover(settings, checkpoint, &observed);
    let mut memory = Memory::default();
    if let Some(command) = first {
        ctx.world().command(command);
    }
    let mut told = Told::begin(&ctx.world(), orders_before);
    let mut known = what_is_known(ctx, orders_before);
    let mut event = known.pop_front().unwrap_or(Event::Started);
    // What is known before it begins is what it was told of to begin with.
    let mut is_news = false;
    loop {
        if is_news {
            told.event(&event);
        }
        let event_told = as_told(ctx, event);
        let now_ms = ctx.world().now_ms();
        let phase = machine.progress(now_ms).phase;
        let mut actions = machine.step(now_ms, event_told);
        look(ctx, &told, &actions, machine.progress(now_ms).backlog);
        if ctx.world().has(Fault::ChunkBeforeSave) {
            actions.sort_by_key(|action| matches!(action, Action::Save(_) | Action::Stop(_)));
        }
        for action in actions {
            match action {
                Action::Save(checkpoint) => {
                    if save(ctx, &checkpoint).await.is_err() {
                        return RunnerEnd::Lost;
                    }
                }
                Action::Stop(ending) => return stopped(ctx, ending).await,
                // Too late: it comes to its end, which whoever cancels has to expect.
                Action::CancelTidy => {}
                other => begin(ctx, other, phase, &mut memory),
            }
        }
        event = match known.pop_front() {
            Some(event) => event,
            None => {
                is_news = true;
                match next(ctx).await {
                    Message::Event(event) => event,
                    Message::Lost => return RunnerEnd::Lost,
                }
            }
        };
    }
}

/// The machine has ended; a fault removes what is not live where a turn was only to be left.
async fn stopped(ctx: &Ctx, ending: Ending) -> RunnerEnd {
    if matches!(ending, Ending::Stayed { .. }) && ctx.world().has(Fault::AbortRemoves) {
        let session = Session::open(ctx);
        // Whatever comes of it shows in the tables.
        let _ = ops::remove_other(&session).await;
        session.close();
    }
    RunnerEnd::Ended(ending)
}

/// What a program tells the machine before it begins: all orders of the store, and the calendar.
fn what_is_known(ctx: &Ctx, orders_before: usize) -> VecDeque<Event> {
    let world = ctx.world();
    let orders_before = if world.has(Fault::OldOrders) { 0 } else { orders_before };
    let orders = world.orders.iter().skip(orders_before).cloned().map(Event::Command);
    let orders = orders.take(if world.has(Fault::OrdersForgotten) { 0 } else { usize::MAX });
    orders.chain([Event::Gates(world.gates.clone()), Event::Started]).collect()
}

/// What the machine is told, bent where a fault says so.
fn as_told(ctx: &Ctx, event: Event) -> Event {
    match event {
        Event::Gates(_) if ctx.world().has(Fault::GatesIgnored) => Event::Gates(Gates::default()),
        other => other,
    }
}

/// Whether everything that is begun may be begun.
fn look(ctx: &Ctx, told: &Told, actions: &[Action], backlog: u64) {
    for action in actions {
        if let Some(why) = told.forbids(action, backlog) {
            let what = format!("{action:?} although {why}");
            ctx.world().checker.report(Invariant::Steered, what);
        }
    }
}

/// Begins an action, bent where a fault says so.
fn begin(ctx: &Ctx, action: Action, phase: Phase, memory: &mut Memory) {
    let fault = ctx.world().fault;
    match (&action, fault) {
        (Action::PlanRound { after, .. }, _) => {
            let frontier = after.clone().map_or(Frontier::Start, Frontier::At);
            memory.planned_after = Some(frontier);
        }
        (Action::Apply { keys_max, clears, .. }, Some(Fault::StaleFrontier)) => {
            if let Some(frontier) = memory.planned_after.clone() {
                let stale = Action::Apply { frontier, keys_max: *keys_max, clears: *clears };
                return ops::begin(ctx, stale);
            }
        }
        (Action::Apply { .. }, Some(Fault::IndexesUnsettled)) if phase == Phase::Indexes => {
            let applied = Applied { cleared: true, ..Applied::default() };
            ctx.world().tell(Message::Event(Event::Applied(applied)));
            return;
        }
        (Action::Settle, Some(Fault::IndexesUnsettled)) => {
            ctx.world().tell(Message::Event(Event::Settled { rows: 0 }));
            return;
        }
        (Action::CopyChunk { chunk, .. }, Some(Fault::ApplyDuringChunk)) => {
            ops::begin_stray_apply(ctx, Frontier::after(chunk.range.up_to.as_ref()));
        }
        _ => {}
    }
    ops::begin(ctx, action);
}

/// The next message, or what the clock and the probe have to say.
async fn next(ctx: &Ctx) -> Message {
    let until_us = ctx.world().now_us + TICK_US;
    // Bounded by the tick.
    loop {
        let remaining_us = {
            let mut world = ctx.world();
            if let Some(message) = world.inbox.pop_front() {
                return message;
            }
            until_us.saturating_sub(world.now_us)
        };
        if remaining_us == 0 {
            return Message::Event(probe(ctx));
        }
        ctx.pause(remaining_us).await;
    }
}

/// A tick, or a reading of backlog or replicas.
fn probe(ctx: &Ctx) -> Event {
    let mut world = ctx.world();
    match world.dice.below(4) {
        0 => {
            let source = source_of(world.way);
            let todo = world.db.heaps.as_ref().map_or(0, |heaps| heaps.log(source).todo.len());
            let entries = world.db.log(source).map_or(0, |log| log.len()) + todo;
            let entries = u64::try_from(entries).unwrap_or(0);
            // Roughly: it may be off either way.
            Event::Backlog { entries: world.dice.between(entries / 2, entries * 2) }
        }
        1 | 2 => {
            let lag = world.scenario.settings.replicas_known.then(|| lag(&mut world));
            let readings: Vec<Reading> =
                lag.into_iter().chain(steering::load(&mut world)).collect();
            if readings.is_empty() { Event::Tick } else { Event::Signals(readings) }
        }
        _ => Event::Tick,
    }
}

fn lag(world: &mut World) -> Reading {
    let percent = world.scenario.chaos.bad_lag_percent;
    let is_bad = world.budget.bad_lag > 0 && world.dice.percent(percent);
    if is_bad {
        world.budget.bad_lag -= 1;
    }
    let lag_ms = match (is_bad, world.dice.percent(50)) {
        // Well below the limit most of the time: just below it one does not go on at once.
        (false, _) => u32::try_from(world.dice.below(800)).ok(),
        (true, false) => u32::try_from(world.dice.between(2_001, 60_000)).ok(),
        (true, true) => None,
    };
    let of = "replica:3306";
    match lag_ms {
        Some(lag_ms) => Reading::new(LAG, of, "sim", Unit::Ms, f64::from(lag_ms)),
        None => Reading::unreadable(LAG, of, "sim", Unit::Ms, "refused"),
    }
}

/// Makes a checkpoint durable before anything else is begun.
async fn save(ctx: &Ctx, checkpoint: &Checkpoint) -> Done<()> {
    let text = checkpoint.encode().map_err(|error| Cut::Nonsense(error.to_string()))?;
    let session = Session::open(ctx);
    let id = session.id;
    ctx.note(|| format!("session {id}: save {checkpoint:?}"));
    let result = std::rc::Rc::new(std::cell::RefCell::new(None));
    let told = std::rc::Rc::clone(&result);
    // In a task of its own: a commit that was sent goes through although the runner dies.
    ctx.spawn(Owner::Session, async move {
        let outcome = write_checkpoint(&session, &text).await;
        *told.borrow_mut() = Some(outcome);
        session.close();
        session.ctx.world().woken.push(Owner::Runner);
    });
    // Bounded by the session's end.
    loop {
        if let Some(outcome) = result.borrow_mut().take() {
            return outcome;
        }
        if !ctx.world().sessions.contains_key(&id) {
            return Err(Cut::Lost);
        }
        ctx.wait().await;
    }
}

async fn write_checkpoint(session: &Session, text: &str) -> Done<()> {
    // Bounded: the server rolls back a limited number of commits.
    loop {
        session.statement().await?;
        session.now(|world| world.db.save(session.id, text.to_owned()));
        match session.commit(About::default()).await {
            Err(Cut::RolledBack(_)) => session.now(|world| world.db.roll_back(session.id)),
            other => return other,
        }
    }
}

/// The checkpoint of the store.
fn read(ctx: &Ctx) -> Done<Checkpoint> {
    let (text, remembered) = {
        let mut world = ctx.world();
        (world.db.store.checkpoint.clone(), world.remembered.take())
    };
    let text = remembered.or(text);
    match text {
        None => Ok(Checkpoint::begin()),
        Some(text) => Checkpoint::decode(&text).map_err(|error| Cut::Nonsense(error.to_string())),
    }
}

/// Turns the run: durable before anything of the new way is begun. A swap whose answer was lost, or that
/// was not seen to its end, is brought there first. False where that was not had.
async fn turned(ctx: &Ctx, turn: Turn) -> Done<bool> {
    let Some(checkpoint) = arrived(ctx).await? else { return Ok(false) };
    let turned = match checkpoint.turned(turn) {
        Ok(turned) => turned,
        Err(why) => {
            ctx.note(|| format!("runner: {turn:?} is not taken: {why}"));
            ctx.world().counts.not_turned += 1;
            return Ok(true);
        }
    };
    ctx.note(|| format!("runner: takes the turn {turn:?} from {checkpoint:?}"));
    if turned == checkpoint {
        return Ok(true);
    }
    let orders_before = ctx.world().orders.len();
    let turned = Checkpoint { orders_before, ..turned };
    if ctx.world().has(Fault::TurnNotRecorded) {
        let text = turned.encode().map_err(|error| Cut::Nonsense(error.to_string()))?;
        ctx.world().remembered = Some(text);
    } else {
        save(ctx, &turned).await?;
    }
    ctx.world().counts.turns += 1;
    Ok(true)
}

/// The checkpoint of a run of whose last swap nothing is left to do.
async fn arrived(ctx: &Ctx) -> Done<Option<Checkpoint>> {
    let (checkpoint, observed) = observe(ctx).await?;
    let is_made = observed.swap == SwapState::Swapped && !ctx.world().has(Fault::TurnUnlooked);
    if !is_made || !ctx.world().keeps_way_back() || checkpoint.phase >= Phase::Revertible {
        return Ok(Some(checkpoint));
    }
    let session = Session::open(ctx);
    let id = session.id;
    ctx.note(|| format!("session {id}: arrives, for a turn"));
    let is_done = std::rc::Rc::new(std::cell::RefCell::new(false));
    let told = std::rc::Rc::clone(&is_done);
    ctx.spawn(Owner::Session, async move {
        *told.borrow_mut() = ops::arrive(&session).await.is_ok();
        session.close();
    });
    // Bounded by the session's end.
    while ctx.world().sessions.contains_key(&id) {
        ctx.wait().await;
    }
    let stands = Some(checkpoint.way);
    let arrived = Checkpoint { phase: Phase::Revertible, stands, round: None, ..checkpoint };
    Ok(is_done.borrow().then_some(arrived))
}

/// What is on the server, looked at in several statements.
async fn observe(ctx: &Ctx) -> Done<(Checkpoint, Observed)> {
    ctx.step().await;
    let checkpoint = read(ctx)?;
    ctx.world().way = checkpoint.way;
    ctx.step().await;
    let marks = match &checkpoint.round {
        Some(round) => ctx.world().db.marks_of(round.number),
        None => Vec::new(),
    };
    let done = marks.iter().map(|mark| DoneChunk { index: mark.index, rows: mark.rows }).collect();
    ctx.step().await;
    let swap = swap_state(&ctx.world().db, &checkpoint);
    Ok((checkpoint, Observed { done, swap }))
}

/// Which table bears the source's name, told by which names are taken, as the dialect tells it.
fn swap_state(db: &Db, checkpoint: &Checkpoint) -> SwapState {
    let way = checkpoint.way;
    // A sentry of a swap that was not made may stand under either name, once the turn was left.
    let is_ours = |name| db.names.get(name).is_some_and(|object| *object != Object::Sentry);
    let source = db.names.contains_key(SOURCE);
    let (shadow, retired) = (is_ours(shadow_name(way)), is_ours(retired_name(way)));
    let may_be_missing = checkpoint.phase == Phase::Prepare || checkpoint.aborting;
    match (source, shadow, retired) {
        (true, true, false) => SwapState::NotSwapped,
        (true, false, false) if may_be_missing => SwapState::NotSwapped,
        (true, false, true) => SwapState::Swapped,
        (true, false, false) if checkpoint.phase >= Phase::Finish => SwapState::Swapped,
        seen => SwapState::Unclear(format!("source, shadow, retired exist: {seen:?}")),
    }
}
