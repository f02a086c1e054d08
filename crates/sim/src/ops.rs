//! The machine's actions as the simulated dialect carries them out: each a sequence of statements of a
//! session, with scheduling points between and within them.
//!
//! Owns which answer follows from how the statements ended. The statements are in the files below.

mod apply;
mod batch;
mod blocks;
mod copy;
mod floor;
mod prepare;
mod stretches;
mod swap;
mod verify;

pub(crate) use floor::Floor;
use std::collections::BTreeSet;
pub(crate) use swap::{LATE_KEY, renamed};

use underpin_core::key::{Frontier, KeyRange};
use underpin_core::machine::{Action, Applied, Event, Failure, FailureKind};

use self::apply::Takes;
use crate::clockwork::{Ctx, Owner};
use crate::db::{Mark, RowKey, Snapshot, shadow_name};
use crate::fault::Fault;
use crate::losses::Answer;
use crate::session::{Cut, Done, Session, bound};
use crate::world::Message;

/// Begins an action in a session of its own; the answer comes to the runner's inbox.
pub(crate) fn begin(ctx: &Ctx, action: Action) {
    let session = Session::open(ctx);
    ctx.note(|| format!("session {}: {action:?}", session.id));
    ctx.spawn(Owner::Session, async move {
        let result = answered(&session, &action).await;
        let message = match result {
            Ok(event) => Some(Message::Event(event)),
            Err(Cut::Gone) => None,
            Err(Cut::Lost) if may_retry_blindly(&session, &action) => {
                session.ctx.note(|| format!("session {}: sent again, blindly", session.id));
                begin(&session.ctx, action);
                None
            }
            Err(Cut::Lost) => Some(Message::Lost),
            Err(cut) => Some(Message::Event(failed(&session, &action, &cut))),
        };
        if let Some(message) = message {
            session.ctx.note(|| format!("session {}: {message:?}", session.id));
            session.answer(message);
        }
        session.close();
    });
}

/// Begins applying the log beside whatever else runs; nobody waits for it. For
/// `Fault::ApplyDuringChunk`.
pub(crate) fn begin_stray_apply(ctx: &Ctx, frontier: Frontier) {
    let session = Session::open(ctx);
    ctx.note(|| format!("session {}: stray apply up to {frontier:?}", session.id));
    ctx.spawn(Owner::Session, async move {
        // Whatever comes of it: the fault shows in the tables.
        if is_by_blocks(&session) {
            let _ = batch::apply(&session, u64::MAX).await;
        } else {
            let _ = apply::apply(&session, &frontier, Takes::Only(u64::MAX)).await;
        }
        session.close();
    });
}

fn may_retry_blindly(session: &Session, action: &Action) -> bool {
    session.now(|world| world.has(Fault::RetryBlindly))
        && matches!(action, Action::CopyChunk { .. })
}

/// Carries it out, unless this is an answer to be lost.
async fn answered(session: &Session, action: &Action) -> Done<Event> {
    let answer = session.now(|world| world.losses.next());
    if answer == Answer::NotDone {
        return Err(Cut::Lost);
    }
    let result = carry_out(session, action).await;
    if answer == Answer::Done { result.and(Err(Cut::Lost)) } else { result }
}

/// What the last swap left for later, for a turn that is about to be taken.
pub(crate) async fn arrive(session: &Session) -> Done<Event> {
    carry_out(session, &Action::Arrive).await
}

/// Removes what is not live although a turn was only to be left; for a fault.
pub(crate) async fn remove_other(session: &Session) -> Done<()> {
    session.define(|world| world.db.drop_table(shadow_name(session.way))).await
}

fn is_by_blocks(session: &Session) -> bool {
    session.now(|world| world.db.heaps.is_some())
}

async fn carry_out(session: &Session, action: &Action) -> Done<Event> {
    if is_by_blocks(session) {
        return carry_out_by_blocks(session, action).await;
    }
    match action {
        Action::Prepare => prepare::prepare(session).await,
        Action::PlanRound { after, chunk_rows, chunks_max } => {
            copy::plan(session, after.as_ref(), *chunk_rows, *chunks_max, true).await
        }
        Action::PlanVerify { after, range_rows, ranges_max } => {
            copy::plan(session, after.as_ref(), *range_rows, *ranges_max, false).await
        }
        Action::CopyChunk { round, chunk } => copy::chunk(session, *round, chunk).await,
        Action::CopyWithPending { round, chunk, frontier } => {
            apply::copy_with_pending(session, *round, chunk, frontier).await
        }
        Action::Apply { frontier, keys_max, clears } => {
            let takes = if *clears { Takes::Oldest(*keys_max) } else { Takes::Only(*keys_max) };
            let applied = apply::apply(session, frontier, takes).await?;
            Ok(Event::Applied(applied))
        }
        Action::Settle | Action::Tidy | Action::CancelTidy => {
            Err(Cut::Nonsense("this flow has no such step".to_owned()))
        }
        Action::Arrive => prepare::arrive(session).await,
        Action::BuildIndexes => prepare::build_indexes(session).await,
        Action::VerifyRange { range } => verify::range(session, range).await,
        Action::Repair { range } => verify::repair(session, range).await,
        Action::TrySwap { budget_ms } => swap::try_swap(session, *budget_ms).await,
        Action::Finish => prepare::finish(session).await,
        Action::Abort => prepare::abort(session).await,
        Action::Save(_) | Action::Stop(_) => {
            Err(Cut::Nonsense("the runner does this itself".to_owned()))
        }
    }
}

async fn carry_out_by_blocks(session: &Session, action: &Action) -> Done<Event> {
    match action {
        Action::Prepare => blocks::prepare(session).await,
        Action::PlanRound { after, chunk_rows, chunks_max } => {
            blocks::plan(session, after.as_ref(), *chunk_rows, *chunks_max).await
        }
        Action::PlanVerify { after, range_rows, ranges_max } => {
            copy::plan(session, after.as_ref(), *range_rows, *ranges_max, false).await
        }
        Action::CopyChunk { round, chunk } => blocks::chunk(session, *round, chunk).await,
        Action::Apply { keys_max, .. } => {
            Ok(Event::Applied(batch::apply(session, *keys_max).await?))
        }
        Action::Settle => blocks::settle(session).await,
        Action::BuildIndexes => blocks::build_indexes(session).await,
        Action::VerifyRange { range } => verify::range(session, range).await,
        Action::Repair { range } => verify::repair(session, range).await,
        Action::Tidy => blocks::tidy(session).await,
        Action::TrySwap { budget_ms } => batch::try_swap(session, *budget_ms).await,
        Action::Finish => blocks::finish(session).await,
        Action::Abort => blocks::abort(session).await,
        Action::Arrive => blocks::arrive(session).await,
        Action::CopyWithPending { .. } | Action::CancelTidy | Action::Save(_) | Action::Stop(_) => {
            Err(Cut::Nonsense(format!("{action:?} is not to be carried out here")))
        }
    }
}

/// The event for statements that ended early, where the server certainly did nothing.
fn failed(session: &Session, action: &Action, cut: &Cut) -> Event {
    let why = format!("{cut:?}");
    let index = match action {
        Action::CopyChunk { chunk, .. } | Action::CopyWithPending { chunk, .. } => {
            Some(chunk.index)
        }
        Action::VerifyRange { range } => Some(range.index),
        _ => None,
    };
    match (cut, action, index) {
        (Cut::Clash(..), Action::CopyChunk { .. }, Some(index))
            if !session.now(|world| world.has(Fault::ClashIsViolation)) =>
        {
            session.now(|world| world.counts.clashes += 1);
            return Event::ChunkClashed { index };
        }
        (Cut::RolledBack(_), _, Some(index)) => return Event::ChunkRolledBack { index, why },
        (Cut::RolledBack(_), Action::Apply { .. }, _) => return Event::ApplyRolledBack { why },
        (
            Cut::LockNotHad | Cut::RolledBack(_),
            Action::Prepare
            | Action::TrySwap { .. }
            | Action::Arrive
            | Action::Finish
            | Action::Abort,
            _,
        ) => {
            session.now(|world| {
                world.counts.locks_not_had += 1;
                world.met.lock_not_had = true;
            });
            return Event::LockNotHad { why };
        }
        _ => {}
    }
    let kind = match cut {
        Cut::Clash(clash, no) => {
            session.now(|world| match action {
                Action::BuildIndexes if world.db.heaps.is_some() => {
                    world.checker.clash_of_settled(*clash);
                }
                Action::BuildIndexes => world.checker.clash_of_some_time(*clash),
                _ => world.checker.clash(*clash, *no),
            });
            FailureKind::Violation
        }
        Cut::Unfit(key, no) => {
            session.now(|world| world.checker.unfit(*key, *no, session.way));
            FailureKind::Violation
        }
        Cut::Truncated => {
            session.now(|world| world.counts.truncated += 1);
            FailureKind::Truncated
        }
        Cut::SourceChanged => FailureKind::SourceChanged,
        _ => FailureKind::Other,
    };
    let failure = Failure { kind, message: why };
    match index {
        _ if *action == Action::Tidy => Event::TidyFailed(failure),
        Some(index) => Event::ChunkFailed { index, failure },
        None => Event::Failed(failure),
    }
}

/// A stretch of keys as the server reads it.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    after: Option<RowKey>,
    up_to: Option<RowKey>,
}

impl Stretch {
    fn read(range: &KeyRange) -> Done<Self> {
        Ok(Self { after: bound(range.after.as_ref())?, up_to: bound(range.up_to.as_ref())? })
    }

    fn has(self, key: RowKey) -> bool {
        self.after.is_none_or(|after| key > after) && self.up_to.is_none_or(|up_to| key <= up_to)
    }

    /// Between blocks the lower bound is part of the stretch, the upper one is not.
    fn has_block(self, block: u64) -> bool {
        let block = block.cast_signed();
        self.after.is_none_or(|after| block >= after)
            && self.up_to.is_none_or(|up_to| block < up_to)
    }

    fn mark(self, round: u64, index: u32, rows: usize) -> Mark {
        let rows = u64::try_from(rows).unwrap_or(u64::MAX);
        Mark { round, index, after: self.after, up_to: self.up_to, rows }
    }
}

/// The entries of a snapshot that count as pending, in the order of their ids.
fn pending_of(session: &Session, snapshot: &Snapshot) -> Done<Vec<(u64, RowKey)>> {
    let log = snapshot.log.as_ref().ok_or(Cut::Missing("change log"))?;
    let entry_last = session
        .now(|world| if world.has(Fault::ConsumeByLastId) { world.db.store.entry_last } else { 0 });
    Ok(log.iter().filter(|(id, _)| **id > entry_last).map(|(id, key)| (*id, *key)).collect())
}

/// The keys that are pending in a snapshot.
fn pending_keys(session: &Session, snapshot: &Snapshot) -> Done<BTreeSet<RowKey>> {
    if is_by_blocks(session) {
        return batch::pending_keys(session, snapshot);
    }
    Ok(pending_of(session, snapshot)?.into_iter().map(|(_, key)| key).collect())
}

/// Milliseconds since then.
fn took_ms(session: &Session, since_us: u64) -> u64 {
    session.now(|world| world.now_us.saturating_sub(since_us) / 1000)
}

/// What was applied, added up over several batches.
fn add(sum: &mut Applied, batch: &Applied) {
    sum.entries += batch.entries;
    sum.keys += batch.keys;
    sum.dropped += batch.dropped;
    sum.left = batch.left;
}
