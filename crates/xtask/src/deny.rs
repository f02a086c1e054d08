//! `cargo xtask deny`: licences, bans and sources of all dependencies by cargo-deny.
//!
//! Owns where that program is: on the path, or installed once below `target`. What is allowed stands in
//! `.deny.toml`.

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};

use crate::programs::{cargo, code, target_dir};

/// What is checked: advisories are not, since they need a database that is fetched.
const CHECKS: [&str; 3] = ["licenses", "bans", "sources"];

/// The check itself, where the program is installed.
pub(crate) fn check() -> Option<Command> {
    let program = installed()?;
    let mut check = Command::new(program);
    check.args(["--config", ".deny.toml", "--offline", "check"]).args(CHECKS);
    Some(check)
}

/// Installs the program if need be, which takes some minutes, and checks; `words` name other checks.
pub(crate) fn run(words: &[String]) -> Result<ExitCode> {
    if installed().is_none() {
        let mut install = cargo();
        install.args(["install", "cargo-deny", "--locked", "--root"]).arg(tools());
        let status = install.status().context("starting cargo install")?;
        ensure!(status.success(), "installing cargo-deny ended with {status}");
    }
    let program = installed().context("cargo-deny was installed and is not there")?;
    let mut check = Command::new(program);
    check.args(["--config", ".deny.toml", "check"]);
    if words.is_empty() {
        check.args(CHECKS);
    } else {
        check.args(words);
    }
    Ok(code(check.status().context("starting cargo-deny")?))
}

fn tools() -> PathBuf {
    target_dir().join("tools")
}

/// The program below `target`, else the one on the path.
fn installed() -> Option<PathBuf> {
    let own = tools().join("bin").join("cargo-deny");
    let answers = |program: &PathBuf| {
        let mut ask = Command::new(program);
        ask.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        ask.status().is_ok_and(|status| status.success())
    };
    [own, PathBuf::from("cargo-deny")].into_iter().find(answers)
}
