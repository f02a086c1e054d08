//! The shape of the lines: users parse them.

use super::*;

fn line(report: &Report) -> String {
    serde_json::to_string(report).unwrap()
}

#[test]
fn a_line_names_its_event_first() {
    let report = Report::Phase { at_ms: 12, phase: "copy".into() };
    assert_eq!(line(&report), r#"{"event":"phase","at_ms":12,"phase":"copy"}"#);
    assert_eq!(line(&Report::Resumed { at_ms: 1 }), r#"{"event":"resumed","at_ms":1}"#);
}

#[test]
fn the_end_of_a_run_is_flat() {
    let summary = Summary {
        run_id: "r1".into(),
        table: "shop.orders".into(),
        rows_copied: 10,
        chunks: 2,
        chunks_redone: 0,
        changes_captured: 5,
        changes_applied: 3,
        changes_collapsed: 1,
        changes_dropped: 1,
        rows_verified: 10,
        verified: Verdict::Equal,
        swap_stall_ms: Some(14),
        swap_attempts: 1,
        lag_ms_max: None,
        took_ms: 900,
        retired: None,
    };
    let text = line(&Report::Done { at_ms: 900, summary });
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["event"], "done");
    assert_eq!(value["verified"], "equal");
    assert_eq!(value["swap_stall_ms"], 14);
    assert!(value["lag_ms_max"].is_null());
}

#[test]
fn a_refused_plan_says_so() {
    let plan = Plan {
        strategy: Strategy::Shadow,
        findings: vec![Finding::refusal("no-key", "no usable key", "add one")],
        spec: None,
        server: "MySQL 9.7.0 at 127.0.0.1:3306".into(),
        replicas: vec![],
    };
    let text = line(&Report::Plan { at_ms: 0, plan: PlanSummary::of(&plan) });
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["refused"], true);
    assert_eq!(value["findings"][0]["code"], "no-key");
    assert!(value["run_id"].is_null());
}
