//! A thousand simulated replicas, each from a seed: the throttle finds what they can bear, late and
//! trembling readings or not, and does not swing. `docs/decisions/010-throttle.md` has the figures.

use underpin_sim::plants::{Driver, Outcome, Plant, play, play_many, table};

/// The share of the outcomes for which something holds, in percent.
fn percent(outcomes: &[Outcome], holds: impl Fn(&Outcome) -> bool) -> usize {
    outcomes.iter().filter(|outcome| holds(outcome)).count() * 100 / outcomes.len()
}

/// Seconds of lag beyond the limit, or beyond what nobody can avoid who hears of it so late.
fn excess_s(outcome: &Outcome, worst_ms: f64) -> f64 {
    (worst_ms - f64::max(outcome.limit_ms, outcome.unavoidable_ms)) / 1000.0
}

#[test]
fn a_thousand_plants_are_copied_fast_and_without_swinging() {
    let outcomes = play_many(0, 1_000, Driver::Law);
    println!("{}", table(&outcomes));
    assert_eq!(outcomes.len(), 1_000);
    let mean = outcomes.iter().map(|outcome| outcome.of_oracle).sum::<f64>() / 1_000.0;
    assert!(mean >= 0.92, "{mean} of the oracle's rate on average");
    let fast = percent(&outcomes, |outcome| outcome.of_oracle >= 0.85);
    assert!(fast >= 94, "{fast} % of the plants at 85 % of the oracle's rate and more");
    let slowest = outcomes.iter().map(|outcome| outcome.of_oracle).fold(1.0, f64::min);
    assert!(slowest >= 0.7, "{slowest} of the oracle's rate");
    let swinging = percent(&outcomes, |outcome| outcome.is_swinging);
    assert!(swinging <= 2, "{swinging} % of the plants swing");
    let near = percent(&outcomes, |outcome| excess_s(outcome, outcome.worst_later_ms) <= 5.0);
    assert!(near >= 94, "{near} % of the plants stay within 5 s of the unavoidable");
    // Readings that come within ten seconds are what our own heartbeat gives.
    let quick: Vec<Outcome> = outcomes.into_iter().filter(|plant| plant.delay_s <= 10.0).collect();
    assert!(quick.len() > 500);
    let fast = percent(&quick, |outcome| outcome.of_oracle >= 0.85);
    assert!(fast >= 98, "{fast} % of the quick plants at 85 % of the oracle's rate and more");
    let swinging = percent(&quick, |outcome| outcome.is_swinging);
    assert!(swinging <= 1, "{swinging} % of the quick plants swing");
}

#[test]
fn plants_show_that_the_meter_bites() {
    // Full speed below the limit and nothing above it: this must be seen to swing, and to be slow where
    // the answer is late.
    let outcomes = play_many(0, 200, Driver::BangBang);
    println!("{}", table(&outcomes));
    assert!(percent(&outcomes, |outcome| outcome.is_swinging) >= 60);
    assert!(percent(&outcomes, |outcome| outcome.of_oracle < 0.85) >= 20);
    assert!(percent(&outcomes, |outcome| excess_s(outcome, outcome.worst_later_ms) > 5.0) >= 30);
}

#[test]
fn one_of_the_plants_gives_the_same_each_time_and_can_be_told() {
    let mut lines = Vec::new();
    let mut tell = |line: String| lines.push(line);
    let told = play(&Plant::new(7), Driver::Law, Some(&mut tell));
    assert_eq!(told, play(&Plant::new(7), Driver::Law, None));
    assert_eq!(lines.len(), 3_600);
    println!("{}", lines[..60].join("\n"));
}

#[test]
fn plants_whose_applier_stood_still_are_copied_as_fast_as_before() {
    // From the first second, in the midst of it, shortly, and with a limit that is tight.
    for (from_s, lasts_s, limit_ms) in
        [(1.2, 4.0, 500.0), (1.2, 4.0, 2_000.0), (600.0, 30.0, 2_000.0), (600.0, 3.0, 500.0)]
    {
        let mut plant = Plant::standing(from_s, from_s + lasts_s);
        plant.limit_ms = limit_ms;
        let mut rates: Vec<f64> = Vec::new();
        let mut tell = |line: String| {
            let (_, rest) = line.split_once("rate").unwrap();
            rates.push(rest.split_whitespace().next().unwrap().parse().unwrap());
        };
        play(&plant, Driver::Law, Some(&mut tell));
        let again = rates.iter().enumerate().skip(6).find(|(second, rate)| {
            f64::from(u32::try_from(*second).unwrap()) > from_s + lasts_s
                && **rate >= plant.full * 0.9
        });
        let after_s = again.unwrap().0 as f64 - from_s - lasts_s;
        println!(
            "{lasts_s} s from {from_s} s, limit {limit_ms} ms: as before {after_s:.1} s later"
        );
        assert!(after_s <= 12.0, "as fast as before only {after_s} s later");
    }
}

#[test]
fn plants_whose_applier_stops_for_half_a_minute_are_left_alone_within_two_seconds() {
    let plant = Plant::standing(600.0, 630.0);
    let mut lines: Vec<(f64, f64, f64)> = Vec::new();
    let mut tell = |line: String| {
        let number = |after: &str| {
            let text = line.split_once(after).map_or("0", |(_, rest)| rest.trim_start());
            text.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0.0)
        };
        lines.push((number("lag"), number("read"), number("rate")));
    };
    play(&plant, Driver::Law, Some(&mut tell));
    let over = lines.iter().position(|(_, read, _)| *read > plant.limit_ms).unwrap();
    assert!((602..=603).contains(&over), "the reading passes the limit at {over} s");
    let rows: f64 = lines[over + 2..630].iter().map(|(_, _, rate)| rate).sum();
    assert!(rows <= 0.0, "{rows} rows were begun later than 2 s after that");
    // Without the copy it would have been 30 s, too; it comes down with what the copy had written.
    let worst = lines.iter().map(|(lag, _, _)| *lag).fold(0.0, f64::max);
    assert!(worst <= 32_000.0, "{worst} ms");
    assert!(lines[640].0 < plant.limit_ms, "{} ms ten seconds after", lines[640].0);
    let after: f64 = lines[660..720].iter().map(|(_, _, rate)| rate).sum::<f64>() / 60.0;
    assert!(after > plant.full * 0.9, "{after} rows a second after that");
}
