//! Servers out of a package of npm: one that no suite of the distribution carries any more.
//!
//! Owns the talk with npm. The registry is the one that npm's own configuration names. Does not
//! know what a server is.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{apt, paths};

/// A package of programs, to be unpacked apart from the host.
pub(super) struct Package {
    /// Directory name under `target/servers`.
    pub(super) prefix: &'static str,
    /// The package's name without the processor's.
    pub(super) name: &'static str,
    /// The exact version: a range would leave out what npm takes for a pre-release.
    pub(super) version: &'static str,
    /// The folder of the package that holds the programs.
    pub(super) folder: &'static str,
    /// A list of `{source, target}` beside them: npm carries no symbolic links.
    pub(super) links: &'static str,
}

/// Makes sure the package is unpacked; returns the prefix. The caller holds the install lock.
pub(super) fn unpacked(package: &Package) -> Result<PathBuf> {
    let prefix = paths::servers_dir()?.join(package.prefix);
    let wanted = format!("{}@{}", package.full_name()?, package.version);
    let stamp = prefix.join(".unpacked");
    if fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(prefix);
    }
    ensure!(
        apt::which("npm").is_some(),
        "npm is missing, and only npm has this server: install it (apt-get install npm), or name \
         a server by UNDERPIN_TEST_<NAME>_URL, or leave it out by UNDERPIN_TEST_SERVERS"
    );
    eprintln!("fetching {wanted} into {}", prefix.display());
    let partial = prefix.with_extension("partial");
    for stale in [&prefix, &partial] {
        if stale.exists() {
            fs::remove_dir_all(stale).with_context(|| format!("clearing {}", stale.display()))?;
        }
    }
    fs::create_dir_all(&partial).with_context(|| format!("making {}", partial.display()))?;
    apt::run(Command::new("npm").args(["pack", "--silent", &wanted]).current_dir(&partial))?;
    let archive = downloaded(&partial)?;
    let mut unpack = Command::new("tar");
    unpack.arg("--extract").arg("--gzip").arg("--file").arg(&archive);
    // root would otherwise give the files to whoever packed them
    unpack.arg("--no-same-owner").arg("--directory").arg(&partial);
    apt::run(&mut unpack)?;
    fs::remove_file(&archive).context("clearing the downloaded package")?;
    let content = partial.join("package").join(package.folder);
    link(&partial.join("package"), &content.join(package.links))?;
    fs::write(content.join(".unpacked"), &wanted).context("marking the prefix complete")?;
    fs::rename(&content, &prefix).with_context(|| format!("naming {}", prefix.display()))?;
    fs::remove_dir_all(&partial).context("clearing the rest of the package")?;
    Ok(prefix)
}

impl Package {
    fn full_name(&self) -> Result<String> {
        let processor = match std::env::consts::ARCH {
            "x86_64" => "x64",
            "aarch64" => "arm64",
            other => bail!("there is no package of this server for {other}"),
        };
        Ok(format!("{}-{processor}", self.name))
    }
}

fn downloaded(dir: &Path) -> Result<PathBuf> {
    for entry in fs::read_dir(dir).context("listing the downloaded package")? {
        let path = entry.context("listing the downloaded package")?.path();
        if path.extension().is_some_and(|extension| extension == "tgz") {
            return Ok(path);
        }
    }
    bail!("npm left no package in {}", dir.display())
}

/// Makes the links that `list` names, by paths relative to `root`.
fn link(root: &Path, list: &Path) -> Result<()> {
    let text = fs::read_to_string(list).with_context(|| format!("reading {}", list.display()))?;
    let links: Vec<Value> = serde_json::from_str(&text).context("reading the list of links")?;
    for entry in links {
        let path = |field: &str| entry.get(field).and_then(Value::as_str).map(Path::new);
        let (Some(source), Some(target)) = (path("source"), path("target")) else {
            bail!("a link without source or target: {entry}");
        };
        ensure!(source.parent() == target.parent(), "a link to another folder: {entry}");
        let name = source.file_name().context("a link to nothing")?;
        symlink(name, root.join(target)).with_context(|| format!("linking {entry}"))?;
    }
    Ok(())
}
