//! Where the harness keeps things: everything under `target/servers`, nothing elsewhere.
//!
//! Owns the directories and the lock that keeps parallel test processes from installing twice.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// `target/servers`: unpacked servers, initialised data directories, running servers' data.
///
/// # Errors
/// When the directory cannot be made.
pub fn servers_dir() -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    let dir = target.join("servers");
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    fs::canonicalize(&dir).with_context(|| format!("resolving {}", dir.display()))
}

/// The directory whose children are the data directories of running servers.
pub(super) fn run_dir() -> Result<PathBuf> {
    let dir = servers_dir()?.join("run");
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    Ok(dir)
}

/// Data directories that stand now: each belongs to a running server, or was left behind by one.
///
/// # Errors
/// When the directory cannot be read.
pub fn leftovers() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(run_dir()?).context("listing running servers")? {
        found.push(entry.context("listing running servers")?.path());
    }
    found.sort();
    Ok(found)
}

/// Holds `target/servers/NAME.lock` until the value is dropped; waits for other processes.
///
/// The wait has no bound of its own: the holder is a process on this machine, and the system
/// releases the lock when it ends, however it ends.
pub(super) fn lock(name: &str) -> Result<File> {
    let path = servers_dir()?.join(format!("{name}.lock"));
    let file = File::create(&path).with_context(|| format!("opening {}", path.display()))?;
    file.lock().with_context(|| format!("locking {}", path.display()))?;
    Ok(file)
}
