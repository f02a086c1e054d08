//! The house has one direction: which room may depend on which, kept over `cargo metadata`.
#![allow(clippy::unwrap_used)] // what cannot be had here fails the test

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// Rooms and the rooms they may know. What is not listed may know nothing of ours.
const ARROWS: [(&str, &[&str]); 9] = [
    ("underpin-core", &[]),
    ("underpin-dialect", &["underpin-core"]),
    ("underpin-mysql", &["underpin-core", "underpin-dialect"]),
    ("underpin-postgres", &["underpin-core", "underpin-dialect"]),
    ("underpin-engine", &["underpin-core", "underpin-dialect"]),
    ("underpin-sim", &["underpin-core", "underpin-dialect", "underpin-engine"]),
    (
        "underpin",
        &[
            "underpin-core",
            "underpin-dialect",
            "underpin-engine",
            "underpin-mysql",
            "underpin-postgres",
        ],
    ),
    ("xtask", &[]),
    (
        "underpin-tests",
        &[
            "underpin-core",
            "underpin-dialect",
            "underpin-engine",
            "underpin-mysql",
            "underpin-postgres",
            "underpin-sim",
        ],
    ),
];

/// Crates that only some rooms may name: a driver belongs to its dialect, a runtime not to the core.
const FENCED: [(&str, &[&str]); 6] = [
    ("mysql_async", &["underpin-mysql", "underpin-tests"]),
    ("tokio-postgres", &["underpin-postgres", "underpin-tests"]),
    (
        "tokio",
        &["underpin-mysql", "underpin-postgres", "underpin-engine", "underpin", "underpin-tests"],
    ),
    ("indicatif", &["underpin"]),
    ("ureq", &["underpin-engine"]),
    ("anyhow", &["underpin", "underpin-tests", "xtask"]),
];

/// Package → names of its dependencies, tests' own included.
fn packages() -> BTreeMap<String, Vec<String>> {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let metadata: Value = serde_json::from_slice(&out.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap();
            (text(&package["name"]), dependencies.iter().map(|d| text(&d["name"])).collect())
        })
        .collect()
}

#[test]
fn the_arrows_between_the_rooms_hold() {
    let packages = packages();
    let ours: Vec<&String> = packages.keys().collect();
    for (package, dependencies) in &packages {
        let allowed = ARROWS
            .iter()
            .find(|(name, _)| name == package)
            .unwrap_or_else(|| panic!("{package} is a room without a place in the house"))
            .1;
        for dependency in dependencies.iter().filter(|name| ours.contains(name)) {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{package} must not know {dependency}: see docs/architecture.md"
            );
        }
    }
}

#[test]
fn drivers_and_run_time_stay_in_their_rooms() {
    for (package, dependencies) in packages() {
        for (fenced, rooms) in FENCED {
            let names_it = dependencies.iter().any(|name| name == fenced);
            assert!(
                !names_it || rooms.contains(&package.as_str()),
                "{package} must not depend on {fenced}"
            );
        }
    }
}

/// Files that may send statements past the one place of their room, and how many: all of them read, or
/// set up a session that does not serve yet.
const SENDERS: [(&str, usize); 11] = [
    ("mysql/src/query.rs", 5),
    ("mysql/src/connect.rs", 2),
    ("mysql/src/connect/identity.rs", 2),
    ("mysql/src/connect/settings.rs", 1),
    ("mysql/src/flavor.rs", 1),
    ("mysql/src/flavor/variables.rs", 1),
    ("mysql/src/worker.rs", 1),
    ("postgres/src/query.rs", 3),
    ("postgres/src/connect.rs", 1),
    ("postgres/src/connect/identity.rs", 1),
    ("postgres/src/connect/settings.rs", 3),
];

/// How drivers are asked to send something; a type may follow before the parenthesis.
const SENDING: [&str; 15] = [
    "query",
    "query_drop",
    "query_first",
    "query_iter",
    "query_map",
    "exec",
    "exec_drop",
    "exec_first",
    "exec_batch",
    "execute",
    "batch_execute",
    "simple_query",
    "query_one",
    "copy_in",
    "start_transaction",
];

fn sources(dir: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// Methods of a driver that send something, called in this text.
fn sent(text: &str) -> usize {
    let calls = text.split('.').skip(1).filter(|rest| {
        let name: String =
            rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let after = rest[name.len()..].trim_start();
        SENDING.contains(&name.as_str()) && (after.starts_with('(') || after.starts_with("::<"))
    });
    calls.count()
}

/// The fail points stand where statements are sent: who sends another way passes none.
#[test]
fn every_statement_is_sent_past_the_fail_points() {
    let rooms = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    for room in ["mysql", "postgres"] {
        let mut files = Vec::new();
        sources(&rooms.join(room).join("src"), &mut files);
        assert!(files.len() > 30, "only {} files of {room}", files.len());
        for file in files {
            let name = file.strip_prefix(&rooms).unwrap().to_string_lossy().replace('\\', "/");
            let found = sent(&std::fs::read_to_string(&file).unwrap());
            let allowed =
                SENDERS.iter().find(|(sender, _)| *sender == name).map_or(0, |(_, count)| *count);
            assert_eq!(
                found, allowed,
                "{name} sends statements by itself: use query.rs, where the fail points stand"
            );
        }
    }
}
