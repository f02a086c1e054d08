//! The programs that cargo builds from the tests: found, and run two at a time.
//!
//! Owns which there are and how their output and counts are gathered. Cargo itself runs one after the
//! other, though most of them wait for a server most of the time. Those that share MySQL's and
//! MariaDB's servers go one after the other, because some change those servers' settings for a while;
//! beside them go those of PostgreSQL.

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::programs::cargo;

/// How the names of those begin that need nothing but PostgreSQL's servers.
const POSTGRES: &str = "postgres_";
/// What parts a program's folder from its path in the words that [`run`] gets.
const MARK: char = '|';

/// Builds the tests of all packages; one word for each program, as [`run`] wants them.
///
/// # Errors
/// When they do not compile, or cargo's answer is not understood.
pub(crate) fn build() -> Result<Vec<String>> {
    let mut build = cargo();
    build.args(["test", "--workspace", "--no-run", "--message-format", "json-render-diagnostics"]);
    let output = build.stderr(Stdio::inherit()).output().context("starting cargo test")?;
    ensure!(output.status.success(), "building the tests ended with {}", output.status);
    let text = String::from_utf8(output.stdout).context("cargo's answer is no text")?;
    let mut programs = Vec::new();
    for line in text.lines() {
        let message: Value = serde_json::from_str(line).context("reading cargo's answer")?;
        programs.extend(program_of(&message));
    }
    ensure!(!programs.is_empty(), "cargo named no test program");
    Ok(programs)
}

/// The word for the test program that this message of cargo's tells of, if it tells of one.
fn program_of(message: &Value) -> Option<String> {
    let is_test = message["profile"]["test"].as_bool()?;
    let executable = message["executable"].as_str()?;
    let folder = PathBuf::from(message["manifest_path"].as_str()?);
    is_test.then(|| format!("{}{MARK}{executable}", folder.parent().unwrap_or(&folder).display()))
}

/// Runs them in two lanes, and prints what each said when it has ended.
pub(crate) fn run(words: &[String]) -> ExitCode {
    let (mut postgres, mut others): (Vec<_>, Vec<_>) =
        words.iter().partition(|word| name(word).starts_with(POSTGRES));
    postgres.sort_by_key(|word| name(word));
    others.sort_by_key(|word| name(word));
    let good = thread::scope(|scope| {
        let lane = |words: Vec<&String>| {
            // one that fails does not hide the next
            words.into_iter().filter(|word| !run_one(word)).count() == 0
        };
        let beside = scope.spawn(move || lane(postgres));
        lane(others) & beside.join().unwrap_or(false)
    });
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The program's own name, as cargo made it from that of the test.
fn name(word: &str) -> &str {
    word.rsplit(['/', '\\', MARK]).next().unwrap_or(word)
}

/// Runs one program in its package's folder, as cargo does; whether it was good.
fn run_one(word: &str) -> bool {
    let (folder, path) = word.split_once(MARK).unwrap_or((".", word));
    let name = name(word);
    let started = Instant::now();
    // standard error goes straight through: it tells of what happens while it happens
    let output = Command::new(path).current_dir(folder).stderr(Stdio::inherit()).output();
    let seconds = started.elapsed().as_secs();
    match output {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            // a program that crashed leaves no line with counts
            let crashed = !output.status.success() && !said.contains("test result:");
            let line = if crashed { "test result: FAILED. 0 passed; 1 failed\n" } else { "" };
            println!("   {name} ({seconds} s, {})\n{said}{line}", output.status);
            output.status.success()
        }
        Err(error) => {
            println!("   {name}: {error}\ntest result: FAILED. 0 passed; 1 failed");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{name, program_of};

    #[test]
    fn takes_test_programs_and_nothing_else() {
        let mut message = json!({
            "reason": "compiler-artifact", "manifest_path": "/a/tests/Cargo.toml",
            "profile": {"test": true}, "executable": "/a/target/debug/deps/x-1"
        });
        assert_eq!(program_of(&message).as_deref(), Some("/a/tests|/a/target/debug/deps/x-1"));
        assert_eq!(name("/a/tests|/a/target/debug/deps/x-1"), "x-1");
        message["profile"]["test"] = json!(false);
        assert_eq!(program_of(&message), None);
        assert_eq!(program_of(&json!({"reason": "build-finished", "success": true})), None);
    }
}
