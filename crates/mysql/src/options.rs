//! Where to connect, as whom, and how encrypted: one checked value made of URL, environment and option files.
//!
//! Owns the meaning of each setting, the defaults and the order of the layers. Does not open a
//! connection ([`crate::connect`]), does not read certificates ([`crate::tls`]) and does not know the
//! syntax of option files ([`crate::mycnf`]).
//!
//! Layers, each setting taken from the first that has it:
//!
//! 1. the URL,
//! 2. the environment: `MYSQL_PWD` for the password and nothing else (the server's own tools ask it
//!    last; here what is set for one command goes before what stands in a file),
//! 3. the option files,
//! 4. defaults: TCP to 127.0.0.1, port 3306, the login name (`USER` or `LOGNAME`), `ssl-mode=preferred`.
//!
//! Two settings depend on each other across layers. A socket from an option file counts only where no
//! host was named in the URL and the files name none but `localhost`: a host in the URL always means
//! TCP, because the socket of a file may belong to another server. And a CA without any `ssl-mode`
//! means `verify-ca`, as in the server's own client.

mod secret;
mod url;

use std::fmt;
use std::path::PathBuf;

use underpin_dialect::{DbError, DbResult, ErrorKind};

use crate::mycnf::{self, FileSearch};
pub use secret::Secret;

/// The port of a server that was not told another.
pub const PORT_DEFAULT: u16 = 3306;
/// How long making a connection may take, by default.
pub const CONNECT_TIMEOUT_MS_DEFAULT: u64 = 10_000;
/// The name under which our sessions appear in `performance_schema.session_connect_attrs`.
pub const APPLICATION_NAME_DEFAULT: &str = "underpin";

/// How far the connection is encrypted and the server proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsMode {
    /// Never encrypted.
    Disabled,
    /// Encrypted where the server offers it. Whoever sits in between can take the offer away: this
    /// protects from reading along, not from an attacker who may change packets.
    Preferred,
    /// Encrypted or refused; the server's certificate is not looked at.
    Required,
    /// Encrypted, and the certificate is signed by the given CA.
    VerifyCa,
    /// As `VerifyCa`, and the certificate was made out to the host name in use.
    VerifyIdentity,
}

impl TlsMode {
    /// Reads `verify-ca`, `VERIFY_CA` and so on; `None` for anything unknown.
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().replace('_', "-").as_str() {
            "disabled" => Some(Self::Disabled),
            "preferred" => Some(Self::Preferred),
            "required" => Some(Self::Required),
            "verify-ca" => Some(Self::VerifyCa),
            "verify-identity" => Some(Self::VerifyIdentity),
            _ => None,
        }
    }

    /// The mode's name as a user writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Preferred => "preferred",
            Self::Required => "required",
            Self::VerifyCa => "verify-ca",
            Self::VerifyIdentity => "verify-identity",
        }
    }
}

/// The names of the modes, for messages.
pub(crate) const TLS_MODE_NAMES: &str = "disabled, preferred, required, verify-ca, verify-identity";

/// What the encryption needs: mode and files (PEM).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsOptions {
    /// How far to go.
    pub mode: TlsMode,
    /// Certificates of the authorities to trust. Without it `VerifyIdentity` trusts the public ones.
    pub ca: Option<PathBuf>,
    /// The client's own certificate, with `key`.
    pub cert: Option<PathBuf>,
    /// The private key of `cert`.
    pub key: Option<PathBuf>,
}

/// Everything that is needed to open a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectOptions {
    /// Host name or address (IPv6 without brackets); not used where `socket` is set.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// A Unix socket instead of TCP.
    pub socket: Option<PathBuf>,
    /// The account's user name.
    pub user: String,
    /// The account's password.
    pub password: Option<Secret>,
    /// The default database of the session.
    pub database: Option<String>,
    /// Encryption.
    pub tls: TlsOptions,
    /// Bound on making a connection, name look-up and TLS included.
    pub connect_timeout_ms: u64,
    /// Sent to the server as the connection attribute `program_name`.
    pub application_name: String,
}

impl ConnectOptions {
    /// `user@host:port/database` or `user@/path/to/socket/database`: for messages, without the password.
    pub fn describe(&self) -> String {
        let database = self.database.as_deref().map(|name| format!("/{name}")).unwrap_or_default();
        match &self.socket {
            Some(path) => format!("{}@{}{database}", self.user, path.display()),
            None if self.host.contains(':') => {
                format!("{}@[{}]:{}{database}", self.user, self.host, self.port)
            }
            None => format!("{}@{}:{}{database}", self.user, self.host, self.port),
        }
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

/// One layer's settings; `None` where the layer is silent.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) socket: Option<PathBuf>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) database: Option<String>,
    pub(crate) mode: Option<TlsMode>,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) connect_timeout_ms: Option<u64>,
    pub(crate) application_name: Option<String>,
}

/// Reads an environment variable; a value so that tests need not touch the process's own.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The environment of this process. A value that is not UTF-8 counts as absent.
pub fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Makes the options from a URL, the environment and the option files (see the layers above).
///
/// # Errors
/// [`ErrorKind::Refused`] for a URL or file that cannot be read or does not fit together. No message
/// repeats the URL or a password.
pub fn resolve(url: &str, search: &FileSearch, environment: Environment<'_>) -> DbResult<Resolved> {
    let from_url = url::parse(url)?;
    let files = mycnf::read(search)?;
    let (from_files, mut warnings) = mycnf::layer(&files)?;
    let from_environment =
        Layer { password: environment("MYSQL_PWD").map(Secret::new), ..Layer::default() };
    let login = environment("USER").or_else(|| environment("LOGNAME"));
    let options = merge(from_url, from_environment, from_files, login)?;
    check(&options)?;
    if options.tls.ca.is_some() && options.tls.mode < TlsMode::VerifyCa {
        warnings.push(format!(
            "ssl-ca is not used with ssl-mode={}: only verify-ca and verify-identity check it",
            options.tls.mode.name()
        ));
    }
    Ok(Resolved { options, warnings })
}

/// The options of a replica that the user named by URL: what the URL leaves out comes from the primary's.
///
/// # Errors
/// [`ErrorKind::Refused`] for a URL that cannot be read.
pub fn replica(url: &str, primary: &ConnectOptions) -> DbResult<ConnectOptions> {
    let layer = url::parse(url)?;
    Ok(ConnectOptions {
        host: layer.host.unwrap_or_else(|| primary.host.clone()),
        port: layer.port.unwrap_or(PORT_DEFAULT),
        socket: layer.socket,
        user: layer.user.unwrap_or_else(|| primary.user.clone()),
        password: layer.password.or_else(|| primary.password.clone()),
        database: None,
        tls: TlsOptions {
            mode: layer.mode.unwrap_or(primary.tls.mode),
            ca: layer.ca.or_else(|| primary.tls.ca.clone()),
            cert: layer.cert.or_else(|| primary.tls.cert.clone()),
            key: layer.key.or_else(|| primary.tls.key.clone()),
        },
        connect_timeout_ms: layer.connect_timeout_ms.unwrap_or(primary.connect_timeout_ms),
        application_name: primary.application_name.clone(),
    })
}

/// Puts the layers on top of each other and fills in the defaults.
fn merge(
    url: Layer,
    environment: Layer,
    files: Layer,
    login: Option<String>,
) -> DbResult<ConnectOptions> {
    // The URL's word on how to get there is taken whole: its host excludes the files' socket.
    let file_socket_counts =
        url.host.is_none() && files.host.as_deref().is_none_or(|host| host == "localhost");
    let socket = url.socket.or(if file_socket_counts { files.socket } else { None });
    let user = url.user.or(files.user).or(login).ok_or_else(|| {
        refused("no user: write it in the URL (mysql://user@host/database) or in an option file")
    })?;
    let ca = url.ca.or(files.ca);
    let mode = url.mode.or(files.mode).unwrap_or(match ca {
        Some(_) => TlsMode::VerifyCa,
        None => TlsMode::Preferred,
    });
    // Certificate and key belong together: never one from the URL with the other from a file.
    let (cert, key) = match (url.cert, url.key) {
        (None, None) => (files.cert, files.key),
        pair => pair,
    };
    Ok(ConnectOptions {
        host: url.host.or(files.host).unwrap_or_else(|| "127.0.0.1".to_owned()),
        port: url.port.or(files.port).unwrap_or(PORT_DEFAULT),
        socket,
        user,
        password: url.password.or(environment.password).or(files.password),
        database: url.database.or(files.database),
        tls: TlsOptions { mode, ca, cert, key },
        connect_timeout_ms: url
            .connect_timeout_ms
            .or(files.connect_timeout_ms)
            .unwrap_or(CONNECT_TIMEOUT_MS_DEFAULT),
        application_name: url
            .application_name
            .unwrap_or_else(|| APPLICATION_NAME_DEFAULT.to_owned()),
    })
}

/// Refuses combinations that would promise more than they keep.
fn check(options: &ConnectOptions) -> DbResult<()> {
    let tls = &options.tls;
    if tls.mode == TlsMode::VerifyCa && tls.ca.is_none() {
        return Err(refused(
            "ssl-mode=verify-ca needs ssl-ca: without it every publicly signed certificate would pass",
        ));
    }
    if tls.cert.is_some() != tls.key.is_some() {
        return Err(refused("ssl-cert and ssl-key go together: one of them is missing"));
    }
    if options.socket.is_some() && tls.mode >= TlsMode::VerifyCa {
        return Err(refused(&format!(
            "ssl-mode={} cannot be kept over a Unix socket, where no certificate is shown: \
             name the host for TCP, or use another mode",
            tls.mode.name()
        )));
    }
    Ok(())
}

/// An error about the request itself. The text must not repeat what may hold a password.
pub(crate) fn refused(text: &str) -> DbError {
    DbError::new(ErrorKind::Refused, "reading the connection settings", "").help(text)
}

#[cfg(test)]
mod tests;
