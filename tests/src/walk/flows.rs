//! What is walked: commands, the ground that each begins on, and how each has ended well.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::LIMIT;
use super::ground::Ground;
use crate::runner::{Runner, story};

/// The column that the change adds.
pub const COLUMN: &str = "walked";

/// How long a run may take to swap that was let go.
const HEARD_MAX: Duration = Duration::from_secs(20);

/// A way to use the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// A change by copy, from plan to finish.
    Run,
    /// The same, with the way back kept.
    Keep,
    /// A made change is taken back.
    Revert,
    /// A change that was taken back is made again.
    Again,
    /// A change whose way back was kept is ended.
    Finish,
    /// The end of a run whose program is dead.
    Abort,
    /// A turn back is left when its program is dead.
    Stay,
    /// A change that the server makes at once.
    InPlace,
    /// A run to which somebody gives orders all the time, and which waits for the one that lets its swap go.
    Ordered,
    /// The order that lets a waiting run swap.
    Order,
    /// The end of a table that was kept.
    Leftovers,
    /// A run whose comparison finds a row that differs.
    Differs,
}

impl Flow {
    /// Those that are walked.
    pub const ALL: [Self; 12] = [
        Self::Run,
        Self::Keep,
        Self::Revert,
        Self::Again,
        Self::Finish,
        Self::Abort,
        Self::Stay,
        Self::InPlace,
        Self::Differs,
        Self::Ordered,
        Self::Order,
        Self::Leftovers,
    ];

    /// Its name at the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Keep => "keep",
            Self::Revert => "revert",
            Self::Again => "again",
            Self::Finish => "finish",
            Self::Abort => "abort",
            Self::Stay => "stay",
            Self::InPlace => "in-place",
            Self::Ordered => "ordered",
            Self::Order => "order",
            Self::Leftovers => "leftovers",
            Self::Differs => "differs",
        }
    }

    /// The command that is struck, and given again until it is done.
    ///
    /// # Errors
    /// When the ground does not tell which run is meant.
    pub fn words(self, ground: &Ground) -> Result<Vec<String>> {
        let url = ground.url();
        let mut words: Vec<String> = match self {
            Self::Abort | Self::Stay => ["abort", &url, "orders"].map(str::to_owned).into(),
            Self::InPlace => run_words(ground, &["--strategy", "auto"]),
            Self::Keep => run_words(ground, &["--strategy", "shadow", "--finish", "keep"]),
            Self::Run | Self::Differs => run_words(ground, &["--strategy", "shadow"]),
            Self::Ordered => run_words(ground, &["--strategy", "shadow", "--swap", "wait"]),
            Self::Order => ["swap", &url, "orders"].map(str::to_owned).into(),
            Self::Leftovers => {
                let id = ground.only_run()?;
                let words = ["leftovers", &url, "--remove", "--yes", "--run", &id];
                words.map(str::to_owned).into()
            }
            Self::Revert => turn_words(&["revert", &url, "orders"]),
            Self::Again => turn_words(&["resume", &url, "orders", "--again"]),
            Self::Finish => turn_words(&["finish", &url, "orders"]),
        };
        words.extend(["--state-schema".to_owned(), ground.state()]);
        Ok(words)
    }

    /// Brings the ground to where the command begins.
    ///
    /// # Errors
    /// When that does not come about.
    pub fn prepare(self, ground: &Ground) -> Result<()> {
        match self {
            Self::Run | Self::Keep | Self::InPlace | Self::Ordered | Self::Order => Ok(()),
            Self::Revert | Self::Finish => Self::Keep.carry_out(ground),
            Self::Again => {
                Self::Keep.carry_out(ground)?;
                Self::Revert.carry_out(ground)
            }
            Self::Abort => Self::Run.kill_at(ground, "copying-a-chunk-of.insert.after:1"),
            Self::Stay => {
                Self::Keep.carry_out(ground)?;
                let counted = match ground.is_postgres() {
                    true => "beginning-to-read.begin.before:1",
                    false => "beginning-a-snapshot-of.start.before:1",
                };
                Self::Revert.kill_at(ground, counted)
            }
            Self::Leftovers => {
                let mut words = Self::Run.words(ground)?;
                words.push("--keep-retired".to_owned());
                carry_out(self.name(), &words)
            }
            Self::Differs => {
                let first = match ground.is_postgres() {
                    true => "beginning-to-read.begin.before:1",
                    false => "beginning-a-snapshot-of.start.before:1",
                };
                Self::Run.kill_at(ground, first)?;
                ground.spoil_shadow()
            }
        }
    }

    /// Whether the command has nothing left to do.
    ///
    /// # Errors
    /// The server's words.
    pub fn is_done(self, ground: &Ground) -> Result<bool> {
        let changed = ground.is_changed(COLUMN)?;
        let wanted = match self {
            Self::Keep | Self::Again | Self::Stay => "forward",
            Self::Revert => "back",
            Self::Leftovers => return Ok(ground.is_clean()),
            // whoever has heard the order needs a moment for it
            Self::Order => {
                let begun = Instant::now();
                while !has_ended(ground)? && begun.elapsed() < HEARD_MAX {
                    thread::sleep(Duration::from_millis(50));
                }
                return Ok(has_ended(ground)? && ground.is_changed(COLUMN)?);
            }
            _ => return Ok(has_ended(ground)? && changed == (self != Self::Abort)),
        };
        let stands = ground.stands()?;
        let at_rest = stands.is_some_and(|(phase, way)| phase == "revertible" && way == wanted);
        Ok(at_rest && changed == (wanted == "forward"))
    }

    /// What comes behind: where a way back stands, it is taken, and then ended.
    ///
    /// # Errors
    /// When that does not come about.
    pub fn conclude(self, ground: &Ground) -> Result<()> {
        match self {
            Self::Keep | Self::Stay => {
                Self::Revert.carry_out(ground)?;
                Self::Finish.carry_out(ground)?;
                ensure!(!ground.is_changed(COLUMN)?, "the way back did not lead back");
            }
            Self::Revert => {
                Self::Finish.carry_out(ground)?;
                ensure!(!ground.is_changed(COLUMN)?, "the end of a run exchanged its tables");
            }
            Self::Again => {
                Self::Finish.carry_out(ground)?;
                ensure!(ground.is_changed(COLUMN)?, "the end of a run exchanged its tables");
            }
            _ => {}
        }
        Ok(())
    }

    /// Gives the command, unstruck, which must end well.
    fn carry_out(self, ground: &Ground) -> Result<()> {
        carry_out(self.name(), &self.words(ground)?)
    }

    /// Has the command die at a point.
    fn kill_at(self, ground: &Ground, point: &str) -> Result<()> {
        let words = self.words(ground)?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let wish = format!("kill:{point}");
        let called =
            Runner::start_with(&words, &[("UNDERPIN_POINTS_STRIKE", &wish)])?.wait(LIMIT)?;
        if called.ended.code.is_some() {
            bail!("{} did not die at {point}: {}", self.name(), story(&called.events));
        }
        Ok(())
    }
}

/// Whether no run is open.
fn has_ended(ground: &Ground) -> Result<bool> {
    Ok(!ground.runs()?.iter().any(|state| state == "open"))
}

/// Gives a command that must end well.
fn carry_out(name: &str, words: &[String]) -> Result<()> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let called = Runner::start(&words)?.wait(LIMIT)?;
    let told = || format!("{}\n  {}", called.complaint(), story(&called.events));
    ensure!(called.code() == 0, "{name}: exit code {}: {}", called.code(), told());
    Ok(())
}

/// Options of every command that works on a run.
const COMMON: [&str; 8] =
    ["--replica", "none", "--workers", "2", "--chunk-time", "10ms", "--lock-timeout", "1s"];

fn turn_words(words: &[&str]) -> Vec<String> {
    let at_once = ["--compare-after", "0s"];
    words.iter().chain(&COMMON).chain(&at_once).map(|&word| word.to_owned()).collect()
}

fn run_words(ground: &Ground, more: &[&str]) -> Vec<String> {
    let change = match (ground.is_postgres(), more.contains(&"auto")) {
        (_, true) => format!("ALTER TABLE orders ADD COLUMN {COLUMN} INT NULL"),
        (true, _) => format!("ALTER TABLE orders ADD COLUMN {COLUMN} int NOT NULL DEFAULT 7"),
        (false, _) => format!(
            "ALTER TABLE orders ADD COLUMN {COLUMN} INT NOT NULL DEFAULT 7, ADD INDEX {COLUMN}_key \
             (customer, {COLUMN})"
        ),
    };
    let mut words = vec!["run".to_owned(), ground.url(), change, "--yes".to_owned()];
    words.extend(more.iter().chain(&COMMON).map(|&word| word.to_owned()));
    if !ground.is_postgres() && !more.contains(&"auto") {
        words.extend(["--indexes".to_owned(), "after".to_owned()]);
    }
    words
}
