//! One connection through the proxy, both ways, and what becomes of it when a trap has sprung.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Deed, Shared, Trap};

/// One connection, both ways.
pub(super) struct Line {
    client: TcpStream,
    server: TcpStream,
    fate: Arc<Fate>,
}

/// What becomes of the connection with the next answer.
#[derive(Default)]
struct Fate {
    cut: AtomicBool,
    vanish: AtomicBool,
    /// The client was told that no more answers come, and none do.
    deaf: AtomicBool,
    /// How long the next answer is held, in milliseconds.
    stall_ms: AtomicU64,
}

impl Line {
    pub(super) fn new(client: TcpStream, server: TcpStream) -> Self {
        Self { client, server, fate: Arc::default() }
    }

    pub(super) fn try_clone(&self) -> Result<Self> {
        Ok(Self {
            client: self.client.try_clone()?,
            server: self.server.try_clone()?,
            fate: Arc::clone(&self.fate),
        })
    }

    /// From the client to the server, packet by packet.
    pub(super) fn forward(&self, shared: &Shared) -> Result<()> {
        let (mut client, mut server) = (&self.client, &self.server);
        let mut packet = Vec::new();
        let mut previous = None;
        // ends when either side closes
        loop {
            let text = shared.wire.read(&mut client, previous.is_none(), &mut packet)?;
            let last = previous.get_or_insert_with(String::new);
            let mut trap = None;
            if let Some(text) = text {
                thread::sleep(Duration::from_micros(shared.delay_us.load(Ordering::SeqCst)));
                trap = shared.trap_for(last, &text);
                *last = text;
            }
            if trap.as_ref().is_some_and(|trap| !self.spring(trap)) {
                return Ok(());
            }
            server.write_all(&packet)?;
            match trap.map(|trap| trap.0.deed) {
                Some(Deed::DeafServer) => {
                    self.server.shutdown(Shutdown::Write).context("closing towards the server")?;
                    // what the client still says is lost on the way, without a word
                    std::io::copy(&mut client, &mut std::io::sink())?;
                    return Ok(());
                }
                Some(Deed::DeafClient) => {
                    self.client.shutdown(Shutdown::Write).context("closing towards the client")?;
                }
                _ => {}
            }
        }
    }

    /// What a trap does before its statement is passed on; false where it is not to be.
    fn spring(&self, trap: &Trap) -> bool {
        trap.0.sprung.fetch_add(1, Ordering::SeqCst);
        match trap.0.deed {
            Deed::Hold => trap.hold(),
            Deed::CutBefore => return false,
            Deed::CutAfter => self.fate.cut.store(true, Ordering::SeqCst),
            Deed::VanishAfter => self.fate.vanish.store(true, Ordering::SeqCst),
            Deed::StallBefore(time) => thread::sleep(time),
            Deed::StallAfter(time) => {
                let stall_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                self.fate.stall_ms.store(stall_ms, Ordering::SeqCst);
            }
            Deed::DeafClient => self.fate.deaf.store(true, Ordering::SeqCst),
            Deed::DeafServer => {}
        }
        true
    }

    /// From the server to the client, as it comes.
    pub(super) fn answer(&self) -> Result<()> {
        let (mut client, mut server) = (&self.client, &self.server);
        let mut buffer = [0_u8; 16 * 1024];
        loop {
            let length = server.read(&mut buffer)?;
            let doomed = [&self.fate.cut, &self.fate.vanish];
            if length == 0 || doomed.iter().any(|fate| fate.load(Ordering::SeqCst)) {
                return Ok(());
            }
            if self.fate.deaf.load(Ordering::SeqCst) {
                continue;
            }
            thread::sleep(Duration::from_millis(self.fate.stall_ms.swap(0, Ordering::SeqCst)));
            client.write_all(buffer.get(..length).unwrap_or_default())?;
        }
    }

    pub(super) fn close(&self) {
        let _gone = self.client.shutdown(Shutdown::Both);
        if !self.fate.vanish.load(Ordering::SeqCst) {
            let _gone = self.server.shutdown(Shutdown::Both);
        }
    }
}
