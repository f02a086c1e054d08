//! The application: writers that do what hurts most, in every gap.
//!
//! They insert below, around and beyond the frontier, move and swap unique values and keys across it,
//! delete and insert again, roll back, and sometimes leave a transaction open for long. What was
//! acknowledged they report to the checker.

use crate::checker::Change;
use crate::clockwork::{Ctx, Owner};
use crate::db::{AppRow, Mode, Refusal, RowKey, SOURCE, SessionId};
use crate::ops::LATE_KEY;
use crate::report::Invariant;

/// Starts every writer that has transactions left.
pub(crate) fn start(ctx: &Ctx) {
    let count = ctx.world().writers.len();
    for at in 0..count {
        ctx.world().writers_alive += 1;
        let own = ctx.clone();
        ctx.spawn(Owner::Writer, async move {
            work(&own, at).await;
            own.world().writers_alive -= 1;
        });
    }
}

/// Looks after the triggers before a writer begins all the same.
const CAPTURE_LOOKS_MAX: u32 = 100;

async fn work(ctx: &Ctx, at: usize) {
    if ctx.world().scenario.traffic.waits_for_capture {
        for _ in 0..CAPTURE_LOOKS_MAX {
            // One of them begins earlier, so that something straddles the installation.
            if at == 0 || is_captured(ctx) {
                break;
            }
            ctx.wait().await;
        }
    }
    loop {
        let think_us = {
            let mut world = ctx.world();
            match world.writers.get_mut(at) {
                Some(left) if *left > 0 => *left -= 1,
                _ => return,
            }
            let think_us = world.scenario.traffic.think_us;
            // Now and then a burst, now and then a rest.
            match world.dice.below(10) {
                0..=3 => 0,
                4..=8 => world.dice.below(think_us),
                _ => world.dice.below(think_us * 20),
            }
        };
        ctx.pause(think_us).await;
        transaction(ctx).await;
    }
}

/// Whether the live table's changes are captured.
fn is_captured(ctx: &Ctx) -> bool {
    let world = ctx.world();
    world.db.live().is_some_and(|live| world.db.is_captured(live))
}

/// The application goes on: the first writers get more to do, and begin anew where they have ended.
pub(crate) fn go_on(ctx: &Ctx) {
    let count = {
        let mut world = ctx.world();
        let most = u64::try_from(world.writers.len()).unwrap_or(1);
        usize::try_from(world.dice.between(1, most)).unwrap_or(1)
    };
    for at in 0..count {
        {
            let mut world = ctx.world();
            let most = std::cmp::min(world.scenario.traffic.transactions, 25);
            let more = world.dice.between(2, std::cmp::max(most, 4));
            let Some(left) = world.writers.get_mut(at) else { continue };
            let is_at_work = *left > 0;
            *left += more;
            if is_at_work {
                continue;
            }
            world.writers_alive += 1;
        }
        let own = ctx.clone();
        ctx.spawn(Owner::Writer, async move {
            work(&own, at).await;
            own.world().writers_alive -= 1;
        });
    }
}

/// A transaction of the application.
struct Txn {
    ctx: Ctx,
    id: SessionId,
    changes: Vec<Change>,
}

/// Why a transaction was given up: the application's own fault, or the fence.
struct GivenUp;

async fn transaction(ctx: &Ctx) {
    let id = ctx.world().session_id();
    let mut txn = Txn { ctx: ctx.clone(), id, changes: Vec::new() };
    let deeds = 1 + ctx.world().dice.below(3);
    let mut result = Ok(());
    for _ in 0..deeds {
        result = deed_or_savepoint(&mut txn).await;
        if result.is_err() {
            break;
        }
    }
    let (rolls_back, rest_us) = {
        let mut world = ctx.world();
        let traffic = world.scenario.traffic.clone();
        let is_long = world.dice.percent(traffic.long_percent);
        let rest_us = if is_long { world.dice.below(traffic.long_us) } else { 0 };
        (world.dice.percent(traffic.rollback_percent), rest_us)
    };
    ctx.pause(rest_us).await;
    ctx.step().await;
    let mut world = ctx.world();
    let percent = world.scenario.traffic.prepare_percent;
    if result.is_ok() && percent > 0 && world.dice.percent(percent) {
        drop(world);
        return prepare(ctx, txn, rolls_back);
    }
    drop(world);
    end(ctx, &txn, result.is_err() || rolls_back);
}

/// Commits or rolls back, and tells the checker what was acknowledged.
fn end(ctx: &Ctx, txn: &Txn, rolls_back: bool) {
    let id = txn.id;
    let mut world = ctx.world();
    if !rolls_back {
        let no = world.db.commit(id).no;
        world.counts.writes += 1;
        world.note(|| format!("writer {id}: commit {no} {:?}", txn.changes));
        world.checker.acknowledged(no, &txn.changes);
        let crate::world::World { checker, db, .. } = &mut *world;
        checker.live(db, Invariant::SourceUntouched);
    } else {
        world.note(|| format!("writer {id}: rollback"));
    }
    world.db.end_session(id);
}

/// The first phase of a two-phase commit. Whoever is to end the transaction comes later, whatever
/// becomes of its client and of the server meanwhile.
fn prepare(ctx: &Ctx, txn: Txn, rolls_back: bool) {
    let own = ctx.clone();
    let rest_us = {
        let mut world = ctx.world();
        world.db.prepare_transaction(txn.id);
        world.prepared += 1;
        world.counts.prepared += 1;
        world.note(|| format!("writer {}: prepared {:?}", txn.id, txn.changes));
        let is_long = world.dice.percent(20);
        world.dice.below(if is_long { 3_000_000 } else { 200_000 })
    };
    ctx.spawn(Owner::Chaos, async move {
        own.pause(rest_us).await;
        own.step().await;
        end(&own, &txn, rolls_back);
        own.world().prepared -= 1;
    });
}

/// A deed, now and then within a savepoint that may be rolled back to.
async fn deed_or_savepoint(txn: &mut Txn) -> Result<(), GivenUp> {
    let is_within = {
        let mut world = txn.ctx.world();
        let percent = world.scenario.traffic.savepoint_percent;
        percent > 0 && world.dice.percent(percent)
    };
    if !is_within {
        return deed(txn).await;
    }
    let before = txn.changes.len();
    txn.ctx.world().db.savepoint(txn.id);
    let result = deed(txn).await;
    txn.ctx.step().await;
    let mut world = txn.ctx.world();
    if result.is_ok() && world.dice.percent(60) {
        world.db.release_savepoint(txn.id);
        return Ok(());
    }
    world.counts.savepoints += 1;
    world.db.roll_back_to_savepoint(txn.id);
    drop(world);
    txn.changes.truncate(before);
    Ok(())
}

impl Txn {
    /// One statement: opens the table under its name, waits for locks, happens, fires the triggers.
    async fn run<T>(
        &mut self,
        change: Change,
        attempt: impl Fn(&mut crate::db::Db, SessionId, u64) -> Result<T, Refusal>,
    ) -> Result<T, GivenUp> {
        self.ctx.step().await;
        while !self.ctx.world().db.name_locks.ask(self.id, SOURCE, Mode::Shared) {
            self.ctx.wait().await;
        }
        loop {
            let refusal = {
                let mut world = self.ctx.world();
                let now_us = world.now_us;
                match attempt(&mut world.db, self.id, now_us) {
                    Ok(value) => {
                        self.changes.push(change);
                        return Ok(value);
                    }
                    Err(refusal) => refusal,
                }
            };
            let mut world = self.ctx.world();
            match refusal {
                Refusal::Wait => {}
                // Its own fault: a value that is taken, or that the new shape forbids.
                Refusal::Deadlock | Refusal::Clash(_) | Refusal::Unfit(_) => return Err(GivenUp),
                Refusal::Fenced => {
                    world.counts.fenced += 1;
                    return Err(GivenUp);
                }
                Refusal::NoTable => {
                    let what = "a statement met no table under the source's name".to_owned();
                    world.checker.report(Invariant::AtomicSwap, what);
                    return Err(GivenUp);
                }
                Refusal::NoLog => {
                    let what = "a writer's trigger met no change log".to_owned();
                    world.checker.report(Invariant::NoWriterError, what);
                    return Err(GivenUp);
                }
            }
            drop(world);
            self.ctx.wait().await;
        }
    }

    async fn insert(&mut self, key: RowKey, row: AppRow) -> Result<(), GivenUp> {
        self.run(Change::Insert(key, row), |db, id, now_us| db.app_insert(id, now_us, key, row))
            .await
    }

    async fn set_uniq(&mut self, key: RowKey, uniq: Option<i64>) -> Result<(), GivenUp> {
        let change = Change::SetUniq(key, uniq);
        let hit = self.run(change, |db, id, now_us| db.app_set_uniq(id, now_us, key, uniq)).await?;
        self.forget_unless(hit)
    }

    async fn set_value(&mut self, key: RowKey, value: i64) -> Result<(), GivenUp> {
        let change = Change::SetValue(key, value);
        let hit =
            self.run(change, |db, id, now_us| db.app_set_value(id, now_us, key, value)).await?;
        self.forget_unless(hit)
    }

    async fn move_key(&mut self, from: RowKey, to: RowKey) -> Result<(), GivenUp> {
        let change = Change::MoveKey(from, to);
        let hit = self.run(change, |db, id, now_us| db.app_move_key(id, now_us, from, to)).await?;
        self.forget_unless(hit)
    }

    async fn delete(&mut self, key: RowKey) -> Result<(), GivenUp> {
        let change = Change::Delete(key);
        let hit = self.run(change, |db, id, now_us| db.app_delete(id, now_us, key)).await?;
        self.forget_unless(hit)
    }

    fn forget_unless(&mut self, hit: bool) -> Result<(), GivenUp> {
        if !hit {
            self.changes.pop();
        }
        Ok(())
    }

    fn uniq_of(&self, key: RowKey) -> Option<i64> {
        self.ctx.world().db.app_uniq(self.id, key)
    }
}

/// Something that a transaction does.
async fn deed(txn: &mut Txn) -> Result<(), GivenUp> {
    let (one, other) = (pick_key(&txn.ctx), pick_key(&txn.ctx));
    let (uniq, value) = (pick_uniq(&txn.ctx), pick_value(&txn.ctx));
    let (moves, kind) = {
        let mut world = txn.ctx.world();
        let percent = world.scenario.traffic.moves_percent;
        (world.dice.percent(percent), world.dice.below(70))
    };
    if moves {
        return if kind < 42 {
            swap_uniq(txn, one, other).await
        } else {
            pass_on(txn, one, other).await
        };
    }
    match kind {
        0..=17 => {
            let key = new_key(&txn.ctx);
            txn.insert(key, AppRow { uniq, value }).await
        }
        18..=31 => txn.set_value(one, value).await,
        32..=43 => txn.set_uniq(one, uniq).await,
        44..=52 => {
            let to = new_key(&txn.ctx);
            txn.move_key(one, to).await
        }
        53..=62 => txn.delete(one).await,
        _ => {
            let uniq = txn.uniq_of(one);
            txn.delete(one).await?;
            txn.insert(one, AppRow { uniq, value }).await
        }
    }
}

/// A chain: the unique value moves on, often across the frontier.
async fn pass_on(txn: &mut Txn, one: RowKey, other: RowKey) -> Result<(), GivenUp> {
    let moving = txn.uniq_of(one);
    txn.set_uniq(one, None).await?;
    txn.set_uniq(other, moving).await
}

/// Two rows swap their unique values within one transaction.
async fn swap_uniq(txn: &mut Txn, one: RowKey, other: RowKey) -> Result<(), GivenUp> {
    if one == other {
        return Ok(());
    }
    let (first, second) = (txn.uniq_of(one), txn.uniq_of(other));
    txn.set_uniq(one, None).await?;
    txn.set_uniq(other, first).await?;
    txn.set_uniq(one, second).await
}

/// Where the copy is now: the greatest key of a chunk that is done.
fn frontier(ctx: &Ctx) -> Option<RowKey> {
    ctx.world().db.store.marks.iter().filter_map(|mark| mark.up_to).max()
}

/// A key that probably exists: any, or one around the frontier.
fn pick_key(ctx: &Ctx) -> RowKey {
    let frontier = frontier(ctx);
    let mut world = ctx.world();
    let keys = world.db.app_keys();
    let near = world.dice.percent(40);
    match frontier.filter(|_| near) {
        Some(at) => {
            let offset = world.dice.signed(-6, 6);
            keys.iter().copied().find(|key| *key >= at + offset).unwrap_or(at)
        }
        None => world.dice.pick(&keys).unwrap_or(0),
    }
}

/// A key that probably does not exist: below all, beyond all, around the frontier, in between.
fn new_key(ctx: &Ctx) -> RowKey {
    let frontier = frontier(ctx).filter(|at| *at < LATE_KEY);
    let mut world = ctx.world();
    // A late row's key is nobody else's, also where the next key is sought beyond all others.
    let keys: Vec<RowKey> = world.db.app_keys().into_iter().filter(|key| *key < LATE_KEY).collect();
    let (least, greatest) = (keys.first().copied().unwrap_or(0), keys.last().copied().unwrap_or(0));
    match (world.dice.below(4), frontier) {
        (0, _) => least - world.dice.signed(1, 3),
        (1, _) => greatest + world.dice.signed(1, 3),
        (2, Some(at)) => at + world.dice.signed(-4, 4),
        _ => world.dice.signed(least, greatest),
    }
}

fn pick_uniq(ctx: &Ctx) -> Option<i64> {
    let mut world = ctx.world();
    world.dice.percent(85).then(|| world.dice.signed(0, 130))
}

fn pick_value(ctx: &Ctx) -> i64 {
    let mut world = ctx.world();
    let fits = world.scenario.rules.fit_max.filter(|_| !world.scenario.traffic.violates);
    let outgrows = world.scenario.outgrows && world.dice.percent(6);
    let most = fits.unwrap_or(if outgrows { 160 } else { 145 });
    world.dice.signed(0, most)
}
