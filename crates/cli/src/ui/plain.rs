//! Plain lines for terminals without bars, for logs and for pipes.
//!
//! Owns the sentence of each report, and how often a line of progress or of a repeated nuisance is
//! worth one: every ten seconds. Adds no time of day; the printer does.

use underpin_core::statements::{Comparison, Worse};
use underpin_engine::{Report, StoppedAs};

use super::figures::{count, millis};
use super::reading::Reading;

/// Time between two lines of progress, and between two of the same nuisance, in milliseconds.
pub(super) const LINE_EVERY_MS: u64 = 10_000;

/// Statements that fare worse and are shown; programs get all of them.
const STATEMENTS_SHOWN: usize = 5;

/// Chooses what is worth a line.
#[derive(Debug, Default)]
pub(super) struct Plain {
    progress_at_ms: Option<u64>,
    retry_at_ms: Option<u64>,
    retries_unsaid: u64,
}

impl Plain {
    /// The line for a report; `None` where there is none, or it is too early for another.
    pub(super) fn line(&mut self, report: &Report) -> Option<String> {
        match report {
            Report::Progress { at_ms, .. } => {
                if !is_due(self.progress_at_ms, *at_ms) {
                    return None;
                }
                self.progress_at_ms = Some(*at_ms);
                Reading::of(report).map(|reading| progress(&reading))
            }
            Report::Phase { at_ms, .. } => {
                // The figures right after a change of phase say nothing new.
                self.progress_at_ms = Some(*at_ms);
                sentence(report)
            }
            other => self.event(other),
        }
    }

    /// The line for a report that is not about progress.
    pub(super) fn event(&mut self, report: &Report) -> Option<String> {
        let Report::Retrying { at_ms, .. } = report else { return sentence(report) };
        if !is_due(self.retry_at_ms, *at_ms) {
            self.retries_unsaid += 1;
            return None;
        }
        self.retry_at_ms = Some(*at_ms);
        let unsaid = std::mem::take(&mut self.retries_unsaid);
        sentence(report).map(|line| match unsaid {
            0 => line,
            more => format!("{line} (and {} more since)", count(more)),
        })
    }
}

fn is_due(last_ms: Option<u64>, now_ms: u64) -> bool {
    last_ms.is_none_or(|last_ms| now_ms.saturating_sub(last_ms) >= LINE_EVERY_MS)
}

fn progress(reading: &Reading) -> String {
    let mut parts = vec![];
    parts.extend(reading.rows());
    parts.push(reading.load());
    parts.push(reading.changes());
    let mut line = format!("{}: {}", reading.phase(), parts.join(", "));
    if let Some(waiting) = reading.waiting() {
        line.push_str(&format!(" -- {waiting}"));
    }
    line
}

/// What a report says in a sentence; `None` for those that are shown otherwise (progress, plan, result,
/// error).
fn sentence(report: &Report) -> Option<String> {
    Some(match report {
        Report::RunStarted { run_id, table, .. } => format!("run {run_id} of {table} begins"),
        Report::RunResumed { run_id, table, phase, rows_copied, .. } => format!(
            "run {run_id} of {table} goes on in phase {phase}; {} rows were copied before",
            count(*rows_copied)
        ),
        Report::Phase { phase, .. } => format!("phase {phase}"),
        Report::Paused { reason, .. } => format!("paused: {reason}"),
        Report::Resumed { paused_ms, .. } => {
            format!("goes on after a pause of {}", millis(*paused_ms))
        }
        Report::Ordered { command, by, ordered_at, .. } => {
            let by = if by.is_empty() { String::new() } else { format!(", by {by}") };
            let at = ordered_at.split('.').next().unwrap_or_default();
            let at = if at.is_empty() { String::new() } else { format!(", {at} UTC") };
            format!("order: {command}{by}{at}")
        }
        Report::HookFailed { hook, why, .. } => format!("the command for {hook} failed: {why}"),
        Report::Statements { comparison, after_ms, .. } => compared(comparison, *after_ms),
        Report::Retrying { what, why, .. } => {
            format!("{what} was rolled back and is tried again: {why}")
        }
        Report::Different { differences, samples, .. } => format!(
            "verification found {} rows of a range that DIFFER: {}",
            count(*differences),
            samples.join("; ")
        ),
        Report::Reconnecting { why, attempt, .. } => {
            format!("connecting anew (try {attempt}): {why}")
        }
        Report::LockTry { attempt, why, .. } => format!(
            "try {attempt} at the table's lock was in vain, and everybody was let through: {why}"
        ),
        Report::Swap { stall_ms, drained, attempts, .. } => format!(
            "swapped at try {attempts}: the application was held up for {}, {} changes applied \
             under the lock",
            millis(*stall_ms),
            count(*drained)
        ),
        Report::Stopped { ending, phase, rows_copied, why, .. } => match ending {
            StoppedAs::Interrupted => {
                format!("stopped in phase {phase} after {} rows", count(*rows_copied))
            }
            StoppedAs::Stayed => "left; the table that was live stays".to_owned(),
            StoppedAs::Aborted if why.is_empty() => {
                "ended on request; nothing of the run is left".to_owned()
            }
            StoppedAs::Aborted => format!("ended: {why}; nothing of the run is left"),
        },
        _ => return None,
    })
}

/// The comparison of statements, worst first.
fn compared(comparison: &Comparison, after_ms: u64) -> String {
    let over = format!("in the {} after the swap", millis(after_ms));
    let mut text = match (comparison.compared, comparison.worsened.len()) {
        (0, _) => format!("statements: none ran often enough {over} to be compared"),
        (compared, 0) => format!("statements: {compared} compared {over}, none fares worse"),
        (compared, worse) => {
            format!(
                "statements: {worse} of {compared} compared {over} fare worse than before the run"
            )
        }
    };
    for worsened in comparison.worsened.iter().take(STATEMENTS_SHOWN) {
        let how: Vec<&str> = worsened.worse.iter().map(|worse| in_words(*worse)).collect();
        let (before, after) = (&worsened.before, &worsened.after);
        let text_shown: String = worsened.text.split_whitespace().collect::<Vec<_>>().join(" ");
        let text_shown: String = text_shown.chars().take(100).collect();
        text.push_str(&format!(
            "\n  {}: {:.1} ms → {:.1} ms, {:.0} → {:.0} rows examined a call: {text_shown}",
            how.join(", "),
            before.ms,
            after.ms,
            before.examined,
            after.examined
        ));
    }
    text
}

fn in_words(worse: Worse) -> &'static str {
    match worse {
        Worse::Slower => "slower",
        Worse::ExaminesMore => "examines more",
        Worse::LostIndex => "uses no index now",
    }
}

#[cfg(test)]
mod tests {
    use underpin_core::statements::{EachCall, Worsened};

    use super::super::reading::samples::copying;
    use super::*;

    fn retrying(at_ms: u64) -> Report {
        Report::Retrying { at_ms, what: "copying a chunk".into(), why: "Deadlock found".into() }
    }

    #[test]
    fn progress_comes_every_ten_seconds() {
        let mut plain = Plain::default();
        let lines: Vec<u64> =
            (0..31).filter(|s| plain.line(&copying(s * 1_000)).is_some()).collect();
        assert_eq!(lines, [0, 10, 20, 30]);
    }

    #[test]
    fn a_line_of_progress() {
        assert_eq!(
            Plain::default().line(&copying(0)).unwrap(),
            "copy: 61%, 1,234,000 of about 2,000,000 rows, 45,210 rows/s, about 17 s left (12 s to \
             30 s), backlog 120, lag 0.3 s, chunk 390 ms, captured 5,123, applied 5,003"
        );
    }

    #[test]
    fn a_reason_to_wait_is_part_of_the_line() {
        let mut report = copying(0);
        if let Report::Progress { figures, .. } = &mut report {
            figures.waiting = Some("replica db2:3306 lags 3.1 s (limit 2 s)".into());
            figures.waiting_ms = 12_000;
            figures.phase = "indexes".into();
        }
        assert_eq!(
            Plain::default().line(&report).unwrap(),
            "indexes: backlog 120, lag 0.3 s, chunk 390 ms, captured 5,123, applied 5,003 \
             -- paused 12 s: replica db2:3306 lags 3.1 s (limit 2 s)"
        );
    }

    #[test]
    fn a_change_of_phase_is_said_at_once_and_rests_the_figures() {
        let mut plain = Plain::default();
        assert!(plain.line(&copying(0)).is_some());
        let phase = Report::Phase { at_ms: 9_500, phase: "verify".into() };
        assert_eq!(plain.line(&phase).unwrap(), "phase verify");
        assert_eq!(plain.line(&copying(10_000)), None);
        assert!(plain.line(&copying(19_500)).is_some());
    }

    #[test]
    fn a_storm_of_retries_is_counted_not_listed() {
        let mut plain = Plain::default();
        let first = plain.line(&retrying(0)).unwrap();
        assert_eq!(first, "copying a chunk was rolled back and is tried again: Deadlock found");
        for at_ms in 1..50 {
            assert_eq!(plain.line(&retrying(at_ms)), None);
        }
        assert_eq!(plain.line(&retrying(10_000)).unwrap(), format!("{first} (and 49 more since)"));
        assert_eq!(plain.line(&retrying(20_000)).unwrap(), first);
    }

    #[test]
    fn events_in_words() {
        let cases = [
            (
                Report::RunResumed {
                    at_ms: 0,
                    run_id: "r1".into(),
                    table: "shop.orders".into(),
                    phase: "copy".into(),
                    rows_copied: 1_200,
                },
                "run r1 of shop.orders goes on in phase copy; 1,200 rows were copied before",
            ),
            (
                Report::Swap { at_ms: 0, stall_ms: 14, drained: 3, attempts: 2 },
                "swapped at try 2: the application was held up for 14 ms, 3 changes applied under \
                 the lock",
            ),
            (
                Report::LockTry { at_ms: 0, attempt: 3, why: "session 7 reads it".into() },
                "try 3 at the table's lock was in vain, and everybody was let through: session 7 reads it",
            ),
            (
                Report::Paused { at_ms: 0, reason: "on request".into(), kind: "asked".into() },
                "paused: on request",
            ),
            (
                Report::Resumed { at_ms: 0, paused_ms: 12_300, kind: "asked".into() },
                "goes on after a pause of 12.3 s",
            ),
            (
                Report::Ordered {
                    at_ms: 0,
                    command: "set max-lag=3s".into(),
                    by: "admin@10.0.0.7 (ann@ops1)".into(),
                    ordered_at: "2026-11-21 10:00:00.123456".into(),
                },
                "order: set max-lag=3s, by admin@10.0.0.7 (ann@ops1), 2026-11-21 10:00:00 UTC",
            ),
            (
                Report::HookFailed { at_ms: 0, hook: "ready".into(), why: "exit code 3".into() },
                "the command for ready failed: exit code 3",
            ),
            (
                stopped("running is 90 (critical: 80)"),
                "ended: running is 90 (critical: 80); nothing of the run is left",
            ),
            (stopped(""), "ended on request; nothing of the run is left"),
        ];
        for (report, line) in cases {
            assert_eq!(Plain::default().line(&report).as_deref(), Some(line));
        }
    }

    fn stopped(why: &str) -> Report {
        Report::Stopped {
            at_ms: 0,
            ending: StoppedAs::Aborted,
            run_id: "r1".into(),
            phase: "copy".into(),
            rows_copied: 7,
            why: why.into(),
        }
    }

    #[test]
    fn statements_that_fare_worse_are_named() {
        let before = EachCall { calls: 900, ms: 0.4, examined: 1.0, without_index: 0.0 };
        let after = EachCall { calls: 40, ms: 8.04, examined: 20_000.0, without_index: 1.0 };
        let worse = vec![Worse::Slower, Worse::LostIndex];
        let worsened = Worsened { text: "SELECT *\n FROM orders".into(), worse, before, after };
        let comparison = Comparison { compared: 7, seen: 9, worsened: vec![worsened] };
        assert_eq!(
            compared(&comparison, 5_000),
            "statements: 1 of 7 compared in the 5.0 s after the swap fare worse than before the run
  slower, uses no index now: 0.4 ms → 8.0 ms, 1 → 20000 rows examined a call: SELECT * FROM orders"
        );
        let well = Comparison { worsened: vec![], ..comparison };
        assert!(
            compared(&well, 5_000)
                .ends_with("7 compared in the 5.0 s after the swap, none fares worse")
        );
    }

    #[test]
    fn what_others_print_has_no_line() {
        let error = Report::Error { at_ms: 0, kind: "failed".into(), message: "why".into() };
        assert_eq!(Plain::default().line(&error), None);
    }
}
