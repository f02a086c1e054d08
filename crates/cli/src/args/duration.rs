//! Durations as people write them: `400ms`, `2s`, `30m`, `1h30m`.
//!
//! Owns reading and writing them, and the bounds of an option. A bare number is refused: whether `5`
//! means seconds or milliseconds is the kind of thing that is found out at night.

use std::fmt;

/// A span of time in whole milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DurationMs(pub(crate) u64);

/// Units by descending size, in milliseconds. Longer names first where one begins another.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl DurationMs {
    /// Reads one or more numbers with units, the larger units first: `1h30m`, `1h 30m`, `400ms`.
    ///
    /// # Errors
    /// A text that says how durations are written.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        read(text).map(Self).ok_or_else(|| {
            "write a whole number and a unit (ms, s, m, h, d), as 400ms, 2s, 30m or 1h30m"
                .to_owned()
        })
    }

    /// A parser for an option whose value lies between the two, both included.
    pub(crate) fn within(
        least: Self,
        most: Self,
    ) -> impl Fn(&str) -> Result<Self, String> + Clone + Send + Sync + 'static {
        move |text| {
            let value = Self::parse(text)?;
            if value < least || value > most {
                return Err(format!("it must lie between {least} and {most}"));
            }
            Ok(value)
        }
    }
}

fn read(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    let mut total_ms: u64 = 0;
    let mut units = UNITS.iter();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let after = &rest[digits..];
        let length = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        // The iterator goes on from the last unit, so that a unit cannot come twice or too early.
        let (_, unit_ms) = units.find(|(name, _)| *name == &after[..length])?;
        total_ms = total_ms.checked_add(number.checked_mul(*unit_ms)?)?;
        rest = after[length..].trim_start();
    }
    (!text.trim().is_empty()).then_some(total_ms)
}

impl fmt::Display for DurationMs {
    /// The shortest spelling that reads back as the same value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut left_ms = self.0;
        for (name, unit_ms) in UNITS {
            if left_ms >= unit_ms {
                write!(f, "{}{name}", left_ms / unit_ms)?;
                left_ms %= unit_ms;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, ms) in [
            ("400ms", 400),
            ("2s", 2_000),
            ("1s500ms", 1_500),
            ("30m", 1_800_000),
            ("1h30m", 5_400_000),
            (" 1h 30m ", 5_400_000),
            ("2d", 172_800_000),
            ("0s", 0),
        ] {
            assert_eq!(DurationMs::parse(text), Ok(DurationMs(ms)), "{text}");
        }
    }

    #[test]
    fn refuses_what_could_be_meant_otherwise() {
        for text in [
            "",
            " ",
            "5",
            "s",
            "-1s",
            "1.5s",
            "1 s",
            "30m1h",
            "1s1s",
            "2 weeks",
            "1S",
            "1é",
            "99999999999999999999s",
            "9999999999999999d",
        ] {
            assert!(DurationMs::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn reads_what_it_writes() {
        for ms in [0, 1, 999, 1_000, 1_500, 61_000, 5_400_000, 90_061_001] {
            let text = DurationMs(ms).to_string();
            assert_eq!(DurationMs::parse(&text), Ok(DurationMs(ms)), "{text}");
        }
        assert_eq!(DurationMs(5_400_000).to_string(), "1h30m");
    }

    #[test]
    fn bounds_are_part_of_the_range() {
        let parse = DurationMs::within(DurationMs(1_000), DurationMs(60_000));
        assert_eq!(parse("1s"), Ok(DurationMs(1_000)));
        assert_eq!(parse("1m"), Ok(DurationMs(60_000)));
        assert_eq!(parse("999ms").unwrap_err(), "it must lie between 1s and 1m");
        assert!(parse("61s").is_err());
    }
}
