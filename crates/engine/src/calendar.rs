//! The calendar of a run: which gates are open by the clock on the wall, and when the deadline is due.
//!
//! Owns when the clock is looked at. What a window means is `core::window`'s. Nothing is computed ahead:
//! the clock is read anew each time, so that one that is put right, or a machine that slept, changes
//! nothing but the time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::sleep;
use underpin_core::checkpoint::Phase;
use underpin_core::machine::Command;
use underpin_core::signal::Gates;
use underpin_core::window::{Deadline, Windows};

use crate::report::Report;
use crate::reporter::Reporter;
use crate::spell::command_text;

/// Time between two looks at the clock.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What is said of a run about the calendar. The default says nothing: everything may be done at any
/// time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calendar {
    /// When rows may be copied.
    pub copy: Option<Windows>,
    /// When the swap may be tried.
    pub swap: Option<Windows>,
    /// By when the swap is to be made, and what is done otherwise.
    pub deadline: Option<Deadline>,
}

/// Milliseconds since 1970 (UTC) by the clock of this machine.
pub fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let ms = since.map(|since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
    // Before 1970 the clock was never set.
    ms.unwrap_or(0)
}

/// Looks at the calendar while a run goes on. Outlives the holds on it.
#[derive(Debug)]
pub(crate) struct Diary {
    calendar: Calendar,
    /// Why a hook holds the swap back.
    veto: watch::Receiver<Option<String>>,
    clock: fn() -> i64,
    told: Option<Gates>,
    is_swap_released: bool,
    is_deadline_told: bool,
}

impl Diary {
    /// `veto`: why the swap is held back, as [`crate::hooks::Hooks::veto`] says.
    pub(crate) fn new(calendar: Calendar, veto: watch::Receiver<Option<String>>) -> Self {
        Self {
            calendar,
            veto,
            clock: wall_ms,
            told: None,
            is_swap_released: false,
            is_deadline_told: false,
        }
    }

    /// How the gates stand now. To be told to each new machine before it begins anything.
    pub(crate) fn gates(&self) -> Gates {
        let now_ms = (self.clock)();
        let closed = |windows: &Windows| windows.at(now_ms).closed();
        let swap = self.calendar.swap.as_ref().filter(|_| !self.is_swap_released);
        Gates {
            copy: self.calendar.copy.as_ref().and_then(closed),
            swap: swap.and_then(closed).or_else(|| self.veto.borrow().clone()),
        }
    }

    /// Waits until the gates stand otherwise than at the last call; the first call answers at once. May
    /// be dropped while it waits.
    pub(crate) async fn changed(&mut self) -> Gates {
        // Ends when the gates change; it waits at least as long as the veto stays and the clock needs.
        loop {
            let gates = self.gates();
            if self.told.as_ref() != Some(&gates) {
                self.told = Some(gates.clone());
                return gates;
            }
            tokio::select! {
                // Without a hook nobody can change the veto: then only the clock counts.
                Ok(()) = self.veto.changed() => {}
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// What the deadline asks for now, once. A deadline that lets the swap be tried opens its window,
    /// too; a hook's veto stays.
    pub(crate) fn due(&mut self, phase: Phase) -> Option<Command> {
        if self.is_deadline_told {
            return None;
        }
        let command = self.calendar.deadline.as_ref()?.due((self.clock)(), phase)?;
        self.is_deadline_told = true;
        if command == Command::Swap {
            self.release_swap();
        }
        Some(command)
    }

    /// Tells who is interested that the deadline asks for this.
    pub(crate) fn tell_due(&self, reporter: &Reporter, command: &Command) {
        let by = self.calendar.deadline.as_ref().map_or("", |deadline| deadline.words.as_str());
        reporter.tell(|at_ms| Report::Ordered {
            at_ms,
            command: command_text(command),
            by: format!("the deadline {by}"),
            ordered_at: String::new(),
        });
    }

    /// Somebody wants the swap now: its window counts no longer.
    pub(crate) fn release_swap(&mut self) {
        self.is_swap_released = true;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use tokio::time::{Instant, timeout};
    use underpin_core::window::Then;

    use super::*;

    const NIGHT: &str = "mon-fri 20:00-06:00 Europe/Berlin";
    /// Mon 23 November 2026, 12:00, 20:00 and Tue 06:00 in Berlin.
    const NOON: i64 = 1_795_431_600_000;
    const EVENING: i64 = NOON + 8 * 3_600_000;
    const MORNING: i64 = EVENING + 10 * 3_600_000;

    fn diary(calendar: Calendar, clock: fn() -> i64) -> (Diary, watch::Sender<Option<String>>) {
        let (sender, veto) = watch::channel(None);
        (Diary { clock, ..Diary::new(calendar, veto) }, sender)
    }

    fn windows(text: &str) -> Option<Windows> {
        Some(text.parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_gate_opens_and_shuts_by_the_wall_clock_even_if_that_jumps() {
        static CLOCK: AtomicI64 = AtomicI64::new(NOON);
        let calendar = Calendar { copy: windows(NIGHT), ..Calendar::default() };
        let (mut diary, _veto) = diary(calendar, || CLOCK.load(Ordering::Relaxed));
        let gates = diary.changed().await;
        let reason = "outside its window until Mon 20:00 (Europe/Berlin)";
        assert_eq!(gates, Gates { copy: Some(reason.into()), swap: None });
        // Nothing changes: it waits, and may be dropped.
        assert!(timeout(Duration::from_secs(60), diary.changed()).await.is_err());
        // Eight hours at once, a night forward, and back again: each is seen at the next look.
        let wait = Duration::from_secs(10);
        for (now_ms, is_open) in [(EVENING, true), (MORNING, false), (EVENING, true)] {
            let asked = Instant::now();
            let jump = async {
                sleep(wait).await;
                CLOCK.store(now_ms, Ordering::Relaxed);
            };
            let (gates, ()) = tokio::join!(diary.changed(), jump);
            assert_eq!(gates.copy.is_none(), is_open, "{gates:?}");
            let waited = asked.elapsed();
            assert!(waited >= wait && waited <= wait + LOOK_EVERY * 2, "{waited:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_veto_is_heard_at_once_and_the_window_counts_first() {
        let calendar = Calendar { swap: windows(NIGHT), ..Calendar::default() };
        let (mut closed, veto) = diary(calendar.clone(), || NOON);
        veto.send_replace(Some("ask Ada".into()));
        assert!(closed.changed().await.swap.unwrap().starts_with("outside its window"));
        let (mut open, veto) = diary(calendar, || EVENING);
        assert_eq!(open.changed().await, Gates::default());
        let asked = Instant::now();
        veto.send_replace(Some("ask Ada".into()));
        assert_eq!(open.changed().await.swap.as_deref(), Some("ask Ada"));
        assert!(asked.elapsed() < LOOK_EVERY, "not only at the next look");
        // Nobody can change it any more: the clock is still looked at, without haste.
        drop(veto);
        assert!(timeout(Duration::from_secs(3600), open.changed()).await.is_err());
    }

    #[test]
    fn who_wants_the_swap_now_need_not_wait_for_its_window() {
        let calendar =
            Calendar { swap: windows(NIGHT), copy: windows(NIGHT), ..Calendar::default() };
        let (mut diary, veto) = diary(calendar, || NOON);
        assert!(diary.gates().swap.is_some());
        diary.release_swap();
        assert_eq!(diary.gates().swap, None);
        assert!(diary.gates().copy.is_some(), "the copy's window is another matter");
        veto.send_replace(Some("ask Ada".into()));
        assert_eq!(diary.gates().swap.as_deref(), Some("ask Ada"));
    }

    #[test]
    fn the_deadline_is_told_once_and_not_before_its_time() {
        static CLOCK: AtomicI64 = AtomicI64::new(NOON);
        for (then, command) in [
            (Then::Stop, Command::Stop),
            (Then::Abort, Command::Abort),
            (Then::Swap, Command::Swap),
        ] {
            CLOCK.store(NOON, Ordering::Relaxed);
            let calendar = Calendar {
                swap: windows(NIGHT),
                deadline: Some(Deadline::after(NOON, 60_000, then)),
                ..Calendar::default()
            };
            let (mut diary, _veto) = diary(calendar, || CLOCK.load(Ordering::Relaxed));
            assert_eq!(diary.due(Phase::Copy), None);
            CLOCK.store(NOON + 60_000, Ordering::Relaxed);
            assert_eq!(diary.due(Phase::Finish), None, "the swap is made");
            assert_eq!(diary.due(Phase::Copy), Some(command));
            assert_eq!(diary.due(Phase::Copy), None, "once");
            assert_eq!(diary.gates().swap.is_none(), then == Then::Swap);
        }
    }

    #[test]
    fn the_wall_clock_is_of_our_time() {
        assert!(wall_ms() > 1_700_000_000_000);
    }
}
