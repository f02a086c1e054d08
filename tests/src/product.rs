//! The real `underpin`, called as a user calls it.
//!
//! Owns starting it, reading its events and watching its memory. Takes the events as they come: a
//! field that is missing reads as nothing, so that an older product still runs.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

const MEMORY_POLL: Duration = Duration::from_millis(50);

/// Where the product's program is, and how long a call of it may take.
#[derive(Clone, Debug)]
pub struct Product(PathBuf, Option<Duration>);

/// One call of the product, ended.
#[derive(Clone, Debug, Default)]
pub struct Ended {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Wall time from start to end.
    pub took: Duration,
    /// The last event of name `done`; null when there was none.
    pub done: Value,
    /// Every event that is neither progress nor a phase, by name and in order.
    pub notable: Vec<String>,
    /// The most memory it held (resident, bytes), as far as was seen.
    pub memory_peak_bytes: u64,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Product {
    /// The program that `UNDERPIN_BIN` names, else the one beside this program.
    ///
    /// # Errors
    /// When there is none; says how to build it.
    pub fn find() -> Result<Self> {
        let path = match std::env::var_os("UNDERPIN_BIN") {
            Some(path) => PathBuf::from(path),
            None => std::env::current_exe().context("finding myself")?.with_file_name("underpin"),
        };
        Self::at(path)
    }

    /// The program at `path`.
    ///
    /// # Errors
    /// When there is none; says how to build it.
    pub fn at(path: PathBuf) -> Result<Self> {
        if !path.is_file() {
            let path = path.display();
            bail!("there is no program {path}: cargo build --release -p underpin");
        }
        Ok(Self(path, None))
    }

    /// The same program, each call of which is killed after `limit`, so that one that hangs fails the test
    /// that called it and no other.
    #[must_use]
    pub fn limited(self, limit: Duration) -> Self {
        Self(self.0, Some(limit))
    }

    /// Runs `underpin WORDS --output json` to its end; each event is shown to `on_event`.
    ///
    /// # Errors
    /// When it cannot be started. How it ended is in the value returned.
    pub fn call(&self, words: &[&str], mut on_event: impl FnMut(&Value)) -> Result<Ended> {
        let began = Instant::now();
        let mut child = Command::new(&self.0)
            .args(words)
            .args(at_once(words))
            .args(["--output", "json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", self.0.display()))?;
        let ended = Arc::new(AtomicBool::new(false));
        let memory = watch(child.id(), self.1.map(|limit| began + limit), Arc::clone(&ended));
        let stderr = child.stderr.take().map(|pipe| thread::spawn(move || drain(pipe)));
        let mut call = Ended::default();
        if let Some(stdout) = child.stdout.take() {
            for line in BufReader::new(stdout).lines() {
                let line = line.context("reading events")?;
                // a line that is no JSON is no event; the exit code tells whether all went well
                let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
                call.note(&event);
                on_event(&event);
            }
        }
        let status = child.wait().context("waiting for underpin")?;
        call.took = began.elapsed();
        call.code = status.code();
        ended.store(true, Ordering::Relaxed);
        let (peak, killed) = memory.join().map_err(|_| anyhow!("watching it panicked"))?;
        call.memory_peak_bytes = peak;
        if let Some(reader) = stderr {
            call.stderr = reader.join().map_err(|_| anyhow!("reading its errors panicked"))?;
        }
        if killed {
            let seconds = call.took.as_secs();
            call.stderr.push_str(&format!("\nkilled by the test: not ended after {seconds} s"));
        }
        Ok(call)
    }
}

impl Ended {
    fn note(&mut self, event: &Value) {
        match event.get("event").and_then(Value::as_str).unwrap_or("?") {
            "progress" | "phase" => {}
            name => {
                self.notable.push(name.to_owned());
                if name == "done" {
                    self.done = event.clone();
                }
            }
        }
    }

    /// A number of the `done` event.
    #[must_use]
    pub fn number(&self, field: &str) -> Option<u64> {
        self.done.get(field).and_then(Value::as_u64)
    }

    /// The verdict of the product's own verification, `-` when it gave none.
    #[must_use]
    pub fn verdict(&self) -> String {
        match self.done.get("verified") {
            Some(Value::String(verdict)) => verdict.clone(),
            Some(Value::Bool(true)) => "equal".to_owned(),
            _ => "-".to_owned(),
        }
    }
}

fn drain(mut pipe: impl Read) -> String {
    let mut bytes = Vec::new();
    let _until_closed = pipe.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Its peak of memory, and whether it was killed because it ran for too long. The kernel keeps the peak
/// itself; it is gone with the process, so it is read again and again.
fn watch(
    pid: u32,
    until: Option<Instant>,
    ended: Arc<AtomicBool>,
) -> thread::JoinHandle<(u64, bool)> {
    thread::spawn(move || {
        let status = format!("/proc/{pid}/status");
        let (mut peak, mut killed) = (0, false);
        while !ended.load(Ordering::Relaxed) {
            peak = std::cmp::max(peak, resident_peak(Path::new(&status)).unwrap_or(0));
            if !killed && until.is_some_and(|until| Instant::now() > until) {
                let kill = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
                killed = kill.is_ok_and(|status| status.success());
            }
            thread::sleep(MEMORY_POLL);
        }
        (peak, killed)
    })
}

fn resident_peak(status: &Path) -> Option<u64> {
    let text = fs::read_to_string(status).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// Words that keep a run from watching statements for seconds after the swap: here nobody looks at them,
/// unless the test says so itself.
pub fn at_once(words: &[&str]) -> &'static [&'static str] {
    let is_said = words.contains(&"--compare-after");
    if words.first() == Some(&"run") && !is_said { &["--compare-after", "0s"] } else { &[] }
}

#[cfg(test)]
mod tests {
    use super::Product;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    #[test]
    fn a_call_that_does_not_end_is_killed_and_says_so() {
        let product = Product("/bin/sh".into(), None).limited(Duration::from_millis(300));
        let ended = product.call(&["-c", "exec sleep 60"], |_| ()).unwrap();
        assert!(ended.code.is_none() && ended.took < Duration::from_secs(30), "{ended:?}");
        assert!(ended.stderr.contains("killed by the test"), "{ended:?}");
    }

    #[test]
    fn reads_events_and_ends_of_a_program() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("product");
        let script = "#!/bin/sh\n\
            echo '{\"event\":\"plan\"}'; echo noise; echo '{\"event\":\"progress\",\"rows\":1}'\n\
            echo oops >&2; sleep 0.2\n\
            echo \"{\\\"event\\\":\\\"done\\\",\\\"rows_copied\\\":7,\\\"verified\\\":\\\"equal\\\"}\"\n\
            test \"$*\" = 'plan it --output json' || exit 9\nexit 3\n";
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let mut events = 0;
        let ended = Product(path, None).call(&["plan", "it"], |_| events += 1).unwrap();
        assert_eq!((ended.code, events), (Some(3), 3));
        assert_eq!(ended.notable, ["plan", "done"]);
        assert_eq!((ended.number("rows_copied"), ended.number("none")), (Some(7), None));
        assert_eq!((ended.verdict().as_str(), ended.stderr.as_str()), ("equal", "oops\n"));
        assert!(ended.memory_peak_bytes > 0);
    }
}
