//! What this server is and what it can do: flavour, version and capabilities as fields of one value.
//!
//! Owns every difference between MySQL and MariaDB and between their versions. Nobody else asks for a
//! version: a difference that is needed elsewhere becomes a field here. Does not hold facts that change
//! while the server runs, such as read-only ([`crate::connect::ServerRole`]).

mod variables;

use std::fmt;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use underpin_dialect::{DbError, DbResult, ErrorKind};

use crate::error::Doing;
pub use variables::Variables;

/// The two families. Prefer a field of [`Capabilities`] to a look at this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    /// MySQL and builds that are compatible with it.
    MySql,
    /// MariaDB.
    MariaDb,
}

impl Flavor {
    /// The name as the vendor writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::MySql => "MySQL",
            Self::MariaDb => "MariaDB",
        }
    }
}

/// A version as numbers: major, minor, patch.
pub type VersionTriple = (u16, u16, u16);

/// The oldest supported versions.
const MYSQL_MIN: VersionTriple = (8, 0, 0);
const MARIADB_MIN: VersionTriple = (10, 6, 0);

/// How a session bounds the time of a single statement on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatementTimeLimit {
    /// `max_execution_time`, in milliseconds, for SELECT only.
    SelectMilliseconds,
    /// `max_statement_time`, in seconds with a fraction, for everything.
    AnySeconds,
}

/// The format of the binary log, by `binlog_format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BinlogFormat {
    /// Rows.
    Row,
    /// Statements.
    Statement,
    /// Statements, and rows where a statement would be unsafe.
    Mixed,
}

/// Everything that differs between servers, read once for each connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// MySQL or MariaDB.
    pub flavor: Flavor,
    /// The version in numbers.
    pub version: VersionTriple,
    /// The version as the server says it, as "10.11.19-MariaDB-0+deb12u1-log".
    pub version_text: String,

    /// RENAME TABLE is allowed under LOCK TABLES (MySQL 8.0.13).
    pub rename_under_lock: bool,
    /// RENAME, LOCK and ALTER TABLE know `WAIT n` and `NOWAIT` (MariaDB).
    pub ddl_wait_clause: bool,
    /// `CREATE OR REPLACE TRIGGER` exists (MariaDB).
    pub create_or_replace_trigger: bool,
    /// A prepared statement learns of a new trigger by comparing times, which the server keeps to a
    /// hundredth of a second only (MariaDB).
    pub triggers_aged_by_clock: bool,
    /// A foreign-key cascade fires triggers where the *writer's* session has switched that on; never
    /// to be relied upon (MySQL 9.7).
    pub cascade_triggers: bool,

    /// `performance_schema.metadata_locks` exists, is filled and may be read by this account.
    pub metadata_locks_visible: bool,
    /// `performance_schema.data_locks` exists and the performance schema is on (MySQL).
    pub data_locks_visible: bool,
    /// The statement that lists the replicas that are connected.
    pub show_replicas_verb: &'static str,
    /// The statement that shows whether this server is itself a replica.
    pub replica_status_verb: &'static str,
    /// The table of InnoDB's tables with id and space.
    pub innodb_tables_view: &'static str,
    /// `information_schema.STATISTICS.EXPRESSION` exists (functional indexes, MySQL 8.0.13).
    pub functional_indexes: bool,
    /// `information_schema.COLUMNS.SRS_ID` exists (MySQL).
    pub columns_srs_id: bool,
    /// `information_schema.COLUMNS.COLUMN_DEFAULT` is an expression with quotes, not a bare value (MariaDB).
    pub column_default_is_expression: bool,

    /// `SELECT … FOR SHARE` is understood; else it is `LOCK IN SHARE MODE`.
    pub supports_for_share: bool,
    /// `SKIP LOCKED` and `NOWAIT` are understood in locking reads.
    pub skip_locked: bool,
    /// `INSERT … AS new ON DUPLICATE KEY UPDATE` is understood; else it is `VALUES(col)`.
    pub upsert_row_alias: bool,
    /// The variable of the isolation level.
    pub isolation_variable: &'static str,
    /// How a statement's time is bounded.
    pub statement_time_limit: StatementTimeLimit,

    /// `innodb_autoinc_lock_mode`: 0, 1 or 2.
    pub autoinc_lock_mode: u8,
    /// `binlog_format`.
    pub binlog_format: BinlogFormat,
    /// The binary log is on.
    pub log_bin: bool,
    /// Creating triggers needs no SUPER although the binary log is on.
    pub log_bin_trust_function_creators: bool,
    /// `gtid_mode` as the server says it; `None` where there is no such setting.
    pub gtid_mode: Option<String>,
    /// Threads that an index build may use (MySQL 8.0.27); `None` where it has always one.
    pub parallel_index_threads: Option<u32>,
    /// `lower_case_table_names`: 0, 1 or 2.
    pub lower_case_table_names: u8,
    /// `max_allowed_packet`, in bytes.
    pub max_allowed_packet: u64,
    /// `datadir`, on the server.
    pub datadir: String,
    /// The server is a node of a Galera cluster.
    pub galera: bool,

    /// `explain_format` exists, so that plain EXPLAIN may not be a table.
    pub explain_format: bool,
    /// `information_schema_stats_expiry` exists, so that `CREATE_TIME` and others may be stale.
    pub stats_expiry: bool,
    /// `show_gipk_in_create_table_and_information_schema` exists, so that a key may be hidden.
    pub hidden_primary_keys: bool,
    /// `range_optimizer_max_mem_size` exists, so that long id lists may be scanned.
    pub range_memory_bound: bool,
    /// `use_secondary_engine` exists, so that reads may be served from elsewhere.
    pub secondary_engine: bool,
    /// The query cache is on, so that reads may be served from it.
    pub query_cache: bool,
}

impl Capabilities {
    /// Reads what the server is and can do.
    ///
    /// # Errors
    /// Refused for servers that are not supported, naming what is.
    pub async fn read(conn: &mut Conn) -> DbResult<Self> {
        let variables = Variables::read(conn).await?;
        Self::from_server(conn, &variables).await
    }

    /// As [`Capabilities::read`], from variables that were read already.
    pub(crate) async fn from_server(conn: &mut Conn, variables: &Variables) -> DbResult<Self> {
        let mut capabilities = Self::from_variables(variables)?;
        if variables.is_on("performance_schema") {
            capabilities.metadata_locks_visible = metadata_locks_visible(conn).await?;
        }
        Ok(capabilities)
    }

    /// What follows from the server's variables alone.
    pub(crate) fn from_variables(variables: &Variables) -> DbResult<Self> {
        let version_text = variables.text("version").to_owned();
        let (flavor, version) = identify(&version_text, variables.text("version_comment"))?;
        let mysql = flavor == Flavor::MySql;
        let mysql_from = |at: VersionTriple| mysql && version >= at;
        let performance_schema = variables.is_on("performance_schema");
        Ok(Self {
            flavor,
            version,
            version_text,
            rename_under_lock: mysql_from((8, 0, 13)),
            ddl_wait_clause: !mysql,
            create_or_replace_trigger: !mysql,
            triggers_aged_by_clock: !mysql,
            cascade_triggers: variables.has("enable_cascade_triggers"),
            metadata_locks_visible: false,
            data_locks_visible: mysql && performance_schema,
            show_replicas_verb: match (mysql, mysql_from((8, 0, 22))) {
                (true, true) => "SHOW REPLICAS",
                (true, false) => "SHOW SLAVE HOSTS",
                (false, _) => "SHOW REPLICA HOSTS",
            },
            replica_status_verb: match (mysql, mysql_from((8, 0, 22))) {
                (true, true) => "SHOW REPLICA STATUS",
                (true, false) => "SHOW SLAVE STATUS",
                (false, _) => "SHOW ALL REPLICAS STATUS",
            },
            innodb_tables_view: match mysql {
                true => "information_schema.INNODB_TABLES",
                false => "information_schema.INNODB_SYS_TABLES",
            },
            functional_indexes: mysql_from((8, 0, 13)),
            columns_srs_id: mysql,
            column_default_is_expression: !mysql,
            supports_for_share: mysql,
            skip_locked: true,
            upsert_row_alias: mysql_from((8, 0, 19)),
            isolation_variable: match variables.has("transaction_isolation") {
                true => "transaction_isolation",
                false => "tx_isolation",
            },
            statement_time_limit: match mysql {
                true => StatementTimeLimit::SelectMilliseconds,
                false => StatementTimeLimit::AnySeconds,
            },
            autoinc_lock_mode: variables.number("innodb_autoinc_lock_mode").unwrap_or(1),
            // A server without the variable any more writes rows only.
            binlog_format: match variables.text("binlog_format") {
                "STATEMENT" => BinlogFormat::Statement,
                "MIXED" => BinlogFormat::Mixed,
                _ => BinlogFormat::Row,
            },
            log_bin: variables.is_on("log_bin"),
            log_bin_trust_function_creators: variables.is_on("log_bin_trust_function_creators"),
            gtid_mode: variables.get("gtid_mode").map(str::to_owned),
            parallel_index_threads: variables.number("innodb_ddl_threads"),
            lower_case_table_names: variables.number("lower_case_table_names").unwrap_or(0),
            max_allowed_packet: variables.number("max_allowed_packet").unwrap_or(4 * 1024 * 1024),
            datadir: variables.text("datadir").to_owned(),
            galera: variables.is_on("wsrep_on"),
            explain_format: variables.has("explain_format"),
            stats_expiry: variables.has("information_schema_stats_expiry"),
            hidden_primary_keys: variables.has("show_gipk_in_create_table_and_information_schema"),
            range_memory_bound: variables.has("range_optimizer_max_mem_size"),
            secondary_engine: variables.has("use_secondary_engine"),
            query_cache: variables
                .get("query_cache_type")
                .is_some_and(|value| !value.eq_ignore_ascii_case("OFF")),
        })
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor, patch) = self.version;
        write!(f, "{} {major}.{minor}.{patch}", self.flavor.name())
    }
}

/// Flavour and version, or why this server is not supported.
fn identify(version_text: &str, comment: &str) -> DbResult<(Flavor, VersionTriple)> {
    let both = format!("{version_text} {comment}").to_ascii_lowercase();
    // They speak the protocol and lack what the change stands on: triggers, LOCK TABLES, RENAME.
    for (mark, name) in [
        ("tidb", "TiDB"),
        ("vitess", "Vitess"),
        ("oceanbase", "OceanBase"),
        ("proxysql", "ProxySQL"),
        ("singlestore", "SingleStore"),
    ] {
        if both.contains(mark) {
            return Err(unsupported(
                &format!("this is {name}, which is not supported"),
                version_text,
            ));
        }
    }
    let flavor = if both.contains("mariadb") { Flavor::MariaDb } else { Flavor::MySql };
    let version = parse_version(version_text)
        .ok_or_else(|| unsupported("the server's version cannot be read", version_text))?;
    let min = match flavor {
        Flavor::MySql => MYSQL_MIN,
        Flavor::MariaDb => MARIADB_MIN,
    };
    if version < min {
        return Err(unsupported(
            &format!("supported are {} {}.{} and later", flavor.name(), min.0, min.1),
            version_text,
        ));
    }
    Ok((flavor, version))
}

fn unsupported(why: &str, version_text: &str) -> DbError {
    DbError::new(ErrorKind::Refused, "looking at the server", version_text).help(why)
}

/// "8.0.36-0ubuntu0.22.04.1", "10.11.19-MariaDB", also with the "5.5.5-" that old clients are shown.
fn parse_version(text: &str) -> Option<VersionTriple> {
    let text = text.strip_prefix("5.5.5-").unwrap_or(text);
    let mut numbers = text.split(['.', '-', '+', ' ']).map(|part| part.parse::<u16>().ok());
    let major = numbers.next().flatten()?;
    let minor = numbers.next().flatten()?;
    Some((major, minor, numbers.next().flatten().unwrap_or(0)))
}

/// Whether somebody's metadata locks can be seen. A missing privilege or table is an answer: no.
async fn metadata_locks_visible(conn: &mut Conn) -> DbResult<bool> {
    let query = "SELECT ENABLED, (SELECT COUNT(*) FROM performance_schema.metadata_locks WHERE FALSE) \
                 FROM performance_schema.setup_instruments WHERE NAME = 'wait/lock/metadata/sql/mdl'";
    match conn.query_first::<(String, u64), _>(query).await {
        Ok(row) => Ok(row.is_some_and(|(enabled, _)| enabled.eq_ignore_ascii_case("YES"))),
        Err(mysql_async::Error::Server(_)) => Ok(false),
        Err(error) => Err(error).doing("asking what the performance schema shows", ""),
    }
}

#[cfg(test)]
mod tests;
