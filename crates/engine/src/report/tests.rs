//! The shape of the lines: users parse them.

use underpin_core::statements::{EachCall, Worse, Worsened};

use super::*;

fn line(report: &Report) -> String {
    serde_json::to_string(report).unwrap()
}

fn plan() -> Plan {
    Plan {
        strategy: Strategy::Shadow,
        findings: vec![Finding::refusal("no-key", "no usable key", "add one")],
        spec: None,
        server: "MySQL 9.7.0 at 127.0.0.1:3306".into(),
        replicas: vec![],
    }
}

fn plan_summary() -> PlanSummary {
    PlanSummary {
        run_id: Some("r1".into()),
        table: Some("shop.orders".into()),
        statement: Some("ALTER TABLE orders ADD note TEXT".into()),
        rows_estimate: Some(1_000),
        row_bytes: Some(120),
        replicas: vec!["db2:3306".into()],
        ..PlanSummary::of(&plan())
    }
}

pub(crate) fn summary() -> Summary {
    Summary {
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
        rows_repaired: 1,
        verified: Verdict::Equal,
        swap_stall_ms: Some(14),
        swap_attempts: 1,
        lag_ms_max: Some(340),
        took_ms: 900,
        retired: Some("shop.orders~up_old".into()),
        bytes_copied: 1_200,
        chunk_ms: Percentiles { p50: 380, p95: 420, p99: 500, max: 700 },
        waits: vec![Wait { kind: "lag".into(), ms: 1_200 }],
        worst: vec![Worst {
            name: "lag".into(),
            of: "db2:3306".into(),
            unit: Unit::Ms,
            value: 340.0,
        }],
    }
}

pub(crate) fn figures() -> Figures {
    Figures {
        phase: "copy".into(),
        rows_per_s: Some(45_210),
        eta_s: Some(17),
        eta_low_s: Some(12),
        eta_high_s: Some(30),
        lag_ms: Some(340),
        waiting: Some("replica db2:3306 lags 3.1 s (limit 2 s)".into()),
        waiting_kind: Some("lag".into()),
        waiting_ms: 12_000,
        signals: vec![SignalView {
            name: "lag".into(),
            of: "db2:3306".into(),
            source: "heartbeat".into(),
            unit: Unit::Ms,
            value: Some(3_100.0),
            limit: Some(2_000.0),
            critical: Some(60_000.0),
            age_ms: 210,
            error: String::new(),
        }],
        ..Figures::default()
    }
}

pub(crate) fn comparison() -> Comparison {
    let before = EachCall { calls: 900, ms: 0.4, examined: 1.0, without_index: 0.0 };
    let after = EachCall { calls: 40, ms: 8.0, examined: 20_000.0, without_index: 1.0 };
    let worse = vec![Worse::Slower, Worse::LostIndex];
    let worsened = Worsened { text: "SELECT * FROM orders".into(), worse, before, after };
    Comparison { compared: 7, seen: 9, worsened: vec![worsened] }
}

/// One of each event, every field that may be empty filled.
#[allow(clippy::too_many_lines)] // a list, and the match that keeps it whole
fn samples() -> Vec<Report> {
    let (run_id, table) = (|| "r1".to_owned(), || "shop.orders".to_owned());
    let text = |text: &str| text.to_owned();
    let samples = vec![
        Report::Plan { at_ms: 0, plan: plan_summary() },
        Report::RunStarted {
            at_ms: 1,
            run_id: run_id(),
            table: table(),
            statement: text("ALTER TABLE orders ADD note TEXT"),
            by: text("ann@ops1"),
            reason: text("notes"),
            ticket: text("OPS-1"),
            approved_by: text("bob"),
            options: vec![Given { name: text("max-lag"), value: text("3s") }],
        },
        Report::RunResumed {
            at_ms: 2,
            run_id: run_id(),
            table: table(),
            phase: text("copy"),
            rows_copied: 7,
        },
        Report::Phase { at_ms: 3, phase: text("copy") },
        Report::Progress { at_ms: 4, figures: figures() },
        Report::Paused { at_ms: 5, reason: text("on request"), kind: text("asked") },
        Report::Resumed { at_ms: 6, paused_ms: 1_000, kind: text("asked") },
        Report::Ordered {
            at_ms: 7,
            command: text("set max-lag=3s"),
            by: text("admin@10.0.0.7 (ann@ops1)"),
            ordered_at: text("2026-11-21 10:00:00"),
        },
        Report::HookFailed { at_ms: 8, hook: text("ready"), why: text("exit code 3") },
        Report::Statements { at_ms: 9, after_ms: 5_000, comparison: comparison() },
        Report::Retrying { at_ms: 10, what: text("copying a chunk"), why: text("deadlock") },
        Report::Different { at_ms: 10, differences: 1, samples: vec![text("id=3")] },
        Report::Reconnecting { at_ms: 11, why: text("gone"), attempt: 1 },
        Report::LockTry { at_ms: 12, attempt: 1, why: text("session 7 reads it") },
        Report::Swap { at_ms: 13, stall_ms: 14, drained: 3, attempts: 1 },
        Report::Done { at_ms: 14, summary: summary() },
        Report::Revertible { at_ms: 15, stands: Way::Forward, summary: summary() },
        Report::Altered { at_ms: 15, table: table(), tries: 1, took_ms: 20 },
        Report::Stopped {
            at_ms: 16,
            ending: StoppedAs::Aborted,
            run_id: run_id(),
            phase: text("copy"),
            rows_copied: 7,
            why: text("running is 90 (critical: 80)"),
        },
        Report::Error { at_ms: 17, kind: text("database"), message: text("why") },
    ];
    // Whoever adds an event adds a sample above, and a section to the page.
    for sample in &samples {
        match sample {
            Report::Plan { .. }
            | Report::RunStarted { .. }
            | Report::RunResumed { .. }
            | Report::Phase { .. }
            | Report::Progress { .. }
            | Report::Paused { .. }
            | Report::Resumed { .. }
            | Report::Ordered { .. }
            | Report::HookFailed { .. }
            | Report::Statements { .. }
            | Report::Different { .. }
            | Report::Retrying { .. }
            | Report::Reconnecting { .. }
            | Report::LockTry { .. }
            | Report::Swap { .. }
            | Report::Done { .. }
            | Report::Revertible { .. }
            | Report::Altered { .. }
            | Report::Stopped { .. }
            | Report::Error { .. } => {}
        }
    }
    assert_eq!(samples.len(), 20, "one of each");
    samples
}

#[test]
fn the_page_tells_every_event_and_field() {
    for sample in samples() {
        let value = serde_json::to_value(&sample).unwrap();
        let event = value["event"].as_str().unwrap().to_owned();
        crate::reference::must_tell(&event, &value);
    }
}

#[test]
fn the_page_tells_no_event_that_there_is_not() {
    let events: Vec<String> = samples()
        .iter()
        .map(|sample| serde_json::to_value(sample).unwrap()["event"].as_str().unwrap().to_owned())
        .collect();
    // Those of `status`, `list`, `history` and `verify` are checked where they are made.
    let elsewhere = ["run", "past_run", "compared", "leftover"];
    for told in crate::reference::events().iter().filter(|it| !elsewhere.contains(&&***it)) {
        assert!(events.contains(told), "docs/reference/json.md tells of {told}");
    }
}

#[test]
fn a_line_names_its_event_first() {
    let report = Report::Phase { at_ms: 12, phase: "copy".into() };
    assert_eq!(line(&report), r#"{"event":"phase","at_ms":12,"phase":"copy"}"#);
    let report = Report::Resumed { at_ms: 1, paused_ms: 20, kind: "lag".into() };
    assert_eq!(line(&report), r#"{"event":"resumed","at_ms":1,"paused_ms":20,"kind":"lag"}"#);
}

#[test]
fn the_end_of_a_run_is_flat() {
    let text =
        line(&Report::Done { at_ms: 900, summary: Summary { lag_ms_max: None, ..summary() } });
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["event"], "done");
    assert_eq!(value["verified"], "equal");
    assert_eq!(value["swap_stall_ms"], 14);
    assert!(value["lag_ms_max"].is_null());
}

#[test]
fn a_refused_plan_says_so() {
    let text = line(&Report::Plan { at_ms: 0, plan: PlanSummary::of(&plan()) });
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["refused"], true);
    assert_eq!(value["findings"][0]["code"], "no-key");
    assert!(value["run_id"].is_null());
}
