//! What is walked: commands, the ground that each begins on, and how each has ended well.

use anyhow::{Result, bail, ensure};

use super::LIMIT;
use super::ground::Ground;
use crate::runner::{Runner, story};

/// The column that the change adds.
pub const COLUMN: &str = "walked";

/// A way to use the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// A change by copy, from plan to finish.
    Run,
    /// The end of a run whose program is dead.
    Abort,
    /// A change that the server makes at once.
    InPlace,
    /// A run that goes on with orders that people have left for it.
    Ordered,
    /// A run whose comparison finds a row that differs.
    Differs,
}

impl Flow {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Run, Self::Abort, Self::InPlace, Self::Ordered, Self::Differs];

    /// Its name at the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Abort => "abort",
            Self::InPlace => "in-place",
            Self::Ordered => "ordered",
            Self::Differs => "differs",
        }
    }

    /// The command that is struck, and given again until it is done.
    #[must_use]
    pub fn words(self, ground: &Ground) -> Vec<String> {
        let url = ground.url();
        let words: Vec<String> = match self {
            Self::Abort => vec!["abort".into(), url, "orders".into()],
            Self::InPlace => run_words(ground, &["--strategy", "auto"]),
            Self::Run | Self::Ordered | Self::Differs => {
                run_words(ground, &["--strategy", "shadow"])
            }
        };
        let mut words = words;
        words.extend(["--state-schema".to_owned(), ground.state()]);
        words
    }

    /// Brings the ground to where the command begins.
    ///
    /// # Errors
    /// When that does not come about.
    pub fn prepare(self, ground: &Ground) -> Result<()> {
        match self {
            Self::Run | Self::InPlace => Ok(()),
            Self::Abort => kill_run_at(ground, "copying-a-chunk-of.insert.after:2"),
            Self::Ordered => {
                kill_run_at(ground, "copying-a-chunk-of.insert.after:2")?;
                for order in ["pause", "resume"] {
                    let words = [order, &ground.url(), "orders", "--state-schema", &ground.state()];
                    let called = Runner::start(&words)?.wait(LIMIT)?;
                    ensure!(called.code() == 0, "{order}: {}", called.complaint());
                }
                Ok(())
            }
            Self::Differs => {
                let first = match ground.is_postgres() {
                    true => "beginning-to-read.begin.before:1",
                    false => "beginning-a-snapshot-of.start.before:1",
                };
                kill_run_at(ground, first)?;
                ground.spoil_shadow()
            }
        }
    }

    /// Whether nothing is left to be done.
    ///
    /// # Errors
    /// The server's words.
    pub fn is_done(self, ground: &Ground) -> Result<bool> {
        let changed = ground.is_changed(COLUMN)?;
        let open = ground.runs()?.iter().any(|state| state == "open");
        Ok(!open && changed == (self != Self::Abort))
    }
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
    let mut words = vec!["run".to_owned(), ground.url(), change];
    words.extend(more.iter().map(|&word| word.to_owned()));
    let common = [
        "--replica",
        "none",
        "--yes",
        "--workers",
        "2",
        "--chunk-time",
        "10ms",
        "--lock-timeout",
        "1s",
    ];
    words.extend(common.map(str::to_owned));
    if !ground.is_postgres() && !more.contains(&"auto") {
        words.extend(["--indexes".to_owned(), "after".to_owned()]);
    }
    words
}

/// Has a run of the change die at a point.
fn kill_run_at(ground: &Ground, point: &str) -> Result<()> {
    let words = Flow::Run.words(ground);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let wish = format!("kill:{point}");
    let called = Runner::start_with(&words, &[("UNDERPIN_POINTS_STRIKE", &wish)])?.wait(LIMIT)?;
    if called.ended.code.is_some() {
        bail!("it did not die at {point}: {}", story(&called.events));
    }
    Ok(())
}
