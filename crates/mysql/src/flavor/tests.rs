//! Versions and capabilities from what servers say of themselves.

use super::*;

fn variables(rows: &[(&str, &str)]) -> Variables {
    rows.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn capabilities(version: &str) -> DbResult<Capabilities> {
    Capabilities::from_variables(&variables(&[("version", version)]))
}

#[test]
fn versions_are_read() {
    for (text, triple) in [
        ("9.7.4", (9, 7, 4)),
        ("8.0.36-0ubuntu0.22.04.1", (8, 0, 36)),
        ("8.0.35-27", (8, 0, 35)),
        ("10.11.19-MariaDB-0+deb12u1-log", (10, 11, 19)),
        ("5.5.5-10.6.0-MariaDB", (10, 6, 0)),
        ("12.0-MariaDB", (12, 0, 0)),
    ] {
        assert_eq!(parse_version(text), Some(triple), "{text}");
    }
    for text in ["", "x", "8", "8.x"] {
        assert_eq!(parse_version(text), None, "{text}");
    }
}

#[test]
fn old_and_foreign_servers_are_refused_by_name() {
    for (text, part) in [
        ("5.7.44-log", "MySQL 8.0 and later"),
        ("10.5.29-MariaDB", "MariaDB 10.6 and later"),
        ("8.0.11-TiDB-v7.5.0", "TiDB"),
        ("8.0.30-Vitess", "Vitess"),
        ("unknown", "cannot be read"),
    ] {
        let error = capabilities(text).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused);
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn rename_under_lock_begins_with_8_0_13() {
    assert!(!capabilities("8.0.12").unwrap().rename_under_lock);
    assert!(capabilities("8.0.13").unwrap().rename_under_lock);
    assert!(capabilities("9.7.4").unwrap().rename_under_lock);
    assert!(!capabilities("11.8.6-MariaDB").unwrap().rename_under_lock);
}

#[test]
fn words_follow_the_version() {
    let old = capabilities("8.0.21").unwrap();
    assert_eq!(
        (old.show_replicas_verb, old.replica_status_verb),
        ("SHOW SLAVE HOSTS", "SHOW SLAVE STATUS")
    );
    let new = capabilities("8.4.0").unwrap();
    assert_eq!(
        (new.show_replicas_verb, new.replica_status_verb),
        ("SHOW REPLICAS", "SHOW REPLICA STATUS")
    );
    let maria = capabilities("10.6.1-MariaDB").unwrap();
    assert_eq!(
        (maria.show_replicas_verb, maria.replica_status_verb),
        ("SHOW REPLICA HOSTS", "SHOW ALL REPLICAS STATUS")
    );
}

#[test]
fn variables_become_fields() {
    let capabilities = Capabilities::from_variables(&variables(&[
        ("version", "9.7.4"),
        ("Log_Bin", "ON"),
        ("binlog_format", "STATEMENT"),
        ("innodb_autoinc_lock_mode", "2"),
        ("innodb_ddl_threads", "4"),
        ("max_allowed_packet", "16777216"),
        ("explain_format", "TREE"),
        ("query_cache_type", "OFF"),
        ("wsrep_on", "OFF"),
    ]))
    .unwrap();
    assert!(capabilities.log_bin && capabilities.explain_format);
    assert!(!capabilities.query_cache && !capabilities.galera && !capabilities.stats_expiry);
    assert_eq!(capabilities.binlog_format, BinlogFormat::Statement);
    assert_eq!(capabilities.autoinc_lock_mode, 2);
    assert_eq!(capabilities.parallel_index_threads, Some(4));
    assert_eq!(capabilities.max_allowed_packet, 16_777_216);
    assert_eq!(capabilities.gtid_mode, None);
    assert_eq!(capabilities.to_string(), "MySQL 9.7.4");
}
