//! What is left over of runs on a server: what may be removed, and removing it.
//!
//! Never anything of an open run: that is `abort`'s and `finish`'s. Never what nothing proves ours. What
//! belongs to a run that is not on record only where that is asked for: the account may not see the
//! record, or the state may stand in another schema. An old table that was kept holds rows: it goes only
//! where the run, or an age, is named.

use std::collections::BTreeMap;

use serde::Serialize;
use underpin_dialect::{
    Control, Database, ErrorKind, Leftover, LeftoverKind, LeftoverRun, Leftovers as _, Store as _,
};

use crate::error::EngineResult;

/// Which left-overs are meant, and which may be removed.
#[derive(Debug, Clone, Default)]
pub struct Sweep {
    /// Of this run only.
    pub run_id: Option<String>,
    /// Only what is at least this old, in seconds.
    pub older_than_s: Option<u64>,
    /// Whether to remove what belongs to a run that is not on record.
    pub remove_unknown: bool,
}

/// Whether a left-over may be removed, and if not why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It may.
    Removable,
    /// Its run is open.
    OpenRun,
    /// Its run is not on record, and it was not asked for.
    NotOnRecord,
    /// Nothing proves it ours.
    Unproven,
    /// It is an old table that was kept, and neither a run nor an age was named.
    Kept,
}

/// A left-over as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftoverView {
    /// What it is.
    pub kind: LeftoverKind,
    /// Schema or database that it stands in (`schema` is the version of the line).
    #[serde(rename = "namespace")]
    pub schema: String,
    /// Its name.
    pub name: String,
    /// The table that it was made for, as `schema.table`.
    pub table: String,
    /// The run.
    pub run_id: String,
    /// How the run stands: "open", "done", "aborted", "failed", or "unknown".
    pub run_state: String,
    /// Whether a program works on it.
    pub running: bool,
    /// Who began the run.
    pub by: String,
    /// When it was begun (UTC).
    pub created_at: String,
    /// Age in seconds.
    pub age_s: Option<u64>,
    /// Bytes on disk.
    pub bytes: Option<u64>,
    /// Rows, roughly.
    pub rows: Option<u64>,
    /// By what it is known as ours.
    pub proof: String,
    /// What would be lost with it.
    pub loses: String,
    /// Whether it may be removed.
    pub fate: Fate,
    /// What came of removing it: "removed", or why it was not; empty where it was not tried.
    pub outcome: String,
}

impl LeftoverView {
    fn of(leftover: &Leftover, sweep: &Sweep) -> Self {
        let run = leftover
            .run
            .clone()
            .unwrap_or_else(|| LeftoverRun { state: "unknown".into(), ..LeftoverRun::default() });
        Self {
            kind: leftover.kind,
            schema: leftover.schema.clone(),
            name: leftover.name.clone(),
            table: leftover.table.clone(),
            run_id: leftover.run_id.clone(),
            run_state: run.state,
            running: run.running,
            by: run.by,
            created_at: run.created_at,
            age_s: leftover.age_s,
            bytes: leftover.bytes,
            rows: leftover.rows,
            proof: leftover.proof.clone(),
            loses: loses(leftover.kind).to_owned(),
            fate: fate_of(leftover, sweep),
            outcome: String::new(),
        }
    }
}

fn loses(kind: LeftoverKind) -> &'static str {
    match kind {
        LeftoverKind::Retired => "the old table with its rows as they were at the swap",
        LeftoverKind::ReturnLog => "the way back: changes since the swap",
        LeftoverKind::Shadow => "a copy; the rows are in the table",
        LeftoverKind::Record => "the record of how far the run has come",
        LeftoverKind::Trigger
        | LeftoverKind::Function
        | LeftoverKind::Sentry
        | LeftoverKind::ChangeLog
        | LeftoverKind::Notes
        | LeftoverKind::Scratch
        | LeftoverKind::Schema
        | LeftoverKind::StateRows => "nothing",
    }
}

fn fate_of(leftover: &Leftover, sweep: &Sweep) -> Fate {
    if leftover.run.as_ref().is_some_and(|run| run.state == "open" || run.running) {
        Fate::OpenRun
    } else if leftover.proof.is_empty() {
        Fate::Unproven
    } else if leftover.run.is_none() && !sweep.remove_unknown {
        Fate::NotOnRecord
    } else if leftover.kind == LeftoverKind::Retired
        && sweep.run_id.is_none()
        && sweep.older_than_s.is_none()
    {
        Fate::Kept
    } else {
        Fate::Removable
    }
}

fn is_meant(leftover: &Leftover, sweep: &Sweep) -> bool {
    let of_run = sweep.run_id.as_ref().is_none_or(|run_id| *run_id == leftover.run_id);
    // What has no age that can be told is not old.
    let is_old =
        sweep.older_than_s.is_none_or(|least| leftover.age_s.is_some_and(|age| age >= least));
    of_run && is_old
}

/// Everything of ours that is meant, in the order in which it can be removed.
///
/// # Errors
/// The database's.
pub async fn leftovers<D: Database>(db: &D, sweep: &Sweep) -> EngineResult<Vec<LeftoverView>> {
    let mut control = db.control().await?;
    Ok(look(&mut control, sweep)
        .await?
        .iter()
        .map(|found| LeftoverView::of(found, sweep))
        .collect())
}

async fn look<C: Control>(control: &mut C, sweep: &Sweep) -> EngineResult<Vec<Leftover>> {
    let mut found = control.leftovers().await?;
    found.retain(|leftover| is_meant(leftover, sweep));
    found.sort_by(|a, b| {
        (&a.run_id, a.kind, &a.schema, &a.name).cmp(&(&b.run_id, b.kind, &b.schema, &b.name))
    });
    Ok(found)
}

/// Removes what was shown and may be removed, table by table under the runner's lock: nobody begins a run
/// on it meanwhile. Looked up anew under the lock, because a run may have begun since it was shown.
///
/// # Errors
/// The database's, where it cannot be reached. What could not be removed is told with each left-over.
pub async fn remove_leftovers<D: Database>(
    db: &D,
    shown: &[LeftoverView],
    sweep: &Sweep,
) -> EngineResult<Vec<LeftoverView>> {
    let mut control = db.control().await?;
    let mut groups: BTreeMap<Option<(String, String)>, Vec<Leftover>> = BTreeMap::new();
    for leftover in look(&mut control, sweep).await? {
        let is_shown =
            shown.iter().any(|view| is_same(&leftover, view) && view.fate == Fate::Removable);
        if is_shown {
            groups.entry(leftover.lock.clone()).or_default().push(leftover);
        }
    }
    drop(control);
    let mut outcomes = Vec::new();
    for (lock, wanted) in groups {
        outcomes.extend(remove_group(db, lock, wanted, sweep).await?);
    }
    Ok(outcomes)
}

fn is_same(leftover: &Leftover, view: &LeftoverView) -> bool {
    leftover.kind == view.kind
        && leftover.schema == view.schema
        && leftover.name == view.name
        && leftover.run_id == view.run_id
}

async fn remove_group<D: Database>(
    db: &D,
    lock: Option<(String, String)>,
    wanted: Vec<Leftover>,
    sweep: &Sweep,
) -> EngineResult<Vec<LeftoverView>> {
    // A session of its own: the lock goes with it.
    let mut control = db.control().await?;
    let mut busy = String::new();
    if let Some((schema, table)) = &lock {
        match control.acquire(schema, table).await {
            Ok(()) => {}
            Err(error) if error.kind == ErrorKind::Fenced => busy = error.to_string(),
            Err(error) => return Err(error.into()),
        }
    }
    let now = if busy.is_empty() { look(&mut control, sweep).await? } else { Vec::new() };
    let mut outcomes = Vec::new();
    // What could not be removed may still need what comes after it.
    let mut stopped: Option<String> = None;
    for leftover in wanted {
        let mut view = LeftoverView::of(&leftover, sweep);
        let found = now.iter().find(|other| is_same(other, &view));
        view.outcome = if !busy.is_empty() {
            busy.clone()
        } else if stopped.as_ref() == Some(&leftover.run_id) {
            "left alone: what depends on it could not be removed".to_owned()
        } else {
            match found {
                None => "gone by itself".to_owned(),
                Some(found) if fate_of(found, sweep) != Fate::Removable => {
                    "left alone: a run has begun that it belongs to".to_owned()
                }
                Some(found) => match control.remove_leftover(found).await {
                    Ok(()) => "removed".to_owned(),
                    Err(error) if error.is_ambiguous() => return Err(error.into()),
                    Err(error) => {
                        stopped = Some(leftover.run_id.clone());
                        error.to_string()
                    }
                },
            }
        };
        outcomes.push(view);
    }
    Ok(outcomes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leftover(kind: LeftoverKind, state: Option<&str>, proof: &str) -> Leftover {
        Leftover {
            kind,
            schema: "shop".into(),
            name: "t~up_log".into(),
            table: "shop.t".into(),
            lock: None,
            run_id: "r1".into(),
            run: state.map(|state| LeftoverRun {
                state: state.into(),
                by: "ann".into(),
                created_at: "2026-01-01 00:00:00".into(),
                running: false,
            }),
            proof: proof.into(),
            bytes: Some(1),
            rows: Some(1),
            age_s: Some(100),
        }
    }

    #[test]
    fn what_may_be_removed() {
        let log = LeftoverKind::ChangeLog;
        let plain = Sweep::default();
        let unknown = Sweep { remove_unknown: true, ..Sweep::default() };
        let named = Sweep { run_id: Some("r1".into()), ..Sweep::default() };
        for (found, sweep, fate) in [
            (leftover(log, Some("done"), "p"), &plain, Fate::Removable),
            (leftover(log, Some("open"), "p"), &unknown, Fate::OpenRun),
            (leftover(log, None, "p"), &plain, Fate::NotOnRecord),
            (leftover(log, None, "p"), &named, Fate::NotOnRecord),
            (leftover(log, None, "p"), &unknown, Fate::Removable),
            (leftover(log, None, ""), &unknown, Fate::Unproven),
            (leftover(LeftoverKind::Retired, Some("done"), "p"), &plain, Fate::Kept),
            (leftover(LeftoverKind::Retired, Some("done"), "p"), &named, Fate::Removable),
        ] {
            assert_eq!(fate_of(&found, sweep), fate, "{found:?}");
        }
    }

    #[test]
    fn age_and_run_choose() {
        let found = leftover(LeftoverKind::Shadow, Some("done"), "p");
        let older = |seconds| Sweep { older_than_s: Some(seconds), ..Sweep::default() };
        assert!(is_meant(&found, &older(100)) && !is_meant(&found, &older(101)));
        let ageless = Leftover { age_s: None, ..found.clone() };
        assert!(!is_meant(&ageless, &older(0)) && is_meant(&ageless, &Sweep::default()));
        assert!(!is_meant(&found, &Sweep { run_id: Some("r2".into()), ..Sweep::default() }));
    }

    #[test]
    fn the_page_tells_every_field() {
        let found = leftover(LeftoverKind::Shadow, Some("done"), "p");
        let view = LeftoverView::of(&found, &Sweep::default());
        crate::reference::must_tell("leftover", &serde_json::to_value(view).unwrap());
    }
}
