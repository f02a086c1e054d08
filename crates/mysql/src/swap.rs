//! The swap: under the source's lock, drain what is left, look once more, rename.
//!
//! Servers that rename under LOCK TABLES do it in one session. The others need two: A holds the locks,
//! B's RENAME waits; a sentry table under the retired name keeps the RENAME from succeeding before A
//! says so, and fence triggers make a write that slips past fail instead of vanishing. There our names
//! must sort behind the source's: RENAME takes its locks in the order of names, and with a helper that
//! sorts first, one write a connection was lost on every run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::timeout;
use underpin_core::key::Frontier;
use underpin_core::plan::RunSpec;
use underpin_dialect::{
    ChangeLog, Database, DbError, DbResult, ErrorKind, Grip, Swap, SwapOutcome,
};

use crate::connect::Session;
use crate::control::Control;
use crate::fingerprint::Fingerprint;
use crate::query::{define, first, literal, number, quote, quote_table, rows, run, text};
use crate::shadow::our_comment;
use crate::shadow_print::Print;
use crate::store;
use crate::trigger;
use crate::worker::Worker;
use crate::{counter, diagnose, health, strangers, xa};

/// Entries that are drained under the lock at most. One application reads all of them, however few it
/// takes, so that a longer log would exceed any budget before it is looked at.
const DRAIN_ENTRIES_MAX: u64 = 5000;

/// Longest wait for B's RENAME to show as waiting.
const RENAME_SEEN_MS_MAX: u64 = 800;

/// How long the fence outlives B's lock time-out, in seconds.
const FENCE_MARGIN_S: u32 = 2;

/// The server drops a session that holds the lock and falls silent after this many seconds.
const LOCKED_SILENCE_S: u32 = 3;

/// How long B may take for its RENAME beyond its lock time-out.
const RENAME_MARGIN: Duration = Duration::from_secs(30);

/// Statements that only read or write rows, behind any comments.
const ROWS_ONLY: &str = r"(?is)^(\s|\(|/\*(?!M?!).*?\*/|--\s[^\n]*\n|#[^\n]*\n)*(SELECT|INSERT|UPDATE|DELETE|REPLACE|WITH|VALUES|SHOW|EXPLAIN|DESC|DESCRIBE|DO|LOAD|HANDLER)\b";

/// Statements that name the tables which they change, unlike a CALL or an EXECUTE.
const NAMES_ITS_TABLES: &str =
    r"(?is)^\s*(ALTER|TRUNCATE|DROP|RENAME|CREATE|OPTIMIZE|ANALYZE|REPAIR|CHECK|LOCK)\b";

impl Swap for Control {
    async fn try_swap(
        &mut self,
        spec: &Arc<RunSpec>,
        grip: &Grip,
        budget_ms: u64,
    ) -> DbResult<SwapOutcome> {
        self.refuse_old_holders(spec).await?;
        self.analyze(spec).await?;
        counter::carry(&mut self.session, spec).await?;
        self.prepare_way_back(spec).await?;
        let kept = self.load_identity(&spec.run_id, spec.way).await?;
        // Nobody is to wait for us where it cannot be.
        self.check_shadow(spec).await?;
        let shadow = self.shadow_kept(spec).await?;
        let mut worker = self.server.worker(spec, grip).await?;
        worker.make_stage().await?;
        worker.set(&format!("wait_timeout = {LOCKED_SILENCE_S}")).await?;
        // So that a prepared transaction, which may have no metadata lock, is waited for; no longer than
        // for that one.
        let seconds = self.server.settings.lock_wait_timeout_s;
        worker.set(&format!("innodb_lock_wait_timeout = {seconds}")).await?;
        worker.set("innodb_table_locks = 1").await?;
        worker.set("autocommit = 0").await?;
        let mut attempt = Attempt {
            spec,
            kept,
            shadow,
            budget: Duration::from_millis(budget_ms),
            begun: Instant::now(),
        };
        let outcome = if self.session.capabilities.rename_under_lock {
            one_session(&mut attempt, &mut worker).await
        } else {
            self.two_sessions(&mut attempt, &mut worker).await
        };
        if outcome.as_ref().is_err_and(DbError::is_ambiguous) {
            // It may still hold the lock, with everybody waiting behind it: the server may not know yet
            // that its client is gone.
            self.end(worker.session.id.thread).await;
        }
        worker.session.close().await;
        match outcome {
            Err(error) if error.is_retryable() => Err(self.not_had(spec, error).await),
            other => other,
        }
    }
}

/// One try of the swap.
struct Attempt<'a> {
    spec: &'a Arc<RunSpec>,
    kept: String,
    shadow: Option<Print>,
    budget: Duration,
    /// When the lock was asked for: from here on the application may wait behind us.
    begun: Instant,
}

impl Attempt<'_> {
    fn stall_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn object(&self) -> String {
        format!("{}.{}", self.spec.schema, self.spec.table)
    }

    /// LOCK TABLES for everything that drain and rename touch, aliases included.
    fn lock_sql(&self, worker: &Worker, sentry: Option<&str>) -> DbResult<String> {
        let shape = &worker.shape;
        let mut locks =
            vec![format!("{} WRITE", shape.source), format!("{} AS s WRITE", shape.source)];
        if let Some(sentry) = sentry {
            locks.push(format!("{sentry} WRITE"));
        }
        locks.extend([
            format!("{} WRITE", shape.shadow),
            format!("{} AS n WRITE", shape.shadow),
            format!("{} WRITE", shape.log),
            format!("{} AS l WRITE", shape.log),
            format!("{}.fences READ", quote(&worker.state_schema)?),
        ]);
        Ok(format!("LOCK TABLES {}", locks.join(", ")))
    }

    fn rename_sql(&self, worker: &Worker) -> String {
        let shape = &worker.shape;
        format!(
            "RENAME TABLE {} TO {}, {} TO {}",
            shape.source, shape.retired, shape.shadow, shape.source
        )
    }
}

async fn one_session(attempt: &mut Attempt<'_>, worker: &mut Worker) -> DbResult<SwapOutcome> {
    let object = attempt.object();
    let lock = attempt.lock_sql(worker, None)?;
    attempt.begun = Instant::now();
    run(&mut worker.session.conn, &lock, "locking for the swap of", &object).await?;
    worker.under_lock = true;
    let drained = match prepare_under_lock(attempt, worker).await {
        Ok(Ok(drained)) => drained,
        Ok(Err(too_slow)) => {
            unlock(worker, &object).await?;
            return Ok(too_slow);
        }
        Err(error) => {
            return Err(unlock_after(worker, &object, error).await);
        }
    };
    let rename = attempt.rename_sql(worker);
    if let Err(error) = run(&mut worker.session.conn, &rename, "swapping", &object).await {
        return Err(unlock_after(worker, &object, error).await);
    }
    let stall_ms = attempt.stall_ms();
    // The RENAME has committed; losing this session now releases the locks all the same.
    let _ = unlock(worker, &object).await;
    Ok(SwapOutcome::Swapped { stall_ms, drained })
}

/// Under the lock: prove the grip, drain to empty within the budget, look at the source once more.
/// The inner error is the outcome of a drain that was too slow.
async fn prepare_under_lock(
    attempt: &Attempt<'_>,
    worker: &mut Worker,
) -> DbResult<Result<u64, SwapOutcome>> {
    let object = attempt.object();
    // The wait for the lock has a bound of its own.
    let locked = Instant::now();
    let fence = store::fence_sql(&worker.state_schema, &worker.grip.run_id)?;
    let fence = fence.replace(" LOCK IN SHARE MODE", "");
    let epoch = number(&mut worker.session.conn, &fence, "reading the fence of", &object).await?;
    if epoch != worker.grip.epoch {
        return Err(store::fenced(&object));
    }
    let probe = format!(
        "SELECT COUNT(*) FROM (SELECT 1 FROM {} WHERE id >= {} LIMIT {}) AS p",
        worker.shape.log,
        worker.floor.get(),
        DRAIN_ENTRIES_MAX + 1
    );
    let mut drained = 0;
    loop {
        let left = number(&mut worker.session.conn, &probe, "probing the log of", &object).await?;
        if left == 0 {
            break;
        }
        if left > DRAIN_ENTRIES_MAX || locked.elapsed() >= attempt.budget {
            return Ok(Err(SwapOutcome::DrainTooSlow { drained }));
        }
        let applied = worker.apply(&Frontier::End, DRAIN_ENTRIES_MAX).await?;
        drained += applied.entries;
    }
    let capabilities = worker.session.capabilities.clone();
    let print = Fingerprint::read(&mut worker.session.conn, &capabilities, attempt.spec).await?;
    print.ensure_same(&attempt.kept, attempt.spec.way, &object)?;
    strangers::refuse(&mut worker.session.conn, &capabilities, attempt.spec).await?;
    if let Some(kept) = &attempt.shadow {
        let now = Print::read_shadow(&mut worker.session.conn, &capabilities, attempt.spec).await?;
        now.ensure_same(kept, attempt.spec)?;
    }
    counter::carry(&mut worker.session, attempt.spec).await?;
    if locked.elapsed() >= attempt.budget {
        return Ok(Err(SwapOutcome::DrainTooSlow { drained }));
    }
    Ok(Ok(drained))
}

impl Control {
    async fn two_sessions(
        &mut self,
        attempt: &mut Attempt<'_>,
        worker: &mut Worker,
    ) -> DbResult<SwapOutcome> {
        let spec = attempt.spec;
        let object = attempt.object();
        let sentry = quote_table(&spec.schema, &spec.names.retired)?;
        // What an interrupted try left behind goes before the lock: each of these takes time.
        if self.any_trigger(&spec.schema, &spec.names.fences).await? {
            self.drop_fence(spec).await?;
        }
        self.make_sentry(spec, &sentry).await?;
        let renamer = self.server.session().await?;
        let lock = attempt.lock_sql(worker, Some(&sentry))?;
        attempt.begun = Instant::now();
        if let Err(error) =
            run(&mut worker.session.conn, &lock, "locking for the swap of", &object).await
        {
            // Where the answer is lost the sentry may be locked, by a session that must be ended first.
            if !error.is_ambiguous() {
                self.drop_sentry(spec).await?;
            }
            return Err(error);
        }
        worker.under_lock = true;
        let drained = match prepare_under_lock(attempt, worker).await {
            Ok(Ok(drained)) => drained,
            Ok(Err(too_slow)) => {
                unlock(worker, &object).await?;
                self.drop_sentry(spec).await?;
                return Ok(too_slow);
            }
            Err(error) => {
                let error = unlock_after(worker, &object, error).await;
                if !error.is_ambiguous() {
                    self.drop_sentry(spec).await?;
                }
                return Err(error);
            }
        };
        let stall_ms = self.rename_from_the_side(attempt, worker, renamer, &sentry).await?;
        Ok(SwapOutcome::Swapped { stall_ms, drained })
    }

    /// A holds the locks and everything is drained: fence, let B wait, let go, await B. Returns the
    /// stall. Late entries are applied when the run is finished.
    async fn rename_from_the_side(
        &mut self,
        attempt: &Attempt<'_>,
        worker: &mut Worker,
        mut renamer: Session,
        sentry: &str,
    ) -> DbResult<u64> {
        let spec = attempt.spec;
        let object = attempt.object();
        if let Err(error) = self.put_up_fence(spec, worker).await {
            return Err(self.take_down(spec, worker, error).await);
        }
        let renamer_id = renamer.id.thread;
        let (rename, renamed) = (attempt.rename_sql(worker), object.clone());
        // A task of its own: the statement must go on while A lets go, and its answer must be awaited
        // whatever happens here.
        let renaming = tokio::spawn(async move {
            let result = run(&mut renamer.conn, &rename, "swapping", &renamed).await;
            renamer.close().await;
            result
        });
        let let_go = match rename_is_waiting(worker, renamer_id, &object).await {
            Ok(()) => match nobody_before(worker, spec, renamer_id).await {
                Ok(()) => let_go(worker, sentry, &object).await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        if let Err(error) = let_go {
            let error = self.take_down(spec, worker, error).await;
            if error.is_ambiguous() {
                self.end(worker.session.id.thread).await;
            }
            // With the sentry in its way it fails; without, it may have been made. Either way it has
            // ended before anybody looks.
            return match self.renamed(renaming, renamer_id, &object).await {
                Ok(_) => Ok(attempt.stall_ms()),
                Err(_) if !error.is_ambiguous() => self.drop_sentry(spec).await.and(Err(error)),
                Err(_) => Err(error),
            };
        }
        if let Err(error) = self.renamed(renaming, renamer_id, &object).await {
            if !error.is_ambiguous() {
                self.drop_fence(spec).await?;
            }
            return Err(error);
        }
        Ok(attempt.stall_ms())
    }

    /// B's answer. Where none comes its session is ended, so that it cannot rename later.
    async fn renamed(
        &self,
        renaming: JoinHandle<DbResult<u64>>,
        renamer: u64,
        object: &str,
    ) -> DbResult<u64> {
        let ambiguous = || DbError::new(ErrorKind::Ambiguous, "swapping", object);
        let limit = Duration::from_secs(self.server.settings.lock_wait_timeout_s.into());
        let result = match timeout(limit.saturating_add(RENAME_MARGIN), renaming).await {
            Ok(Ok(result)) => result,
            Ok(Err(fault)) => Err(ambiguous().said(fault.to_string())),
            Err(_) => Err(ambiguous().help("The RENAME gave no answer in time")),
        };
        if result.as_ref().is_err_and(DbError::is_ambiguous) {
            self.end(renamer).await;
        }
        result
    }

    /// Ends a session whose connection is lost. Where that fails the next one to enter the run waits
    /// for its end.
    async fn end(&self, session: u64) {
        if let Err(error) = self.server.end(session).await {
            tracing::warn!(session, %error, "a session of the swap could not be ended");
        }
    }

    /// Fresh statistics for the new table: without them the first statements after the swap would be
    /// planned blindly.
    async fn analyze(&mut self, spec: &RunSpec) -> DbResult<()> {
        let sql = format!("ANALYZE TABLE {}", quote_table(&spec.schema, &spec.names.shadow)?);
        let object = format!("{}.{}", spec.schema, spec.names.shadow);
        rows(&mut self.session.conn, &sql, "analysing", &object).await.map(drop)
    }

    async fn make_sentry(&mut self, spec: &RunSpec, sentry: &str) -> DbResult<()> {
        self.drop_sentry(spec).await?;
        let sql = format!(
            "CREATE TABLE {sentry} (id INT NOT NULL PRIMARY KEY) ENGINE=InnoDB COMMENT={}",
            literal(&our_comment(&spec.run_id, "sentry"))?
        );
        let object = format!("{}.{}", spec.schema, spec.names.retired);
        define(&mut self.session.conn, &sql, "making the sentry", &object).await
    }

    /// Drops the sentry if the table under the retired name is one.
    async fn drop_sentry(&mut self, spec: &RunSpec) -> DbResult<()> {
        if self.is_sentry(spec, &spec.names.retired).await? {
            self.drop_table(&spec.schema, &spec.names.retired).await?;
        }
        Ok(())
    }

    async fn put_up_fence(&mut self, spec: &RunSpec, worker: &mut Worker) -> DbResult<()> {
        let object = worker.shape.table.clone();
        let seconds = self.server.settings.lock_wait_timeout_s + FENCE_MARGIN_S;
        let sql = format!("SELECT UTC_TIMESTAMP(6) + INTERVAL {seconds} SECOND");
        let row = first(&mut worker.session.conn, &sql, "reading the clock for", &object).await?;
        let deadline = row.map(|row| text(&row, 0)).unwrap_or_default();
        for sql in trigger::fence_sql(spec, &deadline)? {
            run(&mut worker.session.conn, &sql, "putting up the fence on", &object).await?;
        }
        Ok(())
    }

    /// Under the lock still: take the fence down, then let everybody through.
    async fn take_down(&mut self, spec: &RunSpec, worker: &mut Worker, error: DbError) -> DbError {
        let object = worker.shape.table.clone();
        if let Ok(drops) = trigger::drop_sql(&spec.schema, &spec.names.fences) {
            for sql in drops {
                if let Err(lost) =
                    run(&mut worker.session.conn, &sql, "taking down the fence of", &object).await
                {
                    return lost;
                }
            }
        }
        unlock_after(worker, &object, error).await
    }

    /// The RENAME was not made although the fence is up: it would expire by itself, but the
    /// application should not wait for that.
    async fn drop_fence(&mut self, spec: &RunSpec) -> DbResult<()> {
        let object = format!("{}.{}", spec.schema, spec.table);
        for sql in trigger::drop_sql(&spec.schema, &spec.names.fences)? {
            self.run_on_live(&sql, "taking down the fence of", &object).await?;
        }
        Ok(())
    }

    /// A transaction that has held the table for long will not let go within the lock time-out: then
    /// we do not even queue, since everybody would queue behind us.
    async fn refuse_old_holders(&mut self, spec: &RunSpec) -> DbResult<()> {
        let limit_s = self.server.settings.lock_wait_timeout_s;
        match health::old_holder(&mut self.session, &spec.schema, &spec.table, limit_s).await? {
            None => Ok(()),
            Some(holder) => Err(DbError::new(
                ErrorKind::LockNotHad,
                "looking for holders before the swap of",
                format!("{}.{}", spec.schema, spec.table),
            )
            .help(format!("It is held by {holder}"))),
        }
    }

    async fn not_had(&mut self, spec: &RunSpec, mut error: DbError) -> DbError {
        // Our own words say already who was in the way.
        if error.kind != ErrorKind::LockNotHad {
            error.kind = ErrorKind::LockNotHad;
            let holders = health::holders(&mut self.session, &spec.schema, &spec.table).await;
            error.help = Some(holders + &xa::prepared(&mut self.session).await);
        }
        error
    }
}

/// Waits until B's RENAME is seen waiting for the source, which it locks first by its name.
async fn rename_is_waiting(worker: &mut Worker, renamer: u64, object: &str) -> DbResult<()> {
    let sql = format!(
        "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = {renamer} AND STATE LIKE \
         'Waiting for table metadata lock%'"
    );
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(RENAME_SEEN_MS_MAX) {
        let seen =
            number(&mut worker.session.conn, &sql, "waiting for the rename of", object).await?;
        if seen > 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Err(DbError::new(ErrorKind::LockNotHad, "waiting for the rename of", object)
        .help("The RENAME did not come to wait for the table in time"))
}

/// A definition that queued for the table before B would be carried out between our look at the table and
/// B's RENAME: what a TRUNCATE took away would be back. One that comes later queues behind B.
///
/// Who only reads or writes rows yields to B, so those that wait are told apart by their first word;
/// what cannot be told apart counts as a definition.
async fn nobody_before(worker: &mut Worker, spec: &RunSpec, renamer: u64) -> DbResult<()> {
    let sql = format!(
        "SELECT ID, COALESCE(LEFT(INFO, 200), '') FROM information_schema.PROCESSLIST WHERE ID <> \
         {renamer} AND STATE LIKE 'Waiting for table metadata lock%' AND (INFO IS NULL OR \
         (INFO NOT RLIKE {} AND (LOCATE({}, INFO) > 0 OR LOCATE({}, INFO) > 0 OR INFO NOT RLIKE \
         {}))) LIMIT 1",
        literal(ROWS_ONLY)?,
        literal(&spec.table.replace('`', "``"))?,
        literal(&spec.schema.replace('`', "``"))?,
        literal(NAMES_ITS_TABLES)?
    );
    let object = worker.shape.table.clone();
    let conn = &mut worker.session.conn;
    let found = first(conn, &sql, "looking who queues before the rename of", &object).await?;
    match found {
        None => Ok(()),
        Some(row) => Err(DbError::new(ErrorKind::LockNotHad, "swapping", object).help(format!(
            "Connection {} was in the queue first, with: {}",
            text(&row, 0),
            text(&row, 1)
        ))),
    }
}

/// Lets B go first, then everybody.
async fn let_go(worker: &mut Worker, sentry: &str, object: &str) -> DbResult<()> {
    let drop = format!("DROP TABLE {sentry}");
    run(&mut worker.session.conn, &drop, "dropping the sentry of", object).await?;
    unlock(worker, object).await
}

async fn unlock(worker: &mut Worker, object: &str) -> DbResult<()> {
    worker.under_lock = false;
    run(&mut worker.session.conn, "UNLOCK TABLES", "unlocking", object).await.map(|_| ())
}

/// Rolls back and lets everybody through; the first error is the one that counts.
async fn unlock_after(worker: &mut Worker, object: &str, error: DbError) -> DbError {
    worker.under_lock = false;
    if error.is_ambiguous() {
        return error;
    }
    for sql in ["ROLLBACK", "UNLOCK TABLES"] {
        if let Err(lost) = run(&mut worker.session.conn, sql, "unlocking", object).await {
            return lost;
        }
    }
    // Who stands still under the lock does not wait for a search.
    diagnose::after_unlock(worker, error).await
}

impl Worker {
    /// Sets a session variable.
    pub(crate) async fn set(&mut self, assignment: &str) -> DbResult<()> {
        let object = self.shape.table.clone();
        let sql = format!("SET SESSION {assignment}");
        run(&mut self.session.conn, &sql, "setting up the session for", &object).await.map(|_| ())
    }
}
