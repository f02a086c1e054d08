//! Where tables are heaps: applying the log in batches that are told by snapshots, and the swap, which
//! is one transaction.

use std::collections::BTreeSet;
use std::rc::Rc;

use underpin_core::machine::{Applied, Event};

use super::apply::{Stage, write};
use super::blocks::{check_source, heaps, take_out, xids};
use super::stretches::shorten;
use super::took_ms;
use crate::checker::About;
use crate::db::{Definition, RowKey, Rows, SOURCE, Snapshot, Xids, retired_name, shadow_name};
use crate::fault::Fault;
use crate::session::{Cut, Done, Session};

/// What one transaction is about to do.
struct Batch {
    stage: Stage,
    /// Keys that are noted as to do.
    put_off: BTreeSet<RowKey>,
    /// What has been taken from the log once this commits.
    seen: Xids,
}

/// The log's entries that this snapshot sees and that have not been taken.
///
/// # Errors
/// `Truncated` where the marker is among them.
pub(super) fn pending_in(session: &Session, snapshot: &Snapshot) -> Done<Vec<(u64, RowKey)>> {
    let log = heaps(snapshot)?.log(snapshot.of);
    snapshot.log.as_ref().ok_or(Cut::Missing("change log"))?;
    let (by_cursor, ignores_marker) =
        session.now(|world| (world.has(Fault::CursorByXid), world.has(Fault::MarkerIgnored)));
    let is_taken = |xid: u64| {
        if by_cursor { xid < log.applied.xmax } else { log.applied.sees(xid) }
    };
    let mut pending = Vec::new();
    for entry in log.entries.iter().filter(|entry| !is_taken(entry.xid)) {
        match entry.key {
            Some(key) => pending.push((entry.id, key)),
            None if ignores_marker => {}
            None => return Err(Cut::Truncated),
        }
    }
    Ok(pending)
}

/// The keys that are pending in this snapshot.
pub(super) fn pending_keys(session: &Session, snapshot: &Snapshot) -> Done<BTreeSet<RowKey>> {
    let mut keys = BTreeSet::clone(&heaps(snapshot)?.log(snapshot.of).todo);
    keys.extend(pending_in(session, snapshot)?.into_iter().map(|(_, key)| key));
    Ok(keys)
}

/// The source's rows of a snapshot that may be older than our lock on it: a `TRUNCATE` in between
/// empties it for older snapshots too.
pub(super) fn source_rows(session: &Session, snapshot: &Snapshot) -> Rc<Rows> {
    if session.now(|world| world.db.incarnation(session.source())) == snapshot.incarnation {
        Rc::clone(&snapshot.source)
    } else {
        Rc::default()
    }
}

/// One application of pending entries.
pub(super) async fn apply(session: &Session, keys_max: u64) -> Done<Applied> {
    let began_us = session.now(|world| world.now_us);
    // Before there is an index only a fault applies anything.
    let is_indexed = session.now(|world| world.db.shadow_indexed);
    let keeps_draws = session.now(|world| world.keeps_draws());
    let shortened = if is_indexed { shorten(session, !keeps_draws).await? } else { 0 };
    session.statement().await?;
    let snapshot = session.snapshot();
    let batch = read(session, snapshot, keys_max).await?;
    let mut applied = batch.applied();
    applied.entries += shortened;
    if session.now(|world| world.has(Fault::BoundaryApart)) {
        let seen = batch.seen.clone();
        session.now(|world| world.db.advance(session.id, session.source(), seen));
        session.commit(About::default()).await?;
    }
    let about = About { snapshot_no: batch.stage.snapshot_no, ..About::default() };
    carry_out(session, batch).await?;
    session.work().await?;
    session.commit(about).await?;
    Ok(Applied { took_ms: took_ms(session, began_us), ..applied })
}

impl Batch {
    fn applied(&self) -> Applied {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        Applied {
            entries: count(self.stage.taken.len()),
            keys: count(self.stage.taken_keys.len()),
            left: self.stage.left,
            ..Applied::default()
        }
    }

    fn is_empty(&self) -> bool {
        self.stage.taken.is_empty() && self.stage.taken_keys.is_empty()
    }
}

/// What is pending in the snapshot, and how much of it is written at once.
async fn read(session: &Session, snapshot: Snapshot, keys_max: u64) -> Done<Batch> {
    let seen = session.now(|world| xids(world));
    session.work().await?;
    let source_first = session.now(|world| world.has(Fault::SourceThenLog));
    let (log_snapshot, seen) = if source_first {
        session.now(|world| (world.db.snapshot(session.way), xids(world)))
    } else {
        (snapshot.clone(), seen)
    };
    let pending = pending_in(session, &log_snapshot)?;
    snapshot.shadow.as_ref().ok_or(Cut::Missing("shadow"))?;
    session.share(SOURCE).await?;
    let log_first = session.now(|world| world.has(Fault::LogThenSource));
    let source = if log_first { session.snapshot() } else { snapshot };
    let keys: BTreeSet<RowKey> = pending.iter().map(|(_, key)| *key).collect();
    let todo = heaps(&log_snapshot)?.log(log_snapshot.of).todo;
    // Rows of which something is kept cannot be deleted now and written later.
    let keeps_draws = session.now(|world| world.keeps_draws());
    let keys_max = usize::try_from(keys_max).unwrap_or(usize::MAX);
    let keys_max = if keeps_draws { usize::MAX } else { keys_max };
    let all: BTreeSet<RowKey> = todo.union(&keys).copied().collect();
    let taken_keys: BTreeSet<RowKey> = all.iter().take(keys_max).copied().collect();
    let put_off = keys.difference(&taken_keys).copied().collect();
    let left = u64::try_from(all.len() - taken_keys.len()).unwrap_or(u64::MAX);
    let stage = Stage {
        snapshot_no: std::cmp::max(source.no, log_snapshot.no),
        source: source_rows(session, &source),
        taken: pending,
        all_keys: if keeps_draws { all } else { keys },
        taken_keys,
        dropped: 0,
        left,
        clears: true,
    };
    Ok(Batch { stage, put_off, seen })
}

/// Writes the batch in this transaction.
async fn carry_out(session: &Session, mut batch: Batch) -> Done<()> {
    let (is_indexed, one_by_one) =
        session.now(|world| (world.db.shadow_indexed, world.has(Fault::OneKeyAtATime)));
    if !is_indexed {
        write_to_bag(session, &batch.stage).await?;
    } else if one_by_one {
        for key in batch.stage.taken_keys.clone() {
            let mut one = batch.stage.only(key);
            write(session, &mut one).await?;
        }
    } else {
        write(session, &mut batch.stage).await?;
    }
    session.statement().await?;
    session.now(|world| {
        let db = &mut world.db;
        db.consume(session.id, batch.stage.taken.iter().map(|(id, _)| *id));
        let of = session.source();
        db.strike_off(session.id, of, batch.stage.taken_keys.iter().copied());
        db.add_to_do(session.id, of, batch.put_off);
        db.advance(session.id, of, batch.seen);
    });
    Ok(())
}

/// Application while the shadow has no index, which only a fault does.
async fn write_to_bag(session: &Session, stage: &Stage) -> Done<()> {
    let snapshot = session.snapshot();
    take_out(session, &snapshot, &stage.all_keys, None).await?;
    for key in &stage.taken_keys {
        let Some(row) = stage.source.get(key) else { continue };
        session
            .write(stage.snapshot_no, |db| {
                let draw = db.draw();
                let image = db.image(*key, *row, draw)?;
                db.put_in_bag(session.id, *key, image);
                Ok(())
            })
            .await?;
    }
    Ok(())
}

/// Lock, drain, look, swap: one transaction, or nothing at all.
pub(super) async fn try_swap(session: &Session, budget_ms: u64) -> Done<Event> {
    session.statement().await?;
    let since_us = session.now(|world| world.now_us);
    let (timeout_us, drains_early, snapshot_early, renames_twice) = session.now(|world| {
        (
            world.scenario.lock_timeout_us,
            world.has(Fault::DrainBeforeLock),
            world.has(Fault::DrainSnapshotEarly),
            world.has(Fault::TwoRenames),
        )
    });
    if drains_early {
        apply(session, u64::MAX).await?;
    }
    let early = session.snapshot();
    session.lock(SOURCE, timeout_us).await?;
    let until_us = session.now(|world| world.now_us) + budget_ms * 1000;
    session.statement().await?;
    let snapshot = if snapshot_early { early } else { session.snapshot() };
    let mut about = About { snapshot_no: snapshot.no, ..About::default() };
    let mut drained = 0;
    if !drains_early {
        let batch = read(session, snapshot, u64::MAX).await?;
        drained = batch.applied().entries;
        about.snapshot_no = batch.stage.snapshot_no;
        if !batch.is_empty() {
            carry_out(session, batch).await?;
            if session.now(|world| world.now_us) > until_us {
                session.now(|world| {
                    world.db.roll_back(session.id);
                    world.met.lock_not_had = true;
                });
                session.unlock();
                return Ok(Event::DrainTooSlow { drained: 0 });
            }
        }
    }
    session.statement().await?;
    check_source(session)?;
    if renames_twice {
        session.commit(about).await?;
        session.define(|world| world.db.rename(SOURCE, retired_name(session.way))).await?;
        session.unlock();
        session.define(|world| world.db.rename(shadow_name(session.way), SOURCE)).await?;
        session.now(super::swap::renamed);
    } else {
        session.now(|world| world.db.define(session.id, Definition::Swap(session.way)));
        session.commit(about).await?;
        session.unlock();
        if session.now(|world| world.keeps_way_back() && world.has(Fault::ReturnLogLate)) {
            session.statement().await?;
            session.now(|world| world.db.define(session.id, Definition::Return(session.way)));
            session.commit(About::default()).await?;
        }
    }
    Ok(super::swap::swapped(session, since_us, drained))
}

impl Stage {
    /// The part of this stage that one key is.
    fn only(&self, key: RowKey) -> Self {
        Self {
            snapshot_no: self.snapshot_no,
            source: Rc::clone(&self.source),
            taken: Vec::new(),
            all_keys: BTreeSet::from([key]),
            taken_keys: BTreeSet::from([key]),
            dropped: 0,
            left: 0,
            clears: true,
        }
    }
}
