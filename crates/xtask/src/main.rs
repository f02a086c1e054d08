//! `cargo xtask`: the commands of the README.
//!
//! Owns the words a person types. The work is done by `test_run` here and by two programs of the
//! workspace, `underpin-lab` (servers, demo, soak, benchmarks) and `underpin-sim`, which are built
//! when they are called; this crate depends on next to nothing, so that it is built in seconds.
#![allow(clippy::print_stderr, clippy::print_stdout)]

mod again;
mod bounded;
mod deny;
mod programs;
mod test_programs;
mod test_run;

use std::process::ExitCode;

use anyhow::Result;

const USAGE: &str = "usage: cargo xtask COMMAND

  test [--fast]                  formatting, lints and every test, against every server of the
                                 matrix; --fast leaves out what needs a server
  demo [--db DB] [--docker]      a table of 1,000,000 rows changed while four writers write
  soak --db DB --runs N          the demo N times over, as a table
  soak --db DB --swaps N         N swaps in a row of a small table with sixteen writers
  soak --db DB --memory          peak memory at 100,000 and at 5,000,000 rows
  walk --db DB [--flow FLOW] [--deep | --brief]
                                 struck at every fail point, by kill and by cut; --deep: in every flow and
                                 behind every other statement
  soak --db DB|all --chaos --minutes N
                                 random tables, changes, writers and faults; --seed N plays one
  bench DB                       against other tools, paired runs
  sim --seed N | --seeds N       replay one seed with its log, or run the first N
  deny [CHECK...]                licences, bans and sources of all dependencies by cargo-deny, which is
                                 installed below target if need be; `deny advisories` fetches the database
  lab up --db DB                 a primary and a replica to play with

DB is mysql, mariadb, mariadb118, postgres (the distribution's), postgres14, postgres16, postgres17 or
postgres18 (demo: mariadb unless named)";

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("cargo xtask: {error:#}");
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some((command, rest)) = words.split_first() else {
        println!("{USAGE}");
        return Ok(ExitCode::from(2));
    };
    match command.as_str() {
        "test" => match rest {
            [] => test_run::all(false),
            [flag] if flag == "--fast" => test_run::all(true),
            _ => Ok(wrong_usage()),
        },
        // what `test` calls once the servers are up
        "test-programs" => Ok(test_programs::run(rest)),
        "demo" | "soak" | "bench" => programs::lab_with_product(&words),
        "walk" => programs::walk(&words),
        "sim" => programs::sim(rest),
        "lab" => programs::lab(rest),
        "deny" => deny::run(rest),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        _ => Ok(wrong_usage()),
    }
}

fn wrong_usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}
