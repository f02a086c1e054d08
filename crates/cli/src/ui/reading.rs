//! One report of progress, and its parts in words. Bars and plain lines are put together from these.
//!
//! Owns which figure matters in which phase. Takes no decision and prints nothing.

use underpin_engine::{Figures, Report};

use super::figures::{count, millis, percent, span, tenths};

/// The figures of one `Report::Progress`, and the longest backlog of the phase.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Reading {
    figures: Figures,
    /// Entries that waited at most since the phase began: what catching up is measured by.
    backlog_max: u64,
}

impl Reading {
    /// The figures of a report of progress; `None` for other reports.
    pub(super) fn of(report: &Report) -> Option<Self> {
        let Report::Progress { figures, .. } = report else { return None };
        Some(Self::from(figures))
    }

    /// The same in a new phase, until there are new figures.
    pub(super) fn in_phase(&self, phase: &str) -> Self {
        let figures = Figures { phase: phase.to_owned(), ..self.figures.clone() };
        Self { backlog_max: figures.backlog, figures }
    }

    /// The same after an earlier reading.
    pub(super) fn after(mut self, earlier: Option<&Self>) -> Self {
        if let Some(earlier) = earlier.filter(|it| it.figures.phase == self.figures.phase) {
            self.backlog_max = std::cmp::max(self.backlog_max, earlier.backlog_max);
        }
        self
    }

    /// The phase.
    pub(super) fn phase(&self) -> &str {
        &self.figures.phase
    }

    /// Rows done and rows in all, in phases that go through the table.
    pub(super) fn measure(&self) -> Option<(u64, u64)> {
        let it = &self.figures;
        let at_least = |done: u64, total: u64| Some((done, std::cmp::max(done, total)));
        let measure = match it.phase.as_str() {
            // The estimate may be too low; then it is what was copied.
            "copy" => at_least(it.rows_copied, it.rows_estimate),
            "verify" => at_least(it.rows_verified, it.rows_copied),
            "catch-up" => Some((self.backlog_max.saturating_sub(it.backlog), self.backlog_max)),
            _ => None,
        };
        measure.filter(|(_, total)| *total > 0)
    }

    /// How far the phase is: `61%, 1,234,000 of about 2,000,000 rows, 45,210 rows/s, about 17 s left
    /// (12 s to 30 s)`.
    pub(crate) fn rows(&self) -> Option<String> {
        let (done, total) = self.measure()?;
        let is_copy = self.figures.phase == "copy";
        let what = if self.figures.phase == "catch-up" { "changes" } else { "rows" };
        let about = if is_copy { "about " } else { "" };
        let mut parts = vec![
            format!("{}%", percent(done, total)),
            format!("{} of {about}{} {what}", count(done), count(total)),
        ];
        if is_copy {
            parts.extend(self.figures.rows_per_s.map(|rate| format!("{} rows/s", count(rate))));
            parts.extend(self.left());
        }
        Some(parts.join(", "))
    }

    /// The time left, with its spread where that says more: `about 17 s left (12 s to 30 s)`.
    pub(super) fn left(&self) -> Option<String> {
        let it = &self.figures;
        let left_s = it.eta_s?;
        let spread = match (it.eta_low_s, it.eta_high_s) {
            (Some(low_s), Some(high_s)) if low_s < high_s => {
                format!(" ({} to {})", span(low_s), span(high_s))
            }
            _ => String::new(),
        };
        Some(format!("about {} left{spread}", span(left_s)))
    }

    /// Why the run waits, and for how long: `paused 12 s: replica db2:3306 lags 3.1 s (limit 2 s)`.
    pub(crate) fn waiting(&self) -> Option<String> {
        let why = self.figures.waiting.as_ref()?;
        Some(format!("paused {}: {why}", span(self.figures.waiting_ms / 1000)))
    }

    /// How those around us fare: `backlog 120, lag 0.3 s, chunk 390 ms`.
    pub(crate) fn load(&self) -> String {
        let it = &self.figures;
        let mut parts = vec![format!("backlog {}", count(it.backlog))];
        parts.push(match it.lag_ms {
            Some(lag_ms) => format!("lag {}", tenths(lag_ms)),
            None => "lag unknown".to_owned(),
        });
        if it.chunk_ms > 0 {
            parts.push(format!("chunk {}", millis(it.chunk_ms)));
        }
        parts.join(", ")
    }

    /// What the application did meanwhile: `captured 5,123, applied 5,003`.
    pub(super) fn changes(&self) -> String {
        format!(
            "captured {}, applied {}",
            count(self.figures.captured),
            count(self.figures.applied)
        )
    }
}

impl From<&Figures> for Reading {
    fn from(figures: &Figures) -> Self {
        Self { figures: figures.clone(), backlog_max: figures.backlog }
    }
}

#[cfg(test)]
pub(super) mod samples {
    use super::*;

    /// Figures in the middle of a copy.
    pub(crate) fn figures() -> Figures {
        Figures {
            phase: "copy".into(),
            rows_copied: 1_234_000,
            rows_estimate: 2_000_000,
            backlog: 120,
            rows_per_s: Some(45_210),
            eta_s: Some(17),
            eta_low_s: Some(12),
            eta_high_s: Some(30),
            lag_ms: Some(340),
            chunk_ms: 390,
            captured: 5_123,
            applied: 5_003,
            workers: 4,
            ..Figures::default()
        }
    }

    /// A report in the middle of a copy.
    pub(crate) fn copying(at_ms: u64) -> Report {
        Report::Progress { at_ms, figures: figures() }
    }
}

#[cfg(test)]
mod tests {
    use super::samples::figures;
    use super::*;

    fn reading(figures: Figures) -> Reading {
        Reading::from(&figures)
    }

    #[test]
    fn a_copy_in_words() {
        let copying = reading(figures());
        assert_eq!(
            copying.rows().unwrap(),
            "61%, 1,234,000 of about 2,000,000 rows, 45,210 rows/s, about 17 s left (12 s to 30 s)"
        );
        assert_eq!(copying.load(), "backlog 120, lag 0.3 s, chunk 390 ms");
        assert_eq!(copying.changes(), "captured 5,123, applied 5,003");
        assert_eq!(copying.waiting(), None);
    }

    #[test]
    fn unknown_figures_are_left_out_or_said() {
        let reading = reading(Figures {
            rows_per_s: None,
            eta_s: None,
            lag_ms: None,
            chunk_ms: 0,
            ..figures()
        });
        assert_eq!(reading.rows().unwrap(), "61%, 1,234,000 of about 2,000,000 rows");
        assert_eq!(reading.load(), "backlog 120, lag unknown");
    }

    #[test]
    fn a_spread_of_nothing_is_not_said() {
        let reading = reading(Figures { eta_low_s: Some(17), eta_high_s: Some(17), ..figures() });
        assert_eq!(reading.left().unwrap(), "about 17 s left");
    }

    #[test]
    fn a_pause_says_how_long_and_why() {
        let waiting = Some("replica db2:3306 lags 3.1 s (limit 2 s)".into());
        let reading = reading(Figures { waiting, waiting_ms: 12_400, ..figures() });
        let text = "paused 12 s: replica db2:3306 lags 3.1 s (limit 2 s)";
        assert_eq!(reading.waiting().as_deref(), Some(text));
    }

    #[test]
    fn an_estimate_that_was_too_low_gives_way() {
        let reading = reading(Figures { rows_estimate: 1_000, ..figures() });
        assert_eq!(reading.measure(), Some((1_234_000, 1_234_000)));
    }

    #[test]
    fn verification_is_measured_by_what_was_copied() {
        let reading =
            reading(Figures { phase: "verify".into(), rows_verified: 617_000, ..figures() });
        assert_eq!(reading.rows().unwrap(), "50%, 617,000 of 1,234,000 rows");
    }

    #[test]
    fn catching_up_is_measured_by_the_longest_backlog() {
        let at = |backlog| reading(Figures { phase: "catch-up".into(), backlog, ..figures() });
        let longest = at(8_000).after(Some(&reading(figures())));
        let now = at(2_000).after(Some(&longest));
        assert_eq!(now.rows().unwrap(), "75%, 6,000 of 8,000 changes");
    }

    #[test]
    fn other_phases_have_no_measure() {
        assert_eq!(reading(Figures { phase: "swap".into(), ..figures() }).rows(), None);
        let empty = Figures { phase: "copy".into(), ..Figures::default() };
        assert_eq!(reading(empty).rows(), None);
        let resumed = Report::Resumed { at_ms: 0, paused_ms: 0, kind: "lag".into() };
        assert_eq!(Reading::of(&resumed), None);
    }
}
