//! What must be in a shadow without an index, each rule broken once by hand.

use super::super::{About, Change, Rules};
use super::*;
use crate::db::{AppRow, Index, Rows};

const RULES: Rules =
    Rules { app_keeps_value_unique: false, new_unique: true, fit_max: None, old_fit_max: None };

fn app(uniq: i64, value: i64) -> AppRow {
    AppRow { uniq: Some(uniq), value }
}

fn new(uniq: i64, value: i64) -> Row {
    Row { uniq: Some(uniq), value: value * 10 + 7, draw: 1 }
}

/// Rows 1 and 2, captured; blocks from 0 on have been copied, with these rows.
fn scene(copied: &[(RowKey, Row)]) -> (Db, Checker) {
    let rows = [(1, app(1, 5)), (2, app(2, 6))];
    let old: Rows = rows
        .iter()
        .map(|(key, row)| (*key, Row { uniq: row.uniq, value: row.value, draw: 0 }))
        .collect();
    let mut db = Db::new(RULES, old.clone());
    db.heaps = Some(Heaps::new(&old, 1));
    let mut checker = Checker::new(RULES, true, rows.into_iter()).by_blocks();
    db.define(9, Definition::Prepare);
    let commit = db.commit(9);
    checker.committed(&commit, About::default());
    for (key, row) in copied {
        db.put_in_bag(9, *key, *row);
    }
    let rows = u64::try_from(copied.len()).unwrap();
    db.mark(9, Mark { round: 1, index: 0, after: None, up_to: None, rows });
    let commit = db.commit(9);
    checker.committed(&commit, About::default());
    (db, checker)
}

fn broken(db: &Db, mut checker: Checker) -> Option<Invariant> {
    checker.quiet(db);
    checker.breach().map(|breach| breach.invariant)
}

#[test]
fn untouched_rows_are_there_once() {
    let (db, checker) = scene(&[(1, new(1, 5)), (2, new(2, 6))]);
    assert_eq!(broken(&db, checker), None);
    for copied in [
        &[(1, new(1, 5))][..],
        &[(1, new(1, 5)), (2, new(2, 6)), (2, new(2, 6))],
        &[(1, new(1, 5)), (2, new(2, 7))],
        &[(1, new(1, 5)), (2, new(2, 6)), (3, new(3, 3))],
    ] {
        let (db, checker) = scene(copied);
        assert_eq!(broken(&db, checker), Some(Invariant::EqualOrPending), "{copied:?}");
    }
}

#[test]
fn a_row_that_was_touched_may_be_there_in_any_way() {
    for copied in [&[(1, new(1, 5))][..], &[(1, new(1, 5)), (2, new(2, 6)), (2, new(2, 9))]] {
        let (mut db, mut checker) = scene(copied);
        db.app_set_value(1, 0, 2, 9).unwrap();
        let no = db.commit(1).no;
        checker.acknowledged(no, &[Change::SetValue(2, 9)]);
        assert_eq!(broken(&db, checker), None);
    }
}

#[test]
fn a_key_that_is_to_do_is_pending_and_one_that_was_forgotten_is_not() {
    for (is_to_do, expected) in [(true, None), (false, Some(Invariant::EqualOrPending))] {
        let (mut db, mut checker) = scene(&[(1, new(1, 5)), (2, new(2, 6))]);
        db.app_set_value(1, 0, 2, 9).unwrap();
        let no = db.commit(1).no;
        checker.acknowledged(no, &[Change::SetValue(2, 9)]);
        let place = *db.heaps.as_ref().unwrap().bag.keys().last().unwrap();
        db.take_from_bag(9, vec![place]);
        let ids: Vec<u64> = db.log(Object::Original).unwrap().keys().copied().collect();
        db.consume(9, ids);
        if is_to_do {
            db.add_to_do(9, Object::Original, [2]);
        }
        let about = About { snapshot_no: no, is_settled: true, ..About::default() };
        let commit = db.commit(9);
        checker.committed(&commit, about);
        assert_eq!(broken(&db, checker), expected);
    }
}

#[test]
fn after_the_marker_the_shadow_means_nothing() {
    let (mut db, mut checker) = scene(&[(1, new(1, 5)), (2, new(2, 6))]);
    db.truncate_and_fill(1, &[]).unwrap();
    let no = db.commit(1).no;
    checker.acknowledged(no, &[Change::Clear]);
    assert_eq!(broken(&db, checker), None);
}

#[test]
fn a_clash_of_indexes_must_be_real_in_the_state_that_was_settled() {
    let clash = Clash { index: Index::Value, key: 1, holder: 2 };
    let (mut db, mut checker) = scene(&[]);
    checker.acknowledged(5, &[Change::SetValue(2, 5)]);
    checker.acknowledged(6, &[Change::SetValue(2, 7)]);
    let commit = db.commit(9);
    checker.committed(&commit, About { snapshot_no: 5, is_settled: true, ..About::default() });
    checker.clash_of_settled(clash);
    assert_eq!(checker.breach(), None);
    checker.committed(&commit, About { snapshot_no: 6, is_settled: true, ..About::default() });
    checker.clash_of_settled(clash);
    assert_eq!(checker.breach().map(|breach| breach.invariant), Some(Invariant::RealViolation));
}
