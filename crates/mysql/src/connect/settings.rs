//! What every session of ours is set to, whatever the server's defaults are.
//!
//! Owns the list and the check that it took. A setting is here for one of two reasons: another value
//! would lose or change rows, or it would let a statement of ours wait or fail without need. Left to
//! the server on purpose: everything that changes what a table definition *means* there
//! (`explicit_defaults_for_timestamp`, `innodb_strict_mode`, `sql_require_primary_key`,
//! `div_precision_increment`, `default_storage_engine`), what is logged (`sql_log_bin`,
//! `binlog_format`), and `optimizer_switch`.

use std::collections::BTreeSet;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use underpin_dialect::{DbError, DbResult, ErrorKind};

use crate::error::Doing;
use crate::flavor::{Capabilities, StatementTimeLimit};

/// Strict about what does not fit, and lenient about what the source may already hold.
///
/// `NO_ZERO_DATE`, `NO_ZERO_IN_DATE` and `ERROR_FOR_DIVISION_BY_ZERO` are missing and `ALLOW_INVALID_DATES` is
/// there for one reason: rows written under another mode (`0000-00-00`, `2020-02-30`, a generated
/// `a / 0` that is NULL) are the source's own and must survive the copy unchanged.
/// `NO_AUTO_VALUE_ON_ZERO`: a copied key 0 must not become the next number.
const SQL_MODE: &str = "STRICT_TRANS_TABLES,STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO,\
                        NO_ENGINE_SUBSTITUTION,ALLOW_INVALID_DATES";

/// Lifts the bound on rows of an answer. The number, because DEFAULT means the server's default.
pub(super) const NO_ROW_LIMIT: &str = "SET SESSION sql_select_limit = 18446744073709551615";

/// The settings that callers may want otherwise. All times in seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSettings {
    /// Bound on waiting for a table's metadata lock. Everybody queues behind a waiting exclusive
    /// request, so this is how long the application may stand still.
    pub lock_wait_timeout_s: u32,
    /// Bound on waiting for a row lock.
    pub row_lock_wait_timeout_s: u32,
    /// When the server drops the session for silence (`wait_timeout`). Whoever takes LOCK TABLES
    /// lowers it first: a client that vanished with the lock holds up the application this long.
    pub idle_timeout_s: u32,
    /// Bound on one read from or write to us (`net_read_timeout`, `net_write_timeout`).
    pub net_timeout_s: u32,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            lock_wait_timeout_s: 1,
            row_lock_wait_timeout_s: 3,
            idle_timeout_s: 86_400,
            net_timeout_s: 600,
        }
    }
}

/// A variable, the value it is set to, and whether a session without it must not be used.
struct Assignment {
    name: &'static str,
    value: String,
    checked: bool,
}

impl SessionSettings {
    /// The statements that set a session up, in order.
    pub fn statements(&self, capabilities: &Capabilities) -> Vec<String> {
        let assignments: Vec<String> = self
            .assignments(capabilities)
            .iter()
            .map(|one| format!("SESSION {} = {}", one.name, one.value))
            .collect();
        vec![
            "SET NAMES utf8mb4".to_owned(),
            // READ COMMITTED: under REPEATABLE READ copying locks the source's rows and deleting log
            // entries blocks every writer.
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE".to_owned(),
            format!("SET {}", assignments.join(", ")),
        ]
    }

    fn assignments(&self, capabilities: &Capabilities) -> Vec<Assignment> {
        let checked =
            |name, value: &str| Assignment { name, value: value.to_owned(), checked: true };
        let plain =
            |name, value: &str| Assignment { name, value: value.to_owned(), checked: false };
        let mut list = vec![
            checked("sql_mode", &format!("'{SQL_MODE}'")),
            // A TIMESTAMP converts through the zone: in one with summer time two instants become one.
            checked("time_zone", "'+00:00'"),
            checked("autocommit", "1"),
            checked("foreign_key_checks", "0"),
            // With 0 InnoDB may skip looking for duplicates.
            checked("unique_checks", "1"),
            checked("lock_wait_timeout", &self.lock_wait_timeout_s.to_string()),
            checked("innodb_lock_wait_timeout", &self.row_lock_wait_timeout_s.to_string()),
            checked("sql_safe_updates", "0"),
            checked("sql_select_limit", "18446744073709551615"),
            // CHAIN would leave us in a transaction after each COMMIT.
            checked("completion_type", "0"),
            // `id IS NULL` would mean "the id inserted last".
            checked("sql_auto_is_null", "0"),
            checked("sql_quote_show_create", "1"),
            plain("sql_big_selects", "1"),
            plain("sql_notes", "1"),
            // A few errors can be told apart by their text only.
            plain("lc_messages", "'en_US'"),
            plain("wait_timeout", &self.idle_timeout_s.to_string()),
            plain("net_read_timeout", &self.net_timeout_s.to_string()),
            plain("net_write_timeout", &self.net_timeout_s.to_string()),
            plain("group_concat_max_len", "16777216"),
            // Longer than the longest index key (3072 bytes): with the default of 1024 a sort by a
            // long key stops comparing there.
            plain("max_sort_length", "4096"),
        ];
        // Statements are bounded by cancelling them from another session, which works for all kinds
        // of statement and ends with a proof.
        list.push(match capabilities.statement_time_limit {
            StatementTimeLimit::SelectMilliseconds => plain("max_execution_time", "0"),
            StatementTimeLimit::AnySeconds => plain("max_statement_time", "0"),
        });
        if capabilities.explain_format {
            list.push(plain("explain_format", "'TRADITIONAL'"));
        }
        if capabilities.stats_expiry {
            // Else CREATE_TIME, by which an ALTER is noticed, may be a day old.
            list.push(checked("information_schema_stats_expiry", "0"));
        }
        if capabilities.hidden_primary_keys {
            list.push(checked("show_gipk_in_create_table_and_information_schema", "1"));
        }
        if capabilities.range_memory_bound {
            // Past the default of 8 MiB a long list of ids is answered by reading the whole table.
            list.push(plain("range_optimizer_max_mem_size", "134217728"));
        }
        if capabilities.secondary_engine {
            list.push(checked("use_secondary_engine", "'OFF'"));
        }
        if capabilities.query_cache {
            list.push(checked("query_cache_type", "'OFF'"));
        }
        list
    }

    /// Reads the settings back: a proxy or a server-side filter may have swallowed them.
    ///
    /// # Errors
    /// `Refused`, naming the first setting that did not take.
    pub(super) async fn check(&self, conn: &mut Conn, capabilities: &Capabilities) -> DbResult<()> {
        let attempted = "checking the session's settings";
        let mut expected: Vec<(&'static str, String)> = self
            .assignments(capabilities)
            .into_iter()
            .filter(|one| one.checked)
            .map(|one| (one.name, one.value))
            .collect();
        expected.push((capabilities.isolation_variable, "READ-COMMITTED".to_owned()));
        for name in ["character_set_client", "character_set_connection", "character_set_results"] {
            expected.push((name, "utf8mb4".to_owned()));
        }
        // not SHOW VARIABLES, for which the server writes down all it has, some 700, each time
        let names: Vec<String> =
            expected.iter().map(|(name, _)| format!("@@SESSION.{name}")).collect();
        let query = format!("SELECT {}", names.join(", "));
        let row: Option<Row> = conn.query_first(query).await.doing(attempted, "")?;
        for (at, (name, value)) in expected.into_iter().enumerate() {
            let found = row.as_ref().and_then(|row| row.get::<Option<String>, _>(at)).flatten();
            let found = found.as_deref().unwrap_or_default();
            if normal(found) != normal(&value) {
                return Err(DbError::new(ErrorKind::Refused, attempted, name).help(format!(
                    "It was set to {value} and reads {found:?}: something between here and the server \
                     (a proxy, a pooler) changes statements. Connect straight to the server"
                )));
            }
        }
        Ok(())
    }
}

/// A value without the ways of writing it: quotes, ON for 1, the order of a list.
fn normal(value: &str) -> BTreeSet<String> {
    let value = value.trim_matches('\'');
    let value = match value.to_ascii_uppercase().as_str() {
        "ON" => "1".to_owned(),
        "OFF" | "NO_CHAIN" => "0".to_owned(),
        other => other.to_owned(),
    };
    value.split(',').map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flavor::Variables;

    fn statements(rows: &[(&str, &str)]) -> String {
        let variables: Variables =
            rows.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let capabilities = Capabilities::from_variables(&variables).unwrap();
        SessionSettings::default().statements(&capabilities).join(";\n")
    }

    #[test]
    fn each_server_gets_only_what_it_knows() {
        let mysql = statements(&[
            ("version", "9.7.4"),
            ("explain_format", "TREE"),
            ("information_schema_stats_expiry", "86400"),
        ]);
        assert!(mysql.contains("SESSION max_execution_time = 0"));
        assert!(mysql.contains("SESSION explain_format = 'TRADITIONAL'"));
        assert!(mysql.contains("SESSION information_schema_stats_expiry = 0"));
        assert!(!mysql.contains("max_statement_time") && !mysql.contains("query_cache"));

        let maria = statements(&[("version", "10.11.19-MariaDB"), ("query_cache_type", "ON")]);
        assert!(maria.contains("SESSION max_statement_time = 0"));
        assert!(maria.contains("SESSION query_cache_type = 'OFF'"));
        assert!(!maria.contains("explain_format") && !maria.contains("max_execution_time"));
    }

    #[test]
    fn what_protects_rows_is_there() {
        let text = statements(&[("version", "8.0.36")]);
        for part in [
            "READ COMMITTED",
            "SET NAMES utf8mb4",
            "STRICT_ALL_TABLES",
            "NO_AUTO_VALUE_ON_ZERO",
            "time_zone = '+00:00'",
            "unique_checks = 1",
            "foreign_key_checks = 0",
            "lock_wait_timeout = 1,",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        for part in ["NO_ZERO_DATE", "sql_log_bin", "optimizer_switch", "innodb_strict_mode"] {
            assert!(!text.contains(part), "{part} must not be set");
        }
    }

    #[test]
    fn values_are_compared_by_meaning() {
        assert_eq!(normal("'A,B'"), normal("b,a"));
        assert_eq!(normal("ON"), normal("1"));
        assert_eq!(normal("NO_CHAIN"), normal("0"));
        assert_ne!(normal("OFF"), normal("1"));
        assert_ne!(normal("A"), normal("A,B"));
    }
}
