//! Where reports go, and the clock that they bear.

use std::sync::Arc;

use tokio::time::Instant;

use crate::report::Report;

/// Where reports go. The function must not block for long: the run waits for it.
#[derive(Clone)]
pub struct Reporter {
    since: Instant,
    send: Arc<dyn Fn(Report) + Send + Sync>,
}

impl Reporter {
    /// Reports to `send`, counting time from now.
    pub fn new(send: impl Fn(Report) + Send + Sync + 'static) -> Self {
        Self { since: Instant::now(), send: Arc::new(send) }
    }

    /// Reports to nobody.
    pub fn silent() -> Self {
        Self::new(|_| {})
    }

    /// The same reporter, which lets `listen` hear each report before it is sent on.
    #[must_use]
    pub fn also(&self, listen: impl Fn(&Report) + Send + Sync + 'static) -> Self {
        let send = Arc::clone(&self.send);
        Self {
            since: self.since,
            send: Arc::new(move |report| {
                listen(&report);
                send(report);
            }),
        }
    }

    /// Milliseconds since this reporter was made.
    pub fn at_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Sends the report that `make` builds from the time, as
    /// `reporter.tell(|at_ms| Report::Resumed { at_ms })`.
    pub fn tell(&self, make: impl FnOnce(u64) -> Report) {
        (self.send)(make(self.at_ms()));
    }
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reporter").field("since", &self.since).finish_non_exhaustive()
    }
}
