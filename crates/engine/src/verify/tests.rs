//! Which tables are compared when, and what means that nothing found before counts any more.

use underpin_core::checkpoint::Checkpoint;
use underpin_core::mapping::{KeySpec, Mapping};
use underpin_core::plan::{Capture, Names};

use super::*;

fn spec(flow: Flow) -> RunSpec {
    RunSpec {
        run_id: "r1".into(),
        schema: "shop".into(),
        table: "orders".into(),
        statement: "ALTER TABLE orders ADD a INT".into(),
        fingerprint: "f".into(),
        flow,
        capture: Capture::default(),
        way: Way::Forward,
        keeps_way_back: true,
        names: Names {
            shadow: "orders~up_new".into(),
            log: "orders~up_log".into(),
            retired: "orders~up_old".into(),
            triggers: Default::default(),
            return_log: "orders~up_back".into(),
            return_triggers: Default::default(),
            fences: Default::default(),
        },
        mapping: Mapping { pairs: vec![], added: vec![], dropped: vec![] },
        key: KeySpec {
            source_index: "PRIMARY".into(),
            target_index: "PRIMARY".into(),
            columns: vec![],
            same_order: true,
        },
        deferred_indexes: vec![],
        volatile_added: vec![],
        rows_estimate: 10,
        row_bytes: 10,
    }
}

fn run(flow: Flow, phase: Phase) -> OpenRun {
    let frontier = if phase > Phase::Copy { Frontier::End } else { Frontier::Start };
    OpenRun { spec: spec(flow), checkpoint: Checkpoint { phase, frontier, ..Checkpoint::begin() } }
}

fn at(phase: Phase, way: Way, stands: Option<Way>) -> OpenRun {
    let mut run = run(Flow::KeyRanges, phase);
    run.checkpoint.way = way;
    run.checkpoint.stands = stands;
    run
}

#[test]
fn by_blocks_there_is_nothing_to_compare_before_the_copy_has_caught_up() {
    for phase in [Phase::Prepare, Phase::Copy, Phase::Settle, Phase::Indexes, Phase::Finish] {
        let error = View::of(&run(Flow::Blocks, phase)).unwrap_err();
        assert_eq!((error.exit_code(), error.kind()), (3, "nothing_to_compare"), "{phase:?}");
    }
    for phase in [Phase::CatchUp, Phase::Verify, Phase::Swap] {
        assert_eq!(View::of(&run(Flow::Blocks, phase)).unwrap().up_to, None, "{phase:?}");
    }
}

#[test]
fn by_key_ranges_the_copied_part_is_compared() {
    let mut copying = run(Flow::KeyRanges, Phase::Copy);
    assert!(View::of(&copying).is_err(), "nothing is copied");
    let key = Key(vec!["7".into()]);
    copying.checkpoint.frontier = Frontier::At(key.clone());
    assert_eq!(View::of(&copying).unwrap().up_to, Some(key));
    copying.checkpoint.frontier = Frontier::End;
    assert_eq!(View::of(&copying).unwrap().up_to, None);
    assert_eq!(View::of(&run(Flow::KeyRanges, Phase::Indexes)).unwrap().up_to, None);
    copying.checkpoint.aborting = true;
    assert!(View::of(&copying).is_err(), "it is being removed");
}

#[test]
fn behind_a_swap_the_live_table_is_compared_with_the_retired_one() {
    let resting = at(Phase::Revertible, Way::Forward, Some(Way::Forward));
    let view = View::of(&resting).unwrap();
    assert_eq!((view.spec.way, view.spec.names.shadow.as_str()), (Way::Back, "orders~up_old"));
    assert_eq!(view.spec.names.log, "orders~up_back");
    // On the way back the same tables are compared, and it goes on.
    let going = View::of(&at(Phase::CatchUp, Way::Back, Some(Way::Forward))).unwrap();
    assert!(view.stands_in(&going));
    assert!(
        !view.stands_in(&View::of(&at(Phase::Revertible, Way::Back, Some(Way::Back))).unwrap())
    );
    assert!(View::of(&at(Phase::Arrive, Way::Forward, Some(Way::Forward))).is_err());
}

#[test]
fn what_was_found_counts_only_while_the_tables_are_the_same() {
    let view = View::of(&run(Flow::KeyRanges, Phase::Verify)).unwrap();
    let still = |now: OpenRun| still_stands(&view, &Ok(now), 5);
    assert!(still(run(Flow::KeyRanges, Phase::Swap)).is_ok());
    let moved = [
        run(Flow::KeyRanges, Phase::Finish),
        at(Phase::Revertible, Way::Forward, Some(Way::Forward)),
        at(Phase::CatchUp, Way::Forward, None),
    ];
    for now in moved {
        let error = still(now).unwrap_err();
        assert_eq!((error.exit_code(), error.kind()), (3, "moved_on"));
    }
    let gone = Err(EngineError::NoRun { table: "shop.orders".into() });
    assert_eq!(still_stands(&view, &gone, 5).unwrap_err().kind(), "moved_on");
}

#[test]
fn the_page_tells_every_field() {
    let compared = Compared {
        run_id: "r1".into(),
        table: "shop.orders".into(),
        with: Counterpart::Shadow,
        phase: "swap".into(),
        extent: Extent::All,
        complete: true,
        rows: 10,
        ranges: 1,
        differences: 1,
        samples: vec!["id=3 (differs in v)".into()],
        took_ms: 9,
    };
    crate::reference::must_tell("compared", &serde_json::to_value(compared).unwrap());
}
