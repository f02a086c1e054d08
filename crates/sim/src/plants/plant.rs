//! A plant drawn from a seed, and its state over time: what is written, what is applied, how far it
//! is behind.

use crate::dice::Dice;

/// One step of the simulation, in milliseconds.
pub(super) const STEP_MS: u64 = 100;
/// How long a plant is played, in seconds,
pub(super) const LENGTH_S: u64 = 3600;
/// and the last part of that in which nothing is changed from outside.
pub(super) const QUIET_S: u64 = 900;

/// What is done to a plant from outside, for a while.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Change {
    pub(super) from_s: f64,
    pub(super) to_s: f64,
    /// The replica's capacity is multiplied by this,
    pub(super) capacity: f64,
    /// and this share of its usual capacity is written by the application on top.
    pub(super) load: f64,
}

/// A replica, its application, and how its lag is read.
#[derive(Debug, Clone, PartialEq)]
pub struct Plant {
    /// The seed.
    pub seed: u64,
    /// The lag above which the copy is to stand still, in milliseconds.
    pub limit_ms: f64,
    /// How late the reading is, in seconds.
    pub delay_s: f64,
    /// Time between two new values of the reading, in milliseconds.
    pub every_ms: u64,
    /// The reading trembles by about so much, in milliseconds,
    pub noise_ms: f64,
    /// and once in so many readings it is some seconds wrong; 0: never.
    pub slips: u64,
    /// The reading comes in whole seconds.
    pub is_coarse: bool,
    /// Lag of an idle replica, in milliseconds.
    pub floor_ms: f64,
    /// Rows a second that the copy reaches unbridled.
    pub full: f64,
    /// Rows a second that the replica applies.
    pub capacity: f64,
    /// Rows a second of the application.
    pub load: f64,
    /// Capacity swells and shrinks by this share,
    pub swell: f64,
    /// once in so many seconds.
    pub swell_s: f64,
    pub(super) changes: Vec<Change>,
}

/// A number between two, evenly.
fn even(dice: &mut Dice, low: f64, high: f64) -> f64 {
    #[allow(clippy::cast_precision_loss)] // at most a million
    let share = dice.below(1_000_001) as f64 / 1e6;
    low + (high - low) * share
}

impl Plant {
    /// The plant of a seed.
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x706c_616e_7473);
        let delay_s = match dice.below(10) {
            0 | 1 => 0.0,
            2 | 3 => even(&mut dice, 0.2, 2.0),
            4 | 5 => even(&mut dice, 2.0, 10.0),
            _ => even(&mut dice, 10.0, 30.0),
        };
        let full = even(&mut dice, 5_000.0, 100_000.0);
        // What is left of the replica for the copy, as a share of the copy's full speed.
        let room = match dice.below(4) {
            0 => even(&mut dice, 1.05, 3.0),
            1 => even(&mut dice, 0.5, 1.05),
            _ => even(&mut dice, 0.1, 0.7),
        };
        let busy = even(&mut dice, 0.0, 0.6);
        let capacity = room * full / (1.0 - busy);
        let limit_ms = match dice.below(10) {
            0 if delay_s < 5.0 => 1_000.0,
            1 => 5_000.0,
            2 => 10_000.0,
            _ => 2_000.0,
        };
        let mut plant = Self {
            seed,
            limit_ms,
            delay_s,
            every_ms: if dice.percent(70) { 500 } else { dice.between(1, 5) * 1_000 },
            noise_ms: if dice.percent(25) { 0.0 } else { even(&mut dice, 5.0, 150.0) },
            slips: if dice.percent(20) { dice.between(500, 3_000) } else { 0 },
            // A limit finer than twice the unit of its reading cannot be kept to by anybody.
            is_coarse: dice.percent(15) && limit_ms >= 2_000.0,
            floor_ms: even(&mut dice, 0.0, 200.0),
            full,
            capacity,
            load: capacity * busy,
            swell: if dice.percent(50) { even(&mut dice, 0.0, 0.05) } else { 0.0 },
            swell_s: even(&mut dice, 20.0, 600.0),
            changes: Vec::new(),
        };
        plant.draw_changes(&mut dice);
        plant
    }

    /// A replica that keeps up with the copy easily and is read at once, and whose applier stands still
    /// for a while.
    pub fn standing(from_s: f64, to_s: f64) -> Self {
        Self {
            seed: 0,
            limit_ms: 2_000.0,
            delay_s: 0.0,
            every_ms: 500,
            noise_ms: 10.0,
            slips: 0,
            is_coarse: false,
            floor_ms: 50.0,
            full: 40_000.0,
            capacity: 80_000.0,
            load: 10_000.0,
            swell: 0.0,
            swell_s: 60.0,
            changes: vec![Change { from_s, to_s, capacity: 0.0, load: 0.0 }],
        }
    }

    /// Bursts of the application, lasting changes of capacity and load, an applier that stands still.
    /// The later a reading comes, the rarer they are: whoever stops at a late reading also goes on
    /// late, and loses the delay each time, whatever the law.
    #[allow(clippy::cast_precision_loss)]
    fn draw_changes(&mut self, dice: &mut Dice) {
        let end_s = (LENGTH_S - QUIET_S) as f64;
        let gap_s = 60.0 + 20.0 * self.delay_s;
        let mut at_s = even(dice, gap_s * 0.5, gap_s * 2.0);
        let room = (self.capacity - self.load) / self.capacity;
        while at_s < end_s {
            let mut change = Change { from_s: at_s, to_s: at_s, capacity: 1.0, load: 0.0 };
            match dice.below(10) {
                0 => {
                    change.capacity = 0.0;
                    change.to_s += even(dice, 5.0, 30.0);
                }
                1..=5 => {
                    change.load = room * even(dice, 0.2, 1.3);
                    change.to_s += even(dice, 3.0, 40.0);
                }
                6 | 7 => {
                    // Lasting: a neighbour comes or goes, caches are warm.
                    change.capacity = even(dice, 1.0 - room * 0.6, 1.6);
                    change.to_s += even(dice, gap_s, gap_s * 4.0);
                }
                _ => {
                    change.load = room * even(dice, -0.5, 0.6);
                    change.to_s += even(dice, gap_s, gap_s * 4.0);
                }
            }
            change.to_s = f64::min(change.to_s, end_s);
            at_s = change.to_s + even(dice, gap_s * 0.5, gap_s * 2.0);
            self.changes.push(change);
        }
    }

    /// Rows a second that the replica applies, and rows a second of the application.
    pub(super) fn at(&self, at_s: f64) -> (f64, f64) {
        let phase = at_s / self.swell_s * std::f64::consts::TAU;
        #[allow(clippy::cast_precision_loss)]
        let is_quiet = at_s >= (LENGTH_S - QUIET_S) as f64;
        let swell = if is_quiet { 0.0 } else { self.swell * phase.sin() };
        let mut capacity = self.capacity * (1.0 + swell);
        let mut load = self.load;
        for change in &self.changes {
            if (change.from_s..change.to_s).contains(&at_s) {
                capacity *= change.capacity;
                load += change.load * self.capacity;
            }
        }
        (capacity, f64::max(load, 0.0))
    }
}

/// A replica under way: rows written and applied, and since when it is behind.
#[derive(Debug, Clone, Default)]
pub(super) struct Replica {
    /// Rows written in all, at the end of each step.
    written: Vec<f64>,
    applied: f64,
    /// The first step whose rows are not all applied.
    next: usize,
}

impl Replica {
    /// A step: what is written, what can be applied. The lag at its end, in milliseconds.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn step(&mut self, written: f64, appliable: f64) -> f64 {
        let in_all = self.written.last().copied().unwrap_or(0.0) + written;
        self.written.push(in_all);
        self.applied = f64::min(self.applied + appliable, in_all);
        while self.written.get(self.next).is_some_and(|rows| *rows <= self.applied) {
            self.next += 1;
        }
        if self.next >= self.written.len() {
            return 0.0;
        }
        let before = self.next.checked_sub(1).map_or(0.0, |last| self.written[last]);
        let share = (self.applied - before) / f64::max(self.written[self.next] - before, 1e-9);
        ((self.written.len() - self.next) as f64 - share) * STEP_MS as f64
    }

    pub(super) fn backlog(&self) -> f64 {
        self.written.last().copied().unwrap_or(0.0) - self.applied
    }
}
