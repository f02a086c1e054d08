//! How slow the machine is just now, as a factor: what others run on it, or its host takes away, is no fault
//! of the product.
//!
//! A limit of time is held against the product times this factor. On a machine at rest it is one, and the
//! limit is as sharp as it is written; where ten processes wait for each processor, nobody can keep to it.

use std::collections::VecDeque;
use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(40);
/// Looks that are kept: ten minutes of them.
const LOOKS_MAX: usize = 15_000;
/// The greatest factor: beyond that a limit would say nothing.
const FACTOR_MAX: f64 = 12.0;

static LOOKS: Mutex<VecDeque<(Instant, Ticks)>> = Mutex::new(VecDeque::new());
static WATCHING: Once = Once::new();

/// The processors' time since the machine started, in ticks, and how many processes run or wait for one.
#[derive(Clone, Copy, Debug, Default)]
struct Ticks {
    all: f64,
    stolen: f64,
    processors: f64,
    running: f64,
}

/// Watches from now on, for as long as the program runs.
pub fn watch() {
    WATCHING.call_once(|| {
        keep(look());
        thread::spawn(|| {
            loop {
                thread::sleep(LOOK);
                keep(look());
            }
        });
    });
}

fn keep(ticks: Ticks) {
    let mut looks = LOOKS.lock().unwrap_or_else(PoisonError::into_inner);
    looks.push_back((Instant::now(), ticks));
    if looks.len() > LOOKS_MAX {
        looks.pop_front();
    }
}

/// What a limit of time is on this machine, as it was since `begun`.
#[must_use]
pub fn allows(begun: Instant, limit: Duration) -> Duration {
    limit.mul_f64(factor(begun))
}

/// How many times longer than on a machine at rest everything took since then; 1 at least.
#[must_use]
pub fn factor(begun: Instant) -> f64 {
    watch();
    keep(look());
    let looks = LOOKS.lock().unwrap_or_else(PoisonError::into_inner);
    let seen: Vec<Ticks> =
        looks.iter().filter(|(at, _)| *at >= begun).map(|(_, ticks)| *ticks).collect();
    factor_of(&seen)
}

fn factor_of(looks: &[Ticks]) -> f64 {
    let (Some(first), Some(last)) = (looks.first(), looks.last()) else { return 1.0 };
    let count = u32::try_from(looks.len()).unwrap_or(u32::MAX);
    let running = looks.iter().map(|look| look.running).sum::<f64>() / f64::from(count);
    let queue = running / last.processors.max(1.0);
    let all = last.all - first.all;
    let stolen = if all > 0.0 { (last.stolen - first.stolen) / all } else { 0.0 };
    let left = (1.0 - stolen).clamp(1.0 / FACTOR_MAX, 1.0);
    (queue.max(1.0) / left).min(FACTOR_MAX)
}

/// Reads what the kernel counts; nothing where it does not tell.
fn look() -> Ticks {
    read(&std::fs::read_to_string("/proc/stat").unwrap_or_default())
}

fn read(text: &str) -> Ticks {
    let mut ticks = Ticks::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default();
        let figures: Vec<f64> = words.filter_map(|word| word.parse().ok()).collect();
        match name {
            "cpu" => {
                // user, nice, system, idle, iowait, irq, softirq, steal; guests are counted in the first
                ticks.all = figures.iter().take(8).sum();
                ticks.stolen = figures.get(7).copied().unwrap_or(0.0);
            }
            "procs_running" => ticks.running = figures.first().copied().unwrap_or(0.0),
            name if name.starts_with("cpu") => ticks.processors += 1.0,
            _ => {}
        }
    }
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(all: u32, stolen: u32, running: u32) -> Ticks {
        read(&format!(
            "cpu  {} 0 0 0 0 0 0 {stolen} 9 9\ncpu0 1\ncpu1 1\nprocs_running {running}\n",
            all - stolen
        ))
    }

    fn factor(first: Ticks, last: Ticks) -> f64 {
        factor_of(&[Ticks { running: last.running, ..first }, last])
    }

    #[test]
    fn a_machine_at_rest_allows_nothing() {
        assert!((factor(at(100, 0, 0), at(200, 0, 2)) - 1.0).abs() < 1e-9);
        assert!((factor(at(100, 0, 0), at(100, 0, 0)) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn who_waits_and_what_is_stolen_count() {
        assert!((factor(at(100, 0, 0), at(200, 0, 8)) - 4.0).abs() < 1e-9);
        assert!((factor(at(100, 0, 0), at(200, 50, 2)) - 2.0).abs() < 1e-9);
        assert!((factor(at(100, 0, 0), at(200, 100, 90)) - FACTOR_MAX).abs() < 1e-9);
    }
}
