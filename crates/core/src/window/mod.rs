//! Windows of the calendar: when the copy or the swap may be begun, and a deadline.
//!
//! Owns what a window means; how one is written is `read`'s. Pure: the time comes in as milliseconds
//! since 1970 (UTC), the rules of the time zones are part of the program.
//!
//! One rule covers changes of the clock: a window is open exactly while the clock on a wall of its time
//! zone shows a time within it. So a window that begins at a time that is skipped begins when the clock
//! goes on; one that lies in an hour that comes twice is open in both; and it is never open while the
//! clock shows a time outside it. A window over midnight belongs to the day on which it begins.

mod deadline;
mod read;

use std::fmt;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone};

pub use deadline::{Deadline, Then};
pub use read::WindowError;

/// Days looked ahead for the next opening or closing: two weeks, and the ends of them.
const DAYS_AHEAD: u32 = 16;

/// Changes of the clock looked at within that time. No zone has had so many.
const CLOCK_CHANGES_MAX: usize = 16;

/// The minute of a day at which it is over.
const DAY_END: u16 = 24 * 60;

/// Windows of one kind: open while one of them is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    /// At least one.
    windows: Vec<Window>,
    text: String,
}

/// One window: the same times on some days of the week.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Window {
    /// Monday first.
    days: [bool; 7],
    /// At least one.
    spans: Vec<Span>,
    zone: TimeZone,
}

/// A stretch of a day, in minutes from its midnight. `end <= begin`: it ends on the next day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    begin: u16,
    end: u16,
}

impl Span {
    const WHOLE_DAY: Self = Self { begin: 0, end: DAY_END };

    fn is_over_midnight(self) -> bool {
        self.end <= self.begin
    }
}

/// How windows stand at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// Whether one of them is open.
    pub is_open: bool,
    /// When that changes, in milliseconds since 1970 (UTC); `None` where it does not for two weeks.
    pub until_ms: Option<i64>,
    /// The same for people, as "Mon 20:00 (Europe/Berlin)"; empty where it does not change.
    pub until: String,
}

impl Moment {
    /// Why nothing may be begun, as "outside its window until Mon 20:00 (Europe/Berlin)"; `None` while
    /// a window is open.
    pub fn closed(&self) -> Option<String> {
        if self.is_open {
            return None;
        }
        Some(match self.until_ms {
            Some(_) => format!("outside its window until {}", self.until),
            None => format!("outside its window, which does not open for {DAYS_AHEAD} days"),
        })
    }
}

impl Windows {
    /// How the windows stand at a moment, in milliseconds since 1970 (UTC).
    pub fn at(&self, now_ms: i64) -> Moment {
        let now = timestamp(now_ms);
        let is_open = self.is_open(now);
        let mut moments: Vec<Timestamp> =
            self.windows.iter().flat_map(|window| window.moments_after(now)).collect();
        moments.sort_unstable();
        let change = moments.into_iter().find(|moment| self.is_open(*moment) != is_open);
        Moment {
            is_open,
            until_ms: change.map(Timestamp::as_millisecond),
            until: change.map_or_else(String::new, |moment| self.tell(now, moment)),
        }
    }

    fn is_open(&self, at: Timestamp) -> bool {
        self.windows.iter().any(|window| window.is_open(at))
    }

    /// The moment of a change in words, in the time zone of a window that opens or closes then.
    fn tell(&self, now: Timestamp, moment: Timestamp) -> String {
        let before = timestamp(moment.as_millisecond().saturating_sub(1));
        let changes = |window: &&Window| window.is_open(moment) != window.is_open(before);
        let by = self.windows.iter().find(changes).or(self.windows.first());
        by.map_or_else(String::new, |window| in_words(&window.zone, now, moment))
    }
}

impl fmt::Display for Windows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Window {
    fn is_open(&self, at: Timestamp) -> bool {
        let clock = self.zone.to_datetime(at);
        let minute = minute_of(clock);
        let (today, yesterday) = (self.is_on(clock.date()), self.was_on_before(clock.date()));
        self.spans.iter().any(|span| match span.is_over_midnight() {
            false => today && span.begin <= minute && minute < span.end,
            true => (today && span.begin <= minute) || (yesterday && minute < span.end),
        })
    }

    fn is_on(&self, date: Date) -> bool {
        let day = usize::from(date.weekday().to_monday_zero_offset().unsigned_abs());
        self.days.get(day).copied().unwrap_or(false)
    }

    fn was_on_before(&self, date: Date) -> bool {
        date.yesterday().is_ok_and(|before| self.is_on(before))
    }

    /// Every moment after `now` at which it may open or close, in no order. A change of the clock is
    /// one of them: it may set the clock back to a time outside the window.
    fn moments_after(&self, now: Timestamp) -> Vec<Timestamp> {
        let today = self.zone.to_datetime(now).date();
        // The clock may be set back to yesterday.
        let first = today.yesterday().unwrap_or(today);
        let mut moments = Vec::new();
        let mut last = first;
        for date in first.series(jiff::Span::new().days(1)).take(DAYS_TO_LOOK_AT) {
            last = date;
            for span in &self.spans {
                for minute in [span.begin, span.end] {
                    moments.extend(moments_of(&self.zone, date, minute));
                }
            }
        }
        let is_near = |at: &Timestamp| self.zone.to_datetime(*at).date() <= last;
        let changes = self.zone.following(now).map(|change| change.timestamp());
        moments.extend(changes.take_while(is_near).take(CLOCK_CHANGES_MAX));
        moments.retain(|moment| *moment > now);
        moments
    }
}

/// Yesterday, today, and the days ahead.
const DAYS_TO_LOOK_AT: usize = 2 + DAYS_AHEAD as usize;

/// The moments at which the clock shows this minute of the day: one, two where the clock is set back
/// over it, and the change itself where it is skipped.
fn moments_of(zone: &TimeZone, date: Date, minute: u16) -> Vec<Timestamp> {
    let date = if minute < DAY_END { Ok(date) } else { date.tomorrow() };
    let Ok(date) = date else { return Vec::new() };
    let (hour, minute) = (minute % DAY_END / 60, minute % 60);
    let (Ok(hour), Ok(minute)) = (i8::try_from(hour), i8::try_from(minute)) else {
        return Vec::new();
    };
    shown_at(zone, date.at(hour, minute, 0, 0))
}

/// The moments at which the clock shows this time, earlier ones first.
fn shown_at(zone: &TimeZone, clock: DateTime) -> Vec<Timestamp> {
    let moments = match zone.to_ambiguous_timestamp(clock).offset() {
        AmbiguousOffset::Unambiguous { offset } => vec![offset.to_timestamp(clock)],
        // By the offset that is to come, the skipped time lies before the change.
        AmbiguousOffset::Gap { after, .. } => vec![after.to_timestamp(clock).map(|before| {
            zone.following(before).next().map_or(before, |change| change.timestamp())
        })],
        AmbiguousOffset::Fold { before, after } => {
            vec![before.to_timestamp(clock), after.to_timestamp(clock)]
        }
    };
    moments.into_iter().flatten().collect()
}

/// A moment as "Mon 20:00 (Europe/Berlin)"; with its date where the day of the week does not tell which
/// day, with the name of the offset where the clock shows the time twice.
fn in_words(zone: &TimeZone, now: Timestamp, moment: Timestamp) -> String {
    let (today, clock) = (zone.to_datetime(now).date(), zone.to_datetime(moment));
    let mut words = weekday(clock.date().weekday()).to_owned();
    if today.until(clock.date()).is_ok_and(|span| span.get_days() >= 7) {
        words.push_str(&format!(" {}", clock.date()));
    }
    words.push_str(&format!(" {:02}:{:02}", clock.hour(), clock.minute()));
    if matches!(zone.to_ambiguous_timestamp(clock).offset(), AmbiguousOffset::Fold { .. }) {
        words.push_str(&format!(" {}", zone.to_offset_info(moment).abbreviation()));
    }
    format!("{words} ({})", zone.iana_name().unwrap_or("UTC"))
}

fn weekday(day: Weekday) -> &'static str {
    match day {
        Weekday::Monday => "Mon",
        Weekday::Tuesday => "Tue",
        Weekday::Wednesday => "Wed",
        Weekday::Thursday => "Thu",
        Weekday::Friday => "Fri",
        Weekday::Saturday => "Sat",
        Weekday::Sunday => "Sun",
    }
}

fn minute_of(clock: DateTime) -> u16 {
    u16::from(clock.hour().unsigned_abs()) * 60 + u16::from(clock.minute().unsigned_abs())
}

/// A moment; one that no calendar holds is the nearest that one does.
fn timestamp(ms: i64) -> Timestamp {
    let far = if ms < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_millisecond(ms).unwrap_or(far)
}

#[cfg(test)]
mod tests;
