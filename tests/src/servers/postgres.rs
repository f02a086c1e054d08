//! PostgreSQL's program: where it lies, how it is called, how a data directory is made.
//!
//! Owns its command lines and the account that it runs under: it refuses to run as root. What it
//! shares with the others is in `program`.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::apt::{self, Recipe};
use super::npm::{self, Package};
use super::program::{self, Place};
use super::{Flavor, ServerSpec, paths};

const DISTRO: Recipe = Recipe {
    prefix: "postgres-distro",
    debian_suite: None,
    debian: &["postgresql"],
    ubuntu: &["postgresql"],
};
const POSTGRES_17: Recipe = Recipe {
    prefix: "postgres-trixie",
    debian_suite: Some("trixie"),
    debian: &["postgresql-17"],
    ubuntu: &[],
};
const POSTGRES_18: Recipe = Recipe {
    prefix: "postgres-sid",
    debian_suite: Some("sid"),
    debian: &["postgresql-18"],
    ubuntu: &[],
};
const POSTGRES_14: Package = npm_package("postgres-14", "14.23.0-beta.17");
const POSTGRES_16: Package = npm_package("postgres-16", "16.14.0-beta.17");

/// Where the distribution's package puts each version's programs, `VERSION/bin`.
const INSTALLED: &str = "usr/lib/postgresql";
/// The account that owns the servers' data when we are root: every system has this one.
const NOBODY: u32 = 65_534;

const fn npm_package(prefix: &'static str, version: &'static str) -> Package {
    let (folder, links) = ("native", "pg-symlinks.json");
    Package { prefix, name: "@embedded-postgres/linux", version, folder, links }
}

/// The folder of programs and the data directory's template, fetched if need be. The caller holds
/// the install lock.
pub(super) fn locate(flavor: Flavor) -> Result<(PathBuf, PathBuf)> {
    let template = paths::servers_dir()?.join(format!("template-{}", flavor.name()));
    if flavor == Flavor::PostgresDistro
        && let Some(programs) = newest(&Path::new("/").join(INSTALLED))
    {
        return Ok((programs, template.with_extension("installed")));
    }
    let unpacked = |recipe: &Recipe| -> Result<PathBuf> {
        let prefix = apt::unpacked(recipe)?;
        let programs = newest(&prefix.join(INSTALLED)).context("the package has no programs")?;
        wrap(&prefix, &programs)?;
        Ok(programs)
    };
    let programs = match flavor {
        Flavor::PostgresDistro => unpacked(&DISTRO)?,
        Flavor::Postgres14 => npm::unpacked(&POSTGRES_14)?.join("bin"),
        Flavor::Postgres16 => npm::unpacked(&POSTGRES_16)?.join("bin"),
        Flavor::Postgres17 => unpacked(&POSTGRES_17)?,
        Flavor::Postgres18 => unpacked(&POSTGRES_18)?,
        _ => bail!("{} is no PostgreSQL", flavor.name()),
    };
    Ok((programs, template))
}

/// A client program such as `pg_dump` or `psql`: that of `flavor`, or of the next newer version
/// where that package holds the server only. Fetches the package if need be.
///
/// # Errors
/// When no version of the matrix has it.
pub fn postgres_tool(flavor: Flavor, name: &str) -> Result<PathBuf> {
    let _lock = paths::lock("install")?;
    let from = Flavor::POSTGRES.iter().position(|&known| known == flavor).unwrap_or(0);
    for &candidate in Flavor::POSTGRES.iter().skip(from) {
        let path = locate(candidate)?.0.join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    bail!("no PostgreSQL from {} on has a program {name}", flavor.name())
}

/// `bin` of the newest version below `dir`.
fn newest(dir: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(dir).ok()?.flatten();
    let versions = entries.filter_map(|entry| {
        let version: u32 = entry.file_name().to_str()?.parse().ok()?;
        let programs = entry.path().join("bin");
        programs.join("postgres").is_file().then_some((version, programs))
    });
    versions.max_by_key(|(version, _)| *version).map(|(_, programs)| programs)
}

/// Puts a script in the place of each unpacked program, which starts it by the loader and on the
/// libraries of its own suite. The programs call each other by their names beside their own, so a
/// command line of ours would not do.
fn wrap(prefix: &Path, programs: &Path) -> Result<()> {
    let (loader, libraries) = program::own_libraries(prefix)?;
    let originals = programs.with_file_name("originals");
    fs::create_dir_all(&originals).context("making a folder for the programs")?;
    let relative = |path: &Path| -> Result<String> {
        let path = path.strip_prefix(prefix).context("a library outside of the prefix")?;
        Ok(format!("$prefix/{}", path.display()))
    };
    let libraries: Result<Vec<String>> = libraries.iter().map(|dir| relative(dir)).collect();
    let (loader, libraries) = (relative(&loader)?, libraries?.join(":"));
    for entry in fs::read_dir(programs).context("listing the programs")? {
        let path = entry.context("listing the programs")?.path();
        let name = path.file_name().context("a program without a name")?;
        let is_file = fs::symlink_metadata(&path).is_ok_and(|about| about.is_file());
        if !is_file || !fs::read(&path).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF")) {
            continue;
        }
        let original = originals.join(name);
        if !original.exists() {
            fs::hard_link(&path, &original)
                .with_context(|| format!("linking {}", path.display()))?;
        }
        let script = format!(
            "#!/bin/sh\nprefix=${{0%/{INSTALLED}/*}}\n\
             exec \"{loader}\" --library-path \"{libraries}\" --argv0 \"$0\" \"{}\" \"$@\"\n",
            relative(&original)?
        );
        // in one step: what an interruption leaves is either the program or the script
        let new = originals.join(".new");
        fs::write(&new, script).with_context(|| format!("writing {}", new.display()))?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("allowing to run {}", path.display()))?;
        fs::rename(&new, &path).with_context(|| format!("replacing {}", path.display()))?;
    }
    Ok(())
}

/// The words that come before a program's own: another account where we are root, and the
/// libraries that lie beside the program.
fn under_account(programs: &Path) -> Result<Vec<OsString>> {
    let mut words: Vec<OsString> = Vec::new();
    if apt::is_root()? {
        words.push("setpriv".into());
        for option in ["--reuid", "--regid"] {
            words.push(format!("{option}={NOBODY}").into());
        }
        words.push("--clear-groups".into());
        if !open_to_all(programs) {
            // for example below /root: the account may pass there and read, as we may
            words.push("--inh-caps=+dac_read_search".into());
            words.push("--ambient-caps=+dac_read_search".into());
        }
        words.push("--".into());
    }
    let mut libraries = OsString::from("LD_LIBRARY_PATH=");
    words.push("env".into());
    match programs.parent().map(|base| base.join("lib")) {
        // npm's package; the scripts of the unpacked suites name theirs to their loader
        Some(dir) if dir.join("postgresql").is_dir() => {
            libraries.push(dir);
            words.push(libraries);
        }
        _ => words.extend(["-u".into(), "LD_LIBRARY_PATH".into()]),
    }
    Ok(words)
}

/// Whether any account may pass every folder on the way to `dir`.
fn open_to_all(dir: &Path) -> bool {
    dir.ancestors().all(|folder| {
        fs::metadata(folder).is_ok_and(|about| about.permissions().mode() & 0o001 != 0)
    })
}

/// Gives a folder or file to the account that the server runs under.
fn hand_over(path: &Path) -> Result<()> {
    if apt::is_root()? {
        let owner = Some(NOBODY);
        chown(path, owner, owner).with_context(|| format!("handing over {}", path.display()))?;
    }
    Ok(())
}

/// Makes the data directory `template`, which is there and empty: UTF-8, bytewise order, everybody
/// trusted, the superuser called `postgres`.
pub(super) fn init(programs: &Path, template: &Path) -> Result<()> {
    hand_over(template)?;
    let mut words = under_account(programs)?;
    words.push(programs.join("initdb").into());
    for option in ["--auth=trust", "--username=postgres", "--locale=C.UTF-8", "--encoding=UTF8"] {
        words.push(option.into());
    }
    words.extend(["--no-sync".into(), "--pgdata".into(), template.into()]);
    let (program, arguments) = words.split_first().context("an empty command")?;
    // somewhere the account may be: it would complain about ours
    apt::run(Command::new(program).args(arguments).current_dir("/"))
}

/// The whole command line of a running server.
pub(super) fn command_line(
    programs: &Path,
    spec: &ServerSpec,
    place: &Place<'_>,
) -> Result<Vec<OsString>> {
    ensure!(place.replica == place.follows.is_some(), "a replica follows a primary from its start");
    let mut words = under_account(programs)?;
    words.extend([programs.join("postgres").into(), "-D".into(), place.data_dir.into()]);
    let fsync = if spec.durable { "on" } else { "off" };
    let mut options: Vec<String> = [
        "listen_addresses=127.0.0.1",
        // relative to the data directory: a socket's path may not pass 107 characters
        "unix_socket_directories=.",
        "max_connections=300",
        "wal_level=logical",
        "max_wal_senders=20",
        "max_replication_slots=20",
        "max_prepared_transactions=20",
        "track_commit_timestamp=on",
        "wal_retrieve_retry_interval=200ms",
        "log_line_prefix=%m [%p] %q%u@%d ",
    ]
    .map(str::to_owned)
    .to_vec();
    options.extend([format!("port={}", place.port), format!("fsync={fsync}")]);
    options.extend(spec.options.iter().cloned());
    for option in options {
        words.extend(["-c".into(), option.into()]);
    }
    Ok(words)
}

/// The name of the slot on the primary that keeps what the replica has not received yet.
pub(super) const SLOT: &str = "replica";

/// How a replica names its primary; the setting of the same name, which may be changed while it
/// runs.
pub(super) fn primary_conninfo(port: u16) -> String {
    format!("host=127.0.0.1 port={port} user=postgres application_name=replica")
}

/// Turns the copied template into a replica of the server at `port`: both come from one template,
/// so the primary's log begins where this directory ends.
pub(super) fn follow(data_dir: &Path, port: u16) -> Result<()> {
    let settings =
        format!("primary_conninfo = '{}'\nprimary_slot_name = '{SLOT}'\n", primary_conninfo(port));
    // not on the command line: there it could not be changed while the server runs
    for (name, content) in [("standby.signal", ""), ("postgresql.auto.conf", settings.as_str())] {
        let path = data_dir.join(name);
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        hand_over(&path)?;
    }
    Ok(())
}
