//! A disk of a few megabytes: a file system in memory, mounted for one test.
//!
//! Takes root, or `sudo` that asks for no password.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A small file system. Unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    place: PathBuf,
    /// Holds the directory that it is mounted on.
    _dir: tempfile::TempDir,
}

impl SmallDisk {
    /// Mounts one of so many megabytes, to which everybody may write.
    ///
    /// # Errors
    /// When this account may not mount.
    pub fn mount(megabytes: u32) -> Result<Self> {
        // short and open to all, as a server needs it that runs under another account
        let dir = tempfile::Builder::new()
            .prefix("underpin-disk-")
            .tempdir_in("/tmp")
            .context("making a directory")?;
        let mut open = Command::new("chmod");
        run(open.arg("755").arg(dir.path()))?;
        let place = dir.path().join("disk");
        std::fs::create_dir(&place).context("making the place to mount on")?;
        let options = format!("size={megabytes}m,mode=0777");
        privileged("mount", |mount| {
            mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&place);
        })?;
        Ok(Self { place, _dir: dir })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.place
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = privileged("umount", |umount| {
            umount.arg("--lazy").arg(&self.place);
        });
        if let Err(error) = unmounted {
            eprintln!("{} stays mounted: {error:#}", self.place.display());
        }
    }
}

/// Runs the program as root: as ourselves first, then by `sudo`.
fn privileged(program: &str, with: impl Fn(&mut Command)) -> Result<()> {
    let mut plain = Command::new(program);
    with(&mut plain);
    let refused = match run(&mut plain) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    let mut sudo = Command::new("sudo");
    sudo.args(["-n", program]);
    with(&mut sudo);
    run(&mut sudo).with_context(|| format!("{refused:#}; nor by sudo"))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", said.trim());
    Ok(())
}
