//! The programs that cargo builds from the tests: found, and run two at a time.
//!
//! Owns which there are and how their output and counts are gathered. Cargo itself runs one after the
//! other, though most of them wait for a server most of the time. Those that share MySQL's and
//! MariaDB's servers go one after the other, because some change those servers' settings for a while;
//! beside them go those of PostgreSQL and those without a server. What waited too long is played again at
//! the end, when nothing is beside it.

use std::cmp::min;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::programs::{built, cargo};
use crate::{again, bounded};

/// The longest that one program may take; on a machine at rest the slowest takes a fifth of it.
const PROGRAM_TIME_MAX: Duration = Duration::from_secs(1_500);
/// The longest that all may take; who would begin later counts as failed.
const ALL_TIME_MAX: Duration = Duration::from_secs(3_900);
/// What stands for the counts of a program that left none.
const ONE_FAILED: &str = "test result: FAILED. 0 passed; 1 failed\n";
/// How the names of those begin that need MySQL's and MariaDB's servers.
const MYSQL: [&str; 4] = ["mysql_", "hostile_names", "hours_gates", "underpin_tests"];
/// Parts of the names of those that measure time: they wait more than they work, and come first, in both
/// lanes, so that none of the others is beside them.
const MEASURING: [&str; 4] = ["_hours-", "_signals-", "_locks-", "_revert-"];
/// What parts a program's folder from its path in the words that [`run`] gets.
const MARK: char = '|';

/// Builds the programs that the tests call: none of them builds anything while servers run.
///
/// # Errors
/// When they do not compile.
pub(crate) fn build_bins() -> Result<()> {
    let status = cargo().args(["build", "--workspace", "--bins"]).status();
    let status = status.context("starting cargo build")?;
    ensure!(status.success(), "building the programs ended with {status}");
    Ok(())
}

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
    let (measuring, others): (Vec<_>, Vec<_>) = words.iter().partition(|word| measures(word));
    let until = Instant::now() + ALL_TIME_MAX;
    // both, also where the first was not good
    let mut failed = in_two_lanes(measuring, until);
    failed.append(&mut in_two_lanes(others, until));
    // now nothing is beside them
    let bad: Vec<String> =
        failed.into_iter().filter_map(|failed| second_time(failed, until).err()).collect();
    for line in &bad {
        println!("NOT GOOD: {line}");
    }
    if bad.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn measures(word: &str) -> bool {
    MEASURING.iter().any(|part| name(word).contains(part))
}

/// A program that was not good.
#[derive(Debug, Default)]
struct Failed {
    /// Which, how it ended, and which tests had not ended by then.
    line: String,
    /// The program's word and those of its tests that may be played again.
    again: Option<(String, Vec<String>)>,
}

/// Plays what failed a second time, if it may be.
///
/// # Errors
/// In a line, what was not good.
fn second_time(failed: Failed, until: Instant) -> Result<(), String> {
    let Some((word, tests)) = failed.again else { return Err(failed.line) };
    let (folder, path) = word.split_once(MARK).unwrap_or((".", &word));
    let mut program = Command::new(path);
    program.current_dir(folder).env("UNDERPIN_BIN", built("underpin"));
    again::play(&mut program, Path::new(path), &tests, time_left(until))
}

/// The longest that the next program may take.
fn time_left(until: Instant) -> Duration {
    min(PROGRAM_TIME_MAX, until.saturating_duration_since(Instant::now()))
}

/// Runs these, and tells of each that was not good. One that fails does not hide the next.
fn in_two_lanes(words: Vec<&String>, until: Instant) -> Vec<Failed> {
    let product = built("underpin");
    let (mut mysql, mut others): (Vec<_>, Vec<_>) =
        words.into_iter().partition(|word| MYSQL.iter().any(|one| name(word).starts_with(one)));
    mysql.sort_by_key(|word| name(word));
    others.sort_by_key(|word| name(word));
    thread::scope(|scope| {
        let lane = |words: Vec<&String>| -> Vec<Failed> {
            words.into_iter().filter_map(|word| run_one(word, &product, until).err()).collect()
        };
        let beside = scope.spawn(move || lane(others));
        let mut bad = lane(mysql);
        let broken = || vec![Failed { line: "a lane broke off".to_owned(), again: None }];
        bad.extend(beside.join().unwrap_or_else(|_| broken()));
        bad
    })
}

/// The program's own name, as cargo made it from that of the test.
fn name(word: &str) -> &str {
    word.rsplit(['/', '\\', MARK]).next().unwrap_or(word)
}

/// Runs one program in its package's folder, as cargo does.
///
/// # Errors
/// What was not good.
fn run_one(word: &str, product: &Path, until: Instant) -> Result<(), Failed> {
    let (folder, path) = word.split_once(MARK).unwrap_or((".", word));
    let mut program = Command::new(path);
    program.current_dir(folder).env("UNDERPIN_BIN", product);
    let ran = match bounded::run(&mut program, time_left(until)) {
        Ok(ran) => ran,
        Err(error) => {
            println!("   {}: {error:#}\n{ONE_FAILED}", name(word));
            return Err(Failed { line: format!("{}: {error:#}", name(word)), again: None });
        }
    };
    let good = ran.status.is_some_and(|status| status.success());
    let end = ran
        .status
        .map_or_else(|| "stopped: it ran too long".to_owned(), |status| status.to_string());
    // a program that crashed or was stopped leaves no line with counts
    let line = if !good && !ran.said.contains("test result:") { ONE_FAILED } else { "" };
    println!("   {} ({} s, {end})\n{}{line}", name(word), ran.seconds, ran.said);
    if good {
        return Ok(());
    }
    let at_work = unfinished(&ran.said);
    let at_work = if at_work.is_empty() {
        String::new()
    } else {
        format!("; at work: {}", at_work.join(", "))
    };
    let again = again::worth_it(&ran.said).map(|tests| (word.to_owned(), tests));
    Err(Failed { line: format!("{} ({} s, {end}){at_work}", name(word), ran.seconds), again })
}

/// The tests that had run for long and had not ended.
fn unfinished(said: &str) -> Vec<&str> {
    let long = said.lines().filter_map(|line| {
        line.strip_prefix("test ")?.strip_suffix(" has been running for over 60 seconds")
    });
    long.filter(|test| !said.contains(&format!("test {test} ... "))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{name, program_of, unfinished};

    #[test]
    fn tells_which_tests_had_not_ended() {
        let said = "test a has been running for over 60 seconds\ntest b has been running for over 60 \
                    seconds\ntest b ... ok\ntest c ... ok\n";
        assert_eq!(unfinished(said), ["a"]);
    }

    #[test]
    fn takes_test_programs_and_nothing_else() {
        let mut message = json!({
            "reason": "compiler-artifact", "manifest_path": "/a/tests/Cargo.toml",
            "profile": {"test": true}, "executable": "/a/target/debug/deps/x-1"
        });
        assert_eq!(program_of(&message).as_deref(), Some("/a/tests|/a/target/debug/deps/x-1"));
        assert_eq!(name("/a/tests|/a/target/debug/deps/x-1"), "x-1");
        assert!(
            super::measures("/a/tests|/a/deps/mysql_locks-1f") && !super::measures("/a|/a/x-1")
        );
        message["profile"]["test"] = json!(false);
        assert_eq!(program_of(&message), None);
        assert_eq!(program_of(&json!({"reason": "build-finished", "success": true})), None);
    }
}
