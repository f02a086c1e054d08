//! One report of progress, and its parts in words. Bars and plain lines are put together from these.
//!
//! Owns which figure matters in which phase. Takes no decision and prints nothing.

use underpin_engine::Report;

use super::figures::{count, millis, percent, span, tenths};

/// The figures of one `Report::Progress`; units are in the names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) phase: String,
    pub(super) rows_copied: u64,
    pub(super) rows_estimate: u64,
    pub(super) rows_verified: u64,
    pub(super) backlog: u64,
    pub(super) rows_per_s: Option<u64>,
    pub(super) eta_s: Option<u64>,
    pub(super) lag_ms: Option<u64>,
    pub(super) chunk_ms: u64,
    pub(super) captured: u64,
    pub(super) applied: u64,
    pub(super) waiting: Option<String>,
}

impl Reading {
    /// The figures of a report of progress; `None` for other reports.
    pub(super) fn of(report: &Report) -> Option<Self> {
        let Report::Progress {
            at_ms: _,
            phase,
            rows_copied,
            rows_estimate,
            rows_verified,
            backlog,
            rows_per_s,
            eta_s,
            lag_ms,
            chunk_ms,
            captured,
            applied,
            waiting,
        } = report
        else {
            return None;
        };
        Some(Self {
            phase: phase.clone(),
            rows_copied: *rows_copied,
            rows_estimate: *rows_estimate,
            rows_verified: *rows_verified,
            backlog: *backlog,
            rows_per_s: *rows_per_s,
            eta_s: *eta_s,
            lag_ms: *lag_ms,
            chunk_ms: *chunk_ms,
            captured: *captured,
            applied: *applied,
            waiting: waiting.clone(),
        })
    }

    /// Rows done and rows in all, in phases that go through the table.
    pub(super) fn measure(&self) -> Option<(u64, u64)> {
        let measure = match self.phase.as_str() {
            // The estimate may be too low; then it is what was copied.
            "copy" => Some((self.rows_copied, std::cmp::max(self.rows_copied, self.rows_estimate))),
            "verify" => {
                Some((self.rows_verified, std::cmp::max(self.rows_verified, self.rows_copied)))
            }
            _ => None,
        };
        measure.filter(|(_, total)| *total > 0)
    }

    /// How far the phase is: `61%, 1,234,000 of about 2,000,000 rows, 45,210 rows/s, about 17 s left`.
    pub(super) fn rows(&self) -> Option<String> {
        let (done, total) = self.measure()?;
        let about = if self.phase == "copy" { "about " } else { "" };
        let mut parts = vec![
            format!("{}%", percent(done, total)),
            format!("{} of {about}{} rows", count(done), count(total)),
        ];
        if self.phase == "copy" {
            parts.extend(self.rows_per_s.map(|rate| format!("{} rows/s", count(rate))));
            parts.extend(self.eta_s.map(|left_s| format!("about {} left", span(left_s))));
        }
        Some(parts.join(", "))
    }

    /// How those around us fare: `backlog 120, lag 0.3 s, chunk 390 ms`.
    pub(super) fn load(&self) -> String {
        let mut parts = vec![format!("backlog {}", count(self.backlog))];
        parts.push(match self.lag_ms {
            Some(lag_ms) => format!("lag {}", tenths(lag_ms)),
            None => "lag unknown".to_owned(),
        });
        if self.chunk_ms > 0 {
            parts.push(format!("chunk {}", millis(self.chunk_ms)));
        }
        parts.join(", ")
    }

    /// What the application did meanwhile: `captured 5,123, applied 5,003`.
    pub(super) fn changes(&self) -> String {
        format!("captured {}, applied {}", count(self.captured), count(self.applied))
    }
}

#[cfg(test)]
pub(super) mod samples {
    use super::*;

    /// A report in the middle of a copy.
    pub(crate) fn copying(at_ms: u64) -> Report {
        Report::Progress {
            at_ms,
            phase: "copy".into(),
            rows_copied: 1_234_000,
            rows_estimate: 2_000_000,
            rows_verified: 0,
            backlog: 120,
            rows_per_s: Some(45_210),
            eta_s: Some(17),
            lag_ms: Some(340),
            chunk_ms: 390,
            captured: 5_123,
            applied: 5_003,
            waiting: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copying() -> Reading {
        Reading::of(&samples::copying(0)).unwrap()
    }

    #[test]
    fn a_copy_in_words() {
        assert_eq!(
            copying().rows().unwrap(),
            "61%, 1,234,000 of about 2,000,000 rows, 45,210 rows/s, about 17 s left"
        );
        assert_eq!(copying().load(), "backlog 120, lag 0.3 s, chunk 390 ms");
        assert_eq!(copying().changes(), "captured 5,123, applied 5,003");
    }

    #[test]
    fn unknown_figures_are_left_out_or_said() {
        let reading =
            Reading { rows_per_s: None, eta_s: None, lag_ms: None, chunk_ms: 0, ..copying() };
        assert_eq!(reading.rows().unwrap(), "61%, 1,234,000 of about 2,000,000 rows");
        assert_eq!(reading.load(), "backlog 120, lag unknown");
    }

    #[test]
    fn an_estimate_that_was_too_low_gives_way() {
        let reading = Reading { rows_estimate: 1_000, ..copying() };
        assert_eq!(reading.measure(), Some((1_234_000, 1_234_000)));
    }

    #[test]
    fn verification_is_measured_by_what_was_copied() {
        let reading = Reading { phase: "verify".into(), rows_verified: 617_000, ..copying() };
        assert_eq!(reading.rows().unwrap(), "50%, 617,000 of 1,234,000 rows");
    }

    #[test]
    fn other_phases_have_no_measure() {
        assert_eq!(Reading { phase: "catch-up".into(), ..copying() }.rows(), None);
        assert_eq!(Reading { phase: "copy".into(), ..Reading::default() }.rows(), None);
        assert_eq!(Reading::of(&Report::Resumed { at_ms: 0 }), None);
    }
}
