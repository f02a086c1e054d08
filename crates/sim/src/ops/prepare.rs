//! Making and removing what a run needs. All of it is idempotent: a crash anywhere is mended by doing
//! it again.

use underpin_core::machine::Event;
use underpin_core::way::Way;

use super::swap::mend_late_entries;
use crate::db::{Object, SHADOW, SOURCE, retired_name};
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
    session.define(|world| world.db.create_log(Object::Original)).await?;
    let (timeout_us, without_lock) = session
        .now(|world| (world.scenario.lock_timeout_us, world.has(Fault::TriggersWithoutLock)));
    if !without_lock {
        session.statement().await?;
        session.lock(SOURCE, timeout_us).await?;
    }
    set_triggers(session, Object::Original, true).await?;
    session
        .define(|world| {
            world.db.note_identity(Object::Original);
            world.checker.capture_began();
        })
        .await?;
    session.unlock();
    session.ctx.step().await;
    Ok(Event::Prepared)
}

/// Installs or drops all triggers of a table.
async fn set_triggers(session: &Session, object: Object, stands: bool) -> Done<()> {
    for trigger in 0..3 {
        session.define(|world| world.db.set_trigger(object, trigger, stands)).await?;
    }
    Ok(())
}

/// Capture of the table that the swap will make live: its log and its triggers, where they are missing.
pub(super) async fn capture_target(session: &Session) -> Done<()> {
    let target = session.target();
    if session.now(|world| world.db.is_captured(target)) {
        return Ok(());
    }
    session.define(|world| world.db.create_log(target)).await?;
    set_triggers(session, target, true).await
}

/// Drops the triggers of a table, under the lock of its name where it is the live one.
async fn drop_triggers(session: &Session, object: Object) -> Done<()> {
    let (any, is_live, timeout_us) = session.now(|world| {
        let any = world.db.triggers(object) != [false; 3];
        (any, world.db.live() == Some(object), world.scenario.lock_timeout_us)
    });
    if !any {
        return Ok(());
    }
    if is_live {
        session.statement().await?;
        session.lock(SOURCE, timeout_us).await?;
        session.now(|world| world.checker.capture_ended());
    }
    set_triggers(session, object, false).await?;
    session.unlock();
    Ok(())
}

/// Removes everything of a run that has not been swapped: first what touches the live table.
async fn remove(session: &Session) -> Done<()> {
    if session.now(|world| world.has(Fault::LogDroppedFirst)) {
        session.define(|world| world.db.drop_log(Object::Original)).await?;
    }
    drop_triggers(session, Object::Original).await?;
    session.define(|world| world.db.drop_sentry()).await?;
    session
        .define(|world| {
            world.db.drop_table(SHADOW);
            world.checker.forget_run();
        })
        .await?;
    session.define(|world| world.db.drop_log(Object::Shadow)).await?;
    session.define(|world| world.db.drop_log(Object::Original)).await
}

/// Ends a run before its swap.
pub(super) async fn abort(session: &Session) -> Done<Event> {
    session.now(|world| world.met.abort_begun = true);
    remove(session).await?;
    session.ctx.step().await;
    Ok(Event::Finished)
}

/// What the swap left for later, where the way back is kept.
pub(super) async fn arrive(session: &Session) -> Done<Event> {
    if !session.now(|world| world.has(Fault::LateForgotten)) {
        mend_late_entries(session).await?;
    }
    session.define(|world| world.db.fence = None).await?;
    Ok(Event::Arrived)
}

/// Removes what is not needed after the swap: the triggers, the table that is not live, the logs.
pub(super) async fn finish(session: &Session) -> Done<Event> {
    // Where the way back is kept this was done on arrival. By now the log may have entries of our own, from
    // a turn that was left: they would bring what the retired table holds over what was written since.
    let mends = session.now(|world| {
        let is_now = !world.keeps_way_back() || world.has(Fault::LateAtFinish);
        is_now && !world.has(Fault::LateForgotten)
    });
    if mends {
        mend_late_entries(session).await?;
    }
    session.define(|world| world.db.drop_sentry()).await?;
    drop_triggers(session, session.target()).await?;
    drop_triggers(session, session.source()).await?;
    let drops_live = session.now(|world| world.has(Fault::FinishDropsLive));
    let gone = match session.way {
        Way::Back if drops_live => SOURCE,
        way => retired_name(way),
    };
    session.define(|world| world.db.drop_table(gone)).await?;
    session.define(|world| world.db.drop_log(session.source())).await?;
    session.define(|world| world.db.drop_log(session.target())).await?;
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
