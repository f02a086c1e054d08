//! Planning rounds and copying chunks.

use underpin_core::key::{Chunk, Key, KeyRange};
use underpin_core::machine::Event;
use underpin_core::way::Way;

use super::{Stretch, took_ms};
use crate::checker::About;
use crate::db::{Object, RowKey, SOURCE};
use crate::fault::Fault;
use crate::session::{Cut, Done, Session, bound, to_key};

/// Finds the bounds of chunks, each with a statement and so a snapshot of its own.
pub(super) async fn plan(
    session: &Session,
    after: Option<&Key>,
    chunk_rows: u64,
    chunks_max: u32,
    is_checked: bool,
) -> Done<Event> {
    if is_checked {
        session.statement().await?;
        check_source(session)?;
    }
    let open_end = session.now(|world| world.scenario.open_end);
    let mut after = bound(after)?;
    let mut chunks = Vec::new();
    let mut is_last = false;
    for index in 0..chunks_max {
        session.statement().await?;
        let (up_to, greatest) = next_bound(session, after, chunk_rows);
        is_last = up_to.is_none();
        // Where the end is closed, what lies beyond the last row is left to the next plan, which finds
        // nothing there.
        let up_to = if is_last && !open_end { greatest } else { up_to };
        if is_last && !open_end && up_to.is_none() {
            break;
        }
        let range = KeyRange { after: after.map(to_key), up_to: up_to.map(to_key) };
        chunks.push(Chunk { index, range });
        after = up_to;
        if is_last {
            break;
        }
    }
    session.work().await?;
    Ok(Event::RoundPlanned { chunks, last: is_last })
}

/// The key `rows` places behind `after`, and the greatest key behind it.
fn next_bound(
    session: &Session,
    after: Option<RowKey>,
    rows: u64,
) -> (Option<RowKey>, Option<RowKey>) {
    let source = session.snapshot().source;
    let behind = Stretch { after, up_to: None };
    let at = usize::try_from(rows.saturating_sub(1)).unwrap_or(usize::MAX);
    let bound = source.keys().filter(|key| behind.has(**key)).nth(at).copied();
    let greatest = source.keys().next_back().filter(|key| behind.has(**key)).copied();
    (bound, greatest)
}

/// The identity check.
pub(super) fn check_source(session: &Session) -> Done<()> {
    let is_same = session.now(|world| {
        world.has(Fault::NoIdentityCheck)
            || (world.has(Fault::NoIdentityCheckBack) && session.way == Way::Back)
            || world.db.is_source_unchanged(session.source())
    });
    if is_same { Ok(()) } else { Err(Cut::SourceChanged) }
}

/// `INSERT INTO shadow SELECT … FROM source WHERE range`, the mark, the commit.
pub(super) async fn chunk(session: &Session, round: u64, chunk: &Chunk) -> Done<Event> {
    let began_us = session.now(|world| world.now_us);
    let stretch = Stretch::read(&chunk.range)?;
    let is_apart = session.now(|world| world.has(Fault::MarkApart));
    session.statement().await?;
    session.share(SOURCE).await?;
    let snapshot = session.snapshot();
    snapshot.shadow.as_ref().ok_or(Cut::Missing("shadow"))?;
    let about = About { snapshot_no: snapshot.no, ..About::default() };
    let rows = snapshot.source.iter().filter(|(key, _)| stretch.has(**key));
    let rows: Vec<_> = rows.map(|(key, row)| (*key, *row)).collect();
    let mut mark = stretch.mark(round, chunk.index, rows.len());
    if is_apart {
        session.now(|world| world.db.mark(session.id, mark));
        session.commit(about).await?;
    }
    // The snapshot is taken; until the rows are in, and until they are committed, others write.
    for (key, row) in &rows {
        if key % 2 == 0 {
            session.work().await?;
        }
        let written = session
            .write(snapshot.no, |db| {
                let draw = db.draw();
                let image = db.image(*key, *row, draw)?;
                db.insert(session.id, Object::Shadow, *key, image)
            })
            .await;
        match written {
            Err(Cut::Clash(..)) if session.now(|world| world.has(Fault::InsertIgnore)) => {
                mark.rows -= 1;
            }
            other => other?,
        }
    }
    session.work().await?;
    session.statement().await?;
    if !is_apart {
        session.now(|world| world.db.mark(session.id, mark));
    }
    session.commit(about).await?;
    let took_ms = took_ms(session, began_us);
    Ok(Event::ChunkCopied { index: chunk.index, rows: mark.rows, took_ms, applied: None })
}
