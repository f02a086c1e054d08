//! `cargo xtask test`: every check there is, one after the other, and one line that sums it up.
//!
//! Owns which checks make up a full run. A check that fails does not hide the next one.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::programs::cargo;

/// Counts over all test programs that ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
}

/// Runs all checks; `fast` leaves out what needs a server.
pub(crate) fn all(fast: bool) -> Result<ExitCode> {
    let started = Instant::now();
    let mut broken = Vec::new();
    let mut counts = Counts::default();
    let lints: &[&str] = &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    for (name, words) in [("formatting", &["fmt", "--all", "--check"][..]), ("lints", lints)] {
        step(name);
        if !cargo().args(words).status().with_context(|| format!("starting {name}"))?.success() {
            broken.push(name);
        }
    }
    step("build of the tests");
    // before the servers start, so that they do not idle while the compiler takes both cores
    let build = cargo().args(["test", "--workspace", "--no-run"]).status();
    if !build.context("starting the build")?.success() {
        broken.push("build of the tests");
    } else if !tests(fast, &mut counts)? {
        broken.push("tests");
    }
    if !fast {
        step("nothing left running");
        let mut check = lab();
        if !check.arg("check-clean").status().context("starting underpin-lab")?.success() {
            broken.push("nothing left running");
        }
    }
    let seconds = started.elapsed().as_secs();
    for name in &broken {
        println!("FAILED: {name}");
    }
    println!("wall time {} min {} s", seconds / 60, seconds % 60);
    println!("{} passed, {} failed", counts.passed, counts.failed);
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// All tests of all packages; the servers of the matrix are started once around them.
fn tests(fast: bool, counts: &mut Counts) -> Result<bool> {
    step("tests");
    let words = ["test", "--workspace", "--no-fail-fast"];
    if fast {
        return counted(cargo().args(words).env("UNDERPIN_TEST_SERVERS", "none"), counts);
    }
    let cargo = cargo();
    let mut run = lab();
    run.args(["with-servers", "--"]).arg(cargo.get_program()).args(words);
    counted(&mut run, counts)
}

/// The lab as the tests' own profile builds it: no second build for it.
fn lab() -> Command {
    let mut lab = cargo();
    lab.args(["run", "--quiet", "-p", "underpin-tests", "--bin", "underpin-lab", "--"]);
    lab
}

/// Shows the output as it comes and adds up its `test result:` lines.
fn counted(command: &mut Command, counts: &mut Counts) -> Result<bool> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("starting the tests")?;
    let output = child.stdout.take().context("the tests have no output")?;
    for line in BufReader::new(output).split(b'\n') {
        let bytes = line.context("reading the tests' output")?;
        let line = String::from_utf8_lossy(&bytes);
        println!("{line}");
        if let Some(more) = parse_result(&line) {
            counts.passed += more.passed;
            counts.failed += more.failed;
        }
    }
    Ok(child.wait().context("waiting for the tests")?.success())
}

/// Reads `test result: ok. 12 passed; 0 failed; …`.
fn parse_result(line: &str) -> Option<Counts> {
    let rest = line.trim().strip_prefix("test result:")?;
    let before = |word: &str| -> Option<u64> {
        let (head, _) = rest.split_once(word)?;
        head.split_whitespace().last()?.parse().ok()
    };
    Some(Counts { passed: before(" passed")?, failed: before(" failed")? })
}

fn step(name: &str) {
    println!("── {name}");
}

#[cfg(test)]
mod tests {
    use super::{Counts, parse_result};

    #[test]
    fn adds_up_only_result_lines() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered";
        assert_eq!(parse_result(line), Some(Counts { passed: 12, failed: 3 }));
        assert_eq!(parse_result("test a_test ... ok"), None);
        assert_eq!(parse_result("test result: none"), None);
    }
}
