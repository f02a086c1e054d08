//! The law for the lag of a replica. Why it is as it is: `docs/decisions/010-throttle.md`.
//!
//! Full speed until the lag shows; then the rate that [`Room`] finds the replica to have left for us, a
//! little less of it until what was written too much has been applied, and from there upwards by gentle
//! steps. Between a low and a high mark nothing is changed: there a rate that fits stays.

use super::law::{FREE_AT, SPEED_SHARE_MIN, Sight, middle};
use super::ledger::Ledger;
use super::room::Room;

/// Marks between the lag of an idle replica and the limit, as shares of the way: below the first the
/// replica may have had nothing to do, below the second the rate grows, above the third it is cut.
const BUSY: f64 = 0.15;
const LOW: f64 = 0.25;
const HIGH: f64 = 0.45;
/// A limit beyond this is one for the stop alone: nothing is won by a longer queue, and the lag answers
/// the later the longer it is.
const LIMIT_MS_MAX: f64 = 5_000.0;
/// Readings are smoothed over this time.
const SMOOTH_MS: f64 = 700.0;
/// The lag of an idle replica is the least that was seen; what is seen later lifts it slowly.
const FLOOR_MS: f64 = 120_000.0;
/// What is taken for the room at full speed while nothing is known of it.
const GUESSED: f64 = 0.8;
/// Of the room that was found so much is taken,
const TAKEN: f64 = 0.96;
/// and less by this until the backlog is gone.
const DRAIN: f64 = 0.2;
/// After a burst the rate begins again at this share at least of what was fit before.
const BEGIN_AGAIN: f64 = 0.5;
/// A rate that was fit is fit within this,
const NEAR: (f64, f64) = (0.9, 1.1);
/// and full speed is fit when it has stood for so long.
const FIT_AFTER_MS: f64 = 60_000.0;
/// Growth: shares of the rate in a second at most; near the fit rate, and anywhere.
const GROWTH_NEAR_MAX: f64 = 0.003;
const GROWTH_MAX: f64 = 0.05;
/// A lag that grows nearly as fast as time goes by is that of a replica that applies nothing: from this
/// slope on, over a rise of at least so much,
const STILL_SLOPE: f64 = 0.9;
const STILL_RISE_MS: f64 = 1_500.0;
/// and unless that was believed a short time ago: whoever is overloaded tenfold looks much the same.
const STILL_AGAIN_MS: f64 = 60_000.0;
/// A peak below this share of the limit tells nothing about the delay.
const PEAK: f64 = 0.8;
/// or below this, where the reading is one that changes nearly each time.
const PEAK_FINE: f64 = 0.6;
const GAP_MS_FINE: f64 = 800.0;
/// Longest time between two values of a reading that is reckoned with.
const GAP_MS_MAX: f64 = 5_000.0;

/// Where the lag is between idle and the limit.
#[derive(Debug, Clone, Copy)]
struct Marks {
    busy: f64,
    low: f64,
    high: f64,
}

/// A lag that came up: when and from where, its peak, and the rate at that time.
#[derive(Debug, Clone, Copy)]
struct Rise {
    from: (f64, f64),
    peak: (f64, f64),
    rate: Option<f64>,
}

/// The law of a replica's lag. Times and lags in milliseconds, rates in rows a second.
#[derive(Debug, Clone)]
pub(super) struct LagLaw {
    room: Room,
    /// What it said last in this time of lag.
    found: Option<f64>,
    /// `None`: full speed.
    rate: Option<f64>,
    /// What the rate is multiplied by for the moment.
    brake: f64,
    /// The last three readings, and what is left of them when they are smoothed.
    last: [f64; 3],
    lag: f64,
    floor: f64,
    read_ms: Option<f64>,
    /// When the reading last changed, and how long that takes.
    changed_ms: f64,
    gap_ms: f64,
    /// The lag is low since.
    low_since_ms: Option<f64>,
    /// Since when we have done something against a lag that is not low again, and its peak.
    acted: Option<(f64, f64)>,
    was_stopped: bool,
    rise: Option<Rise>,
    /// When a replica last stood still and we went on as before.
    stood_ms: f64,
    /// A rate that was fit before the last trouble.
    fit: f64,
    /// It was guessed, and is nothing to be careful about on the way back.
    is_guess: bool,
    free_since_ms: f64,
    drain_until_ms: f64,
    hold_until_ms: f64,
    beyond_since_ms: f64,
}

impl LagLaw {
    pub(super) fn new() -> Self {
        Self {
            room: Room::new(),
            found: None,
            rate: None,
            brake: 1.0,
            last: [0.0; 3],
            lag: 0.0,
            floor: f64::INFINITY,
            read_ms: None,
            changed_ms: 0.0,
            gap_ms: 500.0,
            low_since_ms: None,
            acted: None,
            was_stopped: false,
            rise: None,
            stood_ms: f64::NEG_INFINITY,
            fit: 0.0,
            is_guess: false,
            free_since_ms: 0.0,
            drain_until_ms: 0.0,
            hold_until_ms: 0.0,
            beyond_since_ms: 0.0,
        }
    }

    pub(super) fn rows_per_s(&self) -> Option<f64> {
        self.rate.map(|rate| rate * f64::max(self.brake, 0.05))
    }

    pub(super) fn read(&mut self, sight: Sight<'_>) {
        let now = sight.at_ms;
        let passed_ms = self.smooth(now, sight.value, sight.limit);
        let marks = self.marks(sight.limit);
        let lag = self.lag;
        self.note_rise(now, marks);
        if lag < marks.busy {
            self.room.end();
        } else {
            self.room.read(now, middle(self.last), marks.busy, sight.ledger);
            self.found = self.room.rows_per_s().or(self.found);
        }
        if sight.stands {
            if lag > marks.high {
                if self.acted.is_none() {
                    self.cut(sight, marks, true);
                }
                self.was_stopped = true;
            }
        } else if std::mem::take(&mut self.was_stopped) {
            // Where nothing was found a guess would take the stop itself for what there is room for.
            if self.room.rows_per_s().is_some() {
                self.cut(sight, marks, false);
            }
        } else if lag > marks.high && now >= self.hold_until_ms {
            self.cut(sight, marks, self.acted.is_none());
        }
        self.note_end(now, marks, sight.limit);
        let ahead = (sight.limit - lag) / f64::max(sight.limit - marks.high, 1.0);
        self.brake = ahead.clamp(0.0, 1.0);
        if now < self.drain_until_ms && lag > marks.low {
            self.brake = f64::min(self.brake, 1.0 - DRAIN);
        }
        if lag > marks.low {
            self.low_since_ms = None;
            return;
        }
        let low_since_ms = *self.low_since_ms.get_or_insert(now);
        let is_answered = now > low_since_ms + self.room.delay_ms() + 500.0;
        if is_answered && !sight.stands && now >= self.hold_until_ms {
            self.grow(now, passed_ms, sight, marks);
        }
    }

    /// Takes the reading in; the time since the one before.
    fn smooth(&mut self, now: f64, value: f64, limit: f64) -> f64 {
        let passed_ms = f64::max(self.read_ms.map_or(500.0, |last| now - last), 0.0);
        self.read_ms = Some(now);
        #[allow(clippy::float_cmp)] // the very same reading once more
        if value != self.last[2] {
            let gap_ms = f64::min(now - self.changed_ms, GAP_MS_MAX);
            self.gap_ms += (gap_ms - self.gap_ms) * 0.3;
            self.changed_ms = now;
        }
        self.last = [self.last[1], self.last[2], value];
        self.lag += (middle(self.last) - self.lag) * (1.0 - (-passed_ms / SMOOTH_MS).exp());
        if self.lag < self.floor {
            self.floor = self.lag;
        } else {
            let seen = f64::min(self.lag, limit * 0.6);
            self.floor += f64::max(seen - self.floor, 0.0) * f64::min(passed_ms / FLOOR_MS, 1.0);
        }
        passed_ms
    }

    fn marks(&self, limit: f64) -> Marks {
        let way = f64::max(f64::min(limit, LIMIT_MS_MAX) - self.floor, limit * 0.2);
        let mark = |share| self.floor + way * share;
        Marks { busy: mark(BUSY), low: mark(LOW), high: mark(HIGH) }
    }

    /// Takes the rate back to what the replica has left.
    fn cut(&mut self, sight: Sight<'_>, marks: Marks, is_first: bool) {
        let now = sight.at_ms;
        self.acted = self.acted.or(Some((now, self.lag)));
        let Some(room) = self.room.rows_per_s().or_else(|| self.room_guessed(sight)) else {
            return;
        };
        if self.rate.is_none() && sight.speed.is_some_and(|speed| room > speed) {
            return;
        }
        if is_first {
            self.fit = f64::max(self.fit_before(now, room, sight), room);
            self.is_guess = self.room.rows_per_s().is_none();
        }
        let taken = f64::min(self.rate.unwrap_or(f64::INFINITY), room * TAKEN);
        self.rate = Some(f64::max(taken, sight.speed.unwrap_or(0.0) * SPEED_SHARE_MIN));
        // What was written since what is read now has come on top of it.
        let delay = self.room.delay_ms();
        let written = rows_between(sight.ledger, now - delay, now);
        let lag = f64::max(self.lag + written * 1000.0 / room - delay, 0.0);
        let drain_ms = f64::max(lag - marks.low, 0.0) / DRAIN;
        self.drain_until_ms = now + drain_ms;
        self.hold_until_ms = now + drain_ms + delay * 1.2 + self.lag + 1_500.0;
    }

    /// Before the lag has told more than that it is there: somewhat less than what brought it about.
    fn room_guessed(&self, sight: Sight<'_>) -> Option<f64> {
        let begun = sight.at_ms - self.room.delay_ms() - self.lag;
        let written = written_before(sight.ledger, begun);
        let guessed = self.rate.map_or(written * GUESSED, |rate| f64::min(rate, written));
        (guessed > 0.0).then_some(guessed)
    }

    /// What was written when the backlog began that is read now. It may be fit again soon: perhaps it
    /// was a burst. Where it was not, it is met again on the way there, and is lower then.
    fn fit_before(&self, now: f64, room: f64, sight: Sight<'_>) -> f64 {
        let begun = now - self.room.delay_ms() - self.lag;
        match self.rate {
            Some(rate) => f64::min(rate, sight.ledger.rate(begun - 4_000.0, begun)),
            None if now - self.free_since_ms > FIT_AFTER_MS => sight.speed.unwrap_or(room),
            None => room,
        }
    }

    fn note_rise(&mut self, now: f64, marks: Marks) {
        let lag = middle(self.last);
        match &mut self.rise {
            None => self.rise = Some(Rise { from: (now, lag), peak: (now, lag), rate: self.rate }),
            Some(rise) if lag < marks.low && self.acted.is_none() => {
                *rise = Rise { from: (now, lag), peak: (now, lag), rate: self.rate };
            }
            Some(rise) if lag > rise.peak.1 => rise.peak = (now, lag),
            Some(_) => {}
        }
    }

    /// Whether the lag that has just gone was that of a replica that stood still: that tells nothing
    /// about what it bears. Then all is as it was before.
    fn stood_still(&mut self, now: f64) -> bool {
        let Some(rise) = self.rise.take() else { return false };
        let (ms, lag) = (rise.peak.0 - rise.from.0, rise.peak.1 - rise.from.1);
        // it was seen to begin one reading early, and to end one late
        let ms = ms - f64::min(self.gap_ms, lag * 0.3);
        let stood = lag > STILL_RISE_MS && lag > ms * STILL_SLOPE;
        let pause_ms = STILL_AGAIN_MS + 4.0 * self.room.delay_ms();
        if !stood || now - self.stood_ms < pause_ms {
            return false;
        }
        self.stood_ms = now;
        self.rate = rise.rate;
        self.found = None;
        self.room.end();
        true
    }

    /// The lag is low again after we did something about it.
    fn note_end(&mut self, now: f64, marks: Marks, limit: f64) {
        if let Some((_, peak)) = &mut self.acted {
            *peak = f64::max(*peak, self.lag);
        }
        if self.lag > marks.low {
            return;
        }
        let Some((since_ms, peak)) = self.acted.take() else { return };
        let is_fine = self.gap_ms < GAP_MS_FINE;
        if peak > limit * if is_fine { PEAK_FINE } else { PEAK } {
            self.room.note_answer(now - since_ms);
        }
        if self.stood_still(now) {
            return;
        }
        // Now that the delay is known better, this tells what there was room for all the time.
        let room = self.found.take().unwrap_or(0.0);
        self.fit = f64::max(self.fit, room);
        self.is_guess &= room <= 0.0;
        let least = f64::max(self.fit * BEGIN_AGAIN, room * 0.9);
        self.rate = self.rate.map(|rate| f64::max(rate, least));
    }

    /// Up, gently: a growth of `g` a second makes a lag of `g·r²/2` before it shows, where `r` is the
    /// time until we know. Half of the limit may be spent on that.
    fn grow(&mut self, now: f64, passed_ms: f64, sight: Sight<'_>, marks: Marks) {
        let Some(rate) = self.rate else { return };
        let blind_ms = self.room.delay_ms() + self.gap_ms + (marks.high - self.floor);
        let react_s = blind_ms / 1000.0 + 1.0;
        let spent_s = 0.5 * f64::min(sight.limit, LIMIT_MS_MAX) / 1000.0;
        let growth = f64::min(spent_s / (react_s * react_s), GROWTH_MAX);
        let growth = if rate < self.fit * NEAR.0 {
            growth * 4.0
        } else if rate < self.fit * NEAR.1 {
            self.beyond_since_ms = now;
            let most = if self.is_guess { GROWTH_MAX } else { GROWTH_NEAR_MAX };
            f64::min(growth / 4.0, most)
        } else {
            let beyond_s = (now - self.beyond_since_ms) / 1000.0;
            growth * f64::min(1.0 + beyond_s / (5.0 * react_s), 3.0)
        };
        let rate = rate * (growth * passed_ms / 1000.0).exp();
        self.rate = Some(rate);
        if let Some(speed) = sight.speed.filter(|speed| rate > speed * FREE_AT) {
            self.rate = None;
            self.fit = speed;
            self.free_since_ms = now;
        }
    }
}

/// Rows a second that were written up to a time: a copy that has just begun, or gone on, has not written
/// for long.
fn written_before(ledger: &Ledger, begun: f64) -> f64 {
    let spans = [1_000.0, 2_000.0, 4_000.0];
    spans.iter().fold(0.0, |most, span| f64::max(most, ledger.rate(begun - span, begun)))
}

fn rows_between(ledger: &Ledger, from_ms: f64, to_ms: f64) -> f64 {
    ledger.rows_at(to_ms) - ledger.rows_at(from_ms)
}
