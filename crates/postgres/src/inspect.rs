//! Reading the catalogues, and planning a change: the server judges the statement on an empty twin of
//! the table that is rolled back, then source and twin are compared.

use std::time::{Duration, Instant};

use underpin_core::alter::{Alter, ClauseKind, Syntax};
use underpin_core::finding::{Finding, is_refused};
use underpin_core::mapping::{ColumnHints, KeyColumn, KeySpec, Mapping, choose_key, map_columns};
use underpin_core::plan::{Flow, Plan, RunSpec, Strategy};
use underpin_core::schema::{Column, Index, IndexPart, Table};
use underpin_core::statements::StatementStats;
use underpin_core::way::Way;
use underpin_dialect::{DbError, DbResult, ErrorKind, Inspect, Request};

use crate::connect::Session;
use crate::control::Control;
use crate::dependents::Subject;
use crate::keys::{NOT_DETERMINISTIC, key_fit, remade};
use crate::query::{cell, flag, literal, number, optional_text, rows, text};
use crate::{fingerprint, health, names, preflight, statements, twin, way_back};

/// Ways to the server and back that are timed.
const ROUND_TRIPS: u32 = 3;

impl Inspect for Control {
    fn server(&self) -> String {
        format!("{} at {}", self.session.capabilities, self.server.options.describe())
    }

    async fn plan(&mut self, request: &Request) -> DbResult<Plan> {
        let schema = schema_of(&self.session, request).await?;
        let table = request.alter.table.name.clone();
        let replicas =
            health::replica_names(&self.session, &self.server, &request.replicas).await?;
        let mut plan = Plan {
            strategy: Strategy::Shadow,
            findings: preflight::before(self, request, &schema, &table).await?,
            spec: None,
            server: self.server(),
            replicas,
        };
        if is_refused(&plan.findings) {
            return Ok(plan);
        }
        let source = Subject::read(&self.session, &schema, &table).await?;
        let table = read_table(&self.session, &source).await?;
        // What cannot be carried does not matter to a change that the server makes by itself.
        let obstacles = preflight::obstacles(self, &source, &table).await?;
        let judged = match twin::judge(&self.session, request, &source).await {
            Ok(judged) => judged,
            Err(_) if is_refused(&obstacles) => {
                plan.findings.extend(obstacles);
                return Ok(plan);
            }
            Err(error) => return Err(error),
        };
        if judged.native && !request.force_shadow {
            plan.strategy = Strategy::Native;
            let spec = native_spec(request, &source, &table);
            plan.spec = Some(spec);
            return Ok(plan);
        }
        plan.findings.extend(obstacles);
        plan.findings.extend(judged.findings);
        match compare(&table, &judged.table, &request.alter) {
            Err(refusal) => plan.findings.push(refusal),
            Ok((mapping, key)) => {
                let more =
                    preflight::change(self, &source, &table, &judged.table, &mapping).await?;
                plan.findings.extend(more);
                plan.findings.extend(preflight::long_snapshots(&judged.indexes, &key));
                if request.keeps_way_back {
                    let new = &judged.table;
                    let more =
                        way_back::findings(&self.session, &source, &table, new, &mapping, &key)
                            .await?;
                    plan.findings.extend(more);
                }
                plan.spec =
                    Some(spec_for(request, &table, &judged.table, judged.indexes, mapping, key));
            }
        }
        Ok(plan)
    }

    async fn round_trip(&mut self) -> DbResult<Duration> {
        let mut shortest = Duration::MAX;
        for _ in 0..ROUND_TRIPS {
            let begun = Instant::now();
            number(&self.session, "SELECT 1", "timing the way to", "the server").await?;
            shortest = std::cmp::min(shortest, begun.elapsed());
        }
        Ok(shortest)
    }

    async fn statements(
        &mut self,
        _schema: &str,
        table: &str,
    ) -> DbResult<Option<Vec<StatementStats>>> {
        statements::read(&self.session, table).await
    }

    async fn fingerprint(&mut self, schema: &str, table: &str) -> DbResult<Option<String>> {
        fingerprint::short(&self.session, schema, table).await
    }
}

/// The schema of the table: the statement's, the caller's, or where the search path finds it.
async fn schema_of(session: &Session, request: &Request) -> DbResult<String> {
    if let Some(schema) =
        request.alter.table.schema.clone().or_else(|| request.default_schema.clone())
    {
        return Ok(schema);
    }
    let table = &request.alter.table.name;
    let sql = format!(
        "BEGIN; SET LOCAL search_path TO DEFAULT; SELECT n.nspname FROM pg_catalog.pg_class c JOIN \
         pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = \
         pg_catalog.to_regclass({}); ROLLBACK",
        crate::query::literal(&crate::query::quote(table)?)?
    );
    let found = rows(session, &sql, "looking for the table", table).await?;
    found.first().map(|row| text(row, 0)).ok_or_else(|| {
        DbError::new(ErrorKind::NotFound, "looking for the table", table.clone())
            .help("No schema of the search path has it: name its schema in the statement")
    })
}

pub(crate) fn compare(
    source: &Table,
    shadow: &Table,
    alter: &Alter,
) -> Result<(Mapping, KeySpec), Finding> {
    let mapping = map_columns(source, shadow, &hints(alter))
        .map_err(|error| Finding::refusal("columns-unclear", error.to_string(), ""))?;
    let remade = remade(alter);
    let fit = |old: &Column, new: &Column| {
        if remade.contains(&old.name) { None } else { key_fit(old, new) }
    };
    let key = choose_key(source, shadow, &mapping, fit).map_err(|error| {
        let remedy = if remade.is_empty() {
            ""
        } else {
            "Values that USING makes anew are no keys: leave it out where a cast does, or change the key \
             in a statement of its own"
        };
        Finding::refusal("no-usable-key", error.to_string(), remedy)
    })?;
    Ok((mapping, key))
}

/// What the clauses say about columns.
fn hints(alter: &Alter) -> ColumnHints {
    let mut hints = ColumnHints::default();
    for clause in &alter.clauses {
        match &clause.kind {
            ClauseKind::RenameColumn { from, to } => {
                hints.renames.push((from.clone(), to.clone()));
            }
            ClauseKind::AddColumn { names } => hints.added.extend(names.iter().cloned()),
            ClauseKind::DropColumn { name } => hints.dropped.push(name.clone()),
            _ => {}
        }
    }
    hints
}

/// The user's statement, taken apart.
///
/// # Errors
/// `Refused` where it cannot be read, which it could when the run was planned.
pub(crate) fn alter_of(statement: &str) -> DbResult<Alter> {
    Alter::parse(statement, Syntax::postgres()).map_err(|error| {
        DbError::new(ErrorKind::Refused, "reading the statement", "").said(error.to_string())
    })
}

fn spec_for(
    request: &Request,
    source: &Table,
    shadow: &Table,
    indexes: Vec<String>,
    mapping: Mapping,
    key: KeySpec,
) -> RunSpec {
    let volatile_added = mapping
        .added
        .iter()
        .filter(|name| {
            // Behind the way back and forward again they hold what the application wrote.
            request.keeps_way_back
                || shadow.column(name).is_some_and(|c| c.volatile_default || c.auto_increment)
        })
        .cloned()
        .collect();
    RunSpec {
        run_id: request.run_id.clone(),
        schema: source.schema.clone(),
        table: source.name.clone(),
        statement: request.statement.clone(),
        fingerprint: request.alter.fingerprint(),
        flow: Flow::Blocks,
        capture: request.capture,
        way: Way::Forward,
        keeps_way_back: request.keeps_way_back,
        names: names::names(&request.run_id, &source.name),
        mapping,
        key,
        deferred_indexes: indexes,
        volatile_added,
        rows_estimate: source.rows_estimate,
        row_bytes: source.row_bytes,
    }
}

/// The facts of a change that the server makes by itself: no columns are copied, no key is needed.
fn native_spec(request: &Request, source: &Subject, table: &Table) -> RunSpec {
    let key = KeySpec {
        source_index: String::new(),
        target_index: String::new(),
        columns: Vec::<KeyColumn>::new(),
        same_order: false,
    };
    let mapping = Mapping::default();
    let mut spec = spec_for(request, table, table, Vec::new(), mapping, key);
    spec.schema.clone_from(&source.schema);
    spec
}

/// Reads a table from the catalogues.
///
/// # Errors
/// The server's.
pub(crate) async fn read_table(session: &Session, subject: &Subject) -> DbResult<Table> {
    let object = subject.object();
    let attempted = "reading the size of";
    let sql = format!(
        "SELECT CASE WHEN reltuples > 0 THEN reltuples::bigint ELSE 0 END, CASE WHEN relkind = 'r' \
         THEN pg_catalog.pg_table_size(oid) ELSE 0 END, CASE WHEN reltuples > 0 AND relkind = 'r' \
         THEN (pg_catalog.pg_table_size(oid) / reltuples)::bigint ELSE 0 END FROM \
         pg_catalog.pg_class WHERE oid = {}",
        subject.oid
    );
    let row = crate::query::first(session, &sql, attempted, &object).await?.ok_or_else(|| {
        DbError::new(ErrorKind::NotFound, attempted, object.clone()).help("The table is gone")
    })?;
    Ok(Table {
        schema: subject.schema.clone(),
        name: subject.name.clone(),
        columns: read_columns(session, subject).await?,
        indexes: read_indexes(session, subject).await?,
        rows_estimate: cell(&row, 0, attempted)?,
        data_bytes: cell(&row, 1, attempted)?,
        row_bytes: cell(&row, 2, attempted)?,
    })
}

/// Words that stand for a value of the moment although they have no brackets.
const MOMENT_WORDS: [&str; 6] =
    ["CURRENT_", "LOCALTIME", "SESSION_USER", "USER", "NEXTVAL", "SYSTEM_USER"];

async fn read_columns(session: &Session, subject: &Subject) -> DbResult<Vec<Column>> {
    let sql = format!(
        "SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), t.typname, CASE WHEN \
         a.attcollation <> 0 THEN a.attcollation::regcollation::text || CASE WHEN EXISTS (SELECT FROM \
         pg_catalog.pg_collation l WHERE l.oid = a.attcollation AND NOT l.collisdeterministic) THEN \
         {loose} ELSE '' END END, a.attnotnull, \
         a.attgenerated <> '', a.attidentity <> '', pg_catalog.pg_get_expr(d.adbin, d.adrelid) FROM \
         pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid LEFT JOIN \
         pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum WHERE a.attrelid = \
         {} AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
        subject.oid,
        loose = literal(NOT_DETERMINISTIC)?
    );
    let found = rows(session, &sql, "reading the columns of", &subject.object()).await?;
    Ok(found
        .iter()
        .map(|row| {
            let default = optional_text(row, 7).map(|default| default.to_uppercase());
            let generated = flag(row, 5);
            let nullable = !flag(row, 4);
            let draws = |default: &String| {
                default.contains('(') || MOMENT_WORDS.iter().any(|word| default.contains(word))
            };
            let auto_increment = flag(row, 6)
                || default.as_ref().is_some_and(|default| default.starts_with("NEXTVAL("));
            Column {
                name: text(row, 0),
                full_type: text(row, 1),
                base_type: text(row, 2),
                charset: None,
                collation: optional_text(row, 3),
                nullable,
                generated,
                auto_increment,
                volatile_default: !generated && default.as_ref().is_some_and(draws),
                has_default: nullable || generated || auto_increment || default.is_some(),
                srs_id: None,
            }
        })
        .collect())
}

/// Indexes, the primary key's first. One that cannot tell rows apart at all times (partial, deferrable,
/// invalid), or tells them apart otherwise than its columns do (another collation, under which or under
/// whose one text may equal another), is not called unique here.
async fn read_indexes(session: &Session, subject: &Subject) -> DbResult<Vec<Index>> {
    let sql = format!(
        "SELECT c.relname, i.indisprimary, i.indisunique AND i.indimmediate AND i.indisvalid AND \
         i.indisready AND i.indislive AND i.indpred IS NULL AND NOT i.indisexclusion AND NOT EXISTS \
         (SELECT FROM pg_catalog.generate_series(0, i.indnkeyatts - 1) AS p(n) JOIN \
         pg_catalog.pg_attribute y ON y.attrelid = i.indrelid AND y.attnum = i.indkey[p.n] JOIN \
         pg_catalog.pg_collation l ON l.oid IN (i.indcollation[p.n], y.attcollation) AND NOT \
         l.collisdeterministic WHERE i.indcollation[p.n] <> y.attcollation), a.amname, \
         pg_catalog.pg_get_indexdef(c.oid), x.attname, k.ord IS NOT NULL AND (i.indoption[k.ord - 1] \
         & 1) = 1 FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN \
         pg_catalog.pg_am a ON a.oid = c.relam CROSS JOIN LATERAL \
         pg_catalog.generate_series(1, i.indnkeyatts) AS k(ord) LEFT JOIN pg_catalog.pg_attribute x \
         ON x.attrelid = i.indrelid AND x.attnum = i.indkey[k.ord - 1] AND i.indkey[k.ord - 1] <> 0 \
         WHERE i.indrelid = {} ORDER BY i.indisprimary DESC, c.relname, k.ord",
        subject.oid
    );
    let found = rows(session, &sql, "reading the indexes of", &subject.object()).await?;
    let mut indexes: Vec<Index> = Vec::new();
    for row in &found {
        let name = text(row, 0);
        let part =
            IndexPart { column: optional_text(row, 5), whole: true, descending: flag(row, 6) };
        match indexes.last_mut().filter(|last| last.name == name) {
            Some(last) => last.parts.push(part),
            None => indexes.push(Index {
                name,
                primary: flag(row, 1),
                unique: flag(row, 2),
                parts: vec![part],
                kind: text(row, 3),
                definition: text(row, 4),
            }),
        }
    }
    Ok(indexes)
}
