//! Ten thousand days on which everything goes wrong, each from a seed, and ways to play one again.

use std::thread;

use underpin_sim::{Options, run, run_many};

/// Where a seed fails: what to type to see it again.
fn replay(seed: u64, options: Options) -> String {
    let crash = options.crash_at.map(|step| format!(" --crash-at {step}")).unwrap_or_default();
    format!("replay it: cargo xtask sim --seed {seed}{crash} --log")
}

#[test]
fn ten_thousand_seeds_keep_every_promise() {
    let summary = run_many(0, 10_000, Options::default());
    let told: Vec<String> = summary
        .failed
        .iter()
        .filter_map(|outcome| {
            let breach = outcome.breach.as_ref()?;
            let replay = replay(outcome.seed, Options::default());
            Some(format!("seed {}: {breach}\n  {replay}", outcome.seed))
        })
        .collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
    // The seeds must meet what they are there for; a scheduler that lost its bite would pass silently.
    let counts = summary.counts;
    println!("{counts}");
    assert_eq!(counts.seeds, 10_000);
    for (what, count, at_least) in [
        ("crashes of the program", counts.runner_crashes, 5_000),
        ("crashes of the server", counts.server_crashes, 1_000),
        ("lost answers", counts.lost, 2_000),
        ("commits rolled back", counts.rolled_back, 2_000),
        ("swaps", counts.swaps, 5_000),
        ("aborts", counts.aborts, 500),
        ("violations", counts.violations, 500),
        ("changed sources", counts.source_changes, 50),
        ("clashes in chunks", counts.clashes, 2_000),
        ("repairs", counts.repairs, 20),
        ("locks not had", counts.locks_not_had, 5_000),
        ("writes", counts.writes, 300_000),
        // Rare: between four and forty.
        ("fenced writes", counts.fenced, 1),
        ("prepared transactions", counts.prepared, 3_000),
        ("savepoints undone", counts.savepoints, 20_000),
        ("rows settled", counts.settled, 30_000),
        ("answers that told of a TRUNCATE", counts.truncated, 300),
        ("orders", counts.orders, 8_000),
        ("closed windows", counts.gates_closed, 3_000),
        ("aborts at critical load", counts.critical_aborts, 150),
        ("turns", counts.turns, 8_000),
        ("swaps back", counts.swaps_back, 3_000),
        ("turns left", counts.turns_left, 300),
        ("late writes", counts.late, 30),
        ("rows checked", counts.rows_checked, 10_000_000),
    ] {
        assert!(count >= at_least, "{count} {what} in 10000 seeds, expected {at_least} at least");
    }
}

/// One seed with its log: put the number here while working on it, or use the command line.
#[test]
fn one_seed_is_replayed_step_by_step() {
    let options = Options { keep_log: true, ..Options::default() };
    let (one, other) = (run(1432, options), run(1432, options));
    for line in &one.log {
        println!("{line}");
    }
    assert_eq!(one.breach, None, "{}", replay(1432, options));
    assert!(one.log.len() > 50, "the log tells what happened");
    assert_eq!(one, other, "a seed must give the same run each time");
}

#[test]
fn a_log_changes_nothing_of_the_run() {
    for seed in 0..50 {
        let silent = run(seed, Options::default());
        let told = run(seed, Options { keep_log: true, ..Options::default() });
        assert_eq!((silent.counts, silent.breach), (told.counts, told.breach), "seed {seed}");
    }
}

/// Seeds whose every step is tried as the moment of a crash; the second and the last go by blocks.
const CRASHED: [u64; 4] = [4, 7, 9, 11];

#[test]
fn a_crash_after_every_single_step_is_mended() {
    let played: u64 = thread::scope(|scope| {
        let parts: Vec<_> = (0..2)
            .map(|part| {
                scope.spawn(move || {
                    CRASHED.iter().skip(part).step_by(2).map(|seed| crash(*seed)).sum::<u64>()
                })
            })
            .collect();
        parts.into_iter().map(|part| part.join().expect("a seed failed")).sum()
    });
    println!("{played} runs");
    assert!(played > 1_000, "only {played} steps to crash after");
}

/// Plays the seed once for each of its steps, with a crash after it. Returns how often.
fn crash(seed: u64) -> u64 {
    let steps = run(seed, Options::default()).counts.steps;
    for step in 1..=steps {
        let options = Options { crash_at: Some(step), ..Options::default() };
        let outcome = run(seed, options);
        if let Some(breach) = outcome.breach {
            panic!("seed {seed}, crash after step {step}: {breach}\n  {}", replay(seed, options));
        }
    }
    steps
}
