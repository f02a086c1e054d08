//! The change that the server makes by itself: no shadow, no copy, only the bounded wait for the lock.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use underpin_core::checkpoint::Phase;
use underpin_core::machine::Command;
use underpin_core::plan::RunSpec;
use underpin_dialect::{Database, ErrorKind, Shadow, Store};

use crate::calendar::{Diary, LOOK_EVERY};
use crate::error::EngineResult;
use crate::hooks::{About, Hooks};
use crate::options::RunOptions;
use crate::report::Report;
use crate::reporter::Reporter;
use crate::run::Outcome;

/// First rest after a lock was not had; it doubles with each try.
const REST: Duration = Duration::from_millis(500);

/// Longest rest between two tries.
const REST_MAX: Duration = Duration::from_secs(15);

/// Has the server make the change, trying for the lock until the patience ends. To the calendar and the
/// hooks it is a swap.
///
/// # Errors
/// `LockNotHad` beyond the patience; the server's refusal; `Ambiguous` where the answer was lost: then
/// the table's definition tells whether the change was made.
pub async fn alter_natively<D: Database>(
    db: Arc<D>,
    spec: RunSpec,
    options: RunOptions,
    mut commands: mpsc::Receiver<Command>,
    reporter: Reporter,
) -> EngineResult<Outcome> {
    let hooks = Hooks::start(options.hooks.clone(), About::of(&spec), &reporter);
    let mut diary = Diary::new(options.calendar.clone(), hooks.veto());
    let reporter = hooks.attach(&reporter);
    let result = alter(&*db, &spec, &options, &mut diary, &mut commands, &reporter).await;
    hooks.end(&result).await;
    result
}

async fn alter<D: Database>(
    db: &D,
    spec: &RunSpec,
    options: &RunOptions,
    diary: &mut Diary,
    commands: &mut mpsc::Receiver<Command>,
    reporter: &Reporter,
) -> EngineResult<Outcome> {
    let patience = Duration::from_millis(options.settings.lock_patience_ms);
    let (mut tries, mut tried_for) = (0_u32, Duration::ZERO);
    let phase = Phase::Swap.name().to_owned();
    reporter.tell(|at_ms| Report::Phase { at_ms, phase });
    // A window may shut as often as it likes; the tries while it is open are bounded by the patience.
    while may_go_on(diary, commands, reporter).await {
        // Not before: an idle connection is dropped by the server, and would keep others from the table.
        let mut control = db.control().await?;
        control.acquire(&spec.schema, &spec.table).await?;
        let begun = Instant::now();
        let mut rest = REST;
        while diary.gates().swap.is_none() {
            if is_end(commands.try_recv().ok().as_ref()) {
                return Ok(Outcome::Interrupted);
            }
            tries = tries.saturating_add(1);
            let at = Instant::now();
            match control.alter_natively(spec).await {
                Ok(()) => {
                    let took_ms = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
                    return Ok(Outcome::Altered { tries, took_ms });
                }
                Err(error)
                    if error.kind == ErrorKind::LockNotHad
                        && tried_for.saturating_add(begun.elapsed()) < patience =>
                {
                    let why = error.to_string();
                    reporter.tell(|at_ms| Report::LockTry { at_ms, attempt: tries, why });
                }
                Err(error) => return Err(error.into()),
            }
            sleep(rest).await;
            rest = std::cmp::min(rest * 2, REST_MAX);
        }
        tried_for = tried_for.saturating_add(begun.elapsed());
    }
    Ok(Outcome::Interrupted)
}

/// Waits until the calendar and the hooks let the change be made; false where somebody or the deadline
/// ends it before.
async fn may_go_on(
    diary: &mut Diary,
    commands: &mut mpsc::Receiver<Command>,
    reporter: &Reporter,
) -> bool {
    let kind = "swap-gate".to_owned();
    let mut waits_since_ms = None;
    loop {
        let due = diary.due(Phase::Swap);
        if let Some(command) = &due {
            diary.tell_due(reporter, command);
        }
        if is_end(commands.try_recv().ok().as_ref()) || is_end(due.as_ref()) {
            return false;
        }
        match (diary.gates().swap, waits_since_ms) {
            (Some(reason), None) => {
                waits_since_ms = Some(reporter.at_ms());
                let kind = kind.clone();
                reporter.tell(|at_ms| Report::Paused { at_ms, reason, kind });
            }
            (None, Some(since_ms)) => {
                reporter.tell(|at_ms| Report::Resumed {
                    at_ms,
                    paused_ms: at_ms.saturating_sub(since_ms),
                    kind,
                });
                return true;
            }
            (None, None) => return true,
            (Some(_), Some(_)) => {}
        }
        sleep(LOOK_EVERY).await;
    }
}

fn is_end(command: Option<&Command>) -> bool {
    matches!(command, Some(Command::Stop | Command::Abort))
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;
    use underpin_core::window::{Deadline, Then};

    use super::*;
    use crate::calendar::{Calendar, wall_ms};

    /// Waits with a veto that is lifted after a minute.
    async fn wait(calendar: Calendar, command: Option<Command>) -> (bool, Duration) {
        let (veto, held_back) = watch::channel(Some("not before the backup".to_owned()));
        let (sender, mut commands) = mpsc::channel(1);
        if let Some(command) = command {
            sender.send(command).await.unwrap();
        }
        let mut diary = Diary::new(calendar, held_back);
        tokio::spawn(async move {
            sleep(Duration::from_secs(60)).await;
            veto.send_replace(None);
        });
        let begun = Instant::now();
        let goes_on = may_go_on(&mut diary, &mut commands, &Reporter::silent()).await;
        (goes_on, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn the_change_waits_for_its_gate() {
        let (goes_on, waited) = wait(Calendar::default(), None).await;
        assert!(goes_on);
        assert!(
            waited >= Duration::from_secs(60) && waited < Duration::from_secs(62),
            "{waited:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn it_may_be_ended_while_it_waits() {
        for command in [Command::Stop, Command::Abort] {
            let (goes_on, waited) = wait(Calendar::default(), Some(command)).await;
            assert!(!goes_on && waited < Duration::from_secs(1), "{waited:?}");
        }
        let deadline = Some(Deadline::after(wall_ms() - 1000, 0, Then::Stop));
        let (goes_on, _) = wait(Calendar { deadline, ..Calendar::default() }, None).await;
        assert!(!goes_on, "the deadline has passed");
    }
}
