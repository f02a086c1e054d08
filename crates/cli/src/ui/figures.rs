//! Numbers as people read them: grouped digits, spans of time, sizes.
//!
//! Owns their form only. Everything is rounded down, so that nothing looks done before it is.

/// Digits in groups of three: `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A span as its two largest units: `17 s`, `4 min 10 s`, `2 h 5 min`, `3 d 4 h`.
pub(crate) fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let pair = |large: u64, name: &str, small: u64, small_name: &str| match small {
        0 => format!("{large} {name}"),
        small => format!("{large} {name} {small} {small_name}"),
    };
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => pair(minutes, "min", seconds % 60, "s"),
        3600..86_400 => pair(hours, "h", minutes % 60, "min"),
        _ => pair(days, "d", hours % 24, "h"),
    }
}

/// Milliseconds by their size: `390 ms`, `2.4 s`, `4 min 10 s`.
pub(crate) fn millis(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => tenths(ms),
        _ => span(ms / 1_000),
    }
}

/// Milliseconds as seconds with one digit: `0.3 s`.
pub(crate) fn tenths(ms: u64) -> String {
    format!("{}.{} s", ms / 1_000, ms % 1_000 / 100)
}

/// Bytes in decimal units with one digit: `1.2 GB`.
pub(crate) fn bytes(number: u64) -> String {
    const UNITS: [(&str, u64); 4] =
        [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
    match UNITS.iter().find(|(_, size)| number >= *size) {
        Some((name, size)) => format!("{}.{} {name}", number / size, number % size / (size / 10)),
        None => format!("{number} B"),
    }
}

/// Whole percent of `done` in `total`, never above 100; 0 where the total is unknown.
pub(crate) fn percent(done: u64, total: u64) -> u64 {
    // In u128: a row count times a hundred may pass u64.
    let percent = u128::from(done).saturating_mul(100).checked_div(u128::from(total)).unwrap_or(0);
    std::cmp::min(u64::try_from(percent).unwrap_or(100), 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped() {
        let cases = [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")];
        for (number, text) in cases {
            assert_eq!(count(number), text);
        }
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn spans_show_two_units() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (250, "4 min 10 s"),
            (3_600, "1 h"),
            (7_500, "2 h 5 min"),
            (86_399, "23 h 59 min"),
            (273_600, "3 d 4 h"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn milliseconds_change_their_unit() {
        for (ms, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1.0 s"),
            (2_490, "2.4 s"),
            (250_000, "4 min 10 s"),
        ] {
            assert_eq!(millis(ms), text);
        }
        assert_eq!(tenths(340), "0.3 s");
    }

    #[test]
    fn sizes_round_down() {
        for (number, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (1_999_999, "1.9 MB"),
            (3_200_000_000, "3.2 GB"),
        ] {
            assert_eq!(bytes(number), text);
        }
    }

    #[test]
    fn percent_is_bounded() {
        assert_eq!((percent(0, 0), percent(5, 0)), (0, 0));
        assert_eq!((percent(999, 1_000), percent(1_000, 1_000), percent(3, 2)), (99, 100, 100));
        assert_eq!(percent(u64::MAX, u64::MAX), 100);
    }
}
