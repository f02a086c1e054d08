//! Applying the log: one snapshot of entries and source, then the shadow's rows of all pending keys are
//! made equal, and the entries are deleted by id.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use underpin_core::key::{Chunk, Frontier};
use underpin_core::machine::{Applied, Event};
use underpin_core::way::Way;

use super::{Stretch, pending_of, took_ms};
use crate::checker::About;
use crate::db::{Db, Refusal, Row, RowKey, Rows, SOURCE, Snapshot};
use crate::fault::Fault;
use crate::session::{Cut, Done, Session, bound, is_beyond};
use crate::world::World;

/// What one statement has read: the pending entries, and the rows that their keys mean now.
pub(super) struct Stage {
    pub(super) snapshot_no: u64,
    pub(super) source: Rc<Rows>,
    /// Entries that are consumed: id and key.
    pub(super) taken: Vec<(u64, RowKey)>,
    /// Keys whose rows are deleted from the shadow.
    pub(super) all_keys: BTreeSet<RowKey>,
    /// Keys whose rows are written.
    pub(super) taken_keys: BTreeSet<RowKey>,
    pub(super) dropped: u64,
    pub(super) left: u64,
    /// The rows of all keys that were not taken are deleted.
    pub(super) clears: bool,
}

/// Which entries an application takes.
#[derive(Clone, Copy)]
pub(super) enum Takes {
    /// So many of the oldest, and a quarter of all at least; the rows of all others are removed until
    /// they are taken too.
    Oldest(u64),
    /// So many of the oldest; the others are not touched.
    Only(u64),
}

/// One application of pending entries.
pub(super) async fn apply(session: &Session, frontier: &Frontier, takes: Takes) -> Done<Applied> {
    let began_us = session.now(|world| world.now_us);
    session.statement().await?;
    let is_closed = session.now(|world| {
        let is_hasty = world.has(Fault::FloorTooEarly);
        let World { floor, db, .. } = world;
        floor.look(db, is_hasty)
    });
    let mut staged = stage_and_write(session, frontier, takes).await;
    if let (Takes::Only(entries_max), Err(Cut::Clash(..))) = (takes, &staged)
        && session.now(|world| !world.has(Fault::BatchOnly))
    {
        // It may be the value of a row whose own change is pending and was not taken.
        session.now(|world| world.db.roll_back(session.id));
        staged = stage_and_write(session, frontier, Takes::Oldest(entries_max)).await;
    }
    let stage = staged?;
    let applied = stage.applied();
    session.statement().await?;
    consume(session, &stage);
    session.now(|world| {
        if let (Some(ours), Some((high, _))) = (world.db.txn_no(session.id), stage.taken.last()) {
            world.floor.propose(*high, ours);
        }
    });
    session.work().await?;
    session.commit(About { snapshot_no: stage.snapshot_no, ..About::default() }).await?;
    if is_closed {
        let taken_to = stage.taken.last().map_or(0, |(id, _)| *id);
        let through = if applied.left == 0 { u64::MAX } else { taken_to };
        session.now(|world| world.floor.emptied(through));
    }
    Ok(Applied { took_ms: took_ms(session, began_us), ..applied })
}

/// One try: the stage is read, and the shadow's rows are made equal to it.
async fn stage_and_write(session: &Session, frontier: &Frontier, takes: Takes) -> Done<Stage> {
    session.statement().await?;
    session.share(SOURCE).await?;
    let mut stage = read(session, frontier, takes).await?;
    session.work().await?;
    write(session, &mut stage).await?;
    Ok(stage)
}

/// A chunk together with everything pending, in one snapshot and one transaction.
pub(super) async fn copy_with_pending(
    session: &Session,
    round: u64,
    chunk: &Chunk,
    frontier: &Frontier,
) -> Done<Event> {
    let began_us = session.now(|world| world.now_us);
    let stretch = Stretch::read(&chunk.range)?;
    session.statement().await?;
    session.share(SOURCE).await?;
    let mut stage = read(session, frontier, Takes::Oldest(u64::MAX)).await?;
    let applied = stage.applied();
    let chunk_keys: BTreeSet<RowKey> =
        stage.source.keys().filter(|key| stretch.has(**key)).copied().collect();
    let mark = stretch.mark(round, chunk.index, chunk_keys.len());
    stage.all_keys.extend(&chunk_keys);
    stage.taken_keys.extend(&chunk_keys);
    session.work().await?;
    write(session, &mut stage).await?;
    session.statement().await?;
    consume(session, &stage);
    session.statement().await?;
    session.now(|world| world.db.mark(session.id, mark));
    let round_end = match frontier {
        Frontier::At(key) => bound(Some(key))?,
        Frontier::Start | Frontier::End => None,
    };
    let about =
        About { snapshot_no: stage.snapshot_no, redo_to: Some(round_end), ..About::default() };
    session.commit(about).await?;
    let took_ms = took_ms(session, began_us);
    let applied = Some(Applied { took_ms, ..applied });
    Ok(Event::ChunkCopied { index: chunk.index, rows: mark.rows, took_ms, applied })
}

impl Stage {
    fn applied(&self) -> Applied {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        Applied {
            entries: count(self.taken.len()),
            keys: count(self.taken_keys.len()),
            dropped: self.dropped,
            left: self.left,
            cleared: self.clears || self.left == 0,
            took_ms: 0,
        }
    }
}

/// Fills the stage, in one snapshot.
async fn read(session: &Session, frontier: &Frontier, takes: Takes) -> Done<Stage> {
    let (snapshot, source) = snapshots(session).await?;
    let floor = session.now(|world| world.floor.id);
    let mut pending = pending_of(session, &snapshot)?;
    pending.retain(|(id, _)| *id >= floor);
    source.shadow.as_ref().ok_or(Cut::Missing("shadow"))?;
    let taken_max = session.now(|world| takes.most(pending.len(), world));
    let mut stage = Stage {
        snapshot_no: std::cmp::max(snapshot.no, source.no),
        source: source.source,
        taken: pending.iter().take(taken_max).copied().collect(),
        all_keys: BTreeSet::new(),
        taken_keys: BTreeSet::new(),
        dropped: 0,
        left: u64::try_from(pending.len().saturating_sub(taken_max)).unwrap_or(u64::MAX),
        clears: matches!(takes, Takes::Oldest(_)),
    };
    for (at, (_, key)) in pending.iter().enumerate() {
        let is_taken = at < taken_max;
        if is_beyond(frontier, *key)? {
            stage.dropped += u64::from(is_taken);
            continue;
        }
        if is_taken {
            stage.taken_keys.insert(*key);
        }
        if is_taken || stage.clears {
            stage.all_keys.insert(*key);
        }
    }
    Ok(stage)
}

impl Takes {
    /// How many of so many pending entries are taken at most.
    fn most(self, pending: usize, world: &World) -> usize {
        let entries = |most: u64| usize::try_from(most).unwrap_or(usize::MAX);
        match self {
            Self::Only(most) => entries(most),
            // Rows with a first draw cannot be deleted now and written later: all are taken at once.
            Self::Oldest(_) if world.keeps_draws() && !world.has(Fault::PartsLoseDraws) => {
                usize::MAX
            }
            Self::Oldest(most) => std::cmp::max(entries(most), pending.div_ceil(4)),
        }
    }
}

/// The snapshots of log and source: the same one, unless a fault says otherwise.
async fn snapshots(session: &Session) -> Done<(Snapshot, Snapshot)> {
    let first = session.snapshot();
    let (log_first, source_first) =
        session.now(|world| (world.has(Fault::LogThenSource), world.has(Fault::SourceThenLog)));
    if !log_first && !source_first {
        return Ok((first.clone(), first));
    }
    session.work().await?;
    let second = session.snapshot();
    Ok(if log_first { (first, second) } else { (second, first) })
}

/// Makes the shadow's rows of the stage equal to the source's.
pub(super) async fn write(session: &Session, stage: &mut Stage) -> Done<()> {
    let batch_only = session.now(|world| world.has(Fault::BatchOnly));
    let replaces = session.now(|world| world.has(Fault::Replace));
    let target = session.target();
    let draws_again = session.now(|world| {
        world.has(Fault::DrawAgain)
            || (world.has(Fault::OldColumnAgain) && session.way == Way::Back)
    });
    let ignores = session.now(|world| world.has(Fault::InsertIgnore) && world.db.heaps.is_some());
    let no = stage.snapshot_no;
    let deleted = if batch_only { &stage.taken_keys } else { &stage.all_keys };
    let mut draws = BTreeMap::new();
    session.statement().await?;
    for key in deleted {
        if key % 4 == 0 {
            session.work().await?;
        }
        let key = *key;
        let delete = |db: &mut Db| {
            let old = db.delete(session.id, target, key)?;
            if old.is_some() {
                db.fire_own(session.id, target, key)?;
            }
            Ok(old)
        };
        let old = session.write(no, delete).await?;
        if let Some(old) = old.filter(|_| !draws_again) {
            draws.insert(key, old.draw);
        }
    }
    session.work().await?;
    session.statement().await?;
    for key in &stage.taken_keys {
        if key % 2 == 0 {
            session.work().await?;
        }
        let Some(row) = stage.source.get(key) else { continue };
        if replaces {
            eat(session, *key, *row);
        }
        let written = session
            .write(no, |db| {
                let draw = draws.get(key).copied().unwrap_or_else(|| db.draw());
                let image = shaped(db, session, *key, *row, draw)?;
                db.insert(session.id, target, *key, image)?;
                db.fire_own(session.id, target, *key)
            })
            .await;
        match written {
            Err(Cut::Clash(..)) if ignores => {}
            other => other?,
        }
    }
    session.work().await
}

/// The row of the target's shape.
fn shaped(db: &Db, session: &Session, key: RowKey, row: Row, draw: u64) -> Result<Row, Refusal> {
    match session.way {
        Way::Forward => db.image(key, row, draw),
        Way::Back => db.image_back(key, row, draw),
    }
}

/// Deletes whoever holds a unique value of the row; for `Fault::Replace`.
fn eat(session: &Session, key: RowKey, row: Row) {
    use crate::db::Index;
    session.now(|world| {
        let db = &mut world.db;
        let Ok(image) = shaped(db, session, key, row, 0) else { return };
        let values = image.uniq.map(|uniq| (Index::Uniq, uniq));
        for (index, value) in values.into_iter().chain([(Index::Value, image.value)]) {
            let is_unique = index == Index::Uniq || db.rules.new_unique;
            let holder = db.holder(session.id, session.target(), index, value, key);
            if let Some(holder) = holder.filter(|_| is_unique) {
                // A lock that is not had shows as the clash it would have been.
                let _ = db.delete(session.id, session.target(), holder);
            }
        }
    });
}

/// Deletes the entries that were taken, by id.
fn consume(session: &Session, stage: &Stage) {
    session.now(|world| {
        if world.has(Fault::EntriesByKey) {
            let log = world.db.log(session.source()).cloned().unwrap_or_default();
            let keys: BTreeSet<RowKey> = stage.taken.iter().map(|(_, key)| *key).collect();
            let ids = log.iter().filter(|(_, key)| keys.contains(key)).map(|(id, _)| *id);
            world.db.consume(session.id, ids);
            return;
        }
        if world.has(Fault::ConsumeByLastId)
            && let Some((last, _)) = stage.taken.last()
        {
            world.db.consume_to(session.id, *last);
        }
        world.db.consume(session.id, stage.taken.iter().map(|(id, _)| *id));
    });
}

/// Applies everything pending while nobody else can write, until nothing is left or the time is up.
/// Returns what was applied, and whether the log is empty.
pub(super) async fn drain(session: &Session, until_us: u64) -> Done<(Applied, bool)> {
    let mut sum = Applied::default();
    // Bounded by the time, which passes with every batch.
    loop {
        session.statement().await?;
        let snapshot = session.snapshot();
        if pending_of(session, &snapshot)?.is_empty() {
            return Ok((sum, true));
        }
        if session.now(|world| world.now_us) > until_us {
            return Ok((sum, false));
        }
        let batch = apply(session, &Frontier::End, Takes::Only(DRAIN_ENTRIES)).await;
        match batch {
            Ok(batch) => super::add(&mut sum, &batch),
            Err(Cut::RolledBack(_)) => session.now(|world| world.db.roll_back(session.id)),
            Err(other) => return Err(other),
        }
    }
}

/// Entries of one batch under the lock.
const DRAIN_ENTRIES: u64 = 16;
