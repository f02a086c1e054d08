//! `underpin-lab`: throwaway servers from the command line.
//!
//! Owns the arguments only; `cargo xtask` calls it, and so may a person.
#![allow(clippy::print_stderr, clippy::print_stdout)]

use std::io::Read;

use anyhow::{Context, Result, bail};
use underpin_tests::servers::{self, Flavor, Pair, ServerSpec};

const USAGE: &str = "usage:
  underpin-lab install [--db DB]...
  underpin-lab up --db DB [--durable] [--option NAME=VALUE]...
DB is mysql, mariadb or mariadb118";

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some((command, rest)) = words.split_first() else { bail!("{USAGE}") };
    match command.as_str() {
        "install" => servers::install(&spec_flavors(rest)?),
        "up" => up(rest),
        other => bail!("{other:?} is not known\n{USAGE}"),
    }
}

fn spec_flavors(words: &[String]) -> Result<Vec<Flavor>> {
    let mut flavors = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--db" => flavors.push(Flavor::from_name(words.next().context(USAGE)?)?),
            other => bail!("{other:?} is not known\n{USAGE}"),
        }
    }
    Ok(if flavors.is_empty() { Flavor::ALL.to_vec() } else { flavors })
}

fn up(words: &[String]) -> Result<()> {
    let mut spec = ServerSpec::new(Flavor::MariaDbDistro);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--db" => spec.flavor = Flavor::from_name(words.next().context(USAGE)?)?,
            "--option" => spec.options.push(words.next().context(USAGE)?.clone()),
            "--durable" => spec.durable = true,
            other => bail!("{other:?} is not known\n{USAGE}"),
        }
    }
    let pair = Pair::start(&spec)?;
    println!("primary {}", pair.primary.url());
    println!("replica {}", pair.replica.url());
    println!("primary socket {}", pair.primary.data_dir().join("server.sock").display());
    eprintln!("press Enter, or close standard input, to stop both");
    let mut byte = [0_u8; 1];
    let _enter_or_end = std::io::stdin().read(&mut byte).context("reading standard input")?;
    Ok(())
}
