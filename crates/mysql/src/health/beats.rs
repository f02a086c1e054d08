//! Heartbeats: when each was written, and what it means that a replica shows a certain one.
//!
//! Lag is told by the moments at which *we* wrote the beats, so no two clocks need to agree. Only beats
//! from before this list began are judged by the primary's clock, which wrote their time and is asked
//! for the present.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Beats that are kept. With two a second they reach back over half an hour; older ones are thinned.
const BEATS_MAX: usize = 4096;

/// What was written when, oldest first.
#[derive(Debug)]
pub(super) struct Beats {
    written: VecDeque<(u64, Instant)>,
    /// The first beat of this list.
    first: Option<u64>,
    /// A moment, and the primary's clock then, in microseconds since 1970.
    clock: (Instant, u64),
}

/// A beat as a replica shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// Its number.
    pub(super) number: u64,
    /// When it was written, by the primary's clock, in microseconds since 1970.
    pub(super) written_us: u64,
}

impl Beats {
    /// An empty list; `clock_us` is what the primary's clock shows at `now`.
    pub(super) fn new(now: Instant, clock_us: u64) -> Self {
        Self { written: VecDeque::new(), first: None, clock: (now, clock_us) }
    }

    /// Notes a beat that has just been written.
    pub(super) fn note(&mut self, number: u64, at: Instant) {
        self.first = self.first.or(Some(number));
        self.written.push_back((number, at));
        if self.written.len() > BEATS_MAX {
            // Every second one of the older half goes: far back a coarse list does.
            let half = BEATS_MAX / 2;
            let mut index = 0;
            self.written.retain(|_| {
                index += 1;
                index > half || index % 2 == 1
            });
        }
    }

    /// When the list began; `None` while it is empty.
    pub(super) fn began(&self) -> Option<Instant> {
        self.written.front().map(|beat| beat.1)
    }

    /// Whether the beat is one of this list.
    pub(super) fn is_ours(&self, seen: Seen) -> bool {
        self.first.is_some_and(|first| seen.number >= first)
    }

    /// Whether a newer beat than this one has been written.
    pub(super) fn is_newest(&self, number: u64) -> bool {
        self.written.back().is_none_or(|newest| number >= newest.0)
    }

    /// How long ago a beat was written, where it is remembered.
    pub(super) fn age_ms(&self, now: Instant, number: u64) -> Option<u64> {
        let index = self.written.binary_search_by_key(&number, |beat| beat.0).ok()?;
        self.written.get(index).map(|beat| millis(now.saturating_duration_since(beat.1)))
    }

    /// How far behind a replica is that shows this beat: for so long there has been a newer one.
    pub(super) fn behind_ms(&self, now: Instant, seen: Seen) -> u64 {
        let missing = self.written.partition_point(|beat| beat.0 <= seen.number);
        let missing = self.written.get(missing);
        let since = missing.map_or(0, |beat| millis(now.saturating_duration_since(beat.1)));
        if self.is_ours(seen) {
            return since;
        }
        let elapsed = now.saturating_duration_since(self.clock.0);
        let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let by_clock = self.clock.1.saturating_add(elapsed_us).saturating_sub(seen.written_us);
        std::cmp::max(since, by_clock / 1000)
    }
}

/// A duration as whole milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beats number 11 to 20, one a second; the primary's clock is an hour ahead of nobody in
    /// particular.
    fn ten() -> (Instant, Beats) {
        let start = Instant::now();
        let mut beats = Beats::new(start, 3_600_000_000);
        for second in 1..=10 {
            beats.note(10 + second, at(start, second));
        }
        (start, beats)
    }

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    fn seen(number: u64) -> Seen {
        Seen { number, written_us: 0 }
    }

    #[test]
    fn a_replica_is_behind_since_the_first_beat_that_it_lacks() {
        let (start, beats) = ten();
        assert_eq!(beats.behind_ms(at(start, 10), seen(20)), 0);
        assert_eq!(beats.behind_ms(at(start, 10), seen(15)), 4000);
        assert_eq!(beats.behind_ms(at(start, 13), seen(15)), 7000);
        assert_eq!(beats.behind_ms(at(start, 60), seen(20)), 0, "nothing was written since");
    }

    #[test]
    fn beats_from_before_are_judged_by_the_clock_that_wrote_them() {
        let (start, beats) = ten();
        let old = Seen { number: 7, written_us: 3_600_000_000 - 30_000_000 };
        assert_eq!(beats.behind_ms(at(start, 10), old), 40_000);
        // Were the primary's clock set back meanwhile, what we wrote ourselves still counts.
        let ahead = Seen { number: 7, written_us: u64::MAX };
        assert_eq!(beats.behind_ms(at(start, 10), ahead), 9000);
        assert!(!beats.is_ours(old) && beats.is_ours(seen(11)));
    }

    #[test]
    fn the_age_of_a_beat_is_known_while_it_is_kept() {
        let (start, beats) = ten();
        assert_eq!(beats.age_ms(at(start, 12), 20), Some(2000));
        assert_eq!(beats.age_ms(at(start, 12), 10), None);
        assert!(beats.is_newest(20) && !beats.is_newest(19));
    }

    #[test]
    fn the_list_stays_small_and_keeps_its_ends() {
        let start = Instant::now();
        let mut beats = Beats::new(start, 0);
        for second in 1..=20_000 {
            beats.note(second, at(start, second));
        }
        assert!(beats.written.len() <= BEATS_MAX);
        assert_eq!(beats.began(), Some(at(start, 1)));
        let lag_ms = beats.behind_ms(at(start, 20_000), seen(19_000));
        assert!((990_000..=1_000_000).contains(&lag_ms), "{lag_ms}");
        assert!(beats.is_ours(seen(2)), "though it was thinned out");
    }
}
