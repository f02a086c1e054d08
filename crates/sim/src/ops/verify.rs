//! Comparing source and shadow in one snapshot, and logging what differs.

use std::collections::BTreeSet;

use underpin_core::key::Chunk;
use underpin_core::machine::Event;

use super::batch::source_rows;
use super::blocks::check_source;
use super::{Stretch, is_by_blocks, pending_keys, took_ms};
use crate::checker::About;
use crate::db::{RowKey, SOURCE};
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
    let snapshot = session.now(|world| world.db.snapshot());
    session.work().await?;
    // Where a transaction is one snapshot, that is older than the lock on what it reads.
    session.share(SOURCE).await?;
    let shadow = snapshot.shadow.as_ref().ok_or(Cut::Missing("shadow"))?;
    let pending = pending_keys(session, &snapshot)?;
    let source = source_rows(session, &snapshot);
    let in_source = source.keys().filter(|key| stretch.has(**key));
    let rows = u64::try_from(in_source.clone().count()).unwrap_or(u64::MAX);
    session.statement().await?;
    let in_shadow = shadow.keys().filter(|key| stretch.has(**key));
    let keys: BTreeSet<RowKey> = in_source.chain(in_shadow).copied().collect();
    let differing = session.now(|world| {
        let differs = |key: &RowKey| {
            let found = shadow.get(key);
            let wanted = source.get(key).map(|row| {
                let draw = found.map_or(0, |row| row.draw);
                world.db.image(*key, *row, draw).ok()
            });
            !pending.contains(key) && wanted != found.copied().map(Some)
        };
        keys.into_iter().filter(differs).collect::<Vec<RowKey>>()
    });
    session.work().await?;
    if is_by_blocks(session) && !differing.is_empty() {
        session.now(|world| check_source(world))?;
    }
    Ok((rows, differing))
}

/// Logs the keys of the range that differ.
pub(super) async fn repair(session: &Session, range: &Chunk) -> Done<Event> {
    // Bounded: the server rolls back a limited number of commits.
    loop {
        let (_, differing) = compare(session, range).await?;
        for key in &differing {
            session.write(0, |db| db.append(session.id, *key)).await?;
        }
        session.statement().await?;
        match session.commit(About::default()).await {
            Err(Cut::RolledBack(_)) => session.now(|world| world.db.roll_back(session.id)),
            other => {
                other?;
                session.now(|world| world.counts.repairs += 1);
                let snapshot = session.now(|world| world.db.snapshot());
                let backlog = pending_keys(session, &snapshot)?.len();
                return Ok(Event::Repaired {
                    keys: u64::try_from(differing.len()).unwrap_or(u64::MAX),
                    backlog: u64::try_from(backlog).unwrap_or(u64::MAX),
                });
            }
        }
    }
}
