//! Real database servers for tests: fetched, started as primary and replica, stopped for certain.
//!
//! Owns which servers exist ([`Flavor`]) and how one is asked for ([`ServerSpec`]). The work is in
//! the rooms below: `apt` and `npm` unpack packages, `program` and `postgres` know each server's
//! command line, `process` keeps it alive no longer than us, `server` and `pair` are handles,
//! `shared` serves the tests, `sql` and `pg` talk.

mod apt;
mod npm;
mod pair;
mod paths;
pub mod pg;
mod postgres;
mod process;
mod program;
mod server;
mod shared;
pub mod sql;
mod standby;
#[cfg(test)]
mod tests;

pub use pair::Pair;
pub use paths::{leftovers, servers_dir};
pub use postgres::postgres_tool;
pub use server::Server;
pub use shared::{Endpoints, TestDb, env_names, shared, wanted};

use anyhow::{Result, bail};

/// A server of the test matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flavor {
    /// The newest MySQL that Debian carries (9.7 when this was written).
    MySql97,
    /// The MariaDB of this machine's own distribution (10.11 on Debian 12).
    MariaDbDistro,
    /// MariaDB 11.8, the long-term release of Debian 13.
    MariaDb118,
    /// The PostgreSQL of this machine's own distribution (15 on Debian 12).
    PostgresDistro,
    /// PostgreSQL 14, the oldest that is supported.
    Postgres14,
    /// PostgreSQL 16.
    Postgres16,
    /// PostgreSQL 17.
    Postgres17,
    /// PostgreSQL 18, the newest that Debian carries.
    Postgres18,
}

impl Flavor {
    /// Every MySQL and MariaDB of the matrix, in the order in which tests report them.
    pub const ALL: [Self; 3] = [Self::MySql97, Self::MariaDbDistro, Self::MariaDb118];

    /// Every PostgreSQL that can be had, the oldest first.
    pub const POSTGRES: [Self; 5] = [
        Self::Postgres14,
        Self::PostgresDistro,
        Self::Postgres16,
        Self::Postgres17,
        Self::Postgres18,
    ];

    /// The PostgreSQL versions of a full test run: the oldest, the distribution's, the newest.
    pub const POSTGRES_MATRIX: [Self; 3] =
        [Self::Postgres14, Self::PostgresDistro, Self::Postgres18];

    /// Every server of a full test run.
    pub const MATRIX: [Self; 6] = [
        Self::MySql97,
        Self::MariaDbDistro,
        Self::MariaDb118,
        Self::Postgres14,
        Self::PostgresDistro,
        Self::Postgres18,
    ];

    /// The name used on command lines, in environment variables and in directory names.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::MySql97 => "mysql",
            Self::MariaDbDistro => "mariadb",
            Self::MariaDb118 => "mariadb118",
            Self::PostgresDistro => "postgres",
            Self::Postgres14 => "postgres14",
            Self::Postgres16 => "postgres16",
            Self::Postgres17 => "postgres17",
            Self::Postgres18 => "postgres18",
        }
    }

    /// Whether the server speaks MariaDB's dialect.
    #[must_use]
    pub const fn is_mariadb(self) -> bool {
        matches!(self, Self::MariaDbDistro | Self::MariaDb118)
    }

    /// Whether the server is a PostgreSQL.
    #[must_use]
    pub const fn is_postgres(self) -> bool {
        !matches!(self, Self::MySql97 | Self::MariaDbDistro | Self::MariaDb118)
    }

    /// Finds the flavour that a command line names.
    ///
    /// # Errors
    /// Names the known flavours when `name` is none of them.
    pub fn from_name(name: &str) -> Result<Self> {
        let mut known = Self::ALL.into_iter().chain(Self::POSTGRES);
        match known.find(|flavor| flavor.name() == name) {
            Some(flavor) => Ok(flavor),
            None => bail!(
                "no server is called {name:?}; known: mysql, mariadb, mariadb118, postgres, \
                 postgres14, postgres16, postgres17, postgres18"
            ),
        }
    }
}

/// What kind of server is wanted.
#[derive(Clone, Debug)]
pub struct ServerSpec {
    /// Which server.
    pub flavor: Flavor,
    /// More options for primary and replica, `name=value` without leading dashes, in the server's
    /// own spelling (`innodb-buffer-pool-size=1G`, `shared_buffers=1GB`); they come last on the
    /// command line and so win over the harness's own.
    pub options: Vec<String>,
    /// Whether each commit is forced to disk. Off by default: tests never survive a power cut.
    pub durable: bool,
}

impl ServerSpec {
    /// A small server that starts quickly.
    #[must_use]
    pub const fn new(flavor: Flavor) -> Self {
        Self { flavor, options: Vec::new(), durable: false }
    }

    /// Adds one option, for example `innodb-buffer-pool-size=2G`.
    #[must_use]
    pub fn option(mut self, option: impl Into<String>) -> Self {
        self.options.push(option.into());
        self
    }

    /// Forces every commit to disk, as a production server does.
    #[must_use]
    pub const fn durable(mut self) -> Self {
        self.durable = true;
        self
    }
}

/// Fetches and initialises what `flavors` need, so that later starts are quick. Does nothing when
/// all is there.
///
/// # Errors
/// Says what to install when this machine is not Debian or Ubuntu, or what apt said.
pub fn install(flavors: &[Flavor]) -> Result<()> {
    for &flavor in flavors {
        let _template = program::template(flavor)?;
    }
    Ok(())
}

/// Installs pt-online-schema-change, which only the benchmark needs, with the system's apt.
///
/// # Errors
/// Says what to install when there is neither root nor sudo.
pub fn install_peer_tools() -> Result<()> {
    apt::install_on_host("pt-online-schema-change", &["percona-toolkit"])
}
