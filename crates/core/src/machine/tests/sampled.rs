//! What is compared by a sample, and that nobody is told more than was compared.

use super::*;
use crate::proof::{Verdict, Verification};

const ROWS: u64 = 10;

fn observed(swap: SwapState) -> Observed {
    Observed { done: vec![], swap }
}

fn in_verify(how: Verification, checkpoint: Checkpoint) -> Machine {
    let settings = Settings { verify: how, workers: 1, sample_seed: 5, ..Settings::default() };
    Machine::recover(settings, checkpoint, &observed(SwapState::NotSwapped))
}

fn begin() -> Checkpoint {
    Checkpoint { phase: Phase::Verify, frontier: Frontier::End, ..Checkpoint::begin() }
}

/// Carries out what the machine asks for over a table of `ranges` ranges, as long as there are actions and
/// `until` says no. The ranges that were compared, by their first key, and the last checkpoint.
fn compare(
    machine: &mut Machine,
    ranges: u32,
    until: impl Fn(&Action) -> bool,
) -> (Vec<u32>, Option<Checkpoint>) {
    let (mut compared, mut saved) = (Vec::new(), None);
    let mut open = machine.step(0, Event::Started);
    for now_ms in 1..100_000 {
        if open.is_empty() {
            return (compared, saved);
        }
        let action = open.remove(0);
        if until(&action) {
            return (compared, saved);
        }
        let event = match action {
            Action::Save(checkpoint) => {
                saved = Some(*checkpoint);
                continue;
            }
            Action::PlanVerify { after, ranges_max, .. } => {
                let first = after.map_or(0, |key| key.0[0].parse().unwrap());
                let last = std::cmp::min(first + ranges_max, ranges);
                let chunk = |n: u32| Chunk {
                    index: n - first,
                    range: KeyRange {
                        after: (n > 0).then(|| key(n)),
                        up_to: (n + 1 < ranges).then(|| key(n + 1)),
                    },
                };
                let chunks = (first..last).map(chunk).collect();
                Event::RoundPlanned { chunks, last: last == ranges }
            }
            Action::VerifyRange { range } => {
                compared.push(range.range.after.map_or(0, |key| key.0[0].parse().unwrap()));
                let (index, samples) = (range.index, vec![]);
                Event::RangeVerified { index, rows: ROWS, differences: 0, samples, took_ms: 9 }
            }
            other => panic!("{other:?}"),
        };
        open.extend(machine.step(now_ms, event));
    }
    panic!("it never ends");
}

fn is_swap(action: &Action) -> bool {
    matches!(action, Action::TrySwap { .. })
}

#[test]
fn a_sample_takes_about_a_tenth_and_says_so() {
    let mut machine = in_verify(Verification::Sample, begin());
    let (compared, saved) = compare(&mut machine, 400, is_swap);
    assert!((25..70).contains(&compared.len()), "{} of 400", compared.len());
    assert_eq!((compared.first(), compared.last()), (Some(&0), Some(&399)));
    let proof = saved.unwrap().proof().unwrap();
    let rows = ROWS * u64::try_from(compared.len()).unwrap();
    assert_eq!((proof.verdict, proof.rows), (Verdict::Sampled, rows));
}

#[test]
fn of_a_small_table_a_sample_takes_all_and_may_say_so() {
    let mut machine = in_verify(Verification::Sample, begin());
    let (compared, saved) = compare(&mut machine, 3, is_swap);
    assert_eq!(compared, [0, 1, 2]);
    assert_eq!(saved.unwrap().proof().unwrap().verdict, Verdict::Equal);
}

#[test]
fn a_program_that_goes_on_takes_the_same_sample() {
    let whole = compare(&mut in_verify(Verification::Sample, begin()), 400, is_swap).0;
    let mut machine = in_verify(Verification::Sample, begin());
    let half = |action: &Action| {
        matches!(action, Action::PlanVerify { after: Some(after), .. }
            if after.0[0].parse::<u32>().unwrap() > 150)
    };
    let (mut compared, saved) = compare(&mut machine, 400, half);
    let saved = saved.unwrap();
    assert!(saved.sampled && saved.verified != Frontier::Start);
    let mut machine = in_verify(Verification::Sample, saved);
    let (rest, saved) = compare(&mut machine, 400, is_swap);
    // The first few of each program are compared in any case.
    compared.extend(rest);
    assert!(whole.iter().all(|range| compared.contains(range)), "{whole:?} {compared:?}");
    assert!(compared.len() <= whole.len() + 3, "{compared:?}");
    assert_eq!(saved.unwrap().proof().unwrap().verdict, Verdict::Sampled);
}

#[test]
fn a_sampled_run_that_is_resumed_for_all_of_it_begins_the_comparison_again() {
    let mut machine = in_verify(Verification::Sample, begin());
    let (_, saved) = compare(&mut machine, 400, is_swap);
    let saved = saved.unwrap();
    assert_eq!((saved.phase, &saved.verified), (Phase::Swap, &Frontier::End));
    let resumed = Checkpoint { phase: Phase::Verify, ..saved.clone() };
    let mut machine = in_verify(Verification::Full, resumed);
    let (compared, again) = compare(&mut machine, 400, is_swap);
    assert_eq!(compared.len(), 400);
    let proof = again.unwrap().proof().unwrap();
    assert_eq!((proof.verdict, proof.rows), (Verdict::Equal, 400 * ROWS));
    // Where the swap turns out to be made, it stands on the sample, whatever is asked for now.
    let settings = Settings { verify: Verification::Full, ..Settings::default() };
    let machine = Machine::recover(settings, saved, &observed(SwapState::Swapped));
    assert_eq!(machine.checkpoint().proof().unwrap().verdict, Verdict::Sampled);
}

#[test]
fn all_that_is_resumed_by_a_sample_is_a_sample() {
    let mut machine = in_verify(Verification::Full, begin());
    let half = |action: &Action| {
        matches!(action, Action::PlanVerify { after: Some(after), .. }
            if after.0[0].parse::<u32>().unwrap() > 150)
    };
    let (compared, saved) = compare(&mut machine, 400, half);
    assert!(compared.len() > 150);
    let saved = saved.unwrap();
    assert!(!saved.sampled);
    let mut machine = in_verify(Verification::Sample, saved);
    let (_, saved) = compare(&mut machine, 400, is_swap);
    assert_eq!(saved.unwrap().proof().unwrap().verdict, Verdict::Sampled);
}

#[test]
fn without_a_comparison_nothing_is_proven() {
    let checkpoint = Checkpoint { verified: Frontier::At(key(9)), ..begin() };
    let mut machine = in_verify(Verification::Off, checkpoint);
    let (compared, saved) = compare(&mut machine, 400, is_swap);
    let saved = saved.unwrap();
    assert!(compared.is_empty() && saved.proof().is_none());
    let machine = Machine::recover(Settings::default(), saved, &observed(SwapState::Swapped));
    assert_eq!(machine.checkpoint().proof().unwrap().verdict, Verdict::Skipped);
}
