//! Fail points as a program that passes them writes them down, and where to strike.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};

/// How a run is struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// The program is killed (`kill -9`).
    Kill,
    /// The session's connection is lost.
    Cut,
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Cut => "cut",
        }
    }
}

/// One blow: at the `nth` pass of a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strike {
    /// How.
    pub way: Way,
    /// Where.
    pub point: String,
    /// At which pass, from 1.
    pub nth: u64,
}

impl Strike {
    /// As the program reads it from `UNDERPIN_POINTS_STRIKE`.
    #[must_use]
    pub fn wish(&self) -> String {
        format!("{}:{}:{}", self.way.name(), self.point, self.nth)
    }
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} (pass {})", self.way.name(), self.point, self.nth)
    }
}

/// What a program wrote down.
#[derive(Clone, Debug, Default)]
pub struct Passed {
    lines: Vec<(String, String, u64)>,
    /// What was attempted by statements that only read.
    reads: BTreeSet<String>,
}

impl Passed {
    /// Reads what a program wrote; nothing where it wrote nothing.
    ///
    /// # Errors
    /// A line that is none of ours.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let (mut lines, mut reads) = (Vec::new(), BTreeSet::new());
        for line in text.lines() {
            let mut words = line.split(' ');
            let (Some(what), Some(point), Some(session)) =
                (words.next(), words.next(), words.next())
            else {
                anyhow::bail!("{line:?} is no line of a list of points");
            };
            let session = session.parse().with_context(|| line.to_owned())?;
            match what {
                "read" => {
                    reads.insert(point.to_owned());
                }
                _ => lines.push((what.to_owned(), point.to_owned(), session)),
            }
        }
        Ok(Self { lines, reads })
    }

    /// Whether the program was struck.
    #[must_use]
    pub fn was_struck(&self) -> bool {
        self.lines.iter().any(|(what, ..)| what != "passed")
    }

    /// Everything that was attempted, whether it changes something or reads.
    #[must_use]
    pub fn attempts(&self) -> BTreeSet<String> {
        let of_points = self.lines.iter().filter_map(|(_, point, _)| point.split('.').next());
        of_points.map(str::to_owned).chain(self.reads.iter().cloned()).collect()
    }

    /// The names, each once.
    #[must_use]
    pub fn names(&self) -> BTreeSet<String> {
        self.lines.iter().map(|(_, point, _)| point.clone()).collect()
    }

    /// The first pass of each point, in order.
    #[must_use]
    pub fn firsts(&self) -> Vec<(String, u64)> {
        let mut seen = BTreeSet::new();
        let points = self.lines.iter().map(|(_, point, _)| point.clone());
        points.filter(|point| seen.insert(point.clone())).map(|point| (point, 1)).collect()
    }

    /// Of each point the first pass behind each other point of the same session: a COMMIT after a copy
    /// is another place than one after the log was applied.
    #[must_use]
    pub fn contexts(&self) -> Vec<(String, u64)> {
        let (mut before, mut passes) = (BTreeMap::new(), BTreeMap::new());
        let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
        for (_, point, session) in &self.lines {
            let pass: &mut u64 = passes.entry(point.clone()).or_default();
            *pass += 1;
            let behind = before.insert(*session, point.clone());
            if seen.insert((behind, point.clone())) {
                found.push((point.clone(), *pass));
            }
        }
        found
    }
}
