//! Who is there beside the command that is struck: people with orders, or a run that waits for one.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};

use super::LIMIT;
use super::flows::Flow;
use super::ground::Ground;
use super::points::Passed;
use crate::runner::{Runner, story};

/// How long people wait between two orders.
const ORDER_EVERY: Duration = Duration::from_millis(150);

/// Who stands beside; drop it and it ends.
#[derive(Debug)]
pub(super) enum Beside {
    /// Nobody.
    Nobody,
    /// Somebody who pauses the run, lets it go on, changes its settings and lets its swap go, again and again.
    Person(Person),
    /// A run that waits for the order that is struck.
    Waiting(Box<Runner>),
}

impl Beside {
    /// Begins what the flow wants beside it. `list`: where its points are noted.
    ///
    /// # Errors
    /// When a run does not come to wait.
    pub(super) fn begin(flow: Flow, ground: &Ground, list: &Path) -> Result<Self> {
        match flow {
            Flow::Ordered => Ok(Self::Person(Person::begin(ground, list))),
            Flow::Order => {
                let words = Flow::Ordered.words(ground)?;
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let mut runner = Runner::start(&words)?;
                ensure!(runner.wait_phase("swap", LIMIT)?, "no run waits: {}", runner.story());
                Ok(Self::Waiting(Box::new(runner)))
            }
            _ => Ok(Self::Nobody),
        }
    }

    /// Ends it; what it attempted.
    ///
    /// # Errors
    /// When the run that waited did not end well.
    pub(super) fn end(self) -> Result<BTreeSet<String>> {
        match self {
            Self::Nobody => Ok(BTreeSet::new()),
            Self::Person(person) => person.end(),
            Self::Waiting(runner) => {
                let called = runner.wait(LIMIT)?;
                let told = || format!("{}\n  {}", called.complaint(), story(&called.events));
                ensure!(called.code() == 0, "the run beside: {}: {}", called.code(), told());
                Ok(BTreeSet::new())
            }
        }
    }
}

/// Somebody who gives orders.
#[derive(Debug)]
pub(super) struct Person {
    enough: Arc<AtomicBool>,
    giving: Option<JoinHandle<Result<BTreeSet<String>>>>,
}

impl Person {
    fn begin(ground: &Ground, list: &Path) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let (until, list) = (Arc::clone(&enough), list.to_owned());
        let (url, state) = (ground.url(), ground.state());
        let giving = thread::spawn(move || {
            let noted = list.to_string_lossy().into_owned();
            let orders: [&[&str]; 4] =
                [&["pause"], &["resume"], &["set", "chunk-time=20ms"], &["swap"]];
            for order in orders.into_iter().cycle() {
                if until.load(Ordering::Relaxed) {
                    break;
                }
                give(order, &url, &state, &noted)?;
                thread::sleep(ORDER_EVERY);
            }
            Ok(Passed::read(&list)?.attempts())
        });
        Self { enough, giving: Some(giving) }
    }

    fn end(mut self) -> Result<BTreeSet<String>> {
        self.enough.store(true, Ordering::Relaxed);
        let Some(giving) = self.giving.take() else { return Ok(BTreeSet::new()) };
        giving.join().map_err(|_| anyhow!("who gives orders panicked"))?
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        self.enough.store(true, Ordering::Relaxed);
        let _ended = self.giving.take().map(JoinHandle::join);
    }
}

/// Gives one order. It may well be refused: there may be no run yet or no more, or no program that works on it.
fn give(order: &[&str], url: &str, state: &str, noted: &str) -> Result<()> {
    let Some((verb, rest)) = order.split_first() else { bail!("an order without a verb") };
    let mut words = vec![*verb, url, "orders"];
    words.extend(rest);
    words.extend(["--state-schema", state]);
    let called = Runner::start_with(&words, &[("UNDERPIN_POINTS_LIST", noted)])?.wait(LIMIT)?;
    let code = called.ended.code;
    ensure!(matches!(code, Some(0 | 1 | 2 | 3 | 6)), "{verb}: {code:?}: {}", called.complaint());
    Ok(())
}
