//! Where tables are heaps: planning and copying by blocks, settling, and definitions that are part of
//! a transaction.

use std::collections::BTreeSet;

use underpin_core::key::{Chunk, Key, KeyRange};
use underpin_core::machine::Event;
use underpin_core::way::Way;

use super::batch::pending_in;
use super::stretches::shorten;
use super::{Stretch, took_ms};
use crate::checker::About;
use crate::db::{Definition, Heaps, Object, Row, RowKey, SOURCE, Snapshot, Xids};
use crate::fault::Fault;
use crate::session::{Cut, Done, Session, bound, to_key};
use crate::world::World;

/// Rows that a block is thought to hold.
const ROWS_A_BLOCK: u64 = 3;

/// The part of a snapshot that only such a server has.
pub(super) fn heaps(snapshot: &Snapshot) -> Done<&Heaps> {
    snapshot.heaps.as_ref().ok_or(Cut::Missing("heaps"))
}

/// Everything of a run, anew: what an earlier try or an earlier copy left goes in a transaction of its
/// own, then shadow, log and triggers are made under the source's lock.
pub(super) async fn prepare(session: &Session) -> Done<Event> {
    let (timeout_us, without_lock, ends_early) = session.now(|world| {
        let early = world.has(Fault::EndBeforeTriggers);
        (world.scenario.lock_timeout_us, world.has(Fault::TriggersWithoutLock), early)
    });
    if session.now(|world| world.db.log(Object::Original).is_some()) {
        session.statement().await?;
        session.lock(SOURCE, timeout_us).await?;
        defined(session, Definition::Abort).await?;
    }
    if ends_early {
        session.statement().await?;
        session.now(|world| {
            if let Some(heaps) = &mut world.db.heaps {
                heaps.end = Some(heaps.pages);
            }
        });
    }
    session.statement().await?;
    if !without_lock {
        session.lock(SOURCE, timeout_us).await?;
    }
    session.work().await?;
    defined(session, Definition::Prepare).await?;
    Ok(Event::Prepared)
}

/// Makes a definition and commits it; locks last until then.
async fn defined(session: &Session, definition: Definition) -> Done<()> {
    session.statement().await?;
    session.now(|world| world.db.define(session.id, definition));
    session.commit(About::default()).await?;
    session.unlock();
    Ok(())
}

/// Changes nothing, but takes its time, and may be cut off like everything else.
pub(super) async fn tidy(session: &Session) -> Done<Event> {
    session.statement().await?;
    session.work().await?;
    session.statement().await?;
    session.work().await?;
    Ok(Event::Tidied)
}

/// Indexes, all of them, in one transaction.
pub(super) async fn build_indexes(session: &Session) -> Done<Event> {
    session.statement().await?;
    session.work().await?;
    let looked = session.now(|world| world.db.look_for_duplicates());
    looked.map_err(|clash| Cut::Clash(clash, 0))?;
    session.work().await?;
    // Bounded: the server rolls back a limited number of commits.
    loop {
        match defined(session, Definition::BuildIndexes).await {
            Err(Cut::RolledBack(_)) => session.now(|world| world.db.roll_back(session.id)),
            other => {
                other?;
                return Ok(Event::IndexesBuilt);
            }
        }
    }
}

/// Removes what is not needed after the swap.
pub(super) async fn finish(session: &Session) -> Done<Event> {
    session.statement().await?;
    let timeout_us = session.now(|world| world.scenario.lock_timeout_us);
    if session.now(|world| world.keeps_way_back()) {
        session.lock(SOURCE, timeout_us).await?;
    }
    if session.now(|world| world.has(Fault::FinishDropsLive)) && session.way == Way::Back {
        session.define(|world| world.db.drop_table(SOURCE)).await?;
    }
    defined(session, Definition::Finish(session.way)).await?;
    Ok(Event::Finished)
}

/// The swap is one transaction: nothing came late.
pub(super) async fn arrive(session: &Session) -> Done<Event> {
    session.statement().await?;
    session.work().await?;
    Ok(Event::Arrived)
}

/// Ends a run before its swap.
pub(super) async fn abort(session: &Session) -> Done<Event> {
    let timeout_us = session.now(|world| {
        world.met.abort_begun = true;
        world.scenario.lock_timeout_us
    });
    session.statement().await?;
    session.lock(SOURCE, timeout_us).await?;
    defined(session, Definition::Abort).await?;
    Ok(Event::Finished)
}

/// The identity check; the marker of a `TRUNCATE` explains another file.
pub(super) fn check_source(session: &Session) -> Done<()> {
    let world = session.ctx.world();
    let (db, source) = (&world.db, session.source());
    let looks_away = world.has(Fault::NoIdentityCheck)
        || (world.has(Fault::NoIdentityCheckBack) && session.way == Way::Back);
    if looks_away {
        return Ok(());
    }
    if world.has(Fault::MarkerIgnored) {
        return if db.is_captured(source) { Ok(()) } else { Err(Cut::SourceChanged) };
    }
    if db.heaps.as_ref().is_some_and(|heaps| heaps.log(source).is_truncated()) {
        return Err(Cut::Truncated);
    }
    if db.is_source_unchanged(source) { Ok(()) } else { Err(Cut::SourceChanged) }
}

/// The next stretches of blocks. The end is fixed when this is asked for the first time.
pub(super) async fn plan(
    session: &Session,
    after: Option<&Key>,
    chunk_rows: u64,
    chunks_max: u32,
) -> Done<Event> {
    session.statement().await?;
    check_source(session)?;
    let end = end_of_copy(session).await?;
    let step = std::cmp::max(chunk_rows / ROWS_A_BLOCK, 1);
    let open_end = session.now(|world| world.scenario.open_end);
    let mut after = bound(after)?;
    let mut chunks = Vec::new();
    for index in 0..chunks_max {
        let from = after.map_or(0, i64::cast_unsigned);
        if from >= end {
            return Ok(Event::RoundPlanned { chunks, last: true });
        }
        let to = std::cmp::min(from + step, end);
        let up_to = if to == end && open_end { None } else { Some(to.cast_signed()) };
        chunks.push(Chunk {
            index,
            range: KeyRange { after: after.map(to_key), up_to: up_to.map(to_key) },
        });
        if up_to.is_none() {
            return Ok(Event::RoundPlanned { chunks, last: true });
        }
        after = up_to;
    }
    Ok(Event::RoundPlanned { chunks, last: false })
}

async fn end_of_copy(session: &Session) -> Done<u64> {
    // Bounded: the server rolls back a limited number of commits.
    loop {
        session.statement().await?;
        let snapshot = session.snapshot();
        let heaps = heaps(&snapshot)?;
        if let Some(end) = heaps.end {
            return Ok(end);
        }
        session.now(|world| world.db.fix_end(session.id, heaps.pages));
        match session.commit(About::default()).await {
            Err(Cut::RolledBack(_)) => session.now(|world| world.db.roll_back(session.id)),
            other => other?,
        }
    }
}

/// `INSERT INTO shadow SELECT … FROM source WHERE ctid …`, the mark, the commit.
pub(super) async fn chunk(session: &Session, round: u64, chunk: &Chunk) -> Done<Event> {
    let began_us = session.now(|world| world.now_us);
    let stretch = Stretch::read(&chunk.range)?;
    let is_apart = session.now(|world| world.has(Fault::MarkApart));
    session.statement().await?;
    session.share(SOURCE).await?;
    let snapshot = session.snapshot();
    let heaps = heaps(&snapshot)?;
    snapshot.shadow.as_ref().ok_or(Cut::Missing("shadow"))?;
    let about = About { snapshot_no: snapshot.no, ..About::default() };
    let rows: Vec<(RowKey, Row)> = snapshot
        .source
        .iter()
        .filter(|(key, _)| heaps.blocks.get(key).is_some_and(|block| stretch.has_block(*block)))
        .map(|(key, row)| (*key, *row))
        .collect();
    let mark = stretch.mark(round, chunk.index, rows.len());
    if is_apart {
        session.now(|world| world.db.mark(session.id, mark));
        session.commit(about).await?;
    }
    for (at, (key, row)) in rows.iter().enumerate() {
        if at % 2 == 0 {
            session.work().await?;
        }
        session
            .write(snapshot.no, |db| {
                let draw = db.draw();
                let image = db.image(*key, *row, draw)?;
                db.put_in_bag(session.id, *key, image);
                Ok(())
            })
            .await?;
    }
    session.work().await?;
    session.statement().await?;
    check_source(session)?;
    if !is_apart {
        session.now(|world| world.db.mark(session.id, mark));
    }
    session.commit(about).await?;
    let took_ms = took_ms(session, began_us);
    Ok(Event::ChunkCopied { index: chunk.index, rows: mark.rows, took_ms, applied: None })
}

/// First all pending keys are to do, in one snapshot; then their rows go, part by part. Whatever of it
/// was cut off is done again from the start.
pub(super) async fn settle(session: &Session) -> Done<Event> {
    // Bounded: the server rolls back a limited number of commits.
    loop {
        match settle_once(session).await {
            Err(Cut::RolledBack(_)) => session.now(|world| world.db.roll_back(session.id)),
            other => {
                let rows = other?;
                session.now(|world| world.counts.settled += rows);
                return Ok(Event::Settled { rows });
            }
        }
    }
}

/// Parts of the shadow that settling goes through, each in a transaction of its own.
const PARTS: u64 = 3;

async fn settle_once(session: &Session) -> Done<u64> {
    let (forgets, is_piecemeal) =
        session.now(|world| (world.has(Fault::SettleForgets), world.has(Fault::SettlePiecemeal)));
    if !forgets {
        shorten(session, false).await?;
    }
    let (mut about, noted) = note_pending(session, forgets).await?;
    let mut rows = 0;
    for part in 0..PARTS {
        if is_piecemeal {
            about = note_pending(session, forgets).await?.0;
        }
        session.statement().await?;
        let snapshot = session.snapshot();
        let todo = heaps(&snapshot)?.log(snapshot.of).todo;
        let keys = if forgets { &noted } else { &*todo };
        rows += take_out(session, &snapshot, keys, Some(part)).await?;
        session.work().await?;
        session.commit(about).await?;
    }
    Ok(rows)
}

/// Notes everything pending as to do.
async fn note_pending(session: &Session, forgets: bool) -> Done<(About, BTreeSet<RowKey>)> {
    session.statement().await?;
    let (snapshot, seen) = session.now(|world| (world.db.snapshot(session.way), xids(world)));
    let pending = pending_in(session, &snapshot)?;
    session.work().await?;
    let keys: BTreeSet<RowKey> = pending.iter().map(|(_, key)| *key).collect();
    session.now(|world| {
        let db = &mut world.db;
        db.consume(session.id, pending.iter().map(|(id, _)| *id));
        if !forgets {
            db.add_to_do(session.id, session.source(), keys.iter().copied());
        }
        db.advance(session.id, session.source(), seen);
    });
    let about = About { snapshot_no: snapshot.no, is_settled: true, ..About::default() };
    session.commit(about).await?;
    Ok((about, keys))
}

/// Deletes the shadow's rows of these keys, with or without an index to find them by; in one part of
/// the shadow, or in all of it.
pub(super) async fn take_out(
    session: &Session,
    snapshot: &Snapshot,
    keys: &BTreeSet<RowKey>,
    part: Option<u64>,
) -> Done<u64> {
    let is_meant = |place: u64| part.is_none_or(|part| place % PARTS == part);
    let heaps = heaps(snapshot)?;
    let places: Vec<u64> = heaps
        .bag
        .iter()
        .filter(|(place, (key, _))| is_meant(**place) && keys.contains(key))
        .map(|(place, _)| *place)
        .collect();
    let mut rows = u64::try_from(places.len()).unwrap_or(u64::MAX);
    session.now(|world| world.db.take_from_bag(session.id, places));
    for key in keys.iter().filter(|key| is_meant(key.unsigned_abs())) {
        if key % 4 == 0 {
            session.work().await?;
        }
        let target = session.target();
        let old = session.write(snapshot.no, |db| db.delete(session.id, target, *key)).await?;
        rows += u64::from(old.is_some());
    }
    Ok(rows)
}

/// Which transactions have ended now.
pub(super) fn xids(world: &World) -> Xids {
    world.db.xids(world.has(Fault::PreparedForgotten))
}
