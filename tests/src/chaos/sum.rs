//! What is told of rounds: a line for each, and sums.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::servers::{Flavor, Pair};

use super::keep;
use super::round::{Result_ as Outcome, Told};

/// Sums over the rounds of one server.
#[derive(Debug, Default)]
pub(super) struct Sum {
    pub(super) rounds: u64,
    seeds: Option<(u64, u64)>,
    ends: BTreeMap<&'static str, u64>,
    turns: BTreeMap<String, u64>,
    rows: u64,
    transactions: u64,
    starts: u64,
    spoilt: u64,
    different: u64,
    longest: Duration,
    slowest: Duration,
    faults: BTreeMap<String, u64>,
    pub(super) failed: Vec<String>,
}

impl Sum {
    pub(super) fn add(
        &mut self,
        flavor: Flavor,
        seed: u64,
        told: &Told,
        servers: &Pair,
        folder: &Path,
    ) -> Result<()> {
        self.rounds += 1;
        self.seeds = Some((self.seeds.map_or(seed, |seeds| seeds.0), seed));
        self.rows += told.rows;
        self.transactions += told.transactions;
        self.starts += u64::from(told.starts);
        self.spoilt += told.spoilt;
        self.different += told.different;
        self.longest = std::cmp::max(self.longest, told.longest);
        self.slowest = std::cmp::max(self.slowest, told.took);
        for kind in &told.kinds {
            *self.faults.entry(kind.clone()).or_default() += 1;
        }
        for turn in &told.turns {
            *self.turns.entry(turn.clone()).or_default() += 1;
        }
        let (end, words) = match &told.outcome {
            Ok(Outcome::Swapped) => ("changed", String::new()),
            Ok(Outcome::Reverted) => ("taken back", String::new()),
            Ok(Outcome::Refused(words)) => ("refused by preflight", in_short(words)),
            // what was in its way was gone by the end of the round, or it was a lock
            Ok(Outcome::Stopped(words)) if words.starts_with("(the plain ALTER passes)") => {
                ("stopped, and the plain ALTER passes later", in_short(words))
            }
            Ok(Outcome::Stopped(words)) => ("stopped as documented", in_short(words)),
            Ok(Outcome::Aborted) => ("aborted on request", String::new()),
            Err(error) => {
                let kept = keep(flavor, seed, told, servers, folder)?;
                let again =
                    format!("underpin-lab soak --chaos --db {} --seed {seed}", flavor.name());
                self.failed.push(again.clone());
                (
                    "FAILED",
                    format!("{error:#}\n  kept in {}\n  play it again: {again}", kept.display()),
                )
            }
        };
        *self.ends.entry(end).or_default() += 1;
        let line = format!(
            "{:<8} seed {seed} | {} | {} | {} | {}{} starts, {} transactions, longest {} ms, {:.0} s | {} rows equal \
             | {end} {words}",
            flavor.name(),
            told.shape,
            told.change,
            if told.faults.is_empty() { "no fault".to_owned() } else { told.faults.join(", ") },
            if told.turns.is_empty() {
                String::new()
            } else {
                format!("{} | ", told.turns.join(", "))
            },
            told.starts,
            told.transactions,
            told.longest.as_millis(),
            told.took.as_secs_f64(),
            told.rows
        );
        println!("{line}");
        for words in &told.stops {
            println!("  a turn stopped: {}", in_short(words));
        }
        let name = format!("{}-{seed}.log", flavor.name());
        fs::write(folder.join(name), format!("{line}\n{}", told.log))
            .context("writing a round's log")?;
        Ok(())
    }

    /// As it can be put into a document.
    pub(super) fn summary(&self, flavor: Flavor) -> String {
        let list = |counts: &BTreeMap<String, u64>| -> String {
            let counts = counts.iter().map(|(kind, times)| format!("{kind} {times}"));
            let counts: Vec<String> = counts.collect();
            if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
        };
        let ends = self.ends.iter().map(|(end, times)| ((*end).to_owned(), *times)).collect();
        let (first, last) = self.seeds.unwrap_or_default();
        let mut text =
            format!("\n{}: {} rounds, seeds {first} to {last}\n", flavor.name(), self.rounds);
        let _text = writeln!(text, "  ends: {}", list(&ends));
        let _text = writeln!(text, "  turns: {}", list(&self.turns));
        let _text = writeln!(text, "  faults: {}", list(&self.faults));
        let _text = writeln!(
            text,
            "  {} rows spoilt, {} calls told of a difference; {} starts of the program",
            self.spoilt, self.different, self.starts
        );
        let _text = writeln!(
            text,
            "  {} rows compared, {} transactions of writers, the longest {} ms; the longest round {:.0} s",
            self.rows,
            self.transactions,
            self.longest.as_millis(),
            self.slowest.as_secs_f64()
        );
        let _text = writeln!(text, "  failed: {}", self.failed.len());
        for failed in &self.failed {
            let _text = writeln!(text, "    {failed}");
        }
        text
    }
}

fn in_short(words: &str) -> String {
    let line = words.split('\n').next().unwrap_or_default();
    line.chars().take(300).collect()
}
