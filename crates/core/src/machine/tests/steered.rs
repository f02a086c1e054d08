//! What people, the calendar and the load forbid is not begun; and what gives way first.

use super::*;
use crate::proof::Verification;
use crate::signal::{Gates, Limit, RUNNING, Setting, SwapWhen};

fn running(value: f64) -> Event {
    Event::Signals(vec![Reading::new(RUNNING, "", "test", Unit::Count, value)])
}

fn limited(pause_at: f64, abort_at: f64) -> Settings {
    let limit = Limit { name: RUNNING.into(), pause_at: Some(pause_at), abort_at: Some(abort_at) };
    Settings { limits: vec![limit], workers: 1, ..Settings::default() }
}

fn ready_for_swap(settings: Settings) -> Machine {
    let checkpoint = Checkpoint {
        phase: Phase::Verify,
        frontier: Frontier::End,
        verified: Frontier::End,
        ..Checkpoint::begin()
    };
    Machine::recover(settings, checkpoint, &observed(SwapState::NotSwapped))
}

fn at(phase: Phase, settings: Settings) -> Machine {
    let frontier = if phase > Phase::Copy { Frontier::End } else { Frontier::Start };
    let checkpoint = Checkpoint { phase, frontier, ..Checkpoint::begin() };
    Machine::recover(settings, checkpoint, &observed(SwapState::NotSwapped))
}

fn command(command: Command) -> Event {
    Event::Command(command)
}

fn pause_of(machine: &Machine, now_ms: u64) -> (String, u64) {
    machine.progress(now_ms).pause.map(|it| (it.kind, it.since_ms)).unwrap_or_default()
}

fn backlog(entries: u64) -> Event {
    Event::Backlog { entries }
}

fn left(left: u64) -> Event {
    Event::Applied(Applied { entries: 1, left, ..Applied::default() })
}

#[test]
fn a_closed_window_holds_up_everything_heavy_and_nothing_else() {
    let closed = || Gates { copy: Some("outside its window until Mon 20:00".into()), swap: None };
    for phase in [Phase::Prepare, Phase::Copy, Phase::Verify] {
        let mut machine = at(phase, Settings::default());
        assert!(machine.step(0, Event::Gates(closed())).is_empty(), "{phase:?}");
        assert!(machine.step(1, Event::Started).is_empty(), "{phase:?}");
        let told = machine.progress(5).waiting;
        assert_eq!(told.as_deref(), Some("outside its window until Mon 20:00"), "{phase:?}");
        assert_eq!(pause_of(&machine, 5), ("copy-window".into(), 1), "{phase:?}");
        let opened = machine.step(9, Event::Gates(Gates::default()));
        assert_eq!(opened.len(), 1, "{phase:?}: {opened:?}");
        assert_eq!(machine.progress(9).counters.paused_ms["copy-window"], 8, "{phase:?}");
    }
    // The log is kept short all the same, and what is left is swapped.
    let mut machine = at(Phase::Copy, Settings::default());
    machine.step(0, Event::Gates(closed()));
    machine.step(1, Event::Started);
    assert_eq!(names(&machine.step(2, backlog(5000))), ["Apply"]);
    let mut machine = ready_for_swap(Settings::default());
    machine.step(0, Event::Gates(closed()));
    let actions = machine.step(0, Event::Started);
    assert_eq!(names(&actions).last().map(String::as_str), Some("TrySwap"));
}

#[test]
fn a_window_that_closes_lets_chunks_end_and_cuts_the_round() {
    let mut machine = machine_in_copy(1);
    machine.step(0, Event::Started);
    let plan = chunks(&[Some(10), Some(20), Some(30)]);
    machine.step(1, Event::RoundPlanned { chunks: plan, last: false });
    let closed = Gates { copy: Some("closed".into()), swap: None };
    assert!(machine.step(2, Event::Gates(closed)).is_empty());
    assert!(machine.step(3, copied(0)).is_empty());
    let actions = machine.step(4, Event::Gates(Gates::default()));
    assert!(
        matches!(&actions[..], [Action::PlanRound { after: Some(after), .. }] if *after == key(10)),
        "{actions:?}"
    );
}

#[test]
fn a_closed_swap_is_not_tried_and_the_log_stays_short_meanwhile() {
    let mut machine = ready_for_swap(Settings::default());
    let closed = Gates { copy: None, swap: Some("outside its window".into()) };
    machine.step(0, Event::Gates(closed));
    assert!(machine.step(0, Event::Started).is_empty());
    assert_eq!(pause_of(&machine, 1), ("swap-gate".into(), 0));
    assert_eq!(names(&machine.step(2, backlog(2501))), ["Apply"]);
    assert!(machine.step(3, left(100)).is_empty());
    // A word lets the swap go that waits for one; a closed gate it does not open.
    assert!(machine.step(4, command(Command::Swap)).is_empty());
    let actions = machine.step(5, Event::Gates(Gates::default()));
    assert_eq!(names(&actions), ["Save", "TrySwap"]);
}

#[test]
fn a_swap_that_waits_for_a_word_goes_at_that_word_which_may_come_early() {
    let asked = || Settings { swap_when: SwapWhen::Asked, ..Settings::default() };
    let mut machine = ready_for_swap(asked());
    assert!(names(&machine.step(0, Event::Started)).is_empty());
    assert_eq!(pause_of(&machine, 60_000), ("swap-asked".into(), 0));
    let waiting = machine.progress(1).waiting.unwrap_or_default();
    assert!(waiting.contains("underpin swap"), "{waiting}");
    let actions = machine.step(99, command(Command::Swap));
    assert_eq!(names(&actions).last().map(String::as_str), Some("TrySwap"));
    // Given while the run was still at work, or replayed to a program that goes on with it.
    let mut machine = ready_for_swap(asked());
    assert!(machine.step(0, command(Command::Swap)).is_empty());
    let actions = machine.step(0, Event::Started);
    assert_eq!(names(&actions).last().map(String::as_str), Some("TrySwap"));
}

#[test]
fn waiting_for_a_word_does_not_use_up_the_patience_with_the_lock() {
    let mut machine = ready_for_swap(Settings { lock_patience_ms: 60_000, ..Settings::default() });
    machine.step(0, Event::Started);
    machine.step(1, Event::LockNotHad { why: "session 7".into() });
    assert_eq!(pause_of(&machine, 1).0, "lock");
    machine.step(2, command(Command::Pause));
    assert_eq!(pause_of(&machine, 2), ("asked".into(), 2));
    let actions = machine.step(3_600_000, command(Command::Resume));
    assert_eq!(names(&actions), ["Save", "TrySwap"]);
    let actions = machine.step(3_600_001, Event::LockNotHad { why: "session 7".into() });
    assert!(actions.is_empty(), "an hour's pause is no hour of trying: {actions:?}");
}

#[test]
fn a_paused_run_begins_nothing_but_keeps_its_log_within_a_bound() {
    for phase in [Phase::Copy, Phase::CatchUp, Phase::Verify] {
        let mut machine = at(phase, Settings::default());
        machine.step(0, command(Command::Pause));
        assert!(machine.step(1, Event::Started).is_empty(), "{phase:?}");
        assert!(machine.step(600_000, backlog(99_999)).is_empty(), "{phase:?}");
        assert_eq!(names(&machine.step(600_001, backlog(100_000))), ["Apply"], "{phase:?}");
        assert!(machine.step(600_002, left(95_000)).is_empty(), "{phase:?}");
        assert_eq!(pause_of(&machine, 600_003), ("asked".into(), 0), "{phase:?}");
        assert_eq!(machine.step(600_004, command(Command::Resume)).len(), 1, "{phase:?}");
    }
    // By blocks there is nothing to apply by until the copy is done.
    let mut machine = at(Phase::Copy, Settings { flow: Flow::Blocks, ..Settings::default() });
    machine.step(0, command(Command::Pause));
    assert!(machine.step(1, backlog(10_000_000)).is_empty());
}

#[test]
fn a_pause_before_the_swap_and_after_it_is_kept() {
    let mut machine = ready_for_swap(Settings::default());
    machine.step(0, command(Command::Pause));
    assert!(machine.step(1, Event::Started).is_empty());
    let actions = machine.step(2, command(Command::Resume));
    assert_eq!(names(&actions).last().map(String::as_str), Some("TrySwap"));
    machine.step(3, command(Command::Pause));
    assert!(machine.step(4, Event::Swapped { stall_ms: 1, drained: 0 }).is_empty());
    assert_eq!(names(&machine.step(5, command(Command::Resume))), ["Save", "Finish"]);
}

/// Who gives it waits for the run's end, which a pause would put off for ever.
#[test]
fn an_abort_that_comes_too_late_ends_the_pause_and_so_the_run() {
    let mut machine = ready_for_swap(Settings::default());
    machine.step(1, Event::Started);
    machine.step(2, command(Command::Pause));
    assert!(machine.step(3, Event::Swapped { stall_ms: 1, drained: 0 }).is_empty());
    let mut actions = machine.step(4, command(Command::Abort));
    actions.extend(machine.step(5, backlog(0)));
    assert_eq!(names(&actions), ["Save", "Finish"]);
    assert_eq!(machine.progress(6).pause, None);
}

#[test]
fn a_pause_during_a_long_step_is_shown_and_holds_after_it() {
    let settings = Settings { deferred_indexes: true, ..Settings::default() };
    let mut machine = at(Phase::Indexes, settings);
    machine.step(0, Event::Started);
    let cleared = Event::Applied(Applied { cleared: true, ..Applied::default() });
    assert_eq!(names(&machine.step(1, cleared)), ["BuildIndexes"]);
    machine.step(2, command(Command::Pause));
    assert_eq!(pause_of(&machine, 3), ("asked".into(), 2));
    let actions = machine.step(60_000, Event::IndexesBuilt);
    assert!(names(&actions).iter().all(|name| name == "Save"), "{actions:?}");
    machine.step(61_000, Event::Tick);
    let paused_ms = machine.progress(61_000).counters.paused_ms;
    assert_eq!(paused_ms["asked"], 1_000, "while it was built it did not wait");
    assert_eq!(names(&machine.step(61_001, command(Command::Resume))), ["PlanVerify"]);
}

#[test]
fn a_swap_that_waits_for_a_word_has_everything_else_done() {
    let settings = Settings {
        flow: Flow::Blocks,
        swap_when: SwapWhen::Asked,
        verify: Verification::Off,
        ..Settings::default()
    };
    let mut machine = at(Phase::CatchUp, settings);
    machine.step(0, Event::Started);
    let actions = machine.step(1, left(0));
    assert_eq!(names(&actions).last().map(String::as_str), Some("Tidy"), "{actions:?}");
    assert!(machine.step(2, Event::Tidied).is_empty());
    let actions = machine.step(3, command(Command::Swap));
    assert_eq!(names(&actions).last().map(String::as_str), Some("TrySwap"));
}

#[test]
fn under_lag_the_copy_yields_at_once_and_the_log_after_a_while_within_its_bound() {
    let mut machine = machine_in_copy(1);
    machine.step(0, lag(0));
    machine.step(0, Event::Started);
    machine.step(1, Event::RoundPlanned { chunks: chunks(&[Some(10), Some(20)]), last: false });
    machine.step(2, lagging());
    assert!(machine.step(3, copied(0)).is_empty(), "the copy yields at once");
    assert_eq!(names(&machine.step(4, backlog(5000))), ["Apply"], "the log does not, at first");
    machine.step(5, left(0));
    for at_ms in [3_000, 6_000, 9_000] {
        machine.step(at_ms, lagging());
    }
    assert!(machine.step(9_001, backlog(99_999)).is_empty(), "after a while it does");
    assert_eq!(names(&machine.step(9_002, backlog(100_000))), ["Apply"], "within its bound");
}

#[test]
fn a_server_without_replicas_is_not_waited_for_once_it_was_read() {
    let settings = Settings { replicas_known: true, ..Settings::default() };
    let mut machine = at(Phase::Copy, settings);
    machine.step(0, Event::Gates(Gates::default()));
    assert_eq!(machine.progress(0).pause, None, "it is still being told");
    assert!(machine.step(0, Event::Started).is_empty());
    assert_eq!(pause_of(&machine, 0).0, "lag");
    assert_eq!(names(&machine.step(1, Event::Signals(vec![]))), ["PlanRound"]);
}

#[test]
fn the_comparison_and_the_swap_yield_like_the_copy() {
    let mut machine = at(Phase::Verify, Settings { workers: 1, ..Settings::default() });
    assert_eq!(names(&machine.step(0, Event::Started)), ["PlanVerify"]);
    machine.step(1, Event::RoundPlanned { chunks: chunks(&[Some(10), Some(20)]), last: false });
    machine.step(2, lagging());
    let equal =
        Event::RangeVerified { index: 0, rows: 10, differences: 0, samples: vec![], took_ms: 5 };
    assert!(machine.step(3, equal).is_empty());
    assert_eq!(pause_of(&machine, 3).0, "lag");
    let mut machine = ready_for_swap(Settings::default());
    machine.step(0, lagging());
    assert!(machine.step(0, Event::Started).is_empty());
    assert_eq!(pause_of(&machine, 3).0, "lag");
}

#[test]
fn a_range_that_differs_is_not_mended_in_a_pause() {
    let mut machine = at(Phase::Verify, Settings { workers: 1, ..Settings::default() });
    machine.step(0, Event::Started);
    machine.step(1, Event::RoundPlanned { chunks: chunks(&[None]), last: true });
    machine.step(2, command(Command::Pause));
    let differs = Event::RangeVerified {
        index: 0,
        rows: 10,
        differences: 1,
        samples: vec!["id=3".into()],
        took_ms: 1,
    };
    assert!(machine.step(3, differs).is_empty());
    assert_eq!(names(&machine.step(4, command(Command::Resume))), ["Repair"]);
}

#[test]
fn a_load_that_stays_critical_ends_the_run_and_removes_it() {
    let mut machine = at(Phase::Copy, limited(40.0, 100.0));
    assert!(machine.step(0, running(1.0)).is_empty(), "it is only told");
    assert_eq!(names(&machine.step(0, Event::Started)), ["PlanRound"]);
    assert!(machine.step(100, running(150.0)).is_empty());
    machine.step(600, running(150.0));
    machine.step(1_200, running(150.0));
    let actions = machine.step(1_300, Event::RoundPlanned { chunks: chunks(&[None]), last: true });
    let [Action::Save(saved), Action::Abort] = &actions[..] else { panic!("{actions:?}") };
    let [Action::Stop(Ending::Aborted { why: Some(why) })] =
        &machine.step(1_400, Event::Finished)[..]
    else {
        panic!("it tells why")
    };
    assert!(why.contains("running") && why.contains("150"), "{why}");
    // Cut off half way, the next program goes on with the abort and still knows why.
    let saved = Checkpoint::decode(&saved.encode().unwrap()).unwrap();
    let mut machine =
        Machine::recover(Settings::default(), saved, &observed(SwapState::NotSwapped));
    assert_eq!(names(&machine.step(0, Event::Started)), ["Abort"]);
    let why = Some(why.clone());
    assert_eq!(machine.step(1, Event::Finished), [Action::Stop(Ending::Aborted { why })]);
}

#[test]
fn after_the_swap_no_load_ends_the_run() {
    let mut machine = ready_for_swap(limited(40.0, 100.0));
    machine.step(0, running(1.0));
    let actions = machine.step(0, Event::Started);
    assert_eq!(names(&actions).last().map(String::as_str), Some("TrySwap"));
    for at_ms in [100, 700, 1_300] {
        assert!(machine.step(at_ms, running(150.0)).is_empty(), "a swap in flight is awaited");
    }
    let actions = machine.step(1_400, Event::Swapped { stall_ms: 1, drained: 0 });
    assert_eq!(names(&actions), ["Save", "Finish"]);
}

#[test]
fn a_critical_load_ends_a_run_that_is_paused_or_waits_for_its_window() {
    let mut machine = at(Phase::Copy, limited(40.0, 100.0));
    machine.step(0, command(Command::Pause));
    machine.step(0, Event::Started);
    for at_ms in [100, 600] {
        assert!(machine.step(at_ms, running(150.0)).is_empty());
    }
    assert_eq!(names(&machine.step(1_200, running(150.0))), ["Save", "Abort"]);
}

#[test]
fn what_is_set_holds_from_then_on() {
    let mut machine = at(Phase::Copy, Settings { workers: 3, ..Settings::default() });
    machine.step(0, lag(1500));
    machine.step(0, command(Command::Set(Setting::MaxLag(1000))));
    assert!(machine.step(1, lag(1500)).is_empty());
    assert!(machine.step(1, Event::Started).is_empty(), "above the new limit");
    assert_eq!(pause_of(&machine, 1).0, "lag");
    machine.step(2, command(Command::Set(Setting::Workers(2))));
    machine.step(2, command(Command::Set(Setting::ChunkMs(150))));
    assert_eq!(machine.progress(2).workers, 2);
    assert_eq!((machine.settings().workers, machine.settings().chunk_ms_target), (2, 150));
    let actions = machine.step(3, command(Command::Set(Setting::MaxLag(60_000))));
    assert!(
        matches!(&actions[..], [Action::PlanRound { chunks_max: 2, .. }]),
        "one chunk for each of two workers: {actions:?}"
    );
    let plan = chunks(&[Some(10), Some(20), Some(30)]);
    machine.step(10_000, Event::RoundPlanned { chunks: plan, last: false });
    machine.step(10_001, command(Command::Set(Setting::Workers(99))));
    assert_eq!(machine.progress(10_001).workers, 3, "never more than it began with");
}

#[test]
fn a_share_of_the_time_is_kept_to_without_cutting_the_round() {
    let settings = Settings { work_share: 500, workers: 1, ..Settings::default() };
    let mut machine = at(Phase::Copy, settings);
    machine.step(0, Event::Started);
    let plan = chunks(&[Some(10), Some(20), Some(30)]);
    let actions = machine.step(1, Event::RoundPlanned { chunks: plan, last: false });
    assert_eq!(names(&actions), ["Save", "CopyChunk"]);
    let done = Event::ChunkCopied { index: 0, rows: 10, took_ms: 400, applied: None };
    assert!(machine.step(401, done).is_empty(), "it rests as long as it worked");
    assert_eq!(machine.progress(401).pause, None, "which is no pause");
    assert!(machine.step(600, Event::Tick).is_empty());
    let actions = machine.step(1_000, Event::Tick);
    assert!(
        matches!(&actions[..], [Action::CopyChunk { chunk, .. }] if chunk.index == 1),
        "{actions:?}"
    );
}

#[test]
fn a_slow_pace_does_not_keep_the_log_from_being_applied() {
    let settings = Settings { work_share: 100, workers: 1, ..Settings::default() };
    let mut machine = at(Phase::Copy, settings);
    machine.step(0, Event::Started);
    let plan = chunks(&[Some(10), Some(20), Some(30)]);
    machine.step(1, Event::RoundPlanned { chunks: plan, last: false });
    machine.step(2, backlog(5000));
    let done = Event::ChunkCopied { index: 0, rows: 10, took_ms: 400, applied: None };
    let actions = machine.step(401, done);
    let frontier = Frontier::At(key(10));
    assert!(
        matches!(&actions[..], [Action::Apply { frontier: up_to, .. }] if *up_to == frontier),
        "the round is cut short: {actions:?}"
    );
}

#[test]
fn time_paused_and_chunk_times_are_remembered_across_programs() {
    let mut machine = machine_in_copy(1);
    machine.step(0, Event::Started);
    machine.step(1, Event::RoundPlanned { chunks: chunks(&[Some(10)]), last: false });
    let done = Event::ChunkCopied { index: 0, rows: 10, took_ms: 400, applied: None };
    machine.step(100, done);
    machine.step(1_000, lagging());
    machine.step(1_001, Event::RoundPlanned { chunks: chunks(&[Some(20)]), last: false });
    machine.step(3_001, lag(0));
    machine.step(3_501, command(Command::Stop));
    let actions = machine.step(3_502, Event::Tick);
    let counters = machine.progress(3_502).counters;
    assert_eq!(counters.lag_ms_worst, Some(9000));
    assert!(counters.paused_ms["lag"] >= 1_900, "{counters:?}");
    assert_eq!((counters.chunk_times.count(), counters.chunk_times.max_ms()), (1, Some(415)));
    let _ = actions;
    let text = Checkpoint { counters: counters.clone(), ..Checkpoint::begin() }.encode().unwrap();
    assert_eq!(Checkpoint::decode(&text).unwrap().counters, counters);
}
