//! PostgreSQL: from URL (or `host=… dbname=…`), flags, environment and files to a database.

use std::path::PathBuf;

use underpin_postgres::connect::SessionSettings;
use underpin_postgres::options::{self, ConnectOptions, FileSearch, process_environment};

use super::{Backend, Family, NO_REPLICAS, SessionWishes, encoded, has_password};
use crate::args::{ConnectionArgs, GlobalArgs, SslMode};
use crate::exit::Problem;

/// A database of this family.
#[derive(Debug)]
pub(super) struct PostgresServer {
    pub(super) options: ConnectOptions,
    pub(super) settings: SessionSettings,
    pub(super) state_schema: String,
    pub(super) replicas: Vec<String>,
}

/// Puts URL, flags, environment, service file and password file together.
pub(super) fn resolve(
    url: &str,
    global: &GlobalArgs,
    wishes: SessionWishes,
    replicas: &[String],
) -> Result<Backend, Problem> {
    let with_flags = url_with_flags(url, &global.connection)?;
    let home = process_environment("HOME").map(PathBuf::from);
    let search = FileSearch::standard(home.as_deref());
    let resolved = options::resolve(&with_flags, &search, &process_environment)
        .map_err(|error| Problem::settings(&error))?;
    let options = resolved.options;
    for replica in replicas.iter().filter(|replica| *replica != NO_REPLICAS) {
        options::replica(replica, &options).map_err(|error| {
            let problem = Problem::settings(&error);
            Problem { message: format!("--replica {}: {problem}", shown(replica)), ..problem }
        })?;
    }
    let mut settings = SessionSettings::default();
    if let Some(lock_timeout_ms) = wishes.lock_timeout_ms {
        settings.lock_timeout_ms = u32::try_from(lock_timeout_ms).unwrap_or(u32::MAX);
    }
    let mut remarks = vec![format!("connecting to {options}, sslmode={}", options.tls.mode.name())];
    if has_password(url) || url.contains("password=") {
        remarks.push(
            "the password on the command line can be seen by other users of this machine: PGPASSWORD \
             and ~/.pgpass cannot"
                .to_owned(),
        );
    }
    let server = PostgresServer {
        options,
        settings,
        state_schema: global.state_schema.clone(),
        replicas: replicas.to_vec(),
    };
    let shown = if url.contains("://") { shown(url) } else { url_of(&server.options) };
    Ok(Backend {
        family: Family::Postgres(Box::new(server)),
        url: shown,
        warnings: resolved.warnings,
        remarks,
    })
}

/// The flags as settings of the URL: one layer, checked in one place. A setting that stands in both is
/// refused there.
fn url_with_flags(url: &str, flags: &ConnectionArgs) -> Result<String, Problem> {
    if flags.defaults_file.is_some() || flags.defaults_group_suffix.is_some() {
        return Err(Problem::usage(
            "--defaults-file and --defaults-group-suffix are for MySQL and MariaDB",
            "name a service of pg_service.conf in the URL: postgres://?service=NAME",
        ));
    }
    let path = |path: &Option<PathBuf>| match path {
        Some(path) => match path.to_str() {
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(Problem::usage(
                format!("the path {} is not UTF-8", path.display()),
                "rename the file",
            )),
        },
        None => Ok(None),
    };
    let settings = [
        ("sslmode", flags.ssl_mode.map(|mode| mode_name(mode).to_owned())),
        ("sslrootcert", path(&flags.ssl_ca)?),
        ("sslcert", path(&flags.ssl_cert)?),
        ("sslkey", path(&flags.ssl_key)?),
    ];
    let mut out = url.to_owned();
    for (name, value) in settings {
        let Some(value) = value else { continue };
        if url.contains("://") {
            let joint = if out.contains('?') { '&' } else { '?' };
            out.push_str(&format!("{joint}{name}={}", encoded(&value)));
        } else {
            let value = value.replace('\\', "\\\\").replace('\'', "\\'");
            out.push_str(&format!(" {name}='{value}'"));
        }
    }
    Ok(out)
}

/// The mode's name in this family.
fn mode_name(mode: SslMode) -> &'static str {
    match mode {
        SslMode::Disabled => "disable",
        SslMode::Preferred => "prefer",
        SslMode::Required => "require",
        SslMode::VerifyCa => "verify-ca",
        SslMode::VerifyIdentity => "verify-full",
    }
}

/// A URL for what was written as `host=… dbname=…`, as it may be shown.
fn url_of(options: &ConnectOptions) -> String {
    let ConnectOptions { host, port, user, database, .. } = options;
    let host = match host {
        host if host.contains(':') => format!("[{host}]"),
        host => host.replace('/', "%2F"),
    };
    format!("postgres://{}@{host}:{port}/{}", encoded(user), encoded(database))
}

/// The URL without its password, wherever it stands.
fn shown(url: &str) -> String {
    let url = super::shown(url);
    let Some((place, query)) = url.split_once('?') else { return url };
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| !pair.split('=').next().unwrap_or_default().contains("password"))
        .collect();
    match kept.as_slice() {
        [] => place.to_owned(),
        kept => format!("{place}?{}", kept.join("&")),
    }
}
