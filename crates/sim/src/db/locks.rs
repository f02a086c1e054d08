//! Locks of the simulated server: on rows and unique values (held to the end of a transaction, with
//! deadlocks found at once), and metadata locks on names (who wants one alone goes first).

use std::collections::{BTreeMap, BTreeSet};

use super::{Index, Object, RowKey, SessionId};

/// What a row lock is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lock {
    Row(Object, RowKey),
    Value(Object, Index, i64),
}

/// Why a row lock is not had now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Busy {
    /// Somebody else holds it.
    Wait,
    /// Waiting would never end; the asker must roll back.
    Deadlock,
}

/// Row and value locks. All of them are exclusive.
#[derive(Debug, Default)]
pub(crate) struct RowLocks {
    held: BTreeMap<Lock, SessionId>,
    waits: BTreeMap<SessionId, SessionId>,
}

impl RowLocks {
    /// Takes the lock, or says why not.
    pub(crate) fn take(&mut self, session: SessionId, lock: Lock) -> Result<(), Busy> {
        match self.held.get(&lock) {
            Some(holder) if *holder != session => {
                let holder = *holder;
                self.waits.insert(session, holder);
                if self.waits_for(holder, session) {
                    self.waits.remove(&session);
                    return Err(Busy::Deadlock);
                }
                Err(Busy::Wait)
            }
            Some(_) => Ok(()),
            None => {
                self.held.insert(lock, session);
                self.waits.remove(&session);
                Ok(())
            }
        }
    }

    fn waits_for(&self, from: SessionId, target: SessionId) -> bool {
        let mut at = from;
        // Each session waits for one other at most, so the chain is no longer than their number.
        for _ in 0..=self.waits.len() {
            if at == target {
                return true;
            }
            match self.waits.get(&at) {
                Some(next) => at = *next,
                None => return false,
            }
        }
        false
    }

    /// Only these sessions keep what they hold.
    pub(crate) fn keep(&mut self, sessions: &BTreeSet<SessionId>) {
        self.held.retain(|_, holder| sessions.contains(holder));
        self.waits.clear();
    }

    /// Lets go of everything the session holds.
    pub(crate) fn release(&mut self, session: SessionId) {
        self.held.retain(|_, holder| *holder != session);
        self.waits.retain(|waiter, holder| *waiter != session && *holder != session);
    }
}

/// How a name is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// By a transaction that uses the table.
    Shared,
    /// By `LOCK TABLES … WRITE` and by definition statements.
    Exclusive,
}

/// Metadata locks on names.
#[derive(Debug, Default)]
pub(crate) struct NameLocks {
    held: BTreeMap<(&'static str, SessionId), Mode>,
    queue: Vec<(&'static str, SessionId, Mode)>,
}

fn conflict(one: Mode, other: Mode) -> bool {
    one == Mode::Exclusive || other == Mode::Exclusive
}

impl NameLocks {
    /// Asks for the lock; where it is not had the session stays in the queue. True where it is had.
    pub(crate) fn ask(&mut self, session: SessionId, name: &'static str, mode: Mode) -> bool {
        if let Some(held) = self.held.get(&(name, session))
            && (*held == Mode::Exclusive || mode == Mode::Shared)
        {
            return true;
        }
        if !self.is_waiting(session, name) {
            self.queue.push((name, session, mode));
        }
        // Who wants a name alone goes before all who share it; among them the first comes first.
        let me =
            self.queue.iter().position(|(queued, waiter, _)| *queued == name && *waiter == session);
        let ahead = self.queue.iter().enumerate().any(|(at, (queued, waiter, wanted))| {
            *queued == name
                && *waiter != session
                && *wanted == Mode::Exclusive
                && (mode == Mode::Shared || Some(at) < me)
        });
        let taken = self.held.iter().any(|((locked, holder), held)| {
            *locked == name && *holder != session && conflict(*held, mode)
        });
        if ahead || taken {
            return false;
        }
        self.withdraw(session, name);
        self.held.insert((name, session), mode);
        true
    }

    /// Whether the session waits for the name.
    pub(crate) fn is_waiting(&self, session: SessionId, name: &'static str) -> bool {
        self.queue.iter().any(|(queued, waiter, _)| *queued == name && *waiter == session)
    }

    /// Whether the session is the first of those that wait for the name alone.
    pub(crate) fn is_first(&self, session: SessionId, name: &'static str) -> bool {
        self.queue
            .iter()
            .find(|(queued, _, mode)| *queued == name && *mode == Mode::Exclusive)
            .is_some_and(|(_, waiter, _)| *waiter == session)
    }

    /// Whether the session waits for any name.
    pub(crate) fn is_waiting_somewhere(&self, session: SessionId) -> bool {
        self.queue.iter().any(|(_, waiter, _)| *waiter == session)
    }

    /// Gives up waiting.
    pub(crate) fn withdraw(&mut self, session: SessionId, name: &'static str) {
        self.queue.retain(|(queued, waiter, _)| !(*queued == name && *waiter == session));
    }

    /// Only these sessions keep what they hold.
    pub(crate) fn keep(&mut self, sessions: &BTreeSet<SessionId>) {
        self.held.retain(|(_, holder), _| sessions.contains(holder));
        self.queue.clear();
    }

    /// Lets go of everything the session holds or waits for.
    pub(crate) fn release(&mut self, session: SessionId) {
        self.held.retain(|(_, holder), _| *holder != session);
        self.queue.retain(|(_, waiter, _)| *waiter != session);
    }

    /// Who holds the name, apart from the asker.
    pub(crate) fn holders(&self, name: &'static str, asker: SessionId) -> BTreeSet<SessionId> {
        self.held
            .keys()
            .filter(|(locked, holder)| *locked == name && *holder != asker)
            .map(|(_, holder)| *holder)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_of_waiting_is_broken_by_who_closes_it() {
        let mut locks = RowLocks::default();
        let row = |key| Lock::Row(Object::Original, key);
        assert_eq!(locks.take(1, row(1)), Ok(()));
        assert_eq!(locks.take(2, row(2)), Ok(()));
        assert_eq!(locks.take(1, row(2)), Err(Busy::Wait));
        assert_eq!(locks.take(2, row(1)), Err(Busy::Deadlock));
        locks.release(2);
        assert_eq!(locks.take(1, row(2)), Ok(()));
    }

    #[test]
    fn who_comes_after_a_waiting_exclusive_request_waits_behind_it() {
        let mut names = NameLocks::default();
        assert!(names.ask(1, "t", Mode::Shared));
        assert!(!names.ask(2, "t", Mode::Exclusive));
        assert!(!names.ask(3, "t", Mode::Shared), "it must not overtake");
        names.release(1);
        assert!(!names.ask(3, "t", Mode::Shared));
        assert!(names.ask(2, "t", Mode::Exclusive));
        names.release(2);
        assert!(names.ask(3, "t", Mode::Shared));
    }
}
