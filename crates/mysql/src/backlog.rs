//! How long the log is: counted while it is short, estimated by its ids where it is long.
//!
//! It is asked every second, and where it is long the server has more urgent things to do than count.

use mysql_async::Conn;
use underpin_dialect::{DbError, DbResult, ErrorKind};

use crate::query::{cell, first};

/// Entries that are counted; what is beyond them is estimated.
const COUNTED_MAX: u64 = 10_000;

/// Counts the entries of `log` (a quoted name) from the id `from` on. Exact up to [`COUNTED_MAX`]; beyond
/// them the rest is taken to be as dense in its ids as they are.
///
/// # Errors
/// What the server said; [`ErrorKind::NotFound`] where there is no log.
pub(crate) async fn count(
    conn: &mut Conn,
    log: &str,
    from: u64,
    attempted: &'static str,
    object: &str,
) -> DbResult<u64> {
    let sql = format!(
        "SELECT COUNT(*), COALESCE(MIN(p.id), 0), COALESCE(MAX(p.id), 0), \
         (SELECT COALESCE(MAX(l.id), 0) FROM {log} AS l) \
         FROM (SELECT id FROM {log} WHERE id >= {from} ORDER BY id LIMIT {COUNTED_MAX}) AS p"
    );
    let Some(row) = first(conn, &sql, attempted, object).await? else {
        return Err(DbError::new(ErrorKind::Other, attempted, object));
    };
    let at = |index: usize| cell::<u64>(&row, index, attempted);
    Ok(estimate(at(0)?, (at(1)?, at(2)?), at(3)?))
}

/// `counted` entries have ids from `ids.0` to `ids.1`; the last of all has the id `last`.
fn estimate(counted: u64, ids: (u64, u64), last: u64) -> u64 {
    if counted < COUNTED_MAX {
        return counted;
    }
    let width = ids.1.saturating_sub(ids.0).saturating_add(1);
    let beyond = u128::from(last.saturating_sub(ids.1)) * u128::from(counted) / u128::from(width);
    counted.saturating_add(u64::try_from(beyond).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_log_is_counted_whatever_its_ids() {
        assert_eq!(estimate(0, (0, 0), 0), 0);
        assert_eq!(estimate(9_999, (1, 5_000_000), 5_000_000), 9_999);
    }

    #[test]
    fn a_long_one_is_as_dense_further_on() {
        assert_eq!(estimate(10_000, (1, 10_000), 10_000), 10_000);
        assert_eq!(estimate(10_000, (1, 10_000), 300_000), 300_000);
        // Every second id, as where two servers draw them in turn.
        assert_eq!(estimate(10_000, (1, 20_000), 40_000), 20_000);
        assert_eq!(estimate(10_000, (1, 10_000), 0), 10_000, "read a moment earlier");
        assert!(estimate(10_000, (1, 10_000), u64::MAX) > 1 << 60);
    }
}
