//! `underpin status`: the runs that a server knows, with what can be said of each and what to do.

use serde::Serialize;
use underpin_core::checkpoint::{Checkpoint, Phase};
use underpin_core::proof::Verdict;
use underpin_core::way::Way;
use underpin_dialect::{Database, Given, Origin, RunSummary, Store};

use crate::error::EngineResult;
use crate::live::Live;

/// A runner that holds the lock but has been silent for longer than this may hang; one minute is six
/// signs of life.
const SILENT_S_MAX: u64 = 60;

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// A runner works on it.
    Running,
    /// A runner holds the table's lock, but has been silent for a minute or more.
    Silent,
    /// Unfinished, and nobody works on it.
    Unattended,
    /// The change is made and can be taken back; nothing is being done.
    Revertible,
    /// The change was taken back and can be made again; nothing is being done.
    Reverted,
    /// The change was made.
    Done,
    /// It was removed.
    Aborted,
    /// It ended otherwise.
    Failed,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunStatus {
    /// The run.
    pub run_id: String,
    /// Its table as `schema.table`.
    pub table: String,
    /// The statement, verbatim.
    pub statement: String,
    /// How it stands.
    pub standing: Standing,
    /// Its phase, as "copy"; `None` where the checkpoint cannot be read.
    pub phase: Option<String>,
    /// Which way it goes or went last: `forward` to the new table, `back` to the old one.
    pub direction: Way,
    /// Rows copied, up to the begin of the round under way.
    pub rows_copied: u64,
    /// Rows found equal.
    pub rows_verified: u64,
    /// What the comparison has proven: at the last swap, or so far; `None` while it is not done.
    pub verified: Option<Verdict>,
    /// Begin, as the server wrote it (UTC).
    pub created_at: String,
    /// Last sign of life, as the server wrote it (UTC).
    pub updated_at: String,
    /// Seconds since then, by the server's clock.
    pub silent_s: u64,
    /// What can be done about it; empty where nothing is to be done.
    pub next: String,
    /// Who began it, as "user@machine"; empty where that is not on record.
    pub by: String,
    /// Why, in that person's words; empty where it was not said.
    pub reason: String,
    /// Where it is asked for; empty likewise.
    pub ticket: String,
    /// Who approved of it; empty likewise.
    pub approved_by: String,
    /// The options that were given when it began.
    pub options: Vec<Given>,
    /// End, as the server wrote it (UTC); `None` while it is open.
    pub ended_at: Option<String>,
    /// How it fares, as its runner said last; `None` where it said nothing, or is over.
    pub live: Option<Live>,
}

impl RunStatus {
    /// What can be said of a stored run.
    pub fn of(run: &RunSummary) -> Self {
        let checkpoint = Checkpoint::decode(&run.checkpoint);
        let standing = standing_of(run, checkpoint.as_ref().ok());
        let next = match (&checkpoint, standing) {
            (Err(error), Standing::Unattended) => error.to_string(),
            _ => next_for(run, standing, checkpoint.as_ref().ok()),
        };
        let checkpoint = checkpoint.ok();
        let counters = checkpoint.as_ref().map(|checkpoint| checkpoint.counters.clone());
        let counters = counters.unwrap_or_default();
        let origin: Origin = serde_json::from_str(&run.origin).unwrap_or_default();
        Self {
            run_id: run.run_id.clone(),
            table: run.table.clone(),
            statement: run.statement.clone(),
            standing,
            direction: checkpoint.as_ref().map(|checkpoint| checkpoint.way).unwrap_or_default(),
            verified: checkpoint.as_ref().and_then(proven),
            phase: checkpoint.map(|checkpoint| checkpoint.phase.name().to_owned()),
            rows_copied: counters.rows_copied,
            rows_verified: counters.rows_verified,
            created_at: run.created_at.clone(),
            updated_at: run.updated_at.clone(),
            silent_s: run.silent_s,
            next,
            by: origin.by,
            reason: origin.reason,
            ticket: origin.ticket,
            approved_by: origin.approved_by,
            options: origin.options,
            ended_at: run.ended_at.clone(),
            live: Live::read(&run.live).filter(|_| run.state == "open"),
        }
    }
}

/// That something was passed over is told before the comparison is done.
fn proven(checkpoint: &Checkpoint) -> Option<Verdict> {
    let proof = checkpoint.proof().map(|proof| proof.verdict);
    proof.or_else(|| checkpoint.sampled.then_some(Verdict::Sampled))
}

fn standing_of(run: &RunSummary, checkpoint: Option<&Checkpoint>) -> Standing {
    let at_rest = checkpoint.filter(|it| it.phase == Phase::Revertible).map(|it| it.way);
    match run.state.as_str() {
        "open" if run.running && run.silent_s >= SILENT_S_MAX => Standing::Silent,
        "open" if run.running => Standing::Running,
        "open" if at_rest == Some(Way::Forward) => Standing::Revertible,
        "open" if at_rest == Some(Way::Back) => Standing::Reverted,
        "open" => Standing::Unattended,
        "done" => Standing::Done,
        "aborted" => Standing::Aborted,
        _ => Standing::Failed,
    }
}

fn next_for(run: &RunSummary, standing: Standing, checkpoint: Option<&Checkpoint>) -> String {
    let swapped = checkpoint.is_some_and(|checkpoint| checkpoint.phase >= Phase::Arrive);
    let turns = checkpoint.is_some_and(|checkpoint| checkpoint.stands.is_some());
    let table = &run.table;
    match standing {
        Standing::Revertible => format!(
            "the change is made: `underpin revert URL {table}` takes it back, `underpin finish URL \
             {table}` ends the run"
        ),
        Standing::Reverted => format!(
            "the old table is live: `underpin resume URL {table} --again` makes the change again, \
             `underpin finish URL {table}` ends the run"
        ),
        Standing::Unattended if swapped => {
            format!("the change is made; `underpin resume URL {table}` does what is left to do")
        }
        Standing::Unattended if turns => format!(
            "the tables are being exchanged again: `underpin resume URL {table}` goes on, `underpin \
             abort URL {table}` leaves the one that is live"
        ),
        Standing::Unattended => format!(
            "run the same `underpin run` again to go on, or `underpin abort URL {}` to remove it",
            run.table
        ),
        Standing::Silent => {
            "its runner may hang or wait in a long statement; look at the server's \
                             process list"
                .into()
        }
        Standing::Running | Standing::Done | Standing::Aborted | Standing::Failed => String::new(),
    }
}

/// The runs that the server knows, newest first, at most 100; of one table where one is named.
///
/// # Errors
/// The database's.
pub async fn status<D: Database>(db: &D, of: Option<(&str, &str)>) -> EngineResult<Vec<RunStatus>> {
    let mut control = db.control().await?;
    look(&mut control, of).await
}

/// The same by a connection that is there, to look again and again.
///
/// # Errors
/// The database's.
pub async fn look<C: Store>(
    control: &mut C,
    of: Option<(&str, &str)>,
) -> EngineResult<Vec<RunStatus>> {
    Ok(control.runs(of).await?.iter().map(RunStatus::of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(state: &str, running: bool, silent_s: u64, phase: Phase) -> RunSummary {
        RunSummary {
            run_id: "r1".into(),
            table: "shop.orders".into(),
            state: state.into(),
            statement: "ALTER TABLE orders ADD a INT".into(),
            checkpoint: Checkpoint { phase, ..Checkpoint::begin() }.encode().unwrap(),
            created_at: "2026-01-01 00:00:00".into(),
            updated_at: "2026-01-01 00:00:01".into(),
            ended_at: None,
            silent_s,
            origin: String::new(),
            live: String::new(),
            record: String::new(),
            running,
        }
    }

    #[test]
    fn the_page_tells_every_field() {
        let given = vec![Given { name: "nice".into(), value: "50%".into() }];
        let live = Live {
            settings: given.clone(),
            worst: crate::report::tests::summary().worst,
            figures: crate::report::tests::figures(),
            ..Live::default()
        };
        let status = RunStatus {
            options: given,
            ended_at: Some("2026-01-01 00:00:09".into()),
            live: Some(live),
            verified: Some(Verdict::Equal),
            ..RunStatus::of(&run("open", true, 3, Phase::Copy))
        };
        crate::reference::must_tell("run", &serde_json::to_value(status).unwrap());
    }

    #[test]
    fn what_a_runner_published_is_shown_while_the_run_is_open() {
        let live = Live { by: "ann@ops1".into(), ..Live::default() }.write();
        let open = RunSummary { live: live.clone(), ..run("open", true, 3, Phase::Copy) };
        assert_eq!(RunStatus::of(&open).live.unwrap().by, "ann@ops1");
        let done = RunSummary { live, ..run("done", false, 3, Phase::Done) };
        assert_eq!(RunStatus::of(&done).live, None);
    }

    #[test]
    fn an_unattended_run_says_how_to_go_on_and_how_to_remove_it() {
        let status = RunStatus::of(&run("open", false, 3600, Phase::Copy));
        assert_eq!(status.standing, Standing::Unattended);
        assert_eq!(status.phase.as_deref(), Some("copy"));
        assert!(
            status.next.contains("underpin run") && status.next.contains("abort URL shop.orders")
        );
    }

    #[test]
    fn after_the_swap_abort_is_not_offered() {
        let status = RunStatus::of(&run("open", false, 9, Phase::Finish));
        assert!(!status.next.contains("abort"), "{}", status.next);
    }

    #[test]
    fn a_runner_without_a_sign_of_life_is_told_apart() {
        assert_eq!(RunStatus::of(&run("open", true, 3, Phase::Copy)).standing, Standing::Running);
        assert_eq!(RunStatus::of(&run("open", true, 300, Phase::Copy)).standing, Standing::Silent);
        assert_eq!(RunStatus::of(&run("done", false, 3, Phase::Done)).standing, Standing::Done);
    }

    #[test]
    fn what_is_not_proven_is_told_before_the_end() {
        let at = |phase, sampled| {
            let checkpoint = Checkpoint { phase, sampled, ..Checkpoint::begin() };
            let checkpoint = checkpoint.encode().unwrap();
            RunStatus::of(&RunSummary { checkpoint, ..run("open", true, 3, phase) }).verified
        };
        assert_eq!(at(Phase::Verify, false), None);
        assert_eq!(at(Phase::Verify, true), Some(Verdict::Sampled));
        assert_eq!(at(Phase::Finish, false), Some(Verdict::Skipped));
    }

    #[test]
    fn a_damaged_checkpoint_does_not_hide_the_run() {
        let mut damaged = run("open", false, 9, Phase::Copy);
        damaged.checkpoint.push('x');
        let status = RunStatus::of(&damaged);
        assert_eq!(status.phase, None);
        assert!(status.next.contains("damaged"), "{}", status.next);
    }
}
