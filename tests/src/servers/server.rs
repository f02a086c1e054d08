//! One running server: its address, its process, its end.
//!
//! Owns starting and stopping. Replication is `pair`'s.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use super::process::{Manner, Supervisor, Word};
use super::program::{self, Place};
use super::{Flavor, ServerSpec, paths, pg, postgres, sql};

const START_LIMIT: Duration = Duration::from_secs(60);
const PORT_TRIES: u32 = 5;

/// A server of ours on 127.0.0.1. Dropping it ends the server and removes its data.
#[derive(Debug)]
pub struct Server {
    flavor: Flavor,
    port: u16,
    dir: PathBuf,
    supervisor: Mutex<(Supervisor, u32)>,
}

impl Server {
    /// Starts a server as `spec` wants it and waits until it answers.
    ///
    /// # Errors
    /// When it cannot be fetched or does not come up; the error ends with the server's log.
    pub fn start(spec: &ServerSpec, replica: bool) -> Result<Self> {
        Self::start_as(spec, replica, None)
    }

    /// Starts a PostgreSQL server as a replica of the one at `primary_port`, which must be as new.
    pub(super) fn start_standby(spec: &ServerSpec, primary_port: u16) -> Result<Self> {
        Self::start_as(spec, true, Some(primary_port))
    }

    fn start_as(spec: &ServerSpec, replica: bool, follows: Option<u16>) -> Result<Self> {
        let program = program::template(spec.flavor)?;
        let mut last = anyhow!("no port tried");
        for _ in 0..PORT_TRIES {
            let port = free_port()?;
            let dir = new_run_dir(spec.flavor)?;
            let data_dir = dir.join("data");
            program::copy_template(&program.template, &data_dir)?;
            let server_id = u32::from(port);
            let place = Place { data_dir: &data_dir, port, server_id, replica, follows };
            if let Some(primary_port) = follows {
                postgres::follow(&data_dir, primary_port)?;
            }
            let command_line = program.command_line(spec, &place)?;
            let mut supervisor = Supervisor::new(&dir, manner(spec.flavor), &command_line)?;
            let pid = supervisor.say(Word::Start)?;
            let supervisor = Mutex::new((supervisor, pid));
            let server = Self { flavor: spec.flavor, port, dir, supervisor };
            match server.wait_ready() {
                Ok(()) => return Ok(server),
                // another process may have taken the port between the choice and the start
                Err(error) if server.log().contains("Address already in use") => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last.context("every port that was tried was taken by somebody else"))
    }

    /// Which server this is.
    #[must_use]
    pub const fn flavor(&self) -> Flavor {
        self.flavor
    }

    /// `mysql://root@127.0.0.1:PORT/` or `postgres://postgres@127.0.0.1:PORT/`: the superuser, no
    /// password, no database.
    #[must_use]
    pub fn url(&self) -> String {
        let who = if self.flavor.is_postgres() { "postgres://postgres" } else { "mysql://root" };
        format!("{who}@127.0.0.1:{}/", self.port)
    }

    /// The TCP port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The server's data directory; its socket is in it, `server.sock` or `.s.PGSQL.PORT`.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The server's process id; after [`Self::restart`] another one.
    #[must_use]
    pub fn pid(&self) -> u32 {
        match self.supervisor.lock() {
            Ok(guard) => guard.1,
            Err(poisoned) => poisoned.into_inner().1,
        }
    }

    /// Kills the server without warning and waits until it is gone. The data stay.
    ///
    /// # Errors
    /// When the supervisor does not answer.
    pub fn kill9(&self) -> Result<()> {
        self.say(Word::Kill)
    }

    /// Asks the server to shut down and waits until it has (a MySQL primary takes some 10 s).
    ///
    /// # Errors
    /// When the supervisor does not answer.
    pub fn terminate(&self) -> Result<()> {
        self.say(Word::Terminate)
    }

    /// Stops the process where it stands: it holds its port and connections, and answers nothing.
    ///
    /// # Errors
    /// When the supervisor does not answer.
    pub fn freeze(&self) -> Result<()> {
        self.say(Word::Freeze)
    }

    /// Lets a frozen process go on.
    ///
    /// # Errors
    /// When the supervisor does not answer.
    pub fn thaw(&self) -> Result<()> {
        self.say(Word::Thaw)
    }

    /// Starts the server again, same data, same port, and waits until it answers. A server that
    /// still runs is killed first.
    ///
    /// # Errors
    /// When it does not come up; the error ends with the server's log.
    pub fn restart(&self) -> Result<()> {
        self.say(Word::Kill)?;
        self.say(Word::Start)?;
        self.wait_ready()
    }

    /// What the server wrote to its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(self.dir.join("server.log"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    fn say(&self, word: Word) -> Result<()> {
        let mut guard =
            self.supervisor.lock().map_err(|_| anyhow!("another test panicked holding it"))?;
        guard.1 = guard.0.say(word)?;
        Ok(())
    }

    fn wait_ready(&self) -> Result<()> {
        let stat = format!("/proc/{}/stat", self.pid());
        let data_dir = self.data_dir();
        sql::wait_until("the server answers", START_LIMIT, || {
            // dead is also one whose end its supervisor has not noticed yet
            let state = fs::read_to_string(&stat).unwrap_or_default();
            if state
                .rsplit(')')
                .next()
                .is_none_or(|rest| rest.trim().is_empty() || rest.starts_with(" Z"))
            {
                bail!("the server ended by itself");
            }
            // a stranger on our port is not our server
            let answer = self.ask_data_dir();
            Ok(answer.is_some_and(|dir| Path::new(&dir) == data_dir))
        })
        .with_context(|| self.explain())
    }

    /// The data directory of whoever answers on our port.
    fn ask_data_dir(&self) -> Option<String> {
        if self.flavor.is_postgres() {
            return pg::first_value(&self.url(), "SHOW data_directory").ok().flatten();
        }
        let row = sql::first_row(&self.url(), "SELECT @@datadir");
        row.ok().flatten().and_then(|row| row.get(0))
    }

    fn explain(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(25)..).unwrap_or_default();
        let name = self.flavor.name();
        format!("starting {name} on port {}; its log ends:\n{}", self.port, tail.join("\n"))
    }
}

/// PostgreSQL works in many processes, and takes SIGTERM for a wish to wait for its clients.
const fn manner(flavor: Flavor) -> Manner {
    let family = flavor.is_postgres();
    Manner { quit: if family { "INT" } else { "TERM" }, family }
}

/// A directory of its own for one server's data and log.
fn new_run_dir(flavor: Flavor) -> Result<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let dir = paths::run_dir()?.join(format!("{}-{}-{number}", flavor.name(), std::process::id()));
    if dir.exists() {
        // an earlier process of the same id died together with its supervisor
        fs::remove_dir_all(&dir).with_context(|| format!("clearing {}", dir.display()))?;
    }
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    Ok(dir)
}

/// A free port below the range from which the system draws ports for outgoing connections, so
/// that none of those can take it while the server restarts.
fn free_port() -> Result<u16> {
    for _ in 0..200 {
        let dice = RandomState::new().build_hasher().finish() % 12_000;
        let port = 20_000 + u16::try_from(dice).context("drawing a port")?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port found between 20000 and 32000")
}
