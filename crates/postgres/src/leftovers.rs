//! What is left over of runs in this database, and removing it.
//!
//! Our names are no proof: anybody may name a schema so. A schema is ours by its comment, what stands in
//! it by standing there, a trigger by calling a function that stands there.

use std::collections::HashMap;

use underpin_dialect::{
    DbError, DbResult, ErrorKind, Leftover, LeftoverKind, LeftoverRun, Leftovers, Origin,
};

use crate::control::Control;
use crate::names;
use crate::query::{flag, holds, literal, number, optional_cell, quote, quote_table, rows, run};
use crate::query::{text, undo};
use crate::shadow::{begin_on_live, eviction_ms};
use crate::store::is_runner_alive_sql;

/// Objects and runs that are looked at, at most.
const SEEN_MAX: u32 = 10_000;

/// A run on record.
struct Recorded {
    schema: String,
    table: String,
    age_s: Option<u64>,
    shown: LeftoverRun,
}

type Runs = HashMap<String, Recorded>;

/// A schema whose name is like ours.
struct Room {
    name: String,
    run_id: String,
    /// Whether it holds the old table.
    is_retired: bool,
    /// Whether its comment proves it ours.
    is_proven: bool,
}

impl Leftovers for Control {
    async fn leftovers(&mut self) -> DbResult<Vec<Leftover>> {
        let runs = self.recorded().await?;
        let mut found = Vec::new();
        for room in self.rooms().await? {
            found.extend(self.contents(&room, &runs).await?);
            let base = known(LeftoverKind::Schema, &room.name, &room.name, &room.run_id, &runs);
            found.push(Leftover { proof: proof(&room, "its comment"), ..base });
        }
        for (run_id, _) in runs.iter().filter(|(_, run)| run.shown.state == "open") {
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
        let refused = |why: &str| {
            Err(DbError::new(ErrorKind::Refused, "removing a left-over", object.clone()).help(why))
        };
        if leftover.proof.is_empty() {
            return refused(
                "Nothing proves that it is underpin's own; look at it, and drop it by hand",
            );
        }
        // Without CASCADE: what somebody else hung on it is named by the server, not taken along.
        let sql = match leftover.kind {
            LeftoverKind::Record => return refused("The run is open: `underpin abort` ends it"),
            LeftoverKind::Trigger => return self.drop_trigger(leftover).await,
            LeftoverKind::StateRows => format!(
                "DELETE FROM {} WHERE run_id = {id} AND NOT EXISTS (SELECT FROM {}.runs AS r WHERE \
                 r.run_id = {id} AND r.state = 'open')",
                quote_table(schema, name)?,
                quote(&self.state_schema)?,
                id = literal(&leftover.run_id)?
            ),
            LeftoverKind::Function => {
                format!("DROP FUNCTION IF EXISTS {}()", quote_table(schema, name)?)
            }
            LeftoverKind::Schema => format!("DROP SCHEMA IF EXISTS {}", quote(name)?),
            _ => {
                if self.is_written(schema).await? {
                    return refused("A trigger still writes into its schema");
                }
                format!("DROP TABLE IF EXISTS {}", quote_table(schema, name)?)
            }
        };
        let wait_ms = eviction_ms(&self.session, &object).await?;
        let sql = format!("SET LOCAL lock_timeout = {wait_ms}; {sql}");
        run(&self.session, &sql, "removing a left-over", &object).await.map(drop)
    }
}

impl Control {
    async fn recorded(&self) -> DbResult<Runs> {
        let mut runs = Runs::new();
        if !self.has_state_table("runs").await? {
            return Ok(runs);
        }
        let state = quote(&self.state_schema)?;
        let history = match self.has_state_table("history").await? {
            true => format!("(SELECT h.origin FROM {state}.history h WHERE h.run_id = r.run_id)"),
            false => "''".to_owned(),
        };
        let sql = format!(
            "SELECT r.run_id, r.schema_name, r.table_name, r.state, r.runner, \
             pg_catalog.to_char(r.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'), \
             greatest(extract(epoch FROM pg_catalog.clock_timestamp() - r.created_at), 0)::bigint, \
             {history} FROM {state}.runs r ORDER BY r.created_at DESC LIMIT {SEEN_MAX}"
        );
        let found = rows(&self.session, &sql, "reading the runs in", &self.state_schema).await?;
        for row in &found {
            let (schema, table, state) = (text(row, 1), text(row, 2), text(row, 3));
            let origin: Origin = serde_json::from_str(&text(row, 7)).unwrap_or_default();
            let running = state == "open" && {
                let sql = is_runner_alive_sql(&schema, &table);
                holds(&self.session, &sql, "looking for the runner of", &table).await?
            };
            let by = if origin.by.is_empty() { text(row, 4) } else { origin.by };
            let shown = LeftoverRun { state, running, by, created_at: text(row, 5) };
            let age_s = optional_cell(row, 6, "reading runs")?;
            runs.insert(text(row, 0), Recorded { schema, table, age_s, shown });
        }
        Ok(runs)
    }

    async fn rooms(&self) -> DbResult<Vec<Room>> {
        let sql = format!(
            "SELECT n.nspname, pg_catalog.obj_description(n.oid, 'pg_namespace') FROM \
             pg_catalog.pg_namespace n WHERE n.nspname ~ '^underpin_[a-z0-9]{{1,32}}(_old)?$' AND \
             n.nspname <> {} ORDER BY n.nspname LIMIT {SEEN_MAX}",
            literal(&self.state_schema)?
        );
        let found = rows(&self.session, &sql, "looking for schemas of ours", "").await?;
        let room = |row| {
            let (name, comment) = (text(row, 0), text(row, 1));
            let id = name.strip_prefix(names::ANY_RUN).unwrap_or_default();
            let run_id = id.strip_suffix("_old").unwrap_or(id).to_owned();
            let is_proven = comment == names::comment(&run_id);
            Room { is_retired: id.ends_with("_old"), is_proven, run_id, name }
        };
        Ok(found.iter().map(room).collect())
    }

    /// Tables and functions in the schema, and triggers that call them.
    async fn contents(&self, room: &Room, runs: &Runs) -> DbResult<Vec<Leftover>> {
        let name = literal(&room.name)?;
        let mut found = Vec::new();
        let sql = format!(
            "SELECT c.relname, pg_catalog.pg_total_relation_size(c.oid), greatest(c.reltuples, 0)::bigint \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE \
             n.nspname = {name} AND c.relkind = 'r' ORDER BY c.relname LIMIT {SEEN_MAX}"
        );
        let tables = rows(&self.session, &sql, "looking for tables of ours in", &room.name).await?;
        // A run has one table of the user's in either schema: what stands beside it is somebody else's.
        let others = tables.iter().filter(|row| !text(row, 0).starts_with("underpin_")).count();
        for row in &tables {
            let table = text(row, 0);
            let kind = match table.as_str() {
                "underpin_log" => LeftoverKind::ChangeLog,
                "underpin_return_log" => LeftoverKind::ReturnLog,
                own if own.starts_with("underpin_") => LeftoverKind::Notes,
                _ if room.is_retired => LeftoverKind::Retired,
                _ => LeftoverKind::Shadow,
            };
            let users = matches!(kind, LeftoverKind::Retired | LeftoverKind::Shadow);
            let base = known(kind, &room.name, &table, &room.run_id, runs);
            let is_its_own = base.lock.as_ref().map_or(others == 1, |(_, own)| *own == table);
            let stands = if users && !is_its_own { "" } else { "it stands in the run's schema" };
            found.push(Leftover {
                proof: if stands.is_empty() { String::new() } else { proof(room, stands) },
                bytes: optional_cell(row, 1, "reading sizes")?,
                rows: optional_cell(row, 2, "reading sizes")?,
                ..base
            });
        }
        let sql = format!(
            "SELECT p.proname, false, '', '' FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON \
             n.oid = p.pronamespace WHERE n.nspname = {name} UNION ALL SELECT t.tgname, true, s.nspname, \
             c.relname FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid JOIN \
             pg_catalog.pg_namespace n ON n.oid = p.pronamespace JOIN pg_catalog.pg_class c ON c.oid = \
             t.tgrelid JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace WHERE n.nspname = {name} \
             AND NOT t.tgisinternal LIMIT {SEEN_MAX}"
        );
        for row in &rows(&self.session, &sql, "looking for triggers of ours in", &room.name).await?
        {
            let (object, is_trigger) = (text(row, 0), flag(row, 1));
            let kind = if is_trigger { LeftoverKind::Trigger } else { LeftoverKind::Function };
            let ours = object.starts_with(&format!("{}{}_", names::ANY_RUN, room.run_id));
            let how = if is_trigger {
                "it calls the run's function"
            } else {
                "it stands in the run's schema"
            };
            let base = known(kind, &room.name, &object, &room.run_id, runs);
            let (schema, table) = (text(row, 2), text(row, 3));
            let proof = if ours { proof(room, how) } else { String::new() };
            found.push(match is_trigger {
                true => Leftover { table: format!("{schema}.{table}"), schema, proof, ..base },
                false => Leftover { proof, ..base },
            });
        }
        Ok(found)
    }

    /// Rows of our state whose run is not on record.
    async fn orphan_rows(&self, runs: &Runs) -> DbResult<Vec<Leftover>> {
        let mut found = Vec::new();
        if !self.has_state_table("runs").await? {
            return Ok(found);
        }
        let state = quote(&self.state_schema)?;
        for name in ["fences", "marks", "orders", "history", "live", "beats", "prints"] {
            if !self.has_state_table(name).await? {
                continue;
            }
            let sql = format!(
                "SELECT t.run_id, pg_catalog.count(*) FROM {state}.{name} t WHERE NOT EXISTS (SELECT FROM \
                 {state}.runs r WHERE r.run_id = t.run_id) GROUP BY t.run_id LIMIT {SEEN_MAX}"
            );
            for row in &rows(&self.session, &sql, "looking for rows without a run in", name).await?
            {
                let base =
                    known(LeftoverKind::StateRows, &self.state_schema, name, &text(row, 0), runs);
                found.push(Leftover {
                    proof: "it stands in underpin's own table".into(),
                    rows: optional_cell(row, 1, "counting rows")?,
                    ..base
                });
            }
        }
        Ok(found)
    }

    async fn has_state_table(&self, name: &str) -> DbResult<bool> {
        let place = literal(&quote_table(&self.state_schema, name)?)?;
        let sql = format!("SELECT pg_catalog.to_regclass({place}) IS NOT NULL");
        holds(&self.session, &sql, "looking for", name).await
    }

    /// Whether a trigger calls a function of the schema: without the log every write would fail.
    async fn is_written(&self, schema: &str) -> DbResult<bool> {
        let sql = format!(
            "SELECT pg_catalog.count(*) FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = \
             t.tgfoid JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = {}",
            literal(schema)?
        );
        let found =
            number(&self.session, &sql, "looking for triggers that write into", schema).await?;
        Ok(found > 0)
    }

    async fn drop_trigger(&self, leftover: &Leftover) -> DbResult<()> {
        let object = &leftover.table;
        let name = object.strip_prefix(&format!("{}.", leftover.schema)).unwrap_or(object);
        let table = quote_table(&leftover.schema, name)?;
        let lock_timeout_ms = self.server.settings.lock_timeout_ms;
        let dropped = async {
            begin_on_live(&self.session, &table, object, lock_timeout_ms).await?;
            let sql =
                format!("DROP TRIGGER IF EXISTS {} ON {table}; COMMIT", quote(&leftover.name)?);
            run(&self.session, &sql, "dropping a trigger of", object).await.map(drop)
        };
        match undo(&self.session, dropped.await).await {
            Err(mut error) if error.is_retryable() => {
                error.kind = ErrorKind::LockNotHad;
                Err(error.help("Somebody holds the table; try again when he is gone"))
            }
            done => done,
        }
    }
}

fn proof(room: &Room, how: &str) -> String {
    if room.is_proven { format!("{how}: underpin run {}", room.run_id) } else { String::new() }
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
