//! From the driver's errors to the seam's: what a server code means for the run, and what to do next.
//!
//! Owns the table of server codes. Does not decide about retries (the engine asks the kind) and knows
//! no statement: the caller says what was attempted on which object.

use mysql_async::{DriverError, Error, IoError, ServerError};
use underpin_dialect::{DbError, DbResult, ErrorKind};

/// MySQL cannot show its transactions or its process list while anybody's statement holds a character
/// of four bytes: the texts of statements are utf8mb3 there. It passes when that statement ends.
pub(crate) const STATEMENT_UNREADABLE: u16 = 3854;

/// What the error means for the run.
///
/// A server's word is definite unless its code is about a lost session; everything that breaks the
/// protocol leaves the statement's outcome unknown, because the server had it before we lost the answer.
pub fn classify(error: &Error) -> ErrorKind {
    match error {
        Error::Server(server) => classify_server(server),
        Error::Io(IoError::Tls(_)) => ErrorKind::Refused,
        Error::Io(IoError::Io(_)) => ErrorKind::ConnectionLost,
        Error::Driver(driver) => classify_driver(driver),
        Error::Url(_) => ErrorKind::Refused,
        Error::Other(_) => ErrorKind::Other,
    }
}

/// The seam's error for a driver error: `attempted` as "copying a chunk", `object` as "shop.orders".
pub fn db_error(error: &Error, attempted: &str, object: &str) -> DbError {
    let mut out = DbError::new(classify(error), attempted, object);
    match error {
        Error::Server(server) => {
            out.server = Some(server.message.clone());
            out.code = Some(server.code);
            out.help = help_for_code(server.code).map(str::to_owned);
        }
        other => {
            out.server = Some(words(other));
            out.help = help_for_driver(other).map(str::to_owned);
        }
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

/// The server's error code, where the server spoke at all.
pub fn server_code(error: &Error) -> Option<u16> {
    match error {
        Error::Server(server) => Some(server.code),
        _ => None,
    }
}

/// The driver's words without its own "Input/output error: Input/output error:".
fn words(error: &Error) -> String {
    match error {
        // encryption has much to say of it, for those who write programs
        Error::Io(IoError::Io(io)) if io.kind() == std::io::ErrorKind::UnexpectedEof => {
            "the connection was closed".to_owned()
        }
        Error::Io(IoError::Io(io)) => io.to_string(),
        Error::Driver(driver) => driver.to_string(),
        other => other.to_string(),
    }
}

/// Four codes have two meanings; the text tells them apart (sessions of ours are set to English).
fn classify_server(error: &ServerError) -> ErrorKind {
    let says = |part: &str| error.message.contains(part);
    match error.code {
        // Every server option that forbids a statement; only one of them is about writes.
        1290 if says("read-only") || says("read_only") => ErrorKind::ReadOnly,
        // MariaDB: a check constraint. MySQL: a tablespace option.
        4025 if says("CONSTRAINT") => ErrorKind::DataError,
        // MySQL: disconnected for inactivity. MariaDB: FOLLOWS a trigger that does not exist.
        4031 if says("disconnected") => ErrorKind::ConnectionLost,
        // MariaDB: the account is locked. MySQL: a bulk file's syntax.
        4151 if says("locked") => ErrorKind::AccessDenied,
        code => kind_of_code(code),
    }
}

/// The meaning of a server error code that has one meaning only.
pub fn kind_of_code(code: u16) -> ErrorKind {
    match code {
        // Deadlock, lock time-outs, too many lockers or connections, "restart the transaction".
        1020 | 1040 | 1203 | 1205 | 1206 | 1213 | 1412 | 1614 | 1615 | 1637 | 3058 | 3101
        | 3572 => ErrorKind::Retryable,
        // See `STATEMENT_UNREADABLE`.
        STATEMENT_UNREADABLE => ErrorKind::Retryable,
        // The commit itself reported an error: it may be in the log or not.
        1180 => ErrorKind::Ambiguous,
        // The session ended: shutdown, kill, time-out, network. What was in flight is unknown.
        1053 | 1152 | 1158..=1161 | 1184 | 1927 | 2006 | 2013 | 2055 | 3032 | 3169 => {
            ErrorKind::ConnectionLost
        }
        // KILL QUERY, max_execution_time, max_statement_time: the statement was rolled back.
        1317 | 1969 | 3024 => ErrorKind::Cancelled,
        1022 | 1062 | 1169 | 1586 | 1859 => ErrorKind::DuplicateKey,
        code if is_data_error(code) => ErrorKind::DataError,
        1044 | 1045 | 1095 | 1129 | 1130 | 1132 | 1133 | 1142 | 1143 | 1227 | 1251 | 1370
        | 1396 | 1419 | 1524 | 1698 | 1820 | 1862 | 3118 | 3159 => ErrorKind::AccessDenied,
        1049 | 1051 | 1054 | 1091 | 1094 | 1109 | 1146 | 1176 | 1305 | 1360 | 1449 => {
            ErrorKind::NotFound
        }
        1792 | 1836 | 1874 | 3989 => ErrorKind::ReadOnly,
        1050 | 1060 | 1061 | 1063 | 1064 | 1067 | 1068 | 1069 | 1070 | 1071 | 1072 | 1073
        | 1074 | 1075 | 1101 | 1103 | 1115 | 1118 | 1149 | 1166 | 1170 | 1192 | 1193 | 1221
        | 1231 | 1235 | 1238 | 1273 | 1286 | 1290 | 1291 | 1293 | 1294 | 1845 | 1846 => {
            ErrorKind::Refused
        }
        _ => ErrorKind::Other,
    }
}

/// A value that does not fit: length, range, format, NULL, JSON, geometry, check constraint, partition.
fn is_data_error(code: u16) -> bool {
    matches!(
        code,
        1048 | 1138 | 1216 | 1217 | 1263 | 1264 | 1265 | 1292 | 1300 | 1364 | 1365 | 1366 | 1367
            | 1406 | 1411 | 1416 | 1441 | 1451 | 1452 | 1526 | 1690 | 1748 | 1906 | 1918 | 1977
            | 3037 | 3105 | 3140..=3142 | 3144 | 3146 | 3147 | 3150 | 3151 | 3155..=3158
            | 3616 | 3617 | 3643 | 3731 | 3732 | 3819
    )
}

fn classify_driver(error: &DriverError) -> ErrorKind {
    match error {
        // The stream is closed or out of step: the statement had been sent.
        DriverError::ConnectionClosed
        | DriverError::PacketOutOfOrder
        | DriverError::UnexpectedPacket { .. }
        | DriverError::PacketTooLarge
        | DriverError::BadCompressedPacketHeader
        | DriverError::PoolDisconnected => ErrorKind::ConnectionLost,
        DriverError::UnknownAuthPlugin { .. }
        | DriverError::MysqlOldPasswordDisabled
        | DriverError::CleartextPluginDisabled
        | DriverError::InvalidParsecSalt => ErrorKind::AccessDenied,
        DriverError::NoClientSslFlagFromServer | DriverError::NoKeyFound => ErrorKind::Refused,
        _ => ErrorKind::Other,
    }
}

fn help_for_code(code: u16) -> Option<&'static str> {
    Some(match code {
        1040 | 1203 => {
            "The server has no free connection: wait, raise max_connections (or the account's \
             MAX_USER_CONNECTIONS), or run with fewer workers"
        }
        1044 | 1142 | 1143 | 1227 | 1370 => "Grant the account the privilege that the server names",
        1045 | 1698 => {
            "Check user, password and the host this client comes from (the account is user@host)"
        }
        1049 => "Check the database name in the URL",
        1129 => "An administrator unblocks this host with: TRUNCATE performance_schema.host_cache",
        1130 => "The server knows no account for the host this client comes from",
        1205 => "Another transaction holds the lock: look for long transactions on the table",
        1114 | 1021 => "The server is out of disk space (or the tablespace is full)",
        1419 => {
            "With the binary log on, creating (on MariaDB also dropping) triggers needs SUPER, or on the server: \
             SET GLOBAL log_bin_trust_function_creators = 1"
        }
        1290 | 1792 | 1836 | 3989 => {
            "Connect to the primary: this server (or transaction or schema) takes no writes"
        }
        1251 | 1524 => "The account's authentication plugin is unknown on one side",
        1820 | 1862 => "The account's password has expired: set a new one first",
        3118 | 4151 => "The account is locked: ALTER USER … ACCOUNT UNLOCK",
        3159 => "The server takes encrypted connections only: use ssl-mode=required or stricter",
        1449 => "The trigger's or view's definer no longer exists",
        _ => return None,
    })
}

fn help_for_driver(error: &Error) -> Option<&'static str> {
    match error {
        Error::Driver(DriverError::UnknownAuthPlugin { .. }) => Some(
            "Use an account with caching_sha2_password, mysql_native_password, ed25519 or parsec",
        ),
        Error::Driver(DriverError::CleartextPluginDisabled) => Some(
            "The account wants its password in clear text, which is refused: use another \
             authentication plugin",
        ),
        Error::Driver(DriverError::PacketTooLarge | DriverError::PacketOutOfOrder) => {
            Some("A value may exceed the server's max_allowed_packet: raise it")
        }
        Error::Io(IoError::Io(io)) if io.to_string().contains("out of sync") => {
            Some("A value may exceed the server's max_allowed_packet: raise it")
        }
        Error::Driver(DriverError::NoClientSslFlagFromServer) => Some(
            "The server offers no TLS: switch it on there, or use ssl-mode=preferred or disabled",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(code: u16, message: &str) -> Error {
        Error::Server(ServerError { code, message: message.to_owned(), state: "HY000".to_owned() })
    }

    #[test]
    fn codes_have_their_meaning() {
        let cases = [
            (1205, ErrorKind::Retryable),
            (1213, ErrorKind::Retryable),
            (3572, ErrorKind::Retryable),
            (3854, ErrorKind::Retryable),
            (1180, ErrorKind::Ambiguous),
            (1927, ErrorKind::ConnectionLost),
            (1053, ErrorKind::ConnectionLost),
            (1160, ErrorKind::ConnectionLost),
            (1317, ErrorKind::Cancelled),
            (3024, ErrorKind::Cancelled),
            (1969, ErrorKind::Cancelled),
            (1062, ErrorKind::DuplicateKey),
            (1586, ErrorKind::DuplicateKey),
            (1264, ErrorKind::DataError),
            (1406, ErrorKind::DataError),
            (3140, ErrorKind::DataError),
            (3105, ErrorKind::DataError),
            (1045, ErrorKind::AccessDenied),
            (1419, ErrorKind::AccessDenied),
            (1146, ErrorKind::NotFound),
            (1836, ErrorKind::ReadOnly),
            (1064, ErrorKind::Refused),
            (1, ErrorKind::Other),
        ];
        for (code, kind) in cases {
            assert_eq!(classify(&server(code, "x")), kind, "code {code}");
        }
    }

    #[test]
    fn codes_with_two_meanings_are_told_apart_by_their_text() {
        let cases = [
            (1290, "running with the --read-only option", ErrorKind::ReadOnly),
            (1290, "running with the --secure-file-priv option", ErrorKind::Refused),
            (4025, "CONSTRAINT `c` failed for `d`.`t`", ErrorKind::DataError),
            (4025, "AUTOEXTEND_SIZE value should be between", ErrorKind::Other),
            (4031, "The client was disconnected by the server", ErrorKind::ConnectionLost),
            (4031, "Referenced trigger 'x' for the given action", ErrorKind::Other),
            (4151, "Access denied, this account is locked", ErrorKind::AccessDenied),
            (4151, "Unexpected end of input found at row 1", ErrorKind::Other),
        ];
        for (code, message, kind) in cases {
            assert_eq!(classify(&server(code, message)), kind, "{code} {message}");
        }
    }

    #[test]
    fn a_broken_stream_leaves_the_outcome_unknown() {
        let eof = Error::from(std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
        let lost = db_error(&eof, "renaming", "shop.orders");
        assert!(lost.is_connection_lost() && lost.is_ambiguous() && !lost.is_retryable());
        let out_of_step = Error::Driver(DriverError::PacketOutOfOrder);
        assert_eq!(classify(&out_of_step), ErrorKind::ConnectionLost);
    }

    #[test]
    fn the_message_says_what_where_and_what_next() {
        let result: Result<(), Error> = Err(server(1419, "You do not have the SUPER privilege"));
        let error = result.doing("creating the capture triggers", "shop.orders").unwrap_err();
        assert_eq!(error.code, Some(1419));
        let text = error.to_string();
        for part in ["creating the capture triggers", "shop.orders", "SUPER", "log_bin_trust"] {
            assert!(text.contains(part), "{part:?} is missing in {text:?}");
        }
    }
}
