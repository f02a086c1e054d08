//! Trying the swap, once: by the session that holds the lock, or by a second one behind a fence.

use underpin_core::key::Frontier;
use underpin_core::machine::Event;
use underpin_core::way::Way;

use super::apply::{Takes, apply, drain};
use super::copy::check_source;
use super::pending_of;
use super::prepare::capture_target;
use crate::checker::Change;
use crate::clockwork::Owner;
use crate::db::{AppRow, Object, RETIRED, SHADOW, SOURCE, retired_name, shadow_name, source_of};
use crate::fault::Fault;
use crate::scenario::SwapStyle;
use crate::session::{Cut, Done, Session};
use crate::world::World;

pub(super) async fn try_swap(session: &Session, budget_ms: u64) -> Done<Event> {
    match session.now(|world| world.scenario.swap) {
        SwapStyle::OneSession => one_session(session, budget_ms).await,
        SwapStyle::TwoSessions => two_sessions(session, budget_ms).await,
    }
}

/// Why everybody was let through, or how long they were held up.
pub(super) fn swapped(session: &Session, since_us: u64, drained: u64) -> Event {
    let stall_ms = session.now(|world| world.now_us.saturating_sub(since_us) / 1000);
    Event::Swapped { stall_ms, drained }
}

/// The rename has happened: counted and checked at this very instant.
pub(crate) fn renamed(world: &mut World) {
    world.counts.swaps += 1;
    let Some(live) = world.db.live() else { return };
    world.counts.swaps_back += u64::from(live == Object::Original);
    world.has_swapped = true;
    world.note(|| "RENAME".to_owned());
    let World { checker, db, .. } = world;
    checker.swapped(db, live);
}

/// Lock, drain, look, rename, unlock, all on one connection.
async fn one_session(session: &Session, budget_ms: u64) -> Done<Event> {
    session.statement().await?;
    let since_us = session.now(|world| world.now_us);
    let (timeout_us, drains_early, renames_twice) = session.now(|world| {
        (
            world.scenario.lock_timeout_us,
            world.has(Fault::DrainBeforeLock),
            world.has(Fault::TwoRenames),
        )
    });
    let keeps = session.now(|world| world.keeps_way_back());
    let returns_late = session.now(|world| world.has(Fault::ReturnLogLate));
    if keeps && !returns_late {
        capture_target(session).await?;
    }
    let mut drained = 0;
    if drains_early {
        drained = drain(session, u64::MAX).await?.0.entries;
    }
    session.lock(SOURCE, timeout_us).await?;
    if !drains_early {
        let until_us = session.now(|world| world.now_us) + budget_ms * 1000;
        let (applied, is_empty) = drain(session, until_us).await?;
        drained = applied.entries;
        if !is_empty {
            session.unlock();
            return Ok(Event::DrainTooSlow { drained });
        }
    }
    session.statement().await?;
    check_source(session)?;
    if renames_twice {
        session.define(|world| world.db.rename(SOURCE, retired_name(session.way))).await?;
        session.unlock();
        session.define(|world| world.db.rename(shadow_name(session.way), SOURCE)).await?;
        session.now(renamed);
        return Ok(swapped(session, since_us, drained));
    }
    note_target(session).await?;
    session
        .define(|world| {
            if world.db.rename_both(session.way) {
                renamed(world);
            }
        })
        .await?;
    session.unlock();
    if keeps && returns_late {
        capture_target(session).await?;
        note_target(session).await?;
    }
    session.ctx.step().await;
    Ok(swapped(session, since_us, drained))
}

/// Notes under the lock which table it is that becomes live, for the next turn.
async fn note_target(session: &Session) -> Done<()> {
    if session.now(|world| world.keeps_way_back()) {
        session.define(|world| world.db.note_identity(session.target())).await?;
    }
    Ok(())
}

/// How long the fence outlasts the second session's patience, in microseconds.
const FENCE_MARGIN_US: u64 = 50_000;

/// This session locks, drains and fences; the second one renames. A sentry holds the retired name
/// until the second one stands first in the source's queue.
async fn two_sessions(session: &Session, budget_ms: u64) -> Done<Event> {
    let bad_order = session.now(|world| world.has(Fault::NameOrder));
    let timeout_us = session.now(|world| world.scenario.lock_timeout_us);
    let keeps = session.now(|world| world.keeps_way_back());
    let returns_late = session.now(|world| world.has(Fault::ReturnLogLate));
    if keeps && !returns_late {
        capture_target(session).await?;
    }
    session.define(|world| world.db.create_sentry(session.way)).await?;
    session.statement().await?;
    let since_us = session.now(|world| world.now_us);
    for name in [SOURCE, retired_name(session.way), shadow_name(session.way)] {
        session.lock(name, timeout_us).await?;
    }
    let until_us = session.now(|world| world.now_us) + budget_ms * 1000;
    let (applied, is_empty) = drain(session, until_us).await?;
    let drained = applied.entries;
    if !is_empty {
        session.unlock();
        return Ok(Event::DrainTooSlow { drained });
    }
    session.statement().await?;
    check_source(session)?;
    note_target(session).await?;
    if !bad_order {
        let fence_us = timeout_us + FENCE_MARGIN_US;
        let source = session.source();
        session.define(|world| world.db.fence = Some((source, world.now_us + fence_us))).await?;
    }
    let second = Session::open(&session.ctx);
    begin_rename(second.clone(), timeout_us, bad_order);
    let result = let_through(session, &second, bad_order).await;
    session.unlock();
    // The second session ends within its own time-out, whatever became of ours.
    while session.now(|world| world.sessions.contains_key(&second.id)) {
        session.statement().await?;
    }
    result?;
    session.statement().await?;
    let is_renamed = session.now(|world| {
        let names = &world.db.names;
        names.contains_key(retired_name(session.way))
            && !names.contains_key(shadow_name(session.way))
    });
    if !is_renamed {
        session.define(lift_fence).await?;
        return Err(Cut::LockNotHad);
    }
    if keeps && returns_late {
        capture_target(session).await?;
        note_target(session).await?;
    }
    Ok(swapped(session, since_us, drained))
}

fn lift_fence(world: &mut World) {
    world.db.fence = None;
    world.db.drop_sentry();
}

/// Waits until the second session is blocked where it must be, then drops the sentry. Somebody else's
/// definition statement that stands before it would get in between drain and rename: then the sentry
/// stays, and the rename fails.
async fn let_through(session: &Session, second: &Session, bad_order: bool) -> Done<()> {
    // Bounded by the second session's time-out.
    loop {
        session.statement().await?;
        let (is_there, is_blocked, is_first) = session.now(|world| {
            let locks = &world.db.name_locks;
            (
                world.sessions.contains_key(&second.id),
                locks.is_waiting_somewhere(second.id),
                bad_order || locks.is_first(second.id, SOURCE),
            )
        });
        if is_blocked && is_first {
            return session.define(|world| world.db.drop_sentry()).await;
        }
        if is_blocked || !is_there {
            return Ok(());
        }
    }
}

/// The second session: one RENAME, whose locks are taken in the order of the names.
fn begin_rename(second: Session, timeout_us: u64, bad_order: bool) {
    let ctx = second.ctx.clone();
    ctx.spawn(Owner::Session, async move {
        let result = rename(&second, timeout_us, bad_order).await;
        second.ctx.note(|| format!("session {}: RENAME: {result:?}", second.id));
        second.close();
    });
}

async fn rename(second: &Session, timeout_us: u64, bad_order: bool) -> Done<bool> {
    second.statement().await?;
    // `_orders_new` and `_orders_old` would sort before `orders`.
    let order = if bad_order { [SHADOW, RETIRED, SOURCE] } else { [SOURCE, SHADOW, RETIRED] };
    for name in order {
        second.lock(name, timeout_us).await?;
    }
    Ok(second.now(|world| {
        slip_in(world, second.way);
        let is_renamed = world.db.rename_both(second.way);
        if is_renamed {
            renamed(world);
        }
        is_renamed
    }))
}

/// A write of somebody who passed the fence: what comes late on servers where nobody can say who will.
fn slip_in(world: &mut World, way: Way) {
    let may = world.scenario.slips && !world.db.names.contains_key(retired_name(way));
    let Some(source) = world.db.live().filter(|live| may && *live == source_of(way)) else {
        return;
    };
    if !world.db.is_captured(source) {
        return;
    }
    let id = world.session_id();
    world.slipped += 1;
    let (key, row) = (LATE_KEY + world.slipped, AppRow { uniq: None, value: LATE_VALUE });
    let change = Change::Insert(key, row);
    let fence = world.db.fence.take();
    if world.db.app_insert(id, u64::MAX, key, row).is_ok() {
        let no = world.db.commit(id).no;
        world.note(|| format!("somebody passes the fence: commit {no} {change:?}"));
        world.counts.late += 1;
        world.checker.acknowledged(no, &[change]);
        world.checker.late(key);
    }
    world.db.fence = fence;
    world.db.end_session(id);
}

/// Keys of late rows are like nobody else's, so that what was late is not confused with what came later.
pub(crate) const LATE_KEY: i64 = 1_000_000;

/// Fits both shapes, and is far from others.
const LATE_VALUE: i64 = 3;

/// After the rename the log must be empty; an entry that came late is applied from the retired table.
pub(super) async fn mend_late_entries(session: &Session) -> Done<()> {
    let snapshot = session.snapshot();
    let is_gone = snapshot.log.is_none()
        || !session.now(|world| world.db.names.contains_key(retired_name(session.way)));
    if !is_gone && !pending_of(session, &snapshot)?.is_empty() {
        // Bounded: the server rolls back a limited number of commits.
        loop {
            match apply(session, &Frontier::End, Takes::Oldest(u64::MAX)).await {
                Err(Cut::RolledBack(_)) => session.now(|world| world.db.roll_back(session.id)),
                other => break other.map(drop)?,
            }
        }
    }
    session.now(|world| world.checker.arrived());
    Ok(())
}
