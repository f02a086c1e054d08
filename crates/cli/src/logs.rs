//! The log of what the program does, for who asks for it with `-v`.
//!
//! Owns the levels and the target. Without `-v` there is no log at all: what a user must know is a
//! report or an error. Other people's crates stay silent, because a driver may log what it sends.

use std::io;

use tracing_subscriber::EnvFilter;

/// The crates whose words are ours.
const OURS: [&str; 5] =
    ["underpin", "underpin_engine", "underpin_mysql", "underpin_postgres", "underpin_core"];

/// Begins to log to standard error: once `-v` is debug, twice is everything.
pub(crate) fn begin(verbose: u8) {
    let level = match verbose {
        0 => return,
        1 => "debug",
        _ => "trace",
    };
    let directives: Vec<String> = OURS.iter().map(|name| format!("{name}={level}")).collect();
    let filter = EnvFilter::new(directives.join(","));
    // A second subscriber cannot be set; then the first one goes on.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(false)
        .try_init();
}
