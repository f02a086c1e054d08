//! The checker by itself: each promise broken once, by hand.

use underpin_core::way::Way;

use super::*;
use crate::db::{RETIRED, SHADOW, SOURCE};

const RULES: Rules =
    Rules { app_keeps_value_unique: false, new_unique: true, fit_max: Some(50), old_fit_max: None };

fn app(uniq: i64, value: i64) -> AppRow {
    AppRow { uniq: Some(uniq), value }
}

fn new(uniq: i64, value: i64, draw: u64) -> Row {
    Row { uniq: Some(uniq), value: value * 10 + 7, draw }
}

/// Rows 1 and 2; the shadow holds row 1, copied by a chunk up to key 1.
fn scene() -> (Db, Checker) {
    let rows = [(1, app(1, 5)), (2, app(2, 6))];
    let old =
        rows.iter().map(|(key, row)| (*key, Row { uniq: row.uniq, value: row.value, draw: 0 }));
    let mut db = Db::new(RULES, old.collect());
    let mut checker = Checker::new(RULES, true, rows.into_iter());
    db.create_shadow(true);
    db.create_log(Object::Original);
    checker.capture_began();
    db.insert(9, Object::Shadow, 1, new(1, 5, 40)).unwrap();
    db.mark(9, Mark { round: 1, index: 0, after: None, up_to: Some(1), rows: 1 });
    let commit = db.commit(9);
    checker.committed(&commit, About::default());
    (db, checker)
}

fn broken(checker: &Checker) -> Option<Invariant> {
    checker.breach().map(|breach| breach.invariant)
}

#[test]
fn a_sound_scene_breaks_nothing() {
    let (db, mut checker) = scene();
    checker.quiet(&db);
    assert_eq!(checker.breach(), None);
}

#[test]
fn an_unequal_row_is_fine_only_while_it_is_pending() {
    let (mut db, mut checker) = scene();
    db.sides.of(Object::Original).triggers = [true; 3];
    db.app_set_value(1, 0, 1, 9).unwrap();
    let no = db.commit(1).no;
    checker.acknowledged(no, &[Change::SetValue(1, 9)]);
    checker.quiet(&db);
    assert_eq!(broken(&checker), None);
    db.consume(9, [1]);
    db.commit(9);
    checker.quiet(&db);
    assert_eq!(broken(&checker), Some(Invariant::EqualOrPending));
}

#[test]
fn a_row_beyond_the_frontier_is_noticed_at_its_commit() {
    let (mut db, mut checker) = scene();
    db.insert(9, Object::Shadow, 2, new(2, 6, 41)).unwrap();
    let commit = db.commit(9);
    checker.committed(&commit, About::default());
    assert_eq!(broken(&checker), Some(Invariant::Frontier));
}

#[test]
fn a_chunk_older_than_a_drop_in_its_range_is_noticed() {
    let (mut db, mut checker) = scene();
    db.append(1, Object::Original, 2).unwrap();
    db.commit(1);
    db.consume(9, [1]);
    let commit = db.commit(9);
    checker.committed(&commit, About::default());
    assert_eq!(broken(&checker), None);
    db.insert(9, Object::Shadow, 2, new(2, 6, 41)).unwrap();
    db.mark(9, Mark { round: 2, index: 0, after: Some(1), up_to: None, rows: 1 });
    let commit = db.commit(9);
    checker.committed(&commit, About { snapshot_no: 1, ..About::default() });
    assert_eq!(broken(&checker), Some(Invariant::Frontier));
}

#[test]
fn a_chunk_twice_or_apart_from_its_mark_is_noticed() {
    let (mut db, mut checker) = scene();
    db.mark(9, Mark { round: 2, index: 0, after: Some(0), up_to: Some(2), rows: 0 });
    let commit = db.commit(9);
    checker.committed(&commit, About::default());
    assert_eq!(broken(&checker), Some(Invariant::ExactChunks));

    let (mut db, mut checker) = scene();
    db.mark(9, Mark { round: 1, index: 1, after: Some(1), up_to: Some(2), rows: 1 });
    let commit = db.commit(9);
    checker.committed(&commit, About::default());
    assert_eq!(broken(&checker), Some(Invariant::ExactChunks));
}

#[test]
fn a_swap_that_loses_a_row_is_noticed() {
    let (mut db, mut checker) = scene();
    assert!(db.rename_both(Way::Forward));
    checker.swapped(&db, Object::Shadow);
    assert_eq!(broken(&checker), Some(Invariant::AtomicSwap));
}

#[test]
fn a_moment_without_a_table_is_noticed() {
    let (mut db, mut checker) = scene();
    assert!(db.rename(SOURCE, RETIRED));
    checker.quiet(&db);
    assert_eq!(broken(&checker), Some(Invariant::AtomicSwap));
    assert!(db.names.contains_key(SHADOW));
}

#[test]
fn our_own_write_to_the_source_is_noticed() {
    let (mut db, mut checker) = scene();
    db.delete(9, Object::Original, 1).unwrap();
    let commit = db.commit(9);
    checker.committed(&commit, About::default());
    assert_eq!(broken(&checker), Some(Invariant::SourceUntouched));
}

#[test]
fn a_second_draw_is_noticed_unless_the_row_was_deleted_meanwhile() {
    let redraw = |db: &mut Db| {
        db.delete(9, Object::Shadow, 1).unwrap();
        db.insert(9, Object::Shadow, 1, new(1, 5, 99)).unwrap();
        db.commit(9)
    };
    let (mut db, mut checker) = scene();
    checker.quiet(&db);
    redraw(&mut db);
    checker.quiet(&db);
    assert_eq!(broken(&checker), Some(Invariant::FirstDraw));

    let (mut db, mut checker) = scene();
    checker.quiet(&db);
    let no = redraw(&mut db).no;
    checker.acknowledged(no, &[Change::Delete(1), Change::Insert(1, app(1, 5))]);
    checker.quiet(&db);
    assert_eq!(broken(&checker), None);
}

#[test]
fn a_violation_must_be_real_in_the_state_that_was_read() {
    let clash = Clash { index: Index::Value, key: 1, holder: 2 };
    let (_, mut checker) = scene();
    checker.acknowledged(5, &[Change::SetValue(2, 5)]);
    checker.acknowledged(6, &[Change::SetValue(2, 7)]);
    checker.clash(clash, 5);
    assert_eq!(broken(&checker), None);
    checker.clash_of_some_time(clash);
    assert_eq!(broken(&checker), None);
    checker.clash(clash, 6);
    assert_eq!(broken(&checker), Some(Invariant::RealViolation));

    let (_, mut checker) = scene();
    checker.unfit(1, 0, Way::Forward);
    assert_eq!(broken(&checker), Some(Invariant::RealViolation), "5 fits below 50");
}

#[test]
fn what_an_abort_leaves_behind_is_noticed() {
    use underpin_core::machine::{Command, Ending};
    let (db, mut checker) = scene();
    let met = Circumstances { commanded: Some(Command::Abort), ..Circumstances::default() };
    checker.ended(&db, &Ending::Aborted { why: None }, met);
    assert_eq!(broken(&checker), Some(Invariant::SourceUntouched));
}

#[test]
fn an_ending_that_nobody_asked_for_is_noticed() {
    use underpin_core::machine::Ending;
    let (db, mut checker) = scene();
    checker.ended(&db, &Ending::Interrupted, Circumstances::default());
    assert_eq!(broken(&checker), Some(Invariant::RightEnding));
}
