//! Work that can be stopped by signals: the first asks it to stop at the next boundary, the second to
//! stop at once, and no signal abandons safety.
//!
//! Owns what each press means and how long a cancellation may take. The engine cancels on the server
//! and waits for the proof; if even that does not end, we leave, and the next start looks at what
//! became of it.

use std::future::Future;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use underpin_core::machine::Command;
use underpin_engine::{EngineResult, Outcome};

use crate::signals::Signals;
use crate::ui::Printer;

/// How long the engine may take to cancel what is in flight before we leave without it. Longer than
/// its own bounds, so that it is the one to give up.
const CANCEL_WAIT: Duration = Duration::from_secs(120);

/// How the work ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// As the engine says.
    Here(Outcome),
    /// We left before the engine had an answer.
    LeftBehind,
}

/// Works until the end, or until asked to stop.
///
/// # Errors
/// The engine's; signals that cannot be listened to.
pub(super) async fn until_stopped(
    work: impl Future<Output = EngineResult<Outcome>>,
    commands: &mpsc::Sender<Command>,
    printer: &Printer,
) -> anyhow::Result<Ended> {
    let mut signals = Signals::listen().context("listening to signals")?;
    let presses = async move || signals.next().await;
    until_pressed(work, presses, commands, |line| printer.talk(line)).await
}

/// The same with signals as values, for tests.
async fn until_pressed(
    work: impl Future<Output = EngineResult<Outcome>>,
    mut pressed: impl AsyncFnMut(),
    commands: &mpsc::Sender<Command>,
    talk: impl Fn(&str),
) -> anyhow::Result<Ended> {
    tokio::pin!(work);
    let mut presses = 0;
    let mut leave_at: Option<Instant> = None;
    // Ends with the work, the third press, or a while after the second.
    loop {
        let left = async {
            match leave_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = &mut work => return Ok(Ended::Here(ended?)),
            () = left => return Ok(Ended::LeftBehind),
            () = pressed() => presses += 1,
        }
        match presses {
            1 => talk("stopping at the next boundary; press again to stop waiting for it"),
            2 => {
                talk("cancelling what is under way on the server; press again to leave at once");
                leave_at = Some(Instant::now() + CANCEL_WAIT);
            }
            _ => return Ok(Ended::LeftBehind),
        }
        // A full queue means that the engine does not listen at present: it was told before.
        let _ = commands.try_send(Command::Stop);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    struct Scene {
        ended: anyhow::Result<Ended>,
        told: Vec<Command>,
        said: Vec<String>,
    }

    /// The engine ends after `stops` requests to stop, or never; `presses` signals come.
    async fn scene(stops: Option<usize>, presses: usize) -> Scene {
        let (commands, mut heard) = mpsc::channel(16);
        let told = RefCell::new(Vec::new());
        let work = async {
            while stops.is_none_or(|stops| told.borrow().len() < stops) {
                let command = heard.recv().await.unwrap();
                told.borrow_mut().push(command);
            }
            Ok(Outcome::Interrupted)
        };
        let said = RefCell::new(Vec::new());
        let mut left = presses;
        let pressed = async || {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if left == 0 {
                std::future::pending::<()>().await;
            }
            left -= 1;
        };
        let talk = |line: &str| said.borrow_mut().push(line.to_owned());
        let ended = until_pressed(work, pressed, &commands, talk);
        // The clock is not real: a scene that does not end is found out at once.
        let ended = tokio::time::timeout(CANCEL_WAIT * 10, ended).await.expect("no end");
        Scene { ended, told: told.into_inner(), said: said.into_inner() }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_press_asks_and_waits() {
        let scene = scene(Some(1), 1).await;
        assert!(matches!(scene.ended, Ok(Ended::Here(Outcome::Interrupted))));
        assert_eq!(scene.told, [Command::Stop]);
        assert!(scene.said[0].contains("next boundary") && scene.said[0].contains("again"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_press_has_the_server_cancel() {
        let scene = scene(Some(2), 2).await;
        assert!(matches!(scene.ended, Ok(Ended::Here(Outcome::Interrupted))));
        assert_eq!(scene.told, [Command::Stop, Command::Stop]);
        assert!(scene.said[1].contains("cancelling"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_third_press_leaves() {
        let begun = Instant::now();
        let scene = scene(None, 3).await;
        assert!(matches!(scene.ended, Ok(Ended::LeftBehind)));
        assert!(begun.elapsed() < CANCEL_WAIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancellation_that_does_not_end_is_left_behind() {
        let begun = Instant::now();
        let scene = scene(None, 2).await;
        assert!(matches!(scene.ended, Ok(Ended::LeftBehind)));
        assert!(begun.elapsed() >= CANCEL_WAIT);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_press_nothing_is_asked() {
        let scene = scene(Some(0), 0).await;
        assert!(matches!(scene.ended, Ok(Ended::Here(_))));
        assert!(scene.told.is_empty() && scene.said.is_empty());
    }
}
