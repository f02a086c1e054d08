//! Who reads the changes elsewhere goes on with equal rows: a streaming replica and logical subscribers.
//! And what a run keeps vacuum from: nothing that is older than a chunk.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

mod postgres_steps;

#[path = "postgres_replicas/lag.rs"]
mod lag;
#[path = "postgres_replicas/snapshots.rs"]
mod snapshots;
#[path = "postgres_replicas/subscribers.rs"]
mod subscribers;

use std::time::Duration;

/// How long anything may take that a busy machine does in seconds.
const LIMIT: Duration = Duration::from_secs(300);

/// A conversion that takes its time and no processor: for one row in `one_in` a millisecond. So a copy
/// takes as long as a test needs, on every machine.
const SLOW: &str = "CREATE FUNCTION slow(text, one_in int) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ \
                    BEGIN IF hashtext($1) % one_in = 0 THEN PERFORM pg_sleep(0.001); END IF; RETURN $1; \
                    END $$";
