//! The servers that all tests of one process share, and each test's own database on them.
//!
//! Owns the environment variables that name servers from outside, and the loud skip. A test that
//! must stop or crash a server starts a [`Pair`] of its own instead.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use mysql_async::Conn;

use crate::busy;

use super::{Flavor, Pair, ServerSpec, pair, pg, sql};

/// The addresses of a primary and its replica.
#[derive(Clone, Debug)]
pub struct Endpoints {
    /// Which server.
    pub flavor: Flavor,
    /// `mysql://user[:password]@host:port/` or `postgres://…`, without a database.
    pub primary: String,
    /// The same for its replica; absent when only a primary was named from outside.
    pub replica: Option<String>,
}

impl Endpoints {
    /// Waits until the replica has applied all that the primary logged up to now; without a
    /// replica there is nothing to wait for.
    ///
    /// # Errors
    /// When it does not within `limit`.
    pub fn wait_caught_up(&self, limit: Duration) -> Result<()> {
        match &self.replica {
            Some(replica) => pair::wait_caught_up(self.flavor, &self.primary, replica, limit),
            None => Ok(()),
        }
    }
}

/// The environment variables that name the primary and the replica of `flavor`.
#[must_use]
pub fn env_names(flavor: Flavor) -> (String, String) {
    let name = flavor.name().to_uppercase();
    (format!("UNDERPIN_TEST_{name}_URL"), format!("UNDERPIN_TEST_{name}_REPLICA_URL"))
}

/// Whether tests against `flavor` are wanted; says so on standard error when not.
///
/// `UNDERPIN_TEST_SERVERS` names those that are, separated by commas (`none` for none); without it
/// all are. A test that starts a [`Pair`] or server of its own asks here first.
#[must_use]
pub fn wanted(flavor: Flavor) -> bool {
    // from here on it is known what may be asked of the machine
    busy::watch();
    let wanted = std::env::var("UNDERPIN_TEST_SERVERS")
        .map_or(true, |list| list.split(',').any(|name| name.trim() == flavor.name()));
    if !wanted {
        eprintln!("SKIPPED: {} is not in UNDERPIN_TEST_SERVERS", flavor.name());
    }
    wanted
}

/// The shared servers of `flavor`: those named by the environment, else a pair started once for
/// this process. `None`, said on standard error, when they are not [`wanted`] or cannot be had.
///
/// # Panics
/// When they cannot be had and `CI` is set: there a skip would pass for a success.
#[must_use]
pub fn shared(flavor: Flavor) -> Option<&'static Endpoints> {
    if !wanted(flavor) {
        return None;
    }
    static SLOTS: [OnceLock<Option<Shared>>; 8] = [const { OnceLock::new() }; 8];
    let mut known = Flavor::ALL.into_iter().chain(Flavor::POSTGRES);
    let index = known.position(|known| known == flavor)?;
    let slot = SLOTS.get(index)?.get_or_init(|| match find_or_start(flavor) {
        Ok(found) => Some(found),
        Err(error) => {
            eprintln!("SKIPPED: no server {}: {error:#}", flavor.name());
            None
        }
    });
    if slot.is_none() {
        let ci = std::env::var_os("CI").is_some();
        assert!(!ci, "no server {}, and CI is set: a skip here is a failure", flavor.name());
        eprintln!("SKIPPED: no server {}", flavor.name());
    }
    slot.as_ref().map(|shared| &shared.endpoints)
}

struct Shared {
    endpoints: Endpoints,
    /// Ours to keep alive; absent when the servers were named from outside.
    _pair: Option<Pair>,
}

fn find_or_start(flavor: Flavor) -> Result<Shared> {
    let (primary_name, replica_name) = env_names(flavor);
    if let Ok(primary) = std::env::var(&primary_name).map(|url| server_only(&url)) {
        let answer = sql::execute(&primary, vec!["SELECT 1".to_owned()]);
        answer.with_context(|| format!("asking the server that {primary_name} names"))?;
        let replica = std::env::var(&replica_name).ok().map(|url| server_only(&url));
        return Ok(Shared { endpoints: Endpoints { flavor, primary, replica }, _pair: None });
    }
    let pair = Pair::start(&ServerSpec::new(flavor))?;
    let endpoints =
        Endpoints { flavor, primary: pair.primary.url(), replica: Some(pair.replica.url()) };
    Ok(Shared { endpoints, _pair: Some(pair) })
}

/// The URL without a database or parameters, with the slash after which a test's database goes.
fn server_only(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("mysql", url));
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    format!("{scheme}://{authority}/")
}

/// A database of a test's own on the shared servers; dropped with the value.
#[derive(Debug)]
pub struct TestDb {
    name: String,
    endpoints: Endpoints,
}

impl TestDb {
    /// Makes an empty database; `None` when the server is missing (see [`shared`]).
    ///
    /// # Panics
    /// When the database cannot be made, and as [`shared`].
    #[must_use]
    pub fn new(flavor: Flavor) -> Option<Self> {
        let made = Self::on(shared(flavor)?);
        assert!(made.is_ok(), "making the test's database: {made:?}");
        made.ok()
    }

    /// Makes an empty database on a server that need not be a shared one.
    ///
    /// # Errors
    /// The server's words.
    pub fn on(endpoints: &Endpoints) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("t_{}_{number}", std::process::id());
        let statements =
            vec![format!("DROP DATABASE IF EXISTS {name}"), format!("CREATE DATABASE {name}")];
        sql::execute(&endpoints.primary, statements)?;
        Ok(Self { name, endpoints: endpoints.clone() })
    }

    /// The database's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The servers that it lives on.
    #[must_use]
    pub const fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// The primary's URL with this database.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}{}", self.endpoints.primary, self.name)
    }

    /// The replica's URL with this database.
    #[must_use]
    pub fn replica_url(&self) -> Option<String> {
        self.endpoints.replica.as_ref().map(|replica| format!("{replica}{}", self.name))
    }

    /// A new connection to the primary, this database selected (MySQL and MariaDB).
    ///
    /// # Errors
    /// When the server does not let us in.
    pub async fn conn(&self) -> Result<Conn> {
        sql::connect(&self.url()).await
    }

    /// A new connection to the primary, this database selected (PostgreSQL).
    ///
    /// # Errors
    /// When the server does not let us in.
    pub async fn client(&self) -> Result<tokio_postgres::Client> {
        pg::connect(&self.url()).await
    }

    /// What stands in the way of dropping a PostgreSQL database, best effort: what a test that
    /// failed has left.
    fn clear_postgres(&self) {
        let asks = [
            "SELECT format('ROLLBACK PREPARED %L', gid) FROM pg_prepared_xacts
             WHERE database = current_database()",
            "SELECT format('SELECT pg_drop_replication_slot(%L)', slot_name)
             FROM pg_replication_slots WHERE database = current_database() AND NOT active",
        ];
        let url = self.url();
        let _best_effort = sql::block_on(async move {
            let client = pg::connect(&url).await?;
            for ask in asks {
                for row in client.query(ask, &[]).await? {
                    client.batch_execute(row.try_get(0)?).await?;
                }
            }
            Ok(())
        });
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        // best effort, and not for long: a test that failed may have left a lock on a table
        let statements = if self.endpoints.flavor.is_postgres() {
            self.clear_postgres();
            vec![format!("DROP DATABASE {} WITH (FORCE)", self.name)]
        } else {
            vec!["SET lock_wait_timeout = 3".to_owned(), format!("DROP DATABASE {}", self.name)]
        };
        if let Err(error) = sql::execute(&self.endpoints.primary, statements) {
            eprintln!("the database {} stays behind: {error:#}", self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::server_only;

    #[test]
    fn a_url_from_outside_may_end_in_any_way() {
        for url in ["mysql://u:p@h:1", "mysql://u:p@h:1/", "mysql://u:p@h:1/db?x=y", "u:p@h:1?x"] {
            assert_eq!(server_only(url), "mysql://u:p@h:1/", "{url}");
        }
    }
}
