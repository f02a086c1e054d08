//! Days on which the change is made, taken back and made again: struck at each of their steps and at each
//! of their answers, everything is mended.

use std::thread;

use underpin_sim::{Flow, LoseAt, Options, run};

/// What strikes a day, at each place where it can.
#[derive(Debug, Clone, Copy)]
enum Strike {
    /// The program is killed after this step.
    Crash,
    /// Somebody asks for an abort after this step.
    Abort,
    /// The answer is lost, and what was asked for is not done.
    NotDone,
    /// The answer is lost, and what was asked for is done.
    Done,
}

const STRIKES: [Strike; 4] = [Strike::Crash, Strike::Abort, Strike::NotDone, Strike::Done];

/// Seeds of each flow whose small days are struck. By key ranges the first one swaps by one session, the
/// second by two.
const SEEDS: [(Flow, u64); 4] =
    [(Flow::KeyRanges, 7), (Flow::KeyRanges, 3), (Flow::Blocks, 2), (Flow::Blocks, 3)];

/// How many places were struck, and how the days came out.
#[derive(Debug, Default)]
struct Tally {
    struck: u64,
    swaps: u64,
    swaps_back: u64,
    turns_left: u64,
    aborts: u64,
}

/// The day of a seed, struck at the place of this number.
fn struck(flow: Flow, strike: Strike, nth: u64) -> Options {
    let day = Options { flow: Some(flow), small: true, ..Options::default() };
    match strike {
        Strike::Crash => Options { crash_at: Some(nth), ..day },
        Strike::Abort => Options { abort_at: Some(nth), ..day },
        Strike::NotDone => Options { lose_at: Some(LoseAt { nth, is_done: false }), ..day },
        Strike::Done => Options { lose_at: Some(LoseAt { nth, is_done: true }), ..day },
    }
}

/// Strikes the day of a seed at each of its places.
fn strike_all(flow: Flow, seed: u64, strike: Strike) -> Tally {
    let calm = run(seed, Options { flow: Some(flow), small: true, ..Options::default() });
    assert_eq!(calm.breach, None, "seed {seed}, {flow:?}: nothing was struck");
    assert_eq!((calm.counts.swaps, calm.counts.swaps_back), (3, 1), "seed {seed}, {flow:?}");
    let places = match strike {
        Strike::Crash | Strike::Abort => calm.counts.steps,
        Strike::NotDone | Strike::Done => calm.counts.answers,
    };
    let mut tally = Tally::default();
    for nth in 1..=places {
        let outcome = run(seed, struck(flow, strike, nth));
        if let Some(breach) = outcome.breach {
            panic!("seed {seed}, {flow:?}, {strike:?} at {nth} of {places}: {breach}");
        }
        tally.struck += 1;
        tally.swaps += outcome.counts.swaps;
        tally.swaps_back += outcome.counts.swaps_back;
        tally.turns_left += outcome.counts.turns_left;
        tally.aborts += outcome.counts.aborts;
    }
    tally
}

#[test]
fn a_day_of_turns_is_struck_at_each_step_and_each_answer() {
    let jobs: Vec<(Flow, u64, Strike)> = SEEDS
        .iter()
        .flat_map(|(flow, seed)| STRIKES.map(|strike| (*flow, *seed, strike)))
        .collect();
    let tallies: Vec<((Flow, u64, Strike), Tally)> = thread::scope(|scope| {
        let parts: Vec<_> = (0..2)
            .map(|part| {
                let mine = jobs.iter().skip(part).step_by(2).copied();
                scope.spawn(move || {
                    mine.map(|job| (job, strike_all(job.0, job.1, job.2))).collect::<Vec<_>>()
                })
            })
            .collect();
        parts.into_iter().flat_map(|part| part.join().expect("a seed failed")).collect()
    });
    for ((flow, seed, strike), tally) in &tallies {
        println!("{flow:?}, seed {seed}: {strike:?}: {tally:?}");
        assert!(tally.struck > 40, "only {} places", tally.struck);
        // Wherever it is struck, the day goes on to its end, unless it was aborted before its first swap.
        match strike {
            Strike::Abort => {
                assert!(tally.aborts > 0 && tally.turns_left > 0, "{tally:?}");
            }
            // A turn that was struck before it was on record may be forgotten by whoever asked for it.
            _ => assert!(tally.swaps_back * 10 > tally.struck * 9, "{tally:?}"),
        }
    }
}
