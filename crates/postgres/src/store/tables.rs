//! The tables of the state schema.
//!
//! Each stands for itself: a version that needs more makes further tables beside those that are there, so
//! nothing is ever altered, and no older runner is held up. What is written often (`beats`, `live`) is
//! apart from `runs`, whose rows are long. Who only reads makes nothing: he is told what there is
//! ([`Shape`]).

use underpin_dialect::{DbResult, ErrorKind};

use crate::control::Control;
use crate::query::{first, flag, literal, quote, run};

/// Tries to make the tables: others may do so at the same time, or hold one of them for a moment.
const MAKE_TRIES: u32 = 30;

/// What there is of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Nothing, or not all of what the first version made.
    Missing,
    /// What an older version made.
    Older,
    /// Everything.
    Current,
}

impl Control {
    /// What there is of our tables; `Missing` also where the schema itself is.
    pub(crate) async fn state_shape(&self) -> DbResult<Shape> {
        let sql = format!(
            "SELECT pg_catalog.count(*) FILTER (WHERE c.relname IN ('runs', 'fences', 'marks')) = 3, \
             pg_catalog.count(*) = 8 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = {} AND c.relkind = 'r' \
             AND c.relname IN ('runs', 'fences', 'marks', 'orders', 'history', 'live', 'beats', 'prints')",
            literal(&self.state_schema)?
        );
        let row = first(&self.session, &sql, "looking for", &self.state_schema).await?;
        Ok(match row {
            Some(row) if flag(&row, 0) && flag(&row, 1) => Shape::Current,
            Some(row) if flag(&row, 0) => Shape::Older,
            _ => Shape::Missing,
        })
    }

    /// Makes our tables where they are missing, and those that an older version did not know of. Two programs
    /// that begin at once may both try: the second one's IF NOT EXISTS can fail on the catalogue's own
    /// unique index, so it looks again.
    pub(super) async fn make_state(&self) -> DbResult<()> {
        let state = quote(&self.state_schema)?;
        let mut tries = 0;
        loop {
            let sql = match self.state_shape().await? {
                Shape::Current => return Ok(()),
                Shape::Older => format!("{}; {}", later_sql(&state), close_sql(&state)),
                Shape::Missing => {
                    format!("{}; {}; {}", base_sql(&state), later_sql(&state), close_sql(&state))
                }
            };
            tries += 1;
            match run(&self.session, &sql, "making the state tables in", &self.state_schema).await {
                Ok(_) => return Ok(()),
                Err(error)
                    if tries < MAKE_TRIES
                        && (error.kind == ErrorKind::DuplicateKey || error.is_retryable()) => {}
                Err(error) => {
                    return Err(error.help(
                        "underpin keeps the state of runs in this schema; give the role the right to \
                         create it (GRANT CREATE ON DATABASE), or name another one with --state-schema",
                    ));
                }
            }
        }
    }
}

/// The type of a time that is the server's own by default.
const NOW: &str = "timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()";

/// What the first version made, as one transaction with whatever follows it.
fn base_sql(state: &str) -> String {
    let tables = format!(
        "CREATE SCHEMA IF NOT EXISTS {state}; \
         CREATE TABLE IF NOT EXISTS {state}.runs (run_id text PRIMARY KEY, \
         schema_name text NOT NULL, table_name text NOT NULL, state text NOT NULL, \
         statement text NOT NULL, spec text NOT NULL, checkpoint text NOT NULL, \
         identity text NOT NULL DEFAULT '', runner text NOT NULL, \
         created_at {NOW}, updated_at {NOW}, ended_at timestamptz); \
         CREATE INDEX IF NOT EXISTS runs_by_table ON {state}.runs (schema_name, table_name); \
         CREATE TABLE IF NOT EXISTS {state}.fences (run_id text PRIMARY KEY, epoch bigint NOT NULL); \
         CREATE TABLE IF NOT EXISTS {state}.marks (run_id text NOT NULL, round bigint NOT NULL, \
         chunk bigint NOT NULL, row_count bigint NOT NULL, PRIMARY KEY (run_id, round, chunk))"
    );
    let comments = comments(
        state,
        &[
            ("SCHEMA", "", "the state and history of schema changes"),
            ("TABLE", ".runs", "runs and their history"),
            ("TABLE", ".fences", "who may write for a run"),
            ("TABLE", ".marks", "chunks done in the running round"),
        ],
    );
    format!("{tables}; {comments}")
}

/// What later versions made beside it. Takes no lock on what was there that a runner at work would hold up.
///
/// `beats` and `live` have one short row a run that is written again and again: with so low a fill
/// factor each page is cleared of old versions by the next write itself, and no index is touched.
fn later_sql(state: &str) -> String {
    let tables = format!(
        "CREATE TABLE IF NOT EXISTS {state}.orders (order_no bigint GENERATED ALWAYS AS IDENTITY \
         PRIMARY KEY, run_id text NOT NULL, command text NOT NULL, given_by text NOT NULL, \
         given_at {NOW}, taken_at timestamptz); \
         CREATE INDEX IF NOT EXISTS orders_by_run ON {state}.orders (run_id, order_no); \
         CREATE TABLE IF NOT EXISTS {state}.history (run_id text PRIMARY KEY, \
         origin text NOT NULL DEFAULT '', record text NOT NULL DEFAULT ''); \
         CREATE TABLE IF NOT EXISTS {state}.beats (run_id text PRIMARY KEY, \
         beat bigint NOT NULL DEFAULT 0, beat_at {NOW}) WITH (fillfactor = 10); \
         CREATE TABLE IF NOT EXISTS {state}.prints (run_id text NOT NULL, what text NOT NULL, \
         print text NOT NULL, PRIMARY KEY (run_id, what)); \
         CREATE TABLE IF NOT EXISTS {state}.live (run_id text PRIMARY KEY, \
         live text NOT NULL DEFAULT '', seen_at {NOW}) WITH (fillfactor = 10); \
         INSERT INTO {state}.live (run_id, seen_at) SELECT run_id, updated_at FROM {state}.runs \
         WHERE state = 'open' ON CONFLICT DO NOTHING"
    );
    let comments = comments(
        state,
        &[
            ("TABLE", ".orders", "what was asked of runs, and by whom"),
            ("TABLE", ".history", "why runs were begun, and what came of them"),
            ("TABLE", ".beats", "small writes that show how long one takes"),
            ("TABLE", ".live", "how open runs fare"),
            ("TABLE", ".prints", "by what the tables of a run are known again"),
        ],
    );
    format!("{tables}; {comments}")
}

/// Takes away what default privileges may have granted to everybody: statements and their authors' reasons
/// are nobody else's.
fn close_sql(state: &str) -> String {
    format!(
        "REVOKE ALL ON SCHEMA {state} FROM PUBLIC; REVOKE ALL ON ALL TABLES IN SCHEMA {state} FROM PUBLIC; \
         REVOKE ALL ON ALL SEQUENCES IN SCHEMA {state} FROM PUBLIC"
    )
}

fn comments(state: &str, of: &[(&str, &str, &str)]) -> String {
    let comment = |(kind, name, words): &(&str, &str, &str)| {
        format!("COMMENT ON {kind} {state}{name} IS 'underpin: {words}'")
    };
    of.iter().map(comment).collect::<Vec<_>>().join("; ")
}
