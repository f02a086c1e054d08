//! The built `underpin`, started and left running: a test watches its events and may kill it.
//!
//! For a call that is simply waited for, see `cli`.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::cli::{self, Called};
use crate::product::Ended;

const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A call under way. Dropping it kills the program.
#[derive(Debug)]
pub struct Runner {
    child: Child,
    began: Instant,
    events: Arc<Mutex<Vec<Value>>>,
    readers: Vec<JoinHandle<()>>,
    stderr: Arc<Mutex<String>>,
}

impl Runner {
    /// Starts `underpin WORDS --output json`.
    ///
    /// # Errors
    /// When it cannot be built or started.
    pub fn start(words: &[&str]) -> Result<Self> {
        Self::start_with(words, &[])
    }

    /// The same with `more` in its environment.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(words: &[&str], more: &[(&str, &str)]) -> Result<Self> {
        let mut child = Command::new(cli::program()?)
            .args(words)
            .args(crate::product::at_once(words))
            .args(["--output", "json"])
            .envs(more.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting underpin")?;
        let (Some(stdout), Some(mut errors)) = (child.stdout.take(), child.stderr.take()) else {
            bail!("underpin has no pipes");
        };
        let events = Arc::new(Mutex::new(Vec::new()));
        let stderr = Arc::new(Mutex::new(String::new()));
        let (heard, complaint) = (Arc::clone(&events), Arc::clone(&stderr));
        let readers = vec![
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if let Ok(event) = serde_json::from_str(&line) {
                        locked(&heard).push(event);
                    }
                }
            }),
            thread::spawn(move || {
                let mut bytes = Vec::new();
                let _until_closed = errors.read_to_end(&mut bytes);
                *locked(&complaint) = String::from_utf8_lossy(&bytes).into_owned();
            }),
        ];
        Ok(Self { child, began: Instant::now(), events, readers, stderr })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The events so far.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        locked(&self.events).clone()
    }

    /// The first event so far that `wanted` accepts.
    pub fn find(&self, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
        locked(&self.events).iter().find(|event| wanted(event)).cloned()
    }

    /// Whether it has ended.
    ///
    /// # Errors
    /// The system's.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().context("asking for underpin")?.is_some())
    }

    /// Waits for an event that `wanted` accepts; `None` when the program ends without one.
    ///
    /// # Errors
    /// When neither comes within `limit`; shows the events there were.
    pub fn wait_for(
        &mut self,
        limit: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Option<Value>> {
        let until = Instant::now() + limit;
        while Instant::now() < until {
            let ended = self.has_ended()?;
            if ended {
                self.join();
            }
            if let Some(event) = self.find(&wanted) {
                return Ok(Some(event));
            }
            if ended {
                return Ok(None);
            }
            thread::sleep(LOOK_EVERY);
        }
        bail!("an event did not come within {} s: {}", limit.as_secs(), self.story())
    }

    /// Waits until the phase begins; false when the program ends without it.
    ///
    /// # Errors
    /// As [`Self::wait_for`].
    pub fn wait_phase(&mut self, phase: &str, limit: Duration) -> Result<bool> {
        let found =
            self.wait_for(limit, |event| event["event"] == "phase" && event["phase"] == phase)?;
        Ok(found.is_some())
    }

    /// The last events, each in a line; of those that repeat themselves (progress) only the newest.
    #[must_use]
    pub fn story(&self) -> String {
        story(&self.events())
    }

    /// Sends it a signal by its name, as `STOP`.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn signal(&self, name: &str) -> Result<()> {
        let pid = self.pid().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().context("kill")?;
        ensure!(status.success(), "sending {name} to {pid}");
        Ok(())
    }

    /// Kills it without warning and waits until it is gone.
    ///
    /// # Errors
    /// The system's.
    pub fn kill9(mut self) -> Result<Called> {
        self.child.kill().context("killing underpin")?;
        self.end()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end within `limit`; it is killed then.
    pub fn wait(mut self, limit: Duration) -> Result<Called> {
        let until = Instant::now() + limit;
        while !self.has_ended()? {
            if Instant::now() >= until {
                bail!("underpin has not ended within {} s: {}", limit.as_secs(), self.story());
            }
            thread::sleep(LOOK_EVERY);
        }
        self.end()
    }

    fn end(&mut self) -> Result<Called> {
        let status = self.child.wait().context("waiting for underpin")?;
        self.join();
        let events = self.events();
        let named = |name: &str| events.iter().rfind(|event| event["event"] == name).cloned();
        let names = events.iter().filter_map(|event| event["event"].as_str());
        let ended = Ended {
            code: status.code(),
            took: self.began.elapsed(),
            done: named("done").unwrap_or_default(),
            notable: names
                .filter(|name| !["progress", "phase"].contains(name))
                .map(str::to_owned)
                .collect(),
            memory_peak_bytes: 0,
            stderr: locked(&self.stderr).clone(),
        };
        Ok(Called { ended, events })
    }

    fn join(&mut self) {
        for reader in self.readers.drain(..) {
            let _ended = reader.join();
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// See [`Runner::story`].
#[must_use]
pub fn story(events: &[Value]) -> String {
    let last = events.len().saturating_sub(1);
    let told = events
        .iter()
        .enumerate()
        .filter(|(index, event)| *index == last || event["event"] != "progress")
        .map(|(_, event)| event.to_string());
    let told: Vec<String> = told.collect();
    told.get(told.len().saturating_sub(12)..).unwrap_or_default().join("\n  ")
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
