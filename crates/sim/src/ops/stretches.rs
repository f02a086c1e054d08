//! Where tables are heaps: a log that is too long for one transaction. Its keys are noted as to do, a
//! stretch of the log in each transaction; what is taken by that is told by a snapshot from before the
//! first one.

use std::collections::BTreeSet;

use super::batch::pending_in;
use super::blocks::{heaps, take_out, xids};
use crate::checker::About;
use crate::db::RowKey;
use crate::fault::Fault;
use crate::session::{Done, Session};

/// Pending entries that one transaction takes at once.
const ENTRIES_AT_ONCE: usize = 8;

/// Places of the log in a stretch.
const STRETCH: u64 = 5;

/// Makes what is pending keys that are to do, where it is too much for one transaction. `takes_out`: their
/// rows go from the shadow as well. Returns the entries taken.
pub(super) async fn shorten(session: &Session, takes_out: bool) -> Done<u64> {
    session.statement().await?;
    // First the snapshot, then the log's end: what the one sees stands before the other.
    let (snapshot, mut seen) = session.now(|world| (world.db.snapshot(session.way), xids(world)));
    let end = session.now(|world| world.db.log_end());
    let pending = pending_in(session, &snapshot)?;
    if pending.len() <= ENTRIES_AT_ONCE {
        return Ok(0);
    }
    let mut noted = BTreeSet::new();
    let mut from = pending.iter().map(|(id, _)| *id).fold(end, std::cmp::min);
    while from < end {
        noted.extend(note(session, from, takes_out).await?);
        from += STRETCH;
    }
    session.statement().await?;
    if session.now(|world| world.has(Fault::BoundaryLate)) {
        seen = session.now(|world| xids(world));
    }
    let snapshot = session.snapshot();
    let log = heaps(&snapshot)?.log(snapshot.of).entries;
    // What came later was noted too, and stays pending.
    let taken: Vec<u64> = log
        .iter()
        .filter(|entry| noted.contains(&entry.id) && seen.sees(entry.xid))
        .map(|entry| entry.id)
        .collect();
    let count = u64::try_from(taken.len()).unwrap_or(u64::MAX);
    session.now(|world| {
        world.db.consume(session.id, taken);
        world.db.advance(session.id, session.source(), seen);
    });
    session.commit(About { snapshot_no: snapshot.no, ..About::default() }).await?;
    Ok(count)
}

/// Notes the keys of one stretch in a transaction of its own; returns the entries.
async fn note(session: &Session, from: u64, takes_out: bool) -> Done<Vec<u64>> {
    session.statement().await?;
    let snapshot = session.snapshot();
    let mut entries = pending_in(session, &snapshot)?;
    entries.retain(|(id, _)| (from..from + STRETCH).contains(id));
    let keys: BTreeSet<RowKey> = entries.iter().map(|(_, key)| *key).collect();
    session.work().await?;
    if takes_out {
        take_out(session, &snapshot, &keys, None).await?;
    }
    session.now(|world| world.db.add_to_do(session.id, session.source(), keys));
    session.work().await?;
    session.commit(About { snapshot_no: snapshot.no, ..About::default() }).await?;
    Ok(entries.into_iter().map(|(id, _)| id).collect())
}
