//! Runs one command for one event: no shell, a bound on its time, and no more of its output kept than
//! is shown.
//!
//! A command that takes too long is ended together with everything that it has started: it is the
//! leader of a process group of its own. One that ends by itself may leave something running.

use std::fmt;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::HookCommand;
use crate::first_line::first_line;

/// What is kept of what a command says, on each of its outputs.
const KEPT_BYTES: usize = 4096;

/// How long a command that has ended may go on to say something (through what it has left running).
const SAID_WAIT: Duration = Duration::from_millis(200);

/// Variables in which this program was given a password: a command is told of the run, not let into the
/// database.
const SECRETS: [&str; 2] = ["MYSQL_PWD", "PGPASSWORD"];

/// Between asking a command to end and ending it.
pub(super) const GRACE: Duration = Duration::from_millis(500);

/// How a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Complaint {
    /// It ran and answered with another exit code than 0.
    pub(super) is_answer: bool,
    /// As "ended with exit code 3".
    pub(super) how: String,
    /// The first line that it said; empty where it said nothing.
    pub(super) said: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.said.is_empty() {
            true => f.write_str(&self.how),
            false => write!(f, "{}: {}", self.how, self.said),
        }
    }
}

/// Runs the command with `input` on its standard input. Good is only an end with exit code 0 in time.
pub(super) async fn run(
    command: &HookCommand,
    environment: &[(&str, String)],
    input: Vec<u8>,
    limit: Duration,
) -> Result<(), Complaint> {
    let silent = |how: String| Complaint { is_answer: false, how, said: String::new() };
    let mut running = Running::begin(command, environment)
        .map_err(|error| silent(format!("`{command}` could not be started: {error}")))?;
    let feed = running.child.stdin.take().map(|stdin| tokio::spawn(feed(stdin, input)));
    let said = Said::listen(&mut running.child);
    let ended = timeout(limit, running.child.wait()).await;
    if ended.is_err() {
        running.end().await;
    }
    if let Some(feed) = feed {
        // Whatever has not read it by now does not want it.
        feed.abort();
    }
    let said = said.first_line().await;
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => {
            Err(Complaint { is_answer: status.code().is_some(), how: how_ended(status), said })
        }
        Ok(Err(error)) => Err(silent(format!("its end could not be waited for: {error}"))),
        Err(_) => {
            let how = format!("took longer than {} ms and was ended", limit.as_millis());
            Err(Complaint { is_answer: false, how, said })
        }
    }
}

fn how_ended(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("ended with exit code {code}"),
        None => format!("was killed ({status})"),
    }
}

/// A command that does not read is no fault: it may have no use for it.
async fn feed(mut stdin: ChildStdin, input: Vec<u8>) {
    let _ = stdin.write_all(&input).await;
    let _ = stdin.shutdown().await;
}

/// A command under way. Dropped before its end (this program gives up on it), everything that it has
/// started is ended.
struct Running {
    child: Child,
}

impl Running {
    fn begin(command: &HookCommand, environment: &[(&str, String)]) -> std::io::Result<Self> {
        let mut words = command.words.iter();
        let mut process = Command::new(words.next().map_or("", String::as_str));
        process
            .args(words)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        for name in SECRETS {
            process.env_remove(name);
        }
        // Also keeps a Ctrl-C on our terminal from it: that stops the run, which is then told to it.
        #[cfg(unix)]
        process.process_group(0);
        Ok(Self { child: process.spawn()? })
    }

    /// Ends it and everything that it has started.
    async fn end(&mut self) {
        // Until it is waited for, no other process can have its number, nor its group's.
        self.signal(false);
        sleep(GRACE).await;
        self.signal(true);
        let _ = self.child.start_kill();
        let _ = timeout(GRACE, self.child.wait()).await;
    }

    #[cfg(unix)]
    fn signal(&self, is_last: bool) {
        use rustix::process::{Pid, Signal, kill_process_group};

        // `None` once it has been waited for.
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(id) = id {
            let signal = if is_last { Signal::KILL } else { Signal::TERM };
            let _ = kill_process_group(id, signal);
        }
    }

    #[cfg(not(unix))]
    fn signal(&self, _is_last: bool) {}
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(true);
    }
}

/// What a command says, as it says it.
struct Said {
    /// Standard error, then standard output.
    kept: [Arc<Mutex<Vec<u8>>>; 2],
    tasks: Vec<JoinHandle<()>>,
}

impl Said {
    fn listen(child: &mut Child) -> Self {
        let kept: [Arc<Mutex<Vec<u8>>>; 2] = Default::default();
        let mut tasks = Vec::new();
        if let Some(stderr) = child.stderr.take() {
            tasks.push(tokio::spawn(keep(stderr, Arc::clone(&kept[0]))));
        }
        if let Some(stdout) = child.stdout.take() {
            tasks.push(tokio::spawn(keep(stdout, Arc::clone(&kept[1]))));
        }
        Self { kept, tasks }
    }

    async fn first_line(mut self) -> String {
        let all_said = async {
            for task in &mut self.tasks {
                let _ = task.await;
            }
        };
        if timeout(SAID_WAIT, all_said).await.is_err() {
            self.tasks.iter().for_each(JoinHandle::abort);
        }
        let lines = self
            .kept
            .iter()
            .map(|kept| first_line(&kept.lock().unwrap_or_else(PoisonError::into_inner)));
        lines.into_iter().find(|line| !line.is_empty()).unwrap_or_default()
    }
}

/// Reads to the end, so that the command is never held up, and keeps the beginning.
async fn keep(mut output: impl AsyncRead + Unpin, kept: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = [0_u8; 4096];
    // Ends when everybody who can write has ended; aborted otherwise.
    while let Ok(read @ 1..) = output.read(&mut buffer).await {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let room = KEPT_BYTES.saturating_sub(kept.len());
        kept.extend(buffer.iter().take(std::cmp::min(read, room)));
    }
}
