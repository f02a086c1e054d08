//! Ctrl-C and SIGTERM as requests, not as an end.
//!
//! Owns only that they are heard. SIGHUP is left alone on purpose: `nohup` works by ignoring it, and
//! whoever loses the terminal without `nohup` loses nothing, for the same command goes on.

use std::io;

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

/// From its making on, the signals do not end the program any more.
#[derive(Debug)]
pub(crate) struct Signals {
    #[cfg(unix)]
    interrupt: Signal,
    #[cfg(unix)]
    terminate: Signal,
}

impl Signals {
    /// Begins to listen. Needs a run time.
    ///
    /// # Errors
    /// The system does not let us.
    #[cfg(unix)]
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one. May be dropped while it waits.
    #[cfg(unix)]
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Begins to listen.
    ///
    /// # Errors
    /// None here; on Unix the system may refuse.
    #[cfg(not(unix))]
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Waits for the next one. May be dropped while it waits.
    #[cfg(not(unix))]
    pub(crate) async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_signals_are_heard_and_end_nothing() {
        let mut signals = Signals::listen().unwrap();
        for name in ["INT", "TERM"] {
            let kill = std::process::Command::new("kill")
                .args(["-s", name, &std::process::id().to_string()])
                .status()
                .unwrap();
            assert!(kill.success());
            let wait = std::time::Duration::from_secs(10);
            tokio::time::timeout(wait, signals.next()).await.expect(name);
        }
    }
}
