//! Making and removing what a run needs: private schemas, shadow, change log, capture triggers, indexes.
//!
//! Everything here is idempotent: a crash at any point is mended by doing it again. What touches the
//! live table has the lock time-out; who held it is named.

use underpin_core::checkpoint::{Checkpoint, Phase};
use underpin_core::machine::{Observed, SwapState};
use underpin_core::plan::RunSpec;
use underpin_core::way::Way;
use underpin_dialect::{DbError, DbResult, ErrorKind, Shadow};

use crate::changelog::NOT_TO_BE_FOLLOWED;
use crate::connect::{Session, users_meanings};
use crate::control::Control;
use crate::dependents::{self, Subject};
use crate::fingerprint::{self, Fingerprint};
use crate::health::{self, Wish};
use crate::inspect::{alter_of, compare, read_table};
use crate::names::{self, places};
use crate::query::{holds, literal, number, quote, quote_table, rows, run, text, undo};
use crate::shape::Shape;
use crate::steps::{self, Stage};
use crate::swap::LOCKED_SILENCE_MS;
use crate::{build, diagnose, trigger, turned, twin};

/// What the server makes of itself may take so long: it was judged on an empty table, and while it goes on
/// nobody else gets at the table.
const NATIVE_MS_MAX: u32 = 5000;

/// How much longer than `deadlock_timeout` we wait for the weaker lock: autovacuum gives way only to who
/// has waited for that long.
const EVICTION_MARGIN_MS: u64 = 1500;

impl Shadow for Control {
    async fn prepare(&mut self, spec: &RunSpec) -> DbResult<()> {
        let lock_timeout_ms = self.server.settings.lock_timeout_ms;
        health::refuse_old_holders(&self.session, spec, Wish::Triggers, lock_timeout_ms).await?;
        // Nothing has been copied yet: what a first try left is made anew.
        self.remove(spec).await?;
        self.make_shadow(spec).await?;
        self.note_shadow(spec, false).await?;
        self.install_capture(spec).await
    }

    async fn check_source(&mut self, spec: &RunSpec) -> DbResult<()> {
        let kept = self.load_identity(&spec.run_id).await?;
        self.ensure_same(spec, &kept).await?;
        self.check_shadow(spec).await
    }

    async fn build_indexes(&mut self, spec: &RunSpec) -> DbResult<()> {
        match build::indexes(self, spec).await {
            Err(error) if error.kind == ErrorKind::DuplicateKey => {
                let shape = Shape::read(&self.session, spec).await?;
                Err(diagnose::duplicate(&self.session, &shape, error).await)
            }
            Ok(()) => self.note_shadow(spec, true).await,
            failed => failed,
        }
    }

    async fn alter_natively(&mut self, spec: &RunSpec) -> DbResult<()> {
        let object = format!("{}.{}", spec.schema, spec.table);
        let alter = alter_of(&spec.statement)?;
        let source = quote_table(&spec.schema, &spec.table)?;
        let sql = format!(
            "SET LOCAL statement_timeout = {NATIVE_MS_MAX}; SET LOCAL search_path TO DEFAULT; {}; {}; SET \
             LOCAL statement_timeout = 0; COMMIT",
            users_meanings(),
            alter.render(&source, |_| false)
        );
        self.begin_on_live(&source, &object, spec).await?;
        let done = run(&self.session, &sql, "changing in place", &object).await.map(drop);
        let done = done.map_err(|error| match error.kind {
            ErrorKind::Cancelled => error.help(format!(
                "It was judged to take an instant and took more than {NATIVE_MS_MAX} ms under the table's \
                 lock, so it was called off; --strategy shadow makes the change by copy"
            )),
            _ => error,
        });
        self.on_live(undo(&self.session, done).await, spec).await
    }

    async fn observe(&mut self, spec: &RunSpec, checkpoint: &Checkpoint) -> DbResult<Observed> {
        let done = match &checkpoint.round {
            Some(round) => self.marks(&spec.run_id, round.number).await?,
            None => Vec::new(),
        };
        let by_name = self.swap_state(spec, checkpoint).await?;
        let swap = self.proven(spec, checkpoint, by_name).await?;
        let is_turning = checkpoint.stands.is_some_and(|stands| stands != spec.way);
        if is_turning && checkpoint.phase < Phase::Arrive && swap == SwapState::NotSwapped {
            // Before anything of the new way is begun.
            let kept = self.load_identity(&spec.run_id).await?;
            turned::refuse(&self.session, spec).await?;
            self.ensure_same(spec, &kept).await?;
            self.check_shadow(spec).await?;
        }
        Ok(Observed { done, swap })
    }

    async fn arrive(&mut self, spec: &RunSpec) -> DbResult<()> {
        self.validate(spec).await
    }

    async fn finish(&mut self, spec: &RunSpec, keep_retired: bool) -> DbResult<()> {
        self.validate(spec).await?;
        // Of a way back that was kept.
        self.drop_triggers(spec).await?;
        if keep_retired {
            self.keep_retired(spec).await?;
        } else {
            self.drop_schema(&names::retired_schema(&spec.run_id), spec).await?;
        }
        self.drop_schema(&names::private_schema(&spec.run_id), spec).await
    }

    async fn abort(&mut self, spec: &RunSpec) -> DbResult<()> {
        if self.exists(&names::retired_schema(&spec.run_id), &spec.names.retired).await? {
            let object = format!("{}.{}", spec.schema, spec.table);
            return Err(DbError::new(ErrorKind::Ambiguous, "removing the run's objects", object)
                .help(format!(
                    "Table {} exists: the swap has happened. Look at both tables before you remove \
                     anything",
                    places(spec)?.retired
                )));
        }
        self.remove(spec).await
    }

    fn control_session(&self) -> u64 {
        self.session.id.pid.into()
    }
}

impl Control {
    /// Shadow, steps and both schemas, in one transaction.
    async fn make_shadow(&self, spec: &RunSpec) -> DbResult<()> {
        let object = format!("{}.{}", spec.schema, spec.table);
        run(&self.session, "BEGIN", "making the shadow of", &object).await?;
        let made = self.make_shadow_in_transaction(spec).await;
        undo(&self.session, made).await
    }

    async fn make_shadow_in_transaction(&self, spec: &RunSpec) -> DbResult<()> {
        let session = &self.session;
        let object = format!("{}.{}", spec.schema, spec.table);
        let private = names::private_schema(&spec.run_id);
        let source = fingerprint::subject(session, spec).await?;
        let retired = quote(&names::retired_schema(&spec.run_id))?;
        let comment = literal(&names::comment(&spec.run_id))?;
        let sql = format!(
            "CREATE SCHEMA {retired} AUTHORIZATION {owner}; COMMENT ON SCHEMA {retired} IS {comment}; \
             {}; COMMENT ON SCHEMA {} IS {comment}",
            twin::begin_sql(&source, &private)?,
            quote(&private)?,
            owner = quote(&source.owner)?,
        );
        run(session, &sql, "making our schemas for", &object).await?;
        let shadow = dependents::on_twin(session, &source, &private, &private).await?;
        let alter = alter_of(&spec.statement)?;
        twin::apply(session, &alter, &source, &shadow).await?;
        let (old, new) = (read_table(session, &source).await?, read_table(session, &shadow).await?);
        let as_planned = compare(&old, &new, &alter)
            .is_ok_and(|(mapping, key)| mapping == spec.mapping && key == spec.key);
        if !as_planned {
            return Err(DbError::new(ErrorKind::SourceChanged, "making the shadow of", object)
                .help(
                    "The table is not what it was when the run was planned: abort and start again",
                ));
        }
        let (indexes, later) = twin::set_aside(session, &shadow, &source.quoted()?).await?;
        let indexes: Vec<_> =
            indexes.into_iter().map(|index| (index.name, index.build, index.attach)).collect();
        let later: Vec<_> =
            later.into_iter().map(|sql| (String::new(), sql, String::new())).collect();
        let sql = format!(
            "{}; {}; {}; COMMIT",
            steps::create_sql(spec)?,
            steps::record_sql(spec, Stage::Index, &indexes)?,
            steps::record_sql(spec, Stage::Swap, &later)?
        );
        run(session, &sql, "recording the steps of", &object).await.map(drop)
    }

    /// Log and triggers in one transaction: no moment in which half of the writes are captured. The
    /// lock also waits for every transaction that wrote before, so none straddles the installation.
    async fn install_capture(&self, spec: &RunSpec) -> DbResult<()> {
        let shape = Shape::read(&self.session, spec).await?;
        let object = shape.table.clone();
        // Writers stand still from the first trigger on: where we fall silent the server lets them go.
        let silence =
            format!("SET LOCAL idle_in_transaction_session_timeout = {LOCKED_SILENCE_MS}");
        let owner = format!("SET LOCAL ROLE {}", shape.owner);
        self.begin_on_live(&shape.places.source, &object, spec).await?;
        let mut statements = vec![silence, owner];
        statements.extend(trigger::log_sql(&shape, spec)?);
        statements.extend(trigger::functions_sql(&shape, spec)?);
        statements.extend(trigger::capture_sql(&shape, spec)?);
        statements.push("SET LOCAL ROLE NONE".to_owned());
        let installed = self.install_in_transaction(spec, &statements, &object).await;
        self.named(undo(&self.session, installed).await, spec, Wish::Triggers).await
    }

    /// As [`ensure_same`]; where both tables were live there is nothing to begin again.
    pub(crate) async fn ensure_same(&self, spec: &RunSpec, kept: &str) -> DbResult<()> {
        let mut same = ensure_same(&self.session, spec, kept).await;
        if let Err(error) = &mut same
            && matches!(error.kind, ErrorKind::SourceChanged | ErrorKind::Truncated)
            && self.holds_kept(spec).await?
        {
            error.help = Some(NOT_TO_BE_FOLLOWED.to_owned());
        }
        same
    }

    async fn holds_kept(&self, spec: &RunSpec) -> DbResult<bool> {
        let kept = literal(&names::own_place(spec, "kept")?)?;
        let sql = format!("SELECT pg_catalog.to_regclass({kept}) IS NOT NULL");
        holds(&self.session, &sql, "looking for the way back of", &spec.table).await
    }

    async fn install_in_transaction(
        &self,
        spec: &RunSpec,
        statements: &[String],
        object: &str,
    ) -> DbResult<()> {
        let what = "installing the capture triggers on";
        run(&self.session, &statements.join("; "), what, object).await?;
        let print = Fingerprint::read(&self.session, spec).await?;
        self.note_source(spec).await?;
        self.save_identity(&spec.run_id, &print.encode()).await?;
        run(&self.session, "COMMIT", what, object).await.map(drop)
    }

    /// Begins a transaction that holds the table against vacuum and definitions but no one else: a
    /// request for this lock makes autovacuum give way, which a short request for a stronger one never
    /// does. What follows waits no longer than the lock time-out.
    pub(crate) async fn begin_on_live(
        &self,
        table: &str,
        object: &str,
        spec: &RunSpec,
    ) -> DbResult<()> {
        let lock_timeout_ms = self.server.settings.lock_timeout_ms;
        let begun = begin_on_live(&self.session, table, object, lock_timeout_ms).await;
        self.on_live(undo(&self.session, begun).await, spec).await
    }

    /// Names who holds the table where its lock was not had.
    pub(crate) async fn on_live<T>(&self, done: DbResult<T>, spec: &RunSpec) -> DbResult<T> {
        self.named(done, spec, Wish::Everything).await
    }

    async fn named<T>(&self, done: DbResult<T>, spec: &RunSpec, wish: Wish) -> DbResult<T> {
        match done {
            Err(mut error) if error.is_retryable() => {
                error.kind = ErrorKind::LockNotHad;
                let names = health::holders(&self.session, spec, wish).await;
                error.help = Some(names);
                Err(error)
            }
            other => other,
        }
    }

    /// Removes everything of a run that has not been swapped.
    async fn remove(&self, spec: &RunSpec) -> DbResult<()> {
        self.refuse_to_drop_the_rows(spec).await?;
        self.drop_triggers(spec).await?;
        self.drop_schema(&names::private_schema(&spec.run_id), spec).await?;
        self.drop_schema(&names::retired_schema(&spec.run_id), spec).await
    }

    async fn drop_triggers(&self, spec: &RunSpec) -> DbResult<()> {
        let object = format!("{}.{}", spec.schema, spec.table);
        let source = quote_table(&spec.schema, &spec.table)?;
        let sql = format!(
            "SELECT pg_catalog.format('DROP TRIGGER %I ON %s', tgname, {table}) FROM \
             pg_catalog.pg_trigger WHERE tgrelid = pg_catalog.to_regclass({table}) AND NOT \
             tgisinternal AND pg_catalog.starts_with(tgname, {})",
            literal(&format!("{}_", names::private_schema(&spec.run_id)))?,
            table = literal(&source)?
        );
        let found = rows(&self.session, &sql, "looking for capture triggers on", &object).await?;
        if found.is_empty() {
            return Ok(());
        }
        self.begin_on_live(&source, &object, spec).await?;
        let drops: Vec<String> = found.iter().map(|row| text(row, 0)).collect();
        let sql = format!("{}; COMMIT", drops.join("; "));
        let done = run(&self.session, &sql, "dropping the capture triggers of", &object).await;
        self.on_live(undo(&self.session, done.map(drop)).await, spec).await
    }

    /// Drops a schema of ours with the tables and functions that stand in it. Without CASCADE: what
    /// somebody else hung on them is named by the server, not taken along.
    async fn drop_schema(&self, schema: &str, spec: &RunSpec) -> DbResult<()> {
        let object = format!("{}.{}", spec.schema, spec.table);
        let name = literal(schema)?;
        let sql = format!(
            "SELECT pg_catalog.format('DROP TABLE %I.%I', n.nspname, c.relname) FROM \
             pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE \
             n.nspname = {name} AND c.relkind = 'r' UNION ALL SELECT pg_catalog.format('DROP FUNCTION \
             %s', p.oid::regprocedure) FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON \
             n.oid = p.pronamespace WHERE n.nspname = {name} UNION ALL SELECT pg_catalog.format('DROP \
             SCHEMA %I', nspname) FROM pg_catalog.pg_namespace WHERE nspname = {name}"
        );
        let found = rows(&self.session, &sql, "looking for what is ours beside", &object).await?;
        if found.is_empty() {
            return Ok(());
        }
        let drops: Vec<String> = found.iter().map(|row| text(row, 0)).collect();
        let what = format!("dropping schema {schema} of the run on");
        // Nobody uses these tables but autovacuum, which gives way to who can wait.
        let wait_ms = eviction_ms(&self.session, &object).await?;
        let sql = format!("SET LOCAL lock_timeout = {wait_ms}; {}", drops.join("; "));
        let done = run(&self.session, &sql, &what, &object).await.map(drop);
        self.on_live(done, spec).await
    }

    /// Makes the foreign keys valid that were, one by one. One that the rows violate stays NOT VALID: its
    /// rows violated it before.
    async fn validate(&self, spec: &RunSpec) -> DbResult<()> {
        let object = format!("{}.{}", spec.schema, spec.table);
        let private = names::private_schema(&spec.run_id);
        if !self.exists(&private, "underpin_steps").await? {
            return Ok(());
        }
        let wait_ms = eviction_ms(&self.session, &object).await?;
        for step in steps::pending(&self.session, spec, Stage::After).await? {
            // It holds up vacuum and definitions only.
            let sql = format!("SET LOCAL lock_timeout = {wait_ms}; {}", step.sql);
            let done = run(&self.session, &sql, "validating a foreign key of", &object).await;
            match self.on_live(done, spec).await {
                Ok(_) => {}
                Err(error) if error.kind == ErrorKind::DataError => {
                    tracing::warn!(%error, "a foreign key stays NOT VALID");
                }
                // Somebody dropped it meanwhile.
                Err(error) if error.kind == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            steps::mark_done(&self.session, spec, Stage::After, step.position).await?;
        }
        Ok(())
    }

    /// The table that is not live stands in the schema of retired tables, whichever it is.
    async fn keep_retired(&self, spec: &RunSpec) -> DbResult<()> {
        let private = names::private_schema(&spec.run_id);
        if spec.way == Way::Forward || !self.exists(&private, &spec.table).await? {
            return Ok(());
        }
        let object = format!("{}.{}", spec.schema, spec.table);
        let sql = format!(
            "SET LOCAL lock_timeout = {}; ALTER TABLE {} SET SCHEMA {}",
            eviction_ms(&self.session, &object).await?,
            quote_table(&private, &spec.table)?,
            quote(&names::retired_schema(&spec.run_id))?
        );
        let done = run(&self.session, &sql, "putting aside the other table of", &object).await;
        self.on_live(done.map(drop), spec).await
    }

    async fn exists(&self, schema: &str, name: &str) -> DbResult<bool> {
        let sql = format!(
            "SELECT pg_catalog.to_regclass({}) IS NOT NULL",
            literal(&quote_table(schema, name)?)?
        );
        holds(&self.session, &sql, "looking for", &format!("{schema}.{name}")).await
    }

    /// Which table bears the source's name, told by where the others stand.
    async fn swap_state(&self, spec: &RunSpec, checkpoint: &Checkpoint) -> DbResult<SwapState> {
        let phase = checkpoint.phase;
        let source = self.exists(&spec.schema, &spec.table).await?;
        let shadow = self.exists(&names::shadow_schema(spec), &spec.names.shadow).await?;
        let retired = self.exists(&names::away_schema(spec), &spec.names.retired).await?;
        Ok(match (source, shadow, retired) {
            (true, true, false) => SwapState::NotSwapped,
            // The retired table is dropped only after the swap was recorded.
            (true, false, false) if phase >= Phase::Finish => SwapState::Swapped,
            // Nothing was made yet, what was made is being made anew, or an abort was cut off.
            (true, false, false) => SwapState::NotSwapped,
            (true, false, true) => SwapState::Swapped,
            _ => SwapState::Unclear(format!(
                "{}.{} {}, the shadow {}, the retired table {}",
                spec.schema,
                spec.table,
                seen(source),
                seen(shadow),
                seen(retired)
            )),
        })
    }
}

/// Checks that the source is the table that it was when the triggers were installed, `kept`.
///
/// # Errors
/// `SourceChanged`, saying what changed; `Truncated` where the file alone did and the log has the marker.
pub(crate) async fn ensure_same(session: &Session, spec: &RunSpec, kept: &str) -> DbResult<()> {
    let object = format!("{}.{}", spec.schema, spec.table);
    let now = Fingerprint::read(session, spec).await?;
    if now.has_another_file(kept) {
        let sql = format!(
            "SELECT EXISTS (SELECT FROM {} WHERE k0 IS NOT DISTINCT FROM NULL)",
            places(spec)?.log
        );
        if holds(session, &sql, "looking for a TRUNCATE of", &object).await? {
            return Err(DbError::new(ErrorKind::Truncated, "checking the source", object)
                .said("the table was emptied by TRUNCATE"));
        }
    }
    now.ensure_same(kept, &object)
}

/// How long a request must be able to wait for autovacuum to give way to it, in milliseconds. Only for
/// locks that no writer waits behind.
pub(crate) async fn eviction_ms(session: &Session, object: &str) -> DbResult<u64> {
    let sql = "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'deadlock_timeout'";
    let patience_ms = number(session, sql, "reading deadlock_timeout for", object).await?;
    Ok(patience_ms.saturating_add(EVICTION_MARGIN_MS))
}

/// As [`Control::begin_on_live`], on any session; the caller rolls back where it fails.
pub(crate) async fn begin_on_live(
    session: &Session,
    table: &str,
    object: &str,
    lock_timeout_ms: u32,
) -> DbResult<()> {
    let sql = format!(
        "BEGIN; SET LOCAL lock_timeout = {}; LOCK TABLE ONLY {table} IN SHARE UPDATE \
         EXCLUSIVE MODE; SET LOCAL lock_timeout = {lock_timeout_ms}",
        eviction_ms(session, object).await?
    );
    run(session, &sql, "locking against vacuum", object).await.map(drop)
}

fn seen(exists: bool) -> &'static str {
    if exists { "exists" } else { "is missing" }
}

/// The source of a run, looked up anew.
///
/// # Errors
/// `SourceChanged` where it is gone.
pub(crate) async fn source_of(session: &Session, spec: &RunSpec) -> DbResult<Subject> {
    fingerprint::subject(session, spec).await
}
