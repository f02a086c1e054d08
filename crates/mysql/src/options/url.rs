//! The connection URL: `mysql://user:password@host:port/database?parameter=value&…`.
//!
//! Owns the syntax only; what the settings mean and where else they may come from is the parent's.
//! Messages name the part that is wrong and never quote a part that may hold a password.

use std::net::Ipv6Addr;
use std::path::PathBuf;

use underpin_dialect::DbResult;

use super::{Layer, Secret, TLS_MODE_NAMES, TlsMode, refused};

/// The parameters, for the message about an unknown one.
const PARAMETERS: &str = "ssl-mode, ssl-ca, ssl-cert, ssl-key, socket, connect-timeout-ms, \
                          application-name";
/// A longer URL is a mistake.
const URL_BYTES_MAX: usize = 16 * 1024;

/// Reads a URL into a layer.
///
/// # Errors
/// Refused, naming the part that cannot be read.
pub(super) fn parse(url: &str) -> DbResult<Layer> {
    if url.len() > URL_BYTES_MAX {
        return Err(refused("the URL is longer than 16 KiB"));
    }
    let rest = url
        .strip_prefix("mysql://")
        .or_else(|| url.strip_prefix("mariadb://"))
        .ok_or_else(|| refused("a URL begins with mysql:// or mariadb://"))?;
    if rest.contains('#') {
        return Err(refused("a '#' in the URL must be written %23"));
    }
    let (before_query, query) = match rest.split_once('?') {
        Some((before, query)) => (before, Some(query)),
        None => (rest, None),
    };
    let (authority, path) = match before_query.split_once('/') {
        Some((authority, path)) => (authority, Some(path)),
        None => (before_query, None),
    };
    // An '@' further right mostly means that the password held a '/' or '?' and was cut in two:
    // stop here, before a message quotes half of it as the name of a parameter.
    if rest[authority.len()..].contains('@') {
        return Err(refused(
            "after the host an '@' is written %40; in user and password write '/' as %2F, \
             '?' as %3F, '@' as %40, ':' as %3A and '%' as %25",
        ));
    }
    let mut layer = Layer::default();
    parse_authority(authority, &mut layer)?;
    if let Some(path) = path {
        parse_path(path, &mut layer)?;
    }
    if let Some(query) = query {
        parse_query(query, &mut layer)?;
    }
    Ok(layer)
}

/// `user:password@host:port`, each part optional.
fn parse_authority(authority: &str, layer: &mut Layer) -> DbResult<()> {
    let (userinfo, hostport) = match authority.rsplit_once('@') {
        Some((userinfo, hostport)) => (Some(userinfo), hostport),
        None => (None, authority),
    };
    if let Some(userinfo) = userinfo {
        let (user, password) = match userinfo.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (userinfo, None),
        };
        if !user.is_empty() {
            layer.user = Some(decode(user, "the user")?);
        }
        if let Some(password) = password {
            layer.password = Some(Secret::new(decode(password, "the password")?));
        }
    }
    parse_host_port(hostport, layer)
}

fn parse_host_port(hostport: &str, layer: &mut Layer) -> DbResult<()> {
    let (host, port) = if let Some(bracketed) = hostport.strip_prefix('[') {
        let (address, after) =
            bracketed.split_once(']').ok_or_else(|| refused("the host's '[' has no ']'"))?;
        let address = decode(address, "the host")?;
        let without_zone = address.split('%').next().unwrap_or_default();
        if without_zone.parse::<Ipv6Addr>().is_err() {
            return Err(refused("between '[' and ']' stands no IPv6 address"));
        }
        let port =
            match after {
                "" => None,
                after => Some(after.strip_prefix(':').ok_or_else(|| {
                    refused("after the host's ']' only ':' and a port may follow")
                })?),
            };
        (address, port)
    } else {
        let (host, port) = match hostport.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (hostport, None),
        };
        (decode(host, "the host")?, port)
    };
    if host.starts_with('/') {
        return Err(refused(
            "a Unix socket is written as a parameter: mysql://user@/db?socket=/path",
        ));
    }
    if host.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(refused("the host holds a blank or control character"));
    }
    if !host.is_empty() {
        layer.host = Some(host);
    }
    if let Some(port) = port.filter(|port| !port.is_empty()) {
        // Not quoted: in a URL with an unescaped '@' or ':' this may be a piece of the password.
        let port = port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(|| {
            refused(
                "what follows the host's ':' is no port (1 to 65535); in a password write ':' as \
                 %3A, '@' as %40; an IPv6 address stands in brackets",
            )
        })?;
        layer.port = Some(port);
    }
    Ok(())
}

fn parse_path(path: &str, layer: &mut Layer) -> DbResult<()> {
    if path.contains('/') {
        return Err(refused("after the host one database name follows; write a '/' in it as %2F"));
    }
    if !path.is_empty() {
        layer.database = Some(decode(path, "the database")?);
    }
    Ok(())
}

fn parse_query(query: &str, layer: &mut Layer) -> DbResult<()> {
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(|| {
            refused("a parameter after '?' has no value; parameters are written name=value")
        })?;
        let name = decode(name, "a parameter's name")?.replace('_', "-");
        let value = decode(value, "a parameter's value")?;
        if value.is_empty() {
            return Err(refused(&format!("the parameter {name} is empty")));
        }
        set_parameter(&name, value, layer)?;
    }
    Ok(())
}

fn set_parameter(name: &str, value: String, layer: &mut Layer) -> DbResult<()> {
    let taken = match name {
        "ssl-mode" => {
            let mode = TlsMode::parse(&value)
                .ok_or_else(|| refused(&format!("ssl-mode is one of {TLS_MODE_NAMES}")))?;
            layer.mode.replace(mode).is_some()
        }
        "ssl-ca" => layer.ca.replace(PathBuf::from(value)).is_some(),
        "ssl-cert" => layer.cert.replace(PathBuf::from(value)).is_some(),
        "ssl-key" => layer.key.replace(PathBuf::from(value)).is_some(),
        "socket" => layer.socket.replace(PathBuf::from(value)).is_some(),
        "connect-timeout-ms" => {
            let ms = value.parse::<u64>().ok().filter(|ms| *ms > 0);
            let ms = ms.ok_or_else(|| refused("connect-timeout-ms is a number of milliseconds"))?;
            layer.connect_timeout_ms.replace(ms).is_some()
        }
        "application-name" => layer.application_name.replace(value).is_some(),
        _ => {
            return Err(refused(&format!(
                "the URL has an unknown parameter {name:?}; known are {PARAMETERS}"
            )));
        }
    };
    if taken {
        return Err(refused(&format!("the URL has the parameter {name} twice")));
    }
    Ok(())
}

/// Replaces `%XX`. A '+' stays a '+': this is no web form.
fn decode(text: &str, part: &str) -> DbResult<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut input = text.bytes();
    while let Some(byte) = input.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let pair = (input.next().and_then(hex_digit), input.next().and_then(hex_digit));
        let (Some(high), Some(low)) = pair else {
            return Err(refused(&format!(
                "{part} has a '%' without two hexadecimal digits; write '%' as %25"
            )));
        };
        bytes.push(high * 16 + low);
    }
    let text = String::from_utf8(bytes).map_err(|_| refused(&format!("{part} is not UTF-8")))?;
    if text.contains('\0') {
        return Err(refused(&format!("{part} holds a zero byte")));
    }
    Ok(text)
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}
