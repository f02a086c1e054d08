//! The keys of one writer: which it may pick, and which are free for certain.
//!
//! Owns who may touch what: each writer has two shops, its number and [`SECOND_SHOP`] above it, so
//! that no two writers ever meet in a row or in a unique value. Does not know the rows: what a
//! statement meets or misses the mirror decides.

use crate::workload::{Dice, Layout};

/// From a writer's first shop, where its loaded rows are, to its second.
const SECOND_SHOP: i64 = 1_000;
/// Keys remembered of each kind.
const REMEMBERED: usize = 4_096;
/// Fresh ids of writer `n` lie below `-n * SPAN`.
const SPAN: i64 = 1_000_000_000;

/// Shop and id.
pub(super) type Key = (i64, i64);

/// What an acknowledged transaction did to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// There may be a row now.
    Taken(Key),
    /// There is none for certain.
    Freed(Key),
}

/// The keys of one writer.
#[derive(Debug)]
pub(super) struct Keys {
    layout: Layout,
    number: i64,
    /// Keys of rows that were written, some of which may be gone.
    recent: Vec<Key>,
    /// Keys that no row has.
    free: Vec<Key>,
    next: i64,
}

impl Keys {
    pub(super) fn new(layout: Layout, number: u16) -> Self {
        let (recent, free) = (Vec::new(), Vec::new());
        Self { layout, number: i64::from(number), recent, free, next: 1 }
    }

    /// The shop into which new rows go.
    pub(super) const fn shop(&self) -> i64 {
        self.number
    }

    /// A key that probably has a row.
    pub(super) fn pick(&self, dice: &mut Dice) -> Key {
        match dice.one_of(&self.recent) {
            Some(key) if dice.below(2) == 0 => key,
            _ => (self.shop(), self.loaded_id(dice)),
        }
    }

    /// A loaded id of this writer's.
    pub(super) fn loaded_id(&self, dice: &mut Dice) -> i64 {
        let writers = i64::from(self.layout.writers);
        let rows = u64::try_from((self.layout.rows - self.number + writers - 1) / writers);
        1 + self.number + writers * i64::try_from(dice.below(rows.unwrap_or(0))).unwrap_or(0)
    }

    /// The id `rows` rows of this writer's further on.
    pub(super) fn after(&self, id: i64, rows: i64) -> i64 {
        id + rows * i64::from(self.layout.writers)
    }

    /// A key that no row has: a new one in either shop, or one that a row left.
    pub(super) fn pick_free(&mut self, dice: &mut Dice) -> Key {
        let count = u64::try_from(self.free.len()).unwrap_or(0);
        if count > 0 && dice.below(2) == 0 {
            let index = usize::try_from(dice.below(count)).unwrap_or(0);
            return self.free.swap_remove(index);
        }
        let shop = self.number + if dice.below(2) == 0 { SECOND_SHOP } else { 0 };
        (shop, self.fresh_id())
    }

    /// The key is no longer free.
    pub(super) fn claim(&mut self, key: Key) {
        self.free.retain(|&free| free != key);
    }

    /// An id that no row ever had.
    pub(super) const fn fresh_id(&mut self) -> i64 {
        -self.number * SPAN - self.fresh_number()
    }

    /// A number that this writer has not used before.
    pub(super) const fn fresh_number(&mut self) -> i64 {
        self.next += 1;
        self.next
    }

    /// A code that nobody has used before.
    pub(super) fn fresh_code(&mut self) -> String {
        let number = self.fresh_number();
        self.code(number)
    }

    /// A code that this writer has perhaps used.
    pub(super) fn old_code(&self, dice: &mut Dice) -> String {
        let below = u64::try_from(self.next).unwrap_or(0);
        self.code(1 + i64::try_from(dice.below(below)).unwrap_or(0))
    }

    fn code(&self, number: i64) -> String {
        format!("w{:03}n{number:010}", self.number)
    }

    /// The transaction was acknowledged.
    pub(super) fn acknowledge(&mut self, effects: &[Effect], dice: &mut Dice) {
        for effect in effects {
            match *effect {
                Effect::Taken(key) => {
                    self.claim(key);
                    if self.recent.len() < REMEMBERED {
                        self.recent.push(key);
                    } else {
                        let index = dice.below(u64::try_from(REMEMBERED).unwrap_or(1));
                        self.recent[usize::try_from(index).unwrap_or(0)] = key;
                    }
                }
                Effect::Freed(key) => {
                    self.recent.retain(|&recent| recent != key);
                    if self.free.len() < REMEMBERED && !self.free.contains(&key) {
                        self.free.push(key);
                    }
                }
            }
        }
    }

    /// Nobody knows what a transaction did: no key is free for certain.
    pub(super) fn doubt(&mut self) {
        self.free.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::Keys;
    use crate::workload::{Dice, Layout};

    #[test]
    fn no_two_writers_share_a_loaded_id() {
        for (rows, writers) in [(1_000_000, 4), (1_003, 4), (100, 1), (97, 16)] {
            let layout = Layout { rows, writers };
            let mut dice = Dice::new(5);
            for number in 0..writers {
                let keys = Keys::new(layout, number);
                for _ in 0..500 {
                    let id = keys.loaded_id(&mut dice);
                    assert!((1..=rows).contains(&id), "{id} of {rows}");
                    assert_eq!((id - 1) % i64::from(writers), i64::from(number));
                }
            }
        }
    }
}
