//! From `sslmode` to attempts: which are made, in which order, and after which answer the next one is.
//!
//! The order is libpq's. One difference: `prefer` goes on in the open after a failed handshake and after
//! a server that lets nobody in with encryption, as libpq does, but never after a refused password.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_postgres::config::{ChannelBinding as DriverBinding, SslMode};
use tokio_postgres::{Client, Config, Connection, Error, NoTls, Socket};
use underpin_dialect::{DbError, DbResult, ErrorKind};

use super::Epitaph;
use crate::error::{db_error, io_error, rustls_error, words};
use crate::options::{ChannelBinding, ConnectOptions, TlsMode};
use crate::tls;

/// After this much silence the kernel asks whether the other side is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// It asks again this often, so many times.
const KEEPALIVE_AGAIN: Duration = Duration::from_secs(10);
const KEEPALIVE_TRIES: u32 = 3;
/// How long what we sent may stay without a sign that it arrived.
const UNHEARD_MAX: Duration = Duration::from_secs(60);
/// The driver's words for a server that offers no encryption; it has no other sign for it.
const NO_TLS_THERE: &str = "server does not support TLS";

/// A connection that was made.
pub(super) struct Dialled {
    pub(super) client: Client,
    /// Drives the client; ends with the connection.
    pub(super) connection: JoinHandle<()>,
    pub(super) epitaph: Epitaph,
    pub(super) encrypted: bool,
}

/// Makes the connection.
pub(super) async fn dial(options: &ConnectOptions) -> DbResult<Dialled> {
    let mode = if options.is_socket() { TlsMode::Disable } else { options.tls.mode };
    match mode {
        TlsMode::Disable => {
            plain(options).await.map_err(|error| connect_error(&error, options, false))
        }
        TlsMode::Allow => match plain(options).await {
            Err(error) if not_let_in(&error) => {
                encrypted(options).await?.map_err(|second| connect_error(&second, options, true))
            }
            other => other.map_err(|error| connect_error(&error, options, false)),
        },
        TlsMode::Prefer => match encrypted(options).await? {
            Err(error) if no_encryption(&error) || not_let_in(&error) => {
                plain(options).await.map_err(|second| connect_error(&second, options, false))
            }
            other => other.map_err(|error| connect_error(&error, options, true)),
        },
        TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => {
            encrypted(options).await?.map_err(|error| connect_error(&error, options, true))
        }
    }
}

async fn plain(options: &ConnectOptions) -> Result<Dialled, Error> {
    let (client, connection) = config(options, false).connect(NoTls).await?;
    Ok(drive(client, connection, false))
}

/// The outer error is about our own files, the inner one about the connection.
async fn encrypted(options: &ConnectOptions) -> DbResult<Result<Dialled, Error>> {
    let connector = tls::connector(options).await?;
    Ok(match config(options, true).connect(connector).await {
        Ok((client, connection)) => Ok(drive(client, connection, true)),
        Err(error) => Err(error),
    })
}

fn drive<T>(client: Client, connection: Connection<Socket, T>, encrypted: bool) -> Dialled
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let epitaph = Epitaph::default();
    let grave = Arc::clone(&epitaph);
    let connection = tokio::spawn(async move {
        if let Err(error) = connection.await {
            let said = match error.as_db_error() {
                Some(server) => format!("{} [{}]", server.message(), server.code().code()),
                None => words(&error),
            };
            tracing::debug!(said, "a connection to the server has ended");
            *grave.lock().unwrap_or_else(PoisonError::into_inner) = Some(said);
        }
    });
    Dialled { client, connection, epitaph, encrypted }
}

fn config(options: &ConnectOptions, encrypted: bool) -> Config {
    let mut config = Config::new();
    config
        .host(&options.host)
        .port(options.port)
        .user(&options.user)
        .dbname(&options.database)
        .application_name(&options.application_name)
        .ssl_mode(if encrypted { SslMode::Require } else { SslMode::Disable })
        .channel_binding(match options.tls.channel_binding {
            ChannelBinding::Disable => DriverBinding::Disable,
            ChannelBinding::Prefer => DriverBinding::Prefer,
            ChannelBinding::Require => DriverBinding::Require,
        })
        .keepalives(true)
        .keepalives_idle(KEEPALIVE)
        .keepalives_interval(KEEPALIVE_AGAIN)
        .keepalives_retries(KEEPALIVE_TRIES)
        .tcp_user_timeout(UNHEARD_MAX);
    if let Some(address) = options.hostaddr {
        config.hostaddr(address);
    }
    if let Some(password) = &options.password {
        config.password(password.expose());
    }
    if let Some(settings) = &options.options {
        config.options(settings);
    }
    config
}

/// The server lets nobody in like this: no line of `pg_hba.conf` fits.
fn not_let_in(error: &Error) -> bool {
    error.code().is_some_and(|state| state.code() == "28000")
}

/// No encryption came about: none was offered, or the handshake failed.
fn no_encryption(error: &Error) -> bool {
    error.as_db_error().is_none()
        && (words(error).contains(NO_TLS_THERE) || rustls_error(error).is_some())
}

/// The error of a connection that did not come about.
fn connect_error(error: &Error, options: &ConnectOptions, encrypted: bool) -> DbError {
    let mut out = db_error(error, "connecting", &options.describe());
    if let Some(tls) = rustls_error(error) {
        out.kind = ErrorKind::Refused;
        out.server = Some(tls.to_string());
        out.help = Some(tls::help(tls, options));
    } else if error.as_db_error().is_none() && words(error).contains(NO_TLS_THERE) {
        out.kind = ErrorKind::Refused;
        out.help = Some(
            "The server offers no TLS: switch it on there (ssl = on), or use sslmode=prefer or disable"
                .to_owned(),
        );
    } else if out.kind == ErrorKind::AccessDenied {
        let mut help: Vec<&str> = out.help.as_deref().into_iter().collect();
        if options.password.is_none() {
            help.push("No password was given: in the URL, as PGPASSWORD, or in ~/.pgpass");
        }
        if !encrypted && !options.is_socket() {
            help.push("The server may take encrypted connections only: sslmode=require");
        }
        out.help = (!help.is_empty()).then(|| help.join(". "));
    } else if io_error(error).is_some() && out.help.is_none() {
        out.help = Some(if options.is_socket() {
            format!(
                "Check that the server runs and that its socket is {}/.s.PGSQL.{}",
                options.host, options.port
            )
        } else {
            "Check that the server runs and listens on this host and port".to_owned()
        });
    }
    out
}
