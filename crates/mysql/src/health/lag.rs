//! From what a replica showed to its lag, and how that was read. Pure: looking is `follower`'s.
//!
//! The heartbeat counts. `Seconds_Behind_Source` is in whole seconds and says 0 while nothing comes in,
//! so it stands in only where no heartbeat can get to the replica.

use std::time::Instant;

use underpin_core::signal::{LAG, Reading, Unit};

use super::beats::{Beats, Seen, millis};

/// How the lag is read, usually.
const HEARTBEAT: &str = "heartbeat";

/// So long no heartbeat arrives at a replica that has nothing left to apply: then none can.
const SILENCE_MS: u64 = 15_000;

/// What is known of a replica by now.
#[derive(Debug, Clone, Default)]
pub(super) struct Look {
    /// When it answered last; `None` before the first time.
    pub(super) answered: Option<Instant>,
    /// Why it does not answer (any more).
    pub(super) error: Option<String>,
    /// The newest heartbeat that it has shown.
    pub(super) seen: Option<Seen>,
    /// How long after it was written that one was there.
    pub(super) delay_ms: u64,
    /// Heartbeats are there but must not be read.
    pub(super) is_forbidden: bool,
    /// What it says of its replication; `None` where it does not say.
    pub(super) status: Option<Status>,
}

/// What a replica says of its replication.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Status {
    /// `Seconds_Behind_Source`; `None` where its replication is not running.
    pub(super) behind_ms: Option<u64>,
    /// The delay that it keeps on purpose.
    pub(super) delay_ms: u64,
    /// It leaves out some databases or tables.
    pub(super) is_filtered: bool,
    /// Why it is not running; empty where it is.
    pub(super) trouble: String,
}

/// How the lag was told.
enum Told {
    /// By the heartbeat.
    Beat(u64),
    /// By the replica itself, and why.
    Itself(u64, &'static str),
    /// Not at all, and why.
    Not(String),
}

/// The reading of a replica; `its_word` is what its server calls its own figure.
pub(super) fn reading(
    name: &str,
    look: &Look,
    beats: &Beats,
    now: Instant,
    its_word: &str,
) -> Reading {
    let unreadable = |why: &str| Reading::unreadable(LAG, name, HEARTBEAT, Unit::Ms, why);
    if let Some(error) = &look.error {
        return unreadable(error);
    }
    let Some(answered) = look.answered else { return unreadable("it has not answered yet") };
    let (lag_ms, mut source) = match tell(look, beats, now) {
        Told::Beat(lag_ms) => (lag_ms, HEARTBEAT.to_owned()),
        Told::Itself(lag_ms, why) => (lag_ms, format!("{its_word} ({why})")),
        Told::Not(why) => return unreadable(&why),
    };
    let status = look.status.clone().unwrap_or_default();
    if status.delay_ms > 0 {
        source.push_str(&format!(", less its delay of {} s", status.delay_ms / 1000));
    }
    if !status.trouble.is_empty() {
        source.push_str(&format!(" ({})", status.trouble));
    }
    let lag_ms = lag_ms.saturating_sub(status.delay_ms);
    // Beyond 2^53 ms it is the same to everybody.
    #[allow(clippy::cast_precision_loss)]
    let value = lag_ms as f64;
    let age_ms = millis(now.saturating_duration_since(answered));
    Reading { age_ms, ..Reading::new(LAG, name, &source, Unit::Ms, value) }
}

fn tell(look: &Look, beats: &Beats, now: Instant) -> Told {
    let behind = look.seen.map(|seen| beats.behind_ms(now, seen));
    if let (Some(seen), Some(behind_ms)) = (look.seen, behind)
        && beats.is_ours(seen)
    {
        return Told::Beat(std::cmp::max(look.delay_ms, behind_ms));
    }
    // No beat of this runner has arrived: either the replica is behind, or none can arrive.
    let silent_ms = beats.began().map_or(0, |at| millis(now.saturating_duration_since(at)));
    let status = look.status.as_ref();
    let itself = status.and_then(|status| status.behind_ms);
    let delay_ms = status.map_or(0, |status| status.delay_ms);
    let is_level = itself.is_some_and(|behind_ms| behind_ms <= delay_ms);
    let why = if look.is_forbidden {
        Some("the account may not read the heartbeats there")
    } else if status.is_some_and(|status| status.is_filtered) {
        Some("it has replication filters, and no heartbeat arrives")
    } else if is_level && silent_ms > SILENCE_MS.saturating_add(delay_ms) {
        Some("no heartbeat arrives")
    } else {
        None
    };
    match (why, itself) {
        (Some(why), Some(behind_ms)) => Told::Itself(behind_ms, why),
        (None, Some(behind_ms)) => {
            Told::Beat(std::cmp::max(behind.unwrap_or(silent_ms), behind_ms))
        }
        // A beat of an earlier runner is there, by which it can be told.
        (None, None) if behind.is_some() || status.is_none() => {
            Told::Beat(behind.unwrap_or(silent_ms))
        }
        (why, None) => Told::Not(match status.map(|status| status.trouble.as_str()) {
            Some(trouble) if !trouble.is_empty() => trouble.to_owned(),
            _ => why.unwrap_or("its replication is not running").to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    /// Beats 1 to 40, one each second from the first second on.
    fn beats(start: Instant) -> Beats {
        let mut beats = Beats::new(start, 1_000_000_000);
        for second in 1..=40_u32 {
            beats.note(u64::from(second), start + S * second);
        }
        beats
    }

    fn look(now: Instant, seen: Option<u64>, status: Status) -> Look {
        let seen = seen.map(|number| Seen { number, written_us: 1_000_000_000 });
        Look { answered: Some(now), seen, status: Some(status), ..Look::default() }
    }

    fn at_ease() -> Status {
        Status { behind_ms: Some(0), ..Status::default() }
    }

    /// Lag, and how it was read, after 41 seconds.
    fn read(look: &Look, start: Instant) -> (Option<f64>, String) {
        let reading = reading("db2:3306", look, &beats(start), start + S * 41, "Its_Word");
        let told = if reading.error.is_empty() { reading.source } else { reading.error };
        (reading.value, told)
    }

    #[test]
    fn the_heartbeat_counts_whatever_the_replica_says_of_itself() {
        let start = Instant::now();
        let now = start + S * 41;
        // It says 0 because nothing comes in any more.
        let hung = look(now, Some(10), at_ease());
        assert_eq!(read(&hung, start), (Some(30_000.0), "heartbeat".into()));
        let late = Look { delay_ms: 700, ..look(now, Some(40), at_ease()) };
        assert_eq!(read(&late, start), (Some(700.0), "heartbeat".into()));
        let stopped = Status { trouble: "its applier stopped: 1062".into(), ..Status::default() };
        let (lag, told) = read(&look(now, Some(10), stopped), start);
        assert_eq!((lag, told.as_str()), (Some(30_000.0), "heartbeat (its applier stopped: 1062)"));
    }

    #[test]
    fn a_deliberate_delay_is_no_lag() {
        let start = Instant::now();
        let now = start + S * 41;
        let delayed = Status { behind_ms: Some(29_000), delay_ms: 29_000, ..Status::default() };
        let (lag, told) = read(&look(now, Some(10), delayed.clone()), start);
        assert_eq!((lag, told.as_str()), (Some(1000.0), "heartbeat, less its delay of 29 s"));
        // Before the first beat has come through the delay.
        let hour = Status { behind_ms: Some(3_600_000), delay_ms: 3_600_000, ..delayed };
        assert_eq!(read(&look(now, None, hour), start).0, Some(0.0));
    }

    #[test]
    fn its_own_word_counts_only_where_no_heartbeat_can_arrive() {
        let start = Instant::now();
        let now = start + S * 41;
        let filtered = Status { behind_ms: Some(5000), is_filtered: true, ..Status::default() };
        let (lag, told) = read(&look(now, None, filtered.clone()), start);
        assert_eq!(lag, Some(5000.0));
        assert!(told.starts_with("Its_Word (") && told.contains("filters"), "{told}");
        // Filters of something else: beats arrive.
        assert_eq!(read(&look(now, Some(40), filtered), start), (Some(0.0), "heartbeat".into()));
        // No filter to be seen, nothing to apply, and silence for long.
        let (lag, told) = read(&look(now, None, at_ease()), start);
        assert_eq!((lag, told.as_str()), (Some(0.0), "Its_Word (no heartbeat arrives)"));
        // Silence, but it has much to apply: the beats stand behind that.
        let behind = Status { behind_ms: Some(9000), ..Status::default() };
        assert_eq!(read(&look(now, None, behind), start), (Some(40_000.0), "heartbeat".into()));
        let forbidden = Look { is_forbidden: true, ..look(now, None, at_ease()) };
        assert!(read(&forbidden, start).1.contains("may not read"));
    }

    #[test]
    fn what_cannot_be_told_is_not_guessed() {
        let start = Instant::now();
        let now = start + S * 41;
        assert_eq!(read(&Look::default(), start), (None, "it has not answered yet".into()));
        let gone = Look { error: Some("gone".into()), ..look(now, Some(40), at_ease()) };
        assert_eq!(read(&gone, start), (None, "gone".into()));
        let stopped = Status { trouble: "stopped".into(), ..Status::default() };
        assert_eq!(read(&look(now, None, stopped), start), (None, "stopped".into()));
        // Unless an earlier runner's beat is there: 41 s old by the primary's clock.
        let halted = Status { trouble: "stopped".into(), ..Status::default() };
        assert_eq!(read(&look(now, Some(0), halted), start).0, Some(41_000.0));
        let dumb = Look { status: None, is_forbidden: true, ..look(now, None, at_ease()) };
        assert_eq!(read(&dumb, start).0, None);
    }
}
