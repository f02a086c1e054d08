//! The course of a simulated day: starts the runner, restarts it after what befell it, runs the change
//! to its end, waits for the writers, and has everything checked.

use underpin_core::checkpoint::{Checkpoint, Phase};
use underpin_core::machine::{Command, Ending, FailureKind};
use underpin_core::proof::Verification;

use crate::checker::{Change, Circumstances};
use crate::clockwork::{Ctx, Owner};
use crate::db::{AppRow, Mode, Object, Row, SOURCE};
use crate::report::Invariant;
use crate::runner;
use crate::scenario::Meddling;
use crate::steering;
use crate::world::RunnerEnd;
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
    let mut may_begin_again = ctx.world().scenario.again_after_abort;
    for start in 0..=STARTS_MAX {
        if start == STARTS_MAX {
            ctx.world().checker.endless(format!("not ended after {start} starts"));
            return;
        }
        let end = run_once(ctx, first.clone()).await;
        first = match end {
            RunnerEnd::Crashed | RunnerEnd::Lost => {
                ctx.world().abandon_sessions();
                // Who began to abort goes on aborting, most of the time.
                let goes_on = ctx.world().dice.percent(70);
                (first.is_some() && goes_on).then_some(Command::Abort)
            }
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

async fn run_once(ctx: &Ctx, first: Option<Command>) -> RunnerEnd {
    runner::start(ctx, first);
    // Bounded by the steps of the whole simulation.
    loop {
        let end = ctx.world().runner_end.clone();
        if let Some(end) = end {
            return end;
        }
        ctx.pause(1_000_000).await;
    }
}

fn judge(ctx: &Ctx, ending: &Ending) {
    let mut world = ctx.world();
    let crate::world::World { checker, db, met, .. } = &mut *world;
    checker.ended(db, ending, met.clone());
}

/// What people do after such an ending: the command that the next runner is told at once, or `None`
/// where there is nothing left to do.
fn next_start(ctx: &Ctx, ending: &Ending, may_begin_again: &mut bool) -> Option<Option<Command>> {
    let mut world = ctx.world();
    match ending {
        Ending::Done { .. } | Ending::Revertible { .. } | Ending::Stayed { .. } => None,
        Ending::Interrupted => Some(None),
        Ending::Aborted { why } => {
            world.counts.aborts += 1;
            world.counts.critical_aborts += u64::from(why.is_some());
            world.db.clear_store();
            // A new run has orders of its own. Who waits for a word has it from the start.
            world.orders.clear();
            world.orders.push(Command::Swap);
            world.met = Circumstances::default();
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
    }
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
    if world.db.live() == Some(Object::Original) {
        let mut changes = vec![Change::Clear];
        let mut rows = Vec::new();
        for _ in 0..world.dice.below(4) {
            let key = world.dice.signed(-40, 100);
            let row = AppRow { uniq: None, value: 1_000 + key };
            if world.scenario.rules.fit_max.is_none() && rows.iter().all(|(known, _)| *known != key)
            {
                rows.push((key, Row { uniq: row.uniq, value: row.value, draw: 0 }));
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
    if world.db.live() == Some(Object::Original) {
        world.note(|| format!("somebody else: {meddling:?}"));
        match meddling {
            Meddling::SpoilShadow => {}
            Meddling::Rewrite => {
                world.db.rewrite_original();
                world.checker.tampered();
            }
            Meddling::Truncate => {
                world.db.truncate_original();
                let no = world.db.commit_no;
                world.checker.acknowledged(no, &[Change::Clear]);
                world.checker.tampered();
            }
            Meddling::DropTrigger(at) => {
                if let Some(trigger) = world.db.triggers.get_mut(at)
                    && std::mem::take(trigger)
                {
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
    let is_early = matches!(saved, Some(Ok(saved)) if saved.phase < Phase::Verify);
    if !is_early
        || world.scenario.settings.verify != Verification::Full
        || world.db.live() != Some(Object::Original)
    {
        return;
    }
    let nth = world.dice.below(1000);
    if let Some(key) = world.db.spoil_shadow(nth) {
        world.note(|| format!("somebody else: spoils the shadow's row {key}"));
        world.checker.spoiled(key);
    }
}
