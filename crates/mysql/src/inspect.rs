//! Reading the catalogues, and planning a change: the server judges the statement on an empty scratch
//! table, then source and scratch are compared.

use std::time::{Duration, Instant};

use underpin_core::alter::{Alter, ClauseKind, Syntax};
use underpin_core::finding::{Finding, is_refused};
use underpin_core::ident::{Dialect, shadow_name};
use underpin_core::mapping::{ColumnHints, KeySpec, Mapping, choose_key, map_columns};
use underpin_core::plan::{Capture, Flow, Names, Plan, RunSpec, Strategy};
use underpin_core::schema::{Column, Index, IndexPart, Table};
use underpin_core::statements::StatementStats;
use underpin_core::way::Way;
use underpin_dialect::{DbError, DbResult, ErrorKind, IndexTiming, Inspect, Request};

use crate::connect::Session;
use crate::control::Control;
use crate::query::{
    cell, define, first, literal, number, optional_text, quote_table, rows, run, text,
};
use crate::types::key_fit;
use crate::{health, preflight, reversal, statements};

/// Ways to the server and back that are timed.
const ROUND_TRIPS: u32 = 3;

impl Inspect for Control {
    fn server(&self) -> String {
        let capabilities = &self.session.capabilities;
        format!(
            "{} {} at {}",
            capabilities.flavor.name(),
            capabilities.version_text,
            self.server.options.describe()
        )
    }

    async fn plan(&mut self, request: &Request) -> DbResult<Plan> {
        let schema = schema_of(request)?;
        let table = request.alter.table.name.clone();
        let listed =
            health::list_replicas(&mut self.session, &self.server, &request.replicas, &[]).await?;
        let replicas = &listed.replicas;
        let mut plan = Plan {
            strategy: Strategy::Shadow,
            findings: Vec::new(),
            spec: None,
            server: self.server(),
            replicas: replicas.iter().map(|replica| replica.name.clone()).collect(),
        };
        plan.findings = preflight::before(self, request, &schema, &table, &listed).await?;
        if is_refused(&plan.findings) {
            return Ok(plan);
        }
        let source = read_table(&mut self.session, &schema, &table).await?;
        let names = names_for(&schema, &table, &request.run_id)?;
        plan.findings.extend(preflight::left_overs(self, &schema, &names).await?);
        if is_refused(&plan.findings) {
            return Ok(plan);
        }
        let (scratch, instant) = self.judge(request, &schema, &table).await?;
        if instant && !request.force_shadow {
            plan.strategy = Strategy::Native;
        }
        match compare(&source, &scratch, &request.alter) {
            Err(refusal) => plan.findings.push(refusal),
            Ok((mapping, key)) => {
                plan.findings.extend(preflight::conversions(&source, &scratch, &mapping));
                if request.keeps_way_back && plan.strategy == Strategy::Shadow {
                    plan.findings.extend(reversal::findings(&source, &scratch, &mapping));
                }
                let spec = spec_for(request, names, &source, &scratch, mapping, key, replicas);
                plan.spec = Some(spec);
            }
        }
        Ok(plan)
    }

    async fn round_trip(&mut self) -> DbResult<Duration> {
        let mut shortest = Duration::MAX;
        for _ in 0..ROUND_TRIPS {
            let begun = Instant::now();
            number(&mut self.session.conn, "SELECT 1", "timing the way to", "the server").await?;
            shortest = std::cmp::min(shortest, begun.elapsed());
        }
        Ok(shortest)
    }

    async fn statements(
        &mut self,
        schema: &str,
        table: &str,
    ) -> DbResult<Option<Vec<StatementStats>>> {
        statements::read(&mut self.session, schema, table).await
    }

    async fn fingerprint(&mut self, schema: &str, table: &str) -> DbResult<Option<String>> {
        crate::fingerprint::short(&mut self.session.conn, schema, table).await.map(Some)
    }
}

impl Control {
    /// Makes an empty table like the source, lets the server apply the statement to it, reads what
    /// came out, and drops it. Tells also whether the server can make the change in an instant.
    async fn judge(
        &mut self,
        request: &Request,
        schema: &str,
        table: &str,
    ) -> DbResult<(Table, bool)> {
        let name = own_name(table, "~up_plan")?;
        let scratch = quote_table(schema, &name)?;
        let source = quote_table(schema, table)?;
        let object = format!("{schema}.{table}");
        self.drop_table(schema, &name).await?;
        let conn = &mut self.session.conn;
        let like = format!("CREATE TABLE {scratch} LIKE {source}");
        define(conn, &like, "making an empty scratch table like", &object).await?;
        let result = self.alter_scratch(request, schema, &name, &scratch).await;
        self.drop_table(schema, &name).await?;
        result
    }

    async fn alter_scratch(
        &mut self,
        request: &Request,
        schema: &str,
        name: &str,
        scratch: &str,
    ) -> DbResult<(Table, bool)> {
        let object = format!("{schema}.{}", request.alter.table.name);
        let sql = request.alter.render(scratch, |clause| clause.is_execution_hint());
        let instant = format!("{sql}, ALGORITHM=INSTANT");
        let can_instant = run(&mut self.session.conn, &instant, "trying", &object).await.is_ok();
        if !can_instant {
            define(&mut self.session.conn, &sql, "judging the statement on", &object)
                .await
                .map_err(|mut error| {
                    if error.kind == ErrorKind::Other || error.kind == ErrorKind::NotFound {
                        error.kind = ErrorKind::Refused;
                    }
                    error.help = Some(
                        "The server refuses the statement on an empty table like yours: mend the \
                         statement"
                            .to_owned(),
                    );
                    error
                })?;
        }
        Ok((read_table(&mut self.session, schema, name).await?, can_instant))
    }
}

/// The statement as applied to the shadow: the user's clauses verbatim, without hints about how a
/// server should carry them out.
pub(crate) fn shadow_alter(statement: &str, shadow: &str) -> DbResult<String> {
    let alter = Alter::parse(statement, Syntax::mysql()).map_err(|error| {
        DbError::new(ErrorKind::Refused, "reading the statement", "").said(error.to_string())
    })?;
    Ok(alter.render(shadow, |clause| clause.is_execution_hint()))
}

fn schema_of(request: &Request) -> DbResult<String> {
    request.alter.table.schema.clone().or_else(|| request.default_schema.clone()).ok_or_else(|| {
        DbError::new(ErrorKind::Refused, "looking for the table", request.alter.table.name.clone())
            .help("Name its database, in the statement (db.table) or in the URL (…/db)")
    })
}

fn own_name(table: &str, suffix: &str) -> DbResult<String> {
    shadow_name(table, suffix, Dialect::MySql.name_limit()).map_err(|error| {
        DbError::new(ErrorKind::Refused, "naming our tables after", table).said(error.to_string())
    })
}

/// Names of everything a run makes. They sort behind the source's name, which the swap relies on.
fn names_for(schema: &str, table: &str, run_id: &str) -> DbResult<Names> {
    let name = |suffix: &str| own_name(table, suffix);
    // Trigger names are unique in a schema, so they carry the run's id.
    let trigger = |what: &str| name(&format!("~up_{run_id}_{what}"));
    let _ = schema;
    Ok(Names {
        shadow: name("~up_new")?,
        log: name("~up_log")?,
        retired: name("~up_old")?,
        triggers: [trigger("i")?, trigger("u")?, trigger("d")?],
        return_log: name("~up_rlog")?,
        return_triggers: [trigger("ri")?, trigger("ru")?, trigger("rd")?],
        fences: [trigger("fi")?, trigger("fu")?, trigger("fd")?],
    })
}

fn compare(source: &Table, scratch: &Table, alter: &Alter) -> Result<(Mapping, KeySpec), Finding> {
    let hints = hints(alter);
    let mapping = map_columns(source, scratch, &hints)
        .map_err(|error| Finding::refusal("columns-unclear", error.to_string(), ""))?;
    let key = choose_key(source, scratch, &mapping, key_fit)
        .map_err(|error| Finding::refusal("no-usable-key", error.to_string(), ""))?;
    Ok((mapping, key))
}

/// What the clauses say about columns.
fn hints(alter: &Alter) -> ColumnHints {
    let mut hints = ColumnHints::default();
    for clause in &alter.clauses {
        match &clause.kind {
            ClauseKind::RenameColumn { from, to } | ClauseKind::ChangeColumn { from, to } => {
                hints.renames.push((from.clone(), to.clone()));
            }
            ClauseKind::AddColumn { names } => hints.added.extend(names.iter().cloned()),
            ClauseKind::DropColumn { name } => hints.dropped.push(name.clone()),
            _ => {}
        }
    }
    hints
}

fn spec_for(
    request: &Request,
    names: Names,
    source: &Table,
    scratch: &Table,
    mapping: Mapping,
    key: KeySpec,
    replicas: &[health::Replica],
) -> RunSpec {
    let defer = match request.indexes {
        IndexTiming::After => true,
        IndexTiming::During => false,
        // The one long statement would hold up every replica for as long as it runs.
        IndexTiming::Auto => replicas.is_empty(),
    };
    let deferred_indexes = if defer { deferrable(scratch) } else { Vec::new() };
    let volatile_added = mapping
        .added
        .iter()
        .filter(|name| {
            // Behind the way back and forward again they hold what the application wrote.
            request.keeps_way_back
                || scratch.column(name).is_some_and(|c| c.volatile_default || c.auto_increment)
        })
        .cloned()
        .collect();
    RunSpec {
        run_id: request.run_id.clone(),
        schema: source.schema.clone(),
        table: source.name.clone(),
        statement: request.statement.clone(),
        fingerprint: request.alter.fingerprint(),
        flow: Flow::KeyRanges,
        // Neither family has triggers for statements.
        capture: Capture::Row,
        way: Way::Forward,
        keeps_way_back: request.keeps_way_back,
        names,
        mapping,
        key,
        deferred_indexes,
        volatile_added,
        rows_estimate: source.rows_estimate,
        row_bytes: source.row_bytes,
    }
}

/// Plain secondary indexes: no row depends on them, so that they can be built in one sorted pass after
/// the copy. Unique ones stay: they are the guard.
fn deferrable(table: &Table) -> Vec<String> {
    let counter = table.columns.iter().find(|column| column.auto_increment);
    table
        .indexes
        .iter()
        .filter(|index| !index.unique && index.kind == "BTREE" && !index.definition.is_empty())
        // The server wants the counter to be the first column of some index at all times.
        .filter(|index| {
            let first = index.parts.first().and_then(|part| part.column.as_deref());
            counter.is_none_or(|counter| first != Some(counter.name.as_str()))
        })
        .map(|index| index.definition.clone())
        .collect()
}

/// Whether a table of this name exists.
pub(crate) async fn table_exists(
    session: &mut Session,
    schema: &str,
    name: &str,
) -> DbResult<bool> {
    let sql = format!(
        "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}",
        literal(schema)?,
        literal(name)?
    );
    let object = format!("{schema}.{name}");
    Ok(number(&mut session.conn, &sql, "looking for", &object).await? > 0)
}

/// The comment of a table; `None` where there is no such table.
pub(crate) async fn comment_of(
    session: &mut Session,
    schema: &str,
    name: &str,
) -> DbResult<Option<String>> {
    let sql = format!(
        "SELECT TABLE_COMMENT FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_NAME \
         = {}",
        literal(schema)?,
        literal(name)?
    );
    let object = format!("{schema}.{name}");
    let row = first(&mut session.conn, &sql, "reading the comment of", &object).await?;
    Ok(row.map(|row| text(&row, 0)))
}

/// Reads a table from the catalogues.
///
/// # Errors
/// `NotFound` where it does not exist.
pub(crate) async fn read_table(session: &mut Session, schema: &str, name: &str) -> DbResult<Table> {
    let object = format!("{schema}.{name}");
    let sql = format!(
        "SELECT TABLE_ROWS, DATA_LENGTH, AVG_ROW_LENGTH FROM information_schema.TABLES WHERE \
         TABLE_SCHEMA = {} AND TABLE_NAME = {}",
        literal(schema)?,
        literal(name)?
    );
    let row = first(&mut session.conn, &sql, "reading", &object).await?.ok_or_else(|| {
        DbError::new(ErrorKind::NotFound, "reading the table", object.clone())
            .help("There is no such table, or the account may not see it")
    })?;
    let size = |index: usize| -> DbResult<u64> {
        Ok(cell::<Option<u64>>(&row, index, "reading sizes")?.unwrap_or(0))
    };
    let (rows_estimate, data_bytes, row_bytes) = (size(0)?, size(1)?, size(2)?);
    let columns = read_columns(session, schema, name).await?;
    let indexes = read_indexes(session, schema, name).await?;
    Ok(Table {
        schema: schema.to_owned(),
        name: name.to_owned(),
        columns,
        indexes,
        rows_estimate,
        data_bytes,
        row_bytes,
    })
}

async fn read_columns(session: &mut Session, schema: &str, name: &str) -> DbResult<Vec<Column>> {
    let srs = if session.capabilities.columns_srs_id { "SRS_ID" } else { "NULL" };
    let sql = format!(
        "SELECT COLUMN_NAME, COLUMN_TYPE, DATA_TYPE, CHARACTER_SET_NAME, COLLATION_NAME, \
         IS_NULLABLE, EXTRA, COLUMN_DEFAULT, {srs} FROM information_schema.COLUMNS \
         WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {} ORDER BY ORDINAL_POSITION",
        literal(schema)?,
        literal(name)?
    );
    let object = format!("{schema}.{name}");
    let found = rows(&mut session.conn, &sql, "reading the columns of", &object).await?;
    Ok(found
        .iter()
        .map(|row| {
            let extra = text(row, 6).to_lowercase();
            let default = optional_text(row, 7);
            let generated = extra.contains("generated") && !extra.contains("default_generated")
                || extra.contains("virtual")
                || extra.contains("persistent")
                || extra.contains("stored");
            let auto_increment = extra.contains("auto_increment");
            let nullable = text(row, 5) == "YES";
            let volatile_default = default.as_deref().is_some_and(|default| {
                extra.contains("default_generated") || default.contains('(')
            });
            Column {
                name: text(row, 0),
                full_type: text(row, 1),
                base_type: text(row, 2).to_lowercase(),
                charset: optional_text(row, 3),
                collation: optional_text(row, 4),
                nullable,
                generated,
                auto_increment,
                volatile_default,
                has_default: nullable || generated || auto_increment || default.is_some(),
                srs_id: optional_text(row, 8).and_then(|id| id.parse().ok()),
            }
        })
        .collect())
}

async fn read_indexes(session: &mut Session, schema: &str, name: &str) -> DbResult<Vec<Index>> {
    let sql = format!(
        "SELECT INDEX_NAME, NON_UNIQUE, COLUMN_NAME, SUB_PART, COLLATION, INDEX_TYPE \
         FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {} \
         ORDER BY INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX",
        literal(schema)?,
        literal(name)?
    );
    let object = format!("{schema}.{name}");
    let found = rows(&mut session.conn, &sql, "reading the indexes of", &object).await?;
    let create = format!("SHOW CREATE TABLE {}", quote_table(schema, name)?);
    let create = first(&mut session.conn, &create, "reading the definition of", &object).await?;
    let create = create.map(|row| text(&row, 1)).unwrap_or_default();
    let mut indexes: Vec<Index> = Vec::new();
    for row in &found {
        let index_name = text(row, 0);
        let part = IndexPart {
            column: optional_text(row, 2),
            whole: optional_text(row, 3).is_none(),
            descending: text(row, 4) == "D",
        };
        match indexes.last_mut() {
            Some(index) if index.name == index_name => index.parts.push(part),
            _ => indexes.push(Index {
                primary: index_name == "PRIMARY",
                unique: text(row, 1) == "0",
                parts: vec![part],
                kind: text(row, 5),
                definition: index_line(&create, &index_name),
                name: index_name,
            }),
        }
    }
    Ok(indexes)
}

/// The line of SHOW CREATE TABLE that defines a plain index, ready for `ADD`; empty for others.
fn index_line(create: &str, index: &str) -> String {
    let head = format!("KEY `{}` ", index.replace('`', "``"));
    create
        .lines()
        .map(str::trim)
        .find(|line| line.starts_with(&head))
        .map(|line| line.strip_suffix(',').unwrap_or(line).to_owned())
        .unwrap_or_default()
}
