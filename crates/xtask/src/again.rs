//! Tests that waited too long are played a second time, alone.
//!
//! Owns which failures may be. A limit of time says something of the product only where the machine lets it:
//! on two cores that a host shares out among others, a few of hundreds of limits are missed now and then.
//! What compared two values and found them different says the same on every machine, and is never asked
//! again: a lost row is lost, however busy it was.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::bounded;

/// What is said where values are not as they should be to each other.
const COMPARED: [&str; 3] = ["assertion `left ", " differ", " missing"];
/// The units in which a test says how long it waited.
const UNITS: [&str; 4] = ["s", "ms", "µs", "seconds"];
/// The most tests of one program: where more fail, it is not the machine.
const TESTS_MAX: usize = 4;

/// The failed tests of a program, if all of them may be played again.
pub(crate) fn worth_it(said: &str) -> Option<Vec<String>> {
    let failed: Vec<&str> = said
        .lines()
        .filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"))
        .collect();
    let may = !failed.is_empty()
        && failed.len() <= TESTS_MAX
        && failed.iter().all(|test| told(said, test).is_some_and(is_of_time));
    may.then(|| failed.into_iter().map(str::to_owned).collect())
}

/// What this test said when it failed, without the way that led there.
fn told<'a>(said: &'a str, test: &str) -> Option<&'a str> {
    let (_, from) = said.split_once(&format!("---- {test} stdout ----"))?;
    let text = from.split("\n---- ").next().unwrap_or(from);
    let (_, text) = text.split_once("panicked at ")?;
    text.split("stack backtrace:").next()
}

/// Whether a test complains of a time, and of nothing else.
fn is_of_time(why: &str) -> bool {
    !COMPARED.iter().any(|word| why.contains(word)) && names_a_time(why)
}

/// Whether there is a figure with a unit of time behind it.
fn names_a_time(text: &str) -> bool {
    let is_number = |word: &str| word.parse::<f64>().is_ok();
    let words = text.split(|char: char| !(char.is_alphanumeric() || char == '.'));
    let mut after_number = false;
    for word in words.filter(|word| !word.is_empty()) {
        let is_time = UNITS.iter().any(|unit| {
            word.strip_suffix(unit).is_some_and(is_number) || (after_number && word == *unit)
        });
        if is_time {
            return true;
        }
        after_number = is_number(word);
    }
    false
}

/// Plays these tests of the program, one after the other, and prints what they say.
///
/// # Errors
/// In a line, what was not good.
pub(crate) fn play(
    program: &mut Command,
    path: &Path,
    tests: &[String],
    time: Duration,
) -> Result<(), String> {
    program.arg("--exact").arg("--test-threads=1").args(tests);
    let name = path.display();
    let ran = bounded::run(program, time).map_err(|error| format!("{name}: {error:#}"))?;
    let good = ran.status.is_some_and(|status| status.success());
    // its counts are those of tests that were counted already
    let text = ran.said.replace("test result:", "result of the second time:");
    println!("   {name}, a second time, alone ({} s)\n{text}", ran.seconds);
    if good {
        println!("{}{}", PASSED, tests.len());
        return Ok(());
    }
    Err(format!("{name}: {} failed alone as well", tests.join(", ")))
}

/// How the line begins that tells how many failed tests passed when they were played alone.
pub(crate) const PASSED: &str = "passed the second time: ";

#[cfg(test)]
mod tests {
    use super::worth_it;

    fn said(why: &str) -> String {
        format!(
            "test a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\nthread 'b' \
             panicked at x.rs:1:1:\n{why}\n\nfailures:\n    b\n\ntest result: FAILED. 1 passed; 1 failed\n"
        )
    }

    #[test]
    fn only_what_waited_too_long_is_asked_again() {
        let again = Some(vec!["b".to_owned()]);
        assert_eq!(worth_it(&said("it took 3 s")), again);
        assert_eq!(worth_it(&said("held up: Felt { longest: 812.5ms, errors: 0 }")), again);
        assert_eq!(worth_it(&said("a row is not there: 4")), None);
        assert_eq!(worth_it(&said("3 rows differ after 3 s")), None);
        assert_eq!(worth_it(&said("assertion `left == right` failed: rows\n  left: 1")), None);
        assert_eq!(worth_it(&said("assertion `left != right` failed")), None);
        assert_eq!(worth_it("test result: ok. 1 passed; 0 failed"), None);
        assert_eq!(worth_it("test b ... FAILED\n"), None, "nobody knows why it failed");
        let many: String =
            (0..5).map(|test| said("9 ms").replace('b', &format!("b{test}"))).collect();
        assert_eq!(worth_it(&many), None);
    }
}
