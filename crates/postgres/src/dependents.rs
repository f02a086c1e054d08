//! Everything that hangs on a table: read from the catalogues and spelled as statements that make the
//! same again on, or for, the new table.
//!
//! One file a family. What the new table can bear from the start stands on it before the user's
//! statement is applied ([`on_twin`]), so that the server itself carries renames and new types into
//! it. What points at the table from elsewhere moves inside the swap (`swap_script`). What can be
//! carried neither way is refused by name ([`refused`]) before anything is created.
//! `docs/reference/postgres-dependents.md` lists them all.

pub(crate) mod columns;
pub(crate) mod comments;
pub(crate) mod constraints;
pub(crate) mod foreign_keys;
pub(crate) mod functions;
pub(crate) mod grants;
pub(crate) mod indexes;
pub(crate) mod policies;
pub(crate) mod publications;
pub(crate) mod refused;
pub(crate) mod refused_elsewhere;
pub(crate) mod rules;
pub(crate) mod sequences;
pub(crate) mod statistics;
pub(crate) mod table;
pub(crate) mod triggers;
pub(crate) mod views;

use underpin_core::mapping::Mapping;
use underpin_dialect::{DbError, DbResult, ErrorKind};

use crate::connect::Session;
use crate::query::{cell, first, literal, quote_table, rows, run, text};

/// A table as the queries of the families name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject {
    /// Its OID in `pg_class`.
    pub(crate) oid: u32,
    /// Its schema, unquoted.
    pub(crate) schema: String,
    /// Its name, unquoted.
    pub(crate) name: String,
    /// Its owner, unquoted.
    pub(crate) owner: String,
    /// The server's version as `server_version_num`.
    pub(crate) version: u32,
}

impl Subject {
    /// Looks the table up.
    ///
    /// # Errors
    /// `NotFound` where there is none of this name.
    pub(crate) async fn read(session: &Session, schema: &str, name: &str) -> DbResult<Self> {
        let object = format!("{schema}.{name}");
        let sql = format!(
            "SELECT c.oid, pg_catalog.pg_get_userbyid(c.relowner), \
             pg_catalog.current_setting('server_version_num') FROM pg_catalog.pg_class c JOIN \
             pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = {} AND c.relname \
             = {}",
            literal(schema)?,
            literal(name)?
        );
        let row =
            first(session, &sql, "looking for the table", &object).await?.ok_or_else(|| {
                DbError::new(ErrorKind::NotFound, "looking for the table", object.clone()).help(
                "There is no such table in this database; names without quotes are in lower case",
            )
            })?;
        Ok(Self {
            oid: cell(&row, 0, "looking for the table")?,
            schema: schema.to_owned(),
            name: name.to_owned(),
            owner: text(&row, 1),
            version: cell(&row, 2, "looking for the table")?,
        })
    }

    /// `schema.name` for messages.
    pub(crate) fn object(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// `"schema"."name"` for statements.
    ///
    /// # Errors
    /// A name that no identifier can have.
    pub(crate) fn quoted(&self) -> DbResult<String> {
        quote_table(&self.schema, &self.name)
    }
}

/// First cells of all rows: the families' queries give ready statements.
///
/// # Errors
/// The server's.
pub(crate) async fn statements(
    session: &Session,
    sql: &str,
    what: &str,
    subject: &Subject,
) -> DbResult<Vec<String>> {
    let attempted = format!("reading {what} of");
    let found = rows(session, sql, &attempted, &subject.object()).await?;
    Ok(found.iter().map(|row| text(row, 0)).filter(|statement| !statement.is_empty()).collect())
}

/// Runs statements one by one, inside the caller's transaction.
///
/// # Errors
/// The first refusal, naming the statement.
pub(crate) async fn run_all(
    session: &Session,
    statements: &[String],
    what: &str,
    object: &str,
) -> DbResult<()> {
    for statement in statements {
        let attempted = format!("{what} ({})", shortened(statement));
        run(session, statement, &attempted, object).await?;
    }
    Ok(())
}

/// The beginning of a statement, for messages.
fn shortened(statement: &str) -> String {
    const MOST: usize = 120;
    if statement.chars().count() <= MOST {
        return statement.to_owned();
    }
    let head: String = statement.chars().take(MOST).collect();
    format!("{head}…")
}

/// The columns of `source` that survive, as rows of a query: `m(source, target)`.
///
/// # Errors
/// A name that no literal can hold.
pub(crate) fn mapping_sql(source: &Subject, mapping: &Mapping) -> DbResult<String> {
    let mut renamed = vec!["(NULL::name, NULL::name)".to_owned()];
    for pair in mapping.pairs.iter().filter(|pair| pair.source != pair.target) {
        renamed.push(format!(
            "({}::name, {}::name)",
            literal(&pair.source)?,
            literal(&pair.target)?
        ));
    }
    let mut dropped = vec!["''".to_owned()];
    for name in &mapping.dropped {
        dropped.push(literal(name)?);
    }
    // Generated columns survive too, although nothing is copied into them.
    Ok(format!(
        "(SELECT o.attname AS source, coalesce(v.target, o.attname) AS target FROM \
         pg_catalog.pg_attribute o LEFT JOIN (VALUES {}) AS v(source, target) ON v.source = o.attname \
         WHERE o.attrelid = {} AND o.attnum > 0 AND NOT o.attisdropped AND o.attname NOT IN ({})) AS m",
        renamed.join(", "),
        source.oid,
        dropped.join(", ")
    ))
}

/// Makes the twin: an empty table of the same name in the private schema that has everything a table
/// can have for itself. Inside the caller's transaction, as the owner.
///
/// # Errors
/// What the server refuses to make again; the message names it.
pub(crate) async fn on_twin(
    session: &Session,
    source: &Subject,
    private: &str,
    ours: &str,
) -> DbResult<Subject> {
    let object = source.object();
    let doing = "making an empty table like";
    let create = table::create(session, source, private).await?;
    run_all(session, &create, doing, &object).await?;
    let twin = Subject::read(session, private, &source.name).await?;
    // Each family reads what the ones before it have made.
    run_all(session, &sequences::identity_on_twin(session, source, &twin).await?, doing, &object)
        .await?;
    run_all(session, &columns::on_twin(session, source, &twin).await?, doing, &object).await?;
    run_all(session, &constraints::on_twin(session, source, &twin).await?, doing, &object).await?;
    for index in indexes::read(session, source, &twin.schema).await? {
        let parts: Vec<&str> = [&index.build, &index.attach]
            .map(String::as_str)
            .into_iter()
            .filter(|s| !s.is_empty())
            .collect();
        run(session, &parts.join("; "), &format!("{doing} (index {})", index.name), &object)
            .await?;
    }
    run(session, "SET LOCAL default_tablespace = ''", doing, &object).await?;
    run_all(session, &statistics::on_twin(session, source, &twin).await?, doing, &object).await?;
    run_all(session, &policies::on_twin(session, source, &twin).await?, doing, &object).await?;
    let triggers = triggers::on_twin(session, source, &twin, ours).await?;
    run_all(session, &triggers, doing, &object).await?;
    run_all(session, &comments::on_twin(session, source, &twin).await?, doing, &object).await?;
    run_all(session, &grants::on_twin(session, source, &twin).await?, doing, &object).await?;
    grants::ensure_same(session, source, &twin).await?;
    Ok(twin)
}
