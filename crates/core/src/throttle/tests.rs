//! The throttle by cases. The control law on simulated replicas: `underpin-sim`, `plants`.

use super::*;
use crate::signal::{DISK_FREE, RUNNING, Unit};

fn lag(of: &str, lag_ms: f64) -> Reading {
    Reading::new(LAG, of, "test", Unit::Ms, lag_ms)
}

fn lagless() -> Throttle {
    let mut throttle = Throttle::new(&[], true, 4);
    throttle.set(&Setting::MaxLag(2000));
    throttle
}

fn max_load(name: &str, value: f64) -> Throttle {
    let limit = Limit { name: name.into(), pause_at: Some(value), abort_at: None };
    Throttle::new(&[limit], false, 4)
}

#[test]
fn stops_at_the_limit_and_says_why_and_since_when() {
    let mut throttle = lagless();
    throttle.read(0, vec![lag("db2:3306", 1990.0)]);
    assert_eq!(throttle.pause(0), None);
    throttle.read(500, vec![lag("db2:3306", 2600.0), lag("db3:3306", 3140.0)]);
    throttle.read(1000, vec![lag("db2:3306", 2600.0), lag("db3:3306", 3140.0)]);
    let reason = "replica db3:3306 lags 3.1 s (limit 2 s)".to_owned();
    let pause = Pause { kind: LAG.to_owned(), reason, since_ms: 500 };
    assert_eq!(pause.said(2600), "paused 2 s: replica db3:3306 lags 3.1 s (limit 2 s)");
    assert_eq!(throttle.pause(1200), Some(pause));
    assert!(!throttle.may_begin(1200, 10));
    assert_eq!(throttle.worst_now(LAG), Some(3140.0));
}

#[test]
fn goes_on_well_below_the_limit_or_after_a_while_below_it() {
    let mut throttle = lagless();
    throttle.read(0, vec![lag("a", 2100.0)]);
    throttle.read(500, vec![lag("a", 1900.0)]);
    assert!(throttle.pause(500).is_some_and(|pause| pause.reason.contains("just below")));
    throttle.read(1000, vec![lag("a", 1500.0)]);
    assert_eq!(throttle.pause(1000), None);
    throttle.read(1500, vec![lag("a", 2100.0)]);
    for now_ms in (2000..12_000).step_by(500) {
        throttle.read(now_ms, vec![lag("a", 1800.0)]);
        assert!(throttle.pause(now_ms).is_some(), "{now_ms}");
    }
    throttle.read(12_000, vec![lag("a", 1800.0)]);
    assert_eq!(throttle.pause(12_000), None);
}

#[test]
fn a_replica_that_cannot_be_read_is_the_worst() {
    let mut throttle = lagless();
    let dead = Reading::unreadable(LAG, "db3", "test", Unit::Ms, "refused");
    throttle.read(0, vec![lag("db2", 9000.0), dead]);
    assert_eq!(throttle.reason(0).as_deref(), Some("replica db3 cannot be read: refused"));
    assert_eq!((throttle.worst_now(LAG), throttle.worst_lag_ms()), (None, None));
    assert_eq!(throttle.worst_seen(LAG), Some(9000.0));
}

#[test]
fn a_probe_that_lost_its_connection_holds_nothing_up_once_it_reads_again() {
    let lost = || vec![Reading::unreadable(LAG, UNREAD, "probe", Unit::Ms, "connection closed")];
    let load = || vec![Reading::new(RUNNING, "", "test", Unit::Count, 1.0)];
    let mut alone = lagless();
    alone.read(0, lost());
    assert!(alone.pause(0).is_some());
    alone.read(500, load());
    assert_eq!(alone.pause(500), None, "there are no replicas");
    let mut with_replica = lagless();
    with_replica.read(0, vec![lag("a", 0.0)]);
    with_replica.read(500, lost());
    assert!(with_replica.pause(500).is_some());
    with_replica.read(1000, vec![lag("a", 0.0)]);
    assert_eq!(with_replica.pause(1000), None);
    // A replica that was there before is waited for, whatever the probe has been through.
    with_replica.read(1500, lost());
    with_replica.read(2000, load());
    assert!(with_replica.pause(1001 + STALE_AFTER_MS).is_some());
}

#[test]
fn silence_fails_closed_for_all_signals_and_for_one() {
    let mut throttle = lagless();
    assert!(throttle.pause(0).is_some(), "replicas are known and were not read yet");
    throttle.read(0, vec![lag("a", 0.0), lag("b", 0.0)]);
    assert_eq!(throttle.pause(STALE_AFTER_MS), None);
    let pause = throttle.pause(STALE_AFTER_MS + 1500).unwrap();
    assert_eq!(pause.since_ms, STALE_AFTER_MS);
    for now_ms in (0..=6000).step_by(500) {
        throttle.read(now_ms, vec![lag("a", 0.0)]);
    }
    assert_eq!(throttle.reason(6000).as_deref(), Some("no reading of replica b for 6 s"));
    let paused = throttle.time_paused(6000);
    assert_eq!(paused, [("lag of b".to_owned(), 1000)]);
}

#[test]
fn a_reading_that_was_old_already_is_as_old_as_it_is() {
    let mut throttle = lagless();
    throttle.read(10_000, vec![Reading { age_ms: 4000, ..lag("a", 0.0) }]);
    assert_eq!(throttle.pause(10_900), None);
    assert!(throttle.pause(11_500).is_some());
}

#[test]
fn without_replicas_and_limits_there_is_nothing_to_wait_for() {
    let mut throttle = Throttle::new(&[], false, 4);
    throttle.set(&Setting::MaxLag(2000));
    assert_eq!(throttle.pause(99_999), None);
    throttle.read(0, vec![Reading::new(RUNNING, "", "test", Unit::Count, 9999.0)]);
    assert!(throttle.may_begin(99_999, 1_000_000));
    assert_eq!((throttle.workers(), throttle.chunk_rows_max()), (4, None));
}

#[test]
fn a_limit_on_what_nobody_reads_stops_and_its_removal_lets_go() {
    let mut throttle = max_load("mine", 5.0);
    throttle.read(0, vec![]);
    assert!(throttle.reason(0).is_some_and(|why| why.contains("mine has a limit")));
    throttle.set(&Setting::MaxLoad("mine".into(), None));
    assert_eq!(throttle.pause(0), None);
}

#[test]
fn of_free_disk_less_is_worse() {
    let mut throttle = max_load(DISK_FREE, 5e9);
    let free = |bytes| vec![Reading::new(DISK_FREE, "", "test", Unit::Bytes, bytes)];
    throttle.read(0, free(6e9));
    assert_eq!(throttle.pause(0), None);
    throttle.read(500, free(4.5e9));
    assert_eq!(throttle.reason(500).as_deref(), Some("disk-free is 4.5 GB (at least 5 GB)"));
    throttle.read(1000, free(6e9));
    assert!(throttle.pause(1000).is_some());
    throttle.read(1500, free(7e9));
    assert_eq!(throttle.pause(1500), None);
    assert_eq!(throttle.worst_seen(DISK_FREE), Some(4.5e9));
}

#[test]
fn a_changed_limit_counts_at_once() {
    let mut throttle = lagless();
    throttle.read(0, vec![lag("a", 3000.0)]);
    throttle.set(&Setting::MaxLag(5000));
    assert_eq!(throttle.pause(100), None);
    throttle.set(&Setting::MaxLag(1000));
    assert!(throttle.pause(200).is_some());
}

#[test]
fn critical_load_aborts_when_it_stands_and_silence_never_does() {
    let limit = Limit { name: RUNNING.into(), pause_at: Some(50.0), abort_at: Some(100.0) };
    let mut throttle = Throttle::new(&[limit], false, 4);
    let running = |count| vec![Reading::new(RUNNING, "", "test", Unit::Count, count)];
    throttle.read(0, running(150.0));
    assert_eq!(throttle.critical(500), None);
    throttle.read(1000, running(120.0));
    assert_eq!(throttle.critical(1000).as_deref(), Some("running is 120 (critical: 100)"));
    throttle.read(1500, running(60.0));
    assert_eq!(throttle.critical(1500), None);
    let dead = Reading::unreadable(RUNNING, "", "test", Unit::Count, "denied");
    throttle.read(2000, vec![dead]);
    assert_eq!(throttle.critical(99_000), None);
    assert!(throttle.pause(2000).is_some());
}

/// Begins chunks of `rows` rows whenever that is allowed, each of which takes `took_ms`; the rows begun.
fn play(throttle: &mut Throttle, until_ms: u64, rows: u64, took_ms: u64) -> u64 {
    let mut ends: Vec<u64> = Vec::new();
    let mut in_all = 0;
    for now_ms in (0..until_ms).step_by(10) {
        ends.retain(|end_ms| {
            let ended = *end_ms <= now_ms;
            if ended {
                throttle.note_written(now_ms, rows, rows * 100);
            }
            !ended
        });
        let workers = usize::try_from(throttle.workers()).unwrap();
        while ends.len() < workers && throttle.may_begin(now_ms, rows) {
            ends.push(now_ms + took_ms);
            in_all += rows;
        }
    }
    in_all
}

fn near(value: u64, wanted: u64) -> bool {
    value.abs_diff(wanted) * 20 <= wanted
}

#[test]
fn a_rate_in_rows_or_bytes_is_kept_to() {
    let mut throttle = Throttle::new(&[], false, 4);
    throttle.set(&Setting::RowsPerS(Some(5000)));
    let rows = play(&mut throttle, 100_000, 2000, 100);
    assert!(near(rows, 500_000), "{rows}");
    let mut throttle = Throttle::new(&[], false, 4);
    throttle.set(&Setting::BytesPerS(Some(100_000)));
    let rows = play(&mut throttle, 100_000, 200, 100);
    assert!(near(rows, 100_000), "{rows}");
}

#[test]
fn no_burst_above_a_seconds_worth_is_saved_up() {
    let mut throttle = Throttle::new(&[], false, 4);
    throttle.set(&Setting::RowsPerS(Some(1000)));
    let mut begun = 0;
    for _ in 0..100 {
        if throttle.may_begin(60_000, 100) {
            begun += 1;
        }
    }
    assert!((10..=11).contains(&begun), "{begun}");
    assert!(throttle.ready_at_ms(60_000) > 60_000);
}

#[test]
fn nice_spends_its_share_of_the_time_at_work() {
    let full = play(&mut Throttle::new(&[], false, 4), 60_000, 100, 300);
    let mut throttle = Throttle::new(&[], false, 4);
    throttle.set(&Setting::WorkShare(250));
    let quarter = play(&mut throttle, 60_000, 100, 300);
    assert!(near(quarter, full / 4), "{quarter} of {full}");
}

#[test]
fn a_slow_pace_needs_fewer_workers_and_smaller_chunks() {
    let mut throttle = Throttle::new(&[], false, 4);
    play(&mut throttle, 5000, 1000, 100); // 10,000 rows a second and worker
    assert_eq!(throttle.workers(), 4);
    throttle.set(&Setting::RowsPerS(Some(4000)));
    assert_eq!((throttle.workers(), throttle.chunk_rows_max()), (1, Some(1000)));
    throttle.set(&Setting::RowsPerS(Some(20_000)));
    assert_eq!(throttle.workers(), 3);
    throttle.set(&Setting::Workers(2));
    assert_eq!(throttle.workers(), 2);
    throttle.set(&Setting::Workers(99));
    assert_eq!(throttle.workers(), 3, "never more than the run began with");
}

#[test]
fn a_slot_that_is_nearly_lost_stops_the_copy_without_being_asked_to() {
    let mut throttle = Throttle::new(&[], false, 4);
    let share =
        |value| vec![Reading::new(crate::signal::SLOT_SHARE, "", "s1", Unit::Permille, value)];
    throttle.read(0, vec![]);
    assert_eq!(throttle.pause(0), None, "a server without slots");
    throttle.read(500, share(710.0));
    assert_eq!(throttle.reason(500).as_deref(), Some("slot-share is 71 % (limit 70 %)"));
    throttle.set(&Setting::MaxLoad(crate::signal::SLOT_SHARE.into(), None));
    assert_eq!(throttle.pause(600), None);
}

/// A copy of `speed` rows a second under a load signal that is `base` and one more for each
/// `rows_per_point` rows a second; the rate of each second.
fn under_load(base: impl Fn(u64) -> f64, speed: u64, rows_per_point: f64, limit: f64) -> Vec<u64> {
    let mut throttle = max_load(RUNNING, limit);
    let mut ends: Vec<(u64, u64)> = Vec::new();
    let mut rates = vec![0; 600];
    let mut last = 0.0;
    for now_ms in (0..600_000).step_by(50) {
        if now_ms % 500 == 0 {
            let value = base(now_ms / 1000) + last / rows_per_point;
            throttle.read(now_ms, vec![Reading::new(RUNNING, "", "test", Unit::Count, value)]);
        }
        ends.retain(|(end_ms, rows)| {
            if *end_ms <= now_ms {
                throttle.note_written(now_ms, *rows, 0);
            }
            *end_ms > now_ms
        });
        while ends.len() < usize::try_from(throttle.workers()).unwrap() {
            let rows = std::cmp::min(throttle.chunk_rows_max().unwrap_or(u64::MAX), speed / 10);
            if !throttle.may_begin(now_ms, rows) {
                break;
            }
            ends.push((now_ms + std::cmp::max(rows * 4000 / speed, 50), rows));
            rates[usize::try_from(now_ms / 1000).unwrap()] += rows;
        }
        if now_ms % 1000 == 950 {
            last =
                f64::from(u32::try_from(rates[usize::try_from(now_ms / 1000).unwrap()]).unwrap());
        }
    }
    rates
}

#[test]
fn a_load_that_the_copy_makes_is_kept_below_its_limit_without_stopping() {
    // Full speed makes 40 on top of 30; the limit of 50 leaves room for half of it.
    let rates = under_load(|_| 30.0, 40_000, 1000.0, 50.0);
    let late = &rates[100..];
    let mean = late.iter().sum::<u64>() / 500;
    assert!((10_000..20_000).contains(&mean), "{mean} rows a second of 20,000");
    let stood = late.iter().filter(|rate| **rate == 0).count();
    assert!(stood < 10, "stood still for {stood} s of 500");
}

#[test]
fn a_load_of_others_stops_the_copy_and_gives_it_back_its_speed() {
    let rates =
        under_load(|s| if (200..260).contains(&s) { 90.0 } else { 10.0 }, 40_000, 4000.0, 50.0);
    assert!(rates[..190].iter().sum::<u64>() / 190 > 38_000, "full speed below the limit");
    assert_eq!(rates[203..259].iter().sum::<u64>(), 0, "stopped within two seconds, and stays so");
    assert!(rates[320..].iter().sum::<u64>() / 280 > 38_000, "full speed again");
}

#[test]
fn full_speed_below_the_limit_costs_nothing() {
    let mut throttle = lagless();
    for now_ms in (0..100_000).step_by(500) {
        throttle.read(now_ms, vec![lag("a", 120.0)]);
        assert!(throttle.may_begin(now_ms, 1_000_000));
        throttle.note_written(now_ms, 1_000_000, 0);
        assert_eq!((throttle.pace_rows_per_s(), throttle.ready_at_ms(now_ms)), (None, now_ms));
        assert_eq!((throttle.workers(), throttle.chunk_rows_max()), (4, None));
    }
}
