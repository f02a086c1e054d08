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

/// Data directories and processes of servers whose owner is gone. Normally none: the supervisor
/// ends them. Where it was itself killed, or the machine lost power, they show here.
///
/// # Errors
/// When the directories or processes cannot be listed.
pub fn leftovers() -> Result<Vec<String>> {
    let run_dir = run_dir()?;
    let mut found = Vec::new();
    for entry in fs::read_dir(&run_dir).context("listing running servers")? {
        let dir = entry.context("listing running servers")?.path();
        if is_orphan(&dir) {
            found.push(format!("data directory {}", dir.display()));
        }
    }
    let marker = format!("{}/", run_dir.display());
    for entry in fs::read_dir("/proc").context("listing processes")?.flatten() {
        // a process may end while we look: that is no error
        let Ok(bytes) = fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&bytes);
        let words: Vec<&str> = line.split('\0').collect();
        let server = words.iter().find_map(|word| {
            // PostgreSQL has it as a word of its own
            word.strip_prefix("--datadir=").unwrap_or(word).strip_prefix(marker.as_str())
        });
        if let Some(name) = server.and_then(|rest| rest.split('/').next())
            && is_orphan(&run_dir.join(name))
        {
            let pid = entry.file_name();
            found.push(format!("process {} of {name}", pid.display()));
        }
    }
    found.sort();
    Ok(found)
}

/// Whether the process that made `NAME-PID-NUMBER` has ended.
fn is_orphan(dir: &Path) -> bool {
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let owner = name.rsplit('-').nth(1).and_then(|pid| pid.parse::<u32>().ok());
    owner.is_none_or(|pid| !Path::new(&format!("/proc/{pid}")).exists())
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
