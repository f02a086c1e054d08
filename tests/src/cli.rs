//! Calling the built `underpin` from a test, as a user does at a shell.
//!
//! Owns finding the program beside the running test (building it first, since cargo builds no other
//! package's programs for a test) and what one call left behind. Starting it is `product`'s.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use crate::product::{Ended, Product};

/// The longest that a call may take: far more than any test needs, far less than its program may take.
const CALL_MAX: Duration = Duration::from_secs(400);

/// One call, ended.
#[derive(Clone, Debug)]
pub struct Called {
    /// Exit code, times, standard error.
    pub ended: Ended,
    /// Every event, in order.
    pub events: Vec<Value>,
}

impl Called {
    /// The exit code; -1 when a signal ended it.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.ended.code.unwrap_or(-1)
    }

    /// The first event of this name.
    #[must_use]
    pub fn event(&self, name: &str) -> Option<&Value> {
        self.events.iter().find(|event| event["event"] == name)
    }

    /// Everything that it said about what went wrong: error events and standard error.
    #[must_use]
    pub fn complaint(&self) -> String {
        let mut words: Vec<&str> = self
            .events
            .iter()
            .filter(|event| event["event"] == "error")
            .filter_map(|event| event["message"].as_str())
            .collect();
        words.push(&self.ended.stderr);
        words.join("\n")
    }

    /// The findings of the plan, as `code: message -> remedy`.
    #[must_use]
    pub fn findings(&self) -> Vec<String> {
        let list = self.event("plan").and_then(|plan| plan["findings"].as_array());
        list.into_iter()
            .flatten()
            .map(|finding| {
                let word = |field: &str| finding[field].as_str().unwrap_or_default();
                format!("{}: {} -> {}", word("code"), word("message"), word("remedy"))
            })
            .collect()
    }
}

/// Calls `underpin WORDS --output json` and waits for its end.
///
/// # Errors
/// When it cannot be built or started.
pub fn call(words: &[&str]) -> Result<Called> {
    call_watching(words, |_| {})
}

/// The same, each event shown to `on_event` as it comes.
///
/// # Errors
/// As [`call`].
pub fn call_watching(words: &[&str], mut on_event: impl FnMut(&Value)) -> Result<Called> {
    let mut events = Vec::new();
    let product = Product::at(program()?.to_owned())?.limited(CALL_MAX);
    let ended = product.call(words, |event| {
        on_event(event);
        events.push(event.clone());
    })?;
    Ok(Called { ended, events })
}

/// The program that `UNDERPIN_BIN` names, else the one beside this program, else the one of this profile,
/// built once for this process.
///
/// # Errors
/// When cargo cannot build it.
pub fn program() -> Result<&'static Path> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = PROGRAM.get_or_init(|| match std::env::var_os("UNDERPIN_BIN") {
        Some(path) => Ok(PathBuf::from(path)),
        None if beside().is_file() => Ok(beside()),
        None => build().map_err(|error| format!("{error:#}")),
    });
    found.as_deref().map_err(|error| anyhow!("{error}"))
}

/// Where the program is beside the lab; no test has it there.
fn beside() -> PathBuf {
    std::env::current_exe().unwrap_or_default().with_file_name("underpin")
}

fn build() -> Result<PathBuf> {
    let myself = std::env::current_exe().context("finding myself")?;
    // target/<profile>/deps/<test>
    let profile_dir = myself.parent().and_then(Path::parent).context("finding the target")?;
    let target_dir = profile_dir.parent().context("finding the target")?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", "underpin"]).arg("--target-dir").arg(target_dir);
    // what cargo told us about this package would make a nested cargo compile anew
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    if profile_dir.file_name().is_some_and(|name| name == "release") {
        cargo.arg("--release");
    }
    let output = cargo.output().context("starting cargo")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "building underpin: {said}");
    Ok(profile_dir.join("underpin"))
}
