//! The flow by blocks: nothing is applied while copying, then settle, indexes, application.

use super::*;
use crate::key::Round;

fn settings() -> Settings {
    Settings { flow: Flow::Blocks, workers: 2, ..Settings::default() }
}

fn machine_at(checkpoint: Checkpoint) -> Machine {
    Machine::recover(settings(), checkpoint, &observed(SwapState::NotSwapped))
}

fn at(phase: Phase) -> Checkpoint {
    let frontier = if phase > Phase::Copy { Frontier::End } else { Frontier::Start };
    Checkpoint { phase, frontier, ..Checkpoint::begin() }
}

fn truncated() -> Failure {
    failure(FailureKind::Truncated)
}

#[test]
fn a_long_log_is_kept_while_copying() {
    let mut machine = machine_at(at(Phase::Copy));
    machine.step(0, Event::Started);
    machine.step(1, Event::RoundPlanned { chunks: chunks(&[Some(10), Some(20)]), last: false });
    machine.step(2, Event::Backlog { entries: 1_000_000 });
    machine.step(60_000, copied(1));
    let actions = machine.step(60_001, copied(0));
    assert!(
        matches!(&actions[..], [Action::PlanRound { after: Some(after), .. }] if *after == key(20)),
        "{actions:?}"
    );
}

#[test]
fn the_copy_is_settled_and_indexed_before_anything_is_applied() {
    let mut machine = machine_at(at(Phase::Copy));
    machine.step(0, Event::Started);
    machine.step(1, Event::RoundPlanned { chunks: chunks(&[None]), last: true });
    assert_eq!(names(&machine.step(2, copied(0))), ["Save", "Settle"]);
    assert_eq!(names(&machine.step(3, Event::Settled { rows: 4 })), ["Save", "BuildIndexes"]);
    assert_eq!(names(&machine.step(4, Event::IndexesBuilt)), ["Save", "Apply"]);
    let actions = machine.step(5, Event::Applied(Applied::default()));
    assert_eq!(names(&actions), ["Save", "Tidy", "PlanVerify"]);
    assert_eq!(machine.progress(5).counters.rows_settled, 4);
}

#[test]
fn what_was_cut_off_is_settled_again() {
    assert_eq!(names(&machine_at(at(Phase::Settle)).step(0, Event::Started)), ["Settle"]);
    // Rows that clashed may have been mended in the source since.
    assert_eq!(names(&machine_at(at(Phase::Indexes)).step(0, Event::Started)), ["Settle"]);
}

#[test]
fn a_clash_in_a_chunk_cannot_be() {
    let mut machine = machine_at(at(Phase::Copy));
    machine.step(0, Event::Started);
    machine.step(1, Event::RoundPlanned { chunks: chunks(&[None]), last: true });
    let actions = machine.step(2, Event::ChunkClashed { index: 0 });
    assert!(matches!(&actions[..], [.., Action::Stop(Ending::Failed(_))]), "{actions:?}");
}

#[test]
fn an_emptied_source_is_prepared_and_copied_anew_once_nothing_is_in_flight() {
    let mut machine = machine_at(Checkpoint { round_next: 7, ..at(Phase::Copy) });
    machine.step(0, Event::Started);
    let plan = chunks(&[Some(10), Some(20), Some(30)]);
    machine.step(1, Event::RoundPlanned { chunks: plan, last: false });
    let gone = Event::ChunkFailed { index: 0, failure: truncated() };
    assert!(machine.step(2, gone).is_empty(), "chunk 1 is still in flight");
    let actions = machine.step(3, copied(1));
    let [Action::Save(saved), Action::Prepare] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!((saved.phase, &saved.frontier), (Phase::Prepare, &Frontier::Start));
    assert_eq!((saved.round.as_ref(), saved.round_next), (None::<&Round>, 8));
    let actions = machine.step(4, Event::Prepared);
    assert!(
        matches!(&actions[..], [Action::PlanRound { after: None, .. }]),
        "from the start: {actions:?}"
    );
}

#[test]
fn an_emptied_source_is_noticed_in_every_phase_before_the_swap() {
    for phase in [Phase::Settle, Phase::Indexes, Phase::CatchUp, Phase::Verify] {
        let mut machine = machine_at(at(phase));
        assert!(!machine.step(0, Event::Started).is_empty());
        let mut actions = machine.step(1, Event::Failed(truncated()));
        if phase == Phase::Verify {
            assert_eq!(names(&actions), ["CancelTidy"]);
            actions = machine.step(2, Event::TidyFailed(failure(FailureKind::Other)));
        }
        assert_eq!(names(&actions), ["Save", "Prepare"], "{phase:?}");
    }
}

#[test]
fn a_source_that_is_emptied_for_ever_ends_the_run() {
    let mut machine = machine_at(at(Phase::Copy));
    machine.step(0, Event::Started);
    for times in 0..100 {
        let actions = machine.step(1, Event::Failed(truncated()));
        if let [.., Action::Stop(Ending::Failed(why))] = &actions[..] {
            assert_eq!((why.kind, times), (FailureKind::Truncated, 20));
            return;
        }
        assert_eq!(names(&actions), ["Save", "Prepare"]);
        assert_eq!(names(&machine.step(2, Event::Prepared)), ["PlanRound"]);
    }
    panic!("it must end");
}

#[test]
fn an_emptied_source_does_not_hold_up_an_abort() {
    let mut machine = machine_at(at(Phase::Copy));
    machine.step(0, Event::Started);
    machine.step(1, Event::Command(Command::Abort));
    let actions = machine.step(2, Event::Failed(truncated()));
    assert_eq!(names(&actions), ["Save", "Abort"]);
}

#[test]
fn by_key_ranges_an_emptied_source_ends_the_run() {
    let mut machine = machine_in_copy(1);
    machine.step(0, Event::Started);
    let actions = machine.step(1, Event::Failed(truncated()));
    assert!(matches!(&actions[..], [.., Action::Stop(Ending::Failed(_))]), "{actions:?}");
}

#[test]
fn a_drain_that_took_too_long_is_followed_by_an_application_and_not_tried_for_ever() {
    let mut machine = machine_at(Checkpoint { verified: Frontier::End, ..at(Phase::Verify) });
    machine.step(0, Event::Started);
    let mut actions = machine.step(0, Event::Tidied);
    let mut now_ms = 0;
    for _ in 0..1000 {
        assert_eq!(names(&actions).last().map(String::as_str), Some("TrySwap"));
        actions = machine.step(now_ms, Event::DrainTooSlow { drained: 0 });
        if let [.., Action::Stop(Ending::Failed(why))] = &actions[..] {
            assert_eq!(why.kind, FailureKind::LockNotHad);
            return;
        }
        now_ms += 20_000;
        assert_eq!(names(&machine.step(now_ms, Event::Tick)), ["Apply"]);
        actions = machine.step(now_ms, Event::Applied(Applied::default()));
    }
    panic!("it must end");
}

fn verified(machine: &mut Machine, now_ms: u64) -> Vec<Action> {
    machine.step(now_ms, Event::Started);
    machine.step(now_ms + 1, Event::RoundPlanned { chunks: chunks(&[None]), last: true });
    let found =
        Event::RangeVerified { index: 0, rows: 9, differences: 0, samples: vec![], took_ms: 1 };
    machine.step(now_ms + 2, found)
}

#[test]
fn the_table_is_tidied_beside_the_comparison_and_before_the_swap() {
    let mut machine = machine_at(at(Phase::Verify));
    let actions = verified(&mut machine, 0);
    assert!(!names(&actions).contains(&"TrySwap".to_owned()), "{actions:?}");
    assert!(machine.progress(3).waiting.is_some_and(|why| why.contains("statistics")));
    assert!(machine.step(4, Event::Tick).is_empty());
    assert_eq!(names(&machine.step(5, Event::Tidied)), ["Save", "TrySwap"]);
}

#[test]
fn one_worker_less_compares_while_the_table_is_tidied() {
    let mut machine = machine_at(at(Phase::Verify));
    assert_eq!(names(&machine.step(0, Event::Started)), ["Tidy", "PlanVerify"]);
    let plan = chunks(&[Some(10), Some(20), Some(30)]);
    let actions = machine.step(1, Event::RoundPlanned { chunks: plan, last: false });
    assert_eq!(names(&actions), ["VerifyRange"]);
    assert_eq!(names(&machine.step(2, Event::Tidied)), ["VerifyRange"]);
}

#[test]
fn who_stops_does_not_wait_for_the_tidying() {
    let mut machine = machine_at(at(Phase::Verify));
    machine.step(0, Event::Started);
    machine.step(1, Event::RoundPlanned { chunks: vec![], last: true });
    assert_eq!(names(&machine.step(2, Event::Command(Command::Stop))), ["CancelTidy"]);
    assert!(machine.step(3, Event::Tick).is_empty(), "once is enough, and its answer is awaited");
    let actions = machine.step(4, Event::TidyFailed(failure(FailureKind::Other)));
    assert_eq!(names(&actions).last().map(String::as_str), Some("Stop"), "{actions:?}");
}

#[test]
fn a_table_that_cannot_be_tidied_is_not_swapped() {
    let mut machine = machine_at(at(Phase::Verify));
    verified(&mut machine, 0);
    let mut actions = Vec::new();
    for turn in 1..=20 {
        actions = machine.step(turn * 10_000, Event::TidyFailed(failure(FailureKind::Other)));
        if names(&actions).contains(&"Stop".to_owned()) {
            break;
        }
        let again = machine.step(turn * 10_000 + 5000, Event::Tick);
        assert_eq!(names(&again).last().map(String::as_str), Some("Tidy"), "{actions:?}");
    }
    assert!(matches!(&actions[..], [.., Action::Stop(Ending::Failed(_))]), "{actions:?}");
}

#[test]
fn after_a_crash_the_table_is_tidied_again() {
    let mut machine = machine_at(Checkpoint { verified: Frontier::End, ..at(Phase::Verify) });
    assert_eq!(names(&machine.step(0, Event::Started)), ["Tidy"]);
}

/// With one worker whatever is exclusive waits in line behind the tidying.
#[test]
fn who_stops_does_not_wait_for_what_waits_behind_the_tidying() {
    for command in [Command::Stop, Command::Abort] {
        let mut machine = Machine::recover(
            Settings { workers: 1, ..settings() },
            at(Phase::Verify),
            &observed(SwapState::NotSwapped),
        );
        assert_eq!(names(&machine.step(0, Event::Started)), ["Tidy", "PlanVerify"]);
        assert_eq!(names(&machine.step(1, Event::Command(command.clone()))), ["CancelTidy"]);
        assert!(machine.step(2, Event::Tick).is_empty(), "once is enough");
        assert!(machine.step(3, Event::TidyFailed(failure(FailureKind::Other))).is_empty());
        let actions = machine.step(4, Event::RoundPlanned { chunks: vec![], last: true });
        let last = if command == Command::Stop { "Stop" } else { "Abort" };
        assert_eq!(names(&actions).last().map(String::as_str), Some(last), "{actions:?}");
    }
}

#[test]
fn a_paused_comparison_begins_nothing() {
    let mut machine = machine_at(at(Phase::Verify));
    machine.step(0, Event::Started);
    machine.step(1, Event::Tidied);
    machine.step(2, Event::Command(Command::Pause));
    // What was being planned is not begun, and not planned again.
    let planned = || Event::RoundPlanned { chunks: chunks(&[Some(10), Some(20)]), last: false };
    let mut actions = machine.step(3, planned());
    actions.extend(machine.step(4, Event::Tick));
    assert!(!names(&actions).iter().any(|name| name.contains("Verify")), "{actions:?}");
    let actions = machine.step(5, Event::Command(Command::Resume));
    assert!(names(&actions).contains(&"PlanVerify".to_owned()), "{actions:?}");
}
