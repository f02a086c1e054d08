//! Comparing source and shadow in one snapshot, and logging what differs.

use std::collections::BTreeSet;

use underpin_core::key::Chunk;
use underpin_core::machine::Event;
use underpin_core::way::Way;

use super::batch::source_rows;
use super::blocks::check_source;
use super::{Stretch, is_by_blocks, pending_keys, took_ms};
use crate::checker::About;
use crate::db::{Db, Row, RowKey, SOURCE};
use crate::fault::Fault;
use crate::session::{Cut, Done, Session};

/// Compares a range. The snapshot stays the same over all its statements.
pub(super) async fn range(session: &Session, range: &Chunk) -> Done<Event> {
    let began_us = session.now(|world| world.now_us);
    let (rows, differing) = compare(session, range).await?;
    session.statement().await?;
    Ok(Event::RangeVerified {
        index: range.index,
        rows,
        differences: u64::try_from(differing.len()).unwrap_or(u64::MAX),
        samples: differing.iter().take(5).map(|key| format!("id={key}")).collect(),
        took_ms: took_ms(session, began_us),
    })
}

async fn compare(session: &Session, range: &Chunk) -> Done<(u64, Vec<RowKey>)> {
    let stretch = Stretch::read(&range.range)?;
    session.statement().await?;
    if !is_by_blocks(session) {
        session.share(SOURCE).await?;
    }
    let snapshot = session.snapshot();
    session.work().await?;
    // Where a transaction is one snapshot, that is older than the lock on what it reads.
    session.share(SOURCE).await?;
    let shadow = snapshot.shadow.as_ref().ok_or(Cut::Missing("shadow"))?;
    let pending = if session.now(|world| world.has(Fault::WrongLog)) && session.way == Way::Back {
        pending_keys(session, &session.now(|world| world.db.snapshot(Way::Forward)))?
    } else {
        pending_keys(session, &snapshot)?
    };
    let source = source_rows(session, &snapshot);
    let in_source = source.keys().filter(|key| stretch.has(**key));
    let rows = u64::try_from(in_source.clone().count()).unwrap_or(u64::MAX);
    session.statement().await?;
    let in_shadow = shadow.keys().filter(|key| stretch.has(**key));
    let keys: BTreeSet<RowKey> = in_source.chain(in_shadow).copied().collect();
    let differing = session.now(|world| {
        let differs = |key: &RowKey| {
            !pending.contains(key)
                && !is_equal(&world.db, session.way, *key, source.get(key), shadow.get(key))
        };
        keys.into_iter().filter(differs).collect::<Vec<RowKey>>()
    });
    session.work().await?;
    if is_by_blocks(session) && !differing.is_empty() {
        check_source(session)?;
    }
    Ok((rows, differing))
}

/// Whether both tables have the row, converted by the change: whichever way the run goes, the old row is
/// converted and compared with the new one.
fn is_equal(db: &Db, way: Way, key: RowKey, source: Option<&Row>, target: Option<&Row>) -> bool {
    let (old, new) = match way {
        Way::Forward => (source, target),
        Way::Back => (target, source),
    };
    let wanted = old.map(|row| db.image(key, *row, new.map_or(0, |row| row.draw)).ok());
    wanted == new.copied().map(Some)
}

/// Logs the keys of the range that differ.
pub(super) async fn repair(session: &Session, range: &Chunk) -> Done<Event> {
    // Bounded: the server rolls back a limited number of commits.
    loop {
        let (_, differing) = compare(session, range).await?;
        for key in &differing {
            session.write(0, |db| db.append(session.id, session.source(), *key)).await?;
        }
        session.statement().await?;
        match session.commit(About::default()).await {
            Err(Cut::RolledBack(_)) => session.now(|world| world.db.roll_back(session.id)),
            other => {
                other?;
                session.now(|world| world.counts.repairs += 1);
                let snapshot = session.snapshot();
                let backlog = pending_keys(session, &snapshot)?.len();
                return Ok(Event::Repaired {
                    keys: u64::try_from(differing.len()).unwrap_or(u64::MAX),
                    backlog: u64::try_from(backlog).unwrap_or(u64::MAX),
                });
            }
        }
    }
}
