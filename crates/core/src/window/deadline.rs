//! A deadline of a run: a moment, and what is done where the swap has not been made by then.
//!
//! Owns how it is written and when it is due. A deadline given by the clock (`06:00 Europe/Berlin`) is
//! the next such moment when the command is given, so that the same command may be given every evening.

use jiff::Timestamp;
use jiff::civil::Date;

use super::read::{day, is_time_like, minute, zone};
use super::{DAY_END, WindowError, in_words, moments_of, timestamp};
use crate::checkpoint::Phase;
use crate::machine::Command;

/// What is said about writing a deadline.
const HOW: &str = "write `06:00 Europe/Berlin` or `sun 06:00 Europe/Berlin` for the next such moment, \
                   `2026-11-22 06:00 Europe/Berlin`, or `2026-11-22T06:00:00+01:00`";

/// What is done at the deadline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Then {
    /// Stop at the next boundary; the same command goes on. Nothing is lost, and what was made so far
    /// stays, triggers included.
    #[default]
    Stop,
    /// End the run and remove everything of it.
    Abort,
    /// Swap as soon as everything is ready, whatever was said before about when.
    Swap,
}

/// A deadline of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deadline {
    /// When, in milliseconds since 1970 (UTC).
    pub at_ms: i64,
    /// The same for people, as "Sun 06:00 (Europe/Berlin)".
    pub words: String,
    /// What is done then.
    pub then: Then,
}

impl Deadline {
    /// Reads a deadline, given the time in milliseconds since 1970 (UTC). A time that the clock shows
    /// twice is the first of the two; a skipped one is when the clock goes on.
    ///
    /// # Errors
    /// It is not written like a deadline, or has passed.
    pub fn read(text: &str, then: Then, now_ms: i64) -> Result<Self, WindowError> {
        let text = text.trim();
        let error = |why: String| WindowError::new(text, why, HOW);
        let now = timestamp(now_ms);
        let (at, words) = match text.parse::<Timestamp>() {
            Ok(at) => (at, text.to_owned()),
            Err(_) => by_the_clock(text, now).map_err(error)?,
        };
        if at <= now {
            return Err(error("it has passed".to_owned()));
        }
        Ok(Self { at_ms: at.as_millisecond(), words, then })
    }

    /// A deadline some milliseconds from now.
    pub fn after(now_ms: i64, wait_ms: u64, then: Then) -> Self {
        let wait_ms = i64::try_from(wait_ms).unwrap_or(i64::MAX);
        let at = timestamp(now_ms.saturating_add(wait_ms));
        Self { at_ms: at.as_millisecond(), words: format!("{at:.0}"), then }
    }

    /// What is to be asked of the run now; `None` before the deadline, and once the swap is made.
    pub fn due(&self, now_ms: i64, phase: Phase) -> Option<Command> {
        if now_ms < self.at_ms || phase >= Phase::Arrive {
            return None;
        }
        Some(match self.then {
            Then::Stop => Command::Stop,
            Then::Abort => Command::Abort,
            Then::Swap => Command::Swap,
        })
    }
}

/// Which day is meant.
enum Day {
    Date(Date),
    Weekday(usize),
    Next,
}

/// `[DATE | DAY] TIME ZONE`: the moment and its words.
fn by_the_clock(text: &str, now: Timestamp) -> Result<(Timestamp, String), String> {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    let zone = match words.pop() {
        Some(name) if !is_time_like(name) && !words.is_empty() => zone(name)?,
        _ => return Err("a time zone is missing".to_owned()),
    };
    let minute = minute(words.pop().unwrap_or_default())?;
    if minute == DAY_END {
        return Err("24:00 is 00:00 of the next day".to_owned());
    }
    let day = match words.pop() {
        None => Day::Next,
        Some(word) if is_time_like(word) => {
            Day::Date(word.parse().map_err(|_| format!("there is no day `{word}`"))?)
        }
        Some(word) => Day::Weekday(day(word)?),
    };
    if let Some(word) = words.pop() {
        return Err(format!("`{word}` is too much"));
    }
    let today = zone.to_datetime(now).date();
    let is_meant = |date: &Date| match day {
        Day::Weekday(day) => {
            usize::from(date.weekday().to_monday_zero_offset().unsigned_abs()) == day
        }
        Day::Date(_) | Day::Next => true,
    };
    let moment_on = |date: Date| moments_of(&zone, date, minute).first().copied();
    let at = match day {
        Day::Date(date) => moment_on(date),
        // Today may be over for this time of day; then it is the next one, a week later at most.
        Day::Weekday(_) | Day::Next => {
            let days = today.series(jiff::Span::new().days(1)).take(8);
            days.filter(is_meant).filter_map(moment_on).find(|at| *at > now)
        }
    };
    let at = at.ok_or_else(|| "the calendar does not reach so far".to_owned())?;
    Ok((at, in_words(&zone, now, at)))
}
