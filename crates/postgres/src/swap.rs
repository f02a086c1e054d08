//! The swap, in one transaction: under the source's lock drain what is left, look once more, move
//! everything that hangs on the table, exchange the schemas of the two, prove that nothing points at
//! the old one any more, commit.
//!
//! The weaker lock comes first, on all tables: a request for it makes autovacuum give way while writers
//! go on, and under it everything that the strong lock is needed for is read and spelled out. The
//! strong lock is asked for with the short time-out; the other tables' locks follow in the order of
//! their OIDs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use underpin_core::key::Frontier;
use underpin_core::plan::RunSpec;
use underpin_core::way::Way;
use underpin_dialect::{ChangeLog, DbError, DbResult, ErrorKind, Grip, Swap, SwapOutcome};

use crate::connect::Session;
use crate::control::Control;
use crate::dependents::{
    Subject, foreign_keys, functions, policies, publications, rules, sequences, statistics,
    triggers, views,
};
use crate::fingerprint::Fingerprint;
use crate::health::Wish;
use crate::inspect::alter_of;
use crate::names::{self, places};
use crate::query::{first, number, quote, run, text};
use crate::shadow::{begin_on_live, ensure_same, eviction_ms, source_of};
use crate::shadow_print::{Print, note_gone, stands_sql};
use crate::shape::Shape;
use crate::steps::{self, Stage};
use crate::turned::Behind;
use crate::worker::Worker;
use crate::{changelog, health, store, trigger, twin};

/// The server ends a transaction of ours that holds the lock and falls silent after so long.
pub(crate) const LOCKED_SILENCE_MS: u32 = 3000;

/// Keys that are applied at once where the drain met a row that does not fit.
const APPLIED_UNLOCKED_MAX: u64 = 5000;

impl Swap for Control {
    async fn try_swap(
        &mut self,
        spec: &Arc<RunSpec>,
        grip: &Grip,
        budget_ms: u64,
    ) -> DbResult<SwapOutcome> {
        let lock_timeout_ms = self.server.settings.lock_timeout_ms;
        health::refuse_old_holders(&self.session, spec, Wish::Everything, lock_timeout_ms).await?;
        let kept = self.load_identity(&spec.run_id).await?;
        // Nobody is to wait for us where it cannot be.
        self.ensure_same(spec, &kept).await?;
        self.check_shadow(spec).await?;
        let session = self.server.session().await?;
        let pid = u64::from(session.id.pid);
        let shape = Shape::read(&session, spec).await?;
        let attempt = Attempt {
            spec,
            shape,
            kept,
            shadow: self.shadow_kept(spec).await?,
            stands: stands_sql(&self.state_schema, spec)?,
            fence: store::fence_sql(&self.state_schema, &grip.run_id)?,
            epoch: grip.epoch,
            state_schema: self.state_schema.clone(),
            lock_timeout_ms,
            budget: Duration::from_millis(budget_ms),
            session,
        };
        let outcome = attempt.make().await;
        let outcome = self.settled(attempt, outcome).await;
        if outcome.as_ref().is_err_and(DbError::is_ambiguous) {
            // It may still hold the lock, with everybody waiting behind it: the server may not know yet
            // that its client is gone.
            use underpin_dialect::Database as _;
            if let Err(error) = self.server.end(pid).await {
                tracing::warn!(pid, %error, "a session of the swap could not be ended");
            }
        }
        match outcome {
            Err(mut error) if error.is_retryable() => {
                error.kind = ErrorKind::LockNotHad;
                let names = health::holders(&self.session, spec, Wish::Everything).await;
                error.help = Some(names);
                Err(error)
            }
            Err(error) if matches!(error.kind, ErrorKind::DuplicateKey | ErrorKind::DataError) => {
                self.apply_unlocked(spec, grip, error).await
            }
            other => other,
        }
    }
}

impl Control {
    /// After `error`: a row that the new shape cannot hold came at the last moment. Nobody stands still
    /// while it is searched for: what is pending is applied once more without the lock, which names it,
    /// or finds it mended.
    async fn apply_unlocked(
        &self,
        spec: &Arc<RunSpec>,
        grip: &Grip,
        error: DbError,
    ) -> DbResult<SwapOutcome> {
        let mut worker = Worker::open(&self.server, spec, grip).await?;
        let applied = worker.apply(&Frontier::End, APPLIED_UNLOCKED_MAX).await;
        worker.session.close().await;
        match applied? {
            // Then it was none of the log's.
            applied if applied.keys == 0 => Err(error),
            _ => Ok(SwapOutcome::DrainTooSlow { drained: 0 }),
        }
    }

    /// Lets everybody through where the swap was not made.
    async fn settled(
        &self,
        attempt: Attempt<'_>,
        outcome: DbResult<SwapOutcome>,
    ) -> DbResult<SwapOutcome> {
        let object = attempt.shape.table.clone();
        let outcome = match outcome {
            Ok(SwapOutcome::Swapped { .. }) => outcome,
            Err(error) if error.is_ambiguous() => Err(error),
            other => match run(&attempt.session, "ROLLBACK", "letting go of", &object).await {
                Ok(_) => other,
                Err(lost) => Err(lost),
            },
        };
        attempt.session.close().await;
        outcome
    }
}

/// One try of the swap.
struct Attempt<'a> {
    spec: &'a Arc<RunSpec>,
    shape: Shape,
    kept: String,
    /// The shadow as it was noted.
    shadow: Option<Print>,
    /// Notes that the swap is made.
    stands: String,
    fence: String,
    epoch: u64,
    state_schema: String,
    lock_timeout_ms: u32,
    budget: Duration,
    session: Session,
}

/// Everything that runs under the lock, spelled out before.
#[derive(Debug, Default)]
struct Script {
    /// Other tables that are locked too.
    tables: Vec<String>,
    /// One statement after the other, joined.
    moves: String,
    /// The query for a sum over the old table's rights, wherever it stands.
    rights: String,
    /// What keeps the way back, where it is kept.
    behind: Option<Behind>,
}

impl Attempt<'_> {
    async fn make(&self) -> DbResult<SwapOutcome> {
        let object = &self.shape.table;
        begin_on_live(&self.session, &self.shape.places.source, object, self.lock_timeout_ms)
            .await?;
        let sql = format!(
            "SET LOCAL idle_in_transaction_session_timeout = {LOCKED_SILENCE_MS}; {}",
            self.fence
        );
        if number(&self.session, &sql, "reading the fence of", object).await? != self.epoch {
            return Err(store::fenced(object));
        }
        self.ensure_same().await?;
        let script = self.script().await?;
        if let Some(behind) = &script.behind {
            run(&self.session, &behind.before, "making the return log of", object).await?;
        }
        self.evict_vacuum(&script.tables).await?;
        let rights = first(&self.session, &script.rights, "reading the rights on", object).await?;
        let rights = rights.map(|row| text(&row, 0)).unwrap_or_default();
        let begun = Instant::now();
        self.lock(&script.tables, begun).await?;
        // The wait for the locks has a bound of its own.
        let locked = Instant::now();
        let Some(drained) = changelog::drain(&self.session, &self.shape, self.budget).await? else {
            return Ok(SwapOutcome::DrainTooSlow { drained: 0 });
        };
        self.ensure_same().await?;
        match self.exchange(&script, &rights, locked).await {
            Ok(true) => {}
            // A statement of it took longer than the budget, or all of them together.
            Err(error) if error.kind == ErrorKind::Cancelled => {
                return Ok(SwapOutcome::DrainTooSlow { drained });
            }
            Ok(false) => return Ok(SwapOutcome::DrainTooSlow { drained }),
            Err(error) => return Err(error),
        }
        let stall_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(SwapOutcome::Swapped { stall_ms, drained })
    }

    /// Everything behind the last drain, the commit too; the server ends each statement that takes longer than
    /// the budget. False where they took longer together.
    async fn exchange(&self, script: &Script, rights: &str, locked: Instant) -> DbResult<bool> {
        let object = &self.shape.table;
        run(&self.session, &script.moves, "swapping", object).await?;
        if self.prove(script).await? != rights {
            return Err(DbError::new(ErrorKind::Retryable, "swapping", object)
                .said("somebody changed the rights on the table meanwhile"));
        }
        self.keep_way_back(script).await?;
        if locked.elapsed() >= self.budget {
            return Ok(false);
        }
        run(&self.session, "COMMIT", "committing the swap of", object).await.map(|_| true)
    }

    /// From the commit on each change of the table that is live then is captured, and its identity is known.
    async fn keep_way_back(&self, script: &Script) -> DbResult<()> {
        let Some(behind) = &script.behind else { return Ok(()) };
        let (object, spec) = (&self.shape.table, self.spec);
        run(&self.session, &behind.after, "keeping the way back of", object).await?;
        let identity = Fingerprint::read(&self.session, spec).await?.encode();
        let gone = note_gone(&self.session, &self.state_schema, spec).await?;
        let identity = store::identity_sql(&self.state_schema, &spec.run_id, &identity)?;
        let sql = format!("{gone}; {identity}");
        run(&self.session, &sql, "noting the identity of", object).await.map(drop)
    }

    async fn ensure_same(&self) -> DbResult<()> {
        ensure_same(&self.session, self.spec, &self.kept).await?;
        match &self.shadow {
            None => Ok(()),
            Some(kept) => {
                Print::read_shadow(&self.session, self.spec).await?.ensure_same(kept, self.spec)
            }
        }
    }

    /// Takes the weaker lock on the tables beside the source too: autovacuum comes to a shadow that was
    /// just filled, and for as long as it works there the short request for the strong lock would fail.
    async fn evict_vacuum(&self, others: &[String]) -> DbResult<()> {
        let object = &self.shape.table;
        let mut tables = vec![self.shape.places.shadow.clone()];
        tables.extend_from_slice(others);
        let sql = format!(
            "SET LOCAL lock_timeout = {}; LOCK TABLE ONLY {} IN SHARE UPDATE EXCLUSIVE MODE",
            eviction_ms(&self.session, object).await?,
            tables.join(", ONLY ")
        );
        run(&self.session, &sql, "locking against vacuum", object).await.map(drop)
    }

    /// The source first, the others in one order for all; less time for each that follows.
    async fn lock(&self, others: &[String], begun: Instant) -> DbResult<()> {
        let object = &self.shape.table;
        let places = &self.shape.places;
        let whole = Duration::from_millis(self.lock_timeout_ms.into());
        let mut locks = vec![format!("{}, {}", places.source, places.shadow)];
        locks.extend_from_slice(others);
        for tables in locks {
            let left_ms = whole.saturating_sub(begun.elapsed()).as_millis();
            let sql = format!(
                "SET LOCAL lock_timeout = {}; LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE",
                std::cmp::max(left_ms, 1),
                tables.replace(", ", ", ONLY ")
            );
            run(&self.session, &sql, "locking for the swap of", object).await?;
        }
        Ok(())
    }

    // The order of the moves is the whole of it.
    #[allow(clippy::too_many_lines)]
    async fn script(&self) -> DbResult<Script> {
        let session = &self.session;
        let spec = self.spec;
        let source = source_of(session, spec).await?;
        let shadow =
            Subject::read(session, &names::shadow_schema(spec), &spec.names.shadow).await?;
        let dropped = match spec.way {
            Way::Forward => twin::dropped_constraints(&alter_of(&spec.statement)?),
            Way::Back => Vec::new(),
        };
        let keys = foreign_keys::in_swap(session, &source, &spec.mapping, &dropped).await?;
        let (sequences_before, sequences_behind) =
            sequences::in_swap(session, &source, &shadow, &spec.mapping).await?;
        let (mut statistics_before, mut statistics_behind) =
            statistics::in_swap(session, &source, &shadow).await?;
        let (publications_before, publications_behind) =
            publications::in_swap(session, &source, &spec.mapping).await?;
        let (triggers_before, triggers_behind) =
            triggers::elsewhere_in_swap(session, &source).await?;
        let set_aside = steps::pending(session, spec, Stage::Swap).await?;
        let mut tables = keys.tables;
        for step in &set_aside {
            // The other table of a foreign key.
            if !step.name.is_empty() && !tables.contains(&step.name) {
                tables.push(step.name.clone());
            }
        }
        let mut behind = None;
        if spec.keeps_way_back {
            let away = names::away_schema(spec);
            let (aside, again) = statistics::aside_sql(session, &source, &away).await?;
            statistics_before = aside;
            if self.shape.kept.is_some() {
                // They go where they were, by a step.
                statistics_behind = Vec::new();
            }
            behind =
                Some(Behind::read(session, spec, &self.shape, &source, &keys.lost, again).await?);
        }
        let mut moves = vec![format!(
            "SET LOCAL statement_timeout = {}",
            std::cmp::max(self.budget.as_millis(), 1)
        )];
        moves.extend(keys.drops);
        moves.extend(triggers_before);
        moves.extend(sequences_before);
        moves.extend(statistics_before);
        moves.extend(publications_before);
        moves.extend(trigger::drop_sql(&self.shape.places.source, spec)?);
        if spec.keeps_way_back {
            moves.extend(rules::drops(session, &source).await?);
        }
        moves.push(self.exchange_sql()?);
        moves.extend(statistics_behind);
        moves.extend(sequences_behind);
        moves.extend(set_aside.iter().map(|step| step.sql.clone()));
        moves.extend(rules::in_swap(session, &source).await?);
        moves.extend(keys.adds);
        moves.extend(triggers_behind);
        moves.extend(views::in_swap(session, &source).await?);
        moves.extend(policies::elsewhere_in_swap(session, &source).await?);
        moves.extend(functions::in_swap(session, &source).await?);
        moves.extend(publications_behind);
        let again = set_aside.into_iter().map(|step| step.then).filter(|sql| !sql.is_empty());
        let after: Vec<_> = keys
            .validations
            .into_iter()
            .chain(again)
            .map(|sql| (String::new(), sql, String::new()))
            .collect();
        moves.push(steps::record_sql(spec, Stage::After, &after)?);
        moves.push(self.stands.clone());
        let rights = format!(
            "SELECT pg_catalog.md5(pg_catalog.concat_ws('|', c.relacl, (SELECT \
             pg_catalog.string_agg(pg_catalog.concat_ws(' ', a.attnum, a.attacl), ';' ORDER BY \
             a.attnum) FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid))) FROM \
             pg_catalog.pg_class c WHERE c.oid = {}",
            source.oid
        );
        Ok(Script { tables, moves: moves.join(";\n"), rights, behind })
    }

    /// Indexes, constraints, sequences and types move with their tables.
    fn exchange_sql(&self) -> DbResult<String> {
        let spec = self.spec;
        let places = places(spec)?;
        Ok(format!(
            "ALTER TABLE {} SET SCHEMA {};\nALTER TABLE {} SET SCHEMA {}",
            places.source,
            quote(&names::away_schema(spec))?,
            places.shadow,
            quote(&spec.schema)?
        ))
    }

    /// Nothing may point at the old table any more: it could be dropped, and is not. Returns its rights as
    /// they are now. No lock holds a GRANT off; but once the table's row in the catalogue was moved, the
    /// server lets none pass before we have committed.
    async fn prove(&self, script: &Script) -> DbResult<String> {
        let object = &self.shape.table;
        let sql = format!(
            "SAVEPOINT underpin_proof; DROP TABLE {} RESTRICT; ROLLBACK TO SAVEPOINT underpin_proof; \
             RELEASE SAVEPOINT underpin_proof; {}",
            self.shape.places.retired, script.rights
        );
        match first(&self.session, &sql, "proving that nothing points at", object).await {
            Ok(row) => Ok(row.map(|row| text(&row, 0)).unwrap_or_default()),
            // Whatever it is was made since the script was written: the next try carries it, or names it.
            Err(error) if crate::error::has_state(&error, "2BP01") => {
                let mut error = error.help("Something still points at the old table");
                error.kind = ErrorKind::Retryable;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }
}
