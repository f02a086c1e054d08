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
