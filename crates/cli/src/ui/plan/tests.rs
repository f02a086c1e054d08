//! The page of a plan, word for word.

use underpin_core::mapping::{ColumnPair, KeyColumn, KeyFit, Mapping};
use underpin_core::plan::{Capture, Flow, Names};
use underpin_core::way::Way;

use super::*;

fn pair(source: &str, target: &str, changed: bool) -> ColumnPair {
    ColumnPair { source: source.into(), target: target.into(), changed }
}

fn spec() -> RunSpec {
    let three = || ["i".to_owned(), "u".to_owned(), "d".to_owned()];
    RunSpec {
        run_id: "r1".into(),
        schema: "shop".into(),
        table: "orders".into(),
        statement: "ALTER TABLE orders ADD note TEXT".into(),
        fingerprint: "ADD note TEXT".into(),
        flow: Flow::KeyRanges,
        capture: Capture::Row,
        way: Way::Forward,
        keeps_way_back: false,
        names: Names {
            shadow: "orders~new".into(),
            log: "orders~log".into(),
            retired: "orders~old".into(),
            triggers: three(),
            return_log: "orders~rlog".into(),
            return_triggers: three(),
            fences: three(),
        },
        mapping: Mapping {
            pairs: vec![pair("id", "id", true), pair("a", "b", false)],
            added: vec!["note".into()],
            dropped: vec![],
        },
        key: KeySpec {
            source_index: "PRIMARY".into(),
            target_index: "PRIMARY".into(),
            columns: vec![
                KeyColumn { source: "id".into(), target: "id".into(), fit: KeyFit::Wider },
                KeyColumn { source: "a".into(), target: "b".into(), fit: KeyFit::Same },
            ],
            same_order: true,
        },
        deferred_indexes: vec![],
        volatile_added: vec![],
        rows_estimate: 1_000_000,
        row_bytes: 120,
    }
}

fn plan() -> Plan {
    Plan {
        strategy: Strategy::Shadow,
        findings: vec![],
        spec: Some(spec()),
        server: "MySQL 9.7.0 at 127.0.0.1:3306".into(),
        replicas: vec!["db2:3306".into(), "db3:3306".into()],
    }
}

#[test]
fn a_change_that_can_be_made() {
    assert_eq!(
        plan_text(&plan(), "ALTER TABLE orders\n  ADD note TEXT\n"),
        "\
table      shop.orders, about 1,000,000 rows, 120.0 MB
server     MySQL 9.7.0 at 127.0.0.1:3306
replicas   db2:3306, db3:3306
statement  ALTER TABLE orders
             ADD note TEXT
method     copy into a shadow table, compare, swap
key        PRIMARY (id, a -> b)
columns    added note; renamed a -> b; converted id
indexes    filled while copying
creates    orders~new and orders~log, three triggers, in shop

The change can be made.
"
    );
}

#[test]
fn a_refusal_names_its_remedies_worst_first() {
    let findings = vec![
        Finding::note("charset", "the table is latin1"),
        Finding::warning("old-values", "some dates are zero", "look at them"),
        Finding::refusal("no-key", "the table has no usable key", "add one first"),
    ];
    let refused = Plan { findings, spec: None, replicas: vec![], ..plan() };
    assert_eq!(
        plan_text(&refused, "ALTER TABLE t ADD a INT"),
        "\
server     MySQL 9.7.0 at 127.0.0.1:3306
replicas   none known
statement  ALTER TABLE t ADD a INT

refused    the table has no usable key [no-key]
           -> add one first
warning    some dates are zero [old-values]
           -> look at them
note       the table is latin1 [charset]

Refused. Nothing was created.
"
    );
}

#[test]
fn what_the_server_does_itself_creates_nothing() {
    let native = Plan { strategy: Strategy::Native, ..plan() };
    let text = plan_text(&native, "ALTER TABLE orders ADD note TEXT");
    assert!(text.contains("method     by the server itself"), "{text}");
    assert!(!text.contains("creates"), "{text}");
    assert!(text.ends_with("--strategy shadow\n"), "{text}");
}

#[test]
fn long_lists_are_counted() {
    let names: Vec<String> = (0..15).map(|n| format!("c{n}")).collect();
    assert!(listed(&names, "none").ends_with("c11 and 3 more"));
}
