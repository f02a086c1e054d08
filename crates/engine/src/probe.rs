//! The probe's task: reads lag, backlog and requests twice a second, on a connection of its own that
//! it makes anew by itself.
//!
//! A probe that fails never ends the run: it is told as a lag that cannot be read, so the copy waits
//! and says why.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use underpin_core::plan::RunSpec;
use underpin_core::signal::{self, LAG, Unit};
use underpin_dialect::{Database, DbError, DbResult, Order, Probe};

/// Time between two rounds of readings.
const EVERY: Duration = Duration::from_millis(500);

/// Longest wait between two tries to connect.
const RECONNECT_WAIT_MAX: Duration = Duration::from_secs(5);

/// Bound on one round of readings. Beyond it the connection is dropped: it only reads, and a request
/// that is lost by it is left again by whoever waits for it.
const ROUND_MAX: Duration = Duration::from_secs(30);

/// Something the probe has read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reading {
    Backlog(u64),
    Requested(Order),
    /// Comes last in each round of readings.
    Signals(Vec<signal::Reading>),
}

/// Starts the probe. It ends when nobody listens any more.
pub(crate) fn start<D: Database>(
    db: Arc<D>,
    spec: Arc<RunSpec>,
) -> (mpsc::Receiver<Reading>, JoinHandle<()>) {
    let (readings, listener) = mpsc::channel(16);
    (listener, tokio::spawn(watch(db, spec, readings)))
}

async fn watch<D: Database>(db: Arc<D>, spec: Arc<RunSpec>, readings: mpsc::Sender<Reading>) {
    let mut slot: Option<D::Probe> = None;
    let mut failures = 0_u32;
    while !readings.is_closed() {
        let round = timeout(ROUND_MAX, read_round(&*db, &spec, &mut slot, &readings));
        let error = match round.await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {} s", ROUND_MAX.as_secs())),
        };
        if let Some(why) = error {
            tracing::debug!(%why, "the probe failed");
            slot = None;
            failures = failures.saturating_add(1);
            let _ = readings.send(Reading::Signals(vec![unreadable(&why)])).await;
        } else {
            failures = 0;
        }
        let wait = EVERY.saturating_mul(std::cmp::max(failures, 1));
        sleep(std::cmp::min(wait, RECONNECT_WAIT_MAX)).await;
    }
}

/// One reading of each kind. An error means that the connection is to be made anew, or that the lag
/// cannot be told.
async fn read_round<D: Database>(
    db: &D,
    spec: &Arc<RunSpec>,
    slot: &mut Option<D::Probe>,
    readings: &mpsc::Sender<Reading>,
) -> DbResult<()> {
    let probe = match slot {
        Some(probe) => probe,
        None => slot.insert(db.probe(spec).await?),
    };
    // Before `prepare` and after `finish` there is no log: that is no fault of the connection.
    if let Some(entries) = unless_lost(probe.backlog().await)? {
        let _ = readings.send(Reading::Backlog(entries)).await;
    }
    for order in unless_lost(probe.requested().await)?.unwrap_or_default() {
        let _ = readings.send(Reading::Requested(order)).await;
    }
    let signals = probe.signals(&[]).await?;
    let _ = readings.send(Reading::Signals(signals)).await;
    Ok(())
}

fn unless_lost<T>(result: Result<T, DbError>) -> DbResult<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_ambiguous() => Err(error),
        Err(error) => {
            tracing::debug!(%error, "a reading of the probe failed");
            Ok(None)
        }
    }
}

/// A lag that cannot be read counts as infinite, so the copy waits: it fails closed.
fn unreadable(why: &str) -> signal::Reading {
    signal::Reading::unreadable(LAG, "(list of replicas)", "probe", Unit::Ms, why)
}
