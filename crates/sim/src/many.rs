//! Many seeds on two threads.

use std::thread;

use crate::report::{Breach, Counts, Outcome};
use crate::{Fault, Flow, Options, run};

/// Seeds are split over this many threads.
const THREADS: u64 = 2;

/// Failed seeds that are kept; after so many a thread stops.
const FAILED_MAX: usize = 5;

/// What many seeds came to.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Added up over all seeds.
    pub counts: Counts,
    /// Seeds with a breach, in order; at most five a thread.
    pub failed: Vec<Outcome>,
}

/// Plays `count` seeds from `first` on.
pub fn run_many(first: u64, count: u64, options: Options) -> Summary {
    let mut summary = Summary::default();
    thread::scope(|scope| {
        let parts: Vec<_> = (0..THREADS)
            .map(|part| scope.spawn(move || play(first, count, part, options)))
            .collect();
        for part in parts {
            match part.join() {
                Ok(done) => {
                    summary.counts.add(&done.counts);
                    summary.failed.extend(done.failed);
                }
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    summary.failed.sort_by_key(|outcome| outcome.seed);
    summary
}

fn play(first: u64, count: u64, part: u64, options: Options) -> Summary {
    let mut summary = Summary::default();
    let seeds = (first..first.saturating_add(count)).filter(|seed| seed % THREADS == part);
    for seed in seeds {
        let outcome = run(seed, options);
        summary.counts.add(&outcome.counts);
        if outcome.breach.is_some() {
            summary.failed.push(outcome);
            if summary.failed.len() == FAILED_MAX {
                break;
            }
        }
    }
    summary
}

/// The first seed below `seeds_max` in which the fault is caught in this flow, and the promise it breaks.
pub fn first_caught(fault: Fault, flow: Flow, seeds_max: u64) -> Option<(u64, Breach)> {
    let options = Options { fault: Some(fault), flow: Some(flow), ..Options::default() };
    (0..seeds_max).find_map(|seed| run(seed, options).breach.map(|breach| (seed, breach)))
}
