//! The outcomes of many plants, for people.

use std::fmt::Write;

use super::meter::Outcome;

/// Plants by how late their reading comes: up to so many seconds.
const CLASSES: [(&str, f64, f64); 5] = [
    ("0 s", -1.0, 0.0),
    ("0-2 s", 0.0, 2.0),
    ("2-10 s", 2.0, 10.0),
    ("10-20 s", 10.0, 20.0),
    ("20-30 s", 20.0, 31.0),
];

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn percentile(mut values: Vec<f64>, percent: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = ((values.len() as f64 - 1.0) * percent / 100.0).round() as usize;
    values.get(at).copied().unwrap_or_default()
}

/// A table: rate as a share of the oracle's, lag, swinging, by delay of the reading.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut text = String::from(
        "delay     plants | rate/oracle: min   p1    p5    p50  | lag over the unavoidable, s: p50   p95   max | later, s: p50  p95   max | far over: p50   p95 | swing: p50   p95 | stops p95 | swinging | < 85 %\n",
    );
    let classes = CLASSES.iter().chain([&("all", -1.0, 31.0)]);
    for (name, low, high) in classes {
        let class: Vec<&Outcome> = outcomes
            .iter()
            .filter(|outcome| outcome.delay_s > *low && outcome.delay_s <= *high)
            .collect();
        let of = |value: &dyn Fn(&Outcome) -> f64, percent| {
            percentile(class.iter().map(|outcome| value(outcome)).collect(), percent)
        };
        let rate = |outcome: &Outcome| outcome.of_oracle;
        let bound = |outcome: &Outcome| f64::max(outcome.unavoidable_ms, outcome.limit_ms);
        let over = |outcome: &Outcome| (outcome.worst_ms - bound(outcome)) / 1000.0;
        let later = |outcome: &Outcome| (outcome.worst_later_ms - bound(outcome)) / 1000.0;
        let _ = writeln!(
            text,
            "{name:>8} {:>7} | {:>16.3} {:>5.3} {:>5.3} {:>5.3} | {:>30.1} {:>5.1} {:>5.1} | {:>13.1} {:>5.1} {:>5.1} | {:>13.4} {:>5.3} | {:>10.2} {:>5.2} | {:>9} | {:>8} | {:>6}",
            class.len(),
            of(&rate, 0.0),
            of(&rate, 1.0),
            of(&rate, 5.0),
            of(&rate, 50.0),
            of(&over, 50.0),
            of(&over, 95.0),
            of(&over, 100.0),
            of(&later, 50.0),
            of(&later, 95.0),
            of(&later, 100.0),
            of(&|outcome| outcome.far_over, 50.0),
            of(&|outcome| outcome.far_over, 95.0),
            of(&|outcome| outcome.swing, 50.0),
            of(&|outcome| outcome.swing, 95.0),
            of(&|outcome| f64::from(outcome.stops), 95.0),
            class.iter().filter(|outcome| outcome.is_swinging).count(),
            class.iter().filter(|outcome| outcome.of_oracle < 0.85).count(),
        );
    }
    text
}
