//! Opening a session: encrypted as asked, set up explicitly, and proven to reach the right server.
//!
//! Owns the way from options to a [`Session`] and the questions that every session is asked once. There
//! is no pool: a pool hides when a session is new, and a new session has lost its settings and locks.
//! What the settings are is `settings`', who the server is `identity`'s.

mod identity;
mod settings;

use std::fmt;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, Error, OptsBuilder, SslOpts};
use underpin_dialect::{DbError, DbResult, ErrorKind};

use crate::error::{Doing, db_error};
use crate::flavor::{Capabilities, Variables};
use crate::options::{ConnectOptions, TlsMode};
use crate::tls;
pub use identity::{
    ReplicaSource, Replication, ServerIdentity, ServerRole, SessionId, server_role,
};
pub use settings::SessionSettings;

/// Prepared statements kept for each session; a run uses a handful.
const STATEMENT_CACHE: usize = 16;
/// After this much silence the kernel asks whether the other side is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long a goodbye may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// An open session with what is known of it.
pub struct Session {
    /// The driver's connection. Its `Debug` shows the password: never print it.
    pub conn: Conn,
    /// How the server knows this session, for cancelling what it runs.
    pub id: SessionId,
    /// The server that it talks to.
    pub identity: ServerIdentity,
    /// What that server can do.
    pub capabilities: Capabilities,
    /// The connection is encrypted.
    pub encrypted: bool,
}

impl Session {
    /// Says goodbye to the server, so that it does not log an aborted connection.
    pub async fn close(self) {
        // A lost connection cannot be closed any more closely.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.conn.disconnect()).await;
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("identity", &self.identity)
            .field("encrypted", &self.encrypted)
            .finish_non_exhaustive()
    }
}

/// Opens a session, sets every setting and reads them back.
///
/// # Errors
/// `AccessDenied` for the account, `Refused` for settings, certificates and unsupported servers,
/// `ConnectionLost` where the server cannot be reached in time; nothing was in flight then.
pub async fn connect(options: &ConnectOptions, settings: &SessionSettings) -> DbResult<Session> {
    tls::install_crypto_provider();
    let limit = Duration::from_millis(options.connect_timeout_ms);
    // Dropping the attempt is safe here alone: no statement of it changes anything.
    match tokio::time::timeout(limit, open(options, settings)).await {
        Ok(result) => result,
        Err(_) => Err(DbError::new(ErrorKind::ConnectionLost, "connecting", options.describe())
            .help(format!(
                "No answer within {} ms: check host and port, or raise connect-timeout-ms",
                options.connect_timeout_ms
            ))),
    }
}

/// Opens a session as [`connect`] does and refuses it where it does not reach the expected server.
///
/// # Errors
/// As [`connect`]; `Refused` for another server.
pub async fn connect_to(
    expected: &ServerIdentity,
    options: &ConnectOptions,
    settings: &SessionSettings,
) -> DbResult<Session> {
    let session = connect(options, settings).await?;
    match expected.ensure_same(&session.identity) {
        Ok(()) => Ok(session),
        Err(error) => {
            session.close().await;
            Err(error)
        }
    }
}

async fn open(options: &ConnectOptions, settings: &SessionSettings) -> DbResult<Session> {
    let (mut conn, encrypted) = dial(options).await?;
    // Before anything is read: a default of the server cuts the answers, SHOW VARIABLES among them.
    conn.query_drop(settings::NO_ROW_LIMIT).await.doing("setting up the session", "")?;
    let variables = Variables::read(&mut conn).await?;
    let capabilities = Capabilities::from_server(&mut conn, &variables).await?;
    let identity = ServerIdentity::from_variables(&capabilities, &variables);
    for statement in settings.statements(&capabilities) {
        conn.query_drop(statement).await.doing("setting up the session", &options.describe())?;
    }
    settings.check(&mut conn, &capabilities).await?;
    let id = SessionId::take(&mut conn).await?;
    Ok(Session { conn, id, identity, capabilities, encrypted })
}

/// Makes the connection; true where it is encrypted.
///
/// `preferred` goes on without TLS after one answer only: a greeting that offers none, which the
/// driver reports before it sends the account's name. A failed handshake, a certificate that cannot be
/// read or a refused log-in is never a reason to send the password in the open.
async fn dial(options: &ConnectOptions) -> DbResult<(Conn, bool)> {
    let ssl = tls::ssl_options(options).await?;
    let encrypted = ssl.is_some();
    match Conn::new(driver_options(options, ssl)).await {
        Ok(conn) => Ok((conn, encrypted)),
        Err(Error::Driver(DriverError::NoClientSslFlagFromServer))
            if options.tls.mode == TlsMode::Preferred =>
        {
            let plain = Conn::new(driver_options(options, None)).await;
            plain.map(|conn| (conn, false)).map_err(|error| connect_error(&error, options))
        }
        Err(error) => Err(connect_error(&error, options)),
    }
}

fn driver_options(options: &ConnectOptions, ssl: Option<SslOpts>) -> OptsBuilder {
    OptsBuilder::default()
        .ip_or_hostname(options.host.clone())
        .tcp_port(options.port)
        .socket(options.socket.as_ref().map(|path| path.display().to_string()))
        // On loopback the driver would ask the server for its socket and move there: behind a
        // forwarded port that path may lead to another server on this machine.
        .prefer_socket(false)
        .user(Some(options.user.clone()))
        .pass(options.password.as_ref().map(|secret| secret.expose().to_owned()))
        .db_name(options.database.clone())
        .tcp_keepalive(Some(KEEPALIVE))
        .stmt_cache_size(STATEMENT_CACHE)
        .connect_attribute("program_name", options.application_name.clone())
        .ssl_opts(ssl)
}

/// The error of a connection that did not come about.
fn connect_error(error: &Error, options: &ConnectOptions) -> DbError {
    let mut out = db_error(error, "connecting", &options.describe());
    if let Some(tls) = tls::rustls_error(error) {
        out.kind = ErrorKind::Refused;
        out.server = Some(tls.to_string());
        out.help = Some(tls::help(tls, options));
    } else if out.kind == ErrorKind::ConnectionLost && out.help.is_none() {
        out.help = Some(match &options.socket {
            Some(_) => "Check that the server runs and that its socket is at this path".to_owned(),
            None => "Check that the server runs and listens on this host and port".to_owned(),
        });
    } else if out.kind == ErrorKind::AccessDenied {
        let mut help: Vec<&str> = out.help.as_deref().into_iter().collect();
        if options.password.is_none() {
            help.push("No password was given: in the URL, as MYSQL_PWD, or in an option file");
        }
        if options.tls.mode == TlsMode::Disabled && options.socket.is_none() {
            help.push("Account or server may take encrypted connections only: ssl-mode=required");
        }
        out.help = (!help.is_empty()).then(|| help.join(". "));
    }
    out
}
