//! The simulated server behaves like one: what the other tests stand on.

use underpin_core::way::Way;

use super::*;

fn rules() -> Rules {
    Rules { app_keeps_value_unique: false, new_unique: false, fit_max: None, old_fit_max: None }
}

fn row(uniq: i64, value: i64) -> AppRow {
    AppRow { uniq: Some(uniq), value }
}

fn captured() -> Db {
    let mut db = Db::new(rules(), Rows::new());
    db.create_log(Object::Original);
    db.sides.of(Object::Original).triggers = [true; 3];
    db
}

fn pending(db: &Db) -> Vec<(u64, RowKey)> {
    db.log(Object::Original)
        .iter()
        .flat_map(|log| log.iter())
        .map(|(id, key)| (*id, *key))
        .collect()
}

#[test]
fn nothing_is_seen_before_its_commit_and_ids_do_not_commit_in_order() {
    let mut db = captured();
    db.app_insert(1, 0, 10, row(1, 1)).unwrap();
    db.app_insert(2, 0, 20, row(2, 2)).unwrap();
    assert_eq!(db.snapshot(Way::Forward).source.len(), 0);
    db.commit(2);
    assert_eq!(pending(&db), [(2, 20)]);
    db.commit(1);
    assert_eq!(pending(&db), [(1, 10), (2, 20)]);
}

#[test]
fn a_rollback_leaves_a_gap_and_lets_go_of_its_locks() {
    let mut db = captured();
    db.app_insert(1, 0, 10, row(1, 1)).unwrap();
    assert_eq!(db.app_insert(2, 0, 10, row(2, 2)), Err(Refusal::Wait));
    assert_eq!(
        db.app_insert(2, 0, 11, row(1, 2)),
        Err(Refusal::Wait),
        "the unique value is locked"
    );
    db.roll_back(1);
    db.app_insert(2, 0, 11, row(1, 2)).unwrap();
    db.commit(2);
    assert_eq!(pending(&db), [(2, 11)]);
}

#[test]
fn unique_values_can_be_swapped_within_one_transaction() {
    let mut db = captured();
    db.app_insert(1, 0, 10, row(1, 0)).unwrap();
    db.app_insert(1, 0, 20, row(2, 0)).unwrap();
    db.commit(1);
    let clash = Clash { index: Index::Uniq, key: 10, holder: 20 };
    assert_eq!(db.app_set_uniq(2, 0, 10, Some(2)), Err(Refusal::Clash(clash)));
    assert_eq!(db.app_set_uniq(2, 0, 10, None), Ok(true));
    assert_eq!(db.app_set_uniq(2, 0, 20, Some(1)), Ok(true));
    assert_eq!(db.app_set_uniq(2, 0, 10, Some(2)), Ok(true));
    db.commit(2);
    let rows = db.snapshot(Way::Forward).source;
    assert_eq!(rows.values().map(|row| row.uniq).collect::<Vec<_>>(), [Some(2), Some(1)]);
}

#[test]
fn a_change_of_key_logs_both() {
    let mut db = captured();
    db.app_insert(1, 0, 10, row(1, 0)).unwrap();
    assert_eq!(db.app_move_key(1, 0, 10, 30), Ok(true));
    db.commit(1);
    let keys: Vec<RowKey> = pending(&db).into_iter().map(|(_, key)| key).collect();
    assert_eq!(keys, [10, 10, 30]);
    assert_eq!(db.app_keys(), [30]);
}

#[test]
fn a_crash_keeps_what_was_committed_and_nothing_else() {
    let mut db = captured();
    db.app_insert(1, 0, 10, row(1, 0)).unwrap();
    db.commit(1);
    db.app_delete(1, 0, 10).unwrap();
    db.crash();
    assert_eq!(db.commit(1).original_keys, [] as [RowKey; 0]);
    assert_eq!(db.app_keys(), [10]);
    assert_eq!(db.app_delete(2, 0, 10), Ok(true), "the lock is gone");
}

#[test]
fn the_new_shape_stands_under_the_old_name_after_both_renames_or_neither() {
    let mut db = captured();
    db.create_shadow(true);
    db.create_sentry(Way::Forward);
    assert!(!db.rename_both(Way::Forward), "the retired name is taken");
    assert_eq!(db.live(), Some(Object::Original));
    db.drop_sentry();
    assert!(db.rename_both(Way::Forward));
    assert_eq!(db.live(), Some(Object::Shadow));
    db.app_insert(1, 0, 10, row(1, 3)).unwrap();
    db.commit(1);
    assert_eq!(db.tables.get(&Object::Shadow).unwrap().get(&10).unwrap().value, 37);
    assert_eq!(pending(&db), [], "the triggers stay with the old table");
}
