//! Lag in time from positions in the write-ahead log.
//!
//! The server's own figures mislead: `replay_lag` keeps its last value while replay stands still and is
//! NULL after a quiet spell, and the age of the last replayed transaction grows while nobody writes. So
//! we keep a clock of our own: when the primary was at which position. A replica's lag is the time
//! since the newest of these moments that it has reached. Right when it is stalled, idle or cascading,
//! and it needs no write and no log-in on the replica.

use std::collections::VecDeque;

use tokio::time::Instant;

/// Moments that are kept. With a few looks a second they reach back over a quarter of an hour; older ones
/// are thinned.
const MOMENTS_MAX: usize = 4096;

/// A position in the write-ahead log, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position(pub(super) u64);

impl Position {
    /// Reads `16/B374D848`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (high, low) = text.split_once('/')?;
        let high = u32::from_str_radix(high, 16).ok()?;
        let low = u32::from_str_radix(low, 16).ok()?;
        Some(Self((u64::from(high) << 32) | u64::from(low)))
    }
}

/// When the primary was at which position, oldest first.
#[derive(Debug, Default)]
pub(super) struct Clock {
    moments: VecDeque<(Instant, Position)>,
}

impl Clock {
    /// Notes where the primary is now.
    pub(super) fn tick(&mut self, now: Instant, position: Position) {
        if let Some(last) = self.moments.back_mut()
            && last.1 == position
        {
            // Nothing was written meanwhile: whoever was there then is there now.
            last.0 = now;
            return;
        }
        self.moments.push_back((now, position));
        if self.moments.len() > MOMENTS_MAX {
            // Every second one of the older half goes: far back a coarse clock does.
            let half = MOMENTS_MAX / 2;
            let mut index = 0;
            self.moments.retain(|_| {
                index += 1;
                index > half || index % 2 == 1
            });
        }
    }

    /// How long ago the primary was where a replica is now, in milliseconds. Behind the oldest moment
    /// it is more than what is known: the time since that moment.
    pub(super) fn lag_ms(&self, now: Instant, replayed: Position) -> u64 {
        let last = self.moments.back();
        if last.is_none_or(|last| replayed >= last.1) {
            return 0;
        }
        let reached = self.moments.iter().rev().find(|moment| moment.1 <= replayed);
        let since = reached.or_else(|| self.moments.front()).map_or(now, |moment| moment.0);
        u64::try_from(now.saturating_duration_since(since).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn positions_are_read() {
        assert_eq!(Position::parse("16/B374D848"), Some(Position(0x16_B374_D848)));
        assert_eq!(Position::parse("0/0"), Some(Position(0)));
        assert_eq!(Position::parse("B374D848"), None);
    }

    #[test]
    fn a_stalled_replica_falls_behind_by_the_clock() {
        let start = Instant::now();
        let mut clock = Clock::default();
        for second in 0..10 {
            clock.tick(at(start, second), Position(second * 100));
        }
        assert_eq!(clock.lag_ms(at(start, 9), Position(900)), 0);
        assert_eq!(clock.lag_ms(at(start, 9), Position(450)), 5000);
        assert_eq!(clock.lag_ms(at(start, 12), Position(450)), 8000);
    }

    #[test]
    fn an_idle_primary_makes_no_lag() {
        let start = Instant::now();
        let mut clock = Clock::default();
        for second in 0..100 {
            clock.tick(at(start, second), Position(7));
        }
        assert_eq!(clock.lag_ms(at(start, 100), Position(7)), 0);
        // A write now: the replica was up to date until a second ago, not since the beginning.
        clock.tick(at(start, 100), Position(8));
        assert_eq!(clock.lag_ms(at(start, 100), Position(7)), 1000);
    }

    #[test]
    fn what_lies_before_the_first_look_counts_from_there() {
        let start = Instant::now();
        let mut clock = Clock::default();
        assert_eq!(clock.lag_ms(start, Position(1)), 0);
        clock.tick(start, Position(500));
        assert_eq!(clock.lag_ms(at(start, 3), Position(100)), 3000);
    }

    #[test]
    fn the_clock_stays_small_and_keeps_its_ends() {
        let start = Instant::now();
        let mut clock = Clock::default();
        for second in 0..20_000 {
            clock.tick(at(start, second), Position(second));
        }
        assert!(clock.moments.len() <= MOMENTS_MAX);
        assert_eq!(clock.moments.front().map(|moment| moment.1), Some(Position(0)));
        let lag_ms = clock.lag_ms(at(start, 19_999), Position(19_000));
        assert!((999_000..1_010_000).contains(&lag_ms), "{lag_ms}");
    }
}
