//! The checker: what the application was promised, what is in the tables, and whether the two agree.
//!
//! Independent on purpose. It keeps its own model from the writers' acknowledgements, its own image of
//! the change, and its own account of what has been copied from the marks that committed. It asks the
//! machine nothing and shares no reasoning with the operations. Reading the server's tables is all it
//! does with the server.

mod blocks;
mod draws;
mod ending;

use std::collections::{BTreeMap, BTreeSet};

use underpin_core::checkpoint::{Checkpoint, Phase};
use underpin_core::way::Way;

use crate::db::{AppRow, Clash, Commit, Db, Index, Mark, Object, Row, RowKey, Rows, Rules};
use crate::report::{Breach, Invariant};
use draws::Draws;
pub(crate) use ending::Circumstances;

/// Something that a writer did in a transaction that committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Insert(RowKey, AppRow),
    SetUniq(RowKey, Option<i64>),
    SetValue(RowKey, i64),
    MoveKey(RowKey, RowKey),
    Delete(RowKey),
    Clear,
}

/// What else is known of a commit of ours.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct About {
    /// The commit up to which its snapshot reached.
    pub(crate) snapshot_no: u64,
    /// For a chunk that was taken together with the log: where its round ends. Rows of chunks that are
    /// still to be taken may be written up to there. The inner `None` is the end of the table.
    pub(crate) redo_to: Option<Option<RowKey>>,
    /// It took everything that was pending out of the shadow.
    pub(crate) is_settled: bool,
}

type Model = BTreeMap<RowKey, AppRow>;

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Checker {
    rules: Rules,
    is_by_blocks: bool,
    began_with: Model,
    model: Model,
    history: Vec<(u64, Vec<Change>)>,
    /// Stretches of keys whose chunks have committed.
    covered: Vec<Mark>,
    /// Every key counts as copied.
    is_all_covered: bool,
    /// Keys of uncovered stretches that a redone chunk wrote along.
    ahead: BTreeSet<RowKey>,
    /// Keys of dropped entries: the last commit that dropped one.
    dropped: BTreeMap<RowKey, u64>,
    /// What only the new shape has, and what only the old one.
    draws: Draws,
    old_draws: Draws,
    /// Keys whose shadow rows somebody has changed behind our back: unequal until they are repaired.
    spoiled: BTreeSet<RowKey>,
    is_capturing: bool,
    is_swapped: bool,
    /// What a swap replaces stays and is kept up to date.
    keeps_way_back: bool,
    /// Which table is live by the swaps that were made.
    pub(super) stands: Object,
    /// Which table people want to be live, whether work towards it has begun, and whether it may have been
    /// given up since.
    goal: Option<Object>,
    is_begun: bool,
    may_be_left: bool,
    /// Keys of rows that came late to the table that was live before.
    late: BTreeSet<RowKey>,
    is_tampered: bool,
    /// The commit up to which the last settling saw.
    settled_no: u64,
    /// Violations that were proven real since the running program began.
    violations: u64,
    breach: Option<Breach>,
    pub(crate) rows_checked: u64,
}

impl Checker {
    pub(crate) fn new(
        rules: Rules,
        volatile: bool,
        rows: impl Iterator<Item = (RowKey, AppRow)>,
    ) -> Self {
        let model: Model = rows.collect();
        Self {
            rules,
            is_by_blocks: false,
            began_with: model.clone(),
            model,
            history: Vec::new(),
            covered: Vec::new(),
            is_all_covered: false,
            ahead: BTreeSet::new(),
            dropped: BTreeMap::new(),
            draws: Draws::new(volatile),
            old_draws: Draws::new(true),
            spoiled: BTreeSet::new(),
            is_capturing: false,
            is_swapped: false,
            keeps_way_back: false,
            stands: Object::Original,
            goal: None,
            is_begun: false,
            may_be_left: false,
            late: BTreeSet::new(),
            is_tampered: false,
            settled_no: 0,
            violations: 0,
            breach: None,
            rows_checked: 0,
        }
    }

    /// The same for a copy by blocks.
    pub(crate) fn by_blocks(self) -> Self {
        Self { is_by_blocks: true, ..self }
    }

    /// The same for a run that keeps the way back.
    pub(crate) fn keeps_way_back(self) -> Self {
        Self { keeps_way_back: true, ..self }
    }

    /// People want this table to be live, or, with `None`, the run to end with the one that is.
    pub(crate) fn turn_asked(&mut self, goal: Option<Object>) {
        if let Some(goal) = goal {
            self.goal = Some(goal);
            self.is_begun = false;
        }
        self.may_be_left = false;
    }

    /// A program works on what people want.
    pub(crate) fn turn_begun(&mut self) {
        self.is_begun = true;
    }

    /// A turn that is under way may be left.
    pub(crate) fn may_be_left(&mut self) {
        self.may_be_left = true;
    }

    /// A row has come late to the table that was live: until what came late is applied it is missing.
    pub(crate) fn late(&mut self, key: RowKey) {
        self.late.insert(key);
    }

    /// What came late has been applied.
    pub(crate) fn arrived(&mut self) {
        self.late.clear();
    }

    fn draws_of(&mut self, object: Object) -> &mut Draws {
        if object == Object::Shadow { &mut self.draws } else { &mut self.old_draws }
    }

    /// The first promise that was not kept.
    pub(crate) fn breach(&self) -> Option<&Breach> {
        self.breach.as_ref()
    }

    /// Notes a broken promise; the first one counts.
    pub(crate) fn report(&mut self, invariant: Invariant, what: String) {
        self.breach.get_or_insert(Breach { invariant, what });
    }

    /// A writer was told that its transaction has committed, as the commit of this number.
    pub(crate) fn acknowledged(&mut self, no: u64, changes: &[Change]) {
        for change in changes {
            perform(&mut self.model, *change);
            self.draws.changed(*change);
            self.old_draws.changed(*change);
        }
        self.history.push((no, changes.to_vec()));
    }

    /// The capture triggers stand, all of them.
    pub(crate) fn capture_began(&mut self) {
        self.forget_run();
        self.is_capturing = true;
    }

    /// We remove the triggers, before a swap: what the shadow holds means nothing any more.
    pub(crate) fn capture_ended(&mut self) {
        self.is_capturing = false;
    }

    /// Shadow and log are gone.
    pub(crate) fn forget_run(&mut self) {
        self.covered.clear();
        self.is_all_covered = false;
        self.ahead.clear();
        self.dropped.clear();
        self.spoiled.clear();
        self.draws.forget();
        self.is_capturing = false;
        self.is_tampered = false;
        self.is_swapped = false;
        self.goal = None;
    }

    /// Somebody else has touched the table while we captured its changes.
    pub(crate) fn tampered(&mut self) {
        self.is_tampered |= self.is_capturing;
    }

    /// Somebody has changed the shadow's row of this key: it is unequal until it is repaired, and must
    /// be equal at the swap.
    pub(crate) fn spoiled(&mut self, key: RowKey) {
        self.spoiled.insert(key);
    }

    /// A program begins to run the machine.
    pub(crate) fn runner_began(&mut self) {
        self.violations = 0;
    }

    fn is_covered(&self, key: RowKey) -> bool {
        self.is_all_covered || self.covered.iter().any(|mark| lies_in(key, mark))
    }

    /// A transaction of ours has committed.
    pub(crate) fn committed(&mut self, commit: &Commit, about: About) {
        let touches_live = match self.stands {
            Object::Original => !commit.original_keys.is_empty(),
            Object::Shadow | Object::Sentry => commit.touches_shadow,
        };
        // A row that came late is written to where it belongs.
        if touches_live && self.late.is_empty() {
            let (old, new) = (&commit.original_keys, &commit.shadow_puts);
            let what = format!("we wrote keys {old:?} or {new:?} to the live {:?}", self.stands);
            self.report(Invariant::SourceUntouched, what);
        }
        for mark in &commit.marks {
            self.chunk_committed(commit, *mark, about);
        }
        // By blocks a row may be copied twice, and its key says nothing about where it is.
        let by_keys = commit.shadow_puts.iter().filter(|_| !self.is_by_blocks);
        for key in by_keys.copied().collect::<Vec<_>>() {
            let may_be_ahead = about.redo_to.is_some_and(|end| end.is_none_or(|end| key <= end));
            if self.is_covered(key) {
                continue;
            }
            if may_be_ahead {
                self.ahead.insert(key);
            } else {
                let what = format!("commit {}: key {key} was written, not copied yet", commit.no);
                self.report(Invariant::Frontier, what);
            }
        }
        for key in &commit.entries_gone {
            if !self.is_by_blocks && !self.is_covered(*key) {
                self.dropped.insert(*key, commit.no);
            }
        }
        if about.is_settled {
            self.settled(about.snapshot_no);
        }
        if let Some(definition) = commit.definition {
            self.defined(definition);
        }
        if let Some(text) = &commit.checkpoint {
            match Checkpoint::decode(text) {
                Ok(checkpoint) => self.is_all_covered |= checkpoint.phase > Phase::Copy,
                Err(error) => self.report(Invariant::ExactChunks, error.to_string()),
            }
        }
    }

    fn chunk_committed(&mut self, commit: &Commit, mark: Mark, about: About) {
        let name = format!("chunk {} of round {}", mark.index, mark.round);
        if let Some(other) = self.covered.iter().find(|other| overlap(other, &mark)) {
            let what = format!("{name} was copied again: {mark:?} after {other:?}");
            self.report(Invariant::ExactChunks, what);
        }
        let by_blocks = self.is_by_blocks;
        let rows =
            commit.shadow_puts.iter().filter(|key| by_blocks || lies_in(**key, &mark)).count();
        if u64::try_from(rows) != Ok(mark.rows) {
            let what = format!("{name} is marked with {} rows, {rows} came with it", mark.rows);
            self.report(Invariant::ExactChunks, what);
        }
        let late = self
            .dropped
            .iter()
            .find(|(key, no)| lies_in(**key, &mark) && **no > about.snapshot_no)
            .map(|(key, no)| (*key, *no));
        if let Some((key, no)) = late {
            let what = format!(
                "{name} has a snapshot of commit {}, an entry of its key {key} was dropped in {no}",
                about.snapshot_no
            );
            self.report(Invariant::Frontier, what);
        }
        self.covered.push(mark);
    }

    /// The table under the application's name holds what the application was promised.
    pub(crate) fn live(&mut self, db: &Db, invariant: Invariant) {
        let Some(object) = db.live() else {
            self.report(Invariant::AtomicSwap, "no table bears the source's name".to_owned());
            return;
        };
        let Some(rows) = db.tables.get(&object) else {
            self.report(invariant, format!("{object:?} has the source's name and is gone"));
            return;
        };
        self.rows_checked += u64::try_from(rows.len()).unwrap_or(0);
        let differs = differing(rows, &self.model, &self.late, |row| shaped(object, row));
        if let Some(key) = differs {
            let (promised, found) = (self.model.get(&key), rows.get(&key));
            let what = format!("key {key}: promised {promised:?}, {object:?} holds {found:?}");
            self.report(invariant, what);
        }
        if let Err(what) = self.draws_of(object).look(rows, |_| false) {
            self.report(Invariant::FirstDraw, what);
        }
    }

    /// Nothing of ours is in flight.
    pub(crate) fn quiet(&mut self, db: &Db) {
        let invariant =
            if self.is_swapped { Invariant::AtomicSwap } else { Invariant::SourceUntouched };
        self.live(db, invariant);
        if self.is_tampered || !self.is_capturing {
            return;
        }
        let (live, other) = match self.stands {
            Object::Original => (Object::Original, Object::Shadow),
            Object::Shadow | Object::Sentry => (Object::Shadow, Object::Original),
        };
        let Some(shadow) = db.tables.get(&other) else { return };
        let mut pending = Self::pending(db, live);
        pending.extend(&self.late);
        if let Some(heaps) = &db.heaps {
            // The run is to be begun again; until then the shadow means nothing.
            if heaps.log(live).is_truncated() {
                return;
            }
            if !db.shadow_indexed {
                return self.quiet_bag(heaps, &pending);
            }
        }
        let keys: BTreeSet<RowKey> = shadow.keys().chain(self.model.keys()).copied().collect();
        for key in keys {
            self.rows_checked += 1;
            let found = shadow.get(&key).map(|row| (row.uniq, row.value));
            let is_pending = pending.contains(&key);
            let must_be_there = self.is_by_blocks || self.is_covered(key);
            if !must_be_there && found.is_some() && !self.ahead.contains(&key) {
                self.report(
                    Invariant::Frontier,
                    format!("key {key} is in the shadow, not copied yet"),
                );
            }
            let is_equal = found == self.model.get(&key).and_then(|row| shaped(other, *row));
            if is_equal {
                self.spoiled.remove(&key);
            }
            let is_excused = is_pending || self.spoiled.contains(&key);
            if !is_equal && !is_excused && (must_be_there || found.is_some()) {
                let promised = self.model.get(&key);
                let what =
                    format!("key {key}: promised {promised:?}, {other:?} {found:?}, not pending");
                self.report(Invariant::EqualOrPending, what);
            }
        }
        if let Err(what) = self.draws_of(other).look(shadow, |key| pending.contains(&key)) {
            self.report(Invariant::FirstDraw, what);
        }
    }

    /// The rename has happened, this instant.
    pub(crate) fn swapped(&mut self, db: &Db, live: Object) {
        if self.is_tampered {
            let what = "swapped although somebody had touched the source".to_owned();
            self.report(Invariant::RightEnding, what);
        }
        if !self.is_swapped {
            // From here on the application sees what was drawn.
            self.draws.begin();
        }
        self.is_swapped = true;
        self.stands = live;
        self.is_capturing &= self.keeps_way_back;
        self.live(db, Invariant::AtomicSwap);
    }

    fn state_at(&self, no: u64) -> Model {
        let mut state = self.began_with.clone();
        let until = self.history.iter().take_while(|(at, _)| *at <= no);
        for change in until.flat_map(|(_, changes)| changes) {
            perform(&mut state, *change);
        }
        state
    }

    /// Our work ends because of this clash, met in the snapshot of commit `no`.
    pub(crate) fn clash(&mut self, clash: Clash, no: u64) {
        if self.is_tampered || is_real(&self.state_at(no), clash, self.rules) {
            self.violations += 1;
        } else {
            let what = format!("{clash:?} is no violation in the source of commit {no}");
            self.report(Invariant::RealViolation, what);
        }
    }

    /// Our work ends because of this clash, met as indexes were built.
    pub(crate) fn clash_of_some_time(&mut self, clash: Clash) {
        let mut state = self.began_with.clone();
        let mut real = self.is_tampered || is_real(&state, clash, self.rules);
        for (_, changes) in &self.history {
            for change in changes {
                perform(&mut state, *change);
            }
            real |= is_real(&state, clash, self.rules);
        }
        if real {
            self.violations += 1;
        } else {
            let what = format!("{clash:?} was at no time a violation in the source");
            self.report(Invariant::RealViolation, what);
        }
    }

    /// Our work ends because the value of this key does not fit, in the snapshot of commit `no`.
    pub(crate) fn unfit(&mut self, key: RowKey, no: u64, way: Way) {
        let row = self.state_at(no).get(&key).copied();
        let most = match way {
            Way::Forward => self.rules.fit_max,
            Way::Back => self.rules.old_fit_max,
        };
        let is_real = row.is_some_and(|row| most.is_some_and(|most| row.value > most));
        if !is_real && !self.is_tampered {
            let what = format!("key {key} fits: {row:?} in commit {no}");
            self.report(Invariant::RealViolation, what);
        }
        self.violations += 1;
    }
}

/// What the change makes of a row; told apart from the server's own conversion on purpose.
fn image(row: AppRow) -> Option<(Option<i64>, i64)> {
    let tens = row.value.checked_mul(10)?;
    Some((row.uniq, tens.checked_add(7)?))
}

/// A row as it must be in this table.
fn shaped(object: Object, row: AppRow) -> Option<(Option<i64>, i64)> {
    if object == Object::Shadow { image(row) } else { Some((row.uniq, row.value)) }
}

fn differing(
    rows: &Rows,
    model: &Model,
    excused: &BTreeSet<RowKey>,
    expect: impl Fn(AppRow) -> Option<(Option<i64>, i64)>,
) -> Option<RowKey> {
    let wrong = |key: &RowKey, row: &Row| {
        model.get(key).and_then(|row| expect(*row)) != Some((row.uniq, row.value))
    };
    let surplus = rows.iter().find(|(key, row)| wrong(key, row)).map(|(key, _)| *key);
    let missing = |key: &&RowKey| !rows.contains_key(key) && !excused.contains(key);
    surplus.or_else(|| model.keys().find(missing).copied())
}

fn perform(model: &mut Model, change: Change) {
    match change {
        Change::Insert(key, row) => {
            model.insert(key, row);
        }
        Change::SetUniq(key, uniq) => {
            if let Some(row) = model.get_mut(&key) {
                row.uniq = uniq;
            }
        }
        Change::SetValue(key, value) => {
            if let Some(row) = model.get_mut(&key) {
                row.value = value;
            }
        }
        Change::MoveKey(from, to) => {
            if let Some(row) = model.remove(&from) {
                model.insert(to, row);
            }
        }
        Change::Delete(key) => {
            model.remove(&key);
        }
        Change::Clear => model.clear(),
    }
}

fn is_real(state: &Model, clash: Clash, rules: Rules) -> bool {
    let (Some(one), Some(other)) = (state.get(&clash.key), state.get(&clash.holder)) else {
        return false;
    };
    clash.key != clash.holder
        && match clash.index {
            Index::Key => false,
            Index::Uniq => one.uniq.is_some() && one.uniq == other.uniq,
            Index::Value => rules.new_unique && one.value == other.value,
        }
}

fn lies_in(key: RowKey, mark: &Mark) -> bool {
    mark.after.is_none_or(|after| key > after) && mark.up_to.is_none_or(|up_to| key <= up_to)
}

fn overlap(one: &Mark, other: &Mark) -> bool {
    let ends_before = |one: &Mark, other: &Mark| match (one.up_to, other.after) {
        (Some(up_to), Some(after)) => up_to <= after,
        _ => false,
    };
    !ends_before(one, other) && !ends_before(other, one)
}

#[cfg(test)]
mod tests;
