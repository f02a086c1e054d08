//! The two ways to write a connection down: `postgres://user:password@host:port/database?name=value` and
//! `host=… port=… dbname=…`.
//!
//! Owns the syntax only; what the settings mean and where else they may come from is the parent's.
//! Messages name the part that is wrong and never quote a part that may hold a password.

use underpin_dialect::DbResult;

use super::keywords::Layer;
use super::refused;

/// A longer text is a mistake.
const BYTES_MAX: usize = 16 * 1024;

/// Reads either of the two into a layer.
///
/// # Errors
/// Refused, naming the part that cannot be read.
pub(super) fn parse(text: &str) -> DbResult<Layer> {
    if text.len() > BYTES_MAX {
        return Err(refused("the connection's URL is longer than 16 KiB"));
    }
    let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
    match rest {
        Some(rest) => parse_url(rest),
        None if text.contains("://") => {
            Err(refused("a URL begins with postgres:// or postgresql://"))
        }
        None => parse_pairs(text),
    }
}

fn parse_url(rest: &str) -> DbResult<Layer> {
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
        if path.contains('/') {
            return Err(refused(
                "after the host one database name follows; write a '/' in it as %2F",
            ));
        }
        layer.set("dbname", &decode(path, "the database")?)?;
    }
    for pair in query.into_iter().flat_map(|query| query.split('&')).filter(|pair| !pair.is_empty())
    {
        let (name, value) = pair.split_once('=').ok_or_else(|| {
            refused("a parameter after '?' has no value; parameters are written name=value")
        })?;
        let (name, value) =
            (decode(name, "a parameter's name")?, decode(value, "a parameter's value")?);
        // What JDBC writes, and libpq takes for this.
        if name == "ssl" && value == "true" {
            layer.set("sslmode", "require")?;
        } else {
            layer.set(&name, &value)?;
        }
    }
    Ok(layer)
}

/// `user:password@host:port`, each part optional.
fn parse_authority(authority: &str, layer: &mut Layer) -> DbResult<()> {
    let (userinfo, place) = match authority.rsplit_once('@') {
        Some((userinfo, place)) => (Some(userinfo), place),
        None => (None, authority),
    };
    if let Some(userinfo) = userinfo {
        let (user, password) = match userinfo.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (userinfo, None),
        };
        layer.set("user", &decode(user, "the user")?)?;
        if let Some(password) = password {
            layer.set("password", &decode(password, "the password")?)?;
        }
    }
    if place.contains(',') {
        return Err(several_hosts());
    }
    let (host, port) = if let Some(bracketed) = place.strip_prefix('[') {
        let (address, after) =
            bracketed.split_once(']').ok_or_else(|| refused("the host's '[' has no ']'"))?;
        let address = decode(address, "the host")?;
        let without_zone = address.split('%').next().unwrap_or_default();
        if without_zone.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(refused("between '[' and ']' stands no IPv6 address"));
        }
        let port = match after {
            "" => "",
            after => after
                .strip_prefix(':')
                .ok_or_else(|| refused("after the host's ']' only ':' and a port may follow"))?,
        };
        (address, port)
    } else {
        let (host, port) = place.split_once(':').unwrap_or((place, ""));
        (decode(host, "the host")?, port)
    };
    layer.set("host", &host)?;
    // Checked here and not quoted: with an unescaped '@' or ':' this may be a piece of the password.
    if !port.is_empty() && port.parse::<u16>().is_err() {
        return Err(refused(
            "what follows the host's ':' is no port (1 to 65535); in a password write ':' as %3A, '@' \
             as %40; an IPv6 address stands in brackets",
        ));
    }
    layer.set("port", port)
}

/// The refusal of a list of hosts.
pub(super) fn several_hosts() -> underpin_dialect::DbError {
    refused(
        "several hosts are named: name the primary alone, so that every connection reaches the same \
         server (standbys to watch are named with --replica)",
    )
}

/// `keyword = value` pairs. A value with blanks stands in `'…'`; in it `\'` and `\\` stand for themselves.
fn parse_pairs(text: &str) -> DbResult<Layer> {
    let mut layer = Layer::default();
    let mut rest = text.trim_start();
    // Each turn takes a keyword at least, so this ends.
    while !rest.is_empty() {
        let (keyword, after) = rest.split_once('=').ok_or_else(|| {
            refused("a keyword without '=': settings are written host=… dbname=…, or as a URL")
        })?;
        let keyword = keyword.trim_end();
        if keyword.is_empty() || keyword.contains(char::is_whitespace) {
            return Err(refused(
                "settings are written keyword=value; a value with blanks stands between '…'",
            ));
        }
        let (value, after) = take_value(after.trim_start())?;
        layer.set(keyword, &value)?;
        rest = after.trim_start();
    }
    Ok(layer)
}

fn take_value(text: &str) -> DbResult<(String, &str)> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut chars = text.char_indices().skip(usize::from(quoted));
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some((_, escaped)) => value.push(escaped),
                None => return Err(refused("a value ends in '\\'")),
            },
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            c if c.is_whitespace() && !quoted => return Ok((value, &text[at..])),
            c => value.push(c),
        }
    }
    if quoted { Err(refused("a value's ' has no partner")) } else { Ok((value, "")) }
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
