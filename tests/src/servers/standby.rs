//! PostgreSQL's replication: a standby that streams, and ways to hold it up on purpose.
//!
//! Owns the SQL for it; `pair` asks.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{pg, postgres, sql};

const LIMIT: Duration = Duration::from_secs(120);

/// Has the primary keep its log for the standby from now on.
pub(super) fn prepare(primary: &str) -> Result<()> {
    let slot = postgres::SLOT;
    pg::execute(
        primary,
        vec![format!("SELECT pg_create_physical_replication_slot('{slot}', true)")],
    )
}

/// Waits until the standby streams.
pub(super) fn wait_streaming(primary: &str) -> Result<()> {
    let ask = "SELECT state FROM pg_stat_replication WHERE application_name = 'replica'";
    sql::wait_until("the replica streams", LIMIT, || {
        let state: Option<String> = pg::first_value(primary, ask)?;
        Ok(state.as_deref() == Some("streaming"))
    })
}

/// Receives and does not replay.
pub(super) fn pause(replica: &str) -> Result<()> {
    pg::execute(replica, vec!["SELECT pg_wal_replay_pause()".to_owned()])?;
    sql::wait_until("replay pauses", LIMIT, || {
        let state: Option<String> =
            pg::first_value(replica, "SELECT pg_get_wal_replay_pause_state()")?;
        Ok(state.as_deref() == Some("paused"))
    })
}

/// Receives and replays, whatever was done to it before.
pub(super) fn resume(replica: &str, primary_port: u16) -> Result<()> {
    set(replica, "primary_conninfo", &postgres::primary_conninfo(primary_port))?;
    pg::execute(replica, vec!["SELECT pg_wal_replay_resume()".to_owned()])
}

/// Receives nothing more.
pub(super) fn cut_off(replica: &str) -> Result<()> {
    set(replica, "primary_conninfo", "")?;
    sql::wait_until("the replica stops to receive", LIMIT, || {
        let count: Option<i64> =
            pg::first_value(replica, "SELECT count(*) FROM pg_stat_wal_receiver")?;
        Ok(count == Some(0))
    })
}

/// Replays every commit so late; 0 ends that.
pub(super) fn delay(replica: &str, seconds: u32) -> Result<()> {
    set(replica, "recovery_min_apply_delay", &format!("{seconds}s"))
}

fn set(url: &str, name: &str, value: &str) -> Result<()> {
    let statements =
        [format!("ALTER SYSTEM SET {name} = '{value}'"), "SELECT pg_reload_conf()".to_owned()];
    pg::execute(url, statements.to_vec())
}

/// Waits until the standby has replayed all that was committed up to now.
pub(super) fn wait_caught_up(primary: &str, replica: &str, limit: Duration) -> Result<()> {
    // a commit of our own: everything before it is then in the log on disk, also commits that did
    // not wait for that
    let own = [
        "SET synchronous_commit = local",
        "SELECT pg_logical_emit_message(true, 'underpin-lab', '')",
    ];
    pg::execute(primary, own.map(str::to_owned).to_vec())?;
    let position: Option<String> =
        pg::first_value(primary, "SELECT pg_current_wal_flush_lsn()::text")?;
    let position = position.context("the primary has no position")?;
    let ask = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'::pg_lsn");
    let caught_up = sql::wait_until("the replica catches up", limit, || {
        Ok(pg::first_value(replica, &ask)?.unwrap_or(false))
    });
    let standby: Option<bool> = pg::first_value(replica, "SELECT pg_is_in_recovery()")?;
    ensure!(standby == Some(true), "the server at {replica} is no replica");
    caught_up
}
