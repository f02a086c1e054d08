//! Trying the swap, once: by the session that holds the lock, or by a second one behind a fence.

use underpin_core::machine::Event;

use super::apply::{apply, drain};
use super::copy::check_source;
use super::pending_of;
use crate::clockwork::Owner;
use crate::db::{RETIRED, SHADOW, SOURCE};
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
    world.note(|| "RENAME".to_owned());
    let World { checker, db, .. } = world;
    checker.swapped(db);
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
        session.define(|world| world.db.rename(SOURCE, RETIRED)).await?;
        session.unlock();
        session.define(|world| world.db.rename(SHADOW, SOURCE)).await?;
        session.now(renamed);
        return Ok(swapped(session, since_us, drained));
    }
    session
        .define(|world| {
            if world.db.rename_both() {
                renamed(world);
            }
        })
        .await?;
    session.unlock();
    session.ctx.step().await;
    Ok(swapped(session, since_us, drained))
}

/// How long the fence outlasts the second session's patience, in microseconds.
const FENCE_MARGIN_US: u64 = 50_000;

/// This session locks, drains and fences; the second one renames. A sentry holds the retired name
/// until the second one stands first in the source's queue.
async fn two_sessions(session: &Session, budget_ms: u64) -> Done<Event> {
    let bad_order = session.now(|world| world.has(Fault::NameOrder));
    let timeout_us = session.now(|world| world.scenario.lock_timeout_us);
    session.define(|world| world.db.create_sentry()).await?;
    session.statement().await?;
    let since_us = session.now(|world| world.now_us);
    for name in [SOURCE, RETIRED, SHADOW] {
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
    if !bad_order {
        let fence_us = timeout_us + FENCE_MARGIN_US;
        session.define(|world| world.db.fence_until_us = world.now_us + fence_us).await?;
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
        names.contains_key(RETIRED) && !names.contains_key(SHADOW)
    });
    if !is_renamed {
        session.define(lift_fence).await?;
        return Err(Cut::LockNotHad);
    }
    mend_late_entries(session).await?;
    Ok(swapped(session, since_us, drained))
}

fn lift_fence(world: &mut World) {
    world.db.fence_until_us = 0;
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
        let is_renamed = world.db.rename_both();
        if is_renamed {
            renamed(world);
        }
        is_renamed
    }))
}

/// After the rename the log must be empty; an entry that came late is applied from the retired table.
async fn mend_late_entries(session: &Session) -> Done<()> {
    let snapshot = session.now(|world| world.db.snapshot());
    if !pending_of(session, &snapshot)?.is_empty() {
        apply(session, &underpin_core::key::Frontier::End, u64::MAX).await?;
    }
    Ok(())
}
