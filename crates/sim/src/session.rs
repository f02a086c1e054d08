//! A session of ours on the server: where a statement begins, how long it lasts, how a commit goes
//! through or is lost.
//!
//! A client that is gone ends its session before the next statement; the statement under way goes on
//! in the server for a while. A commit that was sent cannot be called back.

use underpin_core::key::{Frontier, Key};
use underpin_core::way::Way;

use crate::checker::About;
use crate::clockwork::{Ctx, Owner};
use crate::db::{
    Clash, Definition, Mode, Object, Refusal, RowKey, SessionId, Snapshot, source_of, target_of,
};
use crate::losses::Answer;
use crate::world::{Message, SessionState};

/// Why a sequence of statements did not get to its end.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cut {
    /// Nobody waits for the answer.
    Gone,
    /// The connection broke at a commit; whether it happened is not known to the client.
    Lost,
    /// The server rolled back: deadlock, lock time-out.
    RolledBack(&'static str),
    /// A unique index refused a row, in the snapshot of this commit.
    Clash(Clash, u64),
    /// A value does not fit, in the snapshot of this commit.
    Unfit(RowKey, u64),
    /// A lock on the live table was not had in time.
    LockNotHad,
    /// The source is not what it was.
    SourceChanged,
    /// The log has the marker of a `TRUNCATE`.
    Truncated,
    /// A table of ours is missing.
    Missing(&'static str),
    /// The simulator was asked for something that cannot be, as a key that it did not write.
    Nonsense(String),
}

/// The result of statements.
pub(crate) type Done<T> = Result<T, Cut>;

/// See the module's head.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) ctx: Ctx,
    pub(crate) id: SessionId,
    /// Which way the run goes that it works for.
    pub(crate) way: Way,
}

impl Session {
    /// Opens a session of ours.
    pub(crate) fn open(ctx: &Ctx) -> Self {
        let mut world = ctx.world();
        let id = world.session_id();
        world.sessions.insert(id, SessionState::default());
        let way = world.way;
        drop(world);
        Self { ctx: ctx.clone(), id, way }
    }

    /// The table that is read from.
    pub(crate) fn source(&self) -> Object {
        source_of(self.way)
    }

    /// The table that is written to.
    pub(crate) fn target(&self) -> Object {
        target_of(self.way)
    }

    /// What is committed now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.now(|world| world.db.snapshot(self.way))
    }

    fn state(&self) -> SessionState {
        let state = self.ctx.world().sessions.get(&self.id).copied();
        state.unwrap_or(SessionState { is_gone: true, is_killed: true })
    }

    /// Ends the session: what it did not commit is undone, its locks are gone.
    pub(crate) fn close(&self) {
        let mut world = self.ctx.world();
        world.db.end_session(self.id);
        world.sessions.remove(&self.id);
        world.woken.push(Owner::Director);
    }

    /// The client sends the next statement, if it still is there.
    pub(crate) async fn statement(&self) -> Done<()> {
        self.ctx.step().await;
        if self.state().is_gone { Err(Cut::Gone) } else { Ok(()) }
    }

    /// The statement takes its time.
    pub(crate) async fn work(&self) -> Done<()> {
        let delay_us = self.now(|world| {
            let ours_us = world.scenario.our_step_us;
            world.latency_us() + world.dice.below(ours_us)
        });
        self.ctx.pause(delay_us).await;
        if self.state().is_killed { Err(Cut::Gone) } else { Ok(()) }
    }

    /// The statement waits for a lock.
    async fn wait(&self) -> Done<()> {
        self.ctx.wait().await;
        if self.state().is_killed { Err(Cut::Gone) } else { Ok(()) }
    }

    /// Does something in one instant.
    pub(crate) fn now<T>(&self, what: impl FnOnce(&mut crate::world::World) -> T) -> T {
        what(&mut self.ctx.world())
    }

    /// Writes a row, waiting for locks as long as it takes.
    pub(crate) async fn write<T>(
        &self,
        snapshot_no: u64,
        mut attempt: impl FnMut(&mut crate::db::Db) -> Result<T, Refusal>,
    ) -> Done<T> {
        loop {
            let result = attempt(&mut self.ctx.world().db);
            match result {
                Ok(value) => return Ok(value),
                // Bounded: whoever holds the lock ends, and a circle is a deadlock.
                Err(Refusal::Wait) => self.wait().await?,
                Err(Refusal::Deadlock) => return Err(Cut::RolledBack("deadlock")),
                Err(Refusal::Clash(clash)) => return Err(Cut::Clash(clash, snapshot_no)),
                Err(Refusal::Unfit(key)) => return Err(Cut::Unfit(key, snapshot_no)),
                Err(Refusal::NoLog) => return Err(Cut::Missing("change log")),
                Err(Refusal::NoTable | Refusal::Fenced) => return Err(Cut::Missing("table")),
            }
        }
    }

    /// Commits, and gets the answer or loses it.
    pub(crate) async fn commit(&self, about: About) -> Done<()> {
        self.statement().await?;
        if self.is_rolled_back_instead() {
            return Err(Cut::RolledBack("lock wait time-out"));
        }
        let (lost_before, lost_after) = self.now(|world| {
            let lost =
                world.budget.lost > 0 && world.dice.percent(world.scenario.chaos.lost_percent);
            if lost {
                world.budget.lost -= 1;
                world.counts.lost += 1;
            }
            let before = lost && world.dice.percent(50);
            match world.losses.next() {
                Answer::Heard => (before, lost && !before),
                Answer::NotDone => (true, false),
                Answer::Done => (false, true),
            }
        });
        if lost_before {
            self.ctx.note(|| format!("session {}: connection lost before its commit", self.id));
            return Err(Cut::Lost);
        }
        // On its way: from here on nobody can call it back.
        self.ctx.step().await;
        self.now(|world| {
            let commit = world.db.commit(self.id);
            world.has_committed = true;
            world.note(|| {
                format!(
                    "session {}: commit {} (shadow {:?}, log -{:?}, marks {:?}{})",
                    self.id,
                    commit.no,
                    commit.shadow_puts,
                    commit.entries_gone,
                    commit.marks.iter().map(|mark| (mark.round, mark.index)).collect::<Vec<_>>(),
                    if commit.checkpoint.is_some() { ", checkpoint" } else { "" }
                )
            });
            world.checker.committed(&commit, about);
            if matches!(commit.definition, Some(Definition::Swap(_))) {
                crate::ops::renamed(world);
            }
        });
        self.ctx.step().await;
        if lost_after {
            self.ctx.note(|| format!("session {}: answer lost after its commit", self.id));
            return Err(Cut::Lost);
        }
        if self.state().is_gone { Err(Cut::Gone) } else { Ok(()) }
    }

    fn is_rolled_back_instead(&self) -> bool {
        self.now(|world| {
            let percent = world.scenario.chaos.rolled_back_percent;
            let unlucky = world.budget.rolled_back > 0 && world.dice.percent(percent);
            if unlucky {
                world.budget.rolled_back -= 1;
                world.counts.rolled_back += 1;
            }
            unlucky
        })
    }

    /// A definition statement: it happens in an instant, for good.
    pub(crate) async fn define<T>(
        &self,
        what: impl FnOnce(&mut crate::world::World) -> T,
    ) -> Done<T> {
        self.statement().await?;
        self.work().await?;
        let answer = self.now(|world| world.losses.next());
        if answer == Answer::NotDone {
            return Err(Cut::Lost);
        }
        let value = self.now(what);
        self.ctx.step().await;
        if answer == Answer::Done {
            return Err(Cut::Lost);
        }
        if self.state().is_gone { Err(Cut::Gone) } else { Ok(value) }
    }

    /// Uses a table: waits behind whoever has asked for it alone.
    pub(crate) async fn share(&self, name: &'static str) -> Done<()> {
        while !self.now(|world| world.db.name_locks.ask(self.id, name, Mode::Shared)) {
            self.wait().await?;
        }
        Ok(())
    }

    /// Locks a table against everybody else, within the lock time-out.
    pub(crate) async fn lock(&self, name: &'static str, timeout_us: u64) -> Done<()> {
        let until_us = self.now(|world| world.now_us) + timeout_us;
        while !self.now(|world| world.db.name_locks.ask(self.id, name, Mode::Exclusive)) {
            if self.now(|world| world.now_us) >= until_us {
                self.now(|world| {
                    world.db.name_locks.withdraw(self.id, name);
                    let holders = world.db.name_locks.holders(name, self.id);
                    world.note(|| format!("session {}: no lock, held by {holders:?}", self.id));
                });
                return Err(Cut::LockNotHad);
            }
            if let Err(cut) = self.wait().await {
                self.now(|world| world.db.name_locks.withdraw(self.id, name));
                return Err(cut);
            }
        }
        Ok(())
    }

    /// Lets go of all tables.
    pub(crate) fn unlock(&self) {
        self.now(|world| world.db.name_locks.release(self.id));
    }

    /// Gives the runner its answer, unless nobody waits for it.
    pub(crate) fn answer(&self, message: Message) {
        if !self.state().is_gone {
            self.now(|world| world.tell(message));
        }
    }
}

/// Keys as the machine carries them: their text says nothing about their order.
pub(crate) fn to_key(key: RowKey) -> Key {
    Key(vec![format!("k{:016x}", key.cast_unsigned() ^ SCRAMBLE)])
}

const SCRAMBLE: u64 = 0x5bd1_e995_9e37_79b9;

/// The server reads a key.
pub(crate) fn from_key(key: &Key) -> Done<RowKey> {
    let digits = match key.0.as_slice() {
        [text] => text.strip_prefix('k'),
        _ => None,
    };
    let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let nonsense = || Cut::Nonsense(format!("{key:?} is no key of ours"));
    number.map(|number| (number ^ SCRAMBLE).cast_signed()).ok_or_else(nonsense)
}

/// A line of the event log with keys as numbers.
pub(crate) fn readable(text: &str) -> String {
    const BEFORE: &str = "Key([\"";
    const AFTER: &str = "\"])";
    let mut parts = text.split(BEFORE);
    let mut line = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let key = part.split_once(AFTER).and_then(|(key, rest)| {
            from_key(&Key(vec![key.to_owned()])).ok().map(|number| (number, rest))
        });
        match key {
            Some((number, rest)) => {
                line.push_str(&number.to_string());
                line.push_str(rest);
            }
            None => {
                line.push_str(BEFORE);
                line.push_str(part);
            }
        }
    }
    line
}

/// A bound that may be open.
pub(crate) fn bound(key: Option<&Key>) -> Done<Option<RowKey>> {
    key.map(from_key).transpose()
}

/// Whether the server places the key beyond the frontier.
pub(crate) fn is_beyond(frontier: &Frontier, key: RowKey) -> Done<bool> {
    Ok(match frontier {
        Frontier::Start => true,
        Frontier::At(at) => key > from_key(at)?,
        Frontier::End => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_their_spelling_and_are_read_by_people() {
        for key in [i64::MIN, -7, 0, 7, i64::MAX] {
            assert_eq!(from_key(&to_key(key)), Ok(key));
        }
        assert!(from_key(&Key(vec!["7".into()])).is_err());
        let range = Some((to_key(-7), to_key(12)));
        assert_eq!(readable(&format!("{range:?}")), "Some((-7, 12))");
    }
}
