//! The course of a simulated day: starts the runner, restarts it after what befell it, runs the change
//! to its end, waits for the writers, and has everything checked.

use std::future::Future;

use underpin_core::checkpoint::{Checkpoint, Phase};
use underpin_core::machine::{Command, Ending, FailureKind};
use underpin_core::proof::Verification;
use underpin_core::signal::SwapWhen;
use underpin_core::turn::Turn;

use crate::checker::{Change, Circumstances};
use crate::clockwork::{Ctx, Owner};
use crate::db::{AppRow, Mode, Object, Row, SOURCE};
use crate::report::Invariant;
use crate::runner;
use crate::scenario::Meddling;
use crate::steering;
use crate::world::{RunnerEnd, World};
use crate::writers;

/// Starts of the runner before the run counts as endless.
const STARTS_MAX: u32 = 60;

/// Starts everything.
pub(crate) fn start(ctx: &Ctx) {
    let own = ctx.clone();
    ctx.spawn(Owner::Director, async move { direct(&own).await });
    writers::start(ctx);
    start_chaos(ctx);
    steering::start(ctx);
}

async fn direct(ctx: &Ctx) {
    let mut first = None;
    let mut turn = None;
    let mut may_begin_again = ctx.world().scenario.again_after_abort;
    for start in 0..=STARTS_MAX {
        if start == STARTS_MAX {
            ctx.world().checker.endless(format!("not ended after {start} starts"));
            return;
        }
        let end = run_once(ctx, first.clone(), turn).await;
        (first, turn) = match end {
            RunnerEnd::Crashed | RunnerEnd::Lost => {
                ctx.world().abandon_sessions();
                // Who began to abort goes on aborting, most of the time.
                // So does who was about to turn; or the run is gone on with as it is found.
                let goes_on = ctx.world().dice.percent(70);
                let first = (first.is_some() && goes_on).then_some(Command::Abort);
                (first, turn.filter(|_| goes_on).or_else(|| another_mind(ctx)))
            }
            RunnerEnd::NotTurned => (None, turn),
            RunnerEnd::Ended(ending) => {
                judge(ctx, &ending);
                match next_start(ctx, &ending, &mut may_begin_again) {
                    Some(next) => next,
                    None => break,
                }
            }
        };
        rest(ctx).await;
    }
    settle(ctx).await;
}

async fn run_once(ctx: &Ctx, first: Option<Command>, turn: Option<Turn>) -> RunnerEnd {
    runner::start(ctx, first, turn);
    // Bounded by the steps of the whole simulation.
    loop {
        let end = ctx.world().runner_end.clone();
        if let Some(end) = end {
            return end;
        }
        ctx.pause(1_000_000).await;
        // The word that was given for the way before does not count for this one.
        let mut world = ctx.world();
        if world.has_swapped && world.scenario.settings.swap_when == SwapWhen::Asked {
            world.command(Command::Swap);
        }
    }
}

fn judge(ctx: &Ctx, ending: &Ending) {
    let mut world = ctx.world();
    let crate::world::World { checker, db, met, .. } = &mut *world;
    checker.ended(db, ending, met.clone());
}

/// What the next runner is told at once, and the turn that it takes before.
type Next = (Option<Command>, Option<Turn>);

/// What people do after such an ending; `None` where there is nothing left to do.
fn next_start(ctx: &Ctx, ending: &Ending, may_begin_again: &mut bool) -> Option<Next> {
    let mut world = ctx.world();
    if world.has_swapped && matches!(ending, Ending::Failed(_)) {
        return Some(next_of_turn(&mut world, ending));
    }
    let first = match ending {
        Ending::Done { .. } => None,
        Ending::Revertible { .. } | Ending::Stayed { .. } => {
            world.counts.turns_left += u64::from(matches!(ending, Ending::Stayed { .. }));
            drop(world);
            return Some((None, Some(next_turn(ctx))));
        }
        Ending::Interrupted => Some(None),
        Ending::Aborted { why } => {
            world.counts.aborts += 1;
            world.counts.critical_aborts += u64::from(why.is_some());
            world.db.clear_store();
            // A new run has orders of its own. Who waits for a word has it from the start.
            world.orders.clear();
            world.orders.push(Command::Swap);
            world.met = Circumstances::default();
            world.has_swapped = false;
            std::mem::take(may_begin_again).then_some(None)
        }
        Ending::Failed(failure) => match failure.kind {
            FailureKind::LockNotHad => Some(None),
            FailureKind::Violation => {
                world.counts.violations += 1;
                // Trying again may help: the rows may be gone.
                let tries_again = world.dice.percent(20);
                Some((!tries_again).then_some(Command::Abort))
            }
            FailureKind::SourceChanged => {
                world.counts.source_changes += 1;
                Some(Some(Command::Abort))
            }
            FailureKind::Truncated
            | FailureKind::Different
            | FailureKind::Ambiguous
            | FailureKind::Other => Some(Some(Command::Abort)),
        },
    };
    first.map(|first| (first, None))
}

/// What people do where a turn failed, or the end of the run: they try again, leave the turn, or ask for
/// the other way, which leaves it too.
fn next_of_turn(world: &mut World, ending: &Ending) -> Next {
    let Ending::Failed(failure) = ending else { return (None, None) };
    match failure.kind {
        FailureKind::LockNotHad => return (None, None),
        FailureKind::Violation => world.counts.violations += 1,
        FailureKind::SourceChanged => world.counts.source_changes += 1,
        _ => {}
    }
    let stays = match world.db.live() {
        Some(Object::Original) => Turn::Revert,
        _ => Turn::Again,
    };
    match world.dice.below(5) {
        0 if failure.kind == FailureKind::Violation => (None, None),
        0 | 1 => {
            world.checker.turn_asked(wanted(stays));
            (None, Some(stays))
        }
        _ => (Some(Command::Abort), None),
    }
}

/// Now and then people want something else of a made change once its program has died, whatever it was
/// at.
fn another_mind(ctx: &Ctx) -> Option<Turn> {
    let mut world = ctx.world();
    if !(world.has_swapped && world.keeps_way_back() && world.dice.percent(25)) {
        return None;
    }
    let turn = if world.dice.percent(50) { Turn::Revert } else { Turn::Again };
    world.note(|| format!("people: {turn:?}, after all"));
    world.checker.turn_asked(wanted(turn));
    Some(turn)
}

/// Which table is to be live by a turn; `None` where it is the one that is.
fn wanted(turn: Turn) -> Option<Object> {
    match turn {
        Turn::Revert => Some(Object::Original),
        Turn::Again => Some(Object::Shadow),
        Turn::Finish => None,
    }
}

/// What is asked for next of a change that is made. The application goes on meanwhile.
fn next_turn(ctx: &Ctx) -> Turn {
    writers::go_on(ctx);
    let (turn, at, meddling, leaves) = {
        let mut world = ctx.world();
        let at = world.turn_at;
        world.turn_at += 1;
        let turn = world.scenario.turns.get(at).copied().unwrap_or(Turn::Finish);
        world.note(|| format!("people: {turn:?}"));
        world.checker.turn_asked(wanted(turn));
        let meddling = world.scenario.meddling_at_turn.filter(|(when, _)| *when == at);
        let percent = world.scenario.leaves_percent;
        (turn, at, meddling, turn != Turn::Finish && world.dice.percent(percent))
    };
    if let Some((_, meddling)) = meddling {
        later(ctx, move |own| async move { meddle(&own, meddling).await });
        if ctx.world().db.heaps.is_some() && at % 2 == 1 {
            later(ctx, |own| async move { truncate(&own).await });
        }
    }
    if leaves {
        let command = match ctx.world().dice.below(10) {
            0..=5 => Command::Abort,
            _ => Command::Stop,
        };
        later(ctx, move |own| async move { own.world().command(command) });
    }
    turn
}

/// Does something at some time of the turn, or soon after it.
fn later<F: Future<Output = ()> + 'static>(ctx: &Ctx, what: impl FnOnce(Ctx) -> F + 'static) {
    let own = ctx.clone();
    let delay_us = {
        let mut world = ctx.world();
        if world.dice.percent(60) { world.dice.below(60_000) } else { world.dice.below(600_000) }
    };
    ctx.spawn(Owner::Chaos, async move {
        own.pause(delay_us).await;
        what(own).await;
    });
}

async fn rest(ctx: &Ctx) {
    let rest_us = {
        let mut world = ctx.world();
        if world.dice.percent(70) { world.dice.below(20_000) } else { world.dice.below(2_000_000) }
    };
    ctx.pause(rest_us).await;
}

/// Waits until nobody writes any more, and looks a last time.
async fn settle(ctx: &Ctx) {
    let is_busy = || {
        let world = ctx.world();
        world.writers_alive > 0 || world.prepared > 0 || !world.sessions.is_empty()
    };
    while is_busy() {
        ctx.pause(10_000).await;
    }
    let mut world = ctx.world();
    let invariant = match world.db.live() {
        Some(Object::Shadow) => Invariant::AtomicSwap,
        _ => Invariant::SourceUntouched,
    };
    let crate::world::World { checker, db, .. } = &mut *world;
    checker.live(db, invariant);
}

/// People, a third session that holds the table open, and somebody who meddles with it.
fn start_chaos(ctx: &Ctx) {
    let chaos = ctx.world().scenario.chaos.clone();
    let own = ctx.clone();
    let commands = chaos.commands;
    ctx.spawn(Owner::Chaos, async move {
        for (at_us, command) in commands {
            let now_us = own.world().now_us;
            own.pause(at_us.saturating_sub(now_us)).await;
            own.world().command(command);
        }
    });
    if let Some((from_us, for_us)) = chaos.holder {
        let own = ctx.clone();
        ctx.spawn(Owner::Chaos, async move {
            own.pause(from_us).await;
            let id = own.world().session_id();
            while !own.world().db.name_locks.ask(id, SOURCE, Mode::Shared) {
                own.wait().await;
            }
            own.pause(for_us).await;
            own.world().db.end_session(id);
        });
    }
    for at_us in chaos.truncates {
        let own = ctx.clone();
        ctx.spawn(Owner::Chaos, async move {
            own.pause(at_us).await;
            truncate(&own).await;
        });
    }
    if let Some((at_us, meddling)) = chaos.meddling {
        let own = ctx.clone();
        ctx.spawn(Owner::Chaos, async move {
            own.pause(at_us).await;
            meddle(&own, meddling).await;
        });
    }
}

/// The application empties its table, and sometimes writes a few rows in the same transaction.
async fn truncate(ctx: &Ctx) {
    let id = ctx.world().session_id();
    while !ctx.world().db.name_locks.ask(id, SOURCE, Mode::Exclusive) {
        ctx.wait().await;
    }
    let mut world = ctx.world();
    let may = world.db.live() == Some(Object::Original) || world.keeps_way_back();
    if let Some(live) = world.db.live().filter(|_| may) {
        let mut changes = vec![Change::Clear];
        let mut rows = Vec::new();
        for _ in 0..world.dice.below(4) {
            let key = world.dice.signed(-40, 100);
            let row = AppRow { uniq: None, value: 1_000 + key };
            if world.scenario.rules.fit_max.is_none() && rows.iter().all(|(known, _)| *known != key)
            {
                let draw = world.db.draw();
                let old = Row { uniq: row.uniq, value: row.value, draw };
                let shaped = match live {
                    Object::Shadow => world.db.image(key, old, draw).unwrap_or(old),
                    _ => old,
                };
                rows.push((key, shaped));
                changes.push(Change::Insert(key, row));
            }
        }
        if world.db.truncate_and_fill(id, &rows).is_ok() {
            let no = world.db.commit(id).no;
            world.note(|| format!("application: TRUNCATE, commit {no} {changes:?}"));
            world.checker.acknowledged(no, &changes);
        }
    }
    world.db.end_session(id);
}

/// Touches the source behind our back, waiting for its lock like everybody.
async fn meddle(ctx: &Ctx, meddling: Meddling) {
    if meddling == Meddling::SpoilShadow {
        return spoil(ctx);
    }
    let id = ctx.world().session_id();
    while !ctx.world().db.name_locks.ask(id, SOURCE, Mode::Exclusive) {
        ctx.wait().await;
    }
    let mut world = ctx.world();
    let may = world.db.live() == Some(Object::Original) || world.keeps_way_back();
    if let Some(live) = world.db.live().filter(|_| may) {
        world.note(|| format!("somebody else: {meddling:?}"));
        match meddling {
            Meddling::SpoilShadow => {}
            Meddling::Rewrite => {
                world.db.rewrite(live);
                world.checker.tampered();
            }
            Meddling::Truncate => {
                world.db.truncate(live);
                let no = world.db.commit_no;
                world.checker.acknowledged(no, &[Change::Clear]);
                world.checker.tampered();
            }
            Meddling::DropTrigger(at) => {
                if world.db.triggers(live).get(at) == Some(&true) {
                    world.db.set_trigger(live, at, false);
                    world.checker.tampered();
                }
            }
        }
    }
    world.db.end_session(id);
}

/// Changes a row of the shadow while verification is still to come.
fn spoil(ctx: &Ctx) {
    let mut world = ctx.world();
    let saved = world.db.store.checkpoint.as_deref().map(Checkpoint::decode);
    let Some(Ok(saved)) = saved else { return };
    let is_early = saved.phase < Phase::Verify && saved.stands != Some(saved.way)
        || saved.phase == Phase::Revertible;
    let is_first = world.db.live() == Some(Object::Original) && !world.has_swapped;
    if !is_early
        || world.scenario.settings.verify != Verification::Full
        || !(is_first || world.keeps_way_back())
    {
        return;
    }
    let nth = world.dice.below(1000);
    let other = match world.db.live() {
        Some(Object::Original) => Object::Shadow,
        _ => Object::Original,
    };
    if let Some(key) = world.db.spoil(other, nth) {
        world.note(|| format!("somebody else: spoils the shadow's row {key}"));
        world.checker.spoiled(key);
    }
}
