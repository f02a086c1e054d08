//! A server process that cannot outlive us.
//!
//! Owns the supervisor: a small shell that holds the server as its child and reads words from a
//! pipe that only this process holds. When the pipe closes, for whatever reason (normal end,
//! panic, Ctrl-C, `kill -9`), the supervisor kills the server and removes its directory. Does not
//! know databases.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};

/// `$1` is the directory to remove at the end, `$2` the signal that asks the server to end, `$3`
/// whether it has children (`family`) or is one process (`alone`); the rest is the server's command
/// line. Every word read is answered by one line, so that the caller knows it was carried out.
///
/// Children are looked for while their parent stands still: it can make no more of them. A process
/// id is used as long as its process is ours only: numbers come round again. When the caller ends
/// while a server stands still, the system tells the whole group by SIGHUP, which must not end the
/// one that is to clean up.
const SUPERVISOR: &str = r#"
dir=$1; quit=$2; kin=$3; shift 3
pid= last=
trap : HUP
children() {
  if [ "$kin" = family ]; then
    kill -STOP "$pid"
    for stat in /proc/[0-9]*/stat; do
      read -r line <"$stat" || continue
      rest=${line##*) }; rest=${rest#* }
      if [ "${rest%% *}" = "$pid" ]; then echo "${line%% *}"; fi
    done
  fi
}
gone() {
  read -r line <"/proc/$1/stat" || return 0
  rest=${line##*) }
  # dead, and whoever adopted it has not noticed
  [ "${rest%% *}" = Z ]
}
end() {
  if [ -z "$pid" ]; then return; fi
  young=$(children)
  kill -KILL "$pid" $young
  wait "$pid"
  pid=
  for child in $young; do
    tries=0
    until gone "$child" || [ $tries -gt 100 ]; do sleep 0.01; tries=$((tries + 1)); done
  done
}
exec 2>/dev/null
while read -r word; do
  case $word in
    start) "$@" >>"$dir/server.log" 2>&1 </dev/null & pid=$!; last=$pid ;;
    kill) end ;;
    terminate) if [ -n "$pid" ]; then kill "-$quit" "$pid"; wait "$pid"; pid=; fi ;;
    freeze) kill -STOP "$pid" $(children) ;;
    thaw) kill -CONT $(children) "$pid" ;;
  esac
  echo "$last"
done
end
rm -rf "$dir"
"#;

/// A word that the supervisor understands.
#[derive(Clone, Copy, Debug)]
pub(super) enum Word {
    Start,
    Kill,
    Terminate,
    Freeze,
    Thaw,
}

/// What kind of process a server is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// The signal that asks it to end without waiting for its clients, such as `TERM`.
    pub(super) quit: &'static str,
    /// Whether it works in child processes; those are killed and frozen with it.
    pub(super) family: bool,
}

/// The supervisor of one server. Dropping it ends the server and removes `dir`.
#[derive(Debug)]
pub(super) struct Supervisor {
    child: Child,
    words: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    dir: PathBuf,
}

impl Supervisor {
    /// Starts the supervisor; the server itself starts at [`Word::Start`].
    pub(super) fn new(dir: &Path, manner: Manner, command_line: &[OsString]) -> Result<Self> {
        let mut child = Command::new("sh")
            .args(["-c", SUPERVISOR, "supervisor"])
            .arg(dir)
            .args([manner.quit, if manner.family { "family" } else { "alone" }])
            .args(command_line)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // its own group: Ctrl-C on the terminal must reach us, not it
            .process_group(0)
            .spawn()
            .context("starting the supervisor (sh)")?;
        let (Some(words), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("the supervisor has no pipes");
        };
        Ok(Self {
            child,
            words: Some(words),
            answers: BufReader::new(answers),
            dir: dir.to_owned(),
        })
    }

    /// Says one word and waits until it is done; returns the server's process id.
    pub(super) fn say(&mut self, word: Word) -> Result<u32> {
        let text = match word {
            Word::Start => "start\n",
            Word::Kill => "kill\n",
            Word::Terminate => "terminate\n",
            Word::Freeze => "freeze\n",
            Word::Thaw => "thaw\n",
        };
        let words = self.words.as_mut().context("the supervisor was stopped")?;
        words.write_all(text.as_bytes()).context("telling the supervisor")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer).context("hearing the supervisor")?;
        answer.trim().parse().with_context(|| format!("the supervisor said {answer:?}"))
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        drop(self.words.take());
        let _status = self.child.wait();
        // the supervisor did this; where it was itself killed, nobody did
        let _gone = std::fs::remove_dir_all(&self.dir);
    }
}
