//! Where to connect, as whom, and how encrypted: one checked value made of URL (or key/value string),
//! environment, service file and password file.
//!
//! Owns the meaning of each setting, the defaults and the order of the layers. Does not open a
//! connection ([`crate::connect`]), does not read certificates ([`crate::tls`]) and does not know the
//! syntax of the files ([`crate::service`], [`crate::pgpass`]).
//!
//! Layers, each setting taken from the first that has it, as libpq does:
//!
//! 1. the URL or the key/value string,
//! 2. the service that it or `PGSERVICE` names, from `pg_service.conf`,
//! 3. the environment (`PGHOST`, `PGPORT`, …),
//! 4. the password alone: the password file,
//! 5. defaults: the server's own Unix socket directory where there is one, else `localhost`; port 5432;
//!    the login name; a database of the user's name; `sslmode=prefer`; and where they exist, the files
//!    of `~/.postgresql`.
//!
//! Differences from libpq, each to be on the safe side: one host alone (with several the program could
//! reach another server after each loss), `target_session_attrs` only where it means a primary, no
//! GSSAPI, no certificate revocation lists.

mod files;
pub(crate) mod keywords;

mod secret;
mod url;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use underpin_dialect::{DbError, DbResult, ErrorKind};

pub use files::FileSearch;
pub use secret::Secret;

use crate::pgpass::{self, Wanted};
use crate::service;
use keywords::Layer;

/// The port of a server that was not told another.
pub const PORT_DEFAULT: u16 = 5432;
/// How long making a connection may take, by default.
pub const CONNECT_TIMEOUT_MS_DEFAULT: u64 = 10_000;
/// The name under which our sessions appear in `pg_stat_activity`.
pub const APPLICATION_NAME_DEFAULT: &str = "underpin";

/// How far the connection is encrypted and the server proven; the meanings are libpq's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsMode {
    /// Never encrypted.
    Disable,
    /// Encrypted only where the server refuses it otherwise.
    Allow,
    /// Encrypted where the server can. Whoever sits in between can take the offer away: this protects
    /// from reading along, not from an attacker who may change packets.
    Prefer,
    /// Encrypted or refused. The certificate is looked at only where `sslrootcert` is there; then as
    /// with `VerifyCa`.
    Require,
    /// Encrypted, and the certificate is signed by an authority of `sslrootcert`.
    VerifyCa,
    /// As `VerifyCa`, and the certificate was made out to the host name in use.
    VerifyFull,
}

impl TlsMode {
    /// Reads `verify-ca` and so on; `None` for anything unknown.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Disable, Self::Allow, Self::Prefer, Self::Require, Self::VerifyCa, Self::VerifyFull]
            .into_iter()
            .find(|mode| mode.name() == text)
    }

    /// The mode's name as a user writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// The authorities whose signature on the server's certificate counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootCert {
    /// `sslrootcert=system`: the public ones.
    System,
    /// Those in this file (PEM).
    File(PathBuf),
}

/// Whether the password exchange is tied to the encrypted connection (SCRAM-SHA-256-PLUS).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// Where both sides can.
    Prefer,
    /// Always, or the connection is refused.
    Require,
}

/// What the encryption needs: mode and files (PEM).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsOptions {
    /// How far to go.
    pub mode: TlsMode,
    /// `sslrootcert`.
    pub root_cert: Option<RootCert>,
    /// The client's own certificate, with `key`.
    pub cert: Option<PathBuf>,
    /// The private key of `cert`.
    pub key: Option<PathBuf>,
    /// `channel_binding`.
    pub channel_binding: ChannelBinding,
}

/// Everything that is needed to open a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectOptions {
    /// Host name or address (IPv6 without brackets), or the directory of a Unix socket (begins with `/`).
    pub host: String,
    /// An address to connect to instead of looking `host` up.
    pub hostaddr: Option<IpAddr>,
    /// The port; for a Unix socket a part of its name.
    pub port: u16,
    /// The role to log in as.
    pub user: String,
    /// Its password.
    pub password: Option<Secret>,
    /// The database whose tables are changed.
    pub database: String,
    /// Encryption.
    pub tls: TlsOptions,
    /// Bound on making a connection, name look-up and TLS included.
    pub connect_timeout_ms: u64,
    /// `application_name`.
    pub application_name: String,
    /// `options`: settings for the server process, as `-c geqo=off`.
    pub options: Option<String>,
}

impl ConnectOptions {
    /// Whether it goes over a Unix socket.
    pub fn is_socket(&self) -> bool {
        self.host.starts_with('/') && self.hostaddr.is_none()
    }

    /// `user@host:port/database`: for messages, without the password.
    pub fn describe(&self) -> String {
        let Self { host, port, user, database, .. } = self;
        if self.host.contains(':') {
            return format!("{user}@[{host}]:{port}/{database}");
        }
        format!("{user}@{host}:{port}/{database}")
    }
}

impl fmt::Display for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

/// Checked options, with what a person should hear about where they came from.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The options.
    pub options: ConnectOptions,
    /// Things that were ignored and why; to be shown once.
    pub warnings: Vec<String>,
}

/// Reads an environment variable; a value so that tests need not touch the process's own.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The environment of this process. A value that is not UTF-8 counts as absent.
pub fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Makes the options from a URL or key/value string, the environment and the files (see the layers
/// above).
///
/// # Errors
/// [`ErrorKind::Refused`] for what cannot be read or does not fit together. No message repeats the URL or
/// a password.
pub fn resolve(
    text: &str,
    search: &FileSearch,
    environment: Environment<'_>,
) -> DbResult<Resolved> {
    let given = url::parse(text)?;
    let from_environment = Layer::of_environment(environment)?;
    let asked = |keyword| given.get(keyword).or_else(|| from_environment.get(keyword));
    let mut layers = match asked("service") {
        Some(name) => {
            let layer = service::read(name, asked("servicefile"), search)?;
            over(given.clone(), layer)
        }
        None => given.clone(),
    };
    layers = over(layers, from_environment);
    let mut warnings = layers.warnings();
    let login = environment("USER").or_else(|| environment("LOGNAME"));
    let mut options = merge(&layers, search, login)?;
    if options.password.is_none() {
        let passfile = layers.get("passfile").map(PathBuf::from);
        if let Some(path) = passfile.or_else(|| search.at_home(".pgpass")) {
            let ConnectOptions { host, port, database, user, .. } = &options;
            let wanted = Wanted { host, port: *port, database, user };
            let (password, warning) = pgpass::look_up(&path, &wanted);
            options.password = password;
            warnings.extend(warning);
        }
    }
    if options.is_socket() && options.tls.mode >= TlsMode::Require {
        warnings.push(format!(
            "sslmode={} has no effect over a Unix socket, which is never encrypted",
            options.tls.mode.name()
        ));
    }
    Ok(Resolved { options, warnings })
}

/// The options of a replica that the user named: what its URL leaves out comes from the primary's.
///
/// # Errors
/// [`ErrorKind::Refused`] for a URL that cannot be read.
pub fn replica(text: &str, primary: &ConnectOptions) -> DbResult<ConnectOptions> {
    let layer = url::parse(text)?;
    if !layer.names_host() {
        return Err(refused("a replica's URL must name its host"));
    }
    if layer.get("service").is_some() {
        return Err(refused("a replica is named by its URL, not by a service"));
    }
    let mut options = merge(&layer, &FileSearch::none(), Some(primary.user.clone()))?;
    options.password = options.password.or_else(|| primary.password.clone());
    if layer.get("dbname").is_none() {
        options.database.clone_from(&primary.database);
    }
    let tls = &mut options.tls;
    if layer.get("sslmode").is_none() {
        tls.mode = primary.tls.mode;
    }
    if layer.get("channel_binding").is_none() {
        tls.channel_binding = primary.tls.channel_binding;
    }
    tls.root_cert = tls.root_cert.take().or_else(|| primary.tls.root_cert.clone());
    if tls.cert.is_none() {
        tls.cert.clone_from(&primary.tls.cert);
        tls.key.clone_from(&primary.tls.key);
    }
    if layer.get("connect_timeout").is_none() {
        options.connect_timeout_ms = primary.connect_timeout_ms;
    }
    options.application_name.clone_from(&primary.application_name);
    check(&options)?;
    Ok(options)
}

/// One layer over another. Whoever says where the server is says it wholly: a host of the URL must not
/// be reached at an address that the environment has for another one.
fn over(above: Layer, mut below: Layer) -> Layer {
    if above.names_host() {
        below.remove("host");
        below.remove("hostaddr");
    }
    above.over(below)
}

/// Fills in the defaults, except for a password from the password file.
fn merge(layers: &Layer, search: &FileSearch, login: Option<String>) -> DbResult<ConnectOptions> {
    let own = |keyword: &str| layers.get(keyword).map(str::to_owned);
    let port = match layers.get("port") {
        Some(text) if text.contains(',') => return Err(url::several_hosts()),
        Some(text) => text
            .parse::<u16>()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| refused("port is a number from 1 to 65535"))?,
        None => PORT_DEFAULT,
    };
    let hostaddr: Option<IpAddr> = match layers.get("hostaddr") {
        Some(text) => Some(
            text.parse()
                .map_err(|_| refused("hostaddr is an IP address; a name goes into host"))?,
        ),
        None => None,
    };
    let host = match (own("host"), hostaddr) {
        (Some(host), _) if host.contains(',') => return Err(url::several_hosts()),
        (Some(host), _) => host,
        (None, Some(address)) => address.to_string(),
        (None, None) => local_socket(search, port).unwrap_or_else(|| "localhost".to_owned()),
    };
    check_target(layers.get("target_session_attrs"))?;
    let user = own("user").or(login).ok_or_else(|| {
        refused("no user: write it in the URL (postgres://user@host/database) or set PGUSER")
    })?;
    let options = ConnectOptions {
        host,
        hostaddr,
        port,
        database: own("dbname").unwrap_or_else(|| user.clone()),
        user,
        password: own("password").map(Secret::new),
        tls: tls_options(layers, search)?,
        connect_timeout_ms: connect_timeout_ms(layers.get("connect_timeout"))?,
        application_name: own("application_name")
            .unwrap_or_else(|| APPLICATION_NAME_DEFAULT.to_owned()),
        options: own("options"),
    };
    check(&options)?;
    Ok(options)
}

/// The directory in which a server of this machine has its socket.
fn local_socket(search: &FileSearch, port: u16) -> Option<String> {
    let socket = format!(".s.PGSQL.{port}");
    let directory = search.socket_directories.iter().find(|path| path.join(&socket).exists())?;
    Some(directory.display().to_string())
}

fn tls_options(layers: &Layer, search: &FileSearch) -> DbResult<TlsOptions> {
    let path = |keyword: &str| layers.get(keyword).map(PathBuf::from);
    let at_home = |name: &str| search.existing_at_home(&format!(".postgresql/{name}"));
    let root_cert = match layers.get("sslrootcert") {
        Some("system") => Some(RootCert::System),
        Some(path) => Some(RootCert::File(PathBuf::from(path))),
        None => at_home("root.crt").map(RootCert::File),
    };
    let mode = match layers.get("sslmode") {
        Some(text) => TlsMode::parse(text).ok_or_else(|| {
            refused("sslmode is one of disable, allow, prefer, require, verify-ca, verify-full")
        })?,
        None if root_cert == Some(RootCert::System) => TlsMode::VerifyFull,
        None => TlsMode::Prefer,
    };
    let channel_binding = match layers.get("channel_binding") {
        None | Some("prefer") => ChannelBinding::Prefer,
        Some("require") => ChannelBinding::Require,
        Some("disable") => ChannelBinding::Disable,
        Some(_) => return Err(refused("channel_binding is one of disable, prefer, require")),
    };
    let cert = path("sslcert").or_else(|| at_home("postgresql.crt"));
    let key = path("sslkey").or_else(|| at_home("postgresql.key"));
    if layers.get("sslcert").is_some() && key.is_none() {
        return Err(refused("sslcert needs its private key: sslkey is missing"));
    }
    // The key without a certificate is of no use, and libpq does not look at it then.
    let key = key.filter(|_| cert.is_some());
    let cert = cert.filter(|_| key.is_some());
    Ok(TlsOptions { mode, root_cert, cert, key, channel_binding })
}

/// Seconds, as libpq counts; it takes 0 and less for no bound, we for a very wide one.
fn connect_timeout_ms(text: Option<&str>) -> DbResult<u64> {
    const WIDE_MS: u64 = 3_600_000;
    let Some(text) = text else { return Ok(CONNECT_TIMEOUT_MS_DEFAULT) };
    let seconds: i64 =
        text.trim().parse().map_err(|_| refused("connect_timeout is a number of seconds"))?;
    Ok(match u64::try_from(seconds) {
        Ok(seconds @ 1..) => std::cmp::min(seconds.saturating_mul(1000), WIDE_MS),
        _ => WIDE_MS,
    })
}

/// Only a server that takes writes is of use, and whether it does is asked in any case.
fn check_target(target: Option<&str>) -> DbResult<()> {
    match target {
        None | Some("any" | "read-write" | "primary") => Ok(()),
        Some(_) => Err(refused(
            "target_session_attrs must be any, read-write or primary: changes are made on the primary",
        )),
    }
}

/// Refuses combinations that would promise more than they keep.
fn check(options: &ConnectOptions) -> DbResult<()> {
    let tls = &options.tls;
    if tls.root_cert == Some(RootCert::System) && tls.mode != TlsMode::VerifyFull {
        return Err(refused(
            "sslrootcert=system goes with sslmode=verify-full only: anybody can have a publicly \
             signed certificate",
        ));
    }
    if tls.mode >= TlsMode::VerifyCa && tls.root_cert.is_none() && !options.is_socket() {
        return Err(refused(
            "sslmode=verify-ca and verify-full need sslrootcert (a file, or `system` for the public \
             authorities with verify-full), or the file ~/.postgresql/root.crt",
        ));
    }
    let encrypted = tls.mode >= TlsMode::Prefer && !options.is_socket();
    if tls.channel_binding == ChannelBinding::Require && !encrypted {
        return Err(refused("channel_binding=require needs an encrypted connection"));
    }
    if options.host.chars().any(char::is_control) {
        return Err(refused("the host holds a control character"));
    }
    Ok(())
}

/// An error about the request itself. The text must not repeat what may hold a password.
pub(crate) fn refused(text: &str) -> DbError {
    DbError::new(ErrorKind::Refused, "reading the connection settings", "").help(text)
}

#[cfg(test)]
mod tests;
