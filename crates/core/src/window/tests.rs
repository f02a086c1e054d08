//! Windows against the calendars of three places, and against a clock that is looked at each minute.

use super::*;

const MINUTE_MS: i64 = 60_000;

/// A moment given by the clock and its offset, as `2026-03-29 01:59+01:00`.
fn ms(clock: &str) -> i64 {
    clock.parse::<Timestamp>().expect(clock).as_millisecond()
}

fn windows(text: &str) -> Windows {
    Windows::read(&[text]).expect(text)
}

/// Follows the windows from change to change: each expected one is (what the clock shows, is it open
/// from then on, in words).
fn follow(text: &str, from: &str, changes: &[(&str, bool, &str)]) {
    let windows = windows(text);
    let mut now_ms = ms(from);
    for (clock, opens, words) in changes {
        let moment = windows.at(now_ms);
        assert_eq!(moment.is_open, !opens, "{text}: before {clock}");
        assert_eq!(moment.until_ms, Some(ms(clock)), "{text}: {clock}, but {}", moment.until);
        assert_eq!(moment.until, *words, "{text}: {clock}");
        assert_eq!(windows.at(ms(clock) - 1).is_open, !opens, "{text}: just before {clock}");
        assert_eq!(windows.at(ms(clock)).is_open, *opens, "{text}: at {clock}");
        now_ms = ms(clock);
    }
}

#[test]
fn a_window_over_midnight_belongs_to_the_day_it_begins_on() {
    follow(
        "mon-fri 20:00-06:00 Europe/Berlin",
        "2026-11-19 12:00+01:00", // a Thursday
        &[
            ("2026-11-19 20:00+01:00", true, "Thu 20:00 (Europe/Berlin)"),
            ("2026-11-20 06:00+01:00", false, "Fri 06:00 (Europe/Berlin)"),
            ("2026-11-20 20:00+01:00", true, "Fri 20:00 (Europe/Berlin)"),
            ("2026-11-21 06:00+01:00", false, "Sat 06:00 (Europe/Berlin)"),
            ("2026-11-23 20:00+01:00", true, "Mon 20:00 (Europe/Berlin)"),
        ],
    );
}

#[test]
fn the_reason_names_the_next_opening() {
    let friday_noon = ms("2026-11-20 12:00+01:00");
    let moment = windows("mon-thu 20:00-06:00 Europe/Berlin").at(friday_noon);
    let reason = "outside its window until Mon 20:00 (Europe/Berlin)";
    assert_eq!(moment.closed().as_deref(), Some(reason));
    // A day of the week that comes again only after a week is told with its date.
    let moment = windows("fri 08:00-09:00 Europe/Berlin").at(friday_noon);
    assert_eq!(moment.until, "Fri 2026-11-27 08:00 (Europe/Berlin)");
    assert_eq!(windows("daily UTC").at(friday_noon).closed(), None);
}

#[test]
fn a_window_that_begins_or_ends_in_the_skipped_hour() {
    // Europe/Berlin goes from 02:00 to 03:00 on 29 March.
    follow(
        "sun 02:30-04:00 Europe/Berlin",
        "2026-03-29 01:00+01:00",
        &[
            ("2026-03-29 03:00+02:00", true, "Sun 03:00 (Europe/Berlin)"),
            ("2026-03-29 04:00+02:00", false, "Sun 04:00 (Europe/Berlin)"),
            ("2026-04-05 02:30+02:00", true, "Sun 2026-04-05 02:30 (Europe/Berlin)"),
        ],
    );
    follow(
        "sun 01:00-02:30 Europe/Berlin",
        "2026-03-29 00:59+01:00",
        &[
            ("2026-03-29 01:00+01:00", true, "Sun 01:00 (Europe/Berlin)"),
            ("2026-03-29 03:00+02:00", false, "Sun 03:00 (Europe/Berlin)"),
        ],
    );
    // Exactly the hour, and times within it: the clock never shows one of them.
    for text in ["sun 02:00-03:00 Europe/Berlin", "sun 02:10-02:50 Europe/Berlin"] {
        let moment = windows(text).at(ms("2026-03-28 12:00+01:00"));
        assert!(moment.until.starts_with("Sun 2026-04-05 02:"), "{text}: {}", moment.until);
    }
    // New York on 8 March, and half an hour on Lord Howe Island on 4 October.
    follow(
        "daily 02:15-02:45 America/New_York; daily 03:10-03:20",
        "2026-03-08 01:00-05:00",
        &[
            ("2026-03-08 03:10-04:00", true, "Sun 03:10 (America/New_York)"),
            ("2026-03-08 03:20-04:00", false, "Sun 03:20 (America/New_York)"),
            ("2026-03-09 02:15-04:00", true, "Mon 02:15 (America/New_York)"),
        ],
    );
    follow(
        "sun 02:15-02:45 Australia/Lord_Howe",
        "2026-10-04 01:00+10:30",
        &[
            ("2026-10-04 02:30+11:00", true, "Sun 02:30 (Australia/Lord_Howe)"),
            ("2026-10-04 02:45+11:00", false, "Sun 02:45 (Australia/Lord_Howe)"),
        ],
    );
}

#[test]
fn a_window_in_the_repeated_hour_is_open_in_both() {
    // Europe/Berlin goes from 03:00 back to 02:00 on 25 October.
    follow(
        "sun 02:00-03:00 Europe/Berlin",
        "2026-10-25 01:00+02:00",
        &[
            ("2026-10-25 02:00+02:00", true, "Sun 02:00 CEST (Europe/Berlin)"),
            ("2026-10-25 03:00+01:00", false, "Sun 03:00 (Europe/Berlin)"), // two hours
        ],
    );
    follow(
        "sun 02:15-02:45 Europe/Berlin",
        "2026-10-25 01:00+02:00",
        &[
            ("2026-10-25 02:15+02:00", true, "Sun 02:15 CEST (Europe/Berlin)"),
            ("2026-10-25 02:45+02:00", false, "Sun 02:45 CEST (Europe/Berlin)"),
            ("2026-10-25 02:15+01:00", true, "Sun 02:15 CET (Europe/Berlin)"),
            ("2026-10-25 02:45+01:00", false, "Sun 02:45 CET (Europe/Berlin)"),
        ],
    );
    // The clock is set back into a window that was over: the change itself opens it.
    follow(
        "sat 20:00-02:30 Europe/Berlin",
        "2026-10-25 00:00+02:00",
        &[
            ("2026-10-25 02:30+02:00", false, "Sun 02:30 CEST (Europe/Berlin)"),
            ("2026-10-25 02:00+01:00", true, "Sun 02:00 CET (Europe/Berlin)"),
            ("2026-10-25 02:30+01:00", false, "Sun 02:30 CET (Europe/Berlin)"),
        ],
    );
    // New York on 1 November, and half an hour on Lord Howe Island on 5 April.
    follow(
        "sun 01:30-03:00 America/New_York",
        "2026-11-01 00:00-04:00",
        &[
            ("2026-11-01 01:30-04:00", true, "Sun 01:30 EDT (America/New_York)"),
            ("2026-11-01 01:00-05:00", false, "Sun 01:00 EST (America/New_York)"),
            ("2026-11-01 01:30-05:00", true, "Sun 01:30 EST (America/New_York)"),
            ("2026-11-01 03:00-05:00", false, "Sun 03:00 (America/New_York)"),
        ],
    );
    follow(
        "sun 01:30-02:00 Australia/Lord_Howe",
        "2026-04-05 01:00+11:00",
        &[
            ("2026-04-05 01:30+11:00", true, "Sun 01:30 +11 (Australia/Lord_Howe)"),
            ("2026-04-05 02:00+10:30", false, "Sun 02:00 (Australia/Lord_Howe)"), // one hour
        ],
    );
}

#[test]
fn a_night_of_a_change_is_shorter_or_longer() {
    for (text, evening, minutes) in [
        ("daily 20:00-06:00 Europe/Berlin", "2026-03-28 20:00+01:00", 9 * 60),
        ("daily 20:00-06:00 Europe/Berlin", "2026-10-24 20:00+02:00", 11 * 60),
        ("daily 20:00-06:00 America/New_York", "2026-03-07 20:00-05:00", 9 * 60),
        ("daily 20:00-06:00 America/New_York", "2026-10-31 20:00-04:00", 11 * 60),
        ("daily 20:00-06:00 Australia/Lord_Howe", "2026-10-03 20:00+10:30", 9 * 60 + 30),
        ("daily 20:00-06:00 Australia/Lord_Howe", "2026-04-04 20:00+11:00", 10 * 60 + 30),
        ("sun Europe/Berlin", "2026-03-29 00:00+01:00", 23 * 60),
        ("sun Europe/Berlin", "2026-10-25 00:00+02:00", 25 * 60),
    ] {
        let windows = windows(text);
        assert!(!windows.at(ms(evening) - 1).is_open, "{text}");
        let moment = windows.at(ms(evening));
        assert!(moment.is_open, "{text}");
        let length_ms = moment.until_ms.expect(text) - ms(evening);
        assert_eq!(length_ms, minutes * MINUTE_MS, "{text} {evening}");
    }
}

#[test]
fn windows_that_meet_are_one() {
    follow(
        "mon 20:00-24:00; tue 00:00-06:00; tue 05:00-05:30 Europe/Berlin",
        "2026-11-23 12:00+01:00",
        &[
            ("2026-11-23 20:00+01:00", true, "Mon 20:00 (Europe/Berlin)"),
            ("2026-11-24 06:00+01:00", false, "Tue 06:00 (Europe/Berlin)"),
        ],
    );
    // Each in its own time zone; the words are in that of the one that opens or closes.
    let texts = ["daily 20:00-22:00 Europe/Berlin", "daily 16:00-18:00 America/New_York"];
    let both = Windows::read(&texts).expect("both");
    let moment = both.at(ms("2026-11-23 20:30+01:00"));
    assert!(moment.is_open);
    assert_eq!(moment.until, "Mon 18:00 (America/New_York)");
    assert_eq!(moment.until_ms, Some(ms("2026-11-24 00:00+01:00")));
    assert_eq!(both.to_string(), texts.join("; "));
}

/// The clock itself, looked at each minute: what `at` foretells must come true, at that minute and not
/// before.
#[test]
fn what_is_foretold_comes_true() {
    let texts = [
        "mon-fri 20:00-06:00",
        "sat,sun",
        "sun 02:30-04:00",
        "sun 01:15-02:15",
        "fri-mon 23:30-01:45,02:10-02:20",
        "sat 22:00-02:00; sun 02:45-03:15",
    ];
    let zones_and_changes = [
        ("Europe/Berlin", ["2026-03-27 00:00Z", "2026-10-23 00:00Z"]),
        ("America/New_York", ["2026-03-06 00:00Z", "2026-10-30 00:00Z"]),
        ("Australia/Lord_Howe", ["2026-04-03 00:00Z", "2026-10-02 00:00Z"]),
        // Here the clock goes from 24:00 back to 23:00, and on to 01:00.
        ("America/Santiago", ["2026-04-03 00:00Z", "2026-09-04 00:00Z"]),
    ];
    for text in texts {
        for (zone, froms) in zones_and_changes {
            let windows = windows(&format!("{text} {zone}"));
            for from_ms in froms.map(ms) {
                minute_by_minute(&windows, from_ms, 4 * 24 * 60);
            }
        }
    }
}

fn minute_by_minute(windows: &Windows, from_ms: i64, minutes: i64) {
    let mut foretold = windows.at(from_ms);
    let mut changes = 0;
    for minute in 1..=minutes {
        let now_ms = from_ms + minute * MINUTE_MS;
        let moment = windows.at(now_ms);
        let is_due = foretold.until_ms == Some(now_ms);
        let at = timestamp(now_ms);
        assert_eq!(moment.is_open != foretold.is_open, is_due, "{windows} at {at}: {foretold:?}");
        if is_due {
            changes += 1;
            foretold = moment;
        } else {
            assert_eq!(moment.until_ms, foretold.until_ms, "{windows} at {at}");
        }
    }
    assert!(changes >= 2, "{windows}: nothing happened");
}

#[test]
fn a_place_that_goes_back_to_yesterday() {
    // Newfoundland went from 00:01 back to 23:01 on 7 November 2010.
    follow(
        "sat 23:30-23:45 America/St_Johns",
        "2010-11-07 00:00:30-02:30",
        &[
            ("2010-11-06 23:30-03:30", true, "Sat 23:30 NST (America/St_Johns)"),
            ("2010-11-06 23:45-03:30", false, "Sat 23:45 NST (America/St_Johns)"),
        ],
    );
}

#[test]
fn a_place_that_skips_a_whole_day() {
    // Samoa had no 30 December 2011, a Friday.
    follow(
        "fri 20:00-06:00 Pacific/Apia",
        "2011-12-29 12:00-10:00",
        &[
            ("2011-12-31 00:00+14:00", true, "Sat 00:00 (Pacific/Apia)"),
            ("2011-12-31 06:00+14:00", false, "Sat 06:00 (Pacific/Apia)"),
        ],
    );
}

#[test]
fn any_moment_has_an_answer() {
    let windows = windows("mon-fri 20:00-06:00 Europe/Berlin");
    for now_ms in [i64::MIN, -1, 0, 1, i64::MAX, i64::MAX / 2] {
        let moment = windows.at(now_ms);
        assert_eq!(moment.until_ms.is_none(), moment.until.is_empty(), "{now_ms}");
        assert_eq!(moment.closed().is_none(), moment.is_open, "{now_ms}");
    }
}

#[test]
fn many_ways_of_writing_mean_the_same() {
    let night = windows("mon-fri 20:00-06:00 Europe/Berlin");
    for text in [
        "Mon-Fri 20:00-06:00 Europe/Berlin",
        "monday - friday  20:00 - 6:00 europe/berlin",
        "mon,tue, wed ,thu , fri 20:00-06:00 Europe/Berlin ;",
        " ; mon-wed,thu-fri 20:00-06:00 Europe/Berlin",
    ] {
        assert_eq!(windows(text).windows, night.windows, "{text}");
    }
    assert_eq!(windows("20:00-06:00 UTC").windows, windows("daily 20:00-06:00 UTC").windows);
    assert_eq!(windows("sat 20:00-00:00 UTC").windows, windows("sat 20:00-24:00 UTC").windows);
    assert_eq!(windows("sat-sun UTC").windows, windows("sat,sun 00:00-24:00 utc").windows);
    assert_eq!(windows("fri-mon UTC").windows, windows("mon,fri,sat,sun UTC").windows);
}

#[test]
fn what_cannot_be_meant_is_refused_with_the_way_to_write_it() {
    for (text, why) in [
        ("", "there is no window in it"),
        (" ; ", "there is no window in it"),
        ("mon-fri 20:00-06:00", "a time zone is missing"),
        ("daily", "a time zone is missing"),
        ("Europe/Berlin", "`Europe/Berlin` is no day"),
        ("mo-fr 20:00-06:00 UTC", "`mo` is no day"),
        ("mon-fri 20-06 UTC", "`20` is no time of day"),
        ("mon-fri 20:00 UTC", "`20:00` has no end"),
        ("mon-fri 24:01-06:00 UTC", "`24:01` is no time of day"),
        ("mon-fri 20:60-06:00 UTC", "`20:60` is no time of day"),
        ("mon-fri +8:00-09:00 UTC", "there is no time zone `+8:00-09:00`"),
        ("mon-fri 8:0-09:00 UTC", "`8:0` is no time of day"),
        ("mon-fri 20:00-20:00 UTC", "has no length"),
        ("mon-fri 00:00-00:00 UTC", "has no length"),
        ("mon-fri 24:00-06:00 UTC", "has no length"),
        ("mon-fri 20:00-06:00 Berlin", "there is no time zone `Berlin`"),
        ("mon-fri 20:00-06:00 UTC+2", "there is no time zone `UTC+2`"),
        ("mon-fri 20:00-06:00 Europe/Berlin later", "`later` is too much"),
        ("daily 1:00-2:00 UTC; daily 3:00-4:00 CET; mon 5:00-6:00", "a time zone is missing"),
    ] {
        let error = Windows::read(&[text]).expect_err(text).to_string();
        assert!(error.contains(why), "{text}: {error}");
        assert!(error.contains("mon-fri 20:00-06:00 Europe/Berlin"), "{text}: {error}");
    }
}

#[test]
fn a_deadline_is_the_next_such_moment() {
    let now_ms = ms("2026-11-21 13:00+01:00"); // a Saturday
    for (text, at, words) in [
        ("06:00 Europe/Berlin", "2026-11-22 06:00+01:00", "Sun 06:00 (Europe/Berlin)"),
        ("14:00 Europe/Berlin", "2026-11-21 14:00+01:00", "Sat 14:00 (Europe/Berlin)"),
        ("sat 14:00 Europe/Berlin", "2026-11-21 14:00+01:00", "Sat 14:00 (Europe/Berlin)"),
        (
            "sat 13:00 Europe/Berlin",
            "2026-11-28 13:00+01:00",
            "Sat 2026-11-28 13:00 (Europe/Berlin)",
        ),
        ("fri 6:00 UTC", "2026-11-27 06:00Z", "Fri 06:00 (UTC)"),
        ("2026-12-24 06:00 UTC", "2026-12-24 06:00Z", "Thu 2026-12-24 06:00 (UTC)"),
        ("2026-11-22T06:00:00+01:00", "2026-11-22 06:00+01:00", "2026-11-22T06:00:00+01:00"),
        // Skipped, and shown twice: when the clock goes on, and the first of the two.
        (
            "2027-03-28 02:30 Europe/Berlin",
            "2027-03-28 03:00+02:00",
            "Sun 2027-03-28 03:00 (Europe/Berlin)",
        ),
        (
            "2027-10-31 02:30 Europe/Berlin",
            "2027-10-31 02:30+02:00",
            "Sun 2027-10-31 02:30 CEST (Europe/Berlin)",
        ),
    ] {
        let deadline = Deadline::read(text, Then::Stop, now_ms).expect(text);
        assert_eq!((deadline.at_ms, deadline.words.as_str()), (ms(at), words), "{text}");
    }
    assert_eq!(Deadline::after(now_ms, 3_600_000, Then::Stop).words, "2026-11-21T13:00:00Z");
}

#[test]
fn a_deadline_that_cannot_be_meant_is_refused() {
    let now_ms = ms("2026-11-21 13:00+01:00");
    for (text, why) in [
        ("", "a time zone is missing"),
        ("06:00", "a time zone is missing"),
        ("UTC", "a time zone is missing"),
        ("2026-11-22 06:00", "a time zone is missing"),
        ("2026-11-31 06:00 UTC", "there is no day `2026-11-31`"),
        ("2026-11-20 06:00 UTC", "it has passed"),
        ("2026-11-21T12:00:00Z", "it has passed"),
        ("24:00 UTC", "24:00 is 00:00 of the next day"),
        ("noon UTC", "`noon` is no time of day"),
        ("so 06:00 UTC", "`so` is no day"),
        ("next sun 06:00 UTC", "`next` is too much"),
    ] {
        let error = Deadline::read(text, Then::Stop, now_ms).expect_err(text).to_string();
        assert!(error.contains(why) && error.contains("06:00 Europe/Berlin"), "{text}: {error}");
    }
}

#[test]
fn a_deadline_is_due_until_the_swap_is_made() {
    use crate::checkpoint::Phase;
    use crate::machine::Command;

    let due = |then, now_ms, phase| Deadline::after(0, 1000, then).due(now_ms, phase);
    assert_eq!(due(Then::Stop, 999, Phase::Copy), None);
    assert_eq!(due(Then::Stop, 1000, Phase::Copy), Some(Command::Stop));
    assert_eq!(due(Then::Abort, 5000, Phase::Swap), Some(Command::Abort));
    assert_eq!(due(Then::Swap, 1000, Phase::Copy), Some(Command::Swap));
    for phase in [Phase::Finish, Phase::Done] {
        assert_eq!(due(Then::Abort, 1000, phase), None, "the change is made");
    }
}
