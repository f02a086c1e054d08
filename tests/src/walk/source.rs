//! What the dialects attempt according to their source, and what of it no flow comes to.
//!
//! A statement is named by what it attempts, in words. An attempt to change something that is new and that
//! no flow passes fails the walk until it is walked, or listed with its reason in docs/safety.md.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::servers::Flavor;

/// Attempts of a dialect that are found in its source at least: fewer, and the search has broken.
const FOUND_MIN: usize = 80;

/// The attempts in the source of the dialect of that server.
///
/// # Errors
/// When the source is not there.
pub(super) fn attempts(flavor: Flavor) -> Result<BTreeSet<String>> {
    let room = if flavor.is_postgres() { "postgres" } else { "mysql" };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates").join(room).join("src");
    let mut files = Vec::new();
    collect(&folder, &mut files)?;
    let mut found = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file).context("reading the source")?;
        found.extend(in_text(&text));
    }
    ensure!(found.len() >= FOUND_MIN, "only {} attempts in {}", found.len(), folder.display());
    Ok(found)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let listed = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in listed {
        let path = entry.context("listing the source")?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// Literals that begin as an attempt does: `making the shadow of`. Not those of lines that only make an
/// error: nothing is sent there.
fn in_text(text: &str) -> BTreeSet<String> {
    let product = text.split("#[cfg(test)]").next().unwrap_or_default();
    let sends = |line: &&str| {
        let no_statement = ["DbError::new(", "refuse_warnings("];
        let is_comment = line.trim_start().starts_with("//");
        !is_comment && !no_statement.iter().any(|words| line.contains(words))
    };
    let lines = product.lines().filter(sends);
    let literals = lines.flat_map(|line| line.split('"').skip(1).step_by(2).map(str::to_owned));
    literals.filter_map(|literal| slug(&literal)).collect()
}

/// The attempt as the name of its points has it; `None` where this is none.
fn slug(literal: &str) -> Option<String> {
    let own = literal.split(['(', ':', '`', '.', '{']).next().unwrap_or_default();
    let words: Vec<&str> = own.split_whitespace().collect();
    let plain = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || "-'".contains(c));
    let first = words.first()?;
    let is_attempt = first.ends_with("ing") && words.iter().all(plain);
    is_attempt.then(|| words.join("-").replace('\'', ""))
}

/// What an attempt that only reads begins with.
const READING: [&str; 14] = [
    "asking",
    "checking",
    "counting",
    "finding",
    "judging",
    "listing",
    "looking",
    "measuring",
    "naming",
    "probing",
    "reading",
    "summing",
    "waiting",
    "watching",
];

/// Words of errors, settings and states that look like an attempt; no statement bears them.
const WORDS: [&str; 10] = [
    "bringing-rows-back-to",
    "connecting",
    "connecting-to-server",
    "ending",
    "making-the-grants-again-of",
    "nothing",
    "parsing",
    "removing-the-runs-objects",
    "system-versioning",
    "warning",
];

/// Attempts to change something that nobody came to and that are not listed; and such as are listed and are
/// not in the source, or are walked.
pub(super) fn unknown(
    room: &str,
    source: &BTreeSet<String>,
    passed: &BTreeSet<String>,
    listed: &BTreeSet<String>,
) -> Vec<String> {
    let sends_nothing = |attempt: &String| {
        WORDS.contains(&attempt.as_str()) || READING.iter().any(|word| attempt.starts_with(word))
    };
    // `building index {} for` is cut off at the name
    let comes = |attempt: &String| {
        let begin = format!("{attempt}-");
        passed.iter().any(|name| name == attempt || name.starts_with(&begin))
    };
    let missing = source
        .iter()
        .filter(|attempt| !comes(attempt) && !listed.contains(*attempt))
        .filter(|attempt| !sends_nothing(attempt));
    let mut unknown: Vec<String> = missing
        .map(|attempt| format!("{room}: no flow comes to `{attempt}`, and {LIST} does not say why"))
        .collect();
    for name in listed {
        if passed.contains(name) {
            unknown.push(format!("{room}: `{name}` is walked, and {LIST} says that it is not"));
        } else if !source.contains(name) {
            unknown.push(format!("{room}: {LIST} lists `{name}`, which nothing attempts"));
        }
    }
    unknown
}

/// Where it stands what is not walked, and why.
const LIST: &str = "docs/safety.md";

/// The attempts that the list says are not walked: lines as `| mysql | `dropping` | why |`.
///
/// # Errors
/// When it cannot be read.
pub(super) fn listed(flavor: Flavor) -> Result<BTreeSet<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(LIST);
    let text = std::fs::read_to_string(path).context("reading the list of what is not walked")?;
    let begin = format!("| {} | `", flavor.name());
    let names = text.lines().filter_map(|line| line.strip_prefix(&begin)?.split('`').next());
    Ok(names.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_found_in_the_source() {
        let text = "//! \"reading nothing\"\nrun(conn, sql, \"making the shadow of\", &object);\n\
                    let a = \"SELECT 1\"; let b = \"taking the session's lock\";\n\
                    Err(DbError::new(ErrorKind::Other, \"losing the way of\", object))\n\
                    #[cfg(test)]\n\"testing the test\"";
        let found: Vec<String> = in_text(text).into_iter().collect();
        assert_eq!(found, ["making-the-shadow-of", "taking-the-sessions-lock"]);
    }

    #[test]
    fn what_nobody_comes_to_is_told() {
        let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let source = set(&[
            "making-new",
            "making-old",
            "making-index",
            "reading-it",
            "dropping-it",
            "walking",
        ]);
        let passed = set(&["making-old", "making-index-for", "walking"]);
        let told = unknown("mysql", &source, &passed, &set(&["dropping-it", "walking", "gone"]));
        assert_eq!(told.len(), 3, "{told:?}");
        for (line, word) in told.iter().zip(["`making-new`", "`gone`", "`walking` is walked"]) {
            assert!(line.contains(word), "{told:?}");
        }
    }
}
