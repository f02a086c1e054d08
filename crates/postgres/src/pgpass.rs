//! The password file: `~/.pgpass` or what `PGPASSFILE` names.
//!
//! Owns its syntax and the rule that others must not be able to read it.

use std::path::Path;

use crate::options::Secret;

/// A larger file is a mistake.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Directories of sockets that the file may call `localhost`.
const DEFAULT_SOCKETS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// Whose password is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// Host name, address or socket directory.
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) database: &'a str,
    pub(crate) user: &'a str,
}

/// The password of the first line that fits. The second part is a warning where the file was ignored.
///
/// A file that is missing or cannot be read has no password in it: the server will say that it wants one.
pub(crate) fn look_up(path: &Path, wanted: &Wanted<'_>) -> (Option<Secret>, Option<String>) {
    let Ok(metadata) = std::fs::metadata(path) else { return (None, None) };
    let ignored = |why: &str| {
        let text = format!("the password file {} is ignored: {why}", path.display());
        (None, Some(text))
    };
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return ignored("it is not a regular file of at most 1 MiB");
    }
    if open_to_others(&metadata) {
        return ignored("others may read it; chmod 0600 it");
    }
    match std::fs::read_to_string(path) {
        Ok(text) => (find(&text, wanted), None),
        Err(error) => ignored(&error.to_string()),
    }
}

#[cfg(unix)]
fn open_to_others(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    metadata.mode() & 0o077 != 0
}

#[cfg(not(unix))]
fn open_to_others(_: &std::fs::Metadata) -> bool {
    false
}

fn find(text: &str, wanted: &Wanted<'_>) -> Option<Secret> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| password_of(line, wanted))
}

/// The line's password, if its four fields fit.
fn password_of(line: &str, wanted: &Wanted<'_>) -> Option<Secret> {
    let (host, rest) = field(line)?;
    let (port, rest) = field(rest)?;
    let (database, rest) = field(rest)?;
    let (user, rest) = field(rest)?;
    let local = DEFAULT_SOCKETS.contains(&wanted.host) && host.is("localhost");
    let fits = (host.is(wanted.host) || local)
        && port.is(&wanted.port.to_string())
        && database.is(wanted.database)
        && user.is(wanted.user);
    if !fits {
        return None;
    }
    let (password, _) = field(rest).unwrap_or((Field::all(rest), ""));
    Some(Secret::new(password.text))
}

/// One field of a line, its escapes taken out.
struct Field {
    text: String,
    /// A bare `*`: fits everything.
    any: bool,
}

impl Field {
    fn all(text: &str) -> Self {
        let mut out = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            out.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
        }
        Self { text: out, any: text == "*" }
    }

    fn is(&self, wanted: &str) -> bool {
        self.any || self.text == wanted
    }
}

/// The field before the next bare ':', and what follows; `None` where there is no ':'.
fn field(line: &str) -> Option<(Field, &str)> {
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ':' => return Some((Field::all(&line[..at]), &line[at + 1..])),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Wanted<'_> = Wanted { host: "db", port: 5432, database: "shop", user: "ann" };

    fn found(text: &str) -> Option<String> {
        find(text, &WANTED).map(|secret| secret.expose().to_owned())
    }

    #[test]
    fn the_first_line_that_fits_counts() {
        assert_eq!(found("db:5432:shop:bob:no\ndb:*:*:ann:yes\n*:*:*:*:late"), Some("yes".into()));
        assert_eq!(found("# *:*:*:*:no\n*:*:*:*:yes"), Some("yes".into()));
        assert_eq!(found("db:5433:shop:ann:no\nDB:*:*:ann:no\nshort:line\n"), None);
    }

    #[test]
    fn escapes_are_taken_out() {
        assert_eq!(found(r"db:5432:shop:ann:a\:b\\c"), Some(r"a:b\c".into()));
        assert_eq!(found(r"\*:*:*:*:no"), None);
        assert_eq!(found("db:5432:shop:ann:"), Some(String::new()));
    }

    #[test]
    fn a_default_socket_is_localhost() {
        let wanted = Wanted { host: "/var/run/postgresql", ..WANTED };
        assert!(find("localhost:*:*:*:x", &wanted).is_some());
        let wanted = Wanted { host: "/srv/socket", ..WANTED };
        assert!(find("localhost:*:*:*:x", &wanted).is_none());
        assert!(find("/srv/socket:*:*:*:x", &wanted).is_some());
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_read_is_ignored_and_said_to_be() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pgpass");
        std::fs::write(&path, "*:*:*:*:secret").unwrap();
        for (mode, usable) in [(0o600, true), (0o640, false), (0o604, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let (secret, warning) = look_up(&path, &WANTED);
            assert_eq!((secret.is_some(), warning.is_none()), (usable, usable), "{mode:o}");
        }
        assert!(look_up(&directory.path().join("none"), &WANTED).1.is_none());
    }
}
