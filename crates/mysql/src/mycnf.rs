//! Option files as the server's own client programs read them: `/etc/my.cnf`, `~/.my.cnf` and so on.
//!
//! Owns where the files are looked for, which are ignored, `!include` and `!includedir`, and which
//! keys of which groups become connection settings. The syntax of a line is `parse`'s. The file
//! `.mylogin.cnf` (scrambled log-ins of `mysql_config_editor`) is **not** read.
//!
//! Groups read: `[client]`, `[client-mariadb]`, `[mariadb-client]`, `[underpin]`, and the same with the
//! group suffix. As in the server's programs what comes later wins, whatever its group; a
//! world-writable file is ignored with a warning; `-` and `_` in keys are the same. Unlike there, keys
//! cannot be shortened.

mod parse;

use std::path::{Path, PathBuf};

use underpin_dialect::{DbError, DbResult, ErrorKind};

use crate::options::{Layer, Secret, TLS_MODE_NAMES, TlsMode};
use parse::Line;

/// How deep `!include` may nest (the server's programs stop at the same depth).
const INCLUDE_DEPTH_MAX: usize = 10;
/// How many files one search may read in all: a bound on directories that include each other.
const FILES_MAX: usize = 200;
/// A larger file is a mistake.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Groups whose keys count.
const GROUPS: [&str; 4] = ["client", "client-mariadb", "mariadb-client", "underpin"];

/// Which option files to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileSearch {
    /// Read this file (and what it includes) only; it must exist. As `--defaults-file`.
    pub defaults_file: Option<PathBuf>,
    /// Read this one too, after the global ones; it must exist. As `--defaults-extra-file`.
    pub defaults_extra_file: Option<PathBuf>,
    /// Read groups with this suffix too. As `--defaults-group-suffix`.
    pub group_suffix: Option<String>,
    /// Files to look for, in this order; a missing one is no error.
    pub search_path: Vec<PathBuf>,
}

impl FileSearch {
    /// No file at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// The usual places: `/etc/my.cnf`, `/etc/mysql/my.cnf`, `~/.my.cnf`.
    pub fn standard(home: Option<&Path>) -> Self {
        let mut search_path =
            vec![PathBuf::from("/etc/my.cnf"), PathBuf::from("/etc/mysql/my.cnf")];
        search_path.extend(home.map(|home| home.join(".my.cnf")));
        Self { search_path, ..Self::default() }
    }
}

/// One setting as found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    /// With `-` for `_`.
    key: String,
    /// `None` for a bare key.
    value: Option<String>,
    /// The group it stood in.
    group: String,
    /// File and line.
    origin: String,
}

/// All settings of the groups that count, in reading order.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    settings: Vec<Setting>,
    warnings: Vec<String>,
}

/// Reads the files of a search.
///
/// # Errors
/// Refused for a file that must exist and does not, one that cannot be read, and bad syntax.
pub(crate) fn read(search: &FileSearch) -> DbResult<Settings> {
    let mut reader = Reader { search, found: Settings::default(), files: 0 };
    if let Some(path) = &search.defaults_file {
        reader.file(path, true, 0)?;
        return Ok(reader.found);
    }
    // The personal file is last in the path; the extra file goes in between, as in the server's tools.
    let (last, global) = match search.search_path.split_last() {
        Some((last, global)) => (Some(last), global),
        None => (None, &[][..]),
    };
    for path in global {
        reader.file(path, false, 0)?;
    }
    if let Some(path) = &search.defaults_extra_file {
        reader.file(path, true, 0)?;
    }
    if let Some(path) = last {
        reader.file(path, false, 0)?;
    }
    Ok(reader.found)
}

struct Reader<'a> {
    search: &'a FileSearch,
    found: Settings,
    files: usize,
}

impl Reader<'_> {
    /// Reads one file and, where its lines say so, others. `must_exist`: a missing one is an error.
    fn file(&mut self, path: &Path, must_exist: bool, depth: usize) -> DbResult<()> {
        let Some(text) = self.open(path, must_exist)? else { return Ok(()) };
        let mut group: Option<String> = None;
        for (number, line) in parse::lines(&text).enumerate() {
            let origin = format!("{}:{}", path.display(), number + 1);
            match line.map_err(|problem| bad_line(&origin, problem))? {
                Line::Empty => {}
                Line::Group(name) => group = Some(name),
                Line::Include(target) => self.include(&target, &origin, depth)?,
                Line::IncludeDir(target) => self.include_dir(&target, &origin, depth)?,
                Line::Setting { key, value } => {
                    let group = group.as_deref().ok_or_else(|| {
                        bad_line(&origin, "a setting stands before the first [group]")
                    })?;
                    if self.counts(group) {
                        let group = group.to_owned();
                        self.found.settings.push(Setting { key, value, group, origin });
                    }
                }
            }
        }
        Ok(())
    }

    fn counts(&self, group: &str) -> bool {
        let suffix = self.search.group_suffix.as_deref().unwrap_or_default();
        GROUPS.iter().any(|name| {
            group == *name
                || (!suffix.is_empty()
                    && group.strip_prefix(name).is_some_and(|rest| rest == suffix))
        })
    }

    fn open(&mut self, path: &Path, must_exist: bool) -> DbResult<Option<String>> {
        self.files += 1;
        if self.files > FILES_MAX {
            return Err(refused(path, "more than 200 option files are included"));
        }
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(_) if !must_exist => return Ok(None),
            Err(error) => return Err(refused(path, &error.to_string())),
        };
        if !metadata.is_file() {
            // A named pipe or a device would block or never end.
            return match must_exist {
                true => Err(refused(path, "not a regular file")),
                false => Ok(None),
            };
        }
        if world_writable(&metadata) {
            self.found
                .warnings
                .push(format!("{} is ignored: everybody may write to it", path.display()));
            return Ok(None);
        }
        if metadata.len() > FILE_BYTES_MAX {
            return Err(refused(path, "larger than 1 MiB"));
        }
        match std::fs::read(path) {
            // Bytes that are not UTF-8 are harmless in groups that are not ours: they become U+FFFD
            // and `value_text` refuses a setting of ours that holds one.
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if must_exist => Err(refused(path, &error.to_string())),
            Err(error) => {
                self.found.warnings.push(format!("{} is ignored: {error}", path.display()));
                Ok(None)
            }
        }
    }

    fn include(&mut self, target: &str, origin: &str, depth: usize) -> DbResult<()> {
        if depth >= INCLUDE_DEPTH_MAX {
            return Err(bad_line(origin, "!include nests deeper than 10 files"));
        }
        self.file(Path::new(target), true, depth + 1)
    }

    /// Reads the `*.cnf` files of a directory, in the order of their names.
    fn include_dir(&mut self, target: &str, origin: &str, depth: usize) -> DbResult<()> {
        if depth >= INCLUDE_DEPTH_MAX {
            return Err(bad_line(origin, "!includedir nests deeper than 10 files"));
        }
        let entries = std::fs::read_dir(target)
            .map_err(|error| bad_line(origin, &format!("!includedir {target}: {error}")))?;
        let mut paths: Vec<PathBuf> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "cnf"))
            .collect();
        paths.sort();
        for path in paths {
            self.file(&path, false, depth + 1)?;
        }
        Ok(())
    }
}

#[cfg(unix)]
fn world_writable(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o002 != 0
}

#[cfg(not(unix))]
fn world_writable(_metadata: &std::fs::Metadata) -> bool {
    false
}

/// The settings as a layer of connection options, and the warnings.
///
/// # Errors
/// Refused for a value that cannot be what its key says.
pub(crate) fn layer(settings: &Settings) -> DbResult<(Layer, Vec<String>)> {
    let mut layer = Layer::default();
    let mut warnings = settings.warnings.clone();
    for setting in &settings.settings {
        apply(setting, &mut layer, &mut warnings)?;
    }
    Ok((layer, warnings))
}

fn apply(setting: &Setting, layer: &mut Layer, warnings: &mut Vec<String>) -> DbResult<()> {
    match setting.key.as_str() {
        "user" => layer.user = Some(text(setting)?),
        "password" => match &setting.value {
            Some(_) => layer.password = Some(Secret::new(text(setting)?)),
            None => warnings.push(format!(
                "{}: a password without a value would ask at the terminal; it is ignored here",
                setting.origin
            )),
        },
        "host" => layer.host = Some(text(setting)?),
        "port" => {
            let port = text(setting)?.parse::<u16>().map_err(|_| bad_value(setting, "no port"))?;
            // 0 means "the default" to the server's programs.
            layer.port = (port > 0).then_some(port);
        }
        "socket" => layer.socket = Some(PathBuf::from(text(setting)?)),
        "database" => layer.database = Some(text(setting)?),
        "connect-timeout" => {
            let seconds = text(setting)?.parse::<u32>();
            let seconds = seconds.map_err(|_| bad_value(setting, "no number of seconds"))?;
            layer.connect_timeout_ms = (seconds > 0).then_some(u64::from(seconds) * 1000);
        }
        "ssl-mode" => {
            let mode = TlsMode::parse(&text(setting)?)
                .ok_or_else(|| bad_value(setting, &format!("not one of {TLS_MODE_NAMES}")))?;
            layer.mode = Some(mode);
        }
        "ssl-ca" => layer.ca = Some(PathBuf::from(text(setting)?)),
        "ssl-cert" => layer.cert = Some(PathBuf::from(text(setting)?)),
        "ssl-key" => layer.key = Some(PathBuf::from(text(setting)?)),
        key => apply_switch(key, setting, layer, warnings)?,
    }
    Ok(())
}

/// The boolean keys of MariaDB's and older MySQL's clients, in their `skip-`, `disable-`, `enable-` forms.
fn apply_switch(
    key: &str,
    setting: &Setting,
    layer: &mut Layer,
    warnings: &mut Vec<String>,
) -> DbResult<()> {
    let (name, positive) = match key.split_once('-') {
        Some(("skip" | "disable", rest)) => (rest, false),
        Some(("enable", rest)) => (rest, true),
        _ => (key, true),
    };
    match name {
        "ssl" => {
            let on = truth(setting, positive)?;
            layer.mode = Some(match (on, layer.mode) {
                // `ssl` after `ssl-verify-server-cert` takes nothing back.
                (true, Some(mode)) if mode > TlsMode::Required => mode,
                (true, _) => TlsMode::Required,
                (false, _) => TlsMode::Disabled,
            });
        }
        "ssl-verify-server-cert" => {
            if truth(setting, positive)? {
                layer.mode = Some(TlsMode::VerifyIdentity);
            } else if layer.mode == Some(TlsMode::VerifyIdentity) {
                layer.mode = Some(TlsMode::Required);
            }
        }
        // [client] is shared with programs that know many more keys; our own group is not.
        _ if setting.group.starts_with("underpin") => warnings.push(format!(
            "{}: unknown key {} in group [{}]",
            setting.origin, setting.key, setting.group
        )),
        _ => {}
    }
    Ok(())
}

/// `ssl`, `ssl=1`, `skip-ssl`, `ssl=off` …
fn truth(setting: &Setting, positive: bool) -> DbResult<bool> {
    let value = match setting.value.as_deref() {
        None => true,
        Some(value) => match value.to_ascii_lowercase().as_str() {
            "" | "1" | "on" | "true" => true,
            "0" | "off" | "false" => false,
            _ => return Err(bad_value(setting, "neither 1, on, true nor 0, off, false")),
        },
    };
    Ok(value == positive)
}

/// The value of a key that needs one.
fn text(setting: &Setting) -> DbResult<String> {
    let value = setting.value.as_deref().ok_or_else(|| bad_value(setting, "without a value"))?;
    if value.contains('\u{fffd}') {
        return Err(bad_value(setting, "not UTF-8"));
    }
    if value.contains('\0') {
        return Err(bad_value(setting, "a text with a zero byte"));
    }
    Ok(value.to_owned())
}

fn bad_value(setting: &Setting, problem: &str) -> DbError {
    // The value is not quoted: it may be a password in the wrong place.
    bad_line(&setting.origin, &format!("the value of {} is {problem}", setting.key))
}

fn bad_line(origin: &str, problem: &str) -> DbError {
    DbError::new(ErrorKind::Refused, "reading an option file", origin).help(problem)
}

fn refused(path: &Path, problem: &str) -> DbError {
    DbError::new(ErrorKind::Refused, "reading an option file", path.display().to_string())
        .help(problem)
}

#[cfg(test)]
mod tests;
