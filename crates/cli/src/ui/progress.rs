//! The bar on a terminal, with the events of the run as lines above it.
//!
//! Owns its look. Exists only where standard error is a terminal that can draw (see `printer`).

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use underpin_engine::Report;

use super::figures::span;
use super::plain::Plain;
use super::reading::Reading;

/// How often the mark turns that shows that we are alive.
const TICK: Duration = Duration::from_millis(250);
/// Phases that go through the table.
const MEASURED: &str = "{prefix:>8} [{bar:28}] {msg}";
/// The others.
const UNMEASURED: &str = "{prefix:>8} {spinner} {msg}";
/// Second and third line stand under the bar.
const INDENT: &str = "\n         ";

/// One bar, at the bottom of the screen.
#[derive(Debug)]
pub(super) struct Bars {
    bar: ProgressBar,
    plain: Plain,
    is_measured: bool,
    /// The newest figures; `None` before the first.
    newest: Option<Reading>,
    /// When the phase began that is shown.
    phase_at: Instant,
}

impl Bars {
    /// A bar that is not drawn before the first report; `None` where the terminal cannot draw.
    pub(super) fn new() -> Option<Self> {
        let target = ProgressDrawTarget::stderr();
        if target.is_hidden() {
            return None;
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        let (plain, phase_at) = (Plain::default(), Instant::now());
        Some(Self { bar, plain, is_measured: false, newest: None, phase_at })
    }

    /// Takes in a report; gives the line to be written above the bar, if there is one.
    pub(super) fn show(&mut self, report: &Report) -> Option<String> {
        if let Some(reading) = Reading::of(report) {
            let reading = reading.after(self.newest.as_ref());
            self.draw(&reading, message(&reading, self.phase_at));
            self.newest = Some(reading);
        }
        if let Report::Phase { phase, .. } = report {
            self.change_phase(phase);
        }
        if matches!(
            report,
            Report::Done { .. } | Report::Revertible { .. } | Report::Stopped { .. }
        ) {
            self.clear();
        }
        self.plain.event(report)
    }

    /// Lets `write` write above the bar.
    pub(super) fn above(&self, write: impl FnOnce()) {
        self.bar.suspend(write);
    }

    /// Takes the bar off the screen.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
        self.bar.set_draw_target(ProgressDrawTarget::hidden());
    }

    /// The last figures stay on until there are new ones.
    fn change_phase(&mut self, phase: &str) {
        self.phase_at = Instant::now();
        let newest = self.newest.take().map(|newest| newest.in_phase(phase));
        match &newest {
            Some(reading) => self.draw(reading, message(reading, self.phase_at)),
            None => self.draw(&Reading::default().in_phase(phase), String::new()),
        }
        self.newest = newest;
    }

    fn draw(&mut self, reading: &Reading, message: String) {
        if self.bar.is_hidden() {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.bar.enable_steady_tick(TICK);
            self.style(false);
        }
        let measure = reading.measure();
        if measure.is_some() != self.is_measured {
            self.style(measure.is_some());
        }
        if let Some((done, total)) = measure {
            self.bar.set_length(total);
            self.bar.set_position(done);
        }
        self.bar.set_prefix(reading.phase().to_owned());
        self.bar.set_message(message);
    }

    fn style(&mut self, is_measured: bool) {
        self.is_measured = is_measured;
        let template = if is_measured { MEASURED } else { UNMEASURED };
        // The templates are constants that a test reads; the default look is the way out.
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ")
            .tick_chars("-\\|/ ");
        self.bar.set_style(style);
    }
}

/// What stands to the right of the bar and below it. A phase without a measure, as the build of the
/// indexes, shows how long it has been going on.
fn message(reading: &Reading, phase_at: Instant) -> String {
    let mut lines = Vec::new();
    lines.push(
        reading.rows().unwrap_or_else(|| format!("for {}", span(phase_at.elapsed().as_secs()))),
    );
    lines.push(format!("{}, {}", reading.load(), reading.changes()));
    lines.extend(reading.waiting());
    lines.join(INDENT)
}

#[cfg(test)]
mod tests {
    use underpin_engine::Figures;

    use super::super::reading::samples::figures;
    use super::*;

    #[test]
    fn the_templates_can_be_read() {
        for template in [MEASURED, UNMEASURED] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn the_message_has_a_line_for_each_concern() {
        let figures = Figures {
            waiting: Some("replica db2:3306 lags 3.1 s (limit 2 s)".into()),
            waiting_ms: 12_000,
            ..figures()
        };
        assert_eq!(
            message(&Reading::from(&figures), Instant::now()),
            "61%, 1,234,000 of about 2,000,000 rows, 45,210 rows/s, about 17 s left (12 s to 30 s)
         backlog 120, lag 0.3 s, chunk 390 ms, captured 5,123, applied 5,003
         paused 12 s: replica db2:3306 lags 3.1 s (limit 2 s)"
        );
    }

    #[test]
    fn a_phase_without_a_measure_shows_its_age() {
        let reading = Reading::from(&Figures { phase: "indexes".into(), ..figures() });
        assert!(message(&reading, Instant::now()).starts_with("for 0 s\n"));
    }
}
