//! Making and removing what a run needs. All of it is idempotent: a crash anywhere is mended by doing
//! it again.

use underpin_core::machine::Event;

use crate::db::{RETIRED, SHADOW, SOURCE};
use crate::fault::Fault;
use crate::session::{Cut, Done, Session};

/// Shadow, change log, and all triggers under one lock.
pub(super) async fn prepare(session: &Session) -> Done<Event> {
    // Nothing has been copied yet: what a first try left is made anew.
    remove(session).await?;
    session
        .define(|world| {
            let indexed = !world.scenario.settings.deferred_indexes;
            world.db.create_shadow(indexed);
        })
        .await?;
    session.define(|world| world.db.create_log()).await?;
    let (timeout_us, without_lock) = session
        .now(|world| (world.scenario.lock_timeout_us, world.has(Fault::TriggersWithoutLock)));
    if !without_lock {
        session.statement().await?;
        session.lock(SOURCE, timeout_us).await?;
    }
    for trigger in 0..3 {
        session.define(|world| set_trigger(world, trigger, true)).await?;
    }
    session
        .define(|world| {
            world.db.store.identity = Some(world.db.incarnation);
            world.checker.capture_began();
        })
        .await?;
    session.unlock();
    session.ctx.step().await;
    Ok(Event::Prepared)
}

fn set_trigger(world: &mut crate::world::World, at: usize, stands: bool) {
    if let Some(trigger) = world.db.triggers.get_mut(at) {
        *trigger = stands;
    }
}

/// Removes everything of a run that has not been swapped: first what touches the live table.
async fn remove(session: &Session) -> Done<()> {
    if session.now(|world| world.has(Fault::LogDroppedFirst)) {
        session.define(|world| world.db.drop_log()).await?;
    }
    let (any, timeout_us) =
        session.now(|world| (world.db.triggers != [false; 3], world.scenario.lock_timeout_us));
    if any {
        session.statement().await?;
        session.lock(SOURCE, timeout_us).await?;
        session.now(|world| world.checker.capture_ended());
        for trigger in 0..3 {
            session.define(|world| set_trigger(world, trigger, false)).await?;
        }
        session.unlock();
    }
    session.define(|world| world.db.drop_sentry()).await?;
    session
        .define(|world| {
            world.db.drop_table(SHADOW);
            world.checker.forget_run();
        })
        .await?;
    session.define(|world| world.db.drop_log()).await
}

/// Ends a run before its swap.
pub(super) async fn abort(session: &Session) -> Done<Event> {
    session.now(|world| world.met.abort_begun = true);
    remove(session).await?;
    session.ctx.step().await;
    Ok(Event::Finished)
}

/// Removes what is not needed after the swap.
pub(super) async fn finish(session: &Session) -> Done<Event> {
    for trigger in 0..3 {
        session.define(|world| set_trigger(world, trigger, false)).await?;
    }
    session.define(|world| world.db.drop_table(RETIRED)).await?;
    session.define(|world| world.db.drop_log()).await?;
    Ok(Event::Finished)
}

/// One definition statement; it reads the shadow as it is.
pub(super) async fn build_indexes(session: &Session) -> Done<Event> {
    session.statement().await?;
    session.work().await?;
    let built = session.now(|world| world.db.build_indexes());
    session.work().await?;
    built.map_err(|clash| Cut::Clash(clash, 0))?;
    Ok(Event::IndexesBuilt)
}
