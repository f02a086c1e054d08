//! Running a program for a limited time.
//!
//! Owns the clock, the end of a program that does not end by itself, and the look at the machine that
//! tells why. A run without anybody at it must never hang.

use std::io::{ErrorKind, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How often a program is asked whether it has ended.
const POLL: Duration = Duration::from_millis(50);
/// How long the end of the output is waited for once the program has ended: a server that it left
/// behind may keep the pipe open for ever.
const OUTPUT_GRACE: Duration = Duration::from_secs(5);

/// A program that ran.
#[derive(Debug)]
pub(crate) struct Ran {
    /// How it ended; `None` when it was stopped.
    pub(crate) status: Option<ExitStatus>,
    /// What it wrote to standard output, as far as it came.
    pub(crate) said: String,
    /// How long it took.
    pub(crate) seconds: u64,
}

/// Runs it in a process group of its own, and kills the group after `time`.
///
/// Standard error goes straight through: it tells of what happens while it happens.
///
/// # Errors
/// When it cannot be started or asked.
pub(crate) fn run(program: &mut Command, time: Duration) -> Result<Ran> {
    let began = Instant::now();
    let mut child = program
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting it")?;
    let said = Arc::new(Mutex::new(Vec::new()));
    let reader = child.stdout.take().map(|pipe| {
        let said = Arc::clone(&said);
        thread::spawn(move || gather(pipe, &said))
    });
    let status = loop {
        if let Some(status) = child.try_wait().context("waiting for it")? {
            break Some(status);
        }
        if began.elapsed() >= time {
            look_around();
            let group = format!("-{}", child.id());
            let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
            let _ = child.wait();
            break None;
        }
        thread::sleep(POLL);
    };
    let ended = Instant::now();
    while reader.as_ref().is_some_and(|reader| !reader.is_finished())
        && ended.elapsed() < OUTPUT_GRACE
    {
        thread::sleep(POLL);
    }
    let bytes = said.lock().map(|said| said.clone()).unwrap_or_default();
    let said = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Ran { status, said, seconds: began.elapsed().as_secs() })
}

/// Reads to the end, or until reading fails.
fn gather(mut pipe: impl Read, said: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 8192];
    loop {
        let count = match pipe.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let (Ok(mut said), Some(read)) = (said.lock(), buffer.get(..count)) else { return };
        said.extend_from_slice(read);
    }
}

/// Prints what runs, and how much memory and disk there is left.
fn look_around() {
    println!("   a program runs too long; the machine now:");
    for words in [
        &["ps", "-eo", "pid,ppid,etimes,stat,wchan:20,rss,args", "--forest"][..],
        &["df", "-h"],
        &["free", "-m"],
    ] {
        let Some((name, rest)) = words.split_first() else { continue };
        match Command::new(name).args(rest).output() {
            Ok(output) => println!("{}", clipped(&String::from_utf8_lossy(&output.stdout))),
            Err(error) => println!("{name}: {error}"),
        }
    }
}

/// Lines cut to a width that can be read.
fn clipped(text: &str) -> String {
    let clip = |line: &str| line.chars().take(200).collect::<String>();
    text.lines().map(clip).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::run;

    #[test]
    fn tells_what_was_said_and_how_it_ended() {
        let ran = run(Command::new("sh").args(["-c", "echo yes; exit 3"]), Duration::from_secs(60))
            .unwrap();
        assert_eq!((ran.said.as_str(), ran.status.unwrap().code()), ("yes\n", Some(3)));
    }

    #[test]
    fn what_does_not_end_is_stopped_with_its_children() {
        let began = Instant::now();
        let script = "echo begun; sleep 60 & sleep 60";
        let ran = run(Command::new("sh").args(["-c", script]), Duration::from_millis(300)).unwrap();
        assert_eq!((ran.said.as_str(), ran.status.is_none()), ("begun\n", true));
        assert!(began.elapsed() < Duration::from_secs(4), "it waited for the children");
    }

    #[test]
    fn a_server_left_behind_does_not_hold_the_run() {
        let began = Instant::now();
        let mut left = Command::new("sh");
        left.args(["-c", "echo done; setsid sleep 20 & exit 0"]);
        let ran = run(&mut left, Duration::from_secs(60)).unwrap();
        assert_eq!((ran.said.as_str(), ran.status.unwrap().success()), ("done\n", true));
        assert!(began.elapsed() < Duration::from_secs(15), "it waited for the pipe");
    }
}
