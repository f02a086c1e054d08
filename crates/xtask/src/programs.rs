//! Calls to the workspace's own programs, built in release as they are called.
//!
//! Owns how they are built and found. What they do is theirs.

use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context, Result, ensure};

/// A command of the same cargo that runs this program.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // what cargo told us about this package: build scripts watch it, and would run anew (and all
    // that depends on them be compiled anew) each time the same command is typed another way
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    // what is built once gains nothing by being built in pieces
    if std::env::var_os("CI").is_some() {
        cargo.env("CARGO_INCREMENTAL", "0");
    }
    cargo
}

/// `underpin-lab WORDS`.
pub(crate) fn lab(words: &[String]) -> Result<ExitCode> {
    forward(&["-p", "underpin-tests", "--bin", "underpin-lab"], words)
}

/// `underpin-lab WORDS` with the product's path in `UNDERPIN_BIN`, both freshly built.
pub(crate) fn lab_with_product(words: &[String]) -> Result<ExitCode> {
    let mut build = cargo();
    build.args(["build", "--release", "-p", "underpin", "-p", "underpin-tests"]);
    let status = build.status().context("starting cargo build")?;
    ensure!(status.success(), "building the release programs ended with {status}");
    let release = target_dir().join("release");
    let mut lab = Command::new(release.join("underpin-lab"));
    lab.args(words).env("UNDERPIN_BIN", release.join("underpin"));
    Ok(code(lab.status().context("starting underpin-lab")?))
}

/// `underpin-lab WORDS` with the product as tests have it: a release has no fail points.
pub(crate) fn walk(words: &[String]) -> Result<ExitCode> {
    let mut build = cargo();
    // all of the workspace: with another selection cargo would build every dependency anew
    build.args(["build", "--quiet", "--workspace", "--bins"]);
    let status = build.status().context("starting cargo build")?;
    ensure!(status.success(), "building the programs ended with {status}");
    let mut lab = Command::new(built("underpin-lab"));
    lab.args(words).env("UNDERPIN_BIN", built("underpin"));
    Ok(code(lab.status().context("starting underpin-lab")?))
}

/// `underpin-sim WORDS`; a single seed is replayed with its log.
pub(crate) fn sim(words: &[String]) -> Result<ExitCode> {
    let mut words = words.to_vec();
    if words.iter().any(|word| word == "--seed") && !words.iter().any(|word| word == "--log") {
        words.push("--log".to_owned());
    }
    forward(&["-p", "underpin-sim", "--bin", "underpin-sim"], &words)
}

fn forward(which: &[&str], words: &[String]) -> Result<ExitCode> {
    let mut run = cargo();
    run.args(["run", "--quiet", "--release"]).args(which).arg("--").args(words);
    Ok(code(run.status().context("starting cargo run")?))
}

/// The program of this name as the tests' own profile builds it.
pub(crate) fn built(name: &str) -> PathBuf {
    target_dir().join("debug").join(name)
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target"),
        PathBuf::from,
    );
    // the tests have other working folders
    std::path::absolute(&target).unwrap_or(target)
}

/// The exit code to hand on; an end by a signal counts as a failure.
pub(crate) fn code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    ExitCode::from(code.unwrap_or(1))
}
