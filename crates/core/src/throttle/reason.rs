//! The words for a pause, and which of two readings is the worse one.

use crate::signal::{DISK_FREE, LAG, Limit, Reading, Unit};

/// Whether less of a signal is worse.
pub(super) fn is_reversed(name: &str) -> bool {
    name == DISK_FREE
}

/// The worse of two readings of a signal.
pub(super) fn worse(name: &str, one: f64, other: f64) -> f64 {
    if is_reversed(name) { f64::min(one, other) } else { f64::max(one, other) }
}

/// Whether a reading has reached a bound. A bound of 0 is reached by what is more than nothing.
pub(super) fn reaches(name: &str, value: f64, bound: f64) -> bool {
    if is_reversed(name) {
        value <= bound
    } else {
        value > bound || (value >= bound && bound > 0.0)
    }
}

/// A short name for a signal of a server, as "lag of db2:3306".
pub(super) fn key(reading: &Reading) -> String {
    if reading.of.is_empty() {
        reading.name.clone()
    } else {
        format!("{} of {}", reading.name, reading.of)
    }
}

pub(super) fn not_read(name: &str) -> String {
    if name == LAG {
        "the replicas have not been read yet".to_owned()
    } else {
        format!("{name} has a limit, and has not been read yet")
    }
}

pub(super) fn unreadable(reading: &Reading) -> String {
    if reading.name == LAG {
        format!("replica {} cannot be read: {}", reading.of, reading.error)
    } else {
        format!("{} cannot be read: {}", key(reading), reading.error)
    }
}

pub(super) fn stale(reading: &Reading, age_ms: u64) -> String {
    let age_s = age_ms / 1000;
    if reading.name == LAG {
        format!("no reading of replica {} for {age_s} s", reading.of)
    } else {
        format!("no reading of {} for {age_s} s", key(reading))
    }
}

/// Why a reading stops the copy; `falling`: it is below the limit again, and not yet well below it.
pub(super) fn over(reading: &Reading, value: f64, limit: f64, falling: bool) -> String {
    // What was said with it says more than the number.
    if !reading.error.is_empty() {
        return format!("{}: {}", key(reading), reading.error);
    }
    let value = number(value, reading.unit);
    let limit = number(limit, reading.unit);
    let after = if falling { ", just below it again" } else { "" };
    if reading.name == LAG {
        format!("replica {} lags {value} (limit {limit}{after})", reading.of)
    } else if is_reversed(&reading.name) {
        format!("{} is {value} (at least {limit}{after})", key(reading))
    } else {
        format!("{} is {value} (limit {limit}{after})", key(reading))
    }
}

/// Why the run is aborted.
pub(super) fn critical(reading: &Reading, value: f64, limit: &Limit) -> String {
    let bound = limit.abort_at.map(|bound| number(bound, reading.unit)).unwrap_or_default();
    let value = number(value, reading.unit);
    if reading.name == LAG {
        format!("replica {} lags {value} (critical: {bound})", reading.of)
    } else {
        format!("{} is {value} (critical: {bound})", key(reading))
    }
}

/// A number with its unit, short: `3.1 s`, `2 s`, `45 ms`, `61`, `1.5 GB`, `93 %`.
fn number(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Ms if value >= 1000.0 => format!("{} s", short(value / 1000.0)),
        Unit::Ms => format!("{value:.0} ms"),
        Unit::Count => short(value),
        Unit::Permille => format!("{} %", short(value / 10.0)),
        Unit::Bytes if value >= 1e9 => format!("{} GB", short(value / 1e9)),
        Unit::Bytes if value >= 1e6 => format!("{} MB", short(value / 1e6)),
        Unit::Bytes => format!("{value:.0} B"),
    }
}

/// One digit behind the point, where it is not 0.
fn short(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}
