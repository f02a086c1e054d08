//! The server's statistics of the table's statements: taken before a run and after its swap, on a
//! connection of their own that nothing waits for.
//!
//! Owns when they are taken and for how long at most. What they say is `core::statements`'.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use underpin_core::statements::{Comparison, StatementStats, compare};
use underpin_dialect::{Database, Inspect, Shadow};

/// Bound on one sample. Beyond it there is none: a server that is so busy is not to be asked more.
const SAMPLE_MAX: Duration = Duration::from_secs(10);

/// Texts are cut here: they are kept with the run.
const TEXT_BYTES_MAX: usize = 1000;

/// Kinds of statement that are kept, the costliest first.
const STATEMENTS_MAX: usize = 200;

/// A comparison under way. It ends by itself.
pub(crate) type Comparing = JoinHandle<Option<Comparison>>;

/// One sample; `None` where the server keeps none, shows none, or does not answer in time.
pub(crate) async fn sample<D: Database>(
    db: &D,
    schema: &str,
    table: &str,
) -> Option<Vec<StatementStats>> {
    let mut control = match timeout(SAMPLE_MAX, db.control()).await {
        Ok(Ok(control)) => control,
        Ok(Err(error)) => {
            tracing::debug!(%error, "no connection for the statistics of statements");
            return None;
        }
        Err(_) => return None,
    };
    let session = control.control_session();
    match timeout(SAMPLE_MAX, control.statements(schema, table)).await {
        Ok(Ok(sample)) => sample.map(bounded),
        Ok(Err(error)) => {
            tracing::debug!(%error, "no statistics of statements");
            None
        }
        Err(_) => {
            // It only reads; but it should not go on for nobody.
            let _ = timeout(SAMPLE_MAX, db.cancel(session)).await;
            None
        }
    }
}

/// Begins to watch what the statements cost after the swap.
pub(crate) fn watch_after<D: Database>(
    db: &Arc<D>,
    schema: &str,
    table: &str,
    before: Vec<StatementStats>,
    after: Duration,
) -> Comparing {
    let (db, schema, table) = (Arc::clone(db), schema.to_owned(), table.to_owned());
    tokio::spawn(async move {
        let at_swap = sample(&*db, &schema, &table).await?;
        sleep(after).await;
        let after = sample(&*db, &schema, &table).await?;
        Some(compare(&before, &at_swap, &after))
    })
}

/// The costliest, their texts cut.
fn bounded(mut sample: Vec<StatementStats>) -> Vec<StatementStats> {
    sample.sort_by(|a, b| b.total_ms.total_cmp(&a.total_ms));
    sample.truncate(STATEMENTS_MAX);
    for stats in &mut sample {
        let mut end = std::cmp::min(stats.text.len(), TEXT_BYTES_MAX);
        while !stats.text.is_char_boundary(end) {
            end -= 1;
        }
        stats.text.truncate(end);
    }
    sample
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_bounded() {
        let many = (0..300_u32)
            .map(|i| StatementStats {
                digest: i.to_string(),
                text: "ä".repeat(501),
                total_ms: f64::from(i),
                ..StatementStats::default()
            })
            .collect();
        let kept = bounded(many);
        assert_eq!((kept.len(), kept[0].digest.as_str()), (200, "299"));
        assert_eq!(kept[0].text.len(), 1000);
        let odd = bounded(vec![StatementStats {
            text: format!("x{}", "ä".repeat(500)),
            ..StatementStats::default()
        }]);
        assert_eq!(odd[0].text.len(), 999, "no character is cut in two");
    }
}
