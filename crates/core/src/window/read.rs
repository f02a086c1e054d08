//! How windows are written: `mon-fri 20:00-06:00 Europe/Berlin`, several of them separated by `;`.
//!
//! Owns the grammar and what is said where a text does not follow it. Nothing is guessed: a window
//! without a time zone is refused, for whether the clock of this machine, of the server or of the person
//! is meant is found out at night otherwise.

use std::str::FromStr;

use jiff::tz::{TimeZone, TimeZoneDatabase};

use super::{DAY_END, Span, Window, Windows};

/// What is said about writing windows.
const HOW: &str = "write days, times and a time zone, as `mon-fri 20:00-06:00 Europe/Berlin`, \
                   `sat,sun Europe/Berlin` or `daily 22:00-04:00 UTC`; several are separated by `;`";

/// The days as they are written, Monday first. The whole name will do too.
const DAYS: [&str; 7] =
    ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// A window or a deadline that cannot be read. Display says what is wrong and how it is written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}`: {why}; {how}")]
pub struct WindowError {
    text: String,
    why: String,
    how: &'static str,
}

impl WindowError {
    pub(super) fn new(text: &str, why: impl Into<String>, how: &'static str) -> Self {
        Self { text: text.to_owned(), why: why.into(), how }
    }
}

/// A window whose time zone may still be missing.
struct Written<'a> {
    text: &'a str,
    days: [bool; 7],
    spans: Vec<Span>,
    zone: Option<TimeZone>,
}

impl Windows {
    /// Reads windows from one text or several, each of which may hold several separated by `;`. All
    /// together are one: open while one of them is. Windows without a time zone have that of the others,
    /// where those have but one.
    ///
    /// # Errors
    /// A text that is not written like a window, with what is wrong and how it is written.
    pub fn read<T: AsRef<str>>(texts: &[T]) -> Result<Self, WindowError> {
        let parts = texts.iter().flat_map(|text| text.as_ref().split(';'));
        let parts: Vec<&str> = parts.map(str::trim).filter(|part| !part.is_empty()).collect();
        if parts.is_empty() {
            return Err(WindowError::new("", "there is no window in it", HOW));
        }
        let written: Vec<Written<'_>> =
            parts.iter().map(|part| written(part)).collect::<Result<_, _>>()?;
        let zone = only_zone(&written);
        let windows = written.into_iter().map(|window| finished(window, zone.as_ref()));
        Ok(Self { windows: windows.collect::<Result<_, _>>()?, text: parts.join("; ") })
    }
}

impl FromStr for Windows {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        Self::read(&[text])
    }
}

/// The time zone that every window has that has one.
fn only_zone(written: &[Written<'_>]) -> Option<TimeZone> {
    let mut zones = written.iter().filter_map(|window| window.zone.as_ref());
    let first = zones.next()?;
    zones.all(|zone| zone == first).then(|| first.clone())
}

fn finished(written: Written<'_>, zone: Option<&TimeZone>) -> Result<Window, WindowError> {
    let Written { text, days, spans, zone: own } = written;
    let zone = own.or_else(|| zone.cloned());
    let zone = zone.ok_or_else(|| WindowError::new(text, "a time zone is missing", HOW))?;
    Ok(Window { days, spans, zone })
}

fn written(text: &str) -> Result<Written<'_>, WindowError> {
    let error = |why: String| WindowError::new(text, why, HOW);
    let joined = without_gaps(text);
    let mut words = joined.split_whitespace().peekable();
    let begins_with_times = words.peek().is_some_and(|word| is_time_like(word));
    let days = match words.next_if(|_| !begins_with_times) {
        Some(word) => days(word).map_err(error)?,
        None => [true; 7],
    };
    let spans = match words.next_if(|word| is_time_like(word)) {
        Some(word) => {
            word.split(',').map(|span| self::span(span).map_err(error)).collect::<Result<_, _>>()?
        }
        None => vec![Span::WHOLE_DAY],
    };
    let zone = words.next().map(|name| zone(name).map_err(error)).transpose()?;
    match words.next() {
        Some(word) => Err(error(format!("`{word}` is too much"))),
        None => Ok(Written { text, days, spans, zone }),
    }
}

/// The text without the spaces that people put around `-` and `,`. No name of a time zone holds a
/// space.
fn without_gaps(text: &str) -> String {
    let mut words = String::new();
    for word in text.split_whitespace() {
        let sticks = |c: char| c == '-' || c == ',';
        if !(words.is_empty() || words.ends_with(sticks) || word.starts_with(sticks)) {
            words.push(' ');
        }
        words.push_str(word);
    }
    words
}

pub(super) fn is_time_like(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit())
}

/// `daily`, `mon`, `mon-fri`, `sat,sun`; a range may go over the end of the week.
fn days(word: &str) -> Result<[bool; 7], String> {
    if word.eq_ignore_ascii_case("daily") {
        return Ok([true; 7]);
    }
    let mut days = [false; 7];
    for part in word.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to) = (day(from)?, day(to)?);
        let length = (to + 7 - from) % 7;
        for (offset, is_on) in (0..7).map(|day| (day + 7 - from) % 7).zip(&mut days) {
            *is_on |= offset <= length;
        }
    }
    Ok(days)
}

/// A day of the week, 0 for Monday: its name, or the first three letters of it.
pub(super) fn day(word: &str) -> Result<usize, String> {
    let small = word.to_ascii_lowercase();
    DAYS.iter()
        .position(|name| *name == small || name.get(..3) == Some(small.as_str()))
        .ok_or_else(|| format!("`{word}` is no day (mon, tue, wed, thu, fri, sat, sun or daily)"))
}

/// `20:00-06:00`.
fn span(word: &str) -> Result<Span, String> {
    let ends = word.split_once('-').ok_or_else(|| format!("`{word}` has no end"))?;
    let (begin, end) = (minute(ends.0)?, minute(ends.1)?);
    // Midnight as an end is that of the same day.
    let end = if end == 0 && begin > 0 { DAY_END } else { end };
    if begin == end || begin == DAY_END {
        return Err(format!("`{word}` has no length (for the whole day leave the times out)"));
    }
    Ok(Span { begin, end })
}

/// A time of day in minutes from midnight, `24:00` included.
pub(super) fn minute(word: &str) -> Result<u16, String> {
    let read = || {
        let (hour, minute) = word.split_once(':')?;
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let is_short = (1..=2).contains(&hour.len()) && minute.len() == 2;
        if !(is_short && is_number(hour) && is_number(minute)) {
            return None;
        }
        let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
        let total = hour * 60 + minute;
        (minute < 60 && total <= DAY_END).then_some(total)
    };
    read().ok_or_else(|| format!("`{word}` is no time of day (00:00 to 24:00)"))
}

/// A time zone by its name, by the rules that are part of the program.
pub(super) fn zone(name: &str) -> Result<TimeZone, String> {
    let found = TimeZoneDatabase::bundled().get(name).ok().filter(|zone| !zone.is_unknown());
    found.ok_or_else(|| {
        format!("there is no time zone `{name}` (as Europe/Berlin, America/New_York or UTC)")
    })
}
