//! Options on how to reach the server, besides the URL: option files and encryption.
//!
//! Owns the names and forms of the flags. What the settings mean, their defaults and the order of the
//! layers are the database crate's.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Where the connection comes from, besides the URL.
#[derive(Debug, Default, Clone, Args)]
pub(crate) struct ConnectionArgs {
    /// MySQL: read this option file instead of the usual ones
    ///
    /// Usual are /etc/my.cnf, /etc/mysql/my.cnf and ~/.my.cnf, in which the groups [client],
    /// [client-mariadb] and [underpin] count. ~/.mylogin.cnf is not read.
    #[arg(long, global = true, value_name = "PATH", help_heading = "Connection")]
    pub(crate) defaults_file: Option<PathBuf>,

    /// MySQL: read option-file groups with this suffix too, as [client-prod] for -prod
    #[arg(long, global = true, value_name = "SUFFIX", help_heading = "Connection")]
    pub(crate) defaults_group_suffix: Option<String>,

    /// How far to encrypt and to prove the server [default: preferred, verify-ca with --ssl-ca]
    #[arg(long, global = true, value_name = "MODE", help_heading = "Connection")]
    pub(crate) ssl_mode: Option<SslMode>,

    /// Certificates of the authorities to trust (PEM)
    #[arg(long, global = true, value_name = "PATH", help_heading = "Connection")]
    pub(crate) ssl_ca: Option<PathBuf>,

    /// The client's own certificate (PEM), with --ssl-key
    #[arg(long, global = true, value_name = "PATH", help_heading = "Connection")]
    pub(crate) ssl_cert: Option<PathBuf>,

    /// The private key of --ssl-cert (PEM)
    #[arg(long, global = true, value_name = "PATH", help_heading = "Connection")]
    pub(crate) ssl_key: Option<PathBuf>,
}

/// How far to encrypt and to prove the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SslMode {
    /// Never encrypt
    #[value(alias = "disable")]
    Disabled,
    /// Encrypt where the server offers it
    #[value(alias = "prefer")]
    Preferred,
    /// Encrypt or fail; look at no certificate
    #[value(alias = "require")]
    Required,
    /// Encrypt, and check that --ssl-ca signed the certificate
    VerifyCa,
    /// As verify-ca, and the certificate must bear the host's name
    #[value(alias = "verify-full")]
    VerifyIdentity,
}

impl SslMode {
    /// The name as it is written in MySQL's URLs and option files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Preferred => "preferred",
            Self::Required => "required",
            Self::VerifyCa => "verify-ca",
            Self::VerifyIdentity => "verify-identity",
        }
    }
}
