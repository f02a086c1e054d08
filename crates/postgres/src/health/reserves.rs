//! What a server runs out of while a table is copied: log kept back for slots, log that waits to be
//! archived, log until the next checkpoint is forced. Each is one short question.

use underpin_core::signal::{ARCHIVE, CHECKPOINT, Reading, SLOT_BYTES, SLOT_SHARE, Unit};
use underpin_dialect::DbResult;

use super::gauges::Gauge;
use crate::connect::Session;
use crate::query::{cell, first, number, optional_cell, text};

const SLOTS: &str = "pg_replication_slots";
const ARCHIVER: &str = "pg_stat_archiver";
const CHECKPOINTS: &str = "log since the last checkpoint";

/// What is told of where the server cannot be asked.
pub(super) const SLOT_GAUGE: [Gauge; 2] = [
    Gauge { name: SLOT_BYTES, source: SLOTS, unit: Unit::Bytes },
    Gauge { name: SLOT_SHARE, source: SLOTS, unit: Unit::Permille },
];
pub(super) const ARCHIVE_GAUGE: [Gauge; 1] =
    [Gauge { name: ARCHIVE, source: ARCHIVER, unit: Unit::Count }];
pub(super) const CHECKPOINT_GAUGE: [Gauge; 1] =
    [Gauge { name: CHECKPOINT, source: CHECKPOINTS, unit: Unit::Permille }];

/// The slot that keeps back most, and what a slot may keep back at most (nothing where that is unbounded).
const WORST_SLOT: &str = "SELECT s.slot_name || ' (' || coalesce(s.wal_status, '?') || CASE WHEN s.active \
                          THEN ')' ELSE ', nobody reads it)' END, \
                          greatest(pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn), 0), \
                          nullif(greatest(m.bytes, 0), 0) \
                          FROM (SELECT pg_size_bytes(current_setting('max_slot_wal_keep_size'))) m(bytes) \
                          LEFT JOIN pg_replication_slots s ON s.restart_lsn IS NOT NULL \
                          ORDER BY s.restart_lsn LIMIT 1";

/// Bytes kept back for the worst slot, and which share of what may be kept that is: beyond it the server
/// gives the slot up, and whoever reads it must be built anew.
pub(super) async fn slots(session: &Session) -> DbResult<Vec<Reading>> {
    let attempted = "reading the slots of";
    let Some(row) = first(session, WORST_SLOT, attempted, "the server").await? else {
        return Ok(Vec::new());
    };
    let kept: f64 = optional_cell(&row, 1, attempted)?.unwrap_or(0.0);
    let name = text(&row, 0);
    let source = if name.is_empty() { "no slot".to_owned() } else { format!("slot {name}") };
    let mut readings = vec![Reading::new(SLOT_BYTES, "", &source, Unit::Bytes, kept)];
    if let Some(most) = optional_cell::<f64>(&row, 2, attempted)? {
        let share = kept * 1000.0 / most;
        readings.push(Reading::new(SLOT_SHARE, "", &source, Unit::Permille, share));
    }
    Ok(readings)
}

/// Segments that are full and not archived, told from the names of the current and the last archived one;
/// `?` where nothing has been archived yet. NULL where nothing is to be archived.
const TO_ARCHIVE: &str = "WITH known AS (SELECT CASE WHEN last_archived_wal ~ '^[0-9A-F]{24}' THEN \
                          left(last_archived_wal, 24) END AS last, \
                          pg_walfile_name(pg_current_wal_lsn()) AS current, \
                          4294967296 / pg_size_bytes(current_setting('wal_segment_size')) AS per_log \
                          FROM pg_stat_archiver) SELECT CASE \
                          WHEN current_setting('archive_mode') = 'off' THEN NULL \
                          WHEN last IS NULL THEN '?' ELSE greatest(0, \
                          (('x' || substr(current, 9, 8))::bit(32)::bigint - \
                          ('x' || substr(last, 9, 8))::bit(32)::bigint) * per_log + \
                          ('x' || substr(current, 17, 8))::bit(32)::bigint - \
                          ('x' || substr(last, 17, 8))::bit(32)::bigint - 1)::text END FROM known";

/// The same, counted; only `pg_monitor` may.
const READY: &str = "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'";

/// Segments that wait to be archived: beyond the disk the server stops.
pub(super) async fn archive(session: &Session) -> DbResult<Vec<Reading>> {
    let attempted = "reading what waits to be archived on";
    let row = first(session, TO_ARCHIVE, attempted, "the server").await?;
    let waiting = match row.map(|row| text(&row, 0)).unwrap_or_default().as_str() {
        "" => return Ok(Vec::new()),
        "?" => number(session, READY, attempted, "the server").await?,
        text => text.parse().unwrap_or(0),
    };
    // No server has as many segments as an `f64` is exact.
    #[allow(clippy::cast_precision_loss)]
    let waiting = waiting as f64;
    Ok(vec![Reading::new(ARCHIVE, "", ARCHIVER, Unit::Count, waiting)])
}

/// Log since the last checkpoint that has ended, in thousandths of the log after which one is forced.
const SINCE_CHECKPOINT: &str = "SELECT greatest(0, pg_wal_lsn_diff(pg_current_wal_lsn(), redo_lsn)) * \
                                1000 / (pg_size_bytes(current_setting('max_wal_size')) / (1 + \
                                current_setting('checkpoint_completion_target')::numeric)) \
                                FROM pg_control_checkpoint()";

/// How near the next forced checkpoint is. Beyond a thousand it has been asked for and is under way: so
/// this swings between one and two thousand where the server writes more than `max_wal_size` allows for.
pub(super) async fn checkpoint(session: &Session) -> DbResult<Vec<Reading>> {
    let attempted = "reading the checkpoints of";
    let row = first(session, SINCE_CHECKPOINT, attempted, "the server").await?;
    let Some(row) = row else { return Ok(Vec::new()) };
    let share: f64 = cell(&row, 0, attempted)?;
    Ok(vec![Reading::new(CHECKPOINT, "", CHECKPOINTS, Unit::Permille, share)])
}
