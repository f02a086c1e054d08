//! Forms of comparison, pair by pair. That the server agrees is tested on the server.

use super::*;

fn column(full_type: &str) -> Column {
    let base_type = full_type.split(['(', ' ']).next().unwrap().to_owned();
    let text = ["char", "varchar", "text", "enum", "set"].contains(&base_type.as_str());
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

#[test]
fn both_sides_take_the_form_that_shows_a_loss() {
    for (old, new, old_form, new_form) in [
        ("datetime(6)", "datetime", "CAST(s AS DATETIME(6))", "CAST(n AS DATETIME(6))"),
        ("decimal(10,4)", "decimal(10,2)", "CAST(s AS DECIMAL(65,4))", "CAST(n AS DECIMAL(65,4))"),
        ("bigint", "double", "s", "CAST(n AS SIGNED)"),
        ("double", "bigint", "s+0e0", "n+0e0"),
        ("float", "float", "s*1e0", "n*1e0"),
        ("enum('a')", "enum('a')", "s+0", "n+0"),
        ("bit(8)", "varchar(9)", "CAST((s+0) AS DECIMAL(65,20))", "CAST(n AS DECIMAL(65,20))"),
        ("blob", "blob", "CONCAT(LENGTH(s), ':', CRC32(s))", "CONCAT(LENGTH(n), ':', CRC32(n))"),
        ("int", "varbinary(9)", "CAST(CAST(s AS CHAR) AS BINARY)", "CAST(n AS BINARY)"),
    ] {
        let (a, b) = comparison(&column(old), "s", &column(new), "n");
        assert_eq!((a.as_str(), b.as_str()), (old_form, new_form), "{old} to {new}");
    }
}

#[test]
fn a_set_is_compared_by_its_members_not_by_its_text() {
    let (a, _) = comparison(&column("set('a','b')"), "s", &column("set('b','a')"), "n");
    assert!(a.starts_with("CONCAT(FIND_IN_SET('a', CONVERT(s"), "{a}");
}

#[test]
fn where_the_server_is_not_known_to_speak_up_it_counts_as_silent() {
    let silent = |old: &str, new: &str| loses_silently(&column(old), &column(new));
    for (old, new) in [
        ("datetime(6)", "datetime(3)"),
        ("time(1)", "time"),
        ("decimal(10,2)", "int"),
        ("bigint", "double"),
        ("double", "float"),
        ("varchar(9)", "char(9)"),
        ("varchar(9)", "int"),
        ("varbinary(9)", "binary(9)"),
        ("datetime", "time"),
        ("int", "year"),
    ] {
        assert!(silent(old, new), "{old} to {new}");
    }
    for (old, new) in [
        ("int", "bigint"),
        ("bigint", "int"),
        ("varchar(9)", "varchar(5)"),
        ("decimal(10,4)", "decimal(10,2)"),
        ("date", "datetime"),
        ("float", "double"),
        ("char(9)", "varchar(9)"),
        ("enum('a','b')", "enum('b')"),
    ] {
        assert!(!silent(old, new), "{old} to {new}");
    }
}
