//! Single steps of the machine that are easier to read here than in a simulated run.

mod blocks;
mod sampled;
mod steered;

use super::*;
use crate::key::{Chunk, Key, KeyRange};
use crate::plan::Flow;
use crate::signal::{LAG, Reading, Unit};

fn key(n: u32) -> Key {
    Key(vec![n.to_string()])
}

fn chunks(bounds: &[Option<u32>]) -> Vec<Chunk> {
    let mut after = None;
    (0..)
        .zip(bounds)
        .map(|(index, bound)| {
            let up_to = bound.map(key);
            let range = KeyRange { after: after.clone(), up_to: up_to.clone() };
            after = up_to;
            Chunk { index, range }
        })
        .collect()
}

fn machine_in_copy(workers: u32) -> Machine {
    let settings = Settings { workers, ..Settings::default() };
    let checkpoint = Checkpoint { phase: Phase::Copy, ..Checkpoint::begin() };
    let observed = Observed { done: vec![], swap: SwapState::NotSwapped };
    Machine::recover(settings, checkpoint, &observed)
}

fn copied(index: u32) -> Event {
    Event::ChunkCopied { index, rows: 10, took_ms: 5, applied: None }
}

fn names(actions: &[Action]) -> Vec<String> {
    actions
        .iter()
        .map(|action| {
            let text = format!("{action:?}");
            text.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
        })
        .collect()
}

#[test]
fn the_plan_of_a_round_is_durable_before_its_chunks_begin() {
    let mut machine = machine_in_copy(2);
    assert_eq!(names(&machine.step(0, Event::Started)), ["PlanRound"]);
    let actions = machine
        .step(1, Event::RoundPlanned { chunks: chunks(&[Some(10), Some(20), None]), last: true });
    assert_eq!(names(&actions), ["Save", "CopyChunk", "CopyChunk"]);
}

#[test]
fn the_log_is_not_applied_while_a_chunk_is_in_flight() {
    let mut machine = machine_in_copy(2);
    machine.step(0, Event::Started);
    machine.step(1, Event::RoundPlanned { chunks: chunks(&[Some(10), Some(20)]), last: false });
    assert!(machine.step(2, Event::Backlog { entries: 1_000_000 }).is_empty());
    assert!(machine.step(3, copied(1)).is_empty(), "chunk 0 is still in flight");
    let actions = machine.step(4, copied(0));
    assert_eq!(
        actions,
        [Action::Apply {
            frontier: Frontier::At(key(20)),
            keys_max: Settings::default().apply_keys_max,
            clears: false,
        }]
    );
}

#[test]
fn a_throttle_cuts_the_round_short_and_keeps_the_frontier_exact() {
    let mut machine = machine_in_copy(1);
    machine.step(0, Event::Started);
    let plan = chunks(&[Some(10), Some(20), Some(30)]);
    machine.step(1, Event::RoundPlanned { chunks: plan, last: false });
    machine.step(2, lagging());
    assert!(machine.step(3, copied(0)).is_empty());
    let actions = machine.step(4, lag(0));
    assert!(
        matches!(&actions[..], [Action::PlanRound { after: Some(after), .. }] if *after == key(10))
    );
}

#[test]
fn a_resumed_round_copies_only_what_has_no_mark() {
    let plan = crate::key::Round { number: 7, chunks: chunks(&[Some(10), Some(20), Some(30)]) };
    let checkpoint =
        Checkpoint { phase: Phase::Copy, round: Some(plan), round_next: 8, ..Checkpoint::begin() };
    let observed = Observed {
        done: vec![DoneChunk { index: 0, rows: 5 }, DoneChunk { index: 2, rows: 5 }],
        swap: SwapState::NotSwapped,
    };
    let mut machine = Machine::recover(Settings::default(), checkpoint, &observed);
    let actions = machine.step(0, Event::Started);
    assert!(
        matches!(&actions[..], [Action::CopyChunk { round: 7, chunk }] if chunk.index == 1),
        "{actions:?}"
    );
}

#[test]
fn a_second_difference_stops_the_run_before_the_swap() {
    let settings = Settings::default();
    let checkpoint =
        Checkpoint { phase: Phase::Verify, frontier: Frontier::End, ..Checkpoint::begin() };
    let observed = Observed { done: vec![], swap: SwapState::NotSwapped };
    let mut machine = Machine::recover(settings, checkpoint, &observed);
    assert_eq!(names(&machine.step(0, Event::Started)), ["PlanVerify"]);
    machine.step(1, Event::RoundPlanned { chunks: chunks(&[None]), last: true });
    let differs = || Event::RangeVerified {
        index: 0,
        rows: 10,
        differences: 1,
        samples: vec!["id=3".into()],
        took_ms: 1,
    };
    assert_eq!(names(&machine.step(2, differs())), ["Repair"]);
    assert_eq!(names(&machine.step(3, Event::Repaired { keys: 1, backlog: 1 })), ["Apply"]);
    let applied = Applied { entries: 1, keys: 1, ..Applied::default() };
    assert_eq!(names(&machine.step(4, Event::Applied(applied))), ["VerifyRange"]);
    let actions = machine.step(5, differs());
    assert!(matches!(
        &actions[..],
        [.., Action::Stop(Ending::Failed(Failure { kind: FailureKind::Different, .. }))]
    ));
}

#[test]
fn a_lock_that_is_never_had_ends_within_the_patience() {
    let settings = Settings { lock_patience_ms: 60_000, ..Settings::default() };
    let observed = Observed { done: vec![], swap: SwapState::NotSwapped };
    let mut machine = Machine::recover(settings, Checkpoint::begin(), &observed);
    let mut now_ms = 0;
    let mut actions = machine.step(now_ms, Event::Started);
    let mut tries = 0;
    while !actions.iter().any(|action| matches!(action, Action::Stop(_))) {
        now_ms += 100;
        assert!(now_ms < 120_000, "it must end");
        let event = if actions.contains(&Action::Prepare) {
            tries += 1;
            Event::LockNotHad { why: "session 7".into() }
        } else {
            Event::Tick
        };
        actions = machine.step(now_ms, event);
    }
    assert!(tries > 3 && tries < 20, "{tries} tries with growing rests");
    assert!(matches!(
        &actions[..],
        [.., Action::Stop(Ending::Failed(Failure { kind: FailureKind::LockNotHad, .. }))]
    ));
}

#[test]
fn an_event_that_cannot_be_stops_the_run_safely() {
    let mut machine = machine_in_copy(1);
    machine.step(0, Event::Started);
    let actions = machine.step(1, Event::Swapped { stall_ms: 1, drained: 0 });
    assert!(matches!(&actions[..], [.., Action::Stop(Ending::Failed(_))]), "{actions:?}");
}

#[test]
fn a_swap_seen_after_a_crash_leads_forward() {
    let checkpoint =
        Checkpoint { phase: Phase::Swap, frontier: Frontier::End, ..Checkpoint::begin() };
    let observed = Observed { done: vec![], swap: SwapState::Swapped };
    let mut machine = Machine::recover(Settings::default(), checkpoint, &observed);
    assert_eq!(names(&machine.step(0, Event::Started)), ["Save", "Finish"]);
    assert_eq!(names(&machine.step(1, Event::Finished)), ["Save", "Stop"]);
}

fn observed(swap: SwapState) -> Observed {
    Observed { done: vec![], swap }
}

fn failure(kind: FailureKind) -> Failure {
    Failure { kind, message: "said the server".into() }
}

fn lag(lag_ms: u32) -> Event {
    let value = f64::from(lag_ms);
    Event::Signals(vec![Reading::new(LAG, "db2:3306", "test", Unit::Ms, value)])
}

fn lagging() -> Event {
    lag(9000)
}

#[test]
fn a_resumed_round_is_not_cut_short() {
    // Chunk 1 may have been written to before the crash, by chunk 0 that was taken with the log: its
    // keys must not come to lie beyond the frontier, where their entries are dropped.
    let plan = crate::key::Round { number: 7, chunks: chunks(&[Some(10), Some(20), Some(30)]) };
    let checkpoint =
        Checkpoint { phase: Phase::Copy, round: Some(plan), round_next: 8, ..Checkpoint::begin() };
    let seen =
        Observed { done: vec![DoneChunk { index: 0, rows: 5 }], swap: SwapState::NotSwapped };
    let mut machine = Machine::recover(Settings::default(), checkpoint, &seen);
    machine.step(0, lagging());
    assert!(machine.step(0, Event::Started).is_empty());
    assert!(machine.step(1, Event::Backlog { entries: 50_000 }).is_empty(), "no quiet point");
    assert_eq!(names(&machine.step(2, lag(0))), ["CopyChunk", "CopyChunk"]);
}

#[test]
fn a_resumed_round_is_brought_to_its_end_where_the_log_gets_too_long() {
    let plan = crate::key::Round { number: 7, chunks: chunks(&[Some(10), Some(20)]) };
    let checkpoint =
        Checkpoint { phase: Phase::Copy, round: Some(plan), round_next: 8, ..Checkpoint::begin() };
    let mut machine =
        Machine::recover(Settings::default(), checkpoint, &observed(SwapState::NotSwapped));
    machine.step(0, lagging());
    assert!(machine.step(0, Event::Started).is_empty());
    let actions = machine.step(1, Event::Backlog { entries: 100_000 });
    assert_eq!(names(&actions), ["CopyChunk"], "one by one");
    assert_eq!(names(&machine.step(2, copied(0))), ["CopyChunk"]);
    assert_eq!(names(&machine.step(3, copied(1))), ["Apply"]);
    let applied = Applied { entries: 5000, left: 95_000, ..Applied::default() };
    assert!(machine.step(20_000, Event::Applied(applied)).is_empty(), "short enough again");
}

#[test]
fn the_log_is_applied_once_before_indexes_are_built() {
    let settings = Settings { deferred_indexes: true, ..Settings::default() };
    let checkpoint =
        Checkpoint { phase: Phase::Indexes, frontier: Frontier::End, ..Checkpoint::begin() };
    let mut machine = Machine::recover(settings, checkpoint, &observed(SwapState::NotSwapped));
    let actions = machine.step(0, Event::Started);
    assert!(matches!(&actions[..], [Action::Apply { clears: true, .. }]), "{actions:?}");
    // What does not clear leaves rows of several moments, of which two may have one unique value.
    let batch = Event::Applied(Applied { cleared: false, ..Applied::default() });
    assert_eq!(names(&machine.step(1, batch)), ["Apply"]);
    let cleared = Event::Applied(Applied { cleared: true, ..Applied::default() });
    assert_eq!(names(&machine.step(2, cleared)), ["BuildIndexes"]);
}

#[test]
fn batches_get_longer_while_writers_log_faster_than_it_is_applied() {
    let checkpoint =
        Checkpoint { phase: Phase::CatchUp, frontier: Frontier::End, ..Checkpoint::begin() };
    let mut machine =
        Machine::recover(Settings::default(), checkpoint, &observed(SwapState::NotSwapped));
    let keys_of = |actions: Vec<Action>| match actions[..] {
        [Action::Apply { keys_max, .. }] => keys_max,
        _ => panic!("{actions:?}"),
    };
    assert_eq!(keys_of(machine.step(0, Event::Started)), 5000);
    let mut after = |left| {
        let applied = Applied { entries: 5000, left, ..Applied::default() };
        keys_of(machine.step(1, Event::Applied(applied)))
    };
    assert_eq!(after(50_000), 5000, "once tells nothing");
    assert_eq!(after(51_000), 10_000);
    assert_eq!(after(50_000), 10_000, "it gains");
    let longest = (0..9).map(|more| after(60_000 + more)).last();
    assert_eq!(longest, Some(80_000), "one transaction has a bound");
    assert_eq!(after(4000), 5000);
    assert_eq!(after(6000), 5000, "it was near empty in between");
}

#[test]
fn a_run_whose_every_step_fails_can_be_aborted() {
    let mut machine = machine_in_copy(1);
    assert_eq!(names(&machine.step(0, Event::Started)), ["PlanRound"]);
    assert!(machine.step(1, Event::Command(Command::Abort)).is_empty());
    let actions = machine.step(2, Event::Failed(failure(FailureKind::SourceChanged)));
    assert_eq!(names(&actions), ["Save", "Abort"]);
    let actions = machine.step(3, Event::Failed(failure(FailureKind::Other)));
    assert!(matches!(&actions[..], [.., Action::Stop(Ending::Failed(_))]), "{actions:?}");
}

#[test]
fn an_abort_that_was_cut_off_goes_on() {
    let mut machine = machine_in_copy(1);
    machine.step(0, Event::Started);
    machine.step(1, Event::Command(Command::Abort));
    let actions = machine.step(2, Event::RoundPlanned { chunks: vec![], last: true });
    let [Action::Save(saved), Action::Abort] = &actions[..] else { panic!("{actions:?}") };
    let checkpoint = Checkpoint::decode(&saved.encode().unwrap()).unwrap();
    let seen = observed(SwapState::NotSwapped);
    let mut machine = Machine::recover(Settings::default(), checkpoint, &seen);
    assert_eq!(names(&machine.step(0, Event::Started)), ["Abort"]);
    assert_eq!(machine.step(1, Event::Finished), [Action::Stop(Ending::Aborted { why: None })]);
}

#[test]
fn what_cannot_be_told_is_not_removed() {
    let checkpoint = Checkpoint { phase: Phase::Swap, ..Checkpoint::begin() };
    let unclear = observed(SwapState::Unclear("two tables".into()));
    let mut machine = Machine::recover(Settings::default(), checkpoint, &unclear);
    machine.step(0, Event::Command(Command::Abort));
    let actions = machine.step(0, Event::Started);
    assert!(matches!(
        &actions[..],
        [.., Action::Stop(Ending::Failed(Failure { kind: FailureKind::Ambiguous, .. }))]
    ));
}

#[test]
fn the_lock_is_not_asked_for_while_the_log_is_long() {
    let checkpoint = Checkpoint {
        phase: Phase::Verify,
        frontier: Frontier::End,
        verified: Frontier::End,
        ..Checkpoint::begin()
    };
    let settings = Settings { near_empty_entries: 10, ..Settings::default() };
    let mut machine = Machine::recover(settings, checkpoint, &observed(SwapState::NotSwapped));
    machine.step(0, Event::Backlog { entries: 11 });
    assert_eq!(names(&machine.step(0, Event::Started)), ["Apply"]);
    let applied = Applied { entries: 1, left: 10, ..Applied::default() };
    let actions = machine.step(1, Event::Applied(applied));
    assert_eq!(names(&actions).last().map(String::as_str), Some("TrySwap"));
}

#[test]
fn a_resumed_run_empties_the_log_before_it_asks_for_the_lock() {
    let checkpoint = Checkpoint {
        phase: Phase::Swap,
        frontier: Frontier::End,
        verified: Frontier::End,
        ..Checkpoint::begin()
    };
    let seen = observed(SwapState::NotSwapped);
    let mut machine = Machine::recover(Settings::default(), checkpoint, &seen);
    assert_eq!(names(&machine.step(0, Event::Started)), ["Apply"]);
    let actions = machine.step(1, Event::Applied(Applied::default()));
    assert_eq!(names(&actions).last().map(String::as_str), Some("TrySwap"));
}
