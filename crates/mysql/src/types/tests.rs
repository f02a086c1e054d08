//! Literals, fits and comparisons, case by case.

use super::*;

fn column(full_type: &str) -> Column {
    let base_type = full_type.split(['(', ' ']).next().unwrap().to_owned();
    let text = ["char", "varchar", "text", "enum"].contains(&base_type.as_str());
    Column {
        name: "c".into(),
        full_type: full_type.into(),
        base_type,
        charset: text.then(|| "utf8mb4".into()),
        collation: text.then(|| "utf8mb4_general_ci".into()),
        nullable: false,
        generated: false,
        auto_increment: false,
        volatile_default: false,
        has_default: false,
        srs_id: None,
    }
}

fn collated(full_type: &str, charset: &str, collation: &str) -> Column {
    Column { charset: Some(charset.into()), collation: Some(collation.into()), ..column(full_type) }
}

#[test]
fn an_enum_is_ranged_over_by_positions() {
    let kind = KeyKind::of(&column("enum('z','it''s','a,b')")).unwrap();
    assert_eq!(kind.greater("`c`", "1"), "`c` IN (2, 3)");
    assert_eq!(kind.less("`c`", "2"), "`c` IN (0, 1)", "the error value sorts first");
    assert_eq!(kind.equal("`c`", "3"), "`c` = 3");
    assert_eq!(kind.greater("`c`", "3"), "FALSE");
    assert_eq!(kind.less("`c`", "0"), "FALSE");
}

#[test]
fn texts_travel_as_bytes_in_their_own_collation() {
    let kind = KeyKind::of(&collated("varchar(9)", "gbk", "gbk_chinese_ci")).unwrap();
    assert_eq!(kind.greater("`c`", "27"), "`c` > _gbk X'27' COLLATE gbk_chinese_ci");
    assert_eq!(kind.reader("`c`"), "HEX(`c`)");
}

#[test]
fn a_key_that_is_spelled_like_sql_is_refused() {
    assert!(!KeyKind::Number.is_spelled_well("1 OR 1=1"));
    assert!(!KeyKind::Temporal.is_spelled_well("2020'"));
    assert!(!KeyKind::Binary.is_spelled_well("2"));
    assert!(KeyKind::Number.is_spelled_well("-1.50"));
    assert!(KeyKind::Binary.is_spelled_well(""));
}

#[test]
fn floats_and_sets_are_no_keys() {
    for full_type in ["float", "double", "set('a')", "json", "point"] {
        assert_eq!(KeyKind::of(&column(full_type)), None, "{full_type}");
    }
}

#[test]
fn keys_fit_only_where_no_value_can_be_lost() {
    let fit = |old: &str, new: &str| key_fit(&column(old), &column(new));
    assert_eq!(fit("int", "int"), Some(KeyFit::Same));
    assert_eq!(fit("int", "bigint"), Some(KeyFit::Wider));
    assert_eq!(fit("int unsigned", "bigint"), Some(KeyFit::Wider));
    assert_eq!(fit("int", "bigint unsigned"), None, "negative values");
    assert_eq!(fit("bigint", "int"), None);
    assert_eq!(fit("decimal(10,2)", "decimal(12,4)"), Some(KeyFit::Wider));
    assert_eq!(fit("decimal(10,2)", "decimal(10,4)"), None, "two digits less before the point");
    assert_eq!(fit("datetime", "datetime(6)"), Some(KeyFit::Wider));
    assert_eq!(fit("datetime(6)", "datetime"), None);
    assert_eq!(fit("enum('a','b')", "enum('a','b','c')"), Some(KeyFit::Wider));
    assert_eq!(fit("enum('a','b')", "enum('b','a')"), None);
    assert_eq!(fit("varchar(10)", "varchar(20)"), Some(KeyFit::Wider));
    let latin = collated("varchar(10)", "latin1", "latin1_swedish_ci");
    assert_eq!(key_fit(&latin, &column("varchar(10)")), Some(KeyFit::Recollated));
    assert_eq!(key_fit(&column("varchar(10)"), &latin), None);
}

#[test]
fn members_are_read_as_the_server_prints_them() {
    let members = members("set('it''s','a,b','',')')").unwrap();
    assert_eq!(members, ["'it''s'", "'a,b'", "''", "')'"]);
}
