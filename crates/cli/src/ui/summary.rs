//! What a finished run did, as a page of text.
//!
//! Owns the wording; the figures are the engine's.

use underpin_engine::{Summary, Verdict};

use super::figures::{bytes, count, millis, tenths};

/// The result of a run, a line a fact.
pub(crate) fn summary_text(summary: &Summary) -> String {
    let mut out = format!("{} is changed (run {})\n", summary.table, summary.run_id);
    for (name, fact) in summary_facts(summary) {
        out.push_str(&format!("  {name:<9} {fact}\n"));
    }
    out
}

/// Names and facts of what a run did.
pub(crate) fn summary_facts(summary: &Summary) -> Vec<(&'static str, String)> {
    let redone = match summary.chunks_redone {
        0 => String::new(),
        redone => format!(", {} of them together with pending changes", count(redone)),
    };
    let size = match summary.bytes_copied {
        0 => String::new(),
        number => format!(", about {},", bytes(number)),
    };
    let repaired = match summary.rows_repaired {
        0 => String::new(),
        rows => format!("; {} DIFFERED and were written once more", count(rows)),
    };
    let rows = count(summary.rows_verified);
    let verified = match summary.verified {
        Verdict::Equal => format!("{rows} rows compared, all equal{repaired}"),
        Verdict::Sampled => format!("by a sample of {rows} rows, not proven equal{repaired}"),
        Verdict::Skipped => {
            format!("NOT verified: the comparison was switched off{repaired}")
        }
    };
    let swap = match summary.swap_stall_ms {
        Some(stall_ms) => format!(
            "application held up for {} (try {})",
            millis(stall_ms),
            count(summary.swap_attempts)
        ),
        None => {
            "made; its stall was not measured, for the connection was lost meanwhile".to_owned()
        }
    };
    let mut facts = vec![
        (
            "copied",
            format!(
                "{} rows{size} in {} chunks{redone}",
                count(summary.rows_copied),
                count(summary.chunks)
            ),
        ),
        (
            "changes",
            format!(
                "{} captured, {} applied, {} collapsed, {} ahead of the copy",
                count(summary.changes_captured),
                count(summary.changes_applied),
                count(summary.changes_collapsed),
                count(summary.changes_dropped)
            ),
        ),
        ("verified", verified),
        ("swap", swap),
    ];
    if summary.chunks > 0 {
        let times = &summary.chunk_ms;
        let (p50, p95) = (millis(times.p50), millis(times.p95));
        let (p99, max) = (millis(times.p99), millis(times.max));
        facts.push(("chunks", format!("{p50} (median), {p95} (95%), {p99} (99%), {max} at most")));
    }
    if let Some(lag_ms) = summary.lag_ms_max {
        facts.push(("lag", format!("{} at most", tenths(lag_ms))));
    }
    let waits: Vec<String> =
        summary.waits.iter().map(|wait| format!("{} for {}", millis(wait.ms), wait.kind)).collect();
    if !waits.is_empty() {
        facts.push(("paused", waits.join(", ")));
    }
    facts.push(("took", millis(summary.took_ms)));
    facts.extend(summary.retired.iter().map(|name| ("kept", format!("the old table, as {name}"))));
    facts
}

#[cfg(test)]
mod tests {
    use underpin_engine::{Percentiles, Wait};

    use super::*;

    fn summary() -> Summary {
        Summary {
            run_id: "r1".into(),
            table: "shop.orders".into(),
            rows_copied: 1_000_000,
            chunks: 212,
            chunks_redone: 0,
            changes_captured: 5_123,
            changes_applied: 4_000,
            changes_collapsed: 1_000,
            changes_dropped: 123,
            rows_verified: 1_000_017,
            rows_repaired: 0,
            verified: Verdict::Equal,
            swap_stall_ms: Some(14),
            swap_attempts: 1,
            lag_ms_max: Some(340),
            took_ms: 71_000,
            retired: None,
            bytes_copied: 123_000_000,
            chunk_ms: Percentiles { p50: 380, p95: 450, p99: 900, max: 1_400 },
            waits: vec![Wait { kind: "lag".into(), ms: 12_300 }],
            worst: Vec::new(),
        }
    }

    #[test]
    fn a_good_run() {
        assert_eq!(
            summary_text(&summary()),
            "\
shop.orders is changed (run r1)
  copied    1,000,000 rows, about 123.0 MB, in 212 chunks
  changes   5,123 captured, 4,000 applied, 1,000 collapsed, 123 ahead of the copy
  verified  1,000,017 rows compared, all equal
  swap      application held up for 14 ms (try 1)
  chunks    380 ms (median), 450 ms (95%), 900 ms (99%), 1.4 s at most
  lag       0.3 s at most
  paused    12.3 s for lag
  took      1 min 11 s
"
        );
    }

    #[test]
    fn what_is_not_proven_is_said() {
        let text = summary_text(&Summary {
            verified: Verdict::Skipped,
            swap_stall_ms: None,
            lag_ms_max: None,
            chunks_redone: 3,
            retired: Some("shop.orders~old".into()),
            ..summary()
        });
        assert!(text.contains("  verified  NOT verified"), "{text}");
        let sampled = Summary { verified: Verdict::Sampled, rows_repaired: 2, ..summary() };
        let told = "  verified  by a sample of 1,000,017 rows, not proven equal; 2 DIFFERED";
        assert!(summary_text(&sampled).contains(told), "{}", summary_text(&sampled));
        assert!(text.contains("stall was not measured"), "{text}");
        assert!(text.contains("3 of them together"), "{text}");
        assert!(text.contains("  kept      the old table, as shop.orders~old\n"), "{text}");
        assert!(!text.contains("  lag"), "{text}");
    }
}
