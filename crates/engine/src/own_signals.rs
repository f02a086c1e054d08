//! The user's own signals that are not in the database: a flag file, an address that is asked over
//! HTTP.
//!
//! Owns how they are written, read and bounded. Each is read by a thread of its own, because a file on
//! a network that is away can block for ever: its reading grows old then, which stops the copy, and
//! holds up neither another signal nor the end of the program.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use underpin_core::signal::{FLAG, Limit, Reading, Unit};
use ureq::Agent;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::first_line::first_line;

/// Time between two looks at a file: what it says is obeyed within a second.
const FILE_EVERY: Duration = Duration::from_millis(250);

/// Time between the end of a question and the next one.
const URL_EVERY: Duration = Duration::from_millis(500);

/// Bound on one question, from the name's resolution to the end of the answer.
const URL_LIMIT: Duration = Duration::from_secs(2);

/// Bytes of an answer at most, and of a file that are looked at.
const TEXT_BYTES: u64 = 4096;

/// What is said of a signal before its first reading.
const NOT_YET: &str = "not read yet";

/// What is said of a flag file that says nothing.
const THERE: &str = "the file is there";

/// Names that signals of ours have.
const TAKEN: [&str; 12] = {
    use underpin_core::signal as own;
    [
        own::LAG,
        own::LAG_BYTES,
        own::SLOT_SHARE,
        own::WRITE_LATENCY,
        own::RUNNING,
        own::LOCK_WAITS,
        own::HISTORY,
        own::CHECKPOINT,
        own::SLOT_BYTES,
        own::ARCHIVE,
        own::DISK_FREE,
        own::FLAG,
    ]
};

/// Reads the name of a signal of the user's.
///
/// # Errors
/// A text that says how it is written.
pub fn signal_name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    let is_short = (1..=40).contains(&text.len());
    if !is_short || !text.chars().all(fits) {
        return Err(format!("`{text}` is no name: write small letters, digits, - and _, up to 40"));
    }
    if TAKEN.contains(&text) {
        return Err(format!("`{text}` is the name of a signal that there is already"));
    }
    Ok(text.to_owned())
}

/// A file whose being there pauses the copy. Its first line is the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagFile {
    path: PathBuf,
}

impl FlagFile {
    /// A file that need not be there.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    fn read(&self) -> Reading {
        let of = self.path.display().to_string();
        match fs::metadata(&self.path) {
            Ok(found) => Reading {
                error: if found.is_file() { self.first_line() } else { THERE.to_owned() },
                ..Reading::new(FLAG, &of, "file", Unit::Count, 1.0)
            },
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Reading::new(FLAG, &of, "file", Unit::Count, 0.0)
            }
            Err(error) => self.unreadable(&error.to_string()),
        }
    }

    fn unreadable(&self, why: &str) -> Reading {
        Reading::unreadable(FLAG, &self.path.display().to_string(), "file", Unit::Count, why)
    }

    /// That it is there suffices, also where it cannot be read.
    fn first_line(&self) -> String {
        let mut bytes = Vec::new();
        let read = fs::File::open(&self.path).map(|file| file.take(TEXT_BYTES));
        let _ = read.and_then(|mut file| file.read_to_end(&mut bytes));
        Some(first_line(&bytes)).filter(|line| !line.is_empty()).unwrap_or_else(|| THERE.to_owned())
    }
}

/// What is wanted of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// A number in its body, which has a limit.
    Number,
    /// A status: 200 to 299 lets the copy go on, anything else pauses it.
    Status,
}

/// An address that is asked over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlSignal {
    name: String,
    url: Uri,
    wanted: Wanted,
}

impl UrlSignal {
    /// Reads `NAME=URL`. Where `limits` name it, its answer is a number; otherwise its status counts.
    ///
    /// # Errors
    /// A text that says how it is written.
    pub fn read(text: &str, limits: &[Limit]) -> Result<Self, String> {
        let how = "write NAME=URL, as `queue=http://metrics.local:9090/depth`";
        let (name, url) = text.split_once('=').ok_or(how)?;
        let name = signal_name(name.trim())?;
        let url: Uri = url.trim().parse().map_err(|why| format!("`{url}`: {why}; {how}"))?;
        let (Some(scheme), Some(authority)) = (url.scheme_str(), url.authority()) else {
            return Err(format!("`{url}` is no whole address; {how}"));
        };
        if !matches!(scheme, "http" | "https") {
            return Err(format!("`{scheme}` is not known: http or https"));
        }
        if authority.as_str().contains('@') {
            return Err("an address with a password in it would be seen by others; it is not \
                        taken"
                .to_owned());
        }
        let has_limit = limits.iter().any(|limit| limit.name == name);
        let wanted = if has_limit { Wanted::Number } else { Wanted::Status };
        Ok(Self { name, url, wanted })
    }

    /// The address without its parameters, which may hold a secret.
    fn shown(&self) -> String {
        let scheme = self.url.scheme_str().unwrap_or_default();
        let host = self.url.authority().map_or("", |authority| authority.as_str());
        format!("{scheme}://{host}{}", self.url.path())
    }

    fn unreadable(&self, why: &str) -> Reading {
        Reading::unreadable(&self.name, &self.shown(), "http", Unit::Count, why)
    }

    fn ask(&self, agent: &Agent) -> Reading {
        let of = self.shown();
        let readable = |value: f64, said: String| Reading {
            error: said,
            ..Reading::new(&self.name, &of, "http", Unit::Count, value)
        };
        let mut answer = match agent.get(self.url.clone()).call() {
            Ok(answer) => answer,
            Err(error) => return self.unreadable(&error.to_string()),
        };
        let status = answer.status();
        let body = answer.body_mut().with_config().limit(TEXT_BYTES).read_to_vec();
        match (self.wanted, status.is_success(), body) {
            (Wanted::Status, true, _) => readable(0.0, String::new()),
            // An answer that is no yes: its words are the reason.
            (Wanted::Status, false, body) => readable(1.0, refusal(status, body.ok().as_deref())),
            (Wanted::Number, false, body) => {
                self.unreadable(&refusal(status, body.ok().as_deref()))
            }
            (Wanted::Number, true, Err(error)) => self.unreadable(&error.to_string()),
            (Wanted::Number, true, Ok(body)) => match number(&body) {
                Some(value) => readable(value, String::new()),
                None => self.unreadable(&format!("it is no number: {}", first_line(&body))),
            },
        }
    }
}

fn refusal(status: ureq::http::StatusCode, body: Option<&[u8]>) -> String {
    let said = body.map(first_line).unwrap_or_default();
    match (status.is_redirection(), said.is_empty()) {
        (true, _) => format!("{status}: redirections are not followed"),
        (false, true) => status.to_string(),
        (false, false) => format!("{status}: {said}"),
    }
}

/// The whole answer as one number.
fn number(body: &[u8]) -> Option<f64> {
    let value: f64 = std::str::from_utf8(body).ok()?.trim().parse().ok()?;
    value.is_finite().then_some(value)
}

/// Asks directly (proxies are for ways out of the house), follows no redirection, trusts whom this
/// machine trusts, so also a house's own authority.
fn agent(url: &Uri) -> Agent {
    let roots: Vec<Certificate<'static>> = match url.scheme_str() {
        Some("https") => {
            let found = rustls_native_certs::load_native_certs().certs;
            found.iter().map(|root| Certificate::from_der(root).to_owned()).collect()
        }
        _ => Vec::new(),
    };
    let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&roots)).build();
    Agent::config_builder()
        .timeout_global(Some(URL_LIMIT))
        .max_redirects(0)
        .http_status_as_error(false)
        .proxy(None)
        // A connection that is kept open may have died meanwhile.
        .max_idle_connections(0)
        .user_agent(concat!("underpin/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls)
        .build()
        .new_agent()
}

/// All signals of the user's that are not in the database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnSignals {
    /// Files.
    pub files: Vec<FlagFile>,
    /// Addresses.
    pub urls: Vec<UrlSignal>,
}

impl OwnSignals {
    /// The limits of those that say yes or no: to be added to the limits of the run.
    pub fn limits(&self) -> Vec<Limit> {
        let flag = self.files.first().map(|_| FLAG.to_owned());
        let yes_or_no = self.urls.iter().filter(|url| url.wanted == Wanted::Status);
        let names = flag.into_iter().chain(yes_or_no.map(|url| url.name.clone()));
        names.map(|name| Limit { name, pause_at: Some(1.0), abort_at: None }).collect()
    }

    /// Begins to read them.
    ///
    /// # Errors
    /// The system lets us start no thread.
    pub(crate) fn watch(&self) -> std::io::Result<Watcher> {
        let mut watcher = Watcher { newest: Vec::new() };
        for file in &self.files {
            let file = file.clone();
            let first = file.unreadable(NOT_YET);
            watcher.add(FILE_EVERY, first, move || file.read())?;
        }
        for url in &self.urls {
            let url = url.clone();
            let agent = agent(&url.url);
            let first = url.unreadable(NOT_YET);
            watcher.add(URL_EVERY, first, move || url.ask(&agent))?;
        }
        Ok(watcher)
    }
}

/// The newest reading of one signal, and when it was had.
type Newest = Mutex<(Reading, Instant)>;

/// Reads the user's signals as long as it lives.
#[derive(Debug, Default)]
pub(crate) struct Watcher {
    newest: Vec<Arc<Newest>>,
}

impl Watcher {
    /// The newest reading of each, with its age. Never waits; one that has not been read yet is
    /// unreadable.
    pub(crate) fn readings(&self) -> Vec<Reading> {
        let aged = |newest: &Arc<Newest>| {
            let (mut reading, had_at) = locked(newest).clone();
            reading.age_ms = u64::try_from(had_at.elapsed().as_millis()).unwrap_or(u64::MAX);
            reading
        };
        self.newest.iter().map(aged).collect()
    }

    /// `first`: what counts until it has been read.
    fn add(
        &mut self,
        every: Duration,
        first: Reading,
        read: impl Fn() -> Reading + Send + 'static,
    ) -> std::io::Result<()> {
        let newest = Arc::new(Mutex::new((first, Instant::now())));
        let watched = Arc::downgrade(&newest);
        self.newest.push(newest);
        let name = "own signal".to_owned();
        // Ends when the watcher is gone; nobody waits for it.
        thread::Builder::new().name(name).spawn(move || {
            while watched.strong_count() > 0 {
                let reading = read();
                let Some(newest) = watched.upgrade() else { return };
                *locked(&newest) = (reading, Instant::now());
                drop(newest);
                thread::sleep(every);
            }
        })?;
        Ok(())
    }
}

fn locked(newest: &Newest) -> MutexGuard<'_, (Reading, Instant)> {
    newest.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
