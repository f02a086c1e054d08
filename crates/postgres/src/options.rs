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

mod secret;

use std::fmt;
use std::path::PathBuf;

pub use files::FileSearch;
pub use secret::Secret;

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
    pub hostaddr: Option<std::net::IpAddr>,
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
