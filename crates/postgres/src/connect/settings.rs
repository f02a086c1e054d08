//! What every session of ours is set to, whatever the server's, database's and role's defaults are.
//!
//! Owns the list and the check that it took. A setting is here for one of two reasons: another value
//! would lose or change rows or definitions, or it would let a statement of ours wait or fail without
//! need. Left to the server on purpose: how durable a commit is (`synchronous_commit`), planner and
//! memory settings, `default_tablespace` and `default_table_access_method` (definitions name them).

use std::collections::HashMap;

use tokio_postgres::{Client, SimpleQueryMessage};
use underpin_dialect::{DbError, DbResult, ErrorKind};

use crate::error::Doing;
use crate::flavor::Capabilities;

/// Has the server notice within a minute that we are gone, also while it works for us: a runner whose
/// machine died must not keep its locks, nor an index build go on for nobody. Not every system can.
const NOTICE_A_LOST_CLIENT: [&str; 2] = [
    "SET client_connection_check_interval = '5s'",
    "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3",
];

/// What decides what a value of the user's becomes in another type, and how a constant in a statement of
/// the user's is read: each with the value of our sessions.
const MEANINGS: [(&str, &str); 8] = [
    ("TimeZone", "'UTC'"),
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "'postgres'"),
    ("extra_float_digits", "1"),
    ("bytea_output", "'hex'"),
    ("xmloption", "'content'"),
    ("array_nulls", "on"),
    ("transform_null_equals", "off"),
];

/// The statements from which on, until the transaction ends or [`our_meanings`], statements and values of
/// the user's mean what they mean in a session of the user's: the defaults of server, database and role.
/// Values that we have spelled are read alike under all of them.
pub(crate) fn users_meanings() -> String {
    MEANINGS.map(|(name, _)| format!("SET LOCAL {name} TO DEFAULT")).join("; ")
}

/// The statements that end [`users_meanings`].
pub(crate) fn our_meanings() -> String {
    MEANINGS.map(|(name, ours)| format!("SET LOCAL {name} = {ours}")).join("; ")
}

/// The settings that callers may want otherwise. All times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSettings {
    /// Bound on waiting for any lock. Everybody queues behind a waiting exclusive request, so this is
    /// how long the application may stand still.
    pub lock_timeout_ms: u32,
    /// When the server ends a transaction of ours that waits for us: a runner that was cut off must
    /// not hold its locks for ever.
    pub idle_in_transaction_timeout_ms: u32,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self { lock_timeout_ms: 1000, idle_in_transaction_timeout_ms: 300_000 }
    }
}

impl SessionSettings {
    /// Each setting with the value that it is set to, as `SHOW` gives it back.
    fn assignments(&self, capabilities: &Capabilities) -> Vec<(&'static str, String)> {
        let fixed = [
            // First: under `on` the search path would be noted with quotes.
            ("quote_all_identifiers", "off"),
            // A catalogue read and a regtype print names with their schema unless it is on the path;
            // nobody's function or operator of another schema is called by mistake.
            ("search_path", "pg_catalog"),
            ("default_transaction_isolation", "read committed"),
            ("default_transaction_read_only", "off"),
            ("default_transaction_deferrable", "off"),
            // Statements are bounded by cancelling them from another session, with a proof.
            ("statement_timeout", "0"),
            // A statement that must go by an index is given a cost at which the server would compile it,
            // which takes far longer than to run it.
            ("jit", "off"),
            // Values travel as text in places: without loss, and always the same text.
            ("TimeZone", "UTC"),
            ("DateStyle", "ISO, MDY"),
            ("IntervalStyle", "postgres"),
            ("extra_float_digits", "1"),
            ("bytea_output", "hex"),
            ("xmloption", "content"),
            ("client_encoding", "UTF8"),
            ("standard_conforming_strings", "on"),
            ("backslash_quote", "safe_encoding"),
            ("transform_null_equals", "off"),
            ("array_nulls", "on"),
            // A policy that hides rows must be an error, never a copy with rows missing.
            ("row_security", "off"),
            ("check_function_bodies", "off"),
            ("client_min_messages", "warning"),
        ];
        let mut list: Vec<(&'static str, String)> =
            fixed.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        list.push(("lock_timeout", self.lock_timeout_ms.to_string()));
        list.push((
            "idle_in_transaction_session_timeout",
            self.idle_in_transaction_timeout_ms.to_string(),
        ));
        if capabilities.idle_session_timeout {
            list.push(("idle_session_timeout", "0".to_owned()));
        }
        if capabilities.transaction_timeout {
            list.push(("transaction_timeout", "0".to_owned()));
        }
        list
    }

    /// Sets everything.
    pub(super) async fn apply(
        &self,
        client: &Client,
        capabilities: &Capabilities,
        object: &str,
    ) -> DbResult<()> {
        let attempted = "setting up the session";
        client.batch_execute(&self.statements(capabilities)).await.doing(attempted, object)?;
        for sql in NOTICE_A_LOST_CLIENT {
            match client.batch_execute(sql).await.doing(attempted, object) {
                Err(error) if error.is_ambiguous() => return Err(error),
                // The server's system cannot; then it notices later.
                _ => {}
            }
        }
        Ok(())
    }

    /// The statements that set a session up.
    fn statements(&self, capabilities: &Capabilities) -> String {
        let set = |(name, value): &(&str, String)| {
            if *name == "search_path" || *name == "DateStyle" {
                format!("SET {name} = {value};")
            } else {
                format!("SET {name} = '{value}';")
            }
        };
        self.assignments(capabilities).iter().map(set).collect()
    }

    /// Reads the settings back: a proxy or an extension may have swallowed them.
    ///
    /// # Errors
    /// `Refused`, naming the first setting that did not take.
    pub(super) async fn check(&self, client: &Client, capabilities: &Capabilities) -> DbResult<()> {
        let attempted = "checking the session's settings";
        let mut expected = self.assignments(capabilities);
        // Only a superuser may set it; under another value triggers and foreign keys would not fire.
        expected.push(("session_replication_role", "origin".to_owned()));
        expected.push(("transaction_isolation", "read committed".to_owned()));
        let names: Vec<String> =
            expected.iter().map(|(name, _)| format!("'{}'", name.to_ascii_lowercase())).collect();
        // `setting` is in the setting's own unit, which for all times of ours is milliseconds.
        let sql = format!(
            "SELECT pg_catalog.lower(name), setting FROM pg_catalog.pg_settings \
             WHERE pg_catalog.lower(name) IN ({})",
            names.join(", ")
        );
        let mut actual: HashMap<String, String> = HashMap::new();
        for message in client.simple_query(&sql).await.doing(attempted, "")? {
            if let SimpleQueryMessage::Row(row) = message {
                let cell = |index| row.get(index).unwrap_or_default().to_owned();
                actual.insert(cell(0), cell(1));
            }
        }
        for (name, value) in expected {
            let found =
                actual.get(&name.to_ascii_lowercase()).map(String::as_str).unwrap_or_default();
            if found != value {
                return Err(DbError::new(ErrorKind::Refused, attempted, name).help(format!(
                    "It was set to {value:?} and reads {found:?}: something between here and the \
                     server (a proxy, a pooler) or an extension changes it. Connect straight to the \
                     server"
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statements(version_num: u32) -> String {
        let capabilities = Capabilities::new(version_num, "x").unwrap();
        SessionSettings::default().statements(&capabilities)
    }

    #[test]
    fn each_server_gets_only_what_it_knows() {
        assert!(statements(170_000).contains("SET transaction_timeout = '0'"));
        assert!(!statements(160_000).contains("transaction_timeout"));
    }

    #[test]
    fn what_is_lent_to_the_user_is_given_back_as_it_was() {
        let ours = statements(150_000);
        for (name, value) in MEANINGS {
            let value = value.trim_matches('\'');
            let quoted = if name == "DateStyle" { value.to_owned() } else { format!("'{value}'") };
            assert!(
                ours.contains(&format!("SET {name} = {quoted};")),
                "{name} is {value} in {ours}"
            );
        }
    }

    #[test]
    fn what_protects_rows_is_there_and_what_is_not_ours_is_not() {
        let text = statements(150_000);
        for part in [
            "SET search_path = pg_catalog;",
            "SET row_security = 'off';",
            "SET TimeZone = 'UTC';",
            "SET extra_float_digits = '1';",
            "SET lock_timeout = '1000';",
            "SET default_transaction_isolation = 'read committed';",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        for part in ["synchronous_commit", "session_replication_role", "default_tablespace"] {
            assert!(!text.contains(part), "{part} must not be set");
        }
    }
}
