//! The empty twin of the source in the private schema: made, changed by the user's statement, read.
//!
//! Preflight makes it in a transaction that is rolled back; the run makes it again as the shadow. What
//! the copy must not meet (indexes, triggers, forced row security, ALWAYS identities) is set aside.

use underpin_core::alter::{Alter, ClauseKind};
use underpin_core::finding::Finding;
use underpin_core::schema::Table;
use underpin_dialect::{DbError, DbResult, ErrorKind, Request};

use crate::connect::{Session, our_meanings, users_meanings};
use crate::dependents::{
    self, Subject, constraints, foreign_keys, grants, indexes, policies, refused,
    refused_elsewhere, sequences, triggers,
};
use crate::inspect::{compare, read_table};
use crate::names;
use crate::query::{literal, quote, quote_table, rows, run, text};

/// What the server made of the statement.
#[derive(Debug)]
pub(crate) struct Judged {
    /// The table in the new shape.
    pub(crate) table: Table,
    /// Whether the server makes the change without a rewrite, a scan or an index build.
    pub(crate) native: bool,
    /// What in the new shape is in the way of a copy and a swap.
    pub(crate) findings: Vec<Finding>,
    /// Definitions of the indexes that are built after the copy.
    pub(crate) indexes: Vec<String>,
}

/// Has the server judge the statement on a twin; nothing of it is left when this returns.
///
/// # Errors
/// `Refused` with the server's words; `LockNotHad`.
pub(crate) async fn judge(
    session: &Session,
    request: &Request,
    source: &Subject,
) -> DbResult<Judged> {
    let object = source.object();
    let private = names::private_schema(&request.run_id);
    run(session, "BEGIN", "judging the statement on", &object).await?;
    let judged = judge_in_transaction(session, &request.alter, source, &private).await;
    match &judged {
        Err(error) if error.is_ambiguous() => {}
        _ => drop(run(session, "ROLLBACK", "ending the judgement of", &object).await?),
    }
    judged
}

async fn judge_in_transaction(
    session: &Session,
    alter: &Alter,
    source: &Subject,
    private: &str,
) -> DbResult<Judged> {
    let object = source.object();
    run(session, &begin_sql(source, private)?, "making a scratch schema for", &object).await?;
    let twin = dependents::on_twin(session, source, private, private)
        .await
        .map_err(|error| cannot_be_made(error, &object))?;
    let mut findings = refused::twin_looks_back(session, source, &twin).await?;
    let before = Anatomy::read(session, &twin).await?;
    apply(session, alter, source, &twin).await?;
    let after = Anatomy::read(session, &twin).await?;
    let table = read_table(session, &twin).await?;
    findings.extend(new_findings(session, source, &twin).await?);
    findings.extend(refused_elsewhere::taken_names(session, source, &twin).await?);
    let indexes = indexes::read(session, &twin, private).await?;
    findings.extend(try_foreign_keys(session, alter, source, &twin, &table).await?);
    let indexes = indexes
        .into_iter()
        .map(|index| if index.build.is_empty() { index.attach } else { index.build });
    Ok(Judged { table, native: after.came_cheap(&before), findings, indexes: indexes.collect() })
}

/// Whether the foreign keys can be made again on the new shape. The last thing in the transaction: an
/// error ends it.
async fn try_foreign_keys(
    session: &Session,
    alter: &Alter,
    source: &Subject,
    twin: &Subject,
    table: &Table,
) -> DbResult<Option<Finding>> {
    let old = read_table(session, source).await?;
    // Where the columns are unclear, that is said elsewhere.
    let Ok((mapping, _)) = compare(&old, table, alter) else { return Ok(None) };
    let dropped = dropped_constraints(alter);
    for (name, sql) in foreign_keys::trials(session, source, twin, &mapping, &dropped).await? {
        let tried = run(session, &sql, "trying a foreign key of", &source.object()).await;
        match tried {
            Ok(_) => {}
            Err(error) if error.is_ambiguous() || error.is_retryable() => return Err(error),
            Err(error) => {
                let said = error.server.unwrap_or_default();
                return Ok(Some(Finding::refusal(
                    "foreign-key-unfit",
                    format!("foreign key {name} cannot be made on the new shape: {said}"),
                    "Change the other side first, or drop the foreign key",
                )));
            }
        }
    }
    Ok(None)
}

/// Constraints that the user's statement drops by name.
pub(crate) fn dropped_constraints(alter: &Alter) -> Vec<String> {
    let names = alter.clauses.iter().filter_map(|clause| match &clause.kind {
        ClauseKind::DropConstraint { name } => Some(name.clone()),
        _ => None,
    });
    names.collect()
}

/// The private schema, owned by the source's owner, as whom everything in it is made.
///
/// # Errors
/// A name that no identifier can have.
pub(crate) fn begin_sql(source: &Subject, private: &str) -> DbResult<String> {
    let owner = quote(&source.owner)?;
    Ok(format!(
        "SET LOCAL default_tablespace = ''; CREATE SCHEMA {} AUTHORIZATION {owner}; SET LOCAL ROLE \
         {owner}",
        quote(private)?
    ))
}

fn cannot_be_made(mut error: DbError, object: &str) -> DbError {
    if !error.is_retryable() && !error.is_ambiguous() {
        error.kind = ErrorKind::Refused;
        let help = format!(
            "Everything on {object} is made again on an empty table first, as the table's owner; the \
             server refuses this part of it"
        );
        error.help = Some(help);
    }
    error
}

/// Applies the user's clauses, with the search path of the user's own sessions and their reading of dates.
/// Foreign keys do not
/// stand on the twin: a clause that drops one is carried out by the swap.
///
/// # Errors
/// `Refused` with the server's words.
pub(crate) async fn apply(
    session: &Session,
    alter: &Alter,
    source: &Subject,
    twin: &Subject,
) -> DbResult<()> {
    let object = source.object();
    let foreign = foreign_key_names(session, source).await?;
    let is_elsewhere = |kind: &ClauseKind| match kind {
        ClauseKind::DropConstraint { name } => foreign.contains(name),
        _ => false,
    };
    if alter.clauses.iter().all(|clause| is_elsewhere(&clause.kind)) {
        return Ok(());
    }
    let quoted = quote_table(&twin.schema, &twin.name)?;
    let sql = alter.render(&quoted, |clause| is_elsewhere(&clause.kind));
    let sql = format!(
        "SET LOCAL search_path TO DEFAULT; {}; {sql}; SET LOCAL search_path = pg_catalog; {}",
        users_meanings(),
        our_meanings()
    );
    run(session, &sql, "judging the statement on", &object).await.map(drop).map_err(|mut error| {
        if !error.is_retryable() && !error.is_ambiguous() {
            error.kind = ErrorKind::Refused;
            error.help = Some(
                "The server refuses the statement on an empty table like yours: mend the statement"
                    .to_owned(),
            );
        }
        error
    })
}

/// Names of the source's own foreign keys.
async fn foreign_key_names(session: &Session, source: &Subject) -> DbResult<Vec<String>> {
    let sql = format!(
        "SELECT conname FROM pg_catalog.pg_constraint WHERE conrelid = {} AND contype = 'f'",
        source.oid
    );
    dependents::statements(session, &sql, "the foreign keys", source).await
}

/// What the statement gave the twin that a copy and a swap cannot carry.
async fn new_findings(
    session: &Session,
    source: &Subject,
    twin: &Subject,
) -> DbResult<Vec<Finding>> {
    let sql = format!(
        "SELECT 'foreign-key-added', pg_catalog.format('the statement adds foreign key %I', conname) \
         FROM pg_catalog.pg_constraint WHERE conrelid = {oid} AND contype = 'f' UNION ALL SELECT \
         'inheritance', 'the statement makes the table inherit' FROM pg_catalog.pg_inherits WHERE \
         inhrelid = {oid} UNION ALL SELECT 'owner-changed', 'the statement gives the table another \
         owner' FROM pg_catalog.pg_class WHERE oid = {oid} AND pg_catalog.pg_get_userbyid(relowner) \
         <> {owner} UNION ALL SELECT 'access-method', 'the new table would not be a heap' FROM \
         pg_catalog.pg_class c JOIN pg_catalog.pg_am a ON a.oid = c.relam WHERE c.oid = {oid} AND \
         a.amhandler::text <> 'heap_tableam_handler' UNION ALL SELECT 'persistence-changed', 'the \
         statement makes the table LOGGED or UNLOGGED' FROM pg_catalog.pg_class c JOIN \
         pg_catalog.pg_class s ON s.oid = {source} WHERE c.oid = {oid} AND c.relpersistence <> \
         s.relpersistence",
        oid = twin.oid,
        owner = literal(&source.owner)?,
        source = source.oid,
    );
    let found = rows(session, &sql, "reading the new shape of", &source.object()).await?;
    let remedy = |code: &str| match code {
        "foreign-key-added" => {
            "Add it in a statement of its own: ADD CONSTRAINT … NOT VALID, then VALIDATE CONSTRAINT; \
             neither blocks writers for long"
        }
        _ => "Do this in a statement of its own, without a copy",
    };
    Ok(found
        .iter()
        .map(|row| {
            let code = text(row, 0);
            Finding::refusal(&code, text(row, 1), remedy(&code))
        })
        .collect())
}

/// What tells afterwards how much work a statement was: files, and what is checked.
#[derive(Debug)]
struct Anatomy {
    file: String,
    index_files: Vec<String>,
    /// Columns that allow NULL.
    nullable: Vec<String>,
    columns: Vec<String>,
    /// Validated constraints by OID, other than the server's own bookkeeping.
    constraints: Vec<String>,
}

impl Anatomy {
    async fn read(session: &Session, twin: &Subject) -> DbResult<Self> {
        let list = async |sql: String| {
            dependents::statements(
                session,
                &sql.replace("OID", &twin.oid.to_string()),
                "the shape",
                twin,
            )
            .await
        };
        let file = list("SELECT pg_catalog.pg_relation_filenode(OID)".to_owned()).await?;
        Ok(Self {
            file: file.concat(),
            index_files: list(
                "SELECT pg_catalog.pg_relation_filenode(indexrelid) FROM pg_catalog.pg_index WHERE \
                 indrelid = OID"
                    .to_owned(),
            )
            .await?,
            nullable: list(
                "SELECT attnum FROM pg_catalog.pg_attribute WHERE attrelid = OID AND attnum > 0 AND \
                 NOT attnotnull AND NOT attisdropped"
                    .to_owned(),
            )
            .await?,
            columns: list(
                "SELECT attnum FROM pg_catalog.pg_attribute WHERE attrelid = OID AND attnum > 0 AND \
                 NOT attisdropped"
                    .to_owned(),
            )
            .await?,
            constraints: list(
                "SELECT oid FROM pg_catalog.pg_constraint WHERE conrelid = OID AND contype IN ('c', \
                 'f') AND convalidated"
                    .to_owned(),
            )
            .await?,
        })
    }

    /// Whether what made `self` of `before` touches no row: no new file of the table or an index, no
    /// constraint that must be checked, no new type under a column.
    fn came_cheap(&self, before: &Self) -> bool {
        let newly_not_null = before
            .nullable
            .iter()
            .any(|column| self.columns.contains(column) && !self.nullable.contains(column));
        self.file == before.file
            && self.index_files.iter().all(|file| before.index_files.contains(file))
            && !newly_not_null
            && self.constraints.iter().all(|oid| before.constraints.contains(oid))
    }
}

/// Takes from the shadow what the copy must not meet. Returns the indexes to build, and the statements
/// that the swap runs when the new table stands as `place`.
///
/// # Errors
/// The server's.
pub(crate) async fn set_aside(
    session: &Session,
    shadow: &Subject,
    place: &str,
) -> DbResult<(Vec<indexes::IndexScript>, Vec<String>)> {
    let (mut now, later) = aside_sql(session, shadow, place, &shadow.schema).await?;
    let indexes = indexes::read(session, shadow, &shadow.schema).await?;
    now.extend(indexes.iter().map(|index| index.drop.clone()));
    dependents::run_all(session, &now, "setting aside for the copy", &shadow.object()).await?;
    Ok((indexes, later))
}

/// What application must not meet in a table whose indexes stand: statements that take it away, and those
/// that the swap runs when the table stands as `place`. Triggers whose names begin with `ours` are our
/// own.
///
/// # Errors
/// The server's.
pub(crate) async fn aside_sql(
    session: &Session,
    shadow: &Subject,
    place: &str,
    ours: &str,
) -> DbResult<(Vec<String>, Vec<String>)> {
    let mut later = Vec::new();
    let mut now = Vec::new();
    for (first, then) in [
        sequences::set_aside(session, shadow, place).await?,
        policies::set_aside(session, shadow, place).await?,
        triggers::set_aside(session, shadow, place, ours).await?,
        grants::set_aside(session, shadow, place).await?,
        constraints::set_aside(session, shadow, place).await?,
    ] {
        now.extend(first);
        later.extend(then);
    }
    Ok((now, later))
}
