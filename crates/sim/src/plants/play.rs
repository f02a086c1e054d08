//! Plays a plant: the throttle, or something in its place, against the oracle.

use std::thread;

use underpin_core::signal::{LAG, Limit, Reading, Unit};
use underpin_core::throttle::Throttle;

use super::meter::{Meter, Outcome};
use super::plant::{LENGTH_S, Plant, Replica, STEP_MS};
use crate::dice::Dice;

/// Time between two readings of the probe, in milliseconds.
const PROBE_MS: u64 = 500;
/// Chunks side by side.
const WORKERS: u32 = 4;
/// How long a chunk takes at full speed, in milliseconds.
const CHUNK_MS: f64 = 400.0;

/// Who steers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// The throttle of the core.
    Law,
    /// Full speed below the limit, nothing above it: to see that the meter bites.
    BangBang,
}

/// Plays seeds `from..to` on two threads.
pub fn play_many(from: u64, to: u64, driver: Driver) -> Vec<Outcome> {
    let middle = from + (to - from) / 2;
    let run = |from: u64, to: u64| {
        (from..to).map(|seed| play(&Plant::new(seed), driver, None)).collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        let other = scope.spawn(move || run(middle, to));
        let mut outcomes = run(from, middle);
        outcomes.extend(other.join().unwrap_or_default());
        outcomes
    })
}

/// How the lag is read: late, trembling, coarse.
struct Gaze {
    dice: Dice,
    /// True lags by step.
    lags: Vec<f64>,
    value: f64,
}

impl Gaze {
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn read(&mut self, plant: &Plant, now_ms: u64) -> Reading {
        if now_ms.is_multiple_of(plant.every_ms) {
            let late = (plant.delay_s * 1000.0) as usize / STEP_MS as usize;
            let lag_ms = self.lags.len().checked_sub(late + 1).map_or(0.0, |step| self.lags[step]);
            // The sum of four evenly drawn numbers is near enough to a bell.
            let bell: i64 = (0..4).map(|_| self.dice.signed(-1000, 1000)).sum();
            let mut value = lag_ms + plant.floor_ms + bell as f64 / 1155.0 * plant.noise_ms;
            if plant.slips > 0 && self.dice.below(plant.slips) == 0 {
                value += self.dice.between(1_000, 5_000) as f64;
            }
            if plant.is_coarse {
                value = (value / 1000.0).floor() * 1000.0;
            }
            self.value = f64::max(value, 0.0);
        }
        Reading::new(LAG, "replica", "simulated", Unit::Ms, self.value)
    }
}

/// The copy: chunks under way.
#[derive(Default)]
struct Copy {
    /// (end, rows)
    begun: Vec<(u64, u64)>,
    is_stopped: bool,
}

impl Copy {
    /// A step of the copy: rows that were committed.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn step(&mut self, plant: &Plant, now_ms: u64, driver: Driver, throttle: &mut Throttle) -> f64 {
        let mut rows = 0;
        self.begun.retain(|(end_ms, chunk)| {
            if *end_ms <= now_ms {
                rows += chunk;
                throttle.note_written(now_ms, *chunk, chunk * 100);
            }
            *end_ms > now_ms
        });
        let speed = plant.full / f64::from(WORKERS);
        let fitting = (speed * CHUNK_MS / 1000.0) as u64;
        self.is_stopped = throttle.pause(now_ms).is_some();
        let workers = match driver {
            Driver::Law => throttle.workers(),
            Driver::BangBang => WORKERS,
        };
        while self.begun.len() < workers as usize {
            let bound = match driver {
                Driver::Law => throttle.chunk_rows_max().unwrap_or(u64::MAX),
                Driver::BangBang => u64::MAX,
            };
            let chunk = std::cmp::max(std::cmp::min(fitting, bound), 20);
            let may = match driver {
                Driver::Law => throttle.may_begin(now_ms, chunk),
                Driver::BangBang => !self.is_stopped,
            };
            if !may {
                break;
            }
            let took_ms = (chunk as f64 * 1000.0 / speed) as u64;
            self.begun.push((now_ms + std::cmp::max(took_ms, STEP_MS), chunk));
        }
        rows as f64
    }
}

/// Plays a plant. `tell` is handed what happened in each second: second, true lag, reading, rows.
#[allow(clippy::cast_precision_loss)]
pub fn play(plant: &Plant, driver: Driver, mut tell: Option<&mut dyn FnMut(String)>) -> Outcome {
    let limit = Limit { name: LAG.into(), pause_at: Some(plant.limit_ms), abort_at: None };
    let mut throttle = Throttle::new(&[limit], true, WORKERS);
    let mut gaze = Gaze { dice: Dice::new(plant.seed), lags: Vec::new(), value: 0.0 };
    let (mut copy, mut replica, mut meter) = (Copy::default(), Replica::default(), Meter::new());
    let (mut oracle, mut late_oracle) = (Oracle::new(0.0), Oracle::new(plant.delay_s));
    let step_s = STEP_MS as f64 / 1000.0;
    for second in 0..LENGTH_S {
        let mut rows_in_second = 0.0;
        for now_ms in (second * 1000..(second + 1) * 1000).step_by(100) {
            if now_ms.is_multiple_of(PROBE_MS) {
                throttle.read(now_ms, vec![gaze.read(plant, now_ms)]);
            }
            let at_s = now_ms as f64 / 1000.0;
            let (capacity, load) = plant.at(at_s);
            let rows = copy.step(plant, now_ms, driver, &mut throttle);
            let lag_ms = replica.step(rows + load * step_s, capacity * step_s);
            gaze.lags.push(lag_ms);
            oracle.step(plant, at_s);
            late_oracle.step(plant, at_s);
            rows_in_second += rows;
            let at = usize::try_from(second).unwrap_or_default();
            meter.note(at, rows, lag_ms, copy.is_stopped);
        }
        if let Some(tell) = &mut tell {
            let (capacity, load) = plant.at(second as f64);
            tell(format!(
                "{second:>4} lag {:>6.0} read {:>6.0} rate {:>6.0} pace {:>6} room {:>6.0}{}",
                gaze.lags.last().copied().unwrap_or_default(),
                gaze.value,
                rows_in_second,
                throttle.pace_rows_per_s().map_or("full".into(), |rate| rate.to_string()),
                capacity - load,
                if copy.is_stopped { " STOP" } else { "" },
            ));
        }
    }
    meter.outcome(plant, oracle.rows, late_oracle.worst_ms)
}

/// Knows capacity and load at every moment, or with a delay; keeps the lag at half the limit.
struct Oracle {
    late_s: f64,
    replica: Replica,
    rows: f64,
    worst_ms: f64,
    lags: Vec<f64>,
}

impl Oracle {
    fn new(late_s: f64) -> Self {
        Self { late_s, replica: Replica::default(), rows: 0.0, worst_ms: 0.0, lags: Vec::new() }
    }

    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn step(&mut self, plant: &Plant, at_s: f64) {
        let step_s = STEP_MS as f64 / 1000.0;
        let (known_capacity, known_load) = plant.at(f64::max(at_s - self.late_s, 0.0));
        let (capacity, load) = plant.at(at_s);
        let late = (self.late_s / step_s) as usize;
        let seen_ms = self.lags.len().checked_sub(late + 1).map_or(0.0, |step| self.lags[step]);
        // What fits, and what brings the backlog to what half the limit allows.
        let fits = (known_capacity - known_load) * step_s;
        let aimed = known_capacity * plant.limit_ms / 2000.0;
        let spare = if self.late_s > 0.0 { 0.0 } else { aimed - self.replica.backlog() };
        let rows = if seen_ms >= plant.limit_ms || known_capacity <= 0.0 {
            0.0
        } else {
            (fits + spare).clamp(0.0, plant.full * step_s)
        };
        let lag_ms = self.replica.step(rows + load * step_s, capacity * step_s);
        self.rows += rows;
        self.worst_ms = f64::max(self.worst_ms, lag_ms);
        self.lags.push(lag_ms);
    }
}
