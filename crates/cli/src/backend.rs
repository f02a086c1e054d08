//! The one place that knows which databases there are: chosen once, by the URL's scheme.
//!
//! Owns the way from a URL and its flags to a [`Database`]. What is done with one is generic and lives
//! in `command`; a [`Task`] carries it here. How the settings of each family come together is `mysql`'s
//! and `postgres`'.

mod mysql;
mod postgres;

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use underpin_core::alter::Syntax;
use underpin_dialect::Database;
use underpin_mysql::MySql;
use underpin_postgres::Postgres;

use crate::args::GlobalArgs;
use crate::exit::Problem;
use mysql::MySqlServer;
use postgres::PostgresServer;

/// The word that switches the watch over replicas off.
pub(crate) const NO_REPLICAS: &str = "none";

/// What a command wants of its sessions beyond the defaults.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SessionWishes {
    /// Longest wait for a table's lock, in milliseconds; `None` for the default.
    pub(crate) lock_timeout_ms: Option<u64>,
}

/// A server that was named, not contacted.
#[derive(Debug)]
pub(crate) struct Backend {
    family: Family,
    /// The URL as it may be shown.
    url: String,
    /// What was ignored in the settings, and why.
    warnings: Vec<String>,
    /// Things worth saying to who asks for more.
    remarks: Vec<String>,
}

#[derive(Debug)]
enum Family {
    MySql(Box<MySqlServer>),
    Postgres(Box<PostgresServer>),
}

/// Whether the first argument means PostgreSQL: by its scheme, or as `host=… dbname=…`.
fn is_postgres(url: &str) -> bool {
    match url.split_once("://") {
        Some((scheme, _)) => matches!(scheme, "postgres" | "postgresql"),
        None => url.contains('='),
    }
}

/// By whose rules a statement for this URL is read.
pub(crate) fn syntax_of(url: &str) -> Syntax {
    if is_postgres(url) { Syntax::postgres() } else { Syntax::mysql() }
}

/// Something to do with a database, whichever it is.
pub(crate) trait Task {
    /// What comes of it.
    type Output;

    /// Does it.
    fn on<D: Database>(self, db: Arc<D>) -> impl Future<Output = anyhow::Result<Self::Output>>;
}

impl Backend {
    /// Workers of a run for which nobody says how many. PostgreSQL's copies wait for one another where
    /// the new table's file grows: more than two gain little, and cost the application more.
    pub(crate) const fn workers(&self) -> u32 {
        match self.family {
            Family::MySql(_) => 4,
            Family::Postgres(_) => 2,
        }
    }

    /// Puts URL, flags, environment and option files together.
    ///
    /// # Errors
    /// A usage error. No message holds a password.
    pub(crate) fn resolve(
        url: &str,
        global: &GlobalArgs,
        wishes: SessionWishes,
        replicas: &[String],
    ) -> Result<Self, Problem> {
        if replicas.len() > 1 && replicas.iter().any(|replica| replica == NO_REPLICAS) {
            let next = "give either URLs, or `none` alone";
            return Err(Problem::usage("--replica none excludes every other --replica", next));
        }
        match url.split_once("://").map(|(scheme, _)| scheme) {
            Some("mysql" | "mariadb") => mysql::resolve(url, global, wishes, replicas),
            _ if is_postgres(url) => postgres::resolve(url, global, wishes, replicas),
            _ => Err(Problem::usage(
                "the first argument is no database URL",
                "write mysql://USER@HOST:PORT/DATABASE (mysql:// alone is the server of ~/.my.cnf) or \
                 postgres://USER@HOST:PORT/DATABASE",
            )),
        }
    }

    /// Whether it is a PostgreSQL server.
    pub(crate) fn is_postgres(&self) -> bool {
        matches!(self.family, Family::Postgres(_))
    }

    /// The schema or database of tables that are named without one.
    pub(crate) fn default_schema(&self) -> Option<String> {
        match &self.family {
            Family::MySql(server) => server.options.database.clone(),
            // As the server itself: nothing of ours is found through a search path.
            Family::Postgres(_) => Some("public".to_owned()),
        }
    }

    /// The URL as it may be shown: without a password.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// URL and table by which a table of this schema is named in a command that is shown. On PostgreSQL
    /// a URL leads to a database, and schemas are in it.
    pub(crate) fn place_of(&self, schema: &str, table: &str) -> (String, String) {
        match &self.family {
            Family::MySql(_) => (with_database(&self.url, schema), table.to_owned()),
            Family::Postgres(_) => (self.url.clone(), format!("{schema}.{table}")),
        }
    }

    /// What was ignored in the settings, and why.
    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Where the connection goes and how, for who asks for more.
    pub(crate) fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Connects and does it.
    ///
    /// # Errors
    /// The server cannot be reached, and whatever the task fails with.
    pub(crate) async fn carry_out<T: Task>(&self, task: T) -> anyhow::Result<T::Output> {
        match &self.family {
            Family::MySql(server) => {
                let MySqlServer { options, settings, state_schema, replicas } = &**server;
                let db = MySql::open(
                    options.clone(),
                    settings.clone(),
                    state_schema.clone(),
                    replicas.clone(),
                )
                .await?;
                task.on(Arc::new(db)).await
            }
            Family::Postgres(server) => {
                let PostgresServer { options, settings, state_schema, replicas } = &**server;
                let db = Postgres::open(
                    options.clone(),
                    settings.clone(),
                    state_schema.clone(),
                    replicas.clone(),
                )
                .await?;
                task.on(Arc::new(db)).await
            }
        }
    }
}

/// A path as the value of a parameter.
fn encoded_path(path: &Path) -> Result<String, Problem> {
    path.to_str().map(encoded).ok_or_else(|| {
        Problem::usage(format!("the path {} is not UTF-8", path.display()), "rename the file")
    })
}

/// Everything but plain characters as `%XX`.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                out.push(char::from(byte));
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// Where user and password end: at the last '@', because a password may hold one by mistake, and half a
/// password on the screen is half too much.
fn userinfo(url: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let (userinfo, place) = rest.rsplit_once('@')?;
    Some((scheme, userinfo, place))
}

/// A URL with another database in it, or its first.
fn with_database(url: &str, database: &str) -> String {
    let (place, query) = match url.split_once('?') {
        Some((place, query)) => (place, format!("?{query}")),
        None => (url, String::new()),
    };
    let Some((scheme, rest)) = place.split_once("://") else { return url.to_owned() };
    let authority = rest.split('/').next().unwrap_or_default();
    format!("{scheme}://{authority}/{}{query}", encoded(database))
}

fn has_password(url: &str) -> bool {
    userinfo(url).is_some_and(|(_, userinfo, _)| userinfo.contains(':'))
}

/// The URL without its password.
fn shown(url: &str) -> String {
    match userinfo(url) {
        Some((scheme, userinfo, place)) => {
            let user = userinfo.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}@{place}")
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests;
