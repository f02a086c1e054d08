//! `cargo xtask test`: every check there is, one after the other, and one line that sums it up.
//!
//! Owns which checks make up a full run. A check that fails does not hide the next one.

use std::cmp::min;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::again;
use crate::deny;
use crate::programs::{built, cargo};
use crate::test_programs;

/// Counts over all test programs that ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
}

/// Runs all checks; `fast` leaves out what needs a server.
pub(crate) fn all(fast: bool) -> Result<ExitCode> {
    let mut sum = Sum::begin();
    sum.check("formatting", cargo().args(["fmt", "--all", "--check"]));
    let lints = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    sum.check("lints", cargo().args(lints));
    // licences and sources are a test as well, which needs nothing installed
    if let Some(mut check) = deny::check() {
        sum.check("dependencies", &mut check);
    }
    sum.step("build of the tests");
    // before the servers start, so that they do not idle while the compiler takes both cores
    match built_tests(fast) {
        Ok(programs) => tests(fast, &programs, &mut sum)?,
        Err(error) => {
            println!("{error:#}");
            sum.fail("build of the tests");
        }
    }
    sum.check("examples in the documentation", cargo().args(["test", "--workspace", "--doc"]));
    if !fast {
        sum.check("nothing left running", lab().arg("check-clean"));
    }
    for name in &sum.broken {
        println!("FAILED: {name}");
    }
    println!("wall time {}", sum.clock());
    println!("{} passed, {} failed", sum.counts.passed, sum.counts.failed);
    Ok(if sum.counts.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What came of all checks: each test counts, and each check that is no test counts as one.
#[derive(Debug)]
struct Sum {
    since: Instant,
    counts: Counts,
    broken: Vec<&'static str>,
}

impl Sum {
    fn begin() -> Self {
        Self { since: Instant::now(), counts: Counts::default(), broken: Vec::new() }
    }

    /// The time since all began.
    fn clock(&self) -> String {
        let seconds = self.since.elapsed().as_secs();
        format!("{} min {} s", seconds / 60, seconds % 60)
    }

    fn step(&self, name: &str) {
        println!("── {name} (after {})", self.clock());
    }

    /// Runs one check that is no test.
    fn check(&mut self, name: &'static str, command: &mut Command) {
        self.step(name);
        let good = match command.status() {
            Ok(status) => status.success(),
            Err(error) => {
                println!("starting {name}: {error}");
                false
            }
        };
        if good {
            self.counts.passed += 1;
        } else {
            self.fail(name);
        }
    }

    fn fail(&mut self, name: &'static str) {
        self.counts.failed += 1;
        self.broken.push(name);
    }
}

/// Builds the programs and then the tests; meanwhile the servers are fetched and unpacked, which waits more
/// than it works.
fn built_tests(fast: bool) -> Result<Vec<String>> {
    test_programs::build_bins()?;
    // what it cannot do is said when the servers are started
    let quiet = |command: &mut Command| {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    };
    let fetching = (!fast).then(|| quiet(lab().arg("install"))).transpose();
    let programs = test_programs::build();
    if let Some(mut fetching) = fetching.context("fetching the servers")? {
        fetching.wait().context("fetching the servers")?;
    }
    programs
}

/// All tests of all packages; the servers of the matrix are started once around them.
fn tests(fast: bool, programs: &[String], sum: &mut Sum) -> Result<()> {
    sum.step("tests");
    // not the file that this process was started from: building the workspace may have made it anew
    let this = built("xtask");
    let mut run = if fast {
        let mut run = Command::new(this);
        run.env("UNDERPIN_TEST_SERVERS", "none");
        run
    } else {
        let mut run = lab();
        run.args(["with-servers", "--"]).arg(this);
        run
    };
    run.arg("test-programs").args(programs);
    let (good, counts) = counted(&mut run)?;
    sum.counts.passed += counts.passed;
    sum.counts.failed += counts.failed;
    if !good && counts.failed == 0 {
        // a test program that crashed, or servers that did not start, leave no count
        sum.fail("tests");
    }
    Ok(())
}

/// The lab, which is built with the tests.
fn lab() -> Command {
    Command::new(built("underpin-lab"))
}

/// Shows the output as it comes and adds up its `test result:` lines.
fn counted(command: &mut Command) -> Result<(bool, Counts)> {
    let mut counts = Counts::default();
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
        let again = line.strip_prefix(again::PASSED).and_then(|count| count.parse().ok());
        let again = min(again.unwrap_or(0), counts.failed);
        counts.failed -= again;
        counts.passed += again;
    }
    Ok((child.wait().context("waiting for the tests")?.success(), counts))
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
