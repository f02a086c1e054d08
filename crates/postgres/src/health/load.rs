//! How busy the server is, by its own tables: what runs, what waits for a lock, and how old the oldest
//! snapshot is. Our own sessions are not counted.

use underpin_core::signal::{HISTORY, LOCK_WAITS, RUNNING, Reading, Unit};
use underpin_dialect::DbResult;

use super::gauges::Gauge;
use crate::connect::Session;
use crate::query::{cell, first, flag};

/// Each with how it is read.
const ACTIVITY: &str = "pg_stat_activity";
const HORIZON: &str = "age of the oldest xmin";

/// Reads all three at once. `ours` are the processes of our own sessions.
pub(super) async fn read(session: &Session, ours: &[u32]) -> DbResult<Vec<Reading>> {
    let attempted = "reading the load of";
    let row = first(session, &sql(ours), attempted, "the server").await?;
    let Some(row) = row.filter(|row| flag(row, 0)) else {
        // Of other roles' sessions this one would see neither what they do nor their snapshots.
        return Ok(Vec::new());
    };
    Ok(vec![
        Reading::new(RUNNING, "", ACTIVITY, Unit::Count, cell(&row, 1, attempted)?),
        Reading::new(LOCK_WAITS, "", ACTIVITY, Unit::Count, cell(&row, 2, attempted)?),
        Reading::new(HISTORY, "", HORIZON, Unit::Count, cell(&row, 3, attempted)?),
    ])
}

/// What is told of where the server cannot be asked.
pub(super) const GAUGE: [Gauge; 3] = [
    Gauge { name: RUNNING, source: ACTIVITY, unit: Unit::Count },
    Gauge { name: LOCK_WAITS, source: ACTIVITY, unit: Unit::Count },
    Gauge { name: HISTORY, source: HORIZON, unit: Unit::Count },
];

/// What holds back vacuum in this database: its own sessions and prepared transactions, and standbys and
/// slots that say so for all databases.
fn sql(ours: &[u32]) -> String {
    let ours: String = ours.iter().map(|pid| format!(", {pid}")).collect();
    format!(
        "SELECT pg_has_role('pg_read_all_stats', 'USAGE'), \
         count(*) FILTER (WHERE client AND state = 'active'), \
         count(*) FILTER (WHERE client AND state = 'active' AND wait_event_type = 'Lock'), \
         coalesce(greatest(max(greatest(age(backend_xmin), age(backend_xid))) FILTER (WHERE here), \
         (SELECT max(age(transaction)) FROM pg_prepared_xacts WHERE database = current_database()), \
         (SELECT max(age(xmin)) FROM pg_replication_slots)), 0) \
         FROM (SELECT *, backend_type = 'client backend' AS client, \
         datname = current_database() OR backend_type = 'walsender' AS here \
         FROM pg_stat_activity WHERE coalesce(leader_pid, pid) NOT IN (pg_backend_pid(){ours})) AS others"
    )
}
