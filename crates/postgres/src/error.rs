//! From the driver's errors to the seam's: what an SQLSTATE means for the run, and what to do next.
//!
//! Owns the table of states. Does not decide about retries (the engine asks the kind) and knows no
//! statement: the caller says what was attempted on which object.

use std::error::Error as _;

use tokio_postgres::Error;
use tokio_postgres::error::{DbError as ServerError, Severity};
use underpin_dialect::{DbError, DbResult, ErrorKind};

/// The lock was not had within `lock_timeout`, or at once with NOWAIT.
pub(crate) const LOCK_NOT_AVAILABLE: &str = "55P03";

/// What the error means for the run.
///
/// A server's word is definite unless its state is about a lost session; everything else breaks the
/// protocol and leaves the statement's outcome unknown, because the server had it before we lost the
/// answer.
pub fn classify(error: &Error) -> ErrorKind {
    match error.as_db_error() {
        Some(server) => classify_server(server),
        None if rustls_error(error).is_some() => ErrorKind::Refused,
        None if is_io(error) || error.is_closed() => ErrorKind::ConnectionLost,
        // The driver has no other way to tell its own errors apart.
        None => match words(error).as_str() {
            text if text.contains("connecting to server") => ErrorKind::ConnectionLost,
            text if text.contains("authentication") || text.contains("password") => {
                ErrorKind::AccessDenied
            }
            text if text.contains("TLS") || text.contains("configuration") => ErrorKind::Refused,
            // The stream is out of step: the statement had been sent.
            text if text.contains("unexpected message") || text.contains("parsing") => {
                ErrorKind::ConnectionLost
            }
            _ => ErrorKind::Other,
        },
    }
}

/// The seam's error for a driver error: `attempted` as "copying a chunk", `object` as "shop.orders".
pub fn db_error(error: &Error, attempted: &str, object: &str) -> DbError {
    let mut out = DbError::new(classify(error), attempted, object);
    match error.as_db_error() {
        Some(server) => {
            out.server = Some(server_words(server));
            out.sqlstate = Some(server.code().code().into());
            out.help = help_for_state(server.code().code()).map(str::to_owned);
        }
        None => out.server = Some(words(error)),
    }
    out
}

/// Turns a driver's result into the seam's, saying what was attempted.
pub trait Doing<T> {
    /// `attempted` as "reading the table's columns", `object` as "shop.orders" (empty where there is none).
    ///
    /// # Errors
    /// The driver's error, classified.
    fn doing(self, attempted: &str, object: &str) -> DbResult<T>;
}

impl<T> Doing<T> for Result<T, Error> {
    fn doing(self, attempted: &str, object: &str) -> DbResult<T> {
        self.map_err(|error| db_error(&error, attempted, object))
    }
}

/// Whether the server gave this state.
pub(crate) fn has_state(error: &DbError, sqlstate: &str) -> bool {
    error.sqlstate.as_deref() == Some(sqlstate)
}

/// Message, detail and hint in one sentence; the server parts them.
fn server_words(server: &ServerError) -> String {
    let mut text = server.message().to_owned();
    for (name, part) in [("detail", server.detail()), ("hint", server.hint())] {
        if let Some(part) = part {
            text.push_str(&format!("; {name}: {part}"));
        }
    }
    if let Some(place) = server.where_() {
        // The first line says where; the rest is the way there.
        text.push_str(&format!("; in {}", place.lines().next().unwrap_or_default()));
    }
    text
}

/// The driver's words with its causes, which its own text leaves out.
pub(crate) fn words(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    // Bound: error chains are short; a longer one is a loop.
    for _ in 0..8 {
        let Some(inner) = cause else { break };
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text.push_str(&format!(": {inner_text}"));
        }
        cause = inner.source();
    }
    text
}

/// The TLS library's error inside a driver's error, if that is what it is about.
pub(crate) fn rustls_error(error: &Error) -> Option<&rustls::Error> {
    causes(error).find_map(|cause| {
        cause.downcast_ref::<rustls::Error>().or_else(|| {
            let io = cause.downcast_ref::<std::io::Error>()?;
            io.get_ref()?.downcast_ref::<rustls::Error>()
        })
    })
}

/// The operating system's error inside a driver's error.
pub(crate) fn io_error(error: &Error) -> Option<&std::io::Error> {
    causes(error).find_map(|cause| cause.downcast_ref::<std::io::Error>())
}

fn is_io(error: &Error) -> bool {
    io_error(error).is_some()
}

fn causes(error: &Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    // Bound: as in `words`.
    std::iter::successors(error.source(), |&cause| cause.source()).take(8)
}

fn classify_server(server: &ServerError) -> ErrorKind {
    let state = server.code().code();
    match (kind_of_state(state), server.parsed_severity()) {
        // FATAL ends the session whatever the state says, and with it what was in flight.
        (ErrorKind::Other, Some(Severity::Fatal | Severity::Panic)) => ErrorKind::ConnectionLost,
        // Two sessions that define the same thing at once (a function that both touch); the server has
        // no state of its own for it.
        (ErrorKind::Other, _) if server.message().starts_with("tuple concurrently ") => {
            ErrorKind::Retryable
        }
        (kind, _) => kind,
    }
}

/// The meaning of an SQLSTATE.
pub fn kind_of_state(state: &str) -> ErrorKind {
    match state {
        // Serialization failure, deadlock, too many connections, disk or memory short for a moment,
        // "cannot connect now" (starting up or shutting down).
        "40001" | "40P01" | "53300" | "53200" | "57P03" | "55006" => ErrorKind::Retryable,
        LOCK_NOT_AVAILABLE => ErrorKind::LockNotHad,
        // A two-phase or remote commit whose outcome the server itself does not know.
        "40003" | "08007" => ErrorKind::Ambiguous,
        // Shutdown, crash, terminated, idle or transaction time-outs, database dropped.
        "57P01" | "57P02" | "57P04" | "57P05" | "25P03" | "25P04" => ErrorKind::ConnectionLost,
        "57014" => ErrorKind::Cancelled,
        // Unique, and exclusion, which is the same kind of clash between rows.
        "23505" | "23P01" => ErrorKind::DuplicateKey,
        "42501" | "28000" | "28P01" | "0LP01" | "0P000" => ErrorKind::AccessDenied,
        "3D000" | "3F000" | "42P01" | "42703" | "42704" | "42883" => ErrorKind::NotFound,
        "25006" => ErrorKind::ReadOnly,
        _ => kind_of_class(state.get(..2).unwrap_or_default()),
    }
}

/// The meaning of an SQLSTATE's class, its first two characters.
fn kind_of_class(class: &str) -> ErrorKind {
    match class {
        "08" => ErrorKind::ConnectionLost,
        // Data exception, and the integrity constraints that are not unique ones.
        "22" | "23" | "44" => ErrorKind::DataError,
        "40" => ErrorKind::Retryable,
        // Syntax or a definition that cannot be; a feature that is not there; objects that depend on it.
        "42" | "0A" | "2B" => ErrorKind::Refused,
        _ => ErrorKind::Other,
    }
}

fn help_for_state(state: &str) -> Option<&'static str> {
    Some(match state {
        "53300" => {
            "The server has no free connection: wait, raise max_connections (or the role's \
             CONNECTION LIMIT), or run with fewer workers"
        }
        "53100" => "The server is out of disk space",
        "53200" => {
            "The server is out of memory, or its lock table is full (max_locks_per_transaction)"
        }
        "42501" => "Grant the role what the server names, or connect as the table's owner",
        "28P01" => "Check user and password",
        "28000" => {
            "Check the user's name, and that pg_hba.conf on the server lets it in from this host with \
             this kind of encryption"
        }
        "3D000" => "Check the database name in the URL",
        "25006" => "Connect to the primary: this server (or session) takes no writes",
        LOCK_NOT_AVAILABLE => {
            "Another transaction holds the lock: look for long transactions on the table"
        }
        "57P03" => "The server is starting up or shutting down: try again shortly",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_mean_what_the_engine_must_do() {
        for (state, kind) in [
            ("40001", ErrorKind::Retryable),
            ("40P01", ErrorKind::Retryable),
            ("55P03", ErrorKind::LockNotHad),
            ("40003", ErrorKind::Ambiguous),
            ("08006", ErrorKind::ConnectionLost),
            ("57P01", ErrorKind::ConnectionLost),
            ("25P03", ErrorKind::ConnectionLost),
            ("57014", ErrorKind::Cancelled),
            ("23505", ErrorKind::DuplicateKey),
            ("23P01", ErrorKind::DuplicateKey),
            ("23502", ErrorKind::DataError),
            ("23514", ErrorKind::DataError),
            ("23503", ErrorKind::DataError),
            ("22003", ErrorKind::DataError),
            ("22P02", ErrorKind::DataError),
            ("42501", ErrorKind::AccessDenied),
            ("42P01", ErrorKind::NotFound),
            ("42601", ErrorKind::Refused),
            ("0A000", ErrorKind::Refused),
            ("25006", ErrorKind::ReadOnly),
            ("XX000", ErrorKind::Other),
            ("P0001", ErrorKind::Other),
            ("", ErrorKind::Other),
        ] {
            assert_eq!(kind_of_state(state), kind, "{state}");
        }
    }
}
