//! Making and removing what a run needs: shadow, change log, triggers, indexes left for later.
//!
//! Everything here is idempotent: a crash at any point is mended by doing it again. What touches the
//! live table has the lock time-out; who held it is named.

use underpin_core::checkpoint::{Checkpoint, Phase};
use underpin_core::machine::{Observed, SwapState};
use underpin_core::plan::RunSpec;
use underpin_dialect::{DbError, DbResult, ErrorKind, Shadow};

use crate::control::Control;
use crate::fingerprint::Fingerprint;
use crate::inspect::{read_table, table_exists};
use crate::query::{define, literal, quote_table, run};
use crate::shape::Shape;
use crate::{health, strangers, trigger, xa};

/// How often installing may wait for a metadata lock: once for the table, once for each trigger.
const LOCK_WAITS: u32 = 4;

impl Shadow for Control {
    async fn prepare(&mut self, spec: &RunSpec) -> DbResult<()> {
        // Nothing has been copied yet: what a first try left is made anew.
        self.remove(spec, true).await?;
        self.make_shadow(spec).await?;
        self.note_shadow(spec).await?;
        let shape = self.shape(spec).await?;
        let comment = literal(&our_comment(&spec.run_id, "change log"))?;
        let object = shape.table.clone();
        let sql = trigger::log_sql(&shape, &comment);
        define(&mut self.session.conn, &sql, "making the change log of", &object).await?;
        self.install_triggers(spec, &shape).await
    }

    async fn check_source(&mut self, spec: &RunSpec) -> DbResult<()> {
        let object = format!("{}.{}", spec.schema, spec.table);
        let kept = self.load_identity(&spec.run_id, spec.way).await?;
        let capabilities = self.session.capabilities.clone();
        let now = Fingerprint::read(&mut self.session.conn, &capabilities, spec).await?;
        now.ensure_same(&kept, spec.way, &object)?;
        strangers::refuse(&mut self.session.conn, &capabilities, spec).await?;
        self.check_shadow(spec).await
    }

    async fn build_indexes(&mut self, spec: &RunSpec) -> DbResult<()> {
        self.check_shadow(spec).await?;
        let shadow = read_table(&mut self.session, &spec.schema, &spec.names.shadow).await?;
        let standing: Vec<&str> =
            shadow.indexes.iter().map(|index| index.definition.as_str()).collect();
        let missing: Vec<String> = spec
            .deferred_indexes
            .iter()
            .filter(|definition| !standing.contains(&definition.as_str()))
            .map(|definition| format!("ADD {definition}"))
            .collect();
        if missing.is_empty() {
            // They may have been built by a runner that died before it had noted that.
            return self.note_shadow(spec).await;
        }
        let object = format!("{}.{}", spec.schema, spec.names.shadow);
        // One statement: the table is read once and the indexes are sorted side by side.
        let sql = format!(
            "ALTER TABLE {} {}",
            quote_table(&spec.schema, &spec.names.shadow)?,
            missing.join(", ")
        );
        run(&mut self.session.conn, &sql, "building indexes on", &object).await?;
        self.note_shadow(spec).await
    }

    async fn alter_natively(&mut self, spec: &RunSpec) -> DbResult<()> {
        let object = format!("{}.{}", spec.schema, spec.table);
        let source = quote_table(&spec.schema, &spec.table)?;
        let alter = crate::inspect::shadow_alter(&spec.statement, &source)?;
        // The server refuses rather than rewrite the table.
        let sql = format!("{alter}, ALGORITHM=INSTANT");
        self.run_on_live(&sql, "changing in an instant", &object).await
    }

    async fn observe(&mut self, spec: &RunSpec, checkpoint: &Checkpoint) -> DbResult<Observed> {
        let done = match &checkpoint.round {
            Some(round) => self.marks(&spec.run_id, round.number).await?,
            None => Vec::new(),
        };
        let by_name = self.swap_state(spec, checkpoint).await?;
        Ok(Observed { done, swap: self.proven(spec, checkpoint, by_name).await? })
    }

    async fn arrive(&mut self, spec: &RunSpec) -> DbResult<()> {
        self.apply_late_entries(spec).await?;
        self.drop_fences(spec).await
    }

    async fn finish(&mut self, spec: &RunSpec, keep_retired: bool) -> DbResult<()> {
        let object = format!("{}.{}", spec.schema, spec.names.retired);
        if !spec.keeps_way_back {
            self.apply_late_entries(spec).await?;
        }
        self.drop_return_triggers(spec).await?;
        for names in [&spec.names.triggers, &spec.names.fences] {
            for sql in trigger::drop_sql(&spec.schema, names)? {
                self.run_on_live(&sql, "dropping a trigger of", &object).await?;
            }
        }
        if !keep_retired {
            self.refuse_to_drop_the_rows(spec, &spec.names.retired, true).await?;
            self.drop_table(&spec.schema, &spec.names.retired).await?;
        }
        // Of a turn that was cut off in its swap and then left.
        if spec.keeps_way_back && self.is_sentry(spec, &spec.names.shadow).await? {
            self.drop_table(&spec.schema, &spec.names.shadow).await?;
        }
        self.drop_logs(spec).await
    }

    async fn abort(&mut self, spec: &RunSpec) -> DbResult<()> {
        self.remove(spec, false).await
    }

    fn control_session(&self) -> u64 {
        self.session.id.thread
    }
}

impl Control {
    /// The shape of the run by the catalogues as they are now.
    pub(crate) async fn shape(&mut self, spec: &RunSpec) -> DbResult<Shape> {
        let source = read_table(&mut self.session, &spec.schema, &spec.table).await?;
        let shadow = read_table(&mut self.session, &spec.schema, &spec.names.shadow).await?;
        Shape::new(spec, &source, &shadow)
    }

    /// An empty table like the source, then the user's clauses, then without the indexes that are
    /// built later.
    async fn make_shadow(&mut self, spec: &RunSpec) -> DbResult<()> {
        let object = format!("{}.{}", spec.schema, spec.table);
        let shadow = quote_table(&spec.schema, &spec.names.shadow)?;
        let source = quote_table(&spec.schema, &spec.table)?;
        let conn = &mut self.session.conn;
        let sql = format!("CREATE TABLE {shadow} LIKE {source}");
        define(conn, &sql, "making the shadow of", &object).await?;
        let sql = crate::inspect::shadow_alter(&spec.statement, &shadow)?;
        define(conn, &sql, "applying the statement to the shadow of", &object).await?;
        let table = read_table(&mut self.session, &spec.schema, &spec.names.shadow).await?;
        let drops: Vec<String> = table
            .indexes
            .iter()
            .filter(|index| spec.deferred_indexes.contains(&index.definition))
            .map(|index| Ok(format!("DROP INDEX {}", crate::query::quote(&index.name)?)))
            .collect::<DbResult<_>>()?;
        if !drops.is_empty() {
            let sql = format!("ALTER TABLE {shadow} {}", drops.join(", "));
            define(&mut self.session.conn, &sql, "setting indexes aside on the shadow of", &object)
                .await?;
        }
        Ok(())
    }

    /// All three triggers under one lock: no moment in which half of the writes are captured. The lock
    /// also waits for every transaction that wrote before, so none straddles the installation.
    async fn install_triggers(&mut self, spec: &RunSpec, shape: &Shape) -> DbResult<()> {
        let object = shape.table.clone();
        self.date_triggers_ahead(&object).await?;
        self.lock_rows_too(&object).await?;
        let installed = self.install_under_lock(spec, shape).await;
        let settled = self.lock_names_only(&object).await;
        let dated = self.set_clock("DEFAULT", &object).await;
        let identity = installed?;
        settled.and(dated)?;
        self.note_source(spec).await?;
        self.save_identity(&spec.run_id, spec.way, &identity).await
    }

    async fn install_under_lock(&mut self, spec: &RunSpec, shape: &Shape) -> DbResult<String> {
        let object = shape.table.clone();
        let lock = format!("LOCK TABLES {} WRITE, {} WRITE", shape.source, shape.log);
        self.run_on_live(&lock, "locking to install the triggers on", &object).await?;
        let installed = self.create_triggers(spec, shape).await;
        let unlocked =
            run(&mut self.session.conn, "UNLOCK TABLES", "unlocking", &object).await.map(|_| ());
        let identity = installed?;
        unlocked.map(|()| identity)
    }

    /// MariaDB: a statement that the application prepares while we install would pass for a newer one,
    /// would not be prepared again, and would find no change log at each execution (error 1146). So the
    /// triggers bear a time that is later than any preparation which does not know them.
    async fn date_triggers_ahead(&mut self, object: &str) -> DbResult<()> {
        let ahead_s = self.server.settings.lock_wait_timeout_s.saturating_mul(LOCK_WAITS) + 1;
        self.set_clock(&format!("UNIX_TIMESTAMP(SYSDATE(6)) + {ahead_s}"), object).await
    }

    async fn set_clock(&mut self, value: &str, object: &str) -> DbResult<()> {
        if !self.session.capabilities.triggers_aged_by_clock {
            return Ok(());
        }
        let sql = format!("SET SESSION timestamp = {value}");
        let conn = &mut self.session.conn;
        run(conn, &sql, "dating the capture triggers of", object).await.map(|_| ())
    }

    async fn create_triggers(&mut self, spec: &RunSpec, shape: &Shape) -> DbResult<String> {
        let object = shape.table.clone();
        for sql in trigger::capture_sql(shape, spec, &spec.table)? {
            run(&mut self.session.conn, &sql, "installing a capture trigger on", &object).await?;
        }
        let capabilities = self.session.capabilities.clone();
        let print = Fingerprint::read(&mut self.session.conn, &capabilities, spec).await?;
        self.source_seen = Some(crate::shadow_print::Print::of(&print));
        Ok(print.encode())
    }

    /// Removes everything of a run that has not been swapped.
    async fn remove(&mut self, spec: &RunSpec, only_ours: bool) -> DbResult<()> {
        let source = quote_table(&spec.schema, &spec.table)?;
        let object = format!("{}.{}", spec.schema, spec.table);
        let names: Vec<String> =
            spec.names.triggers.iter().chain(&spec.names.fences).cloned().collect();
        if self.any_trigger(&spec.schema, &names).await? {
            let lock = format!("LOCK TABLES {source} WRITE");
            self.run_on_live(&lock, "locking to remove the triggers of", &object).await?;
            let mut result = Ok(());
            for sql in trigger::drop_sql(&spec.schema, &names)? {
                let dropped =
                    run(&mut self.session.conn, &sql, "dropping a trigger of", &object).await;
                result = result.and(dropped.map(|_| ()));
            }
            run(&mut self.session.conn, "UNLOCK TABLES", "unlocking", &object).await?;
            result?;
        }
        // The sentry of an interrupted swap bears the retired name; a real retired table never does
        // before the swap.
        if self.is_sentry(spec, &spec.names.retired).await? {
            self.drop_table(&spec.schema, &spec.names.retired).await?;
        } else if !only_ours
            && table_exists(&mut self.session, &spec.schema, &spec.names.retired).await?
        {
            return Err(DbError::new(ErrorKind::Ambiguous, "removing the run's objects", object)
                .help(format!(
                    "Table {} exists and is not this run's sentry: the swap may have happened. Look \
                     at both tables before you remove anything",
                    spec.names.retired
                )));
        }
        self.refuse_to_drop_the_rows(spec, &spec.names.shadow, false).await?;
        // Its capture triggers, where it has any, go with it.
        self.drop_table(&spec.schema, &spec.names.shadow).await?;
        self.drop_logs(spec).await
    }

    async fn drop_logs(&mut self, spec: &RunSpec) -> DbResult<()> {
        self.drop_table(&spec.schema, &spec.names.log).await?;
        if spec.keeps_way_back {
            self.drop_table(&spec.schema, &spec.names.return_log).await?;
        }
        Ok(())
    }

    pub(crate) async fn any_trigger(&mut self, schema: &str, names: &[String]) -> DbResult<bool> {
        let list: Vec<String> = names.iter().map(|name| literal(name)).collect::<DbResult<_>>()?;
        let sql = format!(
            "SELECT COUNT(*) FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = {} AND \
             TRIGGER_NAME IN ({})",
            literal(schema)?,
            list.join(", ")
        );
        let conn = &mut self.session.conn;
        Ok(crate::query::number(conn, &sql, "looking for triggers in", schema).await? > 0)
    }

    pub(crate) async fn drop_table(&mut self, schema: &str, name: &str) -> DbResult<()> {
        let sql = format!("DROP TABLE IF EXISTS {}", quote_table(schema, name)?);
        let object = format!("{schema}.{name}");
        match define(&mut self.session.conn, &sql, "dropping", &object).await {
            Err(error) if error.is_retryable() => Err(self.lock_not_had(&object, error).await),
            other => other,
        }
    }

    /// Runs a statement that waits for a metadata lock; a lock time-out names who holds the table.
    pub(crate) async fn run_on_live(
        &mut self,
        sql: &str,
        attempted: &str,
        object: &str,
    ) -> DbResult<()> {
        match run(&mut self.session.conn, sql, attempted, object).await {
            Err(error) if error.is_retryable() => Err(self.lock_not_had(object, error).await),
            other => other.map(|_| ()),
        }
    }

    /// The error of a lock that was not had in time, with who holds the table.
    async fn lock_not_had(&mut self, object: &str, mut error: DbError) -> DbError {
        let (schema, table) = object.split_once('.').unwrap_or(("", object));
        error.kind = ErrorKind::LockNotHad;
        let holders = health::holders(&mut self.session, schema, table).await;
        error.help = Some(holders + &xa::prepared(&mut self.session).await);
        error
    }

    /// Which table bears the source's name, told by which of our names are left.
    async fn swap_state(&mut self, spec: &RunSpec, checkpoint: &Checkpoint) -> DbResult<SwapState> {
        let phase = checkpoint.phase;
        let source = table_exists(&mut self.session, &spec.schema, &spec.table).await?;
        // The other name bears a sentry where a swap was cut off, that of a turn which was left too.
        let shadow = table_exists(&mut self.session, &spec.schema, &spec.names.shadow).await?
            && !self.is_sentry(spec, &spec.names.shadow).await?;
        let retired = table_exists(&mut self.session, &spec.schema, &spec.names.retired).await?
            && !self.is_sentry(spec, &spec.names.retired).await?;
        Ok(match (source, shadow, retired) {
            (true, true, false) => SwapState::NotSwapped,
            // Nothing was made yet, what was made is being made anew, or an abort was cut off.
            (true, false, false) if phase == Phase::Prepare || checkpoint.aborting => {
                SwapState::NotSwapped
            }
            (true, false, true) => SwapState::Swapped,
            // The retired table is dropped only after the swap was recorded, by us or by somebody who
            // wants no way back.
            (true, false, false) if phase >= Phase::Arrive => SwapState::Swapped,
            _ => SwapState::Unclear(format!(
                "in {}: {} {}, {} {}, {} {}",
                spec.schema,
                spec.table,
                seen(source),
                spec.names.shadow,
                seen(shadow),
                spec.names.retired,
                seen(retired)
            )),
        })
    }
}

fn seen(exists: bool) -> &'static str {
    if exists { "exists" } else { "is missing" }
}

/// The comment that tells our objects from other people's.
pub(crate) fn our_comment(run_id: &str, what: &str) -> String {
    format!("underpin run {run_id}: {what}")
}
