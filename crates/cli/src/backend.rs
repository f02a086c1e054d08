//! The one place that knows which databases there are: chosen once, by the URL's scheme.
//!
//! Owns the way from a URL and its flags to a [`Database`]. What is done with one is generic and lives
//! in `command`; a [`Task`] carries it here.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use underpin_dialect::Database;
use underpin_mysql::MySql;
use underpin_mysql::connect::SessionSettings;
use underpin_mysql::mycnf::FileSearch;
use underpin_mysql::options::{self, ConnectOptions, process_environment};

use crate::args::{ConnectionArgs, GlobalArgs};
use crate::exit::Problem;

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
}

#[derive(Debug)]
struct MySqlServer {
    options: ConnectOptions,
    settings: SessionSettings,
    state_schema: String,
    replicas: Vec<String>,
}

/// Something to do with a database, whichever it is.
pub(crate) trait Task {
    /// What comes of it.
    type Output;

    /// Does it.
    fn on<D: Database>(self, db: Arc<D>) -> impl Future<Output = anyhow::Result<Self::Output>>;
}

impl Backend {
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
        match url.split_once("://").map(|(scheme, _)| scheme) {
            Some("mysql" | "mariadb") => mysql(url, global, wishes, replicas),
            Some("postgres" | "postgresql") => Err(Problem::usage(
                "PostgreSQL is not supported by this version",
                "use a mysql:// or mariadb:// URL",
            )),
            _ => Err(Problem::usage(
                "the first argument is no database URL",
                "write mysql://USER@HOST:PORT/DATABASE, or mysql:// for the server of ~/.my.cnf",
            )),
        }
    }

    /// The schema or database of tables that are named without one.
    pub(crate) fn default_schema(&self) -> Option<String> {
        match &self.family {
            Family::MySql(server) => server.options.database.clone(),
        }
    }

    /// The URL as it may be shown: without a password.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The same with this database, for commands that are shown.
    pub(crate) fn url_of(&self, database: &str) -> String {
        with_database(&self.url, database)
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
        }
    }
}

fn mysql(
    url: &str,
    global: &GlobalArgs,
    wishes: SessionWishes,
    replicas: &[String],
) -> Result<Backend, Problem> {
    let with_flags = url_with_flags(url, &global.connection)?;
    let search = file_search(&global.connection, process_environment("HOME").map(PathBuf::from));
    let resolved = options::resolve(&with_flags, &search, &process_environment)
        .map_err(|error| Problem::settings(&error))?;
    let options = resolved.options;
    if replicas.len() > 1 && replicas.iter().any(|replica| replica == NO_REPLICAS) {
        let next = "give either URLs, or `none` alone";
        return Err(Problem::usage("--replica none excludes every other --replica", next));
    }
    for replica in replicas.iter().filter(|replica| *replica != NO_REPLICAS) {
        options::replica(replica, &options).map_err(|error| {
            let problem = Problem::settings(&error);
            Problem { message: format!("--replica {}: {problem}", shown(replica)), ..problem }
        })?;
    }
    let mut settings = SessionSettings::default();
    if let Some(lock_timeout_ms) = wishes.lock_timeout_ms {
        settings.lock_wait_timeout_s = u32::try_from(lock_timeout_ms / 1000).unwrap_or(u32::MAX);
    }
    let mut remarks =
        vec![format!("connecting to {options}, ssl-mode={}", options.tls.mode.name())];
    if has_password(url) {
        remarks.push(
            "the password in the URL can be seen by other users of this machine: MYSQL_PWD and \
             option files cannot"
                .to_owned(),
        );
    }
    let server = MySqlServer {
        options,
        settings,
        state_schema: global.state_schema.clone(),
        replicas: replicas.to_vec(),
    };
    Ok(Backend {
        family: Family::MySql(Box::new(server)),
        url: shown(url),
        warnings: resolved.warnings,
        remarks,
    })
}

/// The flags as parameters of the URL: one layer, checked in one place. A setting may stand in one of
/// the two only, for otherwise one of them would be ignored in silence.
fn url_with_flags(url: &str, flags: &ConnectionArgs) -> Result<String, Problem> {
    let path = |path: &Option<PathBuf>| path.as_deref().map(encoded_path).transpose();
    let settings = [
        ("ssl-mode", flags.ssl_mode.map(|mode| mode.name().to_owned())),
        ("ssl-ca", path(&flags.ssl_ca)?),
        ("ssl-cert", path(&flags.ssl_cert)?),
        ("ssl-key", path(&flags.ssl_key)?),
    ];
    let query = url.split_once('?').map(|(_, query)| query);
    let mut out = url.to_owned();
    for (name, value) in settings {
        let Some(value) = value else { continue };
        let in_url = query.into_iter().flat_map(|query| query.split('&')).any(|pair| {
            pair.split('=').next().is_some_and(|written| written.replace('_', "-") == name)
        });
        if in_url {
            let next = "keep one of the two";
            return Err(Problem::usage(
                format!("--{name} and the URL's {name} exclude each other"),
                next,
            ));
        }
        let joint = if out.contains('?') { '&' } else { '?' };
        out.push_str(&format!("{joint}{name}={value}"));
    }
    Ok(out)
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

fn file_search(flags: &ConnectionArgs, home: Option<PathBuf>) -> FileSearch {
    FileSearch {
        defaults_file: flags.defaults_file.clone(),
        group_suffix: flags.defaults_group_suffix.clone(),
        ..FileSearch::standard(home.as_deref())
    }
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
