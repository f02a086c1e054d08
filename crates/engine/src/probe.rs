//! The probes' tasks, each on a connection of its own that it makes anew by itself: one reads signals
//! twice a second, the other takes orders four times a second, reads the backlog and makes known how the
//! run fares. Two, so that a replica that does not answer holds up no order.
//!
//! A probe that fails never ends the run: it is told as a lag that cannot be read, so the copy waits
//! and says why.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use underpin_core::plan::RunSpec;
use underpin_core::signal::{self, LAG, UNREAD, Unit};
use underpin_dialect::{Database, DbError, DbResult, Order, OwnQuery, Probe};

use crate::own_signals::Watcher;

/// Time between two rounds of readings.
const READ_EVERY: Duration = Duration::from_millis(500);

/// Time between two looks for orders: with what is in flight they take effect within a second.
const ORDERS_EVERY: Duration = Duration::from_millis(250);

/// Longest wait between two tries to connect.
const RECONNECT_WAIT_MAX: Duration = Duration::from_secs(5);

/// Bound on one round of readings. Beyond it the connection is dropped: it only reads.
const ROUND_MAX: Duration = Duration::from_secs(30);

/// Bound on one look for orders. One that is taken away by a dropped look is found again with all others
/// when the run is entered anew.
const ORDERS_MAX: Duration = Duration::from_secs(10);

/// Something that a probe has read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reading {
    Backlog(u64),
    Requested(Order),
    Signals(Vec<signal::Reading>),
}

/// Starts the probes. They end when nobody listens any more. `live`: what is to be made known.
pub(crate) fn start<D: Database>(
    db: &Arc<D>,
    spec: &Arc<RunSpec>,
    own: (Vec<OwnQuery>, Watcher),
    live: watch::Receiver<String>,
) -> (mpsc::Receiver<Reading>, [JoinHandle<()>; 2]) {
    let (readings, listener) = mpsc::channel(16);
    let reader = read_signals(Arc::clone(db), Arc::clone(spec), own, readings.clone());
    let steward = take_orders(Arc::clone(db), Arc::clone(spec), live, readings);
    (listener, [tokio::spawn(reader), tokio::spawn(steward)])
}

async fn read_signals<D: Database>(
    db: Arc<D>,
    spec: Arc<RunSpec>,
    (queries, own): (Vec<OwnQuery>, Watcher),
    readings: mpsc::Sender<Reading>,
) {
    let mut slot: Option<D::Probe> = None;
    let mut failures = 0_u32;
    while !readings.is_closed() {
        let round = async {
            let probe = connected(&*db, &spec, &mut slot).await?;
            let mut signals = probe.signals(&queries).await?;
            signals.extend(own.readings());
            let _ = readings.send(Reading::Signals(signals)).await;
            Ok(())
        };
        if let Err(why) = bounded(ROUND_MAX, round).await {
            tracing::debug!(%why, "the probe failed");
            slot = None;
            failures = failures.saturating_add(1);
            let signals = std::iter::once(unreadable(&why)).chain(own.readings()).collect();
            let _ = readings.send(Reading::Signals(signals)).await;
        } else {
            failures = 0;
        }
        sleep(rest(READ_EVERY, failures)).await;
    }
}

async fn take_orders<D: Database>(
    db: Arc<D>,
    spec: Arc<RunSpec>,
    mut live: watch::Receiver<String>,
    readings: mpsc::Sender<Reading>,
) {
    let mut slot: Option<D::Probe> = None;
    let mut failures = 0_u32;
    let mut round_number = 0_u64;
    while !readings.is_closed() {
        round_number = round_number.wrapping_add(1);
        let round = async {
            let probe = connected(&*db, &spec, &mut slot).await?;
            for order in unless_lost(probe.requested().await)?.unwrap_or_default() {
                let _ = readings.send(Reading::Requested(order)).await;
            }
            // Before `prepare` and after `finish` there is no log: that is no fault of the connection.
            if round_number.is_multiple_of(2)
                && let Some(entries) = unless_lost(probe.backlog().await)?
            {
                let _ = readings.send(Reading::Backlog(entries)).await;
            }
            if live.has_changed().unwrap_or(false) {
                let text = live.borrow_and_update().clone();
                unless_lost(probe.publish(&text).await)?;
            }
            Ok(())
        };
        if let Err(why) = bounded(ORDERS_MAX, round).await {
            tracing::debug!(%why, "looking for orders failed");
            slot = None;
            failures = failures.saturating_add(1);
        } else {
            failures = 0;
        }
        sleep(rest(ORDERS_EVERY, failures)).await;
    }
}

/// The probe's connection, made where there is none.
async fn connected<'a, D: Database>(
    db: &D,
    spec: &Arc<RunSpec>,
    slot: &'a mut Option<D::Probe>,
) -> DbResult<&'a mut D::Probe> {
    Ok(match slot {
        Some(probe) => probe,
        None => slot.insert(db.probe(spec).await?),
    })
}

async fn bounded(limit: Duration, round: impl Future<Output = DbResult<()>>) -> Result<(), String> {
    match timeout(limit, round).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", limit.as_secs())),
    }
}

fn rest(every: Duration, failures: u32) -> Duration {
    std::cmp::min(every.saturating_mul(std::cmp::max(failures, 1)), RECONNECT_WAIT_MAX)
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
    signal::Reading::unreadable(LAG, UNREAD, "probe", Unit::Ms, why)
}
