//! The log of changed keys: settling after the copy, applying in one snapshot, draining at the swap.
//!
//! Entries are never deleted, and never taken in the order of anything: an entry that commits late is
//! taken late. What has been taken is told by a snapshot that is kept with the run: pending is what
//! this transaction sees and that snapshot did not. Under REPEATABLE READ this transaction sees log and
//! source at one moment, so what it writes is part of one consistent state, and no unique value can
//! clash that does not clash in the source too.
//!
//! Where more is pending than one transaction should write, it deletes the shadow's rows of all
//! pending keys and notes the keys as "to do"; then they are written in parts, each in a snapshot of
//! its own that first takes out what became pending since. For everybody else a key that is to do is a
//! pending one.

use std::time::{Duration, Instant};

use underpin_core::key::Frontier;
use underpin_core::machine::Applied;
use underpin_core::plan::RunSpec;
use underpin_dialect::{ChangeLog, DbError, DbResult, ErrorKind};

use crate::connect::{Session, our_meanings, users_meanings};
use crate::query::{cell, first, literal, number, run};
use crate::shape::Shape;
use crate::worker::Worker;
use crate::{diagnose, kept, names};

/// Blocks of the shadow that the first transaction of settling reads, and the fewest.
const SETTLE_BLOCKS_START: u64 = 8192;
const SETTLE_BLOCKS_MIN: u64 = 256;

/// How long such a transaction should last, in milliseconds: no snapshot of ours shall grow old.
const SETTLE_MS: std::ops::Range<u128> = 150..600;

/// Entries that are drained under the lock at most: far fewer than a second's work, so that a longer log
/// is found out before the application has waited for it.
const DRAIN_ENTRIES_MAX: u64 = 5000;

impl ChangeLog for Worker {
    /// The frontier does not matter here: the log is kept until the copy is done.
    async fn apply(&mut self, _frontier: &Frontier, keys_max: u64) -> DbResult<Applied> {
        let begun = Instant::now();
        let noted = self.shorten_log(true).await?;
        match self.apply_in_transaction(keys_max).await {
            Ok(mut applied) => {
                self.commit().await?;
                applied.entries = applied.entries.saturating_add(noted);
                applied.took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                Ok(applied)
            }
            Err(error) => {
                self.roll_back(&error).await?;
                match error.kind {
                    ErrorKind::DataError => Err(diagnose::pending_value(self, error).await),
                    ErrorKind::DuplicateKey => {
                        Err(diagnose::duplicate(&self.session, &self.shape, error).await)
                    }
                    _ => Err(error),
                }
            }
        }
    }

    /// Each application takes all other pending rows out of the shadow.
    async fn apply_and_clear(&mut self, frontier: &Frontier, keys_max: u64) -> DbResult<Applied> {
        self.apply(frontier, keys_max).await
    }

    /// First all pending keys are to do, in one snapshot; then their rows are taken out of the shadow,
    /// some blocks in each transaction: it has no index yet, and may be long. What becomes pending
    /// meanwhile is left for `apply`: each row that stays is as it was in that first snapshot.
    async fn settle(&mut self) -> DbResult<u64> {
        self.shorten_log(false).await?;
        let noted = self.note_pending().await;
        if self.ended(noted).await? == 0 {
            return Ok(0);
        }
        let object = self.shape.table.clone();
        let sql = format!(
            "SELECT pg_relation_size({}::regclass) / current_setting('block_size')::bigint",
            literal(&self.shape.places.shadow)?
        );
        let blocks = number(&self.session, &sql, "measuring the shadow of", &object).await?;
        let mut rows = 0;
        let (mut from, mut step) = (0, SETTLE_BLOCKS_START);
        while from < blocks {
            let begun = Instant::now();
            let part = self.settle_part(from, from + step).await;
            rows += self.ended(part).await?;
            from += step;
            let took_ms = begun.elapsed().as_millis();
            if took_ms < SETTLE_MS.start {
                step = step.saturating_mul(2);
            } else if took_ms > SETTLE_MS.end {
                step = std::cmp::max(step / 2, SETTLE_BLOCKS_MIN);
            }
        }
        Ok(rows)
    }
}

impl Worker {
    async fn apply_in_transaction(&mut self, keys_max: u64) -> DbResult<Applied> {
        let object = self.shape.table.clone();
        self.begin_snapshot().await?;
        // Every statement goes by an index; figures for the log are always out of date.
        run(&self.session, "SET LOCAL enable_seqscan = off", "setting up for", &object).await?;
        let pending = Pending::read(&self.session, &self.shape).await?;
        if pending.entries == 0 && pending.to_do == 0 {
            return Ok(Applied::default());
        }
        let applied = write(&self.session, &self.shape, &pending, keys_max).await?;
        // A deferred constraint would speak only when the transaction commits.
        let sql = "SET CONSTRAINTS ALL IMMEDIATE";
        run(&self.session, sql, "applying changes to", &object).await?;
        Ok(applied)
    }

    /// Makes everything pending a thing to do; returns how many keys are to do now.
    async fn note_pending(&mut self) -> DbResult<u64> {
        let object = self.shape.table.clone();
        self.begin_snapshot().await?;
        let pending = Pending::read(&self.session, &self.shape).await?;
        if pending.entries > 0 {
            let sql = format!("{}; {}", to_do_sql(&self.shape), advance_sql(&self.shape));
            run(&self.session, &sql, "settling the shadow of", &object).await?;
        }
        Ok(pending.to_do + pending.keys)
    }

    /// Takes the rows of all keys that are to do out of some blocks of the shadow.
    async fn settle_part(&mut self, from: u64, until: u64) -> DbResult<u64> {
        let object = self.shape.table.clone();
        self.begin().await?;
        let shape = &self.shape;
        let sql = format!(
            "DELETE FROM {} AS underpin_n USING {} AS underpin_p WHERE underpin_n.ctid >= \
             '({from},0)'::tid AND underpin_n.ctid < '({},0)'::tid AND {}",
            shape.places.shadow,
            shape.todo,
            // A block number has 32 bits.
            std::cmp::min(until, u64::from(u32::MAX)),
            shape.shadow_meets()
        );
        run(&self.session, &sql, "settling the shadow of", &object).await
    }

    /// Ends the transaction of a piece of work.
    pub(crate) async fn ended<T>(&mut self, done: DbResult<T>) -> DbResult<T> {
        match done {
            Ok(value) => {
                self.commit().await?;
                Ok(value)
            }
            Err(error) => {
                self.roll_back(&error).await?;
                Err(error)
            }
        }
    }
}

/// What is pending in this transaction's snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pending {
    /// Log entries that no snapshot has taken.
    entries: u64,
    /// Their distinct keys.
    keys: u64,
    /// Keys that were taken out of the shadow before and are not written yet.
    to_do: u64,
}

impl Pending {
    /// # Errors
    /// `Truncated` where the marker is among the entries: keys around it mean nothing any more.
    async fn read(session: &Session, shape: &Shape) -> DbResult<Self> {
        let sql = format!(
            "SELECT coalesce(sum(times), 0), count(*), \
             (SELECT count(*) FROM {}), coalesce(bool_or(k0 IS NOT DISTINCT FROM NULL), \
             false) FROM (SELECT {}, count(*) AS times FROM {} AS l WHERE {} GROUP BY {}) \
             AS p",
            shape.todo,
            shape.log_key("l."),
            shape.places.log,
            is_pending(shape),
            shape.log_key("l."),
        );
        let attempted = "reading the pending changes of";
        let row = first(session, &sql, attempted, &shape.table).await?;
        let Some(row) = row else {
            return Err(DbError::new(ErrorKind::Other, attempted, shape.table.clone()));
        };
        if crate::query::flag(&row, 3) {
            return Err(truncated(shape));
        }
        Ok(Self {
            entries: cell(&row, 0, attempted)?,
            keys: cell(&row, 1, attempted)?,
            to_do: cell(&row, 2, attempted)?,
        })
    }
}

/// Makes the shadow's rows of the pending keys equal to the source's, `keys_max` of them at most, and
/// takes all others out. In one transaction and one snapshot (or under the source's lock).
async fn write(
    session: &Session,
    shape: &Shape,
    pending: &Pending,
    keys_max: u64,
) -> DbResult<Applied> {
    let object = &shape.table;
    let attempted = "applying changes to";
    // All pending keys first, then the rows: never an upsert, which eats other rows on a unique clash.
    if pending.entries > 0 {
        run(session, &delete_sql(shape), attempted, object).await?;
    }
    let mut applied = Applied { entries: pending.entries, ..Applied::default() };
    if pending.to_do == 0 && pending.keys <= keys_max {
        run(session, &insert_sql(shape, &pending_keys(shape)), attempted, object).await?;
        applied.keys = pending.keys;
    } else {
        if pending.entries > 0 {
            run(session, &to_do_sql(shape), attempted, object).await?;
        }
        run(session, &write_part_sql(shape, keys_max), attempted, object).await?;
        let left = format!("SELECT count(*) FROM {}", shape.todo);
        applied.left = number(session, &left, "counting what is to do for", object).await?;
        applied.keys = pending.to_do.saturating_add(pending.keys).saturating_sub(applied.left);
    }
    if pending.entries > 0 {
        run(session, &advance_sql(shape), attempted, object).await?;
    }
    Ok(applied)
}

/// Applies everything pending on the swap's own connection, inside its transaction and under the
/// source's exclusive lock, so that nothing becomes pending meanwhile. Returns the entries applied;
/// `None` where the budget did not suffice: then the transaction may have failed and is to be rolled back.
///
/// The transaction must be READ COMMITTED: an older snapshot would not see the last entries.
///
/// # Errors
/// `Truncated`; `DuplicateKey` and `DataError` for what the new shape cannot hold: roll back, and let an
/// application name the rows.
pub(crate) async fn drain(
    session: &Session,
    shape: &Shape,
    budget: Duration,
) -> DbResult<Option<u64>> {
    let object = &shape.table;
    let budget_ms = std::cmp::max(budget.as_millis(), 1);
    let row = first(
        session,
        "SELECT current_setting('role'), current_setting('statement_timeout')",
        "preparing the last drain of",
        object,
    )
    .await?;
    let (role, statement_timeout) = row
        .map(|row| (crate::query::text(&row, 0), crate::query::text(&row, 1)))
        .unwrap_or_default();
    let sql = format!(
        "SET LOCAL ROLE {}; {}; SET LOCAL jit = off; SET LOCAL enable_seqscan = off; \
         SET LOCAL statement_timeout = {budget_ms}",
        shape.owner,
        users_meanings()
    );
    run(session, &sql, "preparing the last drain of", object).await?;
    let begun = Instant::now();
    let drained = match drain_all(session, shape).await {
        Err(error) if error.kind == ErrorKind::Cancelled => return Ok(None),
        other => other?,
    };
    let Some(drained) = drained.filter(|_| begun.elapsed() <= budget) else { return Ok(None) };
    // A deferred constraint would leave events behind, and no table with such can be altered.
    let sql = format!(
        "SET CONSTRAINTS ALL IMMEDIATE; SET LOCAL enable_seqscan = on; {}; \
         SET LOCAL statement_timeout = {}; SET LOCAL ROLE {}",
        our_meanings(),
        literal(&statement_timeout)?,
        crate::query::quote(&role)?
    );
    run(session, &sql, "ending the last drain of", object).await?;
    Ok(Some(drained))
}

/// `None` where there is more than any budget allows for.
async fn drain_all(session: &Session, shape: &Shape) -> DbResult<Option<u64>> {
    let pending = Pending::read(session, shape).await?;
    if pending.entries == 0 && pending.to_do == 0 {
        return Ok(Some(0));
    }
    if pending.entries.saturating_add(pending.to_do) > DRAIN_ENTRIES_MAX {
        return Ok(None);
    }
    let applied = write(session, shape, &pending, DRAIN_ENTRIES_MAX).await?;
    Ok(Some(applied.entries))
}

/// The statement that counts entries waiting and keys to do, each up to `at_most`: for telling how long
/// the log is, by an account that may read the run's schema.
///
/// # Errors
/// A name that no identifier can have.
pub(crate) fn backlog_sql(spec: &RunSpec, at_most: u64) -> DbResult<String> {
    let log = names::places(spec)?.log;
    let (todo, state) = (names::own_place(spec, "todo")?, names::own_place(spec, "state")?);
    let entries = entries_sql(&log, &state, at_most);
    Ok(format!(
        "SET LOCAL enable_seqscan = off; SELECT ({entries}) + (SELECT count(*) FROM (SELECT 1 FROM {todo} \
         LIMIT {at_most}) AS t)"
    ))
}

/// SELECT of the number of pending entries, `at_most` and a bit. Two ranges of the log's index, one after
/// the other: each stops at the limit.
pub(crate) fn entries_sql(log: &str, state: &str, at_most: u64) -> String {
    format!(
        "SELECT count(*) FROM ((SELECT 1 FROM {log} AS l WHERE l.xid >= (SELECT \
         pg_snapshot_xmax(applied) FROM {state}) LIMIT {at_most}) UNION ALL (SELECT 1 FROM {log} AS l \
         WHERE l.xid = ANY (ARRAY(SELECT pg_snapshot_xip(applied) FROM {state})) LIMIT {at_most})) AS p"
    )
}

/// What is left where the other table cannot be made equal to the one that is live.
pub(crate) const NOT_TO_BE_FOLLOWED: &str = "The other table cannot follow any more: the one that is live \
    stays. `underpin finish` ends the run and removes the other one";

/// Counts the markers of a `TRUNCATE` in the log.
pub(crate) fn markers_sql(shape: &Shape) -> String {
    format!("SELECT count(*) FROM {} AS l WHERE l.k0 IS NOT DISTINCT FROM NULL", shape.places.log)
}

/// The error of a run whose source was emptied.
pub(crate) fn truncated(shape: &Shape) -> DbError {
    let help = match shape.kept {
        None => "Abort the run and start it again: the table is small now",
        // Both tables were live: there is nothing to begin again.
        Some(_) => NOT_TO_BE_FOLLOWED,
    };
    DbError::new(ErrorKind::Truncated, "following the changes of", shape.table.clone())
        .said("the table was emptied by TRUNCATE")
        .help(help)
}

/// Whether the entry `l` is not among those that have been taken.
///
/// An entry was not seen by a snapshot if its transaction was in progress then, or had not begun.
/// Whether it is seen now is the server's own business: this statement reads it, or not. Both ways are
/// ranges of the log's index, so a long transaction elsewhere does not make reading slow.
pub(crate) fn is_pending(shape: &Shape) -> String {
    format!(
        "(l.xid >= (SELECT pg_snapshot_xmax(applied) FROM {state}) OR l.xid = ANY (ARRAY(SELECT \
         pg_snapshot_xip(applied) FROM {state})))",
        state = shape.state
    )
}

/// The distinct pending keys, as a table expression.
pub(crate) fn pending_keys(shape: &Shape) -> String {
    format!(
        "(SELECT DISTINCT {} FROM {} AS l WHERE {} AND l.k0 IS DISTINCT FROM NULL)",
        shape.log_key("l."),
        shape.places.log,
        is_pending(shape)
    )
}

/// Takes the rows of all pending keys out of the shadow. By way of their places, so that the server
/// goes by the key's index whatever it thinks of the log's length.
pub(crate) fn delete_sql(shape: &Shape) -> String {
    delete_keys_sql(shape, &pending_keys(shape))
}

/// The same for any keys.
pub(crate) fn delete_keys_sql(shape: &Shape, keys: &str) -> String {
    let shadow = &shape.places.shadow;
    let delete = format!(
        "DELETE FROM {shadow} WHERE ctid = ANY (ARRAY(SELECT underpin_n.ctid FROM {keys} AS underpin_p \
         CROSS JOIN LATERAL (SELECT underpin_n.ctid FROM {shadow} AS underpin_n WHERE {} LIMIT 1) \
         AS underpin_n))",
        shape.shadow_meets()
    );
    kept::taken_out(shape, &delete)
}

/// Writes the source's rows of these keys, where they are present. The limit makes it one look-up by
/// the key's index for each.
fn insert_sql(shape: &Shape, keys: &str) -> String {
    if let Some(kept) = &shape.kept {
        return kept::write_sql(shape, kept, &format!("SELECT * FROM {keys} AS underpin_p"));
    }
    plain_insert_sql(shape, keys, "")
}

fn plain_insert_sql(shape: &Shape, keys: &str, with: &str) -> String {
    format!(
        "{with}INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT underpin_v.* FROM {keys} AS \
         underpin_p CROSS JOIN LATERAL (SELECT {} FROM ONLY {} WHERE {} LIMIT 1) AS underpin_v",
        shape.places.shadow,
        shape.targets(),
        shape.values(),
        shape.places.source,
        shape.source_meets()
    )
}

/// Notes the pending keys as to do, those that are not yet.
fn to_do_sql(shape: &Shape) -> String {
    to_do_keys_sql(shape, &pending_keys(shape))
}

/// The same for any keys.
pub(crate) fn to_do_keys_sql(shape: &Shape, keys: &str) -> String {
    let same: Vec<String> = shape
        .key
        .iter()
        .map(|part| format!("t.{0} {1} underpin_p.{0}", part.log, part.equal))
        .collect();
    format!(
        "INSERT INTO {todo} ({}) SELECT {} FROM {keys} AS underpin_p WHERE NOT EXISTS (SELECT 1 FROM \
         {todo} AS t WHERE {})",
        shape.log_key(""),
        shape.log_key("underpin_p."),
        same.join(" AND "),
        todo = shape.todo
    )
}

/// Writes the rows of some keys that are to do.
fn write_part_sql(shape: &Shape, keys_max: u64) -> String {
    let taken = format!(
        "DELETE FROM {todo} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {todo} LIMIT {keys_max})) \
         RETURNING {}",
        shape.log_key(""),
        todo = shape.todo
    );
    match &shape.kept {
        Some(kept) => kept::write_sql(shape, kept, &taken),
        None => plain_insert_sql(shape, "taken", &format!("WITH taken AS MATERIALIZED ({taken}) ")),
    }
}

/// What this transaction has seen is taken from now on.
fn advance_sql(shape: &Shape) -> String {
    format!("UPDATE {} SET applied = pg_current_snapshot()", shape.state)
}
