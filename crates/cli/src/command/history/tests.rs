//! What history shows, and that programs are told all of it.

use underpin_core::statements::{Comparison, EachCall, Worse, Worsened};
use underpin_dialect::Given;
use underpin_engine::{GivenOrder, Percentiles, Summary, Verdict};

use super::*;

fn past() -> PastRun {
    let summary = Summary {
        rows_repaired: 0,
        run_id: "r1".into(),
        table: "shop.orders".into(),
        rows_copied: 1_000,
        chunks: 2,
        chunks_redone: 0,
        changes_captured: 5,
        changes_applied: 4,
        changes_collapsed: 1,
        changes_dropped: 0,
        rows_verified: 1_000,
        verified: Verdict::Equal,
        swap_stall_ms: Some(14),
        swap_attempts: 1,
        lag_ms_max: None,
        took_ms: 71_000,
        retired: None,
        bytes_copied: 0,
        chunk_ms: Percentiles { p50: 380, p95: 450, p99: 450, max: 450 },
        waits: Vec::new(),
        worst: Vec::new(),
    };
    let order = |command: &str, taken: bool| GivenOrder {
        command: command.into(),
        by: "admin@% (ann@ops1)".into(),
        at: "2026-11-21 03:01:00.5".into(),
        taken_at: taken.then(|| "2026-11-21 03:01:00.7".into()),
    };
    let before = EachCall { calls: 900, ms: 0.4, examined: 1.0, without_index: 0.0 };
    let after = EachCall { calls: 40, ms: 8.0, examined: 9.0, without_index: 0.0 };
    let worse = vec![Worse::Slower];
    let worsened = Worsened { text: "SELECT ?".into(), worse, before, after };
    PastRun {
        run_id: "r1".into(),
        table: "shop.orders".into(),
        statement: "ALTER TABLE orders ADD note TEXT".into(),
        standing: Standing::Done,
        created_at: "2026-11-21 03:00:00.123456".into(),
        ended_at: Some("2026-11-21 03:05:00.654321".into()),
        by: "ann@ops1".into(),
        reason: "notes".into(),
        ticket: "OPS-1".into(),
        approved_by: "bob".into(),
        version: "0.1.0".into(),
        server: "MySQL 9.7.0 at db1:3306".into(),
        options: vec![Given { name: "nice".into(), value: "50%".into() }],
        fingerprint_before: Some("aa11".into()),
        fingerprint_after: Some("bb22".into()),
        orders: vec![order("pause", true), order("resume", false)],
        ended_by: "bob@ops2".into(),
        why: String::new(),
        summary: Some(summary),
        statements: Some(Comparison { compared: 7, seen: 9, worsened: vec![worsened] }),
    }
}

#[test]
fn a_run_is_told_a_line_a_fact() {
    assert_eq!(
        page(&past()),
        "\
shop.orders: changed (run r1)
  statement  ALTER TABLE orders ADD note TEXT
  time       2026-11-21 03:00:00 to 2026-11-21 03:05:00 (UTC)
  by         ann@ops1
  ended by   bob@ops2
  reason     notes
  ticket     OPS-1
  approved   bob
  options    --nice 50%
  server     MySQL 9.7.0 at db1:3306
  version    0.1.0
  definition aa11 before, bb22 after
  order      2026-11-21 03:01:00 pause by admin@% (ann@ops1)
  order      2026-11-21 03:01:00 resume by admin@% (ann@ops1), not taken
  copied     1,000 rows in 2 chunks
  changes    5 captured, 4 applied, 1 collapsed, 0 ahead of the copy
  verified   1,000 rows compared, all equal
  swap       application held up for 14 ms (try 1)
  chunks     380 ms (median), 450 ms (95%), 450 ms (99%), 450 ms at most
  took       1 min 11 s
  statements 7 compared, 1 fare worse
             0.4 ms → 8.0 ms: SELECT ?
"
    );
}

#[test]
fn a_run_that_was_removed_does_not_boast_of_its_swap() {
    let text = page(&PastRun { standing: Standing::Aborted, ..past() });
    assert!(text.starts_with("shop.orders: aborted, the table is as it was"), "{text}");
    assert!(!text.contains("  swap") && !text.contains("  verified"), "{text}");
}

#[test]
fn a_long_statement_is_cut_in_a_list() {
    assert_eq!(one_line("ALTER  TABLE\n t", 60), "ALTER TABLE t");
    assert_eq!(one_line("äöüß", 2), "äö…");
}
