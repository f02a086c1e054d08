//! A TCP proxy between the product and its server, with traps on single statements.
//!
//! A trap springs when a statement that holds its words comes by: the statement is held until the test
//! lets it go or for a time, the connection is cut before or after the server has carried it out, or only
//! one of its directions is closed. So a test reaches every gap of the protocol, at will and every time.
//! Reads plain text only: the URL switches encryption off. What a statement looks like on the wire is
//! `wire`'s, what becomes of one connection `line`'s.

mod line;
mod wire;

use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use line::Line;
use wire::Wire;

use crate::servers::sql;

/// How long a statement is held at most: a test that failed must not leave threads for ever.
const HOLD_MAX: Duration = Duration::from_secs(120);

/// What a trap does to the statement that springs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It waits in the proxy until [`Trap::release`].
    Hold,
    /// It never reaches the server; both ends are closed.
    CutBefore,
    /// The server carries it out; the answer is thrown away and both ends are closed.
    CutAfter,
    /// As `CutAfter`, but the server does not learn that its client is gone.
    VanishAfter,
    /// It reaches the server so much later. Nothing is closed: the network is dead and comes back.
    StallBefore(Duration),
    /// The server carries it out; the answer and all behind it come so much later.
    StallAfter(Duration),
    /// The server carries it out and answers, and then reads the end of what its client has to say.
    DeafServer,
    /// The client reads the end of what its server has to say; what it says itself still arrives.
    DeafClient,
}

/// A trap that was set; it stays set until it has sprung as often as it may.
#[derive(Clone, Debug)]
pub struct Trap(Arc<TrapState>);

#[derive(Debug)]
struct TrapState {
    words: Vec<String>,
    /// Words of the statement before it on the same connection.
    previous: Vec<String>,
    deed: Deed,
    /// Matching statements that are let through first.
    skip: AtomicU32,
    /// How often it may spring.
    left: AtomicU32,
    sprung: AtomicU32,
    open: Mutex<bool>,
    opened: Condvar,
}

/// The proxy. Dropping it closes every connection and its port.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    wire: Wire,
    upstream: Mutex<(String, u16)>,
    /// How long every statement takes to get here, in microseconds.
    delay_us: AtomicU64,
    traps: Mutex<Vec<Trap>>,
    sockets: Mutex<Vec<TcpStream>>,
    /// From which ports the server was spoken to.
    ports: Mutex<Vec<u16>>,
    closed: AtomicBool,
    refusing: AtomicBool,
}

impl Proxy {
    /// Listens in front of the server that `url` names.
    ///
    /// # Errors
    /// When the URL has no port or no port is to be had.
    pub fn start(url: &str) -> Result<Self> {
        let wire = if sql::is_postgres(url) { Wire::Postgres } else { Wire::MySql };
        let upstream = Mutex::new(place_of(url)?);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening")?;
        let port = listener.local_addr().context("reading our port")?.port();
        let shared = Arc::new(Shared {
            wire,
            upstream,
            delay_us: AtomicU64::new(0),
            traps: Mutex::default(),
            sockets: Mutex::default(),
            ports: Mutex::default(),
            closed: AtomicBool::new(false),
            refusing: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accepting.accept(&listener));
        Ok(Self { port, shared })
    }

    /// The URL by which the server is reached through here, as its superuser and without encryption.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        let port = self.port;
        match self.shared.wire {
            Wire::MySql => format!("mysql://root@127.0.0.1:{port}/{database}?ssl-mode=disabled"),
            Wire::Postgres => {
                format!("postgres://postgres@127.0.0.1:{port}/{database}?sslmode=disable")
            }
        }
    }

    /// Lets every statement from now on take so long to reach the server, as if it were far away.
    pub fn delay(&self, delay: Duration) {
        let delay_us = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.shared.delay_us.store(delay_us, Ordering::SeqCst);
    }

    /// Sets a trap on the first statement that holds all of `words`; one that begins with `^` must stand
    /// at its beginning.
    pub fn trap(&self, words: &[&str], deed: Deed) -> Trap {
        self.trap_nth(words, 0, deed)
    }

    /// Sets a trap that lets `skip` matching statements through before it springs.
    pub fn trap_nth(&self, words: &[&str], skip: u32, deed: Deed) -> Trap {
        self.set(&[], words, skip, deed)
    }

    /// Sets a trap on the first statement with all of `words` that follows one with all of `previous`
    /// on the same connection: for words as short as `COMMIT`.
    pub fn trap_after(&self, previous: &[&str], words: &[&str], deed: Deed) -> Trap {
        self.set(previous, words, 0, deed)
    }

    fn set(&self, previous: &[&str], words: &[&str], skip: u32, deed: Deed) -> Trap {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let trap = Trap(Arc::new(TrapState {
            words: owned(words),
            previous: owned(previous),
            deed,
            skip: AtomicU32::new(skip),
            left: AtomicU32::new(1),
            sprung: AtomicU32::new(0),
            open: Mutex::new(false),
            opened: Condvar::new(),
        }));
        locked(&self.shared.traps).push(trap.clone());
        trap
    }

    /// Leads to the server of another URL from now on, as an address does after a failover; closes every
    /// connection that stands.
    ///
    /// # Errors
    /// The URL has no port.
    pub fn lead_to(&self, url: &str) -> Result<()> {
        *locked(&self.shared.upstream) = place_of(url)?;
        self.shared.close_all();
        Ok(())
    }

    /// The ports from which the server was spoken to, also those of connections that have ended: by them
    /// it knows our sessions.
    #[must_use]
    pub fn ports(&self) -> Vec<u16> {
        locked(&self.shared.ports).clone()
    }

    /// Turns every connection away and closes those that stand; with `false` lets them in again.
    pub fn refuse(&self, refusing: bool) {
        self.shared.refusing.store(refusing, Ordering::SeqCst);
        if refusing {
            self.shared.close_all();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        for trap in locked(&self.shared.traps).iter() {
            trap.release();
        }
        self.shared.close_all();
        // wakes the accepting thread, which then sees that it is over
        let _woken = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

impl Trap {
    /// How often it has sprung.
    #[must_use]
    pub fn sprung(&self) -> u32 {
        self.0.sprung.load(Ordering::SeqCst)
    }

    /// Waits until it has sprung.
    ///
    /// # Errors
    /// When it does not within `limit`.
    pub fn wait_sprung(&self, limit: Duration) -> Result<()> {
        let until = Instant::now() + limit;
        while self.sprung() == 0 {
            if Instant::now() >= until {
                bail!("no statement with {:?} came within {} s", self.0.words, limit.as_secs());
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Lets the statements go that it holds, and all later ones.
    pub fn release(&self) {
        *locked(&self.0.open) = true;
        self.0.opened.notify_all();
    }

    /// Whether this statement springs it.
    fn springs(&self, previous: &str, statement: &str) -> bool {
        let state = &self.0;
        let has = |text: &str, words: &[String]| {
            words.iter().all(|word| match word.strip_prefix('^') {
                Some(start) => text.starts_with(start),
                None => text.contains(word.as_str()),
            })
        };
        has(statement, &state.words)
            && has(previous, &state.previous)
            && !take_one(&state.skip)
            && take_one(&state.left)
    }

    fn hold(&self) {
        let open = locked(&self.0.open);
        let _released = self.0.opened.wait_timeout_while(open, HOLD_MAX, |open| !*open);
    }
}

/// Host and port of a URL.
fn place_of(url: &str) -> Result<(String, u16)> {
    let address = url.split('@').next_back().unwrap_or_default();
    let address = address.split('/').next().unwrap_or_default();
    let (host, port) = address.split_once(':').context("the URL has no port")?;
    Ok((host.to_owned(), port.parse().context("reading the port")?))
}

/// Takes one away; false where none was left.
fn take_one(number: &AtomicU32) -> bool {
    number.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            if self.closed.load(Ordering::SeqCst) {
                return;
            }
            let Ok(client) = client else { continue };
            if !self.refusing.load(Ordering::SeqCst) {
                // a server that is away refuses the client, and so do we
                let _refused = self.connect(client);
            }
        }
    }

    fn connect(self: &Arc<Self>, client: TcpStream) -> Result<()> {
        let upstream = locked(&self.upstream).clone();
        let server = TcpStream::connect(upstream)?;
        locked(&self.ports).push(server.local_addr()?.port());
        for socket in [&client, &server] {
            socket.set_nodelay(true)?;
            locked(&self.sockets).push(socket.try_clone()?);
        }
        let line = Line::new(client, server);
        let back = line.try_clone()?;
        let shared = Arc::clone(self);
        thread::spawn(move || {
            let _ended = line.forward(&shared);
            line.close();
        });
        thread::spawn(move || {
            let _ended = back.answer();
            back.close();
        });
        Ok(())
    }

    fn close_all(&self) {
        for socket in locked(&self.sockets).drain(..) {
            let _gone = socket.shutdown(Shutdown::Both);
        }
    }

    fn trap_for(&self, previous: &str, statement: &str) -> Option<Trap> {
        let traps = locked(&self.traps);
        traps.iter().find(|trap| trap.springs(previous, statement)).cloned()
    }
}
