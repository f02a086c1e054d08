//! Snapshots of transactions, savepoints, prepared transactions, moved rows.

use super::super::Rules;
use underpin_core::way::Way;

use super::*;

/// A server with rows 1 to 9, three a block, whose changes are captured.
fn captured() -> Db {
    let rules = Rules {
        app_keeps_value_unique: false,
        new_unique: false,
        fit_max: None,
        old_fit_max: None,
    };
    let rows: Rows =
        (1..=9).map(|key| (key, Row { uniq: Some(key), value: key, draw: 0 })).collect();
    let mut db = Db::new(rules, rows.clone());
    db.heaps = Some(Heaps::new(&rows, 7));
    db.define(99, Definition::Prepare);
    db.commit(99);
    db
}

fn pending(db: &Db) -> Vec<RowKey> {
    let heaps = db.heaps.as_ref().unwrap();
    let log = heaps.log(Object::Original);
    let new = log.entries.iter().filter(|entry| !log.applied.sees(entry.xid));
    new.filter_map(|entry| entry.key).collect()
}

#[test]
fn an_entry_that_commits_late_is_seen_late_whatever_its_transaction_id() {
    let mut db = captured();
    db.app_set_value(1, 0, 1, 50).unwrap();
    db.app_set_value(2, 0, 2, 60).unwrap();
    db.commit(2);
    assert_eq!(pending(&db), [2]);
    let seen = db.xids(false);
    db.advance(99, Object::Original, seen);
    db.commit(99);
    assert_eq!(pending(&db), [] as [RowKey; 0]);
    db.commit(1);
    assert_eq!(pending(&db), [1], "it was active when the snapshot was taken");
}

#[test]
fn a_savepoint_that_is_rolled_back_takes_its_entries_along() {
    let mut db = captured();
    db.app_set_value(1, 0, 1, 50).unwrap();
    db.savepoint(1);
    db.app_set_value(1, 0, 2, 60).unwrap();
    db.roll_back_to_savepoint(1);
    db.savepoint(1);
    db.app_set_value(1, 0, 3, 70).unwrap();
    db.release_savepoint(1);
    db.commit(1);
    assert_eq!(pending(&db), [1, 3]);
    let source = db.snapshot(Way::Forward).source;
    assert_eq!([source[&1].value, source[&2].value, source[&3].value], [50, 2, 70]);
}

#[test]
fn a_prepared_transaction_outlives_the_server_with_its_locks() {
    let mut db = captured();
    db.app_set_value(1, 0, 1, 50).unwrap();
    db.app_set_value(2, 0, 2, 60).unwrap();
    db.prepare_transaction(1);
    db.crash();
    assert_eq!(db.app_set_value(3, 0, 1, 70), Err(Refusal::Wait));
    assert_eq!(db.app_set_value(3, 0, 2, 70), Ok(true), "the other one is gone");
    let (seen, forgetful) = (db.xids(false), db.xids(true));
    db.commit(1);
    assert_eq!(db.snapshot(Way::Forward).source[&1].value, 50);
    assert_eq!(pending(&db), [1]);
    let xid = db.heaps.as_ref().unwrap().log(Object::Original).entries[0].xid;
    assert!(!seen.sees(xid) && forgetful.sees(xid), "it counts as active, unless forgotten");
}

#[test]
fn changed_rows_move_and_untouched_ones_do_not() {
    let mut db = captured();
    let before = db.heaps.as_ref().unwrap().blocks.clone();
    let mut moved = 0;
    for round in 0..20 {
        db.app_set_value(1, 0, 1, 100 + round).unwrap();
        db.commit(1);
        let blocks = &db.heaps.as_ref().unwrap().blocks;
        moved += i32::from(blocks[&1] != before[&1]);
        assert!((2..=9).all(|key| blocks[&key] == before[&key]));
    }
    assert!(moved > 5, "{moved} of 20");
    db.rewrite(Object::Original);
    let after = &db.heaps.as_ref().unwrap().blocks;
    assert!((2..=9).any(|key| after[&key] != before[&key]));
    assert!(!db.is_source_unchanged(Object::Original), "another file");
}

#[test]
fn what_a_transaction_defines_is_there_when_it_commits() {
    let mut db = captured();
    db.define(99, Definition::Swap(Way::Forward));
    assert_eq!(db.live(), Some(Object::Original));
    db.roll_back(99);
    db.commit(99);
    assert_eq!(db.live(), Some(Object::Original));
    db.define(99, Definition::Swap(Way::Forward));
    db.commit(99);
    assert_eq!(db.live(), Some(Object::Shadow));
}

#[test]
fn a_bag_takes_every_row_and_its_index_only_one_of_each() {
    let mut db = captured();
    let new = |uniq| Row { uniq: Some(uniq), value: 7, draw: 1 };
    db.put_in_bag(99, 1, new(1));
    db.put_in_bag(99, 1, new(2));
    db.commit(99);
    assert_eq!(db.look_for_duplicates(), Err(Clash { index: Index::Key, key: 1, holder: 1 }));
    let first = *db.heaps.as_ref().unwrap().bag.keys().next().unwrap();
    db.take_from_bag(99, vec![first]);
    db.put_in_bag(99, 2, new(2));
    db.commit(99);
    assert_eq!(db.look_for_duplicates(), Err(Clash { index: Index::Uniq, key: 2, holder: 1 }));
    let last = *db.heaps.as_ref().unwrap().bag.keys().last().unwrap();
    db.take_from_bag(99, vec![last]);
    db.define(99, Definition::BuildIndexes);
    db.commit(99);
    assert_eq!(db.look_for_duplicates(), Ok(()));
    assert_eq!(db.tables[&Object::Shadow].keys().collect::<Vec<_>>(), [&1]);
}

#[test]
fn a_truncate_leaves_its_marker_before_what_the_same_transaction_writes() {
    let mut db = captured();
    db.truncate_and_fill(1, &[(4, Row { uniq: None, value: 1, draw: 0 })]).unwrap();
    db.commit(1);
    let heaps = db.heaps.as_ref().unwrap();
    assert!(heaps.log(Object::Original).is_truncated());
    assert_eq!(
        heaps.log(Object::Original).entries.iter().map(|entry| entry.key).collect::<Vec<_>>(),
        [None, Some(4)]
    );
    assert_eq!(db.app_keys(), [4]);
}
