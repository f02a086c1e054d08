//! The server's variables, read in one statement that works on every flavour.
//!
//! Owns the list of what is read. `SELECT @@name` fails where a variable is unknown, and what is known
//! is just what we are after; `SHOW VARIABLES` leaves out what it does not have.

use std::collections::HashMap;
use std::str::FromStr;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use underpin_dialect::DbResult;

use crate::error::Doing;

/// All that is looked at, here and for the server's identity and role.
const NAMES: &[&str] = &[
    "binlog_format",
    "datadir",
    "enable_cascade_triggers",
    "explain_format",
    "gtid_mode",
    "hostname",
    "information_schema_stats_expiry",
    "innodb_autoinc_lock_mode",
    "innodb_ddl_threads",
    "innodb_read_only",
    "log_bin",
    "log_bin_trust_function_creators",
    "lower_case_table_names",
    "max_allowed_packet",
    "performance_schema",
    "port",
    "query_cache_type",
    "range_optimizer_max_mem_size",
    "read_only",
    "server_id",
    "server_uid",
    "server_uuid",
    "show_gipk_in_create_table_and_information_schema",
    "socket",
    "super_read_only",
    "transaction_isolation",
    "use_secondary_engine",
    "version",
    "version_comment",
    "wsrep_on",
];

/// Names and values as the server shows them; a name it does not know is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variables(HashMap<String, String>);

impl Variables {
    /// Reads the values that this session begins with.
    ///
    /// # Errors
    /// The server's or the connection's.
    pub async fn read(conn: &mut Conn) -> DbResult<Self> {
        let query =
            format!("SHOW SESSION VARIABLES WHERE Variable_name IN ('{}')", NAMES.join("', '"));
        let rows: Vec<(String, String)> =
            conn.query(query).await.doing("reading the server's variables", "")?;
        Ok(rows.into_iter().collect())
    }

    /// The value, where the server has the variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        debug_assert!(NAMES.contains(&name), "{name} is not read");
        self.0.get(name).map(String::as_str)
    }

    /// True where the server has the variable.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The value, empty where there is none.
    pub fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// True for `ON`, `1` and `YES`.
    pub fn is_on(&self, name: &str) -> bool {
        matches!(self.text(name).to_ascii_uppercase().as_str(), "ON" | "1" | "YES" | "TRUE")
    }

    /// The value as a number.
    pub fn number<T: FromStr>(&self, name: &str) -> Option<T> {
        self.get(name).and_then(|value| value.parse().ok())
    }
}

impl FromIterator<(String, String)> for Variables {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(rows: I) -> Self {
        Self(rows.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect())
    }
}
