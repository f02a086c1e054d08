//! Which rows the table must hold: the loaded ones by formula, the changed ones by memory.
//!
//! Owns who may touch what. The ranges are chosen so that no two writers ever lock neighbouring
//! index entries: with InnoDB even writes of different rows can wait for each other through gap
//! locks, and a circle of such waits is a deadlock error that no schema change caused.
//!
//! - Keys: each writer has one stretch of the loaded ids and one of negative ids. The first loaded
//!   id of each stretch and the last of all are touched by nobody; so are the sentinel rows that
//!   separate the negative stretches. New ids at the end are drawn by the server and belong to the
//!   writer that was given them; once free they are not used again.
//! - Codes (the unique column): each writer's begin with a number of its own, sentinels between.

use std::collections::HashMap;

use super::Dice;

/// Negative ids of writer `n` lie between `-(n + 1) * NEGATIVE_SPAN` and `-n * NEGATIVE_SPAN`.
pub(super) const NEGATIVE_SPAN: i64 = 1_000_000_000;
/// Seconds since 1970 of the first order.
pub(super) const FIRST_PLACED_S: i64 = 1_700_000_000;
/// What an order may be.
pub(super) const STATUSES: [&str; 4] = ["new", "paid", "sent", "closed"];

/// How the table was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Loaded rows, ids from 1; the sentinels come on top.
    pub rows: i64,
    /// Writers that share it, at most 40.
    pub writers: u16,
}

/// The columns that the writers know; the table has more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Unique.
    pub code: String,
    /// Indexed.
    pub customer: i64,
    /// One of four words, indexed with the time.
    pub status: String,
    /// Hundredths.
    pub amount_cents: i64,
    /// Free text, or none.
    pub note: Option<String>,
    /// Seconds since 1970.
    pub placed_s: i64,
}

impl Layout {
    /// The writer whose stretch a loaded id lies in, whether or not it may be touched.
    pub(super) fn stretch(self, id: i64) -> i64 {
        (id - 1) * i64::from(self.writers) / self.rows
    }

    /// First and last id of the loaded rows that writer `number` may touch.
    pub(super) fn own_ids(self, number: u16) -> (i64, i64) {
        let first = |stretch: i64| div_up(stretch * self.rows, i64::from(self.writers)) + 1;
        let number = i64::from(number);
        (first(number) + 1, first(number + 1) - 2)
    }

    /// The ids of the rows that only keep the stretches apart.
    pub fn sentinels(self) -> impl Iterator<Item = i64> {
        (0..=i64::from(self.writers)).map(|number| -number * NEGATIVE_SPAN - 1)
    }

    /// The row as it was loaded.
    #[must_use]
    pub fn loaded(self, id: i64) -> Option<Row> {
        let sentinel = id < 0 && self.sentinels().any(|sentinel| sentinel == id);
        if sentinel {
            let number = (-id - 1) / NEGATIVE_SPAN;
            return Some(Row {
                code: format!("{:02}", 2 * number),
                customer: 0,
                status: "closed".to_owned(),
                amount_cents: 0,
                note: None,
                placed_s: FIRST_PLACED_S,
            });
        }
        if id < 1 || id > self.rows {
            return None;
        }
        let prefix = 2 * self.stretch(id) + 1;
        let status = usize::try_from(id % 4).ok().and_then(|index| STATUSES.get(index))?;
        Some(Row {
            code: format!("{prefix:02}x{:010}", (id * 48_271) % 2_147_483_647),
            customer: (id * 7_919) % 50_021,
            status: (*status).to_owned(),
            amount_cents: (id * 104_729) % 1_000_000,
            note: (id % 3 != 0).then(|| format!("order {id} of customer, as it was loaded")),
            placed_s: FIRST_PLACED_S + id,
        })
    }
}

/// Division that rounds up; both numbers positive.
const fn div_up(number: i64, divisor: i64) -> i64 {
    (number + divisor - 1) / divisor
}

/// The rows of one writer, as the server acknowledged them.
#[derive(Debug)]
pub struct Model {
    layout: Layout,
    number: u16,
    /// Rows that differ from the loaded table; `None` is deleted.
    changed: HashMap<i64, Option<Row>>,
    /// Rows under ids that were not loaded.
    extra: Vec<i64>,
    /// Freed ids of this writer's own stretches.
    free: Vec<i64>,
    /// Ids whose last write was neither acknowledged nor refused.
    unsure: Vec<i64>,
    /// Codes of rows whose id the server drew and never told.
    unsure_codes: Vec<String>,
    next_number: i64,
}

impl Model {
    pub(super) fn new(layout: Layout, number: u16) -> Self {
        let (changed, next_number) = (HashMap::new(), 1);
        let (extra, free, unsure) = (Vec::new(), Vec::new(), Vec::new());
        let unsure_codes = Vec::new();
        Self { layout, number, changed, extra, free, unsure, unsure_codes, next_number }
    }

    /// The row under `id` now.
    #[must_use]
    pub fn row(&self, id: i64) -> Option<Row> {
        match self.changed.get(&id) {
            Some(row) => row.clone(),
            None => self.layout.loaded(id),
        }
    }

    /// A row that exists and is none of `taken`; `None` when chance finds none.
    pub(super) fn pick(&self, dice: &mut Dice, taken: &[i64]) -> Option<(i64, Row)> {
        let (first, last) = self.layout.own_ids(self.number);
        let span = u64::try_from(last - first + 1).unwrap_or(0);
        for _ in 0..50 {
            let id = match dice.one_of(&self.extra) {
                Some(id) if dice.below(10) < 3 || span == 0 => id,
                _ => first + i64::try_from(dice.below(span)).unwrap_or(0),
            };
            if taken.contains(&id) || self.unsure.contains(&id) {
                continue;
            }
            if let Some(row) = self.row(id) {
                return Some((id, row));
            }
        }
        None
    }

    /// Like [`Self::pick`], but no row whose id the server drew: those lie side by side with other
    /// writers' rows, where inserting a deleted id once more would lock a neighbour's gap.
    pub(super) fn pick_own(&self, dice: &mut Dice, taken: &[i64]) -> Option<(i64, Row)> {
        self.pick(dice, taken).filter(|(id, _)| *id <= self.layout.rows)
    }

    /// A free id of this writer's own: a new negative one, or one that a deleted row left.
    pub(super) fn pick_free(&mut self, dice: &mut Dice, taken: &[i64]) -> i64 {
        match dice.one_of(&self.free) {
            Some(id) if dice.below(2) == 0 && !taken.contains(&id) => id,
            _ => -i64::from(self.number) * NEGATIVE_SPAN - 1 - self.fresh(),
        }
    }

    /// A number that this writer has not used before.
    pub(super) const fn fresh(&mut self) -> i64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    /// A code that nobody has used before.
    pub(super) fn fresh_code(&mut self) -> String {
        format!("{:02}n{:010}", 2 * u32::from(self.number) + 1, self.fresh())
    }

    /// The server acknowledged: `id` holds `row` now, or nothing.
    pub(super) fn acknowledge(&mut self, id: i64, row: Option<Row>) {
        let loaded = (1..=self.layout.rows).contains(&id);
        let before = self.row(id).is_some();
        match (before, row.is_some()) {
            (false, true) => {
                self.free.retain(|&free| free != id);
                if !loaded {
                    self.extra.push(id);
                }
            }
            (true, false) => {
                self.extra.retain(|&extra| extra != id);
                if id <= self.layout.rows {
                    self.free.push(id);
                }
            }
            _ => {}
        }
        self.changed.insert(id, row);
    }

    /// Nobody knows whether the write of `id` took place.
    pub(super) fn doubt(&mut self, id: i64) {
        self.free.retain(|&free| free != id);
        self.extra.retain(|&extra| extra != id);
        self.unsure.push(id);
    }

    /// Nobody knows whether a row with this code was inserted, nor under which id.
    pub(super) fn doubt_code(&mut self, code: String) {
        self.unsure_codes.push(code);
    }

    /// Codes of rows that may have been inserted under an id that nobody was told.
    #[must_use]
    pub fn unsure_codes(&self) -> &[String] {
        &self.unsure_codes
    }

    /// Rows that differ from the loaded table; `None` is deleted.
    #[must_use]
    pub const fn changed(&self) -> &HashMap<i64, Option<Row>> {
        &self.changed
    }

    /// Ids whose last write was neither acknowledged nor refused.
    #[must_use]
    pub fn unsure(&self) -> &[i64] {
        &self.unsure
    }
}

#[cfg(test)]
mod tests {
    use super::Layout;

    #[test]
    fn stretches_are_disjoint_and_leave_their_borders_alone() {
        for (rows, writers) in [(1_000_000, 4), (1_003, 4), (997, 16), (100, 1)] {
            let layout = Layout { rows, writers };
            let mut last_end = 0;
            for number in 0..writers {
                let (first, last) = layout.own_ids(number);
                assert!(first > last_end + 1 && last > first && last < rows);
                assert_eq!(layout.stretch(first), i64::from(number));
                assert_eq!(layout.stretch(first - 1), i64::from(number));
                assert!(first == 2 || layout.stretch(first - 2) == i64::from(number) - 1);
                assert_eq!(layout.stretch(last), i64::from(number));
                last_end = last;
            }
        }
    }
}
