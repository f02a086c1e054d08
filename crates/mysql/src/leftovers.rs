//! What is left over of runs on this server, and removing it.
//!
//! Our names are no proof: anybody may name a table so. A change log and a sentry are known by their
//! comment, a trigger by its body, shadow and retired table by InnoDB's id, which the run noted: they
//! bear the user's own comment.

use std::collections::HashMap;

use underpin_core::plan::RunSpec;
use underpin_dialect::{
    DbError, DbResult, ErrorKind, Leftover, LeftoverKind, LeftoverRun, Leftovers, Origin,
};

use crate::control::Control;
use crate::query::{cell, literal, optional_text, quote, quote_table, rows, run, text};
use crate::shadow_print;
use crate::store::is_runner_alive_sql;

/// Objects and runs that are looked at, at most.
const SEEN_MAX: u32 = 10_000;

/// What every comment of ours begins with.
const COMMENT: &str = "underpin run ";

/// A run on record.
struct Recorded {
    schema: String,
    table: String,
    age_s: Option<u64>,
    shown: LeftoverRun,
    spec: Option<RunSpec>,
    /// Ids of its tables: of the old shape, of the new one.
    ids: Vec<(String, &'static str)>,
}

type Runs = HashMap<String, Recorded>;

impl Leftovers for Control {
    async fn leftovers(&mut self) -> DbResult<Vec<Leftover>> {
        let runs = self.recorded().await?;
        let mut found = self.our_tables(&runs).await?;
        found.extend(self.our_triggers(&runs).await?);
        let open = runs.iter().filter(|(_, run)| run.shown.state == "open");
        for run_id in open.map(|(run_id, _)| run_id) {
            if !found.iter().any(|leftover| leftover.run_id == *run_id) {
                let base = known(LeftoverKind::Record, &self.state_schema, "runs", run_id, &runs);
                found.push(Leftover { proof: "the run's record".into(), ..base });
            }
        }
        found.extend(self.orphan_rows(&runs).await?);
        Ok(found)
    }

    async fn remove_leftover(&mut self, leftover: &Leftover) -> DbResult<()> {
        let (schema, name) = (&leftover.schema, &leftover.name);
        let object = format!("{schema}.{name}");
        if leftover.proof.is_empty() {
            return Err(DbError::new(ErrorKind::Refused, "removing a left-over", object).help(
                "Nothing proves that it is underpin's own; look at it, and drop it by hand",
            ));
        }
        match leftover.kind {
            LeftoverKind::Trigger => {
                let sql = format!("DROP TRIGGER IF EXISTS {}", quote_table(schema, name)?);
                let table = if leftover.table.is_empty() { &object } else { &leftover.table };
                self.run_on_live(&sql, "dropping a trigger of", table).await
            }
            LeftoverKind::StateRows => {
                let state = quote(&self.state_schema)?;
                let sql = format!(
                    "DELETE FROM {} WHERE run_id = {id} AND NOT EXISTS (SELECT 1 FROM {state}.runs AS r \
                     WHERE r.run_id = {id} AND r.state = 'open')",
                    quote_table(schema, name)?,
                    id = literal(&leftover.run_id)?
                );
                let conn = &mut self.session.conn;
                run(conn, &sql, "removing rows of", &object).await.map(drop)
            }
            LeftoverKind::Record => {
                Err(DbError::new(ErrorKind::Refused, "removing a left-over", object)
                    .help("The run is open: `underpin abort` ends it"))
            }
            _ => {
                self.refuse_while_written(schema, name).await?;
                self.drop_table(schema, name).await
            }
        }
    }
}

impl Control {
    /// A log whose trigger stands must stay: without it every write to the table would fail. Whoever may
    /// not see triggers cannot know that.
    async fn refuse_while_written(&mut self, schema: &str, name: &str) -> DbResult<()> {
        let object = format!("{schema}.{name}");
        let sql = format!(
            "SELECT TRIGGER_NAME, EVENT_OBJECT_TABLE FROM information_schema.TRIGGERS WHERE \
             TRIGGER_SCHEMA = {} AND LOCATE({}, ACTION_STATEMENT) > 0 LIMIT 1",
            literal(schema)?,
            literal(&quote(name)?)?
        );
        let conn = &mut self.session.conn;
        let found = rows(conn, &sql, "looking for triggers that write into", &object).await?;
        if let Some(row) = found.first() {
            return Err(DbError::new(ErrorKind::Refused, "removing a left-over", object).help(
                format!("Trigger {} of {} still writes into it", text(row, 0), text(row, 1)),
            ));
        }
        if crate::privileges::may_see_triggers(self, schema).await? {
            return Ok(());
        }
        Err(DbError::new(ErrorKind::Refused, "removing a left-over", object).help(
            "The account cannot see whether a trigger still writes into it: give it TRIGGER on the \
             database",
        ))
    }

    async fn recorded(&mut self) -> DbResult<Runs> {
        let mut runs = Runs::new();
        if !self.has_state_table("runs").await? {
            return Ok(runs);
        }
        let state = quote(&self.state_schema)?;
        let history = match self.has_state_table("history").await? {
            true => {
                format!("(SELECT h.origin FROM {state}.history AS h WHERE h.run_id = r.run_id)")
            }
            false => "''".to_owned(),
        };
        let sql = format!(
            "SELECT r.run_id, r.schema_name, r.table_name, r.state, r.runner, r.created_at, \
             CAST(GREATEST(TIMESTAMPDIFF(SECOND, r.created_at, UTC_TIMESTAMP(6)), 0) AS UNSIGNED), \
             r.spec, {history} FROM {state}.runs AS r ORDER BY r.created_at DESC LIMIT {SEEN_MAX}"
        );
        let conn = &mut self.session.conn;
        let found = rows(conn, &sql, "reading the runs in", &self.state_schema).await?;
        for row in &found {
            let (schema, table) = (text(row, 1), text(row, 2));
            let origin: Origin = serde_json::from_str(&text(row, 8)).unwrap_or_default();
            let state = text(row, 3);
            let running = state == "open" && {
                let sql = is_runner_alive_sql(&schema, &table)?;
                let conn = &mut self.session.conn;
                crate::query::number(conn, &sql, "looking for the runner of", &table).await? > 0
            };
            let by = if origin.by.is_empty() { text(row, 4) } else { origin.by };
            let shown = LeftoverRun { state, running, by, created_at: text(row, 5) };
            let recorded = Recorded {
                age_s: cell(row, 6, "reading runs")?,
                spec: serde_json::from_str(&text(row, 7)).ok(),
                ids: Vec::new(),
                schema,
                table,
                shown,
            };
            runs.insert(text(row, 0), recorded);
        }
        if self.has_state_table("prints").await? {
            let sql = format!("SELECT run_id, what, print FROM {state}.prints LIMIT {SEEN_MAX}");
            let conn = &mut self.session.conn;
            let found = rows(conn, &sql, "reading prints in", &self.state_schema).await?;
            for row in &found {
                if let Some(run) = runs.get_mut(&text(row, 0)) {
                    run.ids.extend(shadow_print::noted(&text(row, 1), &text(row, 2)));
                }
            }
        }
        Ok(runs)
    }

    async fn our_tables(&mut self, runs: &Runs) -> DbResult<Vec<Leftover>> {
        let sql = format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_COMMENT, COALESCE(DATA_LENGTH, 0) + \
             COALESCE(INDEX_LENGTH, 0), TABLE_ROWS, CAST(GREATEST(TIMESTAMPDIFF(SECOND, CREATE_TIME, \
             NOW()), 0) AS UNSIGNED) FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE' AND \
             TABLE_SCHEMA <> {} AND (TABLE_NAME LIKE '%~~up~_%' ESCAPE '~' OR \
             TABLE_COMMENT LIKE '{COMMENT}%') LIMIT {SEEN_MAX}",
            literal(&self.state_schema)?
        );
        let found = rows(&mut self.session.conn, &sql, "looking for tables of ours", "").await?;
        let mut leftovers = Vec::new();
        for row in &found {
            let (schema, name, comment) = (text(row, 0), text(row, 1), text(row, 2));
            let Some((kind, run_id, proof)) = self.tell(&schema, &name, &comment, runs).await?
            else {
                continue;
            };
            let base = known(kind, &schema, &name, &run_id, runs);
            let age_s = base.age_s.or(cell(row, 5, "reading tables")?);
            leftovers.push(Leftover {
                table: if base.table.is_empty() { made_for(&schema, &name) } else { base.table },
                lock: base.lock.or_else(|| lock_of(&schema, &name)),
                proof,
                bytes: cell(row, 3, "reading tables")?,
                rows: cell(row, 4, "reading tables")?,
                age_s,
                ..base
            });
        }
        Ok(leftovers)
    }

    /// What a table is, its run, and what proves it; `None` where it is none of ours.
    async fn tell(
        &mut self,
        schema: &str,
        name: &str,
        comment: &str,
        runs: &Runs,
    ) -> DbResult<Option<(LeftoverKind, String, String)>> {
        let marked = comment.strip_prefix(COMMENT).and_then(|rest| rest.split_once(": "));
        if let Some((run_id, what)) = marked.filter(|(run_id, _)| is_run_id(run_id)) {
            let kind = match what {
                "change log" => LeftoverKind::ChangeLog,
                "change log of the way back" => LeftoverKind::ReturnLog,
                "sentry" => LeftoverKind::Sentry,
                _ => LeftoverKind::Notes,
            };
            return Ok(Some((kind, run_id.to_owned(), format!("its comment: {comment}"))));
        }
        let kind = match name.rsplit_once("~up_").map(|(_, what)| what) {
            Some("new") => LeftoverKind::Shadow,
            Some("old") => LeftoverKind::Retired,
            Some("log") => LeftoverKind::ChangeLog,
            Some("rlog") => LeftoverKind::ReturnLog,
            Some("plan") => LeftoverKind::Scratch,
            _ => return Ok(None),
        };
        let of_spec = |run: &Recorded| {
            run.schema == schema
                && run.spec.as_ref().is_some_and(|spec| {
                    [&spec.names.shadow, &spec.names.retired].iter().any(|own| *own == name)
                })
        };
        if let Some(ids) = self.ids_at(schema, name).await? {
            let mut noted: Vec<(&String, &Recorded)> =
                runs.iter().filter(|(_, run)| of_spec(run) && may_be_of(kind, run, &ids)).collect();
            // One table may have been the source of several runs, one after the other.
            noted.sort_by_key(|(_, run)| (run.shown.state == "open", &run.shown.created_at));
            if let Some((run_id, _)) = noted.last() {
                let proof = "InnoDB's id, which the run noted".to_owned();
                return Ok(Some((kind, (*run_id).clone(), proof)));
            }
        }
        // Whatever an open run has under its names is its own, proven or not.
        let open = runs.iter().find(|(_, run)| run.shown.state == "open" && of_spec(run));
        let run_id = open.map(|(run_id, _)| run_id.clone()).unwrap_or_default();
        Ok(Some((kind, run_id, String::new())))
    }

    async fn our_triggers(&mut self, runs: &Runs) -> DbResult<Vec<Leftover>> {
        let sql = format!(
            "SELECT TRIGGER_SCHEMA, TRIGGER_NAME, EVENT_OBJECT_SCHEMA, EVENT_OBJECT_TABLE, \
             ACTION_STATEMENT, CAST(GREATEST(TIMESTAMPDIFF(SECOND, CREATED, NOW()), 0) AS UNSIGNED) FROM \
             information_schema.TRIGGERS WHERE TRIGGER_NAME LIKE '%~~up~_%' ESCAPE '~' LIMIT {SEEN_MAX}"
        );
        let found = rows(&mut self.session.conn, &sql, "looking for triggers of ours", "").await?;
        let mut leftovers = Vec::new();
        for row in &found {
            let (schema, name, body) = (text(row, 0), text(row, 1), text(row, 4));
            let Some((run_id, _)) =
                name.rsplit_once("~up_").and_then(|(_, rest)| rest.rsplit_once('_'))
            else {
                continue;
            };
            if !is_run_id(run_id) {
                continue;
            }
            let appends = ["~up_log` (", "~up_rlog` ("].iter().any(|log| body.contains(log));
            let proof = if body.contains("INSERT INTO ") && appends {
                "its body writes into a change log"
            } else if body.contains("underpin is swapping this table") {
                "its body is a fence"
            } else {
                ""
            };
            let base = known(LeftoverKind::Trigger, &schema, &name, run_id, runs);
            let on = (text(row, 2), text(row, 3));
            let lock = base.lock.or_else(|| {
                let made_for = lock_of(&on.0, &on.1);
                made_for.or_else(|| Some(on.clone()))
            });
            leftovers.push(Leftover {
                table: format!("{}.{}", on.0, on.1),
                lock,
                proof: proof.to_owned(),
                age_s: base.age_s.or(optional_text(row, 5).and_then(|age| age.parse().ok())),
                ..base
            });
        }
        Ok(leftovers)
    }

    /// Rows of our state whose run is not on record.
    async fn orphan_rows(&mut self, runs: &Runs) -> DbResult<Vec<Leftover>> {
        let mut leftovers = Vec::new();
        if !self.has_state_table("runs").await? {
            return Ok(leftovers);
        }
        let state = quote(&self.state_schema)?;
        for name in ["fences", "marks", "orders", "history", "live", "beats", "prints"] {
            if !self.has_state_table(name).await? {
                continue;
            }
            let sql = format!(
                "SELECT t.run_id, COUNT(*) FROM {state}.{name} AS t LEFT JOIN {state}.runs AS r ON \
                 r.run_id = t.run_id WHERE r.run_id IS NULL GROUP BY t.run_id LIMIT {SEEN_MAX}"
            );
            let conn = &mut self.session.conn;
            let found = rows(conn, &sql, "looking for rows without a run in", name).await?;
            for row in &found {
                let base =
                    known(LeftoverKind::StateRows, &self.state_schema, name, &text(row, 0), runs);
                leftovers.push(Leftover {
                    proof: "it stands in underpin's own table".into(),
                    rows: cell(row, 1, "counting rows")?,
                    ..base
                });
            }
        }
        Ok(leftovers)
    }

    async fn has_state_table(&mut self, name: &str) -> DbResult<bool> {
        let state = self.state_schema.clone();
        crate::inspect::table_exists(&mut self.session, &state, name).await
    }

    async fn ids_at(&mut self, schema: &str, name: &str) -> DbResult<Option<String>> {
        let capabilities = self.session.capabilities.clone();
        let conn = &mut self.session.conn;
        match crate::fingerprint::table_ids(conn, &capabilities, schema, name).await {
            Ok(ids) => Ok(Some(shadow_print::nameless(&ids))),
            // Not InnoDB's, or an account without PROCESS: then nothing is proven by it.
            Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::AccessDenied) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether the run noted a table of these ids that it may have left as one of this kind. An aborted run
/// leaves no old table: what it noted as such is the table with the rows, whoever renamed it.
fn may_be_of(kind: LeftoverKind, run: &Recorded, ids: &str) -> bool {
    let (shape, is_due) = match kind {
        LeftoverKind::Shadow => (shadow_print::NEW, true),
        LeftoverKind::Retired => {
            (shadow_print::OLD, matches!(run.shown.state.as_str(), "open" | "done"))
        }
        _ => return false,
    };
    is_due && run.ids.iter().any(|(noted, key)| noted == ids && *key == shape)
}

/// A left-over with what is on record of its run.
fn known(kind: LeftoverKind, schema: &str, name: &str, run_id: &str, runs: &Runs) -> Leftover {
    let run = runs.get(run_id);
    Leftover {
        kind,
        schema: schema.to_owned(),
        name: name.to_owned(),
        table: run.map(|run| format!("{}.{}", run.schema, run.table)).unwrap_or_default(),
        lock: run.map(|run| (run.schema.clone(), run.table.clone())),
        run_id: run_id.to_owned(),
        run: run.map(|run| run.shown.clone()),
        proof: String::new(),
        bytes: None,
        rows: None,
        age_s: run.and_then(|run| run.age_s),
    }
}

/// Of a name of ours that was not shortened: the table it was made for.
fn made_for(schema: &str, name: &str) -> String {
    lock_of(schema, name).map(|(schema, table)| format!("{schema}.{table}")).unwrap_or_default()
}

fn lock_of(schema: &str, name: &str) -> Option<(String, String)> {
    let (table, _) = name.rsplit_once("~up_")?;
    Some((schema.to_owned(), table.to_owned()))
}

/// Runs' ids are of lower-case letters and digits.
fn is_run_id(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 32
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}
